"""What every decider does alike: gather a view of a pool, let `decide` judge it, apply that by conditional writes.

Each step may run twice, late or not at all: what one decider leaves undone, the next event or the tick finds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from fleetcap import jobs, keys, limits, pools
from fleetcap.decide import budget, capacity, deadlines, launch, recover, retry, standby, taxonomy
from fleetcap.model import (
    FailureClass,
    JobStatus,
    LaunchAnswer,
    Lease,
    NotStarted,
    Pool,
    Queued,
    Reservation,
    Running,
    Slot,
    SlotId,
    Started,
    TaskStatus,
    Unanswered,
    Use,
)
from fleetcap.ports import Clock, ControlTable, Log, Tasks
from fleetcap.timebox import Timebox

T = TypeVar("T")


class Standing(NamedTuple):
    """A pool as it is to be now, and the slots of those of its `banks` that were read: a `share` of all there are."""

    pool: Pool
    slots: Sequence[Slot]
    reservations: Sequence[Reservation] = ()
    share: float = 1.0
    banks: Sequence[int] = (0,)

    @property
    def whole(self) -> bool:
        """All its slots were read."""
        return self.share == 1.0

    def of(self, banks: Sequence[int]) -> Standing:
        """As if no other banks had been read."""
        if len(banks) == len(self.banks):
            return self
        slots = [slot for slot in self.slots if slot.id.bank in banks]
        return self._replace(slots=slots, share=self.share * len(banks) / len(self.banks), banks=tuple(banks))


class Resent(NamedTuple):
    """A slot as it is after its launch was sent again, and RunTask's answer; None where there was nothing to send."""

    slot: Slot
    answer: LaunchAnswer | None = None


class Fleet(NamedTuple):
    """The pools, and the ports through which they are moved; within a `box` of time, without one to the end.

    What a step leaves undone as the time is spent, it logs or leaves to be found.
    """

    pools: Mapping[str, Pool]
    table: ControlTable
    tasks: Tasks
    clock: Clock
    log: Log
    box: Timebox | None = None

    @property
    def time(self) -> Timebox:
        """For how long its steps begin things."""
        return self.box or Timebox(self.clock)

    def within(self, box: Timebox) -> Fleet:
        """The same, for as long as that."""
        return self._replace(box=box)

    # --- capacity

    def scale(
        self,
        pool: Pool,
        wanted: Sequence[Queued] | None,
        most: int,
        near: SlotId | None = None,
        seen: capacity.View | None = None,
    ) -> int:
        """Lease slots for jobs that no lane is free for, and launch a worker under each lease; how many.

        `wanted` names the jobs in question and makes up for an index that does not show them yet; None means all.
        `near` is a slot whose bank is to be looked at, in a pool of which not all can be. Whoever has just `seen` the
        pool need not look again.
        """
        begun, keys_wanted = 0, None if wanted is None else {job.key for job in wanted}
        for _ in self.time.each(range(limits.SCALE_ROUNDS)):
            view, seen = self._room_in(seen) if seen else self._see_room(pool, wanted, near), None
            if view is None or self.time.over:
                return begun
            leased, all_done = self._lease_all(view, capacity.scale(view, keys_wanted, most - begun))
            begun += leased
            if all_done:
                return begun
        return begun

    def _see_room(self, pool: Pool, wanted: Sequence[Queued] | None, near: SlotId | None) -> capacity.View | None:
        """A pool in which a slot may be leased for somebody. Nothing is read beyond what shows that there is none."""
        standing, now = self.look(pool, near), self.clock.now()
        if self.time.over or self._full(standing, now):
            return None
        queued = self._queued(standing.pool, wanted, now)
        if not capacity.anybody(standing.pool, queued, standing.reservations, now):
            return None
        return self._view(standing, queued, now)

    def _room_in(self, seen: capacity.View) -> capacity.View | None:
        return None if self._full(seen, seen.now) else seen

    def _full(self, seen: Standing | capacity.View, now: float) -> bool:
        """Whether no slot can be leased whatever is queued; it is told why."""
        wait = capacity.full(seen.pool, seen.slots, now, seen.share)
        if wait:
            self.log("wait", pool=seen.pool.name, reason=wait.reason, until=wait.until)
        return wait is not None

    def _lease_all(self, view: capacity.View, leases: Sequence[capacity.LeaseFor]) -> tuple[int, bool]:
        """Carry the leases out; how many. False: every candidate was taken meanwhile, so the slots must be read again.

        What keeps one launch from starting would keep the next, unless that one comes from another provider. A slot is
        leased only where its launch is sent at once: whoever else has time may take the others.
        """
        if not leases:
            return 0, True
        pool = view.pool
        candidates = capacity.candidates(pool, view.slots)
        providers = capacity.Providers(pool, view.slots, self.clock.now())
        begun, pending = 0, list(leases)
        while pending and (provider := providers.take()):
            if not self.time.allows(begun):
                self.log("wait", pool=pool.name, reason="the time for launches is spent", left=len(pending))
                break
            answer = self._lease(pool, candidates, pending[0], provider, providers.backoffs[provider])
            if answer is None:
                return begun, False
            if isinstance(answer, NotStarted):
                providers.refused(provider)
                continue
            begun += 1
            del pending[0]
            if launch.ends(answer):
                break
        return begun, True

    def look(self, pool: Pool, near: SlotId | None = None, whole: bool = False) -> Standing:
        """The pool as it is to be now, and its slots: all of them if it is `whole` or small, else those of some banks.

        Where calls are slow it is fewer banks, other ones each time: looking must leave time to act. On the first look
        of all slots are created, and a bank of them whenever those before are in use.
        """
        reading = self.time.rest.part(limits.LOOK_PART)
        banks = {0: self.table.bank(pool.name, 0)}
        pool = pool.under(banks[0].override)
        numbers = self._from_any(range(1, pool.banks)) if whole else self._some_banks(pool.banks, near)
        for number in reading.each(numbers):
            banks[number] = self.table.bank(pool.name, number)
        slots = {slot.id.number: slot for number in sorted(banks) for slot in banks[number].slots}
        for number in [*sorted(banks), pool.banks]:
            new = number >= pool.banks
            missing = [slot for slot in keys.slot_ids(pool.name, pool.cap, number) if slot.number not in slots]
            if not missing or (new and capacity.candidates(pool, list(slots.values()))):
                continue
            self.table.create_slots(self.time.each(missing), self.clock.now())
            if new:
                self.table.widen(pool.name, number + 1)
                pool = replace(pool, banks=number + 1)
            banks[number] = self.table.bank(pool.name, number)
            slots |= {slot.id.number: slot for slot in banks[number].slots}
        share = min(len(banks) / pool.banks, 1.0)
        return Standing(pool, list(slots.values()), banks[0].reservations, share, tuple(banks))

    def _some_banks(self, banks: int, near: SlotId | None) -> list[int]:
        """Besides the first bank as many others as a decision may read: that of a slot, and some at random."""
        found = [near.bank] if near and 0 < near.bank < banks else []
        others = [number for number in range(1, banks) if number not in found]
        while others and len(found) < limits.BANKS_PER_DECISION - 1:
            found.append(others.pop(int(self.clock.uniform(0, len(others))) % len(others)))
        return found

    def view(self, standing: Standing) -> capacity.View:
        """What is decided on: the slots, the jobs that may have a lane there, and those that have one."""
        now = self.clock.now()
        return self._view(standing, self._queued(standing.pool, None, now), now)

    def _view(self, standing: Standing, queued: Sequence[Queued], now: float) -> capacity.View:
        """Of as many banks as there is time to read for who runs on them."""
        first, *others = standing.banks
        running, read = self.table.running(standing.pool, [first]), [first]
        for bank in self.time.rest.part(2).each(others):
            running += self.table.running(standing.pool, [bank])
            read.append(bank)
        standing = standing.of(read)
        return capacity.View(standing.pool, standing.slots, queued, running, now, standing.reservations, standing.share)

    def _queued(self, pool: Pool, wanted: Sequence[Queued] | None, now: float) -> list[Queued]:
        """The jobs that wait, as the index shows them and as the caller knows."""
        most = min(pool.cap * pool.jobs_per_worker, limits.QUEUED_PER_DECISION) + len(wanted or ())
        queued = {job.key: job for job in self.table.queued(pool, now, most)}
        queued.update((job.key, job) for job in wanted or () if job.due_at <= now)
        return list(queued.values())

    def _lease(
        self,
        pool: Pool,
        candidates: list[Slot],
        decision: capacity.LeaseFor,
        provider: str,
        backoff: capacity.Backoff,
    ) -> LaunchAnswer | None:
        """Take any of the candidates, using them up on the way, and launch there. None: all were taken meanwhile."""
        while candidates:
            slot = candidates.pop(int(self.clock.uniform(0, len(candidates))) % len(candidates))
            request = launch.request(pool, slot.lease, keys.ENV_LEASE, provider)
            now = self.clock.now()
            op, strikes = self.clock.unique(), backoff.strikes
            if self.table.lease(slot, request, decision.job_key, strikes, now, op, backoff.since, provider):
                self.log("lease", lease=str(slot.lease), job=decision.job_key, provider=provider)
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

    def resend(self, slot: Slot) -> Resent:
        """Learn the task of a launch whose sender did not record it."""
        fresh = self.table.slot(slot.id)
        if fresh is None or fresh.lease != slot.lease or not fresh.held or fresh.arn:
            return Resent(fresh or slot)
        answer = self.launch(fresh.lease, fresh.launch, fresh.strikes)
        if isinstance(answer, Started):
            fresh = replace(fresh, arn=answer.arn, launched_at=self.clock.now())
        return Resent(fresh, answer)

    # --- proof

    def settle(self, slot: Slot, status: TaskStatus, reason: str = "") -> bool:
        """Apply ECS's word on the slot's recorded task, with the reason it gave. True if the slot was released."""
        released = False
        for verdict in recover.judge(slot, status, self.clock.now(), reason):
            match verdict:
                case recover.Release(why=why, failed=failed):
                    why = taxonomy.never_started(why) if failed else why
                    use = budget.use(slot, self.clock.now())
                    released = self._release(slot.lease, slot.arn, why, failed, slot.strikes, use)
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

    def _release(self, lease: Lease, arn: str, why: str, failed: bool, strikes: int, use: Use | None = None) -> bool:
        now = self.clock.now()
        retry_at = capacity.retry_at(strikes, now, self.clock.uniform(0, 1)) if failed else 0.0
        released = self.table.release(lease, arn, now, why, retry_at, self.clock.unique(), use)
        counted = {"launches_failed": 1} if failed and released else {}
        self._say("release", lease, arn=arn, why=why, refused=not released, retry_at=retry_at, **counted)
        return released

    # --- workers that are idle, old, or not wanted

    def tell_workers(self, view: capacity.View) -> bool:
        """Who is to stay although it is idle, and who is to leave. False: nobody was told anything."""
        marks = standby.marks(view)
        for mark in self.for_a_while(marks):
            match mark:
                case standby.Keep(slot, keep):
                    self.table.keep(slot.lease, keep)
                case standby.Leave(slot, why):
                    asked = self.table.leave(slot.lease, why)
                    self.log("leave", lease=str(slot.lease), why=why, refused=not asked)
        return bool(marks)

    def stop_all(self, standing: Standing) -> int:
        """Stop every task of a pool that is known; how many. Each gives its jobs back; the slots wait for proof.

        A worker whose task is not known yet is told to leave as soon as it is there.
        """
        stopped = 0
        for slot in self.for_a_while([slot for slot in standing.slots if slot.held]):
            stopped += pools.stop(self.table, self.tasks, slot, standing.pool.reason or "stop-all")
        return stopped

    def for_a_while(self, things: Sequence[T]) -> Iterator[T]:
        """Each of the things until the time is spent, another one first each time: whoever comes next goes on."""
        return self.time.each(self._from_any(things))

    def _from_any(self, things: Sequence[T]) -> list[T]:
        """All of them, in their order, beginning anywhere."""
        offset = int(self.clock.uniform(0, len(things)))
        return [*things[offset:], *things[:offset]]

    # --- jobs that waited too long

    def end_overdue(self, pool: Pool, slots: Sequence[Slot]) -> bool:
        """FAILED, for jobs that have waited longer than their pool lets them: a bounded number at a time; if any.

        The pool is looked at anew before anybody is given up: a worker may have come since it was read.
        """
        now = self.clock.now()
        if not deadlines.looms(pool, slots, now):
            return False
        queued = self.table.queued(pool, now, limits.OVERDUE_READ)
        standing, now = self.look(pool, whole=True), self.clock.now()
        if not standing.whole:  # a worker may have come where nobody could look
            self.log("cut off", reason="not all slots could be read in time", left=[f"{pool.name} overdue jobs"])
            return False
        late_ones = deadlines.overdue(standing.pool, standing.slots, queued, now)[: limits.OVERDUE_PER_TICK]
        for late in self.time.each(late_ones):
            try:
                job = self.table.job(late.job.key)
            except keys.Unreadable:  # the table has told of it
                continue
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
        return bool(late_ones)

    # --- jobs of dead holders

    def requeue(self, orphans: Collection[Running], failure: FailureClass, why: str) -> bool:
        """Send jobs whose holder is dead back into the queue, or end them where that happened too often.

        False: there was no time for all of them.
        """
        tried = 0
        for orphan in self.for_a_while(list(orphans)):
            tried += 1
            try:
                self._requeue(orphan, failure, why)
            except Exception as error:  # the tick tries again; the other jobs must not wait for it
                self.log("not requeued", key=orphan.key, error=repr(error))
        return tried == len(orphans)

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
