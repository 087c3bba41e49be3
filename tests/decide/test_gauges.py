"""A pool's state in figures, and when it is no longer told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleetcap import limits
from fleetcap.decide.gauges import gauges, quiet
from fleetcap.model import Slot, SlotState
from tests.examples import NOW, a_pool, a_slot, empty_slots, launching, queued, ready

LONG_AGO = int(NOW) - limits.QUIET_S - 1


def test_slots_are_counted_by_state_and_headroom_is_what_may_be_leased() -> None:
    slots = [ready(0), launching(1), a_slot(2), a_slot(3), a_slot(4, retire=True), ready(5, retire=True)]
    found = gauges(a_pool(cap=4), slots, [], {}, NOW)
    assert [found[f"slots_{state.value.lower()}"] for state in SlotState] == [3, 1, 2]
    assert (found["cap"], found["cap_headroom"]) == (4, 2)


def test_a_wait_is_that_of_a_job_that_may_run_since_it_may() -> None:
    waiting = [queued("a", age_s=900), replace(queued("b", age_s=900), due_at=NOW - 20)]
    later = replace(queued("c", age_s=5_000), due_at=NOW + 20)
    found = gauges(a_pool(), empty_slots(4), [*waiting, later], {}, NOW)
    assert (found["queue_depth"], found["oldest_wait_s"]) == (3, 900)
    found = gauges(a_pool(), empty_slots(4), [waiting[1], later], {}, NOW)
    assert (found["queue_depth"], found["oldest_wait_s"]) == (2, 20)
    found = gauges(a_pool(), empty_slots(4), [later], {}, NOW)
    assert (found["queue_depth"], found["oldest_wait_s"]) == (1, 0)


def test_a_job_that_was_put_by_a_clock_ahead_of_this_one_has_not_waited_yet() -> None:
    found = gauges(a_pool(), empty_slots(4), [replace(queued("a", age_s=-0.5), due_at=NOW - 0.1)], {}, NOW)
    assert (found["oldest_wait_s"], found["unserved_wait_s"]) == (0.0, 0.0)


def test_a_wait_is_unserved_only_where_the_cap_has_room() -> None:
    old = [queued("a", age_s=900)]
    assert gauges(a_pool(cap=2), [ready(0), a_slot(1)], old, {}, NOW)["unserved_wait_s"] == 900
    assert gauges(a_pool(cap=2), [ready(0), ready(1)], old, {}, NOW)["unserved_wait_s"] == 0
    assert gauges(a_pool(cap=1), [ready(0), a_slot(1)], old, {}, NOW)["unserved_wait_s"] == 0


def test_a_pool_that_backs_off_says_after_how_many_failures() -> None:
    failed = a_slot(0, strikes=3, failed_at=NOW - 10, retry_at=NOW + 50)
    assert gauges(a_pool(), [failed, a_slot(1)], [], {}, NOW)["launch_strikes"] == 3
    assert gauges(a_pool(), [a_slot(0)], [], {}, NOW)["launch_strikes"] == 0


def test_reservations_are_told_by_phase() -> None:
    found = gauges(a_pool(), [], [], {"pending": 2, "expired": 1}, NOW)
    assert {name: value for name, value in found.items() if name.startswith("reservations")} == {
        "reservations_pending": 2,
        "reservations_expired": 1,
    }


def test_an_idle_pool_is_told_at_zero_for_a_while_and_then_no_more() -> None:
    assert not quiet([a_slot(generation=LONG_AGO + 1)], [], {}, NOW)
    assert quiet([a_slot(generation=LONG_AGO)], [], {}, NOW)
    assert quiet([], [], {"pending": 0}, NOW)


@pytest.mark.parametrize(
    "slot",
    [
        replace(ready(0), generation=LONG_AGO),
        replace(launching(0), generation=LONG_AGO),
        a_slot(generation=LONG_AGO, failed_at=NOW - limits.QUIET_S),
        a_slot(generation=LONG_AGO, ready_at=NOW - limits.QUIET_S),
    ],
    ids=["ready", "launching", "failed", "came"],
)
def test_a_pool_is_not_quiet_while_a_slot_is_held_or_has_changed(slot: Slot) -> None:
    assert not quiet([slot], [], {}, NOW)


def test_a_pool_with_work_or_a_reservation_is_not_quiet() -> None:
    slots = [a_slot(generation=LONG_AGO)]
    assert not quiet(slots, [queued("a")], {}, NOW)
    assert not quiet(slots, [], {"pending": 1}, NOW)
