"""Lines sorted by the system's own `sort`: bounded memory, spilling into the work directory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from worker_image.errors import TransientError, ended_by

BATCH_BYTES: Final = 1024 * 1024
COMPLAINT_BYTES: Final = 4_096


class LineSort:
    """Feed it with `put`, then iterate over `sorted`. A context: whatever happens, no process stays behind.

    `keys` are sort's own (`2,2n`) over columns parted by tabs; equal lines keep their order, and bytes stay as they
    are. `memory_mb` is all that sort may hold, `threads` how many of it sort side by side.
    """

    def __init__(self, keys: Sequence[str], work: Path, memory_mb: int, threads: int) -> None:
        command = ["sort", "--stable", "--field-separator=\t", *(f"--key={key}" for key in keys)]
        bounds = [f"--buffer-size={memory_mb}M", f"--parallel={threads}", f"--temporary-directory={work}"]
        self._process = subprocess.Popen(
            [*command, *bounds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # not a file: a full disk would keep the word about itself
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )

    def __enter__(self) -> LineSort:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._in.close()
        self._out.close()
        self._complaints.close()
        self._process.wait()

    def put(self, lines: Sequence[bytes]) -> None:
        """Hand over some lines. Raises TransientError where sort has come to an end."""
        try:
            self._in.write(b"".join(lines))
        except BrokenPipeError:
            raise self._failure() from None

    def sorted(self) -> Iterator[bytes]:
        """All lines in order, once the last was put. Raises TransientError unless sort came to a good end."""
        try:
            self._in.close()
        except BrokenPipeError:
            raise self._failure() from None
        yield from self._out
        if self._process.wait():
            raise self._failure()

    def _failure(self) -> TransientError:
        said = self._complaints.read(COMPLAINT_BYTES).decode(errors="replace").strip()
        return ended_by("sort", self._process.wait(), said)

    @property
    def _complaints(self) -> IO[bytes]:
        assert self._process.stderr is not None  # noqa: S101 (for the type checker)
        return self._process.stderr

    @property
    def _in(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 (for the type checker: PIPE was asked for)
        return self._process.stdin

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 (for the type checker)
        return self._process.stdout


def batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines by the mebibyte: a call for each would cost more than the work, and a row of VCF may be megabytes long."""
    batch: list[bytes] = []
    held_bytes = 0
    for line in lines:
        batch.append(line)
        held_bytes += len(line)
        if held_bytes >= BATCH_BYTES:
            yield batch
            batch, held_bytes = [], 0
    if batch:
        yield batch
