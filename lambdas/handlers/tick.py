"""Once a minute, for every pool: whatever an event, a decider or a worker left undone is found and done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

from fleetcap import dependencies, limits, watch, wiring
from fleetcap.decide import capacity, launch, recover, standby, sweep
from fleetcap.decide.capacity import View
from fleetcap.fleet import Fleet, Standing
from fleetcap.model import FailureClass, Lease, Mode, Pool, Running, Slot
from fleetcap.timebox import Timebox
from handlers.log import log

T = TypeVar("T")


class Pass(NamedTuple):
    """What a tick saw of a whole pool at first, and how long it took."""

    standing: Standing
    took_s: float


@dataclass
class Sight:
    """A pool as a tick sees it: its slots, and, for whoever asks, those who wait and those who run.

    What needs no index goes on where that cannot be read.
    """

    fleet: Fleet
    seen_at: float
    standing: Standing

    @cached_property
    def view(self) -> View:
        """Read by the first who needs it."""
        return self.fleet.view(self.standing)


def handle(fleet: Fleet) -> list[Pass]:
    """One pass over all pools. It holds no state, may be killed anywhere, and two of them may run at once.

    The pools share its time. Another one comes first each minute, and each time that it does, another step: where the
    time is too short for all, each still has its turn.
    """
    time = Timebox.begin(fleet.clock)
    minute, pools = int(fleet.clock.now() // limits.TICK_PERIOD_S), list(fleet.pools.values())
    passes: list[Pass] = []
    cut_off: list[str] = []
    for number, pool in enumerate(_from(minute, pools)):
        if not time.allows(number):
            cut_off.append(pool.name)
            continue
        began_at, mine = fleet.clock.now(), fleet.within(time.part(len(pools) - number))
        with _failing_alone(fleet, pool, "slots"):
            sight = Sight(mine, began_at, mine.look(pool, whole=True))
            cut_off += [f"{pool.name} {step}" for step in _take_steps(mine, sight, minute // len(pools))]
            passes.append(Pass(sight.standing, fleet.clock.now() - began_at))
    if cut_off:
        fleet.log("cut off", reason="the tick's time is spent; the next one goes on", left=cut_off)
    return [each for each in passes if each.standing.whole]


def _from(minute: int, things: Sequence[T]) -> list[T]:
    """All of them, another one first each minute."""
    first = minute % max(len(things), 1)
    return [*things[first:], *things[:first]]


def _take_steps(fleet: Fleet, sight: Sight, turn: int) -> list[str]:
    """The steps in one pool, as far as there is time; those that there was none for.

    Launches have most of the time, and every other turn they come first: a pool that only tidies up would never begin
    anything. Else they come last, for the steps before may have freed slots; and they come again where these have, or
    where half of the time was too short for them.
    """
    turn, launches_first = divmod(turn, 2)
    left: list[str] = []
    again = not launches_first
    if launches_first:
        half = fleet.within(fleet.time.part(2))
        left += _scale(half, sight)
        again = half.time.spent
    moved, undone = _tidy_up(fleet.within(fleet.time.part(limits.CHORES_PART)), sight, turn)
    if moved or again:
        old = bool(launches_first) or fleet.clock.now() - sight.seen_at > limits.VIEW_LASTS_S
        left += _scale(fleet, sight, anew=moved or old)
    return left + undone


def _tidy_up(fleet: Fleet, sight: Sight, turn: int) -> tuple[bool, list[str]]:
    """The chores: whether any may have changed what launches go by, and those that there was no time for."""
    moved = False
    left: list[str] = []
    for number, step in enumerate(_from(turn, CHORES)):
        if not fleet.time.allows(number):
            left.append(step.__name__)
            continue
        with _failing_alone(fleet, sight.standing.pool, step.__name__):
            before, moved = moved, True  # unless it comes to its end and says that it did nothing
            moved = step(fleet, sight) or before
    return moved, left


def look_on(fleet: Fleet, passes: Sequence[Pass], began_at: float, sweep_now: bool = False) -> None:
    """After a pass that began then: tell the gauges of each pool and, where it is this minute's turn, sweep."""
    latest = began_at + limits.GAUGES_LATEST_S
    for seen in Timebox(fleet.clock, latest, latest).each(passes):
        pool, slots = seen.standing.pool, seen.standing.slots
        with _failing_alone(fleet, pool, "tell"):
            phases = standby.phases(seen.standing.reservations, slots, began_at)
            watch.tell(fleet, pool, slots, seen.took_s, phases)
    if not (sweep_now or sweep.due(began_at)):
        return
    if len(passes) < len(fleet.pools):
        fleet.log("not swept", reason="not all slots of all pools could be read")
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


def _fit_the_cap(fleet: Fleet, sight: Sight) -> bool:
    """The slots above the cap are marked."""
    wrong = recover.retirements(sight.standing.pool, sight.standing.slots)
    for mark in fleet.for_a_while(wrong):
        fleet.table.retire(mark.slot, mark.retire, mark.version)
    return bool(wrong)


def _requeue_orphans(fleet: Fleet, sight: Sight) -> bool:
    """Jobs whose holder is dead go back, after a lost event or a crash. Older slots show fewer, never others."""
    orphans = recover.orphans(sight.view.running, sight.view.slots)
    _give_back(fleet, orphans)
    return bool(orphans)


def _give_back(fleet: Fleet, orphans: Sequence[Running]) -> None:
    fleet.requeue(orphans, FailureClass.INTERRUPTED, "heartbeat lost: its worker is gone")


def _look_at_the_doubtful(fleet: Fleet, sight: Sight) -> bool:
    """Launches without a known task are resolved, late and silent workers are looked at."""
    pool, slots = sight.standing.pool, sight.standing.slots
    released: set[Lease] = set()
    began_at = fleet.clock.now()
    doubts = recover.doubtful(slots, began_at)
    if recover.all_silent(slots, began_at):
        fleet.log("wait", pool=pool.name, reason="no worker has beaten lately; the table may have been out of reach")
        doubts = [doubt for doubt in doubts if isinstance(doubt, recover.Resend)]
    for slot in recover.overdue(slots, began_at):
        reason = "RunTask has had no answer for an hour; see why before a day has passed, when ECS forgets its token"
        fleet.log("alarm", lease=str(slot.lease), leased_at=slot.leased_at, reason=reason, unresolved_launches=1)
    by_cluster: dict[str, list[Slot]] = {}
    for slot in _known(fleet, doubts):
        by_cluster.setdefault(launch.cluster_of(slot.launch), []).append(slot)
    for cluster, known in fleet.time.each(by_cluster.items()):
        words = fleet.tasks.describe(cluster, [slot.arn for slot in known])
        for slot in fleet.for_a_while(known):
            try:
                if fleet.settle(slot, words[slot.arn]):
                    released.add(slot.lease)
            except Exception as error:  # the others must not wait for it
                fleet.log("not settled", lease=str(slot.lease), error=repr(error))
    if released:
        _give_back(fleet, [job for job in sight.view.running if job.holder.lease in released])
    return bool(doubts)


def _known(fleet: Fleet, doubts: Sequence[recover.Resend | recover.Inspect]) -> Iterator[Slot]:
    """The doubtful slots whose task is known, unknown ones resent for, until ECS has had enough of launches."""
    yield from (doubt.slot for doubt in doubts if doubt.slot.arn)
    for doubt in fleet.for_a_while([doubt for doubt in doubts if not doubt.slot.arn]):
        slot, answer = fleet.resend(doubt.slot)
        if slot.lease == doubt.slot.lease and slot.arn:
            yield slot
        if answer and launch.throttled(answer):
            return


def _tell_workers(fleet: Fleet, sight: Sight) -> bool:
    """Who stays, who leaves, and, in a pool that was stopped, who is stopped."""
    standing = sight.standing
    if standing.pool.mode is Mode.STOPPED:
        return bool(fleet.stop_all(standing))
    return any(slot.held for slot in standing.slots) and fleet.tell_workers(sight.view)


def _end_the_overdue(fleet: Fleet, sight: Sight) -> bool:
    """Jobs that have waited longer than they may are told so."""
    return fleet.end_overdue(sight.standing.pool, sight.standing.slots)


def _judge_the_waiting(fleet: Fleet, sight: Sight) -> bool:
    """Jobs whose parents have ended while nobody heard of it."""
    return dependencies.settle_some(fleet, fleet.pools[sight.standing.pool.name])


def _scale(fleet: Fleet, sight: Sight, anew: bool = False) -> list[str]:
    """Capacity for all that waits, for a bounded time: by what has just been seen, or on new readings.

    Of a pool too large for one decision the parts are then looked at where there was room.
    """
    if fleet.time.over:
        return [_scale.__name__]
    standing = sight.standing
    with _failing_alone(fleet, standing.pool, _scale.__name__):
        pool, most = fleet.pools[standing.pool.name], limits.LEASES_PER_DECISION
        if not anew and fleet.scale(pool, None, most, seen=sight.view) < most:
            return []
        for slot in fleet.for_a_while(capacity.candidates(standing.pool, standing.slots) or standing.slots[:1]):
            if fleet.scale(pool, None, most, near=slot.id) < most:
                break
    return []


CHORES: Final = (
    _fit_the_cap,
    _requeue_orphans,
    _look_at_the_doubtful,
    _tell_workers,
    _end_the_overdue,
    _judge_the_waiting,
)

_fleet: Fleet | None = None


def handler(event: dict[str, Any], _context: object) -> None:
    """Lambda entry point. Whoever calls it with `{"sweep": true}` need not wait for a sweep's turn."""
    global _fleet  # noqa: PLW0603 - made once an execution environment, at the first call
    _fleet = _fleet or wiring.fleet(log)
    began_at = _fleet.clock.now()
    look_on(_fleet, handle(_fleet), began_at, sweep_now=event.get("sweep") is True)
