"""What every decider does alike: gather a view of a pool, let `decide` judge it, apply that by conditional writes.

Each step may run twice, late or not at all: what one decider leaves undone, the next event or the tick finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fleetcap import keys, limits
from fleetcap.decide import capacity, launch, recover
from fleetcap.model import (
    JobStatus,
    Lease,
    NotStarted,
    Pool,
    Queued,
    Running,
    Slot,
    Started,
    TaskStatus,
)
from fleetcap.ports import Clock, ControlTable, Log, Tasks


@dataclass(frozen=True)
class Fleet:
    """The pools, and the ports through which they are moved."""

    pools: Mapping[str, Pool]
    table: ControlTable
    tasks: Tasks
    clock: Clock
    log: Log

    # --- capacity

    def scale(self, pool: Pool, wanted: Sequence[Queued] | None, most: int) -> None:
        """Lease slots for jobs that no lane is free for, and launch a worker under each lease.

        `wanted` names the jobs in question and makes up for an index that does not show them yet; None means all.
        """
        for _ in range(limits.SCALE_ROUNDS):
            slots = self.slots(pool)
            now = self.clock.now()
            if wait := capacity.full(pool, slots, now):
                self.log("wait", pool=pool.name, reason=wait.reason, until=wait.until)
                return
            view = self._view(pool, slots, wanted, now)
            leases = capacity.scale(view, None if wanted is None else {job.key for job in wanted}, most)
            taken = [self._lease(pool, slots, decision) for decision in leases]
            if all(taken):
                return

    def slots(self, pool: Pool) -> list[Slot]:
        """All slots of the pool; on the first look of all they are created."""
        slots = self.table.slots(pool.name)
        if len(slots) >= pool.cap:
            return slots
        known = {slot.id for slot in slots}
        self.table.create_slots((s for s in keys.slot_ids(pool.name, pool.cap) if s not in known), self.clock.now())
        return self.table.slots(pool.name)

    def _view(self, pool: Pool, slots: Sequence[Slot], wanted: Sequence[Queued] | None, now: float) -> capacity.View:
        lanes = pool.cap * pool.jobs_per_worker
        queued = {job.key: job for job in self.table.queued(pool, now, lanes + len(wanted or ()))}
        queued.update((job.key, job) for job in wanted or ())
        return capacity.View(pool, slots, list(queued.values()), self.table.running(pool), now)

    def _lease(self, pool: Pool, slots: Sequence[Slot], decision: capacity.LeaseFor) -> bool:
        """Take any EMPTY slot for the job and launch there. False: every candidate was taken meanwhile."""
        strikes = capacity.backoff(slots).strikes
        candidates = capacity.candidates(pool, slots)
        while candidates:
            slot = candidates.pop(int(self.clock.uniform(0, len(candidates))) % len(candidates))
            request = launch.request(pool, slot.lease, keys.ENV_LEASE)
            now = self.clock.now()
            if self.table.lease(slot, request, decision.job_key, strikes, now, self.clock.unique()):
                self.log("lease", lease=str(slot.lease), job=decision.job_key)
                self.launch(slot.lease, request, strikes)
                return True
        return False

    # --- launches

    def launch(self, lease: Lease, request: str, strikes: int) -> str:
        """Send (or send again) RunTask under the lease's token and record what it says. The ARN, or "" if unknown."""
        answer = self.tasks.run(lease, request)
        if isinstance(answer, Started):
            self.log("launched", lease=str(lease), arn=answer.arn)
            self.table.launched(lease, answer.arn)
            return answer.arn
        if isinstance(answer, NotStarted):
            self._release(lease, "", f"RunTask failed: {answer.reason}", failed=True, strikes=strikes)
        else:
            self.log("launch unanswered", lease=str(lease), doubt=answer.doubt.value, reason=answer.reason)
        return ""

    def resend(self, slot: Slot) -> str:
        """Learn the task of a launch whose sender did not record it. The ARN, or "" if unknown."""
        return self.launch(slot.lease, slot.launch, slot.strikes)

    # --- proof

    def settle(self, slot: Slot, status: TaskStatus) -> bool:
        """Apply ECS's word on the slot's recorded task. True if the slot was released."""
        released = False
        for verdict in recover.judge(slot, status, self.clock.now()):
            match verdict:
                case recover.Release(why=why, failed=failed):
                    released = self._release(slot.lease, slot.arn, why, failed, slot.strikes)
                case recover.Missing(since=since):
                    self.table.missing(slot.lease, since)
                case recover.Stop(why=why):
                    self.log("stop", lease=str(slot.lease), arn=slot.arn, why=why)
                    self.tasks.stop(launch.cluster_of(slot.launch), slot.arn, why)
        return released

    def _release(self, lease: Lease, arn: str, why: str, failed: bool, strikes: int) -> bool:
        now = self.clock.now()
        retry_at = capacity.retry_at(strikes, now, self.clock.uniform(0, 1)) if failed else 0.0
        released = self.table.release(lease, arn, now, why, retry_at, self.clock.unique())
        self.log("release", lease=str(lease), arn=arn, why=why, refused=not released, retry_at=retry_at)
        return released

    # --- jobs of dead holders

    def requeue(self, orphans: Collection[Running], why: str) -> None:
        """Send jobs whose holder is dead back into the queue, or end them where that happened too often."""
        for orphan in orphans:
            job = self.table.job(orphan.key)
            if job is None or job.status is not JobStatus.RUNNING or job.holder != orphan.holder:
                continue  # the index lags: somebody has moved the job on
            now = self.clock.now()
            outcome = recover.interrupted(job, now, why)
            self.log("requeue", job=job.id, key=job.key, holder=str(job.holder), outcome=type(outcome).__name__)
            match outcome:
                case recover.Requeue(due_at, failures, interruptions, error):
                    self.table.requeue(job, due_at, failures, interruptions, error, self.clock.unique())
                case recover.GiveUp(error):
                    self.table.finish(job, JobStatus.FAILED, now, error, (), self.clock.unique())
