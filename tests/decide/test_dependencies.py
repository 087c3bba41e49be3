"""What becomes of a job that waits for others: a table of their states, circles, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetcap import limits
from fleetcap.decide.dependencies import Fail, Unblock, Verdict, Wait, circle, in_a_circle, judge, turn
from fleetcap.model import Job, JobStatus, OnParentFailure, Request
from handlers import tick
from stacks.config import POOLS_MAX
from tests.examples import NOW, a_job, queued

LIMIT_S = 3_600.0
DONE, BROKE, GONE = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED
FAIL, RUN = OnParentFailure.FAIL, OnParentFailure.RUN
UNENDED = [status for status in JobStatus if not status.ended]


def waiting(*parents: str, choice: OnParentFailure = FAIL, age_s: float = 5.0) -> Job:
    request = Request("s3://bucket/a.bam", "bam", depends_on=parents, on_parent_failure=choice)
    return a_job("dependent", JobStatus.WAITING, age_s, request=request)


def verdict(choice: OnParentFailure, *states: JobStatus | None, age_s: float = 5.0) -> Verdict:
    """On a job whose parents `a`, `b`, … are in these states; None for one that is not known."""
    keys = [chr(ord("a") + number) for number in range(len(states))]
    known = {key: a_job(key, status, error="boom") for key, status in zip(keys, states, strict=True) if status}
    return judge(waiting(*keys, choice=choice, age_s=age_s), known, NOW, LIMIT_S)


@pytest.mark.parametrize("choice", OnParentFailure)
def test_a_job_whose_parents_all_completed_is_unblocked(choice: OnParentFailure) -> None:
    assert verdict(choice, DONE) == verdict(choice, DONE, DONE) == Unblock()


@pytest.mark.parametrize("choice", OnParentFailure)
@pytest.mark.parametrize("status", [None, *UNENDED])
def test_a_parent_that_has_not_ended_or_is_not_known_is_waited_for(
    choice: OnParentFailure, status: JobStatus | None
) -> None:
    assert verdict(choice, DONE, status, DONE, None) == Wait(("b", "d"))


@pytest.mark.parametrize("status", [BROKE, GONE])
def test_a_parent_that_failed_fails_the_job_at_once_and_is_named(status: JobStatus) -> None:
    assert verdict(FAIL, DONE, None, status) == Fail(f"dependency: c is {status.value}: boom")


@pytest.mark.parametrize("status", [BROKE, GONE])
def test_a_job_that_runs_all_the_same_waits_for_every_parents_end_and_no_more(status: JobStatus) -> None:
    assert verdict(RUN, status, JobStatus.RUNNING) == Wait(("b",))
    assert verdict(RUN, status, DONE) == verdict(RUN, status) == Unblock()


def test_a_job_waits_for_its_parents_only_so_long() -> None:
    assert verdict(FAIL, None, age_s=LIMIT_S) == Wait(("a",))
    assert verdict(FAIL, None, age_s=LIMIT_S + 1) == Fail(
        "dependency: a is not known, and the job has waited for as long as it may (parents_limit_s is 3600)"
    )
    ended = verdict(FAIL, JobStatus.RUNNING, None, age_s=LIMIT_S + 1)
    assert isinstance(ended, Fail)
    assert ended.error.startswith("dependency: a has not ended and 1 more, ")


def test_a_job_whose_parents_ended_in_the_last_moment_is_not_given_up() -> None:
    assert verdict(FAIL, DONE, age_s=2 * LIMIT_S) == Unblock()


# --- circles


@pytest.mark.parametrize(
    ("waits", "way"),
    [
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["a"]}, ["a", "b", "a"]),
        ({"a": ["x", "b"], "b": ["c"], "c": ["y", "a"], "x": []}, ["a", "b", "c", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, []),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"]}, []),
        ({}, []),
    ],
    ids=["itself", "two", "three", "above it", "a diamond", "nobody"],
)
def test_a_circle_is_the_way_from_a_job_back_to_itself(waits: dict[str, list[str]], way: list[str]) -> None:
    assert circle("a", waits) == way


@given(st.dictionaries(st.integers(0, 7), st.frozensets(st.integers(0, 7)), max_size=8))
def test_a_circle_is_found_exactly_where_there_is_one(graph: dict[int, frozenset[int]]) -> None:
    waits = {str(key): sorted(map(str, parents)) for key, parents in graph.items()}
    above = set(waits.get("0", ()))
    for _ in range(8):
        above |= {parent for key in above for parent in waits.get(key, ())}
    way = circle("0", waits)
    assert bool(way) == ("0" in above)
    assert all(parent in waits[key] for key, parent in pairwise(way))
    assert [way[0], way[-1]] == ["0", "0"] if way else True


def test_whoever_is_in_a_circle_fails_and_is_told_the_way() -> None:
    assert in_a_circle(["a", "b", "a"]) == Fail("dependency: a cycle, the job waits for itself: a → b → a")


# --- whose turn it is

MINUTES = st.integers(0, 10**8)
WAITING = [queued(f"job/{number}") for number in range(limits.WAITING_READ)]


def seen(count: int, minutes: Iterable[int], through: int = limits.WAITING_PER_TICK) -> int:
    """How many of so many that wait the ticks of these minutes look at, if each gets through so many."""
    turns = (turn(WAITING[:count], minute * limits.TICK_PERIOD_S + 7.0) for minute in minutes)
    return len({job.key for each in turns for job in each[:through]})


@given(st.integers(0, 300), MINUTES)
def test_a_tick_looks_at_all_that_wait_or_at_a_hundred_of_them(count: int, minute: int) -> None:
    looked_at = turn(WAITING[:count], minute * limits.TICK_PERIOD_S)
    assert len(looked_at) == len({job.key for job in looked_at}) == min(count, limits.WAITING_PER_TICK)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, limits.WAITING_READ), MINUTES, st.integers(1, limits.WAITING_PER_TICK))
@example(limits.WAITING_READ, 30_000_000, limits.WAITING_PER_TICK)
@example(600, 30_000_000, 30)
@example(101, 30_000_000, 1)
def test_every_waiting_job_has_its_turn_within_twice_as_many_minutes_as_it_takes(
    count: int, minute: int, through: int
) -> None:
    """However many of a hundred a tick gets through."""
    ticks = 2 * -(-count // through)
    assert seen(count, range(minute, minute + ticks), through) == count


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 400), MINUTES, st.integers(1, POOLS_MAX), st.integers(1, limits.WAITING_PER_TICK))
@example(6, 5, 1, 1)
@example(200, 5, 2, limits.WAITING_PER_TICK)
@example(400, 5, POOLS_MAX, 1)
def test_every_waiting_job_has_its_turn_where_ticks_come_to_it_rarely(
    count: int, minute: int, pools: int, through: int
) -> None:
    """A slow tick takes another pool first each time, and another step: this one's turn comes once in all of these."""
    rhythm = len(tick.CHORES) * pools
    ticks = rhythm * -(-count // through)
    assert seen(count, range(minute, minute + ticks * rhythm, rhythm), through) == count
