"""The worker's side of a job's process: it listens without waiting, and what it ends is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetcap import keys, limits
from fleetcap.ports import Assignment, Child, Children, ChildReport, Failure, Progress
from fleetcap.sources import SourceRules
from local.samples import make_bam
from tests.test_scrub import SAID, leaked
from worker_image.children import READ_BYTES, ProcessChild, ProcessChildren, _Lines, _Output, started, tended
from worker_image.scratch import Directories

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
    command = [sys.executable, "-c", PREAMBLE + does]
    return tended(started(command), json.dumps({"work": str(work)}), work, Directories(tmp_path))


def report_when(child: Child, holds: Callable[[ChildReport], bool], seconds: float = 60.0) -> ChildReport:
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


@pytest.mark.cloud
def test_a_workers_settings_reach_its_jobs(at_the_emulator: None, s3: S3Client, tmp_path: Path) -> None:
    assert at_the_emulator is None
    s3.put_object(Bucket="sources", Key="large.bam", Body=b"x" * 1_000_000)
    closed = "127.0.0.1:9"
    children = ProcessChildren(
        cache_bucket="cache",
        base_dir=tmp_path,
        source_hosts=["127.0.0.1", closed],
        source_rules=SourceRules(private_hosts=[closed]),
        pool="small",
        disk_gib=0,
        keep_failed_dirs=1,
    )

    def failure(source: str) -> Failure | None:
        return at_the_end(
            children.start(Assignment("id", f"ns/{source[-9:]}/md5/v1", 1, source, "bam", "", {}))
        ).failure

    no_disk = "input: the source needs 0 GiB of disk (3 × its 0 GiB), pool small has 0 GiB"
    assert failure("s3://sources/large.bam") == Failure(no_disk, permanent=True)
    unnamed = "input: the host 127.0.0.1 is an address, which private_source_hosts does not name"
    assert failure("https://127.0.0.1/a.bam") == Failure(unnamed, permanent=True)
    out_of_reach = f"internal: the download from {closed} broke off (NewConnectionError)"
    assert failure(f"https://{closed}/a.bam") == Failure(out_of_reach, permanent=False)
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["failed"]


def test_a_report_never_waits(tmp_path: Path) -> None:
    child = child_that(tmp_path, "time.sleep(60)")
    took = []
    for _ in range(100):
        began = time.monotonic()
        assert child.report() == ChildReport()
        took.append(time.monotonic() - began)
    assert sorted(took)[50] < 0.01  # most of them: a busy machine may hold up some
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


def test_a_kill_ends_the_whole_group_even_where_it_ignores_the_first_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHILD_TERM_S", 1.0)
    child = child_that(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY + "time.sleep(60)")
    grandchild = grandchild_of(child)
    began = time.monotonic()
    child.kill()
    assert limits.CHILD_TERM_S <= time.monotonic() - began < 45  # it would have slept for longer
    assert not alive(grandchild)
    assert child.report().exit_code == -9
    assert child.report().failure == Failure("internal: the job's process was stopped by its worker", permanent=False)
    assert not (tmp_path / "work").exists()


def test_a_child_that_obeys_is_gone_at_once_and_its_stubborn_grandchild_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHILD_TERM_S", 50)  # nobody waits for it, so it may be long
    child = child_that(tmp_path, FAMILY + "time.sleep(60)")
    grandchild = grandchild_of(child)
    began = time.monotonic()
    child.kill()
    child.kill()
    assert time.monotonic() - began < 25
    assert not alive(grandchild)
    assert child.report().exit_code == -15


def test_what_an_ended_child_left_running_is_ended_with_its_report(tmp_path: Path) -> None:
    child = child_that(tmp_path, FAMILY + "say(event='done'); os._exit(0)")
    grandchild = grandchild_of(child)
    assert at_the_end(child).failure is None
    deadline = time.monotonic() + 30
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
    os.waitid(os.P_PID, child._process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked for it yet
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


# --- what a job's tools say


def everything_said(child: Child) -> list[str]:
    said: list[str] = []

    def ended(report: ChildReport) -> bool:
        said.extend(report.lines)
        return report.exit_code is not None

    report_when(child, ended)
    assert child.report().lines == ()
    return said


def test_what_the_tools_say_is_passed_on_line_by_line_and_the_last_one_without_its_end(tmp_path: Path) -> None:
    child = child_that(
        tmp_path,
        "sys.stderr.write('one\\ntwo '); sys.stderr.flush(); time.sleep(0.3)\n"
        "sys.stderr.write('halves\\n\\n10%\\r20%\\r\\x1b[31m30%\\x1b[0m\\nthe last'); say(event='done')",
    )
    assert everything_said(child) == ["one", "two halves", "30%", "the last"]


def test_lines_come_while_the_job_runs(tmp_path: Path) -> None:
    child = child_that(tmp_path, "print('sorting', file=sys.stderr, flush=True); time.sleep(60)")
    report = report_when(child, lambda report: bool(report.lines))
    assert (report.lines, report.exit_code) == (("sorting",), None)
    child.kill()


def test_a_tool_that_never_stops_talking_neither_stalls_nor_fills_the_log(tmp_path: Path) -> None:
    number = 60_000
    child = child_that(
        tmp_path, f"for n in range({number}): print('line', n, file=sys.stderr)\nsay(event='done'); os._exit(0)"
    )
    said = everything_said(child)
    told = [int(line.removeprefix("line ")) for line in said if line.startswith("line ")]
    left_out = [int(line.split()[1]) for line in said if line.startswith("…")]
    assert told == sorted(set(told))
    assert len(told) + sum(left_out) == number
    assert told[-limits.OUTPUT_TAIL_LINES :] == list(range(number - limits.OUTPUT_TAIL_LINES, number))
    assert len(said) <= limits.OUTPUT_LINES + 2 * limits.OUTPUT_TAIL_LINES + len(left_out)


def test_one_report_holds_no_more_than_it_may(tmp_path: Path) -> None:
    child = child_that(
        tmp_path, "for n in range(1000): print('line', n, file=sys.stderr)\nsys.stderr.flush(); time.sleep(60)"
    )
    at_most = limits.OUTPUT_LINES_AT_ONCE + limits.OUTPUT_TAIL_LINES + 1
    sizes: list[int] = []

    def all_heard(report: ChildReport) -> bool:
        sizes.append(len(report.lines))
        return bool(report.lines) and report.lines[-1] == "line 999"

    report_when(child, all_heard)
    assert max(sizes) <= at_most
    child.kill()


def test_a_line_without_an_end_is_cut(tmp_path: Path) -> None:
    child = child_that(tmp_path, "os.write(2, b'x' * 1_000_000); say(event='done'); os._exit(0)")
    (said,) = everything_said(child)
    assert (len(said), said[-1]) == (limits.OUTPUT_LINE_MAX_CHARS, "…")


def test_of_an_attempt_that_says_too_much_the_beginning_and_the_end_are_told() -> None:
    output, said = _Output(), list[str]()
    for number in range(2 * limits.OUTPUT_LINES):
        output.take(b"line %d" % number)
        if number % 50 == 49:
            said += output.lines(ended=False)
    assert said == [f"line {number}" for number in range(limits.OUTPUT_LINES)]
    assert output.lines(ended=False) == ()
    note, *tail = output.lines(ended=True)
    assert note == f"… {limits.OUTPUT_LINES - limits.OUTPUT_TAIL_LINES} more lines left out"
    assert tail == [f"line {2 * limits.OUTPUT_LINES - n}" for n in range(limits.OUTPUT_TAIL_LINES, 0, -1)]
    assert output.lines(ended=True) == ()


def test_a_line_without_an_end_takes_no_more_memory_than_a_long_one() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb", buffering=0) as tool:
        lines = _Lines(pipe)
        for _ in range(100):
            tool.write(b"x" * 50_000)
            assert list(lines.read()) == []
        tool.write(b"the end\n")
        (line,) = lines.read()
        assert len(line) <= 2 * READ_BYTES
        assert line.endswith(b"xthe end")


@pytest.mark.parametrize("text", [text for text, _ in SAID.values()], ids=SAID)
def test_neither_output_nor_progress_nor_error_of_a_job_tells_a_secret(tmp_path: Path, text: str) -> None:
    child = child_that(
        tmp_path,
        f"text = {text!r}\nprint(text, file=sys.stderr, flush=True)\nprint(text)\n"
        "say(event='progress', stage='sort', fraction=0.5, message=text)\n"
        "say(event='failed', error='internal: ' + text, permanent=False); time.sleep(0.2); sys.exit(1)",
    )
    reports: list[ChildReport] = []

    def ended(report: ChildReport) -> bool:
        reports.append(report)
        return report.exit_code is not None

    report_when(child, ended)
    assert sum(len(report.lines) for report in reports) == 2
    assert reports[-1].failure is not None
    assert leaked(repr(reports)) == []


def test_the_traceback_of_a_real_child_is_heard_without_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {"name": "ghost", "version": 1, "suffixes": [], "kinds": ["x"], "params": []}
    monkeypatch.setenv(keys.ENV_PROCESSORS, json.dumps([declared]))
    children = ProcessChildren(cache_bucket="cache", base_dir=tmp_path / "base")
    child = children.start(Assignment("id", "ns/a/md5/v1", 1, "s3://sources/a.bam", "ghost", "", {}))
    said = everything_said(child)
    assert said[0] == "Traceback (most recent call last):"
    assert "ghost" in said[-1]
    assert str(Path(__file__).parents[2]) not in "".join(said)


def test_bad_input_leaves_no_traceback_in_the_log(tmp_path: Path) -> None:
    children = ProcessChildren(cache_bucket="cache", base_dir=tmp_path / "base")
    child = children.start(Assignment("id", "ns/a/md5/v1", 1, "s3://sources/a.bam", "none", "", {}))
    assert everything_said(child) == []
    failure = child.report().failure
    assert failure
    assert failure.error == "input: this worker has no processor named 'none'"


# --- directories


def test_a_killed_workers_leftovers_are_gone_when_the_next_one_starts(tmp_path: Path) -> None:
    leave = (
        "import sys, os, pathlib; from worker_image.scratch import Directories\n"
        f"work = Directories(pathlib.Path({str(tmp_path)!r})).make(1); (work / 'source').write_bytes(b'x')\n"
        "print(work, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", leave], capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert (killed.returncode, left.parent) == (-9, tmp_path)
    assert (left / "source").exists()
    (tmp_path / "not-ours").mkdir()
    ProcessChildren(cache_bucket="cache", base_dir=tmp_path).settle()
    assert [path.name for path in tmp_path.iterdir()] == ["not-ours"]


def test_directories_in_which_somebody_lives_are_left_alone(tmp_path: Path) -> None:
    living = Directories(tmp_path)
    work = living.make(1)
    newcomer = Directories(tmp_path)
    assert newcomer.make(1) != work
    assert work.exists()


def test_failed_directories_are_kept_on_request_and_only_so_many(tmp_path: Path) -> None:
    directories = Directories(tmp_path, keep_failed=2)
    command = [sys.executable, "-c", PREAMBLE + "open(task['work'] + '/clue', 'w').write(task['clue']); sys.exit(3)"]
    for clue in "abc":
        work = directories.make(1)
        task = json.dumps({"work": str(work), "clue": clue})
        assert at_the_end(tended(started(command), task, work, directories)).failure
    assert sorted((path / "clue").read_text() for path in tmp_path.iterdir()) == ["b", "c"]
    done = directories.make(2)
    say_done = [sys.executable, "-c", PREAMBLE + "say(event='done')"]
    assert at_the_end(tended(started(say_done), "{}", done, directories)).failure is None
    assert not done.exists()
    assert len(list(tmp_path.iterdir())) == 2
