"""What is sent and what goes wrong, under a seed. Values and chance only; `storm` carries it out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any, Final

from fleetcap import limits
from fleetcap.decide import arrays
from fleetcap.model import OnParentFailure
from local.proxy.bill import ACTORS

ROUND_S: Final = 60
"""Every kind of fault has its turn in each round, in an order of the round's own."""
LONG_FROM_S: Final = 300
"""From this length on a storm also does what takes minutes to heal, and waits for every message in flight."""
ROLES: Final = ("intake", "task_state", "publish", "tick", "worker")
INTAKE, TASK_STATE, PUBLISH, TICK, WORKER = (f"{ACTORS}{name}" for name in ROLES)
KILLS: Final = ("kill-before", "kill-after")
LOWER_CAP, RAISE_CAP = "lower-cap", "raise-cap"
CAPS: Final = frozenset({LOWER_CAP, RAISE_CAP})
"""What a person says while all this goes on: no fault, and the deciders at work have the other figure in hand."""
SEEDS: Final = 1_000_000

BURST_JOBS: Final = (4, 16)
BURST_GAP_S: Final = (1.0, 5.0)
SHARE_TWICE, SHARE_AGAIN, SHARE_BAD, SHARE_REFUSED = 0.08, 0.04, 0.04, 0.03
SHARE_BAD_PARENT, SHARE_ANYWAY, SHARE_AWAITED = 0.3, 0.5, 0.5
CHAIN_JOBS: Final = (2, 4)
ARRAY_JOBS: Final = (2, 8)
LARGE_ARRAY_JOBS: Final = limits.ARRAY_STEP + 10
"""Elements of an array of two levels: no smaller one has any."""
WHOLE, TORN = f"whole-{arrays.INDEX}.bam", f"torn-{arrays.INDEX}.bam"
"""The sources of arrays: all of them are good, or those of some elements are not."""
TORN_ELEMENTS: Final = frozenset({1, 4})
TENANTS: Final = ("", "north", "south", "west")
TENANT_WEIGHTS: Final = ("north=3", "south=2")
HANG_S: Final = (4.0, 12.0)
LONG_HANG_S: Final = (20.0, 90.0)


# --- what goes wrong


@dataclass(frozen=True)
class Stroke:
    """One thing that comes `at_s` after the storm began: a fault that stands from then on, an act on a task, or a cap.

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
        due += [replace(stroke, at_s=ROUND_S * number + stroke.at_s) for stroke in _caps(chance, cap)]
        yield from sorted(due, key=lambda stroke: stroke.at_s)


def _caps(chance: Random, cap: int) -> list[Stroke]:
    """In each round below what is configured, and then above it."""
    lower, higher = chance.randint(cap // 2, cap - 1), chance.randint(cap + 1, cap + max(cap // 4, 1))
    lowered_s, raised_s = chance.uniform(0.1, 0.3), chance.uniform(0.45, 0.7)
    return [
        Stroke(ROUND_S * lowered_s, LOWER_CAP, {"cap": lower}),
        Stroke(ROUND_S * raised_s, RAISE_CAP, {"cap": higher}),
    ]


def _standing(chance: Random) -> Iterator[Stroke]:
    """Small shares of everything that is asked and told, from the first moment to the last."""
    for actor in (INTAKE, TASK_STATE, PUBLISH, TICK, WORKER):
        for kind, share, seconds in (("drop-request", 0.01, 0.0), ("drop-reply", 0.015, 0.0), ("delay", 0.03, 1.5)):
            yield Stroke(0, kind, {"actor": actor, "share": share, "seconds": seconds, "seed": _seed(chance)})
    for kind, share, seconds in (("double-events", 0.2, 8.0), ("delay-events", 0.3, 8.0)):
        yield Stroke(0, kind, {"share": share, "seconds": seconds, "text": "STOPPED", "seed": _seed(chance)})


def _once(kind: str, **options: object) -> Stroke:
    return Stroke(0, kind, {**options, "times": 1})


_OPENING: Final = (
    # Only at the beginning is it certain that intake leases and launches: later a freed slot is mostly task_state's.
    _once("kill-before", actor=INTAKE, operation="UpdateItem", text="leased_at"),
    _once("kill-after", actor=INTAKE, operation="RunTask"),
    _once("kill-before", actor=TICK, operation="RunTask"),
    # The one that a short storm drops: early, so that the silent slot is found while others still beat.
    _once("drop-events", text="STOPPED"),
    # The change is told twice.
    _once("drop-reply", actor=PUBLISH, operation="PutEvents"),
    Stroke(0, "kill"),
)

_LAUNCHES: Final = (
    *(_once(kind) for kind in ("throttle", "wrapped-throttle", "timeout-before-start", "timeout-after-start")),
    *(_once(kind) for kind in ("no-capacity", "never-starts")),
    _once("drop-reply", operation="RunTask"),
)
_DECIDERS: Final = (
    *(_once(kind, actor=actor, operation="RunTask") for kind in KILLS for actor in (INTAKE, TASK_STATE, TICK)),
    *(_once(kind, actor=PUBLISH, operation="PutEvents") for kind in KILLS),
    _once("kill-after", actor=INTAKE, operation="UpdateItem", text="leased_at"),
    _once("kill-after", actor=TASK_STATE, operation="UpdateItem"),
    _once("kill-before", actor=TICK, operation="UpdateItem"),
    _once("kill-after", actor=TICK, operation="UpdateItem"),
)
_DECIDERS_LONG: Final = (
    _once("kill-before", actor=INTAKE, operation="PutItem"),
    _once("kill-after", actor=INTAKE, operation="PutItem"),
    # Of a tenant's share, or of a job that waited: the batch's messages may not have been put yet.
    _once("kill-before", actor=INTAKE, operation="UpdateItem"),
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
    drawn = [*_standing(Random(0)), *_OPENING, *_round(Random(0), 0, 1, long=False), *_caps(Random(0), 1)]
    return frozenset(stroke.kind for stroke in drawn)


def _seed(chance: Random) -> int:
    return chance.randrange(SEEDS)


# --- what is sent


@dataclass(frozen=True)
class Sent:
    """What was ordered under one workflow key: from which source, and whether that can only fail.

    `after` are the keys of those that must have ended before, completed unless it runs `anyway`. An `array` of so many
    elements has `{index}` in its source, and each element is an order of its own.
    """

    source: str
    bad: bool = False
    tenant: str = ""
    after: tuple[str, ...] = ()
    anyway: bool = False
    array: int = 0


@dataclass(frozen=True)
class Burst:
    """Messages to send at once, `gap_s` after the one before. `orders` are the keys that it names first."""

    gap_s: float
    bodies: Sequence[str]
    orders: Mapping[str, Sent]
    refused: frozenset[str]


def bursts(seed: int, bucket: str, good: Sequence[str], bad: Sequence[str], long: bool = False) -> Iterator[Burst]:
    """Every burst, for as long as anybody asks. `good` and `bad` are names of files in the input bucket.

    Some messages are sent twice at once, some again later, some can only fail, and some can only be rejected; some jobs
    wait for others, sent in any order, and some are arrays. The first burst has one of each.
    """
    chance = Random(f"{seed} messages")
    shapes = _Shapes(chance, good, bad)
    coming = shapes.opening(long)
    numbers, sent = count(1), list[str]()
    while True:
        bodies: list[str] = []
        orders: dict[str, Sent] = {}
        refused: set[str] = set()
        size = chance.randint(*BURST_JOBS)
        while coming or len(orders) < size:
            number = next(numbers)
            shape = coming.pop(0) if coming else shapes.any()
            named = shape(f"chaos/{number:06d}")
            orders |= named
            for key, order in named.items():
                first = not sent
                body = _message(bucket, key, order)
                twice = first or chance.random() < SHARE_TWICE
                bodies += [body] * (2 if twice else 1)
                if sent and chance.random() < SHARE_AGAIN:
                    bodies.append(chance.choice(sent))
                if first or chance.random() < SHARE_REFUSED:
                    refused.add(wrong := _refused(chance, bucket, key))
                    bodies.append(wrong)
                sent.append(body)
            orders |= {key: element for array, order in named.items() for key, element in elements(array, order)}
        chance.shuffle(bodies)
        yield Burst(chance.uniform(*BURST_GAP_S), bodies, orders, frozenset(refused))


def elements(key: str, array: Sent) -> Iterator[tuple[str, Sent]]:
    """The orders that an array stands for, by their keys; none for a job that is no array."""
    for index in range(array.array):
        source = array.source.replace(arrays.INDEX, str(index))
        yield f"{key}/{index}", Sent(source, array.source == TORN and index in TORN_ELEMENTS, array.tenant)


Shape = Callable[[str], dict[str, Sent]]
"""Orders that belong together, all of one tenant, under keys that begin with the given one."""


@dataclass(frozen=True)
class _Shapes:
    """What may be ordered, drawn by chance."""

    chance: Random
    good: Sequence[str]
    bad: Sequence[str]

    def opening(self, long: bool) -> list[Shape]:
        """One of each: among them a chain whose first job fails, its second too, and its third runs all the same."""

        def fallen(key: str) -> dict[str, Sent]:
            return self._followed(key, True, (False, True))

        def whole(key: str) -> dict[str, Sent]:
            return self._array(key, WHOLE, self.chance.randint(*ARRAY_JOBS))

        def torn(key: str) -> dict[str, Sent]:
            return self._array(key, TORN, self.chance.randint(*ARRAY_JOBS))

        def large(key: str) -> dict[str, Sent]:
            return self._array(key, WHOLE, LARGE_ARRAY_JOBS)

        return [lambda key: self._job(key, 1.0), fallen, self.diamond, whole, torn, *([large] if long else [])]

    def any(self) -> Shape:
        """Mostly single jobs; of four jobs two or so belong to something larger."""
        return self.chance.choices([self.single, self.chain, self.diamond, self.array], [20, 2, 1, 2])[0]

    def single(self, key: str) -> dict[str, Sent]:
        """A job by itself."""
        return self._job(key, SHARE_BAD)

    def chain(self, key: str) -> dict[str, Sent]:
        """Jobs that each wait for the one before."""
        anyway = [self.chance.random() < SHARE_ANYWAY for _ in range(self.chance.randint(*CHAIN_JOBS) - 1)]
        return self._followed(key, self.chance.random() < SHARE_BAD_PARENT, anyway)

    def diamond(self, key: str) -> dict[str, Sent]:
        """Two jobs that wait for one, and one that waits for both."""
        orders = self._job(f"{key}-top", SHARE_BAD_PARENT)
        tenant = orders[f"{key}-top"].tenant
        for side in ("left", "right"):
            orders[f"{key}-{side}"] = self._after((f"{key}-top",), tenant, self.chance.random() < SHARE_ANYWAY)
        parents = (f"{key}-left", f"{key}-right")
        return orders | {f"{key}-bottom": self._after(parents, tenant, self.chance.random() < SHARE_ANYWAY)}

    def array(self, key: str) -> dict[str, Sent]:
        """An array, and some have a job that waits for all of it."""
        return self._array(key, self.chance.choice((WHOLE, TORN)), self.chance.randint(*ARRAY_JOBS))

    def _job(self, key: str, share_bad: float) -> dict[str, Sent]:
        fails = self.chance.random() < share_bad
        return {key: Sent(self.chance.choice(self.bad if fails else self.good), fails, self.chance.choice(TENANTS))}

    def _followed(self, key: str, fails: bool, anyway: Sequence[bool]) -> dict[str, Sent]:
        orders = self._job(f"{key}-1", float(fails))
        tenant = orders[f"{key}-1"].tenant
        for number, runs in enumerate(anyway, start=1):
            orders[f"{key}-{number + 1}"] = self._after((f"{key}-{number}",), tenant, runs)
        return orders

    def _array(self, key: str, source: str, size: int) -> dict[str, Sent]:
        array = Sent(source, source == TORN, self.chance.choice(TENANTS), array=size)
        orders = {key: array}
        if self.chance.random() < SHARE_AWAITED:
            orders[f"{key}-all"] = self._after((key,), array.tenant, self.chance.random() < SHARE_ANYWAY)
        return orders

    def _after(self, parents: tuple[str, ...], tenant: str, anyway: bool) -> Sent:
        return Sent(self.chance.choice(self.good), tenant=tenant, after=parents, anyway=anyway)


def _message(bucket: str, key: str, order: Sent) -> str:
    """A job may fail as often as it likes: here a failure by itself is always somebody else's doing."""
    message: dict[str, Any] = {"source": f"s3://{bucket}/{order.source}", "workflow_key": key}
    message["max_attempts"] = limits.ATTEMPTS_LIMIT
    if order.tenant:
        message["tenant"] = order.tenant
    if order.after:
        message["depends_on"] = order.after
        message["on_parent_failure"] = (OnParentFailure.RUN if order.anyway else OnParentFailure.FAIL).value
    if order.array:
        message["array"] = order.array
    return json.dumps(message)


def _refused(chance: Random, bucket: str, near: str) -> str:
    """A message that can never run; each has a text of its own, by the key that it is sent beside."""
    source, key = f"s3://{bucket}/a.bam", f"refused/{near}"
    return chance.choice(
        [
            f"no job at all, beside {near}",
            json.dumps({"source": source, "workflow_key": key, "colour": "blue"}),
            json.dumps({"source": source, "workflow_key": key, "pool": "nowhere"}),
            json.dumps({"source": source, "workflow_key": key, "max_attempts": 0}),
            json.dumps({"source": source, "workflow_key": key, "depends_on": [key]}),
            json.dumps({"source": source, "workflow_key": key, "array": 2}),
            json.dumps({"source": f"s3://{bucket}/{near}.txt"}),
        ]
    )
