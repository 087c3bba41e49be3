"""Once a minute, for every pool: whatever an event, a decider or a worker left undone is found and done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fleetcap import dependencies, limits, wiring
from fleetcap.decide import launch, recover
from fleetcap.fleet import Fleet
from fleetcap.model import FailureClass, Pool, Slot
from handlers.log import log


def handle(fleet: Fleet) -> None:
    """One pass. It holds no state, may be killed anywhere, and two of them may run at once."""
    for pool in fleet.pools.values():
        with _failing_alone(fleet, pool, "slots"):
            slots = fleet.slots(pool)
            for step in (
                _fit_the_cap,
                _requeue_orphans,
                _look_at_the_doubtful,
                _end_the_overdue,
                _judge_the_waiting,
                _scale,
            ):
                with _failing_alone(fleet, pool, step.__name__):
                    step(fleet, pool, slots)


@contextmanager
def _failing_alone(fleet: Fleet, pool: Pool, step: str) -> Iterator[None]:
    """Neither the next step nor the next pool suffers from an error in this one; the next tick tries it again."""
    try:
        yield
    except Exception as error:
        fleet.log("tick failed", pool=pool.name, step=step, error=repr(error))


def _fit_the_cap(fleet: Fleet, pool: Pool, slots: Sequence[Slot]) -> None:
    """The slots above the cap are marked."""
    for mark in recover.retirements(pool, slots):
        fleet.table.retire(mark.slot, mark.retire)
    states = Counter(slot.state.value for slot in slots)
    fleet.log("ticked", pool=pool.name, cap=pool.cap, slots=dict(states))


def _requeue_orphans(fleet: Fleet, pool: Pool, slots: Sequence[Slot]) -> None:
    """Jobs whose holder is dead go back, after a lost event or a crash. Older slots show fewer, never others."""
    running = fleet.table.running(pool)
    if running:
        orphans = recover.orphans(running, slots)
        fleet.requeue(orphans, FailureClass.INTERRUPTED, "heartbeat lost: its worker is gone")


def _look_at_the_doubtful(fleet: Fleet, pool: Pool, slots: Sequence[Slot]) -> None:
    """Launches without a known task are resolved, late and silent workers are looked at, for a bounded time."""
    released = False
    began_at = fleet.clock.now()
    doubts = recover.doubtful(slots, began_at)
    if recover.all_silent(slots, began_at):
        fleet.log("wait", pool=pool.name, reason="no worker has beaten lately; the table may have been out of reach")
        doubts = [doubt for doubt in doubts if isinstance(doubt, recover.Resend)]
    for slot in recover.overdue(slots, began_at):
        reason = "RunTask has had no answer for an hour; see why before a day has passed, when ECS forgets its token"
        fleet.log("alarm", lease=str(slot.lease), leased_at=slot.leased_at, reason=reason)
    by_cluster: dict[str, list[Slot]] = {}
    for slot in _known(fleet, doubts, began_at):
        by_cluster.setdefault(launch.cluster_of(slot.launch), []).append(slot)
    for cluster, known in by_cluster.items():
        words = fleet.tasks.describe(cluster, [slot.arn for slot in known])
        for slot in known:
            try:
                released |= fleet.settle(slot, words[slot.arn])
            except Exception as error:  # the others must not wait for it
                released = True  # perhaps: only the answer may have been lost
                fleet.log("not settled", lease=str(slot.lease), error=repr(error))
    if released:
        _requeue_orphans(fleet, pool, fleet.table.slots(pool.name))


def _known(fleet: Fleet, doubts: Sequence[recover.Resend | recover.Inspect], began_at: float) -> Iterator[Slot]:
    """The doubtful slots whose task is known, unknown ones resent for; another one first each time."""
    offset = int(fleet.clock.uniform(0, len(doubts)))
    for doubt in [*doubts[offset:], *doubts[:offset]]:
        if doubt.slot.arn:
            yield doubt.slot
        elif fleet.clock.now() - began_at < limits.LOOK_BUDGET_S:
            slot = fleet.resend(doubt.slot)
            if slot.lease == doubt.slot.lease and slot.arn:
                yield slot


def _end_the_overdue(fleet: Fleet, pool: Pool, slots: Sequence[Slot]) -> None:
    """Jobs that have waited longer than they may are told so."""
    fleet.end_overdue(pool, slots)


def _judge_the_waiting(fleet: Fleet, pool: Pool, _slots: Sequence[Slot]) -> None:
    """Jobs whose parents have ended while nobody heard of it."""
    dependencies.settle_some(fleet, pool)


def _scale(fleet: Fleet, pool: Pool, _slots: Sequence[Slot]) -> None:
    """Capacity for all that waits, on a new reading: the steps before may have freed slots."""
    fleet.scale(pool, None, most=pool.cap)


_fleet: Fleet | None = None


def handler(_event: dict[str, Any], _context: object) -> None:
    """Lambda entry point."""
    global _fleet  # noqa: PLW0603 - made once an execution environment, at the first call
    _fleet = _fleet or wiring.fleet(log)
    handle(_fleet)
