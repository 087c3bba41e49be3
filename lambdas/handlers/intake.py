"""A batch of messages arrives; each joins a run, is answered by one, begins one, or is rejected with its reason.

Word that a parent has ended comes by the same queue, and has the jobs that wait for it judged anew.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from fleetcap import dependencies, jobs, keys, limits, wiring
from fleetcap.adapters.cache import S3Cache
from fleetcap.adapters.rechecks import SqsRechecks
from fleetcap.adapters.rejects import SqsRejects
from fleetcap.catalog import artifact_keys
from fleetcap.decide import admit, arrays
from fleetcap.fleet import Fleet
from fleetcap.messages import Rejected, submission, to_recheck
from fleetcap.model import Job, JobStatus, Passed, Pool, Queued, Request, Submission
from fleetcap.ports import Cache, Rechecks, Rejects
from fleetcap.timebox import Timebox
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
    def share(self) -> tuple[str, int, str]:
        """Whose share it would draw from."""
        return self.accepted.pool, self.accepted.priority, self.accepted.tenant

    @property
    def draws(self) -> bool:
        """It will begin a run that may be run at once, as far as was seen."""
        begins = self.seen is not None and isinstance(self.seen.decision, admit.Enqueue)
        return begins and _first_status(self.accepted) is JobStatus.QUEUED


@dataclass
class _Batch:
    """What came of a batch so far: the messages that are settled, and the jobs that need somebody to see to them.

    `begin` is the time in which it goes on to another wave of messages, keys or parts.
    """

    begin: Timebox
    settled: set[str] = field(default_factory=set)
    queued: list[Job] = field(default_factory=list)


class Intake(NamedTuple):
    """The decider with its ports."""

    fleet: Fleet
    cache: Cache
    rejects: Rejects
    source_hosts: frozenset[str]
    rechecks: Rechecks
    array_step: int = limits.ARRAY_STEP

    def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """Take in an SQS batch. What was not settled, or not even begun in time, is reported, to be delivered again.

        Words and messages have their turn as the first record has it, so that slow calls starve neither.
        """
        within = self._replace(fleet=self.fleet.within(Timebox.begin(self.fleet.clock)))
        return within._handle(event["Records"])

    def _handle(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        began_at = self.fleet.clock.now()
        took = _Batch(self.fleet.time.within(limits.WAVES_BEGIN_S))
        words, messages = [], []
        for record in records:
            dependents = to_recheck(record["body"])
            words += [(record, dependents)] if dependents else []
            messages += [] if dependents else [record]
        turns = [partial(self._take_words, words), partial(self._take_messages, messages)]
        for number, turn in enumerate(turns if words and words[0][0] is records[0] else reversed(turns)):
            if not number or not took.begin.spent:
                turn(took)
        self._scale(took)
        unsettled = [record["messageId"] for record in records if record["messageId"] not in took.settled]
        now = self.fleet.clock.now()
        self.fleet.log("took in", records=len(records), unsettled=len(unsettled), began_at=began_at, ended_at=now)
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in unsettled]}

    def _take_words(self, words: Sequence[tuple[dict[str, Any], list[str]]], took: _Batch) -> None:
        """Judge whom the words name; what there is no time for is sent again as a word of its own."""
        for record, dependents in took.begin.each(words):
            with self._apart(record, took):
                known = self.fleet.table.jobs(dependents)
                failed: list[Exception] = []
                done = 0
                for key in took.begin.each(dependents):
                    try:
                        if key in known:
                            self._judge(known[key], took, known)
                    except Exception as error:  # its neighbours must not suffer; the word comes again for it
                        self.fleet.log("not judged", key=key, error=repr(error))
                        failed.append(error)
                    done += 1
                if left := dependents[done:]:
                    self.rechecks.recheck(left)
                if failed:
                    raise failed[0]

    def _take_messages(self, messages: Sequence[dict[str, Any]], took: _Batch) -> None:
        """Take messages in waves, each of which has its decisions before its first job is put, so that tenants draw for
        all of it at once. Where calls are quick there is one wave; where they are slow, some job is put all the same.
        """
        rest = deque(messages)
        while rest and not took.begin.spent:
            wave: list[_Arrival] = []
            for record in self.fleet.time.within(limits.WAVE_LOOKS_S).each(tuple(rest)):
                rest.popleft()
                with self._apart(record, took, settles=False):
                    wave.append(self._arrival(record, wave))
                if len({each.share for each in wave if each.draws}) == limits.WAVE_DRAWS:
                    break
            self._draw(wave)
            for arrival in self.fleet.time.each(wave):
                with self._apart(arrival.record, took):
                    self._take(arrival, took)

    @contextmanager
    def _apart(self, record: dict[str, Any], took: _Batch, settles: bool = True) -> Iterator[None]:
        """One message by itself: its neighbours must not suffer from what befalls it."""
        message_id = record["messageId"]
        try:
            try:
                yield
            except Rejected as reason:
                self.rejects.reject(record["body"], str(reason), message_id)
                self.fleet.log("rejected", message_id=message_id, reason=str(reason))
                settles = True
            if settles:
                took.settled.add(message_id)
        except Exception as error:
            self.fleet.log("not taken in", message_id=message_id, error=repr(error))

    def _arrival(self, record: dict[str, Any], earlier: Collection[_Arrival]) -> _Arrival:
        """Read a message and decide on it, unless an earlier one of the wave is about to change what it would see."""
        sent_at = int(record["attributes"]["SentTimestamp"]) / 1000
        accepted = submission(record["body"], sent_at, self.fleet.pools, self.source_hosts, record["messageId"])
        alone = all(other.accepted.key != accepted.key for other in earlier)
        return _Arrival(accepted, self._look(accepted) if alone else None, record)

    def _look(self, accepted: Submission) -> _Seen:
        return self._decide(accepted, self.fleet.table.job(accepted.key))

    def _decide(self, accepted: Submission, standing: Job | None) -> _Seen:
        """The decision on the job as it was read, the cache asked after that."""
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

    def _take(self, arrival: _Arrival, took: _Batch) -> None:
        """Admit a message, and see to what it leaves behind."""
        job, decision = self._admit(arrival)
        self.fleet.log(
            "admitted",
            message_id=arrival.record["messageId"],
            correlation_id=job.correlation_id,
            key=job.key,
            job=job.id,
            decision=type(decision).__name__,
        )
        if job.request.array and job.status is JobStatus.CANCELLED:
            self._cancel_parts(job, took)
        elif job.status is JobStatus.WAITING:
            if self.fleet.time.over:
                self.rechecks.recheck([job.key])
            else:
                self._judge(job, took)
        elif admit.asks_for_capacity(decision, job, self.fleet.clock.now()):
            took.queued.append(job)

    def _judge(self, known: Job, took: _Batch, others: Mapping[str, Job] = dependencies.NOBODY) -> None:
        """Judge a job if it waits for others; if it is QUEUED then and nobody sees to it, it is to get a worker.

        `known` is the job as it was just read, and `others` are read with it. An array goes on as it has to.
        """
        if known.request.array and known.status is JobStatus.WAITING and not known.grown:
            self._grow(known, took)
            return
        job, unblocked = dependencies.settle(self.fleet, known.key, {**others, known.key: known})
        if job is None:
            return
        if job.request.array and job.status is JobStatus.CANCELLED:
            if arrays.left(job, job.passed):
                self._cancel_parts(job, took)
        elif job.request.array:
            self._look_again(job)
        elif unblocked or admit.asks_for_capacity(admit.Attach(job), job, self.fleet.clock.now()):
            took.queued.append(job)

    # --- arrays

    def _look_again(self, array: Job) -> None:
        """A word has an array looked at again of which not all could be seen in time."""
        if not array.ended and self.fleet.time.spent:
            self.rechecks.recheck([array.key])

    def _grow(self, array: Job, took: _Batch) -> None:
        """Put the parts of an array that has not grown, as many as there is time for. A word has the others put.

        Each part is admitted as if its own message had been sent when the array was put, so all of it may repeat.
        """
        done, whole = array.put, False
        words: list[str] = []
        while not whole and not (done > array.put and took.begin.spent):
            wave = self._parts(array, done)
            if not wave:
                break  # an outage has taken all the time there was
            puts = self.fleet.time.within(limits.WAVES_BEGIN_S)
            for some in puts.each(_doubling(wave)):
                self._draw(some)
                for part in puts.each(some):
                    self._put_part(part, took, words)
                    done += 1
            whole = done == len(arrays.part_keys(array))
        if words:
            self.rechecks.recheck(words)
        self.fleet.log("grown", key=array.key, job=array.id, parts=done - array.put, whole=whole)
        if not (whole or self.fleet.time.over) and self._grows_elsewhere(array):
            return
        if not self.fleet.table.grow(array, None if whole else done):
            self._cancel_parts(array, took)
        elif not whole:
            self.rechecks.recheck([array.key])
        elif job := dependencies.settle(self.fleet, array.key).job:
            self._look_again(job)

    def _grows_elsewhere(self, array: Job) -> bool:
        """Whether somebody else has noted, since `array` was read, how far he has put its parts: he has the others put.

        Each end of an element has its array looked at, and would begin another chain of words. Whoever notes it has a
        message that is not settled before he has sent the next word; and of two who see nothing yet both go on.
        """
        standing = self.fleet.table.job(array.key)
        if standing is None or standing.run != array.run or standing.status is not JobStatus.WAITING:
            return False
        return not standing.grown and standing.put > array.put

    def _parts(self, array: Job, done: int) -> list[_Arrival]:
        """The next parts of an array with what is to become of them, as many as can be looked at in a short while."""
        accepted = [self._part(array, key, request) for key, request in arrays.parts(array)[done:]]
        accepted = accepted[: limits.BATCH_GET_ITEMS]
        standing = self.fleet.table.jobs([each.key for each in accepted])
        looks = self.fleet.time.within(limits.WAVE_LOOKS_S)
        return [_Arrival(each, self._decide(each, standing.get(each.key))) for each in looks.each(accepted)]

    def _part(self, array: Job, key: str, request: Request) -> Submission:
        forced, found_by = array.since > 0, array.correlation_id
        return Submission(
            key, array.pool, array.priority, request, array.queued_at, forced, found_by, tenant=array.tenant
        )

    def _put_part(self, part: _Arrival, took: _Batch, words: list[str]) -> None:
        """Admit a part. One that is an array, or that there is no time to judge, is to have a word of its own."""
        job, decision = self._admit(part)
        if job.request.array or (job.status is JobStatus.WAITING and took.begin.spent):
            words.append(job.key)
        elif job.status is JobStatus.WAITING:
            self._judge(job, took)
        elif admit.asks_for_capacity(decision, job, self.fleet.clock.now()):
            took.queued.append(job)

    def _cancel_parts(self, array: Job, took: _Batch) -> None:
        """End what an array that was cancelled has put: who has ended stays so, and a part goes on with its own.

        What there is no time for, a word of its own has ended. Who has been told already is not told again; of an array
        that had not grown that is not noted, for somebody may still be putting parts.
        """
        standing = self.fleet.table.job(array.key)
        if standing is None or standing.run != array.run or standing.status is not JobStatus.CANCELLED:
            return  # it runs anew, and so do its parts
        told = 0
        names = arrays.part_keys(array)
        known = self.fleet.table.jobs(names)
        going_on = [part for part in known.values() if not part.ended and not part.cancel]
        for part in took.begin.each(going_on):
            jobs.cancel(self.fleet.table, self.fleet.clock, part.key, f"with the array {array.key}", part)
            told += 1
        if told < len(going_on):
            self.rechecks.recheck([array.key])
        elif standing.grown:
            self.fleet.table.pass_over(array, Passed(len(names)))

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
        if not most or accepted.request.part_of:
            return False
        # Where calls are so slow that they cannot be counted in time, those that were seen decide.
        if self.fleet.table.active(pool, most, self.fleet.time.within(limits.WAVE_LOOKS_S).each) < most:
            return False
        if self.fleet.table.job(accepted.key) != standing:
            return True
        raise Rejected(
            f"ceiling: pool {pool.name} has {most:,} active jobs, and its active_jobs_max lets no more in; "
            f"redrive the message once some have ended"
        )

    def _new_run(self, accepted: Submission, replacing: Job | None, rank: str, ended: bool) -> Job:
        now = self.fleet.clock.now()
        asked_at = max(now, accepted.sent_at)  # on whatever clock: its end must answer whoever asked for it
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
            queued_at=asked_at,
            due_at=now,
            ended_at=asked_at if ended else 0.0,
            # From the clock on, so that it grows even where the item of the run before was deleted meanwhile.
            changes=max(int(now), replacing.changes + 1 if replacing else 0),
            since=asked_at if accepted.force else 0.0,
            correlation_id=accepted.correlation_id,
            tenant=accepted.tenant,
            artifacts=_results(accepted) if ended else (),
        )

    def _divided(self, request: Request) -> Request:
        """A new array decides once and for all what its parts are."""
        if not request.array or request.step:
            return request
        return replace(request, step=arrays.step(request.array, self.array_step))

    def _scale(self, took: _Batch) -> None:
        """Ask for capacity, pool by pool, as far as there is time. Where that fails the jobs are safe in the table, and
        the tick asks.
        """
        wanted: dict[str, list[Queued]] = {}
        for job in took.queued:
            wanted.setdefault(job.pool, []).append(job.as_queued)
        for name, mine in wanted.items():
            pool = self.fleet.pools[name]
            try:
                self.fleet.scale(pool, mine, most=len(mine))
            except Exception as error:
                self.fleet.log("not scaled", pool=pool.name, error=repr(error))


def _doubling(parts: Sequence[_Arrival]) -> Iterator[Sequence[_Arrival]]:
    """The parts in order: one, two, four at a time. Who draws for so many when their turn comes, and puts no more then,
    has drawn in vain for about as many as were put, at most: a tenant pays with its turns for tags that nobody uses.
    """
    start = 0
    while start < len(parts):
        yield parts[start : 2 * start + 1]
        start = 2 * start + 1


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
