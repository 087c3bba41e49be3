"""What a tick tells of the fleet after its work: gauges while anything goes on, and what a sweep found."""

from __future__ import annotations

from typing import Final

import pytest

from fleetcap import limits
from fleetcap.decide import sweep
from fleetcap.fleet import Fleet, Standing
from fleetcap.model import Doubt, Pool, SeenTask, Slot, TaskStatus, Unanswered
from handlers import tick
from local.memory.ecs import MemoryTask
from tests.fakes import LAUNCH, HandClock, HandEcs, Lines
from tests.handlers.test_task_state import queue
from tests.handlers.test_tick import held, launch, work

CLUSTER: Final = str(LAUNCH["cluster"])


def passed(fleet: Fleet, sweep_now: bool = False) -> None:
    """One tick, as Lambda runs it."""
    began_at = fleet.clock.now()
    tick.look_on(fleet, tick.handle(fleet), began_at, sweep_now)


def strangers(tasks: HandEcs, count: int = 1) -> list[MemoryTask]:
    return [tasks.stranger(CLUSTER, "ecs-svc/1", "service:web") for _ in range(count)]


# --- gauges


def test_a_pool_at_work_is_told_in_one_line(fleet: Fleet, clock: HandClock, lines: Lines) -> None:
    work(fleet, clock)
    queue(fleet, clock, "b")
    clock.sleep(7)
    passed(fleet)
    [told] = lines.of("ticked")
    assert told["pool"] == "default"
    figures = ("cap", "slots_ready", "slots_launching", "slots_empty", "cap_headroom", "queue_depth", "oldest_wait_s")
    assert [told[name] for name in figures] == [2, 1, 0, 1, 1, 1, 7]
    assert told["unserved_wait_s"] == 7
    assert told["launch_strikes"] == 0
    assert isinstance(told["tick_duration_s"], float)


def test_a_pool_that_has_nothing_to_do_falls_to_zero_and_is_silent(
    fleet: Fleet, clock: HandClock, lines: Lines
) -> None:
    passed(fleet)
    clock.sleep(limits.QUIET_S + 1)
    passed(fleet)
    first, second = lines.of("ticked")
    assert (first["slots_empty"], first["queue_depth"]) == (2, 0)
    assert second == {"pool": "default", "quiet": True}


def test_a_pool_whose_gauges_cannot_be_told_costs_the_others_nothing(
    fleet: Fleet, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = {"broken": Pool("broken", 1, LAUNCH), **fleet.pools}
    passes = tick.handle(fleet._replace(pools=pools))
    read = fleet.table.queued

    def refuse(pool: Pool, now: float, limit: int) -> object:
        if pool.name == "broken":
            raise PermissionError("not allowed to read the queue")
        return read(pool, now, limit)

    monkeypatch.setattr(fleet.table, "queued", refuse)
    tick.look_on(fleet._replace(pools=pools), passes, fleet.clock.now())
    assert [told["pool"] for told in lines.of("ticked")] == ["default"]
    assert [(told["pool"], told["step"], told["tick_failures"]) for told in lines.of("tick failed")] == [
        ("broken", "tell", 1)
    ]


# --- counters


def test_each_answer_of_run_task_counts_once(fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines) -> None:
    tasks.doubts = [Unanswered(Doubt.THROTTLED, "slow down")]
    launch(fleet, clock)
    clock.sleep(limits.RESEND_AFTER_S + 1)
    tick.handle(fleet)
    assert [line.get("launches_unanswered") for line in lines.of("launch unanswered")] == [1]
    assert [line["launches_started"] for line in lines.of("launched")] == [1]
    assert [line["pool"] for line in lines.of("launched")] == ["default"]
    assert not [line for line in lines.of("release") if "launches_failed" in line]


def test_a_launch_that_ecs_refuses_and_one_that_never_beats_have_failed_and_a_worker_that_leaves_has_not(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    tasks.capacity = 0
    launch(fleet, clock)
    assert [line["launches_failed"] for line in lines.of("release")] == [1]
    tasks.capacity = None
    clock.sleep(limits.STRIKES_REMEMBERED_S + 1)
    tick.handle(fleet)
    slot = held(fleet)
    for _ in range(2):  # two deciders hear of it, and the second one's release is refused
        fleet.settle(slot, TaskStatus.STOPPED)
    assert [line.get("launches_failed") for line in lines.of("release")] == [1, 1, None]
    clock.sleep(limits.STRIKES_REMEMBERED_S + 1)
    tick.handle(fleet)
    slot = held(fleet)
    assert fleet.table.beat(slot.lease, slot.arn, True, clock.now()) is not None
    fleet.settle(held(fleet), TaskStatus.STOPPED)
    assert [line.get("launches_failed") for line in lines.of("release")] == [1, 1, None, None]


def test_an_attempt_that_its_worker_cannot_end_is_counted_by_who_does(
    fleet: Fleet, clock: HandClock, lines: Lines
) -> None:
    slot = work(fleet, clock)
    assert fleet.table.release(slot.lease, slot.arn, clock.now(), "proof", 0.0, clock.unique())
    tick.handle(fleet)
    [line] = lines.of("requeue")
    assert (line["pool"], line["attempts_interrupted"]) == ("default", 1)


def test_a_launch_without_an_answer_for_an_hour_is_counted_at_every_tick(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    never = Unanswered(Doubt.PERMANENT, "no such subnet")
    tasks.doubts = [never]
    launch(fleet, clock)
    clock.sleep(limits.UNRESOLVED_ALARM_S + 1)
    tasks.doubts = [never] * 3
    tick.handle(fleet)
    assert [line["unresolved_launches"] for line in lines.of("alarm")] == [1]


# --- the sweep


def test_a_tick_sweeps_when_it_is_its_minutes_turn(fleet: Fleet, clock: HandClock, lines: Lines) -> None:
    turns = []
    for minute in range(10):
        before = len(lines.of("swept"))
        passed(fleet)
        turns += [minute] if len(lines.of("swept")) > before else []
        clock.sleep(60)
    assert turns == [2, 7]


def test_workers_of_ours_are_known_and_an_empty_cluster_makes_no_metric(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    passed(fleet, sweep_now=True)
    slot = work(fleet, clock)
    passed(fleet, sweep_now=True)
    empty, busy = lines.of("swept")
    assert empty == {"cluster": LAUNCH["cluster"], "listed": 0, "unknown": 0, "left_out": None}
    assert busy == {**empty, "listed": 1, "cap_breaches": 0, "foreign_tasks": 0}
    assert [slot.arn] == tasks.arns


@pytest.mark.parametrize("stopping", [False, True])
def test_a_foreign_task_is_told_once_a_sweep_and_left_alone(
    fleet: Fleet, tasks: HandEcs, lines: Lines, stopping: bool
) -> None:
    [task] = strangers(tasks)
    if stopping:
        tasks.stopping(task, "UserInitiated", "by its owner")
    passed(fleet, sweep_now=True)
    [told] = lines.of("foreign task")
    assert told == {
        "arn": task.arn,
        "started_by": "ecs-svc/1",
        "group": "service:web",
        "cluster": LAUNCH["cluster"],
    }
    assert [(line["foreign_tasks"], line["cap_breaches"]) for line in lines.of("swept")] == [(1, 0)]
    assert tasks.stopped == []


def test_a_foreign_task_that_has_stopped_is_nobodys_business(fleet: Fleet, tasks: HandEcs, lines: Lines) -> None:
    [task] = strangers(tasks)
    tasks.ends(task.arn)
    passed(fleet, sweep_now=True)
    assert [line["listed"] for line in lines.of("swept")] == [1]
    assert lines.of("foreign task") == []


def test_a_launch_in_flight_is_no_breach(fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines) -> None:
    tasks.lost = [Unanswered(Doubt.UNKNOWN, "the reply was lost")]
    launch(fleet, clock)
    assert (held(fleet).arn, len(tasks.arns)) == ("", 1)
    passed(fleet, sweep_now=True)
    assert [(line["unknown"], line["cap_breaches"]) for line in lines.of("swept")] == [(1, 0)]


def zombie(fleet: Fleet, clock: HandClock) -> Slot:
    """A task lives on although its slot was freed, as no guard of ours lets happen."""
    slot = work(fleet, clock)
    clock.sleep(1)
    assert fleet.table.release(slot.lease, slot.arn, clock.now(), "no proof at all", 0.0, clock.unique())
    return slot


def test_a_task_that_lives_on_without_its_slot_is_a_breach_and_is_neither_stopped_nor_freed(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    slot = zombie(fleet, clock)
    clock.sleep(limits.SWEEP_SETTLED_S + 1)
    before = fleet.table.slot(slot.id)
    as_it_is = [tick.Pass(fleet.look(pool, whole=True), 0.0) for pool in fleet.pools.values()]
    tick.look_on(fleet, as_it_is, clock.now(), sweep_now=True)
    [told] = lines.of("cap breach")
    assert (told["arn"], told["started_by"]) == (slot.arn, str(slot.lease))
    assert str(told["reason"]).startswith("its slot was freed 12")
    assert [line["cap_breaches"] for line in lines.of("swept")] == [1]
    assert (fleet.table.slot(slot.id), tasks.stopped) == (before, [])


def test_a_slot_is_looked_at_after_ecs_was_asked(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECS shows a task as alive that stops and is released while the answer is under way."""
    slot = work(fleet, clock)
    clock.sleep(limits.SWEEP_SETTLED_S + 1)
    describe = tasks.identify

    def late(cluster: str, arns: list[str]) -> list[SeenTask]:
        answer = describe(cluster, arns)
        clock.sleep(3)
        assert fleet.table.release(slot.lease, slot.arn, clock.now(), "proof", 0.0, clock.unique())
        return answer

    monkeypatch.setattr(tasks, "identify", late)
    tick.look_on(fleet, [tick.Pass(Standing(fleet.pools["default"], []), 0.0)], clock.now(), sweep_now=True)
    assert lines.of("cap breach") == []
    assert [line["unknown"] for line in lines.of("swept")] == [1]


def test_two_live_tasks_under_one_lease_are_one_breach(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    slot = work(fleet, clock)
    second = tasks.stranger(CLUSTER, str(slot.lease), "family:worker")
    passed(fleet, sweep_now=True)
    assert [line["arn"] for line in lines.of("cap breach")] == [second.arn]
    tasks.ends(slot.arn)
    passed(fleet, sweep_now=True)
    assert len(lines.of("cap breach")) == 1


def test_a_sweep_reads_every_page_below_the_rate_that_ecs_grants(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    strangers(tasks, 250)
    began_at = clock.now()
    passed(fleet, sweep_now=True)
    [line] = lines.of("swept")
    assert (line["listed"], line["foreign_tasks"], line["left_out"]) == (250, 250, None)
    calls = tasks.lists + 3
    assert tasks.lists == 3 + 1  # those that are meant to run, and those that are not any more
    assert (calls - 1) / (clock.now() - began_at) < 20


def test_a_sweep_that_takes_too_long_says_what_it_left_out(
    fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers(tasks, 250)
    describe, listed = tasks.identify, tasks.listed

    def slow(cluster: str, arns: list[str]) -> list[SeenTask]:
        clock.sleep(limits.SWEEP_BUDGET_S / 2 + 1)
        return describe(cluster, arns)

    monkeypatch.setattr(tasks, "identify", slow)
    passed(fleet, sweep_now=True)
    assert [(line["foreign_tasks"], line["left_out"]) for line in lines.of("swept")] == [
        (200, "50 tasks not looked at")
    ]

    def slower(cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        clock.sleep(limits.SWEEP_BUDGET_S)
        return listed(cluster, stopping, token)

    monkeypatch.setattr(tasks, "listed", slower)
    passed(fleet, sweep_now=True)
    assert lines.of("swept")[-1]["left_out"] == "tasks beyond those listed; 100 tasks not looked at"


def test_a_sweep_makes_so_many_calls_and_no_more(
    fleet: Fleet, tasks: HandEcs, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers(tasks, limits.SWEEP_CALLS + 50)
    monkeypatch.setattr("local.memory.ecs.LIST_PAGE", 1)
    passed(fleet, sweep_now=True)
    [line] = lines.of("swept")
    assert (tasks.lists, line["listed"]) == (limits.SWEEP_CALLS, limits.SWEEP_CALLS)
    assert str(line["left_out"]).startswith("tasks beyond those listed")


def test_a_tick_that_took_long_leaves_the_sweep_to_the_next(fleet: Fleet, clock: HandClock, lines: Lines) -> None:
    passes = tick.handle(fleet)
    tick.look_on(fleet, passes, clock.now() - limits.SWEEP_LATEST_S - 1, sweep_now=True)
    assert lines.of("swept") == []
    assert [line["reason"] for line in lines.of("not swept")] == ["the pools took too long"]


def test_a_sweep_that_ecs_refuses_fails_alone(
    fleet: Fleet, tasks: HandEcs, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*asked: object) -> object:
        raise PermissionError(f"not allowed to list {asked}")

    monkeypatch.setattr(tasks, "listed", refuse)
    passed(fleet, sweep_now=True)
    assert [(line["step"], line["tick_failures"]) for line in lines.of("tick failed")] == [("sweep", 1)]
    assert len(lines.of("ticked")) == 1


def test_a_pool_whose_slots_are_unknown_makes_no_sweep_find_fault_with_its_workers(
    fleet: Fleet, clock: HandClock, lines: Lines
) -> None:
    work(fleet, clock)
    tick.look_on(fleet, [], clock.now(), sweep_now=True)
    assert lines.of("swept") == []
    assert sweep.unknown(["arn:task/0"], []) == ["arn:task/0"]
