"""What Fleetcap asks of the world. Every port is synchronous; clocks, sleeps and random numbers are ports as well.

A *refused* conditional write is an answer, not an error: it comes back as False or None. Exceptions mean that the
world did not answer; asked again with the same `op`, a write that landed unseen counts as a success.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fleetcap.model import (
    Artifact,
    Attempt,
    Flags,
    Holder,
    Job,
    JobStatus,
    LaunchAnswer,
    Lease,
    Pool,
    Queued,
    Running,
    Slot,
    SlotId,
    TaskStatus,
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

    def slots(self, pool: str) -> list[Slot]:
        """All slots of a pool by number, strongly consistent."""

    def slot(self, slot: SlotId) -> Slot | None:
        """One slot, strongly consistent."""

    def create_slots(self, slots: Iterable[SlotId], now: float) -> None:
        """Create the slots that do not exist; an existing one is left as it is."""

    def lease(
        self, slot: Slot, launch: str, for_job: str, strikes: int, now: float, op: str, starved_at: float = 0.0
    ) -> bool:
        """EMPTY at the generation as read, not retiring → LAUNCHING. False: somebody else has it."""

    def launched(self, lease: Lease, arn: str, now: float) -> bool:
        """LAUNCHING under this lease without an ARN, or with this one → the ARN is known."""

    def beat(self, lease: Lease, arn: str, first: bool, now: float) -> Flags | None:
        """LAUNCHING or READY under this lease, ARN none or mine → READY, seen now. None: not ours any more."""

    def release(self, lease: Lease, arn: str, now: float, why: str, retry_at: float, op: str) -> bool:
        """Held under this lease, its ARN as given ("" = none) → EMPTY, next generation. Needs proof, see protocol.

        `retry_at` above 0 says that the launch failed and that the pool should not try again before then.
        """

    def missing(self, lease: Lease, since: float) -> bool:
        """Note since when DescribeTasks says MISSING; 0 clears it."""

    def retire(self, slot: SlotId, retire: bool) -> None:
        """Mark a slot above the cap, or take the mark back."""


class Jobs(Protocol):
    """The job half of the control table: it alone carries ONE-RUN."""

    def job(self, key: str) -> Job | None:
        """One job, strongly consistent."""

    def queued(self, pool: Pool, now: float, limit: int) -> list[Queued]:
        """The first `limit` QUEUED jobs that are due, by rank, from the lagging index."""

    def running(self, pool: Pool) -> list[Running]:
        """All RUNNING jobs of a pool, from the lagging index."""

    def waiting(self, pool: Pool, limit: int) -> list[Queued]:
        """The first `limit` jobs that wait for their parents, by rank, from the lagging index."""

    def active(self, pool: Pool, most: int) -> int:
        """How many jobs of a pool are QUEUED or RUNNING, from the lagging index; it stops counting at `most`."""

    def lead(self, parents: Iterable[str], dependent: str, now: float) -> None:
        """Write the edges by which the end of each parent finds the dependent. Repeatable."""

    def dependents(self, parent: str) -> list[str]:
        """Every key that an edge leads to, strongly consistent: who may wait for this job, or once did."""

    def unblock(self, waiting: Job, now: float, op: str) -> Job | None:
        """This run, WAITING → QUEUED, due now; the job as it stands then. None: somebody has moved it on."""

    def put(self, job: Job, replacing: Job | None, op: str) -> bool:
        """Absent, or the finished run that was read → this run. False: somebody was first."""

    def grow(self, array: Job) -> bool:
        """This run, WAITING → all its parts have been put. False: it has ended meanwhile."""

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


class ControlTable(Slots, Jobs, Protocol):
    """The one table."""


class Tasks(Protocol):
    """The Fargate fleet, through ECS."""

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        """RunTask(count=1) with the token of this lease and the parameters stored with it."""

    def stop(self, cluster: str, arn: str, why: str) -> None:
        """StopTask; a task that is already gone is no error."""

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        """DescribeTasks for every ARN; each appears in the answer."""


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
