"""Waiting for jobs that were just submitted: which run answers a message, and when all are answered."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import typer
from rich.console import Console

from cli import rejects
from cli.target import Target
from fleetcap.catalog import artifact_keys
from fleetcap.model import Job, JobStatus, Submission

LOOK_EVERY_S: Final = 1.0
SAY_EVERY_S: Final = 5.0
ASK_REJECTED_EVERY_S: Final = 10.0
"""A message of which nothing is heard for this long may have been rejected; the queue is asked."""
REJECTED_MOST: Final = 200


@dataclass
class Ended:
    """The jobs that answered, and why the other messages did not become any, by their keys."""

    jobs: list[Job] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def answers(job: Job | None, before: Job | None, force: bool, cached: bool) -> bool:
    """Whether this ended job is the answer to a message that was sent after `before` was read.

    As intake decides: a run under way is joined, a completed one answers while its result stands and none is forced,
    and in every other case a new run begins.
    """
    if job is None or not job.ended:
        return False
    if before is None or job.run > before.run or not before.ended:
        return True
    return before.status is JobStatus.COMPLETED and cached and not force


def until_ended(
    target: Target, wanted: Sequence[Submission], before: Mapping[str, Job], message_ids: Mapping[str, str]
) -> Ended:
    """Look on until every message is answered; of those for one key, all at once. `message_ids` are theirs, by key."""
    ended = Ended()
    pending = {each.key: each for each in sorted(wanted, key=lambda each: each.force)}  # a forced one asks for more
    total = len(pending)
    asked_at = time.monotonic()
    with _saying() as say:
        while True:
            found = target.table.jobs(list(pending))
            for key, job in found.items():
                if answers(job, before.get(key), pending[key].force, _cached(target, pending[key], job)):
                    ended.jobs.append(job)
                    del pending[key]
            say(list(found.values()), ended, total)
            if not pending:
                return ended
            if time.monotonic() - asked_at > ASK_REJECTED_EVERY_S:
                asked_at = time.monotonic()
                unheard = [key for key in pending if _unheard(found.get(key), before.get(key))]
                ended.refused |= _rejected(target, {message_ids[key]: key for key in unheard})
                pending = {key: each for key, each in pending.items() if key not in ended.refused}
            time.sleep(LOOK_EVERY_S)


def _cached(target: Target, wanted: Submission, job: Job) -> bool:
    """Asked of the bucket only where it matters: for a run that had completed before."""
    if job.status is not JobStatus.COMPLETED:
        return False
    return target.cache.has_all(artifact_keys(wanted.key, wanted.request.processor))


def _unheard(job: Job | None, before: Job | None) -> bool:
    return job is None or (job.ended and before is not None and job.run == before.run)


def _rejected(target: Target, keys: Mapping[str, str]) -> dict[str, str]:
    """Why messages were rejected, by workflow key, for those of these message ids that lie in the queue."""
    if not keys:
        return {}
    found = rejects.looked_at(target, rejects.Queue.REJECTED, REJECTED_MOST)
    return {keys[each.message_id]: each.reason for each in found if each.message_id in keys}


class Say(Protocol):
    """Tell how far it is."""

    def __call__(self, seen: Collection[Job], ended: Ended, total: int) -> None:
        """`seen` are the jobs that were pending at this look."""


@contextmanager
def _saying() -> Iterator[Say]:
    """A line that changes for a person, a new one now and then for a log; both on stderr."""
    console = Console(stderr=True)
    said_at = 0.0
    with console.status("waiting") as status:

        def say(seen: Collection[Job], ended: Ended, total: int) -> None:
            nonlocal said_at
            line = summary(seen, ended, total)
            status.update(line)
            if not console.is_terminal and time.monotonic() - said_at > SAY_EVERY_S:
                said_at = time.monotonic()
                typer.echo(line, err=True)

        yield say


def summary(seen: Collection[Job], ended: Ended, total: int) -> str:
    """How far it is, in one line."""
    running = [job for job in seen if job.status is JobStatus.RUNNING]
    completed = sum(job.status is JobStatus.COMPLETED for job in ended.jobs)
    done = len(ended.jobs) + len(ended.refused)
    waiting = total - done - len(running)
    stages = ", ".join(sorted({job.stage for job in running if job.stage}))
    doing = f"running {len(running)}{f' ({stages})' if stages else ''}"
    return f"waiting {waiting}, {doing}, ended {done} of {total}, completed {completed}"
