"""Why a job waits: one function answers for any job, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetcap import limits
from fleetcap.decide import capacity
from fleetcap.model import Job, JobStatus, Mode, SlotState

_PARENTS_NAMED: Final = 3


def why(job: Job, view: capacity.View, parents: Mapping[str, Job] | None = None) -> str:
    """What the job waits for, as far as `view`, all of its pool's slots and the first of its queue, can tell.

    `parents`: those of the jobs that it depends on that are known, by key. Empty for a job that does not wait.
    """
    if job.status is JobStatus.WAITING:
        return _for_others(job, parents or {})
    if job.status is not JobStatus.QUEUED:
        return ""
    if job.due_at > view.now:
        return f"it is tried again at {clock_time(job.due_at)}"
    wait = capacity.full(view.pool, view.slots, view.now, view.share)
    coming = [slot for slot in view.slots if slot.state is SlotState.LAUNCHING and not capacity.leaving(slot)]
    if view.pool.mode is Mode.OPEN and any(slot.for_job == job.key for slot in coming):
        return "its worker is starting"
    behind = _behind(sum(other.rank < job.rank for other in view.queued))
    return f"{_what(wait, len(coming))}; {behind}"


def _for_others(job: Job, parents: Mapping[str, Job]) -> str:
    if job.request.array:
        return f"it ends when its {job.request.array:,} elements have"
    wanted = job.request.depends_on
    pending = [key for key in wanted if key not in parents or not parents[key].ended]
    if not pending:
        return "all that it depends on have ended, and it is about to hear of it"
    named = [key if key in parents else f"{key} (not known yet)" for key in pending[:_PARENTS_NAMED]]
    more = f" and {len(pending) - _PARENTS_NAMED} more" if len(pending) > _PARENTS_NAMED else ""
    return f"waiting for {len(pending)} of {len(wanted)} that it depends on: {', '.join(named)}{more}"


def _what(wait: capacity.Wait | None, coming: int) -> str:
    if wait:
        return f"{wait.reason}; next try {clock_time(wait.until)}" if wait.until else wait.reason
    if coming:
        return f"{coming} worker{' is' if coming == 1 else 's are'} starting"
    return "a worker is about to take it, or to be started"


def _behind(ahead: int) -> str:
    if ahead >= limits.QUEUED_SHOWN:
        return f"behind {ahead:,} jobs or more"
    return f"behind {ahead:,} job{'' if ahead == 1 else 's'}" if ahead else "next in its queue"


def clock_time(at: float) -> str:
    """A moment within the day, as `12:04:10 UTC`."""
    minutes, seconds = divmod(int(at % limits.DAY_S), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02} UTC"
