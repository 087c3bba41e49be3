"""The bucket of results behind `ports.Cache`: whoever is first writes an artifact, and nobody overwrites it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from fleetcap.model import Artifact

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES: Final = 32 * 1024 * 1024
PARTS_MAX: Final = 10_000
"""S3's limit; a file that would need more parts gets larger ones."""
STREAM_BYTES: Final = 64 * 1024
CONFLICT_TRIES: Final = 4

MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
ALREADY_THERE: Final = frozenset({"412", "PreconditionFailed"})
WRITE_IN_PROGRESS: Final = frozenset({"409", "ConditionalRequestConflict"})


class S3Cache:
    """`prefix` lets deployments share a bucket; it is no part of the keys that callers see."""

    def __init__(self, s3: S3Client, bucket: str, prefix: str = "", part_bytes: int = PART_BYTES) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = _checked(prefix.strip("/")) + "/" if prefix.strip("/") else ""
        self._part_bytes = part_bytes

    def has_all(self, keys: Sequence[str]) -> bool:
        """Whether every key exists. No keys: False."""
        return bool(keys) and all(self.size_bytes(key) is not None for key in keys)

    def size_bytes(self, key: str) -> int | None:
        """The size of an artifact; None where there is none, which S3 tells only to those who may list the bucket."""
        try:
            return self._s3.head_object(Bucket=self._bucket, Key=self._place(key))["ContentLength"]
        except ClientError as error:
            if _code(error) in MISSING:
                return None
            raise

    def fetch(self, key: str, path: str) -> bool:
        """Copy an artifact to a local file, 64 KiB at a time. False where there is none."""
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=self._place(key))["Body"]
        except ClientError as error:
            if _code(error) in MISSING:
                return False
            raise
        with closing(body), Path(path).open("wb") as out:
            out.writelines(body.iter_chunks(STREAM_BYTES))
        return True

    def commit(self, path: str, key: str, kind: str) -> Artifact:
        """Upload a file under `If-None-Match: *`; an artifact that stood there first is left in place.

        `size_bytes` is that of the artifact which stands there, whoever wrote it.
        """
        source, place = Path(path), self._place(key)
        for last_try in (*[False] * (CONFLICT_TRIES - 1), True):
            try:
                created = self._upload(source, place)
            except ClientError as error:
                # Two conditional writes overlapped and S3 accepted neither: the whole upload has to start anew.
                if last_try or _code(error) not in WRITE_IN_PROGRESS:
                    raise
            else:
                break
        size = source.stat().st_size if created else self.size_bytes(key)
        if size is None:
            raise FileNotFoundError(f"the artifact {key} stood there first and was deleted at once")
        return Artifact(kind, key, size, created)

    def _upload(self, source: Path, place: str) -> bool:
        """True: our bytes stand there now. False: somebody else's did before."""
        try:
            if source.stat().st_size > self._part_bytes:
                self._upload_in_parts(source, place)
            else:
                with source.open("rb") as body:
                    self._s3.put_object(Bucket=self._bucket, Key=place, Body=body, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) in ALREADY_THERE:
                return False
            raise
        return True

    def _upload_in_parts(self, source: Path, place: str) -> None:
        upload = self._s3.create_multipart_upload(Bucket=self._bucket, Key=place)["UploadId"]
        try:
            parts = self._parts(source, place, upload)
            self._s3.complete_multipart_upload(
                Bucket=self._bucket, Key=place, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
        except BaseException:
            # Parts without an object cost money that no listing of objects shows. Where even this call fails, the
            # bucket's lifecycle rule ends the upload, and the first error is the one worth telling.
            with suppress(ClientError, BotoCoreError):
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=place, UploadId=upload)
            raise

    def _parts(self, source: Path, place: str, upload: str) -> list[CompletedPartTypeDef]:
        part_bytes = max(self._part_bytes, -(-source.stat().st_size // PARTS_MAX))
        parts: list[CompletedPartTypeDef] = []
        with source.open("rb") as file:
            while body := file.read(part_bytes):
                number = len(parts) + 1
                answer = self._s3.upload_part(
                    Bucket=self._bucket, Key=place, UploadId=upload, PartNumber=number, Body=body
                )
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        return parts

    def _place(self, key: str) -> str:
        return self._prefix + _checked(key)


def _checked(key: str) -> str:
    """The key itself; a ValueError for one that could leave its folder wherever keys become paths."""
    if not key.isprintable() or "\\" in key or any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise ValueError(f"{key!r} is not a cache key: its segments must be names, separated by single slashes")
    return key


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]
