"""Any file as it is, and any program of the image: `passthrough` and `command`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, Final

from fleetcap.catalog import OUTPUT_HERE, SOURCE_HERE
from worker_image.errors import ended_by
from worker_image.processors.base import SOURCE, InputError, Processor, Stage

EXIT_DATA_ERROR: Final = os.EX_DATAERR
"""How a program says, by the convention of sysexits.h, that its input is at fault."""
SAID_MAX_BYTES: Final = 4_096


class Passthrough(Processor):
    """The file as it is, empty or not."""

    name: ClassVar[str] = "passthrough"
    made_from: ClassVar = {"copy": SOURCE}
    takes_empty: ClassVar[bool] = True
    disk_factor: ClassVar[float] = 1.0

    def make(self, kind: str, given: Path, target: Path) -> Iterator[Stage]:  # noqa: ARG002
        yield Stage("copy", 0.0)
        shutil.move(given, target)


class Command(Processor):
    """One program of the image with its arguments, started without a shell.

    `arguments` is split into words as a shell would, quotes included, and nothing in it is expanded but the paths of
    `{source}` and `{output}`. Without `{output}` the artifact is what the program prints.
    """

    name: ClassVar[str] = "command"
    made_from: ClassVar = {"output": SOURCE}
    takes_empty: ClassVar[bool] = True

    def make(self, kind: str, given: Path, target: Path) -> Iterator[Stage]:  # noqa: ARG002
        name = str(self.params["program"])
        words = _words(str(self.params["arguments"]))
        program = shutil.which(name)
        if program is None:
            raise InputError(f"command: this worker has no program named {name!r}")
        paths = {SOURCE_HERE: str(given), OUTPUT_HERE: str(target)}
        yield Stage("run", 0.0, name)
        prints = not any(OUTPUT_HERE in word for word in words)
        with (target if prints else Path(os.devnull)).open("wb") as printed:
            code, said = self._run([program, *(_filled(word, paths) for word in words)], printed)
        if code == EXIT_DATA_ERROR:
            raise InputError(f"{name} refused the file{f': {said}' if said else ''}")
        if code:
            raise ended_by(name, code, said)
        if target.is_symlink() or not target.is_file():
            raise InputError(f"command: {name} ended well but left no file at {OUTPUT_HERE}")

    def _run(self, command: list[str], printed: IO[bytes]) -> tuple[int, str]:
        """The exit code and the last line of stderr, which is passed on as a whole to the worker's log."""
        home = self.work / "home"
        home.mkdir(exist_ok=True)
        # Not the worker's own environment: the credentials of its role are none of the program's business.
        bare = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8"}
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.PIPE, cwd=home, env=bare
        ) as process:
            assert process.stderr is not None  # noqa: S101 (for the type checker: PIPE was asked for)
            said = b""
            while line := process.stderr.readline(SAID_MAX_BYTES):
                sys.stderr.buffer.write(line)
                said = line.strip() or said
        return process.returncode, said.decode(errors="replace")


def _words(arguments: str) -> list[str]:
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise InputError(f"command: the param 'arguments' cannot be split into words: {error}") from None


def _filled(word: str, paths: dict[str, str]) -> str:
    for placeholder, path in paths.items():
        word = word.replace(placeholder, path)
    return word
