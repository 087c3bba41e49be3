"""Once a minute, for every pool: whatever an event, a decider or a worker left undone is found and done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from fleetcap import dependencies, limits, watch, wiring
from fleetcap.decide import capacity, launch, recover, standby, sweep
from fleetcap.fleet import Fleet, Standing
from fleetcap.model import FailureClass, Pool, Slot
from handlers.log import log


class Pass(NamedTuple):
    """What a tick met in a pool at first, and how long it took."""

    standing: Standing
    took_s: float


def handle(fleet: Fleet) -> list[Pass]:
    """One pass over all pools. It holds no state, may be killed anywhere, and two of them may run at once.

    Another pool comes first each minute: were the time too short for all, each would still have its turn.
    """
    passes: list[Pass] = []
    pools = list(fleet.pools.values())
    first = int(fleet.clock.now() // limits.TICK_PERIOD_S) % max(len(pools), 1)
    for pool in [*pools[first:], *pools[:first]]:
        began_at = fleet.clock.now()
        with _failing_alone(fleet, pool, "slots"):
            standing = fleet.look(pool, whole=True)
            for step in STEPS:
                with _failing_alone(fleet, pool, step.__name__):
                    step(fleet, standing)
            passes.append(Pass(standing, fleet.clock.now() - began_at))
    return passes


def look_on(fleet: Fleet, passes: Sequence[Pass], began_at: float, sweep_now: bool = False) -> None:
    """After a pass that began then: tell the gauges of each pool and, where it is this minute's turn, sweep."""
    for seen in passes:
        pool, slots = seen.standing.pool, seen.standing.slots
        with _failing_alone(fleet, pool, "tell"):
            phases = standby.phases(seen.standing.reservations, slots, began_at)
            watch.tell(fleet, pool, slots, seen.took_s, phases)
    if not (sweep_now or sweep.due(began_at)) or len(passes) < len(fleet.pools):
        return
    if fleet.clock.now() - began_at > limits.SWEEP_LATEST_S:
        fleet.log("not swept", reason="the pools took too long")
        return
    try:
        watch.sweep(fleet, [slot for seen in passes for slot in seen.standing.slots])
    except Exception as error:
        fleet.log("tick failed", step="sweep", error=repr(error), tick_failures=1)


@contextmanager
def _failing_alone(fleet: Fleet, pool: Pool, step: str) -> Iterator[None]:
    """Neither the next step nor the next pool suffers from an error in this one; the next tick tries it again."""
    try:
        yield
    except Exception as error:
        fleet.log("tick failed", pool=pool.name, step=step, error=repr(error), tick_failures=1)


def _fit_the_cap(fleet: Fleet, standing: Standing) -> None:
    """The slots above the cap are marked."""
    pool = standing.pool
    for mark in fleet.for_a_while(recover.retirements(pool, standing.slots)):
        fleet.table.retire(mark.slot, mark.retire, mark.version)


def _requeue_orphans(fleet: Fleet, standing: Standing) -> None:
    """Jobs whose holder is dead go back, after a lost event or a crash. Older slots show fewer, never others."""
    running = fleet.table.running(standing.pool, standing.banks)
    if running:
        orphans = recover.orphans(running, standing.slots)
        fleet.requeue(orphans, FailureClass.INTERRUPTED, "heartbeat lost: its worker is gone")


def _look_at_the_doubtful(fleet: Fleet, standing: Standing) -> None:
    """Launches without a known task are resolved, late and silent workers are looked at, for a bounded time."""
    pool, slots = standing.pool, standing.slots
    released = False
    began_at = fleet.clock.now()
    doubts = recover.doubtful(slots, began_at)
    if recover.all_silent(slots, began_at):
        fleet.log("wait", pool=pool.name, reason="no worker has beaten lately; the table may have been out of reach")
        doubts = [doubt for doubt in doubts if isinstance(doubt, recover.Resend)]
    for slot in recover.overdue(slots, began_at):
        reason = "RunTask has had no answer for an hour; see why before a day has passed, when ECS forgets its token"
        fleet.log("alarm", lease=str(slot.lease), leased_at=slot.leased_at, reason=reason, unresolved_launches=1)
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
        _requeue_orphans(fleet, fleet.look(fleet.pools[pool.name], whole=True))


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


def _tell_workers(fleet: Fleet, standing: Standing) -> None:
    """Who stays, and who leaves."""
    fleet.tell_workers(standing)


def _end_the_overdue(fleet: Fleet, standing: Standing) -> None:
    """Jobs that have waited longer than they may are told so."""
    fleet.end_overdue(standing.pool, standing.slots)


def _judge_the_waiting(fleet: Fleet, standing: Standing) -> None:
    """Jobs whose parents have ended while nobody heard of it."""
    dependencies.settle_some(fleet, fleet.pools[standing.pool.name])


def _scale(fleet: Fleet, standing: Standing) -> None:
    """Capacity for all that waits, on new readings: the steps before may have freed slots. For a bounded time.

    Of a pool too large for one decision the parts are looked at where there was room.
    """
    pool, most = fleet.pools[standing.pool.name], limits.LEASES_PER_DECISION
    free = capacity.candidates(standing.pool, standing.slots) or standing.slots[:1]
    for slot in fleet.for_a_while(free):
        if fleet.scale(pool, None, most, near=slot.id) < most:
            return


STEPS: Final = (
    _fit_the_cap,
    _requeue_orphans,
    _look_at_the_doubtful,
    _tell_workers,
    _end_the_overdue,
    _judge_the_waiting,
    _scale,
)

_fleet: Fleet | None = None


def handler(event: dict[str, Any], _context: object) -> None:
    """Lambda entry point. Whoever calls it with `{"sweep": true}` need not wait for a sweep's turn."""
    global _fleet  # noqa: PLW0603 - made once an execution environment, at the first call
    _fleet = _fleet or wiring.fleet(log)
    began_at = _fleet.clock.now()
    look_on(_fleet, handle(_fleet), began_at, sweep_now=event.get("sweep") is True)
