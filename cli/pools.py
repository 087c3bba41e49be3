"""`fleetcap pools`, `reserve`, `reservations`, `unreserve` and `stop-all`: pools as they are, and what a person says
of them at run time. Each deed may be killed anywhere and called again; what it left undone the tick does as well."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress

from cli import board, poolboard
from cli.target import AsJson, CloudName, Failed, StackName, Target, reached
from fleetcap import limits
from fleetcap import pools as deeds
from fleetcap.adapters.system import SystemClock
from fleetcap.adapters.workers import EcsTasks
from fleetcap.jobs import Contended
from fleetcap.model import Mode, Pool, Reservation
from fleetcap.ports import Clock, ControlTable, Tasks
from stacks.config import NAME

T = TypeVar("T")
Follow = Callable[[Iterable[Any]], Iterable[Any]]
"""Shows how far a loop is while it goes on."""

CONFIGURED: Final = "configured"
DRAIN_LOOK_S: Final = 2.0
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": limits.DAY_S}
_ALL_POOLS: Final = "--all"

app = typer.Typer(help="Show the pools; set, pause, drain and resume them at run time.")

Names = Annotated[list[str] | None, typer.Argument(metavar="POOL…", help="Pools.")]
Everything = Annotated[bool, typer.Option(_ALL_POOLS, help="Every pool.")]
Reason = Annotated[str, typer.Option(help="Shown wherever somebody asks why jobs wait.")]


@contextmanager
def _heard(name: str | None, stack: str | None) -> Iterator[Target]:
    """The deployment that is meant. What cannot be said of its pools is told in one sentence."""
    try:
        with reached(name, stack) as target:
            yield target
    except (Contended, deeds.Refused) as error:
        raise Failed(str(error)) from error


def _known(target: Target, name: str) -> Pool:
    """A pool as it is configured. Raises Failed where there is none of this name."""
    if name not in target.pools:
        raise Failed(f"{target.told} has no pool {name!r}; it has {', '.join(target.pools)}")
    return target.pools[name]


def _chosen(target: Target, names: Sequence[str] | None, everything: bool) -> list[Pool]:
    if bool(names) == everything:
        raise typer.BadParameter("name pools, or all of them", param_hint=f"POOL…, {_ALL_POOLS}")
    return [_known(target, name) for name in names or target.pools]


def _followed(what: str) -> Follow:
    """A bar on a person's terminal, gone once it is full."""

    def follow(things: Iterable[T]) -> Iterator[T]:
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            total = len(things) if isinstance(things, Sequence) else None
            yield from bar.track(things, total=total, description=what)

    return follow


# --- looking on


@app.callback(invoke_without_command=True)
def pools(context: typer.Context, as_json: AsJson = False, name: CloudName = None, stack: StackName = None) -> None:
    """Show the pools; set, pause, drain and resume them at run time."""
    if context.invoked_subcommand:
        if as_json or name or stack:
            raise typer.BadParameter("options stand behind the subcommand that they are for")
        return
    with reached(name, stack) as target:
        now = SystemClock().now()
        found = [deeds.seen(target.table, pool, now) for pool in target.pools.values()]
    if as_json:
        records = [poolboard.record(each, target.pools[each.view.pool.name]) for each in found]
        typer.echo(json.dumps({"pools": records}, indent=2))
    else:
        board.console().print(poolboard.listing(found, target.pools))


# --- figures


def whole_or_configured(text: str | None) -> int | str | None:
    """A number of workers, or the word that takes one back. Raises BadParameter on anything else."""
    if text is None or text == CONFIGURED:
        return text
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise typer.BadParameter(f"{text!r} is neither a number of workers nor the word {CONFIGURED!r}")
    return int(text)


def hours_or_configured(text: str | None) -> float | str | None:
    """Task-hours, or the word that takes them back. Raises BadParameter on anything else."""
    if text is None or text == CONFIGURED:
        return text
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 <= hours < math.inf:
        raise typer.BadParameter(f"{text!r} is neither a number of task-hours nor the word {CONFIGURED!r}")
    return hours


def words(**given: float | str | None) -> dict[str, float | None]:
    """What is to be said: only what was given, None for what is to be as configured."""
    return {name: None if isinstance(value, str) else value for name, value in given.items() if value is not None}


@app.command("set")
def set_(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Which pool.")],
    cap: Annotated[str | None, typer.Option(metavar="N", help="How many workers may live at once.")] = None,
    min_workers: Annotated[str | None, typer.Option("--min", metavar="N", help="How many live at any time.")] = None,
    warm_workers: Annotated[
        str | None, typer.Option("--warm", metavar="N", help="How many are idle, or coming, for whoever comes next.")
    ] = None,
    budget_task_hours: Annotated[
        str | None, typer.Option(metavar="H", help="What its tasks may come to in a day (UTC); 0: no bound.")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Stop the tasks above a lowered cap; their jobs go back.")] = False,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Set figures of a pool, until somebody says otherwise. The word `configured` takes one back to the deployed value.

    Running jobs are never killed for a lower cap unless --now is given.
    """
    said = words(
        cap=whole_or_configured(cap),
        min_workers=whole_or_configured(min_workers),
        warm_workers=whole_or_configured(warm_workers),
        budget_task_hours=hours_or_configured(budget_task_hours),
    )
    if not said:
        raise typer.BadParameter("say at least one figure", param_hint="--cap, --min, --warm, --budget-task-hours")
    if now and "cap" not in said:
        raise typer.BadParameter("only a cap leaves tasks above it", param_hint="--now")
    with _heard(name, stack) as target:
        configured, clock = _known(target, pool), SystemClock()
        tasks = EcsTasks(target.client("ecs"))
        done = said_of(target.table, clock, tasks, configured, said, now, _followed("slots"))
    if as_json:
        typer.echo(json.dumps(done.record(), indent=2))
    else:
        for sentence in done.sentences(configured, said):
            typer.echo(f"{pool}: {sentence}")
    if done.superseded:
        typer.echo(f"{pool}: somebody else has spoken meanwhile; `fleetcap pools` shows what holds", err=True)


@dataclass(frozen=True)
class Said:
    """What a word about figures has come to. `above`: the workers above the cap, of which `stopped` had a task that was
    told to stop and `starting` none yet."""

    before: Pool
    after: Pool
    above: int = 0
    stopped: int = 0
    starting: int = 0
    superseded: bool = False

    def record(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "pool": self.after.name,
            "before": {name: getattr(self.before, name) for name in poolboard.WORDS},
            "after": {name: getattr(self.after, name) for name in poolboard.WORDS},
            "above_cap": self.above,
            "stopped": self.stopped,
            "starting": self.starting,
            "superseded": self.superseded,
        }

    def sentences(self, configured: Pool, said: Mapping[str, object]) -> Iterator[str]:
        """For people."""
        yield poolboard.changed(self.before, self.after, configured) or "as it was"
        if "cap" in said and (self.after.cap <= self.before.cap or self.above):
            yield poolboard.above_the_cap(self.after, self.above, self.stopped, self.starting)
        if self.after.cap > self.before.cap:
            yield f"decisions may lease up to {self.after.cap}; the next one comes within a minute"
        if self.after.min_workers > self.before.min_workers or self.after.warm_workers > self.before.warm_workers:
            yield "workers that are missing come with the next decision, within a minute"


def said_of(
    table: ControlTable,
    clock: Clock,
    tasks: Tasks,
    pool: Pool,
    said: Mapping[str, object],
    at_once: bool,
    follow: Follow = iter,
) -> Said:
    """Say figures of a pool, and see a cap through: afterwards nothing above it can be leased.

    `at_once` stops the tasks that are there; where somebody has raised the cap meanwhile, their slots carry no mark any
    more, and they are spared. Raises as `change` does.
    """
    before, after = deeds.change(table, clock, pool, said)
    if "cap" not in said:
        return Said(before, after)
    for _ in follow(deeds.fit_the_cap(table, clock, after, max(table.override(pool.name).cap_max, after.cap))):
        pass
    above = [slot for slot in table.slots(pool.name) if slot.held and slot.retire and slot.id.number >= after.cap]
    stopped = 0
    for slot in follow(above) if at_once else ():
        stopped += deeds.stop(table, tasks, slot, f"the cap was lowered to {after.cap}")
        clock.sleep(limits.STOP_PAUSE_S)
    starting = len(above) - stopped if at_once else 0
    superseded = table.override(pool.name).version != after.version
    return Said(before, after, len(above), stopped, starting, superseded)


# --- modes

_MEANS: Final = {
    Mode.OPEN: "jobs start again: on idle workers now, on new ones with the next decision, within a minute",
    Mode.PAUSED: "no job starts and no worker is launched from now on; what runs goes on",
    Mode.DRAINING: "no job starts and no worker is launched from now on; workers leave once they have nothing to do",
    Mode.STOPPED: "no job starts and no worker is launched from now on",
}


@app.command()
def pause(
    names: Names = None,
    reason: Reason = "",
    everything: Everything = False,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Let no job start and no worker be launched; what runs goes on."""
    with _heard(name, stack) as target:
        _say_mode(target, _chosen(target, names, everything), Mode.PAUSED, reason, as_json)


@app.command()
def drain(
    names: Names = None,
    reason: Reason = "",
    everything: Everything = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return once no worker is left.")] = False,
    timeout_s: Annotated[float, typer.Option(min=1, help="Give up waiting after this many seconds.")] = 14_400.0,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Let no job start and no worker be launched, and workers leave once they have nothing to do."""
    with _heard(name, stack) as target:
        chosen = _chosen(target, names, everything)
        _say_mode(target, chosen, Mode.DRAINING, reason, as_json)
        if wait:
            console = Console(stderr=True)
            with console.status("draining") as status:
                await_empty(
                    target.table,
                    SystemClock(),
                    chosen,
                    timeout_s,
                    lambda held: status.update(f"draining: {poolboard.counted(held, 'worker')} left"),
                )
            if not as_json:
                typer.echo("no worker is left")


@app.command()
def resume(
    names: Names = None,
    everything: Everything = False,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Let pools go on that were paused, drained or stopped."""
    with _heard(name, stack) as target:
        _say_mode(target, _chosen(target, names, everything), Mode.OPEN, "", as_json)


def _say_mode(target: Target, chosen: Sequence[Pool], mode: Mode, reason: str, as_json: bool) -> None:
    told = [set_mode(target.table, SystemClock(), pool, mode, reason) for pool in chosen]
    if as_json:
        records = [{"pool": after.name, "before": before.mode.value, "mode": mode.value} for before, after in told]
        typer.echo(json.dumps({"pools": records}, indent=2))
        return
    for before, after in told:
        was = "" if before.mode is mode else f" (was {before.mode.value})"
        typer.echo(f"{after.name} is {mode.value}{was}: {_MEANS[mode]}")


def set_mode(table: ControlTable, clock: Clock, pool: Pool, mode: Mode, reason: str) -> tuple[Pool, Pool]:
    """Say what a pool may do: the pool before and after. Raises Contended."""
    words = {"mode": mode.value, "reason": reason[: limits.PROGRESS_MAX_CHARS] or None}
    return deeds.change(table, clock, pool, words)


def await_empty(
    table: ControlTable, clock: Clock, chosen: Sequence[Pool], timeout_s: float, left: Callable[[int], object]
) -> None:
    """Wait until no slot of these pools is held; `left` hears how many are. Raises Failed where that takes too long, or
    somebody has let one of the pools go on."""
    give_up_at = clock.now() + timeout_s
    while True:
        for pool in chosen:
            if (mode := table.override(pool.name).mode) not in {Mode.DRAINING, Mode.STOPPED}:
                raise Failed(f"pool {pool.name} is {mode.value} again: somebody has spoken meanwhile")
        held = sum(slot.held for pool in chosen for slot in table.slots(pool.name))
        left(held)
        if not held:
            return
        if clock.now() >= give_up_at:
            waited = f"after {timeout_s:g} s {poolboard.counted(held, 'worker')} of {', '.join(p.name for p in chosen)}"
            raise Failed(f"{waited} {'is' if held == 1 else 'are'} still there; draining goes on")
        clock.sleep(DRAIN_LOOK_S)


def stop_all(
    names: Names = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: Reason = "stop-all",
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Stop every task of all pools, or of those named, at once. Jobs go back to the queue until `pools resume`."""
    with _heard(name, stack) as target:
        chosen = _chosen(target, names, not names)
        if not yes:
            _confirm(target, chosen)
        tasks, clock = EcsTasks(target.client("ecs")), SystemClock()
        for pool in chosen:  # the mode first, for all: whatever happens to this command, the tick goes on from there
            set_mode(target.table, clock, pool, Mode.STOPPED, reason)
        ended = {
            pool.name: ended_all(target.table, clock, tasks, pool, reason, _followed(pool.name)) for pool in chosen
        }
    if as_json:
        records = [{"pool": pool, "stopped": told, "starting": starting} for pool, (told, starting) in ended.items()]
        typer.echo(json.dumps({"pools": records}, indent=2))
        return
    for pool_name, (told, starting) in ended.items():
        coming = f"; {starting} still starting, to be stopped by the tick" if starting else ""
        jobs = "its jobs go" if told == 1 else "their jobs go"
        typer.echo(f"{pool_name} is stopped: {poolboard.counted(told, 'task')} told to stop, {jobs} back{coming}")
    again = " ".join(names) if names else _ALL_POOLS
    typer.echo(f"`fleetcap pools resume {again}` lets it go on")


def _confirm(target: Target, chosen: Sequence[Pool]) -> None:
    """Ask whoever sits there. Raises BadParameter where nobody does."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is nobody to ask: say it", param_hint="--yes")
    named = ", ".join(pool.name for pool in chosen)
    typer.confirm(f"Stop every task of {named} in {target.told}?", abort=True, err=True)


def ended_all(
    table: ControlTable, clock: Clock, tasks: Tasks, pool: Pool, why: str, follow: Follow = iter
) -> tuple[int, int]:
    """Stop whatever task of a stopped pool is known; how many were told so, and of how many no task is known yet.

    Raises Failed where somebody lets the pool go on meanwhile: the other tasks are spared.
    """
    held = [slot for slot in table.slots(pool.name) if slot.held]
    told = 0
    for slot in follow(held):
        if (mode := table.override(pool.name).mode) is not Mode.STOPPED:
            raise Failed(f"pool {pool.name} is {mode.value} again: somebody has spoken after {told} tasks were stopped")
        told += deeds.stop(table, tasks, slot, why or "stop-all")
        clock.sleep(limits.STOP_PAUSE_S)
    return told, len(held) - told


# --- reservations


def duration_s(text: str) -> int:
    """Seconds of 90s, 15m, 2h or 1d. Raises BadParameter on anything else, and on more than may be reserved."""
    read = _DURATION.fullmatch(text)
    if not read:
        raise typer.BadParameter(f"{text!r} is no length of time: write 90s, 15m, 2h or 1d", param_hint="--for")
    seconds = int(read[1]) * _UNIT_S[read[2]]
    if seconds > limits.RESERVATION_MAX_S:
        days = limits.RESERVATION_MAX_S // limits.DAY_S
        raise typer.BadParameter(f"{text} is longer than a reservation may last: {days}d at most", param_hint="--for")
    return seconds


def reserve(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Which pool.")],
    workers: Annotated[int, typer.Argument(min=1, help="How many workers are to live.")],
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="For how long: 90s, 15m, 2h, 1d.")],
    label: Annotated[str, typer.Option("--as", metavar="LABEL", help="What to call it; made up without.")] = "",
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Have workers live for a while, whether there is work or not. They cost what running workers cost."""
    seconds, clock = duration_s(duration), SystemClock()
    if label and not NAME.fullmatch(label):
        raise typer.BadParameter("use a-z, 0-9 and -, a letter first, 32 at most", param_hint="--as")
    with _heard(name, stack) as target:
        configured = _known(target, pool)
        made = deeds.reserve(target.table, clock, configured, workers, seconds, label or f"r-{clock.unique()[:8]}")
        mode = target.table.override(pool).mode
    if as_json:
        typer.echo(json.dumps(poolboard.reservation_record(made), indent=2))
    else:
        typer.echo(reserved(made, mode, clock.now()))


def reserved(made: Reservation, mode: Mode, now: float) -> str:
    """What a reservation means, in one sentence."""
    come = (
        "those that are missing come with the next decision, within a minute"
        if mode is Mode.OPEN
        else f"the pool is {mode.value}, so none comes before `fleetcap pools resume {made.pool}`"
    )
    lasts = f"until {poolboard.until(made.until, now)}"
    return f"{made.name}: {poolboard.counted(made.workers, 'worker')} of {made.pool} {lasts}; {come}"


def reservations(
    pool: Annotated[str, typer.Option(help="Only those of this pool.")] = "",
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """List the reservations that are not over."""
    with reached(name, stack) as target:
        chosen = [_known(target, pool)] if pool else list(target.pools.values())
        now = SystemClock().now()
        everything = [each for one in chosen for each in target.table.bank(one.name, 0).reservations]
    found = sorted((each for each in everything if each.until > now), key=lambda each: (each.pool, each.until))
    if as_json:
        typer.echo(json.dumps({"reservations": list(map(poolboard.reservation_record, found))}, indent=2))
    else:
        board.console().print(poolboard.reservations(found, now) if found else "There are no reservations.")


def unreserve(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Which pool.")],
    labels: Annotated[list[str], typer.Argument(metavar="LABEL…", help="Which reservations.")],
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """End reservations before their time; idle workers leave within a minute, busy ones later."""
    with _heard(name, stack) as target:
        configured, clock = _known(target, pool), SystemClock()
        missing = [each for each in labels if not target.table.unreserve(configured.name, each, clock.now())]
    for each in labels:
        if each not in missing:
            typer.echo(f"{each}: ended")
    if missing:
        raise Failed(f"pool {pool} has no reservation {', '.join(missing)}")
