"""Copies inside S3, by S3 itself: nothing passes through this machine, and nothing that stands is overwritten."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from fleetcap.adapters.cache import CONFLICT_TRIES, MISSING, NOT_AS_SEEN, PARTS_MAX, WRITE_IN_PROGRESS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef

COPY_MAX_BYTES: Final = 5 * 1024**3
"""What CopyObject takes at most; larger objects go in parts."""
PART_BYTES: Final = 512 * 1024**2


@dataclass(frozen=True)
class Place:
    """An object's address."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Found:
    """What stands at a place."""

    size_bytes: int
    etag: str


class Stopped(Exception):
    """Somebody wants no more copies."""


class Copied(StrEnum):
    """What became of a copy."""

    DONE = "copied"
    STOOD = "there already"
    MISSING = "missing"


def look(s3: S3Client, place: Place) -> Found | None:
    """HEAD; None where nothing stands."""
    try:
        answer = s3.head_object(Bucket=place.bucket, Key=place.key)
    except ClientError as error:
        if _code(error) in MISSING:
            return None
        raise
    return Found(answer["ContentLength"], answer["ETag"])


@dataclass(frozen=True)
class Copier:
    """Copies under `If-None-Match: *`, of exactly the source that was looked at."""

    s3: S3Client
    copy_max_bytes: int = COPY_MAX_BYTES
    part_bytes: int = PART_BYTES
    stop: threading.Event = field(default_factory=threading.Event)
    """Once set, no copy and no part of one begins."""

    def copy(self, source: Place, destination: Place) -> Copied:
        """Copy one object unless something stands at its destination. Raises ClientError, and Stopped."""
        self._go_on()
        if look(self.s3, destination):
            return Copied.STOOD
        found = look(self.s3, source)
        if found is None:
            return Copied.MISSING
        for last_try in (*[False] * (CONFLICT_TRIES - 1), True):
            try:
                self._copy(source, found, destination)
            except ClientError as error:
                if _code(error) in NOT_AS_SEEN and look(self.s3, destination):
                    return Copied.STOOD
                if last_try or _code(error) not in WRITE_IN_PROGRESS:
                    raise
            else:
                return Copied.DONE
        raise AssertionError("the last try returns or raises")

    def _go_on(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _copy(self, source: Place, found: Found, destination: Place) -> None:
        if found.size_bytes > self.copy_max_bytes:
            self._copy_in_parts(source, found, destination)
            return
        self.s3.copy_object(
            Bucket=destination.bucket,
            Key=destination.key,
            CopySource=_from(source),
            CopySourceIfMatch=found.etag,
            IfNoneMatch="*",
        )

    def _copy_in_parts(self, source: Place, found: Found, destination: Place) -> None:
        to: Any = {"Bucket": destination.bucket, "Key": destination.key}
        upload = self.s3.create_multipart_upload(**to)["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            step = max(self.part_bytes, -(-found.size_bytes // PARTS_MAX))
            for number, start in enumerate(range(0, found.size_bytes, step), start=1):
                self._go_on()
                answer = self.s3.upload_part_copy(
                    **to,
                    UploadId=upload,
                    PartNumber=number,
                    CopySource=_from(source),
                    CopySourceIfMatch=found.etag,
                    CopySourceRange=f"bytes={start}-{min(start + step, found.size_bytes) - 1}",
                )
                parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
            self.s3.complete_multipart_upload(**to, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except BaseException:
            # Parts without an object cost money that no listing shows; the bucket's lifecycle rule is the last resort.
            with suppress(ClientError, BotoCoreError):
                self.s3.abort_multipart_upload(**to, UploadId=upload)
            raise


def _from(source: Place) -> CopySourceTypeDef:
    return {"Bucket": source.bucket, "Key": source.key}


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]
