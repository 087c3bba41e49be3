"""What the demo calls trouble: it must fail on each, or its success would mean nothing."""

from __future__ import annotations

from pathlib import Path

import pysam
import pytest

from cli.demo import find_trouble
from fleetcap.model import Job, JobStatus, Request
from local.results import Verified, verify
from local.samples import make_bam

GOOD: dict[str, object] = {"completed": 1, "overshoot": 0, "cap": 2, "peak_live_tasks": 2}


def job(status: JobStatus) -> Job:
    return Job("demo/a", 1, status, "default", 5, Request("s3://b/a.bam", "bam"), error="input: broken")


def test_a_good_burst_is_no_trouble() -> None:
    assert find_trouble(GOOD, [job(JobStatus.COMPLETED)], [Verified("demo/a", 9, "")]) == []


@pytest.mark.parametrize(
    ("summary", "status", "verified", "expected"),
    [
        ({**GOOD, "completed": 0}, JobStatus.FAILED, [], "demo/a: failed: input: broken"),
        (GOOD, JobStatus.COMPLETED, [], "0 of 1 results were verified"),
        (GOOD, JobStatus.COMPLETED, [Verified("demo/a", 8, "demo/a: 8 of 9 reads")], "demo/a: 8 of 9 reads"),
        ({**GOOD, "overshoot": 1, "peak_live_tasks": 3}, JobStatus.COMPLETED, [Verified("demo/a", 9, "")],
         "the cap of 2 was exceeded: 3 tasks lived at once"),
        ({**GOOD, "peak_live_tasks": 0}, JobStatus.COMPLETED, [Verified("demo/a", 9, "")],
         "jobs completed, but the Fargate's meter saw no task: its figures cannot be trusted"),
    ],
)  # fmt: skip
def test_whatever_must_not_be_is_said(
    summary: dict[str, object], status: JobStatus, verified: list[Verified], expected: str
) -> None:
    assert find_trouble(summary, [job(status)], verified) == [expected]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An unsorted input and its sorted, indexed result."""
    source, result = tmp_path / "a.bam", tmp_path / "a.sorted.bam"
    make_bam(source, reads=300, seed=1)
    pysam.sort("-o", str(result), str(source))
    pysam.index(str(result))
    return source, result


def test_a_true_result_is_verified(files: tuple[Path, Path]) -> None:
    assert verify("a", *files) == Verified("a", 300, "")


def test_a_truncated_result_is_not(files: tuple[Path, Path]) -> None:
    source, result = files
    result.write_bytes(result.read_bytes()[:-40])
    assert verify("a", source, result).trouble


def test_an_unsorted_result_is_not(files: tuple[Path, Path]) -> None:
    source, _ = files
    assert "order" in verify("a", source, source).trouble or "cannot be read" in verify("a", source, source).trouble


def test_a_result_of_another_input_is_not(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "b.bam"
    make_bam(other, reads=299, seed=2)
    assert "300 of 299 reads" in verify("a", other, files[1]).trouble


def test_a_result_without_its_index_is_not(files: tuple[Path, Path]) -> None:
    files[1].with_name("a.sorted.bam.bai").unlink()
    assert verify("a", *files).trouble
