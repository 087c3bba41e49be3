"""Who stays although there is nothing to do, who is asked to leave, and what a reservation has come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fleetcap.decide import capacity, standby
from fleetcap.decide.capacity import View
from fleetcap.model import Mode, Pool, Queued, Reservation, Running, Slot
from tests.examples import NOW, a_pool, a_slot, empty_slots, launching, queued, ready, running_on


def reserved(workers: int, until: float = NOW + 60, made_at: float = NOW - 60) -> Reservation:
    return Reservation("default", f"r{made_at}", workers, until, made_at)


def view(
    slots: Sequence[Slot],
    pool: Pool | None = None,
    jobs: Sequence[Queued] = (),
    running: Sequence[Running] = (),
    reservations: Sequence[Reservation] = (),
    share: float = 1.0,
) -> View:
    return View(pool or a_pool(cap=len(slots)), slots, jobs, running, NOW, reservations, share)


def leases(seen: View, most: int = 100) -> list[str]:
    return [each.job_key for each in capacity.scale(seen, None, most)]


def told(seen: View) -> list[tuple[int, str]]:
    """Number of the slot, and what its worker is told."""
    words = {standby.Leave: "leave", True: "keep", False: "as others"}
    return [
        (mark.slot.id.number, words[standby.Leave] if isinstance(mark, standby.Leave) else words[mark.keep])
        for mark in standby.marks(seen)
    ]


MIN_2 = replace(a_pool(cap=4), min_workers=2)
WARM_2 = replace(a_pool(cap=4), warm_workers=2)


# --- how many are launched to stand by


def test_an_empty_pool_is_filled_up_to_its_min() -> None:
    assert leases(view(empty_slots(4), MIN_2)) == ["", ""]


def test_busy_and_coming_workers_count_towards_the_min() -> None:
    worker = ready(0)
    assert leases(view([worker, *empty_slots(3, 1)], MIN_2, running=[running_on(worker)])) == [""]
    assert leases(view([worker, launching(1), *empty_slots(2, 2)], MIN_2, running=[running_on(worker)])) == []


def test_a_worker_that_leaves_does_not_count() -> None:
    slots = [ready(0, leave=True), ready(1), *empty_slots(2, 2)]
    assert leases(view(slots, MIN_2)) == [""]


def test_warm_workers_are_idle_ones_besides_those_at_work() -> None:
    busy = ready(0)
    assert leases(view([busy, *empty_slots(3, 1)], WARM_2, running=[running_on(busy)])) == ["", ""]
    assert leases(view([busy, ready(1), *empty_slots(2, 2)], WARM_2, running=[running_on(busy)])) == [""]
    assert leases(view([busy, ready(1), launching(2), a_slot(3)], WARM_2, running=[running_on(busy)])) == []


def test_a_job_takes_a_warm_lane_and_the_next_warm_worker_is_launched() -> None:
    slots = [ready(0), ready(1), *empty_slots(2, 2)]
    assert leases(view(slots, WARM_2, jobs=[queued("a")])) == [""]
    mine = capacity.scale(view(slots, WARM_2, jobs=[queued("a")]), {"a"}, most=1)
    assert [each.job_key for each in mine] == [""]


def test_jobs_come_before_workers_that_stand_by() -> None:
    assert leases(view(empty_slots(2), replace(a_pool(cap=2), warm_workers=2), jobs=[queued("a")])) == ["a", ""]
    assert leases(view(empty_slots(4), WARM_2, jobs=[queued("a")]), most=1) == ["a"]


def test_reservations_add_up_within_the_cap_and_end_by_themselves() -> None:
    pool = a_pool(cap=4)
    assert capacity.floor(pool, [reserved(1), reserved(2)], NOW) == 3
    assert capacity.floor(pool, [reserved(3), reserved(3)], NOW) == 4
    assert capacity.floor(pool, [reserved(3, until=NOW), reserved(1)], NOW) == 1
    assert leases(view(empty_slots(4), reservations=[reserved(3)])) == ["", "", ""]


@pytest.mark.parametrize("mode", [Mode.PAUSED, Mode.DRAINING, Mode.STOPPED])
def test_nobody_is_launched_in_a_pool_that_is_not_open(mode: Mode) -> None:
    paused = replace(MIN_2, mode=mode, reason="by hand")
    assert capacity.full(paused, empty_slots(4), NOW) == capacity.Wait(f"pool {mode.value}: by hand")


def test_who_is_to_stand_by_is_missed_only_where_all_slots_are_seen() -> None:
    """One launched too many is told to leave; its end would be weighed by a part of the slots, and bring the next."""
    pool = replace(a_pool(cap=8), min_workers=6)
    seen = [ready(0), ready(1), *empty_slots(2, 2)]
    assert leases(view(seen, pool)) == ["", ""]
    assert leases(view(seen, pool, share=0.5)) == []


# --- who is told to stay


def test_as_many_idle_workers_stay_as_the_min_lacks_busy_ones() -> None:
    busy = ready(0)
    slots = [busy, ready(1, ready_at=NOW - 50), ready(2, ready_at=NOW - 5), a_slot(3)]
    assert told(view(slots, MIN_2, running=[running_on(busy)])) == [(2, "keep")]


def test_who_stays_already_goes_on_staying() -> None:
    slots = [ready(0, keep=True, ready_at=NOW - 99), ready(1), ready(2), a_slot(3)]
    assert told(view(slots, MIN_2)) == [(1, "keep")]
    assert told(view([ready(0, keep=True), ready(1, keep=True), *empty_slots(2, 2)], MIN_2)) == []


def test_launches_count_before_they_are_ready() -> None:
    assert told(view([ready(0), launching(1), launching(2), a_slot(3)], MIN_2)) == []


def test_warm_workers_stay_whoever_is_at_work() -> None:
    busy = [ready(0), ready(1)]
    slots = [*busy, ready(2), ready(3)]
    running = [running_on(slot, f"job/{slot.id.number}") for slot in busy]
    assert told(view(slots, WARM_2, running=running)) == [(2, "keep"), (3, "keep")]


def test_what_nobody_needs_any_more_leaves_once_nothing_is_queued() -> None:
    kept = [ready(0, keep=True), ready(1, keep=True), *empty_slots(2, 2)]
    assert told(view(kept, reservations=[reserved(2)])) == []
    assert told(view(kept, reservations=[reserved(2, until=NOW)])) == [(0, "leave"), (1, "leave")]
    assert told(view(kept, jobs=[queued("a")])) == [(0, "as others"), (1, "as others")]


def test_a_busy_worker_is_never_told_to_leave_as_spare() -> None:
    busy = ready(0, keep=True)
    assert told(view([busy, *empty_slots(3, 1)], running=[running_on(busy)])) == []


def test_warm_workers_come_and_go_without_haste() -> None:
    slots = [ready(number, keep=True) for number in range(3)]
    assert told(view([*slots, a_slot(3)], WARM_2)) == [(2, "as others")]


@pytest.mark.parametrize("mode", [Mode.DRAINING, Mode.STOPPED])
def test_everybody_leaves_a_pool_that_drains(mode: Mode) -> None:
    busy = ready(0)
    slots = [busy, launching(1), ready(2, leave=True), a_slot(3)]
    pool = replace(a_pool(), mode=mode)
    assert told(view(slots, pool, jobs=[queued("a")], running=[running_on(busy)])) == [(0, "leave"), (1, "leave")]


def test_a_pause_sends_nobody_away() -> None:
    assert told(view([ready(0), launching(1)], replace(a_pool(), mode=Mode.PAUSED))) == []


# --- a new image


def of_image(number: int, image: str, launched_ago_s: float, **fields: Any) -> Slot:
    return ready(number, image=image, launched_at=NOW - launched_ago_s, **fields)


def test_once_a_newer_image_has_started_the_older_ones_take_no_further_job() -> None:
    slots = [of_image(0, "old", 900), of_image(1, "new", 60), of_image(2, "old", 500, leave=True)]
    assert told(view(slots, replace(a_pool(), image="new"))) == [(0, "leave")]


def test_a_new_worker_whose_launch_nobody_recorded_is_not_taken_for_an_old_one() -> None:
    unrecorded = of_image(1, "new", 60, leased_at=NOW - 60)
    slots = [of_image(0, "old", 900), replace(unrecorded, launched_at=0.0)]
    assert told(view(slots, replace(a_pool(), image="new"))) == [(0, "leave")]


def test_a_decider_that_was_not_deployed_yet_does_not_take_the_newer_image_for_an_older_one() -> None:
    slots = [of_image(0, "old", 900), of_image(1, "new", 60)]
    assert told(view(slots, replace(a_pool(), image="old"))) == [(0, "leave")]


def test_where_no_slot_is_to_be_had_one_worker_makes_room_for_the_proof() -> None:
    slots = [of_image(0, "old", 900), of_image(1, "old", 500), of_image(2, "old", 700, idle_since=NOW - 9)]
    new = replace(a_pool(cap=3), image="new")
    assert told(view(slots, new)) == [(2, "leave")]
    assert told(view([*slots[:2], replace(slots[2], leave=True)], new)) == []
    assert told(view([*slots[:2], launching(2)], new)) == []


def test_while_launches_fail_nobody_makes_room() -> None:
    failed = a_slot(3, failed_at=NOW - 5, retry_at=NOW + 5, strikes=1)
    assert told(view([of_image(0, "old", 900), failed], replace(a_pool(), image="new"))) == []


def test_workers_of_one_image_stay() -> None:
    assert told(view([of_image(0, "new", 900), of_image(1, "new", 60)], replace(a_pool(), image="new"))) == []
    assert told(view([ready(0), ready(1)], replace(a_pool(), image="new"))) == []  # from before images had names


# --- phases of reservations


def test_ready_workers_go_to_the_oldest_reservation_first() -> None:
    made = [reserved(2, made_at=NOW - 9), reserved(2, made_at=NOW - 99), reserved(1, until=NOW - 1)]
    slots = [ready(0), ready(1), ready(2), launching(3), ready(4, leave=True)]
    assert standby.phases(made, slots, NOW) == {"assigned": 1, "pending": 1, "expired": 1}
    assert standby.phases(made, slots[:1], NOW) == {"pending": 2, "expired": 1}
    assert standby.phases([], slots, NOW) == {}
