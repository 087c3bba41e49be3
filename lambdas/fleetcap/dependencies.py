"""Jobs that wait for others, judged whenever one of these may have ended: after their own put, on a word, by the tick.

A dependent's edges are written before it is put, and it is judged after. So a parent that ends before the judge reads
it is seen there; and one that ends later finds the edge, and its end has the dependent judged again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from fleetcap import keys, limits
from fleetcap.decide import arrays, dependencies
from fleetcap.fleet import Fleet
from fleetcap.jobs import Contended
from fleetcap.model import NOT_PASSED, Job, JobStatus, Passed, Pool

NOBODY: Final[Mapping[str, Job]] = {}


class Settled(NamedTuple):
    """A job as it stands, None where there is none; and whether it was this call that put it into the queue."""

    job: Job | None
    unblocked: bool = False


def settle(fleet: Fleet, key: str, known: Mapping[str, Job] = NOBODY) -> Settled:
    """Judge a job and carry that out; whoever does not wait is left alone. Repeatable.

    `known` are jobs as they were just read, by key. An array that was cut short itself may be what a larger one waits
    for, which is judged then. Raises Contended where others changed the job each time, and whatever the table raises.
    """
    for number in range(limits.ADMIT_ROUNDS):
        job = known[key] if key in known and not number else fleet.table.job(key)
        if job and arrays.is_cut_short(job) and job.request.part_of:
            settle(fleet, job.request.part_of)
        if job is None or job.status is not JobStatus.WAITING:
            return Settled(job)
        if job.request.array:
            return _gathered(fleet, job)
        verdict = _judged(fleet, job, known)
        now, op = fleet.clock.now(), fleet.clock.unique()
        match verdict:
            case dependencies.Wait(parents):
                _tell(fleet, job, verdict, parents=parents)
                return Settled(job)
            case dependencies.Unblock():
                if unblocked := fleet.table.unblock(job, now, op, _rank(fleet, job, now)):
                    _tell(fleet, job, verdict)
                    return Settled(unblocked, True)
            case dependencies.Fail(error):
                if fleet.table.finish(job, JobStatus.FAILED, now, error, (), op):
                    _tell(fleet, job, verdict, reason=error)
                    return Settled(replace(job, status=JobStatus.FAILED, error=error, ended_at=now))
    raise Contended(f"{key} changed under each of {limits.ADMIT_ROUNDS} attempts to judge it")


def _rank(fleet: Fleet, job: Job, now: float) -> str:
    """Where tenants share, a job has its place from when it can run: one drawn earlier would pass everybody by."""
    pool = fleet.pools.get(job.pool)
    if pool is None or not pool.fair_shares:
        return ""
    (tag,) = fleet.table.draw(pool, job.priority, {job.tenant: 1}, now)[job.tenant]
    return keys.share_rank_of(job.key, job.priority, tag)


def _gathered(fleet: Fleet, array: Job) -> Settled:
    """End a WAITING array if all its elements have ended.

    Its parts are read from the last one on up to the first that has not ended. What was passed over is noted, so that
    nobody reads it again: the end of an element costs one read of the array, one of that part, and its own, in whatever
    order they end. The note is a hint that may be lost; nothing but time rests on it. Where some did not complete, all
    are read once more at the end.
    """
    passed, parts = _passed_over(fleet, array) if array.grown else array.passed, NOBODY
    if array.grown and passed.first and not arrays.left(array, passed):
        parts = fleet.table.jobs(arrays.part_keys(array))  # who did not complete may have run anew since
        passed = _further(fleet, NOT_PASSED, arrays.left(array, NOT_PASSED), parts)
    outcome = arrays.gather(array, passed, parts.get(passed.first), fleet.clock.now(), _limit_s(fleet, array))
    if outcome is None:
        if passed != array.passed:
            fleet.table.pass_over(array, passed)
        return Settled(array)
    status, error, counts = outcome
    if fleet.table.gather(array, status, fleet.clock.now(), error, counts, fleet.clock.unique()):
        told = {"job": array.id, "key": array.key}
        fleet.log("gathered", **told, decision=status.value, reason=error)
    return Settled(fleet.table.job(array.key))


def _passed_over(fleet: Fleet, array: Job) -> Passed:
    """How far the parts of a grown array have ended by now. The more have, the more of the next are read at once: half
    as many, so that few are read in vain.
    """
    passed, at_once = array.passed, 1
    while some := arrays.left(array, passed)[:at_once]:
        further = _further(fleet, passed, some, fleet.table.jobs(some))
        all_ended, passed = further.parts == passed.parts + len(some), further
        if not all_ended or fleet.time.spent:
            break
        at_once = max((passed.parts - array.passed.parts) // 2, 1)
    return passed


def _further(fleet: Fleet, passed: Passed, some: Sequence[str], found: Mapping[str, Job]) -> Passed:
    """These parts are next: pass over them up to the first that has not ended."""
    for key in some:
        part = found.get(key)
        counts = _counted(fleet, part) if part and part.ended else None
        if part is None or counts is None:
            break
        passed = arrays.pass_over(passed, part, counts)
    return passed


def _counted(fleet: Fleet, part: Job) -> arrays.Counts | None:
    """How the elements of a part that ended did. None: it was cut short, and some of them go on."""
    if not arrays.is_cut_short(part):
        return arrays.counted(part)
    return arrays.counted_apart(part, fleet.table.jobs(arrays.part_keys(part)))


def _limit_s(fleet: Fleet, job: Job) -> float:
    pool = fleet.pools.get(job.pool)
    return pool.parents_limit_s if pool else limits.PARENTS_LIMIT_S


def _tell(fleet: Fleet, job: Job, verdict: dependencies.Verdict, **fields: object) -> None:
    decision = type(verdict).__name__
    fleet.log("judged", job=job.id, key=job.key, correlation_id=job.correlation_id, decision=decision, **fields)


def _judged(fleet: Fleet, job: Job, known: Mapping[str, Job]) -> dependencies.Verdict:
    """The verdict on a WAITING job as read, over its parents as they are now."""
    parents = fleet.table.jobs(job.request.depends_on)
    verdict = dependencies.judge(job, parents, fleet.clock.now(), _limit_s(fleet, job))
    if isinstance(verdict, dependencies.Wait) and (way := _circle(fleet, job, parents, known)):
        return dependencies.in_a_circle(way)
    return verdict


def _circle(fleet: Fleet, job: Job, parents: Mapping[str, Job], known: Mapping[str, Job]) -> list[str]:
    """The way from a job back to itself, if it waits for itself; those above it that are not `known` are read, a
    generation at a time.

    So many of them at most, and for a bounded time. The last one of a circle to be put finds the others there, so each
    is found by at least one; where it had no time to, the tick does, which knows a hundred at once.
    """
    waits = {job.key: job.request.depends_on}
    above = list(parents.values())
    seen = {job.key, *job.request.depends_on}
    while above:
        wanted: list[str] = []
        for waiting in above:
            if waiting.status is not JobStatus.WAITING:
                continue
            waits[waiting.key] = waiting.request.depends_on
            if job.key in waiting.request.depends_on:
                return dependencies.circle(job.key, waits)
            wanted += [key for key in waiting.request.depends_on if key not in seen]
        wanted = list(dict.fromkeys(wanted))[: max(limits.ANCESTORS_READ - len(seen), 0)]
        seen.update(wanted)
        unknown = [key for key in wanted if key not in known]
        if unknown and fleet.time.spent:
            break
        above = [*(known[key] for key in wanted if key in known), *fleet.table.jobs(unknown).values()]
    return []


def settle_some(fleet: Fleet, pool: Pool) -> bool:
    """Judge waiting jobs of a pool, a bounded number, for a bounded time: whoever should have done it may have died.

    Whether any was queued.

    All whose turn it is are read at once, so that whoever waits for another of them need not look for it.
    """
    turn = dependencies.turn(fleet.table.waiting(pool, limits.WAITING_READ), fleet.clock.now())
    known = fleet.table.jobs([entry.key for entry in turn])
    unblocked: list[Job] = []
    for entry in fleet.time.within(limits.WAITING_BUDGET_S).each(turn):
        if entry.key not in known:
            continue
        try:
            settled = settle(fleet, entry.key, known)
        except Exception as error:  # the next tick tries again; the others must not wait for it
            fleet.log("not judged", key=entry.key, error=repr(error))
        else:
            unblocked += [settled.job] if settled.job and settled.unblocked else []
    if unblocked:
        fleet.scale(pool, [job.as_queued for job in unblocked], most=len(unblocked))
    return bool(unblocked)
