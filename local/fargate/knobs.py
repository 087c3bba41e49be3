"""What only an embedded cloud has, not authenticated: the ground truth, two settings, standing faults, acts on a task.

| call | body | answer |
|---|---|---|
| GET /_fleetcap/meter | | what lives, how many ever lived at once, and every task |
| POST /_fleetcap/capacity | {"tasks"}: how many may live at once, null for any number | {} |
| POST /_fleetcap/cold-start | {"seconds"}: from PROVISIONING to RUNNING, for the tasks to come | {} |
| POST /_fleetcap/faults | a fault: kind, times, share, seconds, family, seed, text; see `faults` | {"id"} |
| GET /_fleetcap/faults | | a list: the same fields, and id, struck, left |
| DELETE /_fleetcap/faults | with ?id= one of them, else all | {"cleared"} |
| POST /_fleetcap/tasks/{act} | {"arn"}: an ARN or an id; "seconds" for spot | {} |

What cannot be done is answered with 400, 404 or 409 and {"message"}, one sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.fargate.faults import ACTS, SECONDS_MAX, BadFault, Fault, checked_seconds, is_number, is_whole
from local.fargate.fleet import Fleet
from local.fargate.processes import TaskProcess
from local.fargate.tasks import Json, Task


class Refusal(Exception):
    """It cannot be done; one sentence that says why."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def knobs(fleet: Fleet) -> list[Route]:
    """The routes."""
    registry, faults = fleet.registry, fleet.faults

    async def meter(_: Request) -> object:
        return await run_in_threadpool(registry.meter)

    async def capacity(request: Request) -> object:
        tasks = (await _body(request)).get("tasks")
        if tasks is not None and not (is_whole(tasks) and tasks >= 0):
            raise BadFault("`tasks` is a whole number from 0 on, or null for no limit.")
        registry.capacity = tasks
        return {}

    async def cold_start(request: Request) -> object:
        seconds = (await _body(request)).get("seconds")
        if not is_number(seconds) or not 0 <= seconds <= SECONDS_MAX:
            raise BadFault(f"`seconds` is a number from 0 to {SECONDS_MAX}.")
        fleet.cold_start_s = float(seconds)
        return {}

    async def add(request: Request) -> object:
        return {"id": faults.add(Fault.parse(await _body(request)))}

    async def listed(_: Request) -> object:
        return faults.listed()

    async def clear(request: Request) -> object:
        number = request.query_params.get("id")
        if number is None:
            return {"cleared": faults.clear()}
        if not number.isdecimal() or not faults.clear(int(number)):
            raise Refusal(HTTPStatus.NOT_FOUND, f"No fault {number} stands.")
        return {"cleared": 1}

    async def act(request: Request) -> object:
        kind = ACTS.get(request.path_params["act"])
        if kind is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"There is no act of this name; there are {', '.join(ACTS)}.")
        body = await _body(request)
        asked = body.get("seconds")
        seconds = None if asked is None else checked_seconds(kind, asked)
        arn = str(body.get("arn", ""))
        task = registry.by_id(arn.rpartition("/")[2])
        if task is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"There is no task {arn!r}.")
        if not await run_in_threadpool(_carry_out, fleet, kind.name, task, seconds):
            state = f"task {task.id} is {task.status}, to be {task.desired}"
            raise Refusal(HTTPStatus.CONFLICT, f"It is too early or too late for {kind.name}: {state}.")
        return {}

    return [
        Route("/_fleetcap/meter", _answering(meter)),
        Route("/_fleetcap/capacity", _answering(capacity), methods=["POST"]),
        Route("/_fleetcap/cold-start", _answering(cold_start), methods=["POST"]),
        Route("/_fleetcap/faults", _answering(add), methods=["POST"]),
        Route("/_fleetcap/faults", _answering(listed)),
        Route("/_fleetcap/faults", _answering(clear), methods=["DELETE"]),
        Route("/_fleetcap/tasks/{act}", _answering(act), methods=["POST"]),
    ]


def _carry_out(fleet: Fleet, act: str, task: Task, seconds: float | None) -> bool:
    if act == "spot":
        return fleet.interrupt(task, seconds)
    return fleet.signal(task, {"hang": TaskProcess.hang, "resume": TaskProcess.resume, "kill": TaskProcess.kill}[act])


async def _body(request: Request) -> Json:
    try:
        body = await request.json()
    except ValueError:
        raise BadFault("The body must be JSON.") from None
    if not isinstance(body, dict):
        raise BadFault("The body must be a JSON object.")
    return body


def _answering(knob: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await knob(request))
        except BadFault as error:
            return JSONResponse({"message": str(error)}, HTTPStatus.BAD_REQUEST)
        except Refusal as error:
            return JSONResponse({"message": str(error)}, error.status)

    return answer
