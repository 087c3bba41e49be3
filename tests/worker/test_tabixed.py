"""The text formats on real files, good and bad: what comes out, compared record by record, and what is refused."""

from __future__ import annotations

import gzip
import itertools
import random
import shutil
import subprocess
from pathlib import Path

import pysam
import pytest

from worker_image.processors import REGISTRY, SOURCE, InputError

VCF_HEADER = (
    b"##fileformat=VCFv4.2\n##contig=<ID=chr2,length=9000>\n##contig=<ID=chr10>\n"
    b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tanna\n"
)
HEADERS = {
    "vcf": VCF_HEADER,
    "bed": b'# a comment\nbrowser position chr2:1-9\ntrack name="genes"\n',
    "narrowpeak": b"track type=narrowPeak\n",
    "broadpeak": b"",
    "gff": b"##gff-version 3\n##sequence-region chr2 1 9000\n",
    "gtf": b"#!genome-build x\n",
}
NAMES = (b"chr10", b"chr2", b"scaffold", b"chr1")
RECORDS = 3_000


def record(name: str, number: int, sequence: bytes, start: int) -> bytes:
    """A record of the format, distinct by its number, its spaces and odd bytes to be kept as they are."""
    end = start + number % 90
    tail = {
        "vcf": b"%b\t%d\trs%d\tA\t<DEL>\t.\tPASS\tEND=%d;NOTE=\xfc  x\tGT\t0/1" % (sequence, start, number, end),
        "bed": b"%b\t%d\t%d\tn%d \t0\t+" % (sequence, start, end, number),
        "narrowpeak": b"%b\t%d\t%d\tp%d\t0\t.\t1.5\t-1\t-1\t7" % (sequence, start, end, number),
        "broadpeak": b"%b\t%d\t%d\tp%d\t0\t.\t1.5\t-1\t-1" % (sequence, start, end, number),
        "gff": b"%b\tsrc\texon\t%d\t%d\t.\t+\t.\tID=e%d;Note=\xc3\xa9 e" % (sequence, start, end, number),
        "gtf": b'%b\tsrc\texon\t%d\t%d\t.\t+\t.\tgene_id "g%d"; note "a;b";' % (sequence, start, end, number),
    }
    return tail[name] + b"\n"


FORMATS = tuple(HEADERS)
START_COLUMN = {"gff": 3, "gtf": 3}


def shuffled(name: str, records: int = RECORDS) -> list[bytes]:
    """Records in no order, many of them at the same place."""
    chance = random.Random(7)  # noqa: S311
    return [record(name, number, chance.choice(NAMES), chance.randint(1, 900)) for number in range(records)]


def in_order(name: str, records: list[bytes]) -> list[bytes]:
    """The plain Python sort that everything is compared with."""
    first = (b"chr2", b"chr10") if name == "vcf" else ()

    def place(line: bytes) -> tuple[int, bytes, int]:
        fields = line.split(b"\t")
        sequence = fields[0]
        return (
            first.index(sequence) if sequence in first else len(first),
            b"" if sequence in first else sequence,
            int(fields[START_COLUMN.get(name, 1)]),
        )

    return sorted(records, key=place)


def bgzipped(path: Path, data: bytes) -> None:
    with pysam.BGZFile(str(path), "wb", index=None) as out:
        out.write(data)


def gzipped(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data))


PACKINGS = {"plain": Path.write_bytes, "gzip": gzipped, "bgzip": bgzipped}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def process(name: str, source: Path, work: Path) -> tuple[Path, list[str]]:
    """Make both artifacts; the text's path and the stages."""
    processor = REGISTRY[name](work, sort_memory_mb=16)
    text, index = (work / kind for kind in processor.made_from)
    stages = [*processor.make(text.name, source, text), *processor.make(index.name, text, index)]
    halves = [stage.fraction for stage in stages]
    assert halves[0] == 0
    assert all(0 <= fraction <= 1 for fraction in halves)
    assert sum(later < earlier for earlier, later in itertools.pairwise(halves)) == 1
    return text, list(dict.fromkeys(stage.name for stage in stages))


def made(name: str, data: bytes, work: Path) -> list[bytes]:
    """The lines of the artifact made from these bytes."""
    source = work.parent / "in"
    source.write_bytes(data)
    return gzip.decompress(process(name, source, work)[0].read_bytes()).splitlines(keepends=True)


def refused(name: str, data: bytes, work: Path) -> str:
    """The sentence, after which nothing lies there that could be committed with an index."""
    source = work.parent / "in"
    source.write_bytes(data)
    with pytest.raises(InputError) as caught:
        process(name, source, work)
    sentence = str(caught.value)
    assert sentence.startswith("input: ")
    assert "\n" not in sentence
    assert str(source.parent) not in sentence
    return sentence.removeprefix("input: ")


# --- what comes out


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_records_come_out_in_order_and_byte_for_byte(name: str, packing: str, work: Path) -> None:
    records = shuffled(name)
    PACKINGS[packing](work.parent / "in", HEADERS[name] + b"".join(records))
    text, stages = process(name, work.parent / "in", work)
    assert stages == ["verify", "sort", "index"]
    assert gzip.decompress(text.read_bytes()) == HEADERS[name] + b"".join(in_order(name, records))


@pytest.mark.parametrize("name", FORMATS)
def test_the_index_leads_to_every_record_of_a_region_and_to_no_other(name: str, work: Path) -> None:
    records = shuffled(name)
    (work.parent / "in").write_bytes(HEADERS[name] + b"".join(records))
    text, _ = process(name, work.parent / "in", work)
    column = START_COLUMN.get(name, 1)
    shift = 0 if name in {"bed", "narrowpeak", "broadpeak"} else 1
    with pysam.TabixFile(str(text), index=str(text) + ".tbi", encoding="latin-1") as indexed:
        assert set(indexed.contigs) == {sequence.decode() for sequence in NAMES}
        found = [line.encode("latin-1") + b"\n" for line in indexed.fetch("chr2", 300, 400)]
    wanted = []
    for line in in_order(name, records):
        fields = line.split(b"\t")
        begin = int(fields[column]) - shift
        span = (
            int(fields[2].removeprefix(b"rs")) % 90 if name == "vcf" else int(fields[column + 1]) - int(fields[column])
        )
        end = begin + span + shift
        if fields[0] == b"chr2" and begin < 400 and max(end, begin + 1) > 300:
            wanted.append(line)
    assert found == wanted
    assert len(found) > 50


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.skipif(not all(map(shutil.which, ("bgzip", "tabix"))), reason="no stock bgzip and tabix on PATH")
def test_the_result_is_what_stock_sort_bgzip_and_tabix_make_of_it(name: str, work: Path) -> None:
    records = shuffled(name)
    if name == "vcf":  # the stock recipe goes by name alone
        records = [line for line in records if not line.startswith((b"chr2\t", b"chr10\t"))]
    (work.parent / "in").write_bytes(HEADERS[name] + b"".join(records))
    text, _ = process(name, work.parent / "in", work)
    start = START_COLUMN.get(name, 1) + 1
    keys = ["-s", "-t", "\t", "-k1,1", f"-k{start},{start}n"]
    in_lines = subprocess.run(
        ["sort", *keys], input=b"".join(records), env={"LC_ALL": "C"}, check=True, capture_output=True
    )
    assert (
        subprocess.run(["bgzip", "-dc", text], check=True, capture_output=True).stdout
        == HEADERS[name] + in_lines.stdout
    )
    stock = work / "stock.gz"
    stock.write_bytes(
        subprocess.run(["bgzip", "-c"], input=HEADERS[name] + in_lines.stdout, capture_output=True).stdout
    )
    preset = {"vcf": "vcf", "gff": "gff", "gtf": "gff"}.get(name, "bed")
    headers = ["-S", str(HEADERS[name].count(b"\n"))] if b"track" in HEADERS[name] else []
    subprocess.run(["tabix", "-p", preset, *headers, stock], check=True, capture_output=True)
    for region in ("scaffold", "chr1:100-200"):
        ours, theirs = (subprocess.run(["tabix", of, region], check=True, capture_output=True) for of in (text, stock))
        assert ours.stdout == theirs.stdout != b""


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_in_order_keeps_it_and_is_not_sorted(name: str, work: Path) -> None:
    lines = [record(name, n, b"chr%d" % (9 - n // 100), 5 * (n % 100) + 1) for n in range(500)]
    (work.parent / "in").write_bytes(HEADERS[name] + b"".join(lines))
    text, stages = process(name, work.parent / "in", work)
    assert stages == ["verify", "compress", "index"]
    assert gzip.decompress(text.read_bytes()) == HEADERS[name] + b"".join(lines)


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_equal_inputs_give_equal_bytes_in_every_directory_and_under_every_setting(tmp_path: Path, packing: str) -> None:
    PACKINGS[packing](tmp_path / "in", b"".join(shuffled("bed")))
    results = []
    for folder, memory_mb, threads in (("a", 16, 1), ("another", 1, 2)):
        (tmp_path / folder).mkdir()
        processor = REGISTRY["bed"](tmp_path / folder, {}, memory_mb, threads)
        for kind, origin in processor.made_from.items():
            given = tmp_path / "in" if origin == SOURCE else tmp_path / folder / origin
            list(processor.make(kind, given, tmp_path / folder / kind))
        results.append([(tmp_path / folder / kind).read_bytes() for kind in processor.made_from])
    assert results[0] == results[1]


def test_an_index_is_made_from_whichever_text_is_given(work: Path) -> None:
    bgzipped(work / "kept.bed.gz", HEADERS["bed"] + b"".join(in_order("bed", shuffled("bed"))))
    processor = REGISTRY["bed"](work)
    list(processor.make("sorted.bed.gz.tbi", work / "kept.bed.gz", work / "kept.bed.gz.tbi"))
    with pysam.TabixFile(str(work / "kept.bed.gz")) as indexed:
        assert len(list(indexed.fetch("chr1"))) == sum(line.startswith(b"chr1\t") for line in shuffled("bed"))


def test_headers_and_comments_go_on_top_and_blank_lines_go(work: Path) -> None:
    data = b"track a\nchr2\t5\t6\n\n# in between\nchr1\t5\t6\ntrack b\nchr1\t1\t2\tx"
    assert made("bed", data, work) == [
        b"track a\n",
        b"# in between\n",
        b"track b\n",
        b"chr1\t1\t2\tx\n",
        b"chr1\t5\t6\n",
        b"chr2\t5\t6\n",
    ]


def test_a_sequence_in_two_pieces_is_put_together(work: Path) -> None:
    lines = [b"chr1\t1\t2\n", b"chr2\t1\t2\n", b"chr1\t5\t6\n"]
    assert made("bed", b"".join(lines), work) == sorted(lines)


def test_a_gene_stays_before_its_exons(work: Path) -> None:
    lines = [
        b"c\ts\t%b\t%d\t%d\t.\t+\t.\tID=%d\n" % row
        for row in ((b"z", 90, 99, 0), (b"gene", 5, 80, 1), (b"exon", 5, 9, 2))
    ]
    assert made("gff", b"".join(lines), work) == [lines[1], lines[2], lines[0]]


@pytest.mark.parametrize("begins", [b"##FASTA\n>c\nACGT\n", b">c\nACGT\n"])
def test_the_fasta_part_of_a_gff_is_left_out_and_that_is_said(begins: bytes, work: Path) -> None:
    lines = [b"##gff-version 3\n", b"c\ts\tgene\t5\t80\t.\t+\t.\tID=1\n"]
    assert made("gff", b"".join(lines) + b"###\n" + begins, work) == lines
    stages = list(REGISTRY["gff"](work).make("sorted.gff.gz", work.parent / "in", work / "again.gz"))
    assert "leaving out the FASTA part" in [stage.message for stage in stages]


def test_the_last_base_that_tabix_reaches_is_taken(work: Path) -> None:
    assert len(made("bed", b"chr1\t536870911\t536870912\n", work)) == 1


def test_any_byte_may_stand_in_a_name(work: Path) -> None:
    assert len(made("bed", b"chr\xfc\t1\t2\t\xc3\n", work)) == 1


def test_more_sequences_than_are_followed_are_sorted(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_image.processors.tabixed.SEQUENCES_MAX", 2)
    lines = [b"c%d\t1\t2\n" % n for n in (3, 2, 1)]
    assert made("bed", b"".join(lines), work) == lines[::-1]


# --- what is refused


def vcf(*records: bytes) -> bytes:
    return VCF_HEADER + b"".join(records)


GOOD_VCF = b"chr2\t5\t.\tA\tT\t.\t.\t.\tGT\t0/1\n"
GFF = b"c\ts\tgene\t%b\t%b\t.\t+\t.\tID=1\n"
HUGE = b"9" * 5_000
REFUSED = {
    "no VCF header": ("vcf", GOOD_VCF, "line 1 is no header line, but ##fileformat=VCFv… is missing"),
    "another first line": ("vcf", b"##source=x\n", "line 1 is not ##fileformat=VCFv…"),
    "no line of columns": (
        "vcf",
        b"##fileformat=VCFv4.2\n" + GOOD_VCF,
        "line 2 is no header line, but the line of columns",
    ),
    "a VCF header alone": ("vcf", VCF_HEADER, "the file holds no VCF records"),
    "half a VCF header": ("vcf", b"##fileformat=VCFv4.2\n", "the VCF header is incomplete"),
    "other columns": ("vcf", b"##fileformat=VCFv4.2\n#CHROM\tPOS\n", "line 2 does not name the columns of VCF"),
    "two VCF files": ("vcf", vcf(GOOD_VCF) + VCF_HEADER, "line 6 is a header line after"),
    "a VCF row too short": ("vcf", vcf(GOOD_VCF, b"chr2\t6\t.\tA\n"), "line 6 has 4 columns, but the header names 10"),
    "a VCF row of blanks": ("vcf", vcf(GOOD_VCF.replace(b"\t", b" ")), "line 5 has 1 column, but"),
    "a position in words": ("vcf", vcf(GOOD_VCF.replace(b"5", b"five")), "line 5 has 'five' for its position"),
    "a position below zero": ("vcf", vcf(GOOD_VCF.replace(b"5", b"-5")), "line 5 has '-5' for its position"),
    "a position with underscores": ("vcf", vcf(GOOD_VCF.replace(b"5", b"1_0")), "line 5 has '1_0' for its position"),
    "no VCF sequence": ("vcf", vcf(GOOD_VCF.replace(b"chr2", b"")), "line 5 names no sequence"),
    "a far VCF position": ("vcf", vcf(GOOD_VCF.replace(b"5", b"536870913")), "line 5 reaches beyond the 536,870,912"),
    "a far VCF end": ("vcf", vcf(GOOD_VCF.replace(b".\tGT", b"SVTYPE=DEL;END=600000000\tGT")), "line 5 reaches beyond"),
    "a VCF length only tabix sees": (
        "vcf",
        vcf(GOOD_VCF.replace(b"T\t.\t.\t.", b"<DEL>\t.\t.\tSVLEN=-900000000")),
        "a record",
    ),
    "BED in words": ("bed", b"just some words\n", "line 1 has 1 column; BED has at least 3, parted by tabs"),
    "BED with column names": (
        "bed",
        b"chrom\tstart\tend\n",
        "line 1 has 'start' for its start, which is no",
    ),
    "BED of two columns": ("bed", b"chr1\t5\n", "line 1 has 2 columns; BED has at least 3"),
    "BED cut off": ("bed", b"chr1\t5\t6\tx\nchr1\t7\t8\n", "line 2 has 3 columns, not 4"),
    "BED back to front": ("bed", b"# x\nchr1\t9\t8\n", "line 2 starts at 9, after its end 8"),
    "BED with a broken end": ("bed", b"chr1\t9\t9.5\n", "line 1 has '9.5' for its end"),
    "BED without a sequence": ("bed", b"\t9\t10\n", "line 1 names no sequence"),
    "BED beyond the index": ("bed", b"chr1\t9\t536870913\n", "line 1 reaches beyond the 536,870,912 bases"),
    "BED beyond all numbers": ("bed", b"chr1\t9\t" + HUGE + b"\n", "line 1 reaches beyond the 536,870,912 bases"),
    "BED of comments": ("bed", b"# nothing\ntrack name=x\n", "the file holds no BED records"),
    "BED of blank lines": ("bed", b"\n\n", "the file holds no BED records"),
    "BED with windows line ends": ("bed", b"chr1\t5\t6\r\n", "line 1 ends in CRLF; BED has the line ends of Unix"),
    "BED with one windows line end": ("bed", b"chr1\t5\t6\nchr1\t6\t7\r\n", "line 2 ends in CRLF"),
    "BED in UTF-16": ("bed", "chr1\t5\t6\n".encode("utf-16"), "the file is text in UTF-16"),
    "BED with a byte order mark": ("bed", b"\xef\xbb\xbfchr1\t5\t6\n", "the file begins with a byte order mark"),
    "binary data": ("bed", b"chr1\0\1\2", "the file holds binary data and no text"),
    "narrowPeak of nine": ("narrowpeak", record("broadpeak", 1, b"c", 1), "line 1 has 9 columns, not 10"),
    "broadPeak of ten": ("broadpeak", record("narrowpeak", 1, b"c", 1), "line 1 has 10 columns, not 9"),
    "GFF of BED": ("gff", b"chr1\t5\t6\n", "line 1 has 3 columns, not 9"),
    "GFF from zero": ("gff", GFF % (b"0", b"6"), "line 1 starts at 0; GFF counts from 1"),
    "GFF back to front": ("gff", GFF % (b"7", b"6"), "line 1 starts at 7, after its end 6"),
    "GFF without a start": ("gff", GFF % (b".", b"6"), "line 1 has '.' for its start"),
    "GFF of a header": ("gff", b"##gff-version 3\n", "the file holds no GFF records"),
    "GFF of sequences": ("gff", b">chr1\nACGT\n", "the file holds no GFF records"),
    "GTF that says GFF3": (
        "gtf",
        b"##gff-version 3\n" + GFF % (b"1", b"2"),
        "line 1 says that the file is GFF3",
    ),
    "GTF of sequences": ("gtf", b">chr1\nACGT\n", "line 1 has 1 column, not 9"),
    "bzip2": ("bed", b"BZh91AY&SY", "the file is compressed with bzip2"),
    "a zip archive": ("bed", b"PK\3\4xx", "the file is a zip archive"),
    "gzip of nothing": ("bed", gzip.compress(b""), "the file holds no BED records"),
    "gzip of nothing as VCF": ("vcf", gzip.compress(b""), "the VCF header is incomplete"),
    "gzip in gzip": ("bed", gzip.compress(gzip.compress(b"chr1\t5\t6\n")), "the file is compressed twice"),
    "gzip of words": ("gff", gzip.compress(b"words\n"), "line 1 has 1 column, not 9"),
    "gzip of binary data": ("gff", gzip.compress(b"\0\0"), "the file holds binary data"),
    "half a gzip header": ("bed", gzip.compress(b"chr1\t5\t6\n")[:5], "the gzip data is truncated"),
    "gzip with something behind": ("bed", gzip.compress(b"chr1\t5\t6\n") + b"chr", "the gzip data is damaged"),
}


@pytest.mark.parametrize(("name", "data", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_file_is_refused_with(name: str, data: bytes, sentence: str, work: Path) -> None:
    assert refused(name, data, work).startswith(sentence)


@pytest.mark.parametrize("name", FORMATS)
def test_a_bam_under_another_name_is_refused(name: str, work: Path) -> None:
    with pysam.AlignmentFile(str(work.parent / "x.bam"), "wb", header={"SQ": [{"SN": "c", "LN": 9}]}):
        pass
    assert refused(name, (work.parent / "x.bam").read_bytes(), work) == "the file is a BAM file"


@pytest.mark.parametrize("packing", ["gzip", "bgzip"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_compression_is_refused(packing: str, share: float, work: Path) -> None:
    PACKINGS[packing](work.parent / "whole", b"".join(shuffled("bed", 20_000)))
    data = (work.parent / "whole").read_bytes()
    assert "truncated" in refused("bed", data[: int(len(data) * share)], work)


def test_a_bgzip_file_cut_between_two_blocks_is_refused(work: Path) -> None:
    bgzipped(work.parent / "whole", b"".join(shuffled("bed", 20_000)))
    data = (work.parent / "whole").read_bytes()
    last_but_one = data.rindex(b"\x1f\x8b\x08\x04", 0, len(data) - 28)
    assert refused("bed", data[:last_but_one], work) == "the bgzip data is truncated: its end marker is missing"


@pytest.mark.parametrize("packing", ["gzip", "bgzip"])
def test_damage_in_the_middle_of_compressed_data_is_refused(packing: str, work: Path) -> None:
    PACKINGS[packing](work.parent / "whole", b"".join(shuffled("bed", 20_000)))
    data = bytearray((work.parent / "whole").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    refused("bed", bytes(data), work)


def test_a_file_without_line_ends_does_not_fill_the_memory(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_image.processors.lines.LINE_MAX_BYTES", 1_000)
    assert refused("bed", b"A" * 5_000, work) == "line 1 is longer than 1,000 bytes"


def test_what_is_refused_is_refused_before_anything_is_sorted(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no sort is to be had
    assert "has 3 columns" in refused("bed", b"".join(shuffled("bed")) + b"chr1\t5\t6\n", work)
