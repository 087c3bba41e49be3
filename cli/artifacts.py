"""`fleetcap get`: results of a job, copied from the cache. It never starts work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import ClientError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cli.target import AsJson, CloudName, Failed, StackName, Target, reached
from fleetcap.adapters.cache import MISSING, STREAM_BYTES
from fleetcap.messages import WORKFLOW_KEY
from fleetcap.model import Job, JobStatus

_RANGE: Final = re.compile(r"(\d+)-(\d+)")
_PLACE: Final = re.compile(r"[A-Za-z0-9._+-]+@\d+/[A-Za-z0-9][A-Za-z0-9._+-]*")
"""What follows the workflow key in an artifact's: `<processor>@<version>/<kind>`."""


@dataclass(frozen=True)
class Fetched:
    """One artifact on this machine."""

    artifact: str
    path: Path
    size_bytes: int


def get(
    key: Annotated[str, typer.Argument(help="The job's workflow key.")],
    kind: Annotated[str | None, typer.Option(help="Only this artifact, such as sorted.bam.")] = None,
    out: Annotated[Path, typer.Option(help="Below which directory: as <key>/<kind>.")] = Path(),
    part: Annotated[str | None, typer.Option("--range", metavar="A-B", help="Only these bytes, both ends in.")] = None,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Download the artifacts of a completed job. It never starts work."""
    span = byte_range(part)
    with reached(name, stack) as target:
        keys = chosen(key, artifacts(target, key), kind)
        if span and len(keys) > 1:
            raise typer.BadParameter(f"one of {', '.join(map(kind_of, keys))}", param_hint="--kind")
        fetched = []
        for artifact in keys:
            fetched.append(fetch(target, artifact, destination(out, key, artifact, part), part))
            if not as_json:
                typer.echo(fetched[-1].path)
    if as_json:
        records = [{"key": each.artifact, "path": str(each.path), "size_bytes": each.size_bytes} for each in fetched]
        typer.echo(json.dumps({"artifacts": records}, indent=2))


def byte_range(text: str | None) -> tuple[int, int] | None:
    """The first and last byte of A-B. Raises BadParameter where it is no range."""
    if text is None:
        return None
    found = _RANGE.fullmatch(text)
    if not found or int(found[1]) > int(found[2]):
        raise typer.BadParameter(f"{text!r} does not read A-B, the first and the last byte", param_hint="--range")
    return int(found[1]), int(found[2])


def kind_of(artifact: str) -> str:
    """The kind of an artifact, by its key."""
    return artifact.rpartition("/")[2]


def artifacts(target: Target, key: str) -> list[str]:
    """The artifact keys of a completed job, or what stands in the cache for a job that is forgotten. Raises Failed."""
    if not re.fullmatch(WORKFLOW_KEY, key):
        raise Failed(f"{key!r} is no workflow key")
    job = target.table.job(key)
    if job and (why := not_completed(job)):
        raise Failed(why)
    found = list(job.artifacts) if job else in_cache(target, key)
    if not found:
        raise Failed(f"{target.told} knows no job {key}, and its cache holds nothing of it")
    return found


def not_completed(job: Job) -> str:
    """Why a job has no result; empty where it has one."""
    if job.status is JobStatus.COMPLETED:
        return ""
    why = f": {job.error}" if job.ended else ", so it has no result yet"
    return f"{job.key} is {job.status.value}{why}"


def in_cache(target: Target, key: str) -> list[str]:
    """The keys of the artifacts that stand in the cache for a workflow key; jobs are forgotten before their results."""
    prefix = f"{target.cache_prefix}{key}/"
    pages = target.s3.get_paginator("list_objects_v2").paginate(
        Bucket=target.output("CacheBucketName"), Prefix=prefix, PaginationConfig={"MaxItems": 1_000}
    )
    places = [found["Key"].removeprefix(prefix) for page in pages for found in page.get("Contents", [])]
    return [f"{key}/{place}" for place in places if _PLACE.fullmatch(place)]


def chosen(key: str, found: Sequence[str], kind: str | None) -> list[str]:
    """Those of the artifacts that are asked for. Raises Failed where there is none of this kind."""
    kept = [artifact for artifact in found if kind in {None, kind_of(artifact)}]
    if not kept:
        raise Failed(f"{key} has no {kind}; it has {', '.join(map(kind_of, found))}")
    return kept


def destination(out: Path, key: str, artifact: str, part: str | None) -> Path:
    """Where an artifact goes: a key never leads out of `out`, for its segments begin with a letter or a digit."""
    name = kind_of(artifact)
    if not _PLACE.fullmatch(f"x@1/{name}"):
        raise Failed(f"{artifact} ends in no name for a file")
    return out / key / (f"{name}.{part}" if part else name)


def fetch(target: Target, artifact: str, path: Path, part: str | None = None) -> Fetched:
    """Copy one artifact, or these bytes of it, to `path`, which is never seen half-written. Raises Failed."""
    asked: dict[str, Any] = {"Bucket": target.output("CacheBucketName"), "Key": f"{target.cache_prefix}{artifact}"}
    if part:
        asked["Range"] = f"bytes={part}"
    try:
        answer = target.s3.get_object(**asked)
    except ClientError as error:
        raise _explained(error, artifact, part) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    try:
        showing = _downloading(path.name, answer["ContentLength"])
        with closing(answer["Body"]) as body, partial.open("wb") as file, showing as received:
            for piece in body.iter_chunks(STREAM_BYTES):
                received(file.write(piece))
        if partial.stat().st_size != answer["ContentLength"]:
            raise Failed(f"{artifact} broke off after {partial.stat().st_size:,} bytes; get it again")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Fetched(artifact, path, answer["ContentLength"])


def _explained(error: ClientError, artifact: str, part: str | None) -> Exception:
    if error.response["Error"]["Code"] in MISSING:
        return Failed(f"{artifact} has expired or was deleted; submit its job again to make it anew")
    if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return Failed(f"{artifact} has no bytes {part}")
    return error


@contextmanager
def _downloading(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how much has come, to a person who looks on."""
    console = Console(stderr=True)
    columns = TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)
