"""The processors of a deployment: what each takes and which artifacts it leaves, in commit order.

`PROCESSORS` begins with those that the worker image carries; `declare` adds the deployment's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Params = Mapping[str, str | int | float | bool]

PROGRAM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
SOURCE_HERE: Final = "{source}"
OUTPUT_HERE: Final = "{output}"
"""Where the arguments of a command hold its paths."""


@dataclass(frozen=True)
class Processor:
    """`suffixes` are the file names it takes by itself; `kinds` its artifacts, the last one committed last.

    `version` is part of every artifact's key: raise it when the output for the same input changes. `params` are the
    names that a message may set.
    """

    name: str
    version: int
    suffixes: tuple[str, ...]
    kinds: tuple[str, ...]
    params: tuple[str, ...] = ()


def _tabixed(name: str, *suffixes: str, kind: str = "") -> Processor:
    """Sorted, bgzipped and tabix-indexed; the source may be plain, gzipped or bgzipped."""
    result = f"sorted.{kind or name}.gz"
    taken = tuple(f".{suffix}{packed}" for suffix in suffixes for packed in ("", ".gz", ".bgz"))
    return Processor(name, 1, taken, (result, f"{result}.tbi"))


BUILT_IN: Final = (
    Processor("bam", 1, (".bam",), ("sorted.bam", "sorted.bam.bai")),
    Processor("sam", 1, (".sam",), ("sorted.bam", "sorted.bam.bai")),
    _tabixed("vcf", "vcf"),
    _tabixed("bed", "bed"),
    _tabixed("narrowpeak", "narrowpeak", kind="narrowPeak"),
    _tabixed("broadpeak", "broadpeak", kind="broadPeak"),
    _tabixed("gff", "gff", "gff3"),
    _tabixed("gtf", "gtf"),
    Processor("passthrough", 1, (), ("copy",)),
    Processor("command", 1, (), ("output",), ("program", "arguments")),
)

PROCESSORS: Final = {processor.name: processor for processor in BUILT_IN}


def declare(settings: str) -> None:
    """Add a deployment's own processors, a JSON list as the stacks write it. Whoever reads the environment calls it."""
    for entry in json.loads(settings or "[]"):
        lists = {field: tuple(entry.get(field, ())) for field in ("suffixes", "kinds", "params")}
        PROCESSORS[entry["name"]] = Processor(entry["name"], entry["version"], **lists)


def processor_for(file_name: str) -> Processor | None:
    """The processor that takes a file of this name, by its longest suffix, or None."""
    lowered = file_name.lower()
    fitting = [(len(suffix), p) for p in PROCESSORS.values() for suffix in p.suffixes if lowered.endswith(suffix)]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def refusal(processor: Processor, params: Params) -> str | None:
    """Why the processor cannot work with these params, in one sentence; None where it can."""
    if unknown := sorted(params.keys() - set(processor.params)):
        allowed = f"it takes {', '.join(processor.params)}" if processor.params else "it takes none"
        return f"{processor.name} knows no param {unknown[0]!r}; {allowed}"
    return _command_refusal(params) if processor.name == "command" else None


def _command_refusal(params: Params) -> str | None:
    program, arguments = params.get("program"), params.get("arguments")
    if not isinstance(program, str) or not PROGRAM.fullmatch(program):
        return "command needs the param 'program', the name of a program of the image without its path"
    if not isinstance(arguments, str) or SOURCE_HERE not in arguments:
        return f"command needs the param 'arguments', in which {SOURCE_HERE} stands for the path of the source"
    return None


def artifact_key(workflow_key: str, processor: Processor, kind: str) -> str:
    """Where the cache keeps one artifact: `<workflow key>/<processor>@<version>/<kind>`."""
    return f"{workflow_key}/{processor.name}@{processor.version}/{kind}"


def artifact_keys(workflow_key: str, processor_name: str) -> tuple[str, ...]:
    """Every artifact of a finished run, in commit order. Raises KeyError for a processor the image does not carry."""
    processor = PROCESSORS[processor_name]
    return tuple(artifact_key(workflow_key, processor, kind) for kind in processor.kinds)
