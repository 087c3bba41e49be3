"""Waiting longer after each failure: the one rule behind relaunches of a pool and retries of a job."""

from __future__ import annotations

from typing import Final

_DOUBLINGS_MAX: Final = 16
"""Beyond this many every bound in use is reached; a power of a number that grows for days would overflow."""


def due_at(now: float, first_s: float, longest_s: float, before: int, jitter: float) -> float:
    """When to try again after `before` failures and one more: doubling, bounded, and a quarter early or late.

    `jitter` is 0 to 1.
    """
    delay_s = min(first_s * 2.0 ** min(before, _DOUBLINGS_MAX), longest_s)
    return now + delay_s * (0.75 + 0.5 * jitter)
