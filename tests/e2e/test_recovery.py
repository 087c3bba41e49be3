"""Deaths in the embedded cloud: a worker killed in the middle of a job, and a permission taken away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from fleetcap.model import JobStatus, SlotState
from tests.e2e.conftest import Stage

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(300)]


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
    [key] = stage.send("two", "drained", reads=60_000)
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
    stage.until(lambda: stage.lines("TickFunctionName", "ticked"), "a tick", within_s=90)


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

    with without(stage, "IntakeFunctionName", "ecs:RunTask"):
        stage.invoke("IntakeFunctionName", {"Records": [record(message)]})
    assert "ecs:RunTask" in refusal(stage, "IntakeFunctionName")
    with without(stage, "TickFunctionName", "iam:PassRole"):
        stage.until(lambda: stage.invoke("TickFunctionName", {}) or refusal(stage, "TickFunctionName"), "resent", 60)
    assert "iam:PassRole" in refusal(stage, "TickFunctionName")

    [slot] = stage.client.table.slots("one")
    assert (slot.state, slot.arn, slot.for_job) == (SlotState.LAUNCHING, "", "denied/launch")
    stage.invoke("TickFunctionName", {})
    [job] = stage.until_ended(["denied/launch"])
    assert job.status is JobStatus.COMPLETED


def refusal(stage: Stage, function: str) -> str:
    """Why the function's last launch has no answer."""
    return next((str(line["reason"]) for line in reversed(stage.lines(function, "launch unanswered"))), "")
