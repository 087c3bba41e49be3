"""How good Fleetcap's decisions are, and those of two other policies: makespan, waits, and what Fargate bills.

Fleetcap's figures are those of the production code in a world where nothing goes wrong. The others are a few lines each
below, on the same clock, the same ECS and the same time for every call, cold start, end and event. What is not in that
world: Lambda's cold starts, ECS's limit on launches (100 at once, 20 a second), and the spread of real cold starts,
which would blur the bound. Where a figure had to be chosen between Fleetcap and another, the other has the better one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from random import Random
from statistics import fmean, quantiles
from typing import Final, TypeVar

from fleetcap import limits
from fleetcap.decide import launch
from fleetcap.model import Lease, Pool, SlotId
from local.fargate.tasks import Status
from local.memory.ecs import MemoryEcs, MemoryTask
from local.simulator.history import LAUNCH, LEAVES_S, POOL, TOLD_S, Calls, History
from local.simulator.plan import Fault, JobPlan, MessagePlan, Plan
from local.simulator.ports import SimulatedClock
from local.simulator.workloads import Workload, lower_bound_s
from local.simulator.world import BEGAN_AT, Process, World

T = TypeVar("T")

CALL_S: Final = {"table": 0.01, "ecs": 0.3, "cache": 0.03, "rejects": 0.03}
"""How long a call takes on the mean; each takes from nothing to twice that."""

BEFORE_PULL_S: Final = 10.0
"""How much of a cold start passes before the image is pulled, when Fargate begins to bill."""

BILLED_LEAST_S: Final = 60.0
DECIDERS: Final = 5
"""Functions that take in messages at once: with what Lambda begins; a long burst gets more of them."""

ASLEEP_MOST_S: Final = 20.0
"""A busy worker comes round four times a second and mostly finds nothing; here it skips as many rounds as this takes,
but none in which its job ends. Beats and heartbeats stay in time."""

API_PROCESSES: Final = 4
"""How many processes decide by the older policy, each knowing its own launches only."""
LIST_LAGS_S: Final = (1.0, 5.0)
"""How old a ListTasks may be, at least and at most."""
OWN_LAUNCHES_S: Final = 60.0
RETRY_S: Final = 120.0


@dataclass(frozen=True)
class Figures:
    """One policy on one workload. Times in seconds from the first arrival."""

    policy: str
    makespan_s: float
    bound_s: float
    """The lower bound for who keeps to the cap."""
    peak: int
    """The most tasks that lived at once, by ECS's own record."""
    cap: int
    tasks: int
    wait_mean_s: float
    """From a job's arrival to its computation's begin."""
    wait_p95_s: float
    billed_s: float
    job_seconds: float

    @property
    def ratio(self) -> float:
        """Makespan by lower bound: 1 is as fast as can be. Who breaks the cap may come below."""
        return self.makespan_s / self.bound_s

    @property
    def bought(self) -> float:
        """Worker-seconds that Fargate bills for each second that a job computes."""
        return self.billed_s / self.job_seconds


@dataclass(frozen=True)
class Span:
    """When a job computed, in seconds since the start."""

    began_s: float
    ended_s: float


def figures(policy: str, work: Workload, spans: Collection[Span], tasks: Collection[MemoryTask]) -> Figures:
    """What came of a workload. `spans` are in the order of its jobs; every task has stopped."""
    waits = [span.began_s - job.at for span, job in zip(spans, work.jobs, strict=True)]
    return Figures(
        policy,
        max(span.ended_s for span in spans) - work.jobs[0].at,
        lower_bound_s(work, work.cap),
        peak(tasks),
        work.cap,
        len(tasks),
        fmean(waits),
        quantiles(waits, n=20, method="inclusive")[-1] if len(waits) > 1 else waits[0],
        sum(map(billed_s, tasks)),
        work.job_seconds,
    )


def peak(tasks: Iterable[MemoryTask]) -> int:
    """The most that lived at once. Who stopped at the moment when another began lived with it."""
    changes = sorted(change for task in tasks for change in ((task.created_at, 0, 1), (task.stopped_at, 1, -1)))
    live = most = 0
    for _, _, change in changes:
        live += change
        most = max(most, live)
    return most


def billed_s(task: MemoryTask) -> float:
    """From the pull of the image to the task's end, in whole seconds and at least a minute.

    The end is taken to be STOPPED; Fargate may stop counting some seconds earlier, for every policy alike.
    """
    return max(BILLED_LEAST_S, ceil(task.stopped_at - task.created_at - BEFORE_PULL_S))


# --- Fleetcap


def fleetcap(work: Workload, idle_exit_s: float = limits.IDLE_EXIT_S) -> Figures:
    """The production code, its workers leaving after so long without a job. Raises Violation."""
    history = _Measured(work, idle_exit_s)
    history.run()
    runs = (history.truth.runs[_key(number)][-1] for number in range(len(work.jobs)))
    spans = [Span(run.began_at - BEGAN_AT, run.ended_at - BEGAN_AT) for run in runs]
    measured = figures(f"Fleetcap, idle exit {idle_exit_s:.0f} s", work, spans, history.ecs.tasks.values())
    history.forget()
    return measured


def _key(number: int) -> str:
    return f"job/{number}"


class _Measured(History):
    """A history in which nothing goes wrong, and every call takes its usual time."""

    def __init__(self, work: Workload, idle_exit_s: float) -> None:
        jobs = (JobPlan(_key(number), job.duration_s) for number, job in enumerate(work.jobs))
        messages = tuple(MessagePlan(each.at, 0.0, job) for each, job in zip(work.jobs, jobs, strict=True))
        plan = Plan(
            seed=work.seed,
            cap=work.cap,
            lanes=1,
            deciders=DECIDERS,
            batch=10,
            messages=messages,
            cold_start_s=work.cold_start_s,
            idle_exit_s=idle_exit_s,
            supervise_s=ASLEEP_MOST_S,
        )
        super().__init__(plan, tracing=False)

    def cold_start_s(self) -> float:
        return self.plan.cold_start_s

    def caller(self, process: Process) -> Calls:
        return _UsualCalls(self, process)

    def clock_of(self, process: Process) -> SimulatedClock:
        return _RoundsClock(process, self.random, self.plan.supervise_s)


class _UsualCalls(Calls):
    """Every call is answered."""

    def call(self, port: str, what: object, effect: Callable[[], T], kinds: tuple[Fault, ...]) -> T:
        self._history.calls += 1
        self.process.pause(self._history.chance.random() * 2 * CALL_S[port])
        return effect()


class _RoundsClock(SimulatedClock):
    """Whole rounds of a busy worker's loop are skipped, so it learns of its job's end as late as it does in truth."""

    def sleep(self, seconds: float) -> None:
        if self.children and seconds == limits.SUPERVISE_S:
            until_s = min(self.children.next_at - self._world.now, self._supervise_s)
            seconds *= max(1, ceil(until_s / seconds))
        self._process.pause(seconds, interruptible=True)
