"""What every decider does alike: gather a view of a pool, let `decide` judge it, apply that by conditional writes.

Each step may run twice, late or not at all: what one decider leaves undone, the next event or the tick finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fleetcap import jobs, keys, limits
from fleetcap.decide import capacity, deadlines, launch, recover, retry, taxonomy
from fleetcap.model import (
    FailureClass,
    JobStatus,
    LaunchAnswer,
    Lease,
    NotStarted,
    Pool,
    Queued,
    Running,
    Slot,
    Started,
    TaskStatus,
    Unanswered,
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
            if self._lease_all(pool, slots, leases):
                return

    def _lease_all(self, pool: Pool, slots: Sequence[Slot], leases: Sequence[capacity.LeaseFor]) -> bool:
        """Carry the leases out. False: every candidate of one was taken meanwhile, so the slots must be read again."""
        candidates = capacity.candidates(pool, slots)
        backoff = capacity.backoff(slots, self.clock.now())
        for decision in leases:
            leased = self._lease(pool, candidates, decision, backoff)
            if leased is None:
                return False
            if isinstance(leased, NotStarted):
                return True  # what kept this launch from starting would keep the next
        return True

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
        queued.update((job.key, job) for job in wanted or () if job.due_at <= now)
        return capacity.View(pool, slots, list(queued.values()), self.table.running(pool), now)

    def _lease(
        self, pool: Pool, candidates: list[Slot], decision: capacity.LeaseFor, backoff: capacity.Backoff
    ) -> LaunchAnswer | None:
        """Take any of the candidates, using them up on the way, and launch there. None: all were taken meanwhile."""
        while candidates:
            slot = candidates.pop(int(self.clock.uniform(0, len(candidates))) % len(candidates))
            request = launch.request(pool, slot.lease, keys.ENV_LEASE)
            now = self.clock.now()
            op, strikes = self.clock.unique(), backoff.strikes
            if self.table.lease(slot, request, decision.job_key, strikes, now, op, backoff.since):
                self.log("lease", lease=str(slot.lease), job=decision.job_key)
                return self.launch(slot.lease, request, strikes)
        return None

    # --- launches

    def launch(self, lease: Lease, request: str, strikes: int) -> LaunchAnswer:
        """Send (or send again) RunTask under the lease's token and record what it says."""
        answer = self.tasks.run(lease, request)
        match answer:
            case Started(arn):
                self._say("launched", lease, arn=arn, launches_started=1)
                if not self.table.launched(lease, arn, self.clock.now()):
                    self._stop_if_unfenced(lease, arn, request)
            case NotStarted(reason):
                self._release(lease, "", taxonomy.never_started(reason), failed=True, strikes=strikes)
            case Unanswered(doubt, reason):
                self._say("launch unanswered", lease, doubt=doubt.value, reason=reason, launches_unanswered=1)
        return answer

    def _say(self, event: str, lease: Lease, **fields: object) -> None:
        """Log a line about a launch, figures among its fields being its pool's."""
        self.log(event, lease=str(lease), pool=lease.slot.pool, **fields)

    def _stop_if_unfenced(self, lease: Lease, arn: str, request: str) -> None:
        """A launch that its worker's first beat overtook is well; a task under a slot that was freed must not live."""
        slot = self.table.slot(lease.slot)
        if slot and slot.generation > lease.generation:
            self.log("late answer", lease=str(lease), arn=arn, why="the slot was freed before RunTask answered")
            self.tasks.stop(launch.cluster_of(request), arn, "its slot was freed before RunTask answered")

    def resend(self, slot: Slot) -> Slot:
        """Learn the task of a launch whose sender did not record it; the slot as it is then."""
        fresh = self.table.slot(slot.id)
        if fresh is None or fresh.lease != slot.lease or not fresh.held or fresh.arn:
            return fresh or slot
        if isinstance(answer := self.launch(fresh.lease, fresh.launch, fresh.strikes), Started):
            return replace(fresh, arn=answer.arn, launched_at=self.clock.now())
        return fresh

    # --- proof

    def settle(self, slot: Slot, status: TaskStatus, reason: str = "") -> bool:
        """Apply ECS's word on the slot's recorded task, with the reason it gave. True if the slot was released."""
        released = False
        for verdict in recover.judge(slot, status, self.clock.now(), reason):
            match verdict:
                case recover.Release(why=why, failed=failed):
                    why = taxonomy.never_started(why) if failed else why
                    released = self._release(slot.lease, slot.arn, why, failed, slot.strikes)
                case recover.Missing(since=since):
                    self.table.missing(slot.lease, since)
                case recover.Stop(why=why):
                    self._stop_if_still_silent(slot, why)
        return released

    def _stop_if_still_silent(self, slot: Slot, why: str) -> None:
        """The slot was read a while ago; a beat since then clears its worker."""
        fresh = self.table.slot(slot.id)
        if fresh and fresh.lease == slot.lease and recover.silent(fresh, self.clock.now()):
            self.log("stop", lease=str(slot.lease), arn=slot.arn, why=why)
            self.tasks.stop(launch.cluster_of(slot.launch), slot.arn, why)

    def _release(self, lease: Lease, arn: str, why: str, failed: bool, strikes: int) -> bool:
        now = self.clock.now()
        retry_at = capacity.retry_at(strikes, now, self.clock.uniform(0, 1)) if failed else 0.0
        released = self.table.release(lease, arn, now, why, retry_at, self.clock.unique())
        counted = {"launches_failed": 1} if failed and released else {}
        self._say("release", lease, arn=arn, why=why, refused=not released, retry_at=retry_at, **counted)
        return released

    # --- jobs that waited too long

    def end_overdue(self, pool: Pool, slots: Sequence[Slot]) -> None:
        """FAILED, for jobs that have waited longer than their pool lets them: a bounded number at a time."""
        now = self.clock.now()
        if not deadlines.looms(pool, slots, now):
            return
        queued = self.table.queued(pool, now, limits.OVERDUE_READ)
        for late in deadlines.overdue(pool, slots, queued, now)[: limits.OVERDUE_PER_TICK]:
            job = self.table.job(late.job.key)
            seen = late.job.run, late.job.attempt
            if job is None or job.status is not JobStatus.QUEUED or (job.run, job.attempt) != seen:
                continue  # the index lags: somebody has claimed it, or another run has begun to wait
            ended = self.table.finish(job, JobStatus.FAILED, now, late.error, (), self.clock.unique())
            self.log(
                "overdue",
                job=job.id,
                key=job.key,
                correlation_id=job.correlation_id,
                reason=late.error,
                refused=not ended,
            )

    # --- jobs of dead holders

    def requeue(self, orphans: Collection[Running], failure: FailureClass, why: str) -> None:
        """Send jobs whose holder is dead back into the queue, or end them where that happened too often."""
        for orphan in orphans:
            try:
                self._requeue(orphan, failure, why)
            except Exception as error:  # the tick tries again; the other jobs must not wait for it
                self.log("not requeued", key=orphan.key, error=repr(error))

    def _requeue(self, orphan: Running, failure: FailureClass, why: str) -> None:
        job = self.table.job(orphan.key)
        if job is None or job.status is not JobStatus.RUNNING or job.holder != orphan.holder:
            return  # the index lags: somebody has moved the job on
        outcome = retry.after(job, failure, why, self.clock.now(), self.clock.uniform(0, 1))
        accepted = jobs.settle(self.table, job, outcome, self.clock.now(), self.clock.unique())
        self.log(
            "requeue",
            job=job.id,
            key=job.key,
            correlation_id=job.correlation_id,
            holder=str(job.holder),
            outcome=type(outcome).__name__,
            refused=not accepted,
            pool=job.pool,
            **({f"attempts_{retry.ending(outcome)}": 1} if accepted else {}),
        )
