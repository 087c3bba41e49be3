"""Ships what tasks print to CloudWatch Logs.

A task writes to a file, never to a pipe of ours: it cannot be blocked or broken by this endpoint. One thread reads
all files and sends what is new, as the task's execution role. Whatever goes wrong is said once and hurts no task.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.fargate.tasks import Task

SHIP_S = 0.3
READ_MAX_BYTES = 512_000
BATCH_MAX_EVENTS = 5_000
FAILURES_MAX = 5
LINE_MAX_CHARS = 200_000


@dataclass
class Tail:
    """How far a file was shipped, and where to. `ended` once nothing writes to it any more."""

    path: Path
    group: str
    stream: str
    role: str
    create_group: bool
    offset: int = 0
    rest: bytes = b""
    created: bool = False
    failures: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class LogShipper:
    """One background thread. `client_of` gives a CloudWatch Logs client for an execution role."""

    def __init__(self, client_of: Callable[[str], Any]) -> None:
        self._client_of = client_of
        self._clients: dict[str, Any] = {}
        self._tails: dict[Path, Tail] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._ship_for_ever, name="logs", daemon=True)
        self._thread.start()

    def follow(self, path: Path, task: Task) -> None:
        """Ship the file as the container's awslogs configuration says, if it has one."""
        container = task.launch.container
        configuration = container.get("logConfiguration") or {}
        options = configuration.get("options", {})
        if configuration.get("logDriver") != "awslogs" or "awslogs-group" not in options:
            return
        stream = "/".join(filter(None, [options.get("awslogs-stream-prefix"), container["name"], task.id]))
        tail = Tail(
            path,
            options["awslogs-group"],
            stream,
            task.launch.role("executionRoleArn"),
            options.get("awslogs-create-group") == "true",
        )
        with self._lock:
            self._tails[path] = tail

    def ended(self, path: Path) -> None:
        """Nothing writes to the file any more: ship the rest and forget it."""
        with self._lock:
            if tail := self._tails.get(path):
                tail.ended.set()

    def close(self, timeout_s: float) -> None:
        """Ship once more, then stop."""
        self._closing.set()
        self._thread.join(timeout_s)

    def _ship_for_ever(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(SHIP_S)
            with self._lock:
                tails = list(self._tails.values())
            for tail in tails:
                if self._done(tail):
                    with self._lock:
                        del self._tails[tail.path]

    def _done(self, tail: Tail) -> bool:
        """Ship what is new. True when there is nothing more to do for this file."""
        ended = tail.ended.is_set()
        try:
            while self._ship(tail, ended):
                tail.failures = 0
        except Exception as error:
            tail.failures += 1
            if tail.failures == FAILURES_MAX:
                reason = f"{type(error).__name__}: {error}"
                print(f"fargate: no logs to {tail.group}/{tail.stream}: {reason}", file=sys.stderr, flush=True)  # noqa: T201
            return tail.failures >= FAILURES_MAX
        return ended

    def _ship(self, tail: Tail, ended: bool) -> bool:
        """Send one batch. False when there was nothing to send."""
        with tail.path.open("rb") as file:
            file.seek(tail.offset)
            chunk = file.read(READ_MAX_BYTES)
        *lines, rest = (tail.rest + chunk).split(b"\n")
        if rest and (len(rest) > LINE_MAX_CHARS or (ended and not chunk)):
            lines, rest = [*lines, rest], b""
        texts = [line.decode("utf-8", "replace")[:LINE_MAX_CHARS] for line in lines if line.strip()]
        for start in range(0, len(texts), BATCH_MAX_EVENTS):
            self._put(tail, texts[start : start + BATCH_MAX_EVENTS])
        tail.offset, tail.rest = tail.offset + len(chunk), rest
        return bool(chunk) or bool(texts)

    def _put(self, tail: Tail, texts: list[str]) -> None:
        if tail.role not in self._clients:
            self._clients[tail.role] = self._client_of(tail.role)
        client = self._clients[tail.role]
        if not tail.created:
            _create(client, tail)
            tail.created = True
        now_ms = int(time.time() * 1_000)
        events = [{"timestamp": now_ms, "message": text} for text in texts]
        client.put_log_events(logGroupName=tail.group, logStreamName=tail.stream, logEvents=events)


def _create(client: Any, tail: Tail) -> None:  # noqa: ANN401 - a client of a role, not known before
    """Create the stream, and the group where the task definition says so; either may exist."""
    if tail.create_group:
        with suppress(client.exceptions.ResourceAlreadyExistsException):
            client.create_log_group(logGroupName=tail.group)
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_stream(logGroupName=tail.group, logStreamName=tail.stream)
