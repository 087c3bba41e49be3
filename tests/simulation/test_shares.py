"""Shares as they are measured: jobs of several tenants through the production intake and workers, claim by claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import pytest

from fleetcap import limits
from local.simulator.history import Result, run
from local.simulator.plan import Fault, JobPlan, MessagePlan, Plan, Trouble, TroubleAt

pytestmark = pytest.mark.long

CAP: Final = 8
SEEDS: Final = (1, 2, 3)
SETTLED: Final = 100
"""So many claims in, the order is that of shares. The first batches of an empty pool do not see each other in the
index, and each begins behind what the others have drawn: who came first is ahead by that much, once."""


@dataclass(frozen=True)
class Burst:
    """So many messages of a tenant, evenly from `at` seconds on."""

    tenant: str
    count: int
    at: float = 0.0
    over_s: float = 0.0
    duration_s: float = 5.0


def plan(seed: int, *bursts: Burst, **settings: Any) -> Plan:
    random = Random(seed)  # noqa: S311 - a plan is drawn from its seed
    messages = [
        MessagePlan(
            burst.at + burst.over_s * number / burst.count,
            0.0,
            JobPlan(f"{burst.tenant}/{burst.at:.0f}/{number}", burst.duration_s * random.uniform(0.5, 1.5)),
            tenant=burst.tenant,
        )
        for burst in bursts
        for number in range(burst.count)
    ]
    given: dict[str, Any] = {"cap": CAP, "fair_shares": True, **settings}
    return Plan(
        seed=seed,
        lanes=1,
        deciders=4,
        batch=10,
        messages=tuple(sorted(messages, key=lambda message: message.at)),
        idle_exit_s=60.0,
        supervise_s=1.0,
        **given,
    )


def told(seed: int, *bursts: Burst, **settings: Any) -> Result:
    """The history of these bursts, in which nothing broke, and no job cost more than one write more."""
    result = run(plan(seed, *bursts, **settings))
    assert result.violation is None
    return result


def draws(result: Result) -> int:
    """The writes to shares, those refused included; each is one unit."""
    return sum(count for what, count in result.seen.items() if what.startswith(("write draw", "refused draw")))


def tenants(result: Result) -> list[str]:
    """Whose job was taken, claim by claim."""
    return [key.partition("/")[0] for _, key in result.claims]


def together(claims: list[str]) -> list[str]:
    """The claims from when it is settled until one of the tenants had hardly a job left."""
    last = {tenant: number for number, tenant in enumerate(claims)}
    return claims[SETTLED : min(last.values()) + 1 - 2 * CAP]


def shares(claims: list[str]) -> Mapping[str, float]:
    return {tenant: count / len(claims) for tenant, count in Counter(claims).items()}


def between(result: Result, begin_s: float, end_s: float) -> list[str]:
    return [key.partition("/")[0] for at, key in result.claims if begin_s <= at < end_s]


@pytest.mark.parametrize("seed", SEEDS)
def test_two_tenants_share_a_saturated_pool_by_their_weights(seed: int) -> None:
    result = told(seed, Burst("a", 600), Burst("b", 600), tenant_weights={"a": 3})
    claims = together(tenants(result))
    assert len(claims) > 600
    assert shares(claims) == pytest.approx({"a": 0.75, "b": 0.25}, rel=0.05)
    assert draws(result) <= 0.3 * result.seen["write put"]


@pytest.mark.parametrize("seed", SEEDS)
def test_three_tenants_of_equal_weight_share_equally_whatever_they_bring(seed: int) -> None:
    claims = together(tenants(told(seed, Burst("a", 800), Burst("b", 200), Burst("c", 200))))
    assert len(claims) > 400
    assert shares(claims) == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, rel=0.05)


def places(result: Result, tenant: str, since_s: float) -> list[int]:
    """At which claims, counted from then on, the tenant's jobs begin."""
    return [place for place, whose in enumerate(between(result, since_s, float("inf")), start=1) if whose == tenant]


PASSED_BY: Final = 6 * limits.LOOK_SPREAD
"""A look begins at any of the first few, so that it passes by the very first with a chance of 3 in 4: one job of a
thousand is passed by so often."""

LATE_S: Final = 200.0
TAKEN_IN_S: Final = 1_000.0


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_jobs_do_not_wait_for_a_thousand(seed: int) -> None:
    """They come when 200 or so of those are served: each then waits for one of the others, not for the rest of them."""
    many, few = Burst("many", 1_000), Burst("few", 10, at=LATE_S)
    fair = places(told(seed, many, few), "few", LATE_S)
    assert len(fair) == 10
    assert fair[-1] <= 2 * 10 + CAP + PASSED_BY


def test_without_shares_they_do() -> None:
    many, few = Burst("many", 1_000), Burst("few", 10, at=LATE_S)
    assert places(told(SEEDS[0], many, few, fair_shares=False), "few", LATE_S)[0] > 500


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tenant_that_comes_late_gets_its_share_from_then_on_and_nothing_for_before(seed: int) -> None:
    """Where the queue has come to is seen late, and workers leave its first few in any order: that much is granted."""
    result = told(seed, Burst("a", 700), Burst("b", 300, at=LATE_S), tenant_weights={"a": 2})
    claims = between(result, LATE_S + 40.0, LATE_S + 300.0)
    assert len(claims) > 250
    assert shares(claims) == pytest.approx({"a": 2 / 3, "b": 1 / 3}, rel=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_went_before_saturation_does_not_count(seed: int) -> None:
    """One tenant had the pool to itself, then both together left it idle now and then; the index lags all along."""
    result = told(
        seed,
        Burst("a", 400),
        *(Burst(tenant, 150, at=500.0, over_s=400.0) for tenant in "ab"),
        *(Burst(tenant, 400, at=1_000.0, over_s=60.0) for tenant in "ab"),
        calm_at=5_000.0,
        lag_s=2.0,
    )
    claims = between(result, 1_020.0, 1_400.0)
    assert len(claims) > 400
    assert shares(claims) == pytest.approx({"a": 0.5, "b": 0.5}, rel=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_that_come_back_from_dead_workers_do_not_let_a_newcomer_go_first(seed: int) -> None:
    """A long job of the beginning is queued again at its old place just when another tenant comes."""
    result = told(
        seed,
        Burst("a", CAP, duration_s=400.0),
        Burst("a", 500, at=5.0, duration_s=8.0),
        Burst("b", 200, at=300.0, duration_s=8.0),
        cap=2 * CAP,
        troubles=tuple(TroubleAt(Trouble.DEATH, 290.0 + number, amount=4) for number in range(8)),
        calm_at=300.0,
    )
    claims = together(between(result, 300.0, float("inf")))
    assert result.seen["log requeue Requeue"] >= CAP // 2
    assert len(claims) > 200
    assert shares(claims) == pytest.approx({"a": 0.5, "b": 0.5}, rel=0.05)


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_ten_jobs_do_not_wait_for_ten_thousand_though_calls_fail(seed: int) -> None:
    """They come when all of those have been taken in: SQS keeps no order, and knows no tenants."""
    result = told(
        seed,
        Burst("many", 10_000, over_s=60.0, duration_s=20.0),
        Burst("few", 10, at=TAKEN_IN_S),
        cap=64,
        faults=frozenset(Fault) - {Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.CRASH_LATE},
        fault_rate=0.003,
        calm_at=1_600.0,
    )
    served = places(result, "few", TAKEN_IN_S)
    soon = [place for place in served if place <= 2 * 10 + 64 + PASSED_BY]
    assert len(served) == 10
    assert len(soon) > 5  # one of which a call failed comes again after six minutes, and is late by those
