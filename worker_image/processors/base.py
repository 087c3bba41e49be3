"""What every processor of the image is: a source file in, one artifact for each kind of its catalog entry out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fleetcap import catalog, limits


class InputError(Exception):
    """The source can never be processed: a retry would fail alike. One plain sentence that starts with `input:`."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"input: {sentence}")


@dataclass(frozen=True)
class Stage:
    """A processor begins this stage: `fraction` of its own work, 0 to 1, lies behind it."""

    name: str
    fraction: float
    message: str = ""


class Processor(ABC):
    """One job's processor. Artifacts lie at `path(kind, work)` when the stages are exhausted.

    The first kind of the catalog entry is the *primary* artifact; the others (an index, say) describe its very bytes.
    So `run` makes the primary one, and `derive` makes the others from whichever primary artifact the cache kept.
    """

    name: ClassVar[str]

    def __init__(self, sort_memory_mb: int = limits.SORT_MEMORY_MB, sort_threads: int = limits.SORT_THREADS) -> None:
        self.sort_memory_mb = sort_memory_mb
        self.sort_threads = sort_threads

    @property
    def kinds(self) -> tuple[str, ...]:
        """The artifacts in commit order, as the catalog names them."""
        return catalog.PROCESSORS[self.name].kinds

    def path(self, kind: str, work: Path) -> Path:
        """Where an artifact lies in the work directory."""
        return work / f"result.{kind}"

    def run(self, source_path: Path, work: Path) -> Iterator[Stage]:
        """Make every artifact. May consume the source. Raises InputError where the source is at fault."""
        if source_path.stat().st_size == 0:
            raise InputError("the file is empty")
        return self.process(source_path, work)

    @abstractmethod
    def process(self, source_path: Path, work: Path) -> Iterator[Stage]:
        """What `run` does with a file that is not empty."""

    def derive(self, work: Path) -> Iterator[Stage]:  # noqa: ARG002
        """Make the other artifacts from the primary one, which lies at its path. Nothing, where there is only one."""
        return iter(())
