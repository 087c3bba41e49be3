"""One job in its own process: read the assignment from stdin, download, make and commit each artifact, and say so.

stdout carries JSON lines and nothing else: `progress` and `artifact` events, then exactly one `done` or `failed`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import boto3
from botocore.config import Config

from fleetcap import catalog, keys, limits, stored
from fleetcap.adapters.cache import S3Cache, Standing
from fleetcap.model import Artifact
from fleetcap.ports import Assignment
from fleetcap.sources import file_name
from worker_image.download import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Downloader, downloader_for
from worker_image.errors import TransientError, scrubbed, shortage
from worker_image.nursery import die_with_the_parent
from worker_image.processors import SOURCE, InputError, Processor, found

PROGRESS_EVERY_S: Final = 0.5
DOWNLOADED, MADE = 0.3, 0.8
"""How much of the job lies behind after the download, and of an artifact when it only needs to be uploaded."""
FROM_SOURCE_WEIGHT: Final = 4
NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
NAME_MAX_CHARS: Final = 100


class Speaker:
    """The only voice on the real stdout."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stage = self._message = ""
        self._fraction = 0.0
        self._said_at = 0.0

    def progress(self, stage: str, fraction: float, message: str = "") -> None:
        """Say how far the job is: each new stage, and in between at most twice a second. The fraction never falls.

        A stage keeps its message until it has another one.
        """
        self._fraction = min(max(self._fraction, fraction), 1.0)
        if message or stage != self._stage:
            self._message = scrubbed(message, limits.PROGRESS_MAX_CHARS)
        now = time.monotonic()
        if stage == self._stage and now - self._said_at < PROGRESS_EVERY_S:
            return
        self._stage, self._said_at = stage, now
        self.say("progress", stage=stage, fraction=round(self._fraction, 4), message=self._message)

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

    def fetch(self, origin: str) -> Path:
        """The source, or an artifact as the cache keeps it. What lies beside it belongs to nobody else."""
        if origin == SOURCE:
            return self._download()
        self.speaker.progress("download", 0.0, f"resuming from {origin}")
        path = self._room("standing") / origin
        if not self.cache.fetch(self.key(origin), str(path)):
            raise TransientError(f"the artifact {origin} was deleted while the job ran")
        return path

    def _download(self) -> Path:
        """Under a name as harmless as it is telling: programs look at its end."""
        address = self.assignment["source"]
        name = NOT_IN_A_NAME.sub("_", file_name(address).rpartition("/")[2])[-NAME_MAX_CHARS:].lstrip(".-")
        path = self._room("source") / (name or "source")
        self.speaker.progress("download", 0.0)
        self.downloader.fetch(
            address,
            self.assignment["md5"],
            path,
            lambda fraction: self.speaker.progress("download", DOWNLOADED * fraction),
            self.processor.disk_factor,
        )
        if not (path.stat().st_size or self.processor.takes_empty):
            raise InputError("the file is empty")
        return path

    def make(self, kind: str, given: Path, part: tuple[float, float]) -> tuple[Path, Artifact]:
        """Make one artifact and commit it, unless an equal one was faster. `part` of the job's fraction is its own."""
        begin, end = part
        committing = begin + MADE * (end - begin)
        target = self._room("made") / kind
        for stage in self.processor.make(kind, given, target):
            self.speaker.progress(stage.name, begin + (committing - begin) * stage.fraction, stage.message)
        self.speaker.progress("upload", committing, kind)
        if self.since:  # what was made from an older artifact must not stand beside the one that takes its place
            self.cache.discard_older([self.key(later) for later in self._made_after(kind)], self.since)
        artifact = self.cache.commit(str(target), self.key(kind), kind, self.assignment["made_for"], self.since)
        self.speaker.artifact(artifact)
        return target, artifact

    @property
    def since(self) -> float:
        """Artifacts of runs before this do not count for this one; 0: all do."""
        return float(self.assignment["since"])

    def _made_after(self, kind: str) -> list[str]:
        kinds = list(self.processor.made_from)
        return kinds[kinds.index(kind) + 1 :]

    def _room(self, name: str) -> Path:
        room = self.work / name
        room.mkdir(exist_ok=True)
        return room


def _assigned(assignment: dict[str, Any], speaker: Speaker) -> Run:
    assignment = stored.unsaid(Assignment) | assignment
    catalog.declare(os.environ.get(keys.ENV_PROCESSORS, ""))
    processor = found(assignment["processor"])
    if refusal := catalog.refusal(catalog.PROCESSORS[processor.name], assignment["params"]):
        raise InputError(refusal)
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
        processor(work, assignment["params"], assignment["sort_memory_mb"], assignment["sort_threads"]),
        S3Cache(s3, assignment["cache_bucket"], assignment["cache_prefix"]),
        downloader_for(s3, assignment),
        work,
        speaker,
    )


def _carry_out(run: Run) -> None:
    """Leave every artifact of the job in the cache: those that stand are told, the others made and committed in turn.

    `here` knows where the bytes lie that an artifact was, or would be, made from: the source, and what this attempt
    committed. Where somebody else's artifact stands, a later one must describe *its* bytes, so it is fetched.
    """
    made_from = run.processor.made_from
    standing = _standing(run)
    parts = _parts({kind: made_from[kind] for kind, found in standing.items() if found is None})
    here: dict[str, Path] = {}
    for kind, origin in made_from.items():
        if (stands := standing[kind]) is not None:
            run.speaker.artifact(Artifact(kind, run.key(kind), stands.size_bytes, created=False))
            continue
        if origin not in here or not here[origin].exists():
            here[origin] = run.fetch(origin)
        made, artifact = run.make(kind, here[origin], parts[kind])
        if artifact.created:
            here[kind] = made


def _standing(run: Run) -> dict[str, Standing | None]:
    """What stands of each artifact. One that outlived its origin is deleted: it describes bytes that are gone.

    S3 expires artifacts one by one, and what is made in their place need not be the same to the byte. Only an older
    run's is taken away: what a zombie sees of its own run, or a newer one's, may have come right after it looked.
    """
    standing: dict[str, Standing | None] = {}
    for kind, origin in run.processor.made_from.items():
        found = run.cache.standing(run.key(kind), run.since)
        alone = origin != SOURCE and standing[origin] is None
        if found and alone and found.made_for < run.assignment["made_for"]:
            run.cache.delete(run.key(kind), found.etag)
            found = None
        standing[kind] = found
    return standing


def _parts(made_from: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Which part of the job's fraction each artifact to be made takes: one made from the source is most of the work."""
    weights = {kind: FROM_SOURCE_WEIGHT if origin == SOURCE else 1 for kind, origin in made_from.items()}
    parts, begin = {}, DOWNLOADED
    for kind, weight in weights.items():
        end = begin + (1 - DOWNLOADED) * weight / sum(weights.values())
        parts[kind], begin = (begin, end), end
    return parts


def _verdict(error: Exception) -> tuple[str, bool]:
    """What the failure is called, and whether a retry would fail alike."""
    if isinstance(error, InputError):
        return scrubbed(str(error)), True
    text = str(error) if isinstance(error, TransientError) else f"{type(error).__name__}: {error}"
    if (lacking := shortage(error)) and not text.startswith(lacking):
        text = f"{lacking}: {text}" if str(error) else f"{lacking}: the job needs more than its worker has"
    return scrubbed(f"internal: {text}"), False


def _own_stdout() -> int:
    """Keep the real stdout for the speaker; whatever else writes to descriptor 1, samtools included, gets stderr."""
    real = os.dup(1)
    os.dup2(2, 1)
    return real


def main() -> NoReturn:
    """Run the job that stdin describes. Exits 0 after `done`, 1 after `failed`."""
    die_with_the_parent()
    speaker = Speaker(_own_stdout())
    code = 1
    try:
        _carry_out(_assigned(json.load(sys.stdin), speaker))
        speaker.say("done")
        code = 0
    except Exception as error:
        text, permanent = _verdict(error)
        if not permanent:  # bad input is told by its sentence alone
            traceback.print_exc()
        speaker.say("failed", error=text, permanent=permanent)
    sys.stderr.flush()
    # At once: an interpreter that stumbles over its own end would turn a finished job into a failed one.
    os._exit(code)


if __name__ == "__main__":
    main()
