"""How long a job may wait: for capacity that does not come, and in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fleetcap import limits
from fleetcap.decide import deadlines
from fleetcap.model import Pool, Slot
from tests.examples import NOW, a_pool, a_slot, launching, queued, ready

HOUR_S = 3_600.0
POOL = replace(a_pool(cap=2), dispatch_deadline_s=2 * HOUR_S)


def failing(since_s: float, number: int = 0, ready_ago_s: float = 0.0) -> Slot:
    """A slot whose launches have failed for so long, the last one a minute ago."""
    ready_at = NOW - ready_ago_s if ready_ago_s else 0.0
    slot = a_slot(number, why="AWS has no Fargate capacity at this time", ready_at=ready_at)
    return replace(slot, strikes=9, failed_at=NOW - 60, retry_at=NOW + 100, starved_at=NOW - since_s)


def errors(pool: Pool, slots: Sequence[Slot], age_s: float) -> list[str]:
    """What is said to a job that has waited so long; nothing unless the queue would be read at all."""
    if not deadlines.looms(pool, slots, NOW):
        return []
    return [late.error for late in deadlines.overdue(pool, slots, [queued("a", age_s=age_s)], NOW)]


def test_a_job_whose_pool_has_room_and_gets_no_capacity_is_given_up_after_the_deadline() -> None:
    [error] = errors(POOL, [failing(3 * HOUR_S), a_slot(1)], 5 * HOUR_S)
    assert error.startswith("capacity: pool default has had room but started no worker for 3 h 0 min")
    assert "dispatch_deadline_s is 7200" in error
    assert error.endswith("AWS has no Fargate capacity at this time")


@pytest.mark.parametrize(
    ("slots", "age_s"),
    [
        ([failing(HOUR_S), a_slot(1)], 5 * HOUR_S),
        ([failing(3 * HOUR_S), a_slot(1)], HOUR_S),
        ([failing(3 * HOUR_S, ready_ago_s=HOUR_S), a_slot(1)], 5 * HOUR_S),
        ([ready(0), ready(1)], 5 * HOUR_S),
        ([a_slot(0), a_slot(1)], 5 * HOUR_S),
        ([a_slot(0), ready(1), launching(2, arn="", age_s=3 * HOUR_S, retire=True)], 5 * HOUR_S),
    ],
    ids=[
        "starved too short",
        "waited too short",
        "a worker came since",
        "cap full",
        "nothing failed",
        "only above the cap",
    ],
)
def test_other_waiting_does_not_count(slots: list[Slot], age_s: float) -> None:
    assert errors(POOL, slots, age_s) == []


def test_a_launch_that_has_had_no_answer_starves_the_pool_too() -> None:
    assert errors(POOL, [launching(0, arn="", age_s=3 * HOUR_S), a_slot(1)], 5 * HOUR_S)


def test_a_launch_without_an_answer_goes_on_counting_what_the_failures_before_it_began() -> None:
    unanswered = replace(launching(0, arn="", age_s=HOUR_S), starved_at=NOW - 3 * HOUR_S)
    assert errors(POOL, [unanswered, a_slot(1)], 5 * HOUR_S)
    assert errors(POOL, [unanswered, a_slot(1, ready_at=NOW - 1.5 * HOUR_S)], 5 * HOUR_S) == []


def test_a_deadline_of_zero_is_none() -> None:
    assert errors(replace(POOL, dispatch_deadline_s=0), [failing(90 * HOUR_S)], 99 * HOUR_S) == []


def test_a_waiting_limit_counts_all_waiting_since_the_job_was_due() -> None:
    pool = replace(POOL, waiting_limit_s=HOUR_S)
    [error] = errors(pool, [ready(0), ready(1)], 1.5 * HOUR_S)
    assert error == "capacity: the job waited 1 h 30 min in the queue of pool default (waiting_limit_s is 3600)"
    assert errors(pool, [ready(0), ready(1)], 0.5 * HOUR_S) == []
    again = queued("a", age_s=9 * HOUR_S, due_at=NOW - 60)
    assert deadlines.overdue(pool, [ready(0), ready(1)], [again], NOW) == []


def test_the_deadline_is_on_by_default_and_the_limit_is_off() -> None:
    assert (Pool("p", 1).dispatch_deadline_s, Pool("p", 1).waiting_limit_s) == (limits.DISPATCH_DEADLINE_S, 0.0)
