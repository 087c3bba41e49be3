"""A decider's time: what is begun in it, and how it is divided."""

from __future__ import annotations

import pytest

from fleetcap import limits
from fleetcap.timebox import Timebox
from tests.fakes import HandClock


def begun(box: Timebox, clock: HandClock, each_s: float, things: int = 99) -> int:
    """How many things are begun that take so long each."""
    number = 0
    for _ in box.each(range(things)):
        number += 1
        clock.sleep(each_s)
    return number


def test_a_decider_begins_things_until_its_time_is_over_and_the_last_one_still_ends() -> None:
    clock = HandClock()
    started_at = clock.now()
    assert begun(Timebox.begin(clock), clock, each_s=4.0) == 9
    assert limits.DECIDER_BUDGET_S <= clock.now() - started_at < limits.DECIDER_TIMEOUT_S


def test_of_a_part_one_thing_is_begun_however_little_time_it_has() -> None:
    clock = HandClock()
    box = Timebox.begin(clock)
    assert begun(box.part(100), clock, each_s=5.0) == 1
    assert begun(box.within(0.0), clock, each_s=5.0) == 1


def test_once_a_decider_is_over_no_part_begins_anything() -> None:
    clock = HandClock()
    box = Timebox.begin(clock)
    clock.sleep(limits.DECIDER_BUDGET_S)
    assert (box.over, box.spent) == (True, True)
    assert [begun(part, clock, 1.0) for part in (box, box.part(2), box.within(9.0))] == [0, 0, 0]


def test_parts_are_of_what_is_left() -> None:
    clock = HandClock()
    box = Timebox.begin(clock, 12.0)
    assert begun(box.part(3), clock, each_s=1.0) == 4
    assert begun(box.part(2), clock, each_s=1.0) == 4
    assert begun(box, clock, each_s=1.0) == 4
    assert box.over


def test_a_part_of_a_part_ends_with_it() -> None:
    clock = HandClock()
    part = Timebox.begin(clock).within(6.0)
    assert begun(part.within(20.0), clock, each_s=1.0) == 6
    assert (part.spent, part.over) == (True, False)


@pytest.mark.parametrize("things", [0, 3])
def test_without_a_decider_there_is_no_end(things: int) -> None:
    clock = HandClock()
    assert begun(Timebox(clock), clock, 1e6, things) == things
