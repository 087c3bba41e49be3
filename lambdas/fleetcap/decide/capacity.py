"""How much capacity to ask for: the one pure function that every decider shares.

It works on a strongly consistent reading of the slots and a lagging one of the jobs. An estimate that is off wastes or
delays a launch; it cannot break the cap, because each lease is a conditional write on one slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fleetcap import limits
from fleetcap.decide.backoff import due_at
from fleetcap.model import Pool, Queued, Running, Slot, SlotState


@dataclass(frozen=True)
class View:
    """What a decider knows of one pool at `now`."""

    pool: Pool
    slots: Sequence[Slot]
    queued: Sequence[Queued]
    running: Sequence[Running]
    now: float


@dataclass(frozen=True)
class LeaseFor:
    """Lease one EMPTY slot, for this job."""

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


def backoff(slots: Sequence[Slot], now: float) -> Backoff:
    """What the slots tell of launches that failed, or have no answer, since the last worker that became ready.

    A launch without an answer is never given up, but while there is one, the next is tried only minutes later: what
    is wrong with it may well be wrong with all.
    """
    forgotten = max([slot.ready_at for slot in slots], default=0.0)
    remembered = max(forgotten, now - limits.STRIKES_REMEMBERED_S)
    failed = [s for s in slots if s.failed_at > remembered]
    unanswered = [s for s in slots if unresolved(s, now) and s.leased_at > forgotten]
    until = [s.retry_at for s in failed] + [s.leased_at + limits.BACKOFF_MAX_S for s in unanswered]
    strikes = max([s.strikes for s in failed], default=0)
    began = [s.starved_at or s.failed_at for s in failed] + [s.starved_at or s.leased_at for s in unanswered]
    since = max(min(began), forgotten) if began else 0.0
    return Backoff(max(strikes, min(len(unanswered), 1)), max(until, default=0.0), _reason(failed, strikes), since)


def _reason(failed: Sequence[Slot], strikes: int) -> str:
    """In a person's words, with what was said of the last failure."""
    if not strikes:
        return "a launch has had no answer yet"
    last = max(failed, key=lambda slot: slot.failed_at)
    times = "a launch failed" if strikes == 1 else f"{strikes} launches in a row failed"
    return f"{times}: {last.why}" if last.why else times


def unresolved(slot: Slot, now: float) -> bool:
    """RunTask was sent a while ago, and nobody knows yet what became of it."""
    waited_s = now - slot.leased_at
    return slot.state is SlotState.LAUNCHING and not slot.arn and waited_s > limits.RESEND_AFTER_S


def retry_at(strikes: int, now: float, jitter: float) -> float:
    """When to launch again after one failure more. `strikes` counts those before; `jitter` is 0 to 1."""
    return due_at(now, limits.BACKOFF_FIRST_S, limits.BACKOFF_MAX_S, strikes, jitter)


def full(pool: Pool, slots: Sequence[Slot], now: float) -> Wait | None:
    """Why no slot can be leased whatever is queued, or None."""
    if not candidates(pool, slots):
        return Wait(f"cap full ({sum(s.held for s in slots)} of {pool.cap} slots in use)")
    pause = backoff(slots, now)
    if now < pause.until:
        return Wait(pause.reason, pause.until)
    return None


def scale(view: View, wanted: Collection[str] | None, most: int) -> list[LeaseFor]:
    """Leases for the runnable jobs that no lane is free for, in rank order.

    A job gets one if at least as many jobs are ahead of it as lanes are free. A launch that was begun for a job counts
    for that job alone, so that deciders of one burst do not count on each other's launches. `wanted` limits the answer
    to these jobs (None: all), and to jobs that one of them passes by: who came earlier and counted on the lane that it
    takes would otherwise wait for the tick. `most` limits it to this many.
    """
    lanes = _Lanes(view)
    leases: list[LeaseFor] = []
    passing: list[float] = []
    room = min(most, len(candidates(view.pool, view.slots)), limits.LEASES_PER_DECISION)
    if backoff(view.slots, view.now).strikes:
        room = min(room, 1)  # one launch finds out whether capacity is back
    for job in sorted(view.queued, key=lambda job: job.rank):
        if len(leases) >= room:
            break
        asked = wanted is None or job.key in wanted
        if lanes.take(job):
            passing += [job.runnable_at] if asked and not lanes.promised(job) else []
        elif asked or _passed_by(passing, job):
            leases.append(LeaseFor(job.key))
            lanes.launching += view.pool.jobs_per_worker - 1
    return leases


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
        for slot in view.slots:
            if slot.leave or slot.retire:
                continue
            free = max(view.pool.jobs_per_worker - busy[slot.lease], 0)
            if slot.state is SlotState.READY:
                self.ready += free
            elif slot.state is SlotState.LAUNCHING and not self._overdue(slot):
                self.launching += max(free - self._promise(slot, waiting, taken), 0)

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
