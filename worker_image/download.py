"""Fetch a job's source: s3:// or https://, streamed to a `.part` file that gets its name when it is whole.

A download that breaks off goes on from where it stopped, as long as the server vouches that the file is still the same;
its digest goes on with it. An https connection is made to an address that was looked at, and to no other.
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urljoin

import urllib3
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from fleetcap import limits, stored
from fleetcap.sources import SourceRules, https_host, is_ip, is_public
from worker_image.errors import TransientError
from worker_image.processors.base import InputError
from worker_image.scratch import Room

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES: Final = 64 * 1024
TRIES: Final = 4
"""Tries in a row that bring nothing new; whatever gets further than all before it begins the count anew."""
TRIES_MAX: Final = 100
FIRST_PAUSE_S: Final = 0.5
RETRY_AFTER_MAX_S: Final = 30.0
"""A server that asks to be left alone for longer is asked again after this all the same."""
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 60.0
REDIRECTS_MAX: Final = 5
SURELY_LATER_S: Final = 60
"""A Last-Modified this long before the answer's Date tells two versions of a file apart (RFC 9110, 8.8.2.2)."""

OK: Final = 200
PARTIAL: Final = 206
NO_SUCH_RANGE: Final = 416
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN: Final = frozenset({408, 425, 429})
CHANGED: Final = frozenset({"412", "PreconditionFailed", "416", "InvalidRange"})
NOT_FOR_US: Final = {
    "404": "does not exist",
    "NoSuchKey": "does not exist",
    "NoSuchBucket": "does not exist",
    "403": "may not be read by this worker",
    "AccessDenied": "may not be read by this worker",
    "InvalidObjectState": "is archived and must be restored first",
    "InvalidBucketName": "names no valid bucket",
}
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Advance = Callable[[float], None]
"""Told how much of the file is there, 0 to 1."""
Resolve = Callable[..., list[tuple[Any, ...]]]
"""Answers like `socket.getaddrinfo`."""


class Stream(NamedTuple):
    """An open source from byte `first` on: the whole file's size where the server tells it (else 0), and the bytes.

    `validator` names this very version of the file; "" where the server gives no such name.
    """

    first: int
    size_bytes: int
    validator: str
    chunks: Iterator[bytes]


class _Part:
    """The part of a file that is there, its digest, and which version of the file it belongs to."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.begin()

    def begin(self) -> None:
        """Forget everything."""
        self._out.seek(0)
        self._out.truncate()
        self.digest = hashlib.md5(usedforsecurity=False)
        self.done = 0
        self.validator = ""

    def add(self, chunk: bytes) -> None:
        self._out.write(chunk)
        self.digest.update(chunk)
        self.done += len(chunk)


class Downloader:
    """`hosts` are the only ones that an https source, or its redirects, may name; `host:port` for unusual ports.

    Of those only `rules.private_hosts` may stand at an address that is not public.
    """

    def __init__(
        self,
        s3: S3Client,
        hosts: Collection[str],
        rules: SourceRules | None = None,
        room: Room | None = None,
        pause: Callable[[float], None] = time.sleep,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._s3 = s3
        self._hosts = frozenset(host.lower() for host in hosts)
        self._rules = rules or SourceRules()
        self._room = room
        self._pause = pause
        # Not asked for proxies: a variable of the environment must not say where a source comes from.
        self._http = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        )
        guarded = _guarded(frozenset(host.lower() for host in self._rules.private_hosts), resolve)
        self._http.pool_classes_by_scheme = {"https": guarded}

    def fetch(self, source: str, md5: str, target: Path, advance: Advance, factor: float = limits.DISK_FACTOR) -> None:
        """Download to `target`. Raises InputError for what no retry can help, TransientError for the rest.

        `factor` says how many times the source's size its processing takes of the disk.
        """
        part = target.with_name(target.name + ".part")
        with part.open("wb") as out:
            found = self._tried_again(source, _Part(out), lambda size: self._check_room(size, factor, part), advance)
        if md5 and found != md5.lower():
            raise InputError(f"the source's md5 is {found}, but {md5.lower()} was promised")
        part.rename(target)

    def _check_room(self, size_bytes: int, factor: float, part: Path) -> None:
        if self._room and size_bytes:
            self._room.check(size_bytes, factor, part.parent)

    def _tried_again(self, source: str, part: _Part, check: Callable[[int], None], advance: Advance) -> str:
        furthest, fruitless = 0, 0
        for _ in range(TRIES_MAX):
            try:
                return self._once(source, part, check, advance)
            except TransientError as error:
                fruitless = 0 if part.done > furthest else fruitless + 1
                furthest = max(furthest, part.done)
                if fruitless >= TRIES:
                    raise
                self._pause(max(FIRST_PAUSE_S * 2.0 ** max(fruitless - 1, 0), min(error.wait_s, RETRY_AFTER_MAX_S)))
        raise TransientError(f"the download broke off {TRIES_MAX} times")

    def _once(self, source: str, part: _Part, check: Callable[[int], None], advance: Advance) -> str:
        if not part.validator:
            part.begin()
        with self._opened(source, part) as stream:
            if not stream.first:
                part.begin()
                check(stream.size_bytes)
                part.validator = stream.validator
            for chunk in stream.chunks:
                part.add(chunk)
                advance(part.done / stream.size_bytes if stream.size_bytes else 0.0)
            if stream.size_bytes and part.done != stream.size_bytes:
                raise TransientError(f"the download ended after {part.done} of {stream.size_bytes} bytes")
        return part.digest.hexdigest()

    def _opened(self, source: str, part: _Part) -> AbstractContextManager[Stream]:
        scheme = source.partition("://")[0]
        if scheme == "s3":
            return self._opened_s3(source, part)
        if scheme == "https":
            return self._opened_https(source, part)
        raise InputError("the source must be an s3 or https address")

    # --- s3

    @contextmanager
    def _opened_s3(self, source: str, part: _Part) -> Iterator[Stream]:
        bucket, _, key = source.removeprefix("s3://").partition("/")
        if not (bucket and key):
            raise InputError("the source must read s3://bucket/key")
        resumed = {"Range": f"bytes={part.done}-", "IfMatch": part.validator} if part.done else {}
        with _translated("S3"):
            try:
                answer = self._s3.get_object(Bucket=bucket, Key=key, **resumed, **self._terms(bucket))  # type: ignore[arg-type]
            except ParamValidationError:
                raise InputError(f"the source {source} names no valid bucket") from None
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if part.done and code in CHANGED:
                    part.validator = ""
                    raise TransientError("the source changed while it was downloaded") from None
                if code in NOT_FOR_US:
                    raise InputError(f"the source {source} {self._refusal(bucket, NOT_FOR_US[code])}") from None
                raise TransientError(f"S3 answered {code} for the source") from error
        with closing(answer["Body"]) as body:
            size_bytes = part.done + answer["ContentLength"]
            yield Stream(part.done, size_bytes, answer["ETag"], _chunks("S3", body.iter_chunks(CHUNK_BYTES)))

    def _terms(self, bucket: str) -> dict[str, str]:
        """What S3 is told besides: who must own the bucket, and that we pay."""
        owner = self._rules.owners.get(bucket)
        terms = {"ExpectedBucketOwner": owner} if owner else {}
        return terms | ({"RequestPayer": "requester"} if bucket in self._rules.requester_pays else {})

    def _refusal(self, bucket: str, reason: str) -> str:
        owner = self._rules.owners.get(bucket)
        return f"{reason}, or is not account {owner}'s" if owner and reason == NOT_FOR_US["403"] else reason

    # --- https

    @contextmanager
    def _opened_https(self, source: str, part: _Part) -> Iterator[Stream]:
        # identity: a server that compressed on the way would leave us with another file than the one meant.
        headers = {"Accept-Encoding": "identity"}
        if part.done:
            headers |= {"Range": f"bytes={part.done}-", "If-Range": part.validator}
        host, answer = self._followed(source, headers)
        with closing(answer):
            if part.done and answer.status in {PARTIAL, NO_SUCH_RANGE}:
                first, size_bytes = _going_on(answer, part), _whole_size(answer)
            else:
                _refuse_unless_ok(answer, source)
                first, size_bytes = 0, _length(answer)
            yield Stream(first, size_bytes, _validator(answer.headers), _chunks(host, _body(answer)))

    def _followed(self, source: str, headers: Mapping[str, str]) -> tuple[str, urllib3.BaseHTTPResponse]:
        """The first answer that is no redirect, and the host that gave it. Every address on the way is checked."""
        address = source
        for _ in range(REDIRECTS_MAX + 1):
            host = self._allowed_host(address)
            with _translated(host):
                answer = self._http.request("GET", address, preload_content=False, redirect=False, headers=headers)
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


def _guarded(private_hosts: Collection[str], resolve: Resolve) -> type[HTTPSConnectionPool]:
    """Connections that ask once where a host stands, look at every answer, and dial what they looked at.

    The certificate is still asked for under the host's name, so that the address alone convinces nobody.
    """

    class Connection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            name = self.host if self.port == self.default_port else f"{self.host}:{self.port}"
            private = name.lower() in private_hosts
            if is_ip(self.host) and not private:
                raise InputError(f"the host {name} is an address, which private_source_hosts does not name")
            try:
                found = resolve(self.host, self.port, type=socket.SOCK_STREAM)
            except socket.gaierror as error:
                raise NameResolutionError(self.host, self, error) from error
            if not private and not all(is_public(str(place[0])) for *_, place in found):
                raise InputError(f"the host {name} stands at an address that is not public")
            return self._dialled(found)

        def _dialled(self, found: list[tuple[Any, ...]]) -> socket.socket:
            failed: OSError = OSError("the host has no address")
            for family, kind, protocol, _, place in found:
                connection = socket.socket(family, kind, protocol)
                try:
                    connection.settimeout(CONNECT_TIMEOUT_S)
                    connection.connect(place)
                except OSError as error:
                    connection.close()
                    failed = error
                else:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return connection
            if isinstance(failed, TimeoutError):
                raise ConnectTimeoutError(self, "no address of the host answered in time") from failed
            raise NewConnectionError(self, f"no address of the host could be reached: {failed}") from failed

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool


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


def _body(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    return answer.stream(CHUNK_BYTES, decode_content=False)


def _going_on(answer: urllib3.BaseHTTPResponse, part: _Part) -> int:
    """Where a partial answer goes on: where we stopped, and in the same file, or everything begins anew."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    same = answer.status == PARTIAL and _validator(answer.headers) in {part.validator, ""}
    if not (same and found and int(found[1]) == part.done):
        part.validator = ""
        raise TransientError("the source changed while it was downloaded")
    return part.done


def _whole_size(answer: urllib3.BaseHTTPResponse) -> int:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return int(found[2]) if found and found[2] != "*" else 0


def _length(answer: urllib3.BaseHTTPResponse) -> int:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else 0


def _validator(headers: Mapping[str, str]) -> str:
    """A strong name of this version of the file: its ETag, or a Last-Modified that lies well before the answer."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    modified = headers.get("Last-Modified", "")
    since, now = _time(modified), _time(headers.get("Date", ""))
    return modified if since and now - since >= SURELY_LATER_S else ""


def _time(date: str) -> float:
    """Unix seconds of an HTTP date; 0 for what is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _refuse_unless_ok(answer: urllib3.BaseHTTPResponse, source: str) -> None:
    status = answer.status
    if status == OK:
        return
    if status >= 500 or status in TRY_AGAIN:  # noqa: PLR2004
        wait_s = _seconds_to_wait(answer.headers.get("Retry-After", ""))
        raise TransientError(f"the source's server answered {status}", wait_s)
    reason = NOT_FOR_US.get(str(status), f"was refused with status {status}")
    raise InputError(f"the source {_shown(source)} {reason}")


def _seconds_to_wait(retry_after: str) -> float:
    """How long a server asks us to wait: it says seconds, or a date. Nothing, where it says neither."""
    if retry_after.isdecimal():
        return float(retry_after[:9])
    until = _time(retry_after) if retry_after else 0.0
    return max(until - time.time(), 0.0) if until else 0.0


def _shown(source: str) -> str:
    """The address without its query, where signatures and tokens live."""
    return source.partition("?")[0]


def downloader_for(s3: S3Client, task: Mapping[str, Any]) -> Downloader:
    """The downloader of a job's process, by the settings that `ProcessChildren` put into its task."""
    rules = stored.known(SourceRules, task.get("source_rules", {}))
    room = Room(task["pool"], task["disk_gib"]) if "disk_gib" in task else None
    return Downloader(s3, task["source_hosts"], rules, room)
