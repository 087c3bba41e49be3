"""What to do about slots that may be in trouble, and which jobs have lost their worker. Never by the clock alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleetcap import limits
from fleetcap.decide.capacity import leaving, unresolved
from fleetcap.model import Holder, Pool, Running, Slot, SlotId, SlotState, TaskStatus


@dataclass(frozen=True)
class Resend:
    """Send RunTask again under the same token and learn which task it means."""

    slot: Slot


@dataclass(frozen=True)
class Inspect:
    """Ask ECS about the recorded task."""

    slot: Slot


@dataclass(frozen=True)
class Release:
    """The task is proven gone. `failed`: it never beat, so the pool backs off instead of replacing it at once."""

    slot: Slot
    why: str
    failed: bool


@dataclass(frozen=True)
class Missing:
    """ECS does not know the task; that is proof only after more than an hour without a break."""

    slot: Slot
    since: float


@dataclass(frozen=True)
class Stop:
    """The task lives but does not beat: stop it, and wait for ECS to say that it is gone."""

    slot: Slot
    why: str


Verdict = Release | Missing | Stop


@dataclass(frozen=True)
class Retire:
    """Mark a slot above the cap of this version (or take the mark back)."""

    slot: SlotId
    retire: bool
    version: int = 0


def dead(holder: Holder, slots: Mapping[SlotId, Slot]) -> bool:
    """Nobody runs under this holder any more, and nobody ever will: the generation rises only on proof, and only up."""
    slot = slots.get(holder.lease.slot)
    return slot is not None and slot.generation > holder.lease.generation


def orphans(running: Iterable[Running], slots: Iterable[Slot]) -> list[Running]:
    """The RUNNING jobs whose holder is dead."""
    by_id = {slot.id: slot for slot in slots}
    return [job for job in running if dead(job.holder, by_id)]


def retirements(pool: Pool, slots: Iterable[Slot]) -> list[Retire]:
    """Slots whose mark does not fit the cap."""
    wrong = [slot for slot in slots if slot.retire != (slot.id.number >= pool.cap)]
    return [Retire(slot.id, not slot.retire, pool.version) for slot in wrong]


def doubtful(slots: Iterable[Slot], now: float) -> list[Resend | Inspect]:
    """The held slots that somebody has to look at."""
    found = ((slot, _doubt(slot, now)) for slot in slots if slot.held)
    return [doubt(slot) for slot, doubt in found if doubt]


def _doubt(slot: Slot, now: float) -> type[Resend] | type[Inspect] | None:
    if not slot.arn:
        return Resend if unresolved(slot, now) else None
    late = slot.state is SlotState.LAUNCHING and now - slot.launched_at > limits.INSPECT_LAUNCHING_S
    return Inspect if slot.missing_since or late or silent(slot, now) else None


def silent(slot: Slot, now: float) -> bool:
    """No beat for longer than a living worker lets pass. A reason to stop the task, never to release the slot."""
    if slot.state is SlotState.LAUNCHING:
        return now - slot.launched_at > limits.SILENT_LAUNCHING_S
    return now - slot.seen_at > limits.SILENT_S


def overdue(slots: Iterable[Slot], now: float) -> list[Slot]:
    """The launches that have had no answer for so long that a person should look. They are asked about all the same."""
    return [slot for slot in slots if unresolved(slot, now) and now - slot.leased_at > limits.UNRESOLVED_ALARM_S]


def all_silent(slots: Iterable[Slot], now: float) -> bool:
    """Several workers, and none has beaten lately: that is the table's silence rather than theirs, for a while."""
    beats = [slot.seen_at for slot in slots if slot.state is SlotState.READY]
    return len(beats) > 1 and limits.SILENT_S < now - max(beats) < 2 * limits.SILENT_S


def judge(slot: Slot, status: TaskStatus, now: float, why: str = "") -> list[Verdict]:
    """What ECS's word on the recorded task means for its slot. `why` is the reason that came with it, if any did."""
    failed = never_beat(slot) and not leaving(slot)  # who was told to leave before it was ready has done so
    if status is TaskStatus.STOPPED:
        return [Release(slot, why or "ECS says the task has stopped", failed)]
    if status is TaskStatus.MISSING:
        if not slot.missing_since or slot.seen_at > slot.missing_since:
            return [Missing(slot, now)]  # the first time, or the first since a beat: an hour begins
        if now - slot.missing_since > limits.MISSING_IS_PROOF_S:
            return [Release(slot, "ECS has not known the task for more than an hour", failed)]
        return []
    seen_again: list[Verdict] = [Missing(slot, 0.0)] if slot.missing_since else []
    stop: list[Verdict] = [Stop(slot, "no beat from this worker")] if silent(slot, now) else []
    return seen_again + stop


def never_beat(slot: Slot) -> bool:
    """The task of this lease ended before its worker said that it was ready."""
    return slot.state is SlotState.LAUNCHING
