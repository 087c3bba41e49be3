"""Jobs that wait for others, judged whenever one of these may have ended: after their own put, on a word, by the tick.

A dependent's edges are written before it is put, and it is judged after. So a parent that ends before the judge reads
it is seen there; and one that ends later finds the edge, and its end has the dependent judged again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from fleetcap import keys, limits
from fleetcap.decide import arrays, dependencies
from fleetcap.fleet import Fleet
from fleetcap.jobs import Contended
from fleetcap.model import Job, JobStatus, Pool


class Settled(NamedTuple):
    """A job as it stands, None where there is none; and whether it was this call that put it into the queue."""

    job: Job | None
    unblocked: bool = False


def settle(fleet: Fleet, key: str) -> Settled:
    """Judge a job and carry that out; whoever does not wait is left alone. Repeatable.

    Raises Contended where others changed the job each time, and whatever the table raises.
    """
    for _ in range(limits.ADMIT_ROUNDS):
        job = fleet.table.job(key)
        if job is None or job.status is not JobStatus.WAITING:
            return Settled(job)
        if job.request.array:
            return _gathered(fleet, job)
        verdict = _judged(fleet, job)
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
    """End a WAITING array if all its elements have ended. Its parts are read up to the first that has not."""
    found = map(fleet.table.job, arrays.part_keys(array)) if array.grown else [None]
    outcome = arrays.gather(array, found, fleet.clock.now(), _limit_s(fleet, array))
    if outcome is None:
        return Settled(array)
    status, error, counts = outcome
    if fleet.table.gather(array, status, fleet.clock.now(), error, counts, fleet.clock.unique()):
        named = {"job": array.id, "key": array.key}
        fleet.log("gathered", **named, decision=status.value, reason=error)
    return Settled(fleet.table.job(array.key))


def _limit_s(fleet: Fleet, job: Job) -> float:
    pool = fleet.pools.get(job.pool)
    return pool.parents_limit_s if pool else limits.PARENTS_LIMIT_S


def _tell(fleet: Fleet, job: Job, verdict: dependencies.Verdict, **fields: object) -> None:
    decision = type(verdict).__name__
    fleet.log("judged", job=job.id, key=job.key, correlation_id=job.correlation_id, decision=decision, **fields)


def _judged(fleet: Fleet, job: Job) -> dependencies.Verdict:
    """The verdict on a WAITING job as read, over its parents as they are now."""
    read = ((key, fleet.table.job(key)) for key in job.request.depends_on)
    parents = {key: parent for key, parent in read if parent}
    verdict = dependencies.judge(job, parents, fleet.clock.now(), _limit_s(fleet, job))
    if isinstance(verdict, dependencies.Wait) and (way := _circle(fleet, job, parents)):
        return dependencies.in_a_circle(way)
    return verdict


def _circle(fleet: Fleet, job: Job, parents: Mapping[str, Job]) -> list[str]:
    """The way from a job back to itself, if it waits for itself; a bounded number of those above it is read.

    The last one of a circle to be put finds the others there, so each is found by at least one.
    """
    waits = {job.key: job.request.depends_on}
    above = deque(parent for parent in parents.values() if parent.status is JobStatus.WAITING)
    seen = {job.key, *job.request.depends_on}
    while above:
        waiting = above.popleft()
        waits[waiting.key] = waiting.request.depends_on
        if job.key in waiting.request.depends_on:
            return dependencies.circle(job.key, waits)
        for key in waiting.request.depends_on:
            if key not in seen and len(seen) < limits.ANCESTORS_READ:
                seen.add(key)
                further = fleet.table.job(key)
                if further and further.status is JobStatus.WAITING:
                    above.append(further)
    return []


def settle_some(fleet: Fleet, pool: Pool) -> None:
    """Judge waiting jobs of a pool, a bounded number, for a bounded time: whoever should have done it may have died."""
    began_at = fleet.clock.now()
    unblocked: list[Job] = []
    for entry in dependencies.turn(fleet.table.waiting(pool, limits.WAITING_READ), began_at):
        if fleet.clock.now() - began_at > limits.WAITING_BUDGET_S:
            break
        try:
            settled = settle(fleet, entry.key)
        except Exception as error:  # the next tick tries again; the others must not wait for it
            fleet.log("not judged", key=entry.key, error=repr(error))
        else:
            unblocked += [settled.job] if settled.job and settled.unblocked else []
    if unblocked:
        fleet.scale(pool, [job.as_queued for job in unblocked], most=len(unblocked))
