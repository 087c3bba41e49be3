"""A worker of the simulator: the production one, spared the looks for jobs that are certain to find none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker_image.worker import Worker


class SparedWorker(Worker):
    """An idle worker that is told to stay looks for jobs by the hour. A look that can find nothing is left out here.

    `in_vain` answers whether a look would, at this moment, be answered at once, and that nothing waits. Only what such
    a look leaves behind is done: when the next one is due. A round in which anything else is due goes its usual way.
    """

    def __init__(self, *parts: Any, in_vain: Callable[[], bool]) -> None:  # noqa: ANN401 - those of a worker
        super().__init__(*parts)
        self._in_vain = in_vain

    def _pass(self) -> str | None:
        if self._only_looks() and self._in_vain():
            self._clock.uniform(0.0, 0.0)  # a look draws at whom of nobody it begins
            self._look_at = self._clock.now() + self._settings.look_s * self._clock.uniform(0.8, 1.2)
            return None
        return super()._pass()

    def _only_looks(self) -> bool:
        """Whether this round of the loop looks for jobs and does nothing else."""
        now = self._clock.now()
        if self._lanes or self._claim or self._troubles or not self._look_due_at <= now < self._beat_at:
            return False
        return not self._reason_to_leave()  # as there would be for one that does not serve
