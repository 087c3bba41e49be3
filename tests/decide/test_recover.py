"""Slots in doubt and jobs of workers that are gone: never by the clock alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import limits
from fleetcap.decide import recover
from fleetcap.decide.recover import Inspect, Missing, Release, Resend, Retire, Stop
from fleetcap.model import Request, Running, Slot, SlotState, TaskStatus
from tests.examples import GENERATION, NOW, a_pool, a_slot, holder_of, launching, ready, running_on

quick = settings(derandomize=True, max_examples=150, deadline=None)
REQUEST = Request("s3://bucket/a.bam", "bam", max_attempts=3)


# --- dead holders


def test_a_holder_is_dead_once_its_slot_has_a_later_generation() -> None:
    slot = ready(0)
    released = replace(slot, generation=slot.generation + 1)
    assert recover.dead(holder_of(slot), {slot.id: released})


@pytest.mark.parametrize("state", SlotState)
def test_a_holder_of_the_slots_own_generation_lives_whatever_its_state(state: SlotState) -> None:
    slot = a_slot(0, state)
    assert not recover.dead(holder_of(slot), {slot.id: slot})


def test_a_slot_that_cannot_be_seen_proves_nothing() -> None:
    assert not recover.dead(holder_of(ready(0)), {})


def test_the_jobs_of_dead_holders_are_found_on_every_lane() -> None:
    alive, gone = ready(0), ready(1)
    running = [running_on(alive, "a"), running_on(gone, "b"), running_on(gone, "c", lane=1)]
    slots = [alive, replace(gone, generation=gone.generation + 1)]
    assert [job.key for job in recover.orphans(running, slots)] == ["b", "c"]


@quick
@given(silent_s=st.floats(0, 1e7), state=st.sampled_from(SlotState), held_s=st.floats(0, 1e7))
def test_time_alone_never_makes_a_holder_dead(silent_s: float, state: SlotState, held_s: float) -> None:
    slot = a_slot(0, state, seen_at=NOW - silent_s, leased_at=NOW - held_s, missing_since=NOW - silent_s)
    job = Running("a", "default", 1, 1, holder_of(slot))
    assert recover.orphans([job], [slot]) == []


@quick
@given(at=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_a_dead_holder_stays_dead(at: list[int]) -> None:
    slot = ready(0)
    later = [replace(slot, generation=GENERATION + step) for step in sorted(at)]
    deaths = [recover.dead(holder_of(slot), {slot.id: seen}) for seen in later]
    assert deaths == sorted(deaths)


# --- the cap


def test_slots_above_a_lowered_cap_are_marked_and_unmarked_when_it_rises() -> None:
    slots = [a_slot(0), a_slot(1, retire=True), ready(2), a_slot(3, retire=True)]
    assert recover.retirements(a_pool(cap=2), slots) == [
        Retire(slots[1].id, retire=False),
        Retire(slots[2].id, retire=True),
    ]


def test_slots_that_fit_the_cap_are_left_alone() -> None:
    assert recover.retirements(a_pool(cap=1), [ready(0), a_slot(1, retire=True)]) == []


# --- whom to look at


def test_an_empty_slot_is_never_in_doubt() -> None:
    assert recover.doubtful([a_slot(0, leased_at=1.0, seen_at=1.0, missing_since=1.0)], NOW) == []


def test_a_launch_without_a_task_is_left_to_its_sender_for_a_while_and_then_sent_again() -> None:
    recent = launching(0, arn="", age_s=limits.RESEND_AFTER_S)
    older = launching(1, arn="", age_s=limits.RESEND_AFTER_S + 1)
    assert recover.doubtful([recent, older], NOW) == [Resend(older)]


def test_a_launch_without_a_task_is_sent_again_however_old_it_is() -> None:
    ancient = launching(0, arn="", age_s=90_000)
    assert recover.doubtful([ancient], NOW) == [Resend(ancient)]


def test_a_worker_that_beats_is_left_alone() -> None:
    assert (
        recover.doubtful([ready(0, silent_s=limits.SILENT_S), launching(1, age_s=limits.INSPECT_LAUNCHING_S)], NOW)
        == []
    )


@pytest.mark.parametrize(
    "slot",
    [
        ready(0, silent_s=limits.SILENT_S + 1),
        launching(0, age_s=limits.INSPECT_LAUNCHING_S + 1),
        ready(0, missing_since=NOW - 5),
    ],
    ids=["silent", "late", "missing before"],
)
def test_a_worker_in_doubt_is_looked_at(slot: Slot) -> None:
    assert recover.doubtful([slot], NOW) == [Inspect(slot)]


# --- what ECS says


def test_a_stopped_task_frees_its_slot() -> None:
    assert recover.judge(ready(0), TaskStatus.STOPPED, NOW) == [
        Release(ready(0), "ECS says the task has stopped", failed=False)
    ]


def test_a_task_that_never_beat_counts_as_a_failed_launch() -> None:
    (verdict,) = recover.judge(launching(0), TaskStatus.STOPPED, NOW)
    assert isinstance(verdict, Release)
    assert verdict.failed


@pytest.mark.parametrize("slot", [launching(0, leave=True), launching(0, retire=True)], ids=["leaves", "retires"])
def test_a_launch_that_was_told_to_leave_has_not_failed_when_it_ends(slot: Slot) -> None:
    (verdict,) = recover.judge(slot, TaskStatus.STOPPED, NOW)
    assert isinstance(verdict, Release)
    assert not verdict.failed


def test_a_missing_task_is_noted_once() -> None:
    slot = ready(0, silent_s=500)
    assert recover.judge(slot, TaskStatus.MISSING, NOW) == [Missing(slot, NOW)]
    assert recover.judge(replace(slot, missing_since=NOW - 60), TaskStatus.MISSING, NOW) == []


def test_missing_is_proof_only_after_65_minutes() -> None:
    almost = ready(0, silent_s=5_000, missing_since=NOW - limits.MISSING_IS_PROOF_S)
    longer = replace(almost, missing_since=NOW - limits.MISSING_IS_PROOF_S - 1)
    assert recover.judge(almost, TaskStatus.MISSING, NOW) == []
    (verdict,) = recover.judge(longer, TaskStatus.MISSING, NOW)
    assert isinstance(verdict, Release)


def test_a_beat_since_the_note_starts_the_65_minutes_anew() -> None:
    slot = ready(0, silent_s=500, missing_since=NOW - 9_000)
    assert recover.judge(slot, TaskStatus.MISSING, NOW) == [Missing(slot, NOW)]


def test_a_task_seen_again_starts_the_65_minutes_anew() -> None:
    slot = ready(0, missing_since=NOW - 3_000)
    assert recover.judge(slot, TaskStatus.ALIVE, NOW) == [Missing(slot, 0.0)]


def test_a_silent_worker_is_stopped_and_keeps_its_slot() -> None:
    slot = ready(0, silent_s=limits.SILENT_S + 1)
    assert recover.judge(slot, TaskStatus.ALIVE, NOW) == [Stop(slot, "no beat from this worker")]


def test_a_silent_worker_that_was_missing_is_seen_again_and_stopped() -> None:
    slot = ready(0, silent_s=limits.SILENT_S + 1, missing_since=NOW - 60)
    assert recover.judge(slot, TaskStatus.ALIVE, NOW) == [
        Missing(slot, 0.0),
        Stop(slot, "no beat from this worker"),
    ]


def test_a_launch_has_five_minutes_to_its_first_beat() -> None:
    in_time, overdue = launching(0, age_s=limits.SILENT_LAUNCHING_S), launching(0, age_s=limits.SILENT_LAUNCHING_S + 1)
    assert recover.judge(in_time, TaskStatus.ALIVE, NOW) == []
    assert recover.judge(overdue, TaskStatus.ALIVE, NOW) == [Stop(overdue, "no beat from this worker")]


def test_the_five_minutes_begin_when_the_task_is_known() -> None:
    resolved_late = launching(0, age_s=9_000, launched_at=NOW - 10)
    assert not recover.silent(resolved_late, NOW)


def test_several_workers_that_fall_silent_at_once_are_given_some_time() -> None:
    silence = limits.SILENT_S + 1
    assert recover.all_silent([ready(0, silent_s=silence), ready(1, silent_s=silence + 20), a_slot(2)], NOW)
    assert not recover.all_silent([ready(0, silent_s=silence), ready(1, silent_s=1)], NOW)
    assert not recover.all_silent([ready(0, silent_s=2 * limits.SILENT_S)] * 2, NOW)
    assert not recover.all_silent([ready(0, silent_s=limits.SILENT_S)] * 2, NOW)


def test_one_silent_worker_alone_is_given_none() -> None:
    assert not recover.all_silent([ready(0, silent_s=limits.SILENT_S + 1), launching(1)], NOW)


held_slots = st.builds(
    a_slot,
    state=st.sampled_from([SlotState.LAUNCHING, SlotState.READY]),
    arn=st.just("arn"),
    launched_at=st.floats(0, NOW),
    seen_at=st.floats(0, NOW),
    missing_since=st.just(0.0) | st.floats(1, NOW),
)


@quick
@given(slot=held_slots)
def test_a_task_that_ecs_calls_alive_never_loses_its_slot(slot: Slot) -> None:
    verdicts = recover.judge(slot, TaskStatus.ALIVE, NOW)
    assert not any(isinstance(verdict, Release) for verdict in verdicts)


@quick
@given(slot=held_slots)
def test_a_missing_task_is_never_stopped_and_loses_its_slot_only_after_65_noted_minutes(slot: Slot) -> None:
    verdicts = recover.judge(slot, TaskStatus.MISSING, NOW)
    released = any(isinstance(verdict, Release) for verdict in verdicts)
    assert not any(isinstance(verdict, Stop) for verdict in verdicts)
    noted = slot.missing_since > 0 and slot.seen_at <= slot.missing_since
    assert released == (noted and NOW - slot.missing_since > limits.MISSING_IS_PROOF_S)
