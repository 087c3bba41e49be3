"""The endpoint: ECS's JSON protocol, the two addresses that a task talks to, and the embedded cloud's own knobs."""

from __future__ import annotations

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
from local.fargate.metadata import Surroundings
from local.fargate.run_task import launch_of, tags_of
from local.fargate.tasks import EcsError, Json

THREADS = 128
LIST_PAGE = 100
EXCLUSIVE_WITH_STARTED_BY = ("family", "serviceName", "containerInstance", "launchType", "desiredStatus")


class Refused(Exception):
    """The emulator's refusal of a call, to hand back as it is."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body.decode("utf-8", "replace"))
        self.reply = reply


class Server:
    """Answers ECS calls. `answer` is the one way in, so that a fault can stand before or behind it."""

    def __init__(self, emulator: Emulator, fleet: Fleet) -> None:
        self.emulator, self.fleet, self.registry = emulator, fleet, fleet.registry
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
        definition = self.emulator.definition(reference)
        definition_arn = definition["taskDefinitionArn"] if definition else self._definition_arn(reference)
        tags = tags_of(request, definition or {})
        self._authorize(call, authorization.run_task(request, cluster_arn, definition_arn, definition, tags))
        cluster = self._cluster(cluster_arn)
        if definition is None:
            raise EcsError("ClientException", "TaskDefinition not found.")
        return self.fleet.run(launch_of(request, cluster, definition))

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
        return self.registry.describe(cluster_arn, references, "TAGS" in request.get("include", ()), time.time())

    def _list_tasks(self, call: SignedCall, request: Json) -> Json:
        cluster_arn = self.emulator.cluster_arn(request.get("cluster") or "default")
        self._authorize(call, authorization.list_tasks(cluster_arn))
        self._cluster(cluster_arn)
        started_by = request.get("startedBy", "")
        if started_by and any(request.get(name) for name in EXCLUSIVE_WITH_STARTED_BY):
            raise EcsError("InvalidParameterException", "startedBy must be the only filter.")
        desired, family = request.get("desiredStatus", "RUNNING"), request.get("family", "")
        arns = self.registry.arns(cluster_arn, desired, started_by, family, time.time())
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


def _reply(status: HTTPStatus, answer: Json) -> Reply:
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())}
    return Reply(status, headers, json.dumps(answer).encode())


def _error_reply(error: EcsError) -> Reply:
    status = HTTPStatus.INTERNAL_SERVER_ERROR if error.code == "ServerException" else HTTPStatus.BAD_REQUEST
    return _reply(status, {"__type": error.code, "message": error.message, **error.details})


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
        *_knobs(server),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _knobs(server: Server) -> list[Route]:
    """What only an embedded cloud has: the ground truth, and ways to make life harder. Not authenticated."""

    def meter(_: Request) -> Response:
        return JSONResponse(server.registry.meter())

    async def cold_start(request: Request) -> Response:
        server.fleet.cold_start_s = float((await request.json())["seconds"])
        return JSONResponse({})

    async def capacity(request: Request) -> Response:
        server.registry.capacity = (await request.json())["tasks"]
        return JSONResponse({})

    async def kill(request: Request) -> Response:
        task = server.registry.by_id(str((await request.json())["arn"]).rpartition("/")[2])
        return JSONResponse({"killed": bool(task and server.fleet.kill(task))})

    return [
        Route("/_fleetcap/meter", meter),
        Route("/_fleetcap/cold-start", cold_start, methods=["POST"]),
        Route("/_fleetcap/capacity", capacity, methods=["POST"]),
        Route("/_fleetcap/kill", kill, methods=["POST"]),
    ]


def _found(value: Json | None) -> Response:
    return JSONResponse({"message": "not found"}, 404) if value is None else JSONResponse(value)
