"""What becomes of a job: written alike by deciders, workers and people."""

from __future__ import annotations

from fleetcap import limits
from fleetcap.decide import retry
from fleetcap.model import Job, JobStatus
from fleetcap.ports import Clock, Jobs


class Contended(Exception):
    """The job changed under every attempt to write it."""


def settle(table: Jobs, job: Job, outcome: retry.Outcome, now: float, op: str) -> bool:
    """Write what becomes of a RUNNING job whose attempt did not end well. False: it is not ours, or to be cancelled."""
    match outcome:
        case retry.Requeue(due_at, error, attempt):
            return table.requeue(job, due_at, error, attempt, op)
        case retry.GiveUp(error, attempt):
            return table.finish(job, JobStatus.FAILED, now, error, (), op, attempt)
        case retry.Cancel(error):
            return table.finish(job, JobStatus.CANCELLED, now, error, (), op)


def cancel(table: Jobs, clock: Clock, key: str, reason: str, known: Job | None = None) -> Job | None:
    """End a QUEUED job at once, and ask the holder of a RUNNING one to end it, which takes it seconds.

    `known` is the job as it was just read. Returns the job as it was found: None where there is none; one that has
    ended is left as it is. Repeatable. Raises Contended where others changed the job each time, and whatever the table
    raises.
    """
    for _ in range(limits.CANCEL_ROUNDS):
        job, known = known or table.job(key), None
        if job is None or job.ended:
            return job
        if job.status is JobStatus.RUNNING:
            asked = table.cancel(job, reason)
        else:
            error = f"cancelled: {reason}"
            asked = table.finish(job, JobStatus.CANCELLED, clock.now(), error, (), clock.unique())
        if asked:
            return job
    raise Contended(f"{key} changed under each of {limits.CANCEL_ROUNDS} attempts to cancel it; try again")
