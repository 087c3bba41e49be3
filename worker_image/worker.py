"""The worker: one supervising loop that beats on its slot, claims jobs, watches their processes, and writes their ends.

Everything slow happens in a job's child process, so beats and heartbeats never wait for it. Each pass of the loop may
fail at any call and simply runs again: a claim or an end whose reply was lost is repeated under the same `op`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fleetcap import jobs, keys, limits
from fleetcap.decide import backoff, retry
from fleetcap.model import Artifact, FailureClass, Flags, Holder, Job, JobStatus, Lease, Mode, Pool, Queued
from fleetcap.ports import Assignment, Child, Children, Clock, ControlTable, Log, Progress


@dataclass(frozen=True)
class Settings:
    """The knobs of a pool's workers, in seconds and counts; see stacks/config.py."""

    pool: str = "default"
    jobs_per_worker: int = 1
    idle_exit_s: float = limits.IDLE_EXIT_S
    lifetime_s: float = limits.LIFETIME_S
    stop_timeout_s: float = limits.STOP_TIMEOUT_S
    heartbeat_s: float = limits.HEARTBEAT_S
    beat_s: float = limits.BEAT_S
    look_s: float = limits.LOOK_S
    fence_check_s: float = limits.FENCE_CHECK_S
    sort_memory_mb: int = limits.SORT_MEMORY_MB
    sort_threads: int = limits.SORT_THREADS
    disk_gib: int = limits.DISK_GIB
    keep_failed_dirs: int = 0
    image: str = ""


_START: Final = "start"
"""The name under which it is noted that a job's process could not be started."""


class FenceLost(Exception):
    """The slot is not ours any more: whatever runs here must stop, and nothing may be written."""


@dataclass
class _Ending:
    """How a job's attempt ends; written under one `op` until the table answers."""

    op: str
    outcome: retry.Outcome | None  # None: completed


@dataclass
class _Lane:
    """One job in the hands of this worker."""

    job: Job
    child: Child | None = None
    progress: Progress = field(default_factory=lambda: Progress("start", 0.0))
    written: Progress = field(default_factory=lambda: Progress("start", 0.0))
    heartbeat_at: float = 0.0
    fence_checked_at: float = 0.0
    artifacts: tuple[Artifact, ...] = ()
    artifacts_written: int = 0
    ending: _Ending | None = None

    def kill(self) -> None:
        if self.child:
            self.child.kill()


@dataclass
class _Trouble:
    """A step that has failed, how often in a row, and when it is taken again."""

    failures: int = 0
    again_at: float = 0.0


@dataclass
class _Claim:
    """A claim that the table has not answered yet."""

    job: Job
    holder: Holder
    op: str


class Worker:
    """The loop with its ports. `draining` answers whether a signal asked this worker to leave."""

    def __init__(
        self,
        lease: Lease,
        arn: str,
        settings: Settings,
        table: ControlTable,
        children: Children,
        clock: Clock,
        log: Log,
        draining: Callable[[], bool],
    ) -> None:
        self._lease = lease
        self._arn = arn
        self._settings = settings
        self._pool = Pool(settings.pool, cap=0, jobs_per_worker=settings.jobs_per_worker)
        self._table = table
        self._children = children
        self._clock = clock
        self._log = log
        self._draining = draining
        self._lanes: dict[int, _Lane] = {}
        self._claim: _Claim | None = None
        self._troubles: dict[tuple[str, int], _Trouble] = {}
        self._unreadable: set[Queued] = set()
        self._flags = Flags()
        self._beat_at = self._beaten_at = self._look_at = 0.0
        self._began_at = self._idle_since = clock.now()
        self.alive_at = self._began_at
        """When the loop last came round; the health check reads it."""

    @property
    def serving(self) -> bool:
        """Whether this worker still takes jobs."""
        too_old = self._clock.now() - self._began_at >= self._settings.lifetime_s
        return not (self._draining() or self._flags.leave or self._flags.retire or too_old)

    def run(self) -> str:
        """Serve until there is a reason to leave; the reason. Children are dead when it returns or raises."""
        try:
            while not (reason := self._pass()):
                self._clock.sleep(self._pause())
        except FenceLost:
            reason = "the slot is not ours any more"
        finally:
            for lane in self._lanes.values():
                lane.kill()
        self._log("leaving", reason=reason)
        return reason

    def _pass(self) -> str | None:
        """Once round. A reason to leave, or None."""
        self.alive_at = self._clock.now()
        self._try(self._beat)
        if self._claim:
            self._try(self._settle_claim, self._claim, lane=self._claim.holder.lane)
        if self._draining():
            self._give_back()
        for number in list(self._lanes):
            self._watch(number)
        if self.serving and self._vouched_for and not self._claim:
            self._try(self._look)
        return self._reason_to_leave()

    def _try(self, step: Callable[..., object], *args: object, lane: int = -1) -> None:
        """Take a step; where the table does not answer, what was begun is repeated on a later round.

        Later and later, while it fails: each call that fails is a line of the log, and a load on what is in trouble.
        """
        name = step.__name__, lane
        if (trouble := self._troubles.get(name)) and self._clock.now() < trouble.again_at:
            return
        try:
            step(*args)
        except FenceLost:
            raise
        except Exception as error:
            self._log("no answer", step=step.__name__, error=repr(error))
            self._failed(*name)
        else:
            self._troubles.pop(name, None)

    def _again_at(self, step: str, lane: int = -1) -> float:
        """When a step may be taken; 0 for one that did not fail last time."""
        trouble = self._troubles.get((step, lane))
        return trouble.again_at if trouble else 0.0

    def _failed(self, step: str, lane: int = -1) -> None:
        """Have a step that failed wait. The bound is far below the two minutes after which a worker counts as silent.

        A step for a job in hand waits as long as the loop at first, and never, a quarter late, longer than a fence may.
        """
        now, jitter = self._clock.now(), self._clock.uniform(0, 1)
        first_s, longest_s = self._settings.look_s, limits.NO_ANSWER_MAX_S
        if lane >= 0:
            first_s, longest_s = limits.SUPERVISE_S, min(self._settings.fence_check_s / 1.25, longest_s)
        trouble = self._troubles.setdefault((step, lane), _Trouble())
        trouble.again_at = backoff.due_at(now, first_s, longest_s, trouble.failures, jitter)
        trouble.failures += 1

    def _reason_to_leave(self) -> str | None:
        if self._lanes or self._claim:
            return None
        if not self.serving:
            return "asked to leave" if self._draining() else "drained"
        idle_s = self._clock.now() - self._idle_since
        stays = idle_s < self._settings.idle_exit_s or self._flags.keep
        return None if stays else f"idle for {idle_s:.0f} s"

    def _pause(self) -> float:
        if self._lanes or self._claim:
            return limits.SUPERVISE_S
        due_at = max(self._beat_at, self._again_at(self._beat.__name__))
        if self._vouched_for:
            due_at = min(due_at, max(self._look_due_at, self._again_at(self._look.__name__)))
        return min(max(due_at - self._clock.now(), 0.01), self._settings.look_s)

    def _say(self, event: str, job: Job, **fields: object) -> None:
        """Log a line about an attempt, with all that it is found by."""
        found_by = job.correlation_id
        self._log(event, job=job.id, key=job.key, attempt=job.attempt, correlation_id=found_by, **fields)

    # --- the slot

    def _beat(self) -> None:
        now = self._clock.now()
        if now < self._beat_at:
            return
        idle_since = 0.0 if self._lanes else self._idle_since
        image = self._settings.image
        flags = self._table.beat(self._lease, self._arn, not self._beat_at, now, idle_since, image)
        if flags is None:
            raise FenceLost
        self._flags = flags
        self._beaten_at = now
        self._beat_at = now + self._settings.beat_s

    @property
    def _vouched_for(self) -> bool:
        """The fence was checked lately: whoever has not heard from the slot for long may be dead to everybody else."""
        return self._clock.now() - self._beaten_at < limits.SILENT_S

    # --- claiming

    def _look(self) -> None:
        """Take jobs while lanes are free."""
        while (lane := self._free_lane()) is not None and (now := self._clock.now()) >= self._look_due_at:
            if not self._take_one(lane, now):
                self._look_later()

    def _look_later(self) -> None:
        """The pool's workers spread over the time between two looks."""
        jitter = self._clock.uniform(0.8, 1.2)
        self._look_at = self._clock.now() + self._settings.look_s * jitter

    @property
    def _look_due_at(self) -> float:
        """When to look for a job: not at once where the last one's process could not be started."""
        return max(self._look_at, self._again_at(_START))

    def _free_lane(self) -> int | None:
        return next((number for number in range(self._settings.jobs_per_worker) if number not in self._lanes), None)

    def _take_one(self, lane: int, now: float) -> bool:
        """Claim the best job that is to be had, beginning at a random one of the first, so that workers spread."""
        tried: set[str] = set()
        for limit in (limits.LOOK_ITEMS, limits.OPEN_PAGE_ITEMS):
            ahead = [entry for entry in self._table.queued(self._pool, now, limit) if entry.key not in tried]
            if ahead and not tried and self._table.override(self._pool.name).mode is not Mode.OPEN:
                return False
            first = int(self._clock.uniform(0, min(len(ahead), limits.LOOK_SPREAD)))
            for entry in ahead[first:] + ahead[:first]:
                if entry not in self._unreadable and self._take(entry, lane):
                    return True
            tried.update(entry.key for entry in ahead)
            if len(tried) < limit:
                return False  # that was the whole queue
        return False

    def _take(self, entry: Queued, lane: int) -> bool:
        try:
            job = self._table.job(entry.key)
        except keys.Unreadable:  # the table has told of it; it is left to whoever knows what it says
            self._unreadable.add(entry)
            return False
        if job is None or job.status is not JobStatus.QUEUED or job.attempt != entry.attempt:
            return False  # the index lags
        self._claim = _Claim(job, Holder(self._lease, lane), self._clock.unique())
        return self._settle_claim(self._claim)

    def _settle_claim(self, claim: _Claim) -> bool:
        """Claim, or learn that an earlier call did; then start the job's process."""
        task = self._arn.rpartition("/")[2]
        job = self._table.claim(claim.job, claim.holder, self._clock.now(), claim.op, task)
        self._claim = None
        if job is None:
            return False
        now = self._clock.now()
        lane = self._lanes[claim.holder.lane] = _Lane(job, heartbeat_at=now, fence_checked_at=now)
        # Only a run's first attempt waited for a worker alone; later ones also for their turn to be tried again.
        waited_s = round(max(job.claimed_at - job.queued_at, 0.0), 3)
        self._say("claimed", job, pool=job.pool, **({} if job.history else {"time_to_worker_s": waited_s}))
        try:
            lane.child = self._children.start(_assignment(job))
        except Exception as error:  # whatever it is, the job must not stay in a lane where nothing runs
            self._say("no child", job, error=repr(error))
            self._end(lane, FailureClass.FAILED, "internal: the job's process could not be started")
            self._failed(_START)
        else:
            self._troubles.pop((_START, -1), None)
        return True

    # --- running jobs

    def _watch(self, number: int) -> None:
        """Hear the job's process, keep its heartbeat and fence, and write its end."""
        lane = self._lanes[number]
        if not lane.ending:
            self._try(self._hear, lane, lane=number)
        if not lane.ending:
            self._try(self._check, number, lane=number)
        if lane.ending:
            self._try(self._close, number, lane.ending, lane=number)

    def _check(self, number: int) -> None:
        """Stop working for a job that is not ours any more."""
        lane = self._lanes[number]
        if not self._still_ours(lane):
            self._say("job lost", lane.job)
            lane.kill()
            self._free(number)

    def _close(self, number: int, ending: _Ending) -> None:
        """Free the lane once the end is written."""
        if self._write_end(self._lanes[number], ending):
            self._free(number)

    def _free(self, number: int) -> None:
        lane = self._lanes.pop(number)
        self._troubles = {name: trouble for name, trouble in self._troubles.items() if name[1] != number}
        if lane.child:
            self._relay(lane.job, lane.child.report().lines)  # its last words, should we have stopped it
        self._idle_since = self._clock.now()
        self._look_at = 0.0

    def _hear(self, lane: _Lane) -> None:
        report = lane.child.report() if lane.child else None
        if report is None:
            return
        lane.progress = report.progress or lane.progress
        lane.artifacts = report.artifacts or lane.artifacts
        self._relay(lane.job, report.lines)
        elapsed_s = self._clock.now() - lane.job.claimed_at
        if report.failure:
            kind = FailureClass.PERMANENT if report.failure.permanent else FailureClass.FAILED
            self._end(lane, kind, report.failure.error)
        elif report.exit_code is not None:
            self._complete(lane)
        elif elapsed_s > lane.job.request.timeout_s:
            error = f"timeout: the attempt took longer than {lane.job.request.timeout_s} s"
            self._end(lane, FailureClass.TIMEOUT, error)

    def _relay(self, job: Job, lines: Sequence[str]) -> None:
        """What the job's tools said goes into the log under the job's name."""
        for line in lines:
            self._say("output", job, line=line)

    def _still_ours(self, lane: _Lane) -> bool:
        """Whether heartbeat and fence check, each where it is due, are still accepted. Either shows a cancel."""
        now = self._clock.now()
        since_s = now - lane.heartbeat_at
        reached = lane.progress.stage != lane.written.stage or len(lane.artifacts) > lane.artifacts_written
        new_stage = reached and since_s >= limits.STAGE_WRITE_S
        further = lane.progress != lane.written and since_s >= limits.PROGRESS_WRITE_S
        if new_stage or further or since_s >= self._settings.heartbeat_s:
            told, artifacts = lane.progress, [artifact.key for artifact in lane.artifacts]
            standing = self._table.heartbeat(lane.job, now, told.stage, told.fraction, told.message, artifacts)
            lane.written, lane.artifacts_written, lane.heartbeat_at = told, len(artifacts), now
        elif now - lane.fence_checked_at >= self._settings.fence_check_s:
            standing = self._table.job(lane.job.key)
        else:
            return True
        lane.fence_checked_at = now
        if standing is None or not _same_attempt(standing, lane.job):
            return False
        if standing.cancel:
            self._cancel(lane, standing)
        return True

    # --- ends

    def _end(self, lane: _Lane, failure: FailureClass, error: str) -> None:
        """Decide how the attempt ends. The process dies first, so that nothing of it outlives its last status."""
        lane.kill()
        now, jitter = self._clock.now(), self._clock.uniform(0, 1)
        lane.ending = _Ending(self._clock.unique(), retry.after(lane.job, failure, error, now, jitter))

    def _complete(self, lane: _Lane) -> None:
        lane.kill()
        lane.ending = _Ending(self._clock.unique(), None)

    def _cancel(self, lane: _Lane, standing: Job) -> None:
        """Somebody wants the job ended: `standing` says why."""
        lane.kill()
        lane.ending = _Ending(self._clock.unique(), retry.cancelled(standing))

    def _give_back(self) -> None:
        """On a signal every running job returns to the queue without using up an attempt."""
        for lane in self._lanes.values():
            if not lane.ending:
                self._hear(lane)
            if not lane.ending:
                self._end(lane, FailureClass.INTERRUPTED, "heartbeat lost: the worker was asked to leave")

    def _write_end(self, lane: _Lane, ending: _Ending) -> bool:
        """Write the end. A refusal means that the job is not ours any more, which ends it here as well.

        False: it is ours, and cancelled meanwhile, so it may not return to the queue and has to end otherwise.
        """
        now, job = self._clock.now(), lane.job
        if ending.outcome:
            accepted = jobs.settle(self._table, job, ending.outcome, now, ending.op)
        else:
            artifacts = [artifact.key for artifact in lane.artifacts]
            accepted = self._table.finish(job, JobStatus.COMPLETED, now, "", artifacts, ending.op)
        ended = type(ending.outcome).__name__ if ending.outcome else JobStatus.COMPLETED.value
        reason = ending.outcome.error if ending.outcome else ""
        counted = {f"attempts_{retry.ending(ending.outcome)}": 1} if accepted else {}
        self._say("ended", job, outcome=ended, reason=reason, accepted=accepted, pool=job.pool, **counted)
        if accepted or not isinstance(ending.outcome, retry.Requeue):
            return True
        standing = self._table.job(job.key)
        if standing is None or not _same_attempt(standing, job) or not standing.cancel:
            return True
        self._cancel(lane, standing)
        return False


def _same_attempt(standing: Job, mine: Job) -> bool:
    return standing.status is JobStatus.RUNNING and (standing.run, standing.attempt) == (mine.run, mine.attempt)


def _assignment(job: Job) -> Assignment:
    request = job.request
    return Assignment(
        job.id,
        job.key,
        job.attempt,
        request.source,
        request.processor,
        request.md5,
        request.params,
        made_for=job.queued_at,
        since=job.since,
    )
