"""What really is: who lives, who runs what, which run was asked for. Never the table's opinion, except to judge it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from fleetcap import keys, limits
from fleetcap.adapters.control_table import Reader, Reply
from fleetcap.decide import arrays
from fleetcap.model import Holder, Job, JobStatus, Lease, OnParentFailure, SlotState
from local.memory.ecs import MemoryEcs, MemoryTask
from local.simulator.world import BEGAN_AT, Process, World

CONFIGURED_WITHIN_S: Final = 300.0
"""How long after a change of the cap deciders of the old configuration may still start."""


UNDER_WAY_S: Final = 75.0
"""How long a decider may be at what it decided, its last call slow."""
LANDS_WITHIN_S: Final = 120.0
"""A write that is under way whatever becomes of its author has landed by then."""
WRITTEN_WITHIN_S: Final = limits.DECIDER_TIMEOUT_S + LANDS_WITHIN_S
"""How long after its author looked at the clock a write has landed."""


BEGINS_WITHIN_S: Final = 240.0


class Violation(BaseException):
    """An invariant broke. Not an Exception, so that no handler of the product can take it for an unanswered call."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant, self.text = invariant, text


class LiveChild(Protocol):
    """A job's process, as far as it can break ONE-RUN."""

    @property
    def alive(self) -> bool:
        """Whether it computes at this moment."""


@dataclass
class Owner:
    """Whose a RUNNING job is."""

    process: Process
    holder: Holder
    attempt: int
    began: bool = False
    """Whether the job's process was started."""


@dataclass
class Run:
    """One run of a key. Times are the world's, not the writers'."""

    number: int
    put_at: float
    began_at: float = 0.0
    """When its last attempt's process was started."""
    ended_at: float = 0.0
    status: JobStatus = JobStatus.QUEUED
    unblocked_at: float = 0.0
    asked_at: float = 0.0
    """When it was asked for, as the table has it: no earlier than the message that it was put for was sent."""

    @property
    def runnable_at(self) -> float:
        """Since when it waited for its first attempt."""
        return self.unblocked_at or self.put_at


@dataclass
class Worker:
    """A worker, as long as its process lives."""

    process: Process
    lease: Lease
    busy: int = 0
    idle_since: float = 0.0
    """When its last lane came free, or when its first beat was accepted; 0 before."""


@dataclass
class Truth:
    """Follows every step, and raises Violation at the first one that breaks an invariant."""

    world: World
    caps: list[int]
    lanes: int
    skew_s: float
    ecs: MemoryEcs = field(init=False)
    read: Reader = field(init=False)
    cap: int = 0
    cap_changed_at: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    owners: dict[str, Owner] = field(default_factory=dict)
    children: dict[str, list[LiveChild]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    sent: dict[str, list[float]] = field(default_factory=dict)
    workers: dict[Process, Worker] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    on_slot: dict[str, MemoryTask] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    forced: dict[str, list[float]] = field(default_factory=dict)
    """When messages were sent that ask for a run whatever the cache holds."""
    said_cap: int | None = None
    """The cap that was said last at run time."""
    fitted: bool = False
    """Whether who said it has been told that nothing above it can be leased any more."""
    wanted_until: float = 0.0
    """Until when workers are to stand by."""
    turned_away: set[str] = field(default_factory=set)
    """The keys of which a message was refused because too many jobs were active."""
    ready: list[float] = field(default_factory=list)
    """When workers became ready."""
    dispatch_deadline_s: float = 0.0
    waiting_limit_s: float = 0.0
    cancel_bound_s: float = 0.0
    """How long a running job may go on after somebody cancelled it; 0: not judged."""
    forgetful: bool = False
    open_jobs: int = 0
    visible_at: dict[str, float] = field(default_factory=dict)
    idle_bound_s: float = 0.0
    """How long a free lane may leave a job that the index shows; 0: not judged."""
    calm_from: float = 0.0
    """Since when nothing goes wrong any more."""
    begun_for: dict[Lease, str] = field(default_factory=dict)
    """For which job each launch was begun, until its worker takes its first."""
    passed_by_at: dict[str, float] = field(default_factory=dict)
    """When whoever brought the worker came on which this one counts, where another took its own; or when the next tick
    begins one for it, where the other had none to give."""
    pick_up_bound_s: float = 0.0
    """How late a first claim may come; 0: not judged."""
    live_within_s: float = 0.0
    """How late any claim may come after the last trouble; 0: not judged."""
    troubled_at: float = 0.0
    peak: int = 0
    claims: list[tuple[float, str]] = field(default_factory=list)
    """Every claim, when and of which key."""
    parents: Mapping[str, tuple[tuple[str, ...], OnParentFailure]] = field(default_factory=dict)
    """What each job depends on, and what becomes of it when one of those fails."""
    parents_limit_s: float = 0.0
    judged_within_s: float = 0.0
    """How long after its parents' last end, or after `judged_from`, a job may wait for them; 0: not judged."""
    judged_from: float = 0.0
    elements: Mapping[str, list[str]] = field(default_factory=dict)
    """The jobs of each array."""
    cut_short: set[str] = field(default_factory=set)
    """The arrays and parts of arrays that ended before all of their elements had."""
    asked_by: dict[str, str] = field(default_factory=dict)
    """The array, or the part of one, that a job belongs to."""
    ends: dict[str, list[tuple[float, JobStatus]]] = field(default_factory=dict)
    """When a key's runs ended, and how."""

    # --- the fleet

    def created(self, task: MemoryTask) -> None:
        """ECS started a task."""
        live, most = len(self.ecs.live), max(self.caps)
        self.peak = max(self.peak, live)
        if live > most:
            raise Violation("CAP", f"{live} tasks live under a cap of {most}")
        slot = task.started_by.rpartition("/")[0]
        other = self.on_slot.get(slot)
        if other is not None and other.live:
            raise Violation("CAP", f"{task.started_by} was launched while {other.started_by} lived on the same slot")
        self.on_slot[slot] = task

    # --- the table

    def wrote(self, write: keys.Write | keys.Put, author: Process, reply: Reply) -> None:
        """A conditional write was accepted."""
        match write.name:
            case "lease":
                self._leased(reply.item)
            case "release":
                self._released(reply.item)
            case "beat" | "launched":
                self._spoke_for(write.name, reply.item, author)
            case "claim":
                self._claimed(reply.item, author)
            case "heartbeat":
                self._fenced(reply.item, author, "heartbeat")
            case "finish" | "requeue":
                self._let_go(write.name, reply.item, author)
            case "put":
                self._put(reply.item)
            case "cancel":
                self._cancelled(reply.item)
            case "withdraw":
                self._withdrawn(reply.item)
            case "override":
                said = keys.override_from(reply.item).cap
                self.said_cap, self.fitted = said, self.fitted and said == self.said_cap
            case "unblock":
                self._unblocked(reply.item)
            case "gather":
                self._gathered(reply.item)

    def _leased(self, item: keys.Item) -> None:
        slot = self.read.slot(item)
        if str(slot.id) in self.held:
            raise Violation("CAP", f"{slot.lease} was leased although it was held")
        self.held[str(slot.id)] = slot.generation
        if slot.for_job:
            self.begun_for[slot.lease] = slot.for_job
        if slot.retire:
            raise Violation("CAP", f"{slot.lease} was leased although it retires")
        if self.said_cap is not None:
            if self.fitted and slot.id.number >= self.said_cap:
                raise Violation("CAP", f"{slot.lease} was leased above the cap of {self.said_cap} that was said")
            return
        stale_until = self.cap_changed_at + CONFIGURED_WITHIN_S + limits.DECIDER_TIMEOUT_S + self.skew_s
        if slot.id.number >= self.cap and self.world.now > stale_until:
            raise Violation("CAP", f"{slot.lease} was leased above the cap of {self.cap}")

    def _released(self, item: keys.Item) -> None:
        slot = self.read.slot(item)
        generation = self.held.pop(str(slot.id), -1)
        if slot.generation <= generation:
            raise Violation("FENCE", f"{slot.id} went from generation {generation} back to {slot.generation}")
        task = self.on_slot.get(str(slot.id))
        if task is not None and task.live:
            raise Violation("CAP", f"{slot.id} was freed while {task.arn[-4:]} of {task.started_by} lived")

    def _spoke_for(self, name: str, item: keys.Item, author: Process) -> None:
        """The task that is recorded must be one of the very lease that the slot is under."""
        slot = self.read.slot(item)
        task = self.ecs.tasks[slot.arn]
        if task.started_by != str(slot.lease) or slot.state is SlotState.EMPTY:
            raise Violation("FENCE", f"a {name} of {task.started_by} was accepted by {slot.lease}, {slot.state}")
        worker = self.workers.get(author)
        if name == "beat" and worker and not worker.idle_since:
            worker.idle_since = self.world.now
            self.ready.append(self.world.now)

    def _claimed(self, item: keys.Item, author: Process) -> None:
        job = self.read.job(item)
        if job.holder is None:
            raise Violation("FENCE", f"{job.key} runs for nobody")
        if job.cancel:
            raise Violation("CANCEL", f"{job.key} was claimed although it is to be cancelled")
        standing = self.owners.get(job.key)
        if standing:
            raise Violation("ONE-RUN", f"{job.key} was claimed for {job.holder} while it was {standing.holder}'s")
        if job.attempt <= self.attempts.get(job.key, 0):
            raise Violation("FENCE", f"attempt {job.attempt} of {job.key} was claimed a second time")
        self.attempts[job.key] = job.attempt
        self.claims.append((self.world.now - BEGAN_AT, job.key))
        self._work_conserving(job.key, job.due_at, author)
        owner = self.owners[job.key] = Owner(author, job.holder, job.attempt)
        self.world.after(BEGINS_WITHIN_S, partial(self._must_have_begun, job.key, owner, self.world.now))
        self._in_order(job.key, "claimed")
        self._take_over(job, job.holder.lease)
        waited_s = self.world.now - max(self.runs[job.key][-1].runnable_at, self.passed_by_at.get(job.key, 0.0))
        if job.attempt == 1 and self.pick_up_bound_s and waited_s > self.pick_up_bound_s:
            raise Violation("LIVE", f"{job.key} was picked up after {waited_s:.0f} s beside free slots")
        since = max(self.troubled_at, self.runs[job.key][-1].put_at, job.due_at)
        if self.live_within_s and self.world.now - since > self.live_within_s:
            raise Violation("LIVE", f"{job.key} was picked up {self.world.now - since:.0f} s after the trouble")
        if worker := self.workers.get(author):
            worker.busy += 1

    def _take_over(self, job: Job, lease: Lease) -> None:
        """Who takes the worker that was begun for another leaves that one its own, which may have come from a third."""
        other = self.begun_for.pop(lease, job.key)
        if other != job.key and other not in self.owners:
            came_at = max(self.runs[job.key][-1].put_at, self.passed_by_at.get(job.key, 0.0))
            self.passed_by_at[other] = max(self.passed_by_at.get(other, 0.0), came_at)
            self.begun_for.update((mine, other) for mine, whose in list(self.begun_for.items()) if whose == job.key)
        if job.attempt > 1 and self.pick_up_bound_s:
            self._leave_to_the_tick(self.begun_for.values())

    def _leave_to_the_tick(self, served: Collection[str]) -> None:
        """A job that is tried again has the worker that was free. Who was to have it learns of that from nobody."""
        for key, runs in self.runs.items():
            if key not in served and runs[-1].status is JobStatus.QUEUED and not self.attempts.get(key):
                self.passed_by_at[key] = self.world.now + limits.TICK_PERIOD_S

    def _must_have_begun(self, key: str, owner: Owner, claimed_at: float) -> None:
        """A claim that its worker never learns of would wait for as long as that worker lives."""
        process = owner.process
        hindered = process.dead or max(process.frozen_until, process.cut_until) > claimed_at
        if self.owners.get(key) is owner and not owner.began and not hindered:
            raise Violation("LIVE", f"{owner.holder} claimed {key} and did not begin within {BEGINS_WITHIN_S:.0f} s")

    def _work_conserving(self, key: str, due_at: float, author: Process) -> None:
        if not self.idle_bound_s or key not in self.visible_at:
            return
        since = max(self.visible_at[key], due_at, self.calm_from)
        for worker in self.workers.values():
            if (
                worker.process is author
                or not worker.idle_since
                or worker.busy >= self.lanes
                or worker.process.draining
            ):
                continue
            if max(worker.process.frozen_until, worker.process.cut_until) > self.calm_from:
                continue
            idle_s = self.world.now - max(since, worker.idle_since)
            if idle_s > self.idle_bound_s:
                raise Violation("WORK-CONSERVING", f"{worker.lease} was idle for {idle_s:.1f} s while {key} waited")

    def _fenced(self, item: keys.Item, author: Process, what: str) -> None:
        key = item[keys.TABLE_PK].removeprefix("JOB#")
        owner = self.owners.get(key)
        if owner is None or owner.process is not author:
            whose = owner.holder if owner else "nobody"
            raise Violation("FENCE", f"a {what} of {author.name} about {key} was accepted; the job is {whose}'s")

    def _let_go(self, name: str, item: keys.Item, author: Process) -> None:
        key = item[keys.TABLE_PK].removeprefix("JOB#")
        owner = self.owners.get(key)
        if owner is None or author in self.workers or author is owner.process:
            self._fenced(item, author, name)
        elif not self._gone(owner):
            raise Violation("ONE-RUN", f"{author.name} took {key} from {owner.holder}, which lives")
        if any(child.alive for child in self.children.get(key, ())):
            raise Violation("FENCE", f"{author.name} wrote the {name} of {key} while its process ran")
        if name == "requeue" and self.read.job(item).cancel:
            raise Violation("CANCEL", f"{author.name} queued {key} again although it is to be cancelled")
        self.owners.pop(key, None)
        if owner and (worker := self.workers.get(owner.process)):
            worker.busy -= 1
            worker.idle_since = self.world.now
        if name == "finish":
            self._ended(key, JobStatus(item["status"]))

    def _cancelled(self, item: keys.Item) -> None:
        """A holder was asked to end its job."""
        job = self.read.job(item)
        if job.status is not JobStatus.RUNNING or self.runs[job.key][-1].ended_at:
            raise Violation("CANCEL", f"{job.key} was asked to end while it was {job.status}")
        if self.cancel_bound_s:
            self.world.after(self.cancel_bound_s, partial(self._must_have_ended, job.key, len(self.runs[job.key])))

    def _must_have_ended(self, key: str, run: int) -> None:
        if not self.runs[key][run - 1].ended_at:
            raise Violation("CANCEL", f"{key} goes on {self.cancel_bound_s:.0f} s after it was cancelled")

    def _withdrawn(self, item: keys.Item) -> None:
        """A job in the queue was ended: by a person, or because it waited too long."""
        job = self.read.job(item)
        if job.key in self.owners or any(child.alive for child in self.children.get(job.key, ())):
            raise Violation("ONE-RUN", f"{job.key} was taken from the queue while somebody ran it")
        if job.status is JobStatus.FAILED and self.runs[job.key][-1].status is JobStatus.WAITING:
            self._given_up(job)
        elif job.status is JobStatus.FAILED:
            self._overdue(job)
        elif job.request.array:
            self.cut_short.add(job.key)
            if self.cancel_bound_s and job.key in self.elements:
                within_s = self.cancel_bound_s + 3 * self.judged_within_s
                self.world.after(within_s, partial(self._none_left_behind, job.key, len(self.runs[job.key])))
        self._ended(job.key, job.status)

    # --- arrays

    def _gathered(self, item: keys.Item) -> None:
        """An array ended: with all of its elements, as they did, and in time."""
        job = self.read.job(item)
        run = self.runs[job.key][-1]
        whole = job.request.part_of or job.key
        mine = self.elements[whole][job.request.first : job.request.first + job.request.array]
        last = [self.runs[key][-1] if key in self.runs else None for key in mine]
        ended = [each.status for each in last if each and each.ended_at]
        ended += [JobStatus.CANCELLED for key in mine if key not in self.runs and self._never_to_be_put(key)]
        told = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
        counts = tuple(ended.count(status) for status in told)
        if self._waited_s(job) >= self.parents_limit_s and (job.counts != counts or not job.grown):
            # It was given up: who ended in the very seconds of that, or before it had grown, counts as one who had not.
            # Until it has grown there may be elements that nobody put for this run, however those before it ended.
            if job.status is not JobStatus.FAILED or sum(job.counts or ()) != len(mine):
                raise Violation("ARRAY", f"{job.key} was given up as {job.status} and counts {job.counts}")
            self.cut_short.add(job.key)
        elif len(ended) < len(mine):
            raise Violation("ARRAY", f"{job.key} ended while {len(mine) - len(ended)} of its elements had not")
        else:
            if job.counts != counts or (job.status is JobStatus.COMPLETED) != (counts[0] == len(mine)):
                raise Violation("ARRAY", f"{job.key} is {job.status} and counts {job.counts}, which is {counts}")
            late_s = self.world.now - max(run.put_at, self.judged_from, *(each.ended_at for each in last if each))
            if self.judged_within_s and late_s > 2 * self.judged_within_s:
                raise Violation("LIVE", f"{job.key} ended {late_s:.0f} s after its elements")
        self._ended(job.key, job.status)

    def _never_to_be_put(self, key: str) -> bool:
        """Whether the part that was to put this element was cancelled before it did."""
        part = self.asked_by.get(key, "")
        return part in self.runs and self.runs[part][-1].status is JobStatus.CANCELLED

    def _none_left_behind(self, key: str, run: int) -> None:
        """While nothing goes wrong, the elements of an array that was cancelled end soon, unless it runs anew."""
        left = [each for each in self.elements[key] if each in self.runs and not self.runs[each][-1].ended_at]
        if left and len(self.runs[key]) == run:
            raise Violation("CANCEL", f"{left} go on although {key} was cancelled")

    # --- jobs that wait for others

    def _unblocked(self, item: keys.Item) -> None:
        """A job that waited for its parents was queued."""
        job = self.read.job(item)
        run = self.runs[job.key][-1]
        if run.status is not JobStatus.WAITING or run.ended_at:
            raise Violation("ORDER", f"{job.key} was queued although it did not wait")
        run.status, run.unblocked_at = JobStatus.QUEUED, self.world.now
        self._in_order(job.key, "queued")
        last = [self.runs[parent][-1] for parent in self.parents[job.key][0]]
        if all(each.ended_at for each in last):  # else one of them runs anew, and would have been waited for
            self._in_time(job.key, run, [each.ended_at for each in last])

    def _in_order(self, key: str, what: str) -> None:
        """A job runs only once each of its parents has ended as asked."""
        wanted, choice = self.parents.get(key, ((), OnParentFailure.FAIL))
        for parent in wanted:
            ends = {status for _, status in self.ends.get(parent, ())}
            if not ends or (choice is OnParentFailure.FAIL and JobStatus.COMPLETED not in ends):
                raise Violation("ORDER", f"{key} was {what} before {parent} ended as asked")

    def _in_time(self, key: str, run: Run, ends: Iterable[float]) -> None:
        """A job was judged at once after these ends of its parents."""
        late_s = self.world.now - max([run.put_at, self.judged_from, *ends])
        if self.judged_within_s and late_s > self.judged_within_s:
            raise Violation("LIVE", f"{key} waited {late_s:.0f} s for parents that had ended")

    def _given_up(self, job: Job) -> None:
        """A job failed while it waited: for a parent's sake, because it waits for itself, or after too long."""
        wanted, choice = self.parents[job.key]
        run = self.runs[job.key][-1]
        failed = {status for parent in wanted for _, status in self.ends.get(parent, ())} - {JobStatus.COMPLETED}
        if choice is OnParentFailure.FAIL and failed:
            last = [self.runs[parent][-1] for parent in wanted if parent in self.runs]
            fatal = [each.ended_at for each in last if each.ended_at and each.status is not JobStatus.COMPLETED]
            if fatal:  # else that parent runs anew, or has done so, and was waited for once more
                self._in_time(job.key, run, [min(fatal)])
            return
        waited_s = self._waited_s(job)
        if waited_s < self.parents_limit_s and not self._in_a_circle(job.key):
            raise Violation("ORDER", f"{job.key} was given up after {waited_s:.0f} s: {job.error}")

    def _in_a_circle(self, key: str) -> bool:
        above, look = set[str](), [key]
        while look:
            fresh = set(self.parents.get(look.pop(), ((), None))[0]) - above
            above |= fresh
            look += fresh
        return key in above

    def _waited_s(self, job: Job, since: float = 0.0) -> float:
        """For how long it waits, at most. Its put was begun after its message, and may have landed minutes later."""
        put_at = self.runs[job.key][-1].put_at
        begun_at = min(put_at, max(job.queued_at, put_at - WRITTEN_WITHIN_S, *self.sent.get(job.key, [0.0])[:1]))
        return self.world.now - max(begun_at, since) + self._slack_s

    @property
    def _slack_s(self) -> float:
        """By how much a wait may look longer to whoever judges it: by two clocks, and a decision that is under way."""
        return 2 * self.skew_s + UNDER_WAY_S

    def _overdue(self, job: Job) -> None:
        waited_s = self._waited_s(job, job.due_at)
        came_at = max((at for at in self.ready if at <= self.world.now - WRITTEN_WITHIN_S), default=0.0)
        starved_s = self.world.now - came_at + self._slack_s  # who comes while the end is written is too late
        starved = 0 < self.dispatch_deadline_s < min(waited_s, starved_s)
        if not starved and not 0 < self.waiting_limit_s < waited_s:
            raise Violation("DEADLINE", f"{job.key} was given up after {waited_s:.0f} s: {job.error}")

    def _gone(self, owner: Owner) -> bool:
        return owner.process.dead and not any(
            task.started_by == str(owner.holder.lease) for task in self.ecs.live.values()
        )

    def _put(self, item: keys.Item) -> None:
        job = self.read.job(item)
        runs = self.runs.setdefault(job.key, [])
        for part in arrays.part_keys(job) if job.request.array else ():
            self.asked_by[part] = job.key
            self.sent.setdefault(part, []).append(self.world.now)
            if job.since:
                self.forced.setdefault(part, []).append(self.world.now)
        if runs and not runs[-1].ended_at:
            raise Violation("ONE-RUN", f"run {job.run} of {job.key} was put while run {runs[-1].number} was active")
        if runs and not job.ended:
            self._justified(job.key, runs[-1], bool(job.request.array))
        runs.append(Run(job.run, self.world.now, status=job.status, asked_at=job.queued_at))
        self.open_jobs += 1
        if job.ended:
            self._ended(job.key, job.status)

    def _justified(self, key: str, last: Run, array: bool) -> None:
        """A run after a run needs a message sent after that one's end, and no result that stands in the cache.

        A message that is sent while the end is being written joins that run, but should SQS deliver it once more, its
        time lies after the end as written: it may get a run of its own then. The one that a run was put for never does.
        Parts of arrays have no messages, and the times of those who put them are not SQS's.
        """
        known = last.ended_at - 2 * self.skew_s - WRITTEN_WITHIN_S
        if key not in self.asked_by:
            known = max(known, last.asked_at)
        if not any(sent_at > known for sent_at in self.sent[key]):
            raise Violation("ONE-RUN", f"{key} was run again for a message that run {last.number} had answered")
        forced = any(sent_at > known for sent_at in self.forced.get(key, ()))
        if last.status is JobStatus.COMPLETED and not (self.forgetful or forced or array):
            raise Violation("ONE-RUN", f"{key} was run again although its result was in the cache")

    def _ended(self, key: str, status: JobStatus) -> None:
        run = self.runs[key][-1]
        run.ended_at, run.status = self.world.now, status
        self.ends.setdefault(key, []).append((self.world.now, status))
        self.open_jobs -= 1

    # --- jobs' processes

    def started(self, key: str, child: LiveChild) -> None:
        """A worker started a job's process."""
        others = self.children.setdefault(key, [])
        if any(other.alive for other in others):
            raise Violation("ONE-RUN", f"{key} runs twice at once")
        others.append(child)
        if owner := self.owners.get(key):
            owner.began = True
            self.runs[key][-1].began_at = self.world.now

    def left(self, author: Process) -> None:
        """A worker leaves of its own will."""
        for key, owner in self.owners.items():
            if owner.process is author:
                raise Violation("LIVE", f"{author.name} left with {key} in hand")

    # --- the end

    @property
    def quiet(self) -> bool:
        """Nothing runs, nothing waits, every slot is free."""
        return not (self.open_jobs or self.held or self.ecs.live or self.world.now < self.wanted_until)

    def unfinished(self) -> str:
        """What is still open, in words."""
        waiting = [key for key, runs in self.runs.items() if not runs[-1].ended_at]
        return f"jobs {waiting}, slots {list(self.held)}, tasks {[task.started_by for task in self.ecs.live.values()]}"

    def _given_up_with(self, key: str) -> bool:
        """Whether the array that asked for this job ended before all of it had."""
        array = self.asked_by.get(key, "")
        return bool(array) and (array in self.cut_short or self._given_up_with(array))

    def settled(self, rejected: Iterable[str], wrong: Iterable[str]) -> None:
        """NO-LOSS: every accepted message has the run that answered it, every refused one is kept."""
        for key, times in self.sent.items():
            runs = self.runs.get(key, [])
            if key in self.turned_away or self._given_up_with(key):
                continue
            if not runs:
                raise Violation("NO-LOSS", f"nothing came of the messages for {key}")
            last = runs[-1]
            answered = last.status is JobStatus.COMPLETED or last.ended_at >= max(times) - 2 * self.skew_s
            if not answered:
                raise Violation("NO-LOSS", f"the message of {max(times) - BEGAN_AT:.0f} s for {key} has no run")
        lost = set(wrong) - set(rejected)
        if lost:
            raise Violation("NO-LOSS", f"{len(lost)} refused messages were not kept")
