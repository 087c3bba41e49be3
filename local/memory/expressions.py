"""DynamoDB's condition expressions, as far as `keys.py` uses them: read once, then evaluated on items in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from fleetcap import keys

Test = Callable[[keys.Item, Mapping[str, Any]], bool]

_WORD: Final = re.compile(r"\s*(attribute_exists|attribute_not_exists|AND|OR|IN|<>|<=|<|=|[(),]|#\w+|:\w+)")


def holds(condition: keys.Condition, item: keys.Item, values: Mapping[str, Any]) -> bool:
    """Whether an item meets a condition; no item is an empty one."""
    return compiled(condition.expression)(item, values)


@lru_cache(maxsize=1_024)
def compiled(expression: str) -> Test:
    """The test that an expression stands for. Raises ValueError on anything that is not one."""
    return _Reader(expression).read()


class _Reader:
    """Recursive descent over OR, AND, and the single tests."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._words = _words(expression)

    def read(self) -> Test:
        test = self._any()
        if self._words:
            raise self._wrong(self._words[0])
        return test

    def _wrong(self, word: str) -> ValueError:
        return ValueError(f"{word!r} is out of place in the expression {self._expression!r}")

    def _next(self, *expected: str) -> str:
        word = self._words.pop(0) if self._words else "the end"
        if expected and word not in expected:
            raise self._wrong(word)
        return word

    def _follows(self, word: str) -> bool:
        if self._words[:1] == [word]:
            del self._words[0]
            return True
        return False

    def _any(self) -> Test:
        test = self._all()
        while self._follows("OR"):
            test = _either(test, self._all())
        return test

    def _all(self) -> Test:
        test = self._one()
        while self._follows("AND"):
            test = _both(test, self._one())
        return test

    def _one(self) -> Test:
        word = self._next()
        if word == "(":
            test = self._any()
            self._next(")")
            return test
        if word in {"attribute_exists", "attribute_not_exists"}:
            self._next("(")
            name, wanted = self._name(self._next()), word == "attribute_exists"
            self._next(")")
            return lambda item, _: (name in item) is wanted
        return self._comparison(self._name(word))

    def _comparison(self, name: str) -> Test:
        """An absent attribute equals nothing and is less than nothing; `<>` holds for it, as in DynamoDB."""
        match self._next("=", "<>", "<=", "<", "IN"):
            case "=":
                value = self._value()
                return lambda item, values: name in item and item[name] == values[value]
            case "<>":
                value = self._value()
                return lambda item, values: name not in item or item[name] != values[value]
            case "<=":
                value = self._value()
                return lambda item, values: name in item and bool(item[name] <= values[value])
            case "<":
                value = self._value()
                return lambda item, values: name in item and bool(item[name] < values[value])
            case _:
                self._next("(")
                listed = [self._value()]
                while self._next(",", ")") == ",":
                    listed.append(self._value())
                return lambda item, values: name in item and any(item[name] == values[value] for value in listed)

    def _name(self, word: str) -> str:
        if not word.startswith("#"):
            raise self._wrong(word)
        return word[1:]

    def _value(self) -> str:
        word = self._next()
        if not word.startswith(":"):
            raise self._wrong(word)
        return word


def _either(one: Test, other: Test) -> Test:
    return lambda item, values: one(item, values) or other(item, values)


def _both(one: Test, other: Test) -> Test:
    return lambda item, values: one(item, values) and other(item, values)


def _words(expression: str) -> list[str]:
    words: list[str] = []
    at = 0
    while at < len(expression.rstrip()):
        if (found := _WORD.match(expression, at)) is None:
            raise ValueError(f"{expression[at:]!r} is not part of a condition expression")
        words.append(found[1])
        at = found.end()
    return words
