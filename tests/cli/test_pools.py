"""The commands for pools: what they read and print, and that each deed may be killed anywhere and contended."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import pytest
import typer
from moto import mock_aws
from rich.console import Console
from typer.testing import CliRunner

from cli import board, jobs, poolboard, pools
from cli.main import app
from cli.target import Failed, Target
from fleetcap import limits
from fleetcap import pools as deeds
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.decide.capacity import View
from fleetcap.fleet import Fleet
from fleetcap.jobs import Contended
from fleetcap.model import Holder, JobStatus, Mode, Override, Pool, Reservation, Slot, SlotId, SlotState, TaskStatus
from handlers import tick
from local.memory.items import MemoryItems
from tests.cli.test_words import printed
from tests.examples import NOW, a_job, a_pool, a_slot, launching, queued, ready, running_on
from tests.fakes import LAUNCH, HandClock, HandEcs, Lines, make_table

POOL = Pool("default", 16, LAUNCH)


# --- arguments


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7_200), ("30d", 30 * 86_400)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert pools.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "0h", "-1h", "1.5h", "2 h", "2H", "1w", "1h30m", "٢h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="90s, 15m, 2h or 1d"):
        pools.duration_s(text)


def test_a_reservation_lasts_thirty_days_at_most() -> None:
    with pytest.raises(typer.BadParameter, match="31d is longer than a reservation may last: 30d at most"):
        pools.duration_s("31d")


def test_what_is_given_is_said_and_the_word_configured_takes_back() -> None:
    assert pools.words(cap=0, min_workers=None, warm_workers="configured", budget_task_hours=1.5) == {
        "cap": 0,
        "warm_workers": None,
        "budget_task_hours": 1.5,
    }


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "Configured"])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither a number of workers nor the word 'configured'"):
        pools.whole_or_configured(text)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "many"])
def test_what_are_no_task_hours_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither a number of task-hours nor the word 'configured'"):
        pools.hours_or_configured(text)


# --- what is shown


def a_busy_pool() -> deeds.Seen:
    override = Override(cap=5, warm_workers=1, budget_task_hours=100.0)
    slots = [
        ready(0),
        ready(1),
        launching(2, "b"),
        ready(3, leave=True),
        a_slot(4, used_day=int(NOW // limits.DAY_S), used_s=5_400),
        ready(5, retire=True),
    ]
    held = [running_on(slots[0], "a"), running_on(slots[5], "c")]
    stays = Reservation("default", "course", 2, NOW + 600, NOW - 60)
    over = Reservation("default", "over", 9, NOW, NOW - 60)
    view = View(a_pool(8).under(override), slots, [queued("b")], held, NOW, [stays, over])
    return deeds.Seen(view, 41, whole=True)


def test_a_pools_row_tells_everything_that_stands() -> None:
    words = " ".join(row_of(a_busy_pool()))
    for part in (
        "default 5 1 launching 41 queued warm 1 (configured 0) FARGATE 33.5 of 100 (configured 0)",
        "open (configured 8) 1 busy 2 running course: 2 until 08:10:00 UTC",
        "1 idle 1 leaving 1 retiring",
    ):
        assert part in words, words
    assert "over:" not in words


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cap": 4}, "cap full (5 of 4 slots in use)"),
        ({"mode": Mode.PAUSED, "reason": "[a] new reference"}, "pool paused: [a] new reference"),
        ({"budget_task_hours": 1.0}, "until 00:00:00 UTC: budget spent ("),
        ({}, ""),
    ],
)
def test_the_last_column_says_what_keeps_a_pool_from_launching(change: dict[str, Any], told: str) -> None:
    seen = a_busy_pool()
    changed = replace(seen, view=replace(seen.view, pool=replace(seen.view.pool, **change)))
    assert told in " ".join(row_of(changed))
    waits = poolboard.record(changed, a_pool(8))["waits"]
    assert (waits is None) is (told == "")


def row_of(seen: deeds.Seen) -> list[str]:
    """The row's words, however wide the table is."""
    console = Console(width=400, file=io.StringIO())
    console.print(poolboard.listing([seen], {"default": a_pool(8)}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().split()


def test_a_pools_document_has_stable_names() -> None:
    document = json.loads(json.dumps(poolboard.record(a_busy_pool(), a_pool(8))))
    assert (document["cap"], document["configured"]["cap"]) == (5, 8)
    assert document["slots"] == {"launching": 1, "busy": 1, "idle": 1, "leaving": 1, "retiring": 1}
    assert [each["name"] for each in document["reservations"]] == ["course"]
    assert (document["queued"], document["running"], document["providers"]) == (41, 2, {"FARGATE": 1})


@pytest.mark.parametrize(
    ("above", "stopped", "starting", "told"),
    [
        (0, 0, 0, "from now on nothing is leased above 8, and no worker is there"),
        (1, 0, 0, "from now on nothing is leased above 8; 1 worker above it finishes its job and leaves"),
        (5, 0, 0, "from now on nothing is leased above 8; 5 workers above it finish their jobs and leave"),
        (
            5,
            4,
            1,
            "from now on nothing is leased above 8; 4 tasks above it told to stop, their jobs go back to the queue"
            "; 1 still starting, to leave at once",
        ),
    ],
)
def test_it_is_said_exactly_what_holds_above_a_cap(above: int, stopped: int, starting: int, told: str) -> None:
    assert poolboard.above_the_cap(a_pool(8), above, stopped, starting) == told


def test_a_waiting_jobs_sheet_says_what_it_waits_for() -> None:
    text = printed(board.sheet(a_job(), {}, {}, NOW, "cap full (2 of 2 slots in use); behind 3 jobs"))
    assert "waits for" in text
    assert "cap full (2 of 2 slots in use); behind 3 jobs" in text
    assert "waits for" not in printed(board.sheet(a_job(status=JobStatus.RUNNING), {}, {}, NOW))


# --- deeds, on the table in memory


@dataclass
class Scene:
    """A pool in memory with an ECS that does as it is told."""

    cap: int = 16
    clock: HandClock = field(default_factory=HandClock)

    def __post_init__(self) -> None:
        self.tasks = HandEcs(self.clock.now)
        self.table = StoredControlTable(MemoryItems())
        self.pool = replace(POOL, cap=self.cap)
        self.fleet = Fleet({"default": self.pool}, self.table, self.tasks, self.clock, Lines())

    def workers(self, count: int, ready_ones: int | None = None) -> list[Slot]:
        """So many jobs, and a worker launched for each, of which all or so many have claimed theirs."""
        jobs = [replace(a_job(f"j/{n}"), queued_at=self.clock.now(), due_at=self.clock.now()) for n in range(count)]
        for job in jobs:
            assert self.table.put(job, None, self.clock.unique())
        assert self.fleet.scale(self.pool, [job.as_queued for job in jobs], count) == count
        for job in jobs[: count if ready_ones is None else ready_ones]:
            [slot] = [slot for slot in self.table.slots("default") if slot.for_job == job.key]
            assert self.table.beat(slot.lease, slot.arn, True, self.clock.now())
            assert self.table.claim(job, Holder(slot.lease), self.clock.now(), self.clock.unique())
        return [slot for slot in self.table.slots("default") if slot.held]

    def set(self, at_once: bool = False, follow: pools.Follow = iter, **said: int | None) -> pools.Said:
        return pools.said_of(self.table, self.clock, self.tasks, self.pool, said, at_once, follow)

    def stop_all(self, follow: pools.Follow = iter) -> tuple[int, int]:
        pools.set_mode(self.table, self.clock, self.pool, Mode.STOPPED, "stop-all")
        return pools.ended_all(self.table, self.clock, self.tasks, self.pool, "stop-all", follow)

    def leasable(self) -> list[int]:
        """The slots that somebody who knows no cap at all could lease."""
        return [
            slot.id.number
            for slot in self.table.slots("default")
            if not slot.held and self.table.lease(slot, "{}", "", 0, self.clock.now(), self.clock.unique())
        ]


@pytest.fixture
def scene() -> Scene:
    return Scene()


class Killed(BaseException):
    """The process ends here."""


def killed_after(count: int) -> pools.Follow:
    def follow(things: Iterable[Any]) -> Iterator[Any]:
        for number, thing in enumerate(things):
            if number == count:
                raise Killed
            yield thing

    return follow


def test_a_lowered_cap_kills_nobody_and_nothing_above_it_can_be_leased_by_anybody(scene: Scene) -> None:
    scene.workers(12)
    done = scene.set(cap=8)
    assert (done.before.cap, done.after.cap, done.superseded) == (16, 8, False)
    assert done.above == sum(slot.id.number >= 8 for slot in scene.table.slots("default") if slot.held) > 0
    assert scene.tasks.stopped == []
    assert all(number < 8 for number in scene.leasable())


def test_slots_that_nobody_has_made_yet_are_made_with_their_mark(scene: Scene) -> None:
    scene.set(cap=8)
    scene.table.create_slots([SlotId("default", number) for number in range(16)], NOW)  # by who still reads 16
    assert scene.leasable() == list(range(8))


def test_a_cap_that_is_raised_again_can_be_leased_up_to(scene: Scene) -> None:
    scene.workers(2)
    scene.set(cap=8)
    scene.set(cap=None)
    assert len(scene.leasable()) == 14


@pytest.mark.parametrize("killed_at", range(8))
def test_a_command_that_is_killed_on_its_way_is_repeated_or_the_tick_goes_on(killed_at: int) -> None:
    for repeat in (True, False):
        scene = Scene()
        tick.handle(scene.fleet)
        with pytest.raises(Killed):
            scene.set(cap=8, follow=killed_after(killed_at))
        if repeat:
            assert scene.set(cap=8).after.cap == 8
        else:
            tick.handle(scene.fleet)
        assert scene.leasable() == list(range(8))


def test_tasks_above_the_cap_are_stopped_only_where_that_is_asked_for_and_no_other_is(scene: Scene) -> None:
    held = scene.workers(16, ready_ones=15)
    done = scene.set(at_once=True, cap=8)
    above = {slot.arn for slot in held if slot.id.number >= 8}
    assert set(scene.tasks.stopped) == above
    assert (done.above, done.stopped, done.starting) == (8, 8, 0)


def test_a_launch_of_which_no_task_is_known_is_told_to_leave(scene: Scene) -> None:
    scene.fleet.look(scene.pool)
    slot = scene.table.slots("default")[3]
    assert scene.table.lease(slot, "{}", "", 0, NOW, "op")
    assert scene.stop_all() == (0, 1)
    after = scene.table.slot(slot.id)
    assert after is not None
    assert (after.leave, scene.tasks.stopped) == (True, [])


def test_who_raises_the_cap_meanwhile_has_his_workers_spared(scene: Scene) -> None:
    scene.workers(16)
    raised = False

    def follow(things: Iterable[Any]) -> Iterator[Any]:
        nonlocal raised
        yield from things
        if not raised:
            raised = True
            scene.set(cap=16)

    done = scene.set(at_once=True, follow=follow, cap=8)
    assert (done.superseded, done.above, scene.tasks.stopped) == (True, 0, [])


class Busy(StoredControlTable):
    """A table of which somebody else speaks just before each of the next words."""

    def __init__(self, others: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(MemoryItems())
        self._others = iter(others)

    def say(self, pool: str, said: Mapping[str, Any], version: int, op: str) -> Override | None:
        if other := next(self._others, None):
            super().say(pool, other, super().override(pool).version, f"{op} other")
        return super().say(pool, said, version, op)


def test_of_two_people_who_speak_at_once_both_are_heard() -> None:
    table = Busy([{"warm_workers": 2}])
    before, after = deeds.change(table, HandClock(), POOL, {"cap": 8})
    assert (before.warm_workers, after.cap, after.warm_workers) == (2, 8, 2)


def test_figures_that_cannot_stand_together_are_refused_though_they_were_said_at_once() -> None:
    table = Busy([{"min_workers": 12}])
    with pytest.raises(deeds.Refused, match="min_workers of pool default would be 12, and its cap of 8"):
        deeds.change(table, HandClock(), POOL, {"cap": 8})
    assert table.override("default").cap is None


def test_who_is_always_overtaken_is_told_so() -> None:
    table = Busy({"warm_workers": n} for n in range(limits.CANCEL_ROUNDS))
    with pytest.raises(Contended, match="changed under each of 8 attempts; try again"):
        deeds.change(table, HandClock(), POOL, {"cap": 8})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"cap": 10_001}, "the cap of pool default cannot be 10,001: it counts workers, from 0 to 10,000"),
        ({"min_workers": 17}, "min_workers of pool default would be 17, and its cap of 16"),
        ({"warm_workers": 17}, "warm_workers of pool default would be 17"),
        ({"cap": 3}, "warm_workers of pool default would be 4, and its cap of 3"),
        ({"warm_workers": -1}, "warm_workers of pool default cannot be -1"),
        ({"budget_task_hours": -1.0}, "budget_task_hours of pool default cannot be -1"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_against_what_stands(said: dict[str, Any], why: str, scene: Scene) -> None:
    scene.set(warm_workers=4)
    with pytest.raises(deeds.Refused, match=why):
        deeds.change(scene.table, scene.clock, scene.pool, said)
    assert scene.table.override("default").version == 1


def test_a_pool_whose_figures_do_not_fit_any_more_can_still_be_stopped(scene: Scene) -> None:
    scene.set(min_workers=12)
    smaller = replace(scene.pool, cap=4)  # by a deploy
    _, after = pools.set_mode(scene.table, scene.clock, smaller, Mode.STOPPED, "")
    assert after.mode is Mode.STOPPED


# --- stop-all, pause, drain


def test_a_stop_all_that_is_killed_between_two_tasks_is_gone_on_with_by_the_tick(scene: Scene) -> None:
    held = scene.workers(6)
    with pytest.raises(Killed):
        scene.stop_all(killed_after(2))
    assert len(scene.tasks.stopped) == 2
    tick.handle(scene.fleet)
    assert set(scene.tasks.stopped) == {slot.arn for slot in held}


def test_who_resumes_a_pool_that_is_being_stopped_has_the_rest_of_its_tasks_spared(scene: Scene) -> None:
    scene.workers(6)

    def follow(things: Iterable[Any]) -> Iterator[Any]:
        for number, thing in enumerate(things):
            if number == 2:
                pools.set_mode(scene.table, scene.clock, scene.pool, Mode.OPEN, "")
            yield thing

    with pytest.raises(Failed, match="pool default is open again: somebody has spoken after 2 tasks were stopped"):
        scene.stop_all(follow)
    assert len(scene.tasks.stopped) == 2


def test_a_stop_all_may_be_repeated_and_stops_what_was_still_starting(scene: Scene) -> None:
    held = scene.workers(6, ready_ones=4)
    for _ in range(2):
        assert scene.stop_all() == (6, 0)
    assert set(scene.tasks.stopped) == {slot.arn for slot in held}
    assert all(slot.leave for slot in scene.table.slots("default") if slot.held)


def test_stops_are_spread_over_time(scene: Scene) -> None:
    scene.workers(10)
    began_at = scene.clock.now()
    scene.stop_all()
    assert scene.clock.now() - began_at == pytest.approx(10 * limits.STOP_PAUSE_S)


@pytest.mark.parametrize("mode", [Mode.PAUSED, Mode.DRAINING, Mode.STOPPED])
def test_a_pool_that_is_not_open_launches_nothing_until_it_is_resumed(scene: Scene, mode: Mode) -> None:
    pools.set_mode(scene.table, scene.clock, scene.pool, mode, "why")
    assert scene.table.put(a_job(), None, "op")
    tick.handle(scene.fleet)
    assert scene.tasks.calls == []
    assert deeds.waits_for(scene.table, scene.pool, a_job(), NOW) == f"pool {mode.value}: why; next in its queue"
    _, after = pools.set_mode(scene.table, scene.clock, scene.pool, Mode.OPEN, "")
    assert (after.mode, after.reason) == (Mode.OPEN, "")
    tick.handle(scene.fleet)
    assert len(scene.tasks.calls) == 1


def test_waiting_for_a_drain_ends_with_the_last_worker(scene: Scene) -> None:
    [slot] = scene.workers(1)
    pools.set_mode(scene.table, scene.clock, scene.pool, Mode.DRAINING, "")
    left: list[int] = []

    def look(held: int) -> None:
        left.append(held)
        if len(left) == 3:
            assert scene.table.release(slot.lease, slot.arn, scene.clock.now(), "left", 0.0, scene.clock.unique())

    pools.await_empty(scene.table, scene.clock, [scene.pool], 60, look)
    assert left == [1, 1, 1, 0]


def test_waiting_for_a_drain_gives_up_in_time_and_where_somebody_resumes(scene: Scene) -> None:
    scene.workers(1)
    pools.set_mode(scene.table, scene.clock, scene.pool, Mode.DRAINING, "")
    with pytest.raises(Failed, match="after 60 s 1 worker of default is still there; draining goes on"):
        pools.await_empty(scene.table, scene.clock, [scene.pool], 60, lambda _: None)
    pools.set_mode(scene.table, scene.clock, scene.pool, Mode.OPEN, "")
    with pytest.raises(Failed, match="pool default is open again"):
        pools.await_empty(scene.table, scene.clock, [scene.pool], 60, lambda _: None)


# --- reservations


def test_no_more_workers_can_be_reserved_than_the_cap_has_slots(scene: Scene) -> None:
    scene.set(cap=8)
    with pytest.raises(deeds.Refused, match="pool default has a cap of 8: 9 more can never live at once"):
        deeds.reserve(scene.table, scene.clock, scene.pool, 9, 600, "a")
    deeds.reserve(scene.table, scene.clock, scene.pool, 5, 600, "a")
    with pytest.raises(deeds.Refused, match="a cap of 8, 5 of which are reserved already: 4 more"):
        deeds.reserve(scene.table, scene.clock, scene.pool, 4, 600, "b")
    scene.clock.sleep(601)
    deeds.reserve(scene.table, scene.clock, scene.pool, 8, 600, "b")


def test_a_name_is_in_use_until_its_reservation_is_over(scene: Scene) -> None:
    deeds.reserve(scene.table, scene.clock, scene.pool, 2, 600, "course")
    with pytest.raises(deeds.Refused, match="has a reservation course already"):
        deeds.reserve(scene.table, scene.clock, scene.pool, 3, 600, "course")
    assert scene.table.unreserve("default", "course", scene.clock.now())
    assert deeds.reserve(scene.table, scene.clock, scene.pool, 3, 600, "course").workers == 3


class Deaf(StoredControlTable):
    """A table whose answer to a reservation is lost, so that the SDK asks again and is refused by its own item."""

    def reserve(self, reservation: Reservation) -> bool:
        super().reserve(reservation)
        return super().reserve(reservation)


def test_a_reservation_whose_answer_was_lost_is_ones_own() -> None:
    made = deeds.reserve(Deaf(MemoryItems()), HandClock(1_800_000_000.1234), POOL, 2, 600, "course")
    assert made.workers == 2


def test_reserved_workers_come_with_the_next_tick(scene: Scene) -> None:
    deeds.reserve(scene.table, scene.clock, scene.pool, 3, 600, "course")
    tick.handle(scene.fleet)
    assert len(scene.tasks.calls) == 3


# --- looking on


def test_whoever_looks_on_makes_nothing(scene: Scene) -> None:
    assert scene.table.put(a_job(), None, "op")
    seen = deeds.seen(scene.table, scene.pool, scene.clock.now())
    assert (seen.queued, seen.whole, len(seen.view.slots)) == (1, True, 16)
    assert scene.table.slots("default") == []
    assert poolboard.record(seen, scene.pool)["waits"] is None


def test_a_job_behind_more_than_the_cap_is_told_how_many_are_ahead() -> None:
    scene = Scene(cap=1)
    scene.workers(1)
    for number in range(9):
        assert scene.table.put(a_job(f"q/{number}", age_s=100 - number), None, f"q{number}")
    last = scene.table.job("q/8")
    assert last is not None
    told = deeds.waits_for(scene.table, scene.pool, last, scene.clock.now())
    assert told == "cap full (1 of 1 slots in use); behind 8 jobs"


def test_jobs_that_are_due_later_are_counted_and_stand_in_nobodys_way(scene: Scene) -> None:
    assert scene.table.put(a_job("later", age_s=50, due_at=NOW + 60), None, "op")
    assert scene.table.put(a_job("mine"), None, "op2")
    assert deeds.seen(scene.table, scene.pool, NOW).queued == 2
    assert "next in its queue" in deeds.waits_for(scene.table, scene.pool, a_job("mine"), NOW)


def test_a_large_pool_is_seen_as_a_whole() -> None:
    scene = Scene(cap=600)
    tick.handle(scene.fleet)
    for bank in (1, 2):
        scene.table.create_slots([SlotId("default", bank * limits.BANK_SLOTS)], NOW)
        scene.table.widen("default", bank + 1)
    far = scene.table.slot(SlotId("default", 2 * limits.BANK_SLOTS))
    assert far is not None
    assert scene.table.lease(far, "{}", "", 0, NOW, "op")
    seen = deeds.seen(scene.table, scene.pool, NOW)
    assert len(seen.view.slots) == 600
    assert deeds.states(seen.view) == {"launching": 1}


# --- the commands themselves, on a table in this process


class Ecs:
    """An ECS that hears StopTask, and fails from some call on."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.fails_after = 1_000

    def stop_task(self, *, cluster: str, task: str, reason: str) -> None:
        assert cluster
        assert reason
        if len(self.stopped) >= self.fails_after:
            raise OSError("the network is gone")
        self.stopped.append(task)


@dataclass
class Desk:
    """A person at a deployment whose table is in moto."""

    target: Target
    ecs: Ecs
    fleet: Fleet

    def does(self, *words: str) -> str:
        """What the command prints on stdout. Raises what it raises."""
        done = CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)
        return done.stdout


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        dynamo, ecs = boto3.client("dynamodb", region_name="us-east-1"), Ecs()
        make_table(dynamo)
        known = [{"name": "default", "cap": 4, "launch": LAUNCH}, {"name": "other", "cap": 2, "launch": LAUNCH}]
        settings = {"Environment": {"Variables": {"FLEETCAP_POOLS": json.dumps(known)}}}
        answering = type("Lambda", (), {"get_function_configuration": staticmethod(lambda **_: settings)})
        clients: dict[str, Any] = {"dynamodb": dynamo, "ecs": ecs, "lambda": answering}
        outputs = {"TableName": "control", "IntakeFunctionName": "intake"}
        target = Target("the deployment here", outputs, clients.__getitem__)
        monkeypatch.setattr("cli.target.find", lambda _name, _stack: target)
        clock = HandClock(time.time())
        fleet = Fleet(target.pools, target.table, HandEcs(clock.now), clock, Lines())
        yield Desk(target, ecs, fleet)


def test_the_pools_are_listed_and_set_and_set_back(desk: Desk) -> None:
    [before, _] = json.loads(desk.does("pools", "--json"))["pools"]
    assert (before["pool"], before["cap"], before["slots"]["busy"]) == ("default", 4, 0)
    told = desk.does("pools", "set", "default", "--cap", "2", "--warm", "1", "--budget-task-hours", "0.5")
    assert told.splitlines() == [
        "default: cap 4 → 2 (configured 4), warm 0 → 1 (configured 0), budget 0 → 0.5 (configured 0)",
        "default: from now on nothing is leased above 2, and no worker is there",
        "default: workers that are missing come with the next decision, within a minute",
    ]
    assert "(configured 4)" in desk.does("pools")
    back = json.loads(desk.does("pools", "set", "default", "--cap", "configured", "--warm", "configured", "--json"))
    assert (back["after"]["cap"], back["after"]["warm_workers"], back["after"]["budget_task_hours"]) == (4, 0, 0.5)
    assert "as it was" in desk.does("pools", "set", "other", "--cap", "2")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["pools", "set", "default", "--min", "5"], "min_workers of pool default would be 5, and its cap of 4"),
        (["pools", "set", "nobody", "--cap", "5"], "has no pool 'nobody'; it has default, other"),
        (["pools", "pause", "nobody"], "has no pool 'nobody'"),
        (["reserve", "default", "5", "--for", "1h"], "pool default has a cap of 4: 5 more"),
        (["unreserve", "default", "nothing"], "pool default has no reservation nothing"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(desk: Desk, words: list[str], why: str) -> None:
    with pytest.raises(Failed, match=why):
        desk.does(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["pools", "set", "default"],
        ["pools", "set", "default", "--warm", "1", "--now"],
        ["pools", "pause"],
        ["pools", "resume", "default", "--all"],
        ["pools", "--json", "pause", "default"],
        ["reserve", "default", "1", "--for", "1h", "--as", "No Name"],
        ["stop-all", "default"],
    ],
)
def test_a_wrong_usage_is_told_as_one_and_changes_nothing(desk: Desk, words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert desk.target.table.override("default") == Override()


def test_pools_are_paused_drained_and_resumed(desk: Desk) -> None:
    told = desk.does("pools", "pause", "default", "other", "--reason", "a new reference")
    assert told.splitlines()[0] == (
        "default is paused (was open): no job starts and no worker is launched from now on; what runs goes on"
    )
    assert "pool paused: a new reference" in desk.does("pools")
    assert desk.does("pools", "drain", "--all", "--wait").splitlines()[-1] == "no worker is left"
    resumed = json.loads(desk.does("pools", "resume", "--all", "--json"))["pools"]
    assert [(each["before"], each["mode"]) for each in resumed] == [("draining", "open")] * 2


def test_stop_all_stops_every_task_of_every_pool_and_says_how_it_goes_on(desk: Desk) -> None:
    arns = work(desk)
    told = desk.does("stop-all", "--yes")
    assert told.splitlines() == [
        "default is stopped: 3 tasks told to stop, their jobs go back",
        "other is stopped: 0 tasks told to stop, their jobs go back",
        "`fleetcap pools resume --all` lets it go on",
    ]
    assert set(desk.ecs.stopped) == arns


@pytest.mark.parametrize(("answer", "goes_on"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_who_sits_at_a_terminal_is_asked_before_everything_is_stopped(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bytes, goes_on: bool
) -> None:
    work(desk)
    keyboard, terminal = pty.openpty()
    with os.fdopen(keyboard, "wb", buffering=0) as typing, os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        typing.write(answer)
        with nullcontext() if goes_on else pytest.raises(typer.Abort):
            pools.stop_all(["default"])
    told = capsys.readouterr()
    assert "Stop every task of default in the deployment here? [y/N]" in told.err
    assert len(desk.ecs.stopped) == (3 if goes_on else 0)
    assert (desk.target.table.override("default").mode is Mode.STOPPED) is goes_on


def test_a_stop_all_that_fails_on_its_way_has_stopped_the_pools_and_is_repeated(desk: Desk) -> None:
    arns = work(desk)
    desk.ecs.fails_after = 1
    with pytest.raises(Failed, match="the network is gone"):
        desk.does("stop-all", "--yes")
    assert {desk.target.table.override(pool).mode for pool in desk.target.pools} == {Mode.STOPPED}
    desk.ecs.fails_after = 1_000
    desk.does("stop-all", "--yes")
    assert set(desk.ecs.stopped) == arns


def work(desk: Desk) -> set[str]:
    """Three workers of the first pool; their tasks."""
    table, clock = desk.target.table, desk.fleet.clock
    waiting = [replace(a_job(f"w/{n}"), queued_at=clock.now(), due_at=clock.now()) for n in range(3)]
    for job in waiting:
        assert table.put(job, None, clock.unique())
    assert desk.fleet.scale(desk.fleet.pools["default"], [job.as_queued for job in waiting], 3) == 3
    return {slot.arn for slot in table.slots("default") if slot.held}


def test_reservations_are_made_listed_and_ended(desk: Desk) -> None:
    told = desk.does("reserve", "default", "2", "--for", "2h", "--as", "course")
    assert told.startswith("course: 2 workers of default until ")
    assert told.rstrip().endswith("those that are missing come with the next decision, within a minute")
    desk.does("pools", "pause", "other")
    assert "the pool is paused, so none comes before" in desk.does("reserve", "other", "1", "--for", "2d")
    listed = json.loads(desk.does("reservations", "--json"))["reservations"]
    assert [(each["pool"], each["workers"]) for each in listed] == [("default", 2), ("other", 1)]
    assert desk.does("unreserve", "default", "course") == "course: ended\n"
    assert "course" not in desk.does("reservations")
    assert desk.does("reservations", "--pool", "default") == "There are no reservations.\n"


def test_a_job_says_what_it_waits_for(desk: Desk) -> None:
    work(desk)
    desk.does("pools", "pause", "default", "--reason", "tea")
    told = sorted(json.loads(desk.does("job", f"w/{n}", "--json"))["waits_for"] for n in range(3))
    behind = ("behind 1 job", "behind 2 jobs", "next in its queue")
    assert told == [f"pool paused: tea; {each}" for each in behind]
    assert "waits for  pool paused: tea; " in desk.does("job", "w/1")
    gone = replace(a_job("g/1"), pool="gone")
    assert jobs.waits(desk.target, gone).startswith("its pool gone is not deployed any more")
    assert jobs.waits(desk.target, replace(gone, status=JobStatus.RUNNING)) == ""


def test_a_slot_of_a_stopped_launch_does_not_make_its_pool_back_off(scene: Scene) -> None:
    [slot] = scene.workers(1, ready_ones=0)
    assert slot.state is SlotState.LAUNCHING
    scene.stop_all()
    [told] = [each for each in scene.table.slots("default") if each.held]
    assert scene.fleet.settle(told, TaskStatus.STOPPED)
    assert deeds.seen(scene.table, scene.pool, scene.clock.now()).view.slots[told.id.number].strikes == 0
