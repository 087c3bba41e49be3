"""The sample files are what the processors meet in life: unsorted, distinct, repeatable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pysam
import pytest

from local.samples import make_bam


def places(path: Path) -> list[tuple[int, int]]:
    with pysam.AlignmentFile(str(path)) as alignments:
        return [(read.reference_id, read.reference_start) for read in alignments]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.bam"
    make_bam(path, reads=3_000, seed=1)
    return path


def test_a_sample_has_its_reads_on_several_references_in_no_order(sample: Path) -> None:
    found = places(sample)
    assert len(found) == 3_000
    assert len({reference for reference, _ in found}) == 4
    assert found != sorted(found)
    pysam.quickcheck(str(sample))


def test_every_read_has_a_hundred_bases_with_qualities_and_its_right_bin(sample: Path) -> None:
    with pysam.AlignmentFile(str(sample)) as alignments:
        for read in alignments:
            assert read.query_sequence is not None
            assert set(read.query_sequence) <= set("ACGT")
            assert len(read.query_sequence) == len(read.query_qualities or ()) == 100
            assert read.cigarstring == "100M"
            claimed = read.bin
            read.reference_start = read.reference_start
            assert read.bin == claimed


def test_the_same_seed_gives_the_same_records_and_another_seed_others(sample: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.bam", tmp_path / "other.bam"
    make_bam(again, reads=3_000, seed=1)
    make_bam(other, reads=3_000, seed=2)
    assert again.read_bytes() == sample.read_bytes()
    assert places(other) != places(sample)


def test_many_are_made_without_a_word(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local.samples", str(tmp_path / "many"), "3", "500"]
    result = subprocess.run(command, capture_output=True, check=True)
    assert result.stdout + result.stderr == b""
    made = sorted((tmp_path / "many").iterdir())
    assert [path.name for path in made] == ["sample-0001.bam", "sample-0002.bam", "sample-0003.bam"]
    assert len({path.read_bytes() for path in made}) == 3
