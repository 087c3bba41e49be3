"""The endpoint: ECS's JSON protocol, and the two addresses that a task talks to. The rest is `knobs`."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import anyio.to_thread
from botocore.exceptions import BotoCoreError, ClientError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from urllib3.exceptions import HTTPError

from fleetcap.limits import DESCRIBE_TASKS_MAX_ARNS
from local.fargate import authorization
from local.fargate.emulator import Emulator, Reply, SignedCall
from local.fargate.fleet import Fleet
from local.fargate.knobs import knobs
from local.fargate.metadata import Surroundings
from local.fargate.run_task import launch_of, tags_of
from local.fargate.tasks import EcsError, Json, family_of, up_to_date

THREADS = 128
LIST_PAGE = 100
EXCLUSIVE_WITH_STARTED_BY = ("family", "serviceName", "containerInstance", "launchType", "desiredStatus")


class Refused(Exception):
    """The emulator's refusal of a call, to hand back as it is."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body.decode("utf-8", "replace"))
        self.reply = reply


class Server:
    """Answers ECS calls, as well as the standing faults let it."""

    def __init__(self, emulator: Emulator, fleet: Fleet) -> None:
        self.emulator, self.fleet, self.registry, self.faults = emulator, fleet, fleet.registry, fleet.faults
        self._operations: dict[str, Callable[[SignedCall, Json], Json]] = {
            "RunTask": self._run_task,
            "StopTask": self._stop_task,
            "DescribeTasks": self._describe_tasks,
            "ListTasks": self._list_tasks,
        }

    def answer(self, operation: str, call: SignedCall) -> Reply:
        """One ECS call, from the signed request to the HTTP answer."""
        handle = self._operations.get(operation)
        if handle is None:
            return self.emulator.forward(call)
        try:
            return _reply(HTTPStatus.OK, handle(call, _parsed(call.body)))
        except Refused as refused:
            return refused.reply
        except EcsError as error:
            return _error_reply(error)
        except (BotoCoreError, ClientError, HTTPError) as error:
            return _error_reply(EcsError("ServerException", f"The emulator does not answer: {error}"))

    def _run_task(self, call: SignedCall, request: Json) -> Json:
        cluster_arn = self.emulator.cluster_arn(request.get("cluster") or "default")
        reference = str(request.get("taskDefinition", ""))
        self._fail("throttle", "wrapped-throttle", "refuse", "timeout-before-start", family=family_of(reference))
        definition = self.emulator.definition(reference)
        definition_arn = definition["taskDefinitionArn"] if definition else self._definition_arn(reference)
        tags = tags_of(request, definition or {})
        self._authorize(call, authorization.run_task(request, cluster_arn, definition_arn, definition, tags))
        cluster = self._cluster(cluster_arn)
        if definition is None:
            raise EcsError("ClientException", "TaskDefinition not found.")
        answer = self.fleet.run(launch_of(request, cluster, definition))
        self._fail("timeout-after-start", family=family_of(reference))
        return answer

    def _fail(self, *kinds: str, family: str) -> None:
        """Raise the error of a fault that strikes a RunTask."""
        if fault := self.faults.strike(*kinds, families=[family]):
            raise fault.error

    def _stop_task(self, call: SignedCall, request: Json) -> Json:
        cluster_arn = self.emulator.cluster_arn(request.get("cluster") or "default")
        reference = str(request.get("task", ""))
        self._authorize(call, authorization.on_tasks("ecs:StopTask", cluster_arn, [reference], self.registry))
        self._cluster(cluster_arn)
        task = self.registry.find(cluster_arn, reference)
        if task is None:
            raise EcsError("InvalidParameterException", "The referenced task was not found.")
        self.fleet.stop(task, request.get("reason") or "Task stopped by user")
        return {"task": self.registry.picture(task)}

    def _describe_tasks(self, call: SignedCall, request: Json) -> Json:
        cluster_arn = self.emulator.cluster_arn(request.get("cluster") or "default")
        references = list(dict.fromkeys(request.get("tasks") or ()))
        if not 1 <= len(references) <= DESCRIBE_TASKS_MAX_ARNS:
            raise EcsError("InvalidParameterException", f"Name 1 to {DESCRIBE_TASKS_MAX_ARNS} tasks.")
        self._authorize(call, authorization.on_tasks("ecs:DescribeTasks", cluster_arn, references, self.registry))
        self._cluster(cluster_arn)
        asked = [task.launch.family for each in references if (task := self.registry.find(cluster_arn, each))]
        fault = self.faults.strike("lag-describe", families=asked)
        lag_s = fault.lag_s if fault else up_to_date
        return self.registry.describe(cluster_arn, references, "TAGS" in request.get("include", ()), time.time(), lag_s)

    def _list_tasks(self, call: SignedCall, request: Json) -> Json:
        cluster_arn = self.emulator.cluster_arn(request.get("cluster") or "default")
        self._authorize(call, authorization.list_tasks(cluster_arn))
        self._cluster(cluster_arn)
        started_by = request.get("startedBy", "")
        if started_by and any(request.get(name) for name in EXCLUSIVE_WITH_STARTED_BY):
            raise EcsError("InvalidParameterException", "startedBy must be the only filter.")
        desired, family = request.get("desiredStatus", "RUNNING"), request.get("family", "")
        fault = self.faults.strike("empty-list", "lag-list", families=[family] if family else None)
        lag_s = fault.lag_s if fault else up_to_date
        arns = self.registry.arns(cluster_arn, desired, started_by, family, time.time(), lag_s)
        start = int(request.get("nextToken") or 0)
        end = start + min(int(request.get("maxResults") or LIST_PAGE), LIST_PAGE)
        return {"taskArns": arns[start:end]} | ({"nextToken": str(end)} if end < len(arns) else {})

    def _authorize(self, call: SignedCall, checks: list[Json]) -> None:
        refusal = self.emulator.authorize(call, checks)
        if refusal:
            raise Refused(refusal)

    def _cluster(self, cluster_arn: str) -> Json:
        cluster = self.emulator.cluster(cluster_arn)
        if cluster is None:
            raise EcsError("ClusterNotFoundException", "Cluster not found.")
        return cluster

    def _definition_arn(self, reference: str) -> str:
        if reference.startswith("arn:"):
            return reference
        return f"arn:aws:ecs:{self.emulator.region}:{self.emulator.account}:task-definition/{reference}"


def _parsed(body: bytes) -> Json:
    try:
        request = json.loads(body or b"{}")
    except ValueError as error:
        raise EcsError("SerializationException", str(error)) from error
    if not isinstance(request, dict):
        raise EcsError("SerializationException", "The request must be an object.")
    return request


def _reply(status: HTTPStatus, answer: Json, after_s: float = 0.0) -> Reply:
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())}
    return Reply(status, headers, json.dumps(answer).encode(), after_s)


def _error_reply(error: EcsError) -> Reply:
    status = HTTPStatus.INTERNAL_SERVER_ERROR if error.code == "ServerException" else HTTPStatus.BAD_REQUEST
    return _reply(status, {"__type": error.code, "message": error.message, **error.details}, error.after_s)


def application(server: Server, surroundings: Surroundings, close: Callable[[], None]) -> Starlette:
    """The ASGI application. `close` runs when it is told to end, before it does."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        await run_in_threadpool(close)

    async def ecs(request: Request) -> Response:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
        reply = await run_in_threadpool(server.answer, operation, SignedCall(headers, await request.body()))
        await asyncio.sleep(reply.after_s)
        return Response(reply.body, reply.status, reply.headers)

    def credentials(request: Request) -> Response:
        try:
            return _found(surroundings.credentials(request.path_params["secret"]))
        except ClientError as error:
            return JSONResponse({"code": "AssumeRoleFailed", "message": str(error)}, 500)

    routes = [
        Route("/", ecs, methods=["POST"]),
        Route("/v2/credentials/{secret}", credentials),
        Route("/v4/{id}", lambda request: _found(surroundings.container(request.path_params["id"]))),
        Route("/v4/{id}/task", lambda request: _found(surroundings.task(request.path_params["id"]))),
        *knobs(server.fleet),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _found(value: Json | None) -> Response:
    return JSONResponse({"message": "not found"}, 404) if value is None else JSONResponse(value)
