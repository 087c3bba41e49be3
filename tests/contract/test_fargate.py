"""The process-backed Fargate against a real emulator: real processes, real policies, real queues."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.fargate.events import ruled_out
from local.fargate.tasks import EcsError, Launch, Registry, Status
from tests.contract.fargate_cloud import (
    MARK,
    NETWORK,
    REPOSITORY,
    SLEEP,
    Cloud,
    code,
    free_port,
    get,
    marked,
    post,
    refused,
    running_cloud,
    wait_for,
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


# --- the registry: no cloud needed


def definition(family: str = "f") -> dict[str, Any]:
    container = {"name": "worker", "essential": True}
    return {"family": family, "taskDefinitionArn": f"arn:td/{family}:1", "containerDefinitions": [container]}


def a_launch(**more: Any) -> Launch:
    return Launch(cluster_arn="arn:aws:ecs:r:1:cluster/c", definition=definition(), token="t", **more)


def test_a_token_replays_failures_too() -> None:
    registry = Registry(lambda _: None, capacity=1)
    first, _ = registry.run(a_launch(count=2), now=0)
    registry.capacity = None
    again, fresh = registry.run(a_launch(count=2), now=100)
    assert again == first
    assert (len(again["tasks"]), len(again["failures"]), fresh) == (1, 1, [])


def test_a_token_is_forgotten_an_hour_after_its_task_or_after_a_day() -> None:
    registry = Registry(lambda _: None)
    _, [task] = registry.run(a_launch(), now=0)
    registry.stopped(task, now=10)
    assert registry.run(a_launch(), now=3_600)[1] == []
    assert len(registry.run(a_launch(), now=3_611)[1]) == 1
    assert registry.run(a_launch(), now=80_000)[1] == []
    assert len(registry.run(a_launch(), now=3_611 + 86_401)[1]) == 1


def test_a_conflict_names_the_existing_tasks() -> None:
    registry = Registry(lambda _: None)
    _, [task] = registry.run(a_launch(fingerprint="a"), now=0)
    with pytest.raises(EcsError) as caught:
        registry.run(a_launch(fingerprint="b"), now=1)
    assert (caught.value.code, caught.value.details) == ("ConflictException", {"resourceIds": [task.arn]})


def test_a_stopped_task_is_visible_for_an_hour() -> None:
    registry = Registry(lambda _: None)
    _, [task] = registry.run(a_launch(), now=0)
    registry.stopped(task, now=10)
    assert registry.describe(task.launch.cluster_arn, [task.arn], False, now=3_600)["failures"] == []
    gone = registry.describe(task.launch.cluster_arn, [task.arn], False, now=3_700)
    assert gone == {"tasks": [], "failures": [{"arn": task.arn, "reason": "MISSING"}]}


def test_the_meter_counts_a_task_until_it_is_stopped() -> None:
    registry = Registry(lambda _: None)
    _, [one, two] = registry.run(a_launch(count=2), now=0)
    registry.advance(one, Status.RUNNING, now=1)
    registry.exited(one, now=2, exit_code=0)
    assert registry.meter()["live_tasks"] == 2
    registry.stopped(one, now=3)
    registry.stopped(two, now=3)
    meter = registry.meter()
    assert (meter["live_tasks"], meter["peak_live_tasks"], meter["tasks_launched"], meter["tasks_stopped"]) == (
        0,
        2,
        2,
        2,
    )
    assert meter["by_family"] == {"f": {"live_tasks": 0, "peak_live_tasks": 2, "tasks_launched": 2}}


@pytest.mark.parametrize(
    ("pattern", "out"),
    [
        ({"source": ["aws.ecs"]}, False),
        ({"source": ["aws.ec2", "aws.s3"]}, True),
        ({"detail": {"lastStatus": ["STOPPED"]}}, True),
        ({"detail": {"lastStatus": ["STOPPED", "RUNNING"], "startedBy": [{"prefix": "pool/"}]}}, False),
        ({"detail": {"stopCode": [{"exists": False}]}, "resources": ["x"]}, False),
    ],
)
def test_only_a_plain_list_of_values_rules_an_event_out(pattern: dict[str, Any], out: bool) -> None:
    event = {"source": "aws.ecs", "resources": ["y"], "detail": {"lastStatus": "RUNNING", "startedBy": "pool/1/1"}}
    assert ruled_out(pattern, event) is out


# --- the life of a task


@pytest.mark.cloud
def test_a_task_goes_through_its_states_and_tells_each_of_them(cloud: Cloud) -> None:
    task_definition = cloud.define(["python", "-c", "print('hello from a task')"])
    arn = cloud.launch(task_definition, startedBy="pool/1/7", tags=[{"key": "pool", "value": "p"}])
    events = cloud.events(arn, lambda seen: bool(seen) and seen[-1]["detail"]["lastStatus"] == "STOPPED")
    states = [event["detail"]["lastStatus"] for event in events]
    versions = [event["detail"]["version"] for event in events]
    assert states == ["PROVISIONING", "PENDING", "RUNNING", "DEPROVISIONING", "STOPPED"]
    assert versions == sorted(set(versions))
    last = events[-1]
    assert (last["version"], last["source"], last["detail-type"]) == ("0", "aws.ecs", "ECS Task State Change")
    assert (last["account"], last["region"], last["resources"]) == ("000000000000", "us-east-1", [arn])
    detail, shown = last["detail"], cloud.task(arn)
    assert (detail["taskArn"], detail["startedBy"], detail["stopCode"]) == (arn, "pool/1/7", "EssentialContainerExited")
    assert (
        detail["containers"][0] | {"name": "worker", "exitCode": 0, "lastStatus": "STOPPED"} == detail["containers"][0]
    )
    assert shown["version"] == detail["version"]
    assert shown["createdAt"] <= shown["startedAt"] <= shown["stoppingAt"] <= shown["stoppedAt"]
    assert shown["tags"] == [{"key": "pool", "value": "p"}]
    assert shown["stoppedReason"] == "Essential container in task exited"


@pytest.mark.cloud
def test_stopped_is_told_promptly(cloud: Cloud) -> None:
    """The best of three: a busy machine may hold up one."""
    assert min(told_after_s(cloud) for _ in range(3)) < 1.0


def told_after_s(cloud: Cloud) -> float:
    """How long after a task was killed the event that it stopped is there."""
    arn = cloud.launch(cloud.define(SLEEP))
    cloud.reaches(arn, "RUNNING")
    cloud.events(arn, lambda seen: seen[-1:] != [] and seen[-1]["detail"]["lastStatus"] == "RUNNING")
    before = time.monotonic()
    assert post(f"{cloud.url}/_fleetcap/tasks/kill", {"arn": arn}) == {}
    events = cloud.events(arn, lambda seen: seen[-1]["detail"]["lastStatus"] == "STOPPED")
    took_s = time.monotonic() - before
    assert events[-1]["detail"]["containers"][0]["exitCode"] == 137
    return took_s


@pytest.mark.cloud
def test_a_failing_target_holds_up_no_other_task(cloud: Cloud) -> None:
    quick = cloud.define(["true"])
    lost, other = cloud.launch(quick, group="lost"), cloud.launch(quick)
    cloud.events(other, lambda seen: bool(seen) and seen[-1]["detail"]["lastStatus"] == "STOPPED")
    served = cloud.events(lost, lambda seen: bool(seen) and seen[-1]["detail"]["lastStatus"] == "STOPPED")
    assert [event["detail"]["version"] for event in served] == [1, 2, 3, 4, 5]


@pytest.mark.cloud
def test_a_lambda_function_hears_of_what_its_rule_matches(cloud: Cloud) -> None:
    quick = cloud.define(["true"])
    cloud.launch(quick, startedBy="elsewhere")
    arn = cloud.launch(quick, startedBy="relay/1/1")
    [message] = cloud.sqs.receive_message(QueueUrl=cloud.relayed, WaitTimeSeconds=10)["Messages"]
    event = json.loads(message["Body"])
    assert (event["resources"], event["detail"]["lastStatus"]) == ([arn], "STOPPED")
    assert "Messages" not in cloud.sqs.receive_message(QueueUrl=cloud.relayed)


@pytest.mark.cloud
def test_a_task_sees_its_own_environment_and_nothing_of_the_endpoint(cloud: Cloud) -> None:
    show = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.stdin.read()]))"
    container: dict[str, Any] = {"environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]}
    task_definition = cloud.define(["ignored"], entryPoint=["python"], **container)
    override = {"name": "worker", "command": ["-c", show], "environment": [{"name": "B", "value": "2"}]}
    arn = cloud.launch(task_definition, overrides={"containerOverrides": [override]})
    cloud.reaches(arn, "STOPPED")
    env, cwd, stdin = json.loads(cloud.printed(arn))
    assert (env["A"], env["B"], cwd, stdin) == ("1", "2", str(REPOSITORY), "")
    assert (env["AWS_ENDPOINT_URL"], env["AWS_ENDPOINT_URL_ECS"]) == (cloud.emulator_url, cloud.url)
    assert (env["FLEETCAP_CLOUD"], env["AWS_REGION"]) == (MARK, "us-east-1")
    assert env["TMPDIR"].startswith(str(cloud.folder)) and not Path(env["TMPDIR"]).exists()
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & env.keys()


@pytest.mark.cloud
def test_a_task_acts_as_its_role_and_knows_who_it_is(cloud: Cloud) -> None:
    ask = (
        "import boto3, os, urllib.request as u;"
        "print(boto3.client('sts').get_caller_identity()['Arn']);"
        "print(boto3.client('dynamodb').list_tables()['TableNames']);"
        "print(u.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4'] + '/task').read().decode());"
        "print(u.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4']).read().decode());"
        "boto3.client('sqs').list_queues()"
    )
    task_definition = cloud.define(["python", "-c", ask])
    arn = cloud.launch(task_definition)
    cloud.reaches(arn, "STOPPED")
    identity, tables, task, container, *rest = cloud.printed(arn).splitlines()
    assert identity == f"arn:aws:sts::000000000000:assumed-role/task-role/{arn.rpartition('/')[2]}"
    assert tables == "[]"
    shown = json.loads(task)
    assert (shown["TaskARN"], f"{shown['Family']}:{shown['Revision']}") == (arn, task_definition)
    assert (shown["KnownStatus"], shown["DesiredStatus"], shown["LaunchType"]) == ("RUNNING", "RUNNING", "FARGATE")
    assert shown["Limits"] == {"CPU": 0.25, "Memory": 512}
    assert json.loads(container)["Name"] == shown["Containers"][0]["Name"] == "worker"
    assert "AccessDenied" in rest[-1]


@pytest.mark.cloud
def test_what_a_task_prints_reaches_its_log_stream(cloud: Cloud) -> None:
    options = {"awslogs-group": "/fleet", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "jobs"}
    talk = "import sys; print('one'); print('two', file=sys.stderr); sys.stdout.write('three')"
    task_definition = cloud.define(
        ["python", "-c", talk], logConfiguration={"logDriver": "awslogs", "options": options}
    )
    arn = cloud.launch(task_definition)
    stream = f"jobs/worker/{arn.rpartition('/')[2]}"

    def shipped() -> list[str]:
        try:
            events = cloud.logs.get_log_events(logGroupName="/fleet", logStreamName=stream)["events"]
        except cloud.logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in events]

    wait_for(lambda: len(shipped()) == 3)
    assert sorted(shipped()) == ["one", "three", "two"]


@pytest.mark.cloud
def test_a_log_group_that_is_missing_hurts_no_task(cloud: Cloud) -> None:
    options = {"awslogs-group": "/missing", "awslogs-stream-prefix": "jobs"}
    log = {"logDriver": "awslogs", "options": options}
    arn = cloud.launch(cloud.define(["python", "-c", "print('x')"], logConfiguration=log))
    assert cloud.reaches(arn, "STOPPED")["containers"][0]["exitCode"] == 0


@pytest.mark.cloud
def test_an_exit_code_is_reported(cloud: Cloud) -> None:
    arn = cloud.launch(cloud.define(["python", "-c", "raise SystemExit(3)"]))
    assert cloud.reaches(arn, "STOPPED")["containers"][0]["exitCode"] == 3


@pytest.mark.cloud
def test_a_command_that_cannot_start_stops_the_task(cloud: Cloud) -> None:
    stopped = cloud.reaches(cloud.launch(cloud.define(["no-such-program"])), "STOPPED")
    assert stopped["stopCode"] == "TaskFailedToStart"
    assert stopped["stoppedReason"].startswith("CannotStartContainerError")
    assert stopped["containers"][0]["reason"] == stopped["stoppedReason"]
    assert "startedAt" not in stopped


@pytest.mark.cloud
def test_nothing_of_a_session_outlives_its_main_process(cloud: Cloud) -> None:
    leave = (
        "import os, subprocess; sleep = ['sleep', '60'];"
        "print(subprocess.Popen(sleep).pid, subprocess.Popen(sleep, process_group=0).pid)"
    )
    arn = cloud.launch(cloud.define(["python", "-c", leave]))
    cloud.events(arn, lambda seen: bool(seen) and seen[-1]["detail"]["lastStatus"] == "STOPPED")
    left = [int(pid) for pid in cloud.printed(arn).split()]
    assert len(left) == 2
    running = [pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert running == []


# --- StopTask


@pytest.mark.cloud
def test_stop_task_asks_first(cloud: Cloud) -> None:
    polite = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
        "print('ready', flush=True); time.sleep(60)"
    )
    arn = cloud.launch(cloud.define(["python", "-c", polite]))
    cloud.reaches(arn, "RUNNING")
    wait_for(lambda: "ready" in cloud.printed(arn))
    answer = cloud.ecs.stop_task(cluster="fleet", task=arn, reason="scale in")["task"]
    assert (answer["desiredStatus"], answer["stoppedReason"]) == ("STOPPED", "scale in")
    stopped = cloud.reaches(arn, "STOPPED")
    assert (stopped["stopCode"], stopped["containers"][0]["exitCode"]) == ("UserInitiated", 7)
    again = cloud.ecs.stop_task(cluster="fleet", task=arn.rpartition("/")[2], reason="another")["task"]
    assert (again["lastStatus"], again["stoppedReason"]) == ("STOPPED", "scale in")


@pytest.mark.cloud
def test_stop_task_kills_after_the_stop_timeout(cloud: Cloud) -> None:
    deaf = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    arn = cloud.launch(cloud.define(["python", "-c", deaf], stopTimeout=3))
    cloud.reaches(arn, "RUNNING")
    wait_for(lambda: "\n" in cloud.printed(arn))
    before = time.monotonic()
    cloud.ecs.stop_task(cluster="fleet", task=arn)
    cloud.ecs.stop_task(cluster="fleet", task=arn)
    assert cloud.task(arn)["lastStatus"] == "RUNNING"
    stopped = cloud.reaches(arn, "STOPPED")
    assert 2.9 < time.monotonic() - before < 28  # far below what it would be by default
    assert stopped["containers"][0]["exitCode"] == 137


@pytest.mark.cloud
def test_a_task_stopped_in_its_cold_start_never_starts(cloud: Cloud) -> None:
    post(f"{cloud.url}/_fleetcap/cold-start", {"seconds": 30})
    try:
        arn = cloud.launch(cloud.define(SLEEP))
        assert cloud.task(arn)["lastStatus"] == "PROVISIONING"
        cloud.ecs.stop_task(cluster="fleet", task=arn)
        stopped = cloud.reaches(arn, "STOPPED")
    finally:
        post(f"{cloud.url}/_fleetcap/cold-start", {"seconds": 0.2})
    assert (stopped["stopCode"], cloud.metered(arn)["pid"]) == ("UserInitiated", 0)
    assert "exitCode" not in stopped["containers"][0] and "startedAt" not in stopped


@pytest.mark.cloud
def test_stopping_an_unknown_task_is_refused_as_by_aws(cloud: Cloud) -> None:
    error = refused(lambda: cloud.ecs.stop_task(cluster="fleet", task="0" * 32))["Error"]
    assert (error["Code"], error["Message"]) == ("InvalidParameterException", "The referenced task was not found.")
    assert code(lambda: cloud.ecs.stop_task(cluster="other", task="0" * 32)) == "ClusterNotFoundException"


# --- client tokens


@pytest.mark.cloud
def test_a_retry_with_the_same_token_names_the_same_task(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"])
    first = cloud.run(task_definition, clientToken="retry", startedBy="a")
    cloud.reaches(first["tasks"][0]["taskArn"], "STOPPED")
    again = cloud.run(task_definition, clientToken="retry", startedBy="a")
    assert again["tasks"] == first["tasks"]
    error = refused(lambda: cloud.run(task_definition, clientToken="retry", startedBy="b"))
    assert error["Error"]["Code"] == "ConflictException"
    assert error["resourceIds"] == [first["tasks"][0]["taskArn"]]


@pytest.mark.cloud
def test_simultaneous_calls_with_one_token_start_one_task(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"])
    barrier = threading.Barrier(16)

    def call(number: int) -> str:
        barrier.wait()
        return cloud.launch(task_definition, clientToken=f"race-{number % 2}")

    with ThreadPoolExecutor(16) as pool:
        arns = set(pool.map(call, range(16)))
    assert len(arns) == 2
    assert cloud.meter()["by_family"][task_definition.removesuffix(":1")]["tasks_launched"] == 2


@pytest.mark.cloud
def test_capacity_that_is_missing_is_answered_with_failures_and_replayed(cloud: Cloud) -> None:
    wait_for(lambda: cloud.meter()["live_tasks"] == 0)
    task_definition = cloud.define(["true"])
    post(f"{cloud.url}/_fleetcap/capacity", {"tasks": 0})
    try:
        failed = cloud.run(task_definition, clientToken="full")
    finally:
        post(f"{cloud.url}/_fleetcap/capacity", {"tasks": None})
    assert failed["tasks"] == [] and failed["failures"][0]["reason"].startswith("Capacity is unavailable")
    assert cloud.run(task_definition, clientToken="full")["failures"] == failed["failures"]


# --- parameters


@pytest.mark.cloud
def test_parameters_are_refused_as_by_aws(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"])
    override = {"containerOverrides": [{"name": "worker", "environment": [{"name": "A", "value": "x" * 8_192}]}]}
    stranger = {"containerOverrides": [{"name": "stranger"}]}
    no_subnets: dict[str, Any] = {"awsvpcConfiguration": {"subnets": []}}
    strategy = [{"capacityProvider": "FARGATE"}]
    wrong: list[dict[str, Any]] = [
        {"startedBy": "x" * 129}, {"startedBy": "pool/1#7"}, {"clientToken": "x" * 65},
        {"overrides": override}, {"overrides": stranger},
        {"count": 11}, {"networkConfiguration": {}}, {"networkConfiguration": no_subnets},
        {"capacityProviderStrategy": strategy}, {"launchType": "EC2"},
    ]  # fmt: skip
    for parameters in wrong:
        assert code(lambda p=parameters: cloud.run(task_definition, **p)) == "InvalidParameterException", parameters  # type: ignore[misc]
    assert code(lambda: cloud.run(task_definition, cluster="other")) == "ClusterNotFoundException"
    assert code(lambda: cloud.run("nothing:1")) == "ClientException"


@pytest.mark.cloud
def test_a_capacity_provider_is_remembered(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"]).removesuffix(":1")
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    parameters = {"cluster": "fleet", "networkConfiguration": NETWORK, "capacityProviderStrategy": strategy}
    answer = cloud.ecs.run_task(taskDefinition=task_definition, count=2, **parameters)
    assert [task["capacityProviderName"] for task in answer["tasks"]] == ["FARGATE_SPOT"] * 2


# --- reading


@pytest.mark.cloud
def test_tasks_are_found_by_who_started_them_and_by_family_in_pages(cloud: Cloud) -> None:
    post(f"{cloud.url}/_fleetcap/cold-start", {"seconds": 30})
    task_definition = cloud.define(SLEEP)
    try:
        arns = [cloud.launch(task_definition, startedBy=f"pool/{number}/1") for number in range(3)]
    finally:
        post(f"{cloud.url}/_fleetcap/cold-start", {"seconds": 0.2})
    family = task_definition.removesuffix(":1")
    listed = cloud.ecs.list_tasks
    assert listed(cluster="fleet", startedBy="pool/1/1")["taskArns"] == [arns[1]]
    first = listed(cluster="fleet", family=family, maxResults=2)
    rest = listed(cluster="fleet", family=family, maxResults=2, nextToken=first["nextToken"])
    assert (first["taskArns"], rest["taskArns"], "nextToken" in rest) == (arns[:2], arns[2:], False)
    assert code(lambda: listed(cluster="fleet", startedBy="x", family=family)) == "InvalidParameterException"
    for arn in arns:
        cloud.ecs.stop_task(cluster="fleet", task=arn)
    assert listed(cluster="fleet", family=family)["taskArns"] == []
    assert listed(cluster="fleet", family=family, desiredStatus="STOPPED")["taskArns"] == arns


@pytest.mark.cloud
def test_an_unknown_task_is_missing_and_a_hundred_is_the_limit(cloud: Cloud) -> None:
    arn = "arn:aws:ecs:us-east-1:000000000000:task/fleet/" + "0" * 32
    answer = cloud.ecs.describe_tasks(cluster="fleet", tasks=[arn])
    assert (answer["tasks"], answer["failures"]) == ([], [{"arn": arn, "reason": "MISSING"}])
    many = [f"{number:032}" for number in range(101)]
    assert code(lambda: cloud.ecs.describe_tasks(cluster="fleet", tasks=many)) == "InvalidParameterException"
    assert len(cloud.ecs.describe_tasks(cluster="fleet", tasks=many[:100])["failures"]) == 100


@pytest.mark.cloud
def test_other_calls_are_passed_on(cloud: Cloud) -> None:
    assert cloud.ecs.describe_clusters(clusters=["fleet"])["clusters"][0]["clusterName"] == "fleet"
    assert code(cloud.as_role(PASS).list_clusters) == "AccessDeniedException"


# --- authorization

CLUSTER = "arn:aws:ecs:us-east-1:000000000000:cluster/fleet"
PASS: dict[str, Any] = {
    "Action": "iam:PassRole",
    "Resource": ["arn:aws:iam::000000000000:role/task-role", "arn:aws:iam::000000000000:role/execution-role"],
    "Condition": {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
}


def may(action: str, resource: str = "*", cluster: str = CLUSTER) -> dict[str, Any]:
    return {"Action": action, "Resource": resource, "Condition": {"ArnEquals": {"ecs:cluster": cluster}}}


def may_run(definition: str, cluster: str = CLUSTER) -> dict[str, Any]:
    return may("ecs:RunTask", f"arn:aws:ecs:us-east-1:000000000000:task-definition/{definition}", cluster)


def try_run(client: Any, task_definition: str, **more: Any) -> Any:
    parameters = {"cluster": "fleet", "launchType": "FARGATE", "networkConfiguration": NETWORK, **more}
    return client.run_task(taskDefinition=task_definition, **parameters)


@pytest.mark.cloud
def test_a_role_with_the_least_privileges_of_aws_may_run_its_tasks(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"])
    tasks = "arn:aws:ecs:us-east-1:000000000000:task/fleet/*"
    caller = cloud.as_role(
        may_run(task_definition.replace(":1", ":*")), PASS, may("ecs:StopTask", tasks), may("ecs:DescribeTasks", tasks)
    )
    arn = try_run(caller, task_definition)["tasks"][0]["taskArn"]
    assert caller.describe_tasks(cluster="fleet", tasks=[arn])["failures"] == []
    assert caller.stop_task(cluster="fleet", task=arn)["task"]["taskArn"] == arn
    assert code(lambda: caller.list_tasks(cluster="fleet")) == "AccessDeniedException"


@pytest.mark.cloud
def test_a_role_without_run_task_is_refused(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"])
    stranger = cloud.as_role(PASS, may("ecs:Describe*"))
    error = refused(lambda: try_run(stranger, task_definition))["Error"]
    assert error["Code"] == "AccessDeniedException" and "ecs:RunTask" in error["Message"]
    assert code(lambda: stranger.stop_task(cluster="fleet", task="0" * 32)) == "AccessDeniedException"
    elsewhere = cloud.as_role(PASS, may_run("*", cluster=CLUSTER + "-2"))
    assert code(lambda: try_run(elsewhere, task_definition)) == "AccessDeniedException"
    assert code(lambda: try_run(cloud.as_role(PASS, may_run("other:*")), task_definition)) == "AccessDeniedException"


@pytest.mark.cloud
def test_a_role_without_pass_role_is_refused(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"])
    error = refused(lambda: try_run(cloud.as_role(may_run("*")), task_definition))["Error"]
    assert error["Code"] == "AccessDeniedException" and "iam:PassRole" in error["Message"]
    one_role = cloud.as_role(may_run("*"), {**PASS, "Resource": PASS["Resource"][0]})
    assert "execution-role" in refused(lambda: try_run(one_role, task_definition))["Error"]["Message"]
    other = {"taskRoleArn": "arn:aws:iam::000000000000:role/admin"}
    overriding = cloud.as_role(may_run("*"), PASS)
    assert "role/admin" in refused(lambda: try_run(overriding, task_definition, overrides=other))["Error"]["Message"]


@pytest.mark.cloud
def test_tags_need_a_permission_of_their_own(cloud: Cloud) -> None:
    task_definition = cloud.define(["true"])
    tags = [{"key": "pool", "value": "p"}]
    plain = cloud.as_role(may_run("*"), PASS)
    assert "ecs:TagResource" in refused(lambda: try_run(plain, task_definition, tags=tags))["Error"]["Message"]
    created = {"Condition": {"StringEquals": {"ecs:CreateAction": "RunTask", "aws:RequestTag/pool": "p"}}}
    tag = {"Action": "ecs:TagResource", "Resource": "arn:aws:ecs:us-east-1:000000000000:task/fleet/*", **created}
    assert len(try_run(cloud.as_role(may_run("*"), PASS, tag), task_definition, tags=tags)["tasks"]) == 1


@pytest.mark.cloud
def test_a_wrong_signature_is_refused(cloud: Cloud) -> None:
    forger = cloud.as_role(may_run("*"), PASS, secret="wrong")
    assert code(lambda: try_run(forger, cloud.define(["true"]))) == "InvalidSignatureException"
    assert code(forger.list_clusters) == "InvalidSignatureException"
    unknown = cloud.client("ecs", cloud.url, aws_access_key_id="AKIAUNKNOWN", aws_secret_access_key="x")
    assert code(lambda: unknown.list_tasks(cluster="fleet")) == "UnrecognizedClientException"


# --- the end


@pytest.mark.cloud
def test_sigterm_ends_every_task_and_leaves_no_process(cloud: Cloud) -> None:
    port = free_port()
    endpoint = cloud.start_endpoint(port, cold_start_s=0.0)
    client = cloud.client("ecs", f"http://127.0.0.1:{port}")
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    for command in (["python", "-c", deaf], SLEEP):
        try_run(client, cloud.define(command))
    logs = cloud.folder / str(port) / "tasks"
    wait_for(lambda: [log.read_text() for log in logs.glob("*.log")] == ["up\n"] * 2)
    pids = [task["pid"] for task in get(f"http://127.0.0.1:{port}/_fleetcap/meter")["tasks"]]
    endpoint.terminate()
    assert endpoint.wait(60) == 0
    assert all(pids) and not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.cloud
def test_a_killed_endpoint_leaves_tasks_that_carry_the_mark(cloud: Cloud) -> None:
    port = free_port()
    endpoint = cloud.start_endpoint(port, cold_start_s=0.0)
    try_run(cloud.client("ecs", f"http://127.0.0.1:{port}"), cloud.define(SLEEP))
    wait_for(lambda: bool([task for task in get(f"http://127.0.0.1:{port}/_fleetcap/meter")["tasks"] if task["pid"]]))
    [task] = get(f"http://127.0.0.1:{port}/_fleetcap/meter")["tasks"]
    endpoint.send_signal(signal.SIGKILL)
    endpoint.wait(60)
    try:
        assert task["pid"] in marked(MARK)
    finally:
        os.kill(task["pid"], signal.SIGKILL)
