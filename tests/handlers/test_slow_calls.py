"""What a limit of a decider's time is for: what somebody would lose if the decider went on, each with its calls slow.

A decider that takes longer than its timeout is killed, and whatever comes after that in it is never done.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from fleetcap import keys, limits
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.fleet import Fleet
from fleetcap.model import Bank, Doubt, Holder, Job, JobStatus, Lease, Mode, Pool, Request, Slot, Unanswered
from handlers import task_state, tick
from local.memory.items import MemoryItems
from tests.fakes import LAUNCH, HandClock, HandEcs, Lines
from tests.handlers.test_task_state import stopped

CALLS: Final = ("get", "batch", "partition", "open", "update", "put", "run", "stop", "describe", "listed")


@dataclass
class Slow:
    """A port whose calls take as long as `seconds` says of them; others take no time."""

    port: Any
    clock: HandClock
    seconds: dict[str, float] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.port, name)
        if name not in CALLS:
            return call

        def slowly(*arguments: Any, **named: Any) -> Any:
            self.clock.sleep(self.seconds.get(name, 0.0))
            return call(*arguments, **named)

        return slowly


class World:
    """Pools over a table in memory, with workers and jobs made at once, and deciders whose calls are slow."""

    def __init__(self, cap: int = 100, pools: int = 1, **knobs: Any) -> None:
        self.clock = HandClock()
        self.ecs = HandEcs(self.clock.now)
        self.lines = Lines()
        self.seconds: dict[str, float] = {}
        names = ["default", *(f"pool {number}" for number in range(1, pools))]
        table: Any = StoredControlTable(Slow(MemoryItems(), self.clock, self.seconds))
        tasks: Any = Slow(self.ecs, self.clock, self.seconds)
        of = {name: Pool(name, cap, LAUNCH, **knobs) for name in names}
        self.fleet = Fleet(of, table, tasks, self.clock, self.lines)
        tick.handle(self.fleet)  # the slots are there

    def change(self, **knobs: Any) -> None:
        """The pool as a deployment makes it anew."""
        pools = {name: replace(pool, **knobs) for name, pool in self.fleet.pools.items()}
        self.fleet = self.fleet._replace(pools=pools)

    def slots(self, pool: str = "default") -> list[Slot]:
        return [slot for slot in self.fleet.table.slots(pool) if slot.held]

    def queue(self, *names: str, pool: str = "default", **fields: Any) -> list[Job]:
        now, request = self.clock.now(), Request("s3://input/a.bam", "bam", **fields)
        status = JobStatus.WAITING if request.depends_on else JobStatus.QUEUED
        jobs = [Job(key, 1, status, pool, 5, request, rank=key, queued_at=now, due_at=now) for key in names]
        for job in jobs:
            assert self.fleet.table.put(job, None, self.clock.unique())
        return jobs

    def launch(self, count: int) -> list[Slot]:
        """As many workers that have beaten, each with a job that it runs."""
        for job in self.queue(*(f"job {number:03}" for number in range(count))):
            self.fleet.scale(self.fleet.pools["default"], [job.as_queued], most=1)
            slot = next(slot for slot in self.slots() if slot.for_job == job.key)
            assert self.fleet.table.beat(slot.lease, slot.arn, True, self.clock.now()) is not None
            assert self.fleet.table.claim(job, Holder(slot.lease), self.clock.now(), self.clock.unique())
        return self.slots()

    def tick(self, sweep_now: bool = False, **seconds: float) -> float:
        """One tick whose calls take so long; how long it took. The next is a minute later."""
        began_at = self.clock.now()
        self.seconds.update(seconds)
        tick.look_on(self.fleet, tick.handle(self.fleet), began_at, sweep_now)
        took_s = self.clock.now() - began_at
        self.seconds.clear()
        assert took_s < limits.DECIDER_TIMEOUT_S, "it was killed"
        self.clock.time = began_at + limits.TICK_PERIOD_S
        return took_s

    def hear(self, *leases: tuple[Lease, str], **seconds: float) -> list[int]:
        """Tell `task_state` that these tasks have stopped; the numbers of the events that are to come again."""
        began_at = self.clock.now()
        records = [stopped(arn, lease)["Records"][0] | {"messageId": f"{n}"} for n, (lease, arn) in enumerate(leases)]
        self.seconds.update(seconds)
        answer = task_state.handle(self.fleet, {"Records": records})
        self.seconds.clear()
        assert self.clock.now() - began_at < limits.DECIDER_TIMEOUT_S, "it was killed"
        return [int(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]

    def count(self, status: JobStatus, *names: str) -> int:
        return sum(job.status is status for job in self.fleet.table.jobs(names).values())


def at_step(world: World, step: Any) -> None:
    """It is the minute in which a tick of this one pool begins with that step, launches coming last."""
    at = 2 * [chore.__name__ for chore in tick.CHORES].index(step.__name__)
    while int(world.clock.now() // limits.TICK_PERIOD_S) % (2 * len(tick.CHORES)) != at:
        world.clock.sleep(limits.TICK_PERIOD_S)


# --- the tick: pools and steps


def test_pools_have_equal_parts_of_a_tick_although_the_first_could_use_all_of_it() -> None:
    """Otherwise the jobs of one pool wait minutes because another one's burst is launched before."""
    world = World(pools=2)
    for pool in world.fleet.pools:
        world.queue(*(f"{pool}/{number:03}" for number in range(100)), pool=pool)
    world.tick(run=1.0)
    launches = [len(world.slots(pool)) for pool in world.fleet.pools]
    assert max(launches) - min(launches) <= 2
    assert sum(launches) >= limits.DECIDER_BUDGET_S


def test_every_step_of_every_pool_has_its_turn_where_a_tick_gets_through_one() -> None:
    """Otherwise orphans of one pool would never go back, or its overdue jobs never end, while calls are that slow."""
    world = World(cap=1, pools=6)
    wanted = {f"{pool} {step.__name__}" for pool in world.fleet.pools for step in tick.CHORES}
    slowly = {"partition": 9.0, "open": 9.0}
    for _ in range(2 * len(world.fleet.pools) * len(tick.CHORES)):
        world.lines.written.clear()
        world.seconds.update(slowly)
        began_at = world.clock.now()
        tick.handle(world.fleet)
        world.clock.time = began_at + limits.TICK_PERIOD_S
        [line] = world.lines.of("cut off")
        left: Any = line["left"]
        wanted -= {each for each in wanted if each not in left and each.rpartition(" ")[0] not in left}
    assert wanted == set()


def test_a_pool_whose_steps_had_much_to_do_launches_in_the_same_tick() -> None:
    """Otherwise a hundred orphans of a night's outage go back one by one before anybody works on any of them."""
    world = World()
    dead = world.launch(60)
    for slot in dead:
        assert world.fleet.table.release(slot.lease, slot.arn, world.clock.now(), "proof", 0.0, world.clock.unique())
        world.ecs.ends(slot.arn)
    at_step(world, tick._requeue_orphans)
    before = len(world.ecs.calls)
    world.tick(get=1.0, update=1.0)
    assert len(world.ecs.calls) > before
    names = [f"job {number:03}" for number in range(60)]
    assert 0 < world.count(JobStatus.RUNNING, *names) < 60
    for _ in range(20):
        world.tick(get=1.0, update=1.0)
    assert world.count(JobStatus.RUNNING, *names) == 0


def test_a_pool_whose_every_step_reads_slowly_launches_at_every_other_tick() -> None:
    """Otherwise a queue grows behind steps that each find nothing to do."""
    world = World(waiting_limit_s=3_600.0)
    [slot] = world.launch(1)
    world.queue(*(f"{number:02}" for number in range(20)))
    for _ in tick.CHORES:
        before = len(world.ecs.calls)
        for _ in range(2):
            assert world.fleet.table.beat(slot.lease, slot.arn, False, world.clock.now()) is not None
            world.tick(get=4.0, partition=4.0, open=4.0, update=4.0, batch=4.0)
        assert len(world.ecs.calls) > before


def test_a_pool_whose_own_part_went_by_in_one_step_still_launches_every_other_time() -> None:
    """Otherwise pools that share slow ticks would tidy up for ever and launch nothing."""
    world = World(cap=1, pools=5)
    pool = list(world.fleet.pools)[int(world.clock.now() // limits.TICK_PERIOD_S) % 5]
    world.queue("a", pool=pool)
    for _ in range(2 * len(world.fleet.pools)):
        world.tick(partition=5.0, open=5.0)
    assert len(world.ecs.calls) == 1


def test_a_tick_that_had_no_time_for_launches_says_so() -> None:
    world = World(cap=1)
    world.queue("a")
    world.tick(partition=limits.DECIDER_BUDGET_S + 1)
    [line] = world.lines.of("cut off")
    assert "default _scale" in str(line["left"])
    assert world.ecs.calls == []


# --- the tick: what a step does a hundred times


def test_a_cap_that_is_lowered_far_is_obeyed_over_several_ticks() -> None:
    """Otherwise each tick would be killed among its marks, and nothing else of it be done."""
    world = World()
    world.change(cap=5)
    at_step(world, tick._fit_the_cap)
    for _ in range(30):
        world.tick(update=2.0)
    assert sum(slot.retire for slot in world.fleet.table.slots("default")) == 95


def test_workers_of_many_that_died_unheard_are_found_over_several_ticks() -> None:
    world = World()
    for slot in world.launch(80):
        world.ecs.ends(slot.arn)
    world.clock.sleep(2 * limits.SILENT_S + 1)
    at_step(world, tick._look_at_the_doubtful)
    world.tick(update=1.0, describe=1.0)
    assert 0 < len([slot for slot in world.slots() if slot.seen_at]) < 80
    for _ in range(40):
        world.tick(update=1.0, describe=1.0)
    assert [slot for slot in world.slots() if slot.seen_at] == []


def test_workers_in_many_clusters_are_asked_about_over_several_ticks() -> None:
    world = World()
    for number in range(20):
        world.change(launch={**LAUNCH, "cluster": f"cluster {number}"})
        [job] = world.queue(f"{number}")
        world.fleet.scale(world.fleet.pools["default"], [job.as_queued], most=1)
    slots = world.slots()
    for slot in slots:
        assert world.fleet.table.beat(slot.lease, slot.arn, True, world.clock.now()) is not None
        world.ecs.ends(slot.arn)
    world.clock.sleep(2 * limits.SILENT_S + 1)
    at_step(world, tick._look_at_the_doubtful)
    world.tick(describe=5.0)
    assert 0 < len({slot.lease for slot in slots} & {slot.lease for slot in world.slots()}) < 20


def test_launches_of_many_without_an_answer_are_sent_again_over_several_ticks() -> None:
    world = World()
    world.ecs.lost = [Unanswered(Doubt.UNKNOWN, "no answer")] * 60
    for job in world.queue(*(f"{number:02}" for number in range(60))):
        world.fleet.scale(world.fleet.pools["default"], [job.as_queued], most=1)
    world.clock.sleep(limits.RESEND_AFTER_S + 1)
    at_step(world, tick._look_at_the_doubtful)
    world.tick(run=2.0)
    assert 0 < sum(bool(slot.arn) for slot in world.slots()) < 60
    for _ in range(60):
        world.tick(run=2.0)
    assert all(slot.arn for slot in world.slots())


def test_a_launch_that_is_refused_for_itself_keeps_no_other_from_being_sent_again() -> None:
    """What was leased for a task definition that is gone is refused each minute; the others are as they were."""
    world = World(cap=2)
    world.ecs.lost = [Unanswered(Doubt.UNKNOWN, "no answer")] * 2
    for job in world.queue("a", "b"):
        world.fleet.scale(world.fleet.pools["default"], [job.as_queued], most=1)
    world.clock.sleep(limits.RESEND_AFTER_S + 1)
    world.ecs.doubts = [Unanswered(Doubt.PERMANENT, "no such task definition")]
    world.tick()
    assert sum(bool(slot.arn) for slot in world.slots()) == 1


def sixty_workers(mode: Mode) -> World:
    """A pool of so many, of which that was said, and a tick that begins with telling them."""
    world = World()
    world.launch(60)
    assert world.fleet.table.say("default", {"mode": mode.value}, 0, world.clock.unique())
    at_step(world, tick._tell_workers)
    return world


def test_many_workers_of_a_pool_that_is_drained_are_told_over_several_ticks() -> None:
    world = sixty_workers(Mode.DRAINING)
    world.tick(update=2.0)
    assert 0 < sum(slot.leave for slot in world.slots()) < 60


def test_many_tasks_of_a_pool_that_is_stopped_are_stopped_over_several_ticks() -> None:
    world = sixty_workers(Mode.STOPPED)
    world.tick(stop=2.0)
    assert 0 < len(set(world.ecs.stopped)) < 60


def test_many_overdue_jobs_end_over_several_ticks() -> None:
    world = World(cap=1, waiting_limit_s=60.0)
    world.launch(1)
    names = [f"late {number:03}" for number in range(60)]
    world.queue(*names)
    world.clock.sleep(61)
    at_step(world, tick._end_the_overdue)
    world.tick(update=2.0)
    assert 0 < world.count(JobStatus.FAILED, *names) < 60


def test_the_many_slots_of_a_new_pool_are_made_over_several_ticks() -> None:
    world = World(cap=1)
    world.change(cap=100)
    world.tick(put=1.0)
    assert 1 < len(world.fleet.table.slots("default")) < 100
    for _ in range(4):
        world.tick(put=1.0)
    assert len(world.fleet.table.slots("default")) == 100


def test_many_jobs_whose_parents_have_ended_are_judged_over_several_ticks_and_launched_for_at_once() -> None:
    world = World()
    [parent] = world.queue("parent")
    assert world.fleet.table.finish(parent, JobStatus.COMPLETED, world.clock.now(), "", (), "op")
    names = [f"child {number:03}" for number in range(80)]
    world.queue(*names, depends_on=("parent",))
    at_step(world, tick._judge_the_waiting)
    world.tick(update=1.0)
    assert 0 < world.count(JobStatus.QUEUED, *names) < 80
    assert world.ecs.calls


# --- the tick: after its work


def test_gauges_of_many_pools_that_are_slow_to_read_are_told_until_the_tick_has_to_end() -> None:
    world = World(cap=1, pools=20)
    began_at = world.clock.now()
    passes = tick.handle(world.fleet)
    world.lines.written.clear()
    world.seconds["open"] = 5.0
    tick.look_on(world.fleet, passes, began_at)
    assert world.clock.now() - began_at < limits.DECIDER_TIMEOUT_S
    assert 0 < len(world.lines.of("ticked")) < 20


def test_a_tick_of_slow_launches_tells_its_gauges_all_the_same() -> None:
    """It is over when it comes to them; without them nobody would see that it is slow."""
    world = World()
    world.queue(*(f"{number:03}" for number in range(100)))
    world.lines.written.clear()
    world.tick(run=4.9)
    assert world.lines.of("ticked")


def test_a_sweep_is_left_to_a_later_tick_where_the_pools_took_long() -> None:
    world = World()
    world.launch(10)
    world.queue(*(f"{number:03}" for number in range(90)))
    world.lines.written.clear()
    world.tick(sweep_now=True, run=1.0)
    assert world.lines.of("not swept")
    assert not world.lines.of("swept")


def test_a_sweep_is_left_to_a_later_tick_where_the_slots_of_a_pool_could_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of that pool's tasks would have to be looked up by itself."""
    world = World(cap=1, pools=2)
    bank = world.fleet.table.bank

    def refuse(pool: str, number: int) -> Bank:
        if pool == "default":
            raise PermissionError("not allowed to read the slots")
        return bank(pool, number)

    monkeypatch.setattr(world.fleet.table, "bank", refuse)
    world.tick(sweep_now=True)
    assert [line["pool"] for line in world.lines.of("tick failed")] == ["default"]
    assert not world.lines.of("swept")
    monkeypatch.undo()
    world.tick(sweep_now=True)
    assert world.lines.of("swept")


# --- who hears that a task stopped


def test_the_many_jobs_of_a_worker_that_stopped_go_back_by_its_event_however_often_that_comes() -> None:
    """Whoever left the rest to the tick would have answered for an event of which most was still to be done."""
    world = World(cap=1, jobs_per_worker=19)
    [slot] = world.launch(1)
    names = [f"lane {number:02}" for number in range(1, 19)]
    for lane, job in enumerate(world.queue(*names), start=1):
        assert world.fleet.table.claim(job, Holder(slot.lease, lane), world.clock.now(), world.clock.unique())
    world.ecs.ends(slot.arn)
    deliveries = 1
    while world.hear((slot.lease, slot.arn), get=5.0, update=5.0):
        deliveries += 1
        assert deliveries < 20, "no progress"
    assert world.count(JobStatus.QUEUED, "job 000", *names) == 19
    assert deliveries > 1
    assert len(world.ecs.calls) == 2, "its replacement is weighed by the event that was done"


def four_banks() -> World:
    """A pool in whose every bank there is somebody."""
    world = World(cap=4 * limits.BANK_SLOTS)
    table, now = world.fleet.table, world.clock.now()
    for number in range(1, 4):
        table.create_slots(keys.slot_ids("default", 4 * limits.BANK_SLOTS, number), now)
    table.widen("default", 4)
    return world


def test_a_replacement_in_a_large_pool_is_not_weighed_where_its_slots_were_read_too_late() -> None:
    """A look costs four reads, and the jobs as many more: the decider would be killed, and the batch come again."""
    world = four_banks()
    [slot] = world.launch(1)
    world.ecs.ends(slot.arn)
    assert world.hear((slot.lease, slot.arn), get=5.0, update=5.0, partition=5.0, open=5.0) == []
    assert world.count(JobStatus.QUEUED, "job 000") == 1


def test_a_replacement_in_a_large_pool_is_not_even_looked_at_once_the_time_is_over() -> None:
    """The event of a launch without an answer asks for its task first, which takes most of the time."""
    world = four_banks()
    world.ecs.lost = [Unanswered(Doubt.UNKNOWN, "no answer")]
    [job] = world.queue("a")
    world.fleet.scale(world.fleet.pools["default"], [job.as_queued], most=1)
    [slot] = world.slots()
    assert world.fleet.table.claim(job, Holder(slot.lease), world.clock.now(), world.clock.unique())
    [arn] = world.ecs.arns
    world.ecs.ends(arn)
    assert world.hear((slot.lease, arn), get=4.8, update=4.8, run=4.8, partition=4.8, open=4.8) == []
    assert world.count(JobStatus.QUEUED, "a") == 1
