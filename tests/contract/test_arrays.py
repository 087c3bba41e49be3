"""Arrays, from the message to the end of the last element: each guard, over the real deciders and table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from fleetcap import dependencies, jobs, keys, limits
from fleetcap.catalog import artifact_keys
from fleetcap.decide import arrays
from fleetcap.fleet import Fleet
from fleetcap.model import Holder, Job, JobStatus, Request
from handlers import tick
from handlers.intake import Intake
from handlers.publish import Publish
from tests.contract.test_dependencies import end, found, status, word
from tests.examples import a_job
from tests.fakes import FakeCache, FakeRechecks, HandClock, HandEcs, Lines
from tests.handlers.test_intake import FakeRejects, batch, message
from tests.handlers.test_publish import FakeBus, record


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache()


@pytest.fixture
def words() -> FakeRechecks:
    return FakeRechecks()


@pytest.fixture
def intake(fleet: Fleet, cache: FakeCache, words: FakeRechecks) -> Intake:
    """Whose parts hold two elements."""
    return Intake(fleet, cache, FakeRejects(), frozenset(), words, array_step=2)


def many(count: int, key: str = "a", **fields: object) -> str:
    return message(key, source="s3://input/{index}.bam", array=count, **fields)


def standing(fleet: Fleet, *names: str) -> list[JobStatus | None]:
    return [job.status if (job := fleet.table.job(name)) else None for name in names]


def test_a_small_array_is_its_elements_and_ends_with_the_last(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    intake.handle(batch(clock, many(2)))
    assert standing(fleet, "a", "a/0", "a/1", "a/2") == [JobStatus.WAITING, *[JobStatus.QUEUED] * 2, None]
    assert found(fleet, "a/1").request.source == "s3://input/1.bam"
    end(fleet, clock, "a/1")
    intake.handle(batch(clock, word("a")))
    assert status(fleet, "a") is JobStatus.WAITING
    end(fleet, clock, "a/0")
    intake.handle(batch(clock, word("a")))
    assert (status(fleet, "a"), found(fleet, "a").counts) == (JobStatus.COMPLETED, (2, 0, 0))


def test_a_large_array_has_parts_that_are_put_by_whoever_takes_their_word(
    intake: Intake, fleet: Fleet, clock: HandClock, words: FakeRechecks
) -> None:
    intake.handle(batch(clock, many(5)))
    assert words.heard == [["a/part-0", "a/part-1", "a/part-2"]]
    assert standing(fleet, "a/part-2", "a/4") == [JobStatus.WAITING, None]
    intake.handle(batch(clock, word(*words.heard[0])))
    assert standing(fleet, *(f"a/{index}" for index in range(5))) == [JobStatus.QUEUED] * 5
    for index in range(5):
        end(fleet, clock, f"a/{index}", JobStatus.FAILED if index == 3 else JobStatus.COMPLETED)
    intake.handle(batch(clock, word("a/part-0", "a/part-1", "a/part-2", "a")))
    assert (status(fleet, "a"), found(fleet, "a").counts) == (JobStatus.FAILED, (4, 1, 0))
    assert "a/part-1 is FAILED: array: 1 failed and 0 cancelled of 2; a/3 is FAILED: boom" in found(fleet, "a").error


def test_elements_get_workers_as_far_as_the_cap_goes(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    intake.handle(batch(clock, many(2)))
    assert len(tasks.calls) == fleet.pools["default"].cap == 2


def test_an_intake_that_dies_between_two_elements_is_made_good_by_the_redelivery(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = fleet.table.put
    with monkeypatch.context() as dying:
        dying.setattr(fleet.table, "put", lambda job, *rest: put(job, *rest) if job.key != "a/1" else 1 / 0)
        assert intake.handle(batch(clock, many(2)))["batchItemFailures"]
    end(fleet, clock, "a/0")
    tick.handle(fleet)
    assert standing(fleet, "a", "a/0", "a/1") == [JobStatus.WAITING, JobStatus.COMPLETED, None]
    before = found(fleet, "a/0")
    intake.handle(batch(clock, many(2)))
    assert (found(fleet, "a/0"), status(fleet, "a/1")) == (before, JobStatus.QUEUED)


def test_an_array_whose_intake_could_not_send_its_words_has_not_grown(
    intake: Intake, fleet: Fleet, clock: HandClock, words: FakeRechecks
) -> None:
    words.reachable = False
    assert intake.handle(batch(clock, many(5)))["batchItemFailures"]
    assert not found(fleet, "a").grown
    words.reachable = True
    intake.handle(batch(clock, many(5)))
    assert (len(words.heard), found(fleet, "a").grown) == (1, True)


def test_what_comes_again_once_the_array_has_grown_puts_nothing(
    intake: Intake, clock: HandClock, words: FakeRechecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, many(5)))
    monkeypatch.setattr(intake.fleet.table, "put", lambda *_: 1 / 0)
    assert intake.handle(batch(clock, many(5), word("a")))["batchItemFailures"] == []
    assert len(words.heard) == 1


def test_results_in_the_cache_are_recorded_and_an_array_of_them_ends_at_once(
    intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    cache.held |= {key for index in range(2) for key in artifact_keys(f"a/{index}", "bam")}
    intake.handle(batch(clock, many(2)))
    assert standing(fleet, "a", "a/0", "a/1") == [JobStatus.COMPLETED] * 3


def test_another_run_of_an_array_runs_what_failed_and_nothing_else(
    intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    intake.handle(batch(clock, many(2)))
    end(fleet, clock, "a/0")
    end(fleet, clock, "a/1", JobStatus.FAILED)
    intake.handle(batch(clock, word("a")))
    cache.held |= set(artifact_keys("a/0", "bam"))
    clock.sleep(1)
    intake.handle(batch(clock, many(2)))
    runs = [(job.run, job.status) for job in (found(fleet, key) for key in ("a", "a/0", "a/1"))]
    assert runs == [(2, JobStatus.WAITING), (1, JobStatus.COMPLETED), (2, JobStatus.QUEUED)]
    end(fleet, clock, "a/1")
    intake.handle(batch(clock, word("a")))
    assert found(fleet, "a").counts == (2, 0, 0)


def test_an_element_answers_its_array_although_its_clocks_are_behind(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an element that failed would be put anew with each redelivery."""
    with monkeypatch.context() as dying:
        dying.setattr(fleet.table, "grow", lambda _: 1 / 0)
        put = fleet.table.put

        def then_a_slow_clock(job: Job, *rest: Any) -> bool:
            done = put(job, *rest)
            clock.time -= 5 if job.key == "a" else 0
            return done

        dying.setattr(fleet.table, "put", then_a_slow_clock)
        intake.handle(batch(clock, many(2)))
    end(fleet, clock, "a/0", JobStatus.FAILED)
    intake.handle(batch(clock, many(2)))
    assert (found(fleet, "a/0").run, status(fleet, "a/0")) == (1, JobStatus.FAILED)


def test_a_ceiling_lets_the_elements_of_an_accepted_array_in(fleet: Fleet, intake: Intake, clock: HandClock) -> None:
    pool = a_pool_with_a_ceiling(fleet)
    Intake(pool, intake.cache, intake.rejects, frozenset(), intake.rechecks).handle(batch(clock, many(3)))
    assert standing(fleet, "a/0", "a/1", "a/2") == [JobStatus.QUEUED] * 3


def a_pool_with_a_ceiling(fleet: Fleet) -> Fleet:
    return fleet._replace(pools={"default": replace(fleet.pools["default"], active_jobs_max=1)})


def test_elements_wait_for_what_the_array_depends_on(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    intake.handle(batch(clock, many(2, depends_on=["p"])))
    assert standing(fleet, "a", "a/0", "a/1") == [JobStatus.WAITING] * 3
    assert fleet.table.dependents("p", 9) == ["a/0", "a/1"]


def test_a_job_may_depend_on_an_array(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    intake.handle(batch(clock, many(2), message("c", depends_on=["a"])))
    for key in ("a/0", "a/1"):
        end(fleet, clock, key)
    intake.handle(batch(clock, word("a", "c")))
    assert standing(fleet, "a", "c") == [JobStatus.COMPLETED, JobStatus.QUEUED]


# --- the tick


def test_the_tick_ends_an_array_of_which_nobody_was_told(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    intake.handle(batch(clock, many(2)))
    for key in ("a/0", "a/1"):
        end(fleet, clock, key)
    tick.handle(fleet)
    assert status(fleet, "a") is JobStatus.COMPLETED


def test_an_array_that_never_grows_is_given_up(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    intake.rechecks.reachable = False  # type: ignore[attr-defined]
    intake.handle(batch(clock, many(5)))
    clock.sleep(limits.PARENTS_LIMIT_S + 1)
    tick.handle(fleet)
    assert found(fleet, "a").error.startswith("array: not all of its 5 elements have ended within")


def test_an_array_that_runs_anew_is_not_judged_by_how_its_parts_ended_before(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, many(2)))
    for key in ("a/0", "a/1"):
        end(fleet, clock, key, JobStatus.FAILED)
    intake.handle(batch(clock, word("a")))
    clock.sleep(1)
    with monkeypatch.context() as dying:
        dying.setattr(Intake, "_grow", lambda *_: 1 / 0)
        assert intake.handle(batch(clock, many(2)))["batchItemFailures"]
    tick.handle(fleet)
    assert (found(fleet, "a").run, status(fleet, "a")) == (2, JobStatus.WAITING)


# --- cancel


def test_a_cancelled_array_has_its_parts_and_their_elements_cancelled(
    intake: Intake, fleet: Fleet, clock: HandClock, words: FakeRechecks
) -> None:
    intake.handle(batch(clock, many(5)))
    intake.handle(batch(clock, word(*words.heard[0])))
    jobs.cancel(fleet.table, clock, "a", "by hand")
    intake.handle(batch(clock, word("a")))
    assert standing(fleet, "a/part-0", "a/part-1", "a/part-2") == [JobStatus.CANCELLED] * 3
    intake.handle(batch(clock, word("a/part-0", "a/part-1", "a/part-2")))
    assert standing(fleet, *(f"a/{index}" for index in range(5))) == [JobStatus.CANCELLED] * 5
    assert found(fleet, "a/4").error == "cancelled: with the array a/part-2"


def test_an_array_that_is_cancelled_while_it_grows_leaves_no_element_behind(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = fleet.table.put

    def cancelled_meanwhile(job: Job, *rest: Any) -> bool:
        if job.key == "a/1":
            jobs.cancel(fleet.table, clock, "a", "by hand")
        return put(job, *rest)

    monkeypatch.setattr(fleet.table, "put", cancelled_meanwhile)
    intake.handle(batch(clock, many(2)))
    assert standing(fleet, "a", "a/0", "a/1") == [JobStatus.CANCELLED] * 3


# --- publish


def told(fleet: Fleet, lines: Lines, old: Job, new: Job) -> list[list[str]]:
    heard = FakeRechecks()
    publish = Publish(FakeBus(), FakeRejects(), fleet.table, heard, frozenset(), "s3://cache/", lines, fleet.clock)
    publish.handle({"Records": [record(1, keys.job_item(new, "op"), keys.job_item(old, "op"))]})
    return heard.heard


def test_the_end_of_an_element_is_told_to_what_it_is_a_part_of(fleet: Fleet, lines: Lines) -> None:
    element = dict(arrays.parts(a_job("a", request=a_request(2))))["a/1"]
    queued = a_job("a/1", request=element)
    assert told(fleet, lines, queued, a_job("a/1", JobStatus.FAILED, request=element)) == [["a"]]
    assert told(fleet, lines, a_job("b"), a_job("b", JobStatus.FAILED)) == []


def test_the_end_of_a_waiting_job_by_cancel_is_told_to_itself(fleet: Fleet, lines: Lines) -> None:
    waiting = a_job("a", JobStatus.WAITING, request=a_request(2))
    assert told(fleet, lines, waiting, a_job("a", JobStatus.CANCELLED, request=a_request(2))) == [["a"]]
    assert told(fleet, lines, waiting, a_job("a", JobStatus.FAILED, request=a_request(2))) == []


def a_request(count: int) -> Request:
    return Request("s3://bucket/{index}.bam", "bam", array=count, step=1)


def test_a_part_of_an_array_is_left_as_it_is_by_a_word_that_is_late(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    intake.handle(batch(clock, many(2)))
    for key in ("a/0", "a/1"):
        end(fleet, clock, key)
    intake.handle(batch(clock, word("a")))
    ended = found(fleet, "a")
    intake.handle(batch(clock, word("a"), word("a/0")))
    dependencies.settle(fleet, "a")
    assert found(fleet, "a") == ended


# --- parts that were cut short


def test_an_array_that_runs_anew_waits_for_the_elements_of_a_part_that_the_cancel_before_has_reached(
    intake: Intake, fleet: Fleet, clock: HandClock, words: FakeRechecks
) -> None:
    """Its first run is cancelled, a second one joins the parts that stand, and then the cancel comes to one of them."""
    intake.handle(batch(clock, many(3)))
    intake.handle(batch(clock, word(*words.heard[0])))
    run_of(fleet, clock, "a/0")
    jobs.cancel(fleet.table, clock, "a", "by hand")
    clock.sleep(1)
    intake.handle(batch(clock, many(3)))
    assert (found(fleet, "a").run, found(fleet, "a").grown) == (2, True)
    jobs.cancel(fleet.table, clock, "a/part-0", "with the array a")
    intake.handle(batch(clock, word("a/part-0")))
    end(fleet, clock, "a/2")
    intake.handle(batch(clock, word("a/part-1"), word("a")))
    assert standing(fleet, "a", "a/part-0", "a/part-1", "a/0", "a/1") == [
        JobStatus.WAITING, JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.RUNNING, JobStatus.CANCELLED,
    ]  # fmt: skip
    end(fleet, clock, "a/0")
    intake.handle(batch(clock, word("a/part-0")))
    assert (status(fleet, "a"), found(fleet, "a").counts) == (JobStatus.FAILED, (2, 0, 1))


def test_an_element_whose_part_was_cancelled_before_it_grew_counts_as_cancelled_and_the_next_run_puts_it(
    intake: Intake, fleet: Fleet, clock: HandClock, words: FakeRechecks
) -> None:
    """A forced run joins the parts that stand; what is left of the cancel before ends one that has put nothing yet."""
    intake.handle(batch(clock, many(3)))
    intake.handle(batch(clock, word("a/part-0")))
    jobs.cancel(fleet.table, clock, "a", "by hand")
    clock.sleep(1)
    intake.handle(batch(clock, many(3, force=True)))
    jobs.cancel(fleet.table, clock, "a/part-1", "with the array a")
    intake.handle(batch(clock, word("a/part-1")))
    assert (found(fleet, "a").run, found(fleet, "a").grown, status(fleet, "a")) == (2, True, JobStatus.WAITING)
    assert standing(fleet, "a/part-1", "a/2") == [JobStatus.CANCELLED, None]
    end(fleet, clock, "a/0")
    intake.handle(batch(clock, word("a/part-0"), word("a")))
    assert status(fleet, "a") is JobStatus.WAITING
    end(fleet, clock, "a/1")
    intake.handle(batch(clock, word("a/part-0"), word("a")))
    assert (status(fleet, "a"), found(fleet, "a").counts) == (JobStatus.FAILED, (2, 0, 1))
    assert found(fleet, "a").error.startswith("array: 0 failed and 1 cancelled of 3; a/part-1 is CANCELLED")

    intake.handle(batch(clock, word("a/part-1")))
    assert standing(fleet, "a/2") == [None]
    clock.sleep(1)
    words.heard.clear()
    intake.handle(batch(clock, many(3, force=True)))
    intake.handle(batch(clock, *(word(*keys) for keys in words.heard)))
    assert [(job.run, job.status) for job in map(partial(found, fleet), ("a", "a/0", "a/1", "a/2"))] == [
        (3, JobStatus.WAITING), (2, JobStatus.QUEUED), (2, JobStatus.QUEUED), (1, JobStatus.QUEUED),
    ]  # fmt: skip
    for index in range(3):
        end(fleet, clock, f"a/{index}")
    intake.handle(batch(clock, word("a/part-0", "a/part-1"), word("a")))
    assert (status(fleet, "a"), found(fleet, "a").counts) == (JobStatus.COMPLETED, (3, 0, 0))


def run_of(fleet: Fleet, clock: HandClock, key: str) -> None:
    slot = next(slot for slot in fleet.table.slots("default") if slot.held)
    assert fleet.table.claim(found(fleet, key), Holder(slot.lease), clock.now(), clock.unique())


def test_a_cancelled_array_tells_its_parts_once_whatever_word_comes_later(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, many(2)))
    run_of(fleet, clock, "a/0")
    jobs.cancel(fleet.table, clock, "a", "by hand")
    intake.handle(batch(clock, word("a")))
    assert (found(fleet, "a/0").cancel, status(fleet, "a/1")) == ("with the array a", JobStatus.CANCELLED)
    reads: list[str] = []
    read = fleet.table.jobs

    def noted(names: Sequence[str]) -> Mapping[str, Job]:
        reads.extend(names)
        return read(names)

    monkeypatch.setattr(fleet.table, "jobs", noted)
    intake.handle(batch(clock, word("a")))
    assert reads == ["a"]


def test_an_element_that_ran_anew_while_its_array_waited_counts_as_it_ended_at_last(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    intake.handle(batch(clock, many(2)))
    end(fleet, clock, "a/1", JobStatus.FAILED)
    intake.handle(batch(clock, word("a")))
    assert found(fleet, "a").passed.parts == 1
    clock.sleep(1)
    intake.handle(batch(clock, message("a/1")))
    end(fleet, clock, "a/0")
    intake.handle(batch(clock, word("a")))
    assert (found(fleet, "a/1").run, status(fleet, "a")) == (2, JobStatus.WAITING)
    end(fleet, clock, "a/1")
    intake.handle(batch(clock, word("a")))
    assert (status(fleet, "a"), found(fleet, "a").counts) == (JobStatus.COMPLETED, (2, 0, 0))


def test_what_is_put_of_an_array_after_its_cancel_was_told_is_ended_by_the_redelivery(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever grows it by a word puts one part more, and dies before he learns of the cancel."""
    dying = pytest.MonkeyPatch()
    dying.setattr(fleet.table, "grow", lambda *_: 1 / 0)
    put = fleet.table.put

    def cancelled_meanwhile(job: Job, *rest: Any) -> bool:
        if job.key == "a/1":
            jobs.cancel(fleet.table, clock, "a", "by hand")
            with dying.context() as alive:
                alive.undo()
                intake.handle(batch(clock, word("a")))  # another intake hears of it
        return put(job, *rest)

    monkeypatch.setattr(fleet.table, "put", cancelled_meanwhile)
    assert intake.handle(batch(clock, many(2)))["batchItemFailures"]
    dying.undo()
    assert standing(fleet, "a", "a/0", "a/1") == [JobStatus.CANCELLED, JobStatus.CANCELLED, JobStatus.QUEUED]
    monkeypatch.undo()
    intake.handle(batch(clock, word("a")))
    assert status(fleet, "a/1") is JobStatus.CANCELLED


def test_a_word_of_a_cancel_that_is_read_too_late_leaves_the_next_run_alone(
    intake: Intake, fleet: Fleet, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, many(2)))
    jobs.cancel(fleet.table, clock, "a", "by hand")
    read = fleet.table.jobs

    def meanwhile(names: Sequence[str]) -> Mapping[str, Job]:
        as_read = read(names)
        monkeypatch.undo()
        for key in ("a/0", "a/1"):
            jobs.cancel(fleet.table, clock, key, "with the array a")
        clock.sleep(1)
        intake.handle(batch(clock, many(2)))
        return as_read

    monkeypatch.setattr(fleet.table, "jobs", meanwhile)
    intake.handle(batch(clock, word("a")))
    assert found(fleet, "a").run == 2
    assert standing(fleet, "a/0", "a/1") == [JobStatus.QUEUED] * 2


def test_a_part_that_cannot_be_judged_keeps_nobody_else_of_its_word(
    intake: Intake, fleet: Fleet, clock: HandClock, words: FakeRechecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.handle(batch(clock, many(5)))
    put = fleet.table.put
    monkeypatch.setattr(fleet.table, "put", lambda job, *rest: put(job, *rest) if job.key != "a/0" else 1 / 0)
    assert intake.handle(batch(clock, word(*words.heard[0])))["batchItemFailures"]
    assert standing(fleet, "a/2", "a/4") == [JobStatus.QUEUED] * 2
