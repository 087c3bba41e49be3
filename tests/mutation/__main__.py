"""`python -m tests.mutation`: remove each guard in turn; the simulator or the contract suite must notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from tests.mutation.guard import Guard
from tests.mutation.guards import GUARDS
from tests.mutation.killers import Broken, Copy, Kill, baseline, hunt

HINTS: Final = Path(__file__).with_name("hints.json")
"""What killed each mutant last time: tried first, believed never."""
BASELINE_HISTORIES: Final = 300
KILLERS: Final = frozenset({"simulator", "contract"})
"""The unit tests are asked too, so that one knows; they are not enough."""

app = typer.Typer(add_completion=False)
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    guard: Guard
    kill: Kill | None
    broken: str
    seconds: float

    @property
    def dead(self) -> bool:
        """Noticed by one of those that have to."""
        return self.kill is not None and self.kill.by in KILLERS

    def __rich__(self) -> Text:
        line = Text(f"{self.guard.name}: ")
        if self.dead and self.kill:
            by = f"seed {self.kill.hint}" if self.kill.by == "simulator" else self.kill.hint
            line.append(f"killed by {self.kill.by}", "green")
            return line.append(f" after {self.seconds:.0f} s, {by}: {self.kill.said}")
        if self.kill is None and self.broken:
            return line.append("NO ANSWER", "bold red").append(f" after {self.seconds:.0f} s: {self.broken}")
        line.append("SURVIVED", "bold red").append(f" after {self.seconds:.0f} s")
        return line.append(f"; only unit tests notice, {self.kill.hint}: {self.kill.said}") if self.kill else line


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help="Guards whose name contains this; may be repeated.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Mutants at a time.")] = os.cpu_count() or 1,
    count: Annotated[int, typer.Option(min=1, help="How many histories a mutant must outlive.")] = 3_000,
    fresh: Annotated[bool, typer.Option(help="Leave aside what killed them last time.")] = False,
    remember: Annotated[bool, typer.Option(help="Note what kills them now, to be tried first next time.")] = False,
) -> None:
    """Ends with 1 if a guard may be missing without the simulator or the contract suite noticing."""
    chosen = [guard for guard in GUARDS if not only or any(text in guard.name for text in only)]
    hints: dict[str, str] = json.loads(HINTS.read_text())
    began = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):  # either way nothing may be left behind, nor go on
        signal.signal(number, signal.default_int_handler)
    verdicts: list[Verdict] = []
    try:
        with tempfile.TemporaryDirectory(prefix="fleetcap-mutation-") as folder:
            for verdict in _judge_all(Path(folder), chosen, {} if fresh else hints, count, jobs):
                verdicts.append(verdict)
                if remember and verdict.dead and verdict.kill:
                    hints[verdict.guard.name] = verdict.kill.hint
                    _note(hints)
    finally:
        Copy.end_all()
    dead = sum(verdict.dead for verdict in verdicts)
    by = Counter(verdict.kill.by for verdict in verdicts if verdict.kill and verdict.dead)
    told = ", ".join(f"{number} by {name}" for name, number in sorted(by.items()))
    console.print(f"{told or 'none'}; {time.monotonic() - began:.0f} s")
    console.print(f"{dead} of {len(verdicts)} guards killed")
    raise typer.Exit(dead < len(verdicts))


def _note(hints: dict[str, str]) -> None:
    known = {guard.name for guard in GUARDS}
    kept = {name: hint for name, hint in sorted(hints.items()) if name in known}
    HINTS.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def _judge_all(
    folder: Path, chosen: Sequence[Guard], hints: Mapping[str, str], count: int, jobs: int
) -> Iterator[Verdict]:
    whole = Copy.of_the_sources(folder / "whole")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar, ThreadPoolExecutor(jobs) as pool:
        task = bar.add_task("with every guard", total=len(chosen))
        try:
            wrong = baseline(whole, BASELINE_HISTORIES, jobs)
        except Broken as error:
            wrong = str(error)
        if wrong:
            console.print(wrong, style="bold red")
            raise typer.Exit(1)
        bar.update(task, description="guards removed")
        try:
            asked = [
                pool.submit(_judge, whole, folder / f"mutant-{number}", guard, count, hints.get(guard.name, ""))
                for number, guard in enumerate(chosen)
            ]
            for future in as_completed(asked):
                verdict = future.result()
                bar.console.print(verdict)
                bar.advance(task)
                yield verdict
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            Copy.end_all()
            raise


def _judge(whole: Copy, tree: Path, guard: Guard, count: int, hint: str) -> Verdict:
    began = time.monotonic()
    kill, broken = None, ""
    try:
        kill = hunt(whole, whole.without(guard, tree), count, hint)
    except (Broken, ValueError) as error:
        broken = str(error)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return Verdict(guard, kill, broken, time.monotonic() - began)


if __name__ == "__main__":
    app()
