"""One task's process and everything left in its session; to the system, the session is what a container is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from local.fargate.tasks import Launch

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 30
SWEEP_S = 0.01
SIGNALLED = 128


class CannotStart(Exception):
    """The container cannot start; the message is the reason that ECS would give."""


def command(launch: Launch) -> list[str]:
    """entryPoint and command, as overridden. `python` is this interpreter, as no image brings one."""
    container, overrides = launch.container, launch.container_overrides
    argv = [*container.get("entryPoint", ()), *(overrides.get("command") or container.get("command", ()))]
    if not argv:
        raise CannotStart("CannotStartContainerError: no command, and no image here to bring one")
    if container.get("secrets"):
        raise CannotStart("ResourceInitializationError: the embedded Fargate does not resolve secrets")
    return [sys.executable, *argv[1:]] if argv[0] in {"python", "python3"} else argv


def environment(launch: Launch, home: Path, provided: Mapping[str, str]) -> dict[str, str]:
    """All that the process sees: a base, what Fargate provides, the container's, the request's; later ones win."""
    base = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "lambdas"), str(REPOSITORY)]),
        "PYTHONUNBUFFERED": "1",
    }
    return base | dict(provided) | _pairs(launch.container) | _pairs(launch.container_overrides)


def _pairs(source: Mapping[str, Any]) -> dict[str, str]:
    pairs: Sequence[Mapping[str, str]] = source.get("environment") or ()
    return {pair["name"]: pair["value"] for pair in pairs}


class TaskProcess:
    """The running container. `wait` belongs to one thread, everything else may be called from any."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        """Start it, as the leader of a session of its own, with its output appended to `log`. Raises CannotStart."""
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    argv,
                    env=env,
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise CannotStart(f"CannotStartContainerError: {error}") from error
        self._killer: threading.Timer | None = None
        self._hung: set[psutil.Process] = set()
        self._over = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The main process, whose id is also the session's."""
        return self._process.pid

    def wait(self, on_exit: Callable[[int], None]) -> None:
        """Wait for the main process, hand over its exit code, then kill what is left of its session, or hung."""
        code = self._process.wait()
        with self._lock:
            self._over = True
            if self._killer:
                self._killer.cancel()
        on_exit(code if code >= 0 else SIGNALLED - code)
        end_session(self.pid)
        for process in tuple(self._hung):
            with suppress(psutil.Error):
                process.kill()

    def stop(self, timeout_s: float) -> None:
        """TERM now, KILL for the whole session after `timeout_s`. Repeatable; the first call sets the time."""
        with self._lock:
            if self._killer or self._over:
                return
            self._killer = threading.Timer(timeout_s, end_session, (self.pid,))
            self._killer.daemon = True
            self._killer.start()
        self._process.terminate()

    def kill(self) -> None:
        """KILL the main process, as an out-of-memory killer would."""
        self._process.send_signal(signal.SIGKILL)

    def hang(self) -> None:
        """STOP the session and all that descends from it, again until nobody is new: a member may fork meanwhile."""
        with self._lock:
            while not self._over and (awake := _descent(self.pid) - self._hung):
                for process in awake:
                    with suppress(psutil.Error):
                        process.suspend()
                self._hung |= awake
                time.sleep(SWEEP_S)

    def resume(self) -> None:
        """CONT everything that hangs."""
        with self._lock:
            for process in self._hung:
                with suppress(psutil.Error):
                    process.resume()
            self._hung.clear()


def end_session(session: int) -> None:
    """Kill every process of a session, again until none is left: a member may fork while its siblings die."""
    while members := list(_members(session)):
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(SWEEP_S)


def _descent(session: int) -> set[psutil.Process]:
    """The processes of a session, and those that they started, even in sessions of their own."""
    found: set[psutil.Process] = set()
    for pid in _members(session):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            found |= {process, *process.children(recursive=True)}
    return found


def _members(session: int) -> Iterator[int]:
    """The processes of a session that still run; one that waits to be reaped runs no more."""
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                yield pid
        except (OSError, psutil.Error):
            continue
