"""What becomes of a job that waits for others, given how these stand, and whose turn it is to be looked at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from fleetcap import limits
from fleetcap.model import Job, JobStatus, OnParentFailure, Queued


@dataclass(frozen=True)
class Unblock:
    """Every parent has ended as asked: the job is queued."""


@dataclass(frozen=True)
class Fail:
    """The job ends FAILED, with this error."""

    error: str


@dataclass(frozen=True)
class Wait:
    """These parents have not ended, or are not known yet."""

    parents: tuple[str, ...]


_GOLDEN: Final = (sqrt(5) - 1) / 2

Verdict = Unblock | Fail | Wait


def judge(job: Job, parents: Mapping[str, Job], now: float, limit_s: float) -> Verdict:
    """Decide on a WAITING job. `parents`: those of its parents that there are, read *after* the job was.

    A parent counts as it stands: one that runs anew is waited for again, as long as this job waits at all.
    """
    wanted = job.request.depends_on
    if job.request.on_parent_failure is OnParentFailure.FAIL:
        for parent in (parents[key] for key in wanted if key in parents):
            if parent.ended and parent.status is not JobStatus.COMPLETED:
                return Fail(f"dependency: {parent.key} is {parent.status.value}: {parent.error}")
    pending = tuple(key for key in wanted if key not in parents or not parents[key].ended)
    if not pending:
        return Unblock()
    if now - job.queued_at > limit_s:
        which = "has not ended" if pending[0] in parents else "is not known"
        others = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
        return Fail(
            f"dependency: {pending[0]} {which}{others}, and the job has waited for as long as it may "
            f"(parents_limit_s is {limit_s:.0f})"
        )
    return Wait(pending)


def circle(key: str, waits: Mapping[str, Collection[str]]) -> list[str]:
    """The way from a job back to itself, both ends included; empty where there is none. `waits`: who waits for whom."""
    came_from: dict[str, str] = {}
    unseen = [key]
    while unseen:
        here = unseen.pop()
        for parent in waits.get(here, ()):
            if parent == key:
                return _way(key, here, came_from)
            if parent not in came_from:
                came_from[parent] = here
                unseen.append(parent)
    return []


def _way(key: str, last: str, came_from: Mapping[str, str]) -> list[str]:
    back = [last]
    while back[-1] != key:
        back.append(came_from[back[-1]])
    return [*reversed(back), key]


def in_a_circle(way: Sequence[str]) -> Fail:
    """Nobody in a circle would ever begin. Whoever sees it ends, and then the others' parent has failed."""
    return Fail(f"dependency: a cycle, the job waits for itself: {' → '.join(way)}")


def turn(waiting: Sequence[Queued], now: float) -> list[Queued]:
    """Those that the tick of this minute looks at, in order. Nothing is kept, and yet each of them has its turn.

    They stand in a circle, and each minute begins a golden section of it further on: each start falls into one of the
    largest gaps that the starts before have left. So, however many a tick gets through, a hundred or one, twice as many
    ticks see everybody as would if nobody was looked at twice. A tick that comes to this each sixth minute only sees
    everybody too, if later: a whole step, or a hundredth of the circle, would have a factor in common with some such
    rhythm, and whoever lies between would never be seen; this one has with none.
    """
    if not waiting:
        return []
    minute = int(now // limits.TICK_PERIOD_S)
    first = int(minute * _GOLDEN % 1.0 * len(waiting))
    return [*waiting[first:], *waiting[:first]][: limits.WAITING_PER_TICK]
