"""Pools as people and scripts see them. Rendering only: values in, renderables, sentences or JSON documents out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from cli.board import moment
from fleetcap.decide import budget, capacity
from fleetcap.decide.waiting import clock_time
from fleetcap.limits import DAY_S
from fleetcap.model import OVERRIDABLE, Mode, Pool, Reservation
from fleetcap.pools import Seen, states

MODES: Final = {Mode.OPEN: "green", Mode.PAUSED: "yellow", Mode.DRAINING: "yellow", Mode.STOPPED: "red"}
STATES: Final = ("launching", "busy", "idle", "leaving", "retiring")
WORDS: Final = {"cap": "cap", "min_workers": "min", "warm_workers": "warm", "budget_task_hours": "budget"}


def in_force(seen: Seen) -> list[Reservation]:
    """The reservations that are not over, the one that ends first in front."""
    return sorted((each for each in seen.view.reservations if each.until > seen.view.now), key=lambda each: each.until)


def reservation_record(reservation: Reservation) -> dict[str, Any]:
    """A reservation as a JSON document. Times are unix seconds."""
    return {
        "pool": reservation.pool,
        "name": reservation.name,
        "workers": reservation.workers,
        "until": reservation.until,
        "made_at": reservation.made_at,
    }


def record(seen: Seen, configured: Pool) -> dict[str, Any]:
    """A pool as a JSON document. Times are unix seconds; `waits` is null where nothing keeps it from launching."""
    view, pool = seen.view, seen.view.pool
    found = states(view)
    wait = capacity.full(pool, view.slots, view.now)
    return {
        "pool": pool.name,
        "mode": pool.mode.value,
        "reason": pool.reason,
        **{name: getattr(pool, name) for name in OVERRIDABLE},
        "configured": {name: getattr(configured, name) for name in OVERRIDABLE},
        "slots": {state: found[state] for state in STATES},
        "queued": seen.queued,
        "queued_is_all": seen.whole,
        "running": len(view.running),
        "reservations": [reservation_record(each) for each in in_force(seen)],
        "providers": dict(pool.providers) or {capacity.ON_DEMAND: 1},
        "task_hours_today": round(budget.spent_h(view.slots, view.now), 3),
        "waits": {"reason": wait.reason, "until": wait.until or None} if wait else None,
    }


def listing(pools: Sequence[Seen], configured: Mapping[str, Pool]) -> Table:
    """A row a pool; `configured` by name. Short words on lines of their own, so that it fits a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for column in ("pool", "cap", "workers", "jobs"):
        table.add_column(column, no_wrap=True)
    for column in ("standing by", "capacity", "task-hours today", "no launch because"):
        table.add_column(column, overflow="fold")
    for number, seen in enumerate(pools):
        table.add_row(*_row(seen, configured[seen.view.pool.name]), end_section=number < len(pools) - 1)
    return table


def _row(seen: Seen, configured: Pool) -> Iterable[str | Text]:
    view, pool = seen.view, seen.view.pool
    found = states(view)
    wait = capacity.full(pool, view.slots, view.now)
    return (
        Text(pool.name, "bold").append(f"\n{pool.mode.value}", f"not bold {MODES[pool.mode]}"),
        with_configured(pool, configured, "cap").replace(" ", "\n", 1),
        "\n".join(f"{found[state]} {state}" for state in STATES if found[state]) or "none",
        f"{seen.queued:,}{'' if seen.whole else '+'} queued\n{len(view.running):,} running",
        _standing_by(seen, configured),
        "\n".join(f"{name} {weight}" for name, weight in pool.providers.items()) or capacity.ON_DEMAND,
        _hours(seen, configured),
        Text(told_wait(wait, view.now) if wait else ""),
    )


def with_configured(pool: Pool, configured: Pool, name: str) -> str:
    """One figure, and what it is configured to where somebody has said otherwise."""
    value, before = getattr(pool, name), getattr(configured, name)
    return f"{value:g}" if value == before else f"{value:g} (configured {before:g})"


def _standing_by(seen: Seen, configured: Pool) -> Text:
    pool = seen.view.pool
    told = [
        f"{WORDS[name]} {with_configured(pool, configured, name)}"
        for name in ("min_workers", "warm_workers")
        if getattr(pool, name) or getattr(configured, name)
    ]
    told += [f"{each.name}: {each.workers} until {until(each.until, seen.view.now)}" for each in in_force(seen)]
    return Text("\n".join(told))


def _hours(seen: Seen, configured: Pool) -> str:
    pool = seen.view.pool
    spent = f"{budget.spent_h(seen.view.slots, seen.view.now):.1f}"
    bounded = pool.budget_task_hours or configured.budget_task_hours
    return f"{spent} of {with_configured(pool, configured, 'budget_task_hours')}" if bounded else spent


def until(at: float, now: float) -> str:
    """A moment to come: within a day the time is enough."""
    return clock_time(at) if at - now < DAY_S else moment(at)


def told_wait(wait: capacity.Wait, now: float) -> str:
    """What keeps a pool from launching, and until when where that is known."""
    return f"until {until(wait.until, now)}: {wait.reason}" if wait.until else wait.reason


def reservations(found: Sequence[Reservation], now: float) -> Table:
    """A row a reservation."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in ("pool", "name"):
        table.add_column(column, no_wrap=True)
    table.add_column("workers", justify="right")
    table.add_column("until", no_wrap=True)
    for each in found:
        table.add_row(Text(each.pool), Text(each.name), str(each.workers), until(each.until, now))
    return table


# --- what a deed has come to


def counted(count: int, what: str) -> str:
    """So many of something: 1 worker, 2 workers."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def changed(before: Pool, after: Pool, configured: Pool) -> str:
    """The figures of a pool that are others now; empty where none is."""
    told = [
        f"{WORDS[name]} {getattr(before, name):g} → {with_configured(after, configured, name)}"
        for name in OVERRIDABLE
        if getattr(before, name) != getattr(after, name)
    ]
    return ", ".join(told)


def above_the_cap(after: Pool, above: int, stopped: int, starting: int) -> str:
    """What holds above a cap that was set. Of the `above` workers there `stopped` were told to end at once, and of
    `starting` ones no task is known yet."""
    leased = f"from now on nothing is leased above {after.cap}"
    if not above:
        return f"{leased}, and no worker is there"
    if not stopped and not starting:
        verb = "finishes its job and leaves" if above == 1 else "finish their jobs and leave"
        return f"{leased}; {counted(above, 'worker')} above it {verb}"
    sentence = f"{leased}; {counted(stopped, 'task')} above it told to stop, their jobs go back to the queue"
    return sentence + (f"; {starting} still starting, to leave at once" if starting else "")
