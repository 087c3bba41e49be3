"""Why a job waits: one function answers for any job, in one sentence."""

from __future__ import annotations

from fleetcap.decide import capacity
from fleetcap.limits import DAY_S
from fleetcap.model import Job, JobStatus, SlotState


def why(job: Job, view: capacity.View) -> str:
    """What the job waits for, as far as `view`, all of its pool's slots and the first of its queue, can tell.

    Empty for a job that does not wait.
    """
    if job.status is not JobStatus.QUEUED:
        return ""
    if job.due_at > view.now:
        return f"it is tried again at {clock_time(job.due_at)}"
    if any(slot.for_job == job.key and slot.state is SlotState.LAUNCHING for slot in view.slots):
        return "its worker is starting"
    ahead = sum(other.rank < job.rank for other in view.queued)
    behind = f"behind {ahead} job{'' if ahead == 1 else 's'}" if ahead else "next in its queue"
    if wait := capacity.full(view.pool, view.slots, view.now, view.share):
        until = f"; next try {clock_time(wait.until)}" if wait.until else ""
        return f"{wait.reason}{until}; {behind}"
    coming = sum(slot.state is SlotState.LAUNCHING and not capacity.leaving(slot) for slot in view.slots)
    if coming:
        return f"{coming} worker{' is' if coming == 1 else 's are'} starting; {behind}"
    return f"a worker is about to take it, or to be started; {behind}"


def clock_time(at: float) -> str:
    """A moment within the day, as `12:04:10 UTC`."""
    minutes, seconds = divmod(int(at % DAY_S), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02} UTC"
