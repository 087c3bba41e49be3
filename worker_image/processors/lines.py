"""A text source line by line, whether plain, gzip or bgzip: its bytes decide, not its name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from worker_image.processors.base import InputError

BUFFER_BYTES: Final = 1024 * 1024
SNIFF_BYTES: Final = 512
LINE_MAX_BYTES: Final = 64 * 1024 * 1024
"""No line of a million samples is longer, and a file without line ends must not fill the memory."""

GZIP: Final = b"\x1f\x8b"
BGZF_FIELD_AT: Final = slice(12, 16)
BGZF_FIELD: Final = b"BC\x02\x00"
BGZF_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

FOREIGN: Final = {
    GZIP: "is compressed twice: there is gzip within gzip",
    b"BAM\1": "is a BAM file",
    b"BCF\2": "is a BCF file",
    b"CRAM": "is a CRAM file",
    b"TBI\1": "is a tabix index",
    b"CSI\1": "is a CSI index",
    b"BZh": "is compressed with bzip2, and only gzip and bgzip are taken",
    b"\xfd7zXZ": "is compressed with xz, and only gzip and bgzip are taken",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd, and only gzip and bgzip are taken",
    b"PK\3\4": "is a zip archive, and only gzip and bgzip are taken",
    b"\xef\xbb\xbf": "begins with a byte order mark",
    b"\xff\xfe": "is text in UTF-16",
    b"\xfe\xff": "is text in UTF-16",
}
"""How files begin that are often taken for text."""


class Lines:
    """Iterate once for every line, ends included. Raises InputError where the file is damaged or no text at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size_bytes = path.stat().st_size
        self._read_bytes = 0

    @property
    def fraction(self) -> float:
        """How much of the file was read, in bytes as they lie on the disk, 0 to 1."""
        return self._read_bytes / self._size_bytes if self._size_bytes else 1.0

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb", buffering=0) as file, closing(_text(file)) as text:
            number = 0
            try:
                _refuse_foreign(text.peek(SNIFF_BYTES)[:SNIFF_BYTES])
                while line := text.readline(LINE_MAX_BYTES):
                    number += 1
                    if len(line) == LINE_MAX_BYTES and not line.endswith(b"\n"):
                        raise InputError(f"line {number} is longer than {LINE_MAX_BYTES:,} bytes")
                    if not number & 0xFFF:
                        self._read_bytes = file.tell()
                    yield line
            except EOFError:
                raise InputError(f"the gzip data is truncated: it breaks off after line {number}") from None
            except (gzip.BadGzipFile, zlib.error):
                raise InputError(f"the gzip data is damaged: it cannot be read after line {number}") from None
        self._read_bytes = self._size_bytes


def ended(path: Path) -> bool:
    """Whether a bgzip file ends as one that was written to its end."""
    with path.open("rb") as file:
        file.seek(-min(len(BGZF_END), file.seek(0, io.SEEK_END)), io.SEEK_END)
        return file.read() == BGZF_END


def _text(file: io.FileIO) -> io.BufferedReader:
    head = file.read(SNIFF_BYTES)
    if head[BGZF_FIELD_AT] == BGZF_FIELD and head.startswith(GZIP) and not ended(Path(file.name)):
        # gzip readers take a bgzip file that lost its last blocks for a whole one; only the marker tells.
        raise InputError("the bgzip data is truncated: its end marker is missing")
    file.seek(0)
    if not head.startswith(GZIP):
        return io.BufferedReader(file, BUFFER_BYTES)
    unpacked = gzip.GzipFile(fileobj=io.BufferedReader(file, BUFFER_BYTES))
    return io.BufferedReader(unpacked, BUFFER_BYTES)


def _refuse_foreign(head: bytes) -> None:
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"the file {what}")
    if b"\0" in head:
        raise InputError("the file holds binary data and no text")
