"""Pools, slots and jobs for tests: every field has a plain value, so that a test names only what it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fleetcap import keys
from fleetcap.model import (
    Attempt,
    FailureClass,
    Holder,
    Job,
    JobStatus,
    Lease,
    Pool,
    Queued,
    Request,
    Running,
    Slot,
    SlotId,
    SlotState,
)

NOW: Final = 1_800_000_000.0
GENERATION: Final = 1_700_000_000
LAUNCH: Final = {
    "cluster": "fleet",
    "taskDefinition": "worker:7",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}},
    "tags": [{"key": "owner", "value": "portal"}],
    "container": "worker",
}


def a_pool(cap: int = 4, jobs_per_worker: int = 1, name: str = "default", shards: int = 1) -> Pool:
    return Pool(name, cap, LAUNCH, jobs_per_worker, shards)


def a_slot(number: int = 0, state: SlotState = SlotState.EMPTY, pool: str = "default", **fields: Any) -> Slot:
    return replace(Slot(SlotId(pool, number), state, GENERATION), **fields)


def empty_slots(count: int, first: int = 0) -> list[Slot]:
    return [a_slot(number) for number in range(first, first + count)]


def launching(number: int = 0, for_job: str = "", age_s: float = 1.0, **fields: Any) -> Slot:
    """A launch of that age whose task is known; `arn=""` makes it one that ECS has not answered."""
    known = {"arn": f"arn:task/{number}", "leased_at": NOW - age_s, "launched_at": NOW - age_s}
    return a_slot(number, SlotState.LAUNCHING, for_job=for_job, **{**known, **fields})


def ready(number: int = 0, silent_s: float = 1.0, **fields: Any) -> Slot:
    """A worker that last beat `silent_s` seconds ago."""
    return a_slot(number, SlotState.READY, **{"arn": f"arn:task/{number}", "seen_at": NOW - silent_s, **fields})


def a_job(key: str = "portal/a/v1", status: JobStatus = JobStatus.QUEUED, age_s: float = 5.0, **fields: Any) -> Job:
    began_at = NOW - age_s
    job = Job(key, 1, status, "default", 5, Request("s3://bucket/a.bam", "bam"), queued_at=began_at, due_at=began_at)
    changed = replace(job, **fields)
    return replace(changed, rank=changed.rank or keys.rank_of(key, changed.priority, changed.queued_at))


def queued(key: str, age_s: float = 5.0, **fields: Any) -> Queued:
    return a_job(key, age_s=age_s, **fields).as_queued


def burst(count: int) -> list[Queued]:
    """Jobs of one moment, in rank order."""
    return sorted((queued(f"burst/{number}") for number in range(count)), key=lambda job: job.rank)


def running_on(slot: Slot, key: str = "busy", lane: int = 0) -> Running:
    return Running(key, slot.id.pool, 1, 1, Holder(slot.lease, lane))


def holder_of(slot: Slot, lane: int = 0) -> Holder:
    return Holder(Lease(slot.id, slot.generation), lane)


def lapse(job: Job, failure: FailureClass = FailureClass.INTERRUPTED, reason: str = "it went away") -> Attempt:
    """How the running attempt of a job ended."""
    return Attempt(job.attempt, failure, reason, job.task, job.claimed_at, NOW)


def lapses(count: int, failure: FailureClass = FailureClass.INTERRUPTED) -> tuple[Attempt, ...]:
    """A history of so many attempts that ended alike."""
    return tuple(Attempt(number, failure, "it ended", "task", NOW - 60, NOW) for number in range(1, count + 1))
