"""Fetch a job's source: s3:// or https://, streamed to a `.part` file that gets its name when it is whole."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urljoin

import urllib3
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from fleetcap.sources import https_host
from worker_image.errors import TransientError
from worker_image.processors.base import InputError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES: Final = 256 * 1024
TRIES: Final = 4
FIRST_PAUSE_S: Final = 0.5
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 60.0
REDIRECTS_MAX: Final = 5

OK: Final = 200
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN: Final = frozenset({408, 425, 429})
NOT_FOR_US: Final = {
    "404": "does not exist",
    "NoSuchKey": "does not exist",
    "NoSuchBucket": "does not exist",
    "403": "may not be read by this worker",
    "AccessDenied": "may not be read by this worker",
    "InvalidObjectState": "is archived and must be restored first",
    "InvalidBucketName": "names no valid bucket",
}

Advance = Callable[[float], None]
"""Told how much of the file is there, 0 to 1."""


class Stream(NamedTuple):
    """An open source: its size where the server tells it (else 0), and its bytes."""

    size_bytes: int
    chunks: Iterator[bytes]


class Downloader:
    """`hosts` are the only ones that an https source, or its redirects, may name; `host:port` for unusual ports."""

    def __init__(self, s3: S3Client, hosts: Collection[str], pause: Callable[[float], None] = time.sleep) -> None:
        self._s3 = s3
        self._hosts = frozenset(host.lower() for host in hosts)
        self._pause = pause
        self._http = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        )

    def fetch(self, source: str, md5: str, target: Path, advance: Advance) -> None:
        """Download to `target`. Raises InputError for what no retry can help, TransientError for the rest."""
        part = target.with_name(target.name + ".part")
        found = self._tried_again(source, part, advance)
        if md5 and found != md5.lower():
            raise InputError(f"the source's md5 is {found}, but {md5.lower()} was promised")
        part.rename(target)

    def _tried_again(self, source: str, part: Path, advance: Advance) -> str:
        for tried in range(TRIES - 1):
            try:
                return self._once(source, part, advance)
            except TransientError:
                self._pause(FIRST_PAUSE_S * 2**tried)
        return self._once(source, part, advance)

    def _once(self, source: str, part: Path, advance: Advance) -> str:
        digest, done = hashlib.md5(usedforsecurity=False), 0
        with self._opened(source) as stream, part.open("wb") as out:
            for chunk in stream.chunks:
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                advance(done / stream.size_bytes if stream.size_bytes else 0.0)
        return digest.hexdigest()

    def _opened(self, source: str) -> AbstractContextManager[Stream]:
        scheme = source.partition("://")[0]
        if scheme == "s3":
            return self._opened_s3(source)
        if scheme == "https":
            return self._opened_https(source)
        raise InputError("the source must be an s3 or https address")

    @contextmanager
    def _opened_s3(self, source: str) -> Iterator[Stream]:
        bucket, _, key = source.removeprefix("s3://").partition("/")
        if not (bucket and key):
            raise InputError("the source must read s3://bucket/key")
        with _translated("S3"):
            try:
                answer = self._s3.get_object(Bucket=bucket, Key=key)
            except ParamValidationError:
                raise InputError(f"the source {source} names no valid bucket") from None
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in NOT_FOR_US:
                    raise InputError(f"the source {source} {NOT_FOR_US[code]}") from None
                raise TransientError(f"S3 answered {code} for the source") from error
        with closing(answer["Body"]) as body:
            yield Stream(answer["ContentLength"], _chunks("S3", body.iter_chunks(CHUNK_BYTES)))

    @contextmanager
    def _opened_https(self, source: str) -> Iterator[Stream]:
        host, answer = self._followed(source)
        with closing(answer):
            _refuse_unless_ok(answer.status, source)
            length = answer.headers.get("Content-Length", "")
            chunks = answer.stream(CHUNK_BYTES, decode_content=False)
            yield Stream(int(length) if length.isdecimal() else 0, _chunks(host, chunks))

    def _followed(self, source: str) -> tuple[str, urllib3.BaseHTTPResponse]:
        """The first answer that is no redirect, and the host that gave it. Every address on the way is checked."""
        address = source
        for _ in range(REDIRECTS_MAX + 1):
            host = self._allowed_host(address)
            with _translated(host):
                # identity: a server that compressed on the way would leave us with another file than the one meant.
                answer = self._http.request(
                    "GET", address, preload_content=False, redirect=False, headers={"Accept-Encoding": "identity"}
                )
            if answer.status not in REDIRECTS:
                return host, answer
            answer.close()
            address = urljoin(address, answer.headers.get("Location", ""))
        raise InputError(f"the source {_shown(source)} redirects more than {REDIRECTS_MAX} times")

    def _allowed_host(self, address: str) -> str:
        """The address's host, after the checks that stand between a request and whatever a worker could reach."""
        if not address.startswith("https:"):
            raise InputError("the source redirects to an address that is not https")
        try:
            host = https_host(address)
        except ValueError as error:
            raise InputError(str(error)) from None
        if host not in self._hosts:
            raise InputError(f"the host {host} is not among the allowed source hosts")
        return host


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """What a broken network raises becomes a TransientError. Never around our own writes: a full disk is no network."""
    try:
        yield
    except (BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(f"the download from {where} broke off ({type(error).__name__})") from error


def _chunks(where: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        with _translated(where):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def _refuse_unless_ok(status: int, source: str) -> None:
    if status == OK:
        return
    if status >= 500 or status in TRY_AGAIN:  # noqa: PLR2004
        raise TransientError(f"the source's server answered {status}")
    reason = NOT_FOR_US.get(str(status), f"was refused with status {status}")
    raise InputError(f"the source {_shown(source)} {reason}")


def _shown(source: str) -> str:
    """The address without its query, where signatures and tokens live."""
    return source.partition("?")[0]
