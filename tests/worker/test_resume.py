"""Downloads that break off, from a server that knows ranges and from S3: they go on, and never mix two versions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from botocore.exceptions import ClientError

from fleetcap.sources import SourceRules
from tests.worker.https import serving
from worker_image.download import CHUNK_BYTES, RETRY_AFTER_MAX_S, Downloader
from worker_image.errors import TransientError
from worker_image.processors.base import InputError
from worker_image.scratch import GIB_BYTES, Room

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

OLD = bytes(range(256)) * 16_000
NEW = OLD[::-1]


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass
class Plan:
    """What the server does. `breaks` counts connections that end after `after_bytes` of a body."""

    data: bytes = OLD
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"v1"'})
    breaks: int = 0
    after_bytes: int = 0
    errors: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    then: Plan | None = None
    says: dict[str, str] = field(default_factory=dict)
    with_length: bool = True


class Server(BaseHTTPRequestHandler):
    """Serves what `plan` says; a break moves on to `plan.then`, if there is one."""

    plan: ClassVar[Plan] = Plan()
    asked: ClassVar[list[tuple[str, str]]] = []
    sent_bytes: ClassVar[int] = 0

    def do_GET(self) -> None:
        plan = Server.plan
        asked, name = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        Server.asked.append((asked, name))
        if plan.errors:
            status, headers = plan.errors.pop(0)
            return self.answer(status, b"", headers)
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and plan.ranges else 0
        if name and name not in {plan.headers.get("ETag"), plan.headers.get("Last-Modified")}:
            first = 0
        if first >= len(plan.data):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(plan.data)}"})
        whole = len(plan.data)
        headers = {"Content-Range": f"bytes {first}-{whole - 1}/{whole}"} if first else {}
        return self.answer(206 if first else 200, plan.data[first:], plan.headers | headers | plan.says)

    def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        plan, sent = Server.plan, data
        if data and plan.breaks:
            plan.breaks -= 1
            sent = data[: plan.after_bytes]
            Server.plan = plan.then or plan
        self.send_response_only(status)
        for name, value in {"Date": formatdate(usegmt=True), **headers}.items():
            self.send_header(name, value)
        if plan.with_length:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(sent)
        Server.sent_bytes += len(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(Server, tmp_path_factory.mktemp("tls")) as number:
        yield number


@dataclass
class Fetched:
    data: bytes
    pauses: list[float]
    asked: list[tuple[str, str]]
    sent_bytes: int


def fetched(port: int, plan: Plan, folder: Path, md5: str = "", room: Room | None = None) -> Fetched:
    Server.plan, Server.sent_bytes = plan, 0
    Server.asked.clear()
    host, pauses = f"127.0.0.1:{port}", list[float]()
    rules = SourceRules(private_hosts=[host])
    downloader = Downloader(None, [host], rules, room, pause=pauses.append)  # type: ignore[arg-type]
    downloader.fetch(f"https://{host}/file", md5, folder / "source", lambda _: None)
    return Fetched((folder / "source").read_bytes(), pauses, list(Server.asked), Server.sent_bytes)


def test_a_download_that_breaks_off_often_goes_on_where_it_stopped(port: int, tmp_path: Path) -> None:
    breaks, after = 10, 350_000
    found = fetched(port, Plan(breaks=breaks, after_bytes=after), tmp_path, md5_of(OLD))
    assert found.data == OLD
    assert len(found.asked) == breaks + 1
    assert found.asked[0] == ("", "")
    assert {name for _, name in found.asked[1:]} == {'"v1"'}
    # What a break costs is at most the piece that was under way.
    assert found.sent_bytes <= len(OLD) + breaks * CHUNK_BYTES
    assert found.pauses == [0.5] * breaks


def test_a_last_modified_that_lies_well_back_serves_as_well(port: int, tmp_path: Path) -> None:
    modified = formatdate(time.time() - 3_600, usegmt=True)
    plan = Plan(headers={"Last-Modified": modified}, breaks=2, after_bytes=1_000_000)
    found = fetched(port, plan, tmp_path, md5_of(OLD))
    assert [name for _, name in found.asked] == ["", modified, modified]
    assert found.sent_bytes <= len(OLD) + 2 * CHUNK_BYTES


@pytest.mark.parametrize(
    "headers",
    [{}, {"ETag": 'W/"v1"'}, {"Last-Modified": formatdate(time.time() + 3_600, usegmt=True)}, {"Last-Modified": "x"}],
    ids=["none", "a weak ETag", "too fresh a date", "no date"],
)
def test_without_a_strong_name_of_the_version_it_begins_anew(
    port: int, tmp_path: Path, headers: dict[str, str]
) -> None:
    found = fetched(port, Plan(headers=headers, breaks=2, after_bytes=1_000_000), tmp_path, md5_of(OLD))
    assert (found.data, found.asked) == (OLD, [("", "")] * 3)


@pytest.mark.parametrize("ranges", [True, False], ids=["by its name", "and the server knows no ranges"])
def test_a_file_that_changed_meanwhile_is_fetched_anew(port: int, tmp_path: Path, ranges: bool) -> None:
    then = Plan(data=NEW, headers={"ETag": '"v2"'}, ranges=ranges)
    found = fetched(port, Plan(breaks=1, after_bytes=1_000_000, then=then), tmp_path, md5_of(NEW))
    assert found.data == NEW


@pytest.mark.parametrize(
    "says",
    [{"ETag": '"v2"'}, {"Content-Range": f"bytes 5-{len(OLD) - 1}/{len(OLD)}"}, {"Content-Range": "lines 1-2/3"}],
    ids=["another version", "another place", "no range"],
)
def test_a_server_that_ignores_the_condition_is_found_out(port: int, tmp_path: Path, says: dict[str, str]) -> None:
    lying = Plan(data=NEW, headers={"ETag": '"v1"'}, says=says)
    found = fetched(port, Plan(breaks=1, after_bytes=1_000_000, then=lying), tmp_path, md5_of(NEW))
    assert found.data == NEW
    assert found.asked[-1] == ("", "")


def test_a_range_that_the_server_cannot_satisfy_begins_anew(port: int, tmp_path: Path) -> None:
    shorter = Plan(data=NEW[:1_000])
    found = fetched(port, Plan(breaks=1, after_bytes=1_000_000, then=shorter), tmp_path, md5_of(NEW[:1_000]))
    assert (found.data, found.asked[-1]) == (NEW[:1_000], ("", ""))


def test_an_answer_of_unknown_length_that_comes_whole_is_taken(port: int, tmp_path: Path) -> None:
    assert fetched(port, Plan(with_length=False), tmp_path, md5_of(OLD)).data == OLD


def test_the_md5_is_that_of_the_whole_file(port: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"md5 is {md5_of(OLD)}"):
        fetched(port, Plan(breaks=3, after_bytes=500_000), tmp_path, md5_of(NEW))
    assert not (tmp_path / "source").exists()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_that_asks_for_time_is_given_some(port: int, tmp_path: Path, status: int) -> None:
    later = formatdate(time.time() + 3_600, usegmt=True)
    waits = [{"Retry-After": "7"}, {"Retry-After": "86400"}, {"Retry-After": later}]
    found = fetched(port, Plan(errors=[(status, headers) for headers in waits]), tmp_path)
    assert found.data == OLD
    assert found.pauses == [7.0, RETRY_AFTER_MAX_S, RETRY_AFTER_MAX_S]


@pytest.mark.parametrize("header", ["soon", "-5", "0", formatdate(0, usegmt=True), ""])
def test_nonsense_about_waiting_is_overlooked(port: int, tmp_path: Path, header: str) -> None:
    assert fetched(port, Plan(errors=[(503, {"Retry-After": header})]), tmp_path).pauses == [0.5]


def test_a_server_that_breaks_off_without_an_end_is_given_up(port: int, tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        fetched(port, Plan(breaks=10_000, after_bytes=0), tmp_path)
    assert len(Server.asked) == 4


# --- room


def test_a_source_that_no_disk_of_the_pool_holds_is_refused_before_it_is_fetched(port: int, tmp_path: Path) -> None:
    room = Room("small", 21, usage=lambda _: (100 * GIB_BYTES, 0, 100 * GIB_BYTES))
    plan = Plan(with_length=False, headers={"Content-Length": str(20 * GIB_BYTES)})
    with pytest.raises(InputError) as refused:
        fetched(port, plan, tmp_path, room=room)
    assert str(refused.value) == "input: the source needs 60 GiB of disk (3 × its 20 GiB), pool small has 21 GiB"
    assert (len(Server.asked), (tmp_path / "source.part").stat().st_size) == (1, 0)


def test_a_disk_that_is_only_full_now_is_no_fault_of_the_source(port: int, tmp_path: Path) -> None:
    free = [1_000, 1_000, 100 * len(OLD)]
    room = Room("small", 21, usage=lambda _: (30 * GIB_BYTES, 0, free.pop(0)))
    assert fetched(port, Plan(), tmp_path, room=room).data == OLD
    room = Room("small", 21, usage=lambda _: (30 * GIB_BYTES, 0, 1_000))
    with pytest.raises(TransientError, match=r"^disk full now: the source needs .* of 21 GiB are free$"):
        fetched(port, Plan(), tmp_path, room=room)


# --- s3


class Breaking:
    """An S3 whose bodies end early `breaks` times, and that counts what it is asked for and what it serves."""

    def __init__(self, s3: S3Client, breaks: int, after_bytes: int, changes: bytes = b"") -> None:
        self.s3, self.breaks, self.after_bytes, self.changes = s3, breaks, after_bytes, changes
        self.asked: list[dict[str, Any]] = []
        self.sent_bytes = 0

    def get_object(self, **asked: Any) -> Any:
        self.asked.append(asked)
        answer: Any = self.s3.get_object(**asked)
        stop = self.after_bytes if self.breaks else None
        if self.breaks:
            self.breaks -= 1
        whole = answer["Body"]

        def chunks(size: int) -> Iterator[bytes]:
            sent = 0
            for chunk in whole.iter_chunks(size):
                if stop is not None and sent + len(chunk) > stop:
                    if self.changes:
                        self.s3.put_object(Bucket=asked["Bucket"], Key=asked["Key"], Body=self.changes)
                    raise ConnectionResetError
                sent += len(chunk)
                self.sent_bytes += len(chunk)
                yield chunk

        answer["Body"] = type("Body", (), {"iter_chunks": staticmethod(chunks), "close": staticmethod(whole.close)})
        return answer


def fetched_s3(breaking: Breaking, folder: Path, md5: str, rules: SourceRules | None = None) -> bytes:
    downloader = Downloader(breaking, [], rules, pause=lambda _: None)  # type: ignore[arg-type]
    downloader.fetch("s3://sources/resumed", md5, folder / "source", lambda _: None)
    return (folder / "source").read_bytes()


@pytest.mark.cloud
def test_a_download_from_s3_goes_on_where_it_stopped(s3: S3Client, tmp_path: Path) -> None:
    s3.put_object(Bucket="sources", Key="resumed", Body=OLD)
    breaking = Breaking(s3, breaks=7, after_bytes=500_000)
    assert fetched_s3(breaking, tmp_path, md5_of(OLD)) == OLD
    assert len(breaking.asked) == 8
    assert breaking.sent_bytes == len(OLD)
    version = s3.head_object(Bucket="sources", Key="resumed")["ETag"]
    assert {asked["IfMatch"] for asked in breaking.asked[1:]} == {version}


@pytest.mark.cloud
def test_an_object_that_changed_meanwhile_is_fetched_anew(s3: S3Client, tmp_path: Path) -> None:
    s3.put_object(Bucket="sources", Key="resumed", Body=OLD)
    breaking = Breaking(s3, breaks=1, after_bytes=500_000, changes=NEW)
    assert fetched_s3(breaking, tmp_path, md5_of(NEW)) == NEW
    assert ["IfMatch" in asked for asked in breaking.asked] == [False, True, False]


class Strict:
    """An S3 in front of another account's bucket, where the requester pays."""

    def __init__(self, s3: S3Client) -> None:
        self.s3, self.asked = s3, list[dict[str, Any]]()

    def get_object(self, **asked: Any) -> Any:
        self.asked.append(dict(asked))
        if asked.pop("ExpectedBucketOwner", "") != "123456789012" or asked.pop("RequestPayer", "") != "requester":
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObject")
        return self.s3.get_object(**asked)


@pytest.mark.cloud
def test_another_accounts_bucket_is_read_on_its_terms_and_only_if_it_is_that_accounts(
    s3: S3Client, tmp_path: Path
) -> None:
    s3.put_object(Bucket="sources", Key="resumed", Body=OLD)
    rules = SourceRules(owners={"sources": "123456789012"}, requester_pays=["sources"])
    assert fetched_s3(Strict(s3), tmp_path, md5_of(OLD), rules) == OLD  # type: ignore[arg-type]
    wrong = SourceRules(owners={"sources": "210987654321"}, requester_pays=["sources"])
    with pytest.raises(InputError, match="may not be read by this worker, or is not account 210987654321's"):
        fetched_s3(Strict(s3), tmp_path, "", wrong)  # type: ignore[arg-type]
    plain = Strict(s3)
    with pytest.raises(InputError, match=r"may not be read by this worker$"):
        fetched_s3(plain, tmp_path, "")  # type: ignore[arg-type]
    assert plain.asked == [{"Bucket": "sources", "Key": "resumed"}]
