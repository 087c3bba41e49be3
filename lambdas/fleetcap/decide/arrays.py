"""Arrays: one message, many jobs, one status. What an array consists of, and how it ends, given how its parts stand.

An array of few elements has these as its parts; a larger one has parts that are arrays of some of its elements. So
nobody ever puts, reads or ends more than a bounded number of jobs at once, and no number is counted up anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from fleetcap import limits
from fleetcap.model import Job, JobStatus, Request

INDEX: Final = "{index}"
"""What stands for an element's number, in the source and in texts among the params."""

Outcome = tuple[JobStatus, str, tuple[int, int, int]]
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


def gather(array: Job, found: Iterable[Job | None], now: float, limit_s: float) -> Outcome | None:
    """How a grown array ends, or None while it does not. `found`: its parts as they are read, in order.

    An array is given up after `limit_s`, before the first of its elements to end may have been forgotten.
    """
    completed = failed = cancelled = 0
    first = ""
    for part in found:
        if part is None or not part.ended:
            limit_s = min(limit_s, limits.FINISHED_JOB_TTL_S)
            if now - array.queued_at <= limit_s:
                return None
            error = f"array: not all of its {array.request.array} elements have ended within {limit_s:.0f} s"
            return JobStatus.FAILED, error, (completed, array.request.array - completed - cancelled, cancelled)
        more = _counted(part)
        completed, failed, cancelled = completed + more[0], failed + more[1], cancelled + more[2]
        if part.status is not JobStatus.COMPLETED:
            first = first or f"{part.key} is {part.status.value}: {part.error}"
    counts = completed, failed, cancelled
    if not first:
        return JobStatus.COMPLETED, "", counts
    of = f"{failed} failed and {cancelled} cancelled of {array.request.array}"
    return JobStatus.FAILED, f"array: {of}; {first}", counts


def _counted(part: Job) -> tuple[int, int, int]:
    """The elements that a part that ended stands for, by how they ended."""
    if part.counts:
        return part.counts
    count = part.request.array or 1
    return (
        count * (part.status is JobStatus.COMPLETED),
        count * (part.status is JobStatus.FAILED),
        count * (part.status is JobStatus.CANCELLED),
    )
