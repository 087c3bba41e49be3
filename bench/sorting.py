"""What sorting an input larger than its memory costs: peak memory, spill and time, as ratios of one run.

Each run is a process of its own; memory is sampled over it and the `sort` it starts.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psutil
import typer

from local.samples import make_many

MIB = 1024 * 1024
SAMPLE_EVERY_S = 0.02
RECORD = "chr{}\t{}\t{}\tpeak{:09}\t{}\t+\t{:016x}\n"

MAKE = """
import sys
from pathlib import Path
from worker_image.processors import REGISTRY
name, source, work, memory_mb, threads = sys.argv[1:]
processor = REGISTRY[name](Path(work), {}, int(memory_mb), int(threads))
kind = next(iter(processor.made_from))
for _ in processor.make(kind, Path(source), Path(work) / kind):
    pass
"""
IDLE = "import worker_image.processors, time; print(flush=True); time.sleep(60)"


def main(
    memory_mb: Annotated[int, typer.Option(min=1, help="What one thread may hold.")] = 64,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    times: Annotated[int, typer.Option(min=1, help="How many times larger the input is.")] = 8,
) -> None:
    """Sort a BED and a BAM file several times larger than the memory setting."""
    idle_mb = _idle_mb()
    print(f"settings: {memory_mb} MB x {threads} threads; a worker's child that does nothing takes {idle_mb:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("bed", _bed), ("bam", _bam)):
            source = make(Path(folder), times * memory_mb * threads)
            _report(name, source, times, memory_mb, threads, idle_mb)


def _report(name: str, source: Path, times: int, memory_mb: int, threads: int, idle_mb: float) -> None:
    work = source.parent / f"work-{name}"
    work.mkdir()
    began_at = time.monotonic()
    command = [sys.executable, "-c", MAKE, name, str(source), str(work), str(memory_mb), str(threads)]
    process = subprocess.Popen(command)
    peak, spilled = 0.0, 0
    while process.poll() is None:
        peak = max(peak, _memory_mb(process.pid))
        spilled = max(spilled, sum(path.stat().st_size for path in _spills(work)))
        time.sleep(SAMPLE_EVERY_S)
    took_s = time.monotonic() - began_at
    assert process.returncode == 0
    setting = memory_mb * threads
    print(
        f"{name}: input {source.stat().st_size / MIB:.0f} MB on disk, {times} times the setting; {took_s:.1f} s; "
        f"peak {peak:.0f} MB = {(peak - idle_mb) / setting:.2f} of the setting above idle, "
        f"{(peak - idle_mb) / (times * setting):.2f} of the input; spilled {spilled / MIB:.0f} MB"
    )


def _spills(work: Path) -> Iterator[Path]:
    for path in work.iterdir():
        if path.name.startswith("sort") and not path.name.startswith("sorted."):
            yield path


def _idle_mb() -> float:
    with subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = _memory_mb(process.pid)
        process.kill()
    return found


def _memory_mb(pid: int) -> float:
    """What a process and its children hold of their own, without the pages of shared libraries."""
    total = 0
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            held = process.memory_info()
            total += held.rss - getattr(held, "shared", 0)
    except psutil.NoSuchProcess:
        pass
    return total / MIB


def _bed(folder: Path, size_mb: int) -> Path:
    """Records in no order, as many bytes as asked for."""
    chance, path = random.Random(1), folder / "in.bed"
    count = size_mb * MIB // len(RECORD.format(10, 10**8, 10**8, 1, 500, 1))
    with path.open("w") as out:
        for number in range(count):
            start = chance.randrange(10**8, 2 * 10**8)
            out.write(RECORD.format(chance.randrange(10, 32), start, start + 50, number, 500, chance.getrandbits(64)))
    return path


def _bam(folder: Path, size_mb: int) -> Path:
    """Reads in no order; in memory samtools holds each in about 280 bytes."""
    return make_many(folder / "bam", 1, size_mb * MIB // 280)[0]


if __name__ == "__main__":
    typer.run(main)
