"""Whatever was left undone, the tick finds and does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from fleetcap import jobs, keys, limits
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.fleet import Fleet
from fleetcap.model import (
    Doubt,
    Holder,
    Job,
    JobStatus,
    Pool,
    Request,
    Slot,
    SlotState,
    TaskStatus,
    Unanswered,
)
from handlers import tick
from tests.fakes import HandClock, HandEcs, Lines
from tests.handlers.test_task_state import queue


def held(fleet: Fleet) -> Slot:
    return next(slot for slot in fleet.table.slots("default") if slot.held)


def launch(fleet: Fleet, clock: HandClock, key: str = "a") -> Job:
    job = queue(fleet, clock, key)
    fleet.scale(fleet.pools["default"], [job.as_queued], most=1)
    return job


def work(fleet: Fleet, clock: HandClock) -> Slot:
    job = launch(fleet, clock)
    slot = held(fleet)
    assert fleet.table.beat(slot.lease, slot.arn, True, clock.now()) is not None
    assert fleet.table.claim(job, Holder(slot.lease), clock.now(), clock.unique())
    return held(fleet)


def a_job_in(clock: HandClock, pool: str) -> Job:
    request = Request("s3://input/a.bam", "bam")
    return Job("a", 1, JobStatus.QUEUED, pool, 5, request, rank="a", queued_at=clock.now(), due_at=clock.now())


def status(fleet: Fleet, key: str = "a") -> JobStatus:
    job = fleet.table.job(key)
    assert job is not None
    return job.status


def test_the_first_tick_creates_the_slots_of_the_cap(fleet: Fleet) -> None:
    tick.handle(fleet)
    assert [slot.id.number for slot in fleet.table.slots("default")] == [0, 1]


def test_a_job_that_no_decider_launched_for_gets_its_launch(fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    queue(fleet, clock, "a")
    tick.handle(fleet)
    assert len(tasks.calls) == 1


def test_a_second_tick_does_not_launch_twice_for_the_same_job(fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    queue(fleet, clock, "a")
    tick.handle(fleet)
    tick.handle(fleet)
    clock.sleep(60)
    tick.handle(fleet)
    assert len(tasks.calls) == 1


def test_a_launch_whose_sender_died_is_sent_again_under_the_same_token(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    tasks.lost = [Unanswered(Doubt.UNKNOWN, "killed before the reply")]
    launch(fleet, clock)
    tick.handle(fleet)
    assert held(fleet).arn == ""  # its own sender may still be at it
    clock.sleep(limits.RESEND_AFTER_S + 1)
    tick.handle(fleet)
    assert [held(fleet).arn] == tasks.arns
    assert len(set(tasks.calls)) == 1


def test_the_job_of_a_dead_holder_goes_back(fleet: Fleet, clock: HandClock) -> None:
    slot = work(fleet, clock)
    assert fleet.table.release(slot.lease, slot.arn, clock.now(), "a decider died after this", 0.0, clock.unique())
    tick.handle(fleet)
    assert status(fleet) is JobStatus.QUEUED


def test_a_living_holder_keeps_its_job_however_silent(fleet: Fleet, clock: HandClock) -> None:
    work(fleet, clock)
    clock.sleep(100_000)
    tick.handle(fleet)
    assert status(fleet) is JobStatus.RUNNING
    assert held(fleet).state is SlotState.READY


def test_a_silent_worker_is_stopped_and_its_slot_kept_until_ecs_says_that_it_is_gone(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    slot = work(fleet, clock)
    clock.sleep(limits.SILENT_S + 1)
    tick.handle(fleet)
    assert tasks.stopped == [slot.arn]
    assert held(fleet).lease == slot.lease
    tasks.ends(slot.arn)
    tick.handle(fleet)
    after = fleet.table.slot(slot.id)
    assert after is not None
    assert after.generation > slot.generation
    assert status(fleet) is JobStatus.QUEUED


def test_a_beating_worker_is_not_asked_about(fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    slot = work(fleet, clock)
    tasks.unseen = {slot.arn}
    for _ in range(10):
        clock.sleep(limits.BEAT_S)
        assert fleet.table.beat(slot.lease, slot.arn, False, clock.now()) is not None
        tick.handle(fleet)
    assert held(fleet).missing_since == 0
    assert tasks.stopped == []


def test_missing_is_proof_only_after_more_than_an_hour_without_a_break(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    slot = work(fleet, clock)
    tasks.unseen = {slot.arn}
    clock.sleep(limits.SILENT_S + 1)
    tick.handle(fleet)
    clock.sleep(limits.MISSING_IS_PROOF_S - 10)
    tick.handle(fleet)
    assert held(fleet).lease == slot.lease
    tasks.unseen = set()
    tick.handle(fleet)
    assert held(fleet).missing_since == 0
    tasks.unseen = {slot.arn}
    tick.handle(fleet)
    clock.sleep(limits.MISSING_IS_PROOF_S + 10)
    tick.handle(fleet)
    assert fleet.table.slot(slot.id) != slot
    assert status(fleet) is JobStatus.QUEUED


def test_a_lowered_cap_retires_slots_and_a_raised_one_takes_them_back(fleet: Fleet) -> None:
    tick.handle(fleet)
    pools = fleet.pools
    tick.handle(fleet._replace(pools={"default": replace(pools["default"], cap=1)}))
    assert [slot.retire for slot in fleet.table.slots("default")] == [False, True]
    tick.handle(fleet)
    assert [slot.retire for slot in fleet.table.slots("default")] == [False, False]


def test_a_job_that_waits_two_minutes_beside_a_free_ready_lane_gets_a_launch(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    job = launch(fleet, clock, "first")
    slot = held(fleet)
    assert fleet.table.beat(slot.lease, slot.arn, True, clock.now()) is not None
    assert fleet.table.claim(job, Holder(slot.lease), clock.now(), clock.unique())
    running = fleet.table.job("first")
    assert running is not None
    assert fleet.table.finish(running, JobStatus.COMPLETED, clock.now(), "", (), clock.unique())
    queue(fleet, clock, "second")
    tick.handle(fleet)
    assert len(tasks.calls) == 1  # the free lane is expected to take it
    clock.sleep(limits.UNSERVED_S + 1)
    assert fleet.table.beat(slot.lease, slot.arn, False, clock.now()) is not None
    tick.handle(fleet)
    assert len(tasks.calls) == 2


def test_one_pools_trouble_does_not_stop_the_others(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    broken = Pool("broken", 1, {"cluster": "no container named here"})
    queued = queue(fleet, clock, "a")
    assert fleet.table.put(replace(queued, key="b", pool="broken"), None, clock.unique())
    tick.handle(fleet._replace(pools={"broken": broken, **fleet.pools}))
    assert [line["pool"] for line in lines.of("tick failed")] == ["broken"]
    assert len(tasks.calls) == 1


def test_a_launch_without_a_first_beat_is_asked_about_soon_and_stopped_only_after_minutes(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    launch(fleet, clock)
    [arn] = tasks.arns
    tasks.unseen = {arn}
    clock.sleep(limits.INSPECT_LAUNCHING_S)
    tick.handle(fleet)
    assert held(fleet).missing_since == 0
    clock.sleep(1)
    tick.handle(fleet)
    assert held(fleet).missing_since == clock.now()
    tasks.unseen = set()
    tick.handle(fleet)
    assert tasks.stopped == []
    clock.sleep(limits.SILENT_LAUNCHING_S)
    tick.handle(fleet)
    assert tasks.stopped == [arn]


def test_a_launch_that_is_answered_late_gets_its_time_to_beat(fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    tasks.doubts = [Unanswered(Doubt.THROTTLED, "slow down")] * 8
    launch(fleet, clock)
    for _ in range(8):
        clock.sleep(60)
        tick.handle(fleet)
    late = fleet.table.slot(tasks.calls[0].slot)
    assert late is not None
    assert (late.lease, bool(late.arn)) == (tasks.calls[0], True)
    assert tasks.stopped == []


def test_trouble_with_one_slot_keeps_neither_orphans_nor_the_queue_waiting(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = work(fleet, clock)
    clock.sleep(limits.SILENT_S + 1)
    orphaned = queue(fleet, clock, "orphan")
    other = next(slot for slot in fleet.table.slots("default") if not slot.held)
    assert fleet.table.claim(orphaned, Holder(other.lease._replace(generation=1)), clock.now(), clock.unique())

    def refuse(cluster: str, arns: object) -> dict[str, TaskStatus]:
        raise PermissionError(f"not allowed to describe {arns} in {cluster}")

    monkeypatch.setattr(tasks, "describe", refuse)
    tick.handle(fleet)
    assert status(fleet, "orphan") is JobStatus.QUEUED
    assert len(tasks.calls) == 2
    assert [line["step"] for line in lines.of("tick failed")] == ["_look_at_the_doubtful"]
    doubtful = fleet.table.slot(slot.id)
    assert doubtful is not None
    assert doubtful.lease == slot.lease


def test_when_no_worker_beats_it_is_the_tables_silence_and_nobody_is_stopped_yet(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    for key in ("a", "b"):
        launch(fleet, clock, key)
    for slot in fleet.table.slots("default"):
        assert fleet.table.beat(slot.lease, slot.arn, True, clock.now()) is not None
    clock.sleep(limits.SILENT_S + 1)
    tick.handle(fleet)
    assert tasks.stopped == []
    clock.sleep(limits.SILENT_S)
    tick.handle(fleet)
    assert sorted(tasks.stopped) == tasks.arns


def test_a_launch_that_never_gets_an_answer_does_not_keep_its_job_from_another(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    tasks.doubts = [Unanswered(Doubt.PERMANENT, "no such subnet")]
    launch(fleet, clock)
    stuck = tasks.calls[0]
    for _ in range(limits.SILENT_LAUNCHING_S // 60 + 1):
        clock.sleep(60)
        tasks.doubts = [Unanswered(Doubt.PERMANENT, "no such subnet")]
        tick.handle(fleet)
    assert {lease for lease in tasks.calls if lease != stuck}
    assert fleet.table.slots("default")[stuck.slot.number].held


def test_a_task_that_turns_out_to_live_under_a_freed_slot_is_stopped_and_reported(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    launch(fleet, clock)
    slot = held(fleet)
    assert fleet.table.release(slot.lease, slot.arn, clock.now(), "proof", 0.0, clock.unique())
    fleet.launch(slot.lease, slot.launch, 0)
    assert tasks.stopped == tasks.arns
    assert len(lines.of("late answer")) == 1


# --- deadlines


def starving(fleet: Fleet, tasks: HandEcs, dispatch_deadline_s: float) -> Fleet:
    """A fleet for which there is no capacity."""
    tasks.capacity = 0
    pools = {"default": replace(fleet.pools["default"], dispatch_deadline_s=dispatch_deadline_s)}
    return fleet._replace(pools=pools)


def test_a_job_for_which_no_capacity_comes_fails_at_the_deadline_and_not_before(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    without = starving(fleet, tasks, 1_800)
    queue(fleet, clock, "a")
    began_at = clock.now()
    while status(fleet) is JobStatus.QUEUED and clock.now() < began_at + 7_200:
        tick.handle(without)
        clock.sleep(60)
    job = fleet.table.job("a")
    assert job
    assert job.status is JobStatus.FAILED
    assert job.error.startswith("capacity: pool default has had room but started no worker for 31 min")
    assert "AWS has no Fargate capacity" in job.error
    assert 1_800 < job.ended_at - began_at <= 1_800 + 120


def test_a_worker_that_comes_in_between_begins_the_wait_anew(fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    slot = work(fleet, clock)
    without = starving(fleet, tasks, 1_800)
    for _ in range(10):
        queue(fleet, clock, f"more {clock.now():.0f}")
        tick.handle(without)
        clock.sleep(200)
        assert fleet.table.beat(slot.lease, slot.arn, True, clock.now()) is not None
    assert all(job.queued_at for job in fleet.table.queued(without.pools["default"], clock.now(), 99))
    assert len(fleet.table.queued(without.pools["default"], clock.now(), 99)) == 10


def test_a_run_is_not_given_up_for_the_waiting_of_the_one_before(
    fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = {"default": replace(fleet.pools["default"], waiting_limit_s=60.0)}
    old = queue(fleet, clock, "a")
    clock.sleep(61)
    assert jobs.cancel(fleet.table, clock, "a", "not needed")
    ended = fleet.table.job("a")
    new = replace(old, run=2, queued_at=clock.now(), due_at=clock.now())
    assert fleet.table.put(new, ended, clock.unique())
    monkeypatch.setattr(fleet.table, "queued", lambda *_: [old.as_queued])  # the index lags
    tick.handle(fleet._replace(pools=pools))
    assert status(fleet) is JobStatus.QUEUED


# --- when calls are slow


@dataclass
class Slow:
    """A port each of whose calls takes so long."""

    port: Any
    clock: HandClock
    seconds: float = 5.0

    def __getattr__(self, name: str) -> Any:
        def slowly(*arguments: Any, **more: Any) -> Any:
            self.clock.sleep(self.seconds)
            return getattr(self.port, name)(*arguments, **more)

        return slowly


def slowed(fleet: Fleet, clock: HandClock, seconds: float = 5.0, pools: int = 1) -> Fleet:
    """The fleet with some pools, all of whose calls are slow."""
    tick.handle(fleet)  # the slots are there
    of = {"default": fleet.pools["default"]}
    of |= {f"other {number}": replace(of["default"], name=f"other {number}") for number in range(1, pools)}
    tick.handle(fleet._replace(pools=of))
    return fleet._replace(
        pools=of,
        table=cast(Any, Slow(fleet.table, clock, seconds)),
        tasks=cast(Any, Slow(fleet.tasks, clock, seconds)),
    )


@pytest.mark.parametrize("pools", [1, 2, 3, 5])
def test_however_slow_the_calls_a_tick_tells_its_gauges_in_time_and_each_pool_has_its_turn(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines, pools: int
) -> None:
    slow = slowed(fleet, clock, pools=pools)
    for pool in slow.pools:
        assert fleet.table.put(replace(a_job_in(clock, pool), key=f"{pool}/a"), None, clock.unique())
    lines.written.clear()
    for _ in range(pools * 6):
        began_at = clock.now()
        tick.look_on(slow, tick.handle(slow), began_at)
        assert clock.now() - began_at < limits.DECIDER_TIMEOUT_S
        clock.time = began_at + limits.TICK_PERIOD_S
    assert {line["pool"] for line in lines.of("ticked")} == set(slow.pools)
    assert {lease.slot.pool for lease in tasks.calls} == set(slow.pools)
    assert not lines.of("tick failed")


def test_what_a_tick_had_no_time_for_is_said_in_one_line(fleet: Fleet, clock: HandClock, lines: Lines) -> None:
    slow = slowed(fleet, clock, 20.0, pools=3)
    lines.written.clear()
    tick.handle(slow)
    [line] = lines.of("cut off")
    assert len([left for left in cast(Any, line["left"]) if " " not in left.replace("other ", "")]) == 2


def test_a_tick_of_slow_launches_stops_launching_and_tells_its_gauges(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    large = fleet._replace(pools={"default": replace(fleet.pools["default"], cap=100)})
    tick.handle(large)
    for number in range(100):
        queue(fleet, clock, f"{number:03}")
    slow = large._replace(tasks=cast(Any, Slow(tasks, clock, 0.6)))
    began_at = clock.now()
    tick.look_on(slow, tick.handle(slow), began_at)
    assert limits.DECIDER_BUDGET_S <= clock.now() - began_at < limits.DECIDER_BUDGET_S + 1
    assert 0 < len(tasks.calls) < 100
    assert sum(slot.held for slot in fleet.table.slots("default")) == len(tasks.calls)
    assert lines.of("ticked")


@pytest.mark.parametrize(("doubt", "launches"), [(Doubt.THROTTLED, 1), (Doubt.PERMANENT, 1), (Doubt.UNKNOWN, 2)])
def test_an_answer_that_the_next_launch_would_get_too_ends_the_launches_of_the_decision(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, doubt: Doubt, launches: int
) -> None:
    for key in ("a", "b"):
        queue(fleet, clock, key)
    tasks.doubts = [Unanswered(doubt, "no")] * 2
    fleet.scale(fleet.pools["default"], None, most=2)
    assert len(tasks.calls) == sum(slot.held for slot in fleet.table.slots("default")) == launches


def test_who_is_throttled_resends_no_other_launch(fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    tasks.doubts = [Unanswered(Doubt.UNKNOWN, "timed out")] * 2
    for key in ("a", "b"):
        launch(fleet, clock, key)
    clock.sleep(limits.RESEND_AFTER_S + 1)
    tasks.doubts = [Unanswered(Doubt.THROTTLED, "slow down")]
    before = len(tasks.calls)
    tick.handle(fleet)
    assert len(tasks.calls) == before + 1


# --- items that cannot be read


def spoilt(fleet: Fleet, key: str, **attributes: object) -> None:
    """A job's item as a mishap, or a later version, may have left it; None takes an attribute away."""
    assert isinstance(fleet.table, DynamoControlTable)
    items = fleet.table._dynamo
    item = items.get(keys.job_key(key))
    assert item
    wrong = {name: value for name, value in {**item, **attributes}.items() if value is not None}
    assert items.put(keys.Put("", wrong, keys.WHATEVER)).accepted


@pytest.mark.parametrize(
    "wrong", [{"request": "{"}, {"v": 2}, {"queued_at": None}, {"holder": "?"}, {"run": "x", "request": None}], ids=str
)
def test_jobs_that_cannot_be_read_stop_no_step_and_keep_nobody_waiting(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines, wrong: dict[str, object]
) -> None:
    """One QUEUED, one RUNNING, one WAITING; beside each a sound one for which the tick has to do the same."""
    assert isinstance(fleet.table, DynamoControlTable)
    table = DynamoControlTable(fleet.table._dynamo._client, "control", lines)
    fleet = fleet._replace(table=table)
    gone = work(fleet, clock)
    for key in ("orphan/bad", "orphan/good"):
        assert table.claim(queue(fleet, clock, key), Holder(gone.lease), clock.now(), clock.unique())
    assert table.release(gone.lease, gone.arn, clock.now(), "proof", 0.0, clock.unique())
    for key in ("queued/bad", "queued/good"):
        queue(fleet, clock, key)
    for key in ("waiting/bad", "waiting/good"):
        request = Request("s3://input/a.bam", "bam", depends_on=("a",))
        now = clock.now()
        waiting = Job(key, 1, JobStatus.WAITING, "default", 5, request, rank=key, queued_at=now, due_at=now)
        assert table.put(waiting, None, clock.unique())
    a = table.job("a")
    assert a
    assert table.finish(a, JobStatus.COMPLETED, clock.now(), "", (), clock.unique())
    for key in ("orphan/bad", "queued/bad", "waiting/bad"):
        spoilt(fleet, key, **wrong)
    clock.sleep(limits.DISPATCH_DEADLINE_S + 1)
    queue(fleet, clock, "young")
    pool = replace(fleet.pools["default"], waiting_limit_s=limits.DISPATCH_DEADLINE_S)
    fleet = fleet._replace(pools={"default": pool})
    for _ in range(3):
        tick.handle(fleet)
        clock.sleep(60)
    assert not lines.of("tick failed")
    assert status(fleet, "queued/good") is JobStatus.FAILED  # it waited too long
    assert status(fleet, "waiting/good") is not JobStatus.WAITING
    assert status(fleet, "orphan/good") is not JobStatus.RUNNING
    assert tasks.calls
    assert {"orphan/bad", "queued/bad", "waiting/bad"} >= {line["key"] for line in lines.of("unreadable")}
    assert len(lines.of("unreadable")) == len({line["error"] for line in lines.of("unreadable")})
