"""How much capacity to ask for: the one pure function that every decider shares.

It works on a strongly consistent reading of the slots and a lagging one of the jobs. An estimate that is off wastes or
delays a launch; it cannot break the cap, because each lease is a conditional write on one slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fleetcap import limits
from fleetcap.decide import budget
from fleetcap.decide.backoff import due_at
from fleetcap.model import Mode, Pool, Queued, Reservation, Running, Slot, SlotState

ON_DEMAND: Final = "FARGATE"
SPOT: Final = "FARGATE_SPOT"


@dataclass(frozen=True)
class View:
    """What a decider knows of one pool at `now`.

    Slots and running jobs may be those of some banks of a large pool: a `share` of it that stands for the whole.
    """

    pool: Pool
    slots: Sequence[Slot]
    queued: Sequence[Queued]
    running: Sequence[Running]
    now: float
    reservations: Sequence[Reservation] = ()
    share: float = 1.0

    @property
    def whole(self) -> bool:
        """All its slots were read."""
        return self.share == 1.0


@dataclass(frozen=True)
class LeaseFor:
    """Lease one EMPTY slot, for this job; "" for a worker that is to stand by."""

    job_key: str


@dataclass(frozen=True)
class Wait:
    """No lease now, for this reason. `until` is unix seconds, 0 where no time is known."""

    reason: str
    until: float = 0.0


@dataclass(frozen=True)
class Backoff:
    """The pool's launches failed `strikes` times in a row, or one has no answer; nothing new before `until`.

    `since`: since when no launch has brought a worker; 0 where nothing is wrong.
    """

    strikes: int
    until: float
    reason: str = ""
    since: float = 0.0


def candidates(pool: Pool, slots: Sequence[Slot]) -> list[Slot]:
    """The slots that a lease may try."""
    return [s for s in slots if s.state is SlotState.EMPTY and not s.retire and s.id.number < pool.cap]


_NO_ANSWER: Final = "a launch has had no answer yet"
_FREE: Final = Backoff(0, 0.0, _NO_ANSWER)


def backoff(slots: Sequence[Slot], now: float, provider: str = "") -> Backoff:
    """What the slots tell of launches that failed, or have no answer, since the last worker that became ready.

    A launch without an answer is never given up, but while there is one, the next is tried only minutes later: what
    is wrong with it may well be wrong with all. With a `provider` they tell of launches from this one alone.
    """
    oldest = now - limits.STRIKES_REMEMBERED_S
    if not [s for s in slots if s.failed_at > oldest or unresolved(s, now)]:
        return _FREE
    forgotten = max([s.ready_at for s in slots if _from(s.ready_with, provider)], default=0.0)
    remembered = max(forgotten, oldest)
    failed = [s for s in slots if s.failed_at > remembered and _from(s.failed_with, provider)]
    mine = [s for s in slots if _from(s.provider, provider)]
    unanswered = [s for s in mine if unresolved(s, now) and s.leased_at > forgotten]
    until = [s.retry_at for s in failed] + [s.leased_at + limits.BACKOFF_MAX_S for s in unanswered]
    # A lease from another provider may have left its own count on the slot: a failure is one strike at the least.
    strikes = max([max(s.strikes, 1) for s in failed], default=0)
    began = [s.starved_at or s.failed_at for s in failed] + [s.starved_at or s.leased_at for s in unanswered]
    since = max(min(began), forgotten) if began else 0.0
    return Backoff(max(strikes, min(len(unanswered), 1)), max(until, default=0.0), _reason(failed, strikes), since)


def _reason(failed: Sequence[Slot], strikes: int) -> str:
    """In a person's words, with what was said of the last failure."""
    if not strikes:
        return _NO_ANSWER
    last = max(failed, key=lambda slot: slot.failed_at)
    times = "a launch failed" if strikes == 1 else f"{strikes} launches in a row failed"
    return f"{times}: {last.why}" if last.why else times


def _from(provider: str, wanted: str) -> bool:
    """Whether what a slot tells is of this provider; of any, where none is wanted."""
    return not wanted or (provider or ON_DEMAND) == wanted


def unresolved(slot: Slot, now: float) -> bool:
    """RunTask was sent a while ago, and nobody knows yet what became of it."""
    return slot.state is SlotState.LAUNCHING and not slot.arn and now - slot.leased_at > limits.RESEND_AFTER_S


def pool_backoff(pool: Pool, slots: Sequence[Slot], now: float) -> Backoff:
    """What keeps the pool from launching: nothing, as long as one of its providers does not hold it up."""
    held_up = list(_backoffs(pool, slots, now).values())
    least = min(held_up, key=lambda each: (each.strikes > 0, each.until))
    return replace(least, since=max(each.since for each in held_up)) if least.strikes else least


def _backoffs(pool: Pool, slots: Sequence[Slot], now: float) -> dict[str, Backoff]:
    """By provider. Where there is one only, whatever the slots tell is of it."""
    providers = list(_weights(pool))
    if len(providers) == 1:
        return {providers[0]: backoff(slots, now)}
    return {provider: backoff(slots, now, provider) for provider in providers}


def _weights(pool: Pool) -> Mapping[str, int]:
    """The pool's providers. One of weight 0 is for when the others are held up."""
    weights = dict(pool.providers) or {ON_DEMAND: 1}
    return weights if SPOT not in weights or not pool.spot_fallback else {ON_DEMAND: 0, **weights}


class Providers:
    """From which provider the next launches come, counted down as they are taken."""

    def __init__(self, pool: Pool, slots: Sequence[Slot], now: float) -> None:
        self._weights = _weights(pool)
        self.backoffs = _backoffs(pool, slots, now)
        self._held = Counter(slot.provider or ON_DEMAND for slot in slots if slot.held)
        self._left = {name: self._room(each, now) for name, each in self.backoffs.items()}

    @staticmethod
    def _room(held_up: Backoff, now: float) -> int:
        """None before the pause is over; then one launch finds out whether capacity is back."""
        if now < held_up.until:
            return 0
        return 1 if held_up.strikes else limits.LEASES_PER_DECISION

    @property
    def room(self) -> int:
        """How many launches may begin now."""
        return sum(self._left.values())

    def take(self) -> str | None:
        """The provider of the next launch: of those that are not held up, the one furthest behind its weight."""
        usable = [name for name, left in self._left.items() if left]
        weighted = [name for name in usable if self._weights[name]] or usable
        if not weighted:
            return None
        chosen = min(weighted, key=lambda name: ((self._held[name] + 1) / max(self._weights[name], 1), name))
        self._held[chosen] += 1
        self._left[chosen] -= 1
        return chosen

    def refused(self, provider: str) -> None:
        """It has just turned a launch down."""
        self._left[provider] = 0


def retry_at(strikes: int, now: float, jitter: float) -> float:
    """When to launch again after one failure more. `strikes` counts those before; `jitter` is 0 to 1."""
    return due_at(now, limits.BACKOFF_FIRST_S, limits.BACKOFF_MAX_S, strikes, jitter)


def full(pool: Pool, slots: Sequence[Slot], now: float, share: float = 1.0) -> Wait | None:
    """Why no slot can be leased whatever is queued, or None."""
    if pool.mode is not Mode.OPEN:
        return Wait(f"pool {pool.mode.value}" + (f": {pool.reason}" if pool.reason else ""))
    if not candidates(pool, slots):
        return Wait(f"cap full ({round(sum(s.held for s in slots) / share)} of {pool.cap} slots in use)")
    spent_h = budget.spent_h(slots, now, share) if pool.budget_task_hours else 0.0
    if 0 < pool.budget_task_hours <= spent_h:
        allowed = f"{pool.budget_task_hours:g} task-hours a day"
        return Wait(f"budget spent ({spent_h:.1f} of {allowed})", budget.tomorrow(now))
    pause = pool_backoff(pool, slots, now)
    if now < pause.until:
        return Wait(pause.reason, pause.until)
    return None


def leaving(slot: Slot) -> bool:
    """Its worker takes no further job."""
    return slot.leave or slot.retire


def floor(pool: Pool, reservations: Iterable[Reservation], now: float) -> int:
    """How many workers are to live although there may be nothing to do."""
    reserved = sum(reservation.workers for reservation in reservations if reservation.until > now)
    return min(max(pool.min_workers, reserved), pool.cap)


def anybody(pool: Pool, queued: Collection[Queued], reservations: Iterable[Reservation], now: float) -> bool:
    """Whether there is anybody whom a worker could be launched for."""
    return bool(queued or pool.warm_workers or floor(pool, reservations, now))


def scale(view: View, wanted: Collection[str] | None, most: int) -> list[LeaseFor]:
    """Leases for the runnable jobs that no lane is free for, in rank order.

    A job gets one if at least as many jobs are ahead of it as lanes are free. A launch that was begun for a job counts
    for that job alone, so that deciders of one burst do not count on each other's launches. `wanted` limits the answer
    to these jobs (None: all), and to jobs that one of them passes by: who came earlier and counted on the lane that it
    takes would otherwise wait for the tick. `most` limits it to this many.

    What room is then left goes to workers that are to stand by. A job that takes a lane of one of them brings the lease
    for the next with it.
    """
    room = min(most, len(candidates(view.pool, view.slots)), limits.LEASES_PER_DECISION)
    if room <= 0 or not anybody(view.pool, view.queued, view.reservations, view.now):
        return []
    room = min(room, Providers(view.pool, view.slots, view.now).room)
    lanes = _Lanes(view)
    leases: list[LeaseFor] = []
    passing: list[float] = []
    for job in sorted(view.queued, key=lambda job: job.rank):
        if len(leases) >= room:
            break
        asked = wanted is None or job.key in wanted
        if lanes.take(job):
            passing += [job.runnable_at] if asked and not lanes.promised(job) else []
        elif asked or _passed_by(passing, job):
            leases.append(LeaseFor(job.key))
            lanes.launching += view.pool.jobs_per_worker - 1
    return leases + [LeaseFor("")] * min(room - len(leases), _short_of(view, lanes, len(leases)))


def _short_of(view: View, lanes: _Lanes, coming: int) -> int:
    """How many workers are missing that should live, or be idle, for whoever comes next.

    Only who sees all slots counts them: by a part one too many would be launched now and then, and told to leave.
    """
    if not view.whole:
        return 0
    live = sum(slot.held and not leaving(slot) for slot in view.slots) + coming
    idle = (lanes.ready + lanes.launching) // view.pool.jobs_per_worker
    return max(floor(view.pool, view.reservations, view.now) - live, view.pool.warm_workers - idle, 0)


def _passed_by(passing: list[float], job: Queued) -> bool:
    """Whether a job that came later took a lane ahead of this one. Each that did makes up for one."""
    later = next((runnable_at for runnable_at in passing if runnable_at > job.runnable_at), None)
    if later is not None:
        passing.remove(later)
    return later is not None


class _Lanes:
    """The lanes that are free or coming, counted down as the jobs ahead take them."""

    def __init__(self, view: View) -> None:
        self._now = view.now
        self._promised: set[str] = set()
        self.ready = self.launching = 0
        busy = Counter(job.holder.lease for job in view.running)
        waiting = {job.key for job in view.queued}
        taken = {job.key for job in view.running}
        kept = 0
        for slot in view.slots:
            if leaving(slot):
                continue
            free = max(view.pool.jobs_per_worker - busy[slot.lease], 0)
            if slot.state is SlotState.READY:
                self.ready += free
            elif slot.state is SlotState.LAUNCHING and not self._overdue(slot):
                promised = min(self._promise(slot, waiting, taken), free)
                self.launching += free
                kept += promised
        # In the banks that were not read there are as many lanes; those that are promised to jobs seen here are here.
        self.ready = round(self.ready / view.share)
        self.launching = max(round(self.launching / view.share) - kept, 0)

    def _overdue(self, slot: Slot) -> bool:
        """A launch that should have beaten long ago may never do so; nobody should wait for it."""
        return self._now - slot.leased_at > limits.SILENT_LAUNCHING_S

    def _promise(self, slot: Slot, waiting: set[str], taken: set[str]) -> int:
        """1 if a lane of this launch is spoken for by the job it was begun for."""
        job = slot.for_job
        unseen = job not in taken and self._now - slot.leased_at < limits.FRESH_LEASE_S
        if not job or job in self._promised or not (job in waiting or unseen):
            return 0
        self._promised.add(job)
        return 1

    def promised(self, job: Queued) -> bool:
        """Whether a launch was begun for this job."""
        return job.key in self._promised

    def take(self, job: Queued) -> bool:
        """Whether a lane serves this job. READY lanes that left it waiting for minutes evidently do not."""
        if self.promised(job):
            return True
        if self.ready > 0 and self._now - job.runnable_at < limits.UNSERVED_S:
            self.ready -= 1
            return True
        if self.launching > 0:
            self.launching -= 1
            return True
        return False
