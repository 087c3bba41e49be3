"""One job in its own process: read the assignment from stdin, download, process, commit, and say so line by line.

stdout carries JSON lines and nothing else: `progress` and `artifact` events, then exactly one `done` or `failed`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import boto3
from botocore.config import Config

from fleetcap import catalog, limits
from fleetcap.adapters.cache import S3Cache
from fleetcap.model import Artifact
from worker_image.download import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Downloader, downloader_for
from worker_image.errors import TransientError, scrubbed
from worker_image.processors import REGISTRY
from worker_image.processors.base import InputError, Processor, Stage

PR_SET_PDEATHSIG: Final = 1
PROGRESS_EVERY_S: Final = 0.5
DOWNLOADED, PROCESSED = 0.3, 0.85
"""How much of the job lies behind after each part; uploads are the rest."""


class Speaker:
    """The only voice on the real stdout."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stage = ""
        self._fraction = 0.0
        self._said_at = 0.0

    def progress(self, stage: str, fraction: float, message: str = "") -> None:
        """Say how far the job is: each new stage, and in between at most twice a second. The fraction never falls."""
        self._fraction = min(max(self._fraction, fraction), 1.0)
        now = time.monotonic()
        if stage == self._stage and now - self._said_at < PROGRESS_EVERY_S:
            return
        self._stage, self._said_at = stage, now
        message = scrubbed(message, limits.PROGRESS_MAX_CHARS)
        self.say("progress", stage=stage, fraction=round(self._fraction, 4), message=message)

    def artifact(self, artifact: Artifact) -> None:
        """Say that an artifact stands in the cache."""
        self.say(
            "artifact",
            kind=artifact.kind,
            key=artifact.key,
            size_bytes=artifact.size_bytes,
            created=artifact.created,
        )

    def say(self, event: str, **fields: str | float | bool) -> None:
        """Write one line. Nobody listening any more means that the worker is gone, and so is the reason to go on."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except BrokenPipeError:
            os._exit(1)


class Run(NamedTuple):
    """One job with everything it works with."""

    assignment: dict[str, Any]
    processor: Processor
    cache: S3Cache
    downloader: Downloader
    work: Path
    speaker: Speaker

    def key(self, kind: str) -> str:
        """Where the cache keeps one artifact of this job."""
        entry = catalog.PROCESSORS[self.processor.name]
        return catalog.artifact_key(self.assignment["workflow_key"], entry, kind)

    def commit(self, kind: str) -> Artifact:
        """Upload one artifact, unless an equal one was faster, and say so."""
        artifact = self.cache.commit(str(self.processor.path(kind, self.work)), self.key(kind), kind)
        self.speaker.artifact(artifact)
        return artifact


def _assigned(assignment: dict[str, Any], speaker: Speaker) -> Run:
    name = assignment["processor"]
    if name not in REGISTRY:
        raise InputError(f"this worker has no processor named {name!r}")
    # S3 itself is asked again five times; what outlasts that fails the attempt, and the job is retried as a whole.
    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
    )
    s3 = boto3.client("s3", config=config)
    work = Path(assignment["work_dir"])
    work.mkdir(parents=True, exist_ok=True)
    return Run(
        assignment,
        REGISTRY[name](assignment["sort_memory_mb"], assignment["sort_threads"]),
        S3Cache(s3, assignment["cache_bucket"], assignment["cache_prefix"]),
        downloader_for(s3, assignment),
        work,
        speaker,
    )


def _carry_out(run: Run) -> None:
    """Leave every artifact of the job in the cache, resuming where an earlier attempt stopped."""
    standing = [(kind, run.key(kind), run.cache.size_bytes(run.key(kind))) for kind in run.processor.kinds]
    if all(size is not None for _, _, size in standing):
        for kind, key, size in standing:
            run.speaker.artifact(Artifact(kind, key, size or 0, created=False))
        return
    if standing[0][2] is not None:
        _derive_from_the_standing(run)
    else:
        _process(run)
    _commit(run)


def _process(run: Run) -> None:
    source = run.work / "source"
    run.speaker.progress("download", 0.0)
    run.downloader.fetch(
        run.assignment["source"],
        run.assignment["md5"],
        source,
        lambda fraction: run.speaker.progress("download", DOWNLOADED * fraction),
    )
    _follow(run, run.processor.run(source, run.work))


def _derive_from_the_standing(run: Run) -> None:
    """The cache keeps a primary artifact already: the others must describe its bytes, not those we might make."""
    primary = run.processor.kinds[0]
    run.speaker.progress("download", 0.0, f"resuming from {primary}")
    if not run.cache.fetch(run.key(primary), str(run.processor.path(primary, run.work))):
        raise TransientError(f"the artifact {primary} was deleted while the job ran")
    _follow(run, run.processor.derive(run.work))


def _follow(run: Run, stages: Iterable[Stage]) -> None:
    for stage in stages:
        run.speaker.progress(stage.name, DOWNLOADED + (PROCESSED - DOWNLOADED) * stage.fraction, stage.message)


def _commit(run: Run) -> None:
    """Upload in catalog order, and only now: what stands in the cache stays, so it must have been verified first."""
    primary, *others = run.processor.kinds
    run.speaker.progress("upload", PROCESSED)
    if not run.commit(primary).created and others:
        _derive_from_the_standing(run)
    for done, kind in enumerate(others, start=1):
        run.speaker.progress("upload", PROCESSED + (1 - PROCESSED) * done / len(run.processor.kinds))
        run.commit(kind)


def _verdict(error: Exception) -> tuple[str, bool]:
    """What the failure is called, and whether a retry would fail alike."""
    match error:
        case InputError():
            return scrubbed(str(error)), True
        case MemoryError():
            return "internal: the job ran out of memory", False
        case OSError(errno=errno.ENOSPC):
            return "internal: the worker's disk is full", False
        case TransientError():
            return scrubbed(f"internal: {error}"), False
    return scrubbed(f"internal: {type(error).__name__}: {error}"), False


def _die_with_the_parent() -> None:
    """Ask Linux for a SIGKILL when the thread that started us ends; elsewhere the closed stdout ends us."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_stdout() -> int:
    """Keep the real stdout for the speaker; whatever else writes to descriptor 1, samtools included, gets stderr."""
    real = os.dup(1)
    os.dup2(2, 1)
    return real


def main() -> NoReturn:
    """Run the job that stdin describes. Exits 0 after `done`, 1 after `failed`."""
    _die_with_the_parent()
    speaker = Speaker(_own_stdout())
    code = 1
    try:
        _carry_out(_assigned(json.load(sys.stdin), speaker))
        speaker.say("done")
        code = 0
    except Exception as error:
        traceback.print_exc()
        text, permanent = _verdict(error)
        speaker.say("failed", error=text, permanent=permanent)
    sys.stderr.flush()
    # At once: an interpreter that stumbles over its own end would turn a finished job into a failed one.
    os._exit(code)


if __name__ == "__main__":
    main()
