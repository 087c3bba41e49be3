"""The fleetcap command."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from cli import faults, jobs, pools, rejects
from cli.artifacts import get
from cli.calls import calls
from cli.clouds import Name, state
from cli.imports import import_
from cli.logs import logs
from cli.submit import submit
from cli.target import Failed
from fleetcap import lifecycle, limits, messages
from local import cloud as local_cloud
from local.deploy import Synth, deploy

app = typer.Typer(
    help="Bursts of long container jobs on AWS Fargate under an exact cap.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
local_app = typer.Typer(help="The embedded cloud: an AWS of processes on this machine.", no_args_is_help=True)
app.add_typer(local_app, name="local")

DEMO_CAP = 16


@app.command()
def demo(
    files: Annotated[list[Path] | None, typer.Argument(help="BAM and SAM files; made up where none are given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=1000, help="How many sample files to make.")] = 24,
    cap: Annotated[int, typer.Option(min=1, max=256, help="How many workers may live at once.")] = DEMO_CAP,
    cold_start_s: Annotated[float, typer.Option(min=0, max=600, help="Seconds that a task takes to start.")] = 1.0,
    reads: Annotated[int, typer.Option(min=1, help="Reads in each sample file.")] = 100_000,
    timeout_s: Annotated[float, typer.Option(min=1, help="Give up after this many seconds.")] = 900.0,
    picture: Annotated[Path | None, typer.Option(help="Save the view at its busiest moment as an SVG.")] = None,
) -> None:
    """Run a burst of real files through the exact cap, and verify every result."""
    from cli import demo as demo_story  # and with it half of what there is: other commands start without

    plan = demo_story.Plan(
        jobs, cap, cold_start_s, reads, files or [], state() / "demo", Path("demo-out"), timeout_s, picture
    )
    sys.exit(demo_story.run(plan, Console()))


@app.command(hidden=True)
def prepare() -> None:
    """Synthesize what the demo deploys by default, so that the first demo finds it made."""
    from cli import demo as demo_story

    Synth(demo_story.config(DEMO_CAP), os.environ).assembly()


@app.command()
def schema(
    event: Annotated[bool, typer.Option("--event", help="That of the event which tells of a job's status.")] = False,
) -> None:
    """Print the JSON schema of the message that a producer sends, or of the event's detail."""
    typer.echo(json.dumps(lifecycle.json_schema() if event else messages.json_schema(), indent=2))


@local_app.command()
def up(
    name: Name = "default",
    cap: Annotated[int, typer.Option(min=0, max=limits.BANK_SLOTS, help="How many workers may live at once.")] = 16,
    cold_start_s: Annotated[float, typer.Option(min=0, max=600, help="Seconds that a task takes to start.")] = 2.0,
) -> None:
    """Start an embedded cloud, deploy the stacks into it, and keep it up until Ctrl-C or `down`."""
    directory = state() / "local" / name
    console = Console(stderr=True)
    in_use = f"The embedded cloud {name} is up already"
    with local_cloud.Cloud(directory, cold_start_s, in_use) as cloud, ExitStack() as started:
        synth = Synth({"pools": [{"name": "default", "cap": cap}]}, cloud.environment())
        started.callback(synth.cancel)
        with console.status("deploying"):
            endpoints = cloud.start()
            cloud.announce(endpoints, deploy(synth.assembly(), endpoints))
        console.print(f"[green]✔[/] the embedded cloud [bold]{name}[/] is up; Ctrl-C or `fleetcap local down` ends it")
        console.print(f'  in another terminal: eval "$(fleetcap local env --name {name})"', highlight=False)
        threading.Event().wait()


@local_app.command()
def down(name: Name = "default") -> None:
    """End an embedded cloud and everything that it started."""
    ended = local_cloud.shut_down(state() / "local" / name)
    typer.echo(f"The embedded cloud {name} is down." if ended else f"No embedded cloud {name} was up.")


@local_app.command()
def env(name: Name = "default") -> None:
    """Print export lines, so that any AWS client talks to the embedded cloud."""
    cloud = local_cloud.attach(state() / "local" / name)
    variables = {
        **cloud.endpoints.environment(),
        "FLEETCAP_INTAKE_QUEUE_URL": cloud.outputs["IntakeQueueUrl"],
        "FLEETCAP_REJECTED_QUEUE_URL": cloud.outputs["RejectedQueueUrl"],
        "FLEETCAP_INPUT_BUCKET": cloud.outputs["InputBucketName"],
        "FLEETCAP_CACHE_BUCKET": cloud.outputs["CacheBucketName"],
    }
    typer.echo("unset AWS_PROFILE AWS_SESSION_TOKEN")
    for variable, value in variables.items():
        typer.echo(f"export {variable}={shlex.quote(value)}")


for _command in (submit, jobs.jobs, jobs.job, get, logs, jobs.cancel, jobs.retry, rejects.rejected, rejects.redrive):
    app.command(rich_help_panel="Jobs")(_command)
app.command("import", rich_help_panel="Jobs")(import_)
app.add_typer(pools.app, name="pools", rich_help_panel="Pools")
app.command(rich_help_panel="Pools")(pools.reserve)
app.command(rich_help_panel="Pools")(pools.reservations)
app.command(rich_help_panel="Pools")(pools.unreserve)
app.command("stop-all", rich_help_panel="Pools")(pools.stop_all)

local_app.add_typer(faults.app, name="fault")
local_app.command("faults")(faults.listed)
local_app.command()(faults.calm)
local_app.command()(calls)


def main() -> None:
    """Entry point: SIGTERM and SIGHUP unwind as Ctrl-C does, and an error is one sentence, not a traceback."""
    local_cloud.unwind_on_signals()
    try:
        app()
    except Failed as error:
        _fail(str(error), 1)
    except (local_cloud.CloudError, BotoCoreError, ClientError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str, code: int = 2) -> NoReturn:
    typer.echo(f"fleetcap: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
