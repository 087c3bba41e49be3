"""The cache against a real S3 interface: one creator per key, whatever the size and however many try."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from fleetcap.adapters.cache import S3Cache
from fleetcap.model import Artifact
from fleetcap.ports import Cache
from tests.emulator import running_emulator, s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.cloud

PART_BYTES = 5 * 1024 * 1024
"""The smallest part that S3 takes."""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as url:
        yield url


@pytest.fixture(scope="module")
def s3(endpoint: str) -> Iterator[S3Client]:
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
    for call in (cache.size_bytes, cache.delete, lambda key: cache.has_all([key]), lambda key: list(cache.get(key))):
        with pytest.raises(ValueError, match="not a cache key"):
            call(key)


# --- reading and deleting


def test_an_artifact_is_read_whole_or_in_part_by_small_pieces(cache: S3Cache, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    cache.commit(file_of(tmp_path, data), "k", "x")
    assert cache.size_bytes("k") == len(data)
    pieces = list(cache.get("k"))
    assert (b"".join(pieces), max(map(len, pieces))) == (data, 64 * 1024)
    assert b"".join(cache.get("k", 5, 9)) == data[5:10]
    assert b"".join(cache.get("k", 299_990)) == data[-10:]
    assert b"".join(cache.get("k", 299_990, 400_000)) == data[-10:]
    assert list(cache.get("k", 300_000)) == []


def test_what_is_missing_is_empty_and_no_error(cache: S3Cache) -> None:
    assert list(cache.get("nothing")) == []
    assert list(cache.get("nothing", 0, 10)) == []
    assert cache.size_bytes("nothing") is None
    assert cache.standing("nothing") is None
    assert not cache.delete("nothing")


def test_a_deleted_artifact_is_gone_and_only_the_version_meant(cache: S3Cache, tmp_path: Path) -> None:
    cache.commit(file_of(tmp_path, b"1"), "k", "x")
    assert not cache.delete("k", '"another"')
    assert cache.size_bytes("k") == 1
    assert cache.delete("k")
    assert cache.size_bytes("k") is None


def test_deployments_that_share_a_bucket_do_not_see_each_others_artifacts(s3: S3Client, tmp_path: Path) -> None:
    mine, theirs = S3Cache(s3, "cache", "mine"), S3Cache(s3, "cache", "theirs")
    mine.commit(file_of(tmp_path, b"1"), "k", "x")
    assert (mine.has_all(["k"]), theirs.has_all(["k"]), list(theirs.get("k"))) == (True, False, [])
    assert not theirs.delete("k")


# --- runs that replace


SIZES = pytest.mark.parametrize("size_bytes", [1_000, PART_BYTES + 1_000], ids=["in one piece", "in parts"])


def bytes_at(cache: S3Cache, key: str) -> bytes:
    return b"".join(cache.get(key))[:1]


def put(cache: S3Cache, folder: Path, letter: bytes, size_bytes: int, made_for: float, since: float = 0.0) -> Artifact:
    return cache.commit(file_of(folder, letter * size_bytes, f"{letter!r}"), "k", "x", made_for, since)


@SIZES
def test_a_forced_run_replaces_what_is_older_and_nothing_else(cache: S3Cache, tmp_path: Path, size_bytes: int) -> None:
    assert put(cache, tmp_path, b"a", size_bytes, 100.5).created
    assert not put(cache, tmp_path, b"b", size_bytes, 200.5).created
    assert bytes_at(cache, "k") == b"a"
    assert cache.standing("k", since=100.5)
    assert cache.standing("k", since=200.5) is None
    assert not cache.has_all(["k"], since=200.5)
    assert put(cache, tmp_path, b"c", size_bytes, 200.5, since=200.5).created
    assert bytes_at(cache, "k") == b"c"
    again = put(cache, tmp_path, b"d", size_bytes + 1, 200.5, since=200.5)
    assert (again.created, again.size_bytes, bytes_at(cache, "k")) == (False, size_bytes, b"c")


@SIZES
def test_a_zombie_of_an_older_forced_run_changes_nothing(cache: S3Cache, tmp_path: Path, size_bytes: int) -> None:
    put(cache, tmp_path, b"n", size_bytes, 300.0, since=300.0)
    for made_for in (100.0, 200.0, 299.999):
        assert not put(cache, tmp_path, b"z", size_bytes, made_for, since=made_for).created
        assert not put(cache, tmp_path, b"z", size_bytes, made_for).created
    assert bytes_at(cache, "k") == b"n"


def test_an_artifact_that_does_not_say_for_whom_it_was_made_is_older_than_any(cache: S3Cache, tmp_path: Path) -> None:
    put(cache, tmp_path, b"a", 10, 0.0)
    found = cache.standing("k")
    assert found is not None
    assert found.made_for == 0.0
    assert put(cache, tmp_path, b"b", 10, 0.001, since=0.001).created


class Meanwhile:
    """An S3 in which something happens between the look and the write of whoever uses it, once."""

    def __init__(self, s3: S3Client, happens: Callable[[], object]) -> None:
        self._s3, self._happens = s3, [happens]

    def __getattr__(self, name: str) -> Any:
        if name in {"put_object", "complete_multipart_upload", "delete_object"} and self._happens:
            self._happens.pop()()
        return getattr(self._s3, name)


@SIZES
@pytest.mark.parametrize(
    ("made_for", "created", "left"),
    [(300.0, False, b"m"), (200.0, False, b"m"), (150.0, True, b"f"), (None, True, b"f")],
    ids=["a newer run", "another attempt of the run", "an older forced run", "a delete"],
)
def test_what_happens_between_look_and_write_is_noticed(
    cache: S3Cache, s3: S3Client, tmp_path: Path, size_bytes: int, made_for: float | None, created: bool, left: bytes
) -> None:
    put(cache, tmp_path, b"a", size_bytes, 100.0)

    def happens() -> None:
        if made_for is None:
            assert cache.delete("k")
        else:
            assert put(cache, tmp_path, b"m", size_bytes, made_for, since=made_for).created

    late = S3Cache(Meanwhile(s3, happens), "cache", f"tests/{tmp_path.name}", PART_BYTES)  # type: ignore[arg-type]
    assert put(late, tmp_path, b"f", size_bytes, 200.0, since=200.0).created is created
    assert bytes_at(cache, "k") == left
    assert uploads(s3) == []


@SIZES
def test_of_many_forced_runs_the_newest_stands_in_the_end(cache: S3Cache, tmp_path: Path, size_bytes: int) -> None:
    put(cache, tmp_path, b"0", size_bytes, 1.0)
    runs = range(2, 10)
    start = threading.Barrier(len(runs))
    broken: list[BaseException] = []

    def race(number: int) -> None:
        start.wait()
        try:
            put(cache, tmp_path, b"%d" % number, size_bytes, float(number), since=float(number))
        except ClientError as error:
            broken.append(error)  # lost the race too often; its attempt would be tried again

    threads = [threading.Thread(target=race, args=(number,)) for number in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    put(cache, tmp_path, b"9", size_bytes, 9.0, since=9.0)
    found = cache.standing("k")
    assert found is not None
    assert (found.made_for, bytes_at(cache, "k")) == (9.0, b"9")


def test_what_was_derived_for_an_older_run_is_discarded_and_the_rest_left(
    cache: S3Cache, s3: S3Client, tmp_path: Path
) -> None:
    for key, made_for in (("old", 100.0), ("mine", 200.0), ("newer", 300.0), ("raced", 100.0)):
        cache.commit(file_of(tmp_path, b"1"), key, "x", made_for)

    def newer_comes_first() -> None:
        cache.commit(file_of(tmp_path, b"22"), "raced", "x", 300.0, since=300.0)

    cache.discard_older(["old", "mine", "newer", "missing"], since=200.0)
    late = S3Cache(Meanwhile(s3, newer_comes_first), "cache", f"tests/{tmp_path.name}")  # type: ignore[arg-type]
    late.discard_older(["raced"], since=200.0)
    assert [key for key in ("old", "mine", "newer", "raced") if cache.has_all([key])] == ["mine", "newer", "raced"]


# --- memory


STREAMING = """
import resource, sys
from pathlib import Path
from fleetcap.adapters.cache import S3Cache
from tests.emulator import s3_client
def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
endpoint, folder = sys.argv[1], Path(sys.argv[2])
cache = S3Cache(s3_client(endpoint), "cache", "memory")
cache.commit(str(folder / "small"), "small", "x")
list(cache.get("small"))
before = peak_kib()
assert cache.commit(str(folder / "large"), "large", "x").created
committed = peak_kib()
assert cache.fetch("large", str(folder / "back"))
assert sum(map(len, cache.get("large"))) == (folder / "large").stat().st_size
cache.delete("large")
print(committed - before, peak_kib() - before)
"""


def test_a_large_artifact_passes_in_constant_memory(endpoint: str, s3: S3Client, tmp_path: Path) -> None:
    """256 MiB up in parts of 32 MiB and back down twice; a part in memory would show by itself."""
    assert s3
    file_of(tmp_path, bytes(range(256)), "small")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(256 * 1024 * 1024)
        large.write(b"not only zeros")
    command = [sys.executable, "-c", STREAMING, endpoint, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    up_kib, both_kib = map(int, result.stdout.split())
    assert (tmp_path / "back").stat().st_size == 256 * 1024 * 1024
    assert up_kib < 16 * 1024
    assert both_kib < 16 * 1024
