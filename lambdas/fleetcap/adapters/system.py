"""The real clock, the real chance, and a log of JSON lines: the only place where the product reads either."""

from __future__ import annotations

import json
import random
import sys
import time
import uuid

from fleetcap import metrics
from fleetcap.scrub import scrubbed_field


class SystemClock:
    """ports.Clock on the machine's clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - spreads load, guards nothing

    def unique(self) -> str:
        return uuid.uuid4().hex


class LineLog:
    """ports.Log as JSON lines on stderr, each with what holds for the whole process, and no secret in any.

    Figures among the fields are metrics of this namespace, if there is one.
    """

    def __init__(self, metrics_namespace: str = "", **context: object) -> None:
        self._namespace = metrics_namespace
        self._context = {name: scrubbed_field(value) for name, value in context.items()}

    def __call__(self, event: str, **fields: object) -> None:
        told = {name: scrubbed_field(value) for name, value in fields.items()}
        now = time.time()
        line = {"message": event, "time": round(now, 3), **self._context, **told}
        line |= metrics.embedded(fields, self._namespace, now)
        print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201 - this is the log
