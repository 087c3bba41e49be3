"""The control table: every conditional operation of the protocol, one item at a time, over any store of items.

Two things are settled here once. A refusal is an answer (False, None); and a refusal that hands back our own `op` is a
success whose first reply was lost, whoever retried: the SDK or the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from fleetcap import keys, limits
from fleetcap.decide import shares
from fleetcap.model import (
    Attempt,
    Bank,
    Flags,
    Holder,
    Job,
    JobStatus,
    Lease,
    Override,
    Passed,
    Pool,
    Queued,
    Reservation,
    Running,
    Slot,
    SlotId,
    Use,
)
from fleetcap.ports import Log

T = TypeVar("T")


class Reply(NamedTuple):
    """What became of a conditional write. `item`: as it stands now; empty where a refusal met nothing."""

    accepted: bool
    item: keys.Item


class Items(Protocol):
    """What the control table needs of its store. Every write is atomic on its one item."""

    def get(self, key: Mapping[str, str]) -> keys.Item | None:
        """One item, strongly consistent."""

    def batch(self, wanted: Sequence[Mapping[str, str]]) -> Iterable[keys.Item]:
        """Those of the items that exist, each strongly consistent, in any order, and all in a call or two."""

    def partition(self, pk: str) -> Iterable[keys.Item]:
        """All items of a partition by sort key, strongly consistent."""

    def open(self, pk: str, page: int, since: str = "") -> Iterable[keys.Item]:
        """A partition of the `open` index by rank, lagging, `page` items a request as the caller goes on.

        `since`: only what ranks there or behind.
        """

    def update(self, write: keys.Write) -> Reply:
        """Update one item if its condition holds."""

    def put(self, put: keys.Put) -> Reply:
        """Put one item if its condition holds."""

    def put_each(self, puts: Sequence[keys.Put]) -> None:
        """Put items under no condition, some of them at a time. Raises where any of them may not have landed."""


class Reader(NamedTuple):
    """How items become values."""

    slot: Callable[[keys.Item], Slot]
    job: Callable[[keys.Item], Job]
    queued: Callable[[keys.Item], Queued]
    running: Callable[[keys.Item], Running]
    override: Callable[[keys.Item], Override]


READER: Final = Reader(keys.slot_from, keys.job_from, keys.queued_from, keys.running_from, keys.override_from)


_NOTHING_SAID: Final = Override()


class StoredControlTable:
    """ports.ControlTable over a store of items. `read` tells what items say; a store that never changes an item may
    remember that.

    An item among others that cannot be read is passed over and told to `log`, once; without a log it raises, as a job
    that is asked for by its key always does: keys.Unreadable.
    """

    def __init__(self, items: Items, read: Reader = READER, log: Log | None = None) -> None:
        self._items = items
        self._read = read
        self._log = log
        self._told: set[str] = set()

    # --- slots

    def bank(self, pool: str, number: int) -> Bank:
        slots: list[keys.Item] = []
        reservations: list[keys.Item] = []
        override = _NOTHING_SAID
        for item in self._items.partition(keys.bank_pk(pool, number)):
            sk = item[keys.TABLE_SK]
            if sk.startswith(keys.SLOT_SK):
                slots.append(item)
            elif sk == keys.POOL_SK:
                override = self._read.override(item)
            elif sk.startswith(keys.RESERVATION_SK):
                reservations.append(item)
        legible_slots = list(self._legible(self._read.slot, slots))
        return Bank(legible_slots, override, list(self._legible(keys.reservation_from, reservations)))

    def slots(self, pool: str) -> list[Slot]:
        first = self.bank(pool, 0)
        others = (self.bank(pool, number) for number in range(1, first.override.banks))
        return [slot for bank in (first, *others) for slot in bank.slots]

    def slot(self, slot: SlotId) -> Slot | None:
        item = self._items.get(keys.slot_key(slot))
        return self._read.slot(item) if item else None

    def create_slots(self, slots: Iterable[SlotId], now: float, retired_by: int | None = None) -> None:
        for slot in slots:
            self._items.put(keys.create_write(slot, now, retired_by))

    def lease(
        self,
        slot: Slot,
        launch: str,
        for_job: str,
        strikes: int,
        now: float,
        op: str,
        starved_at: float = 0.0,
        provider: str = "",
    ) -> bool:
        write = keys.lease_write(slot, launch, for_job, strikes, now, op, starved_at, provider)
        return self._write(write) is not None

    def launched(self, lease: Lease, arn: str, now: float) -> bool:
        return self._write(keys.launched_write(lease, arn, now)) is not None

    def beat(
        self, lease: Lease, arn: str, first: bool, now: float, idle_since: float = 0.0, image: str = ""
    ) -> Flags | None:
        item = self._write(keys.beat_write(lease, arn, first, now, idle_since, image))
        if item is None:
            return None
        slot = self._read.slot(item)
        return Flags(leave=slot.leave, retire=slot.retire, keep=slot.keep)

    def release(
        self, lease: Lease, arn: str, now: float, why: str, retry_at: float, op: str, use: Use | None = None
    ) -> bool:
        return self._write(keys.release_write(lease, arn, now, why, retry_at, op, use)) is not None

    def missing(self, lease: Lease, since: float) -> bool:
        return self._write(keys.missing_write(lease, since)) is not None

    def retire(self, slot: SlotId, retire: bool, version: int = 0) -> bool:
        return self._write(keys.retire_write(slot, retire, version)) is not None

    def leave(self, lease: Lease, why: str) -> bool:
        return self._write(keys.leave_write(lease, why)) is not None

    def keep(self, lease: Lease, keep: bool) -> bool:
        return self._write(keys.keep_write(lease, keep)) is not None

    # --- pools

    def override(self, pool: str) -> Override:
        item = self._items.get(keys.override_key(pool))
        return self._read.override(item) if item else _NOTHING_SAID

    def say(self, pool: str, said: Mapping[str, Any], version: int, op: str) -> Override | None:
        item = self._write(keys.override_write(pool, said, version, op))
        return None if item is None else keys.override_from(item)

    def widen(self, pool: str, banks: int) -> None:
        self._write(keys.widen_write(pool, banks))

    def reserve(self, reservation: Reservation) -> bool:
        put = keys.reserve_write(reservation)
        return _landed(self._items.put(put), put.op) is not None

    def unreserve(self, pool: str, name: str, now: float) -> bool:
        return self._write(keys.unreserve_write(pool, name, now)) is not None

    # --- jobs

    def job(self, key: str) -> Job | None:
        item = self._items.get(keys.job_key(key))
        try:
            return self._read.job(item) if item else None
        except keys.Unreadable as error:
            self._tell_of(error)
            raise

    def jobs(self, job_keys: Sequence[str]) -> dict[str, Job]:
        wanted = [keys.job_key(key) for key in dict.fromkeys(job_keys)]
        found = self._legible(self._read.job, self._items.batch(wanted)) if wanted else ()
        return {job.key: job for job in found}

    def queued(self, pool: Pool, now: float, limit: int) -> list[Queued]:
        found: list[Queued] = []
        for shard in range(pool.shards):
            entries = self._legible(self._read.queued, self._items.open(keys.queued_pk(pool.name, shard), limit))
            found += islice((entry for entry in entries if entry.due_at <= now), limit)
        return sorted(found, key=lambda entry: entry.rank)[:limit]

    def running(self, pool: Pool, banks: Iterable[int] | None = None) -> list[Running]:
        wanted = range(self.override(pool.name).banks) if banks is None else banks
        return [
            entry
            for bank in wanted
            for entry in self._legible(
                self._read.running, self._items.open(keys.running_pk(pool.name, bank), limits.OPEN_PAGE_ITEMS)
            )
        ]

    def waiting(self, pool: Pool, limit: int) -> list[Queued]:
        found: list[Queued] = []
        for shard in range(pool.shards):
            entries = islice(self._items.open(keys.waiting_pk(pool.name, shard), limit), limit)
            found += self._legible(self._read.queued, entries)
        return sorted(found, key=lambda entry: entry.rank)[:limit]

    def active(self, pool: Pool, most: int, bounded: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> int:
        banks = range(self.override(pool.name).banks)
        partitions = [keys.queued_pk(pool.name, shard) for shard in range(pool.shards)]
        partitions += [keys.running_pk(pool.name, bank) for bank in banks]
        entries = (entry for pk in bounded(partitions) for entry in self._items.open(pk, most))
        return sum(1 for _ in islice(bounded(entries), most))

    def put(self, job: Job, replacing: Job | None, op: str) -> bool:
        put = keys.put_write(job, replacing, op)
        return _landed(self._items.put(put), put.op) is not None

    def lead(self, parents: Iterable[str], dependent: str, now: float) -> None:
        if edges := [keys.edge_write(parent, dependent, now) for parent in parents]:
            self._items.put_each(edges)

    def dependents(self, parent: str, most: int) -> list[str]:
        return list(map(keys.dependent_from, islice(self._items.partition(keys.edges_pk(parent)), most)))

    def unblock(self, waiting: Job, now: float, op: str, rank: str = "") -> Job | None:
        return self._job(keys.unblock_write(waiting, now, op, rank))

    def grow(self, array: Job, parts: int | None = None) -> bool:
        return self._write(keys.grow_write(array, parts)) is not None

    def pass_over(self, array: Job, passed: Passed) -> None:
        self._write(keys.pass_write(array, passed))

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

    # --- shares

    def draw(self, pool: Pool, priority: int, jobs: Mapping[str, int], now: float) -> dict[str, list[int]]:
        head = self._head(pool, priority)
        drawn = self._drawn(pool, priority, jobs, everybody=not (head and head.drawn))
        at = shares.virtual_time(head, max(drawn.values(), default=0), now)
        tags: dict[str, list[int]] = {}
        for tenant, count in jobs.items():
            known, step = drawn.get(tenant, 0), shares.step(pool, tenant)
            reply = self._items.update(keys.draw_write(pool.name, priority, tenant, known, at, count * step, now))
            _, standing = keys.drawn_from(reply.item) if reply.item else (tenant, known)
            # Who is refused was overtaken by another intake of the same tenant, and draws unpaid beside that one.
            first = standing - count * step if reply.accepted else standing
            tags[tenant] = [first + number * step for number in range(count)]
        return tags

    def _drawn(self, pool: Pool, priority: int, tenants: Iterable[str], everybody: bool) -> dict[str, int]:
        """How far tenants have drawn: these, or all of whom the table knows."""
        if everybody:
            return dict(map(keys.drawn_from, self._items.partition(keys.shares_pk(pool.name, priority))))
        found = (self._items.get(keys.share_key(pool.name, priority, tenant)) for tenant in tenants)
        return dict(keys.drawn_from(item) for item in found if item)

    def _head(self, pool: Pool, priority: int) -> shares.Head | None:
        """Who comes next of those that never ran: a job that came back waits where it was long ago."""
        level = keys.level_of(priority)
        heads: list[str] = []
        for shard in range(pool.shards):
            entries = self._items.open(keys.queued_pk(pool.name, shard), limits.LOOK_ITEMS, since=level)
            waiting = takewhile(lambda entry: entry.rank.startswith(level), self._legible(self._read.queued, entries))
            # One that waited for parents is due later than it was put, and has no attempt yet.
            fresh = (each.rank for each in waiting if each.due_at == each.queued_at or not each.attempt)
            heads += islice(fresh, 1)
        return shares.Head(*keys.tag_of(min(heads))) if heads else None

    def _legible(self, read: Callable[[keys.Item], T], items: Iterable[keys.Item]) -> Iterator[T]:
        """What the items say, but for those that cannot be read: the others must not suffer from them."""
        for item in items:
            try:
                value = read(item)
            except keys.Unreadable as error:
                if self._log is None:
                    raise
                self._tell_of(error)
            else:
                yield value

    def _tell_of(self, error: keys.Unreadable) -> None:
        if self._log and str(error) not in self._told:
            self._told.add(str(error))
            self._log("unreadable", key=error.key, error=str(error))

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
