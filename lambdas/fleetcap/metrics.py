"""Every metric of the deployment, named once. A metric is a field of a log line; CloudWatch Logs makes it a metric.

Who decides or acts logs a line with figures in it, and knows nothing of CloudWatch. The adapter of the log adds the
`_aws` member of the embedded metric format, which says which fields are metrics. So a metric costs no request, no line
and no library, and whoever reads the log sees the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

POOL: Final = "pool"
"""The one dimension, and the field that holds it. What is counted for the deployment as a whole has none."""
COUNT: Final = "Count"
SECONDS: Final = "Seconds"

EMBEDDED: Final = "_aws"
METRICS_PER_LINE: Final = 100
"""The format takes no more; the metrics are fewer."""


@dataclass(frozen=True)
class Metric:
    """A field that is a metric: its name, its unit in CloudWatch's words, its dimension or ""."""

    name: str
    unit: str
    dimension: str = POOL


ALL: Final = (
    Metric("cap", COUNT),
    Metric("slots_empty", COUNT),
    Metric("slots_launching", COUNT),
    Metric("slots_ready", COUNT),
    Metric("cap_headroom", COUNT),
    Metric("reservations_pending", COUNT),
    Metric("reservations_assigned", COUNT),
    Metric("reservations_expired", COUNT),
    Metric("queue_depth", COUNT),
    Metric("oldest_wait_s", SECONDS),
    Metric("unserved_wait_s", SECONDS),
    Metric("launch_strikes", COUNT),
    Metric("tick_duration_s", SECONDS),
    Metric("launches_started", COUNT),
    Metric("launches_failed", COUNT),
    Metric("launches_unanswered", COUNT),
    Metric("time_to_worker_s", SECONDS),
    Metric("attempts_completed", COUNT),
    Metric("attempts_failed", COUNT),
    Metric("attempts_timeout", COUNT),
    Metric("attempts_permanent", COUNT),
    Metric("attempts_interrupted", COUNT),
    Metric("attempts_cancelled", COUNT),
    Metric("cap_breaches", COUNT, dimension=""),
    Metric("foreign_tasks", COUNT, dimension=""),
    Metric("unresolved_launches", COUNT, dimension=""),
    Metric("tick_failures", COUNT, dimension=""),
)
BY_NAME: Final[Mapping[str, Metric]] = {metric.name: metric for metric in ALL}


def embedded(fields: Mapping[str, object], namespace: str, now: float) -> dict[str, object]:
    """The member that makes metrics of a line's fields; empty where none of them is one, or nobody wants metrics.

    `now` is unix seconds. Raises ValueError where a metric is no figure, or its dimension is not in the line.
    """
    found = [metric for metric in ALL if metric.name in fields] if namespace else []
    if not found:
        return {}
    for metric in found:
        if isinstance(value := fields[metric.name], bool) or not isinstance(value, int | float):
            raise ValueError(f"{metric.name} is {value!r}, but a metric is a figure")
        if metric.dimension and not (isinstance(within := fields.get(metric.dimension), str) and within):
            raise ValueError(f"{metric.name} is told by {metric.dimension}, and the line does not say of which")
    directives = [
        {
            "Namespace": namespace,
            "Dimensions": [[dimension] if dimension else []],
            "Metrics": [{"Name": metric.name, "Unit": metric.unit} for metric in metrics],
        }
        for dimension, metrics in groupby(found, key=lambda metric: metric.dimension)
    ]
    return {EMBEDDED: {"Timestamp": int(now * 1_000), "CloudWatchMetrics": directives}}
