"""Starts the processes in which jobs run, listens to them without waiting, and ends them with all they started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fleetcap import limits
from fleetcap.model import Artifact
from fleetcap.ports import Assignment, ChildReport, Failure, Progress
from worker_image.errors import scrubbed

READ_BYTES: Final = 64 * 1024
READS_MAX: Final = 16
"""Reads of one report: more than a pipe holds, so an ended child is heard out, and a noisy one cannot stall us."""
LOOK_AGAIN_S: Final = 0.02
GONE_WITHIN_S: Final = 1.0


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
        sort_memory_mb: int = limits.SORT_MEMORY_MB,
        sort_threads: int = limits.SORT_THREADS,
    ) -> None:
        self._base_dir = Path(base_dir)
        self._settings = {
            "cache_bucket": cache_bucket,
            "cache_prefix": cache_prefix,
            "source_hosts": list(source_hosts),
            "sort_memory_mb": sort_memory_mb,
            "sort_threads": sort_threads,
        }

    def start(self, assignment: Assignment) -> ProcessChild:
        """Start the job's child. Raises OSError where the machine has no process or no directory to give."""
        self._base_dir.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"attempt-{assignment.attempt}-", dir=self._base_dir))
        task = {**asdict(assignment), "params": dict(assignment.params), **self._settings, "work_dir": str(work)}
        try:
            return start_child([sys.executable, "-m", "worker_image.child"], json.dumps(task), work)
        except OSError:
            shutil.rmtree(work, ignore_errors=True)
            raise


def start_child(command: Sequence[str], task: str, work: Path) -> ProcessChild:
    """Start a command that speaks the child's protocol, in a group of its own, with its task on stdin."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    assert process.stdin is not None  # noqa: S101 (for the type checker: PIPE was asked for)
    # A child that died before it read its task is heard of through its exit code.
    with suppress(OSError), process.stdin as stdin:
        stdin.write(task.encode())
    return ProcessChild(process, work)


@dataclass
class _Said:
    """What a child has said so far."""

    progress: Progress | None = None
    artifacts: tuple[Artifact, ...] = ()
    failure: Failure | None = None
    done: bool = False
    noise: tuple[str, ...] = ()

    def take(self, line: bytes) -> None:
        """Read one line of the protocol; anything else is kept as noise, because it must not stop a worker."""
        try:
            self._event(json.loads(line))
        except (ValueError, KeyError, TypeError):
            self.noise += (scrubbed(line.decode(errors="replace"), limits.PROGRESS_MAX_CHARS),)

    def _event(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                self.progress = Progress(event["stage"], float(event["fraction"]), event["message"])
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

    def __init__(self, process: subprocess.Popen[bytes], work: Path) -> None:
        assert process.stdout is not None  # noqa: S101 (for the type checker)
        self._process = process
        self._work = work
        self._out = process.stdout
        os.set_blocking(self._out.fileno(), False)
        self._partial = b""
        self._said = _Said()
        self._exit_code: int | None = None
        self._stopped_by_us = False

    def report(self) -> ChildReport:
        """What was said since the last call, without waiting. Artifacts accumulate; `lines` is what nobody understood.

        The first report with an exit code also ends what the child left behind: processes and work directory.
        """
        if self._exit_code is None:
            ended = self._has_ended()
            self._listen()
            if ended:
                self._bury()
        said = self._said
        report = ChildReport(said.progress, said.artifacts, self._failure(), self._exit_code, said.noise)
        said.progress, said.noise = None, ()
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
        self._out.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        # ProcessLookupError: all gone. PermissionError: how macOS says that only the dead are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _group_is_gone(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False

    def _listen(self) -> None:
        for _ in range(READS_MAX):
            try:
                data = os.read(self._out.fileno(), READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                self._said.take(line)

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
