"""Jobs as people and scripts see them. Rendering only: values in, rich renderables or JSON documents out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetcap.model import Job, JobStatus

STYLES: Final = {
    JobStatus.WAITING: "blue",
    JobStatus.QUEUED: "yellow",
    JobStatus.RUNNING: "cyan",
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "magenta",
}
_PIPE_CHARS: Final = 4_000
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


def console() -> Console:
    """Standard output: a person's terminal as wide as it is; a pipe or file so wide that no line is broken."""
    found = Console()
    return found if found.is_terminal else Console(width=_PIPE_CHARS)


def span(seconds: float) -> str:
    """A length of time in at most seven characters: 4.2 s, 3m 05s, 2h 10m, 4d 02h."""
    seconds = max(0.0, seconds)
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{int(seconds // 60)}m {int(seconds % 60):02}s"
    if seconds < _DAY_S:
        return f"{int(seconds // _HOUR_S)}h {int(seconds % _HOUR_S // 60):02}m"
    return f"{int(seconds // _DAY_S)}d {int(seconds % _DAY_S // _HOUR_S):02}h"


def moment(at: float) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(count: int) -> str:
    """A number of bytes as people read it."""
    value, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1_000 or unit == "TB":  # noqa: PLR2004
            break
        value /= 1_000
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def record(job: Job) -> dict[str, Any]:
    """A job as a JSON document. Times are unix seconds, null where the moment has not come."""
    request = asdict(job.request)
    return {
        "workflow_key": job.key,
        "id": job.id,
        "run": job.run,
        "supersedes": job.supersedes,
        "status": job.status.value,
        "pool": job.pool,
        "priority": job.priority,
        "attempt": job.attempt,
        "stage": job.stage,
        "fraction": job.fraction,
        "message": job.message,
        "error": job.error,
        "cancel": job.cancel,
        **{f"{name}_at": getattr(job, f"{name}_at") or None for name in _TIMES},
        "task": job.task,
        "holder": str(job.holder or ""),
        "correlation_id": job.correlation_id,
        "tenant": job.tenant,
        **{name: request[name] for name in ("source", "processor", "md5", "params", "max_attempts", "timeout_s")},
        **{name: request[name] for name in ("depends_on", "on_parent_failure", "array", "part_of")},
        "counts": dict(zip(("completed", "failed", "cancelled"), job.counts, strict=True)) if job.counts else None,
        "artifacts": list(job.artifacts),
        "history": [
            {
                "attempt": each.number,
                "class": each.failure.value,
                "reason": each.reason,
                "task": each.task,
                "began_at": each.began_at or None,
                "ended_at": each.ended_at,
            }
            for each in job.history
        ],
    }


_TIMES: Final = ("queued", "due", "claimed", "heartbeat", "ended")


def age(job: Job, now: float) -> str:
    """How long it has been in the state that it is in."""
    since = job.ended_at if job.ended else job.claimed_at if job.status is JobStatus.RUNNING else job.queued_at
    return span(now - since)


def progress(job: Job, now: float) -> str:
    """How far it is, in a few words."""
    if job.status is JobStatus.RUNNING:
        doing = f"{job.stage or 'start'} {job.fraction:.0%}"
        return f"{doing}, to be cancelled" if job.cancel else doing
    if job.request.array:
        return _of_array(job)
    if job.status is JobStatus.WAITING:
        return f"for {len(job.request.depends_on)} job{'s' * (len(job.request.depends_on) != 1)}"
    if job.status is JobStatus.QUEUED and job.due_at > now:
        return f"due in {span(job.due_at - now)}"
    return ""


def _of_array(array: Job) -> str:
    if array.counts is None:
        return f"for {array.request.array} elements"
    completed, failed, cancelled = array.counts
    return f"{completed} completed, {failed} failed, {cancelled} cancelled"


def listing(jobs: Sequence[Job], now: float) -> Table:
    """A row a job."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("key", overflow="fold", min_width=12)
    table.add_column("status", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    table.add_column("attempt", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("error", overflow="fold", max_width=60)
    for job in jobs:
        status = Text(job.status.value, STYLES[job.status])
        error = "" if job.status is JobStatus.COMPLETED else job.error
        cells = (Text(job.key), status, progress(job, now), str(job.attempt or ""), age(job, now), Text(error))
        table.add_row(*cells)
    return table


def sheet(
    job: Job, sizes: Mapping[str, int | None], parents: Mapping[str, Job], now: float, waits_for: str = ""
) -> RenderableType:
    """Everything about one job on one screen.

    `sizes`: bytes by artifact key, None for one that is gone. `parents`: the jobs that it depends on, where there are.
    """
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(job, now, waits_for):
        facts.add_row(name, value if isinstance(value, Text) else Text(value))
    parts: list[RenderableType] = [facts]
    if job.request.depends_on:
        parts += [Text(), _parents(job, parents)]
    if job.history:
        parts += [Text(), _history(job)]
    if sizes:
        parts += [Text(), _artifacts(job.key, sizes)]
    return Group(*parts)


def _facts(job: Job, now: float, waits_for: str) -> list[tuple[str, str | Text]]:
    request = job.request
    params = " ".join(f"{name}={value}" for name, value in request.params.items())
    doing = progress(job, now)
    status = Text(job.status.value, f"bold {STYLES[job.status]}").append(f"  {doing}" if doing else "", "default")
    rows: list[tuple[str, str | Text]] = [
        ("key", Text(job.key, "bold")),
        ("status", status),
        ("waits for", Text(waits_for)),
        ("error", Text(job.error, "red" if job.status is JobStatus.FAILED else "")),
        ("progress", job.message),
        ("run", f"{job.run}, id {job.id}" + (f", in place of {job.supersedes}" if job.supersedes else "")),
        ("attempt", f"{job.attempt}" if job.attempt else "none yet"),
        ("source", request.source),
        ("processor", f"{request.processor} {params}".strip()),
        ("pool", f"{job.pool}, priority {job.priority}"),
        ("part of", request.part_of),
        ("queued", f"{moment(job.queued_at)}, {span(now - job.queued_at)} ago"),
        (
            "claimed",
            f"{moment(job.claimed_at)}, after {span(job.claimed_at - job.queued_at)}" if job.claimed_at else "",
        ),
        ("ended", _ended(job)),
        ("heartbeat", f"{span(now - job.heartbeat_at)} ago" if job.status is JobStatus.RUNNING else ""),
        ("cancel", "" if job.ended else job.cancel),
        ("task", job.task),
        ("correlation", job.correlation_id),
        ("tenant", job.tenant),
    ]
    return [(name, value) for name, value in rows if str(value)]


def _ended(job: Job) -> str:
    if not job.ended:
        return ""
    took = f", after {span(job.ended_at - job.claimed_at)} of work" if job.ended_at > job.claimed_at > 0 else ""
    return f"{moment(job.ended_at)}{took}"


def states(job: Job, parents: Mapping[str, Job]) -> list[tuple[str, JobStatus | None]]:
    """Each job that this one depends on, with its state; None for one that is not known."""
    return [(key, parents[key].status if key in parents else None) for key in job.request.depends_on]


def _parents(job: Job, parents: Mapping[str, Job]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("depends on", overflow="fold")
    table.add_column("status", no_wrap=True)
    for key, status in states(job, parents):
        table.add_row(Text(key), Text(status.value, STYLES[status]) if status else Text("not known", "dim"))
    return table


def _history(job: Job) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for name in ("attempt", "ended as", "took", "task"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow="fold")
    for each in job.history:
        took = span(each.ended_at - each.began_at) if each.began_at else ""
        table.add_row(str(each.number), each.failure.value, took, each.task[:8], Text(each.reason))
    return table


def _artifacts(job_key: str, sizes: Mapping[str, int | None]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("artifact", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    for key, found in sizes.items():
        table.add_row(Text(key.removeprefix(f"{job_key}/")), "gone" if found is None else size(found))
    return table
