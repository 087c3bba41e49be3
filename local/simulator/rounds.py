"""A worker of the simulator: the production one, spared the looks for jobs that are certain to find none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker_image.worker import Worker


class SparedWorker(Worker):
    """A worker that has a lane free looks for jobs by the hour. A look that can find nothing is left out here.

    `in_vain` answers whether a look would, at this moment, be answered at once, and that nothing waits. Only what such
    a look leaves behind is done: when the next one is due.
    """

    def __init__(self, *parts: Any, in_vain: Callable[[], bool]) -> None:  # noqa: ANN401 - those of a worker
        super().__init__(*parts)
        self._in_vain = in_vain

    def dozes(self) -> float:
        """For how long it sleeps on, where all that it would wake for is a look in vain; 0 where it has to wake."""
        if self._lanes or self._claim or self._troubles or self._reason_to_leave() or not self._vouched_for:
            return 0.0
        now = self._clock.now()
        if now >= self._beat_at:
            return 0.0
        if now >= self._look_due_at:
            if not self._looks_in_vain():
                return 0.0
            self._look_later()
        return self._pause()

    def _take_one(self, lane: int, now: float) -> bool:
        return not self._looks_in_vain() and super()._take_one(lane, now)

    def _looks_in_vain(self) -> bool:
        if not self._in_vain():
            return False
        self._clock.uniform(0.0, 0.0)  # a look draws at whom of nobody it begins
        return True
