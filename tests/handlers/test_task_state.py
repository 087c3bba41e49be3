"""What a stopped task brings about, and what an old, doubled or foreign event does not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fleetcap import limits
from fleetcap.fleet import Fleet
from fleetcap.model import Doubt, Holder, Job, JobStatus, Lease, Request, SlotId, SlotState, Unanswered
from handlers import task_state
from tests.fakes import HandClock, HandEcs, Lines


def stopped(arn: str, lease: Lease | str, containers: list[object] | None = None) -> dict[str, Any]:
    detail = {
        "taskArn": arn,
        "lastStatus": "STOPPED",
        "startedBy": str(lease),
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "containers": containers or [],
    }
    return {"Records": [{"messageId": "m0", "body": json.dumps({"detail": detail})}]}


def queue(fleet: Fleet, clock: HandClock, key: str) -> Job:
    request = Request("s3://input/a.bam", "bam")
    job = Job(key, 1, JobStatus.QUEUED, "default", 5, request, rank=key, queued_at=clock.now(), due_at=clock.now())
    assert fleet.table.put(job, None, clock.unique())
    return job


@pytest.fixture
def working(fleet: Fleet, clock: HandClock) -> tuple[Lease, str]:
    """A worker that has beaten and runs job `a`; its lease and its task."""
    job = queue(fleet, clock, "a")
    fleet.scale(fleet.pools["default"], [job.as_queued], most=1)
    slot = next(slot for slot in fleet.table.slots("default") if slot.held)
    assert fleet.table.beat(slot.lease, slot.arn, True, clock.now()) is not None
    assert fleet.table.claim(job, Holder(slot.lease), clock.now(), clock.unique())
    clock.sleep(5)
    return slot.lease, slot.arn


def test_a_stopped_worker_frees_its_slot_returns_its_job_and_is_replaced_at_once(
    fleet: Fleet, tasks: HandEcs, working: tuple[Lease, str]
) -> None:
    lease, arn = working
    assert task_state.handle(fleet, stopped(arn, lease)) == {"batchItemFailures": []}
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.holder, job.attempt, job.failures, job.interruptions) == (JobStatus.QUEUED, None, 1, 0, 1)
    slot = fleet.table.slot(lease.slot)
    assert slot is not None
    assert slot.generation > lease.generation
    assert len(tasks.calls) == 2


def test_the_same_event_again_changes_nothing(fleet: Fleet, tasks: HandEcs, working: tuple[Lease, str]) -> None:
    lease, arn = working
    task_state.handle(fleet, stopped(arn, lease))
    before = (fleet.table.slots("default"), fleet.table.job("a"), len(tasks.calls))
    task_state.handle(fleet, stopped(arn, lease))
    assert (fleet.table.slots("default"), fleet.table.job("a"), len(tasks.calls)) == before


def test_a_redelivery_after_a_crash_between_release_and_requeue_finishes_the_work(
    fleet: Fleet, clock: HandClock, working: tuple[Lease, str]
) -> None:
    lease, arn = working
    assert fleet.table.release(lease, arn, clock.now(), "crashed after this", 0.0, clock.unique())
    task_state.handle(fleet, stopped(arn, lease))
    job = fleet.table.job("a")
    assert job is not None
    assert job.status is JobStatus.QUEUED


def test_an_event_of_another_task_of_the_same_lease_frees_nothing(fleet: Fleet, working: tuple[Lease, str]) -> None:
    lease, _ = working
    task_state.handle(fleet, stopped("arn:task/other", lease))
    slot = fleet.table.slot(lease.slot)
    job = fleet.table.job("a")
    assert slot is not None
    assert job is not None
    assert (slot.lease, slot.state, job.status) == (lease, SlotState.READY, JobStatus.RUNNING)


@pytest.mark.parametrize("started_by", ["", "somebody else", "ecs-svc/123", "unknown/0#1"])
def test_a_foreign_task_is_ignored(fleet: Fleet, lines: Lines, started_by: str) -> None:
    assert task_state.handle(fleet, stopped("arn:task/x", started_by)) == {"batchItemFailures": []}
    assert len(lines.of("ignore")) == 1


def test_a_task_that_stops_before_its_arn_was_recorded_is_learnt_by_its_token_first(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    job = queue(fleet, clock, "a")
    tasks.lost = [Unanswered(Doubt.UNKNOWN, "timed out")]
    fleet.scale(fleet.pools["default"], [job.as_queued], most=1)
    [lease] = tasks.calls
    [arn] = tasks.arns
    task_state.handle(fleet, stopped(arn, lease))
    slot = fleet.table.slot(lease.slot)
    assert slot is not None
    assert tasks.calls == [lease, lease]
    assert (slot.state, slot.generation > lease.generation) == (SlotState.EMPTY, True)


def test_a_launch_that_still_has_no_answer_is_left_to_a_redelivery(
    fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    job = queue(fleet, clock, "a")
    tasks.doubts = [Unanswered(Doubt.UNKNOWN, "timed out"), Unanswered(Doubt.THROTTLED, "slow down")]
    fleet.scale(fleet.pools["default"], [job.as_queued], most=1)
    lease = tasks.calls[0]
    answer = task_state.handle(fleet, stopped("arn:task/late", lease))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    slot = fleet.table.slot(lease.slot)
    assert slot is not None
    assert slot.held


def test_a_task_that_never_beat_is_not_replaced_at_once(fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    job = queue(fleet, clock, "a")
    fleet.scale(fleet.pools["default"], [job.as_queued], most=1)
    lease = tasks.calls[0]
    task_state.handle(fleet, stopped(tasks.arns[0], lease))
    assert len(tasks.calls) == 1
    clock.sleep(15)
    fleet.scale(fleet.pools["default"], None, most=1)
    assert len(tasks.calls) == 2


def test_a_job_that_outlives_its_sixth_worker_fails_with_the_reason(fleet: Fleet, clock: HandClock) -> None:
    queue(fleet, clock, "a")
    for _ in range(6):
        fleet.scale(fleet.pools["default"], None, most=1)
        slot = next(slot for slot in fleet.table.slots("default") if slot.held)
        assert fleet.table.beat(slot.lease, slot.arn, True, clock.now()) is not None
        job = fleet.table.job("a")
        assert job is not None
        assert fleet.table.claim(job, Holder(slot.lease), clock.now(), clock.unique())
        clock.sleep(5)
        task_state.handle(fleet, stopped(slot.arn, slot.lease))
    job = fleet.table.job("a")
    assert job is not None
    assert job.status is JobStatus.FAILED
    assert job.error.startswith("heartbeat lost: 6 workers")


def test_a_running_task_is_no_reason_to_act(fleet: Fleet, working: tuple[Lease, str]) -> None:
    lease, arn = working
    event = stopped(arn, lease)
    body = json.loads(event["Records"][0]["body"])
    body["detail"]["lastStatus"] = "RUNNING"
    event["Records"][0]["body"] = json.dumps(body)
    task_state.handle(fleet, event)
    slot = fleet.table.slot(SlotId("default", lease.slot.number))
    assert slot is not None
    assert slot.lease == lease


def test_the_words_of_ecs_bring_no_path_and_no_credential_into_a_jobs_error(
    fleet: Fleet, working: tuple[Lease, str]
) -> None:
    lease, arn = working
    said = {"reason": "cannot start /opt/tools/run --token abcd1234: no such file"}
    event = stopped(arn, lease, [said])
    event["Records"][0]["body"] = event["Records"][0]["body"].replace("EssentialContainerExited", "UserInitiated")
    task_state.handle(fleet, event)
    job = fleet.table.job("a")
    assert job is not None
    assert "cannot start (path) --token (secret)" in job.error
    assert "cannot start (path) --token (secret)" in job.history[-1].reason


# --- when calls are slow


def test_however_slow_the_calls_some_event_of_a_batch_is_settled_and_the_rest_comes_again(
    fleet: Fleet, clock: HandClock, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = replace(fleet.pools["default"], cap=6)
    fleet = fleet._replace(pools={"default": pool})
    records = []
    for number in range(6):
        job = queue(fleet, clock, f"{number}")
        fleet.scale(pool, [job.as_queued], most=1)
    for number, slot in enumerate(fleet.table.slots("default")):
        (record,) = stopped(slot.arn, slot.lease)["Records"]
        records.append({**record, "messageId": f"m{number}"})
    for name in ("bank", "slot", "release", "running", "queued", "lease", "launched"):
        call = getattr(fleet.table, name)

        def slowly(*arguments: Any, call: Any = call) -> Any:
            clock.sleep(5.0)
            return call(*arguments)

        monkeypatch.setattr(fleet.table, name, slowly)
    began_at = clock.now()
    failures = [
        failure["itemIdentifier"] for failure in task_state.handle(fleet, {"Records": records})["batchItemFailures"]
    ]
    assert clock.now() - began_at < limits.DECIDER_TIMEOUT_S
    assert failures == [f"m{number}" for number in range(6 - len(failures), 6)]
    assert 0 < len(failures) < 6
    assert lines.of("cut off") == [{"reason": "the time for these events is spent; they come again", "left": failures}]
