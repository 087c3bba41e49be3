"""The items in memory answer as DynamoDB does: whatever is done to both, and with whatever stale knowledge.

The table's own logic stands once, above the pair; what is compared is therefore all that a store ever says: its replies
with the items in them, what it lets be read, and at the end every item that it holds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
import pytest
from boto3.dynamodb.types import TypeDeserializer
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from moto import mock_aws

from fleetcap import keys, limits
from fleetcap.adapters.control_table import Items, Reply, StoredControlTable
from fleetcap.adapters.dynamo import DynamoItems
from fleetcap.model import Holder, Job, JobStatus, Passed, Reservation, Slot, SlotState
from local.memory.items import MemoryItems
from tests.examples import GENERATION, NOW, a_job, a_pool, a_slot, lapse
from tests.fakes import make_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPERATIONS: Final = {name.removesuffix("_write") for name in vars(keys) if name.endswith("_write")} | {"withdraw"}
ENDED: Final = [status for status in JobStatus if status.ended]

_table_numbers = itertools.count()
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def client() -> Iterator[DynamoDBClient]:
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        environment.delenv("AWS_ENDPOINT_URL", raising=False)
        yield boto3.client("dynamodb", region_name="eu-central-1")


def new_table(client: DynamoDBClient) -> str:
    """The name of an empty control table."""
    name = f"control-{next(_table_numbers)}"
    make_table(client, name)
    return name


# --- each condition, on every item that it could tell apart

POOL: Final = a_pool(cap=2, shards=2)
SLOT: Final = a_slot()
HOLDER: Final = Holder(SLOT.lease)
JOB: Final = a_job(attempt=1, holder=HOLDER)
WRITES: Final[list[keys.Write | keys.Put]] = [
    keys.create_write(SLOT.id, NOW),
    keys.lease_write(SLOT, "{}", "job", 0, NOW, "op"),
    keys.launched_write(SLOT.lease, "mine", NOW),
    keys.beat_write(SLOT.lease, "mine", True, NOW),
    keys.release_write(SLOT.lease, "mine", NOW, "stopped", 0, "op"),
    keys.release_write(SLOT.lease, "", NOW, "failures", NOW, "op"),
    keys.missing_write(SLOT.lease, NOW),
    keys.retire_write(SLOT.id, True),
    keys.leave_write(SLOT.lease, "why"),
    keys.keep_write(SLOT.lease, True),
    keys.override_write("default", {"cap": 3}, 0, "op"),
    keys.override_write("default", {"cap": None}, 2, "op"),
    keys.widen_write("default", 3),
    keys.reserve_write(Reservation("default", "demo", 3, NOW + 60, NOW)),
    keys.unreserve_write("default", "demo", NOW),
    keys.put_write(JOB, None, "op"),
    keys.put_write(JOB, JOB, "op"),
    keys.claim_write(JOB, HOLDER, NOW, "op"),
    keys.heartbeat_write(JOB, NOW, "sort", 0.5, ""),
    keys.finish_write(JOB, JobStatus.FAILED, NOW, "", (), "op"),
    keys.finish_write(replace(JOB, status=JobStatus.RUNNING), JobStatus.FAILED, NOW, "", (), "op"),
    keys.cancel_write(JOB, "why"),
    keys.requeue_write(JOB, NOW, "", lapse(JOB), "op"),
    keys.draw_write(POOL.name, 5, "tenant", 0, 100, 10, NOW),
    keys.draw_write(POOL.name, 5, "tenant", 100, 100, 10, NOW),
    keys.edge_write("parent", JOB.key, NOW),
    keys.unblock_write(JOB, NOW, "op"),
    keys.grow_write(JOB),
    keys.pass_write(JOB, Passed(1, (0, 1, 0), "one/0")),
    keys.gather_write(replace(JOB, status=JobStatus.WAITING), JobStatus.FAILED, NOW, "", (0, 1, 0), "op"),
    keys.finish_write(replace(JOB, status=JobStatus.WAITING), JobStatus.FAILED, NOW, "", (), "op"),
]
REPEATABLE: Final = {write.name for write in WRITES if write.op}
CONDITIONS: Final = {
    condition.name: condition
    for write in WRITES
    for condition in (write.condition, *write.condition.clauses)
    if condition is not keys.WHATEVER
}
VALUES: Final[Mapping[str, list[Any]]] = {
    "state": [state.value for state in SlotState],
    "generation": [GENERATION - 1, GENERATION, GENERATION + 1],
    "retire": [True],
    "cap_version": [0, 1],
    "version": [1, 2, 3],
    "banks": [2, 3, 4],
    "until": [Decimal(int(NOW)) + step for step in (-1, 0, 1)],
    "cancel": ["why"],
    "arn": ["mine", "other"],
    "status": [status.value for status in JobStatus],
    "run": [1, 2],
    "attempt": [1, 2],
    "drawn": [99, 100, 101],
    "holder": [str(HOLDER), str(HOLDER._replace(lane=1))],
}
"""What an attribute may be, other than absent."""


def items_about(condition: keys.Condition) -> Iterator[keys.Item]:
    """Every item that the condition could tell apart, under keys of their own; no item at all is an empty one."""
    yield {}
    names = [name for name in keys.names_in(condition.expression).values() if name != keys.TABLE_PK]
    absent_or = [[None, *VALUES[name]] for name in names]
    for number, values in enumerate(itertools.product(*absent_or)):
        attributes = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        yield {keys.TABLE_PK: "ITEM", keys.TABLE_SK: str(number), **attributes}


def lets_through(store: Items, item: keys.Item, condition: keys.Condition) -> bool:
    """Whether a write on this item is taken under the condition."""
    key = {name: item.get(name, "absent") for name in (keys.TABLE_PK, keys.TABLE_SK)}
    if item:
        assert store.put(keys.Put("place", item, keys.ABSENT)).accepted
    return store.update(keys.Write("try", key, condition, {"tried": True})).accepted


def test_every_operation_brings_its_conditions() -> None:
    assert {write.name for write in WRITES} == OPERATIONS


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_a_condition_holds_in_memory_for_the_very_items_for_which_dynamodb_lets_a_write_through(
    client: DynamoDBClient, condition: keys.Condition
) -> None:
    memory, dynamo = MemoryItems(), DynamoItems(client, new_table(client))
    items = list(items_about(condition))
    taken = [item for item in items if lets_through(memory, item, condition)]
    assert taken == [item for item in items if lets_through(dynamo, item, condition)]
    assert 0 < len(taken) < len(items)


# --- every operation, one after the other, on both


Met = Counter[tuple[str, str, str]]
"""How often an operation came out how, by its name, its condition's name and the outcome."""


class Pair:
    """control_table.Items over both stores: everything goes to either one, and their answers are compared here."""

    def __init__(self, memory: Items, dynamo: Items, met: Met) -> None:
        self._memory = memory
        self._dynamo = dynamo
        self._met = met

    def get(self, key: Mapping[str, str]) -> keys.Item | None:
        return same(self._memory.get(key), self._dynamo.get(key))

    def batch(self, wanted: Sequence[Mapping[str, str]]) -> list[keys.Item]:
        return same(*(sorted(each.batch(wanted), key=str) for each in (self._memory, self._dynamo)))

    def partition(self, pk: str) -> list[keys.Item]:
        return same(list(self._memory.partition(pk)), list(self._dynamo.partition(pk)))

    def open(self, pk: str, page: int, since: str = "") -> list[keys.Item]:
        return same(list(self._memory.open(pk, page, since)), list(self._dynamo.open(pk, page, since)))

    def update(self, write: keys.Write) -> Reply:
        return self._noted(write, same(self._memory.update(write), self._dynamo.update(write)))

    def put(self, put: keys.Put) -> Reply:
        return self._noted(put, same(self._memory.put(put), self._dynamo.put(put)))

    def put_each(self, puts: Sequence[keys.Put]) -> None:
        """The one store is asked one by one, so that each is noted; the other as always."""
        self._dynamo.put_each(puts)
        for put in puts:
            self._noted(put, self._memory.put(put))

    def _noted(self, write: keys.Write | keys.Put, reply: Reply) -> Reply:
        ours = bool(write.op) and reply.item.get(keys.OP) == write.op
        outcome = "accepted" if reply.accepted else "landed before" if ours else "refused"
        self._met[write.name, write.condition.name, outcome] += 1
        return reply


def same(memory: _T, dynamo: _T) -> _T:
    assert memory == dynamo
    return dynamo


def recalled(history: list[_T], now: _T | None, age: int) -> _T:
    """What somebody knows who last looked `age` changes ago."""
    if now and now != history[-1]:
        history.append(now)
    return history[max(-1 - age, -len(history))]


SLOTS: Final = list(keys.slot_ids(POOL.name, POOL.cap))
JOBS: Final = {key: a_job(key, shard=keys.shard_of(key, POOL.shards)) for key in ("one", "two", "three")}
assert {job.shard for job in JOBS.values()} == {0, 1}, "the queue is to be merged from two shards"

FRESH: Final = 0
ages = st.sampled_from([FRESH, FRESH, FRESH, 1, 2, 4])
numbers = st.sampled_from([0, 0, 1])
names = st.sampled_from(["one", "one", *JOBS])
nows = st.sampled_from([GENERATION - 9.5, NOW, NOW + 1.5, NOW + 2])
draws = st.dictionaries(st.sampled_from(["", "one", "two"]), st.integers(1, 3), min_size=1)
tags = st.sampled_from([0, 1, int(NOW * 1_000) * limits.TAGS_PER_MS])
arns = st.sampled_from(["mine", "mine", "other"])


class Operations(RuleBasedStateMachine):
    """Everybody who ever writes: deciders and workers with fresh and with old knowledge, and their late duplicates.

    Slots and jobs are named by number and by key, so that a failure reads well.
    """

    def __init__(self, client: DynamoDBClient, met: Met) -> None:
        super().__init__()
        self.client, self.name = client, new_table(client)
        self.memory = MemoryItems()
        self.items = Pair(self.memory, DynamoItems(client, self.name), met)
        self.table = StoredControlTable(self.items)
        self.known = StoredControlTable(self.memory)
        self.slots = [[Slot(slot, SlotState.EMPTY, GENERATION)] for slot in SLOTS]
        self.jobs = {key: [job] for key, job in JOBS.items()}
        self.written: list[Callable[[], object]] = []

    def slot(self, number: int, age: int) -> Slot:
        return recalled(self.slots[number], self.known.slot(SLOTS[number]), age)

    def job(self, key: str, age: int) -> Job:
        return recalled(self.jobs[key], self.known.job(key), age)

    def op(self) -> str:
        return f"op {len(self.written)}"

    def write(self, write: Callable[..., object], *arguments: object) -> None:
        self.written.append(partial(write, *arguments))
        self.written[-1]()

    @initialize(steps=st.integers(0, 5), badly=st.booleans(), lost=st.booleans())
    def begin(self, steps: int, badly: bool, lost: bool) -> None:
        """Somewhere in the life of a slot and of a job."""
        self.create(0, NOW)
        for _ in range(steps):
            self.go_on(0, "one", badly, lost, NOW)

    @precondition(lambda self: self.written)
    @rule(age=st.sampled_from([0, 0, 1, 3, 6]))
    def repeat_a_write(self, age: int) -> None:
        self.written[max(-1 - age, -len(self.written))]()

    @rule(now=nows, limit=st.integers(1, 3))
    def look(self, now: float, limit: int) -> None:
        self.table.slots(POOL.name)
        self.table.override(POOL.name)
        self.table.slot(SLOTS[0])
        self.table.job("one")
        self.table.jobs(["one", "none", "two", "one"])
        self.table.queued(POOL, now, limit)
        self.table.running(POOL)
        self.table.active(POOL, limit)
        self.table.waiting(POOL, limit)
        self.table.dependents("one", 2)

    # --- what becomes of slots and jobs where nobody is late, though replies are lost

    @rule(number=numbers, key=names, badly=st.booleans(), lost=st.booleans(), now=nows)
    def go_on(self, number: int, key: str, badly: bool, lost: bool, now: float) -> None:
        for step in (partial(self.step_of_slot, number), partial(self.step_of_job, key, lost)):
            step(badly, now)
            if lost:
                self.written[-1]()

    def step_of_slot(self, number: int, badly: bool, now: float) -> None:
        known = self.slot(number, FRESH)
        if not known.held:
            self.lease(number, FRESH, known.strikes, now)
        elif not known.arn and badly:
            self.release(number, FRESH, None, True, now)
        elif not known.arn:
            self.launched(number, FRESH, "mine", now)
        elif known.state is SlotState.LAUNCHING:
            self.beat(number, FRESH, known.arn, True, now)
        else:
            self.release(number, FRESH, None, False, now)

    def step_of_job(self, key: str, waits: bool, badly: bool, now: float) -> None:
        known = self.job(key, FRESH)
        if not self.known.job(key):
            self.put(key, 5, waits)
        elif known.status is JobStatus.WAITING and badly and now > NOW + 1:
            self.finish(key, FRESH, JobStatus.FAILED, now)
        elif known.status is JobStatus.WAITING and badly:
            self.gather(key, FRESH, JobStatus.FAILED, now)
        elif known.status is JobStatus.WAITING:
            self.grow(key, FRESH, None)
            self.unblock(key, FRESH, now)
        elif known.ended:
            self.put_the_next_run(key, FRESH, False)
        elif not known.holder and badly and known.attempt:
            self.finish(key, FRESH, JobStatus.CANCELLED, now)
        elif not known.holder:
            self.claim(key, FRESH, 0, now)
        elif badly:
            self.requeue(key, FRESH, True, now)
        else:
            self.finish(key, FRESH, JobStatus.COMPLETED, now)

    # --- slots

    @rule(number=numbers, now=nows)
    def create(self, number: int, now: float) -> None:
        self.write(self.table.create_slots, [SLOTS[number]], now)

    @rule(number=numbers, age=ages, strikes=st.integers(0, 2), now=nows)
    def lease(self, number: int, age: int, strikes: int, now: float) -> None:
        self.write(self.table.lease, self.slot(number, age), "{}", "job", strikes, now, self.op())

    @rule(number=numbers, age=ages, arn=arns, now=nows)
    def launched(self, number: int, age: int, arn: str, now: float) -> None:
        self.write(self.table.launched, self.slot(number, age).lease, arn, now)

    @rule(number=numbers, age=ages, arn=arns, first=st.booleans(), now=nows)
    def beat(self, number: int, age: int, arn: str, first: bool, now: float) -> None:
        self.write(self.table.beat, self.slot(number, age).lease, arn, first, now)

    @rule(number=numbers, age=ages, arn=st.sampled_from([None, None, "", "other"]), failed=st.booleans(), now=nows)
    def release(self, number: int, age: int, arn: str | None, failed: bool, now: float) -> None:
        """`arn` None: the one that is known."""
        known = self.slot(number, age)
        proven, retry_at = known.arn if arn is None else arn, now + 10 if failed else 0
        self.write(self.table.release, known.lease, proven, now, "why", retry_at, self.op())

    @rule(number=numbers, age=ages, since=st.sampled_from([0, NOW]))
    def missing(self, number: int, age: int, since: float) -> None:
        self.write(self.table.missing, self.slot(number, age).lease, since)

    @rule(number=numbers, retire=st.booleans(), version=st.integers(0, 2))
    def mark(self, number: int, retire: bool, version: int) -> None:
        self.write(self.table.retire, SLOTS[number], retire, version)

    @rule(number=numbers, age=ages, mark=st.sampled_from(["leave", "keep", "keep no more"]))
    def tell(self, number: int, age: int, mark: str) -> None:
        lease = self.slot(number, age).lease
        if mark == "leave":
            self.write(self.table.leave, lease, "why")
        else:
            self.write(self.table.keep, lease, mark == "keep")

    # --- pools

    @rule(cap=st.sampled_from([None, 1, 2]), behind=st.integers(0, 1))
    def say(self, cap: int | None, behind: int) -> None:
        version = max(self.known.override(POOL.name).version - behind, 0)
        self.write(
            self.table.say, POOL.name, {"cap": cap, "budget_task_hours": 1.5, "mode": "open"}, version, self.op()
        )

    @rule(banks=st.integers(1, 3))
    def widen(self, banks: int) -> None:
        self.write(self.table.widen, POOL.name, banks)

    @rule(name=st.sampled_from(["demo", "fair"]), workers=st.integers(1, 3), now=nows)
    def reserve(self, name: str, workers: int, now: float) -> None:
        self.write(self.table.reserve, Reservation(POOL.name, name, workers, now + 60, now))

    @rule(name=st.sampled_from(["demo", "fair"]), now=nows)
    def unreserve(self, name: str, now: float) -> None:
        self.write(self.table.unreserve, POOL.name, name, now)

    # --- jobs

    @rule(key=names, priority=st.integers(4, 6), waits=st.booleans())
    def put(self, key: str, priority: int, waits: bool) -> None:
        rank, status = keys.rank_of(key, priority, NOW), JobStatus.WAITING if waits else JobStatus.QUEUED
        self.write(self.table.put, replace(JOBS[key], priority=priority, rank=rank, status=status), None, self.op())

    @rule(key=names, age=ages, parts=st.sampled_from([None, 1, 2]))
    def grow(self, key: str, age: int, parts: int | None) -> None:
        self.write(self.table.grow, self.job(key, age), parts)
        self.write(self.table.pass_over, self.job(key, age), Passed(parts or 0, (0, parts or 0, 0), "one"))

    @rule(key=names, age=ages, status=st.sampled_from(ENDED), now=nows)
    def gather(self, key: str, age: int, status: JobStatus, now: float) -> None:
        known = replace(self.job(key, age), status=JobStatus.WAITING)
        self.write(self.table.gather, known, status, now, "error", (1, 2, 3), self.op())

    @rule(key=names, parent=names, now=nows)
    def lead(self, key: str, parent: str, now: float) -> None:
        self.write(self.table.lead, [parent], key, now)

    @rule(key=names, age=ages, now=nows)
    def unblock(self, key: str, age: int, now: float) -> None:
        self.write(self.table.unblock, self.job(key, age), now, self.op())

    @rule(key=names, age=ages, cached=st.sampled_from([False, False, True]))
    def put_the_next_run(self, key: str, age: int, cached: bool) -> None:
        known = self.job(key, age)
        follower = replace(JOBS[key], run=known.run + 1, attempt=known.attempt)
        if cached:
            follower = replace(follower, status=JobStatus.COMPLETED, ended_at=NOW, artifacts=("one",))
        self.write(self.table.put, follower, known, self.op())

    @rule(key=names, age=ages, lane=st.integers(0, 1), now=nows)
    def claim(self, key: str, age: int, lane: int, now: float) -> None:
        self.write(self.table.claim, self.job(key, age), HOLDER._replace(lane=lane), now, self.op())

    @rule(key=names, age=ages, now=nows, fraction=st.sampled_from([0, 0.25, 1 / 3]))
    def heartbeat(self, key: str, age: int, now: float, fraction: float) -> None:
        self.write(self.table.heartbeat, self.job(key, age), now, "sort", fraction, "")

    @rule(key=names, age=ages, status=st.sampled_from(ENDED), now=nows, runs=st.sampled_from([None, True, False]))
    def finish(self, key: str, age: int, status: JobStatus, now: float, runs: bool | None = None) -> None:
        """`runs`: what its author takes the job to be, if not what is known of it."""
        known = self.job(key, age)
        if runs is not None:
            known = replace(known, status=JobStatus.RUNNING if runs else JobStatus.QUEUED)
        elif known.status.ended:
            known = replace(known, status=JobStatus.WAITING)
        self.write(self.table.finish, known, status, now, "error", ("one", "two"), self.op())

    @rule(key=names, waits=st.booleans(), now=nows)
    def withdraw_one_that_waits(self, key: str, waits: bool, now: float) -> None:
        """As its author takes it to wait; it does, if it was put just before."""
        if waits and not self.known.job(key):
            self.put(key, 5, True)
        known = replace(self.job(key, FRESH), status=JobStatus.WAITING)
        self.write(self.table.finish, known, JobStatus.FAILED, now, "error", (), self.op())

    @rule(key=names, age=ages, theirs=st.sampled_from([True, True, False]), due_at=nows)
    def requeue(self, key: str, age: int, theirs: bool, due_at: float) -> None:
        known = self.job(key, age)
        holder = known.holder if known.holder and theirs else HOLDER._replace(lane=2)
        self.write(self.table.requeue, replace(known, holder=holder), due_at, "error", lapse(known), self.op())

    @rule(key=names, age=ages)
    def cancel(self, key: str, age: int) -> None:
        self.write(self.table.cancel, self.job(key, age), "why")

    # --- shares

    @rule(priority=st.integers(4, 5), jobs=draws, now=nows)
    def draw(self, priority: int, jobs: Mapping[str, int], now: float) -> None:
        self.write(self.table.draw, replace(POOL, tenant_weights={"two": 3}), priority, jobs, now)

    @rule(tenant=st.sampled_from(["one", "two"]), drawn=ages, at=tags, now=nows)
    def draw_with_old_knowledge(self, tenant: str, drawn: int, at: int, now: float) -> None:
        self.write(self.items.update, keys.draw_write(POOL.name, 5, tenant, drawn, at, 10, now))

    def teardown(self) -> None:
        self.look(NOW + 2, 3)
        assert by_key(self.memory.all()) == by_key(all_items(self.client, self.name))


def by_key(items: Iterable[keys.Item]) -> dict[tuple[str, str], keys.Item]:
    return {(item[keys.TABLE_PK], item[keys.TABLE_SK]): item for item in items}


def all_items(client: DynamoDBClient, table: str) -> Iterator[keys.Item]:
    """Every item of a small table, read without the adapter."""
    answer = client.scan(TableName=table, ConsistentRead=True)
    assert "LastEvaluatedKey" not in answer
    for item in answer["Items"]:
        yield {name: TypeDeserializer().deserialize(value) for name, value in item.items()}


@pytest.mark.long
def test_memory_and_dynamodb_answer_every_operation_alike_and_end_alike(client: DynamoDBClient) -> None:
    met: Met = Counter()
    bounded = settings(
        derandomize=True,
        max_examples=10,  # from there on Hypothesis varies old examples rather than making new ones
        stateful_step_count=36,
        deadline=None,
        phases=[Phase.generate],  # a failure is told as it was found; with Phase.shrink made small, in minutes
    )
    for number in range(5):
        machine: Any = seed(number)(lambda: Operations(client, met))
        run_state_machine_as_test(machine, settings=bounded)
    assert {name for name, _, _ in met} == OPERATIONS
    guarded = {(name, condition) for name, condition, _ in met if name in OPERATIONS}
    one_way = {each for each in guarded if not (met[*each, "accepted"] and met[*each, "refused"])}
    assert one_way == {("edge", keys.WHATEVER.name)}
    assert {name for name, _, outcome in met if outcome == "landed before"} == REPEATABLE
