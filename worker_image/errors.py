"""What a job's error may say: one sentence under a stable prefix, without the paths of the machine it ran on."""

from __future__ import annotations

import errno
import re
from typing import Final

from fleetcap import limits

ADDRESS_OR_PATH: Final = re.compile(
    r"(?P<address>\b(?:s3|https?)://[^\s?]+)(?:\?\S*)?|(?<![\w./~-])/[^\s'\",;:()<>|]*[^\s'\",;:()<>|.]"
)
"""An address, whose query may hold a signature; or a path from the root on, which is no slash between words."""

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
    """The world failed, not the input: the same job may well succeed later. The text is one plain sentence."""


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


def scrubbed(text: str, max_chars: int = limits.ERROR_MAX_CHARS) -> str:
    """One line without absolute paths and the queries of addresses, cut to length."""
    line = " ".join(ADDRESS_OR_PATH.sub(lambda found: found["address"] or "(path)", text).split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"
