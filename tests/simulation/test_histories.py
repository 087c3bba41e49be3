"""The production code under seeds: fixed ones, fresh ones, a large burst; and that a broken guard is found and told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from fleetcap import keys
from fleetcap.decide import recover
from fleetcap.fleet import Fleet
from fleetcap.model import OnParentFailure
from handlers.intake import Intake
from local.simulator import history
from local.simulator.__main__ import tally
from local.simulator.coverage import expected, never_taken
from local.simulator.history import History, run
from local.simulator.plan import Fault, JobPlan, MessagePlan, Plan, Trouble, TroubleAt, large, plan
from local.simulator.shrink import shrink
from worker_image.worker import Worker

ROOT: Final = Path(__file__).parents[2]
FIXED: Final = 2_500
FRESH: Final = 1_000


@pytest.mark.long
def test_no_fresh_seed_breaks_an_invariant() -> None:
    """`make simulate SEED=n` replays what this finds."""
    begin = random.randrange(1 << 32)  # noqa: S311 - new ground each time
    assert tally(list(range(begin, begin + FRESH))).violations == []


def test_a_large_burst_breaks_no_invariant_and_fills_the_cap() -> None:
    result = run(large(7, jobs=400, cap=50))
    assert result.violation is None
    assert result.peak == 50
    assert result.seen["write claim"] >= 400


RARE: Final = {
    "a token had been forgotten",
    "log alarm",
    "log late answer",
    "log requeue GiveUp",
    "refused beat: the recorded task is none or this one",
    "refused launched: the recorded task is none or this one",
    "refused lease: the slot is not retiring",
    "refused missing: the generation is as read",
    "refused missing: the slot is held",
    "refused cancel: the run as read is running",
    "refused pass: the run is as read",
    "refused retire: no newer cap has marked it",
}
"""Branches that so few histories take that these need not; `make simulate` runs enough for them."""


@pytest.mark.long
def test_no_fixed_seed_breaks_an_invariant_and_they_take_every_branch_but_the_rare() -> None:
    total = tally(list(range(FIXED)))
    assert total.violations == []
    assert total.histories == FIXED
    assert set(never_taken(total.seen)) <= RARE
    assert set(expected()) >= RARE


@pytest.mark.long
def test_a_seed_goes_the_same_way_in_every_process() -> None:
    """Whatever the hashes of that process are."""
    script = "from local.simulator.history import run; from local.simulator.plan import plan\n" + (
        "for seed in range(40): print(run(plan(seed), tracing=True).lines)"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(told) == 1
    assert len(told.pop()) > 100_000


def first_violation(seeds: range) -> int:
    return next(seed for seed in seeds if run(plan(seed)).violation)


def test_a_broken_guard_is_found_made_small_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are taken from workers that live."""
    monkeypatch.setattr(recover, "dead", lambda *_: True)
    failed = run(plan(first_violation(range(2_000))))
    small = shrink(failed)
    assert failed.violation
    assert small.violation
    assert failed.violation.invariant == small.violation.invariant == "ONE-RUN"
    assert len(small.plan.messages) == 1
    assert len(small.plan.troubles) <= min(len(failed.plan.troubles), 1)
    assert small.faults <= failed.faults
    assert [line.outcome for line in small.lines if line.who == "truth"] == ["VIOLATION"]
    assert any(line.what.startswith(("requeue JOB#", "finish JOB#")) for line in small.lines)
    assert run(small.plan, tracing=True).lines == small.lines


def invariants(plans: Iterable[Plan]) -> Iterator[str]:
    """What breaks, history by history."""
    return (result.violation.invariant for each in plans if (result := run(each)).violation)


def test_a_worker_that_looks_away_is_not_work_conserving(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Worker._look

    def seldom(worker: Worker) -> None:
        if int(worker._clock.now()) % 30 == 0:
            look(worker)

    monkeypatch.setattr(Worker, "_look", seldom)
    calm = (each for each in map(plan, range(2_000)) if each.faultless)
    assert "WORK-CONSERVING" in invariants(calm)


def test_a_tick_that_forgets_the_silent_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "silent", lambda *_: False)
    assert next(invariants(map(plan, range(400)))) in {"LIVE", "LEAK"}


@pytest.mark.long
def test_a_message_that_is_given_up_too_early_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not settled is said to be."""
    handle = Intake.handle

    def swallow(intake: Intake, event: dict[str, object]) -> dict[str, object]:
        return handle(intake, event) | {"batchItemFailures": []}

    monkeypatch.setattr(Intake, "handle", swallow)
    assert "NO-LOSS" in invariants(map(plan, range(400)))


def test_an_error_that_the_world_does_not_explain_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Fleet, "settle", broken)
    assert next(invariants(map(plan, range(100)))) == "ERROR"


def test_looks_that_are_left_out_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where calls take no time, chance is drawn alike with them and without: all is the same but their number."""
    plans = [replace(plan(seed), latency_s=0.0) for seed in range(1, 171)]
    sparing = list(map(run, plans))
    monkeypatch.setattr(History, "looks_in_vain", lambda _history, _process: False)
    looking = list(map(run, plans))
    assert [replace(each, calls=0) for each in sparing] == [replace(each, calls=0) for each in looking]
    assert sum(each.calls for each in sparing) < 0.95 * sum(each.calls for each in looking)
    assert any(each.plan.faultless and each.calls < other.calls for each, other in zip(sparing, looking, strict=True))


def test_no_tick_is_left_out_before_the_index_shows_all_that_there_is_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 2986821872: two jobs that wait for each other, of which the index showed the second a minute late."""
    monkeypatch.setattr(history, "IDLE_TICKS_LEFT_OUT", 1.0)
    one, other = (
        JobPlan("one", 1.0, depends_on=("other",), on_parent_failure=OnParentFailure.RUN),
        JobPlan("other", 1.0, depends_on=("one",)),
    )
    messages = tuple(MessagePlan(0.0, 0.0, job) for job in (one, other))
    slow = Plan(0, 1, 1, 2, 1, messages, latency_s=0.02, lag_s=90.0, stream_loses=1.0, calm_at=5.0)
    assert list(invariants(replace(slow, seed=seed) for seed in range(100))) == []


def test_a_trouble_of_workers_lies_in_wait_for_the_first_of_them() -> None:
    death = TroubleAt(Trouble.DEATH, 0.0, amount=1)
    work = (MessagePlan(30.0, 0.0, JobPlan("job", 60.0)),)
    done = run(Plan(0, 1, 1, 1, 1, work, troubles=(death,), calm_at=300.0))
    assert done.violation is None
    assert done.seen["trouble: a worker dies"] == 1
    assert done.seen["log requeue Requeue"] == 1
    assert not run(Plan(0, 1, 1, 1, 1, (), troubles=(death,), calm_at=300.0)).seen["trouble: a worker dies"]


def test_a_fault_that_is_left_out_does_not_happen() -> None:
    seed = next(seed for seed in range(200) if run(plan(seed)).faults > 3)
    before = run(plan(seed))
    after = run(replace(plan(seed), without=frozenset(range(1, 10_000))))
    assert sum(count for branch, count in before.seen.items() if branch.startswith("fault: ")) > 3
    assert not any(branch.startswith("fault: ") for branch in after.seen)


def test_plans_are_many_and_small() -> None:
    plans = [plan(seed) for seed in range(2_000)]
    jobs = Counter(len({message.job.key for message in each.messages if message.job}) for each in plans)
    assert set(jobs) >= {1, 2, 3, 4, 6, 12}
    assert max(jobs) == 12
    assert {each.cap for each in plans} >= {1, 2, 3, 4}
    assert max(each.cap for each in plans) == 4
    assert {each.deciders for each in plans} == {1, 2, 3, 4}
    assert {each.lanes for each in plans} == {1, 2}
    assert {trouble.kind for each in plans for trouble in each.troubles} == set(Trouble)
    assert {fault for each in plans for fault in each.faults} == set(Fault)


def test_every_operation_of_the_table_is_watched() -> None:
    """What `coverage` lists is what `keys` has."""
    writes = {name.removesuffix("_write") for name in vars(keys) if name.endswith("_write")} | {"withdraw"}
    assert {branch.removeprefix("write ") for branch in expected() if branch.startswith("write ")} == writes
