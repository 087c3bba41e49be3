"""What the world hears in the embedded cloud: a consumer's own rule and queue on the deployment's bus, and uploads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from fleetcap import keys, lifecycle
from fleetcap.model import JobStatus
from local.samples import make_bam
from tests.e2e.conftest import Stage, staged, without_ticks

pytestmark = pytest.mark.cloud

ACTOR = "fleetcap-publish"


@dataclass
class Consumer:
    """Somebody's rule on the bus with a queue of theirs as its target, and what has arrived there."""

    stage: Stage
    url: str
    heard: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def subscribed(cls, stage: Stage, name: str, pattern: Mapping[str, object]) -> Consumer:
        sqs, events = stage.client.sqs, stage.client.cloud.client("events")
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        bus = stage.client.outputs["EventBusName"]
        events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
        return cls(stage, url)

    def details(self, key: str) -> list[dict[str, Any]]:
        """The details of all events of a workflow key so far, in the order of their arrival."""
        while got := self.stage.client.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for message in got:
                self.heard.append(json.loads(message["Body"]))
                self.stage.client.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return [event["detail"] for event in self.heard if event["detail"]["workflow_key"] == key]

    def until_heard(self, key: str, *statuses: str) -> list[dict[str, Any]]:
        """Wait for these statuses of a workflow key; the details."""

        def heard() -> bool:
            return [detail["status"] for detail in self.details(key)] == list(statuses)

        self.stage.until(heard, f"the events {statuses} of {key}")
        return self.details(key)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Terminal events, uploads off: as it is deployed where nothing is set."""
    with staged(tmp_path_factory.mktemp("quiet"), {"default": 2}) as stage:
        yield stage


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Every status is an event, and every upload a job."""
    settings = {"event_statuses": list(keys.JOB_STATUSES), "s3_trigger": True}
    with staged(tmp_path_factory.mktemp("talkative"), {"default": 2}, settings) as stage:
        yield stage


def test_a_rule_of_ones_own_hears_of_a_real_jobs_end(stage: Stage) -> None:
    consumer = Consumer.subscribed(stage, "done", {"source": ["fleetcap"], "detail": {"status": ["COMPLETED"]}})
    [key] = stage.send("default", "told")
    [job] = stage.until_ended([key])

    [detail] = consumer.until_heard(key, "COMPLETED")

    [event] = consumer.heard
    assert (event["source"], event["detail-type"]) == (keys.EVENT_SOURCE, keys.EVENT_DETAIL_TYPE)
    jsonschema.Draft202012Validator(lifecycle.json_schema()).validate(detail)
    assert (detail["job_id"], detail["run"], detail["attempt"]) == (job.id, 1, 1)
    assert (detail["old_status"], detail["reason"]) == ("RUNNING", "")
    assert (detail["queued_at"], detail["ended_at"]) == (job.queued_at, job.ended_at)
    assert detail["source"] == job.request.source
    cache = stage.client.outputs["CacheBucketName"]
    assert detail["artifacts"] == [f"s3://{cache}/{artifact}" for artifact in job.artifacts]
    for address in detail["artifacts"]:
        stage.client.s3.head_object(Bucket=cache, Key=address.removeprefix(f"s3://{cache}/"))


def test_a_rule_hears_why_a_job_failed_and_nothing_of_the_others(stage: Stage) -> None:
    consumer = Consumer.subscribed(stage, "failed", {"detail": {"status": ["FAILED"], "pool": ["default"]}})
    [source] = stage.sources(1)
    key = "default/wrong-sum"
    stage.client.send([{"source": source, "workflow_key": key, "md5": "0" * 32}])
    [job] = stage.until_ended([key])

    [detail] = consumer.until_heard(key, "FAILED")

    assert detail["reason"] == job.error != ""
    assert {event["detail"]["status"] for event in consumer.heard} == {"FAILED"}


def test_a_job_that_waits_for_another_runs_after_its_end_and_needs_no_tick(stage: Stage) -> None:
    """The later one is sent first, and the other is not known yet."""
    first, second = stage.sources(2)
    with without_ticks(stage):
        stage.client.send([{"source": second, "workflow_key": "chain/2", "depends_on": ["chain/1"]}])
        stage.until(lambda: (job := stage.job("chain/2")) and job.status is JobStatus.WAITING, "chain/2 waits")
        stage.client.send([{"source": first, "workflow_key": "chain/1"}])
        before, after = stage.until_ended(["chain/1", "chain/2"])

    assert [before.status, after.status] == [JobStatus.COMPLETED] * 2
    assert before.ended_at <= after.claimed_at
    judged = [line for line in stage.lines("IntakeFunctionName", "judged") if line["key"] == "chain/2"]
    assert [line["decision"] for line in judged] == ["Wait", "Unblock"]


def test_an_array_runs_its_elements_and_ends_with_the_last(stage: Stage) -> None:
    bucket = stage.client.outputs["InputBucketName"]
    for index in range(3):
        upload(stage, f"many/{index}.bam", seed=index)
    with without_ticks(stage):
        stage.client.send([{"source": f"s3://{bucket}/many/{{index}}.bam", "workflow_key": "many", "array": 3}])
        *elements, array = stage.until_ended(["many/0", "many/1", "many/2", "many"])

    assert [job.status for job in elements] == [JobStatus.COMPLETED] * 3
    assert (array.status, array.counts) == (JobStatus.COMPLETED, (3, 0, 0))
    assert max(job.ended_at for job in elements) <= array.ended_at
    assert {job.request.source for job in elements} == {f"s3://{bucket}/many/{index}.bam" for index in range(3)}


def test_a_job_fails_with_the_one_that_it_waits_for_and_a_rule_hears_why(stage: Stage) -> None:
    consumer = Consumer.subscribed(stage, "with-parent", {"detail": {"status": ["FAILED"]}})
    first, second = stage.sources(2)
    stage.client.send([{"source": second, "workflow_key": "fails/2", "depends_on": ["fails/1"]}])
    stage.client.send([{"source": first, "workflow_key": "fails/1", "md5": "0" * 32}])

    [detail] = consumer.until_heard("fails/2", "FAILED")

    assert (detail["old_status"], detail["claimed_at"]) == ("WAITING", None)
    assert detail["reason"].startswith("dependency: fails/1 is FAILED: input:")


@pytest.mark.parametrize("fault", ["drop-reply", "kill-after"])
def test_an_event_of_which_publish_never_hears_is_repeated_and_is_the_same(stage: Stage, fault: str) -> None:
    consumer = Consumer.subscribed(stage, fault, {"detail": {"status": ["COMPLETED"]}})
    stage.client.fault(fault, actor=ACTOR, operation="events:PutEvents", times=1)
    [key] = stage.send("default", fault)

    first, second = consumer.until_heard(key, "COMPLETED", "COMPLETED")

    assert first == second


def test_events_that_the_bus_does_not_take_come_again_from_the_stream(stage: Stage) -> None:
    consumer = Consumer.subscribed(stage, "late", {"detail": {"status": ["COMPLETED"]}})
    stage.client.fault("drop-request", actor=ACTOR, operation="events:PutEvents")
    wanted = stage.send("default", "late-1", "late-2")
    stage.until_ended(wanted)
    stage.until(lambda: stage.lines("PublishFunctionName", "not published"), "a refusal in the log")
    assert [consumer.details(key) for key in wanted] == [[], []]

    stage.client.calm()

    for key in wanted:
        consumer.until_heard(key, "COMPLETED")


def test_a_record_that_no_job_can_be_read_from_is_kept_and_holds_nobody_up(stage: Stage) -> None:
    consumer = Consumer.subscribed(stage, "after", {"detail": {"status": ["COMPLETED"]}})
    broken = {**keys.job_key("broken"), "status": "COMPLETED"}
    stage.client.cloud.client("dynamodb").put_item(
        TableName=stage.client.outputs["TableName"], Item={name: {"S": value} for name, value in broken.items()}
    )
    [key] = stage.send("default", "behind-it")

    consumer.until_heard(key, "COMPLETED")

    url = stage.client.outputs["UnpublishedQueueUrl"]
    [kept] = stage.client.sqs.receive_message(QueueUrl=url)["Messages"]
    assert "no job can be read" in json.loads(kept["Body"])["reason"]


def test_nothing_comes_of_an_upload_while_the_trigger_is_off(stage: Stage) -> None:
    source = upload(stage, "plain.bam")
    stage.client.send([{"source": source, "workflow_key": "default/asked-for"}])
    stage.until_ended(["default/asked-for"])

    assert not [line for line in stage.lines("IntakeFunctionName", "admitted") if line["key"].startswith("source/")]
    assert not stage.client.rejected()


def upload(stage: Stage, name: str, seed: int = 1) -> str:
    """A small BAM file under this key in the input bucket; its address."""
    path = stage.folder / "upload.bam"
    make_bam(path, reads=200, seed=seed)
    bucket = stage.client.outputs["InputBucketName"]
    stage.client.s3.put_object(Bucket=bucket, Key=name, Body=path.read_bytes())
    return f"s3://{bucket}/{name}"


def test_all_statuses_of_a_job_are_heard_in_order(talkative: Stage) -> None:
    consumer = Consumer.subscribed(talkative, "all", {"source": ["fleetcap"]})
    [key] = talkative.send("default", "all")

    details = consumer.until_heard(key, "QUEUED", "RUNNING", "COMPLETED")

    assert [detail["old_status"] for detail in details] == [None, "QUEUED", "RUNNING"]
    assert [detail["waited_s"] is None for detail in details] == [True, False, False]
    assert [detail["ran_s"] is None for detail in details] == [True, True, False]
    assert sequences(details) == sorted(set(sequences(details)))


def sequences(details: Sequence[Mapping[str, Any]]) -> list[int]:
    return [detail["sequence"] for detail in details]


@pytest.mark.parametrize("name", ["reads/a.bam", 'größe "x" + 100%20&<y>\\日本.bam'])
def test_an_uploaded_object_becomes_a_job_whatever_its_name(talkative: Stage, name: str) -> None:
    consumer = Consumer.subscribed(talkative, f"upload-{len(name)}", {"detail": {"status": ["COMPLETED"]}})
    source = upload(talkative, name)

    def done() -> bool:
        consumer.details("")
        return any(event["detail"]["source"] == source for event in consumer.heard)

    talkative.until(done, f"a job of {source}")


def test_what_the_command_line_uploads_is_left_to_the_message_that_it_sends(talkative: Stage) -> None:
    theirs = upload(talkative, f"{keys.SUBMITTED_PREFIX}0f3c.bam", seed=7)
    later = upload(talkative, "after.bam", seed=8)

    def sources() -> set[str]:
        lines = talkative.lines("IntakeFunctionName", "admitted")
        return {job.request.source for line in lines if (job := talkative.job(line["key"]))}

    talkative.until(lambda: later in sources(), "a job of the object that came later")
    assert theirs not in sources()


def test_an_object_with_other_contents_under_the_same_name_is_another_job(talkative: Stage) -> None:
    sources = [upload(talkative, "again.bam", seed) for seed in (1, 2, 2)]
    messages = len(sources)

    def admitted() -> list[dict[str, Any]]:
        lines = talkative.lines("IntakeFunctionName", "admitted")
        return [line for line in lines if (job := talkative.job(line["key"])) and job.request.source == sources[0]]

    talkative.until(lambda: len(admitted()) == messages, "three messages admitted")
    wanted = sorted({line["key"] for line in admitted()})
    assert len(wanted) == 2
    assert {job.status for job in talkative.until_ended(wanted)} == {JobStatus.COMPLETED}


def test_an_object_that_no_processor_takes_is_rejected_with_its_reason(talkative: Stage) -> None:
    bucket = talkative.client.outputs["InputBucketName"]
    talkative.client.s3.put_object(Bucket=bucket, Key="notes.txt", Body=b"no reads")
    kept: list[dict[str, Any]] = []

    def rejected() -> bool:
        kept.extend(talkative.client.rejected())
        return bool(kept)

    talkative.until(rejected, "a rejected message")
    assert kept[0]["reason"].startswith("processor: none takes a file named like this")
    assert json.loads(kept[0]["body"])["detail"]["object"]["key"] == "notes.txt"
