"""The real clock, the real chance, and a log of JSON lines: the only place where the product reads either."""

from __future__ import annotations

import json
import random
import sys
import time
import uuid


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
    """ports.Log as JSON lines on stderr, each with what holds for the whole process."""

    def __init__(self, **context: object) -> None:
        self._context = context

    def __call__(self, event: str, **fields: object) -> None:
        line = {"message": event, "time": round(time.time(), 3), **self._context, **fields}
        print(json.dumps(line, default=str), file=sys.stderr, flush=True)  # noqa: T201 - this is the log
