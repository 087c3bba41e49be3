"""What each guard is there for, where no chance is needed to show it: the product in memory, moved by hand.

The simulator looks for what nobody thought of. Here stands what somebody did think of, and what the simulator's world
has no place for: a deploy between two sendings of a launch, an hour in which a task is missing, seen, and missing
again, a worker that beats and serves nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fleetcap import keys, limits
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.fleet import Fleet
from fleetcap.model import (
    Artifact,
    Doubt,
    FailureClass,
    Holder,
    Job,
    JobStatus,
    LaunchAnswer,
    Lease,
    Pool,
    Running,
    Slot,
    SlotId,
    SlotState,
    Started,
    TaskStatus,
    Unanswered,
)
from fleetcap.ports import ChildReport, Failure
from fleetcap.timebox import Timebox
from handlers import task_state, tick
from handlers.intake import Intake
from local.fargate.tasks import Status
from local.memory.ecs import MemoryEcs, MemoryTask
from local.memory.items import MemoryItems
from tests.examples import a_job, lapse
from tests.fakes import LAUNCH, FakeCache, FakeChildren, FakeRechecks, HandClock, HandEcs, Lines
from tests.handlers.test_intake import FakeRejects, batch, message
from tests.handlers.test_task_state import stopped
from tests.worker.test_worker import Enough, Script
from worker_image.worker import Settings, Worker

HOUR_S = 3_600
OUT_OF_CAPACITY = 0


class Silent:
    """An ECS that does what it is asked and whose answers are lost."""

    def __init__(self, ecs: MemoryEcs) -> None:
        self._ecs = ecs
        self.stop, self.describe = ecs.stop, ecs.describe

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        self._ecs.run(lease, launch)
        return Unanswered(Doubt.UNKNOWN, "ReadTimeoutError")


@dataclass
class World:
    """A pool over items in memory and an ECS in memory."""

    clock: HandClock = field(default_factory=HandClock)
    log: Lines = field(default_factory=Lines)
    changes: list[MemoryTask] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.items = MemoryItems()
        self.table = StoredControlTable(self.items, log=self.log)
        self.ecs = HandEcs(self.clock.now, self.changes.append)

    def fleet(self, tasks: Any = None, cap: int = 1, definition: str = "worker:1") -> Fleet:
        pool = Pool("default", cap, {**LAUNCH, "taskDefinition": definition})
        return Fleet({"default": pool}, self.table, tasks or self.ecs, self.clock, self.log)

    def queue(self, key: str = "a") -> Job:
        job = replace(a_job(key), queued_at=self.clock.now(), due_at=self.clock.now())
        assert self.table.put(job, None, self.clock.unique())
        return job

    def rewrite(self, key: Mapping[str, str], **attributes: Any) -> None:
        """Change an item as another version, or a mishap, may have written it; None takes an attribute away."""
        item = {**(self.items.get(key) or key), **attributes}
        kept = {name: value for name, value in item.items() if value is not None}
        assert self.items.put(keys.Put("", kept, keys.WHATEVER)).accepted

    def job(self, key: str = "a") -> Job:
        job = self.table.job(key)
        assert job
        return job

    def slot(self, number: int = 0) -> Slot:
        slot = self.table.slot(SlotId("default", number))
        assert slot
        return slot

    @property
    def held(self) -> list[Slot]:
        return [slot for slot in self.table.slots("default") if slot.held]

    def beat(self, slot: Slot) -> None:
        assert self.table.beat(slot.lease, slot.arn, slot.state is SlotState.LAUNCHING, self.clock.now()) is not None

    def ready(self, fleet: Fleet, key: str = "a") -> Slot:
        """A worker that was launched for a job and has beaten."""
        self.queue(key)
        tick.handle(fleet)
        (slot,) = self.held
        self.beat(slot)
        return self.slot(slot.id.number)

    def ticks(self, fleet: Fleet, seconds: float) -> None:
        """That much time, with a tick every minute."""
        for _ in range(int(seconds // limits.TICK_PERIOD_S)):
            self.clock.sleep(limits.TICK_PERIOD_S)
            tick.handle(fleet)


@pytest.fixture
def world() -> World:
    return World()


# --- deadlines


def test_a_job_that_was_claimed_since_the_index_was_read_is_not_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.queue()
    limited = world.fleet()._replace(pools={"default": Pool("default", 1, LAUNCH, waiting_limit_s=60.0)})
    world.clock.sleep(61)
    holder = Holder(Lease(SlotId("default", 0), int(world.clock.now()) + 1))
    assert world.table.claim(job, holder, world.clock.now(), "claim")
    monkeypatch.setattr(world.table, "queued", lambda *_: [job.as_queued])
    tick.handle(limited)
    assert world.job().status is JobStatus.RUNNING


def test_a_job_is_not_given_up_beside_a_worker_that_came_since_the_tick_read_the_slots(world: World) -> None:
    world.queue()
    pool = Pool("default", 2, LAUNCH, dispatch_deadline_s=600.0)
    starving = world.fleet()._replace(pools={"default": pool})
    world.ecs.capacity = OUT_OF_CAPACITY
    world.ticks(starving, 600.0)
    world.ecs.capacity = None
    world.clock.sleep(limits.BACKOFF_MAX_S)
    assert starving.scale(pool, None, most=1)
    as_read = starving.look(pool).slots
    (slot,) = world.held
    world.beat(slot)
    starving.end_overdue(pool, as_read)
    assert world.job().status is JobStatus.QUEUED


# --- launches


def test_a_launch_that_has_no_answer_for_hours_keeps_its_slot(world: World) -> None:
    world.queue()
    unheard = world.fleet(Silent(world.ecs))
    tick.handle(unheard)
    lease = world.slot().lease
    world.ticks(unheard, 2 * HOUR_S)
    assert (world.slot().lease, world.slot().held) == (lease, True)
    assert len(world.ecs.tasks) == 1


def test_a_launch_that_has_no_answer_for_an_hour_raises_the_alarm_at_every_tick(world: World) -> None:
    world.queue()
    unheard = world.fleet(Silent(world.ecs))
    tick.handle(unheard)
    world.ticks(unheard, HOUR_S)
    assert world.log.of("alarm") == []
    world.ticks(unheard, 3 * limits.TICK_PERIOD_S)
    alarms = world.log.of("alarm")
    assert len(alarms) >= 2
    assert {alarm["lease"] for alarm in alarms} == {str(world.slot().lease)}


def test_the_first_answer_to_a_launch_resolves_it_however_late(world: World) -> None:
    world.queue()
    tick.handle(world.fleet(Silent(world.ecs)))
    assert world.slot().arn == ""
    world.clock.sleep(HOUR_S)
    tick.handle(world.fleet())
    assert [world.slot().arn] == list(world.ecs.tasks)


def test_a_deploy_between_two_sendings_of_a_launch_changes_nothing_about_it(world: World) -> None:
    """Sent with other parameters, the token of a failure would conflict and say nothing until it is forgotten."""
    world.queue()
    world.ecs.capacity = OUT_OF_CAPACITY
    tick.handle(world.fleet(Silent(world.ecs), definition="worker:1"))
    generation = world.slot().generation
    world.clock.sleep(limits.RESEND_AFTER_S + 1)
    tick.handle(world.fleet(definition="worker:2"))
    assert (world.slot().held, world.slot().generation > generation) == (False, True)


def test_while_a_launch_has_no_answer_no_other_is_begun(world: World) -> None:
    world.queue("a")
    tick.handle(world.fleet(Silent(world.ecs), cap=4))
    world.clock.sleep(limits.RESEND_AFTER_S + 1)
    for key in ("b", "c"):
        world.queue(key)
    tick.handle(world.fleet(Silent(world.ecs), cap=4))
    assert len(world.held) == 1


def test_a_task_that_ecs_names_only_after_its_slot_was_freed_is_stopped(world: World) -> None:
    world.queue()
    tick.handle(world.fleet(Silent(world.ecs)))
    slot = world.slot()
    assert world.table.release(slot.lease, "", world.clock.now(), "by a person", 0.0, "release")
    fleet = world.fleet()
    assert isinstance(fleet.launch(slot.lease, slot.launch, 0), Started)
    assert world.ecs.stopped == world.ecs.arns


def test_a_launch_that_its_worker_overtook_is_left_alone(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    fleet.launch(slot.lease, slot.launch, 0)
    assert world.ecs.stopped == []


def test_nothing_is_sent_again_for_a_slot_that_was_freed_meanwhile(world: World) -> None:
    world.queue()
    tick.handle(world.fleet(Silent(world.ecs)))
    slot = world.slot()
    assert world.table.release(slot.lease, "", world.clock.now(), "failures", 0.0, "release")
    sent = len(world.ecs.calls)
    assert world.fleet().resend(slot) == (world.slot(), None)
    assert len(world.ecs.calls) == sent


def test_nothing_is_sent_for_a_slot_that_is_empty_under_the_generation_that_was_read(world: World) -> None:
    """As in a table that was put back to a moment before the lease."""
    later = World()
    later.queue()
    tick.handle(later.fleet(Silent(later.ecs)))
    fleet = world.fleet()
    fleet.look(fleet.pools["default"])
    assert (later.slot().lease, later.slot().held) == (world.slot().lease, True)
    assert fleet.resend(later.slot()) == (world.slot(), None)
    assert world.ecs.calls == []


# --- backing off


def stop_all(world: World, fleet: Fleet) -> None:
    """Whatever lives ends, and ECS tells of it."""
    for task in list(world.ecs.live.values()):
        world.ecs.advance(task, Status.STOPPED)
        task_state.handle(fleet, stopped(task.arn, task.started_by))


def test_tasks_that_never_beat_are_launched_a_dozen_times_an_hour_and_not_hundreds(world: World) -> None:
    fleet = world.fleet()
    world.queue()
    for _ in range(HOUR_S // 10):
        tick.handle(fleet)
        stop_all(world, fleet)
        world.clock.sleep(10)
    assert 10 <= len(world.ecs.tasks) <= 20


def test_a_region_without_capacity_is_asked_a_dozen_times_an_hour_and_not_hundreds(world: World) -> None:
    fleet = world.fleet()
    world.ecs.capacity = OUT_OF_CAPACITY
    world.queue()
    for _ in range(HOUR_S // 10):
        tick.handle(fleet)
        world.clock.sleep(10)
    assert 10 <= len(world.log.of("lease")) <= 20


def test_a_pool_that_backs_off_says_why_and_until_when(world: World) -> None:
    fleet = world.fleet()
    world.ecs.capacity = OUT_OF_CAPACITY
    world.queue()
    tick.handle(fleet)
    tick.handle(fleet)
    [waited] = world.log.of("wait")
    assert str(waited["reason"]).startswith("a launch failed: AWS has no Fargate capacity at this time")
    assert waited["until"] == world.slot().retry_at > world.clock.now()


def test_a_worker_that_had_beaten_is_replaced_at_once(world: World) -> None:
    fleet = world.fleet()
    world.ready(fleet)
    stop_all(world, fleet)
    assert len(world.ecs.live) == 1


# --- proof


def test_a_stopped_task_is_not_believed_to_be_the_launchs_own_until_ecs_says_so(world: World) -> None:
    world.queue()
    fleet = world.fleet(Silent(world.ecs))
    tick.handle(fleet)
    slot = world.slot()
    answer = task_state.handle(fleet, stopped("arn:task/another", slot.lease))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert world.slot() == slot


def test_a_slow_event_frees_no_slot_that_was_released_and_leased_anew_between_its_reads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 1404439876: the second read showed another lease with a live task, and that one was taken for the dead."""
    world.queue()
    tick.handle(world.fleet(Silent(world.ecs)))
    lease, (arn,), read = world.slot().lease, world.ecs.arns, world.table.slot
    world.ecs.ends(arn)

    def overtaken(slot: SlotId) -> Slot | None:
        found = read(slot)
        monkeypatch.setattr(world.table, "slot", read)
        assert world.table.launched(lease, arn, world.clock.now())
        assert world.table.release(lease, arn, world.clock.now(), "somebody saw it first", 0.0, world.clock.unique())
        tick.handle(world.fleet())
        return found

    monkeypatch.setattr(world.table, "slot", overtaken)
    assert task_state.handle(world.fleet(), stopped(arn, lease)) == {"batchItemFailures": []}
    assert (world.slot().held, world.slot().arn) == (True, world.ecs.arns[1])
    assert world.slot().generation > lease.generation


def test_the_end_of_another_task_of_the_lease_frees_nothing(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    task_state.handle(fleet, stopped("arn:task/another", slot.lease))
    assert world.slot() == slot


def test_a_task_that_is_about_to_stop_has_not_stopped(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    event = stopped(slot.arn, slot.lease)
    (record,) = event["Records"]
    detail = {**json.loads(record["body"])["detail"], "lastStatus": "DEPROVISIONING"}
    task_state.handle(fleet, {"Records": [{**record, "body": json.dumps({"detail": detail})}]})
    assert world.slot() == slot


def words(world: World, fleet: Fleet, word: TaskStatus, after_s: float) -> None:
    """Time passes, and a tick asks ECS about the task."""
    world.clock.sleep(after_s)
    world.ecs.unseen = set(world.ecs.arns) if word is TaskStatus.MISSING else set()
    tick.handle(fleet)


def test_a_task_that_was_seen_in_between_has_not_been_missing_for_an_hour(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    words(world, fleet, TaskStatus.MISSING, limits.SILENT_S + 1)
    words(world, fleet, TaskStatus.ALIVE, limits.TICK_PERIOD_S)
    words(world, fleet, TaskStatus.MISSING, limits.MISSING_IS_PROOF_S)
    assert world.slot().lease == slot.lease


def test_a_task_that_beat_in_between_has_not_been_missing_for_an_hour(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    words(world, fleet, TaskStatus.MISSING, limits.SILENT_S + 1)
    world.clock.sleep(limits.TICK_PERIOD_S)
    world.beat(slot)
    words(world, fleet, TaskStatus.MISSING, limits.MISSING_IS_PROOF_S)
    assert world.slot().lease == slot.lease


def test_a_task_that_nobody_has_seen_for_more_than_an_hour_is_gone(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    words(world, fleet, TaskStatus.MISSING, limits.SILENT_S + 1)
    words(world, fleet, TaskStatus.MISSING, limits.MISSING_IS_PROOF_S)
    assert world.slot().lease == slot.lease
    words(world, fleet, TaskStatus.MISSING, 1)
    assert world.slot().generation > slot.generation


# --- silence


def test_a_worker_that_falls_silent_is_stopped_and_keeps_its_slot(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    words(world, fleet, TaskStatus.ALIVE, limits.SILENT_S + 1)
    assert (world.ecs.stopped, world.slot()) == ([slot.arn], slot)


def test_a_task_that_never_beats_is_stopped_after_its_time_and_not_before(world: World) -> None:
    world.queue()
    fleet = world.fleet()
    tick.handle(fleet)
    words(world, fleet, TaskStatus.ALIVE, limits.SILENT_LAUNCHING_S)
    assert world.ecs.stopped == []
    words(world, fleet, TaskStatus.ALIVE, 1)
    assert world.ecs.stopped == world.ecs.arns


def test_a_worker_that_beats_is_not_stopped_though_it_was_missing(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    assert world.table.missing(slot.lease, world.clock.now())
    words(world, fleet, TaskStatus.ALIVE, limits.BEAT_S)
    assert (world.ecs.stopped, world.slot().missing_since) == ([], 0)


def test_a_job_that_a_beating_worker_does_not_take_gets_another_after_two_minutes(world: World) -> None:
    fleet = world.fleet(cap=2)
    slot = world.ready(fleet)
    for _ in range(5):
        world.clock.sleep(limits.BEAT_S)
        world.beat(slot)
        tick.handle(fleet)
    assert len(world.held) == 2


# --- whose turn it is

TURNS = (0.1, 0.5, 0.9)


@dataclass
class Turning(HandClock):
    """A clock whose random numbers lie at another place of their range each time."""

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * TURNS[next(self.names) % len(TURNS)]


def test_another_pool_comes_first_each_minute(world: World) -> None:
    """A tick may be ended at its minute, and where each pool takes long it always is."""
    fleet = world.fleet()._replace(pools={name: Pool(name, 1, LAUNCH) for name in "abc"})
    began_with = []
    for _ in fleet.pools:
        began_with.append(tick.handle(fleet)[0].standing.pool.name)
        world.clock.sleep(limits.TICK_PERIOD_S)
    assert sorted(began_with) == list(fleet.pools)


def test_what_there_was_no_time_for_has_its_turn_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Turning())
    fleet = world.fleet(cap=len(TURNS))
    for number in range(len(TURNS)):
        world.queue(f"{number}")
    tick.handle(fleet)
    stop, standing = world.ecs.stop, fleet.look(fleet.pools["default"])

    def slowly(cluster: str, arn: str, why: str) -> None:
        stop(cluster, arn, why)
        world.clock.sleep(limits.SLOW_CALL_S)

    monkeypatch.setattr(world.ecs, "stop", slowly)
    for _ in TURNS:
        assert fleet.within(Timebox.begin(world.clock, limits.SLOW_CALL_S)).stop_all(standing) == 1
    assert sorted(world.ecs.stopped) == world.ecs.arns


# --- whose a job is


def test_a_job_whose_holders_slot_is_not_to_be_seen_is_left_to_its_holder(world: World) -> None:
    holder = Holder(Lease(SlotId("default", 7), 1))
    running = world.table.claim(world.queue(), holder, world.clock.now(), "claim")
    tick.handle(world.fleet())
    assert world.job() == running


def test_the_end_of_one_worker_leaves_the_jobs_of_others_with_them(world: World) -> None:
    fleet = world.fleet(cap=2)
    for key in ("a", "b"):
        world.queue(key)
    tick.handle(fleet)
    for slot, key in zip(world.held, ("a", "b"), strict=True):
        world.beat(slot)
        assert world.table.claim(world.job(key), Holder(slot.lease), world.clock.now(), f"claim {key}")
    gone, _ = world.held
    task_state.handle(fleet, stopped(gone.arn, gone.lease))
    assert (world.job("a").status, world.job("b").status) == (JobStatus.QUEUED, JobStatus.RUNNING)


def test_an_event_that_frees_no_slot_takes_no_job(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    running = world.table.claim(world.job(), Holder(slot.lease), world.clock.now(), "claim")
    task_state.handle(fleet, stopped("arn:task/another", slot.lease))
    assert world.job() == running


def test_an_event_of_a_lease_that_is_yet_to_come_proves_nothing(world: World) -> None:
    """A table from a backup may be behind what runs."""
    fleet = world.fleet()
    tick.handle(fleet)
    lease = world.slot().lease
    running = world.table.claim(world.queue(), Holder(lease), world.clock.now(), "claim")
    task_state.handle(fleet, stopped("arn:task/0", lease))
    assert world.job() == running


def test_a_job_that_has_moved_on_to_another_worker_is_not_taken_from_it(world: World) -> None:
    """The index still shows the holder that died; the job itself names one that lives."""
    fleet = world.fleet()
    slot = world.ready(fleet)
    shown = Running("a", "default", 1, 1, Holder(Lease(slot.id, slot.generation - 1)))
    running = world.table.claim(world.job(), Holder(slot.lease), world.clock.now(), "claim")
    fleet.requeue([shown], FailureClass.INTERRUPTED, "its worker is gone")
    assert world.job() == running


# --- the cap


def test_a_decider_of_the_lower_cap_leases_nothing_above_it_before_any_tick_has_marked_it(world: World) -> None:
    tick.handle(world.fleet(cap=3))
    lowered = world.fleet(cap=1)
    jobs = [world.queue(key).as_queued for key in ("a", "b", "c")]
    lowered.scale(lowered.pools["default"], jobs, most=3)
    assert [slot.id.number for slot in world.held] == [0]


def test_the_tick_marks_what_is_above_a_lowered_cap_and_takes_the_marks_back(world: World) -> None:
    tick.handle(world.fleet(cap=3))
    marks = []
    for cap in (1, 2):
        tick.handle(world.fleet(cap=cap))
        marks.append([slot.retire for slot in world.table.slots("default")])
    assert marks == [[False, True, True], [False, False, True]]


# --- messages


def deliver(world: World, body: str, sent_ago_s: float = 0.0, cached: frozenset[str] = frozenset()) -> FakeRejects:
    rejects = FakeRejects()
    intake = Intake(world.fleet(), FakeCache(set(cached)), rejects, frozenset(), FakeRechecks())
    intake.handle(batch(world.clock, body, sent_ago_s=sent_ago_s))
    return rejects


def end_run(world: World, status: JobStatus, key: str = "a") -> Job:
    """Claim the job and end its run."""
    running = world.table.claim(world.job(key), Holder(world.slot().lease), world.clock.now(), world.clock.unique())
    assert running
    assert world.table.finish(running, status, world.clock.now(), "", (), world.clock.unique())
    return world.job(key)


def test_the_next_run_of_a_key_goes_on_counting_attempts(world: World) -> None:
    deliver(world, message("a"))
    first = end_run(world, JobStatus.FAILED)
    world.clock.sleep(10)
    deliver(world, message("a"))
    assert (world.job().run, world.job().attempt) == (2, first.attempt)


def test_a_message_of_the_time_before_the_end_is_answered_by_the_run_that_ended(world: World) -> None:
    deliver(world, message("a"))
    ended = end_run(world, JobStatus.FAILED)
    world.clock.sleep(10)
    deliver(world, message("a"), sent_ago_s=11)
    assert world.job() == ended


class EndsMeanwhile(FakeCache):
    """A cache that is asked just before the run's last artifact arrives and its end is written."""

    def __init__(self, end: Callable[[], object]) -> None:
        super().__init__()
        self._end = end

    def has_all(self, keys: Sequence[str]) -> bool:
        before = super().has_all(keys)
        self._end()
        return before


def test_a_run_that_ends_while_the_cache_is_asked_is_not_run_again(world: World) -> None:
    """Nor where its worker's clock is behind, so that the message seems to be sent after the end."""
    deliver(world, message("a"))
    running = world.table.claim(world.job(), Holder(world.slot().lease), world.clock.now(), "claim")
    assert running
    an_hour_ago = world.clock.now() - HOUR_S
    world.clock.sleep(10)
    cache = EndsMeanwhile(lambda: world.table.finish(running, JobStatus.COMPLETED, an_hour_ago, "", (), "finish"))
    intake = Intake(world.fleet(), cache, FakeRejects(), frozenset(), FakeRechecks())
    intake.handle(batch(world.clock, message("a")))
    assert world.job().run == 1


# --- the worker

DONE = ChildReport(artifacts=(Artifact("bam", "a/bam", 1),), exit_code=0)


@dataclass
class Bench:
    """A worker under the lease of a launched slot, with one job in the queue."""

    world: World
    children: FakeChildren = field(default_factory=FakeChildren)
    signals: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.queue("a")
        tick.handle(self.world.fleet())
        self.slot = self.world.slot()

    def run(self, *steps: Callable[[], Any], table: Any = None, chance: float = 0.0) -> str:
        """Run the loop through the steps; why it left, or "" if it would have gone on."""
        clock = Script(self.world.clock, list(steps), chance)
        worker = Worker(
            self.slot.lease, self.slot.arn, Settings(), table or self.world.table, self.children, clock,
            self.world.log, lambda: bool(self.signals),
        )  # fmt: skip
        try:
            return worker.run()
        except Enough:
            return ""

    def later(self, seconds: float) -> Callable[[], None]:
        return lambda: self.world.clock.sleep(seconds)

    def free_the_slot(self) -> None:
        now = self.world.clock.now()
        assert self.world.table.release(self.slot.lease, self.slot.arn, now, "proof", 0.0, "release")

    def done(self) -> None:
        for child in self.children.started:
            child.said = DONE

    def statuses(self) -> list[JobStatus]:
        """Of two jobs, whichever was taken first."""
        return sorted(self.world.job(key).status for key in ("a", "b"))

    def signal(self) -> None:
        self.signals.append(15)


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def nothing() -> None:
    """A step in which only time passes."""


def test_a_worker_whose_beat_is_refused_kills_its_job_writes_nothing_and_leaves(bench: Bench) -> None:
    reason = bench.run(nothing, bench.free_the_slot, bench.later(limits.BEAT_S), nothing, nothing)
    assert reason == "the slot is not ours any more"
    assert [child.killed for child in bench.children.started] == [True]
    assert bench.world.job().status is JobStatus.RUNNING


def test_a_worker_beats_for_as_long_as_its_loop_comes_round(bench: Bench) -> None:
    bench.run(*[bench.later(limits.BEAT_S)] * 20)
    assert bench.world.clock.now() - bench.world.slot().seen_at <= 2 * limits.BEAT_S


def test_a_worker_that_lost_its_job_kills_it_and_goes_on(bench: Bench) -> None:
    def take_away() -> None:
        job = bench.world.job()
        assert bench.world.table.requeue(job, bench.world.clock.now() + HOUR_S, "", lapse(job), "taken away")

    killed: list[bool] = []
    left = bench.run(
        nothing,
        take_away,
        bench.later(limits.FENCE_CHECK_S),
        lambda: killed.extend(child.killed for child in bench.children.started),
    )
    assert (left, killed) == ("", [True])


def test_a_worker_on_a_retiring_slot_finishes_its_job_and_takes_no_other(bench: Bench) -> None:
    bench.world.queue("b")
    bench.run(
        nothing,
        lambda: bench.world.table.retire(bench.slot.id, retire=True),
        bench.later(limits.BEAT_S),
        bench.done,
        nothing,
        nothing,
    )
    assert bench.statuses() == [JobStatus.COMPLETED, JobStatus.QUEUED]


class Unheard:
    """A control table whose answers to some operations are lost: those of the first so many calls, done or not."""

    def __init__(self, table: StoredControlTable, operation: str, times: int, lands: bool = False) -> None:
        self._table, self._operation, self._times, self._lands = table, operation, times, lands

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._table, name)
        return self._lost(real) if name == self._operation else real

    def _lost(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._times <= 0:
                return real(*args, **kwargs)
            self._times -= 1
            if self._lands:
                real(*args, **kwargs)
            raise TimeoutError(self._operation)

        return call


def test_a_worker_that_has_not_heard_from_its_slot_claims_nothing(bench: Bench) -> None:
    bench.run(nothing, nothing, nothing, table=Unheard(bench.world.table, "beat", 1_000))
    assert bench.world.job().status is JobStatus.QUEUED


def test_a_claim_whose_reply_was_lost_is_run_by_the_one_that_made_it(bench: Bench) -> None:
    bench.run(nothing, nothing, bench.done, nothing, table=Unheard(bench.world.table, "claim", 1, lands=True))
    job = bench.world.job()
    assert (job.status, job.attempt, len(bench.children.started)) == (JobStatus.COMPLETED, 1, 1)


def test_a_child_is_told_for_which_run_it_works(bench: Bench) -> None:
    """For the moment at which the run was put, whichever attempt it is; and which artifacts are too old for the run."""
    put_at = bench.world.clock.now()
    bench.world.clock.sleep(7)
    failed = ChildReport(failure=Failure("internal: no luck", permanent=False), exit_code=1)
    bench.run(nothing, lambda: setattr(bench.children.started[0], "said", failed), bench.later(HOUR_S), nothing)
    now = bench.world.clock.now()
    assert bench.world.table.finish(bench.world.job(), JobStatus.FAILED, now, "", (), "finish")
    ended = bench.world.job()
    forced = replace(ended, status=JobStatus.QUEUED, run=2, queued_at=put_at + HOUR_S, since=put_at + HOUR_S - 1)
    assert bench.world.table.put(forced, ended, "put")
    bench.run(nothing)
    told = [(child.assignment.made_for, child.assignment.since) for child in bench.children.started]
    assert told == [(put_at, 0.0), (put_at, 0.0), (put_at + HOUR_S, put_at + HOUR_S - 1)]


def test_workers_that_look_at_the_same_moment_begin_at_different_jobs_near_the_head_of_the_queue() -> None:
    begun: list[str] = []
    for chance in (0.0, 0.3, 0.6, 0.999):
        bench = Bench(World())
        for number in range(2 * limits.LOOK_SPREAD):
            bench.world.queue(f"b{number}")
        near = bench.world.table.queued(Pool("default", 1), bench.world.clock.now(), limits.LOOK_SPREAD)
        bench.run(chance=chance)
        [child] = bench.children.started
        begun.append(child.assignment.workflow_key)
    assert begun == [job.key for job in near]


def test_a_worker_makes_one_claim_at_a_time(bench: Bench) -> None:
    bench.world.queue("b")
    bench.run(nothing, nothing, nothing, table=Unheard(bench.world.table, "claim", 3, lands=True))
    assert bench.statuses() == [JobStatus.QUEUED, JobStatus.RUNNING]


def test_a_worker_that_was_asked_to_leave_gives_its_job_back_or_finishes_it_and_claims_nothing(bench: Bench) -> None:
    bench.world.queue("b")

    def both() -> None:
        bench.done()
        bench.signal()

    assert bench.run(nothing, both, nothing, nothing) == "asked to leave"
    assert bench.statuses() == [JobStatus.COMPLETED, JobStatus.QUEUED]


# --- what another version wrote, and what cannot be read


def in_every_state(world: World, fleet: Fleet) -> None:
    """Of jobs for which a tick has something to do, two of each: a RUNNING, a QUEUED and a WAITING one."""
    slot = world.ready(fleet, "parent")
    for key in ("orphan/a", "orphan/b"):
        claimed = world.table.claim(world.queue(key), Holder(slot.lease), world.clock.now(), world.clock.unique())
        assert claimed
    end_run(world, JobStatus.COMPLETED, "parent")
    assert world.table.release(slot.lease, slot.arn, world.clock.now(), "proof", 0.0, "release")
    world.ecs.ends(slot.arn)
    for key in ("late/a", "late/b"):
        world.queue(key)
    for key in ("waiting/a", "waiting/b"):
        request = replace(a_job(key).request, depends_on=("parent",))
        now = world.clock.now()
        waiting = replace(a_job(key), status=JobStatus.WAITING, request=request, queued_at=now, due_at=now)
        assert world.table.put(waiting, None, world.clock.unique())


@pytest.mark.parametrize(
    "wrong",
    [
        {"request": "{"},
        {"v": keys.SCHEMA_VERSION + 1},
        {"attempt": None},
        {"holder": "?", "queued_at": None, "run": "first"},
    ],
    ids=["no request", "a later version", "no attempt", "nothing right"],
)
def test_a_job_that_cannot_be_read_keeps_no_step_of_the_tick_from_the_others(world: World, wrong: Any) -> None:
    pool = Pool("default", 1, LAUNCH, waiting_limit_s=60.0)
    fleet = world.fleet()._replace(pools={"default": pool})
    in_every_state(world, fleet)
    for key in ("orphan/a", "late/a", "waiting/a"):
        world.rewrite(keys.job_key(key), **wrong)
    world.clock.sleep(61)
    for _ in range(2):
        tick.handle(fleet)
        world.clock.sleep(limits.TICK_PERIOD_S)
    sound = {key: world.job(key).status for key in ("orphan/b", "late/b", "waiting/b")}
    assert sound["orphan/b"] is not JobStatus.RUNNING
    assert sound["late/b"] is JobStatus.FAILED
    assert sound["waiting/b"] is not JobStatus.WAITING
    assert world.ecs.calls
    assert world.log.of("tick failed") == []


def test_a_job_of_a_later_version_is_left_to_it_and_a_worker_takes_the_next(bench: Bench) -> None:
    bench.world.rewrite(keys.job_key("a"), v=keys.SCHEMA_VERSION + 1)
    later = [bench.later(limits.LOOK_S)] * 4
    assert bench.run(*later, lambda: bench.world.queue("b"), *later) == ""
    assert [child.assignment.workflow_key for child in bench.children.started] == ["b"]
    assert bench.world.log.of("no answer") == []
    item = bench.world.items.get(keys.job_key("a"))
    assert item
    assert (item["status"], item["attempt"]) == ("QUEUED", 0)


def test_a_field_that_only_a_later_version_knows_keeps_nobody_from_the_job(bench: Bench) -> None:
    item = bench.world.items.get(keys.job_key("a"))
    assert item
    request = json.dumps({**json.loads(item["request"]), "of_the_next": ["x"]})
    bench.world.rewrite(keys.job_key("a"), request=request, of_the_next=1)
    bench.run(nothing, bench.done, nothing)
    assert bench.world.job("a").status is JobStatus.COMPLETED


def test_the_key_of_a_job_that_cannot_be_read_is_given_to_no_other(world: World) -> None:
    world.queue()
    world.rewrite(keys.job_key("a"), v=keys.SCHEMA_VERSION + 1)
    before = world.items.get(keys.job_key("a"))
    deliver(world, message("a"))
    assert world.items.get(keys.job_key("a")) == before
    assert [line["message_id"] for line in world.log.of("not taken in")] == ["m0"]


@pytest.mark.parametrize("mode", ["asleep", "paused"])
def test_in_a_mode_that_only_a_later_version_knows_nothing_begins_and_nothing_is_ended(world: World, mode: str) -> None:
    fleet = world.fleet(cap=2)
    slot = world.ready(fleet, "a")
    world.rewrite(keys.override_key("default"), mode=mode, version=1)
    world.queue("b")
    tick.handle(fleet)
    assert len(world.ecs.calls) == 1
    assert world.ecs.stopped == []
    assert (world.slot(slot.id.number).leave, world.slot(slot.id.number).held) == (False, True)


def test_a_pool_of_which_people_said_what_cannot_be_read_is_not_run_as_if_they_had_said_nothing(world: World) -> None:
    """It may have been that it is to stop."""
    fleet = world.fleet()
    tick.handle(fleet)
    world.rewrite(keys.override_key("default"), version="first")
    world.queue()
    tick.handle(fleet)
    assert world.ecs.calls == []
    assert [line["pool"] for line in world.log.of("tick failed")] == ["default"]


def test_an_ending_that_only_a_later_version_knows_counts_so_that_there_is_an_end(world: World) -> None:
    fleet = world.fleet()
    slot = world.ready(fleet)
    running = world.table.claim(world.job(), Holder(slot.lease), world.clock.now(), "claim")
    assert running
    evicted = {"class": "evicted", "reason": "", "task": "", "began_at": 1, "ended_at": 2}
    history = [{**evicted, "number": number} for number in range(1, running.request.max_attempts)]
    world.rewrite(keys.job_key("a"), history=history)
    orphans = world.table.running(fleet.pools["default"], [0])
    assert fleet.requeue(orphans, FailureClass.FAILED, "it broke")
    assert world.job().status is JobStatus.FAILED
