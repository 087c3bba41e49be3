"""The policy's quality under the simulator's clock: how near the least makespan, at what peak, for what bill."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.policy import app
from local.fargate.tasks import Status
from local.memory import items
from local.memory.ecs import MemoryTask
from local.simulator import policy
from local.simulator.policy import POLICIES, Counting, ExactTaskPerJob, Figures, billed_s, fleetcap, peak
from local.simulator.workloads import (
    DAY_S,
    Work,
    Workload,
    bimodal,
    diurnal,
    long,
    lower_bound_s,
    small,
    unhindered_waits_s,
)

SEED: Final = 1


def counting(work: Workload) -> Figures:
    return Counting(work).run()


def exact(work: Workload) -> Figures:
    return ExactTaskPerJob(work).run()


# --- Fleetcap


@pytest.mark.long
@pytest.mark.parametrize("make", [small, long])
def test_a_burst_takes_at_most_a_twentieth_longer_than_it_must(make: Callable[[int], Workload]) -> None:
    found = fleetcap(make(SEED))
    assert 1.0 <= found.ratio <= 1.05
    assert found.peak == found.cap == found.tasks


@pytest.mark.long
def test_a_day_keeps_the_cap_and_waits_little_longer_than_with_all_workers_always_there() -> None:
    work = diurnal(SEED, 5_000)
    found, least = fleetcap(work), unhindered_waits_s(work)
    assert found.ratio <= 1.05
    assert found.peak == found.cap
    assert found.wait_mean_s <= 1.05 * sum(least) / len(least) + 60.0


@pytest.mark.long
def test_a_worker_that_waits_for_work_is_billed_for_it() -> None:
    patient, hasty = fleetcap(bimodal(SEED, 50)), fleetcap(bimodal(SEED, 50), idle_exit_s=60.0)
    assert patient.tasks == hasty.tasks
    assert patient.billed_s == pytest.approx(hasty.billed_s + 540.0 * hasty.tasks, rel=0.05)


def test_the_rounds_that_are_skipped_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Workload("some", SEED, 5, (Work(0.0, 10.1),) * 60)
    skipping = fleetcap(work)
    monkeypatch.setattr(policy, "ASLEEP_MOST_S", 0.25)
    assert fleetcap(work).makespan_s == pytest.approx(skipping.makespan_s, abs=1.0)


def test_a_worker_hears_of_its_jobs_end_only_when_it_comes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job costs a round of the loop on the mean half in vain; without that the figures would flatter."""
    work = Workload("one after the other", SEED, 1, (Work(0.0, 10.1),) * 60)
    found = fleetcap(work)
    per_job_s = (found.makespan_s - found.bound_s) / len(work.jobs)
    monkeypatch.setattr(policy, "CALL_S", dict.fromkeys(policy.CALL_S, 0.0))
    without_calls = fleetcap(work)
    assert (without_calls.makespan_s - found.bound_s) / len(work.jobs) == pytest.approx(0.15, abs=0.05)
    assert per_job_s > 0.15


def test_what_a_reader_forgets_it_reads_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    remembering = fleetcap(bimodal(SEED, 20), idle_exit_s=60.0)
    monkeypatch.setattr(items, "_REMEMBERED", 5)
    assert fleetcap(bimodal(SEED, 20), idle_exit_s=60.0) == remembering


# --- the others


def test_who_counts_what_is_listed_passes_the_cap_in_a_burst() -> None:
    found = counting(long(SEED))
    assert found.peak > found.cap == 16
    assert found.tasks == 24


@pytest.mark.long
def test_who_counts_passes_the_cap_and_is_slower_all_the_same() -> None:
    """Tasks that are listed count twice for a minute, and who found no room asks again only after two."""
    found = counting(small(SEED))
    assert found.peak > found.cap
    assert found.makespan_s > exact(small(SEED)).makespan_s > 2 * fleetcap(small(SEED)).makespan_s


def test_who_counts_keeps_the_cap_where_a_list_is_true_and_one_process_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LIST_LAGS_S", (0.0, 0.0))
    monkeypatch.setattr(policy, "API_PROCESSES", 1)
    found = counting(small(SEED))
    assert found.peak <= found.cap


def test_a_task_per_job_begins_each_with_a_cold_start() -> None:
    found = exact(Workload("one", SEED, 1, (Work(5.0, 10.0),)))
    assert found.tasks == 1
    assert 40.0 <= found.wait_mean_s <= 41.0
    assert found.makespan_s == pytest.approx(found.wait_mean_s + 10.0)


# --- all of them


DURATIONS: Final = st.sampled_from((0.5, 5.0, 10.0, 60.0, 61.0, 600.0))
WORKS: Final = st.builds(
    lambda cap, jobs: Workload("any", SEED, cap, tuple(sorted(jobs))),
    st.integers(1, 5),
    st.lists(st.builds(Work, st.sampled_from((0.0, 3.0, 50.0, 400.0, 3_000.0)), DURATIONS), min_size=1, max_size=25),
)


def judged(found: Figures, work: Workload) -> None:
    """The bound is one for each policy; for who breaks the cap, that of as many workers as it had."""
    assert found.makespan_s >= lower_bound_s(work, max(found.peak, work.cap)) - 1e-6
    assert found.tasks >= found.peak > 0
    assert found.billed_s >= 60.0 * found.tasks
    assert found.job_seconds <= found.billed_s


@given(WORKS)
@settings(max_examples=100, deadline=None)
def test_no_task_per_job_is_faster_than_the_bound_and_the_exact_one_keeps_the_cap(work: Workload) -> None:
    judged(exact(work), work)
    judged(counting(work), work)
    assert exact(work).peak <= work.cap


@given(WORKS)
@settings(max_examples=15, deadline=None)
def test_fleetcap_is_not_faster_than_the_bound_and_keeps_the_cap(work: Workload) -> None:
    found = fleetcap(work, idle_exit_s=30.0)
    judged(found, work)
    assert found.peak <= work.cap


@pytest.mark.long
@pytest.mark.parametrize("name", POLICIES)
def test_a_seed_gives_the_same_figures_each_time_and_another_gives_others(name: str) -> None:
    once, again, other = (POLICIES[name](bimodal(seed, 30)) for seed in (SEED, SEED, SEED + 1))
    assert once == again
    assert once != other


# --- the bound


def best_s(work: Workload) -> float:
    """The least makespan, all schedules tried: on each worker who comes first goes first, which is best there."""
    return min(_makespan_s(work, shares) for shares in product(range(work.cap), repeat=len(work.jobs)))


def _makespan_s(work: Workload, shares: tuple[int, ...]) -> float:
    free_at = [work.jobs[0].at + work.cold_start_s] * work.cap
    for job, worker in zip(work.jobs, shares, strict=True):
        free_at[worker] = max(free_at[worker], job.at) + job.duration_s
    return max(free_at[worker] for worker in shares) - work.jobs[0].at


FEW: Final = st.builds(
    lambda cap, jobs: Workload("few", SEED, cap, tuple(sorted(jobs))),
    st.integers(1, 3),
    st.lists(st.builds(Work, st.integers(0, 120), st.integers(1, 100)), min_size=1, max_size=6),
)


@given(FEW)
@example(Workload("a late one", SEED, 2, (Work(0, 10), Work(300, 10))))
@settings(max_examples=200, deadline=None)
def test_the_bound_is_never_above_the_best_schedule(work: Workload) -> None:
    assert lower_bound_s(work, work.cap) <= best_s(work) + 1e-9


@pytest.mark.parametrize(
    "work",
    [
        Workload("each", SEED, 2, (Work(0.0, 5.0), Work(0.0, 500.0))),
        Workload("each, late", SEED, 2, (Work(7.0, 5.0), Work(500.0, 50.0))),
        Workload("area", SEED, 2, (Work(0.0, 10.0), Work(0.0, 20.0), Work(0.0, 30.0))),
        Workload("area from an arrival on", SEED, 1, (Work(0.0, 1.0), Work(300.0, 50.0), Work(310.0, 50.0))),
        Workload("pigeonhole", SEED, 2, (Work(0.0, 10.0),) * 5),
        Workload("pigeonhole of the longest", SEED, 2, (Work(0.0, 1.0), *((Work(0.0, 10.0),) * 3))),
    ],
    ids=lambda work: work.name,
)
def test_each_part_of_the_bound_reaches_the_best_schedule_somewhere(work: Workload) -> None:
    assert lower_bound_s(work, work.cap) == pytest.approx(best_s(work))


# --- the bill, the peak, the day, the command


def task(created_at: float, stopped_at: float) -> MemoryTask:
    return MemoryTask(0, "arn", "cluster", "", created_at, Status.STOPPED, stopped_at=stopped_at)


@pytest.mark.parametrize(("lived_s", "billed"), [(20.0, 60), (70.0, 60), (70.5, 61), (1_010.0, 1_000)])
def test_a_task_is_billed_from_the_pull_and_for_a_minute_at_least(lived_s: float, billed: int) -> None:
    assert billed_s(task(1_000.0, 1_000.0 + lived_s)) == billed


def test_the_peak_counts_who_lives_at_one_moment() -> None:
    assert peak([task(0.0, 10.0), task(5.0, 20.0), task(12.0, 30.0)]) == 2
    assert peak([task(0.0, 10.0), task(10.0, 20.0)]) == 2


def test_a_day_has_its_noon_and_its_night() -> None:
    work = diurnal(SEED, 20_000)
    assert work == diurnal(SEED, 20_000) != diurnal(SEED + 1, 20_000)
    assert len(work.jobs) == 20_000
    assert work.job_seconds / len(work.jobs) == pytest.approx(60.0, rel=0.05)
    hours = [0.0] * 24
    for job in work.jobs:
        hours[int(job.at / DAY_S * 24)] += job.duration_s / 3_600.0
    assert max(hours) == pytest.approx(1.25 * work.cap, rel=0.15)
    assert min(hours) == pytest.approx(work.cap / 7, rel=0.25)
    assert hours.index(max(hours)) in range(10, 15)


@pytest.mark.long
def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["--only", "long", "--json", str(tmp_path / "figures.json")])
    assert told.exit_code == 0
    document = json.loads((tmp_path / "figures.json").read_text())
    (entry,) = document["workloads"]
    figures = {each["policy"]: each for each in entry["policies"]}
    assert (document["seed"], entry["jobs"], entry["cap"], entry["lower_bound_s"]) == (1, 24, 16, 3_640.0)
    assert figures["Fleetcap, idle exit 600 s"]["ratio"] == fleetcap(long(1)).ratio
    assert figures["counting ListTasks"]["peak"] > 16
    for name in figures:
        assert name in told.output


@pytest.mark.long
def test_the_command_says_which_day_is_not_whole_and_what_it_does_not_know() -> None:
    told = CliRunner().invoke(app, ["--only", "day", "--day-jobs", "100"])
    assert "a day of 100 jobs (scaled down from 100,000), cap 1" in told.output
    assert CliRunner().invoke(app, ["--only", "week"]).exit_code == 2
