"""The processors on real files, good and bad, with the real samtools inside."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pysam
import pytest

from fleetcap import catalog
from local.samples import make_bam
from worker_image.processors import REGISTRY, SOURCE, InputError

READS = 3_000
HEADER = "@HD\tVN:1.6\tSO:{order}\n@SQ\tSN:chr1\tLN:100000\n@SQ\tSN:chr2\tLN:100000\n"


@pytest.fixture
def unsorted(tmp_path: Path) -> Path:
    path = tmp_path / "unsorted.bam"
    make_bam(path, READS, seed=5)
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def process(name: str, source: Path, work: Path) -> list[str]:
    """Make one artifact after the other, each as `work/<kind>`; returns the stages in order."""
    processor = REGISTRY[name](work, sort_memory_mb=16)
    here, names = {SOURCE: source}, []
    for kind, origin in processor.made_from.items():
        here[kind] = work / kind
        stages = list(processor.make(kind, here[origin], here[kind]))
        fractions = [stage.fraction for stage in stages]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1
        names += [stage.name for stage in stages]
    return names


def places(path: Path) -> list[tuple[int, int]]:
    with pysam.AlignmentFile(str(path), check_sq=False) as alignments:
        return [(read.reference_id, read.reference_start) for read in alignments.fetch(until_eof=True)]


def assert_sorted_and_indexed(work: Path, reads: int) -> None:
    bam = work / "sorted.bam"
    found = places(bam)
    assert len(found) == reads
    assert found == sorted(found)
    with pysam.AlignmentFile(str(bam), index_filename=f"{bam}.bai") as alignments:
        assert alignments.has_index()
        assert sum(alignments.count(name) for name in alignments.references) == reads


def bam_of(path: Path, order: str, reads: list[tuple[str, int]]) -> Path:
    """A BAM with these reads in exactly this order, whatever its header claims."""
    lines = [f"r{n}\t0\t{chrom}\t{at}\t60\t4M\t*\t0\t0\tACGT\tFFFF\n" for n, (chrom, at) in enumerate(reads)]
    text = path.with_suffix(".txt")
    text.write_text(HEADER.format(order=order) + "".join(lines))
    pysam.view("--no-PG", "-b", "-o", str(path), str(text), catch_stdout=False)
    return path


def refused(name: str, source: Path, work: Path) -> str:
    with pytest.raises(InputError) as caught:
        process(name, source, work)
    sentence = str(caught.value)
    assert sentence.startswith("input: ")
    assert str(source.parent) not in sentence
    return sentence


def test_registry_and_catalog_name_the_same_processors_and_artifacts() -> None:
    in_the_catalog = {processor.name: processor.kinds for processor in catalog.BUILT_IN}
    assert {name: tuple(processor.made_from) for name, processor in REGISTRY.items()} == in_the_catalog
    assert all(processor.name == name for name, processor in REGISTRY.items())


@pytest.mark.parametrize("name", REGISTRY)
def test_every_artifact_is_made_from_the_source_or_an_earlier_one(name: str) -> None:
    made_from = REGISTRY[name].made_from
    assert all(origin in [SOURCE, *made_from][: at + 1] for at, origin in enumerate(made_from.values()))


def test_an_unsorted_bam_is_sorted_and_indexed(unsorted: Path, work: Path) -> None:
    assert process("bam", unsorted, work) == ["verify", "sort", "verify", "index", "verify"]
    assert_sorted_and_indexed(work, READS)


def test_equal_inputs_give_equal_bytes_in_every_directory(unsorted: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "a-much-longer-name"
    for folder in (one, two):
        folder.mkdir()
        process("bam", unsorted, folder)
    assert (one / "sorted.bam").read_bytes() == (two / "sorted.bam").read_bytes()


@pytest.mark.parametrize("order", ["coordinate", "unknown"])
def test_a_sorted_bam_is_taken_as_it_is(tmp_path: Path, work: Path, order: str) -> None:
    source = bam_of(tmp_path / "in.bam", order, [("chr1", 10), ("chr1", 20), ("chr2", 5)])
    before = source.read_bytes()
    assert process("bam", source, work) == ["verify", "index", "index", "verify"]
    assert (work / "sorted.bam").read_bytes() == before
    assert_sorted_and_indexed(work, 3)


def test_a_sorted_bam_whose_header_denies_it_gets_an_honest_header(tmp_path: Path, work: Path) -> None:
    source = bam_of(tmp_path / "in.bam", "queryname", [("chr1", 10), ("chr1", 20)])
    assert "sort" in process("bam", source, work)
    with pysam.AlignmentFile(str(work / "sorted.bam")) as alignments:
        assert alignments.header.to_dict()["HD"]["SO"] == "coordinate"


def test_a_false_label_is_seen_in_the_first_records(tmp_path: Path, work: Path) -> None:
    source = bam_of(tmp_path / "in.bam", "coordinate", [("chr1", 20), ("chr1", 10)])
    assert "sort" in process("bam", source, work)
    assert_sorted_and_indexed(work, 2)


def test_a_false_label_that_only_the_index_finds_leads_to_a_sort(tmp_path: Path, work: Path) -> None:
    reads = [("chr1", at) for at in range(1, 2_001)] + [("chr1", 5)]
    source = bam_of(tmp_path / "in.bam", "coordinate", reads)
    assert process("bam", source, work) == ["verify", "index", "sort", "verify", "index", "verify"]
    assert_sorted_and_indexed(work, 2_001)


def test_references_out_of_the_headers_order_lead_to_a_sort(tmp_path: Path, work: Path) -> None:
    reads = [("chr2", at) for at in range(1, 2_001)] + [("chr1", 5)]
    source = bam_of(tmp_path / "in.bam", "coordinate", reads)
    assert "sort" in process("bam", source, work)
    assert_sorted_and_indexed(work, 2_001)


def test_sam_text_becomes_a_sorted_bam(unsorted: Path, tmp_path: Path, work: Path) -> None:
    source = tmp_path / "in.sam"
    pysam.view("-h", "-o", str(source), str(unsorted), catch_stdout=False)
    assert "sort" in process("sam", source, work)
    assert_sorted_and_indexed(work, READS)


@pytest.mark.parametrize("order", ["coordinate", "unsorted"])
def test_a_header_without_reads_is_refused(tmp_path: Path, work: Path, order: str) -> None:
    source = bam_of(tmp_path / "in.bam", order, [])
    with pytest.raises(InputError, match="input: the file holds no alignments"):
        process("bam", source, work)


def test_a_sam_header_without_reads_is_refused(tmp_path: Path, work: Path) -> None:
    source = tmp_path / "in.sam"
    source.write_text(HEADER.format(order="unsorted"))
    with pytest.raises(InputError, match="input: the file holds no alignments"):
        process("sam", source, work)


def test_reads_that_were_never_aligned_can_be_sorted_too(tmp_path: Path, work: Path) -> None:
    text, source = tmp_path / "in.txt", tmp_path / "in.bam"
    text.write_text("@HD\tVN:1.6\tSO:unsorted\nr0\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tFFFF\n")
    pysam.view("-b", "-o", str(source), str(text), catch_stdout=False)
    process("bam", source, work)
    assert places(work / "sorted.bam") == [(-1, -1)]


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_bam_is_refused(unsorted: Path, work: Path, share: float) -> None:
    data = unsorted.read_bytes()
    unsorted.write_bytes(data[: int(len(data) * share)])
    refused("bam", unsorted, work)


def test_a_bam_damaged_in_its_middle_is_refused(unsorted: Path, work: Path) -> None:
    data = bytearray(unsorted.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 500] = bytes(500)
    unsorted.write_bytes(data)
    assert "damaged" in refused("bam", unsorted, work)


@pytest.mark.parametrize("name", ["bam", "sam"])
@pytest.mark.parametrize("text", ["just some words\n", "a,b\n1,2\n", "\x00\x01\x02", ">chr1\nACGT\n"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, work: Path, name: str, text: str) -> None:
    source = tmp_path / f"in.{name}"
    source.write_text(text)
    refused(name, source, work)


def test_a_sam_named_bam_and_a_bam_named_sam_are_refused(unsorted: Path, tmp_path: Path, work: Path) -> None:
    text = tmp_path / "text.bam"
    text.write_text(HEADER.format(order="unsorted"))
    assert refused("bam", text, work) == "input: the file is not a BAM file"
    assert refused("sam", unsorted, work) == "input: the file is a BAM file"


def test_a_sam_cut_off_within_a_line_is_refused(tmp_path: Path, work: Path) -> None:
    source = tmp_path / "in.sam"
    source.write_text(HEADER.format(order="unsorted") + "r1\t0\tchr1\t1\t60\t4M\t*\t0")
    assert "damaged" in refused("sam", source, work)


def test_a_failing_disk_is_not_the_inputs_fault(unsorted: Path, work: Path) -> None:
    processor = REGISTRY["bam"](work / "not-there")
    with pytest.raises(Exception, match=re.compile("samtools")) as caught:
        list(processor.make("sorted.bam", unsorted, work / "not-there" / "sorted.bam"))
    assert not isinstance(caught.value, InputError)


LONG = "@SQ\tSN:chr3B\tLN:830829764\n"


@pytest.mark.parametrize(("name", "what"), [("bam", "unsorted"), ("sam", "unsorted")])
def test_a_reference_beyond_the_index_is_refused_before_anything_is_sorted(
    tmp_path: Path, work: Path, name: str, what: str
) -> None:
    read = "r\t0\tchr3B\t700000000\t60\t4M\t*\t0\t0\tACGT\tFFFF\n"
    source = tmp_path / "in.sam"
    source.write_text(f"@HD\tVN:1.6\tSO:{what}\n{LONG}{read}")
    if name == "bam":
        pysam.view("--no-PG", "-b", "-o", str(tmp_path / "in.bam"), str(source), catch_stdout=False)
        source = tmp_path / "in.bam"
    assert "longer than the 536,870,912 bases" in refused(name, source, work)
    assert list(work.iterdir()) == []


def test_a_read_beyond_the_index_is_refused_before_the_bam_is_committed(tmp_path: Path, work: Path) -> None:
    source = tmp_path / "in.sam"
    source.write_text(HEADER.format(order="unsorted") + "r\t0\tchr1\t536870911\t60\t4M\t*\t0\t0\tACGT\tFFFF\n")
    with pytest.raises(InputError, match="ends beyond the 536,870,912 bases"):
        list(REGISTRY["sam"](work).make("sorted.bam", source, work / "sorted.bam"))


@pytest.mark.parametrize("packed", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_sam_with_the_line_ends_of_windows_is_refused(
    tmp_path: Path, work: Path, packed: Callable[[bytes], bytes]
) -> None:
    source = tmp_path / "in.sam"
    source.write_bytes(packed(HEADER.format(order="unsorted").replace("\n", "\r\n").encode()))
    assert "line 1 ends in CRLF" in refused("sam", source, work)


def test_a_compressed_sam_is_taken_and_refused_where_it_is_cut_off_or_compressed_twice(
    unsorted: Path, tmp_path: Path, work: Path
) -> None:
    source = tmp_path / "in.sam"
    packed = gzip.compress(str(pysam.view("-h", str(unsorted))).encode())
    source.write_bytes(packed[: len(packed) // 2])
    assert "truncated" in refused("sam", source, work)
    source.write_bytes(gzip.compress(packed))
    assert "compressed twice" in refused("sam", source, work)
    source.write_bytes(packed)
    process("sam", source, work)
    assert_sorted_and_indexed(work, READS)


def test_an_index_is_made_from_whichever_bam_is_given(unsorted: Path, work: Path) -> None:
    pysam.sort("-l", "1", "-o", str(work / "kept.bam"), str(unsorted), catch_stdout=False)
    stages = list(REGISTRY["bam"](work).make("sorted.bam.bai", work / "kept.bam", work / "kept.bam.bai"))
    assert [stage.name for stage in stages] == ["index", "verify"]
    with pysam.AlignmentFile(str(work / "kept.bam")) as alignments:
        assert sum(alignments.count(name) for name in alignments.references) == READS


def records(path: Path) -> list[str]:
    """Each alignment as SAM text, by the samtools that pysam carries."""
    return str(pysam.view("--no-header", str(path))).splitlines()


def test_a_sort_loses_and_changes_no_record(unsorted: Path, work: Path) -> None:
    before = records(unsorted)
    process("bam", unsorted, work)
    assert sorted(records(work / "sorted.bam")) == sorted(before)


@pytest.mark.skipif(shutil.which("samtools") is None, reason="no stock samtools on PATH to compare with")
def test_a_sorted_bam_is_what_stock_samtools_makes_of_it(unsorted: Path, work: Path) -> None:
    stock = work / "stock.bam"
    subprocess.run(["samtools", "sort", "--no-PG", "-o", stock, unsorted], check=True, capture_output=True)
    process("bam", unsorted, work)
    assert records(work / "sorted.bam") == records(stock)
    region = ["samtools", "view", str(work / "sorted.bam"), "chr2:5000-9000"]
    subprocess.run(["samtools", "index", stock], check=True)
    asked = subprocess.run(["samtools", "view", stock, "chr2:5000-9000"], check=True, capture_output=True).stdout
    assert subprocess.run(region, check=True, capture_output=True).stdout == asked != b""
