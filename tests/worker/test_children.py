"""The worker's side of a job's process: it listens without waiting, and what it ends is gone."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetcap import limits
from fleetcap.ports import Assignment, Child, Children, ChildReport, Failure, Progress
from local.samples import make_bam
from worker_image.children import ProcessChild, ProcessChildren, start_child

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREAMBLE = """
import json, os, signal, subprocess, sys, time
task = json.load(sys.stdin)
def say(**event): print(json.dumps(event), flush=True)
"""


def child_that(tmp_path: Path, does: str) -> ProcessChild:
    """A child that speaks the protocol and does what the test wants."""
    work = tmp_path / "work"
    work.mkdir()
    return start_child([sys.executable, "-c", PREAMBLE + does], json.dumps({"work": str(work)}), work)


def report_when(child: Child, holds: Callable[[ChildReport], bool], seconds: float = 20.0) -> ChildReport:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        report = child.report()
        if holds(report):
            return report
        time.sleep(0.02)
    raise AssertionError("the child did not say it in time")


def at_the_end(child: Child) -> ChildReport:
    return report_when(child, lambda report: report.exit_code is not None)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet reaped does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.cloud
def test_a_real_job_runs_to_its_end_and_leaves_no_directory(
    at_the_emulator: None, s3: S3Client, tmp_path: Path
) -> None:
    assert at_the_emulator is None
    make_bam(tmp_path / "a.bam", reads=1_000)
    s3.upload_file(str(tmp_path / "a.bam"), "sources", "a.bam")
    base = tmp_path / "base"
    children: Children = ProcessChildren(cache_bucket="cache", base_dir=base, cache_prefix="p", sort_memory_mb=16)
    child = children.start(Assignment("id", "ns/a/md5/v1", 1, "s3://sources/a.bam", "bam", "", {}))
    assert len(list(base.iterdir())) == 1
    report = at_the_end(child)
    assert (report.exit_code, report.failure, report.lines) == (0, None, ())
    assert [artifact.kind for artifact in report.artifacts] == ["sorted.bam", "sorted.bam.bai"]
    assert list(base.iterdir()) == []


def test_a_report_never_waits(tmp_path: Path) -> None:
    child = child_that(tmp_path, "time.sleep(60)")
    began = time.monotonic()
    for _ in range(100):
        assert child.report() == ChildReport()
    assert time.monotonic() - began < 1
    child.kill()


def test_progress_is_told_once_and_artifacts_accumulate(tmp_path: Path) -> None:
    child = child_that(
        tmp_path,
        "say(event='progress', stage='sort', fraction=0.5, message='half')\n"
        "for n in '12': say(event='artifact', kind=n, key='k'+n, size_bytes=1, created=True)\n"
        "time.sleep(60)",
    )
    progress: list[Progress] = []

    def both(report: ChildReport) -> bool:
        progress.extend([report.progress] if report.progress else [])
        return len(report.artifacts) == 2

    report_when(child, both)
    assert progress == [Progress("sort", 0.5, "half")]
    assert child.report().progress is None
    assert len(child.report().artifacts) == 2
    child.kill()


def test_a_line_in_pieces_is_put_together_and_noise_is_kept_apart(tmp_path: Path) -> None:
    child = child_that(
        tmp_path,
        'os.write(1, b\'noise\\n{"event": "pro\'); time.sleep(0.3)\n'
        'os.write(1, b\'gress", "stage": "sort", "fraction": 1, "message": ""}\\n\')\n'
        "say(event='done')",
    )
    noise: list[str] = []

    def told(report: ChildReport) -> bool:
        noise.extend(report.lines)
        return report.progress == Progress("sort", 1.0)

    report_when(child, told)
    assert noise == ["noise"]
    assert at_the_end(child).failure is None


def test_a_childs_own_failure_is_passed_on(tmp_path: Path) -> None:
    child = child_that(tmp_path, "say(event='failed', error='input: no', permanent=True); sys.exit(1)")
    assert at_the_end(child).failure == Failure("input: no", permanent=True)


@pytest.mark.parametrize(
    ("does", "sentence"),
    [
        (
            "os.kill(os.getpid(), 9)",
            "internal: out of memory: the job's process was killed (signal 9), most likely for lack of memory",
        ),
        ("os.abort()", "internal: the job's process was ended by signal 6"),
        ("os._exit(3)", "internal: the job's process ended with exit code 3 and without a result"),
        ("os._exit(0)", "internal: the job's process ended with exit code 0 and without a result"),
        (
            "say(event='done'); os._exit(3)",
            "internal: the job's process ended with exit code 3 and without a result",
        ),
    ],
)
def test_a_child_that_ends_without_a_word_has_failed_for_now(tmp_path: Path, does: str, sentence: str) -> None:
    report = at_the_end(child_that(tmp_path, does))
    assert report.failure == Failure(sentence, permanent=False)
    assert report.exit_code is not None


FAMILY = """
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
grandchild = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
grandchild.stdout.readline()
say(event='progress', stage='x', fraction=0, message=str(grandchild.pid))
"""


def grandchild_of(child: Child) -> int:
    progress = report_when(child, lambda report: report.progress is not None).progress
    assert progress is not None
    return int(progress.message)


def test_a_kill_ends_the_whole_group_even_where_it_ignores_the_first_signal(tmp_path: Path) -> None:
    child = child_that(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY + "time.sleep(60)")
    grandchild = grandchild_of(child)
    began = time.monotonic()
    child.kill()
    assert limits.CHILD_TERM_S <= time.monotonic() - began < limits.CHILD_TERM_S + 2
    assert not alive(grandchild)
    assert child.report().exit_code == -9
    assert child.report().failure == Failure("internal: the job's process was stopped by its worker", permanent=False)
    assert not (tmp_path / "work").exists()


def test_a_child_that_obeys_is_gone_at_once_and_its_stubborn_grandchild_with_it(tmp_path: Path) -> None:
    child = child_that(tmp_path, FAMILY + "time.sleep(60)")
    grandchild = grandchild_of(child)
    began = time.monotonic()
    child.kill()
    child.kill()
    assert time.monotonic() - began < 2.5
    assert not alive(grandchild)
    assert child.report().exit_code == -15


def test_what_an_ended_child_left_running_is_ended_with_its_report(tmp_path: Path) -> None:
    child = child_that(tmp_path, FAMILY + "say(event='done'); os._exit(0)")
    grandchild = grandchild_of(child)
    assert at_the_end(child).failure is None
    deadline = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(grandchild)


def test_killing_after_the_end_changes_nothing(tmp_path: Path) -> None:
    child = child_that(tmp_path, "say(event='done')")
    before = at_the_end(child)
    child.kill()
    assert child.report() == before


def test_a_kill_that_meets_a_finished_child_keeps_its_result(tmp_path: Path) -> None:
    child = child_that(tmp_path, "say(event='done'); os._exit(0)")
    time.sleep(1)
    child.kill()
    assert (child.report().exit_code, child.report().failure) == (0, None)


def test_a_child_has_a_group_of_its_own_in_the_workers_session(tmp_path: Path) -> None:
    child = child_that(
        tmp_path, "say(event='progress', stage='x', fraction=0, message=str(os.getpid())); time.sleep(60)"
    )
    pid = grandchild_of(child)
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == os.getsid(0)
    child.kill()
