"""The processors on real files, good and bad, with the real samtools inside."""

from __future__ import annotations

import re
from pathlib import Path

import pysam
import pytest

from fleetcap import catalog
from local.samples import make_bam
from worker_image.processors import REGISTRY
from worker_image.processors.base import InputError

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
    """Run one processor to its end; returns the stages in order."""
    processor = REGISTRY[name](sort_memory_mb=16)
    stages = list(processor.run(source, work))
    fractions = [stage.fraction for stage in stages]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
    return [stage.name for stage in stages]


def places(path: Path) -> list[tuple[int, int]]:
    with pysam.AlignmentFile(str(path), check_sq=False) as alignments:
        return [(read.reference_id, read.reference_start) for read in alignments.fetch(until_eof=True)]


def assert_sorted_and_indexed(work: Path, reads: int) -> None:
    bam = work / "result.sorted.bam"
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


def test_registry_and_catalog_name_the_same_processors() -> None:
    assert set(REGISTRY) == set(catalog.PROCESSORS)
    assert all(processor.name == name for name, processor in REGISTRY.items())


def test_every_processor_leaves_every_artifact_of_its_catalog_entry(unsorted: Path, work: Path) -> None:
    process("bam", unsorted, work)
    processor = REGISTRY["bam"]()
    assert all(processor.path(kind, work).stat().st_size for kind in catalog.PROCESSORS["bam"].kinds)


def test_an_unsorted_bam_is_sorted_and_indexed(unsorted: Path, work: Path) -> None:
    assert process("bam", unsorted, work) == ["verify", "sort", "index", "verify"]
    assert_sorted_and_indexed(work, READS)


def test_equal_inputs_give_equal_bytes_in_every_directory(unsorted: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "a-much-longer-name"
    for folder in (one, two):
        folder.mkdir()
        process("bam", unsorted, folder)
    assert (one / "result.sorted.bam").read_bytes() == (two / "result.sorted.bam").read_bytes()


@pytest.mark.parametrize("order", ["coordinate", "unknown"])
def test_a_sorted_bam_is_taken_as_it_is(tmp_path: Path, work: Path, order: str) -> None:
    source = bam_of(tmp_path / "in.bam", order, [("chr1", 10), ("chr1", 20), ("chr2", 5)])
    before = source.read_bytes()
    assert process("bam", source, work) == ["verify", "index"]
    assert (work / "result.sorted.bam").read_bytes() == before
    assert_sorted_and_indexed(work, 3)


def test_a_sorted_bam_whose_header_denies_it_gets_an_honest_header(tmp_path: Path, work: Path) -> None:
    source = bam_of(tmp_path / "in.bam", "queryname", [("chr1", 10), ("chr1", 20)])
    assert "sort" in process("bam", source, work)
    with pysam.AlignmentFile(str(work / "result.sorted.bam")) as alignments:
        assert alignments.header.to_dict()["HD"]["SO"] == "coordinate"


def test_a_false_label_is_seen_in_the_first_records(tmp_path: Path, work: Path) -> None:
    source = bam_of(tmp_path / "in.bam", "coordinate", [("chr1", 20), ("chr1", 10)])
    assert "sort" in process("bam", source, work)
    assert_sorted_and_indexed(work, 2)


def test_a_false_label_that_only_the_index_finds_leads_to_a_sort(tmp_path: Path, work: Path) -> None:
    reads = [("chr1", at) for at in range(1, 2_001)] + [("chr1", 5)]
    source = bam_of(tmp_path / "in.bam", "coordinate", reads)
    assert process("bam", source, work) == ["verify", "index", "sort", "index", "verify"]
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


def test_a_header_without_reads_is_a_valid_file(tmp_path: Path, work: Path) -> None:
    source = bam_of(tmp_path / "in.bam", "coordinate", [])
    process("bam", source, work)
    assert_sorted_and_indexed(work, 0)


def test_a_sam_header_without_reads_is_a_valid_file(tmp_path: Path, work: Path) -> None:
    source = tmp_path / "in.sam"
    source.write_text(HEADER.format(order="unsorted"))
    process("sam", source, work)
    assert_sorted_and_indexed(work, 0)


def test_reads_that_were_never_aligned_can_be_sorted_too(tmp_path: Path, work: Path) -> None:
    text, source = tmp_path / "in.txt", tmp_path / "in.bam"
    text.write_text("@HD\tVN:1.6\tSO:unsorted\nr0\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tFFFF\n")
    pysam.view("-b", "-o", str(source), str(text), catch_stdout=False)
    process("bam", source, work)
    assert places(work / "result.sorted.bam") == [(-1, -1)]


@pytest.mark.parametrize("name", ["bam", "sam"])
def test_an_empty_file_is_refused(tmp_path: Path, work: Path, name: str) -> None:
    source = tmp_path / "in"
    source.touch()
    assert refused(name, source, work) == "input: the file is empty"


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
    assert refused("sam", unsorted, work) == "input: the file is not SAM text"


def test_a_sam_cut_off_within_a_line_is_refused(tmp_path: Path, work: Path) -> None:
    source = tmp_path / "in.sam"
    source.write_text(HEADER.format(order="unsorted") + "r1\t0\tchr1\t1\t60\t4M\t*\t0")
    assert "damaged" in refused("sam", source, work)


def test_a_failing_disk_is_not_the_inputs_fault(unsorted: Path, work: Path) -> None:
    processor = REGISTRY["bam"]()
    with pytest.raises(Exception, match=re.compile("samtools")) as caught:
        list(processor.run(unsorted, work / "not-there"))
    assert not isinstance(caught.value, InputError)
