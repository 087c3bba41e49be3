"""What it takes to remove one guard: a place in a source file, and what stands there without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Guard:
    """One guard of the product. `rule` is its number in the protocol; 0 for a guard that no rule names."""

    name: str
    rule: int
    path: str
    old: str
    new: str

    def remove_in(self, tree: Path) -> None:
        """Remove it in a copy of the sources. Raises ValueError where the place is not the one it was."""
        file = tree / self.path
        text = file.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name!r}: what it replaces stands {text.count(self.old)} times in {self.path}")
        file.write_text(text.replace(self.old, self.new))

    @property
    def module(self) -> str:
        """The module that it changes, as Python names it."""
        return self.path.removeprefix("lambdas/").removesuffix(".py").replace("/", ".")
