"""Why a job waits: one function answers for any job, in one sentence."""

from __future__ import annotations

from fleetcap import limits
from fleetcap.decide import capacity
from fleetcap.model import Job, JobStatus, Mode, SlotState


def why(job: Job, view: capacity.View) -> str:
    """What the job waits for, as far as `view`, all of its pool's slots and the first of its queue, can tell.

    Empty for a job that does not wait.
    """
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
