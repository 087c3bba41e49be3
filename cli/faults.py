"""`fleetcap local fault`, `faults` and `calm`: make the embedded cloud fail, see how, and stop it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from cli.clouds import Name, client
from local.client import Client
from local.cloud import CloudError
from local.fargate.faults import ACTS, EVENTS, READS, RUN_TASK, Kind
from local.proxy.faults import KINDS as CALL_KINDS

app = typer.Typer(help="Make the embedded cloud fail, until `calm` or one task at once.", no_args_is_help=True)

Pool = Annotated[str, typer.Option(help="Only tasks of this pool.")]


def _standing(kind: Kind) -> Callable[..., None]:
    def command(
        times: Annotated[int | None, typer.Option(help="How often it strikes; without it, until `calm`.")] = None,
        share: Annotated[float, typer.Option(help="The share that it strikes of what it could.")] = 1.0,
        seconds: Annotated[float, typer.Option(help="Where the kind takes some, see above.")] = 0.0,
        text: Annotated[str, typer.Option(help="Where the kind takes one, see above.")] = "",
        pool: Pool = "",
        seed: Annotated[int | None, typer.Option(help="Where its chance starts, to have the same again.")] = None,
        name: Name = "default",
    ) -> None:
        number = client(name).fault(
            kind.name, times=times, share=share, seconds=seconds, text=text, pool=pool, seed=seed
        )
        _say_that_it_stands(number, kind, times)

    return command


def _say_that_it_stands(number: int, kind: Kind, times: int | None) -> None:
    until = f"until it has struck {times} time{'s' * (times > 1)} or " if times else "until "
    typer.echo(f"Fault {number}, {kind.name}, stands {until}`fleetcap local calm`.")


def _on_calls(kind: Kind) -> Callable[..., None]:
    def command(
        actor: Annotated[str, typer.Option(help="Only calls by this actor, such as fleetcap-intake.")] = "",
        operation: Annotated[str, typer.Option(help="Only this operation, such as ecs:RunTask, or service.")] = "",
        text: Annotated[str, typer.Option(help="Only calls that hold this text in their body.")] = "",
        pid: Annotated[int, typer.Option(help="Only calls of this process, or of the session that it leads.")] = 0,
        times: Annotated[int | None, typer.Option(help="How often it strikes; without it, until `calm`.")] = None,
        share: Annotated[float, typer.Option(help="The share that it strikes of what it could.")] = 1.0,
        seconds: Annotated[float, typer.Option(help="Where the kind takes some, see above.")] = 0.0,
        seed: Annotated[int | None, typer.Option(help="Where its chance starts, to have the same again.")] = None,
        name: Name = "default",
    ) -> None:
        number = client(name).fault(
            kind.name,
            times=times,
            share=share,
            seconds=seconds,
            text=text,
            seed=seed,
            actor=actor,
            operation=operation,
            pid=pid,
        )
        _say_that_it_stands(number, kind, times)

    return command


def _act(kind: Kind) -> Callable[..., None]:
    def command(
        task: Annotated[
            str, typer.Option(help="Its ARN or id; without it, the one that runs longest; resume: all.")
        ] = "",
        seconds: Annotated[float | None, typer.Option(help="Where the kind takes some, see above.")] = None,
        pool: Pool = "",
        name: Name = "default",
    ) -> None:
        cloud = client(name)
        for arn in [task] if task else _chosen(cloud, kind, pool):
            cloud.act(kind.name, arn, seconds)
            typer.echo(f"{kind.name}: {arn}")

    return command


def _help(kind: Kind) -> str:
    options = {"--seconds": kind.seconds, "--text": kind.text}
    return " ".join([kind.help, *(f"{option} is {meaning}." for option, meaning in options.items() if meaning)])


def _chosen(cloud: Client, kind: Kind, pool: str) -> list[str]:
    """The running task that started first; to resume, all of them, as nobody tells which ones hang."""
    family = cloud.family(pool) if pool else ""
    running = [task for task in cloud.tasks() if task["lastStatus"] == "RUNNING" and family in ("", task["family"])]
    if not running:
        raise CloudError(f"No task{f' of the pool {pool}' if pool else ''} is running.")
    arns = [task["arn"] for task in sorted(running, key=lambda task: task["startedAt"])]
    return arns if kind.name == "resume" else arns[:1]


CALLS = {str(name): Kind(str(name), words) for name, words in CALL_KINDS.items()}
_PANELS = (
    ("RunTask", RUN_TASK, _standing),
    ("Events", EVENTS, _standing),
    ("Reads", READS, _standing),
    ("Calls of AWS by functions and workers", CALLS, _on_calls),
    ("One task, at once", ACTS, _act),
)
for _panel, _kinds, _make in _PANELS:
    for _kind in _kinds.values():
        app.command(_kind.name, help=_help(_kind), short_help=_kind.help, rich_help_panel=_panel)(_make(_kind))


def listed(
    name: Name = "default", as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False
) -> None:
    """Show the standing faults, and how often each has struck."""
    found = client(name).faults()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        Console().print(_table(found) if found else "No fault stands.")


def calm(name: Name = "default") -> None:
    """Clear all standing faults; what already struck goes its way, and a hung task hangs on."""
    cleared = client(name).calm()
    typer.echo(f"{cleared} faults cleared." if cleared != 1 else "1 fault cleared.")


_SAID = ("actor", "operation", "pid", "text")


def _table(faults: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("id", "share", "seed", "struck", "left"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for column in ("of", "tasks"):
        table.add_column(column, overflow="fold")
    for each in faults:
        left = "always" if each["left"] is None else str(each["left"])
        of = " ".join(
            str(part) for part in (f"{each['seconds']:g} s" if each["seconds"] else "", *map(each.get, _SAID)) if part
        )
        figures = (str(each["id"]), f"{each['share']:g}", str(each["seed"]), str(each["struck"]), left)
        table.add_row(*figures, each["kind"], of, each.get("family") or "all")
    return table
