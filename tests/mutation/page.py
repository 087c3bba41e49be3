"""`python -m tests.mutation.page`: `docs/guards.md`, every guard with what notices that it is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.mutation.__main__ import HINTS
from tests.mutation.guard import ROOT
from tests.mutation.guards import GUARDS

PAGE: Final = ROOT / "docs" / "guards.md"
HEAD: Final = """# Guards

Every guard that `make mutate` removes, and what noticed last: a history of the simulator, or a test of the contract
suite. Written by `python -m tests.mutation.page`; [exactness.md](exactness.md) tells what each is for.

| guard | noticed by |
|---|---|
"""


def text() -> str:
    """The page as it should be."""
    hints: dict[str, str] = json.loads(HINTS.read_text())
    rows = [f"| {guard.name} | {_who(hints[guard.name])} |" for guard in GUARDS]
    return HEAD + "\n".join(rows) + "\n"


def _who(hint: str) -> str:
    if hint.isdecimal():
        return "the simulator"
    path, _, test = hint.partition("::")
    return f"`{Path(path).name}`: {test.partition('[')[0].removeprefix('test_').replace('_', ' ')}"


if __name__ == "__main__":
    PAGE.write_text(text())
