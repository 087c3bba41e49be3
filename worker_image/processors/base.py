"""What every processor is: each artifact of its catalog entry is made from the source, or from an earlier artifact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from fleetcap import limits

SOURCE: Final = "source"


class InputError(Exception):
    """The source can never be processed: a retry would fail alike. One plain sentence that starts with `input:`."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"input: {sentence}")


@dataclass(frozen=True)
class Stage:
    """A processor begins this stage, or got further in it: `fraction` of the artifact's work, 0 to 1, lies behind."""

    name: str
    fraction: float
    message: str = ""


class Processor(ABC):
    """One job's processor. `made_from` lists its artifacts in commit order: kind → `SOURCE`, or an earlier kind.

    An artifact is committed as soon as `make` has returned, and what is committed stays. So `make` verifies what it
    made, and a source at which a later artifact would fail is refused before the first one. A retry makes only what
    does not stand yet, each from the very bytes that do.
    """

    name: ClassVar[str]
    made_from: ClassVar[Mapping[str, str]]
    takes_empty: ClassVar[bool] = False
    disk_factor: ClassVar[float] = limits.DISK_FACTOR
    """The disk that a job needs, as a multiple of its source: the source, what is spilled, and the result."""

    def __init__(
        self,
        work: Path,
        params: Mapping[str, str | int | float | bool] | None = None,
        sort_memory_mb: int = limits.SORT_MEMORY_MB,
        sort_threads: int = limits.SORT_THREADS,
    ) -> None:
        self.work = work
        self.params = params or {}
        self.sort_memory_mb = sort_memory_mb
        self.sort_threads = sort_threads

    @abstractmethod
    def make(self, kind: str, given: Path, target: Path) -> Iterator[Stage]:
        """Make one artifact at `target` from the file at `given`, which it may consume; `work` is for the rest.

        Raises InputError where the source is at fault. Any other exception fails the attempt, not the job.
        """


class OwnProcessor(Processor):
    """A deployment's own: `version` is the one that the deployment declares, and part of every artifact's key."""

    version: ClassVar[int]
