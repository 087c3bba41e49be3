"""What becomes of an accepted message, given the job that its key names and what the cache holds."""

from __future__ import annotations

from dataclasses import dataclass

from fleetcap import limits
from fleetcap.model import Job, JobStatus


@dataclass(frozen=True)
class Attach:
    """The key has an active run: the message joins it."""

    job: Job


@dataclass(frozen=True)
class Answer:
    """A run that is over answers the message."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Record:
    """The cache holds the whole result already, but no run says so: a run is recorded that begins and ends at once."""

    replacing: Job | None


@dataclass(frozen=True)
class Enqueue:
    """A new run is due."""

    replacing: Job | None


Admission = Attach | Answer | Record | Enqueue


def asks_for_capacity(decision: Admission, job: Job, now: float) -> bool:
    """Whether the message should see to it that somebody runs the job.

    Whoever puts the run does. A message that joins it leaves that to the one that put it, or ten at once would launch
    ten workers before any sees another's; only when the run has been waiting for a while may its first asker have died.
    """
    if job.status is not JobStatus.QUEUED:
        return False
    return isinstance(decision, Enqueue) or now - job.as_queued.runnable_at > limits.FRESH_LEASE_S


def admit(job: Job | None, sent_at: float, cached: bool, force: bool = False) -> Admission:
    """Decide on the job as read *before* the cache was asked, so that a run that ends in between is not run again.

    A message that was sent before the run's end is answered by that run, however often it is delivered; only a later
    message can ask for a new one. A run that completed and whose artifacts stand answers at any time, but not a message
    that would `force` another.
    """
    if job is not None and not job.ended:
        return Attach(job)
    if job is not None and sent_at <= job.ended_at:
        return Answer(job, "sent before this run ended")
    if force or not cached:
        return Enqueue(job)
    if job is not None and job.status is JobStatus.COMPLETED:
        return Answer(job, "the result is in the cache")
    return Record(job)
