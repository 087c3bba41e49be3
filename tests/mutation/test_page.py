"""What the documents say of the guards is what the code has."""

from __future__ import annotations

import re

from local.simulator import coverage
from tests.mutation.guard import ROOT
from tests.mutation.page import PAGE, text


def test_the_page_of_guards_is_as_it_would_be_written_now() -> None:
    assert PAGE.read_text() == text()


def test_the_page_on_exactness_tells_of_every_clause_and_every_rule() -> None:
    page = (ROOT / "docs" / "exactness.md").read_text()
    table = page.partition("| operation | clause |")[2].partition("\n\n")[0]
    clauses = re.findall(r"^\| (\w+) \| ([^|]+) \| [^|]+ \|$", table, flags=re.MULTILINE)
    assert set(clauses) == set(coverage.guards())
    assert [int(rule) for rule in re.findall(r"^\| (\d+) ", page, flags=re.MULTILINE)] == list(range(1, 18))


def test_the_page_on_exactness_names_places_that_there_are() -> None:
    """Every `module.name` of the rules' table, and every file that the page points to."""
    page = (ROOT / "docs" / "exactness.md").read_text()
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", page) if not (ROOT / "docs" / link).exists()] == []
    sources = "".join(
        path.read_text() for folder in ("lambdas", "worker_image") for path in (ROOT / folder).rglob("*.py")
    )
    rules = page.partition("| rule | where |")[2].partition("\n\n")[0]
    named = {name.rpartition(".")[2].rpartition("/")[2] for name in re.findall(r"`([^`]+)`", rules)}
    known = {path.stem for path in (ROOT / "lambdas").rglob("*.py")}
    assert sorted(name for name in named - known - {"op"} if not re.search(rf"\b{name}\b", sources)) == []
