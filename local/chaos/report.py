"""What a person sees of a storm: a line while it lasts, and a table at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from local.chaos.storm import Look, Show
from local.proxy.bill import bill_table

PLAIN_EVERY_S: Final = 10.0


@contextmanager
def told(console: Console) -> Iterator[Show]:
    """Tell how things stand: a line that changes on a terminal, a line now and then elsewhere."""
    said_at = 0.0
    with console.status("") as status:

        def show(part: str, look: Look) -> None:
            nonlocal said_at
            status.update(line(part, look))
            if not console.is_terminal and time.monotonic() - said_at >= PLAIN_EVERY_S:
                said_at = time.monotonic()
                console.print(line(part, look), highlight=False, soft_wrap=True)

        yield show


def line(part: str, look: Look) -> str:
    """One moment in one line."""
    waits = f"  not yet: {', '.join(look.unstruck)}" if part == "storm" and look.unstruck else ""
    return (
        f"{part} {look.now:6.1f} s  done {look.ended}/{look.sent}  slots {look.held}/{look.cap}  "
        f"live tasks {look.live} (peak {look.peak})  messages {look.in_flight}  struck {look.struck}{waits}"
    )


def closing(figures: Mapping[str, Any], trouble: Sequence[str]) -> RenderableType:
    """The table at the end."""
    style = "red" if trouble else "green"
    table = Table(box=box.ROUNDED, border_style=style, show_header=False, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(style="bold", justify="right")
    table.add_column(style="dim")
    for name, words in _CLOSING.items():
        table.add_row(name, f"{figures[name]:,}", words)
    verdict = (
        Text(
            "✔ every job ended once, in order, and was told of; every artifact is there once and valid; each cap held; "
            "nothing leaked",
            "bold green",
        )
        if not trouble
        else Text("\n".join(f"✘ {sentence}" for sentence in trouble), "bold red")
    )
    return Group(table, _struck(figures), bill_table(figures), verdict)


def _struck(figures: Mapping[str, Any]) -> RenderableType:
    table = Table(box=box.ROUNDED, border_style="dim", padding=(0, 2), header_style="dim")
    table.add_column("what struck")
    table.add_column("times", justify="right")
    table.add_column("where", style="dim")
    for kind, places in figures["struck"].items():
        where = ", ".join(f"{place} {times}" for place, times in places.items() if place)
        table.add_row(kind, f"{sum(places.values()):,}", where)
    return table


def struck_where(acts: Mapping[str, int], faults: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How often each kind struck, by the actor and operation that it was meant for (empty: any)."""
    found: dict[str, Counter[str]] = {}
    for fault in faults:
        place = " ".join(filter(None, (fault.get("actor"), fault.get("operation"))))
        found.setdefault(fault["kind"], Counter())[place] += fault["struck"]
    for act, times in acts.items():
        found.setdefault(act, Counter())[""] += times
    return {kind: dict(sorted((+found[kind]).items())) for kind in sorted(found)}


_CLOSING: Final = {
    "seed": "the same again, in the order of its faults: SEED=",
    "jobs": "workflow keys",
    "messages": "some of them twice, some again later, some that nobody can read",
    "completed": "sorted BAM and index in the cache, each distinct result verified",
    "failed": "all others: their sources are bad, or a parent's or element's, or they were given up",
    "given_up": "good jobs among them, after more deaths of their workers than are allowed",
    "dependents": "jobs that wait for others, in chains, diamonds, or for a whole array",
    "failed_for_a_parent": "those of them whose parent failed, and that were to fail with it",
    "arrays": "that end when all their elements have, and count them",
    "elements": "jobs of these arrays",
    "events": "of jobs' ends, at least one each, heard by a rule on the deployment's bus",
    "rejected": "messages that can never run, with their reasons",
    "attempts": "claims of jobs by workers",
    "interruptions": "attempts that ended with their worker",
    "cap": "workers at most, as it is configured",
    "highest_cap": "the same, as it was set meanwhile: down and up again in each minute",
    "peak_live_tasks": "as the Fargate itself counted them",
    "tasks_launched": "by the same count",
    "messages_in_flight": "taken by a decider that died; they come again and find their jobs done",
    "storm_s": "seconds of storm",
    "calm_s": "seconds from then on until all had settled",
}
