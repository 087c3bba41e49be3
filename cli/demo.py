"""The demo: a burst of real files through the real template, the real deciders and real workers, watched and verified.

Told in order: prepare (files, template, cloud) → deploy → upload → burst → watch → fetch and verify → report.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from cli import view
from cli.burst import Onlooker, Snapshot
from fleetcap import catalog
from fleetcap.model import Job, JobStatus, Pool
from local.client import Client
from local.cloud import ROOT, Cloud, CloudError
from local.deploy import Synth, deploy
from local.proxy.bill import bill
from local.results import Verified, verify

LOOK_EVERY_S = 0.75
PLAIN_EVERY_S = 5.0


@dataclass(frozen=True)
class Plan:
    """What to run: `files` where they are given, else `jobs` made ones of `reads` reads each."""

    jobs: int
    cap: int
    cold_start_s: float
    reads: int
    files: Sequence[Path]
    state: Path
    results: Path
    timeout_s: float
    picture: Path | None = None


def run(plan: Plan, console: Console) -> int:
    """Run the demo; the exit code. Whatever was started is stopped, however this ends."""
    maker = _Maker(plan)
    in_use = "Another demo of this folder is running"
    with Cloud(plan.state / "cloud", plan.cold_start_s, in_use) as cloud, ExitStack() as started:
        for folder in (plan.state / "samples", plan.results):  # only now is it certain that nobody else works here
            shutil.rmtree(folder, ignore_errors=True)
        started.callback(maker.cancel)
        maker.start(cloud.environment())
        synth = Synth(config(plan.cap), cloud.environment())
        started.callback(synth.cancel)
        summary, trouble, busiest = _story(plan, cloud, synth, maker, console)
    (plan.state.parent / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(view.closing(summary, trouble))
    if plan.picture:
        view.save_picture(plan.picture, busiest, summary, trouble)
    return 1 if trouble else 0


def config(cap: int) -> dict[str, object]:
    """The stacks' knobs for the demo: a message for each decider, so that many of them decide at once."""
    return {"pools": [{"name": "default", "cap": cap}], "intake_batch_size": 1}


def _story(
    plan: Plan, cloud: Cloud, synth: Synth, maker: _Maker, console: Console
) -> tuple[dict[str, object], list[str], Snapshot]:
    """Deploy, burst, verify: the figures, everything that must not be, and the busiest moment."""
    endpoints = cloud.start()
    with _step(console, "template synthesized from the CDK app"):
        assembly = synth.assembly()
    with _step(console, "deployed, unmodified, into the embedded cloud"):
        client = Client(endpoints, deploy(assembly, endpoints))
    with _step(console, f"{len(maker.names)} input files ready"):
        files = maker.files()
    with _step(console, "uploaded to the input bucket"):
        sources = client.upload(files)
    last, busiest = _burst(plan, client, files, sources, console)
    with _step(console, "results fetched and verified"):
        verified = _fetch_and_verify(client, plan, files, last)
    meter = client.meter()
    summary = _summary(plan, last, meter.peak_live_tasks, meter.tasks_launched) | bill(client.recording())
    return summary, find_trouble(summary, last.jobs, verified), busiest


def _key(file: Path) -> str:
    """The workflow key of a file: its name without its ending, in the letters that a key may hold."""
    return "demo/" + (re.sub(r"[^A-Za-z0-9._=@+-]", "-", file.stem).strip("._=@+-")[:120] or "file")


@contextmanager
def _step(console: Console, words: str) -> Iterator[None]:
    """Say how long a step takes, while it does and after."""
    began = time.monotonic()
    with console.status(words):
        yield
    console.print(f"[green]✔[/] {words} [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)


class _Maker:
    """The input files: the user's own, or samples made in a process beside everything else."""

    def __init__(self, plan: Plan) -> None:
        self._given = list(plan.files)
        self._folder = plan.state / "samples"
        # The demo verifies every result against its input, and knows how for alignments only.
        taken = tuple(suffix for p in catalog.BUILT_IN if "sorted.bam" in p.kinds for suffix in p.suffixes)
        for file in self._given:
            if not file.name.lower().endswith(taken) or not file.is_file():
                raise CloudError(
                    f"{file} cannot be a job: it must be an existing file that ends in {', '.join(taken)}."
                )
            if {plan.results.resolve(), plan.state.resolve()} & set(file.resolve().parents):
                raise CloudError(f"{file} lies where the demo writes and would be deleted; move it elsewhere first.")
        self.names = [file.name for file in self._given] or [f"sample-{n:02d}.bam" for n in range(plan.jobs)]
        if len({_key(Path(name)) for name in self.names}) < len(self.names):
            raise CloudError(
                "Two of the files have the same name but for its ending; results are kept by it: rename one."
            )
        self._arguments = [str(self._folder), str(plan.jobs), str(plan.reads)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Begin to make samples, unless files were given."""
        if not self._given:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local.samples", *self._arguments],
                cwd=ROOT,
                env=environment,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )

    def files(self) -> list[Path]:
        """Wait for the files."""
        if self._process is None:
            return self._given
        _, said = self._process.communicate()
        if self._process.returncode:
            raise CloudError(f"The sample files could not be made: {said.decode().strip().splitlines()[-1:]}")
        return sorted(self._folder.iterdir())

    def cancel(self) -> None:
        """End the process, and its pool, if it still runs."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


def _burst(
    plan: Plan, client: Client, files: Sequence[Path], sources: Sequence[str], console: Console
) -> tuple[Snapshot, Snapshot]:
    """Send every message at once and watch until all have ended; the last look, and the busiest."""
    keys = [_key(file) for file in files]
    began = time.time()
    client.send([{"source": s, "workflow_key": key} for s, key in zip(sources, keys, strict=True)])
    onlooker = Onlooker(client, Pool("default", plan.cap), keys, began)
    seen = busiest = onlooker.look()
    with Live(view.progress(seen), console=console, auto_refresh=False) as live:
        said_at = 0.0
        while seen.ended < seen.total:
            if time.time() - began > plan.timeout_s:
                raise CloudError(f"The burst did not end within {plan.timeout_s:.0f} s; the logs are in {plan.state}.")
            if rejected := client.rejected():
                raise CloudError(f"A message of the burst was rejected: {rejected[0]['reason']}.")
            time.sleep(LOOK_EVERY_S)
            seen = onlooker.look()
            busiest = max(busiest, seen, key=view.liveliness)
            if console.is_terminal:
                live.update(view.progress(seen), refresh=True)
            elif seen.now - said_at >= PLAIN_EVERY_S:
                said_at = seen.now
                console.print(view.plain(seen))
        live.update(view.progress(seen), refresh=True)
    if not console.is_terminal:
        console.print()  # rich ends the last frame without a line's end there
    return seen, busiest


def _fetch_and_verify(client: Client, plan: Plan, files: Sequence[Path], last: Snapshot) -> list[Verified]:
    inputs = {_key(file): file for file in files}
    pairs: list[tuple[str, Path, Path]] = []
    for job in last.with_status(JobStatus.COMPLETED):
        for artifact in job.artifacts:
            name = f"{inputs[job.key].stem}.{artifact.rpartition('/')[2]}"
            client.download(artifact, plan.results / name)
        pairs.append((job.key, inputs[job.key], plan.results / f"{inputs[job.key].stem}.sorted.bam"))
    with ProcessPoolExecutor(2) as processes:
        return list(processes.map(verify, *zip(*pairs, strict=True))) if pairs else []


def _summary(plan: Plan, last: Snapshot, peak: int, launched: int) -> dict[str, object]:
    ends = [job.ended_at - last.sent_at for job in last.with_status(JobStatus.COMPLETED)]
    return {
        "jobs": last.total,
        "completed": len(ends),
        "failed": len(last.with_status(JobStatus.FAILED, JobStatus.CANCELLED)),
        "cap": plan.cap,
        "peak_live_tasks": peak,
        "tasks_launched": launched,
        "overshoot": max(0, peak - plan.cap),
        "wall_s": round(max(ends, default=0.0), 2),
        "first_result_s": round(min(ends, default=0.0), 2),
    }


def find_trouble(summary: Mapping[str, object], jobs: Sequence[Job], verified: Sequence[Verified]) -> list[str]:
    """Everything that must not be, one sentence each."""
    trouble = [f"{job.key}: {_fate(job)}" for job in jobs if job.status is not JobStatus.COMPLETED]
    trouble += [result.trouble for result in verified if result.trouble]
    if len(verified) != summary["completed"]:
        trouble.append(f"{len(verified)} of {summary['completed']} results were verified")
    if summary["overshoot"]:
        trouble.append(f"the cap of {summary['cap']} was exceeded: {summary['peak_live_tasks']} tasks lived at once")
    if summary["completed"] and not summary["peak_live_tasks"]:
        trouble.append("jobs completed, but the Fargate's meter saw no task: its figures cannot be trusted")
    return trouble


def _fate(job: Job) -> str:
    return f"{job.status.value.lower()}: {job.error}"
