"""Arrays: one message, many jobs, one status. What an array consists of, and how it ends, given how its parts stand.

An array of few elements has these as its parts; a larger one has parts that are arrays of some of its elements. So
nobody ever puts, reads or ends more than a bounded number of jobs at once, and no number is counted up anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fleetcap import limits
from fleetcap.model import Job, JobStatus, Passed, Request

INDEX: Final = "{index}"
"""What stands for an element's number, in the source and in texts among the params."""

Counts = tuple[int, int, int]
"""How many elements completed, failed, were cancelled."""

Outcome = tuple[JobStatus, str, Counts]
"""Final status, error, and how many elements completed, failed, were cancelled."""


def step(count: int, most: int = limits.ARRAY_STEP) -> int:
    """How many elements each part of a new array stands for."""
    return 1 if count <= most else most


def varies(request: Request) -> bool:
    """Whether the elements of an array would differ at all."""
    return INDEX in request.source or any(INDEX in value for value in request.params.values() if isinstance(value, str))


def part_keys(array: Job) -> list[str]:
    """The keys of an array's parts, in order."""
    request, whole = array.request, array.request.part_of or array.key
    if request.step == 1:
        return [f"{whole}/{index}" for index in range(request.first, request.first + request.array)]
    return [f"{whole}/part-{number}" for number in range(-(-request.array // request.step))]


def parts(array: Job) -> list[tuple[str, Request]]:
    """Each part's key, and what it is asked for."""
    request = array.request
    if request.step == 1:
        asked = [_element(array, index) for index in range(request.first, request.first + request.array)]
    else:
        firsts = range(0, request.array, request.step)
        asked = [
            replace(request, first=first, array=min(request.step, request.array - first), step=1, part_of=array.key)
            for first in firsts
        ]
    return list(zip(part_keys(array), asked, strict=True))


def _element(array: Job, index: int) -> Request:
    given = array.request
    params = {n: v.replace(INDEX, str(index)) if isinstance(v, str) else v for n, v in given.params.items()}
    source = given.source.replace(INDEX, str(index))
    return replace(given, source=source, params=params, array=0, first=0, step=0, part_of=array.key)


def left(array: Job, passed: Passed) -> list[str]:
    """The keys of the parts that have not been passed over: from the last one on, which was put last and mostly ends
    last. As long as the first of these has not ended, the array has not, and no other needs to be read."""
    return part_keys(array)[::-1][passed.parts :]


def pass_over(passed: Passed, part: Job, counts: Counts) -> Passed:
    """One part more that has ended, with these `counts` of its elements."""
    completed, failed, cancelled = (before + more for before, more in zip(passed.counts, counts, strict=True))
    first = passed.first if part.status is JobStatus.COMPLETED else part.key
    return Passed(passed.parts + 1, (completed, failed, cancelled), first)


def is_cut_short(part: Job) -> bool:
    """Whether it is an array that ended before its elements had: their own ends say then how they ended."""
    return bool(part.request.array) and part.ended and part.counts is None


def counted(part: Job) -> Counts:
    """The elements that a part that ended stands for, by how they ended; of one that is not cut short."""
    return part.counts or _one(part.status)


def counted_apart(part: Job, elements: Mapping[str, Job]) -> Counts | None:
    """The same of an array that was cut short, whose `elements` are those that were ever put. None: some go on."""
    ends = [elements[key].status if key in elements else part.status for key in part_keys(part)]
    if not all(status.ended for status in ends):
        return None
    completed, failed, cancelled = map(sum, zip(*map(_one, ends), strict=True))
    return completed, failed, cancelled


def _one(status: JobStatus) -> Counts:
    return (int(status is JobStatus.COMPLETED), int(status is JobStatus.FAILED), int(status is JobStatus.CANCELLED))


def gather(array: Job, passed: Passed, first: Job | None, now: float, limit_s: float) -> Outcome | None:
    """How an array ends of which so much has been passed over, or None while it does not end. Of one that has not grown
    nothing is: its parts may be those of an older run.

    `first` is the part that `passed` names. An array is given up after `limit_s`, before the first of its elements to
    end may have been forgotten.
    """
    completed, failed, cancelled = passed.counts
    if left(array, passed):
        limit_s = min(limit_s, limits.FINISHED_JOB_TTL_S)
        if now - array.queued_at <= limit_s:
            return None
        error = f"array: not all of its {array.request.array} elements have ended within {limit_s:.0f} s"
        return JobStatus.FAILED, error, (completed, array.request.array - completed - cancelled, cancelled)
    if not passed.first:
        return JobStatus.COMPLETED, "", passed.counts
    of = f"{failed} failed and {cancelled} cancelled of {array.request.array}"
    which = f"; {first.key} is {first.status.value}: {first.error}" if first else ""
    return JobStatus.FAILED, f"array: {of}{which}", passed.counts
