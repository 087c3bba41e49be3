"""What is sent and what goes wrong, under a seed. Values and chance only; `storm` carries it out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any, Final

from fleetcap import limits
from local.proxy.bill import ACTORS

ROUND_S: Final = 60
"""Every kind of fault has its turn in each round, in an order of the round's own."""
LONG_FROM_S: Final = 300
"""From this length on a storm also does what takes minutes to heal, and waits for every message in flight."""
INTAKE, TASK_STATE, TICK, WORKER = (f"{ACTORS}{name}" for name in ("intake", "task_state", "tick", "worker"))
KILLS: Final = ("kill-before", "kill-after")
SEEDS: Final = 1_000_000

BURST_JOBS: Final = (4, 16)
BURST_GAP_S: Final = (1.0, 5.0)
SHARE_TWICE, SHARE_AGAIN, SHARE_BAD, SHARE_REFUSED = 0.08, 0.04, 0.04, 0.03
HANG_S: Final = (4.0, 12.0)
LONG_HANG_S: Final = (20.0, 90.0)


# --- what goes wrong


@dataclass(frozen=True)
class Stroke:
    """One thing that goes wrong `at_s` after the storm began: a fault that stands from then on, or an act on a task.

    `resume_s`: how long after a hang its task may go on; None for never.
    """

    at_s: float
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    resume_s: float | None = None


def strokes(seed: int, cap: int, long: bool) -> Iterator[Stroke]:
    """Everything that goes wrong, in order of time, for as long as anybody asks."""
    yield from _standing(Random(f"{seed} standing"))
    yield from _OPENING
    for number in count():
        chance = Random(f"{seed} round {number}")
        drawn = _round(chance, number, cap, long)
        due = [replace(stroke, at_s=ROUND_S * (number + chance.uniform(0, 0.75))) for stroke in drawn]
        yield from sorted(due, key=lambda stroke: stroke.at_s)


def _standing(chance: Random) -> Iterator[Stroke]:
    """Small shares of everything that is asked and told, from the first moment to the last."""
    for actor in (INTAKE, TASK_STATE, TICK, WORKER):
        for kind, share, seconds in (("drop-request", 0.01, 0.0), ("drop-reply", 0.015, 0.0), ("delay", 0.03, 1.5)):
            yield Stroke(0, kind, {"actor": actor, "share": share, "seconds": seconds, "seed": _seed(chance)})
    for kind, share, seconds in (("double-events", 0.2, 8.0), ("delay-events", 0.3, 8.0)):
        yield Stroke(0, kind, {"share": share, "seconds": seconds, "text": "STOPPED", "seed": _seed(chance)})


def _once(kind: str, **options: object) -> Stroke:
    return Stroke(0, kind, {**options, "times": 1})


_OPENING: Final = (
    # Only at the beginning is it certain that intake leases and launches: later a freed slot is mostly task_state's.
    _once("kill-before", actor=INTAKE, operation="UpdateItem"),
    _once("kill-after", actor=INTAKE, operation="RunTask"),
    _once("kill-before", actor=TICK, operation="RunTask"),
    # The one that a short storm drops: early, so that the silent slot is found while others still beat.
    _once("drop-events", text="STOPPED"),
    Stroke(0, "kill"),
)

_LAUNCHES: Final = (
    *(_once(kind) for kind in ("throttle", "wrapped-throttle", "timeout-before-start", "timeout-after-start")),
    *(_once(kind) for kind in ("no-capacity", "never-starts")),
    _once("drop-reply", operation="RunTask"),
)
_DECIDERS: Final = (
    *(_once(kind, actor=actor, operation="RunTask") for kind in KILLS for actor in (INTAKE, TASK_STATE, TICK)),
    _once("kill-after", actor=INTAKE, operation="UpdateItem"),
    _once("kill-after", actor=TASK_STATE, operation="UpdateItem"),
    _once("kill-before", actor=TICK, operation="UpdateItem"),
    _once("kill-after", actor=TICK, operation="UpdateItem"),
)
_DECIDERS_LONG: Final = (
    _once("kill-before", actor=INTAKE, operation="PutItem"),
    _once("kill-after", actor=INTAKE, operation="PutItem"),
    _once("kill-before", actor=TASK_STATE, operation="UpdateItem"),
)
_WORKERS: Final = (
    # A claim and an end each write a time of this name; an artifact is put by the job's own process.
    *(_once(kind, actor=WORKER, operation="UpdateItem", text="claimed_at") for kind in KILLS),
    *(_once(kind, actor=WORKER, operation="UpdateItem", text="ended_at") for kind in KILLS),
    *(_once(kind, actor=WORKER, operation="PutObject") for kind in KILLS),
)
_LAUNCHES_A_ROUND, _DECIDERS_A_ROUND, _WORKERS_A_ROUND = 4, 4, 3
"""How many of each come in a round; of launches all in the first one. More, and no launch would ever just succeed."""


def _round(chance: Random, number: int, cap: int, long: bool) -> list[Stroke]:
    """Ways for a launch to fail, some deaths in the middle of a call, and more of others the larger the cap."""
    found = [
        *(chance.sample(_LAUNCHES, _LAUNCHES_A_ROUND) if number else _LAUNCHES),
        *chance.sample(_DECIDERS, _DECIDERS_A_ROUND),
        *chance.sample(_WORKERS, _WORKERS_A_ROUND),
        *(Stroke(0, "kill") for _ in range(2 + cap // 4)),
        Stroke(0, "spot"),
        Stroke(0, "hang", resume_s=chance.uniform(*HANG_S)),
    ]
    if long:
        found += [*chance.sample(_DECIDERS_LONG, 2), _once("drop-events", text="STOPPED")]
        found.append(Stroke(0, "hang", resume_s=None if number % 2 else chance.uniform(*LONG_HANG_S)))
    return found


def kinds() -> frozenset[str]:
    """Every kind that a storm must have brought."""
    drawn = [*_standing(Random(0)), *_OPENING, *_round(Random(0), 0, 1, long=False)]
    return frozenset(stroke.kind for stroke in drawn)


def _seed(chance: Random) -> int:
    return chance.randrange(SEEDS)


# --- what is sent


@dataclass(frozen=True)
class Sent:
    """What was ordered under one workflow key: from which source, and whether that can only fail."""

    source: str
    bad: bool = False


@dataclass(frozen=True)
class Burst:
    """Messages to send at once, `gap_s` after the one before. `orders` are the keys that it names first."""

    gap_s: float
    bodies: Sequence[str]
    orders: Mapping[str, Sent]
    refused: frozenset[str]


def bursts(seed: int, bucket: str, good: Sequence[str], bad: Sequence[str]) -> Iterator[Burst]:
    """Every burst, for as long as anybody asks. `good` and `bad` are names of files in the input bucket.

    Some messages are sent twice at once, some again later, some can only fail, and some can only be rejected.
    """
    chance = Random(f"{seed} messages")
    numbers, sent = count(1), list[str]()
    while True:
        bodies: list[str] = []
        orders: dict[str, Sent] = {}
        refused: set[str] = set()
        for _ in range(chance.randint(*BURST_JOBS)):
            first = not sent
            number = next(numbers)
            fails = first or chance.random() < SHARE_BAD
            name = chance.choice(bad if fails else good)
            key = f"chaos/{number:06d}"
            orders[key] = Sent(name, fails)
            body = _message(bucket, key, name)
            twice = first or chance.random() < SHARE_TWICE
            bodies += [body] * (2 if twice else 1)
            if sent and chance.random() < SHARE_AGAIN:
                bodies.append(chance.choice(sent))
            if first or chance.random() < SHARE_REFUSED:
                refused.add(wrong := _refused(chance, bucket, number))
                bodies.append(wrong)
            sent.append(body)
        chance.shuffle(bodies)
        yield Burst(chance.uniform(*BURST_GAP_S), bodies, orders, frozenset(refused))


def _message(bucket: str, key: str, name: str) -> str:
    """A job may fail as often as it likes: here a failure by itself is always somebody else's doing."""
    message = {"source": f"s3://{bucket}/{name}", "workflow_key": key, "max_attempts": limits.ATTEMPTS_LIMIT}
    return json.dumps(message)


def _refused(chance: Random, bucket: str, number: int) -> str:
    """A message that can never run; each has a text of its own."""
    source = f"s3://{bucket}/a.bam"
    return chance.choice(
        [
            f"no job at all, number {number}",
            json.dumps({"source": source, "workflow_key": f"refused/{number}", "colour": "blue"}),
            json.dumps({"source": source, "workflow_key": f"refused/{number}", "pool": "nowhere"}),
            json.dumps({"source": source, "workflow_key": f"refused/{number}", "max_attempts": 0}),
            json.dumps({"source": f"s3://{bucket}/{number}.txt"}),
        ]
    )
