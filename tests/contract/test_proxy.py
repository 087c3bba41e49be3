"""The proxy between a real client and the real emulator: what it counts, and what its faults do to a caller."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from local.cloud import MARK, Cloud, Endpoints
from tests.contract.fargate_cloud import wait_for

pytestmark = pytest.mark.cloud

ONCE = Config(retries={"total_max_attempts": 1}, user_agent_appid="tester")  # type: ignore[call-arg]
BROKEN = (ConnectionClosedError, EndpointConnectionError)
TABLE = "things"


class Front:
    """The proxy of a running cloud, its knobs, and clients that call through it."""

    def __init__(self, cloud: Cloud, endpoints: Endpoints) -> None:
        self.cloud, self.endpoints = cloud, endpoints
        self._http = urllib3.PoolManager(ca_certs=endpoints.ca_bundle)
        self.dynamodb = self.client("dynamodb")
        self.s3 = self.client("s3")

    def client(self, service: str) -> Any:
        make: Any = boto3.Session(
            aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        ).client
        return make(service, endpoint_url=self.endpoints.aws, verify=self.endpoints.ca_bundle, config=ONCE)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        answer = self._http.request(method, f"{self.endpoints.aws}/_fleetcap/{path}", json=body)
        assert answer.status == 200, answer.data
        return answer.json()

    def fault(self, kind: str, **fields: object) -> None:
        self.ask("POST", "faults", {"kind": kind, **fields})

    def put(self, key: str, size: int = 10, **more: object) -> Any:
        item = {"pk": {"S": key}, "filler": {"S": "x" * size}, **more}
        return self.dynamodb.put_item(TableName=TABLE, Item=item, ReturnConsumedCapacity="INDEXES")

    def exists(self, key: str) -> bool:
        return "Item" in self.dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": key}}, ConsistentRead=True)

    def account(self) -> dict[str, Any]:
        return dict(self.ask("GET", "recording").get("tester", {}))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with Cloud(tmp_path_factory.mktemp("cloud") / "state", 0.2) as cloud:
        front = Front(cloud, cloud.start())
        string = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "queue")]
        front.dynamodb.create_table(
            TableName=TABLE,
            AttributeDefinitions=string,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "open",
                    "KeySchema": [{"AttributeName": "queue", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["holder"]},
                }
            ],
        )
        front.s3.create_bucket(Bucket="big")
        yield front


@pytest.fixture
def front(running: Front) -> Front:
    """With no fault and an empty recording."""
    running.ask("DELETE", "faults")
    running.ask("DELETE", "recording")
    return running


def test_calls_are_counted_by_their_actor_and_operation(front: Front) -> None:
    front.put("counted")
    assert front.exists("counted")
    with pytest.raises(front.s3.exceptions.ClientError):
        front.s3.head_object(Bucket="big", Key="none")
    requests = front.account()["requests"]
    assert requests == {"dynamodb:GetItem": 1, "dynamodb:PutItem": 1, "s3:HeadObject": 1}


def test_writes_are_billed_with_their_index_entries_and_refused_ones_by_the_item_that_stands(front: Front) -> None:
    """Each figure is worked out by hand from AWS's rules."""

    def write(key: str, update: str, condition: str = "attribute_exists(pk)", **values: str) -> None:
        front.dynamodb.update_item(
            TableName=TABLE,
            Key={"pk": {"S": key}},
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeValues={f":{name}": {"S": value} for name, value in values.items()},
            ReturnConsumedCapacity="INDEXES",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    def cost(*arguments: str, **values: str) -> float:
        before = front.account().get("write_units", 0.0)
        try:
            write(*arguments, **values)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"
        return float(front.account()["write_units"] - before)

    front.put("small")
    front.put("large", 1_500)
    assert front.account()["write_units"] == 1 + 2
    assert cost("small", "SET queue = :q", q="one") == 1 + 1  # the entry appears
    assert cost("small", "SET note = :o", o="anything") == 1  # the entry stays as it is
    assert cost("small", "SET holder = :h", h="me") == 1 + 1  # the entry changes in place
    assert cost("small", "SET queue = :q", q="two") == 1 + 2  # the entry moves: one goes, one comes
    assert cost("small", "REMOVE queue SET note = :o", o="gone") == 1 + 1  # the entry goes
    assert cost("small", "SET note = :o", "note = :none", o="x", none="y") == 1
    assert cost("large", "SET note = :o", "note = :none", o="x", none="y") == 2
    assert cost("absent", "SET note = :o", o="x") == 1
    assert front.account()["unknown_units"] == 0


def test_a_write_that_does_not_tell_its_cost_is_said_to_be_unknown(front: Front) -> None:
    front.dynamodb.put_item(TableName=TABLE, Item={"pk": {"S": "silent"}})
    assert front.account()["unknown_units"] == 1


def test_a_dropped_request_changes_nothing(front: Front) -> None:
    front.fault("drop-request", operation="PutItem", times=1)
    with pytest.raises(BROKEN):
        front.put("dropped")
    assert not front.exists("dropped")
    front.put("dropped")
    assert front.exists("dropped")


def test_a_dropped_reply_hides_what_was_done(front: Front) -> None:
    front.fault("drop-reply", operation="PutItem", text="unheard", times=1)
    front.put("heard")
    with pytest.raises(BROKEN):
        front.put("unheard")
    assert front.exists("unheard")
    assert front.account()["requests"]["dynamodb:PutItem"] == 2


def test_a_delayed_call_comes_late(front: Front) -> None:
    front.fault("delay", operation="GetItem", seconds=3, seed=5, times=1)
    began = time.monotonic()
    front.exists("anything")
    assert time.monotonic() - began > 0.5


def test_a_delayed_call_comes_when_all_is_calm_again_at_the_latest(front: Front) -> None:
    front.fault("delay", operation="PutItem", seconds=900, seed=5, times=1)
    with ThreadPoolExecutor(1) as thread:
        put = thread.submit(front.put, "held back")
        wait_for(lambda: [fault["struck"] for fault in front.ask("GET", "faults")] == [1])
        assert not front.exists("held back")
        front.ask("DELETE", "faults")
        put.result(30)
    assert front.exists("held back")


@pytest.mark.parametrize(("kind", "done"), [("kill-before", False), ("kill-after", True)])
def test_the_calling_process_dies_at_that_point_if_it_is_one_of_the_clouds(front: Front, kind: str, done: bool) -> None:
    key = f"{kind}-{done}"
    code = (
        "import boto3; boto3.client('dynamodb').put_item(TableName='things', Item={'pk': {'S': '"
        + key
        + "'}}); print('lived')"
    )
    environment = {**front.endpoints.environment(), "PATH": os.environ["PATH"], "AWS_SDK_UA_APP_ID": "victim"}
    front.fault(kind, actor="victim", times=1)
    died = subprocess.run([sys.executable, "-c", code], env={**environment, MARK: str(front.cloud.directory)})
    assert died.returncode == -signal.SIGKILL
    assert front.exists(key) is done
    front.fault(kind, actor="victim", times=1)
    stranger = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "lived" in stranger.stdout  # its connection broke, the SDK asked again


def test_one_process_alone_is_cut_off(front: Front) -> None:
    front.fault("drop-request", pid=os.getpid())
    with pytest.raises(BROKEN):
        front.exists("anything")
    front.ask("DELETE", "faults")
    front.fault("drop-request", pid=1)
    assert not front.exists("nothing")


def test_large_objects_pass_through_as_they_are_both_ways(front: Front, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(20 * 1024 * 1024))
    front.s3.upload_file(str(source), "big", "large")
    front.s3.download_file("big", "large", str(copy))
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert front.s3.get_object(Bucket="big", Key="large", Range="bytes=5-9")["Body"].read() == source.read_bytes()[5:10]
    assert front.s3.head_object(Bucket="big", Key="large")["ContentLength"] == source.stat().st_size
    requests = front.account()["requests"]
    assert requests["s3:CreateMultipartUpload"] == requests["s3:CompleteMultipartUpload"] == 1
    assert requests["s3:UploadPart"] == 3


def test_a_fault_that_cannot_be_is_refused_in_one_sentence(front: Front) -> None:
    url = f"{front.endpoints.aws}/_fleetcap/faults"
    answer = front._http.request("POST", url, json={"kind": "delay", "share": 7})
    assert answer.status == 400
    assert answer.json()["message"] == "share: Input should be less than or equal to 1"
    assert front.ask("GET", "faults") == []


def test_ecs_calls_reach_the_fargate_and_its_other_calls_the_emulator(front: Front) -> None:
    ecs = front.client("ecs")
    arn = ecs.create_cluster(clusterName="c")["cluster"]["clusterArn"]
    assert ecs.list_tasks(cluster=arn)["taskArns"] == []
    with pytest.raises(ecs.exceptions.ClusterNotFoundException):
        ecs.list_tasks(cluster="another")  # the emulator alone would know any cluster
