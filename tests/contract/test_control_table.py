"""One suite of behaviour for the control table, over every store of items that we can run.

The simulator trusts the items in memory because of this suite: what holds here holds for them as for DynamoDB. What
shows only in requests runs where requests are sent; moto answers on one thread, so the races at the end run on the
emulator alone. Tests share a store and keep apart by the name of their pool.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from threading import Barrier
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from fleetcap import keys, limits
from fleetcap.adapters.control_table import Items, Reply, StoredControlTable
from fleetcap.adapters.dynamo import DynamoControlTable, DynamoItems
from fleetcap.decide import capacity
from fleetcap.model import (
    FailureClass,
    Flags,
    Holder,
    Job,
    JobStatus,
    Lease,
    Passed,
    Pool,
    Request,
    Running,
    Slot,
    SlotId,
    SlotState,
)
from fleetcap.ports import ControlTable
from local.memory.items import MemoryItems
from tests.emulator import running_emulator
from tests.examples import GENERATION, NOW, a_job, a_pool, lapse
from tests.fakes import make_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

EMULATOR: Final = pytest.param("ministack", marks=pytest.mark.cloud)
TABLE: Final = "control"
LAUNCH: Final = '{"cluster":"fleet"}'
ENDED: Final = [status for status in JobStatus if status.ended]
on_the_wire = pytest.mark.parametrize("store", ["moto", EMULATOR], indirect=True)
raced = pytest.mark.parametrize("store", [EMULATOR], indirect=True)
_pool_numbers = itertools.count()
_T = TypeVar("_T")


@pytest.fixture(scope="module", params=["memory", "moto", EMULATOR])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DynamoDBClient | None]:
    """A DynamoDB with an empty control table; None where the items are kept in memory."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
            environment.delenv(name, raising=False)
        match request.param:
            case "memory":
                yield None
            case "moto":
                with mock_aws():
                    yield with_a_table(None)
            case _:
                folder = tmp_path_factory.mktemp("emulator")
                with running_emulator(folder) as endpoint, closing(with_a_table(endpoint)) as dynamodb:
                    yield dynamodb


def with_a_table(endpoint: str | None) -> DynamoDBClient:
    dynamodb = boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(max_pool_connections=32),
    )
    make_table(dynamodb, TABLE)
    return dynamodb


@pytest.fixture(scope="module")
def items(store: DynamoDBClient | None) -> Items:
    """The items themselves: for onlookers, and for what the deciders never write."""
    return DynamoItems(store, TABLE) if store else MemoryItems()


@pytest.fixture
def table(items: Items) -> ControlTable:
    return StoredControlTable(items)


@pytest.fixture
def client(store: DynamoDBClient | None) -> DynamoDBClient:
    """For tests that look at requests: `on_the_wire` only."""
    assert store
    return store


@pytest.fixture
def pool() -> Pool:
    """A pool that no other test knows."""
    return a_pool(cap=3, name=f"pool-{next(_pool_numbers)}")


@pytest.fixture
def slot(table: ControlTable, pool: Pool) -> Slot:
    """The pool's first slot, EMPTY, as read; two more exist."""
    table.create_slots(keys.slot_ids(pool.name, pool.cap), GENERATION)
    return table.slots(pool.name)[0]


@pytest.fixture
def leased(table: ControlTable, slot: Slot) -> Slot:
    """The slot, LAUNCHING, without a task."""
    assert table.lease(slot, LAUNCH, "job", 0, NOW, "leased")
    return read(table, slot)


@pytest.fixture
def launched(table: ControlTable, leased: Slot) -> Slot:
    """The slot, LAUNCHING, with the task `mine`."""
    assert table.launched(leased.lease, "mine", NOW + 1)
    return read(table, leased)


@pytest.fixture
def beating(table: ControlTable, launched: Slot) -> Slot:
    """The slot, READY, with the task `mine`."""
    assert table.beat(launched.lease, "mine", True, NOW + 30) == Flags()
    return read(table, launched)


@pytest.fixture
def queued(table: ControlTable, pool: Pool) -> Job:
    """A job in the queue."""
    job = job_of(pool)
    assert table.put(job, None, "put")
    return job


@pytest.fixture
def running(table: ControlTable, queued: Job) -> Job:
    """The job, RUNNING under lane 0 of some worker."""
    job = table.claim(queued, holder_in(queued.pool), NOW, "claim")
    assert job
    return job


def read(table: ControlTable, slot: Slot) -> Slot:
    now = table.slot(slot.id)
    assert now
    return now


def read_job(table: ControlTable, job: Job) -> Job:
    now = table.job(job.key)
    assert now
    return now


def job_of(pool: Pool, name: str = "a", **fields: Any) -> Job:
    key = f"{pool.name}/{name}"
    return a_job(key, pool=pool.name, shard=keys.shard_of(key, pool.shards), **fields)


def holder_in(pool: str, generation: int = GENERATION, lane: int = 0) -> Holder:
    return Holder(Lease(SlotId(pool, 0), generation), lane)


def in_index(table: ControlTable, pool: Pool, now: float = NOW, limit: int = 100) -> list[str]:
    """The last segments of the queued jobs' keys, in the order of the index."""
    return [entry.key.rpartition("/")[2] for entry in table.queued(pool, now, limit)]


def test_what_was_never_written_is_not_there(table: ControlTable, pool: Pool) -> None:
    assert table.slots(pool.name) == []
    assert table.slot(SlotId(pool.name, 0)) is None
    assert table.job(f"{pool.name}/none") is None


def test_what_was_read_stays_as_it_was_whatever_is_written_later(
    table: ControlTable, items: Items, pool: Pool, launched: Slot, queued: Job
) -> None:
    slot, (waiting,) = items.get(keys.slot_key(launched.id)), items.open(keys.queued_pk(pool.name, queued.shard), 1)
    assert slot
    before = dict(slot), dict(waiting)
    assert table.release(launched.lease, "mine", NOW, "stopped", NOW + 10, "op")
    assert table.claim(queued, holder_in(pool.name), NOW, "claim")
    assert (slot, waiting) == before


# --- slots are created once


def test_a_new_slot_is_empty_and_its_generation_starts_at_the_clock(slot: Slot) -> None:
    assert slot == Slot(slot.id, SlotState.EMPTY, GENERATION)


def test_creating_slots_again_leaves_them_as_they_are(table: ControlTable, pool: Pool, beating: Slot) -> None:
    table.create_slots(keys.slot_ids(pool.name, pool.cap + 1), NOW)
    assert read(table, beating) == beating
    assert [slot.generation for slot in table.slots(pool.name)] == [GENERATION, GENERATION, GENERATION, int(NOW)]


def test_a_pool_larger_than_a_bank_is_read_whole_and_in_order(
    table: ControlTable, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BANK_SLOTS", 3)
    for cap in (2, 3, 8):
        table.create_slots(keys.slot_ids(pool.name, cap), NOW)
        assert [slot.id for slot in table.slots(pool.name)] == list(keys.slot_ids(pool.name, cap))


# --- lease


def test_a_lease_records_what_the_launch_needs(table: ControlTable, slot: Slot) -> None:
    assert table.lease(slot, LAUNCH, "job", 2, NOW, "op")
    assert read(table, slot) == replace(
        slot, state=SlotState.LAUNCHING, launch=LAUNCH, for_job="job", leased_at=NOW, strikes=2, starved_at=NOW
    )


def test_a_lease_is_refused_on_a_launching_slot(table: ControlTable, leased: Slot) -> None:
    assert not table.lease(replace(leased, state=SlotState.EMPTY), LAUNCH, "other", 0, NOW, "op")
    assert read(table, leased) == leased


def test_a_lease_is_refused_on_a_ready_slot(table: ControlTable, beating: Slot) -> None:
    assert not table.lease(replace(beating, state=SlotState.EMPTY), LAUNCH, "other", 0, NOW, "op")
    assert read(table, beating) == beating


def test_a_lease_is_refused_on_a_retiring_slot(table: ControlTable, slot: Slot) -> None:
    table.retire(slot.id, retire=True)
    assert not table.lease(slot, LAUNCH, "job", 0, NOW, "op")
    assert not read(table, slot).held


def test_a_lease_is_refused_once_the_slot_has_been_used_since_it_was_read(
    table: ControlTable, slot: Slot, leased: Slot
) -> None:
    assert table.release(leased.lease, "", NOW, "done", 0, "released")
    assert not table.lease(slot, LAUNCH, "job", 0, NOW, "op")


def test_a_lease_is_refused_on_a_slot_that_does_not_exist(table: ControlTable, slot: Slot) -> None:
    absent = replace(slot, id=SlotId(slot.id.pool, 99))
    assert not table.lease(absent, LAUNCH, "job", 0, NOW, "op")
    assert table.slot(absent.id) is None


def test_a_lease_forgets_what_the_last_worker_left(table: ControlTable, items: Items, slot: Slot) -> None:
    ask_to_leave(items, slot)
    assert read(table, slot).leave
    assert table.lease(read(table, slot), LAUNCH, "job", 0, NOW, "op")
    assert not read(table, slot).leave


# --- launched


def test_a_launch_learns_its_task(launched: Slot) -> None:
    assert (launched.state, launched.arn, launched.launched_at) == (SlotState.LAUNCHING, "mine", NOW + 1)


def test_the_same_task_may_be_recorded_again(table: ControlTable, launched: Slot) -> None:
    assert table.launched(launched.lease, "mine", NOW + 1)


def test_a_second_task_of_a_launch_is_refused(table: ControlTable, launched: Slot) -> None:
    assert not table.launched(launched.lease, "other", NOW + 1)
    assert read(table, launched) == launched


def test_a_task_of_another_generation_is_refused(table: ControlTable, leased: Slot) -> None:
    assert not table.launched(Lease(leased.id, leased.generation - 1), "old", NOW + 1)
    assert not table.launched(Lease(leased.id, leased.generation + 1), "new", NOW + 1)
    assert read(table, leased) == leased


def test_a_task_of_a_slot_that_is_not_launching_is_refused(table: ControlTable, pool: Pool, beating: Slot) -> None:
    empty = table.slots(pool.name)[1]
    assert not table.launched(empty.lease, "mine", NOW + 1)
    assert not table.launched(beating.lease, "mine", NOW + 1)
    assert read(table, beating) == beating


# --- beat


def test_the_first_beat_makes_the_slot_ready(launched: Slot, beating: Slot) -> None:
    assert beating == replace(launched, state=SlotState.READY, seen_at=NOW + 30, ready_at=NOW + 30)


def test_a_beat_may_come_before_anybody_recorded_the_task(table: ControlTable, leased: Slot) -> None:
    assert table.beat(leased.lease, "mine", True, NOW) == Flags()
    assert read(table, leased).arn == "mine"


def test_a_later_beat_is_seen_and_leaves_the_time_of_readiness(table: ControlTable, beating: Slot) -> None:
    assert table.beat(beating.lease, "mine", False, NOW + 60) == Flags()
    assert read(table, beating) == replace(beating, seen_at=NOW + 60)


def test_a_beat_of_another_task_is_refused(table: ControlTable, launched: Slot, request: pytest.FixtureRequest) -> None:
    assert table.beat(launched.lease, "other", True, NOW) is None
    beating = request.getfixturevalue("beating")
    assert table.beat(beating.lease, "other", False, NOW) is None
    assert read(table, beating) == beating


def test_a_beat_of_another_generation_is_refused(table: ControlTable, beating: Slot) -> None:
    for generation in (beating.generation - 1, beating.generation + 1):
        assert table.beat(Lease(beating.id, generation), "mine", False, NOW) is None


def test_a_beat_on_an_empty_slot_is_refused(table: ControlTable, slot: Slot) -> None:
    assert table.beat(slot.lease, "mine", True, NOW) is None
    assert read(table, slot) == slot


def test_a_beat_brings_back_the_flags(table: ControlTable, items: Items, beating: Slot) -> None:
    table.retire(beating.id, retire=True)
    assert table.beat(beating.lease, "mine", False, NOW) == Flags(retire=True)
    ask_to_leave(items, beating)
    assert table.beat(beating.lease, "mine", False, NOW) == Flags(leave=True, retire=True)


def ask_to_leave(items: Items, slot: Slot) -> None:
    """What a person does to drain a worker."""
    assert items.update(keys.Write("leave", keys.slot_key(slot.id), keys.EXISTS, {"leave": True})).accepted


# --- release


def test_a_release_empties_the_slot_under_the_next_generation(table: ControlTable, beating: Slot) -> None:
    assert table.release(beating.lease, "mine", NOW, "stopped", 0, "op")
    freed = Slot(beating.id, SlotState.EMPTY, int(NOW), ready_at=NOW + 30, starved_at=NOW, why="stopped")
    assert read(table, beating) == freed


def test_a_release_with_failures_frees_a_slot_that_knows_no_task(table: ControlTable, leased: Slot) -> None:
    assert table.release(leased.lease, "", NOW, "no capacity", NOW + 10, "op")
    freed = read(table, leased)
    assert (freed.state, freed.failed_at, freed.retry_at, freed.strikes) == (SlotState.EMPTY, NOW, NOW + 10, 1)


def test_a_failed_launch_is_one_strike_more_and_another_end_is_none(table: ControlTable, slot: Slot) -> None:
    for strikes, retry_at, left in ((2, NOW + 10, 3), (3, NOW + 10, 4), (4, 0.0, 4)):
        known = read(table, slot)
        assert table.lease(known, LAUNCH, "job", strikes, NOW, f"lease {strikes}")
        assert table.release(known.lease, "", NOW, "ended", retry_at, f"release {strikes}")
        assert read(table, slot).strikes == left


@pytest.mark.parametrize(
    ("now", "generation"),
    [(GENERATION - 500.0, GENERATION + 1), (float(GENERATION), GENERATION + 1), (GENERATION + 7.9, GENERATION + 7)],
    ids=["a clock behind", "the same second", "a later second"],
)
def test_the_next_generation_is_the_clock_or_one_more(
    table: ControlTable, leased: Slot, now: float, generation: int
) -> None:
    assert table.release(leased.lease, "", now, "done", 0, "op")
    assert read(table, leased).generation == generation


def test_a_release_is_refused_for_a_task_that_is_not_the_recorded_one(table: ControlTable, launched: Slot) -> None:
    assert not table.release(launched.lease, "other", NOW, "stopped", 0, "op")
    assert read(table, launched) == launched


def test_a_release_that_names_no_task_is_refused_where_one_is_recorded(table: ControlTable, launched: Slot) -> None:
    assert not table.release(launched.lease, "", NOW, "failures", NOW + 10, "op")
    assert read(table, launched) == launched


def test_a_release_that_names_a_task_is_refused_where_none_is_recorded(table: ControlTable, leased: Slot) -> None:
    assert not table.release(leased.lease, "mine", NOW, "stopped", 0, "op")
    assert read(table, leased) == leased


def test_a_release_of_another_generation_is_refused(table: ControlTable, beating: Slot) -> None:
    for generation in (beating.generation - 1, beating.generation + 1):
        assert not table.release(Lease(beating.id, generation), "mine", NOW, "stopped", 0, "op")
    assert read(table, beating) == beating


def test_an_empty_slot_cannot_be_released(table: ControlTable, slot: Slot) -> None:
    assert not table.release(slot.lease, "", NOW, "failures", NOW + 10, "op")
    assert read(table, slot) == slot


def test_a_second_release_is_refused(table: ControlTable, beating: Slot) -> None:
    assert table.release(beating.lease, "mine", NOW, "stopped", 0, "task_state")
    assert not table.release(beating.lease, "mine", NOW + 1, "stopped", 0, "tick")
    assert read(table, beating).generation == int(NOW)


def test_after_a_release_the_old_worker_changes_nothing_whoever_has_the_slot(
    table: ControlTable, beating: Slot
) -> None:
    assert table.release(beating.lease, "mine", NOW, "stopped", 0, "op")
    assert table.lease(read(table, beating), LAUNCH, "next", 0, NOW, "next")
    after = read(table, beating)
    assert table.beat(beating.lease, "mine", False, NOW) is None
    assert not table.launched(beating.lease, "mine", NOW + 1)
    assert not table.missing(beating.lease, NOW)
    assert not table.release(beating.lease, "mine", NOW, "late", 0, "late")
    assert read(table, beating) == after


def test_a_mark_to_retire_outlives_the_worker(table: ControlTable, beating: Slot) -> None:
    table.retire(beating.id, retire=True)
    assert table.release(beating.lease, "mine", NOW, "stopped", 0, "op")
    assert not table.lease(read(table, beating), LAUNCH, "job", 0, NOW, "again")


def test_a_long_reason_is_cut(table: ControlTable, leased: Slot) -> None:
    assert table.release(leased.lease, "", NOW, "x" * 5_000, 0, "op")
    assert read(table, leased).why == "x" * limits.PROGRESS_MAX_CHARS


# --- missing, retire


def test_a_missing_task_is_noted_and_the_note_is_taken_back(table: ControlTable, beating: Slot) -> None:
    assert table.missing(beating.lease, NOW)
    assert read(table, beating) == replace(beating, missing_since=NOW)
    assert table.missing(beating.lease, 0)
    assert read(table, beating) == beating


def test_a_note_is_refused_on_an_empty_slot_and_for_another_generation(
    table: ControlTable, pool: Pool, beating: Slot
) -> None:
    assert not table.missing(table.slots(pool.name)[1].lease, NOW)
    assert not table.missing(Lease(beating.id, beating.generation + 1), NOW)
    assert read(table, beating) == beating


def test_a_slot_is_marked_to_retire_and_the_mark_is_taken_back(table: ControlTable, beating: Slot) -> None:
    table.retire(beating.id, retire=True)
    assert read(table, beating) == replace(beating, retire=True)
    table.retire(beating.id, retire=False)
    assert read(table, beating) == beating


@pytest.mark.parametrize("retire", [True, False])
def test_retiring_never_creates_a_slot(table: ControlTable, pool: Pool, retire: bool) -> None:
    table.retire(SlotId(pool.name, 77), retire)
    assert table.slot(SlotId(pool.name, 77)) is None


# --- put


def test_a_job_that_was_put_is_read_as_it_was(table: ControlTable, queued: Job) -> None:
    assert read_job(table, queued) == queued


@pytest.mark.parametrize("status", JobStatus)
def test_a_new_run_is_put_only_on_the_ended_run_that_was_read(
    table: ControlTable, queued: Job, status: JobStatus
) -> None:
    standing = bring(table, queued, status)
    follower = replace(queued, run=2, attempt=standing.attempt)
    assert table.put(follower, standing, "next") == status.ended
    assert read_job(table, queued) == (follower if status.ended else standing)


def test_a_put_over_an_absent_job_is_refused_where_there_is_one(table: ControlTable, queued: Job) -> None:
    assert not table.put(replace(queued, priority=9), None, "other")
    finished = bring(table, queued, JobStatus.COMPLETED)
    assert not table.put(replace(queued, priority=9), None, "other")
    assert read_job(table, queued) == finished


def test_a_put_is_refused_once_another_run_has_begun_and_ended(table: ControlTable, queued: Job) -> None:
    first = bring(table, queued, JobStatus.FAILED)
    second = replace(queued, run=2, attempt=first.attempt)
    assert table.put(second, first, "second")
    bring(table, second, JobStatus.FAILED)
    assert not table.put(second, first, "late")


def test_a_put_on_a_run_that_has_left_the_table_is_refused(table: ControlTable, pool: Pool) -> None:
    gone = job_of(pool, "gone", status=JobStatus.FAILED)
    assert not table.put(replace(gone, run=2, status=JobStatus.QUEUED), gone, "op")
    assert table.job(gone.key) is None


def bring(table: ControlTable, job: Job, status: JobStatus) -> Job:
    """Take a queued job to this status by the operations that lead there."""
    if status is not JobStatus.QUEUED:
        claimed = table.claim(job, holder_in(job.pool), NOW, f"claim {job.run}")
        assert claimed
        if status.ended or status is JobStatus.WAITING:
            end = status if status.ended else JobStatus.FAILED
            assert table.finish(claimed, end, NOW, "", (), f"finish {job.run}")
        if status is JobStatus.WAITING:  # of the very run and attempt, so that nothing but its state tells it apart
            assert table.put(replace(job, status=status), read_job(table, job), f"wait {job.run}")
    return read_job(table, job)


# --- claim


def test_a_claim_runs_the_job_under_the_next_attempt(table: ControlTable, queued: Job) -> None:
    holder = holder_in(queued.pool, lane=1)
    claimed = table.claim(queued, holder, NOW, "op", "task-1")
    assert claimed == replace(
        queued,
        status=JobStatus.RUNNING,
        changes=queued.changes + 1,
        attempt=1,
        holder=holder,
        task="task-1",
        claimed_at=NOW,
        heartbeat_at=NOW,
    )
    assert read_job(table, queued) == claimed


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.QUEUED])
def test_a_claim_is_refused_once_the_job_is_not_queued(table: ControlTable, queued: Job, status: JobStatus) -> None:
    standing = bring(table, queued, status)
    assert table.claim(queued, holder_in("other"), NOW, "as queued") is None
    assert table.claim(standing, holder_in("other"), NOW, "as it stands") is None
    assert read_job(table, queued) == standing


def test_a_claim_of_an_attempt_that_was_made_before_is_refused(table: ControlTable, queued: Job, running: Job) -> None:
    assert table.requeue(running, NOW, "", lapse(running), "requeue")
    assert table.claim(queued, holder_in("other"), NOW, "late") is None
    again = table.claim(read_job(table, queued), holder_in("other"), NOW, "again")
    assert again
    assert again.attempt == 2


def test_a_claim_of_an_earlier_run_is_refused(table: ControlTable, pool: Pool) -> None:
    done = job_of(pool, "done", status=JobStatus.COMPLETED, ended_at=NOW)
    assert table.put(done, None, "recorded")
    assert table.put(replace(done, run=2, status=JobStatus.QUEUED, ended_at=0.0), done, "second")
    assert table.claim(replace(done, status=JobStatus.QUEUED), holder_in(pool.name), NOW, "op") is None


def test_a_job_that_is_not_there_cannot_be_claimed(table: ControlTable, pool: Pool) -> None:
    assert table.claim(job_of(pool, "none"), holder_in(pool.name), NOW, "op") is None
    assert table.job(f"{pool.name}/none") is None


# --- heartbeat, finish, requeue: the fence of an attempt

WRITES: Final[dict[str, Callable[[ControlTable, Job], bool]]] = {
    "heartbeat": lambda table, job: table.heartbeat(job, NOW + 60, "sort", 0.5, "half way") is not None,
    "finish": lambda table, job: table.finish(job, JobStatus.COMPLETED, NOW + 60, "", ("a",), "finish"),
    "requeue": lambda table, job: table.requeue(job, NOW + 60, "again", lapse(job), "requeue"),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@every_write
def test_a_write_about_a_running_job_is_taken_from_its_attempt(
    table: ControlTable, running: Job, write: Callable[[ControlTable, Job], bool]
) -> None:
    assert write(table, running)
    assert read_job(table, running) != running


@every_write
@pytest.mark.parametrize(
    "change",
    [{"attempt": 0}, {"attempt": 2}, {"run": 0}, {"run": 2}],
    ids=["attempt before", "attempt after", "run before", "run after"],
)
def test_a_write_of_another_attempt_or_run_is_refused(
    table: ControlTable,
    running: Job,
    write: Callable[[ControlTable, Job], bool],
    change: dict[str, Any],
) -> None:
    assert not write(table, replace(running, **change))
    assert read_job(table, running) == running


@every_write
@pytest.mark.parametrize("status", ENDED)
def test_a_write_about_a_job_that_ended_is_refused(
    table: ControlTable, running: Job, write: Callable[[ControlTable, Job], bool], status: JobStatus
) -> None:
    assert table.finish(running, status, NOW, "", (), "end")
    ended = read_job(table, running)
    assert not write(table, running)
    assert read_job(table, running) == ended


@every_write
def test_a_write_about_a_job_that_was_given_back_is_refused(
    table: ControlTable, running: Job, write: Callable[[ControlTable, Job], bool]
) -> None:
    assert table.requeue(running, NOW, "", lapse(running), "given back")
    waiting = read_job(table, running)
    assert not write(table, running)
    assert not write(table, replace(running, attempt=0))
    assert read_job(table, running) == waiting


@every_write
def test_a_zombie_cannot_write_about_its_successors_attempt(
    table: ControlTable, running: Job, write: Callable[[ControlTable, Job], bool]
) -> None:
    assert table.requeue(running, NOW, "", lapse(running), "given back")
    successor = table.claim(read_job(table, running), holder_in("other"), NOW, "successor")
    assert not write(table, running)
    assert read_job(table, running) == successor


def test_a_heartbeat_says_how_far_the_job_is(table: ControlTable, running: Job) -> None:
    assert table.heartbeat(running, NOW + 60, "sort", 0.25, "m" * 999)
    assert read_job(table, running) == replace(
        running, heartbeat_at=NOW + 60, stage="sort", fraction=0.25, message="m" * limits.PROGRESS_MAX_CHARS
    )


@pytest.mark.parametrize("status", ENDED)
def test_a_finished_job_keeps_its_end_and_leaves_the_table_some_days_later(
    table: ControlTable, items: Items, running: Job, status: JobStatus
) -> None:
    assert table.finish(running, status, NOW, "e" * 9_999, ("one", "two"), "op")
    ended = replace(running, status=status, ended_at=NOW, error="e" * limits.ERROR_MAX_CHARS, artifacts=("one", "two"))
    assert read_job(table, running) == replace(ended, changes=running.changes + 1)
    assert item_of(items, running)[keys.TTL] == int(NOW) + limits.FINISHED_JOB_TTL_S


def test_a_requeued_job_waits_at_its_old_rank_and_keeps_its_attempt(table: ControlTable, running: Job) -> None:
    assert table.heartbeat(running, NOW, "sort", 0.5, "half way")
    assert table.requeue(running, NOW + 60, "e" * 9_999, lapse(running), "op")
    assert read_job(table, running) == replace(
        running,
        status=JobStatus.QUEUED,
        holder=None,
        due_at=NOW + 60,
        task="",
        claimed_at=0.0,
        heartbeat_at=0.0,
        changes=running.changes + 1,
        history=(lapse(running),),
        error="e" * limits.ERROR_MAX_CHARS,
    )


@pytest.mark.parametrize("other", [{"generation": GENERATION + 1}, {"lane": 1}], ids=["generation", "lane"])
def test_only_the_holder_that_was_read_loses_the_job(table: ControlTable, running: Job, other: dict[str, int]) -> None:
    assert not table.requeue(replace(running, holder=holder_in(running.pool, **other)), NOW, "", lapse(running), "op")
    assert read_job(table, running) == running


def test_a_job_that_is_to_be_cancelled_is_not_queued_again_and_may_end(table: ControlTable, running: Job) -> None:
    assert table.cancel(running, "by hand")
    assert read_job(table, running) == replace(running, cancel="by hand")
    assert not table.requeue(running, NOW, "", lapse(running), "op")
    assert table.cancel(running, "by hand")
    assert table.finish(running, JobStatus.CANCELLED, NOW, "cancelled: by hand", (), "end")


def test_a_claim_whose_reply_was_lost_is_known_again_by_who_made_it_though_somebody_cancels_meanwhile(
    table: ControlTable, queued: Job
) -> None:
    running = table.claim(queued, holder_in(queued.pool), NOW, "claim")
    assert running
    assert table.cancel(running, "by hand")
    assert table.claim(queued, holder_in(queued.pool), NOW, "claim") == replace(running, cancel="by hand")


def test_a_cancel_reaches_a_later_attempt_of_the_run(table: ControlTable, running: Job) -> None:
    assert table.requeue(running, NOW, "", lapse(running), "back")
    assert table.claim(read_job(table, running), holder_in("other"), NOW, "again")
    assert table.cancel(running, "by hand")
    assert (read_job(table, running).attempt, read_job(table, running).cancel) == (2, "by hand")


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.RUNNING])
def test_a_cancel_is_refused_unless_the_run_is_running(table: ControlTable, queued: Job, status: JobStatus) -> None:
    standing = bring(table, queued, status)
    assert not table.cancel(standing, "by hand")
    assert read_job(table, queued) == standing


def test_a_cancel_of_another_run_is_refused(table: ControlTable, running: Job) -> None:
    assert not table.cancel(replace(running, run=2), "by hand")
    assert read_job(table, running) == running


def test_a_job_in_the_queue_is_withdrawn_and_nobody_can_claim_it(
    table: ControlTable, items: Items, queued: Job
) -> None:
    assert table.finish(queued, JobStatus.CANCELLED, NOW, "cancelled: by hand", (), "op")
    ended = replace(queued, status=JobStatus.CANCELLED, ended_at=NOW, error="cancelled: by hand")
    assert read_job(table, queued) == replace(ended, changes=queued.changes + 1)
    assert item_of(items, queued)[keys.TTL] == int(NOW) + limits.FINISHED_JOB_TTL_S
    assert keys.OPEN_PK not in item_of(items, queued)
    assert table.claim(queued, holder_in(queued.pool), NOW, "late") is None


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.QUEUED])
def test_only_a_job_in_the_queue_is_withdrawn(table: ControlTable, queued: Job, status: JobStatus) -> None:
    standing = bring(table, queued, status)
    assert not table.finish(queued, JobStatus.CANCELLED, NOW, "", (), "op")
    assert read_job(table, queued) == standing


def test_a_job_that_came_back_since_it_was_read_is_not_withdrawn(
    table: ControlTable, queued: Job, running: Job
) -> None:
    assert table.requeue(running, NOW, "", lapse(running), "back")
    assert not table.finish(queued, JobStatus.FAILED, NOW, "capacity: x", (), "op")
    assert not table.finish(replace(read_job(table, queued), run=2), JobStatus.FAILED, NOW, "capacity: x", (), "op")
    assert read_job(table, queued).status is JobStatus.QUEUED


def test_every_change_of_status_counts_and_no_other_write_does(table: ControlTable, running: Job) -> None:
    counts = [running.changes]
    assert table.heartbeat(running, NOW, "sort", 0.5, "", ("one",))
    counts.append(read_job(table, running).changes)
    assert table.requeue(running, NOW, "", lapse(running), "back")
    counts.append(read_job(table, running).changes)
    again = table.claim(read_job(table, running), holder_in("other"), NOW, "again")
    assert again
    counts.append(again.changes)
    assert table.cancel(again, "by hand")
    counts.append(read_job(table, running).changes)
    assert table.finish(again, JobStatus.CANCELLED, NOW, "", (), "end")
    counts.append(read_job(table, running).changes)
    assert [count - running.changes for count in counts] == [0, 0, 1, 2, 2, 3]


def test_the_history_keeps_every_attempt_that_did_not_end_well(table: ControlTable, running: Job) -> None:
    first = replace(lapse(running, FailureClass.FAILED, "r" * 999), task="task-1", began_at=NOW - 9)
    kept = replace(first, reason="r" * limits.ATTEMPT_REASON_MAX_CHARS)
    assert table.requeue(running, NOW, "", first, "back")
    again = table.claim(read_job(table, running), holder_in("other"), NOW, "again")
    assert again
    second = lapse(again, FailureClass.PERMANENT)
    assert table.finish(again, JobStatus.FAILED, NOW, "", (), "end", second)
    assert read_job(table, running).history == (kept, second)


def test_a_heartbeat_names_the_artifacts_that_stand_and_a_failure_does_not_forget_them(
    table: ControlTable, running: Job
) -> None:
    assert table.heartbeat(running, NOW, "index", 0.8, "", ("one",))
    assert table.heartbeat(running, NOW, "index", 0.9, "")
    assert table.requeue(running, NOW, "", lapse(running), "back")
    assert read_job(table, running).artifacts == ("one",)


def test_active_jobs_are_counted_up_to_a_number(table: ControlTable, pool: Pool) -> None:
    put_all(table, *(job_of(pool, name) for name in "abc"))
    bring(table, job_of(pool, "a"), JobStatus.RUNNING)
    bring(table, job_of(pool, "b"), JobStatus.COMPLETED)
    assert [table.active(pool, most) for most in (0, 1, 2, 9)] == [0, 1, 2, 2]


def test_a_job_without_a_holder_cannot_be_taken_from_one(table: ControlTable, queued: Job) -> None:
    with pytest.raises(ValueError, match="has no holder"):
        table.requeue(queued, NOW, "", lapse(queued), "op")


# --- jobs that wait for others


@pytest.fixture
def waiting(table: ControlTable, pool: Pool) -> Job:
    """A job that waits for others."""
    job = job_of(pool, status=JobStatus.WAITING, request=Request("s3://bucket/a.bam", "bam", depends_on=("p", "q")))
    assert table.put(job, None, "put")
    return job


def test_a_waiting_job_keeps_what_it_waits_for_and_is_in_a_partition_of_its_own(
    table: ControlTable, pool: Pool, waiting: Job
) -> None:
    assert read_job(table, waiting) == waiting
    assert table.waiting(pool, 10) == [waiting.as_queued]
    assert (table.queued(pool, NOW, 10), table.running(pool), table.active(pool, 9)) == ([], [], 0)


def test_a_job_that_waits_for_nobody_is_no_larger_for_it(items: Items, queued: Job) -> None:
    assert "depends_on" not in str(item_of(items, queued))


def test_waiting_jobs_of_two_shards_are_merged_by_rank_and_cut_after(table: ControlTable) -> None:
    pool = a_pool(name=f"pool-{next(_pool_numbers)}", shards=2)
    jobs = [job_of(pool, f"j{number}", age_s=100 - number, status=JobStatus.WAITING) for number in range(9)]
    put_all(table, *reversed(jobs))
    assert [entry.key for entry in table.waiting(pool, 10)] == [job.key for job in jobs]
    assert [entry.key for entry in table.waiting(pool, 4)] == [job.key for job in jobs[:4]]


def test_an_unblocked_job_is_queued_at_its_old_rank_and_due_at_once(
    table: ControlTable, pool: Pool, waiting: Job
) -> None:
    unblocked = table.unblock(waiting, NOW, "op")
    wanted = replace(waiting, status=JobStatus.QUEUED, due_at=NOW, changes=waiting.changes + 1)
    assert unblocked == read_job(table, waiting) == wanted
    assert (table.waiting(pool, 10), table.queued(pool, NOW, 10)) == ([], [wanted.as_queued])
    assert table.claim(wanted, holder_in(pool.name), NOW, "claim")


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.WAITING])
def test_only_a_waiting_job_is_unblocked(table: ControlTable, queued: Job, status: JobStatus) -> None:
    standing = bring(table, queued, status)
    assert table.unblock(standing, NOW, "op") is None
    assert read_job(table, queued) == standing


def test_another_run_that_waits_is_not_unblocked(table: ControlTable, waiting: Job) -> None:
    assert table.unblock(replace(waiting, run=2), NOW, "op") is None
    assert read_job(table, waiting) == waiting


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_waiting_job_ends_where_it_waits(table: ControlTable, pool: Pool, waiting: Job, status: JobStatus) -> None:
    assert table.finish(waiting, status, NOW, "why", (), "op")
    ended = read_job(table, waiting)
    assert (ended.status, ended.error, ended.ended_at) == (status, "why", NOW)
    assert table.waiting(pool, 10) == []


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.WAITING])
def test_what_was_read_as_waiting_does_not_end_once_it_has_moved_on(
    table: ControlTable, queued: Job, status: JobStatus
) -> None:
    standing = bring(table, queued, status)
    as_read = replace(standing, status=JobStatus.WAITING)
    assert not table.finish(as_read, JobStatus.FAILED, NOW, "dependency: x", (), "op")
    assert read_job(table, queued) == standing


def test_another_run_that_waits_does_not_end(table: ControlTable, waiting: Job) -> None:
    assert not table.finish(replace(waiting, run=2), JobStatus.FAILED, NOW, "dependency: x", (), "op")
    assert read_job(table, waiting) == waiting


@pytest.fixture
def array(table: ControlTable, pool: Pool) -> Job:
    """An array whose parts are being put."""
    request = Request("s3://bucket/{index}.bam", "bam", array=70, step=50)
    job = job_of(pool, status=JobStatus.WAITING, request=request)
    assert table.put(job, None, "put")
    return job


def test_an_array_keeps_what_it_consists_of_and_that_it_has_grown(table: ControlTable, array: Job) -> None:
    assert read_job(table, array) == array
    assert table.grow(array)
    assert table.grow(array)
    assert read_job(table, array) == replace(array, grown=True)


def test_an_array_keeps_how_many_of_its_parts_have_been_put_and_passed_over(table: ControlTable, array: Job) -> None:
    assert table.grow(array, 1)
    table.pass_over(array, Passed(1, (3, 2, 1), "a/part-1"))
    assert read_job(table, array) == replace(array, put=1, passed=Passed(1, (3, 2, 1), "a/part-1"))


def test_nothing_is_noted_on_another_run_of_an_array_or_on_none(table: ControlTable, pool: Pool, array: Job) -> None:
    table.pass_over(replace(array, run=2), Passed(1))
    assert read_job(table, array) == array
    gone = replace(array, key=f"{pool.name}/gone")
    table.pass_over(gone, Passed(1))
    assert table.job(gone.key) is None


def test_an_array_ends_with_the_counts_of_its_elements(table: ControlTable, pool: Pool, array: Job) -> None:
    assert table.gather(array, JobStatus.FAILED, NOW, "array: x", (60, 9, 1), "op")
    ended = read_job(table, array)
    assert (ended.status, ended.error, ended.counts, ended.ended_at) == (JobStatus.FAILED, "array: x", (60, 9, 1), NOW)
    assert table.waiting(pool, 9) == []


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.WAITING])
def test_only_a_waiting_array_grows_or_ends(table: ControlTable, queued: Job, status: JobStatus) -> None:
    standing = bring(table, queued, status)
    assert not table.grow(standing)
    assert not table.gather(standing, JobStatus.COMPLETED, NOW, "", (1, 0, 0), "op")
    assert read_job(table, queued) == standing


def test_another_run_of_an_array_neither_grows_nor_ends(table: ControlTable, array: Job) -> None:
    assert not table.grow(replace(array, run=2))
    assert not table.gather(replace(array, run=2), JobStatus.COMPLETED, NOW, "", (1, 0, 0), "op")
    assert read_job(table, array) == array


def test_edges_lead_from_each_parent_to_every_dependent(table: ControlTable, pool: Pool) -> None:
    name = pool.name
    table.lead([f"{name}/p", f"{name}/q"], f"{name}/x", NOW)
    table.lead([f"{name}/q"], f"{name}/y", NOW)
    assert [table.dependents(f"{name}/{parent}", 9) for parent in "pqr"] == [
        [f"{name}/x"],
        [f"{name}/x", f"{name}/y"],
        [],
    ]
    assert table.dependents(f"{name}/q", 1) == [f"{name}/x"]


def test_an_edge_that_is_written_again_lives_longer(table: ControlTable, items: Items, pool: Pool) -> None:
    for now in (NOW, NOW + 9):
        table.lead([f"{pool.name}/p"], f"{pool.name}/x", now)
    (edge,) = items.partition(keys.edges_pk(f"{pool.name}/p"))
    assert edge[keys.TTL] == int(NOW) + 9 + limits.EDGE_TTL_S


# --- lost replies


def lease_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    table.create_slots(keys.slot_ids(pool.name, 1), GENERATION)
    (slot,) = table.slots(pool.name)
    return lambda op: table.lease(slot, LAUNCH, "job", 0, NOW, op)


def release_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    lease_again(table, pool)("leased")
    (slot,) = table.slots(pool.name)
    return lambda op: table.release(slot.lease, "", NOW, "no capacity", NOW + 10, op)


def put_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    return lambda op: table.put(job_of(pool), None, op)


def replace_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    table.put(job_of(pool), None, "put")
    ended = bring(table, job_of(pool), JobStatus.FAILED)
    return lambda op: table.put(job_of(pool, run=2), ended, op)


def claim_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    table.put(job_of(pool), None, "put")
    return lambda op: table.claim(job_of(pool), holder_in(pool.name), NOW, op) is not None


def finish_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    table.put(job_of(pool), None, "put")
    running = bring(table, job_of(pool), JobStatus.RUNNING)
    return lambda op: table.finish(running, JobStatus.COMPLETED, NOW, "", (), op)


def withdraw_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    table.put(job_of(pool), None, "put")
    return lambda op: table.finish(job_of(pool), JobStatus.CANCELLED, NOW, "", (), op)


def unblock_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    job = job_of(pool, status=JobStatus.WAITING)
    table.put(job, None, "put")
    return lambda op: table.unblock(job, NOW, op) is not None


def gather_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    job = job_of(pool, status=JobStatus.WAITING)
    table.put(job, None, "put")
    return lambda op: table.gather(job, JobStatus.FAILED, NOW, "", (0, 1, 0), op)


def requeue_again(table: ControlTable, pool: Pool) -> Callable[[str], bool]:
    table.put(job_of(pool), None, "put")
    running = bring(table, job_of(pool), JobStatus.RUNNING)
    return lambda op: table.requeue(running, NOW, "", lapse(running), op)


OPERATIONS: Final = {
    "lease": lease_again,
    "release": release_again,
    "put": put_again,
    "put on an ended run": replace_again,
    "claim": claim_again,
    "finish": finish_again,
    "withdraw": withdraw_again,
    "requeue": requeue_again,
    "unblock": unblock_again,
    "gather": gather_again,
}
every_operation = pytest.mark.parametrize("prepare", OPERATIONS.values(), ids=OPERATIONS)
Prepare = Callable[[ControlTable, Pool], Callable[[str], bool]]


@every_operation
def test_a_write_whose_reply_was_lost_succeeds_when_it_is_asked_again(
    table: ControlTable, pool: Pool, prepare: Prepare
) -> None:
    operate = prepare(table, pool)
    assert operate("mine")
    assert operate("mine")


@every_operation
def test_the_same_write_by_somebody_else_is_refused(table: ControlTable, pool: Pool, prepare: Prepare) -> None:
    operate = prepare(table, pool)
    assert operate("mine")
    assert not operate("theirs")
    assert operate("mine")


class Repeating:
    """A store whose first reply to a write is always lost: what the table gets is the answer to the retry."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self.get, self.batch, self.partition, self.open = items.get, items.batch, items.partition, items.open

    def update(self, write: keys.Write) -> Reply:
        self._items.update(write)
        return self._items.update(write)

    def put(self, put: keys.Put) -> Reply:
        self._items.put(put)
        return self._items.put(put)

    def put_each(self, puts: Sequence[keys.Put]) -> None:
        self._items.put_each(puts)
        self._items.put_each(puts)


@every_operation
def test_a_write_that_the_sdk_repeats_is_a_success_and_happens_once(items: Items, pool: Pool, prepare: Prepare) -> None:
    unlucky = StoredControlTable(Repeating(items))
    assert prepare(unlucky, pool)("mine")
    job, slots = unlucky.job(f"{pool.name}/a"), unlucky.slots(pool.name)
    assert job is None or job.attempt <= 1
    assert all(slot.strikes <= 1 for slot in slots)


def test_an_own_write_that_was_overtaken_is_no_success_any_more(table: ControlTable, slot: Slot, leased: Slot) -> None:
    assert table.release(leased.lease, "", NOW, "no capacity", NOW + 10, "released")
    assert not table.lease(slot, LAUNCH, "job", 0, NOW, "leased")


@pytest.mark.parametrize("standing", [SlotState.LAUNCHING, SlotState.READY])
def test_writes_without_an_op_may_be_repeated(
    table: ControlTable, launched: Slot, running: Job, standing: SlotState
) -> None:
    for _ in range(2):
        if standing is SlotState.LAUNCHING:
            assert table.launched(launched.lease, "mine", NOW + 1)
        else:
            assert table.beat(launched.lease, "mine", True, NOW) == Flags()
        assert table.missing(launched.lease, NOW)
        assert table.heartbeat(running, NOW, "sort", 0.5, "")
    assert read(table, launched).state is standing


# --- shares

STEP: Final = limits.TAGS_PER_MS
CLOCK: Final = int(NOW * 1_000) * STEP


@pytest.fixture
def shared(pool: Pool) -> Pool:
    """A pool in which tenant `b` weighs two."""
    return replace(pool, fair_shares=True, tenant_weights={"b": 2})


def tagged(pool: Pool, name: str, tag: int, priority: int = 5, **fields: Any) -> Job:
    """A job at this place, that never ran."""
    job = job_of(pool, name, priority=priority, **fields)
    return replace(job, rank=keys.share_rank_of(job.key, priority, tag))


def one(table: ControlTable, pool: Pool, tenant: str, now: float = NOW, priority: int = 5) -> int:
    """The tag of a single job."""
    ((tag,),) = table.draw(pool, priority, {tenant: 1}, now).values()
    return tag


def test_tags_begin_at_the_clock_and_go_on_by_the_tenants_step(table: ControlTable, shared: Pool) -> None:
    assert table.draw(shared, 5, {"a": 3}, NOW) == {"a": [CLOCK, CLOCK + STEP, CLOCK + 2 * STEP]}
    put_all(table, tagged(shared, "waits", CLOCK))
    assert table.draw(shared, 5, {"b": 2, "a": 1}, NOW + 60) == {
        "b": [CLOCK, CLOCK + STEP // 2],
        "a": [CLOCK + 3 * STEP],
    }
    assert one(table, shared, "b", NOW + 99) == CLOCK + STEP
    assert one(table, shared, "a", NOW + 99) == CLOCK + 4 * STEP


def test_priorities_and_pools_do_not_see_each_others_tags(table: ControlTable, shared: Pool) -> None:
    other = replace(shared, name=f"pool-{next(_pool_numbers)}")
    table.draw(shared, 5, {"a": 9}, NOW)
    put_all(table, tagged(shared, "waits", CLOCK), tagged(shared, "low", CLOCK + 4, priority=4))
    assert one(table, shared, "a", NOW + 60, priority=9) == CLOCK + 60_000 * STEP
    assert one(table, shared, "c", NOW + 60, priority=4) == CLOCK + 4
    assert one(table, other, "a", NOW + 90) == CLOCK + 90_000 * STEP


def test_a_priority_in_which_nobody_waits_has_come_to_a_place_of_its_own(table: ControlTable, shared: Pool) -> None:
    put_all(table, tagged(shared, "low", CLOCK + 4, priority=0))
    assert one(table, shared, "a", NOW + 60) == CLOCK + 60_000 * STEP


def test_a_tenant_that_was_away_begins_at_the_head_of_the_queue(table: ControlTable, shared: Pool) -> None:
    one(table, shared, "b")
    put_all(table, tagged(shared, "second", CLOCK + 70), tagged(shared, "first", CLOCK + STEP), job_of(shared, "old"))
    bring(table, job_of(shared, "old"), JobStatus.RUNNING)
    assert [one(table, shared, tenant) for tenant in "ab"] == [CLOCK + 70, CLOCK + STEP // 2]


def test_a_job_that_came_back_is_not_where_the_queue_has_come_to(table: ControlTable, shared: Pool) -> None:
    early = tagged(shared, "early", CLOCK)
    put_all(table, early, tagged(shared, "late", CLOCK + 9 * STEP))
    running = bring(table, early, JobStatus.RUNNING)
    assert table.requeue(running, NOW + 5, "again", lapse(running), "requeue")
    assert one(table, shared, "a") == CLOCK + 9 * STEP


def test_where_nobody_waits_a_tenant_begins_where_the_furthest_has_come_to(table: ControlTable, shared: Pool) -> None:
    table.draw(shared, 5, {"a": 9, "c": 2}, NOW)
    assert one(table, shared, "b", NOW + 3_600) == CLOCK + 9 * STEP
    assert one(table, shared, "a", NOW + 3_600) == CLOCK + 9 * STEP + STEP // 2


def test_the_queue_has_come_to_the_least_tag_of_all_shards(table: ControlTable, shared: Pool) -> None:
    wide = replace(shared, shards=2)
    jobs = [tagged(wide, f"j{number}", CLOCK + number) for number in range(6)]
    assert {job.shard for job in jobs} == {0, 1}
    put_all(table, *jobs)
    assert one(table, wide, "a") == CLOCK


def test_a_tenant_that_another_intake_brought_back_is_not_set_back(
    table: ControlTable, items: Items, shared: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overtaken one draws beside the other, unpaid, and what the other paid for stands."""
    put_all(table, tagged(shared, "waits", CLOCK))
    overtaken = StoredControlTable(items)
    monkeypatch.setattr(overtaken, "_drawn", lambda *_, **__: {})
    assert table.draw(shared, 5, {"a": 5}, NOW)
    assert one(overtaken, shared, "a") == CLOCK + 5 * STEP
    assert one(table, shared, "a") == CLOCK + 5 * STEP


def test_a_share_that_expired_since_it_was_read_is_no_error(
    table: ControlTable, shared: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(table, tagged(shared, "waits", CLOCK))
    with monkeypatch.context() as before:
        before.setattr(table, "_drawn", lambda *_, **__: {"a": CLOCK + 70})
        assert one(table, shared, "a") == CLOCK + 70
    assert one(table, shared, "a") == CLOCK


def test_a_share_is_small_expires_and_stands_in_no_index(table: ControlTable, items: Items, shared: Pool) -> None:
    """So drawing is one write unit, however many jobs it is for."""
    tenant = "t" * 32
    table.draw(shared, 5, {tenant: 10}, NOW)
    (share,) = items.partition(keys.shares_pk(shared.name, 5))
    assert keys.drawn_from(share) == (tenant, CLOCK + 10 * STEP)
    assert share[keys.TTL] == NOW + limits.SHARE_TTL_S
    assert len(str(share)) < 1_024
    assert keys.OPEN_PK not in share


def test_ranks_by_age_and_by_tag_stand_in_one_queue(table: ControlTable, shared: Pool) -> None:
    put_all(
        table,
        tagged(shared, "new", CLOCK),
        job_of(shared, "old", age_s=60),
        tagged(shared, "urgent", CLOCK + 900, priority=9),
        tagged(shared, "next", CLOCK + 1),
    )
    assert in_index(table, shared) == ["urgent", "old", "new", "next"]
    assert one(table, shared, "a", NOW + 1) == CLOCK + 1_000 * STEP


# --- the open index


def put_all(table: ControlTable, *jobs: Job) -> None:
    for job in jobs:
        assert table.put(job, None, f"put {job.key}")


def test_the_queue_goes_by_priority_and_then_by_age(table: ControlTable, pool: Pool) -> None:
    put_all(
        table,
        job_of(pool, "young", age_s=1),
        job_of(pool, "low", age_s=500, priority=0),
        job_of(pool, "old", age_s=9),
        job_of(pool, "urgent", age_s=1, priority=9),
    )
    assert in_index(table, pool) == ["urgent", "old", "young", "low"]


def test_jobs_that_are_not_due_are_not_shown(table: ControlTable, pool: Pool) -> None:
    put_all(table, job_of(pool, "later", due_at=NOW + 0.5), job_of(pool, "now", due_at=NOW))
    assert in_index(table, pool) == ["now"]
    assert sorted(in_index(table, pool, NOW + 0.5)) == ["later", "now"]


def test_jobs_of_two_shards_are_merged_by_rank_and_cut_after(table: ControlTable) -> None:
    pool = a_pool(name=f"pool-{next(_pool_numbers)}", shards=2)
    jobs = [job_of(pool, f"j{number}", age_s=100 - number) for number in range(9)]
    assert {job.shard for job in jobs} == {0, 1}
    put_all(table, *reversed(jobs))
    assert in_index(table, pool) == [f"j{number}" for number in range(9)]
    assert in_index(table, pool, limit=4) == ["j0", "j1", "j2", "j3"]


def test_running_jobs_of_two_shards_are_all_found(table: ControlTable) -> None:
    pool = a_pool(name=f"pool-{next(_pool_numbers)}", shards=2)
    jobs = [job_of(pool, f"j{number}") for number in range(6)]
    put_all(table, *jobs)
    for job in jobs:
        bring(table, job, JobStatus.RUNNING)
    assert sorted(entry.key for entry in table.running(pool)) == [job.key for job in jobs]


def test_a_claimed_job_moves_to_the_running_ones_and_back_when_it_is_requeued(
    table: ControlTable, pool: Pool, running: Job
) -> None:
    assert table.queued(pool, NOW, 10) == []
    assert running.holder
    assert table.running(pool) == [Running(running.key, pool.name, 1, 1, running.holder)]
    assert table.requeue(running, NOW, "", lapse(running), "op")
    assert table.running(pool) == []
    assert table.queued(pool, NOW, 10) == [read_job(table, running).as_queued]


@pytest.mark.parametrize("status", ENDED)
def test_a_finished_job_leaves_the_index(table: ControlTable, pool: Pool, running: Job, status: JobStatus) -> None:
    assert table.finish(running, status, NOW, "", (), "op")
    assert table.running(pool) == []
    assert table.queued(pool, NOW, 10) == []


def test_a_recorded_result_never_enters_the_index(table: ControlTable, pool: Pool) -> None:
    put_all(table, job_of(pool, status=JobStatus.COMPLETED, ended_at=NOW, artifacts=("one",)))
    assert table.queued(pool, NOW, 10) == []
    assert table.running(pool) == []


@pytest.mark.usefixtures("running")
def test_pools_do_not_see_each_others_jobs(table: ControlTable) -> None:
    other = a_pool(name=f"pool-{next(_pool_numbers)}")
    put_all(table, job_of(other))
    assert in_index(table, other) == ["a"]
    assert table.running(other) == []


@pytest.fixture
def delayed(table: ControlTable, pool: Pool) -> None:
    """Five jobs that are not due yet, and behind them four that are."""
    put_all(table, *(job_of(pool, f"later{number}", age_s=50, due_at=NOW + 99) for number in range(5)))
    put_all(table, *(job_of(pool, f"now{number}", age_s=9 - number) for number in range(4)))


@pytest.mark.usefixtures("delayed")
def test_the_queue_is_read_on_until_enough_jobs_are_due(table: ControlTable, pool: Pool) -> None:
    assert in_index(table, pool, limit=2) == ["now0", "now1"]


@pytest.mark.usefixtures("delayed")
def test_the_queue_is_read_on_for_so_many_pages_and_no_further(
    table: ControlTable, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PAGES_MAX", 2)
    assert in_index(table, pool, limit=2) == []
    assert in_index(table, pool, limit=3) == ["now0"]


@pytest.fixture
def five_running(table: ControlTable, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two and a half pages of running jobs."""
    monkeypatch.setattr(limits, "OPEN_PAGE_ITEMS", 2)
    for number in range(5):
        put_all(table, job_of(pool, f"j{number}"))
        bring(table, job_of(pool, f"j{number}"), JobStatus.RUNNING)


@pytest.mark.usefixtures("five_running")
def test_running_jobs_are_read_to_the_last_page(table: ControlTable, pool: Pool) -> None:
    assert sorted(entry.key for entry in table.running(pool)) == [f"{pool.name}/j{number}" for number in range(5)]


def test_the_projected_attributes_suffice_for_the_entries(
    table: ControlTable, items: Items, pool: Pool, queued: Job
) -> None:
    assert keys.queued_from(projected(items, queued)) == queued.as_queued
    claimed = bring(table, queued, JobStatus.RUNNING)
    taken = keys.running_from(projected(items, queued))
    assert [taken] == table.running(pool)
    assert taken.holder == claimed.holder
    assert list(items.open(keys.running_pk(pool.name, queued.shard), 1)) == [projected(items, queued)]


def projected(items: Items, job: Job) -> keys.Item:
    """What the index may show of a job."""
    shown = {keys.TABLE_PK, keys.TABLE_SK, keys.OPEN_PK, keys.OPEN_RANK, *keys.OPEN_PROJECTION}
    return {name: value for name, value in item_of(items, job).items() if name in shown}


def item_of(items: Items, job: Job) -> keys.Item:
    """The job's item as it stands."""
    item = items.get(keys.job_key(job.key))
    assert item
    return item


# --- requests, where any are sent


@on_the_wire
@pytest.mark.usefixtures("delayed")
def test_a_look_at_the_queue_asks_for_as_many_as_are_wanted_at_a_time(
    table: ControlTable, client: DynamoDBClient, pool: Pool
) -> None:
    with requests_of(client, "Query") as asked:
        table.queued(pool, NOW, 2)
    assert [query["Limit"] for query in asked] == [2, 2, 2, 2]


@on_the_wire
@pytest.mark.usefixtures("five_running")
def test_a_look_at_the_running_jobs_asks_for_one_page_after_the_other(
    table: ControlTable, client: DynamoDBClient, pool: Pool
) -> None:
    with requests_of(client, "Query") as asked:
        table.running(pool)
    assert [query["Limit"] for query in asked] == [2, 2, 2]


@on_the_wire
def test_whoever_draws_reads_a_page_of_the_queue_and_the_shares_that_it_needs(
    table: ControlTable, client: DynamoDBClient, shared: Pool
) -> None:
    put_all(table, *(tagged(shared, f"j{number}", CLOCK + number) for number in range(3)))
    with requests_of(client, "Query") as queries, requests_of(client, "GetItem") as gets:
        table.draw(shared, 5, {"a": 2, "b": 1}, NOW)
    assert [(query["IndexName"], query["Limit"]) for query in queries] == [(keys.OPEN_INDEX, limits.LOOK_ITEMS)]
    assert [get["ConsistentRead"] for get in gets] == [True, True]


@on_the_wire
def test_slots_are_read_to_the_last_page_and_always_consistently(
    table: ControlTable, client: DynamoDBClient, pool: Pool, slot: Slot
) -> None:
    with requests_of(client, "Query", Limit=2) as asked:
        assert [found.id.number for found in table.slots(slot.id.pool)] == [0, 1, 2]
    assert len(asked) == 2
    assert all(query["ConsistentRead"] for query in asked)
    assert len(asked) < pool.cap


@on_the_wire
def test_a_slot_and_a_job_are_read_consistently(
    table: ControlTable, client: DynamoDBClient, slot: Slot, queued: Job
) -> None:
    with requests_of(client, "GetItem") as asked:
        assert table.slot(slot.id) == slot
        assert table.job(queued.key) == queued
    assert [read["ConsistentRead"] for read in asked] == [True, True]


@on_the_wire
def test_many_jobs_are_read_consistently_so_many_a_request(
    table: ControlTable, client: DynamoDBClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BATCH_GET_ITEMS", 2)
    jobs = [job_of(pool, f"j{number}") for number in range(4)]
    put_all(table, *jobs)
    with requests_of(client, "BatchGetItem") as asked:
        found = DynamoControlTable(client, TABLE).jobs([f"{pool.name}/none", *(job.key for job in jobs)])
    assert found == {job.key: job for job in jobs}
    assert [len(read["RequestItems"][TABLE]["Keys"]) for read in asked] == [2, 2, 1]
    assert all(read["RequestItems"][TABLE]["ConsistentRead"] for read in asked)


@on_the_wire
def test_an_error_that_is_no_refusal_is_raised(client: DynamoDBClient, slot: Slot) -> None:
    elsewhere = DynamoControlTable(client, "no-such-table")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        elsewhere.lease(slot, LAUNCH, "job", 0, NOW, "op")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        elsewhere.put(a_job(), None, "op")


@contextmanager
def requests_of(client: DynamoDBClient, operation: str, **changed: Any) -> Iterator[list[dict[str, Any]]]:
    """Collect every request of this operation that goes out meanwhile, its parameters changed where so told."""
    asked: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        asked.append(params)
        params.update(changed)

    client.meta.events.register(f"provide-client-params.dynamodb.{operation}", note)
    yield asked
    client.meta.events.unregister(f"provide-client-params.dynamodb.{operation}", note)


# --- races, on several threads and therefore on the emulator alone

RACERS: Final = 8


def race(racers: int, run: Callable[[int], _T]) -> list[_T]:
    """What each of them got; all start at the same moment."""
    start = Barrier(racers)

    def begin(number: int) -> _T:
        start.wait(timeout=20)
        return run(number)

    with ThreadPoolExecutor(racers) as threads:
        return list(threads.map(begin, range(racers)))


@raced
def test_one_of_many_deciders_gets_a_lease(table: ControlTable, slot: Slot) -> None:
    won = race(RACERS, lambda number: table.lease(slot, LAUNCH, f"job {number}", 0, NOW, f"op {number}"))
    assert sum(won) == 1
    assert read(table, slot).for_job == f"job {won.index(True)}"


@raced
def test_24_deciders_get_exactly_the_three_slots_of_the_cap(table: ControlTable, pool: Pool, slot: Slot) -> None:
    def take_any(number: int) -> int:
        while candidates := capacity.candidates(pool, table.slots(pool.name)):
            chosen = candidates[number % len(candidates)]
            if table.lease(chosen, LAUNCH, f"job {number}", 0, NOW, f"op {number}"):
                return 1
        return 0

    assert sum(race(24, take_any)) == pool.cap
    assert all(found.held for found in table.slots(slot.id.pool))
    assert len({found.for_job for found in table.slots(pool.name)}) == pool.cap


@raced
def test_one_of_many_proofs_releases_a_slot(table: ControlTable, beating: Slot) -> None:
    won = race(RACERS, lambda number: table.release(beating.lease, "mine", NOW, "stopped", NOW + 9, f"op {number}"))
    assert sum(won) == 1
    assert (read(table, beating).generation, read(table, beating).strikes) == (int(NOW), 1)


@raced
def test_one_of_many_messages_puts_the_job(table: ControlTable, pool: Pool) -> None:
    won = race(RACERS, lambda number: table.put(job_of(pool, priority=number), None, f"op {number}"))
    assert sum(won) == 1
    assert read_job(table, job_of(pool)).priority == won.index(True)


@raced
def test_one_of_many_messages_begins_the_next_run(table: ControlTable, queued: Job) -> None:
    ended = bring(table, queued, JobStatus.FAILED)
    follower = replace(queued, run=2, attempt=ended.attempt)
    assert sum(race(RACERS, lambda number: table.put(follower, ended, f"op {number}"))) == 1
    assert read_job(table, queued) == follower


@raced
def test_one_of_many_workers_claims_a_job(table: ControlTable, queued: Job) -> None:
    claims = race(RACERS, lambda number: table.claim(queued, holder_in("fleet", number), NOW, f"op {number}"))
    (winner,) = [claim for claim in claims if claim]
    assert read_job(table, queued) == winner
    assert winner.attempt == 1


@raced
def test_many_intakes_draw_different_tags_for_a_tenant_that_is_there(table: ControlTable, shared: Pool) -> None:
    put_all(table, tagged(shared, "waits", CLOCK))
    one(table, shared, "a")
    drawn = race(RACERS, lambda _: table.draw(shared, 5, {"a": 3}, NOW)["a"])
    assert sorted(tag for tags in drawn for tag in tags) == [CLOCK + n * STEP for n in range(1, 3 * RACERS + 1)]


@raced
def test_of_many_intakes_that_bring_a_tenant_back_one_pays_and_none_sets_it_back(
    table: ControlTable, shared: Pool
) -> None:
    put_all(table, tagged(shared, "waits", CLOCK))
    drawn = race(RACERS, lambda _: table.draw(shared, 5, {"a": 3}, NOW)["a"])
    assert min(tag for tags in drawn for tag in tags) == CLOCK
    assert one(table, shared, "a") >= max(tag for tags in drawn for tag in tags) - 2 * STEP


@raced
def test_a_job_is_either_finished_or_requeued(table: ControlTable, running: Job) -> None:
    def end(number: int) -> str:
        if number % 2:
            return "QUEUED" if table.requeue(running, NOW, "", lapse(running), f"op {number}") else ""
        return "FAILED" if table.finish(running, JobStatus.FAILED, NOW, "", (), f"op {number}") else ""

    (winner,) = filter(None, race(RACERS, end))
    assert read_job(table, running).status == winner
