"""Which messages are accepted, what they become, and the sentence that goes with each refused one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import keys, limits
from fleetcap.catalog import BUILT_IN, PROCESSORS, Processor, artifact_keys
from fleetcap.messages import Message, Rejected, json_schema, submission, to_recheck
from fleetcap.model import OnParentFailure, Pool, Request, Submission

POOLS = {"default": Pool("default", 1), "arm-large": Pool("arm-large", 1)}
HOSTS = frozenset({"data.example.org"})
BAM: dict[str, Any] = {"source": "s3://bucket/reads/a.bam"}
PARTED: dict[str, Any] = {"source": "s3://bucket/reads/{index}.bam", "array": 2}
FULL: dict[str, Any] = {
    "source": "https://data.example.org/reads/a",
    "processor": "command",
    "workflow_key": "portal/42/0123456789abcdef0123456789abcdef/v1",
    "pool": "arm-large",
    "priority": 9,
    "md5": "0123456789abcdef0123456789abcdef",
    "params": {"program": "cat", "arguments": "{source} {index}"},
    "max_attempts": 1,
    "timeout_s": 60,
    "force": True,
    "correlation_id": "order-7/line.1",
    "tenant": "Lab_7.b",
    "depends_on": ["portal/41/v1", "portal/40/v1"],
    "on_parent_failure": "run",
    "array": 3,
}
quick = settings(derandomize=True, max_examples=200, deadline=None)


def accepted(body: object) -> Submission:
    return submission(body if isinstance(body, str) else json.dumps(body), 7.5, POOLS, HOSTS)


def reason(body: object) -> str:
    """The sentence with which the message is refused."""
    with pytest.raises(Rejected) as refusal:
        accepted(body)
    return str(refusal.value)


# --- accepted


def test_a_source_alone_is_a_message() -> None:
    taken = accepted(BAM)
    assert taken.request == Request(BAM["source"], "bam", "", {}, limits.MAX_ATTEMPTS, limits.JOB_TIMEOUT_S)
    assert (taken.pool, taken.priority, taken.sent_at) == ("default", limits.PRIORITY_DEFAULT, 7.5)


def test_every_field_of_a_message_arrives() -> None:
    taken = accepted(FULL)
    assert taken.key == FULL["workflow_key"]
    assert (taken.pool, taken.priority) == ("arm-large", 9)
    assert (taken.force, taken.correlation_id, taken.tenant) == (True, "order-7/line.1", "Lab_7.b")
    parents = ("portal/41/v1", "portal/40/v1")
    assert taken.request == Request(
        FULL["source"], "command", FULL["md5"], FULL["params"], 1, 60, 5, parents, OnParentFailure.RUN, 3
    )


ACCEPTED: dict[str, dict[str, Any]] = {
    "a source alone": BAM,
    "every field": FULL,
    "upper-case suffix": {"source": "s3://bucket/A.SAM"},
    "a processor for any name": {"source": "s3://bucket/a", "processor": "sam"},
    "nulls as left out": {**BAM, "processor": None, "workflow_key": None, "md5": None},
    "a key of one segment": {**BAM, "workflow_key": "a"},
    "a key of eight segments": {**BAM, "workflow_key": "/".join("abcdefgh")},
    "the lowest priority": {**BAM, "priority": limits.PRIORITY_MIN},
    "the highest priority": {**BAM, "priority": limits.PRIORITY_MAX},
    "a peak file of capitals": {"source": "s3://bucket/A.narrowPeak.gz"},
    "a GFF3 file": {"source": "s3://bucket/a.gff3"},
    "the largest array under the deepest key": {**PARTED, "array": 10_000, "workflow_key": "/".join("abcdefg")},
    "the most parents": {**BAM, "depends_on": [f"p{n}" for n in range(limits.PARENTS_MAX)]},
    "the longest source": {"source": "s3://bucket/".ljust(limits.SOURCE_MAX_CHARS - 4, "a") + ".bam"},
    "the longest run": {**BAM, "timeout_s": limits.TIMEOUT_MAX_S, "max_attempts": limits.ATTEMPTS_LIMIT},
    "letters of the world": {"source": "s3://bucket/größe/日本.bam"},
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_accepted_fits_the_published_schema(body: dict[str, Any]) -> None:
    accepted(body)
    jsonschema.Draft202012Validator(json_schema()).validate(body)


@pytest.mark.parametrize(("name", "suffix"), [(p.name, suffix) for p in BUILT_IN for suffix in p.suffixes])
def test_the_processor_follows_from_the_file_name(name: str, suffix: str) -> None:
    assert accepted({"source": f"s3://bucket/file{suffix}"}).request.processor == name


def test_a_declared_processor_is_taken_with_its_params_and_named_in_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Processor("own", 3, (".txt",), ("a", "b"), tuple(f"p{n}" for n in range(limits.PARAMS_MAX)))
    assert "own" in reason({**BAM, "processor": "own"})
    monkeypatch.setitem(PROCESSORS, "own", own)
    body = {"source": "s3://bucket/x.txt", "params": dict.fromkeys(own.params, 0.5)}
    assert accepted(body).request.processor == "own"
    assert artifact_keys("k", "own") == ("k/own@3/a", "k/own@3/b")
    assert reason({**body, "params": {"x": 1}}).startswith("params: own knows no param 'x'; it takes p0, p1")
    jsonschema.Draft202012Validator(json_schema()).validate({**body, "processor": "own"})


def test_what_a_message_leaves_open_is_as_its_pool_says() -> None:
    pool = Pool("default", 1, job_timeout_s=60, max_attempts=7, max_interruptions=9)
    body = {"source": "s3://bucket/a.bam"}
    asked = submission(json.dumps(body), 7.5, {"default": pool}, HOSTS).request
    assert (asked.timeout_s, asked.max_attempts, asked.max_interruptions) == (60, 7, 9)
    said = submission(json.dumps({**body, "timeout_s": 5, "max_attempts": 1}), 7.5, {"default": pool}, HOSTS).request
    assert (said.timeout_s, said.max_attempts) == (5, 1)


def test_a_function_knows_the_processors_that_its_environment_declares() -> None:
    code = "from handlers import intake; from fleetcap.messages import submission; from fleetcap.model import Pool\n"
    code += "pools = {'default': Pool('default', 1)}\n"
    code += 'print(submission(\'{"source": "s3://bucket/x.txt"}\', 0.0, pools, ()).request.processor)'
    declared = json.dumps([{"name": "own", "version": 1, "suffixes": [".txt"], "kinds": ["out"]}])
    environment = {**os.environ, keys.ENV_PROCESSORS: declared, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["AWS_DEFAULT_REGION"] = "eu-central-1"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert said.stdout == "own\n", said.stderr


# --- refused: what a schema can see

REFUSED_BY_SHAPE: dict[str, tuple[object, str]] = {
    "no object": ([], "Input should be an object"),
    "a bare null": (None, "Input should be an object"),
    "no source": ({}, "source: Field required"),
    "a null source": ({"source": None}, "source: Input should be a valid string"),
    "a number as source": ({"source": 7}, "source: Input should be a valid string"),
    "an http source": ({"source": "http://data.example.org/a.bam"}, "source: must read s3://bucket/key or https"),
    "a file source": ({"source": "file:///etc/passwd"}, "source: must read s3://bucket/key or https"),
    "a path as source": ({"source": "../a.bam"}, "source: must read s3://bucket/key or https"),
    "a long source": ({"source": "s3://bucket/".ljust(1_025, "a")}, "source: String should have at most 1024"),
    "an unknown processor": (
        {**BAM, "processor": "vcf9"},
        "processor: there is no processor 'vcf9'; there are bam",
    ),
    "a processor of another case": ({**BAM, "processor": "BAM"}, "processor: there is no processor 'BAM'"),
    "an empty key": ({**BAM, "workflow_key": ""}, "workflow_key: must be 1 to 8 segments"),
    "a key that climbs": ({**BAM, "workflow_key": "portal/../other"}, "workflow_key: must be 1 to 8 segments"),
    "a key that starts above": ({**BAM, "workflow_key": "../other"}, "workflow_key: must be 1 to 8 segments"),
    "a key with a dot segment": ({**BAM, "workflow_key": "a/./b"}, "workflow_key: must be 1 to 8 segments"),
    "an absolute key": ({**BAM, "workflow_key": "/a"}, "workflow_key: must be 1 to 8 segments"),
    "a key that ends in /": ({**BAM, "workflow_key": "a/"}, "workflow_key: must be 1 to 8 segments"),
    "a key with an empty segment": ({**BAM, "workflow_key": "a//b"}, "workflow_key: must be 1 to 8 segments"),
    "a key with #": ({**BAM, "workflow_key": "a#b"}, "workflow_key: must be 1 to 8 segments"),
    "a key with a backslash": ({**BAM, "workflow_key": "a\\b"}, "workflow_key: must be 1 to 8 segments"),
    "a key with a null byte": ({**BAM, "workflow_key": "a\0b"}, "workflow_key: must be 1 to 8 segments"),
    "a key of nine segments": ({**BAM, "workflow_key": "/".join("abcdefghi")}, "workflow_key: must be 1 to 8 segments"),
    "a long key": ({**BAM, "workflow_key": "/".join(["a" * 120] * 5)}, "workflow_key: String should have at most 512"),
    "a number as key": ({**BAM, "workflow_key": 1}, "workflow_key: Input should be a valid string"),
    "a pool of capitals": ({**BAM, "pool": "GPU"}, "pool: must be a small letter"),
    "a pool that would move in the table": ({**BAM, "pool": "a#000"}, "pool: must be a small letter"),
    "a null pool": ({**BAM, "pool": None}, "pool: Input should be a valid string"),
    "a priority below": ({**BAM, "priority": -1}, "priority: Input should be greater than or equal to 0"),
    "a priority above": ({**BAM, "priority": 10}, "priority: Input should be less than or equal to 9"),
    "a priority as text": ({**BAM, "priority": "5"}, "priority: Input should be a valid integer"),
    "a priority as truth": ({**BAM, "priority": True}, "priority: Input should be a valid integer"),
    "a broken priority": ({**BAM, "priority": 5.5}, "priority: Input should be a valid integer"),
    "an md5 of capitals": ({**BAM, "md5": "A" * 32}, "md5: must be 32 small hex digits"),
    "a short md5": ({**BAM, "md5": "a" * 31}, "md5: must be 32 small hex digits"),
    "a list of params": ({**BAM, "params": [1]}, "params: "),
    "a nested param": ({**BAM, "params": {"a": {"b": 1}}}, "params: must map names"),
    "a null param": ({**BAM, "params": {"a": None}}, "params: must map names"),
    "a param of an odd name": ({**BAM, "params": {"--out=/etc": 1}}, "params: must map names of letters"),
    "too many params": (
        {**BAM, "params": {f"p{n}": n for n in range(17)}},
        "params: Dictionary should have at most 16",
    ),
    "a long param": ({**BAM, "params": {"a": "x" * 1_025}}, "params: "),
    "no attempts": ({**BAM, "max_attempts": 0}, "max_attempts: Input should be greater than or equal to 1"),
    "endless attempts": ({**BAM, "max_attempts": 21}, "max_attempts: Input should be less than or equal to 20"),
    "no time": ({**BAM, "timeout_s": 0}, "timeout_s: Input should be greater than or equal to 1"),
    "endless time": ({**BAM, "timeout_s": 604_801}, "timeout_s: Input should be less than or equal to 604800"),
    "a parent that is no key": ({**BAM, "depends_on": ["a", "b c"]}, "depends_on.1: must be 1 to 8 segments"),
    "a parent outside a list": ({**BAM, "depends_on": "a"}, "depends_on: Input should be a valid array"),
    "too many parents": (
        {**BAM, "depends_on": [f"p{n}" for n in range(21)]},
        "depends_on: Tuple should have at most 20 items",
    ),
    "a parent twice": ({**BAM, "depends_on": ["a", "b", "a"]}, "depends_on: names a job twice"),
    "an array of one": ({**BAM, "array": 1}, "array: Input should be greater than or equal to 2"),
    "a vast array": ({**BAM, "array": 10_001}, "array: Input should be less than or equal to 10000"),
    "another choice": ({**BAM, "on_parent_failure": "release"}, "on_parent_failure: Input should be 'fail' or 'run'"),
    "a misspelt field": ({**BAM, "prioritiy": 1}, "prioritiy: no such field; the fields are source, processor"),
}


@pytest.mark.parametrize(("body", "expected"), REFUSED_BY_SHAPE.values(), ids=REFUSED_BY_SHAPE)
def test_what_is_refused_for_its_shape_is_refused_by_the_published_schema(body: object, expected: str) -> None:
    sentence = reason(body)
    assert sentence.startswith(expected)
    assert "\n" not in sentence
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(body)


# --- refused: what a schema cannot see

REFUSED_BY_MEANING: dict[str, tuple[object, str]] = {
    "no processor for the name": ({"source": "s3://bucket/a.txt"}, "processor: none takes a file named like this"),
    "a bucket without a key": ({"source": "s3://bucket/"}, "source: an S3 source reads s3://bucket/key"),
    "no bucket": ({"source": "s3:///a.bam"}, "source: an S3 source reads s3://bucket/key"),
    "a bucket that cannot be": ({"source": "s3://Bucket_1/a.bam"}, "source: an S3 source reads s3://bucket/key"),
    "a bucket named ..": ({"source": "s3://../a.bam"}, "source: an S3 source reads s3://bucket/key"),
    "a control character": ({"source": "s3://bucket/a\x07.bam"}, "source: an S3 source reads s3://bucket/key"),
    "no host": ({"source": "https:///a.bam"}, "source: an https source names a host"),
    "a user": ({"source": "https://me:pw@data.example.org/a.bam"}, "source: an https source names a host and no user"),
    "a host behind @": ({"source": "https://data.example.org@evil.example/a.bam"}, "source: an https source names"),
    "an empty user": (
        {"source": "https://@data.example.org/a.bam"},
        "source: an https source names a host and no user",
    ),
    "a tab in the host": ({"source": "https://data.exa\tmple.org/a.bam"}, "source: an https source holds no"),
    "another port": ({"source": "https://data.example.org:8443/a.bam"}, "source: the host data.example.org:8443 is"),
    "a port that cannot be": ({"source": "https://data.example.org:99999/a.bam"}, "source: an https source names"),
    "half an address": ({"source": "https://[::1/a.bam"}, "source: an https source names a host"),
    "a host not listed": ({"source": "https://evil.example/a.bam"}, "source: the host evil.example is not on"),
    "a host that ends alike": ({"source": "https://x.data.example.org/a.bam"}, "source: the host x.data.example.org"),
    "the metadata address": ({"source": "https://169.254.169.254/a.bam"}, "source: the host 169.254.169.254 is not"),
    "a param that the processor does not know": (
        {**BAM, "params": {"level": 1}},
        "params: bam knows no param 'level'; it takes none",
    ),
    "a command without its program": ({**BAM, "processor": "command"}, "params: command needs the param 'program'"),
    "a command beyond its program": (
        {**BAM, "processor": "command", "params": {"program": "cat", "arguments": "{source}", "shell": True}},
        "params: command knows no param 'shell'; it takes program, arguments",
    ),
    "an array whose elements are the same": ({**BAM, "array": 2}, "array: neither source nor params hold {index}"),
    "one sum for many sources": ({**PARTED, "md5": "0" * 32}, "md5: the array has many sources"),
    "an array under too deep a key": (
        {**PARTED, "workflow_key": "/".join("abcdefgh")},
        "workflow_key: that of an array has 7 segments",
    ),
    "an array under too long a key": (
        {**PARTED, "workflow_key": "/".join(["a" * 125] * 4)},
        "workflow_key: that of an array has 7 segments and 500",
    ),
    "itself as parent": ({**BAM, "workflow_key": "a", "depends_on": ["a"]}, "depends_on: names the job itself"),
    "itself by the key that is derived": (
        {**BAM, "depends_on": ["source/bam/" + "0" * 40, accepted(BAM).key]},
        "depends_on: names the job itself",
    ),
    "an unknown pool": ({**BAM, "pool": "gpu"}, "pool: there is no pool 'gpu'; the pools are arm-large, default"),
}


@pytest.mark.parametrize(("body", "expected"), REFUSED_BY_MEANING.values(), ids=REFUSED_BY_MEANING)
def test_a_message_that_cannot_run_is_refused_with_its_field(body: object, expected: str) -> None:
    assert reason(body).startswith(expected)


def test_without_an_allow_list_no_https_source_is_taken() -> None:
    with pytest.raises(Rejected, match=r"source: the host data\.example\.org is not on the allow-list"):
        submission(json.dumps(FULL), 0.0, POOLS, frozenset())


# --- refused: no message at all

NONSENSE: dict[str, str] = {
    "nothing": "",
    "prose": "please sort my file",
    "half an object": '{"source": "s3://bucket/a.bam"',
    "two objects": "{}{}",
    "a deep list": "[" * 4_000,
    "a deep field": '{"source": ' + "[" * 2_000 + "]" * 2_000 + "}",
    "deep params": '{"source": "s3://bucket/a.bam", "params": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
    "half a character": '{"source": "s3://bucket/\\ud800.bam"}',
    "a number beyond measure": '{"source": "s3://bucket/a.bam", "priority": ' + "9" * 5_000 + "}",
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
def test_what_is_no_json_is_refused_as_that(body: str) -> None:
    assert reason(body).startswith("Invalid JSON: ")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["params", "priority"])
def test_a_number_that_is_none_is_refused(value: str, field: str) -> None:
    shape = '{"x": %s}' % value if field == "params" else value  # noqa: UP031 - braces of JSON
    assert reason(f'{{"source": "s3://bucket/a.bam", "{field}": {shape}}}').startswith(f"{field}: ")


@pytest.mark.parametrize("unit", ["x", "[", '{"a":', "\0", "é", '"'])
def test_a_mebibyte_of_nonsense_is_refused_for_its_size(unit: str) -> None:
    body = (unit * limits.SQS_MESSAGE_MAX_BYTES)[: limits.SQS_MESSAGE_MAX_BYTES // len(unit.encode())]
    assert reason(body) == "the message is larger than 8,192 bytes"


def test_the_size_counts_bytes_and_not_characters() -> None:
    body = json.dumps({"source": "é" * (limits.REQUEST_MAX_BYTES // 2)}, ensure_ascii=False)
    assert len(body) < limits.REQUEST_MAX_BYTES
    assert "larger than" in reason(body)


def test_a_reason_is_never_longer_than_an_error_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the name is that it repeats, and however many processors a deployment declares."""
    assert len(reason({**BAM, "x" * 7_000: 1})) <= limits.ERROR_MAX_CHARS
    for number in range(64):
        name = f"processor-number-{number}"
        monkeypatch.setitem(PROCESSORS, name, Processor(name, 1, (), ("out",)))
    assert len(reason({**BAM, "processor": "none"})) == limits.ERROR_MAX_CHARS


# --- derived keys


def key_of(**changes: Any) -> str:
    return accepted({**BAM, "processor": "bam", **changes}).key


def test_the_derived_key_is_the_same_on_every_machine_and_release() -> None:
    assert key_of() == "source/bam/f89d7b86635b53bfd5276e3fac75d02a8e2617a6"


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"source": "s3://bucket/reads/b.bam"},
    {"md5": "0" * 32},
    {"md5": "1" * 32},
    {"processor": "sam"},
    *({"processor": "any", "params": params} for params in ({}, {"x": 1}, {"x": "1"}, {"x": True}, {"x": 1, "y": 2})),
]


@pytest.fixture
def any_params(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that takes any of a few params."""
    monkeypatch.setitem(PROCESSORS, "any", Processor("any", 1, (), ("out",), ("x", "y", "a", "b")))


@pytest.mark.usefixtures("any_params")
def test_what_changes_the_result_changes_the_key() -> None:
    assert len({key_of(**changes) for changes in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("changes", [{"priority": 1}, {"pool": "arm-large"}, {"max_attempts": 9}, {"timeout_s": 9}])
def test_what_does_not_change_the_result_does_not_change_the_key(changes: dict[str, Any]) -> None:
    assert key_of(**changes) == key_of()


@pytest.mark.usefixtures("any_params")
def test_the_key_does_not_depend_on_the_order_of_params_nor_on_naming_the_processor() -> None:
    assert key_of(processor="any", params={"a": 1, "b": 2}) == key_of(processor="any", params={"b": 2, "a": 1})
    assert accepted(BAM).key == key_of()


def test_a_derived_key_may_be_given_as_a_key() -> None:
    assert accepted({**BAM, "workflow_key": key_of()}).key == key_of()


# --- S3's own word


def object_created(key: str, etag: str = "0" * 32, bucket: str = "input-bucket", **changes: Any) -> dict[str, Any]:
    """What EventBridge delivers for a new object."""
    detail = {
        "version": "0",
        "bucket": {"name": bucket},
        "object": {"key": key, "size": 5, "etag": etag, "sequencer": "00617F08299329D189"},
        "request-id": "N4N7GDK58NMKJ12R",
        "requester": "123456789012",
        "source-ip-address": "1.2.3.4",
        "reason": "PutObject",
    }
    envelope = {"version": "0", "id": "17793124-05d4", "detail-type": "Object Created", "source": "aws.s3"}
    about = {"account": "123456789012", "time": "2026-11-12T00:00:00Z", "region": "us-east-1"}
    return {**envelope, **about, "resources": [f"arn:aws:s3:::{bucket}"], "detail": detail, **changes}


NAMES = [
    "reads/a.bam",
    "a b.bam",
    'say "a".bam',
    "a+b%20c%.bam",
    "größe/日本🧬.bam",
    "back\\slash&<tag>'.bam",
    "?a=b#c.bam",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_new_object_asks_for_the_job_of_its_source_whatever_it_is_called(name: str) -> None:
    taken = accepted(object_created(name))
    asked = accepted({"source": f"s3://input-bucket/{name}"})
    assert (taken.request, taken.pool, taken.priority) == (asked.request, asked.pool, asked.priority)
    assert accepted({**BAM, "workflow_key": taken.key}).key == taken.key


def test_an_object_with_other_contents_is_another_key_and_the_same_event_twice_is_not() -> None:
    first, again, changed = (
        accepted(object_created("a.bam", etag)).key for etag in ("1" * 32, "1" * 32, "2" * 32 + "-7")
    )
    assert first == again != changed
    assert accepted({"source": "s3://input-bucket/a.bam"}).key not in {first, changed}


def test_the_etag_is_an_identity_and_no_checksum() -> None:
    assert accepted(object_created("a.bam", "0" * 32)).request.md5 == ""


REFUSED_OBJECTS: dict[str, tuple[object, str]] = {
    "a name that no processor takes": (object_created("notes.txt"), "processor: none takes a file named like this"),
    "a folder": (object_created("reads/"), "processor: none takes a file named like this"),
    "a control character": (object_created("a\x07.bam"), "source: an S3 source reads s3://bucket/key"),
    "a long key": (object_created("a" * 1_020 + ".bam"), "source: String should have at most 1024"),
    "another event of S3": (
        object_created("a.bam", **{"detail-type": "Object Deleted"}),
        "source: must read s3://bucket/key or https",
    ),
    "an event of somebody else": (
        object_created("a.bam", source="my.app"),
        "source: must read s3://bucket/key or https",
    ),
    "an event without an object": (object_created("a.bam", detail={}), "source: must read s3://bucket/key or https"),
}


@pytest.mark.parametrize(("body", "expected"), REFUSED_OBJECTS.values(), ids=REFUSED_OBJECTS)
def test_an_object_that_cannot_be_a_job_is_refused_like_any_message(body: object, expected: str) -> None:
    assert reason(body).startswith(expected)


def test_an_object_is_refused_where_its_pool_does_not_exist() -> None:
    with pytest.raises(Rejected, match="pool: there is no pool 'default'"):
        submission(json.dumps(object_created("a.bam")), 0.0, {"other": Pool("other", 1)}, HOSTS)


# --- word of publish


@pytest.mark.parametrize(
    "body",
    ["", "{}", '{"recheck": []}', '{"recheck": ["a b"]}', '{"recheck": "a"}', "[1]"],
)
def test_what_is_no_word_of_publish_is_read_as_a_message_and_refused(body: str) -> None:
    assert to_recheck(body) == []
    assert reason(body)


def test_the_word_of_publish_names_the_jobs_to_judge() -> None:
    assert to_recheck('{"recheck": ["a/v1", "b"]}') == ["a/v1", "b"]


# --- whatever arrives

fields = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(
            st.sampled_from([FULL[name], BAM["source"], None, True, -1, 10**9, "", "a/../b"]),
            st.text(max_size=40),
            st.floats(),
            st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.none(), max_size=3),
        )
        for name in Message.model_fields
    },
)


@quick
@given(text=st.text())
def test_any_text_is_accepted_or_refused_and_nothing_else(text: str) -> None:
    try:
        accepted(text)
    except Rejected as refusal:
        assert str(refusal)


@quick
@given(body=fields, source=st.sampled_from(["s3://bucket/", "https://data.example.org/", "https://"]), rest=st.text())
def test_any_object_is_accepted_within_the_limits_or_refused(body: dict[str, Any], source: str, rest: str) -> None:
    try:
        taken = accepted({**body, "source": source + rest})
    except Rejected as refusal:
        assert str(refusal)
    else:
        assert taken.pool in POOLS
        assert taken.request.processor in PROCESSORS
        assert limits.PRIORITY_MIN <= taken.priority <= limits.PRIORITY_MAX


SCHEMA: Final = jsonschema.Draft202012Validator(json_schema())


@quick
@given(
    body=fields.filter(lambda body: not any(isinstance(value, float) for value in body.values())),
    source=st.sampled_from([BAM["source"], FULL["source"], "ftp://x/a.bam", 7]),
)
def test_what_the_schema_refuses_is_refused(body: dict[str, Any], source: object) -> None:
    message = {**body, "source": source}
    if not SCHEMA.is_valid(message):
        assert reason(message)


def test_the_schema_in_the_docs_is_the_one_that_is_enforced() -> None:
    published = Path(__file__).parent.parent / "docs" / "message.schema.json"
    assert json.loads(published.read_text()) == json_schema()
