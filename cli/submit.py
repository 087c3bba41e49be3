"""`fleetcap submit`: files, addresses or ready-made messages become jobs, and are waited for where that is asked."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import ClientError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from cli import board, queues, watch
from cli.target import AsJson, CloudName, Failed, StackName, Target, reached
from fleetcap import keys
from fleetcap.adapters.cache import MISSING
from fleetcap.catalog import PROCESSORS
from fleetcap.messages import Rejected, submission
from fleetcap.model import JobStatus, OnParentFailure, Submission

READ_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """One message to send: its body, and where it came from, for sentences."""

    body: dict[str, Any]
    told: str


def submit(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE_OR_URL…", help="Files, s3:// and https:// addresses; - reads messages from stdin."
        ),
    ] = None,
    processor: Annotated[str | None, typer.Option(help="What to do with them; derived from the name.")] = None,
    pool: Annotated[str | None, typer.Option(help="Which workers run them.")] = None,
    priority: Annotated[int | None, typer.Option(help="9 goes first, 0 last.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose jobs they are.")] = None,
    key: Annotated[str | None, typer.Option(help="The workflow key of a single source; derived without it.")] = None,
    md5: Annotated[str | None, typer.Option(help="The MD5 of a single source, checked before it is used.")] = None,
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the processor.")] = None,
    force: Annotated[bool, typer.Option(help="Run although the result is in the cache, and replace it.")] = False,
    depends_on: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only once this job has completed; may be repeated.")
    ] = None,
    on_parent_failure: Annotated[
        OnParentFailure | None, typer.Option(help="If one of those does not complete: fail too, or run all the same.")
    ] = None,
    array: Annotated[
        int | None, typer.Option(help="So many jobs, {index} in the address or a param counting from 0.")
    ] = None,
    from_file: Annotated[Path | None, typer.Option(help="Read messages from a file, one JSON object a line.")] = None,
    wait: Annotated[bool, typer.Option(help="Until all have ended; exit code 0 if all are COMPLETED.")] = False,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Submit jobs and print their workflow keys. Nothing is sent if any of them would be refused."""
    given: dict[str, Any] = {
        "processor": processor,
        "pool": pool,
        "priority": priority,
        "tenant": tenant,
        "workflow_key": key,
        "md5": md5,
        "depends_on": depends_on or None,
        "on_parent_failure": on_parent_failure,
        "array": array,
    }
    fields = {field: value for field, value in given.items() if value is not None}
    fields |= {"params": dict(map(parameter, param or ()))} if param else {}
    fields |= {"force": True} if force else {}
    _check_usage(sources or [], from_file, fields)
    with reached(name, stack) as target:
        wanted = ready_made(from_file) if from_file or sources == ["-"] else composed(target, sources or [], fields)
        accepted = checked(target, wanted)
        before = target.table.jobs([each.key for each in accepted]) if wait else {}
        sent = list(_sent(target, wanted))
        _tell(target, wanted, accepted, sent, as_json, wait)
        if wait:
            ids = {accepted[each.index].key: each.message_id for each in sent if not each.trouble}
            mine = [each for each in accepted if each.key in ids]
            ended = watch.until_ended(target, mine, before, ids)
            _tell_ended(ended, wanted, accepted, sent, as_json)
    if any(each.trouble for each in sent):
        raise Failed(
            f"{sum(bool(each.trouble) for each in sent)} of {len(wanted)} messages were not sent; send them anew"
        )
    if wait and (ended.refused or any(job.status is not JobStatus.COMPLETED for job in ended.jobs)):
        raise typer.Exit(1)


def _check_usage(sources: Sequence[str], from_file: Path | None, fields: dict[str, Any]) -> None:
    """Refuse what cannot be meant."""
    ready = from_file is not None or "-" in sources
    if not sources and from_file is None:
        raise typer.BadParameter("name files or addresses, or - or --from-file", param_hint="FILE_OR_URL")
    if ready and (fields or len(sources) + (from_file is not None) > 1):
        raise typer.BadParameter("messages that are read carry their own fields, and stand alone", param_hint="-")
    if len(sources) > 1 and (single := {"workflow_key", "md5"} & fields.keys()):
        named = " and ".join(sorted(f"--{field.removeprefix('workflow_')}" for field in single))
        raise typer.BadParameter("is of a single source", param_hint=named)


def parameter(text: str) -> tuple[str, object]:
    """NAME=VALUE, the value read as JSON where it is a number, true or false. Raises BadParameter otherwise."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} does not read NAME=VALUE", param_hint="--param")
    try:
        read = json.loads(value)
    except ValueError:
        read = value
    return name, read if isinstance(read, bool | int | float) else value


# --- messages


def ready_made(path: Path | None) -> list[Wanted]:
    """Messages as they stand in a file or on stdin, one JSON object a line. Raises Failed on a line that is none."""
    raw = path.read_bytes() if path else sys.stdin.buffer.read()
    wanted = []
    for number, line in enumerate(raw.decode(errors="replace").split("\n"), start=1):
        if line.strip():
            try:
                body = json.loads(line)
            except ValueError as error:
                raise Failed(f"line {number} is no JSON: {error}; nothing was sent") from None
            if not isinstance(body, dict):
                raise Failed(f"line {number} is no JSON object; nothing was sent")
            wanted.append(Wanted(body, f"line {number}"))
    if not wanted:
        raise Failed("there is no message to send")
    return wanted


def composed(target: Target, sources: Sequence[str], fields: dict[str, Any]) -> list[Wanted]:
    """A message a source; files are uploaded, once it is known that no source will be refused."""
    files = {source: _content(source) for source in sources if not _is_address(source)}
    bucket = target.output("InputBucketName")
    wanted = []
    for source in sources:
        content = files.get(source)
        if content and fields.get("md5", content.md5) != content.md5:
            raise Failed(f"{source}: its MD5 is {content.md5}; nothing was sent")
        own = {"source": f"s3://{bucket}/{content.key}", "md5": content.md5} if content else {"source": source}
        wanted.append(Wanted({**fields, **own}, source))
    checked(target, wanted)
    if files:
        upload(target, bucket, list({content.key: content for content in files.values()}.values()))
    return wanted


def _is_address(source: str) -> bool:
    return source.startswith(("s3://", "https://"))


def checked(target: Target, wanted: Sequence[Wanted]) -> list[Submission]:
    """Every message as intake will read it. Raises Failed, with the sentence, on the first that it would reject."""
    accepted = []
    for each in wanted:
        try:
            accepted.append(submission(json.dumps(each.body), 0.0, target.pools, target.source_hosts))
        except Rejected as reason:
            raise Failed(f"{each.told}: {reason}; nothing was sent") from None
    return accepted


# --- files


@dataclass(frozen=True)
class Content:
    """A file by what it holds. `key` is where the input bucket keeps it; `stamp` tells whether it changed since."""

    path: Path
    key: str
    md5: str
    size_bytes: int
    stamp: tuple[int, int]


def _content(source: str) -> Content:
    """Read a file through. The same content under any name has the same key, and so makes the same job."""
    path = Path(source)
    if not path.is_file():
        raise Failed(f"{source} is neither a file nor an s3:// or https:// address; nothing was sent")
    stamp = _stamp(path)
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            sha256.update(piece)
            md5.update(piece)
    key = f"{keys.SUBMITTED_PREFIX}{sha256.hexdigest()}{suffix(path.name)}"
    return Content(path, key, md5.hexdigest(), stamp[0], stamp)


def suffix(name: str) -> str:
    """The end of a file's name that tells what it is: the longest that a processor knows, or the last one."""
    known = [end for each in PROCESSORS.values() for end in each.suffixes if name.lower().endswith(end)]
    return max(known, key=len, default=Path(name).suffix)


def _stamp(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_size, told.st_mtime_ns


def upload(target: Target, bucket: str, contents: Sequence[Content]) -> None:
    """Put files into the input bucket; one that stands there already is not sent again. Raises Failed."""
    missing = [each for each in contents if _size(target, bucket, each.key) != each.size_bytes]
    with _uploading(missing) as sent:
        for each in missing:
            target.s3.upload_file(str(each.path), bucket, each.key, Callback=sent)
            if _stamp(each.path) != each.stamp:
                target.s3.delete_object(Bucket=bucket, Key=each.key)
                raise Failed(f"{each.path} changed while it was read; nothing was sent")


def _size(target: Target, bucket: str, key: str) -> int | None:
    try:
        return target.s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    except ClientError as error:
        if error.response["Error"]["Code"] in MISSING:
            return None
        raise


@contextmanager
def _uploading(contents: Sequence[Content]) -> Iterator[Callable[[int], None]]:
    """Show how much is sent, to a person who looks on."""
    console = Console(stderr=True)
    columns = TextColumn("uploading"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=sum(each.size_bytes for each in contents))
        yield lambda count: progress.advance(task, count)


# --- sending and telling


def _sent(target: Target, wanted: Sequence[Wanted]) -> Iterator[queues.Sent]:
    bodies = [json.dumps(each.body) for each in wanted]
    for sent in queues.send(target.sqs, target.output("IntakeQueueUrl"), bodies):
        if sent.trouble:
            typer.echo(f"{wanted[sent.index].told}: not sent: {sent.trouble}", err=True)
        yield sent


def _tell(
    target: Target,
    wanted: Sequence[Wanted],
    accepted: Sequence[Submission],
    sent: Sequence[queues.Sent],
    as_json: bool,
    wait: bool,
) -> None:
    """The keys on stdout, one a line or as the one document; to whom they were sent, on stderr."""
    taken = sorted((each for each in sent if not each.trouble), key=lambda each: each.index)
    if as_json and not wait:
        typer.echo(json.dumps({"submitted": _records(wanted, accepted, sent)}, indent=2))
    if not as_json:
        typer.echo(f"{len(taken)} message{'s' * (len(taken) != 1)} sent to {target.told}", err=True)
        for each in taken:
            typer.echo(accepted[each.index].key)


def _records(
    wanted: Sequence[Wanted], accepted: Sequence[Submission], sent: Sequence[queues.Sent]
) -> list[dict[str, Any]]:
    return [
        {
            "workflow_key": accepted[each.index].key,
            "message_id": each.message_id,
            "from": wanted[each.index].told,
            "source": accepted[each.index].request.source,
        }
        for each in sorted(sent, key=lambda each: each.index)
        if not each.trouble
    ]


def _tell_ended(
    ended: watch.Ended,
    wanted: Sequence[Wanted],
    accepted: Sequence[Submission],
    sent: Sequence[queues.Sent],
    as_json: bool,
) -> None:
    if as_json:
        records = {"submitted": _records(wanted, accepted, sent), "jobs": [board.record(job) for job in ended.jobs]}
        typer.echo(json.dumps(records | {"rejected": ended.refused}, indent=2))
        return
    for job in ended.jobs:
        typer.echo(f"{job.key}: {job.status.value}{f': {job.error}' if job.error else ''}", err=True)
    for key, reason in ended.refused.items():
        typer.echo(f"{key}: rejected: {reason}", err=True)
