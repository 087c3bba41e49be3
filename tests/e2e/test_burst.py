"""CAP and ONE-RUN in the embedded cloud, watched by the Fargate's own meter."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from fleetcap.model import JobStatus
from local.chaos.storm import depth
from local.client import Meter
from tests.e2e.conftest import CAPS, Stage

pytestmark = pytest.mark.cloud

MINIMAL_OVERLAP = 8


def overlap(lines: list[dict[str, Any]]) -> int:
    """How many invocations were under way at once, at most."""
    edges = sorted([(line["began_at"], 1) for line in lines] + [(line["ended_at"], -1) for line in lines])
    return max(itertools.accumulate(step for _, step in edges))


def warm_up(stage: Stage) -> None:
    """Sixteen deciders that have run before, by messages that can never run."""
    stage.client.send(["{ no job"] * 48, threads=16)
    stage.until(lambda: len(stage.lines("IntakeFunctionName", "rejected")) >= 48, "deciders warm")


def test_a_burst_of_24_from_concurrent_deciders_fills_the_cap_of_16_exactly(
    stage: Stage,
) -> None:
    sources = stage.sources(24)
    keys = [f"burst/{n}" for n in range(24)]
    warm_up(stage)
    sent_at = time.time()

    stage.client.send([{"source": s, "workflow_key": k} for s, k in zip(sources, keys, strict=True)], threads=24)
    jobs = stage.until_ended(keys)

    assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 24
    assert stage.client.meter("default") == Meter(live_tasks=16, peak_live_tasks=16, tasks_launched=16)
    took_in = [line for line in stage.lines("IntakeFunctionName", "took in") if line["began_at"] >= sent_at]
    assert overlap(took_in) >= MINIMAL_OVERLAP
    first_and_only_leases = {slot.lease for slot in stage.client.table.slots("default")}
    assert len(first_and_only_leases) == 16
    assert {job.holder.lease for job in jobs if job.holder} <= first_and_only_leases


def test_bursts_beyond_small_caps_never_pass_them_and_all_jobs_complete(stage: Stage) -> None:
    sizes = {"one": 5, "two": 17, "five": 50}
    sources = iter(stage.sources(sum(sizes.values())))
    wanted = {pool: [f"{pool}/{n}" for n in range(size)] for pool, size in sizes.items()}
    messages = [
        {"source": next(sources), "workflow_key": key, "pool": pool} for pool, keys in wanted.items() for key in keys
    ]

    stage.client.send(messages, threads=24)
    jobs = stage.until_ended([key for keys in wanted.values() for key in keys])

    assert {job.status for job in jobs} == {JobStatus.COMPLETED}
    for pool in sizes:
        meter = stage.client.meter(pool)
        assert (meter.peak_live_tasks, meter.tasks_launched) == (CAPS[pool], CAPS[pool])


def test_the_same_message_ten_times_at_once_is_one_run_and_one_launch(stage: Stage) -> None:
    [source] = stage.sources(1)
    stage.drain("five")
    stage.until(lambda: not any(depth(stage.client, "EventsQueueUrl")), "the ends of its workers are taken in")
    # Whoever takes one in asks for another worker if a job waits: that is not to be the one counted below.
    before = stage.client.meter("five").tasks_launched

    stage.client.send([{"source": source, "workflow_key": "same/1", "pool": "five"}] * 10, threads=10)
    [job] = stage.until_ended(["same/1"])
    stage.until(lambda: len(admitted(stage, "same/1")) == 10, "ten messages admitted")

    assert (job.status, job.run, job.attempt) == (JobStatus.COMPLETED, 1, 1)
    assert {line["job"] for line in admitted(stage, "same/1")} == {job.id}
    assert [line["decision"] for line in admitted(stage, "same/1")].count("Enqueue") == 1
    assert stage.client.meter("five").tasks_launched == before + 1


def admitted(stage: Stage, key: str) -> list[dict[str, Any]]:
    return [line for line in stage.lines("IntakeFunctionName", "admitted") if line["key"] == key]


def test_a_redelivered_message_is_answered_by_the_run_it_began(stage: Stage) -> None:
    [source] = stage.sources(1)
    body = f'{{"source": "{source}", "workflow_key": "again/1"}}'
    record = {"messageId": "again", "body": body, "attributes": {"SentTimestamp": str(int(time.time() * 1000))}}
    stage.invoke("IntakeFunctionName", {"Records": [record]})
    [first] = stage.until_ended(["again/1"])
    before = stage.client.meter("default").tasks_launched

    assert stage.invoke("IntakeFunctionName", {"Records": [record]}) == {"batchItemFailures": []}

    assert stage.job("again/1") == first
    assert stage.client.meter("default").tasks_launched == before
    assert [line["decision"] for line in admitted(stage, "again/1")] == ["Enqueue", "Answer"]


def test_a_message_that_can_never_run_is_kept_with_its_reason_and_blocks_nobody(stage: Stage) -> None:
    while stage.client.rejected():
        pass  # what earlier tests left
    [source] = stage.sources(1)
    bad: list[str | dict[str, str]] = [
        "not json",
        {"source": source, "processor": "no-such"},
        {"source": source, "shape": "round"},
        {"source": source, "workflow_key": "a/../../b"},
        "x" * 1_000_000,
    ]
    stage.client.send([*bad, {"source": source, "workflow_key": "good/1"}])
    [job] = stage.until_ended(["good/1"])
    kept: list[dict[str, Any]] = []

    def all_kept() -> bool:
        kept.extend(stage.client.rejected())
        return len(kept) == len(bad)

    stage.until(all_kept, "five rejected messages")

    assert job.status is JobStatus.COMPLETED
    assert sorted(record["reason"].partition(":")[0] for record in kept) == sorted(
        ["Invalid JSON", "processor", "shape", "workflow_key", "the message is larger than 8,192 bytes"]
    )
    assert all(record["body_bytes"] and record["body_sha256"] for record in kept)
