"""Unsorted BAM files for the demo, the benchmarks and the tests: distinct for each seed, quick to make.

The records are packed and compressed here, because going through SAM text takes twice as long, and a burst of dozens
of files should cost the demo seconds. Deflate's run-length strategy halves the time again for a few more bytes.
"""

from __future__ import annotations

import multiprocessing
import random
import struct
import sys
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

READ_BASES: Final = 100
REFERENCES: Final = ("chr1", "chr2", "chr3", "chr4")
REFERENCE_BASES: Final = 100_000
QUALITY_POOL: Final = 50_000
SHARED_CIGAR: Final = READ_BASES << 4
MAPPING_QUALITY: Final = 60
FIRST_16_KB_BIN: Final = 4_681
"""BAM numbers its smallest bins, 16,384 bases each, from here on; all references here are that small."""

BLOCK_BYTES: Final = 65_000
BGZF_HEADER: Final = bytes.fromhex("1f8b08040000000000ff060042430200")
BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

# size, reference, position, name length, mapping quality, bin, cigar operations, flag, bases, mate ×3, name, cigar
RECORD: Final = struct.Struct("<iiiBBHHHiiii9sI")
RECORD_BYTES: Final = RECORD.size + READ_BASES // 2 + READ_BASES
PACKED_BASES: Final = bytes((1 << (pair & 3)) << 4 | 1 << (pair >> 2 & 3) for pair in range(256))
"""Any byte → two bases as BAM packs them, four bits each: A 1, C 2, G 4, T 8."""


def make_bam(path: Path | str, reads: int = 100_000, seed: int = 0) -> None:
    """Write `reads` aligned reads in shuffled order; the same seed gives the same records."""
    chance = random.Random(seed)  # noqa: S311 (samples, not secrets)
    raw = b"".join((_header(), *_records(chance, reads)))
    with Path(path).open("wb") as out:
        for start in range(0, len(raw), BLOCK_BYTES):
            out.write(_block(raw[start : start + BLOCK_BYTES]))
        out.write(BGZF_END)


def _header() -> bytes:
    lines = ["@HD\tVN:1.6\tSO:unsorted", *(f"@SQ\tSN:{name}\tLN:{REFERENCE_BASES}" for name in REFERENCES)]
    text = "".join(f"{line}\n" for line in lines).encode()
    references = b"".join(
        struct.pack("<i", len(name) + 1) + name.encode() + b"\0" + struct.pack("<i", REFERENCE_BASES)
        for name in REFERENCES
    )
    return struct.pack("<4si", b"BAM\1", len(text)) + text + struct.pack("<i", len(REFERENCES)) + references


def _records(chance: random.Random, reads: int) -> Iterator[bytes]:
    genome = chance.randbytes(len(REFERENCES) * REFERENCE_BASES // 2).translate(PACKED_BASES)
    qualities = bytes(chance.choices((37, 25, 11, 2), weights=(990, 7, 2, 1), k=QUALITY_POOL))
    draws = array("Q", chance.randbytes(8 * reads))
    pack, half = RECORD.pack, READ_BASES // 2
    pairs = (REFERENCE_BASES - READ_BASES) // 2
    for number, draw in enumerate(draws):
        # One 64-bit draw a read: reference, strand, place and qualities come from different bits of it.
        reference, reverse, pair = draw & 3, draw >> 2 & 1, (draw >> 3) % pairs
        bases = reference * (REFERENCE_BASES // 2) + pair
        quality = (draw >> 40) % (QUALITY_POOL - READ_BASES)
        # fmt: off
        yield pack(
            RECORD_BYTES - 4, reference, 2 * pair, 9, MAPPING_QUALITY, _bin(2 * pair), 1, reverse << 4, READ_BASES,
            -1, -1, 0, b"%08x\0" % number, SHARED_CIGAR,
        ) + genome[bases : bases + half] + qualities[quality : quality + READ_BASES]
        # fmt: on


def _bin(position: int) -> int:
    """The smallest bin that holds the whole read; one that crosses a 16 KB border lies in its 128 KB parent."""
    first, last = position >> 14, (position + READ_BASES - 1) >> 14
    return FIRST_16_KB_BIN + first if first == last else 585 + (position >> 17)


def _block(raw: bytes) -> bytes:
    """One BGZF block: a gzip member that says its own size."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    packed = deflate.compress(raw) + deflate.flush()
    size = len(BGZF_HEADER) + 2 + len(packed) + 8
    return BGZF_HEADER + struct.pack("<H", size - 1) + packed + struct.pack("<II", zlib.crc32(raw), len(raw))


def make_many(folder: Path, count: int, reads: int) -> list[Path]:
    """Write `sample-0001.bam` and so on, one seed each, on every core."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"sample-{number:04}.bam" for number in range(1, count + 1)]
    work = [(path, reads, number) for number, path in enumerate(paths, start=1)]
    # Not forked: the caller may run threads, and forking those is how processes hang.
    with multiprocessing.get_context("spawn").Pool() as pool:
        pool.starmap(make_bam, work, chunksize=1)
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 4:  # noqa: PLR2004
        sys.exit("usage: python -m local.samples DIR COUNT READS")
    make_many(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
