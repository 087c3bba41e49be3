"""How many slots a decider asks for: enough for the jobs that no lane serves, and never more than there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import limits
from fleetcap.decide import capacity
from fleetcap.decide.capacity import LeaseFor, View
from fleetcap.model import Pool, Queued, Running, Slot, SlotId, SlotState
from tests.examples import NOW, a_pool, a_slot, burst, empty_slots, launching, queued, ready, running_on

quick = settings(derandomize=True, max_examples=150, deadline=None)


def leases(
    slots: Sequence[Slot],
    jobs: Sequence[Queued],
    running: Sequence[Running] = (),
    pool: Pool | None = None,
    wanted: set[str] | None = None,
    most: int = 100,
) -> list[str]:
    """The jobs that get a lease."""
    view = View(pool or a_pool(cap=len(slots)), slots, jobs, running, NOW)
    return [lease.job_key for lease in capacity.scale(view, wanted, most)]


# --- which slots may be leased


def test_only_empty_slots_below_the_cap_that_do_not_retire_are_candidates() -> None:
    slots = [a_slot(0), launching(1), ready(2), a_slot(3, retire=True), a_slot(4), a_slot(5)]
    assert [slot.id.number for slot in capacity.candidates(a_pool(cap=5), slots)] == [0, 4]


def test_a_cap_of_zero_has_no_candidates() -> None:
    assert capacity.candidates(a_pool(cap=0), empty_slots(3)) == []


# --- how many leases


def test_a_burst_on_an_empty_pool_gets_a_lease_a_job() -> None:
    jobs = burst(3)
    assert leases(empty_slots(8), jobs) == [job.key for job in jobs]


def test_24_jobs_at_a_cap_of_16_get_16_leases() -> None:
    assert len(leases(empty_slots(16), burst(24))) == 16


def test_the_best_ranks_are_served_first() -> None:
    jobs = [queued("late", age_s=1), queued("early", age_s=9), queued("urgent", age_s=1, priority=9)]
    assert leases(empty_slots(2), jobs) == ["urgent", "early"]


def test_a_free_ready_lane_spares_one_lease() -> None:
    assert len(leases([ready(0), *empty_slots(3, first=1)], burst(3))) == 2


def test_a_busy_worker_spares_none() -> None:
    worker = ready(0)
    assert len(leases([worker, *empty_slots(3, first=1)], burst(3), [running_on(worker)])) == 3


def test_a_job_that_an_older_generation_of_the_slot_ran_does_not_make_the_worker_busy() -> None:
    worker = ready(0)
    before = replace(worker, generation=worker.generation - 1)
    assert leases([worker, *empty_slots(2, first=1)], burst(1), [running_on(before)]) == []


@pytest.mark.parametrize("flag", ["leave", "retire"])
@pytest.mark.parametrize("worker", [ready(0), launching(0)], ids=["ready", "launching"])
def test_a_worker_that_leaves_spares_no_lease(worker: Slot, flag: str) -> None:
    leaving = replace(worker, **{flag: True})  # type: ignore[arg-type]
    assert len(leases([leaving, *empty_slots(3, first=1)], burst(2))) == 2


def test_no_more_leases_than_asked_for() -> None:
    assert len(leases(empty_slots(8), burst(5), most=1)) == 1


def test_one_decision_takes_a_bounded_number_of_leases() -> None:
    count = limits.LEASES_PER_DECISION + 5
    assert len(leases(empty_slots(count), burst(count), most=count)) == limits.LEASES_PER_DECISION


def test_only_the_wanted_jobs_get_a_lease_and_the_ones_ahead_of_them_still_use_the_lanes() -> None:
    ahead, mine = burst(2)
    assert leases([ready(0), *empty_slots(3, first=1)], [ahead, mine], wanted={mine.key}) == [mine.key]
    assert leases([ready(0), *empty_slots(3, first=1)], [ahead, mine], wanted={ahead.key}) == []


# --- launches in flight


@pytest.mark.parametrize("lane", [ready(0), launching(0, for_job="gone", age_s=limits.FRESH_LEASE_S + 1)])
def test_a_job_that_a_later_one_passes_by_gets_the_lease_that_the_later_one_needed_not(lane: Slot) -> None:
    jobs = [queued("first", age_s=9), queued("second", age_s=8), queued("urgent", age_s=1, priority=9)]
    slots = [lane, *empty_slots(3, first=1)]
    assert leases(slots, jobs[:2], wanted={"second"}) == ["second"]
    assert leases(slots, jobs, wanted={"urgent"}) == ["first"]
    assert leases(slots, jobs[1:], wanted={"urgent"}) == ["second"]


def test_a_job_that_takes_its_own_launch_or_whose_turn_it_was_passes_nobody_by() -> None:
    own = [launching(0, for_job="urgent"), *empty_slots(3, first=1)]
    jobs = [queued("first", age_s=9), queued("urgent", age_s=1, priority=9)]
    assert leases(own, jobs, wanted={"urgent"}) == []
    in_turn = [queued("first", age_s=9), queued("second", age_s=8)]
    assert leases([ready(0), *empty_slots(3, first=1)], in_turn, wanted={"first"}) == []


def test_a_launch_begun_for_a_job_is_not_begun_again() -> None:
    (job,) = burst(1)
    assert leases([launching(0, for_job=job.key, age_s=200), *empty_slots(2, first=1)], [job]) == []


def test_a_launch_begun_for_another_waiting_job_serves_nobody_else() -> None:
    one, other = burst(2)
    assert leases([launching(0, for_job=other.key, age_s=200), *empty_slots(2, first=1)], [one, other]) == [one.key]


def test_a_fresh_launch_counts_for_its_job_although_the_index_does_not_show_it() -> None:
    (job,) = burst(1)
    fresh = launching(0, for_job="unseen", age_s=limits.FRESH_LEASE_S - 1)
    assert leases([fresh, *empty_slots(2, first=1)], [job]) == [job.key]


def test_an_older_launch_for_a_job_that_is_gone_serves_the_next() -> None:
    (job,) = burst(1)
    stale = launching(0, for_job="gone", age_s=limits.FRESH_LEASE_S)
    assert leases([stale, *empty_slots(2, first=1)], [job]) == []


def test_a_launch_whose_job_another_worker_took_serves_the_next() -> None:
    (job,) = burst(1)
    worker = ready(1)
    slots = [launching(0, for_job="taken"), worker, *empty_slots(2, first=2)]
    assert leases(slots, [job], [running_on(worker, "taken")]) == []


def test_two_launches_for_one_job_serve_it_and_one_more() -> None:
    one, other, third = burst(3)
    slots = [launching(0, for_job=one.key), launching(1, for_job=one.key), *empty_slots(3, first=2)]
    assert leases(slots, [one, other, third]) == [third.key]


@quick
@given(jobs=st.integers(1, 12), cap=st.integers(1, 8), visible=st.lists(st.booleans(), min_size=12, max_size=12))
def test_deciders_of_one_burst_do_not_count_on_each_others_launches(jobs: int, cap: int, visible: list[bool]) -> None:
    arrivals = burst(jobs)
    slots = empty_slots(cap)
    shown: list[Queued] = []
    for job, in_index in zip(arrivals, visible, strict=False):
        for key in leases(slots, [*shown, job], wanted={job.key}, most=1):
            number = capacity.candidates(a_pool(cap), slots)[0].id.number
            slots[number] = launching(number, for_job=key)
        shown += [job] if in_index else []
    assert sum(slot.held for slot in slots) == min(jobs, cap)


def test_a_launch_that_should_have_beaten_long_ago_serves_nobody() -> None:
    (job,) = burst(1)
    in_time = launching(0, age_s=limits.SILENT_LAUNCHING_S)
    overdue = launching(0, age_s=limits.SILENT_LAUNCHING_S + 1)
    assert leases([in_time, *empty_slots(2, first=1)], [job]) == []
    assert leases([overdue, *empty_slots(2, first=1)], [job]) == [job.key]


def test_a_launch_that_took_another_job_before_its_beat_was_read_serves_nobody() -> None:
    mine, second, third = burst(3)
    slot = launching(0, for_job=mine.key)
    taken = leases([slot, *empty_slots(4, first=1)], [mine, second, third], [running_on(slot, "another")])
    assert taken == [second.key, third.key]


def test_it_takes_nothing_from_the_lanes_of_other_launches_either() -> None:
    mine, second, third = burst(3)
    slots = [launching(0, for_job=mine.key), launching(1), *empty_slots(4, first=2)]
    assert leases(slots, [mine, second, third], [running_on(slots[0], "another")]) == [third.key]


# --- several lanes a worker


def test_workers_of_two_lanes_need_half_the_leases() -> None:
    jobs = burst(5)
    taken = leases(empty_slots(5), jobs, pool=a_pool(cap=5, jobs_per_worker=2))
    assert taken == [jobs[0].key, jobs[2].key, jobs[4].key]


def test_the_second_lane_of_a_launch_serves_a_second_job() -> None:
    one, other, third = burst(3)
    slots = [launching(0, for_job=one.key), *empty_slots(3, first=1)]
    assert leases(slots, [one, other, third], pool=a_pool(cap=4, jobs_per_worker=2)) == [third.key]


def test_a_worker_with_one_of_two_lanes_busy_serves_one_job() -> None:
    worker = ready(0)
    taken = leases([worker, *empty_slots(3, first=1)], burst(2), [running_on(worker)], a_pool(4, jobs_per_worker=2))
    assert len(taken) == 1


# --- lanes that do not serve


def test_a_job_that_waits_beside_free_ready_lanes_for_two_minutes_gets_a_launch() -> None:
    slots = [ready(0), ready(1), *empty_slots(2, first=2)]
    assert leases(slots, [queued("recent", age_s=limits.UNSERVED_S - 1)]) == []
    assert leases(slots, [queued("unserved", age_s=limits.UNSERVED_S)]) == ["unserved"]


def test_the_two_minutes_begin_when_a_retry_is_due() -> None:
    slots = [ready(0), *empty_slots(2, first=1)]
    assert leases(slots, [queued("retried", age_s=900, due_at=NOW - 1)]) == []


def test_an_unserved_job_is_content_with_a_launch_that_comes() -> None:
    slots = [ready(0), launching(1), *empty_slots(2, first=2)]
    assert leases(slots, [queued("unserved", age_s=900)]) == []


# --- never


def slots_in_any_state() -> st.SearchStrategy[list[Slot]]:
    jobs = st.sampled_from(["", "unseen", *(job.key for job in burst(3))])
    one = st.builds(
        a_slot,
        state=st.sampled_from(SlotState),
        for_job=jobs,
        leased_at=st.sampled_from([NOW - 1, NOW - 500]),
        leave=st.booleans(),
        retire=st.booleans(),
    )
    return st.lists(one, max_size=12).map(
        lambda slots: [replace(slot, id=SlotId("default", number)) for number, slot in enumerate(slots)]
    )


@quick
@given(slots=slots_in_any_state(), jobs=st.integers(0, 20), cap=st.integers(0, 12), lanes=st.integers(1, 3))
def test_never_more_leases_than_slots_that_can_be_leased(slots: list[Slot], jobs: int, cap: int, lanes: int) -> None:
    pool = a_pool(cap, lanes)
    taken = leases(slots, burst(jobs), pool=pool)
    leasable = [s for s in slots if s.state is SlotState.EMPTY and not s.retire and s.id.number < cap]
    assert len(taken) <= min(len(leasable), jobs)
    assert len(set(taken)) == len(taken)


@quick
@given(slots=slots_in_any_state(), jobs=st.integers(0, 20), workers=st.integers(0, 4), lanes=st.integers(1, 3))
def test_never_a_lease_for_a_job_that_a_free_ready_lane_awaits(
    slots: list[Slot], jobs: int, workers: int, lanes: int
) -> None:
    idle = [ready(len(slots) + number) for number in range(workers)]
    pool = a_pool(len(slots) + workers, lanes)
    served = {job.key for job in burst(jobs)[: workers * lanes]}
    assert served.isdisjoint(leases([*slots, *idle], burst(jobs), pool=pool))


@quick
@given(jobs=st.integers(0, 20), free=st.integers(0, 20), busy=st.integers(0, 5), lanes=st.integers(1, 3))
def test_without_a_free_lane_every_job_that_fits_gets_one(jobs: int, free: int, busy: int, lanes: int) -> None:
    workers = [ready(number) for number in range(busy)]
    running = [running_on(worker, f"busy-{worker.id}-{lane}", lane) for worker in workers for lane in range(lanes)]
    slots = [*workers, *empty_slots(free, first=busy)]
    needed = -(-jobs // lanes)
    assert len(leases(slots, burst(jobs), running, a_pool(len(slots), lanes))) == min(needed, free)


# --- full, and backing off


def test_a_full_pool_says_how_full_it_is() -> None:
    slots = [ready(0), launching(1), a_slot(2, retire=True)]
    wait = capacity.full(a_pool(cap=2), slots, NOW)
    assert wait == capacity.Wait("cap full (2 of 2 slots in use)")


def test_a_pool_with_room_and_no_failures_need_not_wait() -> None:
    assert capacity.full(a_pool(), empty_slots(4), NOW) is None


def failed(number: int, ago_s: float, retry_in_s: float, strikes: int) -> Slot:
    return a_slot(number, failed_at=NOW - ago_s, retry_at=NOW + retry_in_s, strikes=strikes)


def pause_of(slots: Sequence[Slot], now: float) -> tuple[int, float]:
    """How many launches failed in a row, and when the next is due."""
    pause = capacity.backoff(slots, now)
    return pause.strikes, pause.until


def test_after_failed_launches_the_pool_waits_for_the_latest_retry() -> None:
    last = replace(failed(0, ago_s=5, retry_in_s=20, strikes=2), why="no image")
    slots = [last, replace(failed(1, ago_s=9, retry_in_s=3, strikes=1), why="another"), a_slot(2)]
    wait = capacity.full(a_pool(), slots, NOW)
    assert wait
    assert wait.until == NOW + 20
    assert wait.reason == "2 launches in a row failed: no image"


def test_when_the_pause_is_over_one_launch_finds_out_whether_capacity_is_back() -> None:
    slots = [failed(0, ago_s=30, retry_in_s=-1, strikes=2), *empty_slots(3, first=1)]
    assert capacity.full(a_pool(), slots, NOW) is None
    assert len(leases(slots, burst(4))) == 1


def test_failures_are_forgotten_after_a_while() -> None:
    remembered = failed(0, ago_s=limits.STRIKES_REMEMBERED_S - 1, retry_in_s=-1, strikes=9)
    forgotten = failed(0, ago_s=limits.STRIKES_REMEMBERED_S, retry_in_s=-1, strikes=9)
    assert capacity.backoff([remembered], NOW).strikes == 9
    assert pause_of([forgotten], NOW) == (0, 0.0)


def test_while_a_launch_has_no_answer_the_next_is_tried_only_minutes_later() -> None:
    slots = [launching(0, arn="", age_s=limits.RESEND_AFTER_S + 1), *empty_slots(3, first=1)]
    wait = capacity.full(a_pool(), slots, NOW)
    assert wait
    assert wait.until == slots[0].leased_at + limits.BACKOFF_MAX_S
    later = [replace(slots[0], leased_at=NOW - limits.BACKOFF_MAX_S), *slots[1:]]
    assert capacity.full(a_pool(), later, NOW) is None
    assert len(leases(later, burst(5))) == 1


@pytest.mark.parametrize(
    "slot",
    [launching(0, arn="", age_s=limits.RESEND_AFTER_S), launching(0, age_s=200), a_slot(0, leased_at=1.0)],
    ids=["just sent", "answered", "empty"],
)
def test_a_launch_that_is_recent_or_answered_holds_nobody_up(slot: Slot) -> None:
    assert not capacity.unresolved(slot, NOW)
    assert capacity.full(a_pool(), [slot, *empty_slots(3, first=1)], NOW) is None


def test_a_worker_that_became_ready_since_ends_the_backoff() -> None:
    slots = [failed(0, ago_s=30, retry_in_s=100, strikes=9), ready(1, ready_at=NOW - 29), *empty_slots(2, first=2)]
    assert pause_of(slots, NOW) == (0, 0.0)
    assert capacity.full(a_pool(), slots, NOW) is None
    assert len(leases(slots, burst(4))) == 3


def test_a_worker_that_was_ready_before_the_failure_does_not() -> None:
    slots = [failed(0, ago_s=30, retry_in_s=100, strikes=9), ready(1, ready_at=NOW - 31)]
    assert pause_of(slots, NOW) == (9, NOW + 100)


def test_the_pause_doubles_with_every_strike_up_to_a_bound() -> None:
    pauses = [capacity.retry_at(strikes, NOW, jitter=0.5) - NOW for strikes in range(8)]
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]


@quick
@given(strikes=st.integers(0, 10**6), jitter=st.floats(0, 1))
def test_the_pause_is_jittered_by_a_quarter_and_never_leaves_its_bounds(strikes: int, jitter: float) -> None:
    pause = capacity.retry_at(strikes, 0.0, jitter)
    assert 0.75 * limits.BACKOFF_FIRST_S <= pause <= 1.25 * limits.BACKOFF_MAX_S
    assert capacity.retry_at(strikes, 0.0, 1.0) == pytest.approx(capacity.retry_at(strikes, 0.0, 0.0) / 0.75 * 1.25)


def test_a_lease_names_the_job_it_is_for() -> None:
    (job,) = burst(1)
    view = View(a_pool(), empty_slots(4), [job], [], NOW)
    assert capacity.scale(view, None, 1) == [LeaseFor(job.key)]
