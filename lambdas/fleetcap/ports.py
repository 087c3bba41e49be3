"""What Fleetcap asks of the world. Every port is synchronous; clocks, sleeps and random numbers are ports as well.

A *refused* conditional write is an answer, not an error: it comes back as False or None. Exceptions mean that the
world did not answer; asked again with the same `op`, a write that landed unseen counts as a success.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleetcap.model import (
    Artifact,
    Attempt,
    Bank,
    Flags,
    Holder,
    Job,
    JobStatus,
    LaunchAnswer,
    Lease,
    Override,
    Passed,
    Pool,
    Queued,
    Reservation,
    Running,
    SeenTask,
    Slot,
    SlotId,
    TaskStatus,
    Use,
)


class Clock(Protocol):
    """The only source of time, waiting and chance."""

    def now(self) -> float:
        """Unix seconds."""

    def sleep(self, seconds: float) -> None:
        """Return after about `seconds`, or earlier where a signal asks for attention."""

    def uniform(self, low: float, high: float) -> float:
        """A random number between the two."""

    def unique(self) -> str:
        """A name that nobody else draws: the `op` of one logical write."""


class Slots(Protocol):
    """The slot half of the control table: it alone carries CAP."""

    def bank(self, pool: str, number: int) -> Bank:
        """One bank of a pool's slots by number, strongly consistent; with the first, what was said of the pool."""

    def slots(self, pool: str) -> list[Slot]:
        """All slots of a pool by number, strongly consistent: for onlookers, as a large pool has many."""

    def slot(self, slot: SlotId) -> Slot | None:
        """One slot, strongly consistent."""

    def create_slots(self, slots: Iterable[SlotId], now: float, retired_by: int | None = None) -> None:
        """Create the slots that do not exist; an existing one is left as it is."""

    def lease(
        self,
        slot: Slot,
        launch: str,
        for_job: str,
        strikes: int,
        now: float,
        op: str,
        starved_at: float = 0.0,
        provider: str = "",
    ) -> bool:
        """EMPTY at the generation as read, not retiring → LAUNCHING. False: somebody else has it."""

    def launched(self, lease: Lease, arn: str, now: float) -> bool:
        """LAUNCHING under this lease without an ARN, or with this one → the ARN is known."""

    def beat(
        self, lease: Lease, arn: str, first: bool, now: float, idle_since: float = 0.0, image: str = ""
    ) -> Flags | None:
        """LAUNCHING or READY under this lease, ARN none or mine → READY, seen now. None: not ours any more.

        `idle_since`: since when it has had nothing to do; 0 while it is busy. `image` is told with the first beat.
        """

    def release(
        self, lease: Lease, arn: str, now: float, why: str, retry_at: float, op: str, use: Use | None = None
    ) -> bool:
        """Held under this lease, its ARN as given ("" = none) → EMPTY, next generation. Needs proof, see protocol.

        `retry_at` above 0 says that the launch failed and that the pool should not try again before then. `use` is what
        the slot has been held for today, this lease included.
        """

    def missing(self, lease: Lease, since: float) -> bool:
        """Note since when DescribeTasks says MISSING; 0 clears it."""

    def retire(self, slot: SlotId, retire: bool, version: int = 0) -> bool:
        """Mark a slot above the cap of this version, or take the mark back. False: there is none, or a newer mark."""

    def leave(self, lease: Lease, why: str) -> bool:
        """Held under this lease → its worker takes no further job and leaves."""

    def keep(self, lease: Lease, keep: bool) -> bool:
        """Held under this lease → its worker stays although it is idle, or no longer."""


class Pools(Protocol):
    """What people say of pools at run time."""

    def override(self, pool: str) -> Override:
        """What was said of a pool so far, strongly consistent."""

    def say(self, pool: str, said: Mapping[str, Any], version: int, op: str) -> Override | None:
        """At the version as read → these words, None taking one back. None: somebody else has said something."""

    def widen(self, pool: str, banks: int) -> None:
        """So many banks of slots exist."""

    def reserve(self, reservation: Reservation) -> bool:
        """A new reservation. False: the name is in use."""

    def unreserve(self, pool: str, name: str, now: float) -> bool:
        """End a reservation. False: there is none of this name."""


class Jobs(Protocol):
    """The job half of the control table: it alone carries ONE-RUN."""

    def job(self, key: str) -> Job | None:
        """One job, strongly consistent."""

    def jobs(self, job_keys: Sequence[str]) -> Mapping[str, Job]:
        """Those of the jobs that exist, by key: each strongly consistent, a hundred a request."""

    def queued(self, pool: Pool, now: float, limit: int) -> list[Queued]:
        """The first `limit` QUEUED jobs that are due, by rank, from the lagging index."""

    def running(self, pool: Pool, banks: Iterable[int] | None = None) -> list[Running]:
        """The RUNNING jobs on these banks of a pool's slots (None: on all), from the lagging index."""

    def waiting(self, pool: Pool, limit: int) -> list[Queued]:
        """The first `limit` jobs that wait for their parents, by rank, from the lagging index."""

    def active(self, pool: Pool, most: int, bounded: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> int:
        """How many jobs of a pool are QUEUED or RUNNING, from the lagging index; it stops counting at `most`, or where
        `bounded` ends what it is given."""

    def lead(self, parents: Iterable[str], dependent: str, now: float) -> None:
        """Write the edges by which the end of each parent finds the dependent. Repeatable."""

    def dependents(self, parent: str, most: int) -> list[str]:
        """The first `most` keys that an edge leads to, strongly consistent: who may wait for this job, or once did."""

    def unblock(self, waiting: Job, now: float, op: str, rank: str = "") -> Job | None:
        """This run, WAITING → QUEUED, due now; the job as it stands then. None: somebody has moved it on.

        `rank` is its place in the queue; "" for that of its put.
        """

    def put(self, job: Job, replacing: Job | None, op: str) -> bool:
        """Absent, or the finished run that was read → this run. False: somebody was first."""

    def grow(self, array: Job, parts: int | None = None) -> bool:
        """This run, WAITING → so many of its parts have been put; None: all. False: it has ended meanwhile."""

    def pass_over(self, array: Job, passed: Passed) -> None:
        """In this run: so many of its parts need not be looked at any more. What somebody else noted may be lost."""

    def gather(
        self, array: Job, status: JobStatus, now: float, error: str, counts: tuple[int, int, int], op: str
    ) -> bool:
        """This run, WAITING → the final status of an array, with how many completed, failed, were cancelled."""

    def claim(self, queued: Job, holder: Holder, now: float, op: str, task: str = "") -> Job | None:
        """QUEUED at the attempt as read → RUNNING, attempt + 1, holder. None: somebody else has it."""

    def heartbeat(
        self, running: Job, now: float, stage: str, fraction: float, message: str, artifacts: Sequence[str] = ()
    ) -> Job | None:
        """RUNNING under this attempt → how far it is; the job as it stands then. None: not ours any more."""

    def cancel(self, running: Job, reason: str) -> bool:
        """This run, RUNNING → to be ended by its holder; whatever else becomes of it, it is not queued again."""

    def finish(
        self,
        job: Job,
        status: JobStatus,
        now: float,
        error: str,
        artifacts: Sequence[str],
        op: str,
        attempt: Attempt | None = None,
    ) -> bool:
        """RUNNING under this attempt, QUEUED at the attempt as read, or WAITING in this run → the final status."""

    def requeue(self, running: Job, due_at: float, error: str, attempt: Attempt, op: str) -> bool:
        """RUNNING under this attempt and holder, who is dead or asks himself; not to be cancelled → QUEUED."""


class Shares(Protocol):
    """How far the tenants of a pool have drawn: it carries nothing but the order of the queue."""

    def draw(self, pool: Pool, priority: int, jobs: Mapping[str, int], now: float) -> dict[str, list[int]]:
        """Tags for so many new jobs of each tenant, in order: one write a tenant. A tag that nobody uses is lost."""


class ControlTable(Slots, Pools, Jobs, Shares, Protocol):
    """The one table."""


class Tasks(Protocol):
    """The Fargate fleet, through ECS."""

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        """RunTask(count=1) with the token of this lease and the parameters stored with it."""

    def stop(self, cluster: str, arn: str, why: str) -> None:
        """StopTask; a task that is already gone is no error."""

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        """DescribeTasks for every ARN; each appears in the answer."""

    def listed(self, cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        """One page of ListTasks behind `token` ("" at first): ARNs, and the next token, "" where there is none.

        Tasks that are meant to run, or with `stopping` those that are not any more, also long stopped ones. It lags.
        """

    def identify(self, cluster: str, arns: Collection[str]) -> list[SeenTask]:
        """DescribeTasks in one call, at most 100 ARNs: who the tasks are that ECS knows. It lags."""


class Cache(Protocol):
    """The bucket of results."""

    def has_all(self, keys: Sequence[str]) -> bool:
        """Whether every key exists. No keys: False."""

    def commit(self, path: str, key: str, kind: str) -> Artifact:
        """Upload a file under `If-None-Match: *`; an equal artifact that stood there first is left in place."""


class Log(Protocol):
    """Where decisions are written down: one structured line each."""

    def __call__(self, event: str, **fields: object) -> None:
        """Write one line; `event` is its message."""


class Rejects(Protocol):
    """The queue of messages that can never run, kept with their reasons."""

    def reject(self, body: str, reason: str, message_id: str) -> None:
        """Keep the message, truncated where it is too large, with one sentence of reason."""


class Rechecks(Protocol):
    """The way to have jobs judged anew."""

    def recheck(self, dependents: Sequence[str]) -> None:
        """Have intake judge these keys once more. Raises where that is not certain; repeatable."""


class Bus(Protocol):
    """The deployment's event bus."""

    def publish(self, details: Sequence[str]) -> Sequence[str]:
        """Send each detail, a JSON text, as an event. For each: "" if the bus took it, else why it did not."""


@dataclass(frozen=True)
class Assignment:
    """What the supervising loop hands to a job's child process."""

    job_id: str
    workflow_key: str
    attempt: int
    source: str
    processor: str
    md5: str
    params: Mapping[str, str | int | float | bool]
    made_for: float = 0.0
    """When the run was put, unix seconds: what its artifacts are marked with."""
    since: float = 0.0
    """Artifacts made for an earlier run than this do not count; 0: all do."""


@dataclass(frozen=True)
class Progress:
    """The child reached a stage, or got further within one. `fraction` is 0 to 1 of the whole job."""

    stage: str
    fraction: float
    message: str = ""


@dataclass(frozen=True)
class Failure:
    """The child gave up. A permanent failure is never retried."""

    error: str
    permanent: bool


@dataclass(frozen=True)
class ChildReport:
    """What a child said since it was last asked. `exit_code` is None while it runs."""

    progress: Progress | None = None
    artifacts: tuple[Artifact, ...] = ()
    failure: Failure | None = None
    exit_code: int | None = None
    lines: tuple[str, ...] = field(default_factory=tuple)


class Child(Protocol):
    """One job's process group."""

    def report(self) -> ChildReport:
        """What was said since the last call, without waiting. Artifacts accumulate."""

    def kill(self) -> None:
        """TERM, five seconds, KILL, for the whole group; returns when it is gone. Repeatable."""


class Children(Protocol):
    """Starts the processes in which jobs run."""

    def start(self, assignment: Assignment) -> Child:
        """Start the job's child in its own process group and with its own work directory."""
