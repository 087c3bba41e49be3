"""Every live task of a cluster is ours and in its place, beyond the cap, or a stranger; ECS's lag makes no breach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fleetcap import limits
from fleetcap.decide import sweep
from fleetcap.decide.sweep import Breach, Foreign
from fleetcap.model import SeenTask, Slot, SlotState, TaskStatus
from tests.examples import NOW, a_slot, launching, ready

POOLS = {"default"}
LATER = int(NOW) - 3_600


def a_task(slot: Slot, arn: str = "") -> SeenTask:
    """A live task under the lease that the slot shows."""
    return SeenTask(arn or f"arn:task/{slot.id.number}", TaskStatus.ALIVE, str(slot.lease), "family:worker")


def judged(live: Sequence[SeenTask], *slots: Slot, asked_at: float = NOW) -> list[Foreign | Breach]:
    return list(sweep.judge(live, {slot.id: slot for slot in slots}, POOLS, asked_at))


def breached(found: list[Foreign | Breach]) -> list[tuple[str, str]]:
    assert all(isinstance(each, Breach) for each in found), found
    return [(each.task.arn, each.why) for each in found if isinstance(each, Breach)]


# --- in their place


@pytest.mark.parametrize("slot", [launching(arn=""), launching(), ready()], ids=["in flight", "launching", "ready"])
def test_a_task_whose_slot_is_held_under_its_lease_is_fine(slot: Slot) -> None:
    assert judged([a_task(slot)], slot) == []


def test_a_task_above_a_lowered_cap_is_fine_until_it_leaves() -> None:
    slot = ready(retire=True)
    assert judged([a_task(slot)], slot) == []


# --- foreign


@pytest.mark.parametrize("started_by", ["", "ecs-svc/1234567890", "somebody", "default/3", "other/3/1700000000"])
def test_a_task_that_no_lease_of_a_pool_of_ours_began_is_foreign(started_by: str) -> None:
    stranger = SeenTask("arn:task/x", TaskStatus.ALIVE, started_by, "service:web")
    assert judged([stranger], ready()) == [Foreign(stranger)]


# --- beyond the cap


def test_a_task_that_lives_although_its_slot_was_freed_long_ago_is_a_breach() -> None:
    before = ready()
    freed = a_slot(generation=LATER)
    [(arn, why)] = breached(judged([a_task(before)], freed))
    assert (arn, why) == ("arn:task/0", "its slot was freed 3600 s before")


def test_a_task_beside_the_next_worker_of_its_slot_is_a_breach() -> None:
    before, after = ready(), ready(generation=LATER, arn="arn:task/next")
    found = breached(judged([a_task(before), a_task(after, "arn:task/next")], after))
    assert [arn for arn, _ in found] == ["arn:task/0"]


def test_what_describe_tasks_may_show_of_before_the_release_is_no_breach() -> None:
    before = ready()
    freed = a_slot(generation=int(NOW) - limits.SWEEP_SETTLED_S)
    assert judged([a_task(before)], freed) == []
    assert breached(judged([a_task(before)], freed, asked_at=NOW + 1))


def test_a_slot_that_is_freed_while_we_ask_is_no_breach() -> None:
    assert judged([a_task(ready())], a_slot(generation=int(NOW) + 2)) == []


def test_a_task_under_a_generation_that_was_never_leased_is_a_breach() -> None:
    empty = a_slot()
    assert breached(judged([a_task(ready())], empty)) == [
        ("arn:task/0", f"its slot is EMPTY at generation {empty.generation}, and was never leased to it")
    ]
    ahead = replace(ready(), generation=LATER)
    assert breached(judged([a_task(ahead)], ready()))


def test_a_task_of_a_slot_that_does_not_exist_is_a_breach() -> None:
    assert breached(judged([a_task(ready(9))])) == [("arn:task/9", "there is no slot default/9")]


def test_of_two_live_tasks_under_one_lease_the_one_that_the_slot_does_not_record_is_a_breach() -> None:
    slot = ready(arn="arn:task/b")
    both = [a_task(slot, "arn:task/a"), a_task(slot, "arn:task/b")]
    assert [arn for arn, _ in breached(judged(both, slot))] == ["arn:task/a"]
    nameless = launching(arn="")
    assert [arn for arn, _ in breached(judged(both, nameless))] == ["arn:task/b"]


def test_a_task_whose_slot_records_another_that_has_stopped_is_no_breach() -> None:
    """The launch was sent again after ECS had forgotten its token: one task lives, and the cap holds."""
    slot = ready(arn="arn:task/gone")
    assert judged([a_task(slot, "arn:task/a")], slot) == []


@hypothesis_settings(derandomize=True, max_examples=200, deadline=None)
@given(
    slots=st.lists(
        st.builds(
            lambda number, state, age: a_slot(number, state, generation=int(NOW) - age),
            st.integers(0, 5),
            st.sampled_from(SlotState),
            st.integers(0, 10_000),
        ),
        unique_by=lambda slot: slot.id,
    )
)
def test_a_fleet_of_one_task_for_each_held_slot_has_no_breach(slots: list[Slot]) -> None:
    assert judged([a_task(slot) for slot in slots if slot.held], *slots) == []


# --- what to ask about, and when


def test_only_tasks_that_no_slot_records_are_asked_about_and_each_once() -> None:
    arns = ["arn:task/0", "arn:task/7", "arn:task/7", "arn:task/1"]
    assert sweep.unknown(arns, [ready(0), launching(1), a_slot(2)]) == ["arn:task/7"]


@pytest.mark.parametrize("within_s", [0, 1, 59.9])
def test_one_tick_of_every_five_minutes_sweeps(within_s: float) -> None:
    ticks = [NOW + within_s + 60 * minute for minute in range(60)]
    turns = [number for number, at in enumerate(ticks) if sweep.due(at)]
    assert turns == list(range(2, 60, 5))
