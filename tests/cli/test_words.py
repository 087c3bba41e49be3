"""What the commands read and print, without a cloud: arguments, manifests, log lines, tables, documents."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from cli import board, imports, jobs, logs, queues, rejects, submit, watch
from cli.artifacts import byte_range, destination, fetch, not_completed
from cli.target import Failed, Target
from fleetcap import limits
from fleetcap.messages import Message
from fleetcap.model import FailureClass, Job, JobStatus
from tests.examples import NOW, a_job, lapses


def printed(what: RenderableType) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(what)
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


# --- submit


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("threads=4", ("threads", 4)),
        ("ratio=0.5", ("ratio", 0.5)),
        ("fast=true", ("fast", True)),
        ("name=chr1", ("name", "chr1")),
        ("list=[1]", ("list", "[1]")),
        ("query=a=b", ("query", "a=b")),
        ("empty=", ("empty", "")),
    ],
)
def test_a_parameter_is_a_number_or_a_truth_value_where_it_reads_like_one(text: str, read: tuple[str, object]) -> None:
    assert submit.parameter(text) == read


@pytest.mark.parametrize("text", ["", "name", "=value"])
def test_what_is_no_parameter_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
        submit.parameter(text)


def test_messages_are_read_line_by_line_and_a_line_separator_inside_a_string_ends_none(tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text('{"source": "s3://b-1/a\u2028b.bam"}\n\n{"source": "s3://b-1/c.bam"}\n')
    assert [(each.told, each.body["source"][-5:]) for each in submit.ready_made(file)] == [
        ("line 1", "b.bam"),
        ("line 3", "c.bam"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"source": 1}\n{', "line 2 is no JSON"),
        (b"[1]", "line 1 is no JSON object"),
        (b"\n", "no message"),
        (b"\xff\xfe", "line 1 is no JSON"),
    ],
)
def test_a_line_that_is_no_message_is_named(tmp_path: Path, text: bytes, why: str) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_bytes(text)
    with pytest.raises(Failed, match=why):
        submit.ready_made(file)


@pytest.mark.parametrize(
    ("name", "suffix"), [("A.v1.2.BAM", ".bam"), ("reads.sam", ".sam"), ("x.tar", ".tar"), ("x", "")]
)
def test_an_uploaded_file_keeps_the_end_of_its_name_that_tells_what_it_is(name: str, suffix: str) -> None:
    assert submit.suffix(name) == suffix


# --- waiting for an answer

COMPLETED = a_job(status=JobStatus.COMPLETED, ended_at=NOW)
FAILED = a_job(status=JobStatus.FAILED, ended_at=NOW)


@pytest.mark.parametrize(
    ("job", "before", "force", "cached", "answered"),
    [
        (None, None, False, False, False),
        (a_job(), None, False, False, False),
        (COMPLETED, None, False, False, True),
        (COMPLETED, COMPLETED, False, True, True),
        (COMPLETED, COMPLETED, False, False, False),
        (COMPLETED, COMPLETED, True, True, False),
        (replace(COMPLETED, run=2), COMPLETED, True, True, True),
        (FAILED, FAILED, False, False, False),
        (FAILED, FAILED, False, True, False),
        (replace(FAILED, run=2), FAILED, False, False, True),
        (FAILED, a_job(), False, False, True),
    ],
)
def test_the_run_that_answers_is_the_one_that_intake_makes_answer(
    job: Job | None, before: Job | None, force: bool, cached: bool, answered: bool
) -> None:
    assert watch.answers(job, before, force, cached) is answered


def test_how_far_it_is_counts_every_message_once() -> None:
    ended = watch.Ended([COMPLETED, FAILED], {"x": "no such pool"})
    seen = [a_job(), a_job("b/1", JobStatus.RUNNING, stage="sort")]
    assert watch.summary(seen, ended, 6) == "waiting 2, running 1 (sort), ended 3 of 6, completed 1"


# --- queues


@given(st.lists(st.sampled_from([1, 1_000, 200_000, limits.SQS_MESSAGE_MAX_BYTES]), max_size=40))
def test_every_message_is_in_one_call_and_no_call_is_larger_than_sqs_takes(sizes: list[int]) -> None:
    bodies = ["x" * size for size in sizes]
    groups = list(queues.batches(bodies))
    assert [index for group in groups for index in group] == list(range(len(bodies)))
    assert all(len(group) <= 10 for group in groups)
    assert all(sum(sizes[index] for index in group) <= limits.SQS_MESSAGE_MAX_BYTES for group in groups)


# --- rejected messages


def held(body: str) -> queues.Held:
    return queues.Held("own-id", body, "receipt", NOW, 1)


def test_a_rejected_message_is_known_by_the_id_that_its_producer_was_given() -> None:
    record = {"reason": "pool: there is none", "message_id": "first", "body": "{}", "truncated": False, "body_bytes": 2}
    read = rejects.letter(rejects.Queue.REJECTED, held(json.dumps(record)))
    assert (read.message_id, read.reason, read.body, read.truncated) == ("first", "pool: there is none", "{}", False)
    assert "held" not in read.record()
    assert "receipt" not in json.dumps(read.record())


@pytest.mark.parametrize("body", ["no json", "[]", '{"reason": "x"}', '"text"', "null"])
def test_what_is_no_record_of_intakes_is_still_listed(body: str) -> None:
    read = rejects.letter(rejects.Queue.REJECTED, held(body))
    assert (read.message_id, read.body, read.reason) == ("own-id", body, "no reason is recorded")


def test_a_dead_message_says_that_nobody_settled_it() -> None:
    read = rejects.letter(rejects.Queue.DEAD, held('{"source": "s3://b-1/a.bam"}'))
    assert (read.message_id, read.body) == ("own-id", '{"source": "s3://b-1/a.bam"}')
    assert "never settled" in read.reason


# --- jobs


def test_an_older_run_leads_to_its_successor() -> None:
    third = replace(COMPLETED, run=3)
    jobs.check_run(third, 3)
    jobs.check_run(third, None)
    with pytest.raises(Failed, match=rf"run 1 of portal/a/v1 was superseded by run 3 \(id {third.id}, COMPLETED\)"):
        jobs.check_run(third, 1)
    with pytest.raises(Failed, match="no run 4 yet; its last is 3"):
        jobs.check_run(third, 4)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0.0 s"), (4.21, "4.2 s"), (185, "3m 05s"), (7_800, "2h 10m"), (352_800, "4d 02h")]
)
def test_a_length_of_time_is_short(seconds: float, text: str) -> None:
    assert board.span(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (18_600, "18.6 KB"), (5 * 10**12, "5.0 TB")])
def test_a_size_is_short(count: int, text: str) -> None:
    assert board.size(count) == text


def test_a_jobs_sheet_tells_its_attempts_and_why_it_failed() -> None:
    job = replace(
        FAILED, error="input: [no] reads", history=lapses(2, FailureClass.TIMEOUT), artifacts=("portal/a/v1/k",)
    )
    text = printed(board.sheet(job, {"portal/a/v1/k": None, "portal/a/v1/l": 5}, {}, NOW))
    for part in ("FAILED", "input: [no] reads", "timeout", "it ended", "s3://bucket/a.bam", "gone", "5 B", job.id):
        assert part in text


def test_the_sheet_of_a_job_that_depends_on_others_tells_how_they_stand() -> None:
    request = replace(FAILED.request, depends_on=("p/1", "p/2"))
    job = replace(FAILED, status=JobStatus.WAITING, request=request, ended_at=0.0)
    text = printed(board.sheet(job, {}, {"p/1": a_job("p/1", JobStatus.RUNNING)}, NOW))
    assert [line.split() for line in text.splitlines() if "p/" in line] == [["p/1", "RUNNING"], ["p/2", "not", "known"]]
    assert "WAITING  for 2 jobs" in text


def test_an_array_tells_how_many_it_waits_for_and_how_they_ended() -> None:
    array = replace(FAILED, status=JobStatus.WAITING, request=replace(FAILED.request, array=70), ended_at=0.0)
    assert "WAITING  for 70 elements" in printed(board.sheet(array, {}, {}, NOW))
    ended = replace(array, status=JobStatus.FAILED, counts=(60, 9, 1))
    assert "60 completed, 9 failed, 1 cancelled" in printed(board.sheet(ended, {}, {}, NOW))
    assert board.record(ended)["counts"] == {"completed": 60, "failed": 9, "cancelled": 1}
    assert (board.record(array)["counts"], board.record(array)["array"]) == (None, 70)


def test_a_list_tells_stage_age_and_error() -> None:
    running = a_job("b/1", JobStatus.RUNNING, stage="sort", fraction=0.25, claimed_at=NOW - 3, cancel="why")
    later = a_job("c/1", due_at=NOW + 9)
    text = printed(board.listing([running, later, replace(FAILED, error="input: bad")], NOW))
    for part in ("sort 25%, to be cancelled", "3.0 s", "due in 9.0 s", "input: bad"):
        assert part in text


def test_a_jobs_document_is_json_with_null_for_what_has_not_happened() -> None:
    document = json.loads(json.dumps(board.record(replace(FAILED, history=lapses(1)))))
    assert (document["claimed_at"], document["ended_at"], document["status"]) == (None, NOW, "FAILED")
    assert document["history"][0]["class"] == "interrupted"


# --- get


def test_a_range_holds_both_of_its_ends() -> None:
    assert byte_range("0-27") == (0, 27)
    assert byte_range(None) is None
    for text in ("5-4", "5-", "-5", "a-b", "1-2,4-5"):
        with pytest.raises(typer.BadParameter):
            byte_range(text)


def test_a_job_without_a_result_says_why() -> None:
    assert not_completed(COMPLETED) == ""
    assert not_completed(a_job()) == "portal/a/v1 is QUEUED, so it has no result yet"
    assert not_completed(replace(FAILED, error="input: bad")) == "portal/a/v1 is FAILED: input: bad"


def test_a_part_of_an_artifact_is_not_called_like_the_whole_and_none_leaves_its_directory() -> None:
    artifact = "a/b/bam@1/sorted.bam"
    assert destination(Path("out"), "a/b", artifact, None) == Path("out/a/b/sorted.bam")
    assert destination(Path("out"), "a/b", artifact, "0-9") == Path("out/a/b/sorted.bam.0-9")
    for wrong in ("a/b/bam@1/..", "a/b/bam@1/", "a/b/bam@1/.x"):
        with pytest.raises(Failed):
            destination(Path("out"), "a/b", wrong, None)


# --- logs


def line(text: str, who: str = "intake") -> logs.Line:
    return logs.read(text, who, NOW, "id")


def test_a_line_of_a_job_is_told_from_one_whose_key_begins_alike() -> None:
    names = logs.Names("a/b", "mine")
    for fields in (
        {"key": "a/b"},
        {"job": "a/b"},
        {"correlation_id": "mine"},
        {"message_id": "mine"},
        {"job": a_job("a/b").id},
    ):
        assert names.fit(line(json.dumps({"message": "x", **fields})))
    for fields in ({"key": "a/b2"}, {"job": "a/b/c"}, {"correlation_id": "mine2"}, {}):
        assert not names.fit(line(json.dumps({"message": "x", **fields})))
    assert names.fit(line("Traceback: a/b"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"message": "lease", "lease": "default/3/17", "job": "a/b", "level": "INFO"}', "lease  lease=default/3/17"),
        ('[INFO] {"message": "admitted", "key": "a", "decision": "Enqueue"}', "admitted  decision=Enqueue"),
        ("Task timed out", "Task timed out"),
        ('{"message": "x", "n": [1]}', "x  n=[1]"),
        ('{"message": "launched", "launches_started": 1, "_aws": {"Timestamp": 1}}', "launched  launches_started=1"),
    ],
)
def test_a_deciders_line_is_shown_with_what_it_alone_tells(text: str, shown: str) -> None:
    assert str(logs.shown(line(text))).endswith(f"intake             {shown}")


def test_what_a_jobs_process_said_is_shown_as_it_said_it() -> None:
    said = {"message": "output", "line": "[bam_sort] [b]merging[/b]", "lease": "default/3/17", "time": NOW + 0.25}
    assert str(logs.shown(line(json.dumps(said), "worker"))) == (
        "08:00:00.250 worker default/3   │ [bam_sort] [b]merging[/b]"
    )


# --- import

GOOD: dict[str, Any] = {
    "workflow_key": "old/a/v1",
    "processor": "bam",
    "artifacts": {"sorted.bam": "s3://old/a b.bam", "sorted.bam.bai": "s3://old/a.bai"},
}


def test_a_manifest_becomes_copies_in_commit_order_under_the_keys_that_messages_have() -> None:
    derived = {"source": "s3://inputs/a.bam", "artifacts": GOOD["artifacts"]}
    jobs_found = imports.plan(f"{json.dumps(GOOD)}\n\n{json.dumps(derived)}\n", "cache", "pre/")
    first, second = ([(each.line, str(each.source), str(each.destination)) for each in job] for job in jobs_found)
    assert first == [
        (1, "s3://old/a b.bam", "s3://cache/pre/old/a/v1/bam@1/sorted.bam"),
        (1, "s3://old/a.bai", "s3://cache/pre/old/a/v1/bam@1/sorted.bam.bai"),
    ]
    key = Message.model_validate({"source": "s3://inputs/a.bam"}).key()
    assert second[0][2] == f"s3://cache/pre/{key}/bam@1/sorted.bam"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"processor": "bim"}, "line 2: processor: "),
        ({"processor": None}, "line 2: processor: a workflow_key does not tell"),
        ({"workflow_key": None}, "line 2: an entry has a workflow_key, or the source"),
        ({"source": "s3://inputs/a.bam"}, "line 2: an entry has a workflow_key, or the source"),
        ({"workflow_key": "../a"}, "line 2: workflow_key: must be 1 to 8 segments"),
        ({"artifacts": {"sorted.bam": "s3://old/a.bam"}}, "line 2: artifacts: bam makes sorted.bam, sorted.bam.bai"),
        ({"artifacts": {"sorted.bam": "s3://old/a", "sorted.bam.bai": "/tmp/x"}}, "line 2: artifacts: '/tmp/x'"),
        ({"artifact": {}}, "line 2: artifact: "),
        ({"workflow_key": "old/a/v1"}, "line 2: old/a/v1/bam@1/sorted.bam is that of line 1 already"),
    ],
)
def test_a_manifest_that_is_wrong_anywhere_is_refused_as_a_whole(change: dict[str, Any], why: str) -> None:
    wrong = {name: value for name, value in {**GOOD, "workflow_key": "old/b", **change}.items() if value is not None}
    with pytest.raises(Failed) as refused:
        imports.plan(f"{json.dumps(GOOD)}\n{json.dumps(wrong)}", "cache", "")
    assert str(refused.value).startswith(why)
    assert str(refused.value).endswith("; nothing was copied")


class Interrupted:
    """A download during which somebody presses Ctrl-C."""

    def iter_chunks(self, _size: int) -> Iterator[bytes]:
        yield b"first bytes"
        raise KeyboardInterrupt

    def close(self) -> None:
        pass


class Answering:
    """An S3 with one object, whose body is this."""

    def __init__(self, body: object, length: int) -> None:
        self.get_object = lambda **_: {"Body": body, "ContentLength": length}


def test_a_download_that_is_interrupted_leaves_no_file_and_spares_the_one_of_before(tmp_path: Path) -> None:
    path = tmp_path / "a" / "sorted.bam"
    path.parent.mkdir()
    path.write_bytes(b"of before")
    settings: dict[str, Any] = {"Environment": {"Variables": {}}}
    clients: dict[str, Any] = {"s3": Answering(Interrupted(), 100)}
    target = Target("here", {"CacheBucketName": "cache", "IntakeFunctionName": "intake"}, clients.__getitem__)
    clients["lambda"] = type("Lambda", (), {"get_function_configuration": staticmethod(lambda **_: settings)})
    with pytest.raises(KeyboardInterrupt):
        fetch(target, "a/bam@1/sorted.bam", path)
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("sorted.bam", b"of before")]
