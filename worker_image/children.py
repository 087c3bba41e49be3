"""Starts the processes in which jobs run, listens to them without waiting, and ends them with all they started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from fleetcap import limits, stored
from fleetcap.model import Artifact
from fleetcap.ports import Assignment, ChildReport, Failure, Progress
from fleetcap.scrub import scrubbed
from fleetcap.sources import SourceRules
from worker_image.nursery import Born, Gone, Nursery
from worker_image.scratch import Directories

READ_BYTES: Final = 64 * 1024
READS_MAX: Final = 16
"""Reads of one report: more than a pipe holds, so an ended child is heard out, and a noisy one cannot stall us."""
LOOK_AGAIN_S: Final = 0.02
GONE_WITHIN_S: Final = 1.0
Process = subprocess.Popen[bytes] | Born
_UNPRINTABLE: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f]")
"""What would move a cursor or colour a terminal: escape sequences and control characters."""


class ProcessChildren:
    """One child process, process group and work directory per attempt.

    Linux ends a child when the thread that started it ends, so start them from the thread that supervises.
    """

    def __init__(
        self,
        *,
        cache_bucket: str,
        base_dir: str | Path,
        cache_prefix: str = "",
        source_hosts: Sequence[str] = (),
        source_rules: SourceRules | None = None,
        sort_memory_mb: int = limits.SORT_MEMORY_MB,
        sort_threads: int = limits.SORT_THREADS,
        pool: str = "default",
        disk_gib: int = limits.DISK_GIB,
        keep_failed_dirs: int = 0,
        nursery: Nursery | None = None,
    ) -> None:
        self._nursery = nursery
        self._directories = Directories(Path(base_dir), keep_failed_dirs)
        self._settings = {
            "cache_bucket": cache_bucket,
            "cache_prefix": cache_prefix,
            "source_hosts": list(source_hosts),
            "source_rules": stored.told(source_rules or SourceRules()),
            "sort_memory_mb": sort_memory_mb,
            "sort_threads": sort_threads,
            "pool": pool,
            "disk_gib": disk_gib,
        }

    def settle(self) -> None:
        """Clear the directories that a worker's previous life left behind."""
        self._directories.settle()

    def start(self, assignment: Assignment) -> ProcessChild:
        """Start the job's child. Raises OSError where the machine has no process or no directory to give."""
        work = self._directories.make(assignment.attempt)
        task = {**stored.told(assignment), **self._settings, "work_dir": str(work)}
        try:
            return tended(self._process(), json.dumps(task), work, self._directories)
        except OSError:
            self._directories.drop(work, failed=False)
            raise

    def _process(self) -> Process:
        """Forked where there is a nursery. Where it has gone, what is started anew takes longer, and comes."""
        if self._nursery:
            try:
                return self._nursery.bear()
            except Gone:
                self._nursery = None
        return started([sys.executable, "-m", "worker_image.child"])


def started(command: Sequence[str]) -> Process:
    """Start a command that speaks the child's protocol, in a group of its own."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )


def tended(process: Process, task: str, work: Path, directories: Directories) -> ProcessChild:
    """Give a process its task; one that died before it read that is heard of through its exit code."""
    assert process.stdin is not None  # noqa: S101 (for the type checker: PIPE was asked for)
    with suppress(OSError), process.stdin as stdin:
        stdin.write(task.encode())
    return ProcessChild(process, work, directories)


@dataclass
class _Output:
    """What an attempt's tools said to nobody in particular: scrubbed, bounded, and honest about what is left out."""

    told: int = 0
    left_out: int = 0
    fresh: list[str] = field(default_factory=list)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=limits.OUTPUT_TAIL_LINES))

    def take(self, line: bytes) -> None:
        """Hear one line. Of a progress bar, which draws over itself, only the last state counts."""
        text = line.rstrip(b"\r\n").rpartition(b"\r")[2].decode(errors="replace")
        said = scrubbed(_UNPRINTABLE.sub(" ", text), limits.OUTPUT_LINE_MAX_CHARS)
        if not said:
            return
        if len(self.fresh) < limits.OUTPUT_LINES_AT_ONCE and self.told < limits.OUTPUT_LINES and not self.last:
            self.told += 1
            self.fresh.append(said)
            return
        self.left_out += len(self.last) == limits.OUTPUT_TAIL_LINES
        self.last.append(said)

    def lines(self, ended: bool) -> tuple[str, ...]:
        """What is to be passed on now: after a burst the last of it, after too much of it the last of all."""
        told, self.fresh = self.fresh, []
        if self.last and (ended or self.told < limits.OUTPUT_LINES):
            told += [f"… {self.left_out} more lines left out"] if self.left_out else []
            told += self.last
            self.told += len(self.last)
            self.left_out = 0
            self.last.clear()
        return tuple(told)


class _Lines:
    """The whole lines of a pipe that is read without waiting. Of a line without an end only the last is kept."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._partial = b""
        os.set_blocking(pipe.fileno(), False)

    def read(self) -> Iterator[bytes]:
        """Every line that came whole since the last time."""
        for _ in range(READS_MAX):
            try:
                data = os.read(self._pipe.fileno(), READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._partial = self._partial[-READ_BYTES:]
            yield from lines

    def close(self) -> bytes:
        """Close the pipe; what it said last, if that had no end."""
        self._pipe.close()
        last, self._partial = self._partial, b""
        return last


@dataclass
class _Said:
    """What a child has said so far."""

    progress: Progress | None = None
    artifacts: tuple[Artifact, ...] = ()
    failure: Failure | None = None
    done: bool = False
    output: _Output = field(default_factory=_Output)

    def take(self, line: bytes) -> None:
        """Read one line of the protocol; anything else is output like any other, because it must not stop a worker."""
        try:
            self._event(json.loads(line))
        except (ValueError, KeyError, TypeError):
            self.output.take(line)

    def _event(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                message = scrubbed(event["message"], limits.PROGRESS_MAX_CHARS)
                self.progress = Progress(event["stage"], float(event["fraction"]), message)
            case "artifact":
                artifact = Artifact(event["kind"], event["key"], int(event["size_bytes"]), bool(event["created"]))
                self.artifacts += (artifact,)
            case "failed":
                self.failure = Failure(scrubbed(event["error"]), bool(event["permanent"]))
            case "done":
                self.done = True
            case other:
                raise ValueError(other)


class ProcessChild:
    """One job's process group. Success is `exit_code == 0` together with `failure is None`, and nothing else is."""

    def __init__(self, process: Process, work: Path, directories: Directories) -> None:
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        assert process.stderr is not None  # noqa: S101 (the same)
        self._process = process
        self._work = work
        self._directories = directories
        self._events = _Lines(process.stdout)
        self._output = _Lines(process.stderr)
        self._said = _Said()
        self._exit_code: int | None = None
        self._stopped_by_us = False

    def report(self) -> ChildReport:
        """What was said since the last call, without waiting. Artifacts accumulate; `lines` are for the log.

        The first report with an exit code also ends what the child left behind: processes and work directory.
        """
        if self._exit_code is None:
            ended = self._has_ended()
            self._listen()
            if ended:
                self._bury()
        said = self._said
        lines = said.output.lines(ended=self._exit_code is not None)
        report = ChildReport(said.progress, said.artifacts, self._failure(), self._exit_code, lines)
        said.progress = None
        return report

    def kill(self) -> None:
        """TERM, five seconds, KILL, for the whole group; returns when it is gone. Repeatable."""
        if self._exit_code is not None:
            return
        if not self._has_ended():
            self._stopped_by_us = True
            self._signal(signal.SIGTERM)
            _wait_until(self._has_ended, limits.CHILD_TERM_S)
        self._listen()
        self._bury()
        _wait_until(self._group_is_gone, GONE_WITHIN_S)

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _bury(self) -> None:
        """Kill whatever of the group still lives, reap the main child and remove its directory.

        Once only, right after the main child ended: later its group's number may belong to strangers.
        """
        self._signal(signal.SIGKILL)
        self._exit_code = self._process.wait()
        for rest in (self._events.close(), self._output.close()):
            self._said.output.take(rest)
        self._directories.drop(self._work, failed=self._failure() is not None)

    def _signal(self, number: signal.Signals) -> None:
        # ProcessLookupError: all gone. PermissionError: how macOS says that only the dead are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _group_is_gone(self) -> bool:
        with suppress(ChildProcessError):  # whoever of it has lost its parent is this worker's child
            while os.waitpid(-self._process.pid, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(self._process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False

    def _listen(self) -> None:
        for line in self._events.read():
            self._said.take(line)
        for line in self._output.read():
            self._said.output.take(line)

    def _failure(self) -> Failure | None:
        """The child's own word, or ours for a child that ended without one."""
        if self._said.failure or self._exit_code is None or (self._said.done and self._exit_code == 0):
            return self._said.failure
        return Failure(f"internal: {self._end()}", permanent=False)

    def _end(self) -> str:
        assert self._exit_code is not None  # noqa: S101 (for the type checker)
        if self._stopped_by_us:
            return "the job's process was stopped by its worker"
        if self._exit_code == -signal.SIGKILL:
            return "out of memory: the job's process was killed (signal 9), most likely for lack of memory"
        if self._exit_code < 0:
            return f"the job's process was ended by signal {-self._exit_code}"
        return f"the job's process ended with exit code {self._exit_code} and without a result"


def _wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_S)
