"""The control table: every conditional operation of the protocol, one item at a time, over any store of items.

Two things are settled here once. A refusal is an answer (False, None); and a refusal that hands back our own `op` is a
success whose first reply was lost, whoever retried: the SDK or the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, Protocol

from fleetcap import keys, limits
from fleetcap.model import (
    Attempt,
    Flags,
    Holder,
    Job,
    JobStatus,
    Lease,
    Pool,
    Queued,
    Running,
    Slot,
    SlotId,
)


@dataclass(frozen=True)
class Reply:
    """What became of a conditional write. `item`: as it stands now; empty where a refusal met nothing."""

    accepted: bool
    item: keys.Item


class Items(Protocol):
    """What the control table needs of its store. Every write is atomic on its one item."""

    def get(self, key: Mapping[str, str]) -> keys.Item | None:
        """One item, strongly consistent."""

    def partition(self, pk: str) -> Iterable[keys.Item]:
        """All items of a partition by sort key, strongly consistent."""

    def open(self, pk: str, page: int) -> Iterable[keys.Item]:
        """A partition of the `open` index by rank, lagging, `page` items a request as the caller goes on."""

    def update(self, write: keys.Write) -> Reply:
        """Update one item if its condition holds."""

    def put(self, put: keys.Put) -> Reply:
        """Put one item if its condition holds."""


class Reader(NamedTuple):
    """How items become values."""

    slot: Callable[[keys.Item], Slot]
    job: Callable[[keys.Item], Job]
    queued: Callable[[keys.Item], Queued]
    running: Callable[[keys.Item], Running]


READER: Final = Reader(keys.slot_from, keys.job_from, keys.queued_from, keys.running_from)


class StoredControlTable:
    """ports.ControlTable over a store of items. `read` tells what items say; a store that never changes an item may
    remember that."""

    def __init__(self, items: Items, read: Reader = READER) -> None:
        self._items = items
        self._read = read

    # --- slots

    def slots(self, pool: str) -> list[Slot]:
        found: list[Slot] = []
        for bank in range(limits.BANKS_MAX):
            items = list(self._items.partition(keys.bank_pk(pool, bank)))
            found += map(self._read.slot, items)
            if len(items) < limits.BANK_SLOTS:
                break
        return found

    def slot(self, slot: SlotId) -> Slot | None:
        item = self._items.get(keys.slot_key(slot))
        return self._read.slot(item) if item else None

    def create_slots(self, slots: Iterable[SlotId], now: float) -> None:
        for slot in slots:
            self._items.put(keys.create_write(slot, now))

    def lease(
        self, slot: Slot, launch: str, for_job: str, strikes: int, now: float, op: str, starved_at: float = 0.0
    ) -> bool:
        return self._write(keys.lease_write(slot, launch, for_job, strikes, now, op, starved_at)) is not None

    def launched(self, lease: Lease, arn: str, now: float) -> bool:
        return self._write(keys.launched_write(lease, arn, now)) is not None

    def beat(self, lease: Lease, arn: str, first: bool, now: float) -> Flags | None:
        item = self._write(keys.beat_write(lease, arn, first, now))
        if item is None:
            return None
        slot = self._read.slot(item)
        return Flags(leave=slot.leave, retire=slot.retire)

    def release(self, lease: Lease, arn: str, now: float, why: str, retry_at: float, op: str) -> bool:
        return self._write(keys.release_write(lease, arn, now, why, retry_at, op)) is not None

    def missing(self, lease: Lease, since: float) -> bool:
        return self._write(keys.missing_write(lease, since)) is not None

    def retire(self, slot: SlotId, retire: bool) -> None:
        self._write(keys.retire_write(slot, retire))

    # --- jobs

    def job(self, key: str) -> Job | None:
        item = self._items.get(keys.job_key(key))
        return self._read.job(item) if item else None

    def queued(self, pool: Pool, now: float, limit: int) -> list[Queued]:
        found: list[Queued] = []
        for shard in range(pool.shards):
            entries = map(self._read.queued, self._items.open(keys.queued_pk(pool.name, shard), limit))
            found += islice((entry for entry in entries if entry.due_at <= now), limit)
        return sorted(found, key=lambda entry: entry.rank)[:limit]

    def running(self, pool: Pool) -> list[Running]:
        return [
            self._read.running(item)
            for shard in range(pool.shards)
            for item in self._items.open(keys.running_pk(pool.name, shard), limits.OPEN_PAGE_ITEMS)
        ]

    def waiting(self, pool: Pool, limit: int) -> list[Queued]:
        found: list[Queued] = []
        for shard in range(pool.shards):
            found += map(self._read.queued, islice(self._items.open(keys.waiting_pk(pool.name, shard), limit), limit))
        return sorted(found, key=lambda entry: entry.rank)[:limit]

    def active(self, pool: Pool, most: int) -> int:
        partitions = (pk(pool.name, shard) for pk in (keys.queued_pk, keys.running_pk) for shard in range(pool.shards))
        entries = (entry for pk in partitions for entry in self._items.open(pk, most))
        return sum(1 for _ in islice(entries, most))

    def put(self, job: Job, replacing: Job | None, op: str) -> bool:
        put = keys.put_write(job, replacing, op)
        return _landed(self._items.put(put), put.op) is not None

    def lead(self, parents: Iterable[str], dependent: str, now: float) -> None:
        for parent in parents:
            self._items.put(keys.edge_write(parent, dependent, now))

    def dependents(self, parent: str) -> list[str]:
        return list(map(keys.dependent_from, self._items.partition(keys.edges_pk(parent))))

    def unblock(self, waiting: Job, now: float, op: str) -> Job | None:
        return self._job(keys.unblock_write(waiting, now, op))

    def grow(self, array: Job) -> bool:
        return self._write(keys.grow_write(array)) is not None

    def gather(
        self, array: Job, status: JobStatus, now: float, error: str, counts: tuple[int, int, int], op: str
    ) -> bool:
        return self._write(keys.gather_write(array, status, now, error, counts, op)) is not None

    def claim(self, queued: Job, holder: Holder, now: float, op: str, task: str = "") -> Job | None:
        return self._job(keys.claim_write(queued, holder, now, op, task))

    def heartbeat(
        self, running: Job, now: float, stage: str, fraction: float, message: str, artifacts: Sequence[str] = ()
    ) -> Job | None:
        return self._job(keys.heartbeat_write(running, now, stage, fraction, message, artifacts))

    def cancel(self, running: Job, reason: str) -> bool:
        return self._write(keys.cancel_write(running, reason)) is not None

    def finish(
        self,
        job: Job,
        status: JobStatus,
        now: float,
        error: str,
        artifacts: Sequence[str],
        op: str,
        attempt: Attempt | None = None,
    ) -> bool:
        return self._write(keys.finish_write(job, status, now, error, artifacts, op, attempt)) is not None

    def requeue(self, running: Job, due_at: float, error: str, attempt: Attempt, op: str) -> bool:
        return self._write(keys.requeue_write(running, due_at, error, attempt, op)) is not None

    def _job(self, write: keys.Write) -> Job | None:
        """The job after the write, or None where its condition refused it."""
        item = self._write(write)
        return None if item is None else self._read.job(item)

    def _write(self, write: keys.Write) -> keys.Item | None:
        """The item after the write, or None where its condition refused it."""
        return _landed(self._items.update(write), write.op)


def _landed(reply: Reply, op: str) -> keys.Item | None:
    """The item that stands, if our own write made it so, its first reply lost or not; None where we are refused."""
    return reply.item if reply.accepted or (op and reply.item.get(keys.OP) == op) else None
