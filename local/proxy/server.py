"""Passes calls on: read, judge, pass on, count, answer. A connection is broken where a fault says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from http import HTTPStatus
from typing import Final
from weakref import WeakKeyDictionary

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict
from pydantic import ValidationError
from yarl import URL

from local.proxy.callers import Caller, caller_at, kill
from local.proxy.calls import Call, call_of, is_readable
from local.proxy.faults import AFTER, BEFORE, KILLS, Fault, Faults, Kind
from local.proxy.recording import Recording
from local.proxy.units import Units, units_of

CONTROL: Final = "/_fleetcap"
DOCUMENT_MAX_BYTES: Final = 32 * 1024 * 1024
PIECE_BYTES: Final = 256 * 1024
OF_ONE_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "expect"})
ECS: Final = "ecs"
DYNAMODB: Final = "dynamodb"


class Proxy:
    """Between the actors and AWS. `mark` is what the cloud's processes carry in their environment: name and value."""

    def __init__(self, emulator: str, fargate: str, mark: tuple[str, str]) -> None:
        self._emulator, self._fargate = emulator, fargate
        self._mark = mark
        self.recording = Recording()
        self.faults = Faults()
        self._calm = asyncio.Event()
        self._callers: WeakKeyDictionary[asyncio.BaseTransport, Caller] = WeakKeyDictionary()
        self._session: ClientSession

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=DOCUMENT_MAX_BYTES)
        app.cleanup_ctx.append(self._with_session)
        app.router.add_get(f"{CONTROL}/recording", self._tell_recording)
        app.router.add_delete(f"{CONTROL}/recording", self._clear_recording)
        app.router.add_get(f"{CONTROL}/faults", self._tell_faults)
        app.router.add_post(f"{CONTROL}/faults", self._add_fault)
        app.router.add_delete(f"{CONTROL}/faults", self._clear_faults)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _with_session(self, _app: web.Application) -> AsyncIterator[None]:
        silent = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
        # Nothing is limited here: whoever waits is the caller, whose own timeouts hold.
        self._session = ClientSession(
            connector=TCPConnector(limit=0), auto_decompress=False, timeout=ClientTimeout(), skip_auto_headers=silent
        )
        yield
        await self._session.close()

    # --- calls

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read() if is_readable(request.headers) else b""
        call = call_of(request.method, request.raw_path, request.query, request.headers, body)
        caller = await self._caller(request) if self.faults.ask_who else Caller()
        kind, seconds = self.faults.strike(call, caller)
        if kind is Kind.DELAY:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._calm.wait(), seconds)
        elif kind in BEFORE:
            return self._broken(request, caller if kind in KILLS else None)
        try:
            async with self._sent_on(request, call) as answer:
                if kind not in AFTER and not call.body:
                    self.recording.add(call, Units())
                    return await _streamed(request, answer)
                told = await answer.read()
        except ClientError:  # what is behind is gone; the caller hears what it would hear from a lost network
            return self._broken(request)
        self.recording.add(call, _units(call, answer.status, told))
        if kind in AFTER:
            return self._broken(request, caller if kind in KILLS else None)
        return web.Response(status=answer.status, headers=_end_to_end(answer.headers), body=told)

    def _sent_on(self, request: web.Request, call: Call) -> AbstractAsyncContextManager[ClientResponse]:
        """The call as it came, to whoever carries it out. It goes on to its end though the caller may have left."""
        behind = self._fargate if call.service == ECS else self._emulator
        headers = _end_to_end(request.headers)
        headers["X-Forwarded-Proto"] = "https"
        streamed = request.content.iter_chunked(PIECE_BYTES) if request.can_read_body else None
        url = URL(behind + request.raw_path, encoded=True)
        return self._session.request(
            request.method, url, headers=headers, data=call.body or streamed, allow_redirects=False
        )

    def _broken(self, request: web.Request, condemned: Caller | None = None) -> web.StreamResponse:
        """No answer: the caller is killed if it is condemned, and its connection breaks in any case."""
        if condemned:
            kill(condemned.pid, *self._mark)
        if request.transport:
            request.transport.abort()
        return web.Response()  # reaches nobody

    async def _caller(self, request: web.Request) -> Caller:
        """The calling process, found once a connection."""
        transport = request.transport
        if transport is None:
            return Caller()
        if transport not in self._callers:
            ends = (transport.get_extra_info(name)[:2] for name in ("peername", "sockname"))
            self._callers[transport] = await asyncio.to_thread(caller_at, *ends)
        return self._callers[transport]

    # --- knobs

    async def _tell_recording(self, _request: web.Request) -> web.Response:
        return web.json_response(self.recording.told())

    async def _clear_recording(self, _request: web.Request) -> web.Response:
        self.recording.clear()
        return web.json_response({})

    async def _tell_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self.faults.listed())

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            fault = Fault.model_validate_json(await request.read())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the fault"
            return web.json_response({"message": f"{where}: {first['msg']}"}, status=HTTPStatus.BAD_REQUEST)
        return web.json_response({"id": self.faults.add(fault)})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        number = request.query.get("id")
        if number is not None and not number.isdecimal():
            return web.json_response({"message": f"{number!r} is no number of a fault."}, status=HTTPStatus.BAD_REQUEST)
        cleared = self.faults.clear(None if number is None else int(number))
        if number is None:
            self._calm.set()  # for those who wait now; who is delayed later waits for another calm
            self._calm = asyncio.Event()
        return web.json_response({"cleared": cleared})


async def _streamed(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    """Hand an answer of any length on, piece by piece."""
    response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
    await response.prepare(request)
    async for piece in answer.content.iter_chunked(PIECE_BYTES):
        await response.write(piece)
    await response.write_eof()
    return response


def _units(call: Call, status: int, told: bytes) -> Units:
    if call.service != DYNAMODB:
        return Units()
    return units_of(call.operation, call.body, status == HTTPStatus.OK, told)


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Headers without those that belong to one connection."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in OF_ONE_HOP)
