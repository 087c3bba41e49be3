"""The processors of the image by the names that the catalog gives them, and the way to a deployment's own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final

from fleetcap import catalog
from worker_image.errors import TransientError
from worker_image.processors.alignment import Bam, Sam
from worker_image.processors.base import SOURCE, InputError, OwnProcessor, Processor, Stage
from worker_image.processors.tabixed import Bed, BroadPeak, Gff, Gtf, NarrowPeak, Vcf
from worker_image.processors.tools import Command, Passthrough

__all__ = ["ENTRY_POINTS", "REGISTRY", "SOURCE", "InputError", "OwnProcessor", "Processor", "Stage", "found"]

ENTRY_POINTS: Final = "fleetcap.processors"
"""The group under which an installed package names its processor's class."""

REGISTRY: Final[Mapping[str, type[Processor]]] = {
    processor.name: processor
    for processor in (Bam, Sam, Vcf, Bed, NarrowPeak, BroadPeak, Gff, Gtf, Passthrough, Command)
}


def found(name: str) -> type[Processor]:
    """The class of a processor: the image's, or the declared one that an installed package brings.

    Raises InputError for one that nobody declared, TransientError where declaration and image disagree: another worker
    may have the image that fits.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    if (declared := catalog.PROCESSORS.get(name)) is None:
        raise InputError(f"this worker has no processor named {name!r}")
    ours = f"the deployment declares the processor {name!r}, but in this worker's image"
    named = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    if len(named) != 1:
        raise TransientError(f"{ours} {len(named) or 'no'} entry points {ENTRY_POINTS} have that name")
    kind = named[0].load()
    if not (isinstance(kind, type) and issubclass(kind, OwnProcessor)):
        raise TransientError(f"{ours} {named[0].value} is no subclass of OwnProcessor")
    wanted, there = (declared.version, declared.kinds), (kind.version, tuple(kind.made_from))
    if kind.name != name or wanted != there:
        raise TransientError(f"{ours} it is {_shown(kind.name, *there)} instead of {_shown(name, *wanted)}")
    return kind


def _shown(name: str, version: int, kinds: tuple[str, ...]) -> str:
    return f"{name}@{version} with {', '.join(kinds) or 'no artifact'}"
