"""The fleetcap command."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from cli import demo as demo_story
from fleetcap import limits, messages
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


def state() -> Path:
    """Where this command keeps what it knows between calls: below the folder it is called in."""
    return Path(".fleetcap").resolve()


Name = Annotated[str, typer.Option(help="Which embedded cloud; several can be up side by side.")]


@app.command()
def demo(
    files: Annotated[list[Path] | None, typer.Argument(help="BAM and SAM files; made up where none are given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=1000, help="How many sample files to make.")] = 24,
    cap: Annotated[int, typer.Option(min=1, max=256, help="How many workers may live at once.")] = 16,
    cold_start_s: Annotated[float, typer.Option(min=0, max=600, help="Seconds that a task takes to start.")] = 1.0,
    reads: Annotated[int, typer.Option(min=1, help="Reads in each sample file.")] = 100_000,
    timeout_s: Annotated[float, typer.Option(min=1, help="Give up after this many seconds.")] = 900.0,
    picture: Annotated[Path | None, typer.Option(help="Save the view at its busiest moment as an SVG.")] = None,
) -> None:
    """Run a burst of real files through the exact cap, and verify every result."""
    plan = demo_story.Plan(
        jobs, cap, cold_start_s, reads, files or [], state() / "demo", Path("demo-out"), timeout_s, picture
    )
    sys.exit(demo_story.run(plan, Console()))


@app.command()
def schema() -> None:
    """Print the JSON schema of the message that a producer sends."""
    typer.echo(json.dumps(messages.json_schema(), indent=2))


@local_app.command()
def up(
    name: Name = "default",
    cap: Annotated[int, typer.Option(min=0, max=limits.BANK_SLOTS, help="How many workers may live at once.")] = 16,
    cold_start_s: Annotated[float, typer.Option(min=0, max=600, help="Seconds that a task takes to start.")] = 2.0,
) -> None:
    """Start an embedded cloud, deploy the stacks into it, and keep it up until Ctrl-C or `down`."""
    directory = state() / "local" / name
    console = Console(stderr=True)
    synth = Synth({"pools": [{"name": "default", "cap": cap}]})
    stop = threading.Event()
    try:
        with local_cloud.Cloud(directory, cold_start_s) as cloud:
            with console.status("deploying"):
                outputs = deploy(synth.assembly(), cloud.endpoints)
            (directory / "outputs.json").write_text(json.dumps(outputs, indent=2))
            console.print(
                f"[green]✔[/] the embedded cloud [bold]{name}[/] is up; Ctrl-C or `fleetcap local down` ends it"
            )
            console.print(f'  in another terminal: eval "$(fleetcap local env --name {name})"', highlight=False)
            stop.wait()
    finally:
        synth.cancel()


@local_app.command()
def down(name: Name = "default") -> None:
    """End an embedded cloud and everything that it started."""
    ended = local_cloud.shut_down(state() / "local" / name)
    typer.echo(f"The embedded cloud {name} is down." if ended else f"No embedded cloud {name} was up.")


@local_app.command()
def env(name: Name = "default") -> None:
    """Print export lines, so that any AWS client talks to the embedded cloud."""
    directory = state() / "local" / name
    variables = local_cloud.attach(directory).environment()
    outputs = json.loads((directory / "outputs.json").read_text())
    variables["FLEETCAP_INTAKE_QUEUE_URL"] = outputs["IntakeQueueUrl"]
    variables["FLEETCAP_INPUT_BUCKET"] = outputs["InputBucketName"]
    variables["FLEETCAP_CACHE_BUCKET"] = outputs["CacheBucketName"]
    for variable, value in variables.items():
        typer.echo(f"export {variable}={shlex.quote(value)}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: SIGTERM unwinds like Ctrl-C, and an expected error is one sentence, not a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except local_cloud.CloudError as error:
        typer.echo(f"fleetcap: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
