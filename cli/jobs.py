"""`fleetcap jobs`, `job`, `cancel` and `retry`: what becomes of jobs, and what a person may do about it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from cli import board
from cli.target import AsJson, CloudName, Failed, StackName, Target, reached
from fleetcap import jobs as deeds
from fleetcap import pools
from fleetcap.adapters.survey import Found, Survey
from fleetcap.adapters.system import SystemClock
from fleetcap.catalog import PROCESSORS, artifact_keys
from fleetcap.messages import again
from fleetcap.model import Job, JobStatus, Pool

_JOB_ID: Final = re.compile(r"[0-9a-f]{16}-\d+")
_ACTIVE: Final = frozenset(status for status in JobStatus if not status.ended)

Keys = Annotated[list[str], typer.Argument(metavar="KEY…", help="Workflow keys.")]


# --- looking on


def jobs(
    pool: Annotated[str, typer.Option(help="Only jobs of this pool.")] = "",
    status: Annotated[list[JobStatus] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """List jobs: running, queued and waiting ones first, then those that ended last."""
    with reached(name, stack) as target:
        found = listed(target.table, _chosen(target, pool), set(status or JobStatus), pool, limit)
    if as_json:
        records = [board.record(job) for job in found.jobs]
        typer.echo(json.dumps({"jobs": records, "whole": found.whole}, indent=2))
        return
    board.console().print(board.listing(found.jobs, time.time()) if found.jobs else "There are no such jobs.")
    if not found.whole:
        typer.echo(f"There are more; these are {limit} at most, see --limit, --pool and --status.", err=True)


def _chosen(target: Target, pool: str) -> Collection[Pool]:
    if pool and pool not in target.pools:
        raise Failed(f"{target.told} has no pool {pool!r}; it has {', '.join(target.pools)}")
    return [target.pools[pool]] if pool else target.pools.values()


def listed(table: Survey, pools: Collection[Pool], statuses: Collection[JobStatus], pool: str, limit: int) -> Found:
    """At most `limit` jobs in these states: running, queued in their order, waiting, ended with the last one first.

    `pool` is the name of the one that `pools` holds, or empty for all. `whole` is False where any were left out.
    """
    found: list[Job] = []
    whole = True
    for read, wanted in ((_active, _ACTIVE & set(statuses)), (_ended, set(statuses) - _ACTIVE)):
        if wanted:
            more = read(table, pools, wanted, pool, limit)
            found, whole = found + more.jobs, whole and more.whole
    once = list({job.key: job for job in found}.values())
    return Found(once[:limit], whole and len(once) <= limit)


def _active(table: Survey, pools: Collection[Pool], wanted: Collection[JobStatus], _pool: str, limit: int) -> Found:
    found = table.unended(pools, limit)
    order = {JobStatus.RUNNING: 0, JobStatus.QUEUED: 1, JobStatus.WAITING: 2}
    mine = [job for job in found.jobs if job.status in wanted]
    return Found(sorted(mine, key=lambda job: (order[job.status], job.claimed_at, job.rank)), found.whole)


def _ended(table: Survey, _pools: Collection[Pool], wanted: Collection[JobStatus], pool: str, _limit: int) -> Found:
    found = table.ended(wanted, pool)
    return Found(sorted(found.jobs, key=lambda job: -job.ended_at), found.whole)


def job(
    key: Annotated[str, typer.Argument(help="Its workflow key.")],
    run: Annotated[
        int | None, typer.Option(min=1, help="Ask for this run; an older one leads to its successor.")
    ] = None,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Show everything about one job: where it is, what it waits for, its attempts, why it failed, what it made."""
    with reached(name, stack) as target:
        standing = known(target, key)
        check_run(standing, run)
        parents = target.table.jobs(standing.request.depends_on)
        waits_for = waits(target, standing, parents)
        sizes = {artifact: target.cache.size_bytes(artifact) for artifact in standing.artifacts}
    if as_json:
        artifacts = [{"key": artifact, "size_bytes": found} for artifact, found in sizes.items()]
        stand = [{"workflow_key": parent, "status": status} for parent, status in board.states(standing, parents)]
        more = {"artifacts": artifacts, "parents": stand, "waits_for": waits_for}
        typer.echo(json.dumps(board.record(standing) | more, indent=2))
    else:
        board.console().print(board.sheet(standing, sizes, parents, time.time(), waits_for))


def waits(target: Target, standing: Job, parents: Mapping[str, Job] | None = None) -> str:
    """What the job waits for, in one sentence; empty where it does not wait."""
    if standing.status not in {JobStatus.QUEUED, JobStatus.WAITING}:
        return ""
    if standing.pool not in target.pools:
        return f"its pool {standing.pool} is not deployed any more; cancel it, and submit it to another"
    pool = target.pools[standing.pool]
    return pools.waits_for(target.table, pool, standing, SystemClock().now(), parents)


def known(target: Target, key: str) -> Job:
    """The job of a key. Raises Failed where there is none."""
    standing = target.table.job(key)
    if standing:
        return standing
    if _JOB_ID.fullmatch(key):
        raise Failed(f"{key} reads like a job's id; jobs are found by their key, which `fleetcap jobs --json` tells")
    raise Failed(f"{target.told} has no job {key}; ended ones are forgotten after a week, their artifacts later")


def check_run(standing: Job, run: int | None) -> None:
    """The key's item holds its last run only. Raises Failed, with the way to go on, where another is asked for."""
    if run is not None and run < standing.run:
        last = f"run {standing.run} (id {standing.id}, {standing.status.value})"
        raise Failed(f"run {run} of {standing.key} was superseded by {last}; only the last run is kept")
    if run is not None and run > standing.run:
        raise Failed(f"{standing.key} has no run {run} yet; its last is {standing.run}")


# --- doing


@dataclass(frozen=True)
class Told:
    """What became of one key: a word for scripts, a sentence for people, and whether it was what was asked for."""

    key: str
    outcome: str
    sentence: str
    fine: bool = True


def cancel(
    keys: Keys,
    reason: Annotated[str, typer.Option(help="Kept with the job.")] = "asked for at the command line",
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """End jobs: queued and waiting ones at once, running ones within seconds."""
    with reached(name, stack) as target:
        _tell([_careful(cancelled, target, key, reason) for key in keys], as_json)


def cancelled(target: Target, key: str, reason: str) -> Told:
    """Cancel one job, and say what that meant."""
    found = deeds.cancel(target.table, SystemClock(), key, reason)
    if found is None:
        return _unknown(target, key)
    if found.ended:
        return Told(key, "ended before", f"had ended before: {found.status.value}")
    if found.status is JobStatus.RUNNING:
        return Told(key, "asked", "its worker was asked to end it, which takes seconds")
    return Told(key, "cancelled", "cancelled")


def retry(
    keys: Keys,
    force: Annotated[bool, typer.Option(help="Run again although the result is there, and replace it.")] = False,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Ask for another run of ended jobs, as they were submitted."""
    with reached(name, stack) as target:
        _tell([_careful(retried, target, key, force) for key in keys], as_json)


def retried(target: Target, key: str, force: bool) -> Told:
    """Ask for another run of one job, and say what that meant."""
    found = target.table.job(key)
    if found is None:
        return _unknown(target, key)
    if not found.ended:
        return Told(key, "active", f"is {found.status.value} already; nothing was sent")
    if found.status is JobStatus.COMPLETED and not force and _result_stands(target, found):
        return Told(key, "completed", "COMPLETED, and its result is in the cache; --force runs it again", fine=False)
    body = json.dumps(again(found, force))
    target.sqs.send_message(QueueUrl=target.output("IntakeQueueUrl"), MessageBody=body)
    return Told(key, "sent", f"sent; it was {found.status.value} and will be run {found.run + 1}")


def _result_stands(target: Target, found: Job) -> bool:
    processor = found.request.processor
    return processor in PROCESSORS and target.cache.has_all(artifact_keys(found.key, processor))


def _unknown(target: Target, key: str) -> Told:
    return Told(key, "unknown", f"{target.told} has no job of this key", fine=False)


def _careful(deed: Callable[..., Told], target: Target, key: str, how: object) -> Told:
    """One key's trouble is its own; the others are still done."""
    try:
        return deed(target, key, how)
    except (deeds.Contended, ValueError) as error:
        return Told(key, "not done", str(error), fine=False)


def _tell(told: Sequence[Told], as_json: bool) -> None:
    if as_json:
        outcomes = [{"workflow_key": each.key, "outcome": each.outcome, "fine": each.fine} for each in told]
        typer.echo(json.dumps({"jobs": outcomes}, indent=2))
    for each in told:
        if not as_json or not each.fine:
            typer.echo(f"{each.key}: {each.sentence}", err=not each.fine)
    if not all(each.fine for each in told):
        raise typer.Exit(1)
