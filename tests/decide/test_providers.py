"""From which capacity provider a launch comes, and what becomes of it where one of them has nothing to give."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

from fleetcap import limits
from fleetcap.decide import budget, capacity, launch
from fleetcap.decide.capacity import ON_DEMAND, SPOT, Providers
from fleetcap.model import Pool, Slot, Use
from tests.examples import NOW, a_pool, a_slot, empty_slots, launching, queued, ready

SPOT_ONLY = replace(a_pool(cap=8), providers={SPOT: 1}, spot_fallback=False)
SPOT_FIRST = replace(a_pool(cap=8), providers={SPOT: 1})
BOTH = replace(a_pool(cap=8), providers={SPOT: 3, ON_DEMAND: 1})


def failed(number: int, provider: str, retry_in_s: float = 30) -> Slot:
    return a_slot(number, provider=provider, failed_at=NOW - 5, retry_at=NOW + retry_in_s, strikes=2, why="no capacity")


def drawn(pool: Pool, slots: list[Slot], count: int) -> Counter[str | None]:
    providers = Providers(pool, slots, NOW)
    return Counter(providers.take() for _ in range(count))


def test_without_a_word_all_is_on_demand() -> None:
    assert drawn(a_pool(), empty_slots(4), 4) == {ON_DEMAND: 4}


def test_launches_keep_to_the_weights_and_to_what_lives_already() -> None:
    assert drawn(BOTH, empty_slots(8), 8) == {SPOT: 6, ON_DEMAND: 2}
    living = [ready(number, provider=SPOT) for number in range(6)]
    assert drawn(BOTH, [*living, *empty_slots(2, 6)], 2) == {ON_DEMAND: 2}


def test_where_spot_is_refused_launches_go_on_demand_at_once() -> None:
    slots = [failed(0, SPOT), *empty_slots(7, 1)]
    assert drawn(SPOT_FIRST, slots, 3) == {ON_DEMAND: 3}
    assert capacity.full(SPOT_FIRST, slots, NOW) is None
    assert capacity.pool_backoff(SPOT_FIRST, slots, NOW).strikes == 0


def test_once_its_pause_is_over_one_launch_tries_spot_again() -> None:
    slots = [failed(0, SPOT, retry_in_s=-1), *empty_slots(7, 1)]
    assert drawn(SPOT_FIRST, slots, 4) == {SPOT: 1, ON_DEMAND: 3}
    assert drawn(SPOT_ONLY, slots, 4) == {SPOT: 1, None: 3}


def test_without_fallback_the_pool_waits_and_says_until_when() -> None:
    slots = [failed(0, SPOT), *empty_slots(7, 1)]
    wait = capacity.full(SPOT_ONLY, slots, NOW)
    assert wait
    assert wait.until == NOW + 30
    assert wait.reason == "2 launches in a row failed: no capacity"
    assert capacity.scale(capacity.View(SPOT_ONLY, slots, [queued("a")], [], NOW), None, 9) == []


def test_where_both_fail_the_pool_waits_for_the_first_to_be_tried_again() -> None:
    slots = [failed(0, SPOT, 50), failed(1, ON_DEMAND, 20), *empty_slots(6, 2)]
    wait = capacity.full(BOTH, slots, NOW)
    assert wait
    assert wait.until == NOW + 20


def test_a_worker_of_one_provider_does_not_speak_for_the_other() -> None:
    came = ready(2, provider=ON_DEMAND, ready_at=NOW - 1)
    assert Providers(BOTH, [failed(0, SPOT), came], NOW).backoffs[SPOT].strikes == 2
    assert Providers(BOTH, [failed(0, SPOT), replace(came, provider=SPOT)], NOW).backoffs[SPOT].strikes == 0


def test_a_slot_remembers_whose_failure_and_whose_worker_it_saw_when_the_other_provider_has_it() -> None:
    refused = failed(0, SPOT)
    assert (refused.failed_with, replace(refused, ready_at=NOW).failed_with) == (SPOT, "")
    again = launching(0, provider=ON_DEMAND, failed_at=NOW - 5, retry_at=NOW + 9, strikes=0, failed_by=SPOT)
    backoffs = Providers(BOTH, [again], NOW).backoffs
    assert (backoffs[SPOT].strikes, backoffs[ON_DEMAND].strikes) == (1, 0)
    came = a_slot(1, provider=SPOT, ready_at=NOW - 9)
    assert (came.ready_with, replace(came, failed_at=NOW).ready_with) == (SPOT, "")
    assert launching(1, provider=SPOT, ready_at=NOW - 9, ready_by=ON_DEMAND).ready_with == ON_DEMAND


def test_a_refusal_within_a_decision_turns_the_rest_to_the_other_provider() -> None:
    providers = Providers(SPOT_FIRST, empty_slots(8), NOW)
    assert providers.take() == SPOT
    providers.refused(SPOT)
    assert [providers.take(), providers.take()] == [ON_DEMAND, ON_DEMAND]


def test_a_launch_names_the_strategy_or_the_launch_type_and_never_both() -> None:
    lease = a_slot().lease
    spot = json.loads(launch.request(SPOT_FIRST, lease, "LEASE", SPOT))
    assert spot["capacityProviderStrategy"] == [{"capacityProvider": SPOT, "weight": 1}]
    assert "launchType" not in spot
    on_demand = json.loads(launch.request(SPOT_FIRST, lease, "LEASE", ON_DEMAND))
    assert (on_demand["launchType"], "capacityProviderStrategy" in on_demand) == ("FARGATE", False)


# --- the budget of a day

NOON = NOW - NOW % limits.DAY_S + limits.DAY_S / 2
TODAY = int(NOON // limits.DAY_S)


def test_a_slot_carries_what_it_was_held_for_today() -> None:
    began = launching(0, launched_at=NOON - 600)
    assert budget.use(began, NOON) == Use(TODAY, 600)
    assert budget.use(replace(began, used_day=TODAY, used_s=50.0), NOON) == Use(TODAY, 650)
    assert budget.use(replace(began, used_day=TODAY - 1, used_s=50.0), NOON) == Use(TODAY, 600)
    assert budget.use(replace(began, launched_at=NOON - limits.DAY_S), NOON) == Use(TODAY, limits.DAY_S / 2)
    assert budget.use(a_slot(0, used_day=TODAY, used_s=50.0), NOON) == Use(TODAY, 50)


def test_at_its_budget_a_pool_launches_nothing_until_tomorrow_and_says_so() -> None:
    pool = replace(a_pool(), budget_task_hours=2.0)
    spent = [a_slot(0, used_day=TODAY, used_s=3_600.0), launching(1, launched_at=NOON - 3_600), a_slot(2)]
    wait = capacity.full(pool, spent, NOON)
    assert wait == capacity.Wait("budget spent (2.0 of 2 task-hours a day)", (TODAY + 1) * limits.DAY_S)
    assert capacity.full(replace(pool, budget_task_hours=2.1), spent, NOON) is None
    assert capacity.full(pool, spent, (TODAY + 1) * limits.DAY_S + 60) is None
    assert capacity.full(pool, spent[1:], NOON, share=0.5) == wait
