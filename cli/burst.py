"""What an onlooker knows of a burst at one moment, gathered from the table and from the Fargate's meter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fleetcap.model import Holder, Job, JobStatus, Pool, Slot, SlotState
from local.client import Client, Meter


@dataclass(frozen=True)
class Snapshot:
    """One moment of a burst. Times are unix seconds; `meter` is the Fargate's word, the rest is the table's."""

    now: float
    sent_at: float
    pool: Pool
    slots: Sequence[Slot]
    jobs: Sequence[Job]
    total: int
    meter: Meter

    def with_status(self, *statuses: JobStatus) -> list[Job]:
        """The jobs in any of these states, oldest claim first."""
        return sorted((job for job in self.jobs if job.status in statuses), key=lambda job: job.claimed_at)

    @property
    def waiting(self) -> int:
        """Jobs that nobody has claimed yet, those still in the intake queue among them."""
        return self.total - sum(job.status is not JobStatus.QUEUED for job in self.jobs)

    @property
    def ended(self) -> int:
        """Jobs in a final state."""
        return sum(job.ended for job in self.jobs)

    def slot_marks(self) -> list[tuple[SlotState, bool]]:
        """Each slot's state, and whether its worker runs a job now."""
        busy = {job.holder.lease for job in self.with_status(JobStatus.RUNNING) if isinstance(job.holder, Holder)}
        return [(slot.state, slot.lease in busy) for slot in self.slots if slot.id.number < self.pool.cap]


class Onlooker:
    """Reads a burst again and again; a job that has ended is not read twice."""

    def __init__(self, client: Client, pool: Pool, keys: Sequence[str], sent_at: float) -> None:
        self._client = client
        self._pool = pool
        self._keys = keys
        self._sent_at = sent_at
        self._ended: dict[str, Job] = {}

    def look(self) -> Snapshot:
        """The burst as it is now. The table and the meter are read one after the other, not in one instant."""
        found = self._client.table.jobs([k for k in self._keys if k not in self._ended])
        self._ended |= {key: job for key, job in found.items() if job.ended}
        jobs = [job for job in (self._ended.get(key) or found.get(key) for key in self._keys) if job]
        slots = self._client.table.slots(self._pool.name)
        meter = self._client.meter(self._pool.name)
        return Snapshot(time.time(), self._sent_at, self._pool, slots, jobs, len(self._keys), meter)
