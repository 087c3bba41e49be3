"""The disk that a worker's jobs share: whose directories lie there, which of them go, and whether a source fits."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetcap import limits
from worker_image.errors import TransientError
from worker_image.processors.base import InputError

GIB_BYTES: Final = 1024**3
ATTEMPT, FAILED = "attempt-", "failed-"


class Directories:
    """One directory per attempt below `base`. Whoever lives there shares a lock on it, which ends with its process.

    So a worker that gets the lock for itself at its start is alone, and what lies there belonged to the dead.
    """

    def __init__(self, base: Path, keep_failed: int = 0) -> None:
        self._base = base
        self._keep_failed = keep_failed
        self._owners: int | None = None

    def settle(self) -> None:
        """Clear what a previous life left behind, unless somebody else is alive there. Once; repeatable."""
        if self._owners is not None:
            return
        self._base.mkdir(parents=True, exist_ok=True)
        self._owners = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(BlockingIOError):
            fcntl.flock(self._owners, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in self._base.glob(f"{ATTEMPT}*"):
                shutil.rmtree(left, ignore_errors=True)
        fcntl.flock(self._owners, fcntl.LOCK_SH)

    def make(self, attempt: int) -> Path:
        """A directory of its own for an attempt. Raises OSError where the disk has none to give."""
        self.settle()
        return Path(tempfile.mkdtemp(prefix=f"{ATTEMPT}{attempt}-", dir=self._base))

    def drop(self, work: Path, failed: bool) -> None:
        """Remove an attempt's directory; a failed one is kept under another name, and the oldest of those goes."""
        if failed and self._keep_failed and work.name.startswith(ATTEMPT):
            with suppress(OSError):
                work.rename(work.with_name(FAILED + work.name.removeprefix(ATTEMPT)))
            kept = sorted(self._base.glob(f"{FAILED}*"), key=lambda path: path.stat().st_mtime_ns)
            for old in kept[: -self._keep_failed]:
                shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class Room:
    """The disk of a pool's worker, and who tells how much of it there is: `usage` is like `shutil.disk_usage`."""

    pool: str = "default"
    disk_gib: int = limits.DISK_GIB
    usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage

    def check(self, size_bytes: int, factor: float, folder: Path) -> None:
        """Ask whether a source of this size can be processed here, before a byte of it is fetched.

        Raises InputError where even an empty disk of the pool is too small, TransientError where only its present use
        is in the way.
        """
        need_bytes = int(size_bytes * factor)
        total_bytes, _, free_bytes = self.usage(folder)
        disk_bytes = min(self.disk_gib * GIB_BYTES, total_bytes)
        needs = f"the source needs {_gib(need_bytes)} of disk ({factor:g} × its {_gib(size_bytes)})"
        if need_bytes > disk_bytes:
            raise InputError(f"{needs}, pool {self.pool} has {_gib(disk_bytes)}")
        if need_bytes > free_bytes:
            raise TransientError(f"disk full now: {needs}, {_gib(free_bytes)} of {_gib(disk_bytes)} are free")


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB_BYTES:.1f} GiB".replace(".0 ", " ")
