"""How a source's address is read: the same rule at intake, before a download, and at each of its redirects."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_S3: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00-\x1f\x7f]+")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")
_HTTPS_PORT: Final = 443


def is_s3(address: str) -> bool:
    """Whether the address reads s3://bucket/key."""
    return bool(_S3.fullmatch(address))


def https_host(address: str) -> str:
    """The host as an allow-list names it: `host`, or `host:port` for another port than 443.

    Raises ValueError, one sentence, for whatever is not an https address of a plain host: a user in front, a control
    character that a parser would drop, a port that cannot be.
    """
    if _UNPRINTABLE.search(address):
        raise ValueError("an https source holds no spaces or control characters")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("an https source names a host, and a port up to 65535 if any") from None
    if parts.scheme != "https" or not host or "@" in parts.netloc:
        raise ValueError("an https source names a host and no user")
    return host if port in {None, _HTTPS_PORT} else f"{host}:{port}"


def file_name(address: str) -> str:
    """The part of the address that tells what kind of file it is: all of an S3 key, and of an URL its path."""
    return address if is_s3(address) else urlsplit(address).path
