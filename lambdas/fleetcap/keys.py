"""The one module that spells names: environment variables, table keys, attributes, and the named conditions.

The control table holds two kinds of items that decide. A *slot* (`POOL#<pool>#<bank>` / `SLOT#<number>`) carries CAP, a
*job* (`JOB#<workflow key>` / `JOB`) carries ONE-RUN; each has one function that writes it and one that reads it. Beside
the slots of a pool's first bank lie its reservations and what people said of it. A *share* (`SHARES#<pool>#<priority>`
/ `SHARE#<tenant>`) carries nothing but the order among tenants, an *edge* (`WAITS#<parent's key>` / `<its key>`)
leads from a job to those that may wait for it. A
conditional operation is a `Write`: what it sets, what it removes, and the condition under which it may. In expressions
`#name` is the attribute of that name and `:name` a value.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, wraps
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from fleetcap import limits, stored
from fleetcap.model import (
    Attempt,
    FailureClass,
    Holder,
    Job,
    JobStatus,
    Lease,
    Mode,
    OnParentFailure,
    Override,
    Passed,
    Queued,
    Request,
    Reservation,
    Running,
    Slot,
    SlotId,
    SlotState,
    Use,
)

# --- environment of deciders and workers
ENV_TABLE: Final = "FLEETCAP_TABLE"
ENV_POOLS: Final = "FLEETCAP_POOLS"
ENV_CACHE_BUCKET: Final = "FLEETCAP_CACHE_BUCKET"
ENV_CACHE_PREFIX: Final = "FLEETCAP_CACHE_PREFIX"
ENV_REJECTED_QUEUE_URL: Final = "FLEETCAP_REJECTED_QUEUE_URL"
ENV_SOURCE_HOSTS: Final = "FLEETCAP_SOURCE_HOSTS"
ENV_EVENT_BUS: Final = "FLEETCAP_EVENT_BUS"
ENV_UNPUBLISHED_QUEUE_URL: Final = "FLEETCAP_UNPUBLISHED_QUEUE_URL"
ENV_EVENT_STATUSES: Final = "FLEETCAP_EVENT_STATUSES"
ENV_INTAKE_QUEUE_URL: Final = "FLEETCAP_INTAKE_QUEUE_URL"
ENV_SOURCE_RULES: Final = "FLEETCAP_SOURCE_RULES"
ENV_PROCESSORS: Final = "FLEETCAP_PROCESSORS"
ENV_METRICS: Final = "FLEETCAP_METRICS"
"""The namespace of the deployment's metrics; without it there are none."""
ENV_LEASE: Final = "FLEETCAP_LEASE"
ENV_WORKER: Final = "FLEETCAP_WORKER"
ENV_HEALTH_PORT: Final = "FLEETCAP_HEALTH_PORT"

# --- events
SPOT_INTERRUPTION: Final = "SpotInterruption"
"""ECS's stopCode for a task whose Spot capacity is taken back."""
EVENT_SOURCE: Final = "fleetcap"
EVENT_DETAIL_TYPE: Final = "Fleetcap Job State Change"
JOB_STATUSES: Final = tuple(status.value for status in JobStatus)
ENDED_STATUSES: Final = tuple(status.value for status in JobStatus if status.ended)
# --- the cache
ARTIFACT_FOR: Final = "fleetcap-for"
"""An artifact's metadata: when the run that made it was queued, in Unix seconds."""

# --- the input bucket
SUBMITTED_PREFIX: Final = "submitted/"
"""What the command line uploads, each file under the digest of its content."""

# --- the table
TABLE_PK: Final = "pk"
TABLE_SK: Final = "sk"
TTL: Final = "expires_at"
OPEN_INDEX: Final = "open"
OPEN_PK: Final = "open_pk"
OPEN_RANK: Final = "open_rank"
OPEN_PROJECTION: Final = ("pool", "run", "attempt", "holder", "queued_at", "due_at")
OP: Final = "op"
SCHEMA: Final = "v"
"""On a job: what its reader has to know, 1 where it says nothing. A field that nobody may pass over raises it."""
SCHEMA_VERSION: Final = 1
"""What this reader knows."""
JOB_SK: Final = "JOB"
POOL_SK: Final = "POOL"
RESERVATION_SK: Final = "RESERVATION#"
SLOT_SK: Final = "SLOT#"
EDGES: Final = "WAITS"

# --- the intake queue
RECHECK: Final = "recheck"
"""The one field of a message by which `publish` has jobs judged anew: a list of their keys."""

Item = Mapping[str, Any]
"""An item as Python values: str, int, Decimal, bool, list."""
T = TypeVar("T")


class Unreadable(ValueError):
    """An item that this version cannot read: it is malformed, or says what only a later version knows.

    `key` is a job's workflow key, or where any other item lies.
    """

    def __init__(self, item: Item, why: str) -> None:
        pk, sk = (str(item.get(name)) for name in (TABLE_PK, TABLE_SK))
        self.key = pk.removeprefix("JOB#") if pk.startswith("JOB#") else f"{pk}/{sk}"
        super().__init__(f"{self.key} cannot be read: {why}")


def _whole(read: Callable[[Item], T]) -> Callable[[Item], T]:
    """The reader, which raises Unreadable and nothing else."""

    @wraps(read)
    def reading(item: Item) -> T:
        try:
            return read(item)
        except Exception as error:
            raise Unreadable(item, repr(error)) from error

    return reading


def bank_pk(pool: str, bank: int) -> str:
    """The partition of one bank of slots."""
    return f"POOL#{pool}#{bank:03d}"


def slot_key(slot: SlotId) -> dict[str, str]:
    """Where a slot lives."""
    return {TABLE_PK: bank_pk(slot.pool, slot.bank), TABLE_SK: f"{SLOT_SK}{slot.number:05d}"}


def override_key(pool: str) -> dict[str, str]:
    """Where a pool's settings of run time live: beside its first slots, so that whoever reads those reads them too."""
    return {TABLE_PK: bank_pk(pool, 0), TABLE_SK: POOL_SK}


def reservation_key(pool: str, name: str) -> dict[str, str]:
    """Where a reservation lives: beside the pool's first slots as well."""
    return {TABLE_PK: bank_pk(pool, 0), TABLE_SK: f"{RESERVATION_SK}{name}"}


def job_key(key: str) -> dict[str, str]:
    """Where a job lives: one item a workflow key."""
    return {TABLE_PK: f"JOB#{key}", TABLE_SK: JOB_SK}


def edges_pk(parent: str) -> str:
    """The partition of the edges that lead to a job's dependents."""
    return f"{EDGES}#{parent}"


def stream_filter(statuses: Sequence[str]) -> dict[str, Any]:
    """Which records of the table's stream matter to `publish`: jobs that ended, or are in one of these statuses.

    No filter can compare a record's two images, so whether the status is new is for the function to see.
    """
    heard = [status for status in JOB_STATUSES if status in {*statuses, *ENDED_STATUSES}]
    job = {"Keys": {TABLE_SK: {"S": [JOB_SK]}}, "NewImage": {"status": {"S": heard}}}
    return {"eventName": ["INSERT", "MODIFY"], "dynamodb": job}


def waiting_pk(pool: str, shard: int) -> str:
    """The index partition of jobs that wait for their parents."""
    return f"WAITING#{pool}#{shard}"


def queued_pk(pool: str, shard: int) -> str:
    """The index partition of runnable jobs."""
    return f"QUEUED#{pool}#{shard}"


def running_pk(pool: str, bank: int) -> str:
    """The index partition of the jobs that run on one bank of slots: a decision about a few slots reads only theirs."""
    return f"RUNNING#{pool}#{bank}"


def shard_of(key: str, shards: int) -> int:
    """The same shard for the same key, on every machine."""
    return zlib.crc32(key.encode()) % shards


def rank_of(key: str, priority: int, queued_at: float) -> str:
    """The order of the queue: priority first, then age; the key's checksum keeps equal times apart."""
    return f"{level_of(priority)}{int(queued_at * 1000):0{_AGE_DIGITS}d}#{zlib.crc32(key.encode()):08x}"


# --- shares of tenants

_AGE_DIGITS: Final = 15
_TAG_DIGITS: Final = _AGE_DIGITS + len(str(limits.TAGS_PER_MS)) - 1
"""Both in digits of fixed number, so that ranks by age and by tag sort among each other as numbers do."""


def level_of(priority: int) -> str:
    """How every rank of a priority begins."""
    return f"{limits.PRIORITY_MAX - priority}#"


def share_rank_of(key: str, priority: int, tag: int) -> str:
    """The order of a queue that tenants share: priority, then tag, which reads like a finer time."""
    return f"{level_of(priority)}{tag:0{_TAG_DIGITS}d}#{zlib.crc32(key.encode()):08x}"


def tag_of(rank: str) -> tuple[int, bool]:
    """Where a rank stands among tags, and whether it was drawn as one; a rank by age is coarser."""
    middle = rank.split("#")[1]
    drawn = len(middle) > _AGE_DIGITS
    return int(middle) if drawn else int(middle) * limits.TAGS_PER_MS, drawn


def shares_pk(pool: str, priority: int) -> str:
    """The partition of all tenants' shares in one priority of a pool."""
    return f"SHARES#{pool}#{priority}"


def share_key(pool: str, priority: int, tenant: str) -> dict[str, str]:
    """Where it stands how far a tenant has drawn tags."""
    return {TABLE_PK: shares_pk(pool, priority), TABLE_SK: f"SHARE#{tenant}"}


def drawn_from(item: Item) -> tuple[str, int]:
    """Read a share: the tenant, and the tag that is its next."""
    return item[TABLE_SK].removeprefix("SHARE#"), int(item["drawn"])


# --- items


def _seconds(value: float) -> Decimal:
    return Decimal(f"{value:.3f}")


def slot_item(slot: SlotId, now: float) -> dict[str, Any]:
    """A new slot. Its generation starts at the clock, so that a table made anew never repeats an old fence."""
    return {**slot_key(slot), "state": SlotState.EMPTY.value, "generation": int(now)}


def _told(kinds: Mapping[str, Callable[[Any], Any]], item: Item) -> dict[str, Any]:
    """What an item says of these attributes. Most say few of them; the others are as the value has them by itself."""
    return {name: kinds[name](value) for name, value in item.items() if name in kinds}


_SLOT: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("launch", "arn", "for_job", "why", "provider", "failed_by", "ready_by", "image"), str),
    **dict.fromkeys(("leased_at", "launched_at", "seen_at", "ready_at", "missing_since", "failed_at"), float),
    **dict.fromkeys(("retry_at", "starved_at", "idle_since", "used_s"), float),
    **dict.fromkeys(("strikes", "used_day", "cap_version"), int),
    **dict.fromkeys(("leave", "retire", "keep"), bool),
}


@_whole
def slot_from(item: Item) -> Slot:
    """Read a slot."""
    slot = SlotId(item[TABLE_PK].split("#")[1], int(item[TABLE_SK].split("#")[1]))
    return Slot(slot, SlotState(item["state"]), int(item["generation"]), **_told(_SLOT, item))


@_whole
def override_from(item: Item) -> Override:
    """Read what was said of a pool at run time."""
    whole = {name: int(item[name]) for name in ("cap", "min_workers", "warm_workers") if name in item}
    return Override(
        version=int(item.get("version", 0)),
        budget_task_hours=float(item["budget_task_hours"]) if "budget_task_hours" in item else None,
        mode=_mode(item.get("mode", Mode.OPEN.value)),
        reason=item.get("reason", ""),
        cap_max=int(item.get("cap_max", 0)),
        banks=int(item.get("banks", 1)),
        **whole,
    )


def _mode(said: str) -> Mode:
    """One that only a later version knows is not open: nothing begins, and nothing is ended for it."""
    return Mode(said) if said in set(Mode) else Mode.PAUSED


@_whole
def reservation_from(item: Item) -> Reservation:
    """Read a reservation."""
    return Reservation(
        pool=item[TABLE_PK].split("#")[1],
        name=item[TABLE_SK].removeprefix(RESERVATION_SK),
        workers=int(item["workers"]),
        until=float(item["until"]),
        made_at=float(item["made_at"]),
    )


def job_item(job: Job, op: str) -> dict[str, Any]:
    """A job as its run begins, or as it is recorded when the cache held its result already."""
    item: dict[str, Any] = {
        **job_key(job.key),
        OP: op,
        "status": job.status.value,
        "run": job.run,
        "attempt": job.attempt,
        "pool": job.pool,
        "priority": job.priority,
        "shard": job.shard,
        "request": _request_text(job.request),
        "queued_at": _seconds(job.queued_at),
        "due_at": _seconds(job.due_at),
        OPEN_RANK: job.rank,
        "changes": job.changes,
    }
    if job.correlation_id:
        item["correlation_id"] = job.correlation_id
    if job.since:
        item["since"] = _seconds(job.since)
    if job.tenant:
        item["tenant"] = job.tenant
    if job.ended:
        return {
            **item,
            **({"artifacts": list(job.artifacts)} if job.artifacts else {}),
            "ended_at": _seconds(job.ended_at),
            TTL: int(job.ended_at) + limits.FINISHED_JOB_TTL_S,
        }
    waits = job.status is JobStatus.WAITING
    return {**item, OPEN_PK: (waiting_pk if waits else queued_pk)(job.pool, job.shard)}


@lru_cache(maxsize=256)
def _request(text: str) -> Request:
    """A busy worker reads the same job every few seconds."""
    said = json.loads(text)
    said["depends_on"] = tuple(said.get("depends_on", ()))
    if "on_parent_failure" in said:
        said["on_parent_failure"] = OnParentFailure(said["on_parent_failure"])
    return stored.known(Request, said)


def _request_text(request: Request) -> str:
    """Every write of a job pays by its size."""
    return json.dumps(stored.told(request), separators=(",", ":"))


def _attempt_item(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "class": attempt.failure.value,
        "reason": attempt.reason[: limits.ATTEMPT_REASON_MAX_CHARS],
        "task": attempt.task,
        "began_at": _seconds(attempt.began_at),
        "ended_at": _seconds(attempt.ended_at),
    }


def _attempt(item: Item) -> Attempt:
    return Attempt(
        int(item["number"]),
        _failure_class(item["class"]),
        item["reason"],
        item["task"],
        float(item["began_at"]),
        float(item["ended_at"]),
    )


def _failure_class(said: str) -> FailureClass:
    """One that only a later version knows counts like an attempt that failed by itself."""
    return FailureClass(said) if said in set(FailureClass) else FailureClass.FAILED


def _counts(said: Sequence[Any]) -> tuple[int, int, int]:
    completed, failed, cancelled = map(int, said)
    return completed, failed, cancelled


def _passed(said: Sequence[Any]) -> Passed:
    parts, completed, failed, cancelled, first = said
    return Passed(int(parts), (int(completed), int(failed), int(cancelled)), first)


_JOB: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("claimed_at", "heartbeat_at", "ended_at", "since", "fraction"), float),
    **dict.fromkeys(("changes", "put"), int),
    **dict.fromkeys(("correlation_id", "tenant", "task", "cancel", "stage", "message", "error"), str),
    "artifacts": tuple,
    "counts": _counts,
    "grown": bool,
    "history": lambda attempts: tuple(map(_attempt, attempts)),
    "holder": Holder.parse,
    "passed": _passed,
}


@_whole
def job_from(item: Item) -> Job:
    """Read a job."""
    if (version := item.get(SCHEMA, SCHEMA_VERSION)) > SCHEMA_VERSION:
        raise ValueError(f"it is written for version {version}, and this one knows {SCHEMA_VERSION}")
    return Job(
        key=item[TABLE_PK].removeprefix("JOB#"),
        run=int(item["run"]),
        status=JobStatus(item["status"]),
        pool=item["pool"],
        priority=int(item["priority"]),
        request=_request(item["request"]),
        shard=int(item["shard"]),
        rank=item[OPEN_RANK],
        attempt=int(item["attempt"]),
        queued_at=float(item["queued_at"]),
        due_at=float(item["due_at"]),
        **_told(_JOB, item),
    )


def edge_item(parent: str, dependent: str, now: float) -> dict[str, Any]:
    """That a job may wait for another. It says no more: whether it does stands on the dependent."""
    return {TABLE_PK: edges_pk(parent), TABLE_SK: dependent, TTL: int(now) + limits.EDGE_TTL_S}


def dependent_from(item: Item) -> str:
    """The dependent's key, of an edge."""
    return str(item[TABLE_SK])


@_whole
def queued_from(item: Item) -> Queued:
    """Read an index entry of a QUEUED or WAITING job: keys and projected attributes only."""
    return Queued(
        key=item[TABLE_PK].removeprefix("JOB#"),
        pool=item["pool"],
        rank=item[OPEN_RANK],
        run=int(item["run"]),
        attempt=int(item["attempt"]),
        queued_at=float(item["queued_at"]),
        due_at=float(item["due_at"]),
    )


@_whole
def running_from(item: Item) -> Running:
    """Read an index entry of a RUNNING job: keys and projected attributes only."""
    return Running(
        key=item[TABLE_PK].removeprefix("JOB#"),
        pool=item["pool"],
        run=int(item["run"]),
        attempt=int(item["attempt"]),
        holder=Holder.parse(item["holder"]),
    )


# --- conditional writes

NONE: Final[Mapping[str, Any]] = MappingProxyType({})
"""Neither values nor additions."""


class Condition(NamedTuple):
    """A named guard: an expression and its values. A compound one knows its clauses, so that each can be told apart."""

    name: str
    expression: str
    values: Mapping[str, Any] = NONE
    clauses: tuple[Condition, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        return Condition(
            f"{self.name} and {other.name}",
            f"({self.expression}) AND ({other.expression})",
            {**self.values, **other.values},
            (*(self.clauses or (self,)), *(other.clauses or (other,))),
        )


class Put(NamedTuple):
    """One conditional put of one whole item. `name` is the operation's, as in `docs/exactness.md`."""

    name: str
    item: Mapping[str, Any]
    condition: Condition

    @property
    def key(self) -> Mapping[str, str]:
        """The item's own key."""
        return {name: self.item[name] for name in (TABLE_PK, TABLE_SK)}

    @property
    def op(self) -> str:
        """By which its author recognises a put that landed unseen; "" for none."""
        return str(self.item.get(OP, ""))

    @property
    def values(self) -> Mapping[str, Any]:
        """Every `:value` of the condition."""
        return self.condition.values


class Write(NamedTuple):
    """One conditional update of one item. `name` is the operation's, as in `docs/exactness.md`."""

    name: str
    key: Mapping[str, str]
    condition: Condition
    sets: Mapping[str, Any]
    removes: Sequence[str] = ()
    add_strike: bool = False
    adds: Mapping[str, int] = NONE
    """What is added to attributes; that they are there is for the condition to see."""

    @property
    def op(self) -> str:
        """By which its author recognises a write that landed unseen; "" for none."""
        return str(self.sets.get(OP, ""))

    @property
    def update(self) -> str:
        """The update expression. Set values go by the name of their attribute, prefixed against the condition's."""
        sets = [f"#{name} = :set_{name}" for name in self.sets]
        if self.add_strike:
            sets.append("#strikes = if_not_exists(#strikes, :none) + :one")
        sets += [f"#{name} = #{name} + :add_{name}" for name in self.adds]
        removes = [f"#{name}" for name in self.removes]
        clauses = {"SET": sets, "REMOVE": removes}
        return " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts)

    @property
    def values(self) -> dict[str, Any]:
        """Every `:value` of the update and the condition."""
        strike = {":one": 1, ":none": 0} if self.add_strike else {}
        sets = {f":set_{name}": value for name, value in self.sets.items()}
        adds = {f":add_{name}": amount for name, amount in self.adds.items()}
        return {**sets, **self.condition.values, **strike, **adds}


def names_in(*expressions: str) -> dict[str, str]:
    """Every `#name` of the expressions; all attributes go through names, so reserved words never matter."""
    return {f"#{name}": name for text in expressions for name in re.findall(r"#(\w+)", text)}


EXISTS: Final = Condition("it exists", f"attribute_exists(#{TABLE_PK})")
ABSENT: Final = Condition("it does not exist", f"attribute_not_exists(#{TABLE_PK})")
WHATEVER: Final = Condition(
    "whatever stands there", f"attribute_exists(#{TABLE_PK}) OR attribute_not_exists(#{TABLE_PK})"
)
"""No guard: for what may be written over at any time."""


def at_generation(generation: int) -> Condition:
    """The fence of a slot: this generation and no other."""
    return Condition("the generation is as read", "#generation = :generation", {":generation": generation})


SLOT_EMPTY: Final = Condition("the slot is empty", "#state = :empty", {":empty": SlotState.EMPTY.value})
SLOT_HELD: Final = Condition("the slot is held", "#state <> :empty", {":empty": SlotState.EMPTY.value})
SLOT_LAUNCHING: Final = Condition(
    "the slot is launching", "#state = :launching", {":launching": SlotState.LAUNCHING.value}
)
SLOT_STAYS: Final = Condition("the slot is not retiring", "attribute_not_exists(#retire)")
NO_ARN: Final = Condition("no task is recorded", "attribute_not_exists(#arn)")


def arn_is(arn: str) -> Condition:
    """The recorded task is this one; an empty `arn` stands for no recorded task."""
    return Condition("the recorded task is this one", "#arn = :arn", {":arn": arn}) if arn else NO_ARN


def arn_none_or(arn: str) -> Condition:
    """No task is recorded yet, or this one."""
    return Condition(
        "the recorded task is none or this one", "attribute_not_exists(#arn) OR #arn = :arn", {":arn": arn}
    )


def run_ended(run: int) -> Condition:
    """The run that was read is over."""
    ended = [status.value for status in JobStatus if status.ended]
    return Condition(
        "the run as read has ended",
        f"#run = :run AND #status IN ({', '.join(f':ended_{n}' for n in range(len(ended)))})",
        {":run": run, **{f":ended_{n}": status for n, status in enumerate(ended)}},
    )


def run_waiting(run: int) -> Condition:
    """The run that was read still waits for its parents."""
    return Condition(
        "the run as read is waiting",
        "#run = :run AND #status = :waiting",
        {":run": run, ":waiting": JobStatus.WAITING.value},
    )


def queued_at_attempt(job: Job) -> Condition:
    """Nobody has claimed the job since it was read."""
    return Condition(
        "queued at the attempt as read",
        "#status = :queued AND #run = :run AND #attempt = :attempt",
        {":queued": JobStatus.QUEUED.value, ":run": job.run, ":attempt": job.attempt},
    )


def unclaimed(job: Job) -> Condition:
    """Nobody has moved the job on since it was read in the queue, or waiting for its parents."""
    return run_waiting(job.run) if job.status is JobStatus.WAITING else queued_at_attempt(job)


def running_at_attempt(job: Job) -> Condition:
    """The fence of a job: this attempt still runs."""
    return Condition(
        "running under this attempt",
        "#status = :running AND #run = :run AND #attempt = :attempt",
        {":running": JobStatus.RUNNING.value, ":run": job.run, ":attempt": job.attempt},
    )


def run_running(run: int) -> Condition:
    """The run that was read is in a worker's hands, whichever attempt it has come to."""
    return Condition(
        "the run as read is running",
        "#run = :run AND #status = :running",
        {":run": run, ":running": JobStatus.RUNNING.value},
    )


def run_is(run: int) -> Condition:
    """No other run has begun."""
    return Condition("the run is as read", "#run = :run", {":run": run})


NOT_CANCELLED: Final = Condition("nobody asked to cancel it", "attribute_not_exists(#cancel)")


def jobs_in(statuses: Collection[JobStatus], pool: str = "") -> Condition:
    """Filter of a scan: jobs in one of these states, of this pool or of any."""
    wanted = {f":wanted_{n}": status.value for n, status in enumerate(sorted(statuses))}
    jobs = Condition(
        "a job in one of these states",
        f"#{TABLE_SK} = :job AND #status IN ({', '.join(wanted)})",
        {":job": job_key("")[TABLE_SK], **wanted},
    )
    return jobs & Condition("of this pool", "#pool = :pool", {":pool": pool}) if pool else jobs


def drawn_before(tag: int) -> Condition:
    """The tenant has been away: what it drew lies behind."""
    return Condition("it has drawn nothing beyond", "attribute_not_exists(#drawn) OR #drawn < :at", {":at": tag})


def held_by(holder: Holder) -> Condition:
    """The job's holder is the one that was found dead, or that asks himself."""
    return Condition("held by this holder", "#holder = :holder", {":holder": str(holder)})


def no_newer_cap(version: int) -> Condition:
    """Nobody who knew a newer cap has marked the slot."""
    return Condition(
        "no newer cap has marked it",
        "attribute_not_exists(#cap_version) OR #cap_version <= :version",
        {":version": version},
    )


def at_version(version: int) -> Condition:
    """Nobody has said anything of the pool since it was read."""
    if not version:
        return Condition("the version is as read", "attribute_not_exists(#version)")
    return Condition("the version is as read", "#version = :version", {":version": version})


# --- slot operations

_OF_A_LEASE: Final = (
    "arn",
    "launch",
    "for_job",
    "leased_at",
    "launched_at",
    "seen_at",
    "missing_since",
    "leave",
    "keep",
    "idle_since",
    "image",
)
"""What a slot forgets with its lease."""


def create_write(slot: SlotId, now: float, retired_by: int | None = None) -> Put:
    """A slot that does not exist yet; above the cap of that version, where one is given."""
    mark = {} if retired_by is None else {"retire": True, "cap_version": retired_by}
    return Put("create", slot_item(slot, now) | mark, ABSENT)


def lease_write(
    slot: Slot,
    launch: str,
    for_job: str,
    strikes: int,
    now: float,
    op: str,
    starved_at: float = 0.0,
    provider: str = "",
) -> Write:
    """EMPTY → LAUNCHING. What the slot knows of past failures stays, for the pool's backoff is read from it.

    `starved_at`: since when the pool's launches bring no worker; 0 where they do, so that it would be since now.
    """
    sets = {
        "state": SlotState.LAUNCHING.value,
        "launch": launch,
        "for_job": for_job,
        "leased_at": _seconds(now),
        "strikes": strikes,
        "starved_at": _seconds(starved_at or now),
        "provider": provider,
        "failed_by": slot.failed_with,
        "ready_by": slot.ready_with,
        OP: op,
    }
    if not for_job:
        sets["keep"] = True  # it is to stand by, so that it stays from its first beat on
    forgotten = tuple(name for name in ("why", *_OF_A_LEASE) if name not in sets)
    condition = SLOT_EMPTY & at_generation(slot.generation) & SLOT_STAYS
    return Write("lease", slot_key(slot.id), condition, sets, forgotten)


def launched_write(lease: Lease, arn: str, now: float) -> Write:
    """Record the task that ECS named for this lease, and since when: its first beat is awaited from here on."""
    condition = at_generation(lease.generation) & SLOT_LAUNCHING & arn_none_or(arn)
    return Write("launched", slot_key(lease.slot), condition, {"arn": arn, "launched_at": _seconds(now)})


def beat_write(lease: Lease, arn: str, first: bool, now: float, idle_since: float = 0.0, image: str = "") -> Write:
    """The worker lives. Its first beat ends the launch and with it the pool's backoff. `idle_since`: 0 while busy."""
    sets: dict[str, Any] = {
        "state": SlotState.READY.value,
        "arn": arn,
        "seen_at": _seconds(now),
        "idle_since": _seconds(idle_since),
    }
    if first:
        sets |= {"ready_at": _seconds(now), "image": image}
    return Write("beat", slot_key(lease.slot), at_generation(lease.generation) & SLOT_HELD & arn_none_or(arn), sets)


def release_write(
    lease: Lease, arn: str, now: float, why: str, retry_at: float, op: str, use: Use | None = None
) -> Write:
    """Held → EMPTY under the next generation. With it every fence of the old worker is void for ever."""
    sets: dict[str, Any] = {
        "state": SlotState.EMPTY.value,
        "generation": max(lease.generation + 1, int(now)),
        "why": why[: limits.PROGRESS_MAX_CHARS],
        OP: op,
    }
    if retry_at:
        sets |= {"failed_at": _seconds(now), "retry_at": _seconds(retry_at)}
    if use:
        sets |= {"used_day": use.day, "used_s": _seconds(use.seconds)}
    return Write(
        "release",
        slot_key(lease.slot),
        at_generation(lease.generation) & SLOT_HELD & arn_is(arn),
        sets,
        _OF_A_LEASE,
        add_strike=bool(retry_at),
    )


def missing_write(lease: Lease, since: float) -> Write:
    """Note since when ECS does not know the task; 0 takes the note back."""
    return Write(
        "missing",
        slot_key(lease.slot),
        at_generation(lease.generation) & SLOT_HELD,
        {"missing_since": _seconds(since)},
    )


def retire_write(slot: SlotId, retire: bool, version: int = 0) -> Write:
    """Mark a slot above the cap of this version, or take the mark back."""
    sets: dict[str, Any] = {"cap_version": version} | ({"retire": True} if retire else {})
    return Write("retire", slot_key(slot), EXISTS & no_newer_cap(version), sets, () if retire else ("retire",))


def leave_write(lease: Lease, why: str) -> Write:
    """Ask a worker to leave once it has nothing to do; it takes no further job."""
    sets = {"leave": True, "why": why[: limits.PROGRESS_MAX_CHARS]}
    return Write("leave", slot_key(lease.slot), at_generation(lease.generation) & SLOT_HELD, sets, ("keep",))


def keep_write(lease: Lease, keep: bool) -> Write:
    """Ask a worker to stay although it is idle, or no longer."""
    sets = {"keep": True} if keep else {}
    condition = at_generation(lease.generation) & SLOT_HELD
    return Write("keep", slot_key(lease.slot), condition, sets, () if keep else ("keep",))


# --- pool operations


def override_write(pool: str, said: Mapping[str, Any], version: int, op: str) -> Write:
    """Say something of a pool, on what was said before; None takes a word back."""
    sets = {name: _stored(value) for name, value in said.items() if value is not None}
    return Write(
        "override",
        override_key(pool),
        at_version(version),
        {**sets, "version": version + 1, OP: op},
        tuple(name for name, value in said.items() if value is None),
    )


def _stored(value: object) -> object:
    return _seconds(value) if isinstance(value, float) else value


def widen_write(pool: str, banks: int) -> Write:
    """So many banks of slots are there; they never become fewer."""
    fewer = Condition("fewer banks are known", "attribute_not_exists(#banks) OR #banks < :known", {":known": banks})
    return Write("widen", override_key(pool), fewer, {"banks": banks})


def reserve_write(reservation: Reservation) -> Put:
    """A reservation of a name that is not in use: there is none of it, or it is over."""
    free = Condition(
        "the name is free",
        f"attribute_not_exists(#{TABLE_PK}) OR #until <= :now",
        {":now": _seconds(reservation.made_at)},
    )
    item = {
        **reservation_key(reservation.pool, reservation.name),
        "workers": reservation.workers,
        "until": _seconds(reservation.until),
        "made_at": _seconds(reservation.made_at),
        TTL: int(reservation.until) + limits.RESERVATION_TTL_S,
    }
    return Put("reserve", item, free)


def unreserve_write(pool: str, name: str, now: float) -> Write:
    """End a reservation before its time."""
    return Write("unreserve", reservation_key(pool, name), EXISTS, {"until": _seconds(now)})


# --- job operations


def put_write(job: Job, replacing: Job | None, op: str) -> Put:
    """Absent, or the finished run that was read → this run."""
    return Put("put", job_item(job, op), run_ended(replacing.run) if replacing else ABSENT)


def edge_write(parent: str, dependent: str, now: float) -> Put:
    """Lead from a parent to a dependent, before that is put. Written anew it lives longer, and says the same."""
    return Put("edge", edge_item(parent, dependent, now), WHATEVER)


def unblock_write(waiting: Job, now: float, op: str, rank: str = "") -> Write:
    """WAITING → QUEUED, due now, at its rank from the put or at this one. The run stays unblocked, whatever its parents
    do later.
    """
    return Write(
        "unblock",
        job_key(waiting.key),
        run_waiting(waiting.run),
        {
            "status": JobStatus.QUEUED.value,
            "changes": waiting.changes + 1,
            "due_at": _seconds(max(now, waiting.queued_at)),
            OPEN_PK: queued_pk(waiting.pool, waiting.shard),
            OPEN_RANK: rank or waiting.rank,
            OP: op,
        },
    )


def grow_write(array: Job, parts: int | None = None) -> Write:
    """So many parts of a WAITING array have been put, from the first on; None: all, whose ends are its own from here
    on. Repeatable."""
    sets: dict[str, Any] = {"grown": True} if parts is None else {"put": parts}
    return Write("grow", job_key(array.key), run_waiting(array.run), sets)


def pass_write(array: Job, passed: Passed) -> Write:
    """How far the parts of an array have been looked through. A hint: whoever loses one looks at some parts again."""
    return Write(
        "pass", job_key(array.key), run_is(array.run), {"passed": [passed.parts, *passed.counts, passed.first]}
    )


def gather_write(array: Job, status: JobStatus, now: float, error: str, counts: tuple[int, int, int], op: str) -> Write:
    """WAITING → COMPLETED | FAILED for an array whose elements have all ended."""
    ended = finish_write(array, status, now, error, (), op)
    sets = {**ended.sets, "counts": list(counts)}
    return ended._replace(name="gather", condition=run_waiting(array.run), sets=sets)


def claim_write(queued: Job, holder: Holder, now: float, op: str, task: str = "") -> Write:
    """QUEUED → RUNNING under the next attempt. `task` is the last part of the worker's task ARN."""
    return Write(
        "claim",
        job_key(queued.key),
        queued_at_attempt(queued),
        {
            "status": JobStatus.RUNNING.value,
            "changes": queued.changes + 1,
            "attempt": queued.attempt + 1,
            "holder": str(holder),
            "task": task,
            "claimed_at": _seconds(now),
            "heartbeat_at": _seconds(now),
            OPEN_PK: running_pk(queued.pool, holder.lease.slot.bank),
            OP: op,
        },
        ("stage", "fraction", "message"),
    )


def heartbeat_write(
    running: Job, now: float, stage: str, fraction: float, message: str, artifacts: Sequence[str] = ()
) -> Write:
    """How far the attempt is, and which artifacts of the run stand in the cache."""
    sets: dict[str, Any] = {
        "heartbeat_at": _seconds(now),
        "stage": stage,
        "fraction": _seconds(fraction),
        "message": message[: limits.PROGRESS_MAX_CHARS],
    }
    if artifacts:
        sets["artifacts"] = list(artifacts)
    return Write("heartbeat", job_key(running.key), running_at_attempt(running), sets)


def cancel_write(running: Job, reason: str) -> Write:
    """Ask for the end of a RUNNING job. Without an `op`: that of a claim must stay, or its author would not know it."""
    return Write(
        "cancel", job_key(running.key), run_running(running.run), {"cancel": reason[: limits.PROGRESS_MAX_CHARS]}
    )


def finish_write(
    job: Job,
    status: JobStatus,
    now: float,
    error: str,
    artifacts: Sequence[str],
    op: str,
    attempt: Attempt | None = None,
) -> Write:
    """RUNNING → a final status, or QUEUED or WAITING → FAILED or CANCELLED: `withdraw`, for a job that nobody claimed.

    The job leaves the index, and the table some days later. `attempt` joins the history. On whatever clock it ends, a
    run does not end before it began: the message that began it must find itself answered.
    """
    running = job.status is JobStatus.RUNNING
    ended_at = max(now, job.queued_at, job.claimed_at)
    return Write(
        "finish" if running else "withdraw",
        job_key(job.key),
        running_at_attempt(job) if running else unclaimed(job),
        {
            "status": status.value,
            "changes": job.changes + 1,
            "ended_at": _seconds(ended_at),
            "error": error[: limits.ERROR_MAX_CHARS],
            TTL: int(ended_at) + limits.FINISHED_JOB_TTL_S,
            OP: op,
            **({"artifacts": list(artifacts)} if artifacts else {}),
            **_history(job, attempt),
        },
        (OPEN_PK,),
    )


def requeue_write(running: Job, due_at: float, error: str, attempt: Attempt, op: str) -> Write:
    """RUNNING → QUEUED at its old rank. The number of attempts stays: the next claim goes one further."""
    if running.holder is None:
        raise ValueError(f"job {running.key} has no holder to take it from")
    return Write(
        "requeue",
        job_key(running.key),
        running_at_attempt(running) & held_by(running.holder) & NOT_CANCELLED,
        {
            "status": JobStatus.QUEUED.value,
            "changes": running.changes + 1,
            "due_at": _seconds(due_at),
            "error": error[: limits.ERROR_MAX_CHARS],
            OPEN_PK: queued_pk(running.pool, running.shard),
            OP: op,
            **_history(running, attempt),
        },
        ("holder", "task", "stage", "fraction", "message", "claimed_at", "heartbeat_at"),
    )


def _history(job: Job, attempt: Attempt | None) -> dict[str, Any]:
    """The whole list: the fence of the write says that nobody has added to it since the job was read."""
    return {"history": [_attempt_item(each) for each in (*job.history, attempt)]} if attempt else {}


def slot_ids(pool: str, cap: int, bank: int = 0) -> Iterator[SlotId]:
    """The slots of a cap that are in one bank, by number."""
    first = bank * limits.BANK_SLOTS
    return (SlotId(pool, number) for number in range(first, min(cap, first + limits.BANK_SLOTS)))


# --- the operation on shares


def draw_write(pool: str, priority: int, tenant: str, drawn: int, at: int, cost: int, now: float) -> Write:
    """Draw tags worth `cost`: from where the tenant has come to, or from `at` where `drawn`, as read, lies behind that.

    The first form is refused only where the share has expired since it was read, the second where another intake
    brought the tenant back meanwhile.
    """
    sets: dict[str, Any] = {TTL: int(now) + limits.SHARE_TTL_S}
    key = share_key(pool, priority, tenant)
    if drawn >= at:
        return Write("draw", key, EXISTS, sets, adds={"drawn": cost})
    return Write("draw", key, drawn_before(at), {**sets, "drawn": at + cost})
