"""ECS as the adapter reads it: every shape of answer, error and silence, on the wire and off it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.stub import Stubber

from fleetcap import keys, limits, wiring
from fleetcap.adapters.workers import EcsTasks
from fleetcap.decide import launch
from fleetcap.model import Doubt, Lease, NotStarted, SeenTask, SlotId, Started, TaskStatus, Unanswered
from fleetcap.ports import Tasks
from tests.examples import GENERATION, a_pool

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

LEASE: Final = Lease(SlotId("default", 3), GENERATION)
REQUEST: Final = launch.request(a_pool(), LEASE, keys.ENV_LEASE)
ENDPOINT: Final = "https://ecs.eu-central-1.amazonaws.com/"


def arn(number: int) -> str:
    return f"arn:aws:ecs:eu-central-1:123456789012:task/fleet/{number:032x}"


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    """Loads the service's model once."""
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="eu-central-1")


@pytest.fixture
def client(session: boto3.Session) -> Iterator[ECSClient]:
    """ECS as the deciders talk to it, without a network."""
    with closing(session.client("ecs", config=wiring._ONCE)) as ecs:
        ecs.meta.events.register("before-send.ecs", unplugged)
        yield ecs


def unplugged(**_: Any) -> None:
    raise AssertionError("a request would have gone out")


@pytest.fixture
def stubber(client: ECSClient) -> Iterator[Stubber]:
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


@pytest.fixture
def tasks(client: ECSClient) -> EcsTasks:
    return EcsTasks(client)


class Raw:
    """The body of an HTTP answer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._data


class Wire:
    """What stands at the other end of the HTTP connection, and how often it was asked."""

    def __init__(self, client: ECSClient, status: int = 200, body: str = "", silence: Exception | None = None) -> None:
        self.asked = 0
        self._status, self._body, self._silence = status, body, silence
        client.meta.events.unregister("before-send.ecs", unplugged)
        client.meta.events.register("before-send.ecs.RunTask", self._answer)

    def _answer(self, **_: Any) -> Any:
        self.asked += 1
        if self._silence:
            raise self._silence
        return AWSResponse(ENDPOINT, self._status, HTTPHeaders(), Raw(self._body.encode()))


def test_they_are_tasks(tasks: EcsTasks) -> None:
    port: Tasks = tasks
    assert port.describe("fleet", []) == {}


# --- RunTask


def test_what_was_leased_is_what_is_sent_under_the_leases_token(tasks: EcsTasks, stubber: Stubber) -> None:
    sent = {**json.loads(REQUEST), "clientToken": launch.token(LEASE), "startedBy": str(LEASE)}
    stubber.add_response("run_task", {"tasks": [{"taskArn": arn(1)}], "failures": []}, sent)
    assert tasks.run(LEASE, REQUEST) == Started(arn(1))


def test_failures_are_an_answer(tasks: EcsTasks, stubber: Stubber) -> None:
    failure = {"reason": "Capacity is unavailable at this time. Please try again later"}
    stubber.add_response("run_task", {"tasks": [], "failures": [failure]})
    assert tasks.run(LEASE, REQUEST) == NotStarted(failure["reason"])


def test_an_empty_answer_is_none(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_response("run_task", {"tasks": [], "failures": []})
    assert isinstance(tasks.run(LEASE, REQUEST), Unanswered)


def test_a_conflict_that_names_the_task_says_that_it_was_launched(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_client_error("run_task", "ConflictException", "in use", modeled_fields={"resourceIds": [arn(7)]})
    assert tasks.run(LEASE, REQUEST) == Started(arn(7))


def test_a_conflict_without_a_task_says_nothing(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_client_error("run_task", "ConflictException", "in use")
    assert tasks.run(LEASE, REQUEST) == Unanswered(Doubt.UNKNOWN, "ConflictException: in use")


@pytest.mark.parametrize(
    ("code", "message", "doubt"),
    [
        ("ThrottlingException", "Rate exceeded", Doubt.THROTTLED),
        ("InvalidParameterException", "subnet: Request limit exceeded.", Doubt.THROTTLED),
        ("ClientException", "Too many requests", Doubt.THROTTLED),
        ("ServerException", "Service Unavailable", Doubt.UNKNOWN),
        ("ClusterNotFoundException", "Cluster not found.", Doubt.PERMANENT),
        ("AccessDeniedException", "not authorized", Doubt.PERMANENT),
    ],
)
def test_an_error_is_doubt_and_never_a_verdict(
    tasks: EcsTasks, stubber: Stubber, code: str, message: str, doubt: Doubt
) -> None:
    stubber.add_client_error("run_task", code, message, http_status_code=500)
    assert tasks.run(LEASE, REQUEST) == Unanswered(doubt, f"{code}: {message}")


@pytest.mark.parametrize(
    "silence",
    [
        ReadTimeoutError(endpoint_url=ENDPOINT),
        ConnectTimeoutError(endpoint_url=ENDPOINT),
        EndpointConnectionError(endpoint_url=ENDPOINT),
        ConnectionClosedError(endpoint_url=ENDPOINT),
        NoCredentialsError(),
    ],
    ids=lambda silence: type(silence).__name__,
)
def test_silence_is_doubt_and_is_not_repeated_by_the_sdk(
    client: ECSClient, tasks: EcsTasks, silence: Exception
) -> None:
    wire = Wire(client, silence=silence)
    answer = tasks.run(LEASE, REQUEST)
    assert answer == Unanswered(Doubt.UNKNOWN, f"{type(silence).__name__}: {silence}")
    assert wire.asked == 1


WIRE_ERRORS: Final[dict[str, tuple[int, str, Doubt]]] = {
    "throttle": (400, '{"__type":"ThrottlingException","message":"Rate exceeded"}', Doubt.THROTTLED),
    "server": (500, '{"__type":"ServerException","message":"try again"}', Doubt.UNKNOWN),
    "proxy": (503, "<html>Service Unavailable</html>", Doubt.UNKNOWN),
    "half an answer": (200, '{"tasks":[{"taskA', Doubt.UNKNOWN),
    "no answer": (200, "{}", Doubt.UNKNOWN),
    "empty": (504, "", Doubt.UNKNOWN),
    "conflict": (400, '{"__type":"ConflictException","message":"in use"}', Doubt.UNKNOWN),
    "conflict, no names": (400, '{"__type":"ConflictException","resourceIds":[]}', Doubt.UNKNOWN),
}


@pytest.mark.parametrize(("status", "body", "doubt"), WIRE_ERRORS.values(), ids=WIRE_ERRORS)
def test_an_error_on_the_wire_is_doubt_and_is_not_repeated_by_the_sdk(
    client: ECSClient, tasks: EcsTasks, status: int, body: str, doubt: Doubt
) -> None:
    wire = Wire(client, status, body)
    answer = tasks.run(LEASE, REQUEST)
    assert isinstance(answer, Unanswered)
    assert answer.doubt is doubt
    assert wire.asked == 1


def test_a_conflict_on_the_wire_names_the_task(client: ECSClient, tasks: EcsTasks) -> None:
    Wire(client, 400, json.dumps({"__type": "ConflictException", "message": "in use", "resourceIds": [arn(9)]}))
    assert tasks.run(LEASE, REQUEST) == Started(arn(9))


def test_a_task_on_the_wire_is_an_answer(client: ECSClient, tasks: EcsTasks) -> None:
    Wire(client, 200, json.dumps({"tasks": [{"taskArn": arn(9), "lastStatus": "PROVISIONING"}], "failures": []}))
    assert tasks.run(LEASE, REQUEST) == Started(arn(9))


# --- DescribeTasks


def describing(alive: set[int]) -> Callable[[list[str]], dict[str, Any]]:
    """An answer of DescribeTasks in which only these tasks are known."""
    known = {arn(number) for number in alive}

    def answer(arns: list[str]) -> dict[str, Any]:
        found = [{"taskArn": each, "lastStatus": "RUNNING"} for each in arns if each in known]
        return {"tasks": found, "failures": [{"arn": each, "reason": "MISSING"} for each in arns if each not in known]}

    return answer


def test_tasks_are_described_a_hundred_at_a_time(tasks: EcsTasks, stubber: Stubber) -> None:
    arns = [arn(number) for number in range(2 * limits.DESCRIBE_TASKS_MAX_ARNS + 5)]
    answer = describing(alive=set(range(150)))
    for page in (arns[:100], arns[100:200], arns[200:]):
        stubber.add_response("describe_tasks", answer(page), {"cluster": "fleet", "tasks": page})
    words = tasks.describe("fleet", arns)
    assert [words[each] for each in arns] == [TaskStatus.ALIVE] * 150 + [TaskStatus.MISSING] * 55


@pytest.mark.parametrize("count", [1, 99, 100])
def test_up_to_a_hundred_tasks_are_one_call(tasks: EcsTasks, stubber: Stubber, count: int) -> None:
    arns = [arn(number) for number in range(count)]
    stubber.add_response("describe_tasks", describing(alive=set())(arns), {"cluster": "fleet", "tasks": arns})
    assert set(tasks.describe("fleet", arns).values()) == {TaskStatus.MISSING}


@pytest.mark.parametrize(
    "last_status",
    ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING"],
)
def test_a_task_is_alive_until_it_has_stopped(tasks: EcsTasks, stubber: Stubber, last_status: str) -> None:
    stubber.add_response("describe_tasks", {"tasks": [{"taskArn": arn(1), "lastStatus": last_status}]})
    assert tasks.describe("fleet", [arn(1)]) == {arn(1): TaskStatus.ALIVE}


def test_a_task_that_is_to_stop_has_not_stopped(tasks: EcsTasks, stubber: Stubber) -> None:
    task = {"taskArn": arn(1), "lastStatus": "RUNNING", "desiredStatus": "STOPPED"}
    stubber.add_response("describe_tasks", {"tasks": [task]})
    assert tasks.describe("fleet", [arn(1)]) == {arn(1): TaskStatus.ALIVE}


def test_a_stopped_task_is_stopped(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_response("describe_tasks", {"tasks": [{"taskArn": arn(1), "lastStatus": "STOPPED"}]})
    assert tasks.describe("fleet", [arn(1)]) == {arn(1): TaskStatus.STOPPED}


def test_a_throttled_description_is_an_error_and_not_a_missing_task(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_client_error("describe_tasks", "ThrottlingException", "Rate exceeded")
    with pytest.raises(ClientError, match="Rate exceeded"):
        tasks.describe("fleet", [arn(1)])


# --- ListTasks


@pytest.mark.parametrize(("stopping", "desired"), [(False, "RUNNING"), (True, "STOPPED")])
def test_a_page_is_asked_for_behind_the_token_of_the_one_before(
    tasks: EcsTasks, stubber: Stubber, stopping: bool, desired: str
) -> None:
    asked = {"cluster": "fleet", "desiredStatus": desired}
    stubber.add_response("list_tasks", {"taskArns": [arn(1)], "nextToken": "more"}, asked)
    stubber.add_response("list_tasks", {"taskArns": [arn(2)]}, {**asked, "nextToken": "more"})
    assert tasks.listed("fleet", stopping, "") == ([arn(1)], "more")
    assert tasks.listed("fleet", stopping, "more") == ([arn(2)], "")


def test_a_task_is_told_with_who_began_it_and_its_group(tasks: EcsTasks, stubber: Stubber) -> None:
    ours = {"taskArn": arn(1), "lastStatus": "DEPROVISIONING", "startedBy": str(LEASE), "group": "family:worker"}
    bare = {"taskArn": arn(2), "lastStatus": "STOPPED"}
    missing = [{"arn": arn(3), "reason": "MISSING"}]
    asked = {"cluster": "fleet", "tasks": [arn(1), arn(2), arn(3)]}
    stubber.add_response("describe_tasks", {"tasks": [ours, bare], "failures": missing}, asked)
    assert tasks.identify("fleet", [arn(1), arn(2), arn(3)]) == [
        SeenTask(arn(1), TaskStatus.ALIVE, str(LEASE), "family:worker"),
        SeenTask(arn(2), TaskStatus.STOPPED),
    ]


# --- StopTask


def test_a_stop_names_cluster_task_and_reason(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_response("stop_task", {}, {"cluster": "fleet", "task": arn(1), "reason": "no beat"})
    tasks.stop("fleet", arn(1), "no beat")
    stubber.assert_no_pending_responses()


def test_a_task_that_is_gone_need_not_be_stopped(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_client_error("stop_task", "InvalidParameterException", "The referenced task was not found.")
    tasks.stop("fleet", arn(1), "no beat")
    stubber.assert_no_pending_responses()


def test_a_stop_that_was_not_answered_is_an_error(tasks: EcsTasks, stubber: Stubber) -> None:
    stubber.add_client_error("stop_task", "ServerException", "try again")
    with pytest.raises(ClientError, match="try again"):
        tasks.stop("fleet", arn(1), "no beat")


def test_a_sender_has_given_up_before_anybody_else_sends_the_token() -> None:
    once: Any = wiring._ONCE
    assert once.connect_timeout + once.read_timeout < limits.RESEND_AFTER_S
    assert once.retries["total_max_attempts"] == 1
