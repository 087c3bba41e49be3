"""What a pool's tasks come to in a day: every slot carries its own part, so nothing has to be counted anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetcap.limits import DAY_S
from fleetcap.model import Slot, Use

_HOUR_S: Final = 3_600


def use(slot: Slot, now: float) -> Use:
    """For how long the slot was held today (UTC), the lease that it is under included."""
    day = int(now // DAY_S)
    before_s = slot.used_s if slot.used_day == day else 0.0
    began_at = max(slot.began_at, day * DAY_S)
    return Use(day, before_s + (max(now - began_at, 0.0) if slot.held else 0.0))


def spent_h(slots: Iterable[Slot], now: float, share: float = 1.0) -> float:
    """Task-hours of today, of a pool of which these slots are a `share`."""
    return sum(use(slot, now).seconds for slot in slots) / share / _HOUR_S


def tomorrow(now: float) -> float:
    """When the next day begins."""
    return (now // DAY_S + 1) * DAY_S
