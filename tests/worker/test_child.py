"""A job's child as the real process it is: what it says, what it leaves in the cache, how it ends."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pysam
import pytest

from fleetcap import catalog
from fleetcap.adapters.cache import S3Cache
from local.samples import make_bam
from worker_image.child import Speaker, _verdict
from worker_image.errors import ended_by
from worker_image.processors import InputError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

cloud = pytest.mark.cloud
COMMAND = [sys.executable, "-m", "worker_image.child"]


@pytest.fixture
def assignment(at_the_emulator: None, s3: S3Client, tmp_path: Path) -> dict[str, Any]:
    """A job that can be done: its unsorted BAM lies in the bucket of sources."""
    assert at_the_emulator is None
    source = tmp_path / "sample.bam"
    make_bam(source, reads=2_000, seed=len(tmp_path.name))
    s3.upload_file(str(source), "sources", f"{tmp_path.name}/sample.bam")
    md5 = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
    return {
        "job_id": "job",
        "workflow_key": f"tests/{tmp_path.name}/{md5}/v1",
        "attempt": 1,
        "source": f"s3://sources/{tmp_path.name}/sample.bam",
        "processor": "bam",
        "md5": md5,
        "params": {},
        "cache_bucket": "cache",
        "cache_prefix": "results",
        "source_hosts": [],
        "work_dir": str(tmp_path / "work"),
        "sort_memory_mb": 16,
        "sort_threads": 1,
        "made_for": 1_000.5,
        "since": 0.0,
    }


def run(assignment: dict[str, Any]) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, the events, and what went to stderr. Every line of stdout must be an event."""
    text = json.dumps(assignment)
    result = subprocess.run(COMMAND, input=text, capture_output=True, text=True, timeout=60)
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def failure_of(assignment: dict[str, Any]) -> dict[str, Any]:
    code, events, _ = run(assignment)
    assert code == 1
    assert events[-1]["event"] == "failed"
    assert str(Path(assignment["work_dir"]).parent) not in events[-1]["error"]
    return events[-1]


@cloud
def test_a_job_leaves_its_artifacts_in_the_cache_and_tells_how_it_went(
    assignment: dict[str, Any], s3: S3Client, tmp_path: Path
) -> None:
    code, events, _ = run(assignment)
    assert code == 0
    assert events[-1] == {"event": "done"}
    keys = catalog.artifact_keys(assignment["workflow_key"], "bam")
    assert tuple(event["key"] for event in events if event["event"] == "artifact") == keys
    cache = S3Cache(s3, "cache", "results")
    for key, name in zip(keys, ("x.bam", "x.bam.bai"), strict=True):
        assert cache.fetch(key, str(tmp_path / name))
    with pysam.AlignmentFile(str(tmp_path / "x.bam")) as alignments:
        assert sum(alignments.count(name) for name in alignments.references) == 2_000


@cloud
def test_a_task_of_another_version_is_carried_out(assignment: dict[str, Any]) -> None:
    """One that says less than is known here, and more."""
    said = {name: value for name, value in assignment.items() if name not in {"made_for", "since"}}
    code, events, _ = run({**said, "of_the_next": {"version": 1}})
    assert (code, events[-1]) == (0, {"event": "done"})


@cloud
def test_the_fraction_never_falls_and_every_stage_is_told(assignment: dict[str, Any]) -> None:
    _, events, _ = run(assignment)
    progress = [event for event in events if event["event"] == "progress"]
    fractions = [event["fraction"] for event in progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1
    assert {event["stage"] for event in progress} == {"download", "sort", "index", "verify", "upload"}


@cloud
def test_a_finished_result_is_not_made_again(assignment: dict[str, Any]) -> None:
    run(assignment)
    code, events, _ = run({**assignment, "source": "s3://sources/gone", "work_dir": assignment["work_dir"] + "2"})
    assert code == 0
    assert [event["event"] for event in events] == ["artifact", "artifact", "done"]
    assert not any(event["created"] for event in events[:2])


@cloud
def test_a_retry_indexes_the_bam_that_the_cache_kept(assignment: dict[str, Any], s3: S3Client, tmp_path: Path) -> None:
    bam_key, index_key = catalog.artifact_keys(assignment["workflow_key"], "bam")
    source = tmp_path / "sample.bam"
    pysam.sort("-l", "1", "-o", str(tmp_path / "kept.bam"), str(source), catch_stdout=False)
    cache = S3Cache(s3, "cache", "results")
    cache.commit(str(tmp_path / "kept.bam"), bam_key, "sorted.bam")
    code, events, _ = run(assignment)
    assert code == 0
    assert [event["created"] for event in events if event["event"] == "artifact"] == [False, True]
    cache.fetch(index_key, str(tmp_path / "kept.bam.bai"))
    with pysam.AlignmentFile(str(tmp_path / "kept.bam")) as alignments:
        assert sum(alignments.count(name) for name in alignments.references) == 2_000


def kinds_in_the_cache(assignment: dict[str, Any], s3: S3Client) -> list[str]:
    listed = s3.list_objects_v2(Bucket="cache", Prefix=f"results/{assignment['workflow_key']}/").get("Contents", [])
    return [found["Key"].rpartition("/")[2] for found in listed]


@cloud
@pytest.mark.parametrize("name", ["bam", "sam"])
def test_the_bam_is_committed_before_its_index_is_begun(
    assignment: dict[str, Any], s3: S3Client, tmp_path: Path, name: str
) -> None:
    if name == "sam":
        pysam.view("-h", "-o", str(tmp_path / "sample.sam"), str(tmp_path / "sample.bam"), catch_stdout=False)
        s3.upload_file(str(tmp_path / "sample.sam"), "sources", f"{tmp_path.name}/sample.sam")
        source = f"s3://sources/{tmp_path.name}/sample.sam"
        assignment = {**assignment, "processor": "sam", "source": source, "md5": ""}
    _, events, _ = run(assignment)
    told = [event.get("stage") or event["event"] for event in events]
    assert list(dict.fromkeys(told)) == ["download", "verify", "sort", "upload", "artifact", "index", "done"]
    assert told.index("artifact") < told.index("index")


STOPPING = """
import os
from worker_image import child
from worker_image.processors import alignment
alignment._index = lambda *_: os._exit(9)
child.main()
"""


@cloud
def test_an_attempt_that_dies_at_the_index_leaves_the_bam_to_the_next_which_needs_no_source(
    assignment: dict[str, Any], s3: S3Client, tmp_path: Path
) -> None:
    dying = [sys.executable, "-c", STOPPING]
    died = subprocess.run(dying, input=json.dumps(assignment), capture_output=True, text=True, timeout=60)
    assert died.returncode == 9
    assert kinds_in_the_cache(assignment, s3) == ["sorted.bam"]
    s3.delete_object(Bucket="sources", Key=f"{tmp_path.name}/sample.bam")
    code, events, _ = run({**assignment, "work_dir": str(tmp_path / "again")})
    assert code == 0
    assert [(event["kind"], event["created"]) for event in events if event["event"] == "artifact"] == [
        ("sorted.bam", False),
        ("sorted.bam.bai", True),
    ]
    assert "resuming from sorted.bam" in [event.get("message") for event in events]
    assert "sort" not in {event.get("stage") for event in events}


OVERTAKEN = """
import os, sys
from worker_image import child
from fleetcap.adapters.cache import S3Cache
commit = S3Cache.commit
def late(self, path, key, kind, *which):
    if kind == "sorted.bam":
        commit(self, os.environ["FASTER"], key, kind, *which)
    return commit(self, path, key, kind, *which)
S3Cache.commit = late
child.main()
"""


@cloud
def test_an_attempt_that_was_overtaken_indexes_the_bam_that_stands(
    assignment: dict[str, Any], s3: S3Client, tmp_path: Path
) -> None:
    faster = tmp_path / "faster.bam"
    pysam.sort("-l", "1", "-o", str(faster), str(tmp_path / "sample.bam"), catch_stdout=False)
    environment = {**os.environ, "FASTER": str(faster)}
    code = [sys.executable, "-c", OVERTAKEN]
    result = subprocess.run(code, input=json.dumps(assignment), capture_output=True, text=True, env=environment)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["created"] for event in events if event["event"] == "artifact"] == [False, True]
    keys, cache = catalog.artifact_keys(assignment["workflow_key"], "bam"), S3Cache(s3, "cache", "results")
    for key, end in zip(keys, ("", ".bai"), strict=True):
        cache.fetch(key, str(tmp_path / f"x.bam{end}"))
    assert (tmp_path / "x.bam").read_bytes() == faster.read_bytes()
    pysam.index("-b", "-o", str(tmp_path / "expected.bai"), str(faster), catch_stdout=False)
    assert (tmp_path / "x.bam.bai").read_bytes() == (tmp_path / "expected.bai").read_bytes()


def given(s3: S3Client, assignment: dict[str, Any], name: str, data: bytes, **changes: Any) -> dict[str, Any]:
    """The job with another source."""
    key = f"{Path(assignment['work_dir']).parent.name}/{name}"
    s3.put_object(Bucket="sources", Key=key, Body=data)
    return {**assignment, "source": f"s3://sources/{key}", "md5": "", **changes}


def artifact_of(assignment: dict[str, Any], s3: S3Client, kind: str) -> bytes:
    entry = catalog.PROCESSORS[assignment["processor"]]
    key = catalog.artifact_key(assignment["workflow_key"], entry, kind)
    return s3.get_object(Bucket="cache", Key=f"results/{key}")["Body"].read()


VCF = b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n%b"
VARIANT = b"chr1\t%d\t.\tA\tT\t.\t.\t.\n"


@cloud
def test_a_vcf_goes_all_the_way(assignment: dict[str, Any], s3: S3Client) -> None:
    unsorted = gzip.compress(VCF % b"".join(VARIANT % at for at in (9, 5, 7)))
    job = given(s3, assignment, "x.vcf.gz", unsorted, processor="vcf")
    code, events, _ = run(job)
    assert code == 0
    assert [event["kind"] for event in events if event["event"] == "artifact"] == ["sorted.vcf.gz", "sorted.vcf.gz.tbi"]
    assert gzip.decompress(artifact_of(job, s3, "sorted.vcf.gz")) == VCF % b"".join(VARIANT % at for at in (5, 7, 9))


@cloud
def test_a_bad_line_is_permanent_and_nothing_of_its_file_is_committed(assignment: dict[str, Any], s3: S3Client) -> None:
    job = given(s3, assignment, "x.vcf", VCF % (VARIANT % 5 + b"chr1\tx\t.\tA\tT\t.\t.\t.\n"), processor="vcf")
    sentence = "input: line 4 has 'x' for its position, which is no whole number"
    assert failure_of(job) == {"event": "failed", "error": sentence, "permanent": True}
    assert kinds_in_the_cache(job, s3) == []


@cloud
@pytest.mark.parametrize("name", ["bam", "vcf"])
def test_a_file_without_bytes_is_refused(assignment: dict[str, Any], s3: S3Client, name: str) -> None:
    job = given(s3, assignment, "empty", b"", processor=name)
    assert failure_of(job) == {"event": "failed", "error": "input: the file is empty", "permanent": True}


@cloud
@pytest.mark.parametrize("data", [b"\0any\r\nthing", b""])
def test_passthrough_copies_any_file(assignment: dict[str, Any], s3: S3Client, data: bytes) -> None:
    job = given(s3, assignment, "any", data, processor="passthrough")
    assert run(job)[0] == 0
    assert artifact_of(job, s3, "copy") == data


def command(s3: S3Client, assignment: dict[str, Any], program: str, arguments: str) -> dict[str, Any]:
    """A job that runs a program over a file whose name is not one to trust."""
    params = {"program": program, "arguments": arguments}
    return given(s3, assignment, "odd name;$(x).gz", gzip.compress(b"b\na\n"), processor="command", params=params)


@cloud
def test_a_command_sees_a_harmless_name_that_ends_as_the_sources(assignment: dict[str, Any], s3: S3Client) -> None:
    job = command(s3, assignment, "printf", "%s {source}")
    assert run(job)[0] == 0
    assert artifact_of(job, s3, "output").decode() == f"{job['work_dir']}/source/odd_name___x_.gz"


@cloud
def test_a_commands_last_words_become_the_sentence(assignment: dict[str, Any], s3: S3Client) -> None:
    job = command(s3, assignment, "sh", "-c 'echo begun >&2; echo no good >&2; exit 3' {source}")
    sentence = "internal: sh ended with exit code 3: no good"
    assert failure_of(job) == {"event": "failed", "error": sentence, "permanent": False}
    assert kinds_in_the_cache(job, s3) == []


@cloud
def test_a_program_with_a_path_is_permanent(assignment: dict[str, Any], s3: S3Client) -> None:
    failure = failure_of(command(s3, assignment, "../sh", "{source}"))
    assert failure["error"].startswith("input: command needs the param 'program', the name of a program of the image")
    assert failure["permanent"] is True


TWICE_FROM_THE_SOURCE = """
from worker_image import child
from worker_image.processors import SOURCE, Passthrough
Passthrough.made_from = {"copy": SOURCE, "again": SOURCE}
child.main()
"""


@cloud
def test_a_source_that_a_step_consumed_is_fetched_again_for_the_next(assignment: dict[str, Any], s3: S3Client) -> None:
    job = given(s3, assignment, "any", b"bytes", processor="passthrough")
    code = [sys.executable, "-c", TWICE_FROM_THE_SOURCE]
    assert subprocess.run(code, input=json.dumps(job), text=True, stdout=subprocess.DEVNULL, timeout=60).returncode == 0
    assert [artifact_of(job, s3, kind) for kind in ("copy", "again")] == [b"bytes", b"bytes"]


@cloud
def test_params_that_a_processor_does_not_know_are_permanent(assignment: dict[str, Any]) -> None:
    failure = failure_of({**assignment, "params": {"level": 9}})
    assert failure["error"] == "input: bam knows no param 'level'; it takes none"


@cloud
def test_an_md5_that_does_not_match_is_permanent(assignment: dict[str, Any], s3: S3Client) -> None:
    failure = failure_of({**assignment, "md5": "0" * 32})
    assert failure["error"].startswith("input: the source's md5 is ")
    assert failure["permanent"] is True
    assert s3.list_objects_v2(Bucket="cache", Prefix=f"results/{assignment['workflow_key']}")["KeyCount"] == 0


@cloud
@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("s3://sources/nothing.bam", "input: the source s3://sources/nothing.bam does not exist"),
        ("s3://no-such-bucket/x.bam", "input: the source s3://no-such-bucket/x.bam does not exist"),
        ("s3://no$bucket/x.bam", "input: the source s3://no$bucket/x.bam names no valid bucket"),
        ("s3://sources", "input: the source must read s3://bucket/key"),
        ("/etc/hosts", "input: the source must be an s3 or https address"),
        ("file:///etc/hosts", "input: the source must be an s3 or https address"),
        ("https://169.254.169.254/x", "input: the host 169.254.169.254 is not among the allowed source hosts"),
    ],
)
def test_a_source_that_cannot_be_had_is_permanent(assignment: dict[str, Any], source: str, sentence: str) -> None:
    assert failure_of({**assignment, "source": source}) == {"event": "failed", "error": sentence, "permanent": True}


@cloud
def test_a_bad_file_is_permanent_and_leaves_nothing_in_the_cache(assignment: dict[str, Any], s3: S3Client) -> None:
    s3.put_object(Bucket="sources", Key="text.bam", Body=b"no alignments\n")
    failure = failure_of({**assignment, "source": "s3://sources/text.bam", "md5": ""})
    assert failure["error"].startswith("input: ")
    assert failure["permanent"] is True
    assert s3.list_objects_v2(Bucket="cache", Prefix=f"results/{assignment['workflow_key']}")["KeyCount"] == 0


@cloud
def test_a_processor_that_the_image_lacks_is_permanent(assignment: dict[str, Any]) -> None:
    assert failure_of({**assignment, "processor": "cram"})["permanent"] is True


@cloud
def test_a_cache_that_does_not_answer_is_not_the_inputs_fault(assignment: dict[str, Any]) -> None:
    failure = failure_of({**assignment, "cache_bucket": "no-such-bucket"})
    assert failure["error"].startswith("internal: ")
    assert failure["permanent"] is False


def test_a_task_that_cannot_be_read_is_told_as_a_failure() -> None:
    result = subprocess.run(COMMAND, input="{", capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"].startswith("internal: JSONDecodeError")
    assert "Traceback" in result.stderr


SHORT = {
    "no memory": (MemoryError(), "internal: out of memory: the job needs more than its worker has"),
    "no memory for a call": (OSError(errno.ENOMEM, "Cannot allocate memory"), "internal: out of memory: OSError: "),
    "no memory for samtools": (
        RuntimeError("samtools sort: couldn't allocate memory for bam_mem"),
        "internal: out of memory: RuntimeError: ",
    ),
    "no memory for sort": (ended_by("sort", 2, "sort: memory exhausted"), "internal: out of memory: sort ended with"),
    "sort killed": (ended_by("sort", -9, ""), "internal: out of memory: sort was killed (signal 9)"),
    "no room": (OSError(errno.ENOSPC, "No space left on device"), "internal: disk full: OSError: "),
    "no room for sort": (
        ended_by("sort", 2, "sort: write failed: /tmp/sortX: No space left on device"),
        "internal: disk full: sort ended with exit code 2: sort: write failed: (path): No space left",
    ),
    "neither": (RuntimeError("what"), "internal: RuntimeError: what"),
    "the input": (InputError("line 1 is out of memory"), "input: line 1 is out of memory"),
}


@pytest.mark.parametrize(("error", "sentence"), SHORT.values(), ids=SHORT)
def test_what_ran_out_is_told_apart(error: Exception, sentence: str) -> None:
    text, permanent = _verdict(error)
    assert text.startswith(sentence)
    assert permanent is isinstance(error, InputError)


NOISY = """
import os, sys
from worker_image import child
def noisy(_):
    print("from python")
    os.write(1, b"from a library")
    sys.stdout.flush()
    raise MemoryError
child._carry_out = noisy
child._assigned = lambda *_: None
child.main()
"""


def test_nothing_but_events_reaches_stdout() -> None:
    result = subprocess.run([sys.executable, "-c", NOISY], input="{}", capture_output=True, text=True, timeout=60)
    event = {
        "event": "failed",
        "error": "internal: out of memory: the job needs more than its worker has",
        "permanent": False,
    }
    assert [json.loads(line) for line in result.stdout.splitlines()] == [event]
    assert "from python" in result.stderr
    assert "from a library" in result.stderr


def test_a_speaker_whose_listener_is_gone_ends_the_process() -> None:
    code = "import os; from worker_image.child import Speaker; Speaker(1).say('done'); os._exit(7)"
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-c", code], stdout=writer, timeout=60)
    os.close(writer)
    assert ended.returncode == 1


def test_progress_is_cut_to_length_and_never_falls() -> None:
    reader, writer = os.pipe()
    speaker = Speaker(writer)
    speaker.progress("sort", 0.7, "x" * 1_000)
    speaker.progress("index", 0.2)
    os.close(writer)
    with os.fdopen(reader) as lines:
        first, second = (json.loads(line) for line in lines)
    assert len(first["message"]) == 256
    assert (first["fraction"], second["fraction"]) == (0.7, 0.7)


ORPHANING = """
import subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", "import time; from worker_image import nursery; nursery.die_with_the_parent();"
     "print(1, flush=True); time.sleep(60)"],
    stdout=subprocess.PIPE, process_group=0)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_child_does_not_outlive_its_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANING], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        worker.kill()
    assert eventually(lambda: not alive(child))


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet reaped does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


@cloud
def test_a_stopped_child_dies_of_the_signal_at_once(assignment: dict[str, Any]) -> None:
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(assignment).encode())
        child.stdin.close()
        child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) in {-signal.SIGTERM, 0}


@cloud
def test_an_index_that_outlived_its_bam_is_made_anew_with_it(
    assignment: dict[str, Any], s3: S3Client, tmp_path: Path
) -> None:
    """S3 expires artifacts one by one, and a source may have changed under the key that its sender chose."""
    assert run(assignment)[0] == 0
    bam_key, index_key = catalog.artifact_keys(assignment["workflow_key"], "bam")
    cache = S3Cache(s3, "cache", "results")
    assert cache.delete(bam_key)
    make_bam(tmp_path / "changed.bam", reads=5_000, seed=7)
    s3.upload_file(str(tmp_path / "changed.bam"), "sources", f"{tmp_path.name}/sample.bam")
    code, events, _ = run({**assignment, "md5": "", "made_for": 2_000.5})
    assert code == 0
    assert [event["created"] for event in events if event["event"] == "artifact"] == [True, True]
    for key, name in ((bam_key, "new.bam"), (index_key, "new.bam.bai")):
        assert cache.fetch(key, str(tmp_path / name))
    with pysam.AlignmentFile(str(tmp_path / "new.bam")) as alignments:
        assert sum(alignments.count(name) for name in alignments.references) == 5_000


@cloud
def test_an_index_of_the_same_run_is_left_to_those_who_may_have_made_it_meanwhile(
    assignment: dict[str, Any], s3: S3Client
) -> None:
    """A zombie that saw no BAM may see the index of the attempt that came after it."""
    assert run(assignment)[0] == 0
    bam_key, index_key = catalog.artifact_keys(assignment["workflow_key"], "bam")
    cache = S3Cache(s3, "cache", "results")
    index = cache.standing(index_key)
    assert index
    assert cache.delete(bam_key)
    code, events, _ = run(assignment)
    assert code == 0
    assert [event["created"] for event in events if event["event"] == "artifact"] == [True, False]
    assert cache.standing(index_key) == index


# --- force


def made_for(s3: S3Client, assignment: dict[str, Any]) -> list[float]:
    """For which runs the job's artifacts were made."""
    kept = S3Cache(s3, "cache", "results")
    standing = [kept.standing(key) for key in catalog.artifact_keys(assignment["workflow_key"], "bam")]
    return [found.made_for if found else -1.0 for found in standing]


@cloud
def test_a_forced_run_makes_every_artifact_anew_and_its_retry_resumes(assignment: dict[str, Any], s3: S3Client) -> None:
    assert run(assignment)[0] == 0
    assert made_for(s3, assignment) == [1_000.5, 1_000.5]
    forced = {**assignment, "made_for": 2_000.5, "since": 2_000.5}
    code, events, _ = run(forced)
    assert code == 0
    assert [event["created"] for event in events if event["event"] == "artifact"] == [True, True]
    assert made_for(s3, assignment) == [2_000.5, 2_000.5]
    _, events, _ = run(forced)
    assert [event["created"] for event in events if event["event"] == "artifact"] == [False, False]


@cloud
def test_what_an_older_run_finds_of_a_forced_one_it_leaves_alone(assignment: dict[str, Any], s3: S3Client) -> None:
    assert run({**assignment, "made_for": 2_000.5, "since": 2_000.5})[0] == 0
    for older in ({}, {"made_for": 1_500.5, "since": 1_500.5}):
        code, events, _ = run({**assignment, **older})
        assert code == 0
        assert [event["created"] for event in events if event["event"] == "artifact"] == [False, False]
    assert made_for(s3, assignment) == [2_000.5, 2_000.5]


@cloud
def test_an_index_of_the_older_artifact_never_stands_beside_the_one_that_took_its_place(
    assignment: dict[str, Any], s3: S3Client
) -> None:
    """The forced run dies right after its first commit: the old index is gone by then."""
    assert run(assignment)[0] == 0
    forced = {**assignment, "made_for": 2_000.5, "since": 2_000.5}
    child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin
    assert child.stdout
    with child.stdin as stdin:
        stdin.write(json.dumps(forced))
    for line in child.stdout:
        if json.loads(line)["event"] == "artifact":
            child.kill()
            break
    child.stdout.close()
    child.wait()
    first, index = made_for(s3, assignment)
    assert first == 2_000.5
    assert index in {-1.0, 2_000.5}
    assert run(forced)[0] == 0
    assert made_for(s3, assignment) == [2_000.5, 2_000.5]
