"""The pinned CDK CLI against an embedded cloud: bootstrap, deploy, a burst, an update, another burst, destroy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetcap.model import JobStatus
from local.cdk_cli import CdkCli
from local.client import Client
from local.cloud import Cloud, CloudError, Endpoints
from tests.e2e.conftest import Stage

pytestmark = pytest.mark.cloud

BOOTSTRAP = {"CDKToolkit"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, Endpoints]]:
    """A cloud of its own, in which nothing is deployed."""
    with Cloud(tmp_path_factory.mktemp("cdk") / "state", cold_start_s=0.2) as started:
        yield started, started.start()


@pytest.fixture(scope="module")
def cdk(cloud: tuple[Cloud, Endpoints]) -> CdkCli:
    """The CLI in that cloud, bootstrapped."""
    cli = CdkCli(cloud[1], cloud[0].environment())
    cli.bootstrap()
    return cli


def config(cap: int) -> dict[str, object]:
    return {"retain_data": False, "pools": [{"name": "default", "cap": cap}], "intake_batch_size": 1}


def test_what_the_cli_deploys_runs_bursts_is_updated_and_destroyed(
    cdk: CdkCli, cloud: tuple[Cloud, Endpoints], tmp_path: Path
) -> None:
    _, endpoints = cloud
    outputs = cdk.deploy(config(cap=2))
    deployed = Stage(Client(endpoints, outputs), tmp_path)

    assert deployed_templates(endpoints) == cdk.templates()
    said = (template["Outputs"] for template in cdk.templates().values() if "Outputs" in template)
    assert outputs.keys() == {name for each in said for name in each}
    burst(deployed, "first", jobs=6, cap=2)

    assert cdk.deploy(config(cap=3)) == outputs
    assert set(stack_statuses(endpoints).values()) == {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
    burst(deployed, "second", jobs=12, cap=3)

    deployed.drain("default")
    empty_buckets(deployed.client)
    assert left(endpoints)
    began_at = time.time()
    cdk.destroy()
    assert stack_statuses(endpoints).keys() == BOOTSTRAP
    assert left(endpoints, began_at) == []


def test_what_the_app_refuses_is_told_in_its_own_words(cdk: CdkCli) -> None:
    with pytest.raises(CloudError, match=r"^cdk synth failed: .*cap of pool 'default' is -1"):
        cdk.deploy(config(cap=-1))


def test_a_cli_that_is_not_there_is_told_with_what_installs_it(cdk: CdkCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.cdk_cli._CLI", Path("nowhere"))
    with pytest.raises(CloudError, match=r"^The CDK CLI is not installed; run: make cdk$"):
        cdk.bootstrap()


def burst(deployed: Stage, name: str, jobs: int, cap: int) -> None:
    """Send jobs at once to an empty pool: all complete; the cap is reached and not passed, as the Fargate saw it."""
    deployed.drain("default")
    keys = [f"{name}/{n}" for n in range(jobs)]
    sources = deployed.sources(jobs)
    deployed.client.send([{"source": s, "workflow_key": key} for s, key in zip(sources, keys, strict=True)])
    ended = deployed.until_ended(keys)
    assert [job.status for job in ended] == [JobStatus.COMPLETED] * jobs
    assert deployed.client.meter().peak_live_tasks == cap


def deployed_templates(endpoints: Endpoints) -> dict[str, object]:
    """The template of every stack but the bootstrap's, as CloudFormation has it."""
    client = endpoints.client("cloudformation")
    names = stack_statuses(endpoints).keys() - BOOTSTRAP
    return {name: client.get_template(StackName=name, TemplateStage="Original")["TemplateBody"] for name in names}


def stack_statuses(endpoints: Endpoints) -> dict[str, str]:
    stacks = endpoints.client("cloudformation").describe_stacks()["Stacks"]
    return {stack["StackName"]: stack["StackStatus"] for stack in stacks}


def empty_buckets(client: Client) -> None:
    """A bucket with objects is not deleted with its stack; whoever destroys a deployment empties it first."""
    for bucket in (client.outputs["InputBucketName"], client.outputs["CacheBucketName"]):
        for page in client.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", []):
                client.s3.delete_object(Bucket=bucket, Key=found["Key"])


def left(endpoints: Endpoints, began_at: float = 0.0) -> list[str]:
    """Whatever of a deployment's kinds of resources exists, without what the bootstrap made.

    A function that is under way when its log group is deleted has the emulator make that group anew for its last lines,
    which AWS does not do for a role that may not: so not those that are younger than `began_at`, unix seconds.
    """
    groups = endpoints.client("logs").describe_log_groups()["logGroups"]
    found = [
        *endpoints.client("dynamodb").list_tables()["TableNames"],
        *endpoints.client("sqs").list_queues().get("QueueUrls", []),
        *(f["FunctionName"] for f in endpoints.client("lambda").list_functions()["Functions"]),
        *(m["UUID"] for m in endpoints.client("lambda").list_event_source_mappings()["EventSourceMappings"]),
        *(b["Name"] for b in endpoints.client("s3").list_buckets()["Buckets"]),
        *(r["RoleName"] for r in endpoints.client("iam").list_roles()["Roles"]),
        *(r["Name"] for r in endpoints.client("events").list_rules()["Rules"]),
        *(s["Name"] for s in endpoints.client("scheduler").list_schedules()["Schedules"]),
        *(g["logGroupName"] for g in groups if not began_at or g["creationTime"] < began_at * 1_000),
        *(a["AlarmName"] for a in endpoints.client("cloudwatch").describe_alarms()["MetricAlarms"]),
        *(d["DashboardName"] for d in endpoints.client("cloudwatch").list_dashboards()["DashboardEntries"]),
        *endpoints.client("ecs").list_clusters()["clusterArns"],
        *endpoints.client("ecs").list_task_definitions()["taskDefinitionArns"],
    ]
    return [name for name in found if not name.startswith("cdk-hnb659fds-")]
