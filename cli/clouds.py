"""Which embedded cloud a command means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from local import cloud
from local.client import Client


def state() -> Path:
    """Where this command keeps what it knows between calls: below the folder it is called in."""
    return Path(".fleetcap").resolve()


def checked_name(name: str) -> str:
    """A name becomes a folder, so it must not lead anywhere else."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name):
        raise typer.BadParameter("a name is up to 32 small letters, digits and hyphens, no hyphen first")
    return name


Name = Annotated[str, typer.Option(callback=checked_name, help="Which embedded cloud; several can be up side by side.")]


def client(name: str) -> Client:
    """A client of the cloud of this name. Raises CloudError if none is up."""
    running = cloud.attach(state() / "local" / name)
    return Client(running.endpoints, running.outputs)
