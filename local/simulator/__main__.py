"""`python -m local.simulator`: many histories under seeds, or one seed's history told in full."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from local.simulator.coverage import expected, never_taken
from local.simulator.exhaust import Found, explore
from local.simulator.history import Result, run
from local.simulator.plan import Plan, large, plan
from local.simulator.scopes import SCOPES
from local.simulator.shrink import shrink
from local.simulator.world import Line, rare_garbage

CHUNK: Final = 100
LARGE_FROM: Final = 1 << 40
"""Seeds from here on stand for large histories."""
VIOLATIONS_MAX: Final = 20
"""After this many the search ends: they will have one cause or two."""
GARBAGE_EVERY: Final = 500

app = typer.Typer(add_completion=False)
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 220)


@dataclass
class Tally:
    """What some histories came to. `cpu_s` is what the small ones took of one core."""

    histories: int = 0
    small: int = 0
    violations: list[tuple[int, str]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, other: Tally) -> None:
        """Take in another one."""
        self.histories += other.histories
        self.small += other.small
        self.violations += other.violations
        self.seen.update(other.seen)
        self.calls += other.calls
        self.virtual_s += other.virtual_s
        self.cpu_s += other.cpu_s


def plan_of(seed: int) -> Plan:
    """The plan that a seed stands for."""
    return large(seed) if seed >= LARGE_FROM else plan(seed)


def tally(seeds: list[int]) -> Tally:
    """Run the histories of some seeds."""
    total = Tally()
    began_at = time.process_time()
    with rare_garbage() as collect:
        for number, seed in enumerate(seeds):
            result = run(plan_of(seed))
            violations = [(seed, str(result.violation))] if result.violation else []
            total.add(Tally(1, 0, violations, result.seen, result.calls, result.seconds))
            if number % GARBAGE_EVERY == GARBAGE_EVERY - 1:
                collect()
    if seeds[0] < LARGE_FROM:
        total.small, total.cpu_s = len(seeds), time.process_time() - began_at
    return total


@app.command()
def main(
    seed: Annotated[int | None, typer.Option(help="Tell the history of this seed in full.")] = None,
    count: Annotated[int, typer.Option(min=0, help="How many small histories.")] = 100_000,
    start: Annotated[int | None, typer.Option(help="The first seed; drawn anew each time by default.")] = None,
    larges: Annotated[int, typer.Option("--large", min=0, help="How many large histories (1,000 jobs, cap 50).")] = 4,
    scopes: Annotated[bool, typer.Option(help="Explore the small scopes in full as well.")] = True,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    first: Annotated[bool, typer.Option(help="Histories alone, up to the first violation, and no report.")] = False,
) -> None:
    """Search for a history that breaks an invariant. Ends with 1 if there is one."""
    if seed is not None:
        raise typer.Exit(_tell(run(plan_of(seed), tracing=True)))
    begin = random.randrange(1 << 32) if start is None else start
    total = _search(begin, count, larges, jobs, first)
    if not first:
        _report(total)
    for found, text in total.violations[:VIOLATIONS_MAX]:
        console.print(f"seed {found}: {text}")
    if total.violations and not first:
        _tell(run(plan_of(total.violations[0][0]), tracing=True))
    broken = _explore(jobs) if scopes and not first else []
    violations = len(total.violations) + len(broken)
    console.print(f"seeds {begin} to {begin + count - 1}: {total.histories:,} histories, {violations} violations")
    raise typer.Exit(bool(violations))


def _explore(jobs: int) -> list[Found]:
    """Explore the scopes in full and say how large they are; those with a violation."""
    broken: list[Found] = []
    with console.status("exploring the small scopes …") as status, ProcessPoolExecutor(jobs) as pool:
        under_way = {pool.submit(explore, scope): scope.title for scope in SCOPES}
        for future in as_completed(under_way):
            found = future.result()
            went = str(found.violation) if found.violation else "no violation"
            console.print(f"{found.name}: {found.states:,} states, {found.ends:,} ends explored, {went}")
            if found.violation:
                broken.append(found)
                console.print(_lines(found.lines))
            del under_way[future]
            status.update(f"exploring {'; '.join(under_way.values())} …")
    return broken


def _search(begin: int, count: int, larges: int, jobs: int, first: bool) -> Tally:
    """All cores at work, and a bar that tells how far they are."""
    chunks = _chunks(begin, count, larges)
    total = Tally()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar, ProcessPoolExecutor(jobs) as pool:
        task = bar.add_task("histories", total=count + larges)
        under_way: set[Future[Tally]] = set()
        enough = False
        while True:
            while not enough and len(under_way) < 2 * jobs and (chunk := next(chunks, None)):
                under_way.add(pool.submit(tally, chunk))
            if not under_way:
                return total
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                total.add(future.result())
                bar.update(task, completed=total.histories, description=f"{len(total.violations)} violations")
            enough = len(total.violations) >= (1 if first else VIOLATIONS_MAX)


def _chunks(begin: int, count: int, larges: int) -> Iterator[list[int]]:
    """The large ones first: they take longest."""
    for number in range(larges):
        yield [LARGE_FROM + begin + number]
    for at in range(begin, begin + count, CHUNK):
        yield list(range(at, min(at + CHUNK, begin + count)))


def _report(total: Tally) -> None:
    """How often everything happened, and what never did."""
    table = Table("branch", "taken", box=None, header_style="bold", pad_edge=False)
    table.columns[1].justify = "right"
    for branch in expected():
        table.add_row(branch, f"{total.seen[branch]:,}" if total.seen[branch] else Text("never", style="bold red"))
    console.print(table)
    never = never_taken(total.seen)
    console.print(f"{len(expected()) - len(never)} of {len(expected())} branches taken" + _list("never taken", never))
    rate = total.small / max(total.cpu_s, 0.001)
    console.print(
        f"{total.calls:,} calls of ports, {total.virtual_s / 3600:,.0f} hours of virtual time, "
        f"{rate:,.0f} small histories a second of one core"
    )


def _list(title: str, items: list[str]) -> str:
    return f"; {title}: {', '.join(items)}" if items else ""


def _tell(result: Result) -> int:
    """Tell a history: the whole of a good one, the shrunk form of a bad one."""
    if result.violation:
        with console.status("making it smaller …"):
            result = shrink(result)
    console.print(f"[bold]seed {result.plan.seed}[/bold] {result.plan}", style="dim")
    console.print(_lines(result.lines))
    verdict = str(result.violation) if result.violation else "no violation"
    console.print(f"seed {result.plan.seed}: {verdict}", style="bold red" if result.violation else "bold green")
    return 1 if result.violation else 0


def _lines(lines: list[Line]) -> Table:
    table = Table("s", "who", "what", "outcome", box=None, header_style="bold", pad_edge=False)
    for line in lines:
        table.add_row(Text(f"{line.at:.2f}"), Text(line.who), Text(line.what), Text(line.outcome))
    return table


if __name__ == "__main__":
    app()
