"""Sorting an input several times larger than the memory that it may take: it spills, and comes out whole."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pysam
import pytest

from local.samples import make_bam
from worker_image.errors import TransientError
from worker_image.processors import REGISTRY
from worker_image.processors.alignment import Bam
from worker_image.processors.sorting import LineSort, batches

MEMORY_MB = 4
LINE = b"%d\t%030d\n"
TIMES_LARGER = 6


@pytest.fixture
def lines() -> list[bytes]:
    """Distinct lines, six times the memory, in no order of their first column."""
    chance = random.Random(3)  # noqa: S311
    count = TIMES_LARGER * MEMORY_MB * 1024 * 1024 // len(LINE % (500, 0))
    return [LINE % (chance.randint(100, 999), number) for number in range(count)]


def test_lines_beyond_the_memory_are_spilled_and_come_out_in_order(tmp_path: Path, lines: list[bytes]) -> None:
    with LineSort(["1,1n"], tmp_path, MEMORY_MB, threads=1) as sort:
        for batch in batches(lines):
            sort.put(batch)
        assert list(tmp_path.glob("sort*"))
        found = list(sort.sorted())
    assert found == sorted(lines, key=lambda line: line[:3])
    assert list(tmp_path.iterdir()) == []


def test_a_batch_holds_about_a_mebibyte_however_long_the_lines() -> None:
    lines = [b"x" * 1_000_000 + b"\n"] * 5 + [b"y\n"] * 500_000
    found = list(batches(lines))
    assert [line for batch in found for line in batch] == lines
    assert max(sum(map(len, batch)) for batch in found) <= 2_000_002


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak memory of a process that runs")
@pytest.mark.parametrize("threads", [1, 2])
def test_sort_keeps_to_its_memory(tmp_path: Path, lines: list[bytes], threads: int) -> None:
    with LineSort(["1,1n"], tmp_path, MEMORY_MB, threads) as sort:
        for batch in batches(lines):
            sort.put(batch)
        out = sort.sorted()
        assert next(out)
        status = Path(f"/proc/{sort._process.pid}/status").read_text()
        peak_kib = int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]
    assert peak_kib < (MEMORY_MB + 8) * 1024 < TIMES_LARGER * MEMORY_MB * 1024


def test_a_sort_that_is_given_up_leaves_no_process(tmp_path: Path, lines: list[bytes]) -> None:
    with pytest.raises(ValueError, match="enough"), LineSort(["1,1n"], tmp_path, MEMORY_MB, 1) as sort:
        sort.put(lines)
        raise ValueError("enough")
    assert sort._process.poll() is not None


def test_a_sort_that_cannot_spill_says_so(tmp_path: Path, lines: list[bytes]) -> None:
    (tmp_path / "work").mkdir()
    with (
        pytest.raises(TransientError, match=r"^sort ended with exit code 2: sort: .*") as caught,
        LineSort(["1,1n"], tmp_path / "work", MEMORY_MB, 1) as sort,
    ):
        (tmp_path / "work").rmdir()
        for batch in batches(lines):
            sort.put(batch)
        list(sort.sorted())
    assert "No such file" in str(caught.value)


def test_an_alignment_file_beyond_the_memory_is_spilled_and_sorted(tmp_path: Path) -> None:
    make_bam(tmp_path / "in.bam", reads=40_000, seed=1)
    processor = REGISTRY["bam"](tmp_path, sort_memory_mb=2)
    assert isinstance(processor, Bam)
    before = pysam.set_verbosity(3)  # samtools tells what it merges only then
    processor._sort(tmp_path / "in.bam", tmp_path / "sorted.bam")
    pysam.set_verbosity(before)
    merged = re.search(r"merging from (\d+) files", pysam.sort.get_messages())  # type: ignore[no-untyped-call]
    assert merged is not None
    assert int(merged[1]) >= 3
    with pysam.AlignmentFile(str(tmp_path / "sorted.bam")) as alignments:
        places = [(read.reference_id, read.reference_start) for read in alignments]
    assert len(places) == 40_000
    assert places == sorted(places)
    assert list(tmp_path.glob("sort.*")) == []


ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from worker_image.child import _verdict
from worker_image.processors import REGISTRY
from worker_image.processors.alignment import Bam
name, source, disk, memory_mb = sys.argv[1:]
processor = REGISTRY[name](Path(disk), sort_memory_mb=int(memory_mb))
kind = next(iter(processor.made_from))
try:
    list(processor.make(kind, Path(source), Path(disk) / kind))
except Exception as error:
    print(_verdict(error))
"""


def a_disk_can_be_made() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not a_disk_can_be_made(), reason="no disk of 6 MB can be mounted here, to be filled")
@pytest.mark.parametrize(
    ("name", "memory_mb", "said"),
    [("bed", 1, "sort ended with"), ("bed", 64, "the sorted file"), ("bam", 1, "Samtools"), ("bam", 64, "Samtools")],
    ids=["spilling lines", "writing lines", "spilling alignments", "writing alignments"],
)
def test_a_full_disk_is_told_as_one(tmp_path: Path, name: str, memory_mb: int, said: str) -> None:
    source, disk = tmp_path / "in", tmp_path / "disk"
    disk.mkdir()
    if name == "bam":
        make_bam(source, reads=300_000, seed=1)
    else:
        chance = random.Random(5)  # noqa: S311
        rows = ((chance.getrandbits(20), chance.randbytes(20).hex().encode()) for _ in range(300_000))
        source.write_bytes(b"".join(b"chr1\t%d\t9999999\t%b\n" % row for row in rows))
    mounted = 'mount -t tmpfs -o size=6m tmpfs "$3" && exec "$PYTHON" -c "$CODE" "$@"'
    command = ["unshare", "-rm", "sh", "-c", mounted, "sh", name, str(source), str(disk), str(memory_mb)]
    environment = {**os.environ, "PYTHON": sys.executable, "CODE": ON_A_SMALL_DISK}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.stdout.startswith("('internal: disk full: "), result
    assert said in result.stdout
    assert result.stdout.rstrip().endswith(", False)")
