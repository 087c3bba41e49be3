"""An embedded cloud for end-to-end tests: the real template, real deciders, real workers, authorization on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from app import deployment
from fleetcap.model import Job, JobStatus, Slot, SlotState
from local.client import Client
from local.cloud import Cloud
from local.deploy import deploy
from local.samples import make_bam
from stacks.config import CONTEXT_KEY

CAPS = {"default": 16, "one": 1, "two": 2, "five": 5}
READS = 400


@dataclass
class Stage:
    """A deployment, and a supply of small unsorted BAM files in its input bucket."""

    client: Client
    folder: Path
    made: int = 0

    def sources(self, count: int, reads: int = READS) -> list[str]:
        """That many distinct files, uploaded; their addresses."""
        paths = [self.folder / f"{self.made + n}.bam" for n in range(count)]
        for n, path in enumerate(paths):
            make_bam(path, reads=reads, seed=self.made + n)
        self.made += count
        return self.client.upload(paths)

    def send(self, pool: str, *names: str, reads: int = READS) -> list[str]:
        """One job of this pool for each name, each with a file of its own, all at once; their keys."""
        wanted = [f"{pool}/{name}" for name in names]
        sources = self.sources(len(wanted), reads)
        messages = [{"source": s, "workflow_key": key, "pool": pool} for s, key in zip(sources, wanted, strict=True)]
        self.client.send(messages)
        return wanted

    def behind_a_gate(self, pool: str, name: str, count: int) -> tuple[list[str], Path]:
        """That many jobs of the pool that end once a file is there; their keys, and the file."""
        [source] = self.sources(1)
        gate = self.folder / f"{name} is open"
        params = {"program": "sh", "arguments": f"""-c 'until test -e "{gate}"; do sleep 0.2; done' {{source}}"""}
        work = {"source": source, "processor": "command", "params": params, "pool": pool}
        wanted = [f"{pool}/{name}/{number}" for number in range(count)]
        self.client.send([{**work, "workflow_key": key} for key in wanted])
        return wanted, gate

    def running(self, key: str) -> tuple[Job, Slot]:
        """Wait until the job runs; the job, and the slot of its worker."""
        self.until(lambda: (job := self.job(key)) and job.status is JobStatus.RUNNING, f"{key} runs")
        job = self.job(key)
        assert job
        assert job.holder
        slot = self.client.table.slot(job.holder.lease.slot)
        assert slot
        return job, slot

    def job(self, key: str) -> Job | None:
        """The job of a key."""
        return self.client.table.job(key)

    def until(self, holds: Callable[[], object], what: str, within_s: float = 300, every_s: float = 0.25) -> None:
        """Wait until something holds; fail with `what` otherwise."""
        give_up_at = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > give_up_at:
                pytest.fail(f"not within {within_s:.0f} s: {what}")
            time.sleep(every_s)

    def until_ended(self, keys: Sequence[str], within_s: float = 300) -> list[Job]:
        """Wait until every job has ended; the jobs."""
        pending = set(keys)

        def ended() -> bool:
            found = self.client.table.jobs(sorted(pending))
            pending.difference_update(key for key, job in found.items() if job.ended)
            return not pending

        self.until(ended, f"jobs ended: {sorted(pending)[:5]} …", within_s, every_s=0.5)
        found = self.client.table.jobs(sorted(set(keys)))
        return [found[key] for key in keys]

    def drain(self, pool: str) -> None:
        """Stop the pool's workers in order, each once it is ready, and wait until their slots are free.

        A task that is stopped before its first beat is a launch that failed, and the pool would back off.
        """
        ecs, stopped = self.client.cloud.client("ecs"), set()

        def empty() -> bool:
            slots = self.client.table.slots(pool)
            for slot in slots:
                if slot.state is SlotState.READY and slot.arn not in stopped:
                    ecs.stop_task(cluster=self.client.outputs["ClusterArn"], task=slot.arn, reason="end of a test")
                    stopped.add(slot.arn)
            return not any(slot.held for slot in slots)

        self.until(empty, f"{pool} is empty")

    def invoke(self, output: str, event: object) -> Any:
        """Call a decider as Lambda does; its answer."""
        answer = self.client.cloud.client("lambda").invoke(
            FunctionName=self.client.outputs[output], Payload=json.dumps(event).encode()
        )
        said = json.loads(answer["Payload"].read() or b"null")
        assert "FunctionError" not in answer, said
        return said

    def lines(self, output: str, event: str) -> list[dict[str, Any]]:
        """The log lines of a decider with this message."""
        lambdas, logs = self.client.cloud.client("lambda"), self.client.cloud.client("logs")
        function = lambdas.get_function_configuration(FunctionName=self.client.outputs[output])
        group = function["LoggingConfig"]["LogGroup"]
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        texts = [entry["message"] for page in pages for entry in page["events"] if event in entry["message"]]
        parsed = [json.loads(text[text.index("{") :]) for text in texts if "{" in text]
        return [line for line in parsed if line.get("message") == event]

    @property
    def launches(self) -> int:
        """How often anybody called RunTask since the recording began."""
        return sum(account.requests.get("ecs:RunTask", 0) for account in self.client.recording().values())

    def tick_until(self, holds: Callable[[], object], what: str, within_s: float = 300, every_s: float = 2.0) -> None:
        """The tick, over and over, until something holds."""

        def now() -> object:
            self.invoke("TickFunctionName", {})
            return holds()

        self.until(now, what, within_s, every_s)


@contextmanager
def without_ticks(stage: Stage) -> Iterator[None]:
    """The schedule is switched off, for a while: no tick but those of the test."""
    scheduler = stage.client.cloud.client("scheduler")
    [rule] = scheduler.list_schedules()["Schedules"]
    known = scheduler.get_schedule(Name=rule["Name"])
    asked = {field: known[field] for field in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
    scheduler.update_schedule(**asked, State="DISABLED")
    try:
        yield
    finally:
        scheduler.update_schedule(**asked, State="ENABLED")


@cache
def _assembly(config: str, folder: Path) -> Path:
    """The stacks of a configuration in JSON, as `python app.py` makes them.

    Made in this process: the CDK takes ten times as long to start as to synthesize, and here it starts once for all.
    """
    made = folder / f"assembly-{hashlib.sha256(config.encode()).hexdigest()[:16]}"
    deployment({CONTEXT_KEY: config}, outdir=str(made)).synth()
    return made


@contextmanager
def staged(
    folder: Path,
    caps: Mapping[str, int | Mapping[str, object]],
    settings: Mapping[str, object] | None = None,
    **knobs: object,
) -> Iterator[Stage]:
    """A cloud of its own with these pools, deployed: by cap, or by all their own knobs.

    `settings` are the deployment's, `knobs` every pool's.
    """
    own = {name: {"cap": cap} if isinstance(cap, int) else cap for name, cap in caps.items()}
    pools = [{"name": name, **knobs, **pool} for name, pool in own.items()]
    config = {"pools": pools, "intake_batch_size": 1, **(settings or {})}
    with Cloud(folder / "state", cold_start_s=0.5) as cloud:
        endpoints = cloud.start()
        outputs = deploy(_assembly(json.dumps(config), folder.parent), endpoints)
        (folder / "files").mkdir()
        yield Stage(Client(endpoints, outputs), folder / "files")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cloud of each module's own, so that its figures are those of the module's tests."""
    with staged(tmp_path_factory.mktemp("cloud"), CAPS) as stage:
        yield stage
