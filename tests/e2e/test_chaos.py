"""A storm of one minute, everything that can go wrong in it, and a verdict without a word of trouble."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local.chaos.__main__ import Order, run
from local.chaos.plan import kinds

pytestmark = pytest.mark.cloud

CAP, JOBS, SEED = 4, 40, 1


def test_a_storm_of_a_minute_loses_nothing_leaks_nothing_and_stays_under_the_cap(tmp_path: Path) -> None:
    said = StringIO()
    figures, trouble = run(Order(minutes=1, jobs=JOBS, cap=CAP, seed=SEED, state=tmp_path), Console(file=said))

    assert trouble == [], said.getvalue()
    assert figures["jobs"] >= JOBS
    assert figures["completed"] + figures["failed"] == figures["jobs"]
    assert 0 < figures["peak_live_tasks"] <= figures["highest_cap"]
    struck = {kind: sum(places.values()) for kind, places in figures["struck"].items()}
    assert {kind for kind in kinds() if not struck.get(kind)} == set()
    assert json.loads((tmp_path / "chaos.json").read_text()) == {**figures, "trouble": []}
