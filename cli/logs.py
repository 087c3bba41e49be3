"""`fleetcap logs`: what deciders and workers wrote down about one job, in the order of time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from cli.board import moment
from cli.target import AsJson, CloudName, Failed, StackName, Target, reached
from fleetcap import metrics
from fleetcap.model import Job, key_hash

LOOK_BACK_S: Final = 86_400
"""How far to look back for a name that is no job's: that of a message which was rejected, or of a forgotten job."""
BEFORE_S: Final = 60
"""A message is sent, and perhaps tried in vain, before its job is queued."""
LATE_S: Final = 15
"""CloudWatch may show a line this long after it was written, and behind younger ones."""
FOLLOW_EVERY_S: Final = 2.0
LINES_MAX: Final = 10_000
CHILD_SAYS: Final = "output"
"""The message of a worker's line that passes on what the job's process printed, in its field `line`."""
_NOISE: Final = frozenset(
    ("level", "location", "timestamp", "service", "message", "time", "xray_trace_id", "key", "job", "correlation_id")
)
"""Fields that are told otherwise, or are the same on every line of a job."""


@dataclass(frozen=True)
class Line:
    """One line of a log. `at` is unix seconds; `who` wrote it; text that is no JSON object is all `event`."""

    at: float
    who: str
    event: str
    fields: Mapping[str, Any]
    id: str

    def record(self) -> dict[str, Any]:
        """It as a JSON document."""
        return {"at": self.at, "who": self.who, "event": self.event, "fields": dict(self.fields)}


@dataclass(frozen=True)
class Names:
    """By what lines about a job are found: its key, and the correlation id of its last run."""

    key: str
    correlation_id: str = ""

    @property
    def terms(self) -> tuple[str, ...]:
        """What to search for."""
        return tuple(filter(None, dict.fromkeys((self.key, self.correlation_id))))

    def fit(self, line: Line) -> bool:
        """Whether the line is about this job, and not about one whose key merely begins like its."""
        if not line.fields:
            return True
        told = {str(line.fields.get(name, "")) for name in ("key", "job", "correlation_id", "message_id")}
        of_key = any(each.startswith(f"{key_hash(self.key)}-") for each in told)
        return of_key or bool(told & set(self.terms))


def logs(
    key: Annotated[str, typer.Argument(help="A workflow key; or a correlation or message id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Show what deciders and workers logged about a job."""
    console = Console(highlight=False, soft_wrap=True)
    with reached(name, stack) as target:
        job = target.table.job(key)
        count = 0
        for line in lines(target, key, job, follow):
            count += 1
            if as_json:
                typer.echo(json.dumps(line.record()))
            else:
                console.print(shown(line))
    if not count:
        raise Failed(f"{target.told} has no lines about {key}{'' if job else ' of the last day, and no such job'}")


def lines(target: Target, key: str, job: Job | None, follow: bool, look: float = FOLLOW_EVERY_S) -> Iterator[Line]:
    """The lines about a job by time; with `follow`, new ones until it has ended and the last have come."""
    names = Names(key, job.correlation_id if job else "")
    groups = target.log_groups()
    now = time.time()
    since = job.queued_at - BEFORE_S if job else now - LOOK_BACK_S
    seen: set[str] = set()
    while True:
        looked_at, ended = time.time(), follow and _ended_long_ago(target, key)
        yield from _new(target, names, groups, since, seen)
        if not follow or ended:
            return
        since = max(since, looked_at - 2 * LATE_S)
        time.sleep(look)


def _ended_long_ago(target: Target, key: str) -> bool:
    """Whether whatever was written about the job must be readable by now."""
    job = target.table.job(key)
    return job is not None and job.ended and time.time() - job.ended_at > LATE_S


def _new(target: Target, names: Names, groups: Mapping[str, str], since: float, seen: set[str]) -> Iterator[Line]:
    """Lines that were not seen before, by time."""
    found = [
        line
        for who, group in groups.items()
        for term in names.terms
        for line in _found(target, who, group, term, since)
        if names.fit(line)
    ]
    for line in sorted(found, key=lambda line: line.at):
        if line.id not in seen:
            seen.add(line.id)
            yield line


def _found(target: Target, who: str, group: str, term: str, since: float) -> Iterator[Line]:
    """The lines of a group that hold a term; one term a search, for not every service knows alternatives."""
    pages = target.logs.get_paginator("filter_log_events").paginate(
        logGroupName=group,
        filterPattern=f'"{term}"',
        startTime=int(since * 1_000),
        PaginationConfig={"MaxItems": LINES_MAX},
    )
    count = 0
    at = since
    for page in pages:
        for event in page["events"]:
            count += 1
            at, text = event["timestamp"] / 1_000, event["message"]
            yield read(text, who, at, f"{event.get('logStreamName')} {at} {event.get('eventId') or text}")
    if count >= LINES_MAX:
        yield Line(at, who, f"cut off after {count:,} lines; the log group {group} holds the rest", {}, f"{group} cut")


def read(text: str, who: str, at: float, name: str) -> Line:
    """Read a line as deciders and workers write them; any other text stands for itself. `name` tells lines apart."""
    start = text.find("{")
    try:
        fields: Any = json.loads(text[start:]) if start >= 0 else None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return Line(at, who, text.strip(), {}, name)
    fields.pop(metrics.EMBEDDED, None)  # for CloudWatch; the figures themselves stay
    if who == "worker" and "lease" in fields:
        slot, _, _ = str(fields["lease"]).rpartition("/")
        who = f"worker {slot}"
    return Line(float(fields.get("time", at)), who, str(fields.get("message", "")), fields, name)


def shown(line: Line) -> Text:
    """The line as a person reads it: time, who, what, and what else is told."""
    text = Text(f"{moment(line.at)[11:19]}.{int(line.at % 1 * 1_000):03} ", "dim")
    text.append(f"{line.who:<18} ", "cyan")
    if line.event == CHILD_SAYS and "line" in line.fields:
        return text.append("│ ", "dim").append(str(line.fields["line"]))
    text.append(line.event, "bold")
    for name, value in line.fields.items():
        if name not in _NOISE and not (name == "lease" and line.who.startswith("worker ")):
            text.append(f"  {name}=", "dim").append(value if isinstance(value, str) else json.dumps(value))
    return text
