"""Copies inside S3: whole or in parts, of the source that was looked at, and never over what stands."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from cli.copies import Copied, Copier, Place, Stopped
from tests.emulator import running_emulator, s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.cloud

PART_BYTES = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Client]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as endpoint:
        client = s3_client(endpoint)
        for bucket in ("old", "cache"):
            client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client
        client.close()


def in_parts(s3: S3Client) -> Copier:
    return Copier(s3, copy_max_bytes=PART_BYTES, part_bytes=PART_BYTES)


def put(s3: S3Client, key: str, data: bytes) -> Place:
    s3.put_object(Bucket="old", Key=key, Body=data)
    return Place("old", key)


def body(s3: S3Client, place: Place) -> bytes:
    return s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES], ids=str)
def test_a_copy_holds_every_byte_whatever_its_size_and_name(s3: S3Client, size: int) -> None:
    data = os.urandom(size)
    source = put(s3, f"a folder/é+%20 {size}.bam", data)
    destination = Place("cache", f"k/{size}")
    assert in_parts(s3).copy(source, destination) is Copied.DONE
    assert body(s3, destination) == data


@pytest.mark.parametrize("size", [1, PART_BYTES + 1], ids=["whole", "in parts"])
def test_what_stands_is_left_alone_and_a_missing_source_is_told(s3: S3Client, size: int) -> None:
    destination = Place("cache", f"stands/{size}")
    s3.put_object(Bucket="cache", Key=destination.key, Body=b"first")
    assert in_parts(s3).copy(put(s3, f"second {size}", os.urandom(size)), destination) is Copied.STOOD
    assert body(s3, destination) == b"first"
    assert in_parts(s3).copy(Place("old", "none"), Place("cache", "none")) is Copied.MISSING


class Meddling:
    """An S3 client on whose calls something happens just before one of them."""

    def __init__(self, s3: S3Client, call: str, what: Any) -> None:
        self._s3, self._call, self._what = s3, call, what

    def __getattr__(self, name: str) -> Any:
        def meddled(**request: Any) -> Any:
            self._what()
            return getattr(self._s3, name)(**request)

        return meddled if name == self._call else getattr(self._s3, name)


def test_a_worker_that_commits_meanwhile_keeps_its_artifact_and_no_parts_stay(s3: S3Client) -> None:
    destination = Place("cache", "raced")

    def commit() -> None:
        s3.put_object(Bucket="cache", Key=destination.key, Body=b"the worker's")

    meddling: Any = Meddling(s3, "complete_multipart_upload", commit)
    source = put(s3, "raced", os.urandom(PART_BYTES + 1))
    assert in_parts(meddling).copy(source, destination) is Copied.STOOD
    assert body(s3, destination) == b"the worker's"
    assert s3.list_multipart_uploads(Bucket="cache").get("Uploads", []) == []


def test_a_source_that_changes_meanwhile_is_not_copied_as_a_mixture(s3: S3Client) -> None:
    source = put(s3, "changing", os.urandom(PART_BYTES + 1))
    meddling: Any = Meddling(s3, "create_multipart_upload", lambda: put(s3, "changing", os.urandom(PART_BYTES + 1)))
    with pytest.raises(ClientError, match="PreconditionFailed"):
        in_parts(meddling).copy(source, Place("cache", "changing"))
    assert s3.list_multipart_uploads(Bucket="cache").get("Uploads", []) == []


def test_whoever_wants_no_more_leaves_no_parts_behind(s3: S3Client) -> None:
    source = put(s3, "stopped", os.urandom(3 * PART_BYTES))
    stop = threading.Event()
    meddling: Any = Meddling(s3, "upload_part_copy", stop.set)
    copier = Copier(meddling, PART_BYTES, PART_BYTES, stop)
    with pytest.raises(Stopped):
        copier.copy(source, Place("cache", "stopped"))
    assert s3.list_multipart_uploads(Bucket="cache").get("Uploads", []) == []
    with pytest.raises(Stopped):
        copier.copy(put(s3, "next", b"1"), Place("cache", "next"))


def test_every_copy_asks_s3_itself_not_to_overwrite(s3: S3Client) -> None:
    """The emulator does not look at this header of CopyObject, so what is sent is what can be shown."""
    sent: list[dict[str, Any]] = []
    s3.meta.events.register("provide-client-params.s3.CopyObject", lambda params, **_: sent.append(params))
    assert Copier(s3).copy(put(s3, "asked", b"1"), Place("cache", "asked")) is Copied.DONE
    assert (sent[0]["IfNoneMatch"], "CopySourceIfMatch" in sent[0]) == ("*", True)
