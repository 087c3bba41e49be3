"""`fleetcap local calls`: what functions and workers asked of AWS."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from cli.clouds import Name, client
from local.proxy.bill import bill, bill_table


def calls(
    name: Name = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print them by operation, as JSON.")] = False,
    anew: Annotated[bool, typer.Option(help="Begin to count anew after this.")] = False,
) -> None:
    """Show what functions and workers asked of AWS, and what DynamoDB bills for it."""
    cloud = client(name)
    counted = bill(cloud.recording())
    if anew:
        cloud.record_anew()
    if as_json:
        typer.echo(json.dumps(counted, indent=2))
    else:
        Console().print(bill_table(counted) if counted["aws_requests"] else "Nobody has called yet.")
