"""`fleetcap import`: results of an older system enter the cache under their workflow keys, so that it starts warm."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cli.copies import Copied, Copier, Place, Stopped, look
from cli.target import AsJson, CloudName, Failed, StackName, Target, reached
from fleetcap.catalog import PROCESSORS, artifact_key
from fleetcap.messages import Message, sentence
from fleetcap.sources import is_s3

AT_ONCE: Final = 8
TROUBLES_TOLD: Final = 20
_PLACEHOLDER: Final = "s3://imported/result"


class Entry(BaseModel):
    """One line of a manifest: a job that an older system has done, and where its artifacts lie, by kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    workflow_key: str | None = None
    source: str | None = None
    md5: str | None = None
    params: dict[str, str | int | float | bool] = Field(default_factory=dict)
    processor: str | None = None
    artifacts: dict[str, str]


@dataclass(frozen=True)
class Copy:
    """One artifact to bring into the cache. `line` is the manifest's."""

    line: int
    source: Place
    destination: Place


def import_(
    manifest: Annotated[Path, typer.Argument(help="One JSON object a line; see docs/import.md.")],
    dry_run: Annotated[bool, typer.Option(help="Look at everything, and copy nothing.")] = False,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Copy existing results into the cache, so that messages for their keys are answered without a run."""
    with reached(name, stack) as target:
        jobs = plan(
            manifest.read_bytes().decode(errors="replace"), target.output("CacheBucketName"), target.cache_prefix
        )
        counts, troubles = carried_out(target, jobs, dry_run)
    record = {"jobs": len(jobs), "dry_run": dry_run, **{each.value.replace(" ", "_"): counts[each] for each in Copied}}
    if as_json:
        typer.echo(json.dumps(record | {"troubles": troubles}, indent=2))
    else:
        would = " would be" if dry_run else ""
        copied = f"{counts[Copied.DONE]} artifacts{would} copied, {counts[Copied.STOOD]} were there already"
        typer.echo(f"{len(jobs)} jobs: {copied}")
    for trouble in troubles[:TROUBLES_TOLD]:
        typer.echo(trouble, err=True)
    if troubles:
        raise Failed(f"{len(troubles)} artifacts were not copied; once that is mended, import the same manifest again")


# --- the manifest


def plan(text: str, bucket: str, prefix: str) -> list[list[Copy]]:
    """The copies of each job, in the order in which a worker would commit them.

    Raises Failed on the first line that is no entry: nothing is copied from a manifest that is wrong anywhere.
    """
    jobs: list[list[Copy]] = []
    taken: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            copies = _copies(number, line, bucket, prefix)
        except ValidationError as error:
            raise Failed(f"line {number}: {sentence(error)}; nothing was copied") from None
        except ValueError as error:
            raise Failed(f"line {number}: {error}; nothing was copied") from None
        for copy in copies:
            first = taken.setdefault(copy.destination.key, number)
            if first != number:
                raise Failed(
                    f"line {number}: {copy.destination.key} is that of line {first} already; nothing was copied"
                )
        jobs.append(copies)
    if not jobs:
        raise Failed("the manifest holds no line")
    return jobs


def _copies(number: int, line: str, bucket: str, prefix: str) -> list[Copy]:
    """Read one line. Raises ValueError, of which ValidationError is one, with the reason."""
    entry = Entry.model_validate_json(line)
    message = _as_message(entry)
    processor = PROCESSORS[message.processor_name]
    if set(entry.artifacts) != set(processor.kinds):
        raise ValueError(f"artifacts: {processor.name} makes {', '.join(processor.kinds)}, all of them and no others")
    if wrong := [address for address in entry.artifacts.values() if not is_s3(address)]:
        raise ValueError(f"artifacts: {wrong[0]!r} does not read s3://bucket/key")
    return [
        Copy(
            number,
            _place(entry.artifacts[kind]),
            Place(bucket, prefix + artifact_key(message.key(), processor, kind)),
        )
        for kind in processor.kinds
    ]


def _as_message(entry: Entry) -> Message:
    """The message that the results answer: its key is theirs, given or derived as intake would."""
    if (entry.workflow_key is None) == (entry.source is None):
        raise ValueError("an entry has a workflow_key, or the source that it is derived from, and not both")
    if entry.workflow_key is not None and entry.processor is None:
        raise ValueError("processor: a workflow_key does not tell which one made the artifacts; name it")
    fields = entry.model_dump(exclude={"artifacts"}, exclude_none=True)
    return Message.model_validate({"source": _PLACEHOLDER, **fields})


def _place(address: str) -> Place:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return Place(bucket, key)


# --- copying


def carried_out(
    target: Target, jobs: Sequence[Sequence[Copy]], dry_run: bool, copier: Copier | None = None
) -> tuple[Mapping[Copied, int], list[str]]:
    """Copy job by job, several at once; how many artifacts came to which end, and a sentence on each in trouble.

    What stands already is left alone, so an import that was broken off is taken up by importing again.
    """
    counts: Counter[Copied] = Counter()
    troubles: list[str] = []
    copier = copier or Copier(target.s3)
    with _counting(sum(map(len, jobs))) as count, ThreadPoolExecutor(AT_ONCE) as threads:
        try:
            done = [threads.submit(_job, copier, job, dry_run) for job in jobs]
            for each in as_completed(done):
                for copied, trouble in each.result():
                    counts[copied] += 1
                    troubles += [trouble] if trouble else []
                    count()
        except BaseException:
            copier.stop.set()
            threads.shutdown(cancel_futures=True)
            raise
    return counts, troubles


def _job(copier: Copier, copies: Sequence[Copy], dry_run: bool) -> list[tuple[Copied, str]]:
    """One job's artifacts, the last one last, as a worker commits them; none after one that failed."""
    done: list[tuple[Copied, str]] = []
    for copy in copies:
        where = f"line {copy.line}: {copy.source}"
        try:
            copied = _would(copier, copy) if dry_run else copier.copy(copy.source, copy.destination)
        except Stopped:
            break
        except (ClientError, BotoCoreError) as error:
            copied, why = Copied.MISSING, f"{where}: {error}"
        else:
            why = f"{where} does not exist" if copied is Copied.MISSING else ""
        done.append((copied, why))
        if why:
            break
    return done


def _would(copier: Copier, copy: Copy) -> Copied:
    if look(copier.s3, copy.destination):
        return Copied.STOOD
    return Copied.DONE if look(copier.s3, copy.source) else Copied.MISSING


@contextmanager
def _counting(total: int) -> Iterator[Callable[[], None]]:
    """Show how many are done, to a person who looks on."""
    console = Console(stderr=True)
    columns = TextColumn("importing"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
