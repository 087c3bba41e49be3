"""Deaths in the embedded cloud: a worker killed in the middle of a job, a permission taken away, a person's word."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.target import Target
from fleetcap.limits import LOOK_S
from fleetcap.model import JobStatus, Slot, SlotState
from tests.e2e.conftest import CAPS, Stage, staged, without_ticks

pytestmark = pytest.mark.cloud

BEAT_S = 2
"""How soon a worker hears what was said of its slot."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("recovery"), CAPS, beat_s=BEAT_S) as stage:
        yield stage


def test_a_worker_killed_in_the_middle_of_a_job_sends_it_to_another_that_completes_it(stage: Stage) -> None:
    [key] = stage.send("two", "killed", reads=60_000)
    first, slot = stage.running(key)
    [task] = [task for task in stage.client.tasks() if task["arn"] == slot.arn]

    stage.client.kill(slot.arn)
    [job] = stage.until_ended([key])

    assert (job.status, job.attempt, job.interruptions, job.failures) == (JobStatus.COMPLETED, 2, 1, 0)
    assert job.holder != first.holder
    assert not psutil.pid_exists(task["pid"])
    assert stage.client.meter("two").peak_live_tasks <= 2


def test_a_worker_that_is_stopped_gives_its_job_back_and_leaves_in_order(stage: Stage) -> None:
    [key] = stage.send("two", "drained", reads=240_000)
    _, slot = stage.running(key)
    ecs = stage.client.cloud.client("ecs")

    ecs.stop_task(cluster=stage.client.outputs["ClusterArn"], task=slot.arn, reason="a test")
    [job] = stage.until_ended([key])

    assert (job.status, job.attempt, job.interruptions, job.failures) == (JobStatus.COMPLETED, 2, 1, 0)

    def task() -> dict[str, Any]:
        return dict(ecs.describe_tasks(cluster=stage.client.outputs["ClusterArn"], tasks=[slot.arn])["tasks"][0])

    stage.until(lambda: task()["lastStatus"] == "STOPPED", "the task has stopped")
    described = task()
    assert (described["stopCode"], described["containers"][0]["exitCode"]) == ("UserInitiated", 0)


def test_a_workers_lines_are_in_its_log_group(stage: Stage) -> None:
    [source] = stage.sources(1)
    stage.client.send([{"source": source, "workflow_key": "logged/1"}])
    [job] = stage.until_ended(["logged/1"])
    logs = stage.client.cloud.client("logs")
    groups = [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]]
    [group] = [name for name in groups if "Worker" in name]

    def lines() -> list[str]:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        return [event["message"] for page in pages for event in page["events"] if job.id in event["message"]]

    stage.until(lambda: any('"claimed"' in line for line in lines()), "the claim in the worker's log")
    stage.until(lambda: any('"ended"' in line for line in lines()), "the end in the worker's log")


def test_the_tick_runs_by_itself_every_minute(stage: Stage) -> None:
    rules = stage.client.cloud.client("scheduler").list_schedules()["Schedules"]
    names = [stage.client.cloud.client("scheduler").get_schedule(Name=rule["Name"]) for rule in rules]
    assert [rule["ScheduleExpression"] for rule in names] == ["rate(1 minute)"]
    stage.until(lambda: stage.lines("TickFunctionName", "ticked"), "a tick")


def test_a_task_that_somebody_else_runs_in_the_cluster_is_told_and_left_alone(stage: Stage) -> None:
    ecs, cluster = stage.client.cloud.client("ecs"), stage.client.outputs["ClusterArn"]
    [key] = stage.send("two", "not-alone", reads=60_000)
    stage.running(key)
    stranger = foreign_task(stage, ["python", "-c", "import time; time.sleep(600)"])
    try:
        stage.invoke("TickFunctionName", {"sweep": True})
        swept = stage.lines("TickFunctionName", "swept")[-1]
        [told] = [line for line in stage.lines("TickFunctionName", "foreign task") if line["arn"] == stranger]
        [task] = ecs.describe_tasks(cluster=cluster, tasks=[stranger])["tasks"]
    finally:
        ecs.stop_task(cluster=cluster, task=stranger, reason="the test is over")

    assert (swept["foreign_tasks"], swept["cap_breaches"], swept.get("left_out")) == (1, 0, None)
    assert swept["listed"] > swept["unknown"] >= 1
    assert (told["started_by"], told["group"]) == ("somebody", "family:stranger")
    assert task["desiredStatus"] == "RUNNING"
    assert [each["Namespace"] for each in swept["_aws"]["CloudWatchMetrics"]] == ["Fleetcap/fleetcap"]
    gauges = [line for line in stage.lines("TickFunctionName", "ticked") if line["pool"] == "two"][-1]
    assert (gauges["cap"], gauges["slots_ready"] + gauges["slots_launching"]) == (2, 1)
    assert gauges["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["pool"]]
    stage.until_ended([key])


def foreign_task(stage: Stage, command: list[str]) -> str:
    """A task in our cluster that no decider launched; its ARN."""
    ecs = stage.client.cloud.client("ecs")
    ecs.register_task_definition(
        family="stranger",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "main", "image": "none", "essential": True, "command": command}],
    )
    answer = ecs.run_task(
        cluster=stage.client.outputs["ClusterArn"],
        taskDefinition="stranger",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        startedBy="somebody",
    )
    return str(answer["tasks"][0]["taskArn"])


@contextmanager
def without(stage: Stage, function: str, action: str) -> Iterator[None]:
    """The function's role with one action less, for a while."""
    iam, lambdas = stage.client.cloud.client("iam"), stage.client.cloud.client("lambda")
    configuration = lambdas.get_function_configuration(FunctionName=stage.client.outputs[function])
    role = configuration["Role"].rpartition("/")[2]
    [name] = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    text = json.dumps(document) if isinstance(document, dict) else document
    assert action in text
    iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=text.replace(action, "s3:GetBucketAcl"))
    try:
        yield
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=text)


def record(body: object) -> dict[str, object]:
    sent = {"SentTimestamp": str(int(time.time() * 1000))}
    return {"messageId": "m", "body": json.dumps(body) if not isinstance(body, str) else body, "attributes": sent}


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("dynamodb:GetItem", {"source": "s3://b-1/x.bam", "workflow_key": "denied/get", "pool": "one"}),
        ("dynamodb:PutItem", {"source": "s3://b-1/x.bam", "workflow_key": "denied/put", "pool": "one"}),
        ("s3:GetObject", {"source": "s3://b-1/x.bam", "workflow_key": "denied/head", "pool": "one"}),
        ("sqs:SendMessage", "no job"),
    ],
)
def test_a_decider_with_one_permission_less_fails_and_says_so(stage: Stage, action: str, body: object) -> None:
    event = {"Records": [record(body)]}
    with without(stage, "IntakeFunctionName", action):
        assert stage.invoke("IntakeFunctionName", event) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
    assert stage.invoke("IntakeFunctionName", event) == {"batchItemFailures": []}
    stage.until_ended([body["workflow_key"]] if isinstance(body, dict) else [])


def test_a_decider_that_cannot_ask_for_capacity_keeps_the_job_for_the_tick(stage: Stage) -> None:
    [source] = stage.sources(1)
    stage.drain("one")
    message = {"source": source, "workflow_key": "denied/query", "pool": "one"}
    with without(stage, "IntakeFunctionName", "dynamodb:Query"):
        answer = stage.invoke("IntakeFunctionName", {"Records": [record(message)]})
    assert answer == {"batchItemFailures": []}
    assert "dynamodb:Query" in str(stage.lines("IntakeFunctionName", "not scaled")[-1]["error"])
    assert not any(slot.held for slot in stage.client.table.slots("one"))
    stage.invoke("TickFunctionName", {})
    [job] = stage.until_ended(["denied/query"])
    assert job.status is JobStatus.COMPLETED


def test_a_launch_that_is_not_permitted_keeps_its_slot_and_says_why(stage: Stage) -> None:
    [source] = stage.sources(1)
    stage.drain("one")
    message = {"source": source, "workflow_key": "denied/launch", "pool": "one"}

    with without_ticks(stage):
        with without(stage, "IntakeFunctionName", "ecs:RunTask"):
            stage.invoke("IntakeFunctionName", {"Records": [record(message)]})
        assert "ecs:RunTask" in refusal(stage, "IntakeFunctionName")
        with without(stage, "TickFunctionName", "iam:PassRole"):
            stage.until(lambda: stage.invoke("TickFunctionName", {}) or refusal(stage, "TickFunctionName"), "resent")
        assert "iam:PassRole" in refusal(stage, "TickFunctionName")
        [slot] = stage.client.table.slots("one")
        assert (slot.state, slot.arn, slot.for_job) == (SlotState.LAUNCHING, "", "denied/launch")
    stage.invoke("TickFunctionName", {})
    [job] = stage.until_ended(["denied/launch"])
    assert job.status is JobStatus.COMPLETED


def refusal(stage: Stage, function: str) -> str:
    """Why the function's last launch has no answer."""
    return next((str(line["reason"]) for line in reversed(stage.lines(function, "launch unanswered"))), "")


# --- a person's word at run time


def running(stage: Stage, keys: list[str]) -> int:
    return sum((job := stage.job(key)) is not None and job.status is JobStatus.RUNNING for key in keys)


def live(stage: Stage) -> int:
    return stage.client.meter("five").live_tasks


def test_what_a_person_says_of_a_pool_holds_at_once_and_costs_no_job(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Target("the cloud of this test", stage.client.outputs, stage.client.cloud.client)
    monkeypatch.setattr("cli.target.find", lambda _name, _stack: here)

    def does(*words: str) -> str:
        return CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False).stdout

    # A lower cap: who is above it ends its job and leaves, and nobody comes in its place.
    keys, gate = stage.behind_a_gate("five", "lowered", 9)
    stage.until(lambda: running(stage, keys) == CAPS["five"], "all five run")
    assert "nothing is leased above 2; 3 workers above it finish their jobs and leave" in does(
        "pools", "set", "five", "--cap", "2"
    )
    waiting = next(key for key in keys if (job := stage.job(key)) and job.status is JobStatus.QUEUED)
    assert json.loads(does("job", waiting, "--json"))["waits_for"].startswith("cap full (5 of 2 slots in use); ")
    stage.invoke("TickFunctionName", {})
    assert (running(stage, keys), live(stage)) == (5, 5)
    gate.touch()
    stage.until(lambda: live(stage) == 2, "the three have left", every_s=0.2)
    ended = stage.until_ended(keys)
    assert {(job.status, job.attempt) for job in ended} == {(JobStatus.COMPLETED, 1)}
    assert (live(stage), stage.client.meter("five").tasks_launched) == (2, 5)

    # A pause: two idle workers leave what comes alone, and take it once the pool is resumed.
    does("pools", "pause", "five", "--reason", "tea")
    keys, gate = stage.behind_a_gate("five", "paused", 2)
    gate.touch()
    stage.until(lambda: all(stage.job(key) for key in keys), "both are queued")
    stage.invoke("TickFunctionName", {})
    time.sleep(3 * LOOK_S)
    assert running(stage, keys) == 0
    assert json.loads(does("job", keys[0], "--json"))["waits_for"].startswith("pool paused: tea; ")
    does("pools", "resume", "five")
    assert {job.attempt for job in stage.until_ended(keys)} == {1}
    assert live(stage) == 2

    # A reservation: workers come without work, and leave when it is over.
    does("pools", "set", "five", "--cap", "configured")
    does("reserve", "five", "4", "--for", "1h", "--as", "course")
    stage.tick_until(lambda: [slot.keep for slot in slots(stage)].count(True) == 4, "four workers stand by")
    assert live(stage) == 4
    does("unreserve", "five", "course")
    stage.tick_until(lambda: live(stage) == 0, "they have left")

    # The end of everything, under load: each task stops, no job is lost.
    keys, gate = stage.behind_a_gate("five", "stopped", 8)
    stage.until(lambda: running(stage, keys) == CAPS["five"], "all five run")
    assert "told to stop" in does("stop-all", "five", "--yes")
    stage.tick_until(lambda: not any(slot.held for slot in slots(stage)), "all slots are free")
    assert (live(stage), running(stage, keys)) == (0, 0)
    told = {pool["pool"]: pool for pool in json.loads(does("pools", "--json"))["pools"]}["five"]
    assert (told["mode"], told["waits"]["reason"]) == ("stopped", "pool stopped: stop-all")
    gate.touch()
    does("pools", "resume", "five")
    stage.invoke("TickFunctionName", {})
    ended = stage.until_ended(keys)
    assert {job.status for job in ended} == {JobStatus.COMPLETED}
    assert {job.failures for job in ended} == {0}
    assert sum(job.interruptions for job in ended) == CAPS["five"]
    assert stage.client.meter("five").peak_live_tasks <= CAPS["five"]


def slots(stage: Stage) -> list[Slot]:
    return stage.client.table.slots("five")
