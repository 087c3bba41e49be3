"""How good the policy is, in the simulator's virtual time: Fleetcap, a task per job, and counting ListTasks.

`python -m bench.policy` takes minutes and a GB of memory, nearly all for the day; `--day-jobs 5000` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fleetcap import limits
from local.simulator import policy
from local.simulator.policy import POLICIES, Figures
from local.simulator.workloads import DAY_JOBS, WORKLOADS, Workload, lower_bound_s, unhindered_waits_s
from local.simulator.world import rare_garbage

app = typer.Typer(add_completion=False)


@app.command()
def main(
    seed: Annotated[int, typer.Option(help="What the workloads and every chance are drawn from.")] = 1,
    day_jobs: Annotated[int, typer.Option(min=100, help="Jobs of the day; its cap goes with them.")] = DAY_JOBS,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(WORKLOADS)}; may be given again.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many runs at a time.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there as well.")] = None,
) -> None:
    """Run every policy on every workload, and print what each came to."""
    unknown = set(only or ()) - set(WORKLOADS)
    if unknown:
        raise typer.BadParameter(f"there is no workload {', '.join(sorted(unknown))}", param_hint="--only")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    works = [make(seed, day_jobs) for name, make in WORKLOADS.items() if not only or name in only]
    with ProcessPoolExecutor(processes) as pool, console.status("running …"):
        begun = [[pool.submit(measured, name, work) for name in POLICIES] for work in reversed(works)]
        found = [_all(futures) for futures in reversed(begun)]
    for work, figures in zip(works, found, strict=True):
        console.print(_title(work), style="bold")
        console.print(_table(figures))
        console.print()
    console.print(_legend(seed))
    if json_file:
        json_file.write_text(json.dumps(_document(seed, dict(zip(works, found, strict=True))), indent=2) + "\n")


def measured(name: str, work: Workload) -> Figures:
    """One policy on one workload."""
    with rare_garbage():
        return POLICIES[name](work)


def _all(futures: Sequence[Future[Figures]]) -> list[Figures]:
    return [future.result() for future in futures]


def _title(work: Workload) -> str:
    scaled = f" (scaled down from {DAY_JOBS:,})" if work.scaled else ""
    return (
        f"{work.name}{scaled}, cap {work.cap}, cold start {work.cold_start_s:.0f} s: "
        f"{work.job_seconds:,.0f} job-seconds, bound {lower_bound_s(work, work.cap):,.0f} s, "
        f"unhindered wait {fmean(unhindered_waits_s(work)):,.0f} s"
    )


def _table(found: Sequence[Figures]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("policy", min_width=26)
    for heading in ("makespan, s", "÷ bound", "peak", "tasks", "wait, s", "wait p95, s", "bought"):
        table.add_column(heading, justify="right", min_width=11)
    for each in found:
        over = each.peak > each.cap
        table.add_row(
            each.policy,
            f"{each.makespan_s:,.0f}",
            f"{each.ratio:.3f}",
            f"{'[red]' if over else ''}{each.peak} of {each.cap}{'[/red]' if over else ''}",
            f"{each.tasks:,}",
            f"{each.wait_mean_s:,.1f}",
            f"{each.wait_p95_s:,.1f}",
            f"{each.bought:.2f}",
        )
    return table


def _legend(seed: int) -> str:
    return (
        f"seed {seed}\n"
        "bound: no policy that keeps the cap is faster; who breaks it may be\n"
        "unhindered: the mean wait were all workers there at all times, first come, first served\n"
        "bought: worker-seconds that Fargate bills for each second that a job computes"
    )


def _document(seed: int, found: Mapping[Workload, Sequence[Figures]]) -> dict[str, Any]:
    model = {
        "calls_s": policy.CALL_S,
        "before_pull_s": policy.BEFORE_PULL_S,
        "billed_least_s": policy.BILLED_LEAST_S,
        "deciders": policy.DECIDERS,
        "look_s": limits.LOOK_S,
        "api_processes": policy.API_PROCESSES,
        "list_lags_s": policy.LIST_LAGS_S,
        "own_launches_s": policy.OWN_LAUNCHES_S,
        "retry_s": policy.RETRY_S,
    }
    return {"seed": seed, "model": model, "workloads": [_entry(work, figures) for work, figures in found.items()]}


def _entry(work: Workload, found: Sequence[Figures]) -> dict[str, Any]:
    return {
        "name": work.name,
        "jobs": len(work.jobs),
        "job_seconds": work.job_seconds,
        "cap": work.cap,
        "cold_start_s": work.cold_start_s,
        "lower_bound_s": lower_bound_s(work, work.cap),
        "unhindered_wait_s": fmean(unhindered_waits_s(work)),
        "policies": [asdict(each) | {"ratio": each.ratio, "bought": each.bought} for each in found],
    }


if __name__ == "__main__":
    app()
