"""What the tasks of a cluster are, each by itself: ours and where it should be, beyond the cap, or nobody's we know.

ECS's lists lag, so nothing is counted here and nothing follows from a task that is not listed. A task is found fault
with only on what DescribeTasks said of it after its slot had long said otherwise. Nothing is stopped or freed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleetcap import limits
from fleetcap.model import Lease, SeenTask, Slot, SlotId


@dataclass(frozen=True)
class Foreign:
    """A task that no pool of ours launched: it costs money, and no cap counts it."""

    task: SeenTask


@dataclass(frozen=True)
class Breach:
    """A task of a pool of ours that no slot stands for. There must be none, ever."""

    task: SeenTask
    why: str


def due(now: float) -> bool:
    """Whether the tick of this minute sweeps. It is not the full five minutes, when so many others call AWS."""
    minute_at = int(now) // limits.TICK_PERIOD_S * limits.TICK_PERIOD_S
    return minute_at % limits.SWEEP_PERIOD_S == limits.SWEEP_OFFSET_S


def unknown(arns: Iterable[str], slots: Iterable[Slot]) -> list[str]:
    """The listed tasks that no slot records."""
    recorded = {slot.arn for slot in slots}
    return [arn for arn in dict.fromkeys(arns) if arn not in recorded]


def lease_of(task: SeenTask, pools: Collection[str]) -> Lease | None:
    """The lease that a task was launched under, or None where that is none of these pools."""
    try:
        lease = Lease.parse(task.started_by)
    except ValueError:
        return None
    return lease if lease.slot.pool in pools else None


def judge(
    live: Collection[SeenTask], slots: Mapping[SlotId, Slot], pools: Collection[str], asked_at: float
) -> Iterator[Foreign | Breach]:
    """Find fault with tasks that DescribeTasks called alive when it was asked at `asked_at`.

    `slots` are those of their leases, read after that, strongly consistent.
    """
    leased: dict[Lease, list[str]] = defaultdict(list)
    for task in live:
        if lease := lease_of(task, pools):
            leased[lease].append(task.arn)
    for task in live:
        lease = lease_of(task, pools)
        if lease is None:
            yield Foreign(task)
        elif why := _beyond(task, lease, slots.get(lease.slot), leased[lease], asked_at):
            yield Breach(task, why)


def _beyond(task: SeenTask, lease: Lease, slot: Slot | None, same_lease: Collection[str], asked_at: float) -> str:
    """Why no slot stands for the task; empty where one does, or may."""
    if slot is None:
        return f"there is no slot {lease.slot}"
    if slot.generation > lease.generation:
        # The generation is the second of the release: until a while after it DescribeTasks may show what was before.
        freed_s = asked_at - slot.generation
        return f"its slot was freed {freed_s:.0f} s before" if freed_s > limits.SWEEP_SETTLED_S else ""
    if slot.generation < lease.generation or not slot.held:
        return f"its slot is {slot.state.value} at generation {slot.generation}, and was never leased to it"
    if len(same_lease) > 1 and task.arn != (slot.arn or min(same_lease)):
        return f"another task lives under its lease {lease}"
    return ""
