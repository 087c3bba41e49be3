"""What a person lets a pool do, said at run time: every decision that begins afterwards obeys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleetcap import limits
from fleetcap.jobs import Contended
from fleetcap.model import Pool, SlotId
from fleetcap.ports import Clock, Pools, Slots


def change(table: Pools, clock: Clock, pool: Pool, said: Mapping[str, Any]) -> tuple[Pool, Pool]:
    """Say something of a pool: None for a name takes back what was said before. The pool before and after.

    `pool` is as it is configured. Raises Contended where others spoke each time, and whatever the table raises.
    """
    for _ in range(limits.CANCEL_ROUNDS):
        standing = table.override(pool.name)
        before = pool.under(standing)
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
        if slot.retire != (slot.id.number >= pool.cap):
            table.retire(slot.id, not slot.retire, pool.version)
            yield slot.id
    for number in range(pool.cap, min(cap_max, (pool.banks + 1) * limits.BANK_SLOTS)):
        slot_id = SlotId(pool.name, number)
        if slot_id not in standing:
            table.create_slots([slot_id], clock.now(), retired_by=pool.version)
            table.retire(slot_id, True, pool.version)  # somebody may have made it meanwhile
            yield slot_id
