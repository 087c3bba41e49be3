"""Tags: whoever has jobs waiting is served by its weight, whatever went before and however late a view is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import limits
from fleetcap.decide import shares
from fleetcap.decide.shares import Head, virtual_time
from fleetcap.model import Pool
from tests.examples import NOW, a_pool

STEP: Final = limits.TAGS_PER_MS
CLOCK: Final = int(NOW * 1_000) * STEP
thorough = settings(derandomize=True, max_examples=400, deadline=None)

VirtualTime = Callable[[Head | None, int, float], int]


# --- how far the queue has come


def test_where_nobody_ever_drew_tags_begin_at_the_clock() -> None:
    assert virtual_time(None, 0, NOW) == CLOCK


def test_a_tenant_that_was_away_begins_with_the_next_in_the_queue() -> None:
    assert virtual_time(Head(CLOCK + 5, True), CLOCK + 900, NOW + 60) == CLOCK + 5


def test_where_nobody_waits_all_begin_where_the_furthest_has_come_to() -> None:
    assert virtual_time(None, CLOCK + 900, NOW + 60) == CLOCK + 900


def test_jobs_by_age_from_before_there_were_shares_go_before_all_tags() -> None:
    backlog = Head(CLOCK - 60_000 * STEP, False)
    assert virtual_time(backlog, 0, NOW) == CLOCK
    assert virtual_time(backlog, CLOCK + 900, NOW + 60) == CLOCK + 900


def test_jobs_by_age_from_while_shares_were_off_go_before_the_tags_that_follow() -> None:
    """Tags that were drawn before lie behind the backlog's age, and so does a clock that is slow."""
    backlog = Head(CLOCK, False)
    assert virtual_time(backlog, CLOCK - 900, NOW + 60) == CLOCK + 60_000 * STEP
    assert virtual_time(backlog, CLOCK - 900, NOW - 60) == CLOCK


@pytest.mark.parametrize("weight", range(1, limits.TENANT_WEIGHT_MAX + 1))
def test_a_step_is_as_small_as_the_tenant_is_heavy(weight: int) -> None:
    pool = replace(a_pool(), tenant_weights={"a": weight})
    assert shares.step(pool, "a") == pytest.approx(shares.step(pool, "b") / weight, rel=0.001)


# --- a queue of one server, seen late


@dataclass
class Model:
    """Tenants put jobs, a server takes the lowest tag; whoever puts sees the head as it was `lag` steps before."""

    pool: Pool
    lag: int
    rule: VirtualTime = virtual_time
    now: float = NOW
    queue: list[tuple[int, str]] = field(default_factory=list)
    drawn: dict[str, int] = field(default_factory=dict)
    heads: list[Head | None] = field(default_factory=lambda: [None])
    served: Counter[str] = field(default_factory=Counter)

    def put(self, tenant: str, count: int) -> None:
        head = self.heads[max(-1 - self.lag, -len(self.heads))]
        at = self.rule(head, max(self.drawn.values(), default=0), self.now)
        step = shares.step(self.pool, tenant)
        first = max(at, self.drawn.get(tenant, 0))
        for number in range(count):
            heappush(self.queue, (first + number * step, tenant))
        self.drawn[tenant] = first + count * step
        self._step()

    def serve(self) -> None:
        if self.queue:
            self.served[heappop(self.queue)[1]] += 1
        self._step()

    def wait(self) -> None:
        """An hour goes by."""
        self.now += 3_600
        self._step()

    def _step(self) -> None:
        self.heads.append(Head(self.queue[0][0], True) if self.queue else None)

    @property
    def waiting(self) -> set[str]:
        return {tenant for _, tenant in self.queue}

    def by_weight(self, tenant: str) -> float:
        return self.served[tenant] / self.pool.tenant_weights.get(tenant, 1)


WEIGHTS: Final = {"a": 1, "b": 3, "c": 100}
MOST: Final = 8
puts = st.tuples(st.sampled_from(sorted(WEIGHTS)), st.integers(1, MOST))
steps = st.lists(st.one_of(puts, st.just("serve"), st.just("serve"), st.just("wait")), max_size=150)


def worst(model: Model, course: Sequence[tuple[str, int] | str], one: str, other: str) -> float:
    """How far the services of two tenants, by weight, ever part while both have jobs waiting without a break."""
    most = 0.0
    since: list[float] = []
    for step in course:
        match step:
            case (str(tenant), int(count)):
                model.put(tenant, count)
            case "serve":
                model.serve()
            case _:
                model.wait()
        if {one, other} <= model.waiting:
            since.append(model.by_weight(one) - model.by_weight(other))
            most = max(most, max(since) - min(since))
        else:
            since.clear()
    return most


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("a", "c"), ("b", "c")])
@thorough
@given(course=steps)
def test_tenants_that_wait_together_are_served_by_weight_to_within_a_job_of_each(
    one: str, other: str, course: list[tuple[str, int] | str]
) -> None:
    pool = replace(a_pool(), tenant_weights=WEIGHTS)
    assert worst(Model(pool, lag=0), course, one, other) <= 1.001 * (1 / WEIGHTS[one] + 1 / WEIGHTS[other])


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("a", "c"), ("b", "c")])
@thorough
@given(course=steps, lag=st.integers(1, 4))
def test_a_late_view_costs_no_more_than_what_was_put_and_served_meanwhile(
    one: str, other: str, course: list[tuple[str, int] | str], lag: int
) -> None:
    pool = replace(a_pool(), tenant_weights=WEIGHTS)
    late = 2 * lag * MOST
    assert worst(Model(pool, lag), course, one, other) <= late + 1.001 * (1 / WEIGHTS[one] + 1 / WEIGHTS[other])


def by_the_clock(head: Head | None, _latest: int, now: float) -> int:
    """What looks simpler: an empty queue begins at the clock."""
    return head.tag if head else int(now * 1_000) * STEP


def ahead(rule: VirtualTime) -> int:
    """How many jobs of `b` are served before the next of `a`, both waiting, after a queue was seen to be empty that
    held a job of `b` by then."""
    model = Model(a_pool(), lag=1, rule=rule)
    model.put("b", 1)
    model.wait()
    model.serve()
    model.put("b", 1)  # the head that is seen here was served just now
    model.put("a", 1)  # and this one sees that it was, and not yet what was put since
    for _ in range(50):
        model.put("b", 10)
    model.serve()
    before = model.served["b"]
    while not model.served["a"]:
        model.serve()
    return model.served["b"] - before


def test_a_queue_that_was_only_thought_to_be_empty_starves_nobody() -> None:
    assert ahead(virtual_time) <= 2
    assert ahead(by_the_clock) == 500


def test_who_had_the_pool_to_itself_pays_nothing_for_it() -> None:
    model = Model(a_pool(), lag=0)
    model.put("a", 1_000)
    for _ in range(1_000):
        model.serve()
    model.put("b", 20)
    model.put("a", 20)
    model.served.clear()
    for _ in range(20):
        model.serve()
    assert abs(model.served["a"] - model.served["b"]) <= 1


def test_who_was_away_saved_nothing_up() -> None:
    model = Model(a_pool(), lag=0)
    model.put("b", 1)
    model.put("a", 1_000)
    for _ in range(900):
        model.serve()
    model.put("b", 100)
    model.served.clear()
    for _ in range(40):
        model.serve()
    assert abs(model.served["a"] - model.served["b"]) <= 2
