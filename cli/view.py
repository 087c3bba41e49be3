"""What a person sees while a burst runs, and the table at its end. Rendering only: a snapshot in, rich text out."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.burst import Snapshot
from fleetcap.model import Job, JobStatus, SlotState
from local.proxy.bill import bill_table

_STAGES: Final = {"start": "white", "download": "blue", "sort": "magenta", "index": "cyan", "verify": "yellow"}
_BAR: Final = 34
_ROWS: Final = 16
_PICTURE_CHARS: Final = 100


def progress(seen: Snapshot) -> RenderableType:
    """The live view: the fleet against its cap, the queue, and every running job."""
    elapsed = Text(f"{seen.now - seen.sent_at:5.1f} s", style="bold")
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    head.add_row(_fleet(seen), elapsed)
    body = Group(head, Text(), _counts(seen), Text(), _running(seen))
    return Panel(body, title="[bold]fleetcap[/] · a burst under an exact cap", border_style="cyan", padding=(1, 2))


def _fleet(seen: Snapshot) -> Text:
    """One mark a slot, then the count against the cap."""
    text = Text("slots  ", style="bold")
    marks = seen.slot_marks() or [(SlotState.EMPTY, False)] * seen.pool.cap
    for state, busy in marks:
        if busy:
            text.append("■ ", "bold green")
        elif state is SlotState.READY:
            text.append("□ ", "green")
        elif state is SlotState.LAUNCHING:
            text.append("◌ ", "yellow")
        else:
            text.append("· ", "dim")
    held = sum(state is not SlotState.EMPTY for state, _ in marks)
    text.append(f" {held} of {seen.pool.cap}", "bold")
    text.append("\n       ")
    for mark, words, style in (("■", "working", "bold green"), ("□", "idle", "green"), ("◌", "starting", "yellow")):
        text.append(f"{mark} ", style)
        text.append(f"{words}   ", "dim")
    return text


def _counts(seen: Snapshot) -> Table:
    """Bars for what waits, runs, and is done."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bold", width=6)
    table.add_column(width=_BAR)
    table.add_column()
    running = len(seen.with_status(JobStatus.RUNNING))
    failed = len(seen.with_status(JobStatus.FAILED, JobStatus.CANCELLED))
    note = f" ({failed} failed)" if failed else ""
    live, peak, cap = seen.meter.live_tasks, seen.meter.peak_live_tasks, seen.pool.cap
    style = "bold red" if peak > cap else "cyan"
    bar = ProgressBar(max(cap, peak, 1), live, _BAR, complete_style=style, finished_style=style)
    table.add_row("live", bar, Text(f"{live} tasks, peak {peak}, as Fargate counts them", style))
    for name, count, style in (("queue", seen.waiting, "yellow"), ("run", running, "magenta")):
        table.add_row(
            name, ProgressBar(seen.total, count, _BAR, complete_style=style, finished_style=style), str(count)
        )
    done = ProgressBar(seen.total, seen.ended, _BAR, complete_style="green", finished_style="bold green")
    table.add_row("done", done, Text(f"{seen.ended} of {seen.total}{note}", "bold red" if failed else "bold"))
    return table


def _running(seen: Snapshot) -> Table:
    """Every running job with its stage."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), header_style="dim")
    table.add_column("job", ratio=3, no_wrap=True)
    table.add_column("slot", justify="right")
    table.add_column("stage", width=10)
    table.add_column("", width=16)
    table.add_column("for", justify="right", width=7)
    running = seen.with_status(JobStatus.RUNNING)
    for job in running[:_ROWS]:
        table.add_row(*_row(job, seen.now))
    for _ in range(min(_ROWS, seen.pool.cap) - len(running)):
        table.add_row("", "", "", "", "")
    if len(running) > _ROWS:
        table.add_row(f"… and {len(running) - _ROWS} more", "", "", "", "")
    return table


def _row(job: Job, now: float) -> tuple[RenderableType, ...]:
    stage = job.stage or "start"
    bar = ProgressBar(1.0, job.fraction, 16, complete_style=_STAGES.get(stage, "green"))
    slot = str(job.holder.lease.slot.number) if job.holder else ""
    again = f" (attempt {job.attempt})" if job.attempt > 1 else ""
    return f"{job.key}{again}", slot, Text(stage, _STAGES.get(stage, "green")), bar, f"{now - job.claimed_at:.1f} s"


def plain(seen: Snapshot) -> str:
    """The same in one line, for a log or a pipe."""
    held = sum(state is not SlotState.EMPTY for state, _ in seen.slot_marks())
    running = len(seen.with_status(JobStatus.RUNNING))
    return (
        f"{seen.now - seen.sent_at:6.1f} s  slots {held}/{seen.pool.cap}  live tasks {seen.meter.live_tasks} "
        f"(peak {seen.meter.peak_live_tasks})  queue {seen.waiting}  running {running}  done {seen.ended}/{seen.total}"
    )


def liveliness(seen: Snapshot) -> tuple[int, int]:
    """How much there is to see: running jobs first, then the stages that they differ in."""
    running = seen.with_status(JobStatus.RUNNING)
    return len(running), len({job.stage for job in running})


def save_picture(path: Path, seen: Snapshot, summary: dict[str, object], trouble: list[str]) -> None:
    """The view and the closing table as an SVG."""
    console = Console(record=True, width=_PICTURE_CHARS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ make demo", style="bold"))
    console.print(progress(seen))
    console.print(closing(summary, trouble))
    svg = console.export_svg(title="fleetcap")
    path.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))  # a picture fetches nothing


def closing(summary: dict[str, object], trouble: list[str]) -> RenderableType:
    """The table at the end, for people."""
    table = Table(box=box.ROUNDED, border_style="green" if not trouble else "red", show_header=False, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(style="bold", justify="right")
    table.add_column(style="dim")
    for name, words in _CLOSING.items():
        table.add_row(name, str(summary[name]), words)
    verdict = (
        Text("✔ every job completed, every result verified, the cap was never exceeded", "bold green")
        if not trouble
        else Text("\n".join(f"✘ {line}" for line in trouble), "bold red")
    )
    return Group(table, bill_table(summary), verdict)


_CLOSING: Final = {
    "jobs": "distinct files, sent as one burst",
    "completed": "sorted BAM and index in the cache, fetched and verified",
    "failed": "",
    "cap": "workers at most",
    "peak_live_tasks": "as the Fargate itself counted them",
    "tasks_launched": "each ran one job after another",
    "overshoot": "peak above the cap",
    "first_result_s": "seconds from the burst to the first result",
    "wall_s": "seconds from the burst to the last result",
}
