"""How long a job may wait in the queue, and what is said of one that waited longer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetcap.decide import capacity
from fleetcap.model import Mode, Pool, Queued, Slot, SlotState


@dataclass(frozen=True)
class Overdue:
    """The job ends FAILED, with this error."""

    job: Queued
    error: str


def looms(pool: Pool, slots: Sequence[Slot], now: float) -> bool:
    """Whether any job may be overdue, so that the queue is worth reading."""
    return bool(pool.waiting_limit_s) or 0 < pool.dispatch_deadline_s < _starved_s(pool, slots, now)


def overdue(pool: Pool, slots: Sequence[Slot], queued: Iterable[Queued], now: float) -> list[Overdue]:
    """The jobs that have waited too long. Only time in which the cap had room and no worker came counts as starving."""
    starved_s, why = _starved_s(pool, slots, now), capacity.pool_backoff(pool, slots, now).reason
    found = ((job, _error(pool, now - job.runnable_at, starved_s, why)) for job in queued)
    return [Overdue(job, error) for job, error in found if error]


def _error(pool: Pool, waited_s: float, starved_s: float, why: str) -> str:
    if 0 < pool.dispatch_deadline_s < min(waited_s, starved_s):
        return (
            f"capacity: pool {pool.name} has had room but started no worker for {_spell(min(waited_s, starved_s))} "
            f"(dispatch_deadline_s is {pool.dispatch_deadline_s:.0f}); {why}"
        )
    if 0 < pool.waiting_limit_s < waited_s:
        return (
            f"capacity: the job waited {_spell(waited_s)} in the queue of pool {pool.name} "
            f"(waiting_limit_s is {pool.waiting_limit_s:.0f})"
        )
    return ""


def _starved_s(pool: Pool, slots: Sequence[Slot], now: float) -> float:
    """How long the pool has had room under its cap, wanted workers and got none; 0 where it lacks nothing."""
    if pool.mode is not Mode.OPEN:
        return 0.0
    below = [slot for slot in slots if slot.id.number < pool.cap and not slot.retire]
    # What fails above a lowered cap keeps nobody waiting; a worker that came there counts all the same.
    since = capacity.pool_backoff(pool, below, now).since
    came_at = max([slot.ready_at for slot in slots], default=0.0)
    has_room = any(slot.state is not SlotState.READY for slot in below)
    return now - max(since, came_at) if since and has_room else 0.0


def _spell(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004
