"""Condition expressions read and evaluated in memory. That DynamoDB sees them alike is shown by `tests/contract`."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fleetcap import keys
from local.memory.expressions import compiled, holds

VALUES = {":one": 1, ":two": 2, ":text": "1", ":yes": True}


def met(expression: str, **item: Any) -> bool:
    return compiled(expression)(item, VALUES)


def test_an_attribute_equals_a_value_of_its_own_kind_and_nothing_where_it_is_absent() -> None:
    assert met("#a = :one", a=1)
    assert not met("#a = :one", a=2)
    assert not met("#a = :one", a="1")
    assert not met("#a = :one", b=1)


def test_an_absent_attribute_differs_from_every_value() -> None:
    assert met("#a <> :one")
    assert met("#a <> :one", a=2)
    assert not met("#a <> :one", a=1)


def test_an_attribute_is_less_than_a_value_and_an_absent_one_never_is() -> None:
    assert met("#a < :two", a=1)
    assert not met("#a < :two", a=2)
    assert not met("#a < :two", b=1)


def test_an_attribute_is_among_those_listed_or_not() -> None:
    assert met("#a IN (:one, :two)", a=2)
    assert met("#a IN (:one)", a=1)
    assert not met("#a IN (:one, :two)", a=3)
    assert not met("#a IN (:one, :two)")


def test_an_attribute_exists_whatever_its_value() -> None:
    for value in (None, False, 0, ""):
        assert met("attribute_exists(#a)", a=value)
        assert not met("attribute_not_exists(#a)", a=value)
    assert not met("attribute_exists(#a)", b=1)
    assert met("attribute_not_exists(#a)", b=1)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("#a = :one AND #b = :one", [(1, 1)]),
        ("#a = :one OR #b = :one", [(1, 1), (1, 2), (2, 1)]),
        ("#a = :one OR #b = :one AND #a = :two", [(1, 1), (1, 2), (2, 1)]),
        ("#b = :one AND #a = :two OR #a = :one", [(1, 1), (1, 2), (2, 1)]),
        ("(#a = :one OR #b = :one) AND #a = :two", [(2, 1)]),
        ("((#a = :one)) AND (#b = :one OR (#b = :two))", [(1, 1), (1, 2)]),
        ("#a = :one AND #b = :one AND #b = :two", []),
    ],
)
def test_and_binds_closer_than_or_and_parentheses_closest(expression: str, expected: list[tuple[int, int]]) -> None:
    pairs = [(a, b) for a in (1, 2) for b in (1, 2)]
    assert [(a, b) for a, b in pairs if met(expression, a=a, b=b)] == expected


@pytest.mark.parametrize("expression", ["#a=:one AND #b IN(:one,:two)", "  #a  =  :one\tAND\n#b IN ( :one , :two )  "])
def test_blanks_make_no_difference(expression: str) -> None:
    assert met(expression, a=1, b=2)
    assert not met(expression, a=1, b=3)


def test_no_item_is_an_empty_one() -> None:
    assert holds(keys.ABSENT, {}, {})
    assert not holds(keys.EXISTS, {}, {})


def test_a_value_that_was_not_brought_is_an_error_and_never_a_refusal() -> None:
    with pytest.raises(KeyError, match=":missing"):
        met("#a = :missing", a=1)


@pytest.mark.parametrize(
    ("expression", "word"),
    [
        ("", "the end"),
        ("#a", "the end"),
        ("#a =", "the end"),
        ("#a = #b", "#b"),
        (":one = :one", ":one"),
        ("#a = :one AND", "the end"),
        ("#a = :one #b", "#b"),
        ("OR #a = :one", "OR"),
        ("(#a = :one", "the end"),
        ("#a = :one)", ")"),
        ("#a IN ()", ")"),
        ("#a IN (:one :two)", ":two"),
        ("#a IN :one", ":one"),
        ("attribute_exists #a", "#a"),
        ("attribute_exists(:one)", ":one"),
        ("attribute_exists(#a", "the end"),
        ("#a AND #b", "AND"),
    ],
)
def test_a_word_out_of_place_is_named_with_the_whole_expression(expression: str, word: str) -> None:
    sentence = f"{word!r} is out of place in the expression {expression!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        compiled(expression)


@pytest.mark.parametrize(
    ("expression", "rest"),
    [
        ("#a > :one", " > :one"),
        ("#a = :one and #b = :one", " and #b = :one"),
        ("NOT #a = :one", "NOT #a = :one"),
        ("begins_with(#a, :one)", "begins_with(#a, :one)"),
        ("state = :one", "state = :one"),
    ],
)
def test_what_the_conditions_of_the_product_do_not_use_is_refused_and_not_guessed(expression: str, rest: str) -> None:
    sentence = f"{rest!r} is not part of a condition expression"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        compiled(expression)
