"""What people do to jobs, over a real table's expressions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fleetcap import jobs, limits
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.fleet import Fleet
from fleetcap.messages import again, submission
from fleetcap.model import Holder, Job, JobStatus, Lease, OnParentFailure, Pool, Request, SlotId
from tests.examples import a_job, lapse
from tests.fakes import HandClock
from tests.handlers.test_task_state import queue

HOLDER = Holder(Lease(SlotId("default", 0), 1))


def found(table: DynamoControlTable) -> Job:
    job = table.job("a")
    assert job
    return job


def test_a_queued_job_is_cancelled_at_once_and_leaves_the_queue(fleet: Fleet, clock: HandClock) -> None:
    queue(fleet, clock, "a")
    assert jobs.cancel(fleet.table, clock, "a", "by hand")
    job = fleet.table.job("a")
    assert job
    assert (job.status, job.error, job.ended_at) == (JobStatus.CANCELLED, "cancelled: by hand", clock.now())
    assert fleet.table.queued(fleet.pools["default"], clock.now(), 10) == []


def test_a_running_job_is_only_asked_to_end_by_whoever_holds_it(
    fleet: Fleet, table: DynamoControlTable, clock: HandClock
) -> None:
    running = table.claim(queue(fleet, clock, "a"), HOLDER, clock.now(), "claim")
    assert running
    assert jobs.cancel(table, clock, "a", "by hand")
    assert (found(table).status, found(table).cancel, found(table).holder) == (JobStatus.RUNNING, "by hand", HOLDER)
    assert table.heartbeat(running, clock.now(), "sort", 0.5, "")
    assert not table.requeue(running, clock.now(), "", lapse(running), "back")
    assert table.finish(running, JobStatus.CANCELLED, clock.now(), "cancelled: by hand", (), "end")


def test_a_cancel_leaves_the_op_of_a_claim_whose_reply_was_lost(
    fleet: Fleet, table: DynamoControlTable, clock: HandClock
) -> None:
    queued = queue(fleet, clock, "a")
    assert table.claim(queued, HOLDER, clock.now(), "claim")
    assert jobs.cancel(table, clock, "a", "by hand")
    asked = table.claim(queued, HOLDER, clock.now(), "claim")
    assert asked
    assert asked.cancel == "by hand"


def test_what_is_not_there_or_has_ended_is_left_as_it_is(
    fleet: Fleet, table: DynamoControlTable, clock: HandClock
) -> None:
    assert jobs.cancel(table, clock, "a", "by hand") is None
    job = queue(fleet, clock, "a")
    assert table.finish(job, JobStatus.FAILED, clock.now(), "internal: x", (), "end")
    assert jobs.cancel(table, clock, "a", "by hand") == found(table)
    assert found(table).error == "internal: x"


def test_a_waiting_job_is_cancelled_at_once(fleet: Fleet, table: DynamoControlTable, clock: HandClock) -> None:
    assert table.put(a_job("a", JobStatus.WAITING), None, "put")
    assert jobs.cancel(table, clock, "a", "by hand")
    assert (found(table).status, found(table).error) == (JobStatus.CANCELLED, "cancelled: by hand")
    assert table.waiting(fleet.pools["default"], 9) == []


def test_a_claim_between_reading_and_cancelling_is_met_by_reading_again(
    fleet: Fleet, table: DynamoControlTable, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = queue(fleet, clock, "a")
    read = table.job
    answers = iter([queued])
    monkeypatch.setattr(table, "job", lambda key: next(answers, None) or read(key))
    assert table.claim(queued, HOLDER, clock.now(), "claim")
    assert jobs.cancel(table, clock, "a", "by hand")
    assert found(table).cancel == "by hand"


def test_a_job_that_changes_each_time_is_given_up_with_a_sentence(
    fleet: Fleet, table: DynamoControlTable, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = queue(fleet, clock, "a")
    assert table.claim(queued, HOLDER, clock.now(), "claim")
    monkeypatch.setattr(table, "job", lambda _key: queued)
    with pytest.raises(jobs.Contended, match=f"each of {limits.CANCEL_ROUNDS} attempts"):
        jobs.cancel(table, clock, "a", "by hand")


def test_the_message_for_another_run_asks_for_what_the_job_was_asked_for() -> None:
    request = replace(a_job().request, depends_on=("p", "q"), on_parent_failure=OnParentFailure.RUN)
    job = a_job("portal/a/v1", correlation_id="order-7", priority=7, request=request)
    taken = submission(json.dumps(again(job, force=True)), 1.0, {"default": Pool("default", 1)}, ())
    assert (taken.key, taken.request, taken.priority, taken.pool) == (job.key, job.request, 7, "default")
    assert (taken.force, taken.correlation_id) == (True, "order-7")


def test_another_run_of_an_array_is_the_whole_array_and_a_part_of_one_has_none() -> None:
    request = Request("s3://bucket/{index}.bam", "bam", array=70, step=50)
    message = again(a_job("portal/a/v1", request=request))
    assert (message["array"], message["source"]) == (70, request.source)
    part = a_job("portal/a/v1/part-1", request=replace(request, array=20, first=50, step=1, part_of="portal/a/v1"))
    with pytest.raises(ValueError, match="is a part of the array portal/a/v1"):
        again(part)


def test_another_run_of_a_forced_run_is_forced_too() -> None:
    assert again(a_job(since=5.0))["force"] is True
    assert again(a_job())["force"] is False
