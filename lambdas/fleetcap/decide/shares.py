"""Fair shares between the tenants of a pool: start-time fair queuing, within one priority.

Each job gets a tag when it is put, and the queue goes by tags. A tenant's next tag lies one step behind its last one,
and a step is the smaller the more the tenant weighs; a tenant that was away begins where the queue has come to. So of
those that have jobs waiting each is served by its weight, however many jobs it has; nobody saves up by being away, and
nobody pays for having had the pool to itself.

Tags never follow the clock: see `docs/decisions/0012-fair-shares-are-tags.md`.
"""

from __future__ import annotations

from typing import NamedTuple

from fleetcap import limits
from fleetcap.model import Pool


class Head(NamedTuple):
    """The first job of a queue that never ran: its place, and whether that was drawn as a tag; else it is its age."""

    tag: int
    drawn: bool


def virtual_time(head: Head | None, latest: int, now: float) -> int:
    """The tag at which a tenant begins that was away: how far the queue has come.

    `latest` is the furthest that any tenant has drawn, 0 where none has. Where nobody waits, all that was drawn has
    been served, and `latest` is where everybody stands. Jobs by age, from before there were shares, go before all tags.
    """
    if head and head.drawn:
        return head.tag
    oldest = head.tag if head else 0
    return latest if latest > oldest else max(oldest, int(now * 1_000) * limits.TAGS_PER_MS)


def step(pool: Pool, tenant: str) -> int:
    """From one tag of a tenant to its next."""
    return limits.TAGS_PER_MS // pool.tenant_weights.get(tenant, 1)
