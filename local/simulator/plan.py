"""What happens in a history, drawn from its seed: the jobs, the fleet, and all that goes wrong, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Final

from fleetcap import limits
from fleetcap.model import OnParentFailure


class Fault(StrEnum):
    """What may become of one call of a port."""

    FAILS = "fails before anything happened"
    REPLY_LOST = "succeeds, but the reply is lost"
    RETRIED = "the reply is lost, and the SDK sends it again"
    DUPLICATED = "a duplicate arrives late"
    LANDS_LATE = "no answer, and it happens later"
    CRASH_BEFORE = "the caller dies before"
    CRASH_AFTER = "the caller dies after"
    CRASH_LATE = "the caller dies, and it happens later"
    SLOW = "takes long"
    STALE = "shows what was, or nothing"
    THROTTLED = "throttled"


class Trouble(StrEnum):
    """What may befall the world at some time, for some seconds."""

    NO_CAPACITY = "there is no capacity"
    NO_TICKS = "the tick does not come"
    TABLE_CUT = "workers lose the table"
    DEATH = "a worker dies"
    SPOT = "a Spot interruption"
    HANG = "a worker hangs"
    HANG_FOREVER = "a worker hangs for ever"
    START_FAILS = "tasks fail to start"
    NO_EVENTS = "events are lost"
    CAP = "the cap changes"
    EVENTS_LATE = "events are late"
    EVICTED = "the cache forgets"
    BLACKOUT = "neither ticks nor events come"
    FOREIGN = "somebody else runs a task in the cluster"
    NO_SPOT = "Spot is refused"
    IMAGE = "a new worker image is deployed"


WORKERS_TROUBLES: Final = frozenset(
    {Trouble.DEATH, Trouble.SPOT, Trouble.HANG, Trouble.HANG_FOREVER, Trouble.TABLE_CUT}
)
LONG: Final = frozenset({Trouble.EVENTS_LATE, Trouble.NO_TICKS, Trouble.BLACKOUT})

JOBS: Final = (*(1,) * 60, *(2,) * 36, *(3,) * 12, *(4,) * 6, *(6,) * 3, 12)
"""How many jobs a small history has: what breaks with many mostly breaks with few, and few are quick."""

ALL_SPOT: Final = 9
STANDS_BY_S: Final = 600.0
"""For how long workers are kept at most: past every lifetime and every silence of a small history."""
RARELY: Final = 0.04
SELDOM: Final = 0.1
OFTEN: Final = 0.4

SHORT_S: Final = 0.3
"""A lag and a latency up to this much are those of a good day."""

CRASHES: Final = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.CRASH_LATE)


@dataclass(frozen=True)
class JobPlan:
    """A workflow key. Its attempts end like this, the last one repeated: ok, fails, permanent, hangs."""

    key: str
    duration_s: float
    attempts: tuple[str, ...] = ("ok",)
    max_attempts: int = limits.MAX_ATTEMPTS
    cached: bool = False
    """The cache holds its result already, but no run tells of it."""
    depends_on: tuple[str, ...] = ()
    on_parent_failure: OnParentFailure = OnParentFailure.FAIL
    array: int = 0
    """So many of it, as one array."""

    @property
    def elements(self) -> list[JobPlan]:
        """The jobs of an array."""
        return [replace(self, key=f"{self.key}/{index}", array=0) for index in range(self.array)]


@dataclass(frozen=True)
class MessagePlan:
    """One message to SQS at `at` seconds, visible `late_s` later. Without a job it is one that can never run."""

    at: float
    late_s: float
    job: JobPlan | None
    priority: int = limits.PRIORITY_DEFAULT
    duplicate_s: float = 0.0
    """Delivered once more so much later, although it was deleted; 0: not."""
    force: bool = False
    """It asks for a run although the cache may hold the result."""
    tenant: str = ""


@dataclass(frozen=True)
class CancelPlan:
    """Somebody wants a job ended at `at` seconds."""

    at: float
    key: str


class Word(StrEnum):
    """What somebody says of the pool at run time."""

    CAP = "another cap"
    PAUSE = "pause"
    DRAIN = "drain"
    STOP = "stop all"
    RESERVE = "a reservation"
    STANDBY = "some workers are to stand by"


@dataclass(frozen=True)
class WordAt:
    """Said at `at` seconds, and but for a cap taken back so many seconds later. `amount`: of workers."""

    word: Word
    at: float
    seconds: float = 0.0
    amount: int = 0


@dataclass(frozen=True)
class TroubleAt:
    """`amount` is a number of workers, a capacity, or a cap."""

    kind: Trouble
    at: float
    seconds: float = 0.0
    amount: int = 0


@dataclass(frozen=True)
class Plan:
    """A whole history but for the interleaving, which the same seed draws."""

    seed: int
    cap: int
    lanes: int
    deciders: int
    batch: int
    messages: tuple[MessagePlan, ...]
    faults: frozenset[Fault] = frozenset()
    fault_rate: float = 0.0
    troubles: tuple[TroubleAt, ...] = ()
    calm_at: float = 0.0
    cold_start_s: float = 30.0
    latency_s: float = 0.05
    lag_s: float = 0.2
    skew_s: float = 0.0
    idle_exit_s: float = 30.0
    look_s: float = limits.LOOK_S
    supervise_s: float = 5.0
    """A busy worker's loop may come round this late, as on a loaded machine."""
    lifetime_s: float = limits.LIFETIME_S
    live_within_s: float = 0.0
    """How long after the last trouble ended a job may wait to be picked up, cold start apart; 0: not judged."""
    cancels: tuple[CancelPlan, ...] = ()
    dispatch_deadline_s: float = 0.0
    waiting_limit_s: float = 0.0
    active_jobs_max: int = 0
    words: tuple[WordAt, ...] = ()
    spot: int = 0
    """Spot's weight beside that of 1 on demand; 0: all is on demand, 9: all is on Spot while it can be had."""
    bank_slots: int = limits.BANK_SLOTS
    banks_read: int = limits.BANKS_PER_DECISION
    fair_shares: bool = False
    tenant_weights: Mapping[str, int] = field(default_factory=dict)
    parents_limit_s: float = limits.PARENTS_LIMIT_S
    array_step: int = limits.ARRAY_STEP
    stream_loses: float = 0.0
    """The share of ends of which the table's stream never tells."""
    without: frozenset[int] = field(default_factory=frozenset)
    """The faults that a shrunk history leaves out, by their order."""

    @cached_property
    def faultless(self) -> bool:
        """Nothing goes wrong, so the bounds of the normal case apply."""
        calm = not (self.faults and self.fault_rate) and not self.troubles and not self.skew_s and not self.words
        return calm and self.lag_s <= SHORT_S and self.latency_s <= SHORT_S

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """What each job that waits for others depends on."""
        jobs = (message.job for message in self.messages)
        return {job.key: job.depends_on for job in jobs if job and job.depends_on}

    @cached_property
    def linked(self) -> bool:
        """Whether the end of any job concerns another."""
        return bool(self.parents) or any(message.job and message.job.array for message in self.messages)

    @cached_property
    def caps(self) -> list[int]:
        """Every cap in force at some time."""
        configured = [trouble.amount for trouble in self.troubles if trouble.kind is Trouble.CAP]
        return [self.cap, *configured, *(word.amount for word in self.words if word.word is Word.CAP)]

    @cached_property
    def providers(self) -> dict[str, int]:
        """The pool's capacity providers."""
        if not self.spot:
            return {}
        return {"FARGATE_SPOT": 1} if self.spot == ALL_SPOT else {"FARGATE_SPOT": self.spot, "FARGATE": 1}


def plan(seed: int) -> Plan:
    """A small history."""
    people = _with_people(_of_a_kind(seed), Random(seed ^ 0xCA9CE1))
    tenants = _with_tenants(people, Random(seed ^ 0x7E4A47))
    linked = _with_arrays(_with_parents(tenants, Random(seed ^ 0xFA3117)), Random(seed ^ 0xA33A75))
    return _with_words(linked, Random(seed ^ 0xF1EE7))


def _with_arrays(plan: Plan, random: Random) -> Plan:
    """A job is many, now and then."""
    keys = sorted({message.job.key for message in plan.messages if message.job})
    if not keys or random.random() > SELDOM:
        return plan
    chosen, count = random.choice(keys), random.choice((2, 2, 3, 5))
    messages = tuple(
        replace(each, job=replace(each.job, array=count)) if each.job and each.job.key == chosen else each
        for each in plan.messages
    )
    return replace(
        plan,
        messages=messages,
        stream_loses=0.0 if plan.faultless else random.choice((0.0, 0.0, 0.3)),
        array_step=random.choice((2, 50)),
    )


def _with_parents(plan: Plan, random: Random) -> Plan:
    """Jobs wait for others now and then: in a chain, a diamond, at random, in a circle, for one that never comes."""
    keys = sorted({message.job.key for message in plan.messages if message.job})
    if random.random() > (OFTEN if len(keys) > 1 else RARELY):
        return plan
    shape = random.choice(("chain", "diamond", "random", "random", "circle")) if len(keys) > 1 else "never"
    parents = _parents(random, keys, shape)
    never = random.random() < SELDOM or shape == "never"
    if never:
        left = random.choice(keys)
        parents[left] = (*parents.get(left, ()), "job/never")
    choices = {key: random.choice((OnParentFailure.FAIL, OnParentFailure.FAIL, OnParentFailure.RUN)) for key in keys}
    messages = tuple(
        replace(each, job=replace(job, depends_on=parents.get(job.key, ()), on_parent_failure=choices[job.key]))
        if (job := each.job)
        else each
        for each in plan.messages
    )
    bounded = never or plan.active_jobs_max  # who is turned away is a parent that never comes
    return replace(
        plan,
        messages=messages,
        parents_limit_s=random.choice((100.0, 400.0)) if bounded or random.random() < SELDOM else plan.parents_limit_s,
        stream_loses=0.0 if plan.faultless else random.choice((0.0, 0.0, 0.5, 1.0)),
    )


def _parents(random: Random, keys: list[str], shape: str) -> dict[str, tuple[str, ...]]:
    order = random.sample(keys, len(keys))
    match shape:
        case "chain" | "circle":
            links: dict[str, tuple[str, ...]] = {later: (earlier,) for earlier, later in pairwise(order)}
            return links | ({order[0]: (order[-1],)} if shape == "circle" else {})
        case "diamond":
            middle = tuple(order[1:-1]) or (order[0],)
            return dict.fromkeys(middle[: len(order) - 2], (order[0],)) | {order[-1]: middle[: limits.PARENTS_MAX]}
        case "random":
            chosen = {key: random.sample(order[:at], random.randint(0, min(at, 3))) for at, key in enumerate(order)}
            return {key: tuple(found) for key, found in chosen.items() if found}
    return {}


def _with_words(plan: Plan, random: Random) -> Plan:
    """In a history with troubles of its own somebody pauses the pool, changes its cap, reserves, now and then."""
    if plan.faultless or plan.live_within_s:
        return plan
    words = tuple(_word(random, plan) for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2, 3))))
    small = random.random() < SELDOM
    return replace(
        plan,
        words=words,
        spot=random.choice((0, 0, 0, 0, 1, 2, ALL_SPOT)),
        bank_slots=random.choice((1, 2)) if small else plan.bank_slots,
        banks_read=2 if small else plan.banks_read,
    )


def _word(random: Random, plan: Plan) -> WordAt:
    word, at = random.choice(list(Word)), random.uniform(0.0, plan.calm_at)
    seconds = random.choice((20.0, 100.0, 400.0, 1_500.0))
    match word:
        case Word.CAP:
            return WordAt(word, at, 0.0, random.randint(1, plan.cap + 2))
        case Word.RESERVE | Word.STANDBY:
            return WordAt(word, at, min(seconds, STANDS_BY_S), random.randint(1, plan.cap))
        case _:
            return WordAt(word, at, seconds)


def _with_people(plan: Plan, random: Random) -> Plan:
    """Jobs are cancelled, run anew by force, waited for only so long, and refused beyond a number, now and then."""
    until = max([plan.calm_at, *(message.at + 60.0 for message in plan.messages)])
    keys = sorted({message.job.key for message in plan.messages if message.job})
    cancels: list[CancelPlan] = []
    if keys and random.random() < OFTEN:
        for _ in range(random.choice((1, 1, 2, 4))):
            cancels.append(CancelPlan(random.uniform(0.0, until) * random.random(), random.choice(keys)))
    messages = plan.messages
    if random.random() < SELDOM:
        forced = [
            replace(each, at=random.uniform(0.0, until), force=True) for each in messages if random.random() < OFTEN
        ]
        messages = tuple(sorted((*messages, *forced), key=lambda message: message.at))
    return replace(
        plan,
        cancels=tuple(cancels),
        messages=messages,
        dispatch_deadline_s=random.choice((60.0, 300.0)) if random.random() < SELDOM else 0.0,
        waiting_limit_s=random.choice((100.0, 400.0)) if random.random() < RARELY else 0.0,
        active_jobs_max=random.randint(1, 3) if random.random() < RARELY else 0,
    )


def _with_tenants(plan: Plan, random: Random) -> Plan:
    """Jobs are several tenants' now and then, and the pool may be shared among these."""
    if random.random() >= SELDOM:
        return plan
    messages = tuple(replace(each, tenant=random.choice(("", "a", "a", "a", "b"))) for each in plan.messages)
    weights = random.choice(({}, {"a": 3}, {"b": 100}))
    return replace(plan, messages=messages, fair_shares=random.random() >= SELDOM, tenant_weights=weights)


def _of_a_kind(seed: int) -> Plan:
    random = Random(seed)
    kind = random.random()
    if kind < SELDOM:
        return _calm(seed, random)
    if kind < 2 * SELDOM:
        return _single(seed, random)
    cap = random.choice((1, 1, 2, 2, 3, 4))
    spread_s = random.choice((0.0, 0.0, 0.0, 5.0, 30.0, 200.0))
    jobs = _jobs(random, random.choice(JOBS))
    calm_at = spread_s + random.choice((60.0, 60.0, 120.0, 300.0, 600.0))
    rate = random.choice((0.0, 0.01, 0.03, 0.06, 0.15))
    kinds = list(Fault)
    chosen = kinds if random.random() < OFTEN else random.sample(kinds, random.randint(1, 5))
    troubles = _troubles(random, cap, calm_at)
    if random.random() < RARELY:  # launches without an answer whose tokens are forgotten before anybody asks again
        troubles = (
            TroubleAt(Trouble.START_FAILS, 0.0, random.choice((300.0, 9_000.0))),
            TroubleAt(Trouble.NO_TICKS, 0.0, random.choice((4_500.0, 9_000.0))),
            TroubleAt(Trouble.EVENTS_LATE, 0.0, random.choice((9_000.0, 20_000.0)), 1),
        )
        rate, chosen = random.choice((0.05, 0.1)), [Fault.REPLY_LOST]
    if random.random() < SELDOM:  # faults go on for as long as the troubles
        calm_at = max([calm_at, *(each.at + each.seconds for each in troubles)])
    return Plan(
        seed=seed,
        cap=cap,
        lanes=random.choice((1, 1, 2)),
        deciders=random.randint(1, 4),
        batch=random.choice((1, 1, 3, 10)),
        messages=_messages(random, jobs, spread_s),
        faults=frozenset(chosen) if rate else frozenset(),
        fault_rate=rate,
        troubles=troubles,
        calm_at=calm_at,
        cold_start_s=random.choice((1.0, 20.0, 40.0, 60.0)),
        latency_s=random.choice((0.02, 0.02, 0.5, 3.0)),
        lag_s=random.choice((0.0, 0.2, 0.2, 3.0, 30.0, 90.0)),
        skew_s=random.choice((0.0, 0.0, 0.5, 5.0, 20.0)),
        idle_exit_s=random.choice((5.0, 5.0, 5.0, 12.0, 30.0)),
        look_s=random.choice((limits.LOOK_S, *(6.0,) * 14)),
        supervise_s=random.choice((limits.SUPERVISE_S, *(20.0,) * 39)),
        lifetime_s=random.choice((limits.LIFETIME_S, limits.LIFETIME_S, 60.0, 200.0)),
    )


def _calm(seed: int, random: Random) -> Plan:
    """Nothing goes wrong: what must hold at once is held to that."""
    return Plan(
        seed=seed,
        cap=random.randint(1, 4),
        lanes=random.choice((1, 2)),
        deciders=random.randint(1, 4),
        batch=random.choice((1, 10)),
        messages=_messages(random, _jobs(random, random.choice(JOBS)), random.choice((0.0, 30.0, 200.0)), late=False),
        cold_start_s=random.choice((1.0, 20.0, 40.0)),
        idle_exit_s=random.choice((5.0, 60.0)),
        supervise_s=3.0,
    )


def _single(seed: int, random: Random) -> Plan:
    """One thing goes wrong, and there are slots enough: LIVE is held to its minutes."""
    jobs = _jobs(random, random.randint(1, 3))
    kind = random.choice(
        (Trouble.DEATH, Trouble.DEATH, Trouble.SPOT, Trouble.HANG_FOREVER, Trouble.START_FAILS, Trouble.NO_EVENTS)
    )
    at = random.uniform(0.0, 60.0)
    troubles = [TroubleAt(kind, at, random.choice((20.0, 60.0)), 1)]
    if random.random() < OFTEN:
        troubles.append(TroubleAt(Trouble.NO_EVENTS, 0.0, 400.0))
    return Plan(
        seed=seed,
        cap=len(jobs) + 1,
        lanes=random.choice((1, 2)),
        deciders=2,
        batch=1,
        messages=_messages(random, jobs, random.choice((0.0, 30.0)), late=False),
        troubles=tuple(troubles),
        calm_at=60.0,
        cold_start_s=random.choice((1.0, 20.0, 40.0)),
        idle_exit_s=random.choice((5.0, 40.0)),
        supervise_s=3.0,
        live_within_s=_bound(troubles),
    )


def _bound(troubles: list[TroubleAt]) -> float:
    """Within five minutes after a death or a lost event; a worker that hangs has to be stopped first."""
    hangs = any(trouble.kind is Trouble.HANG_FOREVER for trouble in troubles)
    return 300.0 + (limits.STOP_TIMEOUT_S + limits.TICK_PERIOD_S if hangs else 0.0)


def large(seed: int, jobs: int = 1_000, cap: int = 50) -> Plan:
    """A burst of production's size, under light faults."""
    random = Random(seed)
    return Plan(
        seed=seed,
        cap=cap,
        lanes=1,
        deciders=4,
        batch=10,
        messages=_messages(random, _jobs(random, jobs), 20.0),
        faults=frozenset(Fault),
        fault_rate=0.003,
        troubles=_troubles(random, cap, 600.0),
        calm_at=620.0,
        cold_start_s=40.0,
        supervise_s=8.0,
        look_s=4.0,
        idle_exit_s=60.0,
    )


def _jobs(random: Random, count: int) -> list[JobPlan]:
    longest_s = random.choice((5.0, 30.0, 30.0, 120.0))
    endings = (("ok",),) * 12 + (("fails", "ok"), ("fails",), ("permanent",), ("hangs", "ok"), ("no child", "ok"))
    return [
        JobPlan(
            f"job/{number}",
            random.uniform(0.2, longest_s),
            random.choice(endings),
            random.choice((1, 2, 3)),
            random.random() < RARELY,
        )
        for number in range(count)
    ]


def _messages(random: Random, jobs: list[JobPlan], spread_s: float, late: bool = True) -> tuple[MessagePlan, ...]:
    messages: list[MessagePlan] = []
    for job in jobs:
        copies = random.choice((1, 1, 1, 1, 2, 3))
        messages.extend(_message(random, job, spread_s, late) for _ in range(copies))
    if random.random() < SELDOM:
        messages.append(_message(random, None, spread_s, late))
    return tuple(sorted(messages, key=lambda message: message.at))


def _message(random: Random, job: JobPlan | None, spread_s: float, late: bool) -> MessagePlan:
    at = random.uniform(0.0, spread_s)
    priority = random.choice((limits.PRIORITY_DEFAULT,) * 3 + (limits.PRIORITY_MAX, limits.PRIORITY_MIN))
    if not late:
        return MessagePlan(at, 0.0, job, priority)
    late_s = random.choice((0.0,) * 12 + (2.0, 30.0, 400.0, 5_000.0))
    duplicate_s = random.choice((0.0,) * 8 + (1.0, 40.0, 300.0, 4_000.0))
    return MessagePlan(at, late_s, job, priority, duplicate_s)


def _troubles(random: Random, cap: int, calm_at: float) -> tuple[TroubleAt, ...]:
    kinds = list(Trouble)
    count = random.choice((0, 1, 1, 2, 2, 3, 5))
    return tuple(_trouble(random, random.choice(kinds), cap, calm_at) for _ in range(count))


def _trouble(random: Random, kind: Trouble, cap: int, calm_at: float) -> TroubleAt:
    at = random.uniform(0.0, calm_at)
    seconds = random.choice((5.0, 40.0, 130.0, 300.0))
    match kind:
        case Trouble.NO_CAPACITY:
            return TroubleAt(kind, at, seconds, random.randint(0, cap))
        case Trouble.NO_TICKS | Trouble.BLACKOUT:
            return TroubleAt(kind, at, random.choice((100.0, 100.0, 400.0, 400.0, 4_000.0, 9_000.0)))
        case Trouble.TABLE_CUT:
            return TroubleAt(kind, at, seconds, random.randint(1, cap))
        case Trouble.EVENTS_LATE:
            return TroubleAt(kind, at, random.choice((30.0, 300.0, 4_000.0, 9_000.0)), 1)
        case Trouble.CAP:
            return TroubleAt(kind, at, 0.0, random.randint(1, 4) if cap <= 4 else cap // 2)  # noqa: PLR2004
        case _:
            return TroubleAt(kind, at, seconds, 1)
