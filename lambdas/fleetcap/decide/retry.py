"""What becomes of a job whose attempt did not end well: each class of failure has its own bound."""

from __future__ import annotations

from dataclasses import dataclass

from fleetcap import limits
from fleetcap.decide.backoff import due_at
from fleetcap.model import Attempt, FailureClass, Job


@dataclass(frozen=True)
class Requeue:
    """Back into the queue, due then."""

    due_at: float
    error: str
    attempt: Attempt


@dataclass(frozen=True)
class GiveUp:
    """The run ends FAILED."""

    error: str
    attempt: Attempt


@dataclass(frozen=True)
class Cancel:
    """The run ends CANCELLED: somebody asked for it while the attempt was under way."""

    error: str


Outcome = Requeue | GiveUp | Cancel


def after(job: Job, failure: FailureClass, error: str, now: float, jitter: float) -> Outcome:
    """Decide on a RUNNING job whose attempt ended with this error.

    An interruption costs no attempt and goes back at once, a bounded number of times. What the job itself did is tried
    again later each time, until its attempts are used up; a timeout, at most once more; bad input, never.
    """
    if job.cancel:
        return cancelled(job)
    ended = Attempt(job.attempt, failure, error, job.task, job.claimed_at, now)
    if _spent(job, failure):
        return GiveUp(_last_word(job, failure, error), ended)
    if failure is FailureClass.INTERRUPTED:
        return Requeue(now, error, ended)
    return Requeue(due_at(now, limits.RETRY_FIRST_S, limits.RETRY_MAX_S, job.failures, jitter), error, ended)


def _spent(job: Job, failure: FailureClass) -> bool:
    """Whether one more attempt that ended like this leaves no other."""
    match failure:
        case FailureClass.PERMANENT:
            return True
        case FailureClass.INTERRUPTED:
            return job.interruptions >= job.request.max_interruptions
        case FailureClass.TIMEOUT if job.timeouts + 1 >= limits.MAX_TIMEOUTS:
            return True
    return job.failures + 1 >= job.request.max_attempts


def _last_word(job: Job, failure: FailureClass, error: str) -> str:
    if failure is not FailureClass.INTERRUPTED:
        return error
    times = f"{job.interruptions + 1} workers went away while they ran this job"
    return f"heartbeat lost: {times}; last: {error.removeprefix('heartbeat lost: ')}"


def cancelled(job: Job) -> Cancel:
    """The end of a job that somebody wants ended."""
    return Cancel(f"cancelled: {job.cancel}")


def ending(outcome: Outcome | None) -> str:
    """How an attempt ended, in the word by which it is counted: its class of failure, `cancelled` or `completed`."""
    if outcome is None:
        return "completed"
    return "cancelled" if isinstance(outcome, Cancel) else outcome.attempt.failure.value
