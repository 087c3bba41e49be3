"""What the world is told when a job's status changes: the detail of an event on the deployment's bus."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, get_type_hints

from fleetcap import keys
from fleetcap.model import FailureClass, Job, JobStatus

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class StateChange:
    """One change of one workflow key. Its fields are public: a rule matches on them, `docs/events.md` explains them.

    Times are unix seconds, as everywhere in Fleetcap: a rule can compare numbers and nothing else. It cannot subtract,
    hence the two durations. Within a schema version fields are added, never changed or taken away.
    """

    schema: Annotated[Literal[1], "the version of these fields"]
    sequence: Annotated[
        int, "grows with every change of the workflow key, over all its runs: keep the highest, drop the rest"
    ]
    job_id: Annotated[str, "the run's name"]
    workflow_key: Annotated[str, "the key that the job was sent, or derived, under"]
    run: Annotated[int, "which run of the key it is, from 1"]
    attempt: Annotated[int, "how often any run of the key was claimed by a worker so far"]
    old_status: Annotated[
        JobStatus | None, "the key's status before, which may be that of the run before; null for a new key"
    ]
    status: Annotated[JobStatus, "its status now"]
    reason: Annotated[str, "why it failed, was cancelled or last went back into the queue, in one sentence; else empty"]
    failure_class: Annotated[
        FailureClass | None, "how the attempt that just ended failed; null where it did not, or none ended"
    ]
    pool: Annotated[str, "the class of workers that runs it"]
    processor: Annotated[str, "what is done with the source"]
    source: Annotated[str, "the input's address, without its query, which may hold a signature"]
    artifacts: Annotated[
        tuple[str, ...],
        "the addresses of the results so far, each s3://bucket/key, in the order in which they were committed",
    ]
    queued_at: Annotated[float, "when the run began, in unix seconds"]
    claimed_at: Annotated[float | None, "when a worker took its latest attempt, in unix seconds; null while none has"]
    ended_at: Annotated[float | None, "when the run ended, in unix seconds; null while it has not"]
    waited_s: Annotated[float | None, "seconds from queued_at to claimed_at; null without the latter"]
    ran_s: Annotated[float | None, "seconds from claimed_at to ended_at; null without either"]
    supersedes: Annotated[str, "the id of the run that this one takes the place of; empty for a first run"] = ""
    correlation_id: Annotated[str, "what the producer tagged the job with, or else its message's id"] = ""
    array: Annotated[str, "the key of the array, or of the part of one, that it belongs to; empty for others"] = ""
    tenant: Annotated[str, "whose job it is; empty where there are no tenants"] = ""


def state_change(old: keys.Item | None, new: keys.Item | None, cache: str) -> StateChange | None:
    """The change between an item's two images, absent where the item was; None where no job changed its status.

    `cache` is what stands in front of an artifact's key: `s3://bucket/prefix/`. An item that TTL took away is no
    change: its run ended long before. Raises keys.Unreadable for an image that is no job as `keys` writes it.
    """
    if new is None or new[keys.TABLE_SK] != keys.JOB_SK:
        return None
    job, before = keys.job_from(new), keys.job_from(old) if old else None
    if before and (before.run, before.status) == (job.run, job.status):
        return None
    return _told(job, before, cache)


def _told(job: Job, before: Job | None, cache: str) -> StateChange:
    claimed_at, ended_at = job.claimed_at or None, job.ended_at or None
    return StateChange(
        schema=SCHEMA_VERSION,
        sequence=job.changes,
        job_id=job.id,
        workflow_key=job.key,
        run=job.run,
        attempt=job.attempt,
        old_status=before.status if before else None,
        status=job.status,
        reason=job.error or job.cancel,
        failure_class=_failure(job, before),
        pool=job.pool,
        processor=job.request.processor,
        source=job.request.source.partition("?")[0],
        artifacts=tuple(f"{cache}{key}" for key in job.artifacts),
        queued_at=job.queued_at,
        claimed_at=claimed_at,
        ended_at=ended_at,
        waited_s=round(claimed_at - job.queued_at, 3) if claimed_at else None,
        ran_s=round(ended_at - claimed_at, 3) if claimed_at and ended_at else None,
        supersedes=job.supersedes,
        correlation_id=job.correlation_id,
        tenant=job.tenant,
        array=job.request.part_of,
    )


def _failure(job: Job, before: Job | None) -> FailureClass | None:
    """The class of the attempt that this change ended, if it did not end well."""
    ran = before is not None and before.status is JobStatus.RUNNING
    last = job.history[-1] if ran and job.history else None
    return last.failure if last and last.number == job.attempt else None


def detail(change: StateChange) -> str:
    """The event's detail, as JSON."""
    return json.dumps(asdict(change), ensure_ascii=False, separators=(",", ":"))


def meanings() -> dict[str, str]:
    """What each field means, in order."""
    hints = get_type_hints(StateChange, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def json_schema() -> dict[str, Any]:
    """The published schema of the detail (JSON Schema 2020-12)."""
    from pydantic import TypeAdapter  # heavy, and no function that publishes needs it

    schema = TypeAdapter(StateChange).json_schema(mode="serialization")
    for name, meaning in meanings().items():
        schema["properties"][name]["description"] = meaning
    title = f"Detail of {keys.EVENT_DETAIL_TYPE}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}
