"""Where the processes of jobs come from: one that has loaded all that they need, and forks them.

A new interpreter takes half a second of a processor to load as much, for every job anew. The nursery is forked from a
worker that has no threads yet, has none itself, and knows nothing but what any job's process would load.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final, NoReturn

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
ANSWERS_WITHIN_S: Final = 10.0
"""It may still be loading; for longer the worker, which beats and hears its other jobs, does not wait."""
STREAMS: Final = 3
WORD_BYTES: Final = 64
GONE: Final = 255


class Gone(Exception):
    """The nursery does not answer, and never will."""


class Born:
    """A forked process with what the worker uses of `subprocess.Popen`."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, a signal's number negative; None while it runs."""
        return self._exit_code if self._exit_code is not None else self._ask(os.WNOHANG)

    def wait(self) -> int:
        """Its exit code, once it has one."""
        return code if (code := self.poll()) is not None else self._ask(0) or 0

    def _ask(self, how: int) -> int | None:
        try:
            pid, status = os.waitpid(self.pid, how)
        except ChildProcessError:  # somebody else has heard it
            pid, self._exit_code = 0, GONE
        if pid:
            self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code


class Nursery:
    """The worker's end. Linux alone: the worker becomes the parent of every process below it that loses its own."""

    def __init__(self) -> None:
        """Fork it. To be called before there is any thread."""
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.settimeout(ANSWERS_WITHIN_S)
        self.pid = os.fork()
        if not self.pid:
            _stay(self._line, theirs)
        theirs.close()

    def bear(self) -> Born:
        """A process with a group of its own that reads a task. Raises OSError where the machine has none, or Gone."""
        pipes = [os.pipe() for _ in range(STREAMS)]
        (stdin, task), (said, stdout), (told, stderr) = pipes
        try:
            pid = self._ask(stdin, stdout, stderr)
        except (OSError, Gone):
            _close(task, said, told)
            raise
        finally:
            _close(stdin, stdout, stderr)
        return Born(pid, os.fdopen(task, "wb"), os.fdopen(said, "rb"), os.fdopen(told, "rb"))

    def _ask(self, *streams: int) -> int:
        try:
            socket.send_fds(self._line, [b"one"], streams)
            word = self._line.recv(WORD_BYTES)
        except OSError as error:
            word, why = b"", repr(error)
        else:
            why = "it has ended"
        if not word:
            self._abandon()
            raise Gone(why)
        if (pid := int(word)) < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def _abandon(self) -> None:
        """Whatever it is at, nobody waits for it."""
        self._line.close()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def die_with_the_parent() -> None:
    """Ask Linux for a SIGKILL when the thread that is this process's parent ends; elsewhere a closed stdout ends it."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _stay(theirs: socket.socket, line: socket.socket) -> NoReturn:
    """All of the nursery's life: load, then fork on demand until the worker is gone."""
    code = 1
    try:
        theirs.close()
        die_with_the_parent()
        _load()
        while _serve(line):
            pass
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _load() -> None:
    """What any job's process does first: its modules, and the models of S3, which the first client reads."""
    import boto3

    from worker_image import child  # noqa: F401 - loaded, to be there when it is needed

    boto3.client("s3", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")  # noqa: S106
    gc.collect()
    gc.freeze()  # a collection in a job's process would copy all of it


def _serve(line: socket.socket) -> bool:
    """Fork once; the worker is told whom, or the error's number, negative. False: the worker is gone."""
    word, streams, _, _ = socket.recv_fds(line, WORD_BYTES, STREAMS)
    if not word:
        return False
    try:
        told = _fork(line, streams)
    except OSError as error:
        told = -(error.errno or 1)
    _close(*streams)
    line.send(str(told).encode())
    return True


def _fork(line: socket.socket, streams: Sequence[int]) -> int:
    """Who is forked, and is the worker's child by now: its own parent only forks it, and ends."""
    reading, writing = os.pipe()
    try:
        parent = os.fork()
        if not parent:
            _deliver(line, streams, reading, writing)
        os.waitpid(parent, 0)
        os.set_blocking(reading, False)
        return int(os.read(reading, WORD_BYTES))
    except (BlockingIOError, ValueError) as error:  # it ended before it could say
        raise OSError(errno.EAGAIN, "it ended before it could say whom it had forked") from error
    finally:
        _close(reading, writing)


def _deliver(line: socket.socket, streams: Sequence[int], reading: int, writing: int) -> NoReturn:
    """Fork the job's process, in a group of its own before anybody hears of it, say who it is, and end."""
    code, parent = 1, os.getpid()
    try:
        pid = os.fork()
        if not pid:
            _live(parent, streams, [line.detach(), reading, writing])
        os.setpgid(pid, pid)
        os.write(writing, str(pid).encode())
        code = 0
    except OSError as error:
        os.write(writing, str(-(error.errno or 1)).encode())
    finally:
        os._exit(code)


def _live(midwife: int, streams: Sequence[int], others: Sequence[int]) -> NoReturn:
    """The job's process, as if it had been started anew with these streams."""
    try:
        from worker_image import child

        while os.getppid() == midwife:  # its death must not be taken for the worker's
            time.sleep(0.001)
        die_with_the_parent()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        _close(*streams, *others)
        child.main()
    except BaseException:
        traceback.print_exc()
    os._exit(1)
