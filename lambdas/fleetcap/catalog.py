"""The processors that the worker image carries: what each takes and which artifacts it leaves, in commit order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Processor:
    """`suffixes` are the file names it takes by itself; `kinds` its artifacts, the last one committed last.

    `version` is part of every artifact's key: raise it when the output for the same input changes.
    """

    name: str
    version: int
    suffixes: tuple[str, ...]
    kinds: tuple[str, ...]


PROCESSORS: Final = {
    processor.name: processor
    for processor in (
        Processor("bam", 1, (".bam",), ("sorted.bam", "sorted.bam.bai")),
        Processor("sam", 1, (".sam",), ("sorted.bam", "sorted.bam.bai")),
    )
}


def processor_for(file_name: str) -> Processor | None:
    """The processor that takes a file of this name, or None."""
    lowered = file_name.lower()
    return next((p for p in PROCESSORS.values() if lowered.endswith(p.suffixes)), None)


def artifact_key(workflow_key: str, processor: Processor, kind: str) -> str:
    """Where the cache keeps one artifact: `<workflow key>/<processor>@<version>/<kind>`."""
    return f"{workflow_key}/{processor.name}@{processor.version}/{kind}"


def artifact_keys(workflow_key: str, processor_name: str) -> tuple[str, ...]:
    """Every artifact of a finished run, in commit order. Raises KeyError for a processor the image does not carry."""
    processor = PROCESSORS[processor_name]
    return tuple(artifact_key(workflow_key, processor, kind) for kind in processor.kinds)
