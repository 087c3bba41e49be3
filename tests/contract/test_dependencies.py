"""Jobs that wait for others, from the message to the queue: each guard, over the real deciders and table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fleetcap import dependencies, keys, limits
from fleetcap.catalog import artifact_keys
from fleetcap.fleet import Fleet
from fleetcap.jobs import Contended
from fleetcap.model import Job, JobStatus, Pool
from fleetcap.timebox import Timebox
from handlers import tick
from handlers.intake import Intake
from handlers.publish import Publish
from tests.fakes import FakeCache, FakeRechecks, HandClock, HandEcs, Lines
from tests.handlers.test_intake import FakeRejects, batch, message
from tests.handlers.test_publish import FakeBus, ended
from tests.handlers.test_task_state import queue


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache()


@pytest.fixture
def intake(fleet: Fleet, cache: FakeCache) -> Intake:
    return Intake(fleet, cache, FakeRejects(), frozenset(), FakeRechecks())


def child(key: str, *parents: str, **fields: object) -> str:
    return message(key, depends_on=parents, **fields)


def word(*dependents: str) -> str:
    return json.dumps({keys.RECHECK: dependents})


def found(fleet: Fleet, key: str) -> Job:
    job = fleet.table.job(key)
    assert job
    return job


def status(fleet: Fleet, key: str) -> JobStatus:
    return found(fleet, key).status


def end(fleet: Fleet, clock: HandClock, key: str, how: JobStatus = JobStatus.COMPLETED) -> None:
    """The job ends without anybody's hearing of it."""
    assert fleet.table.finish(found(fleet, key), how, clock.now(), "boom", (), clock.unique())


def launched_for(fleet: Fleet) -> list[str]:
    return [slot.for_job for slot in fleet.table.slots("default") if slot.held]


def test_a_job_waits_for_a_parent_and_gets_no_worker(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    assert intake.handle(batch(clock, message("p"), child("c", "p"))) == {"batchItemFailures": []}
    assert status(fleet, "c") is JobStatus.WAITING
    assert launched_for(fleet) == ["p"]
    assert fleet.table.dependents("p", 9) == ["c"]


def test_the_word_that_a_parent_ended_puts_the_job_into_the_queue_with_a_worker(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    queue(fleet, clock, "p")
    intake.handle(batch(clock, child("c", "p")))
    end(fleet, clock, "p")
    clock.sleep(100)
    assert tasks.calls == []
    intake.handle(batch(clock, word("c")))
    assert (status(fleet, "c"), found(fleet, "c").due_at) == (JobStatus.QUEUED, clock.now())
    assert launched_for(fleet) == ["c"]


def test_a_word_too_many_changes_nothing_and_launches_nothing(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    queue(fleet, clock, "p")
    intake.handle(batch(clock, child("c", "p")))
    assert intake.handle(batch(clock, word("c", "nobody"))) == {"batchItemFailures": []}
    assert status(fleet, "c") is JobStatus.WAITING
    end(fleet, clock, "p")
    for _ in range(3):
        intake.handle(batch(clock, word("c")))
    assert (status(fleet, "c"), len(tasks.calls)) == (JobStatus.QUEUED, 1)


def test_a_parent_that_had_completed_lets_the_job_pass_at_once(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    queue(fleet, clock, "p")
    end(fleet, clock, "p")
    intake.handle(batch(clock, child("c", "p")))
    assert status(fleet, "c") is JobStatus.QUEUED
    assert "c" in launched_for(fleet)


def test_a_parent_whose_result_is_in_the_cache_counts_once_it_is_sent(
    intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    cache.held |= set(artifact_keys("p", "bam"))
    intake.handle(batch(clock, child("c", "p"), message("p")))
    intake.handle(batch(clock, word("c")))
    assert status(fleet, "c") is JobStatus.QUEUED


def test_a_result_that_is_in_the_cache_answers_without_waiting(
    intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    cache.held |= set(artifact_keys("c", "bam"))
    intake.handle(batch(clock, child("c", "p")))
    assert status(fleet, "c") is JobStatus.COMPLETED


@pytest.mark.parametrize("how", [JobStatus.FAILED, JobStatus.CANCELLED])
@pytest.mark.parametrize(("choice", "after"), [("fail", JobStatus.FAILED), ("run", JobStatus.QUEUED)])
def test_a_parent_that_failed_fails_the_job_or_lets_it_run_as_asked(
    intake: Intake, fleet: Fleet, clock: HandClock, how: JobStatus, choice: str, after: JobStatus
) -> None:
    intake.handle(batch(clock, message("p"), child("c", "p", on_parent_failure=choice)))
    end(fleet, clock, "p", how)
    intake.handle(batch(clock, word("c")))
    assert status(fleet, "c") is after
    assert found(fleet, "c").error == (f"dependency: p is {how.value}: boom" if choice == "fail" else "")


def test_a_parent_that_ends_right_after_the_job_was_put_is_seen(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its edge stands before: whoever hears of the end finds it."""
    intake.handle(batch(clock, message("p")))
    put, edges = fleet.table.put, []

    def then_the_parent_ends(job: Job, replacing: Job | None, op: str) -> bool:
        edges.append(fleet.table.dependents("p", 9))
        done = put(job, replacing, op)
        end(fleet, clock, "p")
        return done

    monkeypatch.setattr(fleet.table, "put", then_the_parent_ends)
    intake.handle(batch(clock, child("c", "p")))
    assert (edges, status(fleet, "c")) == ([["c"]], JobStatus.QUEUED)


def test_a_redelivered_message_judges_the_job_that_its_intake_left_waiting(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(fleet, clock, "p")
    end(fleet, clock, "p")
    with monkeypatch.context() as dying:
        dying.setattr(dependencies, "settle", lambda *_: 1 / 0)
        assert intake.handle(batch(clock, child("c", "p")))["batchItemFailures"]
    assert status(fleet, "c") is JobStatus.WAITING
    intake.handle(batch(clock, child("c", "p")))
    assert status(fleet, "c") is JobStatus.QUEUED
    assert "c" in launched_for(fleet)


def test_a_job_that_was_unblocked_stays_so_whatever_its_parent_does(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    intake.handle(batch(clock, message("p"), child("c", "p")))
    end(fleet, clock, "p")
    intake.handle(batch(clock, word("c")))
    clock.sleep(1)
    intake.handle(batch(clock, message("p", force=True)))
    assert status(fleet, "p") is JobStatus.QUEUED
    end(fleet, clock, "p", JobStatus.FAILED)
    intake.handle(batch(clock, word("c"), child("c", "p")))
    assert status(fleet, "c") is JobStatus.QUEUED


def test_what_one_word_unblocked_gets_its_worker_although_the_next_cannot_be_judged(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(fleet, clock, "p")
    intake.handle(batch(clock, child("c", "p"), child("d", "p")))
    end(fleet, clock, "p")
    unblock = fleet.table.unblock
    monkeypatch.setattr(fleet.table, "unblock", lambda job, *rest: unblock(job, *rest) if job.key != "d" else 1 / 0)
    assert intake.handle(batch(clock, word("c", "d")))["batchItemFailures"] == [{"itemIdentifier": "m0"}]
    assert "c" in launched_for(fleet)


# --- circles


def test_of_two_jobs_that_wait_for_each_other_one_is_told_so_and_the_other_fails_with_it(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    intake.handle(batch(clock, child("a", "b"), child("b", "a")))
    assert status(fleet, "a") is JobStatus.WAITING
    assert found(fleet, "b").error == "dependency: a cycle, the job waits for itself: b → a → b"
    intake.handle(batch(clock, word("a")))
    assert found(fleet, "a").error.startswith("dependency: b is FAILED: dependency: a cycle")


def test_a_long_circle_is_seen_by_the_last_of_it(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    order = [f"k{number}" for number in range(12)]
    for here, parent in zip(order, [*order[1:], order[0]], strict=True):
        intake.handle(batch(clock, child(here, parent, "elsewhere")))
    assert [key for key in order if status(fleet, key) is JobStatus.FAILED] == ["k11"]


def test_only_so_many_jobs_are_read_in_search_of_a_circle(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANCESTORS_READ", 6)
    for number in range(12):
        intake.handle(batch(clock, child(f"k{number}", f"k{number + 1}")))
    reads: list[str] = []
    read = fleet.table.jobs
    monkeypatch.setattr(fleet.table, "jobs", lambda keys: reads.extend(keys) or read(keys))  # type: ignore[func-returns-value]
    dependencies.settle(fleet, "k0")
    assert reads == [f"k{number}" for number in range(1, 6)]


# --- publish


def test_an_end_of_which_intake_could_not_be_told_comes_again(fleet: Fleet, clock: HandClock, lines: Lines) -> None:
    fleet.table.lead(["p"], "c", clock.now())
    unheard = FakeRechecks(reachable=False)
    publish = Publish(FakeBus(), FakeRejects(), fleet.table, unheard, frozenset(), "s3://cache/", lines, clock)
    assert publish.handle({"Records": [ended("p", 1)]})["batchItemFailures"]
    unheard.reachable = True
    assert not publish.handle({"Records": [ended("p", 1)]})["batchItemFailures"]
    assert unheard.heard == [["c"]]


# --- the net


def test_the_tick_finds_what_nobody_was_told(intake: Intake, fleet: Fleet, clock: HandClock, lines: Lines) -> None:
    queue(fleet, clock, "p")
    intake.handle(batch(clock, child("c", "p"), child("d", "q")))
    end(fleet, clock, "p")
    tick.handle(fleet)
    assert (status(fleet, "c"), status(fleet, "d")) == (JobStatus.QUEUED, JobStatus.WAITING)
    assert launched_for(fleet) == ["c"]
    assert not lines.of("tick failed")


def test_the_tick_comes_to_those_who_stand_behind_many_that_wait_on(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever began with the first each minute would never get to the last."""
    monkeypatch.setattr(limits, "WAITING_PER_TICK", 3)
    intake.handle(batch(clock, *(child(f"c{number}", "never") for number in range(9))))
    clock.sleep(1)
    queue(fleet, clock, "p")
    intake.handle(batch(clock, child("last", "p")))
    end(fleet, clock, "p")
    for _ in range(2 * 4):
        tick.handle(fleet)
        clock.sleep(limits.TICK_PERIOD_S)
    assert status(fleet, "last") is JobStatus.QUEUED


def test_the_tick_gives_up_on_a_parent_that_does_not_come(fleet: Fleet, intake: Intake, clock: HandClock) -> None:
    intake.handle(batch(clock, child("c", "p")))
    tick.handle(fleet)
    assert status(fleet, "c") is JobStatus.WAITING
    clock.sleep(limits.PARENTS_LIMIT_S + 1)
    tick.handle(fleet)
    assert found(fleet, "c").error.startswith("dependency: p is not known, and the job has waited")


def test_a_pools_own_limit_counts(fleet: Fleet, cache: FakeCache, clock: HandClock) -> None:
    brief = fleet._replace(pools={"default": replace(fleet.pools["default"], parents_limit_s=60.0)})
    Intake(brief, cache, FakeRejects(), frozenset(), FakeRechecks()).handle(batch(clock, child("c", "p")))
    clock.sleep(61)
    tick.handle(brief)
    assert status(brief, "c") is JobStatus.FAILED


def test_one_job_that_cannot_be_judged_keeps_nobody_from_the_ticks_judgement(
    intake: Intake, fleet: Fleet, clock: HandClock, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, message("p"), *(child(key, "p") for key in "bcd")))
    end(fleet, clock, "p")
    unblock = fleet.table.unblock
    monkeypatch.setattr(fleet.table, "unblock", lambda job, *rest: unblock(job, *rest) if job.key != "c" else 1 / 0)
    tick.handle(fleet)
    assert [status(fleet, key) for key in "bd"] == [JobStatus.QUEUED] * 2
    assert [line["key"] for line in lines.of("not judged")] == ["c"]


def test_a_tick_judges_for_a_bounded_time(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, *(child(key, "p") for key in "bcdef")))
    read = fleet.table.jobs
    judged: list[Sequence[str]] = []

    def slowly(names: Sequence[str]) -> Mapping[str, Job]:
        clock.sleep(limits.WAITING_BUDGET_S / 2)
        judged.append(names)
        return read(names)

    monkeypatch.setattr(fleet.table, "jobs", slowly)
    dependencies.settle_some(fleet, fleet.pools["default"])
    assert [len(names) for names in judged] == [5, 1, 1], "all whose turn it is at once, and then the parents of some"


def test_the_tick_sees_a_circle_at_once_however_little_time_it_has_for_each(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read all that wait: whoever had to look for one after the other would never come round."""
    order = [f"k{number}" for number in range(12)]
    monkeypatch.setattr(dependencies, "_circle", lambda *_: [])  # who put them had no time to look
    for here, parent in zip(order, [*order[1:], order[0]], strict=True):
        intake.handle(batch(clock, child(here, parent)))
    monkeypatch.undo()
    read = fleet.table.jobs

    def slowly(names: Sequence[str]) -> Mapping[str, Job]:
        clock.sleep(limits.SLOW_CALL_S if names else 0.0)
        return read(names)

    monkeypatch.setattr(fleet.table, "jobs", slowly)
    dependencies.settle_some(fleet.within(Timebox.begin(clock).within(2 * limits.SLOW_CALL_S)), fleet.pools["default"])
    assert [key for key in order if status(fleet, key) is JobStatus.FAILED]


# --- others at the same time


def test_a_job_that_is_cancelled_while_it_is_judged_stays_cancelled(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, message("p"), child("c", "p")))
    end(fleet, clock, "p")
    unblock = fleet.table.unblock

    def too_late(*arguments: Any) -> Job | None:
        end(fleet, clock, "c", JobStatus.CANCELLED)
        return unblock(*arguments)

    monkeypatch.setattr(fleet.table, "unblock", too_late)
    assert dependencies.settle(fleet, "c").unblocked is False
    assert status(fleet, "c") is JobStatus.CANCELLED


def test_a_job_that_changes_each_time_is_left_to_the_next_who_looks(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, message("p"), child("c", "p")))
    end(fleet, clock, "p")
    monkeypatch.setattr(fleet.table, "unblock", lambda *_: None)
    with pytest.raises(Contended):
        dependencies.settle(fleet, "c")


def test_waiting_for_parents_is_not_waiting_for_capacity(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    patient = fleet._replace(pools={"default": replace(fleet.pools["default"], waiting_limit_s=60.0)})
    intake.handle(batch(clock, message("p"), child("c", "p")))
    clock.sleep(50)
    end(patient, clock, "p")
    clock.sleep(50)
    intake.handle(batch(clock, word("c")))
    tick.handle(patient)
    assert status(patient, "c") is JobStatus.QUEUED
    clock.sleep(61)
    tick.handle(patient)
    assert found(patient, "c").error.startswith("capacity: the job waited")


def test_where_tenants_share_a_job_draws_its_place_when_it_can_run_and_not_before(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = replace(fleet.pools["default"], fair_shares=True)
    fair = intake._replace(fleet=fleet._replace(pools={"default": shared}))
    draw, drawn = fleet.table.draw, []

    def watched(pool: Pool, priority: int, wanted: Mapping[str, int], now: float) -> dict[str, list[int]]:
        tags = draw(pool, priority, wanted, now)
        drawn.append(tags)
        return tags

    monkeypatch.setattr(fleet.table, "draw", watched)
    fair.handle(batch(clock, child("c", "p", tenant="a")))
    assert drawn == []
    fair.handle(batch(clock, message("p", tenant="b")))
    end(fleet, clock, "p")
    clock.sleep(100)
    fair.handle(batch(clock, word("c")))
    assert [list(tags) for tags in drawn] == [["b"], ["a"]]
    assert (status(fleet, "c"), found(fleet, "c").rank) == (
        JobStatus.QUEUED,
        keys.share_rank_of("c", 5, drawn[1]["a"][0]),
    )
