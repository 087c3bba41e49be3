"""The table of mutations cannot rot: it names every clause and every rule, and each place is where it says."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from local.simulator import coverage
from tests.mutation.__main__ import HINTS
from tests.mutation.guard import ROOT, Guard
from tests.mutation.guards import GUARDS

RULES = range(1, 18)


def test_every_clause_of_every_operation_is_removed_once() -> None:
    names = {guard.name for guard in GUARDS}
    assert {f"{operation}: {clause}" for operation, clause in coverage.guards()} - names == set()


def test_every_rule_of_the_protocol_is_removed() -> None:
    assert set(RULES) - {guard.rule for guard in GUARDS} == set()
    named = [guard for guard in GUARDS if guard.name.startswith("rule ")]
    assert [guard.name for guard in named if not guard.name.startswith(f"rule {guard.rule}: ")] == []


def test_every_name_is_used_once() -> None:
    assert [name for name, times in Counter(guard.name for guard in GUARDS).items() if times > 1] == []


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_what_a_mutation_replaces_stands_where_it_says_and_nowhere_else(guard: Guard) -> None:
    text = (ROOT / guard.path).read_text()
    assert text.count(guard.old) == 1
    compile(text.replace(guard.old, guard.new), guard.path, "exec")


def test_hints_are_about_guards_that_there_are() -> None:
    assert set(json.loads(HINTS.read_text())) - {guard.name for guard in GUARDS} == set()
