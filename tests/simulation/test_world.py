"""Virtual time: what is due runs in its order, and processes give way, sleep, freeze and die as told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from local.simulator.world import BEGAN_AT, FOREVER, Process, World


@pytest.fixture
def world() -> World:
    return World(tracing=False)


def go_on(world: World) -> None:
    while not world.idle:
        world.step()


def process(world: World, body: Callable[[Process], object], **options: float) -> tuple[Process, list[bool]]:
    """A process, and how it ended: whether it returned."""
    ends: list[bool] = []
    return Process(world, "p", body, ends.append, **options), ends


def sleeper(*naps: float) -> tuple[Callable[[Process], None], list[float]]:
    """A process that sleeps, and when it woke."""
    woken: list[float] = []

    def body(process: Process) -> None:
        for nap in naps:
            process.pause(nap, interruptible=True)
            woken.append(process.world.now - BEGAN_AT)

    return body, woken


def test_what_is_due_first_happens_first_and_equals_in_the_order_of_asking(world: World) -> None:
    happened: list[str] = []
    for name, after in (("late", 2.0), ("first", 1.0), ("second", 1.0)):
        world.after(after, lambda name=name: happened.append(name))  # type: ignore[misc]
    go_on(world)
    assert happened == ["first", "second", "late"]
    assert world.now == BEGAN_AT + 2.0


def test_processes_take_turns_by_the_clock(world: World) -> None:
    turns: list[str] = []

    def body(name: str, nap: float) -> Callable[[Process], None]:
        def run(process: Process) -> None:
            for _ in range(2):
                process.pause(nap)
                turns.append(name)

        return run

    for name, nap in (("slow", 3.0), ("quick", 2.0)):
        process(world, body(name, nap))
    go_on(world)
    assert turns == ["quick", "slow", "quick", "slow"]


def test_a_process_that_returns_says_so(world: World) -> None:
    _, ends = process(world, lambda process: process.pause(1.0))
    go_on(world)
    assert ends == [True]


def test_a_killed_process_never_comes_back_from_its_sleep(world: World) -> None:
    body, woken = sleeper(10.0)
    victim, ends = process(world, body)
    world.after(4.0, victim.kill)
    go_on(world)
    assert (woken, ends) == ([], [False])
    assert victim.dead


def test_a_process_that_was_killed_before_it_began_never_does(world: World) -> None:
    body, woken = sleeper(0.0)
    victim, ends = process(world, body)
    victim.kill()
    go_on(world)
    assert (woken, ends) == ([], [False])


def test_a_deadline_ends_a_process_in_the_middle(world: World) -> None:
    body, woken = sleeper(30.0, 40.0)
    _, ends = process(world, body, deadline=BEGAN_AT + 60.0)
    go_on(world)
    assert (woken, ends) == ([30.0], [False])
    assert world.now <= BEGAN_AT + 70.0


def test_a_signal_wakes_a_sleeper_once(world: World) -> None:
    body, woken = sleeper(10.0, 10.0)
    asked, ends = process(world, body)
    world.after(4.0, asked.signal)
    go_on(world)
    assert woken == [4.0, 14.0]
    assert (asked.draining, ends) == (True, [True])


def test_a_frozen_process_goes_on_when_it_thaws(world: World) -> None:
    body, woken = sleeper(5.0, 1.0)
    frozen, _ = process(world, body)
    world.after(1.0, lambda: frozen.freeze(BEGAN_AT + 20.0))
    go_on(world)
    assert woken == [20.0, 21.0]


def test_a_process_that_is_frozen_for_ever_can_still_be_killed(world: World) -> None:
    body, woken = sleeper(5.0)
    frozen, ends = process(world, body)
    world.after(1.0, lambda: frozen.freeze(FOREVER))
    world.after(9.0, frozen.kill)
    go_on(world)
    assert (woken, ends) == ([], [False])


@pytest.mark.parametrize(("longer", "wakes"), [(30.0, [30.0]), (FOREVER, [])])
def test_who_is_frozen_again_for_a_shorter_while_stays_frozen_for_the_longer(
    world: World, longer: float, wakes: list[float]
) -> None:
    """Seed 1803565609: a worker that hung for ever was taken for one that went on, and idled beside a job."""
    body, woken = sleeper(5.0)
    frozen, _ = process(world, body)
    world.after(1.0, lambda: frozen.freeze(BEGAN_AT + longer))
    world.after(2.0, lambda: frozen.freeze(BEGAN_AT + 20.0))
    go_on(world)
    assert woken == wakes
    assert frozen.frozen_until == BEGAN_AT + longer


def test_an_error_of_a_process_ends_the_world_not_just_the_process(world: World) -> None:
    def body(_: Process) -> None:
        raise ZeroDivisionError

    process(world, body)
    with pytest.raises(ZeroDivisionError):
        go_on(world)


def test_an_abandoned_process_is_gone(world: World) -> None:
    body, woken = sleeper(5.0)
    left, ends = process(world, body)
    world.after(1.0, lambda: None)
    world.step()
    left.abandon()
    go_on(world)
    assert (woken, ends) == ([], [False])
