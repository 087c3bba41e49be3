"""How a job fails: the world's fault here, the input's in `processors.base`, and what either may say in `scrub`."""

from __future__ import annotations

import errno
import re
from typing import Final

from fleetcap.scrub import scrubbed

__all__ = ["TransientError", "scrubbed"]

NO_MEMORY: Final = re.compile(
    r"cannot allocate memory|could ?n[o']t allocate|memory exhausted|out of memory|bad_alloc", re.IGNORECASE
)
NO_ROOM: Final = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
"""How the C library and the tools that write for us say what failed them."""
MEMORY_ERRNOS: Final = frozenset({errno.ENOMEM})
ROOM_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


KILLED: Final = -9
"""The exit code of a process that the kernel, or somebody, ended by SIGKILL."""


class TransientError(Exception):
    """The world failed, not the input: the same job may well succeed later. The text is one plain sentence.

    `wait_s` is how long whoever failed asked to be left alone.
    """

    def __init__(self, sentence: str, wait_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.wait_s = wait_s


def shortage(error: BaseException) -> str | None:
    """What the machine ran out of, as the beginning of a sentence; None where it did not, or nobody said so."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number in MEMORY_ERRNOS or NO_MEMORY.search(str(error)):
        return "out of memory"
    if number in ROOM_ERRNOS or NO_ROOM.search(str(error)):
        return "disk full"
    return None


def ended_by(program: str, code: int, said: str) -> TransientError:
    """What a program's bad end is called. Signal 9 comes from the kernel where memory ran out."""
    about = f": {said}" if said else ""
    if code == KILLED:
        return TransientError(f"out of memory: {program} was killed (signal 9), most likely for lack of memory")
    if code < 0:
        return TransientError(f"{program} was ended by signal {-code}{about}")
    return TransientError(f"{program} ended with exit code {code}{about}")
