"""What people say of a pool at run time, and how deciders and workers obey: the product in memory, moved by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fleetcap import jobs, limits, pools
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.decide.capacity import ON_DEMAND, SPOT, LeaseFor, Providers
from fleetcap.fleet import Fleet
from fleetcap.model import (
    Bank,
    Flags,
    Holder,
    Job,
    JobStatus,
    Mode,
    Pool,
    Reservation,
    Slot,
    SlotId,
    SlotState,
)
from fleetcap.timebox import Timebox
from handlers import task_state, tick
from local.memory.items import MemoryItems
from tests.examples import a_job
from tests.fakes import LAUNCH, FakeChildren, HandClock, HandEcs, Lines
from tests.handlers.test_task_state import stopped
from tests.worker.test_worker import Enough, Script
from worker_image.worker import Settings, Worker


@dataclass
class World:
    """One pool over items in memory."""

    cap: int = 2
    knobs: dict[str, Any] = field(default_factory=dict)
    clock: HandClock = field(default_factory=HandClock)
    log: Lines = field(default_factory=Lines)

    def __post_init__(self) -> None:
        self.tasks = HandEcs(self.clock.now)
        self.table = StoredControlTable(MemoryItems())

    @property
    def pool(self) -> Pool:
        return Pool("default", self.cap, LAUNCH, **self.knobs)

    @property
    def fleet(self) -> Fleet:
        return Fleet({"default": self.pool}, self.table, self.tasks, self.clock, self.log)

    def tick(self) -> None:
        tick.handle(self.fleet)

    def queue(self, *names: str) -> list[Job]:
        put = [replace(a_job(name), queued_at=self.clock.now(), due_at=self.clock.now()) for name in names]
        for job in put:
            assert self.table.put(job, None, self.clock.unique())
        return put

    @property
    def slots(self) -> list[Slot]:
        return self.table.slots("default")

    @property
    def held(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.held]

    def ready(self, count: int, image: str = "") -> list[Slot]:
        """So many workers that have beaten."""
        names = [f"first/{number}" for number in range(count)]
        for job in self.queue(*names):
            self.fleet.scale(self.pool, [job.as_queued], most=1)
            assert jobs.cancel(self.table, self.clock, job.key, "it was for the worker only")
        for slot in self.held:
            if slot.state is SlotState.LAUNCHING:
                now = self.clock.now()
                assert self.table.beat(slot.lease, slot.arn, True, now, idle_since=now, image=image) is not None
        assert len(self.held) == count
        return self.held

    def say(self, **said: Any) -> tuple[Pool, Pool]:
        return pools.change(self.table, self.clock, self.pool, said)

    def set_cap(self, cap: int) -> Pool:
        before, after = self.say(cap=cap)
        list(pools.fit_the_cap(self.table, self.clock, after, before.cap))
        return after

    def works(self, slot: Slot, *steps: Any, **settings: Any) -> tuple[str, FakeChildren]:
        """The worker of a slot through these steps; why it left, or "" if it would have gone on."""
        children = FakeChildren()
        clock = Script(self.clock, list(steps))
        loop = Worker(
            slot.lease, slot.arn, Settings(**settings), self.table, children, clock, self.log, lambda: False
        )  # fmt: skip
        try:
            return loop.run(), children
        except Enough:
            return "", children


@pytest.fixture
def world() -> World:
    return World()


def nothing() -> None:
    """A step in which only time passes."""


# --- the cap at run time


def test_a_raised_cap_is_used_by_the_next_decision_and_needs_no_deploy(world: World) -> None:
    world.tick()
    world.set_cap(4)
    queued = world.queue("a", "b", "c", "d", "e")
    world.fleet.scale(world.pool, [job.as_queued for job in queued], most=5)
    assert len(world.held) == 4


def test_a_lowered_cap_kills_nobody_and_is_never_filled_again(world: World) -> None:
    world.cap = 3
    workers = world.ready(3)
    world.set_cap(1)
    assert [slot.retire for slot in world.slots] == [False, True, True]
    assert (world.tasks.stopped, len(world.held)) == ([], 3)
    flags = [world.table.beat(slot.lease, slot.arn, False, world.clock.now()) for slot in workers]
    assert flags == [Flags(), Flags(retire=True), Flags(retire=True)]
    for slot in workers[1:]:
        assert world.table.release(slot.lease, slot.arn, world.clock.now(), "stopped", 0.0, world.clock.unique())
    world.queue("a", "b", "c")
    world.tick()
    assert [slot.id.number for slot in world.held] == [0]


def test_a_cap_can_be_taken_back_to_what_is_configured(world: World) -> None:
    world.tick()
    world.set_cap(1)
    _, after = world.say(cap=None)
    list(pools.fit_the_cap(world.table, world.clock, after, 2))
    assert (after.cap, [slot.retire for slot in world.slots]) == (2, [False, False])


def test_who_still_works_on_a_higher_cap_can_lease_nothing_above_the_lower_one(world: World) -> None:
    """It has read everything before the cap was lowered, and acts only now: on slots that exist, and on new ones."""
    world.tick()
    world.set_cap(4)
    before = world.fleet.look(world.pool)  # makes slots 2 and 3
    world.set_cap(1)
    world.queue("a", "b", "c", "d")
    view = world.fleet.view(before)
    assert view.pool.cap == 4
    world.fleet._lease_all(view, [LeaseFor(job.key) for job in view.queued])
    assert [slot.id.number for slot in world.held] == [0]


def test_slots_that_a_stale_decider_might_make_are_there_already_and_marked(world: World) -> None:
    world.tick()
    world.say(cap=4)  # nobody has made slots 2 and 3 yet
    world.set_cap(1)
    world.table.create_slots([SlotId("default", 3)], world.clock.now())
    assert [(slot.id.number, slot.retire) for slot in world.slots] == [(0, False), (1, True), (2, True), (3, True)]


def test_a_mark_of_an_older_cap_comes_too_late(world: World) -> None:
    world.cap = 3
    world.tick()
    high = world.say(cap=3)[1]
    low = world.set_cap(1)
    assert high.version < low.version
    assert not world.table.retire(SlotId("default", 2), False, high.version)
    assert [slot.retire for slot in world.slots] == [False, True, True]


def test_who_means_to_take_marks_back_for_a_cap_in_between_comes_too_late(world: World) -> None:
    world.cap = 3
    world.tick()
    world.set_cap(1)
    between = world.say(cap=3)[1]  # and its author has read the marks, and not yet taken them back
    world.set_cap(1)
    assert not world.table.retire(SlotId("default", 2), False, between.version)
    assert [slot.retire for slot in world.slots] == [False, True, True]


def test_who_dies_while_marking_is_made_good_by_the_tick_or_by_saying_it_again(world: World) -> None:
    world.cap = 4
    world.tick()
    before, after = world.say(cap=1)
    next(pools.fit_the_cap(world.table, world.clock, after, before.cap))
    assert sum(slot.retire for slot in world.slots) == 1
    world.tick()
    assert [slot.retire for slot in world.slots] == [False, True, True, True]


def test_two_people_at_once_are_told_apart_by_the_version(world: World) -> None:
    assert world.table.say("default", {"cap": 5}, 0, "one")
    assert world.table.say("default", {"cap": 6}, 0, "two") is None
    assert world.table.say("default", {"cap": 5}, 0, "one"), "a lost reply, sent again"
    assert world.table.override("default").version == 1


def test_who_is_interrupted_each_time_is_told_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.table, "say", lambda *_: None)
    with pytest.raises(jobs.Contended, match="pool default changed under each of 8 attempts"):
        world.say(cap=3)


def test_an_override_says_nothing_of_what_it_does_not_name(world: World) -> None:
    world.knobs = {"min_workers": 1, "budget_task_hours": 3.0}
    _, after = world.say(warm_workers=2)
    assert (after.cap, after.min_workers, after.warm_workers, after.budget_task_hours) == (2, 1, 2, 3.0)
    _, after = world.say(budget_task_hours=1.5)
    assert (after.warm_workers, after.budget_task_hours, after.version) == (2, 1.5, 2)


def test_words_to_a_worker_are_for_its_lease_alone(world: World) -> None:
    (slot,) = world.ready(1)
    older = slot.lease._replace(generation=slot.generation - 1)
    assert not world.table.leave(older, "why")
    assert not world.table.keep(older, True)
    empty = next(each for each in world.slots if not each.held)
    assert not world.table.leave(empty.lease, "why")
    assert not world.table.keep(empty.lease, True)
    assert world.table.keep(slot.lease, True)
    assert world.table.leave(slot.lease, "why")
    assert [(each.keep, each.leave) for each in world.slots] == [(False, False), (False, True)]


def test_banks_that_exist_are_never_forgotten(world: World) -> None:
    world.table.widen("default", 3)
    world.table.widen("default", 2)
    assert world.table.override("default").banks == 3
    world.say(cap=1)
    assert world.table.override("default").banks == 3


# --- large pools


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> World:
    """Two slots a bank, two banks a decision."""
    monkeypatch.setattr(limits, "BANK_SLOTS", 2)
    monkeypatch.setattr(limits, "BANKS_PER_DECISION", 2)
    return World()


def test_banks_are_made_as_they_are_needed(small: World) -> None:
    small.cap = 5
    small.tick()
    assert [slot.id.number for slot in small.slots] == [0, 1]
    small.queue(*"abcdefg")
    for _ in range(4):
        small.tick()
    assert [slot.id.number for slot in small.held] == [0, 1, 2, 3, 4]
    assert small.table.override("default").banks == 3


def test_a_decision_reads_a_bounded_number_of_banks_and_a_tick_all(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.cap = 8
    small.queue(*"abcdefgh")
    for _ in range(8):
        small.tick()
    assert len(small.held) == 8
    read: list[int] = []
    bank = small.table.bank

    def watched(pool: str, number: int) -> Bank:
        read.append(number)
        return bank(pool, number)

    monkeypatch.setattr(small.table, "bank", watched)
    standing = small.fleet.look(small.pool, near=SlotId("default", 7))
    assert (read, standing.share, len(standing.slots)) == ([0, 3], 0.5, 4)
    read.clear()
    assert len(small.fleet.look(small.pool, whole=True).slots) == 8
    assert sorted(read) == [0, 1, 2, 3]


def test_idle_workers_in_banks_that_were_not_read_are_taken_into_account(small: World) -> None:
    small.cap = 8
    small.queue(*"abcdefgh")
    for _ in range(8):
        small.tick()
    for slot, key in zip(small.held, "abcdefgh", strict=True):
        assert small.table.beat(slot.lease, slot.arn, True, small.clock.now()) is not None
        assert jobs.cancel(small.table, small.clock, key, "it was for the worker only")
    small.cap = 10
    small.fleet.look(small.pool)  # makes the fifth bank
    waiting = [job.as_queued for job in small.queue(*"klmno")]
    small.fleet.scale(small.pool, waiting, most=5, near=SlotId("default", 8))
    assert len(small.held) == 8


def test_jobs_of_a_dead_worker_are_found_in_the_bank_of_its_slot(small: World) -> None:
    small.cap = 4
    small.queue(*"abcd")
    for _ in range(3):
        small.tick()
    slot = small.held[3]
    assert small.table.beat(slot.lease, slot.arn, True, small.clock.now()) is not None
    job = small.table.job("d")
    assert job
    assert small.table.claim(job, Holder(slot.lease), small.clock.now(), "claim")
    assert [entry.key for entry in small.table.running(small.pool, [1])] == ["d"]
    assert small.table.running(small.pool, [0]) == []
    assert [entry.key for entry in small.table.running(small.pool)] == ["d"]
    task_state.handle(small.fleet, stopped(slot.arn, slot.lease))
    requeued = small.table.job("d")
    assert requeued
    assert requeued.status is JobStatus.QUEUED


def test_slots_above_a_lowered_cap_are_still_watched(small: World) -> None:
    small.cap = 6
    small.queue(*"abcdef")
    for _ in range(6):
        small.tick()
    small.set_cap(1)
    assert len(small.fleet.look(small.pool, whole=True).slots) == 6


# --- several jobs a worker


def test_a_worker_takes_as_many_jobs_as_it_may_and_its_death_sends_all_of_them_back(world: World) -> None:
    world.knobs = {"jobs_per_worker": 2}
    queued = [job.as_queued for job in world.queue("a", "b", "c")]
    world.fleet.scale(world.pool, queued, most=3)
    assert len(world.tasks.calls) == 2  # the third job counts on the second lane of the first worker
    slot = world.held[0]
    _, children = world.works(slot, nothing, nothing, nothing, jobs_per_worker=2)
    assert len(children.started) == 2
    task_state.handle(world.fleet, stopped(slot.arn, slot.lease))
    jobs_now = [job for name in "abc" if (job := world.table.job(name))]
    assert {job.status for job in jobs_now} == {JobStatus.QUEUED}
    assert sorted(job.interruptions for job in jobs_now) == [0, 1, 1]


# --- pause, drain, stop


@pytest.mark.parametrize("mode", [Mode.PAUSED, Mode.DRAINING, Mode.STOPPED])
def test_in_a_pool_that_is_not_open_nobody_launches_and_nobody_claims(world: World, mode: Mode) -> None:
    (slot,) = world.ready(1)
    world.say(mode=mode.value, reason="by hand")
    (job,) = world.queue("a")
    world.fleet.scale(world.pool, [job.as_queued], most=1)
    assert len(world.tasks.calls) == 1
    _, children = world.works(slot, nothing, nothing)
    assert children.started == []
    world.say(mode=Mode.OPEN.value, reason=None)
    _, children = world.works(slot, nothing, nothing)
    assert [child.assignment.workflow_key for child in children.started] == ["a"]


def test_in_a_paused_pool_without_workers_nobody_launches(world: World) -> None:
    world.say(mode=Mode.PAUSED.value)
    world.queue("a")
    world.tick()
    assert (world.held, world.tasks.calls) == ([], [])


def test_a_pause_lets_the_running_job_end_and_sends_nobody_away(world: World) -> None:
    (slot,) = world.ready(1)
    (job,) = world.queue("a")
    world.say(mode=Mode.PAUSED.value)
    assert world.table.claim(job, Holder(slot.lease), world.clock.now(), "claim")
    world.tick()
    assert (world.held[0].leave, world.tasks.stopped) == (False, [])


def test_a_drain_sends_every_worker_away_when_it_is_done(world: World) -> None:
    slots = world.ready(2)
    world.say(mode=Mode.DRAINING.value, reason="night")
    world.tick()
    assert [slot.leave for slot in world.held] == [True, True]
    assert world.works(slots[0], nothing)[0] == "drained"
    assert world.tasks.stopped == []


def test_a_stop_stops_every_task_and_goes_on_doing_so_until_all_are_gone(world: World) -> None:
    slots = world.ready(2)
    world.say(mode=Mode.STOPPED.value)
    assert world.fleet.stop_all(world.fleet.look(world.pool, whole=True)) == 2
    assert sorted(world.tasks.stopped) == sorted(slot.arn for slot in slots)
    world.tick()
    assert len(world.tasks.stopped) == 4  # whoever said stop may have died before it came to all of them
    for slot in slots:
        task_state.handle(world.fleet, stopped(slot.arn, slot.lease))
    world.tick()
    assert (world.held, len(world.tasks.stopped)) == ([], 4)


def test_a_launch_that_nobody_has_an_answer_for_is_stopped_once_it_has_one(world: World) -> None:
    world.queue("a")
    world.tick()
    (slot,) = world.held
    world.say(mode=Mode.STOPPED.value)
    world.tick()
    assert world.tasks.stopped == [slot.arn]


def test_the_time_of_a_pause_is_no_lack_of_capacity(world: World) -> None:
    world.knobs = {"dispatch_deadline_s": 100.0}
    world.tasks.capacity = 0
    world.queue("a")
    world.tick()
    world.say(mode=Mode.PAUSED.value)
    for _ in range(5):
        world.clock.sleep(60)
        world.tick()
    job = world.table.job("a")
    assert job
    assert job.status is JobStatus.QUEUED


# --- workers that stand by


def test_a_reservation_brings_workers_that_stay_and_lets_them_go(world: World) -> None:
    until = world.clock.now() + 2_000
    assert world.table.reserve(Reservation("default", "demo", 2, until, world.clock.now()))
    assert not world.table.reserve(Reservation("default", "demo", 1, until, world.clock.now()))
    world.tick()
    assert len(world.held) == 2
    for slot in world.held:
        now = world.clock.now()
        assert world.table.beat(slot.lease, slot.arn, True, now, idle_since=now) is not None
    world.tick()
    assert [slot.keep for slot in world.held] == [True, True]
    assert world.works(world.held[0], nothing, lambda: world.clock.sleep(limits.IDLE_EXIT_S + 1), nothing)[0] == ""
    world.clock.time = until
    world.tick()
    assert [(slot.keep, slot.leave) for slot in world.held] == [(False, True), (False, True)]
    assert len(world.tasks.calls) == 2


def test_a_worker_that_is_launched_to_stand_by_stays_before_any_tick_has_seen_it(world: World) -> None:
    """Else it might leave, and the next be launched, and leave, until a tick comes in time."""
    until = world.clock.now() + 2_000
    assert world.table.reserve(Reservation("default", "demo", 1, until, world.clock.now()))
    world.tick()
    [slot] = world.held
    assert world.works(slot, nothing, lambda: world.clock.sleep(limits.IDLE_EXIT_S + 1), nothing)[0] == ""
    assert world.table.release(slot.lease, slot.arn, world.clock.now(), "stopped", 0.0, world.clock.unique())
    [job] = world.queue("a")
    world.fleet.scale(world.pool, [job.as_queued], most=1)
    assert [(slot.for_job, slot.keep) for slot in world.held] == [("a", False)]


def in_part(small: World, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """One for whom reading is so slow that it sees some banks of all."""
    bank = small.table.bank

    def slowly(pool: str, number: int) -> Bank:
        small.clock.sleep(5.0)
        return bank(pool, number)

    table = StoredControlTable(small.table._items)
    monkeypatch.setattr(table, "bank", slowly)
    return small.fleet._replace(table=table, box=Timebox.begin(small.clock))


def test_who_stays_is_not_decided_by_a_part_of_the_slots(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept worker whose peers were not seen is not the one too many."""
    small.cap = 8
    until = small.clock.now() + 2_000
    assert small.table.reserve(Reservation("default", "demo", 6, until, small.clock.now()))
    for _ in range(4):
        small.tick()
    for slot in small.held:
        now = small.clock.now()
        assert small.table.beat(slot.lease, slot.arn, True, now, idle_since=now) is not None
    small.knobs = {"min_workers": 2}
    small.clock.time = until
    part = in_part(small, monkeypatch)
    view = part.view(part.look(small.pool, whole=True))
    assert 0 < len(view.slots) < len(small.slots)
    assert not part.tell_workers(view)
    assert small.fleet.tell_workers(small.fleet.view(small.fleet.look(small.pool, whole=True)))
    assert sum(slot.leave for slot in small.held) == 4


def test_nobody_is_given_up_by_a_part_of_the_slots(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may have come where nobody could look."""
    small.cap, small.knobs = 8, {"waiting_limit_s": 3_600.0}
    small.queue(*"abcdefgh")
    for _ in range(8):
        small.tick()
    small.clock.sleep(3_601)
    assert not in_part(small, monkeypatch).end_overdue(small.pool, small.slots)
    [told] = small.log.of("cut off")
    assert told["left"] == ["default overdue jobs"]
    assert small.fleet.end_overdue(small.pool, small.slots)
    late = small.table.job("a")
    assert late
    assert late.status is JobStatus.FAILED


@pytest.mark.parametrize("first", range(2 * len(tick.CHORES)))
def test_what_needs_no_index_is_done_where_the_index_cannot_be_read(
    world: World, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots of dead workers are freed, marks of the cap set, a stopped pool's workers stopped."""
    world.cap = 3
    dead, lives, _ = world.ready(3)
    world.tasks.ends(dead.arn)
    world.clock.sleep(limits.SILENT_S + 1 + first * limits.TICK_PERIOD_S)
    assert world.table.beat(lives.lease, lives.arn, False, world.clock.now()) is not None
    world.say(cap=2, mode="stopped", reason="by hand")

    def refused(*_: object) -> list[Any]:
        raise ConnectionError("the index is throttled")

    for name in ("queued", "running", "waiting"):
        monkeypatch.setattr(world.table, name, refused)
    world.tick()
    assert [slot.held for slot in world.slots] == [slot.id != dead.id for slot in world.slots]
    assert [slot.retire for slot in world.slots] == [False, False, True]
    assert lives.arn in world.tasks.stopped


def test_a_burst_that_a_tick_launches_for_has_all_of_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether launches come first or last: what half of the time was too short for goes on in the rest."""
    world.cap = 100
    run = world.tasks.run

    def slowly(*call: Any) -> Any:
        world.clock.sleep(0.5)
        return run(*call)

    monkeypatch.setattr(world.tasks, "run", slowly)
    world.queue(*(f"{number:03}" for number in range(100)))
    counts = []
    for minute in range(2):
        before, world.clock.time = len(world.held), world.clock.time // 120 * 120 + 120 + minute * 60
        world.tick()
        counts.append(len(world.held) - before)
        for slot in world.held:
            assert world.table.release(slot.lease, slot.arn, world.clock.now(), "ended", 0.0, world.clock.unique())
    assert min(counts) > 0.9 * max(counts) > 0.8 * limits.DECIDER_BUDGET_S / 0.5


def test_a_slot_that_a_tick_frees_is_used_by_the_same_tick(world: World) -> None:
    world.cap = 1
    [slot] = world.ready(1)
    world.queue("a")
    for _ in range(2):  # launches come first at one of the two
        world.tasks.ends(slot.arn)
        world.clock.sleep(limits.SILENT_S + limits.TICK_PERIOD_S)
        world.tick()
        [fresh] = world.held
        assert fresh.generation > slot.generation
        assert world.table.beat(fresh.lease, fresh.arn, True, world.clock.now()) is not None
        slot = fresh


def test_a_reservation_can_end_before_its_time(world: World) -> None:
    now = world.clock.now()
    assert world.table.reserve(Reservation("default", "demo", 2, now + 2_000, now))
    assert world.table.unreserve("default", "demo", now)
    assert not world.table.unreserve("default", "unknown", now)
    world.tick()
    assert world.held == []


def test_min_workers_are_there_from_the_first_tick_and_replaced_when_they_die(world: World) -> None:
    world.knobs = {"min_workers": 1}
    world.tick()
    (slot,) = world.held
    assert world.table.beat(slot.lease, slot.arn, True, world.clock.now()) is not None
    task_state.handle(world.fleet, stopped(slot.arn, slot.lease))
    assert len(world.held) == 1
    assert len(world.tasks.calls) == 2


def test_a_worker_tells_since_when_it_is_idle_and_which_image_it_is(world: World) -> None:
    (slot,) = world.ready(1)
    began = world.clock.now()
    world.works(slot, lambda: world.clock.sleep(limits.BEAT_S), nothing, image="abc")
    (seen,) = world.held
    assert (seen.image, seen.idle_since) == ("abc", began)
    world.queue("a")
    world.works(slot, nothing, lambda: world.clock.sleep(limits.BEAT_S), nothing)
    assert world.held[0].idle_since == 0


def test_after_a_deploy_the_workers_of_the_old_image_finish_what_they_have(world: World) -> None:
    (old,) = world.ready(1, image="old")
    world.knobs = {"image": "new"}
    world.clock.sleep(60)
    (job,) = world.queue("a")
    assert world.table.claim(job, Holder(old.lease), world.clock.now(), "claim")
    (waits,) = world.queue("b")
    world.fleet.scale(world.pool, [waits.as_queued], most=1)
    new = next(slot for slot in world.held if slot.id != old.id)
    assert world.table.beat(new.lease, new.arn, True, world.clock.now(), image="new") is not None
    world.tick()
    assert {slot.image: slot.leave for slot in world.held} == {"old": True, "new": False}
    assert world.tasks.stopped == []


# --- Spot


def warned(arn: str, lease: object) -> dict[str, Any]:
    detail = {"taskArn": arn, "lastStatus": "RUNNING", "startedBy": str(lease), "stopCode": "SpotInterruption"}
    return {"Records": [{"messageId": "m0", "body": json.dumps({"detail": detail})}]}


def test_a_spot_warning_takes_the_workers_lanes_out_of_account_and_frees_nothing(world: World) -> None:
    (slot,) = world.ready(1)
    world.queue("a")
    assert task_state.handle(world.fleet, warned(slot.arn, slot.lease)) == {"batchItemFailures": []}
    assert [(held.id == slot.id, held.leave) for held in world.held].count((True, True)) == 1
    assert len(world.tasks.calls) == 2  # the job that counted on its lane has a launch of its own
    assert task_state.handle(world.fleet, warned(slot.arn, "not/a/lease/of/ours")) == {"batchItemFailures": []}


def test_a_warning_for_an_earlier_lease_marks_nobody(world: World) -> None:
    (slot,) = world.ready(1)
    older = slot.lease._replace(generation=slot.generation - 1)
    task_state.handle(world.fleet, warned("arn:task/old", older))
    assert not world.held[0].leave


def test_a_launch_that_spot_refuses_goes_on_demand_in_the_same_decision(world: World) -> None:
    world.knobs = {"providers": {SPOT: 1}}
    world.tasks.spot = False
    queued = world.queue("a", "b")
    world.fleet.scale(world.pool, [job.as_queued for job in queued], most=2)
    assert [slot.provider for slot in world.held] == [ON_DEMAND, ON_DEMAND]
    assert [json.loads(slot.launch).get("launchType") for slot in world.held] == ["FARGATE", "FARGATE"]
    providers = Providers(world.pool, world.slots, world.clock.now())
    assert {name: each.strikes for name, each in providers.backoffs.items()} == {SPOT: 1, ON_DEMAND: 0}


def test_a_worker_on_demand_does_not_mean_that_spot_can_be_had(world: World) -> None:
    world.knobs = {"providers": {SPOT: 1}}
    world.tasks.spot = False
    (job,) = world.queue("a")
    world.fleet.scale(world.pool, [job.as_queued], most=1)
    (slot,) = world.held
    world.clock.sleep(1)
    assert world.table.beat(slot.lease, slot.arn, True, world.clock.now()) is not None
    providers = Providers(world.pool, world.slots, world.clock.now())
    assert {name: each.strikes for name, each in providers.backoffs.items()} == {SPOT: 1, ON_DEMAND: 0}


def test_spot_that_was_refused_is_left_alone_until_its_pause_is_over(world: World) -> None:
    world.knobs = {"providers": {SPOT: 1}}
    world.tasks.spot = False
    (first, second) = world.queue("a", "b")
    world.fleet.scale(world.pool, [first.as_queued], most=1)
    world.tasks.spot = True
    world.fleet.scale(world.pool, [second.as_queued], most=1)
    assert [slot.provider for slot in world.held] == [ON_DEMAND, ON_DEMAND]


def test_without_fallback_a_refusal_of_spot_ends_the_decision(world: World) -> None:
    world.knobs = {"providers": {SPOT: 1}, "spot_fallback": False}
    world.tasks.spot = False
    queued = world.queue("a", "b")
    world.fleet.scale(world.pool, [job.as_queued for job in queued], most=2)
    assert (world.held, len(world.tasks.calls)) == ([], 1)


# --- the budget


def test_what_a_task_took_of_the_budget_outlives_it(world: World) -> None:
    world.knobs = {"budget_task_hours": 1.0}
    world.clock.time -= world.clock.time % limits.DAY_S
    (slot,) = world.ready(1)
    world.clock.sleep(3_600)
    task_state.handle(world.fleet, stopped(slot.arn, slot.lease))
    (job,) = world.queue("a")
    world.fleet.scale(world.pool, [job.as_queued], most=1)
    assert (world.held, len(world.tasks.calls)) == ([], 1)
    assert "budget spent" in str(world.log.of("wait")[-1]["reason"])
    world.clock.sleep(limits.DAY_S)
    world.tick()
    assert len(world.held) == 1
