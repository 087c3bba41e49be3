"""How good Fleetcap's decisions are, and those of two other policies: makespan, waits, and what Fargate bills.

Fleetcap's figures are those of the production code in a world where nothing goes wrong. The others are a few lines each
below, on the same clock, the same ECS and the same time for every call, cold start, end and event. What is not in that
world: Lambda's cold starts, ECS's limit on launches (100 at once, 20 a second), and the spread of real cold starts,
which would blur the bound. What does not follow from a policy is chosen in favour of the others: they know a job at the
moment when it is sent, forget none, and write nothing down.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from operator import itemgetter
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

    def looks_in_vain(self, _process: Process) -> bool:
        return False  # each look takes its time

    def clock_of(self, process: Process) -> SimulatedClock:
        return _RoundsClock(process, self.random, self.plan.supervise_s)


class _UsualCalls(Calls):
    """A call takes as long as is usual at its port."""

    def call(self, port: str, what: object, effect: Callable[[], T], kinds: tuple[Fault, ...]) -> T:
        self._slowest_s = 2 * CALL_S[port]
        return super().call(port, what, effect, kinds)


class _RoundsClock(SimulatedClock):
    """Whole rounds of a busy worker's loop are skipped, so it learns of its job's end as late as it does in truth."""

    def sleep(self, seconds: float) -> None:
        if self.children and seconds == limits.SUPERVISE_S:
            until_s = min(self.children.next_at - self._world.now, self._supervise_s)
            seconds *= max(1, ceil(until_s / seconds))
        self._process.pause(seconds, interruptible=True)


# --- the others: a task per job


class _TaskPerJob:
    """What both have in common: a job's task begins it a cold start after its launch, and ends with it."""

    name: str

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.world = World(tracing=False)
        self.random = Random(work.seed ^ 0x5EED)
        self.ecs = MemoryEcs(lambda: self.world.now, self._changed)
        self.launches: list[int] = []
        """Job by task, in the order of their numbers."""
        self.spans: dict[int, Span] = {}
        self._request = launch.request(Pool(POOL, work.cap, LAUNCH), Lease(SlotId(POOL, 0), 0), "LEASE")

    def run(self) -> Figures:
        """Until every job is done and every task has stopped."""
        for number, job in enumerate(self.work.jobs):
            self.world.at(BEGAN_AT + job.at, partial(self.arrives, number))
        while not self.world.idle:
            self.world.step()
        spans = [self.spans[number] for number in range(len(self.work.jobs))]
        return figures(self.name, self.work, spans, self.ecs.tasks.values())

    def arrives(self, job: int) -> None:
        """Somebody wants a job done."""
        raise NotImplementedError

    def stopped(self) -> None:
        """EventBridge tells that a task has stopped."""

    def call(self, then: Callable[[], None]) -> None:
        """Ask ECS; `then` is when it takes effect."""
        self.world.after(self.random.random() * 2 * CALL_S["ecs"], then)

    def launch(self, job: int) -> None:
        """RunTask takes effect."""
        self.launches.append(job)
        self.ecs.run(Lease(SlotId(POOL, 0), len(self.launches)), self._request)

    def _changed(self, task: MemoryTask) -> None:
        match task.status:
            case Status.PROVISIONING:
                self.world.after(self.work.cold_start_s, partial(self.ecs.advance, task, Status.RUNNING))
            case Status.RUNNING:
                self.world.after(self._duration_s(task), partial(self.ecs.advance, task, Status.DEPROVISIONING))
            case Status.DEPROVISIONING:
                ended_s = self.world.now - BEGAN_AT
                self.spans[self.launches[task.number]] = Span(ended_s - self._duration_s(task), ended_s)
                leaves_s = self.random.uniform(1.0, LEAVES_S)
                self.world.after(leaves_s, partial(self.ecs.advance, task, Status.STOPPED))
            case Status.STOPPED:
                self.world.after(self.random.uniform(*TOLD_S), self.stopped)
            case _:
                raise ValueError(task.status)

    def _duration_s(self, task: MemoryTask) -> float:
        return self.work.jobs[self.launches[task.number]].duration_s


class ExactTaskPerJob(_TaskPerJob):
    """One decider that knows all: it launches as soon as it hears that a task has stopped, the oldest job first."""

    name = "a task per job, exact cap"

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self._waiting: deque[int] = deque()
        self._room = work.cap

    def arrives(self, job: int) -> None:
        self._waiting.append(job)
        self._fill()

    def stopped(self) -> None:
        self._room += 1
        self._fill()

    def _fill(self) -> None:
        while self._room and self._waiting:
            self._room -= 1
            self.call(partial(self.launch, self._waiting.popleft()))


class Counting(_TaskPerJob):
    """The older policy: several processes count ListTasks, which lags, and each what it launched itself of late.

    A launch of its own that the list shows already counts twice; one of another process that it does not show yet
    counts for nothing. A job that finds no room is weighed again two minutes later.
    """

    name = "counting ListTasks"

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.live_at: list[tuple[float, int]] = [(0.0, 0)]
        """How many tasks lived from when on."""
        self._processes = [_ApiProcess(self) for _ in range(API_PROCESSES)]

    def arrives(self, job: int) -> None:
        self.random.choice(self._processes).weigh(job)

    def listed(self) -> int:
        """What ListTasks answers: all pages, of some seconds ago."""
        as_of = self.world.now - self.random.uniform(*LIST_LAGS_S)
        return self.live_at[bisect_right(self.live_at, as_of, key=itemgetter(0)) - 1][1]

    def _changed(self, task: MemoryTask) -> None:
        self.live_at.append((self.world.now, len(self.ecs.live)))
        super()._changed(task)


class _ApiProcess:
    """One process of the portal: a lock makes it weigh one job after the other."""

    def __init__(self, policy: Counting) -> None:
        self._policy = policy
        self._waiting: deque[int] = deque()
        self._weighing = False
        self._own: deque[float] = deque()

    def weigh(self, job: int) -> None:
        self._waiting.append(job)
        if not self._weighing:
            self._next()

    def _next(self) -> None:
        self._weighing = bool(self._waiting)
        if self._weighing:
            self._policy.call(self._decide)

    def _decide(self) -> None:
        """The list has been read."""
        policy, world, job = self._policy, self._policy.world, self._waiting.popleft()
        while self._own and self._own[0] <= world.now - OWN_LAUNCHES_S:
            self._own.popleft()
        if policy.listed() + len(self._own) < policy.work.cap:
            self._own.append(world.now)
            policy.call(partial(policy.launch, job))
        else:
            world.after(RETRY_S, partial(self.weigh, job))
        self._next()


POLICIES: Final[Mapping[str, Callable[[Workload], Figures]]] = {
    "fleetcap": fleetcap,
    "fleetcap-60": partial(fleetcap, idle_exit_s=60.0),
    "task-per-job": lambda work: ExactTaskPerJob(work).run(),
    "counting": lambda work: Counting(work).run(),
}
"""By the name that the command line takes."""
