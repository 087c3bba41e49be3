"""What becomes of messages, with the real decider over a real table's expressions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleetcap import limits
from fleetcap.catalog import artifact_keys
from fleetcap.fleet import Fleet
from fleetcap.model import Doubt, Holder, JobStatus, Lease, NotStarted, SlotId, SlotState, Unanswered
from handlers.intake import Intake
from tests.fakes import FakeCache, FakeTasks, HandClock, Lines, make_fleet


@dataclass
class FakeRejects:
    """Keeps what is rejected."""

    kept: list[tuple[str, str, str]] = field(default_factory=list)

    def reject(self, body: str, reason: str, message_id: str) -> None:
        self.kept.append((body, reason, message_id))


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache()


@pytest.fixture
def rejects() -> FakeRejects:
    return FakeRejects()


@pytest.fixture
def intake(fleet: Fleet, cache: FakeCache, rejects: FakeRejects) -> Intake:
    return Intake(fleet, cache, rejects, frozenset())


def message(key: str, **fields: object) -> str:
    return json.dumps({"source": "s3://input/a.bam", "workflow_key": key, **fields})


def batch(clock: HandClock, *bodies: str, sent_ago_s: float = 0.0) -> dict[str, Any]:
    sent = {"SentTimestamp": str(int((clock.now() - sent_ago_s) * 1000))}
    return {"Records": [{"messageId": f"m{n}", "body": body, "attributes": sent} for n, body in enumerate(bodies)]}


def test_a_new_key_becomes_a_queued_job_with_a_worker_of_its_own(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks
) -> None:
    assert intake.handle(batch(clock, message("a"))) == {"batchItemFailures": []}
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run, job.attempt) == (JobStatus.QUEUED, 1, 0)
    held = [slot for slot in fleet.table.slots("default") if slot.held]
    assert [(slot.state, slot.arn, slot.for_job) for slot in held] == [(SlotState.LAUNCHING, "arn:task/0", "a")]
    assert len(tasks.calls) == 1


def test_an_object_that_s3_tells_of_becomes_one_job_however_often_it_is_told(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks, lines: Lines
) -> None:
    created = {"bucket": {"name": "input"}, "object": {"key": "a b.bam", "etag": "0" * 32}}
    told = json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": created})
    intake.handle(batch(clock, told))
    intake.handle(batch(clock, told))
    [key] = {str(line["key"]) for line in lines.of("admitted")}
    job = fleet.table.job(key)
    assert job is not None
    assert (job.request.source, job.run) == ("s3://input/a b.bam", 1)
    assert len(tasks.calls) == 1


def test_a_burst_beyond_the_cap_launches_exactly_the_cap_and_queues_the_rest(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks
) -> None:
    for n in range(5):
        intake.handle(batch(clock, message(f"k{n}")))
    assert len(tasks.calls) == 2
    assert len(set(tasks.calls)) == 2
    assert len(fleet.table.queued(fleet.pools["default"], clock.now(), 10)) == 5


def test_the_same_message_ten_times_is_one_run_and_one_launch(
    intake: Intake, clock: HandClock, tasks: FakeTasks, lines: Lines
) -> None:
    for _ in range(10):
        intake.handle(batch(clock, message("same")))
    assert len(tasks.calls) == 1
    assert {line["job"] for line in lines.of("admitted")} == {lines.of("admitted")[0]["job"]}
    assert [line["decision"] for line in lines.of("admitted")] == ["Enqueue", *["Attach"] * 9]


def test_deciders_that_join_a_run_at_the_same_moment_launch_nothing_of_their_own(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = fleet.slots(fleet.pools["default"])
    monkeypatch.setattr(fleet.table, "slots", lambda _pool: empty)  # nobody sees another's lease yet
    for _ in range(3):
        intake.handle(batch(clock, message("same")))
    assert len(tasks.calls) == 1


def test_a_message_that_joins_a_run_nobody_launched_for_asks_again(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(fleet.table, "slots", lambda _pool: 1 / 0)
        intake.handle(batch(clock, message("a")))
    assert tasks.calls == []
    clock.sleep(limits.FRESH_LEASE_S + 1)
    intake.handle(batch(clock, message("a")))
    assert len(tasks.calls) == 1


def test_a_bad_message_is_kept_with_its_reason_and_its_neighbours_go_on(
    intake: Intake, fleet: Fleet, clock: HandClock, rejects: FakeRejects
) -> None:
    answer = intake.handle(batch(clock, message("a"), "{nonsense", message("b")))
    assert answer == {"batchItemFailures": []}
    assert [(body, message_id) for body, _, message_id in rejects.kept] == [("{nonsense", "m1")]
    assert fleet.table.job("a")
    assert fleet.table.job("b")


def test_a_message_that_cannot_be_settled_is_delivered_again_and_its_neighbours_are_not(
    intake: Intake, clock: HandClock, rejects: FakeRejects
) -> None:
    broken = batch(clock, message("a"), message("b"))
    del broken["Records"][0]["attributes"]
    assert intake.handle(broken) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert rejects.kept == []


def test_a_finished_result_answers_without_a_run_or_a_launch(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks, cache: FakeCache
) -> None:
    cache.held = set(artifact_keys("old", "bam"))
    intake.handle(batch(clock, message("old")))
    job = fleet.table.job("old")
    assert job is not None
    assert (job.status, job.artifacts) == (JobStatus.COMPLETED, artifact_keys("old", "bam"))
    assert tasks.calls == []


def finished(fleet: Fleet, clock: HandClock, key: str, status: JobStatus) -> None:
    queued = fleet.table.job(key)
    assert queued is not None
    running = fleet.table.claim(queued, Holder(Lease(SlotId("default", 0), 1)), clock.now(), "claimed")
    assert running is not None
    assert fleet.table.finish(running, status, clock.now(), "", (), "finished")


def test_a_redelivery_after_the_end_is_answered_by_that_run(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    original = batch(clock, message("a"))
    intake.handle(original)
    clock.sleep(100)
    finished(fleet, clock, "a", JobStatus.FAILED)
    clock.sleep(100)
    intake.handle(original)
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run) == (JobStatus.FAILED, 1)


def test_a_message_sent_after_the_end_starts_the_next_run_with_higher_attempts(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    intake.handle(batch(clock, message("a")))
    finished(fleet, clock, "a", JobStatus.FAILED)
    clock.sleep(1)
    intake.handle(batch(clock, message("a")))
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run, job.attempt) == (JobStatus.QUEUED, 2, 1)


def test_an_unanswered_launch_keeps_its_slot(intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks) -> None:
    tasks.answers = [Unanswered(Doubt.UNKNOWN, "timed out")]
    intake.handle(batch(clock, message("a")))
    assert [slot.arn for slot in fleet.table.slots("default") if slot.held] == [""]


def test_a_failed_launch_gives_its_slot_back_and_the_pool_backs_off(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: FakeTasks, lines: Lines
) -> None:
    tasks.answers = [NotStarted("Capacity is unavailable at this time")]
    intake.handle(batch(clock, message("a")))
    assert not any(slot.held for slot in fleet.table.slots("default"))
    intake.handle(batch(clock, message("b")))
    assert len(tasks.calls) == 1
    said = "a launch failed: AWS has no Fargate capacity at this time (Capacity is unavailable at this time)"
    assert lines.of("wait")[-1]["reason"] == said


def test_a_cap_of_zero_launches_nothing_and_queues(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    stopped = make_fleet(fleet.table, cap=0)  # type: ignore[arg-type]
    Intake(stopped, intake.cache, intake.rejects, frozenset()).handle(batch(clock, message("a")))
    assert isinstance(stopped.tasks, FakeTasks)
    assert stopped.tasks.calls == []
    assert fleet.table.job("a") is not None
