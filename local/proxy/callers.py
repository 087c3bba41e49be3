"""Which process made a call: found by its end of the connection, which on the loopback address is on this machine."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NamedTuple

import psutil


class Caller(NamedTuple):
    """A process, and the leader of its session; zeros where nobody is known."""

    pid: int = 0
    leader: int = 0


def caller_at(peer: tuple[str, int], ours: tuple[str, int]) -> Caller:
    """Who holds the other end of a connection, if the process is still there."""
    for connection in psutil.net_connections("tcp4"):
        if connection.laddr == peer and connection.raddr == ours and connection.pid:
            with suppress(ProcessLookupError):
                return Caller(connection.pid, os.getsid(connection.pid))
    return Caller()


def kill(pid: int, mark: str, value: str) -> bool:
    """KILL a process that carries the mark; nobody else's. False where there is no such process."""
    with suppress(psutil.Error, ProcessLookupError):
        if pid and psutil.Process(pid).environ().get(mark) == value:
            os.kill(pid, signal.SIGKILL)
            return True
    return False
