"""What a person lets a pool do, said at run time, and how a pool looks from outside: every decision that begins after a
word obeys it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fleetcap import limits
from fleetcap.decide import capacity, launch, waiting
from fleetcap.jobs import Contended
from fleetcap.model import OVERRIDABLE, Job, Pool, Reservation, Slot, SlotId, SlotState
from fleetcap.ports import Clock, ControlTable, Pools, Slots, Tasks


class Refused(ValueError):
    """What was said of a pool cannot be. The text is one sentence for whoever said it."""


# --- looking on


@dataclass(frozen=True)
class Seen:
    """A pool as an onlooker finds it. `queued` counts its QUEUED jobs, due or not; `whole`: there are no more."""

    view: capacity.View
    queued: int
    whole: bool


def seen(table: ControlTable, pool: Pool, now: float) -> Seen:
    """A whole pool, `pool` as it is configured. Nothing is written: slots that nobody has made yet are EMPTY ones."""
    first = table.bank(pool.name, 0)
    pool = pool.under(first.override)
    found = {slot.id: slot for slot in first.slots}
    for bank in range(1, pool.banks):
        found |= {slot.id: slot for slot in table.bank(pool.name, bank).slots}
    wanted = (SlotId(pool.name, number) for number in range(pool.cap))
    unmade = [Slot(slot, SlotState.EMPTY, 0) for slot in wanted if slot not in found]
    queued = table.queued(pool, math.inf, limits.QUEUED_SHOWN)
    due = [job for job in queued if job.due_at <= now]
    slots = [*found.values(), *unmade]
    view = capacity.View(pool, slots, due, table.running(pool), now, first.reservations)
    return Seen(view, len(queued), len(queued) < limits.QUEUED_SHOWN)


def states(view: capacity.View) -> Counter[str]:
    """How many of a pool's slots are launching, busy, idle, leaving and retiring; each that is held counts once."""
    busy = {job.holder.lease for job in view.running}
    return Counter(_state(slot, slot.lease in busy) for slot in view.slots if slot.held)


def _state(slot: Slot, busy: bool) -> str:
    if slot.retire:
        return "retiring"
    if slot.leave:
        return "leaving"
    if slot.state is SlotState.LAUNCHING:
        return "launching"
    return "busy" if busy else "idle"


def waits_for(table: ControlTable, pool: Pool, job: Job, now: float, parents: Mapping[str, Job] | None = None) -> str:
    """What a job of this pool waits for, in one sentence; empty for one that does not wait. `parents`: by key."""
    return waiting.why(job, seen(table, pool, now).view, parents)


# --- saying


def refusals(pool: Pool) -> Iterator[str]:
    """One sentence for each figure that cannot be."""
    if not 0 <= pool.cap <= limits.CAP_MAX:
        yield f"the cap of pool {pool.name} cannot be {pool.cap:,}: it counts workers, from 0 to {limits.CAP_MAX:,}"
    for what, workers in (("min_workers", pool.min_workers), ("warm_workers", pool.warm_workers)):
        if workers < 0:
            yield f"{what} of pool {pool.name} cannot be {workers}: it counts workers"
        elif workers > pool.cap:
            yield (
                f"{what} of pool {pool.name} would be {workers}, and its cap of {pool.cap} lets no more than "
                f"{pool.cap} live: lower it as well, or set a higher cap"
            )
    if not 0 <= pool.budget_task_hours < math.inf:
        yield f"budget_task_hours of pool {pool.name} cannot be {pool.budget_task_hours:g}: 0 bounds nothing"


def change(table: Pools, clock: Clock, pool: Pool, said: Mapping[str, Any]) -> tuple[Pool, Pool]:
    """Say something of a pool: None for a name takes back what was said before. The pool before and after.

    `pool` is as it is configured. Raises Refused where figures would stand that cannot be, Contended where others
    spoke each time, and whatever the table raises.
    """
    figures = {name: said[name] for name in OVERRIDABLE if name in said}
    for _ in range(limits.CANCEL_ROUNDS):
        standing = table.override(pool.name)
        before = pool.under(standing)
        for refusal in refusals(pool.under(replace(standing, **figures))) if figures else ():
            raise Refused(refusal)
        words = dict(said)
        if "cap" in said:
            words["cap_max"] = max(standing.cap_max, before.cap, pool.cap)
        if override := table.say(pool.name, words, standing.version, clock.unique()):
            return before, pool.under(override)
    raise Contended(
        f"the settings of pool {pool.name} changed under each of {limits.CANCEL_ROUNDS} attempts; try again"
    )


def fit_the_cap(table: Slots, clock: Clock, pool: Pool, cap_max: int) -> Iterator[SlotId]:
    """Mark the slots above a cap that was lowered, and take the marks back below it; each slot as it is done.

    `pool` as `change` returned it, `cap_max` the highest cap so far. Once it is through, no slot above the cap can be
    leased by anybody, whichever cap he has read: slots that do not exist are made with their mark, for a decider that
    still works on the old cap may be about to make the next bank of them.
    """
    standing = {slot.id: slot for slot in table.slots(pool.name)}
    for slot in standing.values():
        above = slot.id.number >= pool.cap
        # A mark of an older cap is renewed: whoever still means to take it back for a cap in between comes too late.
        if slot.retire != above or (above and slot.cap_version < pool.version):
            table.retire(slot.id, above, pool.version)
            yield slot.id
    for number in range(pool.cap, min(cap_max, (pool.banks + 1) * limits.BANK_SLOTS)):
        slot_id = SlotId(pool.name, number)
        if slot_id not in standing:
            table.create_slots([slot_id], clock.now(), retired_by=pool.version)
            table.retire(slot_id, True, pool.version)  # somebody may have made it meanwhile
            yield slot_id


def stop(table: Slots, tasks: Tasks, slot: Slot, why: str) -> bool:
    """End the worker of a held slot at once. Its jobs go back, and the slot waits for proof. Repeatable.

    False: its task is not known yet, so it is told to leave as soon as it is there. Who is told to leave first has not
    failed when it ends, however early that is.
    """
    if not capacity.leaving(slot):
        table.leave(slot.lease, why)
    if slot.arn:
        tasks.stop(launch.cluster_of(slot.launch), slot.arn, why)
    return bool(slot.arn)


# --- reserving


def reserve(table: ControlTable, clock: Clock, pool: Pool, workers: int, seconds: float, name: str) -> Reservation:
    """So many workers of a pool, as it is configured, are to live for so long: the next decision launches them.

    Raises Refused where the cap has no room for them, or the name is in use.
    """
    bank, now = table.bank(pool.name, 0), clock.now()
    pool = pool.under(bank.override)
    reserved = sum(each.workers for each in bank.reservations if each.until > now and each.name != name)
    if reserved + workers > pool.cap:
        beside = f", {reserved} of which are reserved already" if reserved else ""
        raise Refused(f"pool {pool.name} has a cap of {pool.cap}{beside}: {workers} more can never live at once")
    made = Reservation(pool.name, name, workers, round(now + seconds, 3), round(now, 3))
    if not table.reserve(made) and made not in table.bank(pool.name, 0).reservations:  # its reply may have been lost
        raise Refused(f"pool {pool.name} has a reservation {name} already: choose another name, or end that one first")
    return made
