"""What must hold of the stacks, whatever the knobs say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from fleetcap import catalog, keys, limits
from fleetcap.model import Pool
from fleetcap.sources import SourceRules
from stacks.config import SOURCE_HOSTS_MAX_CHARS, TENANT_WEIGHTS_MAX_CHARS, PoolConfig
from stacks.control import POOL_POLICY
from stacks.worker import ENV_WORKER_KNOBS
from tests.stacks.conftest import Synthesized, name_of
from worker_image.worker import Settings

WITHOUT_DEAD_LETTERS = {
    "IntakeDeadLetters": "it is the dead letter queue of intake",
    "EventDeadLetters": "it is the dead letter queue of the events",
    "Rejected": "nothing in the deployment receives from it; a person does",
    "Unpublished": "the same",
}
OUTPUTS = {
    "TableName",
    "IntakeQueueUrl",
    "IntakeDeadLetterQueueUrl",
    "RejectedQueueUrl",
    "CacheBucketName",
    "InputBucketName",
    "ClusterArn",
    "WorkerTaskDefinitionArns",
    "WorkerLogGroupName",
    "EventsQueueUrl",
    "EventsDeadLetterQueueUrl",
    "IntakeFunctionName",
    "TaskStateFunctionName",
    "TickFunctionName",
    "PublishFunctionName",
    "UnpublishedQueueUrl",
    "EventBusName",
    "DashboardName",
}


PARTS = ("State", "Worker", "Control", "Observability")
DECIDERS = ("Intake", "TaskState", "Tick")
"""The functions that change the table; `Publish` only reads its stream."""


@pytest.fixture(params=["stacks", "turned"])
def either(request: pytest.FixtureRequest) -> Synthesized:
    """Each test holds for the defaults and for turned knobs."""
    found: Synthesized = request.getfixturevalue(request.param)
    return found


# --- the network


def test_no_nat_gateway_is_paid_for(either: Synthesized) -> None:
    assert not list(either.resources("AWS::EC2::NatGateway"))
    endpoints = [properties["VpcEndpointType"] for _, properties in either.resources("AWS::EC2::VPCEndpoint")]
    assert endpoints == ["Gateway", "Gateway"]


def test_nothing_can_connect_to_a_worker(either: Synthesized) -> None:
    group = either.only("AWS::EC2::SecurityGroup")

    assert "SecurityGroupIngress" not in group
    assert not list(either.resources("AWS::EC2::SecurityGroupIngress"))
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupEgress"]] == [
        ("tcp", 443, 443)
    ]


def test_no_subnet_hands_out_public_addresses_by_itself(either: Synthesized) -> None:
    subnets = [subnet for _, subnet in either.resources("AWS::EC2::Subnet")]

    assert [subnet["MapPublicIpOnLaunch"] for subnet in subnets] == [False, False]


# --- data


def test_buckets_are_private_encrypted_and_reached_by_tls_only(either: Synthesized) -> None:
    buckets = dict(either.resources("AWS::S3::Bucket"))

    assert set(buckets) == {"Cache", "Input"}
    for bucket in buckets.values():
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] in {"AES256", "aws:kms"}
    policies = [policy for _, policy in either.resources("AWS::S3::BucketPolicy")]
    assert [_tls_only(policy) for policy in policies] == [True] * len(buckets)


@pytest.mark.parametrize(
    ("which", "cache"),
    [
        ("stacks", {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}),
        (
            "turned",
            {
                "BucketKeyEnabled": True,
                "ServerSideEncryptionByDefault": {
                    "SSEAlgorithm": "aws:kms",
                    "KMSMasterKeyID": "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555",
                },
            },
        ),
    ],
)
def test_the_cache_is_encrypted_under_the_customers_key_if_there_is_one(
    which: str, cache: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    found: Synthesized = request.getfixturevalue(which)

    assert _encryption(found, "Cache") == [cache]
    assert _encryption(found, "Input") == [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]


def test_only_the_cache_forgets_and_both_drop_abandoned_uploads(stacks: Synthesized) -> None:
    rules = {name: bucket["LifecycleConfiguration"]["Rules"] for name, bucket in stacks.resources("AWS::S3::Bucket")}

    abandoned = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": limits.ABORTED_MULTIPART_DAYS}}
    assert rules["Cache"] == [abandoned | {"ExpirationInDays": limits.CACHE_EXPIRY_DAYS, "Status": "Enabled"}]
    assert rules["Input"] == [abandoned | {"Status": "Enabled"}]


def test_queues_are_encrypted_and_reached_by_tls_only(either: Synthesized) -> None:
    queues = dict(either.resources("AWS::SQS::Queue"))
    policies = [policy for _, policy in either.resources("AWS::SQS::QueuePolicy")]

    assert [queue["SqsManagedSseEnabled"] for queue in queues.values()] == [True] * len(queues)
    assert [_tls_only(policy) for policy in policies] == [True] * len(queues)


def test_every_queue_has_a_dead_letter_queue_or_a_reason(either: Synthesized) -> None:
    queues = dict(either.resources("AWS::SQS::Queue"))
    receives = {
        name: queue["RedrivePolicy"]["maxReceiveCount"] for name, queue in queues.items() if "RedrivePolicy" in queue
    }

    assert receives == {"Intake": limits.INTAKE_MAX_RECEIVES, "Events": limits.EVENT_MAX_RECEIVES}
    assert set(queues) - set(receives) == set(WITHOUT_DEAD_LETTERS)


def test_a_message_stays_invisible_for_six_times_the_decider_timeout(either: Synthesized) -> None:
    functions = [function for _, function in either.resources("AWS::Lambda::Function")]

    for _, queue in either.resources("AWS::SQS::Queue"):
        assert queue["VisibilityTimeout"] >= 6 * max(function["Timeout"] for function in functions)
        waits_for_a_person = "RedrivePolicy" not in queue
        assert queue["MessageRetentionPeriod"] == (14 if waits_for_a_person else 4) * 86_400


def test_the_table_has_the_keys_and_the_index_that_the_code_names(either: Synthesized) -> None:
    table = either.only("AWS::DynamoDB::Table")
    (index,) = table["GlobalSecondaryIndexes"]

    assert _schema(table) == {"HASH": keys.TABLE_PK, "RANGE": keys.TABLE_SK}
    assert index["IndexName"] == keys.OPEN_INDEX
    assert _schema(index) == {"HASH": keys.OPEN_PK, "RANGE": keys.OPEN_RANK}
    assert index["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(keys.OPEN_PROJECTION)}
    assert {attribute["AttributeType"] for attribute in table["AttributeDefinitions"]} == {"S"}


def test_the_table_streams_expires_and_can_be_restored(either: Synthesized) -> None:
    table = either.only("AWS::DynamoDB::Table")

    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert table["TimeToLiveSpecification"] == {"AttributeName": keys.TTL, "Enabled": True}


@pytest.mark.parametrize(("which", "policy"), [("stacks", "Retain"), ("turned", "Delete")])
def test_data_is_kept_unless_told_otherwise(which: str, policy: str, request: pytest.FixtureRequest) -> None:
    found: Synthesized = request.getfixturevalue(which)
    kept = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue"}
    data = [each for each in found.templates["State"]["Resources"].values() if each["Type"] in kept]

    assert {each["DeletionPolicy"] for each in data} == {policy}
    assert found.only("AWS::DynamoDB::Table")["DeletionProtectionEnabled"] is (policy == "Retain")


# --- deciders


def test_no_decider_lives_longer_than_a_minute(either: Synthesized) -> None:
    functions = dict(either.resources("AWS::Lambda::Function"))

    assert set(functions) == {*DECIDERS, "Publish"}
    assert all(function["Timeout"] <= 60 for function in functions.values())
    assert not [name for name, function in functions.items() if "ReservedConcurrentExecutions" in function]


def test_deciders_share_one_asset_and_the_powertools_layer(either: Synthesized) -> None:
    functions = [function for _, function in either.resources("AWS::Lambda::Function")]

    assert len({json.dumps(function["Code"]) for function in functions}) == 1
    assert {json.dumps(function["Layers"]) for function in functions} == {json.dumps([{"Ref": "PowertoolsLayer"}])}
    assert {(function["Runtime"], *function["Architectures"]) for function in functions} == {("python3.13", "arm64")}


@pytest.mark.parametrize(("which", "intake_batch", "concurrency"), [("stacks", 10, 16), ("turned", 2, 5)])
def test_queues_feed_their_deciders_with_partial_failures(
    which: str, intake_batch: int, concurrency: int, request: pytest.FixtureRequest
) -> None:
    found: Synthesized = request.getfixturevalue(which)
    mappings = dict(found.resources("AWS::Lambda::EventSourceMapping"))
    del mappings["PublishSource"]

    sizes = {name: (each["BatchSize"], each["MaximumBatchingWindowInSeconds"]) for name, each in mappings.items()}
    assert sizes == {"IntakeSource": (intake_batch, 0), "TaskStateSource": (10, 0)}
    for mapping in mappings.values():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": concurrency}


def test_task_events_of_our_cluster_reach_a_queue_and_are_kept_when_they_cannot(stacks: Synthesized) -> None:
    rule = stacks.only("AWS::Events::Rule", "TaskStateChanges")
    pattern, (target,) = rule["EventPattern"], rule["Targets"]

    assert (pattern["source"], pattern["detail-type"]) == (["aws.ecs"], ["ECS Task State Change"])
    assert list(pattern["detail"]) == ["clusterArn", "$or"]
    assert pattern["detail"]["$or"] == [{"lastStatus": ["STOPPED"]}, {"stopCode": ["SpotInterruption"]}]
    assert target["Arn"]["Fn::GetAtt"][0].startswith("Events")
    assert target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0].startswith("EventDeadLetters")


@pytest.mark.parametrize(
    ("which", "statuses"),
    [("stacks", ["COMPLETED", "FAILED", "CANCELLED"]), ("turned", ["QUEUED", "COMPLETED", "FAILED", "CANCELLED"])],
)
def test_publish_is_fed_jobs_of_the_wanted_statuses_and_all_that_ended_and_nothing_blocks_the_stream(
    which: str, statuses: list[str], request: pytest.FixtureRequest
) -> None:
    found: Synthesized = request.getfixturevalue(which)
    mapping = found.only("AWS::Lambda::EventSourceMapping", "PublishSource")

    (criteria,) = mapping["FilterCriteria"]["Filters"]
    assert json.loads(criteria["Pattern"])["dynamodb"]["NewImage"] == {"status": {"S": statuses}}
    assert (mapping["StartingPosition"], mapping["FunctionResponseTypes"]) == (
        "TRIM_HORIZON",
        ["ReportBatchItemFailures"],
    )
    assert mapping["BisectBatchOnFunctionError"] is True
    assert mapping["MaximumRetryAttempts"] == limits.PUBLISH_RETRIES
    assert mapping["MaximumRecordAgeInSeconds"] == limits.PUBLISH_MAX_AGE_S
    assert mapping["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0].startswith("Unpublished")


def test_publish_knows_bus_cache_table_and_intake_and_no_pool(turned: Synthesized) -> None:
    environment = turned.only("AWS::Lambda::Function", "Publish")["Environment"]["Variables"]

    names = {name for name in environment if name.startswith("FLEETCAP_")}
    assert names == {
        keys.ENV_EVENT_BUS,
        keys.ENV_UNPUBLISHED_QUEUE_URL,
        keys.ENV_CACHE_BUCKET,
        keys.ENV_CACHE_PREFIX,
        keys.ENV_METRICS,
        keys.ENV_EVENT_STATUSES,
        keys.ENV_INTAKE_QUEUE_URL,
        keys.ENV_TABLE,
    }
    assert environment[keys.ENV_EVENT_STATUSES] == "QUEUED,COMPLETED"
    assert environment["AWS_SDK_UA_APP_ID"] == "genomics-publish"
    assert turned.only("AWS::Events::EventBus")["Name"] == "genomics"


@pytest.mark.parametrize(("which", "state"), [("stacks", "DISABLED"), ("turned", "ENABLED")])
def test_uploads_to_the_input_bucket_and_no_other_reach_intake_if_the_trigger_is_on(
    which: str, state: str, request: pytest.FixtureRequest
) -> None:
    found: Synthesized = request.getfixturevalue(which)
    rule, buckets = found.only("AWS::Events::Rule", "Uploads"), dict(found.resources("AWS::S3::Bucket"))
    (bucket,) = rule["EventPattern"]["detail"]["bucket"]["name"]
    (target,) = rule["Targets"]

    assert rule["State"] == state
    assert (rule["EventPattern"]["source"], rule["EventPattern"]["detail-type"]) == (["aws.s3"], ["Object Created"])
    assert name_of(bucket["Ref"]) == "Input"
    assert rule["EventPattern"]["detail"]["object"]["key"] == [{"anything-but": {"prefix": keys.SUBMITTED_PREFIX}}]
    assert name_of(target["Arn"]["Fn::GetAtt"][0]) == "Intake"
    assert not target.keys() & {"Input", "InputPath", "InputTransformer"}
    assert {name: "NotificationConfiguration" in each for name, each in buckets.items()} == {
        "Input": True,
        "Cache": False,
    }


def test_the_tick_comes_every_minute_and_is_never_repeated(stacks: Synthesized) -> None:
    schedule = stacks.only("AWS::Scheduler::Schedule")

    assert schedule["ScheduleExpression"] == "rate(1 minute)"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert schedule["Target"]["RetryPolicy"] == {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
    assert stacks.only("AWS::Lambda::EventInvokeConfig")["MaximumRetryAttempts"] == 0


def test_every_log_group_forgets(either: Synthesized) -> None:
    groups = dict(either.resources("AWS::Logs::LogGroup"))

    assert set(groups) == {"IntakeLogs", "TaskStateLogs", "TickLogs", "PublishLogs", "Logs"}
    assert {group["RetentionInDays"] for group in groups.values()} == {30}


def test_declared_processors_reach_every_decider_and_worker_and_nobody_where_there_are_none(
    stacks: Synthesized, turned: Synthesized, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(each: Synthesized) -> list[str]:
        functions = [each.only("AWS::Lambda::Function", name)["Environment"]["Variables"] for name in DECIDERS]
        definitions = [task["ContainerDefinitions"][0] for _, task in each.resources("AWS::ECS::TaskDefinition")]
        workers = [{pair["Name"]: pair["Value"] for pair in worker["Environment"]} for worker in definitions]
        return [environment.get(keys.ENV_PROCESSORS, "") for environment in functions + workers]

    assert set(told(stacks)) == {""}
    (declared,) = set(told(turned))
    monkeypatch.setattr(catalog, "PROCESSORS", dict(catalog.PROCESSORS))
    catalog.declare(declared)
    assert catalog.artifact_keys("key", "wordcount") == ("key/wordcount@1/counts.tsv",)


def test_the_caps_reach_every_decider(turned: Synthesized) -> None:
    for name in DECIDERS:
        assert {pool["name"]: pool["cap"] for pool in _pools(turned, name)} == {"default": 3, "arm-large": 0}


def _worker_knobs(stacks: Synthesized) -> dict[str, Any]:
    knobs: dict[str, Any] = json.loads(_worker_environment(stacks, "Pooldefault")[keys.ENV_WORKER])
    return knobs


def test_what_is_left_out_of_a_pool_is_what_a_decider_takes_it_to_be() -> None:
    configured, known = PoolConfig(), Pool("default", 16)
    assert {name: getattr(configured, name) for name in POOL_POLICY} == {
        name: getattr(known, name) for name in POOL_POLICY
    }


def test_a_pool_carries_the_parameters_of_its_launch(stacks: Synthesized) -> None:
    (pool,) = _pools(stacks, "Intake")
    launch = pool["launch"]
    network = launch.pop("networkConfiguration")["awsvpcConfiguration"]

    image = _worker_knobs(stacks)["image"]
    assert {name: pool[name] for name in pool if name != "launch"} == {"name": "default", "cap": 16, "image": image}
    assert launch == {
        "cluster": "<Arn>",
        "taskDefinition": stacks.only("AWS::ECS::TaskDefinition")["Family"],
        "launchType": "FARGATE",
        "platformVersion": "LATEST",
        "count": 1,
        "enableECSManagedTags": False,
        "tags": [{"key": "fleetcap:pool", "value": "default"}],
        "container": "worker",
    }
    assert (len(network["subnets"]), len(network["securityGroups"]), network["assignPublicIp"]) == (2, 1, "ENABLED")


def test_four_pools_fit_into_the_environment_of_a_function(turned: Synthesized) -> None:
    """Lambda allows 4 KB; an ARN or a URL is at most 150 characters, and hosts and weights have room of their own."""
    pools = [pool | {"fair_shares": True, "tenant_weights": {}} for pool in _pools(turned, "Intake")]
    texts = [json.dumps(pool, separators=(",", ":")) for pool in pools]
    placeholders = max(text.count("<") for text in texts)
    own = SOURCE_HOSTS_MAX_CHARS + TENANT_WEIGHTS_MAX_CHARS

    assert 4 * (max(map(len, texts)) + placeholders * 40) + 3 * 150 + own <= 4_096


def test_deciders_learn_of_shares_where_a_pool_has_them(turned: Synthesized) -> None:
    default, large = _pools(turned, "Intake")
    assert not default.keys() & {"fair_shares", "tenant_weights"}
    assert (large["fair_shares"], large["tenant_weights"]) == (True, {"portal": 3})


# --- workers


def test_the_cluster_offers_both_kinds_of_fargate(stacks: Synthesized) -> None:
    cluster = stacks.only("AWS::ECS::Cluster")

    assert cluster["CapacityProviders"] == ["FARGATE", "FARGATE_SPOT"]
    assert cluster["ClusterSettings"] == [{"Name": "containerInsights", "Value": "disabled"}]


def test_a_worker_is_told_its_knobs(turned: Synthesized) -> None:
    environment = _worker_environment(turned, "Pooldefault")

    assert environment[keys.ENV_SOURCE_HOSTS] == "data.example.org,mirror.example.org"
    assert environment[keys.ENV_CACHE_PREFIX] == "portal/"
    assert re.fullmatch(r"[0-9a-f]{12}", _worker_knobs(turned)["image"])
    assert _worker_knobs(turned) | {"image": ""} == {
        "pool": "default",
        "image": "",
        "look_s": 2.0,
        "disk_gib": 50,
        "keep_failed_dirs": 2,
    }
    assert json.loads(environment[keys.ENV_SOURCE_RULES]) == {
        "private_hosts": ["mirror.example.org"],
        "owners": {"public-reads": "210987654321"},
        "requester_pays": ["public-reads"],
    }
    Settings(**json.loads(environment[keys.ENV_WORKER]))
    SourceRules(**json.loads(environment[keys.ENV_SOURCE_RULES]))


def test_what_is_not_asked_for_is_off(stacks: Synthesized) -> None:
    environment = _worker_environment(stacks, "Pooldefault")

    assert json.loads(environment[keys.ENV_SOURCE_RULES]) == {}
    assert Settings(**json.loads(environment[keys.ENV_WORKER])).keep_failed_dirs == 0


def test_what_a_worker_is_not_told_it_takes_to_be_as_configured() -> None:
    configured, known = PoolConfig(), Settings()
    assert {knob: getattr(known, knob) for knob in ENV_WORKER_KNOBS} == {
        knob: getattr(configured, knob) for knob in ENV_WORKER_KNOBS
    }


def test_a_pool_runs_on_the_machine_that_it_asks_for(turned: Synthesized) -> None:
    large = turned.only("AWS::ECS::TaskDefinition", "Poolarmlarge")

    assert (large["Cpu"], large["Memory"], large["EphemeralStorage"]) == ("4096", "8192", {"SizeInGiB": 21})
    assert large["RuntimePlatform"] == {"CpuArchitecture": "ARM64", "OperatingSystemFamily": "LINUX"}


def test_a_worker_is_asked_for_its_health_and_given_time_to_stop(stacks: Synthesized) -> None:
    (container,) = stacks.only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]

    assert container["Name"] == "worker"
    assert container["Command"] == ["python", "-m", "worker_image"]
    assert container["StopTimeout"] == limits.STOP_TIMEOUT_S
    assert container["LinuxParameters"] == {"Capabilities": {}, "InitProcessEnabled": True}
    assert f"http://127.0.0.1:{limits.HEALTH_PORT}/health" in container["HealthCheck"]["Command"][-1]


def test_the_image_is_made_of_two_folders(stacks: Synthesized) -> None:
    assets = json.loads(next(stacks.directory.glob("*-Worker.assets.json")).read_text("utf-8"))
    (image,) = assets["dockerImages"].values()
    root = stacks.directory / image["source"]["directory"]

    assert image["source"]["dockerFile"] == "worker_image/Dockerfile"
    assert image["source"]["platform"] == "linux/amd64"
    assert {path.name for path in root.iterdir()} - {".dockerignore"} == {"lambdas", "worker_image"}
    assert not list(root.rglob("__pycache__"))


# --- all of it


def test_the_outputs_are_what_launcher_and_command_line_read(either: Synthesized) -> None:
    named = {
        name
        for template in either.templates.values()
        for name, output in template["Outputs"].items()
        if "Export" not in output
    }

    assert named == OUTPUTS


def test_nothing_needs_a_custom_resource(either: Synthesized) -> None:
    kinds = {each["Type"] for template in either.templates.values() for each in template["Resources"].values()}

    assert not [kind for kind in kinds if kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource"]


def test_two_deployments_can_share_an_account(stacks: Synthesized, turned: Synthesized) -> None:
    def names(found: Synthesized) -> set[str]:
        return {path.name.split(".")[0] for path in found.directory.glob("*.template.json")}

    assert names(stacks) == {f"Fleetcap-{part}" for part in PARTS}
    assert names(turned) == {f"Genomics-{part}" for part in PARTS}
    families = {each["Family"] for found in (stacks, turned) for _, each in found.resources("AWS::ECS::TaskDefinition")}
    assert len(families) == 3


# --- reading templates


def _encryption(stacks: Synthesized, bucket: str) -> list[Any]:
    rules: list[Any] = stacks.only("AWS::S3::Bucket", bucket)["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    return rules


def _tls_only(policy: Mapping[str, Any]) -> bool:
    """Whether everything is denied to everybody who comes without TLS."""
    return any(
        statement["Effect"] == "Deny"
        and statement["Principal"] == {"AWS": "*"}
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in policy["PolicyDocument"]["Statement"]
    )


def _schema(table: Mapping[str, Any]) -> dict[str, str]:
    return {key["KeyType"]: key["AttributeName"] for key in table["KeySchema"]}


def _pools(stacks: Synthesized, function: str) -> list[dict[str, Any]]:
    """The pools as a function reads them, with `<Arn>` or `<Ref>` where CloudFormation puts a value."""
    value = stacks.only("AWS::Lambda::Function", function)["Environment"]["Variables"][keys.ENV_POOLS]
    separator, parts = value["Fn::Join"]
    texts = (part if isinstance(part, str) else _placeholder(part) for part in parts)
    pools: list[dict[str, Any]] = json.loads(separator.join(texts))
    return pools


def _placeholder(part: Mapping[str, Any]) -> str:
    return "<Arn>" if "Arn" in json.dumps(part) else "<Ref>"


def _worker_environment(stacks: Synthesized, pool: str) -> dict[str, Any]:
    (container,) = stacks.only("AWS::ECS::TaskDefinition", pool)["ContainerDefinitions"]
    return {variable["Name"]: variable["Value"] for variable in container["Environment"]}


# --- images and capacity of a pool's own


def test_a_pools_own_image_and_command_are_what_its_tasks_start(own_images: Synthesized) -> None:
    containers = [task["ContainerDefinitions"][0] for _, task in own_images.resources("AWS::ECS::TaskDefinition")]
    assert [(each["Image"], each["Command"]) for each in containers] == [
        ("210987654321.dkr.ecr.us-east-1.amazonaws.com/tools/worker:7", ["serve", "--all"]),
        ("public.ecr.aws/portal/worker:1", ["python", "-m", "worker_image"]),
    ]


def test_of_an_image_in_ecr_its_repository_may_be_read_and_no_other(own_images: Synthesized) -> None:
    (role,) = (role for name, role in own_images.resources("AWS::IAM::Role") if name == "ExecutionRole")
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    (pull,) = (each for each in statements if "ecr:BatchGetImage" in each["Action"])
    assert pull["Resource"]["Fn::Join"][1][-1] == ":ecr:us-east-1:210987654321:repository/tools/worker"


def test_deciders_know_a_pools_providers_and_bounds(own_images: Synthesized) -> None:
    spot, public = _pools(own_images, "Intake")
    assert spot["providers"] == {"FARGATE_SPOT": 3, "FARGATE": 1}
    assert (public["min_workers"], public["max_attempts"], "providers" in public) == (1, 5, False)
    assert spot["image"] != public["image"]
