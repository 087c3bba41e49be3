"""What a set of histories should have seen: every fault, every decision, every way in which a condition refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from fleetcap import keys
from fleetcap.model import (
    Attempt,
    FailureClass,
    Holder,
    Job,
    JobStatus,
    Lease,
    Passed,
    Request,
    Reservation,
    Slot,
    SlotId,
    SlotState,
)
from local.simulator.plan import Fault, Trouble, Word

DECISIONS: Final = (
    "log admitted Attach",
    "log admitted Answer",
    "log admitted Enqueue",
    "log admitted Record",
    "log rejected",
    "log lease",
    "log wait",
    "log launched",
    "log launch unanswered",
    "log late answer",
    "log release",
    "log requeue Requeue",
    "log requeue GiveUp",
    "log requeue Cancel",
    "log overdue",
    "log stop",
    "log alarm",
    "log leave",
    "log interrupted",
    "log swept",
    "log foreign task",
    "log ignore",
    "log claimed",
    "log job lost",
    "log no child",
    "log ended COMPLETED",
    "log ended Requeue",
    "log ended GiveUp",
    "log ended Cancel",
    "cancelled while QUEUED",
    "cancelled while RUNNING",
    "cancelled while WAITING",
    "log judged Unblock",
    "log judged Fail",
    "log judged Wait",
    "log grown",
    "log gathered COMPLETED",
    "log gathered FAILED",
    "turned away at the ceiling",
    "log leaving",
    "launch Started",
    "launch NotStarted",
    "launch Unanswered",
    "described ALIVE",
    "described STOPPED",
    "described MISSING",
    "a token had been forgotten",
)
DELIVERIES: Final = (
    "trouble: a duplicate delivery",
    "trouble: a redelivery",
    "trouble: a tick did not come",
    "trouble: an event was late",
    "trouble: an event was lost",
    "trouble: the stream gave up on an end",
)
UNREACHABLE: Final = {
    "refused retire: it exists": "slots are never deleted",
    "refused unreserve: it exists": "nobody ends a reservation that he did not make",
    "refused release: no task is recorded": "ECS answers a token with a task or with failures, never with both",
    "refused draw: it exists": "no history lasts as long as a share is remembered",
    "log job lost": "only proof of its death takes a job from its worker, and then its beat is refused first",
}
"""Branches that no history can take, each with its reason."""


def operations() -> Iterator[keys.Write | keys.Put]:
    """One of each conditional operation, in each of its forms."""
    slot = Slot(SlotId("default", 0), SlotState.EMPTY, 1)
    job = Job("key", 1, JobStatus.QUEUED, "default", 5, Request("s3://bucket/a.bam", "bam"), rank="5", attempt=1)
    lease = Lease(slot.id, 1)
    running = Job(
        "key", 1, JobStatus.RUNNING, "default", 5, job.request, rank="5", attempt=1, holder=Holder(lease)
    )  # fmt: skip
    attempt = Attempt(1, FailureClass.INTERRUPTED, "why", "task", 0.0, 1.0)
    yield keys.create_write(slot.id, 0.0)
    yield keys.lease_write(slot, "{}", "key", 0, 0.0, "op")
    yield keys.launched_write(lease, "arn", 0.0)
    yield keys.beat_write(lease, "arn", False, 0.0)
    yield keys.release_write(lease, "arn", 0.0, "why", 0.0, "op")
    yield keys.release_write(lease, "", 0.0, "why", 1.0, "op")
    yield keys.missing_write(lease, 1.0)
    yield keys.retire_write(slot.id, True)
    yield keys.leave_write(lease, "why")
    yield keys.keep_write(lease, True)
    yield keys.override_write("default", {"cap": 1}, 1, "op")
    yield keys.widen_write("default", 2)
    yield keys.reserve_write(Reservation("default", "name", 1, 0.0))
    yield keys.unreserve_write("default", "name", 0.0)
    yield keys.put_write(job, None, "op")
    yield keys.put_write(job, job, "op")
    yield keys.claim_write(job, Holder(lease), 0.0, "op")
    yield keys.heartbeat_write(running, 0.0, "sort", 0.5, "")
    yield keys.finish_write(running, JobStatus.COMPLETED, 0.0, "", (), "op")
    yield keys.cancel_write(running, "why")
    waiting = replace(job, status=JobStatus.WAITING)
    yield keys.edge_write("parent", "key", 0.0)
    yield keys.unblock_write(waiting, 0.0, "op")
    yield keys.grow_write(waiting)
    yield keys.pass_write(waiting, Passed(1, (1, 0, 0), ""))
    yield keys.gather_write(waiting, JobStatus.FAILED, 0.0, "", (0, 1, 0), "op")
    yield keys.finish_write(waiting, JobStatus.FAILED, 0.0, "", (), "op")
    yield keys.finish_write(job, JobStatus.CANCELLED, 0.0, "", (), "op")
    yield keys.requeue_write(running, 0.0, "", attempt, "op")
    yield keys.draw_write("default", 5, "tenant", 0, 1, 1, 0.0)
    yield keys.draw_write("default", 5, "tenant", 1, 1, 1, 0.0)


def guards() -> list[tuple[str, str]]:
    """Every operation with every named clause of its condition."""
    found = {
        (write.name, clause.name): None
        for write in operations()
        for clause in write.condition.clauses or (write.condition,)
        if clause is not keys.WHATEVER
    }
    return list(found)


def expected() -> list[str]:
    """Every branch that histories can take."""
    written = dict.fromkeys(f"write {write.name}" for write in operations())
    refused = [f"refused {operation}: {clause}" for operation, clause in guards()]
    faults = [f"fault: {fault}" for fault in Fault] + [f"trouble: {trouble}" for trouble in Trouble]
    faults += [f"word: {word}" for word in Word]
    branches = [*DECISIONS, *DELIVERIES, *written, *refused, *faults]
    return [branch for branch in branches if branch not in UNREACHABLE]


def never_taken(seen: Counter[str]) -> list[str]:
    """The branches that no history took."""
    return [branch for branch in expected() if not seen[branch]]
