"""VCF, BED, peaks, GFF and GTF → sorted, bgzipped, tabix-indexed text.

The file is read twice: once to see that every record is one, and whether they stand in order; then to write them. A
file in order (each sequence in one piece, starts ascending) keeps its order, so most files never meet a sort. The
others are sorted by sequence and start, and records of equal start stay as they stood: a gene before its exons.
Sequences go by name, byte by byte; in VCF those of the `##contig` lines come first, in that order.

Header and comment lines go on top. What says nothing in a sorted file is left out: blank lines, GFF3's `###` (all
before it is complete), and GFF3's FASTA part, which is no features and would end the file for tabix.

A file without records is refused, a whole header or not: somebody's filter or transfer left nothing, and a result of
nothing would be kept as the answer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

import pysam

from worker_image.errors import TransientError
from worker_image.processors.base import SOURCE, InputError, Processor, Stage
from worker_image.processors.lines import Lines, ended
from worker_image.processors.sorting import LineSort, batches

TABIX_MAX_BASES: Final = 2**29
POSITION_MAX_DIGITS: Final = 18
SEQUENCES_MAX: Final = 1_000_000
"""Beyond so many, the order is not followed any further, which would take memory without bound; the file is sorted."""
TELL_EVERY_LINES: Final = 20_000
ROOM_MIN_BYTES: Final = 1024 * 1024
SHOWN_CHARS: Final = 40
PROOF: Final = "proof.tbi"
"""The index that showed a file to be one that tabix takes, beside that file."""
UCSC_HEADERS: Final = (b"#", b"track ", b"browser ", b"track\n", b"browser\n")
VCF_COLUMNS: Final = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"

Place = tuple[bytes, int]
"""A record's sequence and start, as the file counts."""
Made = Generator[Stage, None, int]
"""Stages on the way, and at the end how many records were written."""


class Rules:
    """What a format's lines are: one reading of one file. Columns count from 0; `columns` None: any from `least` on."""

    word: ClassVar[str]
    start: ClassVar[int] = 1
    end: ClassVar[int] = 2
    first_position: ClassVar[int] = 0
    least: ClassVar[int] = 3
    columns: ClassVar[int | None] = None

    def __init__(self) -> None:
        self.ranks: dict[bytes, int] = {}
        self._columns = self.columns

    @staticmethod
    def is_header(line: bytes) -> bool:
        return line.startswith(UCSC_HEADERS)

    @staticmethod
    def is_nothing(line: bytes) -> bool:
        """Whether the line is left out."""
        return line == b"\n"

    @staticmethod
    def ends(line: bytes) -> bool:  # noqa: ARG004
        """Whether the records end here although the file goes on."""
        return False

    def header(self, number: int, line: bytes, records: int) -> None:  # noqa: ARG002
        """Learn from a header line; raises InputError where it cannot stand there."""
        if line.startswith(b"track"):
            self._columns = self.columns  # the next track may have other columns

    def place(self, number: int, line: bytes) -> Place:
        """Where a record lies. Raises InputError, naming the line, for whatever is none."""
        if line.count(b"\t") + 1 == self._columns:
            fields = line.rstrip(b"\n").split(b"\t", self.end + 1)
            name, start_text, end_text = fields[0], fields[self.start], fields[self.end]
            # Most lines of most files, in as few steps as can be; what is wrong with the others is found out below.
            if name and start_text.isdigit() and end_text.isdigit() and len(end_text) <= POSITION_MAX_DIGITS:
                start, end = int(start_text[:POSITION_MAX_DIGITS]), int(end_text)
                if self.first_position <= start <= end <= TABIX_MAX_BASES:
                    return name, start
        return self._looked_at_closely(number, line)

    def _looked_at_closely(self, number: int, line: bytes) -> Place:
        found = line.count(b"\t") + 1
        if found != self._columns:
            self._settle_columns(number, found)
        fields = line.split(b"\t", self.end + 1)
        return self._checked(number, fields[0], fields[self.start], fields[self.end])

    def complete(self, records: int) -> None:
        """The file is read. Raises InputError where something is missing."""
        if not records:
            raise InputError(f"the file holds no {self.word} records")

    def _settle_columns(self, number: int, found: int) -> None:
        """The first record settles how many there are."""
        if self._columns is not None:
            raise InputError(f"line {number} has {_columns(found)}, not {self._columns}")
        if found < self.least:
            raise InputError(
                f"line {number} has {_columns(found)}; {self.word} has at least {self.least}, parted by tabs"
            )
        self._columns = found

    def _checked(self, number: int, name: bytes, start_text: bytes, end_text: bytes) -> Place:
        start = self._position(number, "start", start_text)
        end = self._position(number, "end", end_text)
        if not name:
            raise InputError(f"line {number} names no sequence")
        if start < self.first_position:
            raise InputError(f"line {number} starts at {start}; {self.word} counts from {self.first_position}")
        if start > end:
            raise InputError(f"line {number} starts at {start}, after its end {end}")
        self._within_reach(number, end)
        return name, start

    def _position(self, number: int, what: str, text: bytes) -> int:
        text = text.rstrip(b"\n")
        if not text.isdigit():
            raise InputError(f"line {number} has {_shown(text)} for its {what}, which is no whole number")
        return int(text[:POSITION_MAX_DIGITS])

    @staticmethod
    def _within_reach(number: int, end: int) -> None:
        if end > TABIX_MAX_BASES:
            raise InputError(f"line {number} reaches beyond the 536,870,912 bases that a tabix index covers")


class BedRules(Rules):
    word = "BED"


class NarrowPeakRules(Rules):
    word, columns = "narrowPeak", 10


class BroadPeakRules(Rules):
    word, columns = "broadPeak", 9


class GffRules(Rules):
    word, columns = "GFF", 9
    start, end, first_position = 3, 4, 1

    @staticmethod
    def is_nothing(line: bytes) -> bool:
        return line in {b"\n", b"###\n", b"###"}

    @staticmethod
    def ends(line: bytes) -> bool:
        return line.startswith((b"##FASTA", b">"))


class GtfRules(Rules):
    word, columns = "GTF", 9
    start, end, first_position = 3, 4, 1

    def header(self, number: int, line: bytes, records: int) -> None:
        super().header(number, line, records)
        if line.startswith((b"##gff-version 3", b"##gff-version\t3")):
            raise InputError(f"line {number} says that the file is GFF3, not GTF")


class VcfRules(Rules):
    word, least = "VCF", 8

    @staticmethod
    def is_header(line: bytes) -> bool:
        return line.startswith(b"#")

    def header(self, number: int, line: bytes, records: int) -> None:
        if records or (self._columns is not None):
            raise InputError(f"line {number} is a header line after the one of the columns")
        if number == 1 and not line.startswith(b"##fileformat=VCF"):
            raise InputError("line 1 is not ##fileformat=VCFv…, with which every VCF file begins")
        if line.startswith(b"##contig=<"):
            self.ranks.setdefault(_contig(line), len(self.ranks))
        elif not line.startswith(b"##"):
            if not (line.rstrip(b"\n") + b"\t").startswith(VCF_COLUMNS + b"\t"):
                raise InputError(f"line {number} does not name the columns of VCF, #CHROM to INFO")
            self._columns = line.count(b"\t") + 1

    def place(self, number: int, line: bytes) -> Place:
        if self._columns is None:
            missing = "the line of columns, #CHROM, is" if number > 1 else "##fileformat=VCFv… is"
            raise InputError(f"line {number} is no header line, but {missing} missing")
        if (found := line.count(b"\t") + 1) != self._columns:
            raise InputError(f"line {number} has {_columns(found)}, but the header names {self._columns}")
        name, text, _, bases, rest = line.split(b"\t", 4)
        if not name:
            raise InputError(f"line {number} names no sequence")
        position = self._position(number, "position", text)
        self._within_reach(number, position - 1 + len(bases))
        if b"END=" in rest:
            self._within_reach(number, _info_end(rest))
        return name, position

    def complete(self, records: int) -> None:
        if self._columns is None:
            raise InputError("the VCF header is incomplete: its line of columns, #CHROM, is missing")
        super().complete(records)


class _Survey:
    """The first reading: what the file holds, and whether its records already stand in order."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.records = 0
        self.in_order = True
        self.headers_on_top = True
        self.left_out_fasta = False
        self._seen: set[bytes] = set()
        self._last: Place = (b"", 0)

    def read(self, lines: Lines) -> Iterator[float]:
        """Look at every line; yields how far it is. Raises InputError."""
        rules = self.rules
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\r\n"):
                raise InputError(f"line {number} ends in CRLF; {rules.word} has the line ends of Unix")
            if rules.ends(line):
                self.left_out_fasta = True
                break
            if rules.is_nothing(line):
                continue
            if rules.is_header(line):
                rules.header(number, line, self.records)
                self.headers_on_top = self.headers_on_top and not self.records
            else:
                self._take(rules.place(number, line))
            if not number % TELL_EVERY_LINES:
                yield lines.fraction
        rules.complete(self.records)

    def _take(self, place: Place) -> None:
        self.records += 1
        if self.in_order:
            name, start = self._last
            if place[0] != name:
                self.in_order = place[0] not in self._seen and len(self._seen) < SEQUENCES_MAX
                self._seen.add(place[0])
            else:
                self.in_order = place[1] >= start
            self._last = place


class _Tabixed(Processor):
    rules: ClassVar[type[Rules]]

    def make(self, kind: str, given: Path, target: Path) -> Iterator[Stage]:
        return self._sorted(given, target) if self.made_from[kind] == SOURCE else self._indexed(given, target)

    def _sorted(self, source: Path, target: Path) -> Iterator[Stage]:
        survey = _Survey(self.rules())
        lines = Lines(source)
        yield Stage("verify", 0.0, "checking the file")
        for fraction in survey.read(lines):
            yield Stage("verify", 0.3 * fraction)
        left_out = "leaving out the FASTA part" if survey.left_out_fasta else ""
        with self._writing(target) as write:
            for batch in batches(self._headers(source, survey)):
                write(b"".join(batch))
            if survey.in_order:
                yield Stage("compress", 0.3, left_out or "already in order")
                written = yield from self._copied(source, write)
            else:
                yield Stage("sort", 0.3, left_out or "sorting by sequence and start")
                written = yield from self._in_order(source, survey, write)
        yield Stage("verify", 0.9, "reading the sorted file")
        if written != survey.records or not ended(target):
            raise TransientError(f"{written:,} of {survey.records:,} records were written")
        self._prove(target, target.with_name(PROOF))

    @contextmanager
    def _writing(self, target: Path) -> Iterator[Callable[[bytes], object]]:
        try:
            with pysam.BGZFile(str(target), "wb", index=None) as out:
                yield out.write
        except OSError as error:
            raise TransientError(f"{self._lacking()}the sorted file could not be written ({error})") from error

    def _lacking(self) -> str:
        """htslib says only that it could not write; a disk without room tells why."""
        return "disk full: " if shutil.disk_usage(self.work).free < ROOM_MIN_BYTES else ""

    def _headers(self, source: Path, survey: _Survey) -> Iterator[bytes]:
        rules = self.rules
        for line in _until(Lines(source), rules.ends):
            if rules.is_header(line) and not rules.is_nothing(line):
                yield _whole(line)
            elif survey.headers_on_top and not rules.is_nothing(line):
                return

    def _records(self, lines: Lines) -> Iterator[bytes]:
        rules = self.rules
        for line in _until(lines, rules.ends):
            if not (rules.is_header(line) or rules.is_nothing(line)):
                yield _whole(line)

    def _copied(self, source: Path, write: Callable[[bytes], object]) -> Made:
        lines, written = Lines(source), 0
        for batch in batches(self._records(lines)):
            write(b"".join(batch))
            written += len(batch)
            yield Stage("compress", 0.3 + 0.6 * lines.fraction)
        return written

    def _in_order(self, source: Path, survey: _Survey, write: Callable[[bytes], object]) -> Made:
        """Through sort, each record behind its sequence's rank, which goes again on the way out."""
        ranks, lines, written = survey.rules.ranks, Lines(source), 0
        start = self.rules.start + 2  # sort counts from 1, and the rank stands in front
        with LineSort(["1,1n", "2,2", f"{start},{start}n"], self.work, self._memory_mb, self.sort_threads) as sort:
            for batch in batches(self._records(lines)):
                sort.put([b"%d\t%b" % (ranks.get(line[: line.index(b"\t")], len(ranks)), line) for line in batch])
                yield Stage("sort", 0.3 + 0.3 * lines.fraction)
            for batch in batches(sort.sorted()):
                write(b"".join([line[line.index(b"\t") + 1 :] for line in batch]))
                written += len(batch)
                yield Stage("sort", 0.6 + 0.3 * written / survey.records)
        return written

    @property
    def _memory_mb(self) -> int:
        return self.sort_memory_mb * self.sort_threads

    def _indexed(self, given: Path, target: Path) -> Iterator[Stage]:
        yield Stage("index", 0.0)
        if (proof := given.with_name(PROOF)).exists():
            shutil.move(proof, target)
        else:
            self._prove(given, target)
        yield Stage("verify", 0.9)
        # Not by htslib, which aborts the process where it meets half an index.
        if not ended(target):
            raise TransientError("the index is incomplete")

    def _prove(self, text: Path, index: Path) -> None:
        """Have tabix read the whole file, which is its verification; what tabix writes thereby is the index."""
        try:
            self._tabix(text, index, csi=False)
        except OSError as error:
            if not self._fits_a_larger_index(text):
                raise TransientError(f"{self._lacking()}the index could not be made") from error
            raise InputError("a record reaches beyond the 536,870,912 bases that a tabix index covers") from None

    def _fits_a_larger_index(self, text: Path) -> bool:
        """Whether it was the coordinates: a CSI index has room for those, and fails for all other reasons."""
        try:
            self._tabix(text, self.work / "larger.csi", csi=True)
        except OSError:
            return False
        return True

    def _tabix(self, text: Path, index: Path, csi: bool) -> None:
        headers = _leading(Lines(text), self.rules.is_header)
        unmarked = any(mark != b"#" for mark in headers)
        rules = self.rules
        pysam.tabix_index(
            str(text),
            index=str(index),
            preset="vcf" if rules is VcfRules else None,
            seq_col=0,
            start_col=rules.start,
            end_col=rules.end,
            zerobased=rules.first_position == 0,
            line_skip=len(headers) if unmarked else 0,  # tabix knows no header that begins with `track`
            csi=csi,
            force=True,
            keep_original=True,
        )


def _leading(lines: Lines, holds: Callable[[bytes], bool]) -> list[bytes]:
    found = []
    for line in lines:
        if not holds(line):
            break
        found.append(line[:1])
    return found


class Vcf(_Tabixed):
    """Variants; the header stays as it is."""

    name: ClassVar[str] = "vcf"
    made_from: ClassVar = {"sorted.vcf.gz": SOURCE, "sorted.vcf.gz.tbi": "sorted.vcf.gz"}
    rules = VcfRules


class Bed(_Tabixed):
    """Three columns and more, as many in each record."""

    name: ClassVar[str] = "bed"
    made_from: ClassVar = {"sorted.bed.gz": SOURCE, "sorted.bed.gz.tbi": "sorted.bed.gz"}
    rules = BedRules


class NarrowPeak(_Tabixed):
    """BED6+4."""

    name: ClassVar[str] = "narrowpeak"
    made_from: ClassVar = {"sorted.narrowPeak.gz": SOURCE, "sorted.narrowPeak.gz.tbi": "sorted.narrowPeak.gz"}
    rules = NarrowPeakRules


class BroadPeak(_Tabixed):
    """BED6+3."""

    name: ClassVar[str] = "broadpeak"
    made_from: ClassVar = {"sorted.broadPeak.gz": SOURCE, "sorted.broadPeak.gz.tbi": "sorted.broadPeak.gz"}
    rules = BroadPeakRules


class Gff(_Tabixed):
    """GFF3 and its predecessors."""

    name: ClassVar[str] = "gff"
    made_from: ClassVar = {"sorted.gff.gz": SOURCE, "sorted.gff.gz.tbi": "sorted.gff.gz"}
    rules = GffRules


class Gtf(_Tabixed):
    """GTF stays GTF; docs/decisions/0009 says why."""

    name: ClassVar[str] = "gtf"
    made_from: ClassVar = {"sorted.gtf.gz": SOURCE, "sorted.gtf.gz.tbi": "sorted.gtf.gz"}
    rules = GtfRules


def _until(lines: Iterable[bytes], ends: Callable[[bytes], bool]) -> Iterator[bytes]:
    for line in lines:
        if ends(line):
            return
        yield line


def _whole(line: bytes) -> bytes:
    """A last line may lack its end."""
    return line if line.endswith(b"\n") else line + b"\n"


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _shown(text: bytes) -> str:
    shown = text.decode(errors="replace")
    return repr(shown if len(shown) <= SHOWN_CHARS else shown[:SHOWN_CHARS] + "…")


def _contig(line: bytes) -> bytes:
    """The name in `##contig=<ID=chr1,length=…>`."""
    _, _, rest = line.partition(b"ID=")
    return rest.partition(b",")[0].rstrip(b">\n")


def _info_end(rest: bytes) -> int:
    """INFO's END, from which tabix takes the end of a record; 0 where it has none, or none that is a number."""
    info = rest.split(b"\t", 4)[3]
    for field in info.rstrip(b"\n").split(b";"):
        if field.startswith(b"END=") and field[4:].isdigit():
            return int(field[4:][:POSITION_MAX_DIGITS])
    return 0
