"""A batch of messages arrives; each joins a run, is answered by one, begins one, or is rejected with its reason.

Word that a parent has ended comes by the same queue, and has the jobs that wait for it judged anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fleetcap import dependencies, jobs, keys, limits, wiring
from fleetcap.adapters.cache import S3Cache
from fleetcap.adapters.rechecks import SqsRechecks
from fleetcap.adapters.rejects import SqsRejects
from fleetcap.catalog import artifact_keys
from fleetcap.decide import admit, arrays
from fleetcap.fleet import Fleet
from fleetcap.messages import Rejected, submission, to_recheck
from fleetcap.model import Job, JobStatus, Pool, Request, Submission
from fleetcap.ports import Cache, Rechecks, Rejects
from handlers.log import log


@dataclass(frozen=True)
class _Seen:
    """The job under a message's key, as read before the cache was asked, and what is to become of the message."""

    standing: Job | None
    decision: admit.Admission


@dataclass
class _Arrival:
    """An accepted message on its way in. `seen` is None where it has to look anew; a part of an array has no record."""

    accepted: Submission
    seen: _Seen | None
    record: dict[str, Any] = field(default_factory=dict)
    tag: int | None = None

    @property
    def draws(self) -> bool:
        """It will begin a run that may be run at once, as far as was seen."""
        begins = self.seen is not None and isinstance(self.seen.decision, admit.Enqueue)
        return begins and _first_status(self.accepted) is JobStatus.QUEUED


@dataclass(frozen=True)
class Intake:
    """The decider with its ports."""

    fleet: Fleet
    cache: Cache
    rejects: Rejects
    source_hosts: frozenset[str]
    rechecks: Rechecks
    array_step: int = limits.ARRAY_STEP

    def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """Take in an SQS batch. Only messages that could not be settled are reported back, to be delivered again.

        Every message has its decision before the first job is put, so that tenants draw for the whole batch at once.
        """
        began_at = self.fleet.clock.now()
        arrivals: list[_Arrival] = []
        queued: list[Job] = []
        unsettled: list[str] = []
        for record in event["Records"]:
            with self._apart(record, unsettled):
                if dependents := to_recheck(record["body"]):
                    for key in dependents:
                        queued += self._settled(key)
                else:
                    arrivals.append(self._arrival(record, arrivals))
        self._draw(arrivals)
        for arrival in arrivals:
            with self._apart(arrival.record, unsettled):
                for job in self._take(arrival):
                    queued.append(job)  # kept even if the next one fails
        self._scale(queued)
        self.fleet.log("took in", records=len(event["Records"]), began_at=began_at, ended_at=self.fleet.clock.now())
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in unsettled]}

    @contextmanager
    def _apart(self, record: dict[str, Any], unsettled: list[str]) -> Iterator[None]:
        """One message by itself: its neighbours must not suffer from what befalls it."""
        message_id = record["messageId"]
        try:
            try:
                yield
            except Rejected as reason:
                self.rejects.reject(record["body"], str(reason), message_id)
                self.fleet.log("rejected", message_id=message_id, reason=str(reason))
        except Exception as error:
            self.fleet.log("not taken in", message_id=message_id, error=repr(error))
            unsettled.append(message_id)

    def _arrival(self, record: dict[str, Any], earlier: Collection[_Arrival]) -> _Arrival:
        """Read a message and decide on it, unless an earlier one of the batch is about to change what it would see."""
        sent_at = int(record["attributes"]["SentTimestamp"]) / 1000
        accepted = submission(record["body"], sent_at, self.fleet.pools, self.source_hosts, record["messageId"])
        alone = all(other.accepted.key != accepted.key for other in earlier)
        return _Arrival(accepted, self._look(accepted) if alone else None, record)

    def _look(self, accepted: Submission) -> _Seen:
        standing = self.fleet.table.job(accepted.key)
        asks_cache = not (accepted.force or accepted.request.array) and (standing is None or standing.ended)
        cached = asks_cache and self.cache.has_all(_results(accepted))
        return _Seen(standing, admit.admit(standing, accepted.sent_at, cached, accepted.force))

    def _draw(self, arrivals: Collection[_Arrival]) -> None:
        """Draw the tags of all runs that are to begin where tenants share. Where that fails, each draws its own."""
        for pool in self.fleet.pools.values():
            mine = [each for each in arrivals if each.draws and pool.fair_shares and each.accepted.pool == pool.name]
            for priority in dict.fromkeys(each.accepted.priority for each in mine):
                level = [each for each in mine if each.accepted.priority == priority]
                try:
                    self._draw_level(pool, priority, level)
                except Exception as error:
                    self.fleet.log("no tags", pool=pool.name, error=repr(error))

    def _draw_level(self, pool: Pool, priority: int, arrivals: Collection[_Arrival]) -> None:
        jobs = Counter(arrival.accepted.tenant for arrival in arrivals)
        tags = self.fleet.table.draw(pool, priority, jobs, self.fleet.clock.now())
        for arrival in arrivals:
            arrival.tag = tags[arrival.accepted.tenant].pop(0)

    def _take(self, arrival: _Arrival) -> Iterator[Job]:
        """The jobs that the message leaves QUEUED and without a worker, if any."""
        job, decision = self._admit(arrival)
        self.fleet.log(
            "admitted",
            message_id=arrival.record["messageId"],
            correlation_id=job.correlation_id,
            key=job.key,
            job=job.id,
            decision=type(decision).__name__,
        )
        if job.status is JobStatus.WAITING:
            yield from self._settled(job.key)
        elif job.request.array:
            yield from self._grown(job)
        elif admit.asks_for_capacity(decision, job, self.fleet.clock.now()):
            yield job

    def _settled(self, key: str) -> Iterator[Job]:
        """Judge a job if it waits for others; itself, if it is QUEUED then and needs somebody to see to it."""
        job, unblocked = dependencies.settle(self.fleet, key)
        if job and job.request.array:
            yield from self._grown(job)
        elif job and (unblocked or admit.asks_for_capacity(admit.Attach(job), job, self.fleet.clock.now())):
            yield job

    # --- arrays

    def _grown(self, array: Job) -> Iterator[Job]:
        """Put the parts of an array that has not grown; those that need a worker. Those of a cancelled one are ended.

        Each part is admitted as if its own message had been sent when the array was put, so all of it may repeat.
        """
        if array.status is JobStatus.CANCELLED:
            self._cancel_parts(array)
        if array.status is not JobStatus.WAITING or array.grown:
            return
        parts = [self._part(array, key, request) for key, request in arrays.parts(array)]
        self._draw(parts)
        inner: list[str] = []
        for part in parts:
            job, decision = self._admit(part)
            if job.request.array:
                inner.append(job.key)
            elif job.status is JobStatus.WAITING:
                yield from self._settled(job.key)
            elif admit.asks_for_capacity(decision, job, self.fleet.clock.now()):
                yield job
        if inner:
            self.rechecks.recheck(inner)
        self.fleet.log("grown", key=array.key, job=array.id, parts=len(parts))
        if self.fleet.table.grow(array):
            dependencies.settle(self.fleet, array.key)
        elif (standing := self.fleet.table.job(array.key)) and standing.status is JobStatus.CANCELLED:
            self._cancel_parts(standing)

    def _part(self, array: Job, key: str, request: Request) -> _Arrival:
        forced, found_by = array.since > 0, array.correlation_id
        part = Submission(
            key, array.pool, array.priority, request, array.queued_at, forced, found_by, tenant=array.tenant
        )
        return _Arrival(part, self._look(part))

    def _cancel_parts(self, array: Job) -> None:
        """End what an array that was cancelled has put: who has ended stays so, and a part goes on with its own."""
        for key in arrays.part_keys(array):
            jobs.cancel(self.fleet.table, self.fleet.clock, key, f"with the array {array.key}")

    # --- runs

    def _admit(self, arrival: _Arrival) -> tuple[Job, admit.Admission]:
        """The job that answers the message, and the decision that made it so."""
        accepted = arrival.accepted
        for _ in range(limits.ADMIT_ROUNDS):
            seen, arrival.seen = arrival.seen or self._look(accepted), None
            match seen.decision:
                case admit.Attach(job) | admit.Answer(job):
                    return job, seen.decision
                case admit.Enqueue(replacing) | admit.Record(replacing):
                    ends = isinstance(seen.decision, admit.Record)
                    if not ends and self._ceiling_reached(accepted, seen.standing):
                        continue
                    job = self._new_run(accepted, replacing, self._rank(arrival, ends), ends)
                    parents = () if job.ended or job.request.array else job.request.depends_on
                    self.fleet.table.lead(parents, job.key, self.fleet.clock.now())  # who ends now finds it
                    if self.fleet.table.put(job, replacing, self.fleet.clock.unique()):
                        return job, seen.decision
        raise TimeoutError(f"{accepted.key} changed under each of {limits.ADMIT_ROUNDS} attempts to put it")

    def _rank(self, arrival: _Arrival, ends: bool) -> str:
        """The new run's place in the queue: by age, or by its tenant's tag. One that cannot run yet draws it later."""
        accepted = arrival.accepted
        pool = self.fleet.pools[accepted.pool]
        if ends or not pool.fair_shares or _first_status(accepted) is not JobStatus.QUEUED:
            return keys.rank_of(accepted.key, accepted.priority, self.fleet.clock.now())
        if arrival.tag is None:
            self._draw_level(pool, accepted.priority, [arrival])
        return keys.share_rank_of(accepted.key, accepted.priority, arrival.tag or 0)

    def _ceiling_reached(self, accepted: Submission, standing: Job | None) -> bool:
        """Refuse new work, nothing else: who joins a run adds none. The index lags, so a burst may pass it.

        True: the key has moved on since it was read as `standing`, and the run that is there now may be one to join.
        """
        pool = self.fleet.pools[accepted.pool]
        most = pool.active_jobs_max
        if not most or accepted.request.part_of or self.fleet.table.active(pool, most) < most:
            return False
        if self.fleet.table.job(accepted.key) != standing:
            return True
        raise Rejected(
            f"ceiling: pool {pool.name} has {most:,} active jobs, and its active_jobs_max lets no more in; "
            f"redrive the message once some have ended"
        )

    def _new_run(self, accepted: Submission, replacing: Job | None, rank: str, ended: bool) -> Job:
        now = self.fleet.clock.now()
        if accepted.request.part_of:
            now = max(now, accepted.sent_at)  # on whatever clock: its end must answer the array that asked for it
        return Job(
            key=accepted.key,
            run=replacing.run + 1 if replacing else 1,
            status=JobStatus.COMPLETED if ended else _first_status(accepted),
            pool=accepted.pool,
            priority=accepted.priority,
            request=self._divided(accepted.request),
            shard=keys.shard_of(accepted.key, self.fleet.pools[accepted.pool].shards),
            rank=rank,
            attempt=replacing.attempt if replacing else 0,
            queued_at=now,
            due_at=now,
            ended_at=now if ended else 0.0,
            # From the clock on, so that it grows even where the item of the run before was deleted meanwhile.
            changes=max(int(now), replacing.changes + 1 if replacing else 0),
            since=now if accepted.force else 0.0,
            correlation_id=accepted.correlation_id,
            tenant=accepted.tenant,
            artifacts=_results(accepted) if ended else (),
        )

    def _divided(self, request: Request) -> Request:
        """A new array decides once and for all what its parts are."""
        if not request.array or request.step:
            return request
        return replace(request, step=arrays.step(request.array, self.array_step))

    def _scale(self, queued: Collection[Job]) -> None:
        """Ask for capacity, pool by pool. Where that fails the jobs are safe in the table, and the tick asks again."""
        for pool in self.fleet.pools.values():
            mine = [job.as_queued for job in queued if job.pool == pool.name]
            try:
                if mine:
                    self.fleet.scale(pool, mine, most=len(mine))
            except Exception as error:
                self.fleet.log("not scaled", pool=pool.name, error=repr(error))


def _first_status(accepted: Submission) -> JobStatus:
    waits = accepted.request.depends_on or accepted.request.array
    return JobStatus.WAITING if waits else JobStatus.QUEUED


def _results(accepted: Submission) -> tuple[str, ...]:
    return artifact_keys(accepted.key, accepted.request.processor)


def _wired() -> Intake:
    cache = S3Cache(
        wiring.s3_client(), wiring.setting(keys.ENV_CACHE_BUCKET), wiring.setting(keys.ENV_CACHE_PREFIX, "")
    )
    rejects = SqsRejects(wiring.sqs_client(), wiring.setting(keys.ENV_REJECTED_QUEUE_URL))
    rechecks = SqsRechecks(wiring.sqs_client(), wiring.setting(keys.ENV_INTAKE_QUEUE_URL))
    return Intake(wiring.fleet(log), cache, rejects, wiring.source_hosts(), rechecks)


_intake: Intake | None = None


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Lambda entry point."""
    global _intake  # noqa: PLW0603 - made once an execution environment, at the first call
    _intake = _intake or _wired()
    return _intake.handle(event)
