"""What a pool's state comes to in figures, and whether anybody still wants to see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fleetcap import limits
from fleetcap.decide import capacity
from fleetcap.model import Mode, Pool, Queued, Slot, SlotState


def gauges(
    pool: Pool, slots: Sequence[Slot], queued: Sequence[Queued], reservations: Mapping[str, int], now: float
) -> dict[str, float]:
    """The pool's gauges by the names of their metrics. `reservations` counts them by phase.

    A wait is that of a job that may run now, since it was queued or came due. It is unserved where a slot is free for
    a lease: then a worker should be on its way.
    """
    states = Counter(slot.state for slot in slots)
    room = len(capacity.candidates(pool, slots))
    wanted = pool.mode is Mode.OPEN
    oldest_s = max([0.0, *(now - job.runnable_at for job in queued if job.due_at <= now)])  # clocks differ
    return {
        "cap": pool.cap,
        "slots_empty": states[SlotState.EMPTY],
        "slots_launching": states[SlotState.LAUNCHING],
        "slots_ready": states[SlotState.READY],
        "cap_headroom": room,
        **{f"reservations_{phase}": count for phase, count in reservations.items()},
        "queue_depth": len(queued),
        "oldest_wait_s": round(oldest_s, 3),
        "unserved_wait_s": round(oldest_s, 3) if room and wanted else 0.0,
        "launch_strikes": capacity.pool_backoff(pool, slots, now).strikes,
    }


def quiet(slots: Sequence[Slot], queued: Sequence[Queued], reservations: Mapping[str, int], now: float) -> bool:
    """Nothing is held, waits or is reserved, and every gauge has long been seen at zero: nobody pays for more of it.

    A slot's generation is the second of its last release, or of its creation, unless it was released twice in one.
    """
    in_force = any(count for phase, count in reservations.items() if phase != "expired")
    if queued or in_force or any(slot.held for slot in slots):
        return False
    changed_at = max([max(slot.generation, slot.failed_at, slot.ready_at) for slot in slots], default=0.0)
    return now - changed_at > limits.QUIET_S
