"""Once a minute, for every pool: whatever an event, a decider or a worker left undone is found and done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fleetcap import wiring
from fleetcap.decide import launch, recover
from fleetcap.fleet import Fleet
from fleetcap.model import Pool, Slot, TaskStatus
from handlers.log import log


def handle(fleet: Fleet) -> None:
    """One pass. It holds no state, may be killed anywhere, and two of them may run at once."""
    for pool in fleet.pools.values():
        try:
            _pass(fleet, pool)
        except Exception as error:  # one pool's trouble is not the others'; the next tick tries again
            fleet.log("tick failed", pool=pool.name, error=repr(error))


def _pass(fleet: Fleet, pool: Pool) -> None:
    # 1. The slots fit the cap.
    slots = fleet.slots(pool)
    for mark in recover.retirements(pool, slots):
        fleet.table.retire(mark.slot, mark.retire)

    # 2. Launches without a known task are resolved, silent workers are looked at.
    _look(fleet, recover.doubtful(slots, fleet.clock.now()))

    # 3. Jobs whose holder is dead go back, those of the slots just released among them.
    running = fleet.table.running(pool)
    fleet.requeue(recover.orphans(running, fleet.slots(pool)), "its worker is gone")

    # 4. Capacity for all that waits.
    fleet.scale(pool, None, most=pool.cap)
    states = Counter(slot.state.value for slot in slots)
    fleet.log("ticked", pool=pool.name, cap=pool.cap, slots=dict(states), running=len(running))


def _look(fleet: Fleet, doubts: Sequence[recover.Resend | recover.Inspect]) -> None:
    """Learn the unknown ARNs, then ask ECS about each doubtful task and apply its word."""
    known = [_known(fleet, doubt) for doubt in doubts]
    by_cluster: dict[str, list[Slot]] = {}
    for slot in known:
        if slot.arn:
            by_cluster.setdefault(launch.cluster_of(slot.launch), []).append(slot)
    for cluster, slots in by_cluster.items():
        words = fleet.tasks.describe(cluster, [slot.arn for slot in slots])
        for slot in slots:
            fleet.settle(slot, words.get(slot.arn, TaskStatus.MISSING))


def _known(fleet: Fleet, doubt: recover.Resend | recover.Inspect) -> Slot:
    slot = doubt.slot
    return slot if slot.arn else replace(slot, arn=fleet.resend(slot))


_fleet: Fleet | None = None


def handler(_event: dict[str, Any], _context: object) -> None:
    """Lambda entry point."""
    global _fleet  # noqa: PLW0603 - made once an execution environment, at the first call
    _fleet = _fleet or wiring.fleet(log)
    handle(_fleet)
