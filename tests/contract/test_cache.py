"""The cache against a real S3 interface: one creator per key, whatever the size and however many try."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from fleetcap.adapters.cache import S3Cache
from fleetcap.ports import Cache
from tests.emulator import running_emulator, s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.cloud

PART_BYTES = 5 * 1024 * 1024
"""The smallest part that S3 takes."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Client]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket="cache", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client
        client.close()


@pytest.fixture
def cache(s3: S3Client, tmp_path: Path) -> S3Cache:
    return S3Cache(s3, "cache", f"/tests/{tmp_path.name}/", part_bytes=PART_BYTES)


def file_of(folder: Path, data: bytes, name: str = "file") -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def uploads(s3: S3Client) -> list[Any]:
    return list(s3.list_multipart_uploads(Bucket="cache").get("Uploads", []))


def test_it_is_a_cache(cache: S3Cache) -> None:
    port: Cache = cache
    assert port.has_all([]) is False


def test_all_keys_are_there_only_when_every_one_is(cache: S3Cache, tmp_path: Path) -> None:
    cache.commit(file_of(tmp_path, b"1"), "a/b", "x")
    assert cache.has_all(["a/b"])
    assert not cache.has_all(["a/b", "a/c"])


class Forbidden:
    """An S3 that answers 403, as it does to those who may not list the bucket."""

    def head_object(self, **_: str) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")


def test_a_bucket_that_may_not_be_asked_is_an_error_and_not_a_missing_key() -> None:
    with pytest.raises(ClientError, match="403"):
        S3Cache(Forbidden(), "cache").has_all(["a"])  # type: ignore[arg-type]


def test_the_first_upload_creates_and_the_second_leaves_it_in_place(cache: S3Cache, tmp_path: Path) -> None:
    first = cache.commit(file_of(tmp_path, b"first"), "k", "x")
    second = cache.commit(file_of(tmp_path, b"the second"), "k", "x")
    assert (first.created, first.size_bytes) == (True, 5)
    assert (second.created, second.size_bytes) == (False, 5)
    assert cache.fetch("k", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"first"


def test_fetching_what_is_not_there_leaves_no_file(cache: S3Cache, tmp_path: Path) -> None:
    assert not cache.fetch("nothing", str(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(cache: S3Cache, s3: S3Client, tmp_path: Path) -> None:
    data = os.urandom(2 * PART_BYTES + 17)
    assert cache.commit(file_of(tmp_path, data), "large", "x").created
    assert cache.fetch("large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert s3.head_object(Bucket="cache", Key=cache._place("large"))["ETag"].endswith('-3"')


def test_a_large_file_that_came_second_leaves_no_parts_behind(cache: S3Cache, s3: S3Client, tmp_path: Path) -> None:
    cache.commit(file_of(tmp_path, b"first"), "large", "x")
    second = cache.commit(file_of(tmp_path, bytes(PART_BYTES + 1)), "large", "x")
    assert (second.created, second.size_bytes) == (False, 5)
    assert uploads(s3) == []


def test_a_failed_part_aborts_the_upload(
    cache: S3Cache, s3: S3Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(s3, "upload_part", broken)
    with pytest.raises(ConnectionError):
        cache.commit(file_of(tmp_path, bytes(PART_BYTES + 1)), "large", "x")
    assert uploads(s3) == []


@pytest.mark.parametrize("size_bytes", [1_000, PART_BYTES + 1_000])
def test_a_race_has_exactly_one_creator(cache: S3Cache, tmp_path: Path, size_bytes: int) -> None:
    racers = 8
    start, created = threading.Barrier(racers), []

    def race(number: int) -> None:
        path = file_of(tmp_path, bytes([number]) * size_bytes, f"file-{number}")
        start.wait()
        created.append(cache.commit(path, "raced", "x").created)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False] * (racers - 1) + [True]


class Conflicting:
    """An S3 that answers 409 to the first `times` conditional writes."""

    def __init__(self, s3: S3Client, times: int) -> None:
        self.s3, self.left = s3, times

    def put_object(self, **parameters: Any) -> Any:
        if self.left:
            self.left -= 1
            raise ClientError({"Error": {"Code": "ConditionalRequestConflict", "Message": ""}}, "PutObject")
        return self.s3.put_object(**parameters)


def test_a_conflict_with_a_write_in_progress_is_tried_again(s3: S3Client, tmp_path: Path) -> None:
    cache = S3Cache(Conflicting(s3, times=2), "cache", "conflict")  # type: ignore[arg-type]
    assert cache.commit(file_of(tmp_path, b"1"), "k", "x").created


def test_endless_conflicts_are_an_error_in_the_end(s3: S3Client, tmp_path: Path) -> None:
    cache = S3Cache(Conflicting(s3, times=100), "cache", "endless")  # type: ignore[arg-type]
    with pytest.raises(ClientError, match="ConditionalRequestConflict"):
        cache.commit(file_of(tmp_path, b"1"), "k", "x")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\\b", "a\nb"])
def test_keys_that_leave_their_folder_are_refused(cache: S3Cache, tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a cache key"):
        cache.commit(file_of(tmp_path, b"1"), key, "x")
    with pytest.raises(ValueError, match="not a cache key"):
        cache.has_all([key])
