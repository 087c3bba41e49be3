"""What an array consists of, and how it ends: every element once, every end counted."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fleetcap import limits
from fleetcap.decide.arrays import (
    Outcome,
    counted,
    counted_apart,
    gather,
    is_cut_short,
    left,
    part_keys,
    parts,
    pass_over,
    step,
    varies,
)
from fleetcap.model import Job, JobStatus, Passed, Request
from tests.examples import NOW, a_job

DONE, BROKE, GONE = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED
TEMPLATE = Request(
    "s3://bucket/{index}.bam", "command", params={"program": "cat", "arguments": "-n {index} {source}", "top": 3}
)
WEEK_S = float(limits.PARENTS_LIMIT_S)


def an_array(count: int, most: int = limits.ARRAY_STEP, age_s: float = 5.0) -> Job:
    request = replace(TEMPLATE, array=count, step=step(count, most))
    return a_job("portal/a", JobStatus.WAITING, age_s, request=request)


def elements(array: Job) -> list[tuple[str, Request]]:
    """Those of the array, through its parts."""
    found: list[tuple[str, Request]] = []
    for key, request in parts(array):
        found += elements(a_job(key, JobStatus.WAITING, request=request)) if request.array else [(key, request)]
    return found


@given(st.integers(2, 400), st.integers(2, 20))
def test_every_element_is_there_once_under_its_index_and_belongs_to_its_part(count: int, most: int) -> None:
    array = an_array(count, most)
    found = elements(array)
    assert [key for key, _ in found] == [f"portal/a/{index}" for index in range(count)]
    assert [request.source for _, request in found] == [f"s3://bucket/{index}.bam" for index in range(count)]
    assert {request.part_of for _, request in found} == ({"portal/a"} if count <= most else set(part_keys(array)))
    assert [key for key, _ in parts(array)] == part_keys(array)


def test_no_part_of_the_largest_array_is_too_large_for_one_intake() -> None:
    array = an_array(limits.ARRAY_MAX)
    assert len(part_keys(array)) == limits.ARRAY_MAX / limits.ARRAY_STEP == 200
    assert {request.array for _, request in parts(array)} == {limits.ARRAY_STEP}
    longest = max(len(key) - len(array.key) for key in [*part_keys(array), *(key for key, _ in elements(array))])
    assert longest <= limits.ARRAY_KEY_CHARS


def test_an_element_is_asked_for_as_the_array_was_with_its_index_in_place() -> None:
    parents = replace(TEMPLATE, array=2, step=1, depends_on=("p",), md5="0" * 32, timeout_s=7)
    [_, (key, request)] = parts(a_job("portal/a", request=parents))
    assert key == "portal/a/1"
    assert request.params == {"program": "cat", "arguments": "-n 1 {source}", "top": 3}
    assert (request.depends_on, request.md5, request.timeout_s) == (("p",), "0" * 32, 7)
    assert (request.array, request.first, request.step, request.part_of) == (0, 0, 0, "portal/a")


def test_elements_differ_by_their_source_or_by_a_param() -> None:
    assert varies(TEMPLATE)
    assert varies(replace(TEMPLATE, source="s3://bucket/a"))
    assert varies(replace(TEMPLATE, params={}))
    assert not varies(replace(TEMPLATE, source="s3://bucket/a", params={"n": 1, "text": "{ index }"}))


# --- the end


def ended(*statuses: JobStatus) -> list[Job]:
    return [a_job(f"portal/a/{n}", status, error="boom") for n, status in enumerate(statuses)]


def outcome(array: Job, found: list[Job], limit_s: float = WEEK_S) -> Outcome | None:
    """How it ends once these, its last parts, have been passed over, the very last first."""
    passed = Passed()
    for part in reversed(found):
        passed = pass_over(passed, part, counted(part))
    first = next((part for part in found if part.key == passed.first), None)
    return gather(replace(array, grown=True), passed, first, NOW, limit_s)


def test_an_array_completes_with_all_of_its_elements() -> None:
    assert outcome(an_array(3), ended(DONE, DONE, DONE)) == (DONE, "", (3, 0, 0))


def test_an_array_fails_with_any_and_names_the_first() -> None:
    status, error, counts = outcome(an_array(4), ended(DONE, GONE, BROKE, BROKE)) or ("", "", ())
    assert (status, counts) == (BROKE, (1, 2, 1))
    assert error == "array: 2 failed and 1 cancelled of 4; portal/a/1 is CANCELLED: boom"


def test_the_last_part_is_looked_at_first_and_none_beyond_one_that_goes_on() -> None:
    array = an_array(3)
    assert left(array, Passed()) == ["portal/a/2", "portal/a/1", "portal/a/0"]
    [last] = ended(DONE)
    passed = pass_over(Passed(), last, counted(last))
    assert left(array, passed) == ["portal/a/1", "portal/a/0"]
    assert gather(replace(array, grown=True), passed, None, NOW, WEEK_S) is None


def test_the_counts_of_parts_are_added_up() -> None:
    array = an_array(7, most=3)
    asked = [request for _, request in parts(array)]
    found = [
        a_job("1", BROKE, request=asked[0], counts=(1, 1, 1), error="array: x"),
        a_job("2", GONE, request=asked[1], counts=(0, 0, 3)),
        a_job("3", DONE, request=asked[2], counts=(1, 0, 0)),
    ]
    status, error, counts = outcome(array, found) or ("", "", ())
    assert (status, counts) == (BROKE, (2, 1, 4))
    assert error.endswith("1 is FAILED: array: x")


def test_a_part_that_was_cut_short_counts_as_its_elements_end_and_not_before() -> None:
    [(key, request), *_] = parts(an_array(7, most=3))
    part = a_job(key, GONE, request=request)
    assert is_cut_short(part)
    assert not is_cut_short(replace(part, counts=(1, 1, 1)))
    assert not is_cut_short(replace(part, status=JobStatus.WAITING))
    some = {each.key: each for each in ended(DONE, JobStatus.RUNNING)}
    assert counted_apart(part, some) is None
    assert counted_apart(part, {each.key: each for each in ended(DONE, BROKE)}) == (1, 1, 1)  # one was never put


def test_an_array_is_given_up_before_the_first_of_its_elements_may_be_forgotten() -> None:
    [*_, last] = ended(DONE, DONE, DONE)
    for limit_s, age_s in ((60.0, 60.0), (limits.PARENTS_LIMIT_MAX_S, limits.FINISHED_JOB_TTL_S)):
        assert outcome(an_array(3, age_s=age_s), [last], limit_s) is None
        status, error, counts = outcome(an_array(3, age_s=age_s + 1), [last], limit_s) or ("", "", ())
        assert (status, counts) == (BROKE, (1, 2, 0))
        assert error.startswith("array: not all of its 3 elements have ended within")
