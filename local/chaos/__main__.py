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
from fleetcap.decide import arrays
from fleetcap.model import JobStatus
from local.chaos import report
from local.chaos.evidence import gather
from local.chaos.listener import Listener
from local.chaos.plan import LARGE_ARRAY_JOBS, TORN, TORN_ELEMENTS, WHOLE, bursts, strokes
from local.chaos.storm import Storm, Ticker, config
from local.chaos.verdict import DEPENDENCY, HEARTBEAT_LOST, Found, find_trouble, none_after_the_end
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
            client.upload([path for path in (folder / "samples").iterdir() if path.is_file()])
            listener = Listener(client)
        client.record_anew()
        with Ticker(client), report.told(console) as show:
            storm = Storm(client, order.cap, order.seed, 60 * order.minutes, order.jobs, show)
            messages = bursts(order.seed, client.outputs["InputBucketName"], good, bad, storm.long)
            began_at = time.monotonic()
            storm.rage(messages, strokes(order.seed, order.cap, storm.long))
            calm_at = time.monotonic()
            unsettled = storm.settle()
            settled_at = time.monotonic()
        found = gather(cloud, client, storm, listener, order.cap, unsettled, folder / "samples")
        spans = {"storm_s": round(calm_at - began_at, 1), "calm_s": round(settled_at - calm_at, 1)}
        figures = {"seed": order.seed, **_figures(found, storm), **spans, **bill(client.recording())}
        return figures, find_trouble(found)


def _samples(folder: Path) -> tuple[list[str], list[str]]:
    """A handful of small inputs: unsorted and sorted BAM, SAM; and what can only fail, the last one not even there.

    Beside them lie the sources of arrays, one for each element.
    """
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
    for index in range(LARGE_ARRAY_JOBS):
        for name, torn in ((WHOLE, False), (TORN, index in TORN_ELEMENTS)):
            shutil.copy(truncated if torn else good[0], folder / name.replace(arrays.INDEX, str(index)))
    return [path.name for path in (*good, sorted_bam, sam)], [truncated.name, nonsense.name, "missing.bam"]


def _figures(found: Found, storm: Storm) -> dict[str, Any]:
    failed = found.with_status(JobStatus.FAILED)
    completed = found.with_status(JobStatus.COMPLETED)
    tenants = sorted({order.tenant for order in found.sent.values()})
    return {
        "jobs": len(found.jobs),
        "messages": storm.ledger.messages,
        "completed": len(completed),
        "failed": len(failed),
        "given_up": sum(job.error.startswith(HEARTBEAT_LOST) for job in failed),
        "dependents": sum(bool(order.after) for order in found.sent.values()),
        "failed_for_a_parent": sum(job.error.startswith(DEPENDENCY) for job in failed),
        "arrays": sum(bool(order.array) for order in found.sent.values()),
        "elements": sum(order.array for order in found.sent.values()),
        "completed_by_tenant": {tenant: sum(job.tenant == tenant for job in completed) for tenant in tenants},
        "events": len(found.events),
        "rejected": len(found.rejected),
        "attempts": sum(job.attempt for job in found.jobs),
        "interruptions": sum(job.interruptions for job in found.jobs),
        "cap": found.cap,
        "caps": [cap.cap for cap in found.caps],
        "highest_cap": found.highest_cap,
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
