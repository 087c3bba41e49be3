"""Which workers stay although they have nothing to do, and which are asked to leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetcap.decide import capacity
from fleetcap.model import Mode, Pool, Reservation, Slot, SlotState


@dataclass(frozen=True)
class Keep:
    """The worker stays however long it is idle, or no longer."""

    slot: Slot
    keep: bool


@dataclass(frozen=True)
class Leave:
    """The worker takes no further job and leaves."""

    slot: Slot
    why: str


Mark = Keep | Leave


def phases(reservations: Iterable[Reservation], slots: Iterable[Slot], now: float) -> Counter[str]:
    """How many reservations are pending, assigned or expired. Workers that are ready go to the oldest one first."""
    ready = sum(slot.state is SlotState.READY and not capacity.leaving(slot) for slot in slots)
    found: Counter[str] = Counter()
    for reservation in sorted(reservations, key=lambda each: each.made_at):
        if reservation.until <= now:
            found["expired"] += 1
            continue
        found["assigned" if reservation.workers <= ready else "pending"] += 1
        ready = max(ready - reservation.workers, 0)
    return found


def marks(view: capacity.View) -> list[Mark]:
    """What to tell the workers of a pool. Who of them stays is decided on a view of all its slots."""
    pool = view.pool
    staying = [slot for slot in view.slots if slot.held and not capacity.leaving(slot)]
    if pool.mode in {Mode.DRAINING, Mode.STOPPED}:
        return [Leave(slot, pool.reason or f"the pool is {pool.mode.value}") for slot in staying]
    if not view.whole:
        return []
    told: dict[Slot, Mark] = {mark.slot: mark for mark in _kept(view, staying)}
    told |= {mark.slot: mark for mark in outdated(pool, view.slots, view.now)}
    return list(told.values())


def _kept(view: capacity.View, staying: Sequence[Slot]) -> list[Mark]:
    """Of the idle workers as many stay as the pool is to have at any time, reserved or warm."""
    pool = view.pool
    busy = {job.holder.lease for job in view.running}
    idle = [slot for slot in staying if slot.state is SlotState.READY and slot.lease not in busy]
    coming = sum(slot.state is SlotState.LAUNCHING for slot in staying)
    at_work = len(staying) - len(idle) - coming
    wanted = max(capacity.floor(pool, view.reservations, view.now) - at_work - coming, pool.warm_workers - coming, 0)
    # Who stays already goes on staying, and then who is youngest, because it lives longest.
    idle.sort(key=lambda slot: (not slot.keep, -slot.ready_at))
    keep: list[Mark] = [Keep(slot, True) for slot in idle[:wanted] if not slot.keep]
    spare = [slot for slot in idle[wanted:] if slot.keep]
    if pool.warm_workers or view.queued:  # it may be of use again soon, and leaves when it has been idle for long
        return keep + [Keep(slot, False) for slot in spare]
    return keep + [Leave(slot, "nobody needs this worker any more") for slot in spare]


def outdated(pool: Pool, slots: Sequence[Slot], now: float) -> list[Leave]:
    """Workers of an older image than could be launched now, once one of a newer image has shown that it can.

    A launch gets the newest image, so the worker that was launched last shows which it is. Where every worker is of
    another image than a launch would get, and none is coming, one makes room for the proof.
    """
    ready = [slot for slot in slots if slot.state is SlotState.READY and slot.image]
    newest = max(ready, key=lambda slot: slot.began_at, default=None)
    if newest is None:
        return []
    why = "a newer worker image can be launched"
    staying = [slot for slot in ready if not capacity.leaving(slot)]
    if old := [slot for slot in staying if slot.image != newest.image]:
        return [Leave(slot, why) for slot in old]
    changing = any(slot.state is SlotState.LAUNCHING or slot.leave for slot in slots)
    proven = not pool.image or any(slot.image == pool.image for slot in ready)
    if changing or proven or not staying or capacity.pool_backoff(pool, slots, now).strikes:
        return []
    return [Leave(max(staying, key=lambda slot: (slot.idle_since > 0, -slot.began_at)), why)]
