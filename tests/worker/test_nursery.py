"""Jobs' processes that are forked: like those that are started anew, and never without them.

Each test runs a worker of its own as a process, for forking makes a parent of it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.worker.test_child import alive, eventually
from worker_image import nursery

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a worker be a foster parent")

WORKER: Final = """
import json, os, signal, sys, time
from pathlib import Path
from fleetcap.ports import Assignment
from worker_image import child, children, nursery

def main():
    task = json.load(sys.stdin)
    print(json.dumps({"event": "progress", "stage": "x", "fraction": 0, "message": " ".join(map(str, about()))}),
          file=os.fdopen(os.dup(1), "w"), flush=True)
    exec(task["params"]["does"])
    os._exit(0)

def about():
    here = sorted(int(number) for number in os.listdir("/proc/self/fd"))
    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return os.getpid(), os.getppid(), os.getpgid(0), os.getsid(0), len(here) - 1, usual

child.main = main
nursery._load = lambda: None  # all that these tests need is here
nursery.ANSWERS_WITHIN_S = 3.0
born = nursery.Nursery()
base = Path(sys.argv[1])
tending = children.ProcessChildren(cache_bucket="cache", base_dir=base, nursery=born)

def start(does="pass"):
    return tending.start(Assignment("id", "ns/a/md5/v1", 1, "s3://sources/a.bam", "bam", "", {"does": does}))

def heard(job, ended=True):
    told = None
    while True:
        report = job.report()
        told = report.progress or told
        if report.exit_code is not None or (told and not ended):
            return report, told and [int(word) if word.isdigit() else word for word in told.message.split()]
        time.sleep(0.01)

def say(*values):
    print(json.dumps(values), flush=True)
"""


def worker(tmp_path: Path, does: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER + does, str(tmp_path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(tmp_path: Path, does: str) -> list[Any]:
    """What a worker says that does this, line by line."""
    with worker(tmp_path, does) as running:
        assert running.stdout
        lines = [json.loads(line) for line in running.stdout]
    assert running.returncode == 0
    return lines


def test_a_job_that_is_forked_is_the_workers_own_child_in_a_group_of_its_own(tmp_path: Path) -> None:
    [worker_pid, session], [about, exit_code], left = said(
        tmp_path,
        "say(os.getpid(), os.getsid(0))\n"
        "report, about = heard(start())\n"
        "say(about, report.exit_code)\n"
        "say(*(path.name for path in base.iterdir()))",
    )
    pid, parent, group, its_session, descriptors, handler = about
    assert (parent, group, its_session) == (worker_pid, pid, session)
    assert (descriptors, handler, exit_code, left) == (3, "True", 0, [])


@pytest.mark.parametrize(
    ("does", "exit_code", "error"),
    [
        ("os._exit(3)", 3, "internal: the job's process ended with exit code 3 and without a result"),
        ("os.kill(os.getpid(), 6)", -6, "internal: the job's process was ended by signal 6"),
        ("raise KeyError('what')", 1, "internal: the job's process ended with exit code 1 and without a result"),
    ],
)
def test_how_it_ended_is_heard(tmp_path: Path, does: str, exit_code: int, error: str) -> None:
    [[told, failure]] = said(
        tmp_path, f"report, _ = heard(start({does!r}))\nsay(report.exit_code, report.failure.error)"
    )
    assert (told, failure) == (exit_code, error)


def test_one_after_the_other_and_two_at_once_are_forked_by_one_nursery(tmp_path: Path) -> None:
    [parents] = said(
        tmp_path,
        "pair = [start('time.sleep(0.2)'), start()]\n"
        "say(*(heard(job)[1][1] == os.getpid() for job in [*pair, start()]), tending._nursery is born)",
    )
    assert parents == [True] * 4


def test_a_kill_ends_its_whole_group_and_leaves_no_zombie_of_it(tmp_path: Path) -> None:
    family = "import subprocess; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    [[took_long, left]] = said(
        tmp_path,
        f"job = start({family!r})\n"
        "about = heard(job, ended=False)[1]\n"
        "time.sleep(0.5)\n"
        "began = time.monotonic(); job.kill()\n"
        "groups = [os.getpgid(int(pid)) for pid in os.listdir('/proc') if pid.isdigit()]\n"
        "say(time.monotonic() - began > 30, groups.count(about[0]))",
    )
    assert (took_long, left) == (False, 0)


def test_neither_the_job_nor_the_nursery_outlives_the_worker(tmp_path: Path) -> None:
    with worker(
        tmp_path, "job = start('time.sleep(60)')\nsay(heard(job, ended=False)[1][0], born.pid)\njob = heard(job)"
    ) as one:
        assert one.stdout
        pids = json.loads(one.stdout.readline())
        assert all(map(alive, pids))
        one.kill()
    assert eventually(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_where_the_nursery_is_gone_or_hangs_the_job_is_started_anew(tmp_path: Path, number: int) -> None:
    [[forked, gone, exit_code, error]] = said(
        tmp_path,
        "forked = heard(start())[0].exit_code\n"
        f"os.kill(born.pid, {int(number)})\n"
        "report, _ = heard(start())\n"
        "say(forked, tending._nursery is None, report.exit_code, report.failure.error)",
    )
    # What is started anew is the real one, which finds no processor that takes these parameters.
    assert (forked, gone, exit_code) == (0, True, 1)
    assert error.startswith("input: ")


def test_a_machine_without_a_process_to_give_is_an_error_of_that_job_alone(tmp_path: Path) -> None:
    [[error, left], [exit_code]] = said(
        tmp_path,
        "base.mkdir(exist_ok=True)\n"
        "ask, born._ask = born._ask, lambda *_: (_ for _ in ()).throw(OSError(11, 'none'))\n"
        "try: start()\n"
        "except OSError as caught: say(caught.errno, [path.name for path in base.iterdir()])\n"
        "born._ask = ask\n"
        "say(heard(start())[0].exit_code)",
    )
    assert (error, left, exit_code) == (11, [], 0)


@pytest.mark.parametrize(
    ("fork", "told"), [(lambda *_: 4711, b"4711"), (lambda *_: (_ for _ in ()).throw(OSError(12, "no memory")), b"-12")]
)
def test_the_nursery_says_whom_it_forked_or_why_not(
    monkeypatch: pytest.MonkeyPatch, fork: Callable[..., int], told: bytes
) -> None:
    monkeypatch.setattr(nursery, "_fork", fork)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, Path(os.devnull).open() as given:
        socket.send_fds(ours, [b"one"], [given.fileno()] * 3)
        assert nursery._serve(theirs)
        assert ours.recv(64) == told
        ours.shutdown(socket.SHUT_RDWR)
        assert not nursery._serve(theirs)


def test_one_that_somebody_else_has_heard_of_has_ended(tmp_path: Path) -> None:
    with (tmp_path / "any").open("w+b") as any_file:
        unknown = nursery.Born(1, any_file, any_file, any_file)
        assert (unknown.poll(), unknown.wait()) == (nursery.GONE, nursery.GONE)
