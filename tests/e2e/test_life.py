"""The life of jobs in the embedded cloud: stages that stay, timeouts, waiting that ends, runs by force."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

import psutil
import pysam
import pytest

from fleetcap.adapters.cache import S3Cache
from fleetcap.catalog import artifact_keys
from fleetcap.decide.capacity import ON_DEMAND, SPOT, Providers
from fleetcap.model import FailureClass, Job, JobStatus, Pool, Slot
from local.samples import make_bam
from tests.e2e.conftest import Stage, staged

pytestmark = pytest.mark.cloud

CAPS: Final[dict[str, int | Mapping[str, object]]] = {
    "life": 1,
    "no-capacity": 1,
    "image": 1,
    "spot": {"cap": 2, "capacity": ["FARGATE_SPOT"]},
}
DEADLINE_S = 15


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cloud whose pools give up soon on capacity that does not come."""
    with staged(tmp_path_factory.mktemp("cloud"), CAPS, dispatch_deadline_s=DEADLINE_S) as stage:
        yield stage


def test_a_committed_stage_is_not_run_again_although_its_author_died_before_it_knew(stage: Stage) -> None:
    """Nor does the retry need the source, which is gone by then; and the worker is another one."""
    bam, sam, key = stage.folder / "resumed.bam", stage.folder / "resumed.sam", "life/resumed"
    make_bam(bam, reads=20_000, seed=9)
    pysam.view("-h", "-o", str(sam), str(bam), catch_stdout=False)
    [source] = stage.client.upload([sam])
    stage.client.fault("kill-after", actor="fleetcap-worker", operation="s3:PutObject", times=1)
    stage.client.send([{"source": source, "workflow_key": key, "pool": "life"}])
    stage.until(lambda: [each for each in stage.client.faults() if each["struck"]], "the first artifact was committed")
    stage.client.s3.delete_object(Bucket=stage.client.outputs["InputBucketName"], Key=sam.name)
    stage.until(lambda: (told := stage.job(key)) and told.history, "the attempt is over")
    [slot] = [slot for slot in stage.client.table.slots("life") if slot.held]
    stage.client.kill(slot.arn)

    # The task's end finds the job not due yet, so its next worker is the tick's.
    stage.tick_until(lambda: (told := stage.job(key)) and told.ended, "the retry is over")

    job = stage.job(key)
    assert job
    assert job.status is JobStatus.COMPLETED
    [attempt] = job.history
    assert (attempt.number, attempt.failure) == (1, FailureClass.FAILED)
    assert attempt.reason.startswith("internal: ")
    assert attempt.task == slot.arn.rpartition("/")[2] != job.task
    assert job.artifacts == artifact_keys(key, "sam")
    stage.client.calm()


def test_a_pool_on_spot_goes_on_demand_while_spot_is_refused_and_replaces_what_is_interrupted(stage: Stage) -> None:
    stage.client.fault("no-capacity", pool="spot", times=1, text=SPOT)
    [first] = stage.until_ended(stage.send("spot", "first"))
    assert (first.status, first.attempt) == (JobStatus.COMPLETED, 1)
    assert _providers(stage) == [ON_DEMAND]
    stage.drain("spot")
    stage.until(lambda: _room_on_spot(stage), "Spot may be tried again")

    [source] = stage.sources(1)
    key = "spot/interrupted"
    message = {"source": source, "processor": "command", "workflow_key": key, "pool": "spot"}
    naps = "-c 'import time; time.sleep(8)' {source}"
    stage.client.send([message | {"params": {"program": "python", "arguments": naps}}])
    _, slot = stage.running(key)
    assert slot.provider == SPOT
    stage.client.act("spot", slot.arn)

    stage.until(
        lambda: (seen := stage.client.table.slot(slot.id)) and (seen.leave or seen.lease != slot.lease), "warned"
    )
    [job] = stage.until_ended([key])
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    assert [attempt.failure for attempt in job.history] == [FailureClass.INTERRUPTED]
    assert stage.lines("TaskStateFunctionName", "interrupted")


def _warned(stage: Stage, slot: Slot) -> bool:
    seen = stage.client.table.slot(slot.id)
    return seen is not None and (seen.leave or seen.lease != slot.lease)


def _providers(stage: Stage) -> list[str]:
    return [slot.provider for slot in stage.client.table.slots("spot") if slot.held]


def _room_on_spot(stage: Stage) -> bool:
    pool = Pool("spot", 2, providers={SPOT: 1})
    return Providers(pool, stage.client.table.slots("spot"), time.time()).take() == SPOT


def test_an_attempt_that_takes_too_long_dies_with_all_that_it_started(stage: Stage) -> None:
    [source] = stage.sources(1)
    message = {"source": source, "processor": "command", "workflow_key": "life/slow", "pool": "life", "timeout_s": 2}
    stage.client.send([message | {"params": {"program": "tail", "arguments": "-f {source}"}}])

    [job] = stage.until_ended(["life/slow"])

    assert (job.status, job.error) == (JobStatus.FAILED, "timeout: the attempt took longer than 2 s")
    assert [attempt.failure for attempt in job.history] == [FailureClass.TIMEOUT] * 2
    assert [process.pid for process in psutil.process_iter() if _waits(process, source)] == []


def _waits(process: psutil.Process, source: str) -> bool:
    """Whether it is the job's program, which only ever follows its source."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return command[:2] == ["tail", "-f"] and command[-1].endswith(source.rpartition("/")[2])


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [("no-capacity", "AWS has no Fargate capacity at this time"), ("image", "the worker's image cannot be pulled")],
)
def test_a_job_for_which_no_worker_comes_ends_with_the_reason(stage: Stage, trouble: str, sentence: str) -> None:
    stage.client.fault(trouble, pool=trouble)
    [key] = stage.send(trouble, "starved")

    stage.tick_until(lambda: (job := stage.job(key)) and job.ended, f"{key} is given up")

    job = stage.job(key)
    assert job
    assert (job.status, job.attempt) == (JobStatus.FAILED, 0)
    assert job.error.startswith(f"capacity: pool {trouble} has had room but started no worker for ")
    assert sentence in job.error
    stage.client.calm()


def test_a_finished_result_answers_and_a_forced_run_replaces_it(stage: Stage) -> None:
    [key] = stage.send("life", "forced")
    [first] = stage.until_ended([key])
    again = {"source": first.request.source, "workflow_key": key, "pool": "life"}
    cache = S3Cache(stage.client.s3, stage.client.outputs["CacheBucketName"])

    def made_for() -> list[float]:
        return [found.made_for for each in artifact_keys(key, "bam") if (found := cache.standing(each))]

    assert made_for() == [first.queued_at] * 2
    stage.client.send([again])
    stage.until(lambda: "Answer" in [line["decision"] for line in admitted(stage, first)], "the result answers")
    assert stage.job(key) == first
    stage.client.send([again | {"force": True}])
    stage.until(lambda: (job := stage.job(key)) and job.run == 2 and job.ended, "the forced run is over")
    second = stage.job(key)
    assert second
    assert second.status is JobStatus.COMPLETED
    assert second.changes > first.changes
    assert made_for() == [second.queued_at] * 2


def admitted(stage: Stage, job: Job) -> list[dict[str, str]]:
    """What intake said of this job's messages."""
    return [line for line in stage.lines("IntakeFunctionName", "admitted") if line["job"] == job.id]
