"""Small scopes in full: no path breaks an invariant, and a broken guard shows on some path."""

from __future__ import annotations

import pytest

from local.simulator.exhaust import Budget, Scope, explore
from local.simulator.scopes import AmbiguousLaunch, TwoDeciders, TwoWorkers


def within(scope: type[Scope], crashes: int, faults: int) -> type[Scope]:
    """The scope with less that may go wrong on one path."""
    return type(scope.__name__, (scope,), {"budget": Budget(crashes, faults)})


@pytest.mark.parametrize(
    "scope",
    [within(TwoDeciders, 2, 1), within(AmbiguousLaunch, 1, 0), within(AmbiguousLaunch, 0, 1), within(TwoWorkers, 0, 0)],
    ids=lambda scope: f"{scope.__name__}-{scope.budget.crashes}-{scope.budget.faults}",
)
def test_no_path_of_a_small_scope_breaks_an_invariant(scope: type[Scope]) -> None:
    found = explore(scope)
    assert found.violation is None
    assert found.states > 500
    assert found.ends > 50
