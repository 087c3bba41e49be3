"""What Fleetcap's functions and workers asked of AWS, as figures and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich import box
from rich.table import Table

from local.proxy.recording import Account

ACTORS: Final = "fleetcap-"
"""How the names begin under which functions and workers call AWS, unless the deployment has another name."""


def bill(recording: Mapping[str, Account]) -> dict[str, Any]:
    """Calls by actor and operation, and DynamoDB's units by actor, as they are billed; onlookers' left out."""
    ours = {actor.removeprefix(ACTORS): told for actor, told in recording.items() if actor.startswith(ACTORS)}
    return {
        "aws_requests": {actor: told.requests for actor, told in ours.items()},
        "dynamodb_units": {actor: {"read": told.read_units, "write": told.write_units} for actor, told in ours.items()},
    }


def bill_table(figures: Mapping[str, Any]) -> Table:
    """A bill, or anything that holds its keys, for people."""
    accounts: dict[str, list[float]] = {}
    for actor, requests in figures["aws_requests"].items():
        to_table = sum(count for name, count in requests.items() if name.startswith("dynamodb:"))
        accounts[actor] = [sum(requests.values()), to_table, *figures["dynamodb_units"][actor].values()]
    table = Table(box=box.ROUNDED, border_style="dim", padding=(0, 2), header_style="dim", show_footer=True)
    table.add_column("AWS calls by", "together", no_wrap=True)
    for number, heading in enumerate(("requests", "to DynamoDB", "read units", "write units")):
        total = sum(row[number] for row in accounts.values())
        table.add_column(heading, f"{total:,.0f}", justify="right", no_wrap=True)
    for actor, row in accounts.items():
        table.add_row(actor, *(f"{figure:,.0f}" for figure in row))
    return table
