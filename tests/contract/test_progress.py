"""Progress, however slow the calls: an intake that is killed at its minute would take the same batch for ever.

Every call of a port takes as long as one may; whatever an intake does beyond its timeout did not happen.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from fleetcap import jobs, keys, limits
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.adapters.dynamo import DynamoItems
from fleetcap.fleet import Fleet
from fleetcap.model import Holder, Job, JobStatus, Lease, Override, Pool, Request, SlotId
from handlers import tick
from handlers.intake import Intake
from local.memory.ecs import MemoryEcs
from local.memory.items import MemoryItems
from tests.contract.test_dependencies import child, end, word
from tests.fakes import LAUNCH, FakeCache, FakeRechecks, HandClock, Lines
from tests.handlers.test_intake import FakeRejects, batch, message

FAR: Final = 1e12


class Killed(BaseException):
    """The function's time is over, in the middle of a call."""


class Slow:
    """A port each of whose calls takes some seconds, or as many as it makes requests."""

    def __init__(self, port: object, world: World) -> None:
        self._port, self._world = port, world

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._port, name)

        def slowly(*arguments: Any, **named: Any) -> Any:
            at_a_time = {"put_each": limits.PUTS_AT_A_TIME, "batch": limits.BATCH_GET_ITEMS}.get(name)
            writes = name in {"put", "update"}
            self._world.request(-(-len(arguments[0]) // at_a_time) if at_a_time else 1, writes)
            self._world.reads += len(arguments[0]) if name == "batch" else name == "get"
            return call(*arguments, **named)

        return slowly


@dataclass
class World:
    """A queue, the table, and an intake that takes a batch at a time, each in its own minute."""

    call_s: float = 0.0
    write_s: float = 0.0
    clock: HandClock = field(default_factory=HandClock)
    rechecks: FakeRechecks = field(default_factory=FakeRechecks)
    killed_at: float = FAR
    calls: int = 0
    reads: int = 0
    shares: bool = False

    def __post_init__(self) -> None:
        pool = Pool("default", 2, LAUNCH, fair_shares=self.shares)
        table: Any = StoredControlTable(Slow(MemoryItems(), self))
        self.ecs = MemoryEcs(self.clock.now, lambda _: None)
        ecs: Any = Slow(self.ecs, self)
        cache: Any = Slow(FakeCache(), self)
        rechecks: Any = Slow(self.rechecks, self)
        self.fleet = Fleet({"default": pool}, table, ecs, self.clock, Lines())
        self.intake = Intake(self.fleet, cache, FakeRejects(), frozenset(), rechecks)

    def request(self, times: int, writes: bool = False) -> None:
        """So many requests, one after the other."""
        self.calls += times
        self.clock.sleep(times * (self.call_s or (self.write_s if writes else 0.0)))
        if self.clock.now() > self.killed_at:
            raise Killed

    def take(self, *bodies: str) -> list[str]:
        """What is left of a batch after one delivery of it. Raises Killed."""
        event = batch(self.clock, *bodies)
        self.killed_at = self.clock.now() + limits.DECIDER_TIMEOUT_S
        failures = self.intake.handle(event)["batchItemFailures"]
        self.killed_at = FAR
        return [bodies[int(failure["itemIdentifier"].removeprefix("m"))] for failure in failures]

    def settle(self, *bodies: str) -> int:
        """Deliver these, and every word that is sent meanwhile, until all are settled; how many deliveries it took."""
        queue, deliveries = list(bodies), 0
        while queue:
            some, queue = queue[:10], queue[10:]
            left = self.take(*some)
            words, self.rechecks.heard = self.rechecks.heard, []
            queue += [*left, *(word(*keys) for keys in words)]
            deliveries += 1
            assert deliveries < 400, "no progress"
        return deliveries

    def job(self, key: str) -> Job:
        found = quick_look(self, key)
        assert found
        return found

    def statuses(self, names: Iterable[str]) -> set[JobStatus]:
        return {self.job(name).status for name in names}


@pytest.fixture
def slow() -> World:
    return World(call_s=limits.SLOW_CALL_S)


KINDS: Final[dict[str, Callable[[int], str]]] = {
    "plain": lambda n: message(f"k{n}"),
    "with twenty parents": lambda n: child(f"k{n}", *(f"p{parent}" for parent in range(20))),
    "of tenants": lambda n: message(f"k{n}", tenant=f"t{n % 3}", priority=n % 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_batch_something_is_settled_however_slow_its_calls(kind: str) -> None:
    world = World(call_s=limits.SLOW_CALL_S, shares=kind == "of tenants")
    bodies = [KINDS[kind](number) for number in range(10)]
    while bodies:
        left = world.take(*bodies)
        assert len(left) < len(bodies)
        bodies = left
    waits = kind == "with twenty parents"
    assert world.statuses(f"k{n}" for n in range(10)) == {JobStatus.WAITING if waits else JobStatus.QUEUED}


def test_of_a_batch_of_ten_tenants_something_is_settled_where_reads_are_quick_and_writes_slow() -> None:
    world = World(shares=True, write_s=limits.SLOW_CALL_S)
    bodies = [message(f"k{number}", tenant=f"t{number}") for number in range(10)]
    while bodies:
        left = world.take(*bodies)
        assert len(left) < len(bodies)
        bodies = left


def test_a_ceiling_that_cannot_be_counted_in_time_lets_work_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of forty banks: each is a request of its own."""
    world = World(call_s=limits.SLOW_CALL_S)
    pool = replace(world.fleet.pools["default"], active_jobs_max=1_000)
    world.intake = world.intake._replace(fleet=world.fleet._replace(pools={"default": pool}))
    monkeypatch.setattr(world.fleet.table, "override", lambda _: Override(banks=40))
    assert world.take(message("a")) == []
    assert world.statuses(["a"]) == {JobStatus.QUEUED}


def draws_of(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many jobs an intake draws each time, from now on."""
    draws: list[int] = []
    draw = world.fleet.table.draw

    def counted(pool: Pool, priority: int, mine: Mapping[str, int], now: float) -> dict[str, list[int]]:
        draws.append(sum(mine.values()))
        return draw(pool, priority, mine, now)

    monkeypatch.setattr(world.fleet.table, "draw", counted)
    return draws


def test_where_calls_are_quick_a_batch_is_one_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(call_s=0.01, shares=True)
    draws = draws_of(world, monkeypatch)
    assert world.take(*(message(f"k{n}") for n in range(10))) == []
    assert draws == [10]


def many(count: int, **fields: object) -> str:
    return message("a", source="s3://input/{index}.bam", array=count, **fields)


def test_an_array_grows_and_ends_however_slow_its_calls(slow: World) -> None:
    slow.settle(many(120))
    assert slow.job("a").grown
    elements = [f"a/{index}" for index in range(120)]
    assert slow.statuses(elements) == {JobStatus.QUEUED}
    for element in elements:
        quickly(slow, lambda key=element: end(slow.fleet, slow.clock, key))  # type: ignore[misc]
    slow.settle(*(word(f"a/part-{part}") for part in range(3)))
    slow.settle(word("a"))
    assert (slow.job("a").status, slow.job("a").counts) == (JobStatus.COMPLETED, (120, 0, 0))


def test_whoever_finds_that_another_goes_on_with_an_array_begins_no_second_chain_of_words(
    slow: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An element has ended while the array grows, and the word of that was taken before the cursor moved."""
    slow.take(many(30, force=True))
    before = slow.job("a")
    slow.take(word("a"))
    after = slow.job("a")
    assert 0 < before.put < after.put < 30
    words, slow.rechecks.heard = slow.rechecks.heard, []
    read = slow.fleet.table.jobs
    with monkeypatch.context() as earlier:
        earlier.setattr(slow.fleet.table, "jobs", lambda names: {"a": before} if names == ["a"] else read(names))
        assert slow.take(word("a")) == []
    assert (slow.rechecks.heard, slow.job("a")) == ([], after)
    slow.settle(word(*words[-1]))
    assert (slow.job("a").grown, slow.statuses(f"a/{index}" for index in range(30))) == (True, {JobStatus.QUEUED})


def test_whoever_finds_that_an_array_was_cancelled_while_it_grew_ends_what_he_has_put(
    slow: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody else was told of the cancel before; he puts one more than had been put by then."""
    slow.take(many(30, force=True))
    standing = slow.job("a")
    before = replace(standing, put=standing.put - 1)
    quickly(slow, lambda: jobs.cancel(slow.fleet.table, slow.clock, "a", "by hand"))
    quickly(slow, lambda: slow.settle(word("a")))
    assert not quick_look(slow, f"a/{standing.put}")
    read = slow.fleet.table.jobs
    with monkeypatch.context() as earlier:
        earlier.setattr(slow.fleet.table, "jobs", lambda names: {"a": before} if names == ["a"] else read(names))
        assert slow.take(word("a")) == []
    words, slow.rechecks.heard = slow.rechecks.heard, []
    slow.settle(*(word(*names) for names in words))
    assert slow.job(f"a/{standing.put}").status is JobStatus.CANCELLED


def quick_look(world: World, key: str) -> Job | None:
    slow, world.call_s = world.call_s, 0.0
    found = world.fleet.table.job(key)
    world.call_s = slow
    return found


def test_an_arrays_elements_that_wait_for_others_are_put_however_slow_that_is(slow: World) -> None:
    slow.settle(many(4, depends_on=[f"p{parent}" for parent in range(20)]))
    assert slow.statuses(f"a/{index}" for index in range(4)) == {JobStatus.WAITING}


def test_a_forced_array_asks_no_cache_and_grows_all_the_same(slow: World) -> None:
    slow.settle(many(30, force=True))
    assert slow.statuses(f"a/{index}" for index in range(30)) == {JobStatus.QUEUED}


def test_where_calls_are_quick_an_arrays_tags_are_drawn_by_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(call_s=0.01, shares=True)
    draws = draws_of(world, monkeypatch)
    world.settle(many(limits.ARRAY_STEP, force=True))
    assert draws == [1, 2, 4, 8, 16, 19]


@pytest.mark.parametrize("speed", [{"call_s": 1.0}, {"call_s": limits.SLOW_CALL_S}, {"write_s": 2.0}])
def test_an_array_that_grows_slowly_draws_few_tags_that_nobody_uses(
    speed: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its tenant would fall behind by as many jobs as each word of it draws for and does not put."""
    world = World(shares=True, **speed)  # type: ignore[arg-type]
    draws = draws_of(world, monkeypatch)
    world.settle(many(30, force=True))
    assert world.statuses(f"a/{index}" for index in range(30)) == {JobStatus.QUEUED}
    assert sum(draws) <= 2 * 30


def test_an_array_that_runs_anew_over_results_that_stand_grows_however_slow_that_is() -> None:
    world = World()
    world.settle(many(12))
    for index in range(12):
        end(world.fleet, world.clock, f"a/{index}", JobStatus.COMPLETED if index else JobStatus.FAILED)
    world.settle(word("a"))
    world.clock.sleep(60.0)
    world.intake.cache._port.has_all = lambda keys: "a/0/" not in keys[0]  # type: ignore[attr-defined]
    world.call_s = limits.SLOW_CALL_S
    world.settle(many(12))
    assert world.job("a").grown
    assert (world.job("a/0").run, world.job("a/11").run) == (2, 1)


def test_a_cancelled_array_has_all_its_elements_ended_however_slow_that_is(slow: World) -> None:
    quickly(slow, lambda: slow.settle(many(30)))
    quickly(slow, lambda: jobs.cancel(slow.fleet.table, slow.clock, "a", "by hand"))
    slow.settle(word("a"))
    assert slow.statuses(f"a/{index}" for index in range(30)) == {JobStatus.CANCELLED}


def test_everybody_whom_a_word_names_is_judged_however_slow_that_is(slow: World) -> None:
    names = [f"k{n}" for n in range(limits.RECHECK_KEYS)]
    quickly(slow, lambda: slow.settle(message("p"), *(child(name, "p") for name in names)))
    quickly(slow, lambda: end(slow.fleet, slow.clock, "p"))
    slow.settle(word(*names))
    assert slow.statuses(names) == {JobStatus.QUEUED}


def test_who_waits_for_others_is_judged_once_by_his_own_message_where_there_is_no_time_left(slow: World) -> None:
    """He is put, and a word has him judged; the message does not come again for that."""
    quickly(slow, lambda: slow.settle(message("p")))
    quickly(slow, lambda: end(slow.fleet, slow.clock, "p"))
    slow.call_s = 9.0
    assert slow.take(child("c", "p")) == []
    assert slow.rechecks.heard == [["c"]]


def test_a_job_at_the_end_of_a_long_chain_is_taken_in_though_not_all_of_it_can_be_looked_at(slow: World) -> None:
    """A circle that is longer than there is time for is found by the tick; whoever looked on would be killed."""
    generations = 40
    chain = [child(f"w{number}", f"w{number + 1}") for number in range(generations)]
    quickly(slow, lambda: slow.settle(*chain))
    assert slow.take(child("last", "w0")) == []
    assert slow.statuses(["last"]) == {JobStatus.WAITING}


def quickly(world: World, deed: Callable[[], object]) -> None:
    usual, world.call_s = world.call_s, 0.0
    deed()
    world.rechecks.heard.clear()
    world.call_s = usual


# --- what the end of an element costs


def orders(count: int) -> dict[str, list[int]]:
    shuffled = list(range(count))
    random.Random(1).shuffle(shuffled)  # noqa: S311
    return {"first to last": list(range(count)), "last to first": list(range(count))[::-1], "at random": shuffled}


@pytest.mark.parametrize("order", orders(2))
def test_the_end_of_an_element_costs_three_reads_in_whatever_order_they_end(order: str) -> None:
    """And each end of a part of fifty three more: a read is one unit, as no item is larger than 4 KB."""
    world, count, parts = World(), 120, 3
    world.settle(many(count))
    reads = calls = 0
    for index in orders(count)[order]:
        end(world.fleet, world.clock, f"a/{index}")
        part = f"a/part-{index // limits.ARRAY_STEP}"
        world.reads = world.calls = 0
        world.take(word(part))
        reads, calls = reads + world.reads, calls + world.calls
        if world.job(part).ended:
            world.reads = world.calls = 0
            world.take(word("a"))
            reads, calls = reads + world.reads, calls + world.calls
    assert world.job("a").status is JobStatus.COMPLETED
    assert reads <= 3 * (count + 2 * parts)
    assert calls <= reads + count + parts + 1, "and a write at most, which says how far that was"


# --- a tick of a pool of many banks


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> World:
    """A pool of twelve banks of a slot each. A job of the first bank's worker is to go back, and another one waits."""
    monkeypatch.setattr(limits, "BANK_SLOTS", 1)
    world = World()
    pools = {"default": replace(world.fleet.pools["default"], cap=12)}
    world.fleet = fleet = world.fleet._replace(pools=pools)
    for number in range(12):
        fleet.table.create_slots([SlotId("default", number)], world.clock.now())
    fleet.table.widen("default", 12)
    [slot] = [slot for slot in fleet.table.slots("default") if slot.id.number == 0]
    lease = Holder(Lease(slot.id, slot.generation))
    for name in ("orphan", "waits"):
        job = Job(
            name, 1, JobStatus.QUEUED, "default", 5, Request("s3://input/a.bam", "bam"),
            rank=name, queued_at=world.clock.now(), due_at=world.clock.now(),
        )  # fmt: skip
        assert fleet.table.put(job, None, world.clock.unique())
        if name == "orphan":
            assert fleet.table.lease(slot, "{}", name, 0, world.clock.now(), "lease")
            assert fleet.table.claim(job, lease, world.clock.now(), "claim")
            assert fleet.table.release(lease.lease, "", world.clock.now(), "its task is gone", 0.0, "release")
    return world


def test_a_tick_of_a_pool_of_many_banks_tidies_up_and_launches_however_slow_the_calls(wide: World) -> None:
    """Reading all of it would take two minutes: each tick would be killed at its own, for ever."""
    wide.call_s = 5.0
    launched_after = tidied_after = 0
    for minute in range(1, 2 * len(tick.CHORES) + 1):
        began_at = wide.clock.now()
        wide.killed_at = began_at + limits.DECIDER_TIMEOUT_S
        tick.look_on(wide.fleet, tick.handle(wide.fleet), began_at)
        wide.killed_at, wide.clock.time = FAR, began_at + limits.TICK_PERIOD_S
        launched_after = launched_after or (minute if wide.ecs.live else 0)
        orphan = quick_look(wide, "orphan")
        tidied_after = tidied_after or (minute if orphan and orphan.status is JobStatus.QUEUED else 0)
    assert 0 < launched_after <= 2
    assert 0 < tidied_after <= 2 * len(tick.CHORES)


# --- the edges of a job with many parents


@dataclass
class Wire:
    """DynamoDB as an adapter meets it: a put has its answer once so many are under way, or none where it is refused."""

    together: threading.Barrier
    refused: str = ""
    under_way: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put_item(self, **request: Any) -> None:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.together.wait(20)
        with self.lock:
            self.under_way -= 1
        if self.refused and request["Item"]["sk"]["S"] == self.refused:
            raise ConnectionError("no answer")


def edges(*dependents: str) -> list[keys.Put]:
    return [keys.edge_write("p", dependent, 1e9) for dependent in dependents]


def test_the_edges_of_a_job_with_twenty_parents_take_as_long_as_two() -> None:
    wire = Wire(threading.Barrier(limits.PUTS_AT_A_TIME))
    client: Any = wire
    DynamoItems(client, "control").put_each(edges(*map(str, range(limits.PARENTS_MAX))))
    assert wire.most == limits.PUTS_AT_A_TIME == limits.PARENTS_MAX / 2


def test_an_edge_that_could_not_be_written_keeps_its_job_from_being_put() -> None:
    """The end of that parent would be told to nobody."""
    client: Any = Wire(threading.Barrier(1), refused="2")
    with pytest.raises(ConnectionError):
        DynamoItems(client, "control").put_each(edges("0", "1", "2", "3"))
