"""Small scopes in full: no path breaks an invariant, and a broken guard shows on some path."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from fleetcap import keys
from fleetcap.fleet import Fleet, Resent
from handlers.publish import Publish
from local.simulator.exhaust import Budget, Scope, explore
from local.simulator.scopes import (
    AmbiguousLaunch,
    ParentEnds,
    StoppedTwice,
    TwoDeciders,
    TwoWorkers,
    UnrecordedEnds,
)

ANYTHING: Final = keys.Condition("anything", "attribute_exists(#pk) OR attribute_not_exists(#pk)")


def within(scope: type[Scope], crashes: int, faults: int) -> type[Scope]:
    """The scope with less that may go wrong on one path."""
    return type(scope.__name__, (scope,), {"budget": Budget(crashes, faults, crashes + faults)})


@pytest.mark.long
@pytest.mark.parametrize(
    "scope",
    [
        within(TwoDeciders, 1, 1),
        within(AmbiguousLaunch, 0, 0),
        within(StoppedTwice, 0, 0),
        within(UnrecordedEnds, 0, 0),
        within(TwoWorkers, 1, 0),
        within(ParentEnds, 1, 0),
    ],
    ids=lambda scope: f"{scope.__name__}-{scope.budget.crashes}-{scope.budget.faults}",
)
def test_no_path_of_a_small_scope_breaks_an_invariant(scope: type[Scope]) -> None:
    found = explore(scope)
    assert found.violation is None
    assert found.states > 500
    assert found.ends > 50


def test_a_broken_guard_shows_on_some_path_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is put though one stands."""
    put_write = keys.put_write
    monkeypatch.setattr(keys, "put_write", lambda *args: put_write(*args)._replace(condition=ANYTHING))
    twice = type(
        "Twice", (TwoDeciders,), {"scene": replace(TwoDeciders.scene, messages=TwoDeciders.scene.messages[:1] * 2)}
    )
    found = explore(twice)
    assert found.violation
    assert found.violation.invariant == "ONE-RUN"
    assert found.lines[-1].outcome == "VIOLATION"
    assert sum(line.what.startswith("put JOB#a") for line in found.lines) >= 1


def test_an_end_that_is_told_to_nobody_shows_on_some_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publish, "_wake", lambda *_: [])
    found = explore(within(ParentEnds, 0, 0))
    assert found.violation
    assert found.violation.invariant == "LIVE"


def test_a_crash_at_every_call_is_among_the_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose decider dies after the lease is found by the tick; without its resend the slot leaks."""
    monkeypatch.setattr(Fleet, "resend", lambda _, slot: Resent(slot))
    found = explore(within(TwoDeciders, 1, 0))
    assert found.violation
    assert found.violation.invariant in {"LIVE", "LEAK"}
    assert any("dies" in line.outcome for line in found.lines)
