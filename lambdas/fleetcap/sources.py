"""How a source's address is read: the same rule at intake, before a download, and at each of its redirects.

And which network addresses a worker connects to at all: those that stand for somebody out in the public Internet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

_S3: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00-\x1f\x7f]+")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")
_HTTPS_PORT: Final = 443
_NOT_PUBLIC: Final = tuple(
    map(
        IPv4Network,
        (
            (0, 8),  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # a carrier's NAT, and what AWS keeps there for itself
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local: the metadata of instances and of tasks
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
"""Written out, because what the standard library calls global changes with its patch releases."""
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them: it wraps an IPv4 address
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: the same
            "3fff::/20",  # documentation
        ),
    )
)
_WRAPPING: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv4-mapped addresses and those of NAT64 end in the IPv4 address that is meant, and are judged by it."""


@dataclass(frozen=True)
class SourceRules:
    """What a deployment says about its sources besides which hosts are allowed; as JSON from stacks to jobs.

    `private_hosts` (named as `https_host` does) may stand at any address; `owners` maps buckets to the accounts that
    must own them; whoever reads from the buckets in `requester_pays` agrees to pay for it.
    """

    private_hosts: Sequence[str] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    requester_pays: Sequence[str] = ()


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public Internet. False for whatever is no such address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if any(parsed in network for network in _WRAPPING):
            return _is_public_v4(IPv4Address(int(parsed) & 0xFFFF_FFFF))
        # A zone would name an interface of this machine.
        known = parsed in _GLOBAL_UNICAST and not parsed.scope_id
        return known and not any(parsed in network for network in _NOT_PUBLIC_V6)
    return _is_public_v4(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _NOT_PUBLIC)


def is_ip(host: str) -> bool:
    """Whether a host is written as an IP address instead of a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


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
