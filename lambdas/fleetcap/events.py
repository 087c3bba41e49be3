"""The event ECS sends when a task changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetcap.keys import SPOT_INTERRUPTION
from fleetcap.model import Stop
from fleetcap.scrub import scrubbed


@dataclass(frozen=True)
class TaskStopped:
    """A task reached STOPPED. `started_by` is the lease it was launched under, for tasks of ours."""

    arn: str
    started_by: str
    stop: Stop


@dataclass(frozen=True)
class SpotWarning:
    """Fargate Spot takes a task's capacity back in two minutes. The task lives until then."""

    arn: str
    started_by: str


def task_change(event: Mapping[str, Any]) -> TaskStopped | SpotWarning | None:
    """Read an ECS Task State Change event; None if it is neither of the two. `containers` may be empty."""
    detail = event["detail"]
    if detail.get("lastStatus") != "STOPPED":
        warned = detail.get("stopCode") == SPOT_INTERRUPTION
        return SpotWarning(detail["taskArn"], detail.get("startedBy") or "") if warned else None
    containers = detail.get("containers") or []
    reasons = [detail.get("stoppedReason"), *(container.get("reason") for container in containers)]
    exits = [container["exitCode"] for container in containers if container.get("exitCode") is not None]
    reason = scrubbed(" ".join(dict.fromkeys(filter(None, reasons))))  # it ends up in jobs' errors, which are events
    stop = Stop(detail.get("stopCode") or "", reason, max(exits, default=None))
    return TaskStopped(detail["taskArn"], detail.get("startedBy") or "", stop)
