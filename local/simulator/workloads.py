"""The work that policies are measured on, as plain data drawn from a seed, and the least time that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from math import ceil, pi, sin
from random import Random
from typing import Final, NamedTuple

DAY_S: Final = 86_400.0
DAY_JOBS: Final = 100_000
COLD_START_S: Final = 40.0
"""From RunTask to the worker's first step: an ENI, an image of some hundred MB, the interpreter."""


class Work(NamedTuple):
    """A job: when it arrives, in seconds since the start, and how long it computes."""

    at: float
    duration_s: float


@dataclass(frozen=True)
class Workload:
    """Jobs by arrival. No worker is there when the first one arrives, and at most `cap` may ever live at once."""

    name: str
    seed: int
    cap: int
    jobs: tuple[Work, ...]
    cold_start_s: float = COLD_START_S
    scaled: bool = False
    """It has not the size that it is meant to have."""

    @property
    def job_seconds(self) -> float:
        """All that is to be computed."""
        return sum(job.duration_s for job in self.jobs)


def small(seed: int) -> Workload:
    """What a cold start is dear for: jobs a quarter of its length, twenty a worker."""
    return Workload("1,000 jobs × 10 s", seed, 50, (Work(0.0, 10.0),) * 1_000)


def long(seed: int) -> Workload:
    """The portal's burst: half of the cap's workers run two jobs, the others one."""
    return Workload("24 × 30 min", seed, 16, (Work(0.0, 1_800.0),) * 24)


def bimodal(seed: int, count: int = 1_000) -> Workload:
    """Nine in ten are done in seconds, the tenth takes ten minutes, and nobody knows which before it has run."""
    random = Random(seed)
    durations = [5.0] * (count * 9 // 10) + [600.0] * (count - count * 9 // 10)
    random.shuffle(durations)
    return Workload(
        f"bimodal: {durations.count(5.0):,} × 5 s, {durations.count(600.0):,} × 10 min",
        seed,
        50,
        tuple(Work(0.0, each) for each in durations),
    )


def diurnal(seed: int, count: int = DAY_JOBS) -> Workload:
    """A portal's day along a sine: few in the night, with which it begins, most at noon, about a minute each.

    On the mean 70 % of the cap compute; noon asks for a quarter more than the cap gives, midnight for a seventh of it.
    """
    random = Random(seed)
    arrivals: list[float] = []
    while len(arrivals) < count:
        at = random.uniform(0.0, DAY_S)
        if random.uniform(0.0, 1.8) < 1.0 + 0.8 * sin(2 * pi * (at / DAY_S - 0.25)):
            arrivals.append(at)
    cap = max(1, round(count * 60.0 / DAY_S / 0.7))
    jobs = tuple(Work(at, max(1.0, random.expovariate(1 / 60.0))) for at in sorted(arrivals))
    return Workload(f"a day of {count:,} jobs", seed, cap, jobs, scaled=count != DAY_JOBS)


WORKLOADS: Final[Mapping[str, Callable[[int, int], Workload]]] = {
    "small": lambda seed, _: small(seed),
    "long": lambda seed, _: long(seed),
    "bimodal": lambda seed, _: bimodal(seed),
    "day": diurnal,
}
"""Those of the bench, each from a seed and the number of jobs that its day has."""


def lower_bound_s(work: Workload, workers: int) -> float:
    """Seconds from the first arrival before which no policy with at most `workers` at once has done all jobs.

    The greatest of three bounds. Nothing begins before the first worker does, a cold start after the first arrival:

    - *each*: a job ends no sooner than its duration after that, and after its own arrival;
    - *area*: what arrives from any time on is done by `workers` lanes from then on, at best all busy to the end;
    - *pigeonhole*: of the longest `k · workers + 1` jobs one worker runs `k + 1`, at best the shortest of these.

    They assume nothing about what the policy knows, so the bound may be out of reach, and never lies too high.
    """
    first = work.jobs[0].at
    ready = first + work.cold_start_s
    each = max(max(job.at, ready) + job.duration_s for job in work.jobs)
    area, left_s = 0.0, 0.0
    for job in reversed(work.jobs):
        left_s += job.duration_s
        area = max(area, max(job.at, ready) + left_s / workers)
    return max(each, area, ready + _pigeonhole_s([job.duration_s for job in work.jobs], workers)) - first


def unhindered_waits_s(work: Workload) -> list[float]:
    """How long each job waits where all workers of the cap are there at all times: first come, first served."""
    free_at = [0.0] * work.cap
    waits_s: list[float] = []
    for job in work.jobs:
        begins = max(job.at, free_at[0])
        heapreplace(free_at, begins + job.duration_s)
        waits_s.append(begins - job.at)
    return waits_s


def _pigeonhole_s(durations: Sequence[float], workers: int) -> float:
    longest = sorted(durations, reverse=True)
    most = ceil(len(longest) / workers) - 1
    return max((sum(longest[k * workers - k : k * workers + 1]) for k in range(most + 1)), default=0.0)
