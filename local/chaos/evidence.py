"""What is found after a storm: gathered from the table, the bucket, the queues, the meter and the process list."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fleetcap import catalog, keys
from fleetcap.model import Job, JobStatus, Lease
from local.chaos.listener import Listener
from local.chaos.plan import kinds
from local.chaos.storm import POOL, Storm, dead_letters, depths, unpublished
from local.chaos.verdict import Found, Stored, Task
from local.client import Client
from local.cloud import Cloud
from local.results import verify

WORKERS_LOGS: Final = "Fleetcap-Worker"
"""How the name of the log group begins that the worker stack makes."""
TOLD_WITHIN_S: Final = 60
"""How long the last events may take once all is done: the stream tries again each second what did not succeed."""


def gather(
    cloud: Cloud, client: Client, storm: Storm, listener: Listener, cap: int, unsettled: str, folder: Path
) -> Found:
    """Look at everything once. `folder` holds the good sources by name, and takes what is fetched."""
    ledger = storm.ledger
    jobs = _all_jobs(client)
    lines = _workers_lines(client)
    claims = [line for line in lines if line["message"] == "claimed"]
    ends = [line for line in lines if line["message"] == "ended" and line["accepted"]]
    events = _events(listener, jobs)
    objects = _objects(client)
    return Found(
        cap=cap,
        unsettled=unsettled,
        waited_for_messages=storm.long,
        wanted=storm.jobs,
        sent=ledger.sent,
        refused=ledger.refused,
        jobs=jobs,
        given_up=ledger.failed | {event["workflow_key"] for event in events if event["status"] == JobStatus.FAILED},
        objects=objects,
        uploads=_uploads(client),
        unverified=list(_unverified(client, jobs, objects, folder)),
        claims=Counter(f"{line['job']} attempt {line['attempt']}" for line in claims),
        first_claims=_earliest((line["key"], line["time"]) for line in claims),
        completions=Counter(line["job"] for line in ends if line["outcome"] == JobStatus.COMPLETED.value),
        events=events,
        unpublished=unpublished(client),
        slots=client.table.slots(POOL),
        caps=ledger.caps,
        leases=ledger.leases,
        tasks=list(_tasks(client)),
        meter=client.meter(),
        rejected=list(_rejected(client)),
        depths=depths(client),
        dead_letters=dead_letters(client),
        processes=cloud.marked(),
        kinds=kinds(),
        struck=ledger.struck,
    )


def _all_jobs(client: Client) -> list[Job]:
    """Every job that the table holds, whoever sent it."""
    pages = client.cloud.client("dynamodb").get_paginator("scan").paginate(TableName=client.outputs["TableName"])
    names = [item[keys.TABLE_PK]["S"] for page in pages for item in page["Items"]]
    before = keys.job_key("")[keys.TABLE_PK]
    found = client.table.jobs([name.removeprefix(before) for name in names if name.startswith(before)])
    return list(found.values())


def _workers_lines(client: Client) -> list[dict[str, Any]]:
    """What the workers said, each line once however often it was shipped."""
    logs = client.cloud.client("logs")
    groups = [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]]
    texts: set[str] = set()
    for name in (name for name in groups if WORKERS_LOGS in name):
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=name):
            texts.update(event["message"] for event in page["events"] if event["message"].startswith("{"))
    return [json.loads(text) for text in texts]


def _earliest(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, at in times:
        found[name] = min(at, found.get(name, at))
    return found


def _events(listener: Listener, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Everything that was told of jobs, once each of these has been told of, or for as long as that may take."""
    ended = {job.id for job in jobs if job.ended}
    give_up_at = time.monotonic() + TOLD_WITHIN_S
    listener.hear()
    while ended - {event["job_id"] for event in listener.heard} and time.monotonic() < give_up_at:
        time.sleep(1)
        listener.hear()
    return listener.heard


def _tasks(client: Client) -> Iterator[Task]:
    """Every task that the Fargate knows, by the lease that it was begun under."""
    for task in client.tasks():
        yield Task(Lease.parse(task["startedBy"]), task["createdAt"], task["stoppedAt"] or math.inf)


def _objects(client: Client) -> dict[str, Stored]:
    pages = client.s3.get_paginator("list_objects_v2").paginate(Bucket=client.outputs["CacheBucketName"])
    return {each["Key"]: Stored(each["Size"], each["ETag"]) for page in pages for each in page.get("Contents", [])}


def _uploads(client: Client) -> list[str]:
    answer = client.s3.list_multipart_uploads(Bucket=client.outputs["CacheBucketName"])
    return [upload["Key"] for upload in answer.get("Uploads", [])]


def _rejected(client: Client) -> Iterator[Mapping[str, object]]:
    while records := client.rejected():
        yield from records


def _unverified(client: Client, jobs: Sequence[Job], objects: Mapping[str, Stored], folder: Path) -> Iterator[str]:
    """Fetch and verify each distinct result: the same bytes for the same source are the same result."""
    verified: set[tuple[str, tuple[Stored, ...]]] = set()
    for job in jobs:
        artifacts = catalog.artifact_keys(job.key, job.request.processor)
        stored = tuple(objects[key] for key in artifacts if key in objects)
        result = (job.request.source, stored)
        if job.status is not JobStatus.COMPLETED or len(stored) < len(artifacts) or result in verified:
            continue
        verified.add(result)
        fetched = folder / "fetched" / str(len(verified))
        for key in artifacts:
            client.download(key, fetched / key.rpartition("/")[2])
        source = folder / job.request.source.rpartition("/")[2]
        if trouble := verify(job.key, source, fetched / "sorted.bam").trouble:
            yield trouble
