"""The things Fleetcap decides about: pools, slots, jobs. Values only; nothing here reads a clock or the network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from fleetcap import limits


class SlotState(StrEnum):
    """EMPTY → LAUNCHING → READY → EMPTY."""

    EMPTY = "EMPTY"
    LAUNCHING = "LAUNCHING"
    READY = "READY"


class JobStatus(StrEnum):
    """QUEUED → RUNNING → COMPLETED | FAILED | CANCELLED, and RUNNING → QUEUED on a retry or an interruption.

    A job that depends on others begins as WAITING, and is QUEUED, FAILED or CANCELLED from there.
    """

    WAITING = "WAITING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """True for the three states that a run does not leave."""
        return self in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


class Mode(StrEnum):
    """What a person lets a pool do."""

    OPEN = "open"
    PAUSED = "paused"
    """No job starts and no worker is launched; what runs goes on."""
    DRAINING = "draining"
    """The same, and workers leave once they have nothing to do."""
    STOPPED = "stopped"
    """The same, and every task is stopped; its jobs go back."""


class OnParentFailure(StrEnum):
    """What becomes of a job of whose parents one ended FAILED or CANCELLED."""

    FAIL = "fail"
    """It fails as well."""
    RUN = "run"
    """It runs once all its parents have ended, however they did."""


class FailureClass(StrEnum):
    """Why an attempt did not end well; each class has its own bound on retries. See decide/retry.py."""

    INTERRUPTED = "interrupted"
    """Its worker went away: Spot, a drain, a lost host. Not the job's fault."""
    FAILED = "failed"
    """An exit code, an exception, memory that ran out."""
    TIMEOUT = "timeout"
    """It took longer than it may."""
    PERMANENT = "permanent"
    """Bad input: it would fail alike every time."""


class SlotId(NamedTuple):
    """A numbered place of a pool; its text form is `pool/number`."""

    pool: str
    number: int

    def __str__(self) -> str:
        return f"{self.pool}/{self.number}"

    @property
    def bank(self) -> int:
        """The bank of slots that it is in: what one query of the table reads."""
        return self.number // limits.BANK_SLOTS

    @classmethod
    def parse(cls, text: str) -> SlotId:
        """Read `pool/number`. Raises ValueError on anything else."""
        pool, slash, number = text.rpartition("/")
        if not (slash and pool and "/" not in pool and number.isdecimal()):
            raise ValueError(f"{text!r} is not a slot: it must read pool/number")
        return cls(pool, int(number))


class Lease(NamedTuple):
    """A slot under one generation: the fencing token. Its text form `pool/number/generation` is RunTask's startedBy.

    ECS allows letters, digits, `-`, `/` and `_` there, and nothing else.
    """

    slot: SlotId
    generation: int

    def __str__(self) -> str:
        return f"{self.slot}/{self.generation}"

    @classmethod
    def parse(cls, text: str) -> Lease:
        """Read `pool/number/generation`. Raises ValueError on anything else."""
        slot, slash, generation = text.rpartition("/")
        if not (slash and generation.isdecimal()):
            raise ValueError(f"{text!r} is not a lease: it must read pool/number/generation")
        return cls(SlotId.parse(slot), int(generation))


class Holder(NamedTuple):
    """Who runs a job: one lane of the worker under a lease. Text form `pool/number/generation/lane`."""

    lease: Lease
    lane: int = 0

    def __str__(self) -> str:
        return f"{self.lease}/{self.lane}"

    @classmethod
    def parse(cls, text: str) -> Holder:
        """Read `pool/number/generation/lane`. Raises ValueError on anything else."""
        lease, slash, lane = text.rpartition("/")
        if not (slash and lane.isdecimal()):
            raise ValueError(f"{text!r} is not a holder: it must read pool/number/generation/lane")
        return cls(Lease.parse(lease), int(lane))


@dataclass(frozen=True)
class Pool:
    """A class of workers: one task definition, one cap, one policy. `launch` holds RunTask's parameters, as sent.

    `dispatch_deadline_s` bounds the wait for capacity that does not come, `waiting_limit_s` any wait; 0: unbounded.
    Of its workers `min_workers` live at any time, and `warm_workers` are idle or coming, all within the cap.
    `budget_task_hours` bounds what its tasks may come to in a day (UTC); 0: nothing does. `providers` are Fargate's
    capacity providers with their weights; none: on demand. `spot_fallback` goes on demand where Spot is refused.
    `image` names the worker image that a launch would get. `job_timeout_s`, `max_attempts` and `max_interruptions` are
    what a job may do of which its message says nothing. From `mode` on it is as `under` an override.

    `active_jobs_max` is the number of active jobs from which on new ones are refused; 0: none are. With `fair_shares`
    tenants of equal priority share the pool by `tenant_weights`, 1 where one has none; else jobs go by age.
    `parents_limit_s` bounds the wait for parents.
    """

    name: str
    cap: int
    launch: Mapping[str, object] = field(default_factory=dict)
    jobs_per_worker: int = 1
    shards: int = limits.OPEN_SHARDS
    dispatch_deadline_s: float = limits.DISPATCH_DEADLINE_S
    waiting_limit_s: float = 0.0
    active_jobs_max: int = 0
    min_workers: int = 0
    warm_workers: int = 0
    budget_task_hours: float = 0.0
    providers: Mapping[str, int] = field(default_factory=dict)
    spot_fallback: bool = True
    image: str = ""
    job_timeout_s: int = limits.JOB_TIMEOUT_S
    max_attempts: int = limits.MAX_ATTEMPTS
    max_interruptions: int = limits.MAX_INTERRUPTIONS
    fair_shares: bool = False
    tenant_weights: Mapping[str, int] = field(default_factory=dict)
    parents_limit_s: float = limits.PARENTS_LIMIT_S
    mode: Mode = Mode.OPEN
    reason: str = ""
    version: int = 0
    banks: int = 1

    def under(self, override: Override) -> Pool:
        """The pool as it is configured, but for what was said of it since."""
        said, stands = vars(override), vars(self)
        changed = {name: said[name] for name in _TOLD if said[name] is not None and said[name] != stands[name]}
        return replace(self, **changed) if changed else self


OVERRIDABLE: Final = ("cap", "min_workers", "warm_workers", "budget_task_hours")
"""What may be set at run time, without a deploy."""
_TOLD: Final = (*OVERRIDABLE, "mode", "reason", "version", "banks")
"""What an override says of a pool, None where it says nothing of it."""


@dataclass(frozen=True)
class Override:
    """What was said of a pool at run time; None: as it is configured. `version` grows with every word.

    `banks` is how many banks of slots have been made, and `cap_max` the highest cap there ever was.
    """

    version: int = 0
    cap: int | None = None
    min_workers: int | None = None
    warm_workers: int | None = None
    budget_task_hours: float | None = None
    mode: Mode = Mode.OPEN
    reason: str = ""
    cap_max: int = 0
    banks: int = 1


@dataclass(frozen=True)
class Reservation:
    """So many workers of a pool are to live until then. Times are unix seconds; it expires by itself."""

    pool: str
    name: str
    workers: int
    until: float
    made_at: float = 0.0


class Use(NamedTuple):
    """For how long a slot was held on a day. `day` counts from 1970, in UTC."""

    day: int
    seconds: float


class Passed(NamedTuple):
    """How far an array has been looked through, from its last part on: so many parts that have ended, and how.

    `counts`: of their elements, how many completed, failed, were cancelled; `first`: the key of the first part among
    them that did not complete. Of a cancelled array: the parts that have been told.
    """

    parts: int = 0
    counts: tuple[int, int, int] = (0, 0, 0)
    first: str = ""


NOT_PASSED: Final = Passed()


@dataclass(frozen=True)
class Bank:
    """One bank of a pool's slots, and what else stands beside the first one."""

    slots: Sequence[Slot]
    override: Override = Override()
    reservations: Sequence[Reservation] = ()


@dataclass(frozen=True)
class Slot:
    """One of the pool's numbered places, as a strongly consistent read showed it. Times are unix seconds.

    `provider` is where its last launch went; `failed_by` and `ready_by` belong to failures and workers before that.
    """

    id: SlotId
    state: SlotState
    generation: int
    launch: str = ""
    arn: str = ""
    leased_at: float = 0.0
    launched_at: float = 0.0
    for_job: str = ""
    seen_at: float = 0.0
    ready_at: float = 0.0
    missing_since: float = 0.0
    failed_at: float = 0.0
    retry_at: float = 0.0
    strikes: int = 0
    starved_at: float = 0.0
    why: str = ""
    leave: bool = False
    retire: bool = False
    keep: bool = False
    idle_since: float = 0.0
    provider: str = ""
    failed_by: str = ""
    ready_by: str = ""
    image: str = ""
    used_day: int = 0
    used_s: float = 0.0
    cap_version: int = 0

    @property
    def lease(self) -> Lease:
        """The fence of whoever acts for this slot now."""
        return Lease(self.id, self.generation)

    @property
    def began_at(self) -> float:
        """When its worker was launched; a first beat may come before anybody has recorded that."""
        return self.launched_at or self.leased_at

    @property
    def failed_with(self) -> str:
        """The provider whose launch failed here last."""
        return self.provider if self._failed_last else self.failed_by

    @property
    def ready_with(self) -> str:
        """The provider of the last worker that became ready here."""
        return self.ready_by if self._failed_last or self.state is SlotState.LAUNCHING else self.provider

    @property
    def _failed_last(self) -> bool:
        """Its last lease ended without a worker."""
        return self.state is SlotState.EMPTY and self.failed_at > self.ready_at

    @property
    def held(self) -> bool:
        """A task of this generation lives, or may live."""
        return self.state is not SlotState.EMPTY


@dataclass(frozen=True)
class Request:
    """What a producer asked for, after validation. It rides in the job item and never changes within a run."""

    source: str
    processor: str
    md5: str = ""
    params: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    max_attempts: int = limits.MAX_ATTEMPTS
    timeout_s: int = limits.JOB_TIMEOUT_S
    max_interruptions: int = limits.MAX_INTERRUPTIONS
    depends_on: tuple[str, ...] = ()
    """The workflow keys of its parents: it waits until all of them have ended."""
    on_parent_failure: OnParentFailure = OnParentFailure.FAIL
    array: int = 0
    """How many elements it stands for; 0 for a job that runs by itself."""
    first: int = 0
    """The index of the first of them."""
    step: int = 0
    """How many of them each of its parts stands for: 1 where these are the elements themselves."""
    part_of: str = ""
    """The key of the array, or of the part of one, that it belongs to."""


@dataclass(frozen=True)
class Submission:
    """One accepted message: the request under its workflow key. `sent_at` is SQS's SentTimestamp in unix seconds."""

    key: str
    pool: str
    priority: int
    request: Request
    sent_at: float
    force: bool = False
    correlation_id: str = ""
    tenant: str = ""


@dataclass(frozen=True)
class Attempt:
    """One attempt that did not end well. `task` is the last part of its task's ARN; times are unix seconds."""

    number: int
    failure: FailureClass
    reason: str
    task: str
    began_at: float
    ended_at: float


@lru_cache(maxsize=1_024)
def key_hash(key: str) -> str:
    """A short stable name for a workflow key: 16 hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Job:
    """One workflow key's item, which is also its mutex: at most one active run. Times are unix seconds.

    `changes` grows with every change of status, across runs as well. Results made before `since` do not count for this
    run. `cancel` is why somebody wants it ended, or empty; a job that is to be cancelled never returns to the queue.
    """

    key: str
    run: int
    status: JobStatus
    pool: str
    priority: int
    request: Request
    shard: int = 0
    rank: str = ""
    attempt: int = 0
    holder: Holder | None = None
    queued_at: float = 0.0
    due_at: float = 0.0
    claimed_at: float = 0.0
    heartbeat_at: float = 0.0
    ended_at: float = 0.0
    changes: int = 0
    since: float = 0.0
    correlation_id: str = ""
    tenant: str = ""
    task: str = ""
    cancel: str = ""
    history: tuple[Attempt, ...] = ()
    stage: str = ""
    fraction: float = 0.0
    message: str = ""
    error: str = ""
    artifacts: tuple[str, ...] = ()
    grown: bool = False
    """Of an array: all its parts have been put."""
    put: int = 0
    """Of an array that has not grown yet: so many of its parts have been put, from the first on."""
    passed: Passed = NOT_PASSED
    counts: tuple[int, int, int] | None = None
    """Of an array that ended: how many elements completed, failed, were cancelled."""

    @property
    def ended(self) -> bool:
        """The run is over and nobody will change it any more."""
        return self.status.ended

    @property
    def id(self) -> str:
        """The run's name: the key's hash and the run's number."""
        return f"{key_hash(self.key)}-{self.run}"

    @property
    def supersedes(self) -> str:
        """The name of the run before this one, or empty."""
        return f"{key_hash(self.key)}-{self.run - 1}" if self.run > 1 else ""

    @property
    def interruptions(self) -> int:
        """How many attempts of this run were interrupted."""
        return self._endings(FailureClass.INTERRUPTED)

    @property
    def timeouts(self) -> int:
        """How many attempts of this run took too long."""
        return self._endings(FailureClass.TIMEOUT)

    @property
    def failures(self) -> int:
        """How many attempts of this run failed by themselves, those that took too long included."""
        return self._endings(FailureClass.FAILED, FailureClass.TIMEOUT)

    def _endings(self, *failures: FailureClass) -> int:
        return sum(attempt.failure in failures for attempt in self.history)

    @property
    def as_queued(self) -> Queued:
        """The job as the index will show it once it has caught up."""
        return Queued(self.key, self.pool, self.rank, self.run, self.attempt, self.queued_at, self.due_at)


@dataclass(frozen=True)
class Queued:
    """A QUEUED job as the lagging `open` index shows it: enough to decide who comes next, not enough to claim.

    A WAITING one is shown alike, in a partition of its own.
    """

    key: str
    pool: str
    rank: str
    run: int
    attempt: int
    queued_at: float
    due_at: float

    @property
    def runnable_at(self) -> float:
        """Since when it waits for capacity: a job may have waited for its parents, or for its next attempt, before."""
        return max(self.queued_at, self.due_at)


@dataclass(frozen=True)
class Running:
    """A RUNNING job as the lagging `open` index shows it."""

    key: str
    pool: str
    run: int
    attempt: int
    holder: Holder


@dataclass(frozen=True)
class Flags:
    """What a beat brings back: whether the worker should stop claiming, or may not leave for idleness."""

    leave: bool = False
    retire: bool = False
    keep: bool = False
    """Stay, however long there is nothing to do."""


@dataclass(frozen=True)
class Artifact:
    """One file of a result in the cache. `created` is False where an equal artifact stood there already."""

    kind: str
    key: str
    size_bytes: int
    created: bool = True


@dataclass(frozen=True)
class Started:
    """ECS named the task of this token."""

    arn: str


@dataclass(frozen=True)
class NotStarted:
    """ECS recorded `failures[]` under this token: no task exists, and none will come of it."""

    reason: str


class Doubt(StrEnum):
    """Why a RunTask has no answer. None of them frees a slot; they differ in what a person should do."""

    THROTTLED = "throttled"
    UNKNOWN = "unknown"
    PERMANENT = "permanent"


@dataclass(frozen=True)
class Unanswered:
    """Anything that is not an answer: a task may exist. The same token is sent again later."""

    doubt: Doubt
    reason: str


LaunchAnswer = Started | NotStarted | Unanswered


@dataclass(frozen=True)
class Stop:
    """Why a task stopped, in ECS's words: stopCode, stoppedReason with its containers' reasons, a container's exit."""

    code: str = ""
    reason: str = ""
    exit_code: int | None = None

    @property
    def text(self) -> str:
        """All of it in a line."""
        exited = "" if self.exit_code is None else f"exit code {self.exit_code}"
        return " ".join(filter(None, (self.code, self.reason, exited))) or "no reason given"


class TaskStatus(StrEnum):
    """What DescribeTasks said of a task, as far as it matters for a slot."""

    ALIVE = "ALIVE"
    STOPPED = "STOPPED"
    MISSING = "MISSING"


@dataclass(frozen=True)
class SeenTask:
    """A task as DescribeTasks showed it, whoever launched it. `group` is its family or service, in ECS's words."""

    arn: str
    status: TaskStatus
    started_by: str = ""
    group: str = ""
