"""Each rule once: where a decision has a predicate and the table a condition, the two say the same.

The condition is asked by doing the write. A decider that skips what the table would refuse saves a call; one that
skips what it would take never acts, and one that the table does not second acts on a stale view.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import boto3
import pytest
from moto import mock_aws

from fleetcap import limits
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.decide import admit, capacity, recover
from fleetcap.model import Holder, Job, JobStatus, Lease, NotStarted, Running, Slot, SlotId, SlotState, TaskStatus
from tests.examples import GENERATION, NOW, a_job, a_pool, lapse
from tests.fakes import make_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

POOL: Final = a_pool(cap=1)
SLOT: Final = SlotId(POOL.name, 0)

Life = Callable[[DynamoControlTable], object]

_table_numbers = itertools.count()


@pytest.fixture(scope="module")
def client() -> Iterator[DynamoDBClient]:
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        environment.delenv("AWS_ENDPOINT_URL", raising=False)
        yield boto3.client("dynamodb", region_name="eu-central-1")


@pytest.fixture
def table(client: DynamoDBClient) -> DynamoControlTable:
    """An empty table of the test's own."""
    return make_table(client, f"control-{next(_table_numbers)}")


def empty(table: DynamoControlTable) -> None:
    table.create_slots([SLOT], GENERATION)


def launching(table: DynamoControlTable) -> None:
    empty(table)
    assert table.lease(seen(table), "{}", "job", 0, NOW, "lease")


def launched(table: DynamoControlTable) -> None:
    launching(table)
    assert table.launched(seen(table).lease, "mine", NOW)


def ready(table: DynamoControlTable) -> None:
    launched(table)
    assert table.beat(seen(table).lease, "mine", True, NOW)


def released(table: DynamoControlTable) -> None:
    ready(table)
    assert table.release(seen(table).lease, "mine", NOW, "stopped", 0, "release")


def seen(table: DynamoControlTable) -> Slot:
    slot = table.slot(SLOT)
    assert slot
    return slot


LIVES: Final[list[Life]] = [empty, launching, launched, ready, released]
every_life = pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)


# --- slots


@every_life
@pytest.mark.parametrize("retire", [False, True], ids=["staying", "retiring"])
def test_a_candidate_is_what_can_be_leased(table: DynamoControlTable, life: Life, retire: bool) -> None:
    life(table)
    table.retire(SLOT, retire)
    slot = seen(table)
    candidate = slot in capacity.candidates(POOL, [slot])
    assert table.lease(slot, "{}", "job", 0, NOW, "op") == candidate


@every_life
def test_a_held_slot_is_what_can_be_released(table: DynamoControlTable, life: Life) -> None:
    life(table)
    slot = seen(table)
    assert table.release(slot.lease, slot.arn, NOW, "stopped", 0, "op") == slot.held


@every_life
def test_a_held_slot_is_what_can_miss_its_task(table: DynamoControlTable, life: Life) -> None:
    life(table)
    slot = seen(table)
    assert table.missing(slot.lease, NOW) == slot.held


@every_life
def test_a_launch_that_never_beat_is_what_can_still_learn_its_task(table: DynamoControlTable, life: Life) -> None:
    life(table)
    slot = seen(table)
    assert table.launched(slot.lease, slot.arn or "mine", NOW) == recover.never_beat(slot)


@every_life
def test_a_launch_that_is_sent_again_is_what_failures_can_free(table: DynamoControlTable, life: Life) -> None:
    life(table)
    doubts = recover.doubtful([seen(table)], NOW + limits.RESEND_AFTER_S + 1)
    resent = recover.Resend(seen(table)) in doubts
    free = seen(table).state is SlotState.EMPTY
    assert table.release(seen(table).lease, "", NOW, "failures", NOW, "op") == (resent and not free)


@pytest.mark.parametrize("life", [launched, ready])
def test_the_task_that_a_verdict_is_about_is_the_one_whose_end_frees_the_slot(
    table: DynamoControlTable, life: Life
) -> None:
    life(table)
    (verdict,) = recover.judge(seen(table), TaskStatus.STOPPED, NOW)
    assert isinstance(verdict, recover.Release)
    lease = verdict.slot.lease
    assert not table.release(lease, "another", NOW, verdict.why, 0, "other")
    assert table.release(lease, verdict.slot.arn, NOW, verdict.why, 0, "op")


def test_slots_above_the_cap_are_neither_candidates_nor_leasable_once_marked(table: DynamoControlTable) -> None:
    table.create_slots([SLOT, SlotId(POOL.name, 1)], GENERATION)
    for mark in recover.retirements(POOL, table.slots(POOL.name)):
        table.retire(mark.slot, mark.retire)
    slots = table.slots(POOL.name)
    leasable = [slot for slot in slots if table.lease(slot, "{}", "job", 0, NOW, f"op {slot.id}")]
    assert leasable == capacity.candidates(POOL, slots)


# --- holders


@every_life
def test_a_holder_is_dead_exactly_when_its_beat_is_refused_for_ever(table: DynamoControlTable, life: Life) -> None:
    launching(table)
    holder = Holder(seen(table).lease)
    if life in (empty, released):
        assert table.release(holder.lease, "", NOW, "failures", 0, "first")
    dead = recover.dead(holder, {SLOT: seen(table)})
    assert (table.beat(holder.lease, "mine", True, NOW) is None) == dead
    assert dead == (life in (empty, released))


def test_a_dead_holder_stays_dead_and_refused_when_the_slot_is_leased_again(table: DynamoControlTable) -> None:
    ready(table)
    holder = Holder(seen(table).lease)
    assert table.release(holder.lease, "mine", NOW, "stopped", 0, "release")
    assert table.lease(seen(table), "{}", "next", 0, NOW, "next")
    assert recover.dead(holder, {SLOT: seen(table)})
    assert table.beat(holder.lease, "mine", False, NOW) is None
    assert not table.release(holder.lease, "mine", NOW, "late", 0, "late")


def test_an_orphan_is_taken_from_the_dead_holder_and_from_nobody_else(table: DynamoControlTable) -> None:
    ready(table)
    old = Holder(seen(table).lease)
    job = a_job()
    assert table.put(job, None, "put")
    running = table.claim(job, old, NOW, "claim")
    assert running
    assert table.release(old.lease, "mine", NOW, "stopped", 0, "release")
    new = Holder(seen(table).lease)
    found = recover.orphans([entry(running, old), entry(running, new)], [seen(table)])
    assert [orphan.holder for orphan in found] == [old]
    assert not table.requeue(replace(running, holder=new), NOW, "", lapse(running), "not his")
    assert table.requeue(replace(running, holder=old), NOW, "", lapse(running), "his")


def entry(job: Job, holder: Holder) -> Running:
    return Running(job.key, job.pool, job.run, job.attempt, holder)


# --- runs


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "not cached"])
def test_a_run_that_a_message_may_replace_is_one_that_has_ended(
    table: DynamoControlTable, status: JobStatus, cached: bool
) -> None:
    standing = at_status(table, status)
    decision = admit.admit(standing, NOW + 1, cached)
    follower = replace(a_job(), run=2, attempt=standing.attempt)
    taken = table.put(follower, standing, "follower")
    assert taken == standing.ended
    assert taken == (not isinstance(decision, admit.Attach))


def test_a_message_without_a_standing_run_is_put_only_where_there_is_none(table: DynamoControlTable) -> None:
    decision = admit.admit(table.job(a_job().key), NOW, cached=False)
    assert decision == admit.Enqueue(None)
    assert table.put(a_job(), None, "first")
    assert not table.put(a_job(), None, "second")


def at_status(table: DynamoControlTable, status: JobStatus) -> Job:
    job = a_job(status=status if status is JobStatus.WAITING else JobStatus.QUEUED)
    assert table.put(job, None, "put")
    if status not in {JobStatus.WAITING, JobStatus.QUEUED}:
        running = table.claim(job, Holder(Lease(SLOT, GENERATION)), NOW, "claim")
        assert running
        assert not status.ended or table.finish(running, status, NOW, "", (), "finish")
    standing = table.job(job.key)
    assert standing
    assert standing.status is status
    return standing


# --- the memory of failed launches


def fail(table: DynamoControlTable, now: float) -> None:
    """One more launch that `failures[]` ends, as the deciders do it."""
    slot = seen(table)
    strikes = capacity.backoff([slot], now).strikes
    assert table.lease(slot, "{}", "job", strikes, now, f"lease {now}")
    retry_at = capacity.retry_at(strikes, now, jitter=0.5)
    assert table.release(seen(table).lease, "", now, str(NotStarted("RESOURCE:ENI")), retry_at, f"release {now}")


def test_what_a_release_remembers_is_the_backoff_that_is_read(table: DynamoControlTable) -> None:
    empty(table)
    pauses = []
    for strikes in (1, 2, 3):
        fail(table, NOW + strikes)
        assert capacity.backoff([seen(table)], NOW + 100).strikes == strikes
        pauses.append(capacity.backoff([seen(table)], NOW + 100).until - NOW - strikes)
    assert pauses == [10, 20, 40]


def test_the_first_beat_of_a_worker_ends_the_backoff_that_is_read(table: DynamoControlTable) -> None:
    empty(table)
    fail(table, NOW)
    fail(table, NOW + 20)
    assert table.lease(seen(table), "{}", "job", capacity.backoff([seen(table)], NOW + 100).strikes, NOW + 60, "again")
    assert capacity.backoff([seen(table)], NOW + 100).strikes == 2
    assert table.beat(seen(table).lease, "mine", True, NOW + 90)
    ended = capacity.backoff([seen(table)], NOW + 100)
    assert (ended.strikes, ended.until) == (0, 0.0)
    assert table.release(seen(table).lease, "mine", NOW + 99, "stopped", 0, "end")
    fail(table, NOW + 100)
    assert capacity.backoff([seen(table)], NOW + 100).strikes == 1
