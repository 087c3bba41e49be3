"""`python -m local.chaos`: a cloud of its own, a storm, the verdict."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import pysam
import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from fleetcap import limits
from fleetcap.model import JobStatus
from local.chaos import report
from local.chaos.evidence import gather
from local.chaos.plan import bursts, strokes
from local.chaos.storm import Storm, Ticker, config
from local.chaos.verdict import Found, find_trouble, none_after_the_end
from local.client import Client
from local.cloud import Cloud, CloudError, unwind_on_signals
from local.deploy import Synth, deploy
from local.proxy.bill import bill
from local.samples import make_bam

READS: Final = (200, 400, 700)
COLD_START_S: Final = 0.5
SEEDS: Final = 1 << 32

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Order:
    """One storm to have. `state` is the folder of everything that it leaves: the cloud's, the samples, the figures."""

    minutes: float
    jobs: int
    cap: int
    seed: int
    state: Path


@app.command()
def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long the storm lasts at least.")] = 10.0,
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs are sent at least.")] = 1000,
    cap: Annotated[int, typer.Option(min=1, max=limits.BANK_SLOTS, help="How many workers may live at once.")] = 8,
    seed: Annotated[int | None, typer.Option(help="The order of messages and faults; drawn if not given.")] = None,
    state: Annotated[Path, typer.Option(help="Where the cloud and the figures are kept.")] = Path(".fleetcap"),
) -> None:
    """Many small jobs while everything goes wrong; ends with 1 if anything is not as it must be."""
    console = Console()
    drawn = random.randrange(SEEDS) if seed is None else seed
    _, trouble = run(Order(minutes, jobs, cap, drawn, state.resolve()), console)
    raise typer.Exit(bool(trouble))


def run(order: Order, console: Console) -> tuple[dict[str, Any], list[str]]:
    """One storm from the cloud's start to its end; the figures, and everything that must not be."""
    console.print(f"seed {order.seed}", highlight=False)
    folder = order.state / "chaos"
    with Cloud(folder / "cloud", COLD_START_S, "Another chaos of this folder is running") as cloud:
        figures, trouble = _story(order, cloud, folder, console)
    trouble += none_after_the_end(cloud.marked())
    order.state.joinpath("chaos.json").write_text(json.dumps(figures | {"trouble": trouble}, indent=2) + "\n")
    console.print(report.closing(figures, trouble))
    if trouble:
        console.print(f"The logs are in {folder / 'cloud'}.", highlight=False, soft_wrap=True)
    return figures, trouble


def _story(order: Order, cloud: Cloud, folder: Path, console: Console) -> tuple[dict[str, Any], list[str]]:
    with ExitStack() as started:
        synth = Synth(config(order.cap), cloud.environment())
        started.callback(synth.cancel)
        with console.status("deploying"):
            endpoints = cloud.start()
            client = Client(endpoints, deploy(synth.assembly(), endpoints))
            good, bad = _samples(folder / "samples")
            client.upload([path for path in (*good, *bad) if path.exists()])
        client.record_anew()
        names = [[path.name for path in paths] for paths in (good, bad)]
        messages = bursts(order.seed, client.outputs["InputBucketName"], *names)
        with Ticker(client), report.told(console) as show:
            storm = Storm(client, order.cap, order.seed, 60 * order.minutes, order.jobs, show)
            began_at = time.monotonic()
            storm.rage(messages, strokes(order.seed, order.cap, storm.long))
            calm_at = time.monotonic()
            unsettled = storm.settle()
            settled_at = time.monotonic()
        found = gather(cloud, client, storm, order.cap, unsettled, folder / "samples")
        spans = {"storm_s": round(calm_at - began_at, 1), "calm_s": round(settled_at - calm_at, 1)}
        figures = {"seed": order.seed, **_figures(found, storm), **spans, **bill(client.recording())}
        return figures, find_trouble(found)


def _samples(folder: Path) -> tuple[list[Path], list[Path]]:
    """A handful of small inputs: unsorted and sorted BAM, SAM; and what can only fail, the last one not even there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    good = [folder / f"{name}.bam" for name in "abc"]
    for number, (path, reads) in enumerate(zip(good, READS, strict=True)):
        make_bam(path, reads=reads, seed=number)
    sorted_bam, sam = folder / "sorted.bam", folder / "text.sam"
    pysam.sort("-o", str(sorted_bam), str(good[0]))
    pysam.view("-h", "-o", str(sam), str(good[1]), catch_stdout=False)
    truncated, nonsense = folder / "truncated.bam", folder / "nonsense.sam"
    truncated.write_bytes(good[2].read_bytes()[:-100])
    nonsense.write_text("these are no alignments\n")
    return [*good, sorted_bam, sam], [truncated, nonsense, folder / "missing.bam"]


def _figures(found: Found, storm: Storm) -> dict[str, Any]:
    failed = found.with_status(JobStatus.FAILED)
    return {
        "jobs": len(found.jobs),
        "messages": storm.ledger.messages,
        "completed": len(found.with_status(JobStatus.COMPLETED)),
        "failed": len(failed),
        "given_up": sum(not found.sent[job.key].bad for job in failed if job.key in found.sent),
        "rejected": len(found.rejected),
        "attempts": sum(job.attempt for job in found.jobs),
        "interruptions": sum(job.interruptions for job in found.jobs),
        "cap": found.cap,
        "peak_live_tasks": found.meter.peak_live_tasks,
        "tasks_launched": found.meter.tasks_launched,
        "messages_in_flight": sum(taken for _, taken in found.depths.values()),
        "struck": report.struck_where(storm.ledger.acts, storm.ledger.faults),
    }


if __name__ == "__main__":
    unwind_on_signals()
    try:
        app()
    except (CloudError, ClientError, BotoCoreError) as error:
        typer.echo(f"chaos: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
