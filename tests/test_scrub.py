"""No path of a machine, no signature and no credential in an error or a log line, whoever writes it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

import handlers.log
from fleetcap import limits
from fleetcap.adapters.system import LineLog
from fleetcap.fleet import Fleet
from fleetcap.scrub import scrubbed, scrubbed_field
from handlers.intake import Intake
from tests.fakes import FakeCache, FakeRechecks

KEY_ID = "AKIA" + "IOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG" + "/bPxRfiCYEXAMPLEKEY"
SESSION = "IQoJb3JpZ2luX2VjE" + "Jr" * 40
WEB_TOKEN = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
PRESIGNED = (
    f"https://bucket.s3.amazonaws.com/sample.bam?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY_ID}%2F20261122"
    f"&X-Amz-Security-Token={SESSION}&X-Amz-Signature={SIGNATURE}"
)
FOLDER = "/tmp/fleetcap/attempt-1-x"

SAID = {
    "a presigned address": (f"cannot read {PRESIGNED} twice", [KEY_ID, SESSION, SIGNATURE]),
    "its query alone": (f"X-Amz-Security-Token={SESSION}&X-Amz-Signature={SIGNATURE}", [SESSION, SIGNATURE]),
    "a user in front of a host": ("GET https://me:hunter22@example.org/x", ["hunter22", "me:"]),
    "a key id": (f"The key {KEY_ID} is unknown", [KEY_ID]),
    "a secret key with its name": (f"aws_secret_access_key = {SECRET_KEY}", [SECRET_KEY]),
    "a secret key in an environment": (f"AWS_SECRET_ACCESS_KEY='{SECRET_KEY}' samtools", [SECRET_KEY]),
    "a secret key by itself": (f"tried {SECRET_KEY}, refused", [SECRET_KEY]),
    "a session token by itself": (f"with {SESSION}", [SESSION]),
    "a web token": (f"sent {WEB_TOKEN}", [WEB_TOKEN.split(".")[1]]),
    "an authorization header": ("Authorization: Bearer abc.def.ghi", ["abc.def"]),
    "a bearer without its header": ("used bearer abcdefghijkl", ["abcdefghijkl"]),
    "a token in JSON": ('{"api_token": "s3cr3t-value", "n": 1}', ["s3cr3t"]),
    "JSON within JSON": (r"{\"password\":\"hunter22\"}", ["hunter22"]),
    "words in quotes": ("password='correct horse battery'", ["correct", "horse", "battery"]),
    "a flag of a command": ("curl --api-token hunter22 -v", ["hunter22"]),
    "a scheme of one's own": ("Authorization: token abcdefgh12345", ["abcdefgh"]),
    "a loud bearer": ("BEARER abcdefghijkl", ["abcdefghijkl"]),
    "a secret key under any name": (f"key={SECRET_KEY}", [SECRET_KEY]),
    "other names of secrets": ("pwd=abcd1234 passphrase: efgh1234 PRIVATE_KEY=ijkl", ["abcd", "efgh", "ijkl"]),
    "a path": (f"cannot open {FOLDER}/source: no such file", [FOLDER, "fleetcap"]),
    "a path in a representation": (f"FileNotFoundError(2, 'gone', '{FOLDER}/source')", [FOLDER]),
}


@pytest.mark.parametrize(("text", "secrets"), SAID.values(), ids=SAID)
def test_nothing_that_opens_a_door_is_left_of(text: str, secrets: list[str]) -> None:
    assert [secret for secret in secrets if secret in scrubbed(text)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /tmp/work/x.bam: gone", "cannot open (path): gone"),
        ('failed on "/a b"', 'failed on "(path) b"'),
        ("s3://bucket/key and https://host/path stay", "s3://bucket/key and https://host/path stay"),
        ("read https://host/path?signature=secret twice", "read https://host/path twice"),
        ("file:///tmp/x", "file:(path)"),
        ("path=/tmp/x", "path=(path)"),
        ("either/or stays, two\nlines join", "either/or stays, two lines join"),
        ("/tmp/x", "(path)"),
        ("password=hunter22 for me", "password=(secret) for me"),
    ],
)
def test_a_scrubbed_sentence_still_reads(text: str, expected: str) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    "name",
    [
        "default/7#1789000000",
        "source/bam/" + "0123456789abcdef0123456789abcdef01234567",
        "A1/b/0123456789abcdef0123456789abcdef/v1",
        "0123456789abcdef0123456789abcdef01234567",
        "arn:aws:ecs:us-east-1:123456789012:task/cluster/0123456789abcdef0123456789abcdef",
        "the fencing token is old",
    ],
)
def test_keys_leases_arns_and_digests_stay_as_they_are(name: str) -> None:
    assert scrubbed(name) == name


def test_long_texts_are_cut_whatever_they_are_made_of() -> None:
    assert len(scrubbed("x" * 5_000)) == limits.ERROR_MAX_CHARS
    noise = ["a" * 10**7, "secret" * 10**6, "://a@" * 10**6, "/ " * 10**6, "aA1/" * 10**6]
    assert all(len(scrubbed(each)) <= limits.ERROR_MAX_CHARS for each in noise)


def test_fields_are_scrubbed_wherever_a_text_stands_in_them() -> None:
    told = scrubbed_field({"n": 1, "none": None, "deep": [{"why": f"in {FOLDER}"}], "error": OSError(FOLDER)})
    assert told == {"n": 1, "none": None, "deep": [{"why": "in (path)"}], "error": "(path)"}


# --- the two logs


@pytest.fixture
def deciders_log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the deciders' logger writes."""
    written = io.StringIO()
    monkeypatch.setattr(handlers.log._logger.registered_handler, "stream", written)
    return written


def leaked(text: str) -> list[str]:
    return [secret for _, secrets in SAID.values() for secret in secrets if secret in text]


@pytest.mark.parametrize("text", [text for text, _ in SAID.values()], ids=SAID)
def test_the_log_of_a_worker_keeps_it_to_itself(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    LineLog(lease="default/7#1", where=text)("output", line=text, attempt=3, deep={"error": text})
    line = capsys.readouterr().err
    assert (json.loads(line)["message"], json.loads(line)["attempt"]) == ("output", 3)
    assert leaked(line) == []


class _Rejects:
    def reject(self, body: str, reason: str, message_id: str) -> None:
        """Keep nothing."""


class _BrokenCache(FakeCache):
    def has_all(self, keys: Any) -> bool:
        raise OSError(f"{keys} {PRESIGNED} under {FOLDER} with {SECRET_KEY}")


@pytest.mark.parametrize("text", [text for text, _ in SAID.values()], ids=SAID)
def test_the_log_of_intake_keeps_it_to_itself(fleet: Fleet, deciders_log: io.StringIO, text: str) -> None:
    fleet = Fleet(fleet.pools, fleet.table, fleet.tasks, fleet.clock, handlers.log.log)
    intake = Intake(fleet, _BrokenCache(), _Rejects(), frozenset(), FakeRechecks())
    bodies = [{"source": text}, {"source": "s3://bucket/a.bam", "processor": text}, {"source": PRESIGNED}, {text: 1}]
    good = {"source": "s3://bucket/a.bam"}
    records = [
        {"messageId": str(number), "attributes": {"SentTimestamp": "1"}, "body": json.dumps(body)}
        for number, body in enumerate([*bodies, good])
    ]
    assert intake.handle({"Records": records}) == {"batchItemFailures": [{"itemIdentifier": "4"}]}
    lines = deciders_log.getvalue()
    assert [json.loads(line)["message"] for line in lines.splitlines()] == ["rejected"] * 4 + [
        "not taken in",
        "took in",
    ]
    assert leaked(lines) == []
