"""How the embedded cloud feeds a function from a stream: the rule by itself, played against functions that fail."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.fargate.streams import RETRIES_EXHAUSTED, TOO_OLD, After, Cursor, after, first_failed

BISECT = {"BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 3, "MaximumRecordAgeInSeconds": 60}


def play(length: int, batch: int, wanted: Collection[int], fails: Callable[[int], bool]) -> tuple[list[int], list[int]]:
    """Feed a stream to a function that reports the first record that fails; what it was given, and what given up."""
    cursor, given, lost = Cursor(0), [], []
    while cursor.position < length:
        taken = min(cursor.size or batch, length - cursor.position)
        places = [n for n in range(taken) if cursor.position + n in wanted]
        handed = [cursor.position + place for place in places]
        given += handed
        failed = next((n for n, record in enumerate(handed) if fails(record)), None)
        step = after(cursor, places, taken, failed, BISECT, 0) if places else After(Cursor(cursor.position + taken))
        lost += handed if step.given_up else []
        assert step.cursor != cursor
        cursor = step.cursor
    return given, lost


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    length=st.integers(1, 40),
    batch=st.integers(1, 12),
    unwanted=st.sets(st.integers(0, 39)),
    poison=st.sets(st.integers(0, 39), max_size=4),
)
def test_every_wanted_record_is_handed_over_and_only_what_always_fails_is_given_up(
    length: int, batch: int, unwanted: set[int], poison: set[int]
) -> None:
    wanted = set(range(length)) - unwanted
    given, lost = play(length, batch, wanted, lambda record: record in poison)
    assert set(given) == wanted
    assert set(lost) == wanted & poison
    assert all(given.count(record) > BISECT["MaximumRetryAttempts"] for record in lost)


def test_without_failures_each_record_is_handed_over_once_and_in_order() -> None:
    assert play(25, 10, range(25), lambda _: False) == (list(range(25)), [])


def test_a_record_that_is_too_old_is_not_tried_again() -> None:
    assert after(Cursor(5), [0], 1, 0, BISECT, 61) == After(Cursor(6), given_up=TOO_OLD)


def test_a_mapping_that_does_not_bisect_gives_up_the_batch_after_its_retries() -> None:
    assert after(Cursor(5, tries=2), [0, 1], 2, 0, {"MaximumRetryAttempts": 2}, 0).given_up == RETRIES_EXHAUSTED


def test_without_limits_a_batch_is_tried_for_ever() -> None:
    assert after(Cursor(5, tries=10**6), [0], 1, 0, {}, 10**6) == After(Cursor(5, tries=10**6 + 1), wait=True)


ANSWERS: dict[str, tuple[dict[str, Any], bool, int | None]] = {
    "an error": ({"error": True, "body": {}}, True, 0),
    "nothing": ({"body": None}, True, None),
    "no failures": ({"body": {"batchItemFailures": []}}, True, None),
    "the lowest of two": ({"body": {"batchItemFailures": [{"itemIdentifier": n} for n in "cb"]}}, True, 1),
    "a number that was not sent": ({"body": {"batchItemFailures": [{"itemIdentifier": "z"}]}}, True, 0),
    "failures that nobody asked for": ({"body": {"batchItemFailures": [{"itemIdentifier": "a"}]}}, False, None),
}


@pytest.mark.parametrize(("result", "reports", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_read_as_lambda_reads_it(result: dict[str, Any], reports: bool, expected: int | None) -> None:
    assert first_failed(["a", "b", "c"], result, reports) == expected
