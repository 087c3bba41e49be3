"""The bucket of results behind `ports.Cache`: whoever is first writes an artifact, and only a newer run replaces it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, TypedDict, cast

from botocore.exceptions import BotoCoreError, ClientError

from fleetcap.keys import ARTIFACT_FOR
from fleetcap.model import Artifact

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES: Final = 32 * 1024 * 1024
PARTS_MAX: Final = 10_000
"""S3's limit; a file that would need more parts gets larger ones."""
STREAM_BYTES: Final = 64 * 1024
CONFLICT_TRIES: Final = 4

MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
NO_SUCH_RANGE: Final = frozenset({"416", "InvalidRange"})
NOT_AS_SEEN: Final = frozenset({"412", "PreconditionFailed"})
WRITE_IN_PROGRESS: Final = frozenset({"409", "ConditionalRequestConflict"})


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: str


class Standing(NamedTuple):
    """An artifact that stands: its size, the name of this very version, and when the run it was made for was queued."""

    size_bytes: int
    etag: str
    made_for: float


class S3Cache:
    """`prefix` lets deployments share a bucket; it is no part of the keys that callers see.

    A run that was *forced* passes `since`, the moment it was queued: whatever was made for an older run then counts as
    missing, and is replaced. All others pass 0, to whom every artifact counts and nothing is ever replaced.
    """

    def __init__(self, s3: S3Client, bucket: str, prefix: str = "", part_bytes: int = PART_BYTES) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = _checked(prefix.strip("/")) + "/" if prefix.strip("/") else ""
        self._part_bytes = part_bytes

    # --- looking

    def has_all(self, keys: Sequence[str], since: float = 0.0) -> bool:
        """Whether every key exists. No keys: False."""
        return bool(keys) and all(self.standing(key, since) for key in keys)

    def size_bytes(self, key: str) -> int | None:
        """The size of an artifact; None where there is none."""
        found = self.standing(key)
        return found.size_bytes if found else None

    def standing(self, key: str, since: float = 0.0) -> Standing | None:
        """The artifact, if it was made for a run queued at `since` or later; one that does not say so counts as 0.

        Only those who may list the bucket are told that there is none; others get an error.
        """
        try:
            answer = self._s3.head_object(Bucket=self._bucket, Key=self._place(key))
        except ClientError as error:
            if _code(error) in MISSING:
                return None
            raise
        made_for = _seconds(answer["Metadata"].get(ARTIFACT_FOR, ""))
        found = Standing(answer["ContentLength"], answer["ETag"], made_for)
        return found if found.made_for >= since else None

    # --- reading

    def get(self, key: str, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """An artifact's bytes from `first` to `last`, both included, 64 KiB at a time. Nothing where there is none."""
        whole = first == 0 and last is None
        body = self._body(key, "" if whole else f"bytes={first}-{'' if last is None else last}")
        if body:
            with closing(body):
                yield from body.iter_chunks(STREAM_BYTES)

    def fetch(self, key: str, path: str) -> bool:
        """Copy an artifact to a local file, 64 KiB at a time. False where there is none."""
        body = self._body(key)
        if body is None:
            return False
        with closing(body), Path(path).open("wb") as out:
            out.writelines(body.iter_chunks(STREAM_BYTES))
        return True

    def _body(self, key: str, span: str = "") -> StreamingBody | None:
        """An artifact's bytes, or this range of them; None where there are none."""
        ranged = {"Range": span} if span else {}
        try:
            return self._s3.get_object(Bucket=self._bucket, Key=self._place(key), **ranged)["Body"]  # type: ignore[arg-type]
        except ClientError as error:
            if _code(error) in (MISSING | NO_SUCH_RANGE if span else MISSING):
                return None
            raise

    # --- writing

    def commit(self, path: str, key: str, kind: str, made_for: float = 0.0, since: float = 0.0) -> Artifact:
        """Upload a file unless an artifact stands that was made for `since` or later; that one is left in place.

        What is older is replaced as it was seen (`If-Match`), and where nothing stands, nothing may (`If-None-Match`):
        so of any number of writers one is first, and nobody undoes a newer run. `size_bytes` is that of the artifact
        which stands there, whoever wrote it.
        """
        source = Path(path)
        refused: ClientError | None = None
        for _ in range(CONFLICT_TRIES):
            # Without `since` nothing is ever replaced, so there is nothing to look at beforehand.
            older = self.standing(key) if since else None
            if older and older.made_for >= since:
                return Artifact(kind, key, older.size_bytes, created=False)
            try:
                self._upload(source, self._place(key), made_for, older)
            except ClientError as error:
                refused = error
                if _code(error) in WRITE_IN_PROGRESS:
                    continue  # two conditional writes overlapped and S3 accepted neither: all starts anew
                if _code(error) not in NOT_AS_SEEN and not (older and _code(error) in MISSING):
                    raise
                if found := self.standing(key, since):
                    return Artifact(kind, key, found.size_bytes, created=False)
            else:
                return Artifact(kind, key, source.stat().st_size, created=True)
        assert refused is not None  # noqa: S101 (for the type checker)
        raise refused

    def delete(self, key: str, etag: str = "*") -> bool:
        """Delete an artifact, or only this version of it. False where there is no such one, or it is being replaced."""
        try:
            self._s3.delete_object(Bucket=self._bucket, Key=self._place(key), IfMatch=etag)
        except ClientError as error:
            if _code(error) in MISSING | NOT_AS_SEEN | WRITE_IN_PROGRESS:
                return False
            raise
        return True

    def discard_older(self, keys: Sequence[str], since: float) -> None:
        """Delete what was made for runs before `since`: nothing derived is to stand beside a primary it is not of.

        Raises TimeoutError where somebody else keeps writing such.
        """
        for key in keys:
            for _ in range(CONFLICT_TRIES):
                found = self.standing(key)
                if not found or found.made_for >= since:
                    break
                self.delete(key, found.etag)
            else:
                raise TimeoutError(f"the artifact {key} was replaced by an old one each time it was deleted")

    def _upload(self, source: Path, place: str, made_for: float, older: Standing | None) -> None:
        """Put the file where nothing stands, or where `older` still does. Raises ClientError where that is not so."""
        seen: _Condition = {"IfMatch": older.etag} if older else {"IfNoneMatch": "*"}
        metadata = {ARTIFACT_FOR: repr(made_for)} if made_for else {}
        if source.stat().st_size > self._part_bytes:
            self._upload_in_parts(source, place, metadata, seen)
            return
        with source.open("rb") as body:
            self._s3.put_object(Bucket=self._bucket, Key=place, Body=body, Metadata=metadata, **seen)

    def _upload_in_parts(self, source: Path, place: str, metadata: Mapping[str, str], seen: _Condition) -> None:
        upload = self._s3.create_multipart_upload(Bucket=self._bucket, Key=place, Metadata=metadata)["UploadId"]
        try:
            parts = self._parts(source, place, upload)
            self._s3.complete_multipart_upload(
                Bucket=self._bucket, Key=place, UploadId=upload, MultipartUpload={"Parts": parts}, **seen
            )
        except BaseException:
            # Parts without an object cost money that no listing of objects shows. Where even this call fails, the
            # bucket's lifecycle rule ends the upload, and the first error is the one worth telling.
            with suppress(ClientError, BotoCoreError):
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=place, UploadId=upload)
            raise

    def _parts(self, source: Path, place: str, upload: str) -> list[CompletedPartTypeDef]:
        """Upload the parts, each read from its stretch of the file as it is sent: none is ever whole in memory."""
        from s3transfer.utils import ReadFileChunk

        size_bytes = source.stat().st_size
        part_bytes = max(self._part_bytes, -(-size_bytes // PARTS_MAX))
        parts: list[CompletedPartTypeDef] = []
        for number, start in enumerate(range(0, size_bytes, part_bytes), start=1):
            with ReadFileChunk.from_filename(str(source), start, part_bytes) as body:
                stretch = cast("IO[bytes]", body)
                answer = self._s3.upload_part(
                    Bucket=self._bucket, Key=place, UploadId=upload, PartNumber=number, Body=stretch
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


def _seconds(text: str) -> float:
    """A moment as it was written beside an artifact; 0 for what is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]
