"""BAM and SAM → a coordinate-sorted BAM and its BAI, by the samtools that pysam carries.

What a header says about its order is a claim, so it only ever earns a file the *attempt* to be indexed as it is.
The proof is the index: samtools refuses to index records out of order within a reference, and references out of the
header's order show in the index itself. Whatever fails that proof is sorted.

A header without a single read is refused like a file without bytes: somebody's filter or transfer left nothing, and a
result of nothing would be kept as the answer.
"""

from __future__ import annotations

import shutil
import struct
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar, Final

import pysam
from pysam.utils import SamtoolsError

from worker_image.errors import TransientError, shortage
from worker_image.processors.base import SOURCE, InputError, Processor, Stage
from worker_image.processors.lines import Lines

SAMPLE_RECORDS: Final = 1_000
BAI_REFERENCE_MAX_BASES: Final = 2**29
BAI_SUMMARY_BIN: Final = 37_450
"""The pseudo-bin in which samtools notes where a reference's records begin and end."""

SORTED, INDEX = "sorted.bam", "sorted.bam.bai"
PROOF: Final = "proof.bai"
"""The index that showed a BAM to be in order, beside that BAM."""


class _Alignment(Processor):
    made_from: ClassVar = {SORTED: SOURCE, INDEX: SORTED}

    def make(self, kind: str, given: Path, target: Path) -> Iterator[Stage]:
        return self._sorted(given, target) if kind == SORTED else self._indexed(given, target)

    def _sorted(self, source: Path, target: Path) -> Iterator[Stage]:
        """Take the file as it is where that can be proven to do; else sort it, and read the result to its end."""
        yield Stage("verify", 0.0, "checking the file")
        if self.looks_sorted(source):
            yield Stage("index", 0.1, "already in coordinate order")
            if _proves_sorted(source, target.with_name(PROOF)):
                shutil.move(source, target)
                return
        _refuse_long_references(source)
        yield Stage("sort", 0.1, "sorting by coordinate")
        self._sort(source, target)
        yield Stage("verify", 0.9, "reading the sorted file")
        self._verify(target)

    @abstractmethod
    def looks_sorted(self, source: Path) -> bool:
        """Whether to try the file as it is. Raises InputError where it can be seen not to be one of this processor."""

    def _indexed(self, bam: Path, target: Path) -> Iterator[Stage]:
        yield Stage("index", 0.0)
        if (proof := bam.with_name(PROOF)).exists():
            shutil.move(proof, target)
        else:
            _index(bam, target)
        yield Stage("verify", 0.9)
        with pysam.AlignmentFile(str(bam), index_filename=str(target), check_sq=False) as alignments:
            alignments.check_index()

    def _sort(self, source: Path, target: Path) -> None:
        # Without --no-PG the header would name this attempt's directory, and equal jobs would differ in their bytes.
        arguments = ["-m", f"{self.sort_memory_mb}M", "-@", str(self.sort_threads), "-T", str(self.work / "sort")]
        try:
            pysam.sort("--no-PG", *arguments, "-O", "bam", "-o", str(target), str(source), catch_stdout=False)
        except SamtoolsError as error:
            # Whose fault was it? A file that cannot be read to its end fails every worker; a full disk only this one.
            if not shortage(error) and not _readable(source):
                raise InputError("the file is damaged: its records cannot be read to the end") from None
            raise

    def _verify(self, bam: Path) -> None:
        """Read the result as a whole, and refuse before it is committed what its index could not hold."""
        _quickcheck(bam)
        threads = str(self.sort_threads)
        beyond = pysam.view("-c", "-@", threads, "-e", f"endpos > {BAI_REFERENCE_MAX_BASES}", str(bam))
        if int(str(beyond)):
            raise InputError("an alignment ends beyond the 536,870,912 bases that a BAI index covers")


class Bam(_Alignment):
    """BAM: taken as it is where it proves to be in order, sorted otherwise."""

    name: ClassVar[str] = "bam"

    def looks_sorted(self, source: Path) -> bool:
        with _opened(source) as alignments:
            if not alignments.is_bam:
                raise InputError("the file is not a BAM file")
            try:
                _quickcheck(source)
            except SamtoolsError:
                raise InputError("the BAM file is truncated: its end marker is missing") from None
            # A header that denies the order would mislead the readers of a file that happens to have it.
            denied = alignments.header.to_dict().get("HD", {}).get("SO") in {"unsorted", "queryname"}
            return _sample_in_order(alignments) and not denied


class Sam(_Alignment):
    """SAM text: always converted, so always sorted on the way."""

    name: ClassVar[str] = "sam"

    def looks_sorted(self, source: Path) -> bool:
        if next(iter(Lines(source)), b"").endswith(b"\r\n"):
            raise InputError("line 1 ends in CRLF; SAM text has the line ends of Unix")
        with _opened(source) as alignments:
            if not alignments.is_sam:
                raise InputError("the file is not SAM text")
            _sample_in_order(alignments)
        return False


def _proves_sorted(source: Path, index: Path) -> bool:
    """Whether samtools indexes the file as it is; the index is kept only then."""
    try:
        _index(source, index)
    except SamtoolsError as error:
        if said := shortage(error):
            raise TransientError(f"{said}: the index could not be written") from error
        index.unlink(missing_ok=True)
        return False
    if not _references_in_order(index):
        index.unlink()
        return False
    return True


def _sample_in_order(alignments: pysam.AlignmentFile) -> bool:
    """Whether the first records follow each other. Raises InputError where they cannot be read, or are none."""
    last = (-1, -1)
    try:
        for read in islice(alignments, SAMPLE_RECORDS):
            # Reads without a place follow all the others.
            place = (read.reference_id if read.reference_id >= 0 else len(alignments.references), read.reference_start)
            if place < last:
                return False
            last = place
    except (OSError, ValueError):
        raise InputError("the file is damaged: its first records cannot be read") from None
    if last == (-1, -1):
        raise InputError("the file holds no alignments, only a header if any")
    return True


def _refuse_long_references(source: Path) -> None:
    """The header tells before any work is done; one such reference and no index can be promised."""
    with _opened(source) as alignments:
        if max(alignments.lengths, default=0) > BAI_REFERENCE_MAX_BASES:
            raise InputError("a reference is longer than the 536,870,912 bases that a BAI index covers")


def _opened(source: Path) -> pysam.AlignmentFile:
    try:
        # check_sq off: reads that were never aligned have no references, and can be sorted and indexed all the same.
        return pysam.AlignmentFile(str(source), "r", check_sq=False)
    except (OSError, ValueError):
        raise InputError("the file holds no alignments that samtools can read") from None


def _readable(source: Path) -> bool:
    try:
        with pysam.AlignmentFile(str(source), "r", check_sq=False) as alignments:
            for _ in alignments:
                pass
    except (OSError, ValueError):
        return False
    return True


def _index(bam: Path, index: Path) -> None:
    pysam.index("-b", "-o", str(index), str(bam), catch_stdout=False)


def _quickcheck(bam: Path) -> None:
    """A whole header and an end marker; -u allows a header without references. Raises SamtoolsError."""
    pysam.quickcheck("-u", str(bam), catch_stdout=False)


def _references_in_order(index: Path) -> bool:
    """Whether the references' records follow each other as the header lists them, which samtools does not ask."""
    data = index.read_bytes()
    (references,), at = struct.unpack_from("<i", data, 4), 8
    last_begin = -1
    for _ in range(references):
        (bins,), at = struct.unpack_from("<i", data, at), at + 4
        for _ in range(bins):
            number, chunks = struct.unpack_from("<Ii", data, at)
            if number == BAI_SUMMARY_BIN:
                (begin,) = struct.unpack_from("<Q", data, at + 8)
                if begin < last_begin:
                    return False
                last_begin = begin
            at += 8 + 16 * chunks
        (intervals,) = struct.unpack_from("<i", data, at)
        at += 4 + 8 * intervals
    return True
