"""Carries a plan out against a running cloud: sends, strikes, and then waits until the fleet has settled by itself."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Generic, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from fleetcap import limits, pools
from fleetcap.adapters.system import SystemClock
from fleetcap.model import Job, JobStatus, Lease, Pool, Slot
from local.chaos.plan import CAPS, LONG_FROM_S, ROUND_S, TENANT_WEIGHTS, Burst, Sent, Stroke, kinds
from local.chaos.verdict import Cap
from local.client import Client
from local.cloud import CloudError
from local.fargate.faults import ACTS

POOL: Final = "default"
LOOK_EVERY_S: Final = 0.5
TICK_EVERY_S: Final = 3.0
"""Ticks by hand, beside those of the schedule: what needs one heals sooner, and two ticks at once become common."""
BACKLOG_JOBS_PER_SLOT: Final = 6
"""No burst is sent while more jobs than this wait for each slot: the queue is rarely empty, and never long. Those whose
message a decider took along when it died do not count: they come again after minutes, and the storm goes on.
"""
VICTIM_AGE_S: Final = 4.0
ACT_EVERY_S: Final = 2.0
"""Acts that had to wait for a task do not all fall on the first that comes, or none would live to do anything."""
EXTRA_S: Final = 3 * ROUND_S
"""How much longer a storm goes on at most because some kind has not struck yet."""
WORKER_IDLE_EXIT_S: Final = 10
WORKER_STOP_TIMEOUT_S: Final = 10
STILL_S: Final = limits.QUEUE_VISIBILITY_S + limits.DECIDER_TIMEOUT_S + limits.TICK_PERIOD_S
"""How long a calm fleet may take to get any further. The longest wait of all is that of a message whose decider
died. Shorter are: silence, suspected to be the table's, and the stop; a launch that never beats; a retry; a backoff.
"""
assert 2 * limits.SILENT_S + limits.TICK_PERIOD_S + WORKER_STOP_TIMEOUT_S < STILL_S  # noqa: S101 - relates figures
assert limits.SILENT_LAUNCHING_S + limits.TICK_PERIOD_S + WORKER_STOP_TIMEOUT_S < STILL_S  # noqa: S101
assert 1.25 * limits.RETRY_MAX_S + limits.TICK_PERIOD_S < STILL_S  # noqa: S101
assert 1.25 * limits.BACKOFF_MAX_S + limits.TICK_PERIOD_S < STILL_S  # noqa: S101


def config(cap: int) -> dict[str, object]:
    """The stacks' knobs: workers that leave soon once there is nothing to do, and die soon once they are told to."""
    pool = {"name": POOL, "cap": cap, "idle_exit_s": WORKER_IDLE_EXIT_S, "stop_timeout_s": WORKER_STOP_TIMEOUT_S}
    return {"pools": [pool | {"fair_shares": True, "tenant_weights": TENANT_WEIGHTS}]}


@dataclass(frozen=True)
class Look:
    """What is known at one moment, `now` seconds after the storm began."""

    now: float
    sent: int
    ended: int
    astray: int
    held: int
    cap: int
    live: int
    peak: int
    in_flight: int
    struck: int
    unstruck: tuple[str, ...] = ()

    @property
    def unfinished(self) -> int:
        """How much is left to settle. While work is done this falls, and it cannot fall for ever."""
        return self.sent - self.ended + self.held + self.in_flight

    @property
    def backlog(self) -> int:
        """How many jobs wait or run, those left out that are astray: sent long ago, and not yet in the table."""
        return self.sent - self.ended - self.astray


Show = Callable[[str, Look], None]
"""Told the part of the story and how things stand, again and again."""


@dataclass
class Ledger:
    """What was ordered and done so far."""

    sent: dict[str, Sent] = field(default_factory=dict)
    sent_at: dict[str, float] = field(default_factory=dict)
    """The same keys, in seconds since the storm began."""
    messages: int = 0
    refused: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    """Seen to complete, and so for good; but for arrays, of which a message that comes later begins another run."""
    failed: set[str] = field(default_factory=set)
    """Seen to fail, once at least: a message that comes later begins another run of these."""
    caps: list[Cap] = field(default_factory=list)
    """Every cap that was in force, in order; the first is the configured one."""
    leases: dict[Lease, float] = field(default_factory=dict)
    """When a look at the table first found each of them."""
    acts: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    """As the servers told of them when the storm ended."""

    @property
    def struck(self) -> Counter[str]:
        """How often each kind struck."""
        found = Counter(self.acts)
        for fault in self.faults:
            found[fault["kind"]] += fault["struck"]
        return found


class Storm:
    """One storm over one deployment."""

    def __init__(self, client: Client, cap: int, seed: int, length_s: float, jobs: int, show: Show) -> None:
        self._client, self._cap, self._show = client, cap, show
        self._length_s, self.jobs = length_s, jobs
        self.long = length_s >= LONG_FROM_S
        """Whether it brings what takes minutes to heal, and waits for it."""
        self._chance = Random(f"{seed} victims")
        self._began_at = time.monotonic()
        self._resumes: list[tuple[float, str]] = []
        self._put_off: list[Stroke] = []
        self._act_at = 0.0
        self._went_on: tuple[int, float] = (0, 0.0)
        self.ledger = Ledger(caps=[Cap(cap)])

    def rage(self, bursts: Iterator[Burst], strokes: Iterator[Stroke]) -> None:
        """Send and strike until the time is over, the jobs are sent and every kind has struck; then all is calm."""
        self._began_at = time.monotonic()
        coming, due = _Peekable(bursts), _Peekable(strokes)
        send_at = 0.0
        while not self._is_over(look := self._look()):
            self._show("storm", look)
            while due.head.at_s <= self._now:
                self._strike(due.take())
            self._strike_what_was_put_off()
            self._resume(until=self._now)
            if self._now >= send_at and look.backlog < BACKLOG_JOBS_PER_SLOT * self._cap:
                self._send(coming.take())
                send_at = self._now + coming.head.gap_s
            time.sleep(LOOK_EVERY_S)
        self.ledger.faults = self._client.faults()
        self._client.calm()
        self._resume(until=math.inf)
        self._set_cap(None)

    def settle(self) -> str:
        """Wait until every job has ended and every slot is empty; a sentence about what is not when time is up."""
        least, since = None, self._now
        while True:
            look = self._look()
            self._show("calm", look)
            if self._is_settled(look):
                return ""
            if least is None or look.unfinished < least:
                least, since = look.unfinished, self._now
            if self._now - since > STILL_S:
                return self._what_is_left(look)
            time.sleep(LOOK_EVERY_S)

    @property
    def _now(self) -> float:
        """Seconds since the storm began."""
        return time.monotonic() - self._began_at

    def _is_over(self, look: Look) -> bool:
        if look.ended > self._went_on[0]:
            self._went_on = (look.ended, self._now)
        if self._now - self._went_on[1] > STILL_S:
            return True  # nothing gets through any more; the verdict will say what was not sent
        if self._now < self._length_s or look.sent < self.jobs:
            return False
        return not look.unstruck or self._now > self._length_s + EXTRA_S

    def _is_settled(self, look: Look) -> bool:
        """A short storm does not wait for messages whose job is done and whose decider died: they only come again."""
        jobs_done = look.ended == look.sent and not look.held and not look.live
        return jobs_done and (not look.in_flight if self.long else not self._visible())

    # --- sending

    def _send(self, burst: Burst) -> None:
        self.ledger.sent |= burst.orders
        self.ledger.sent_at |= dict.fromkeys(burst.orders, self._now)
        self.ledger.refused |= burst.refused
        self.ledger.messages += len(burst.bodies)
        self._client.send(burst.bodies)

    # --- striking

    def _strike(self, stroke: Stroke) -> None:
        """One that still waits for its call or task is not ordered a second time: storms must not pile up."""
        if stroke.kind in CAPS:
            self._set_cap(stroke.options["cap"])
            self.ledger.acts[stroke.kind] += 1
        elif stroke.kind in ACTS:
            if stroke.kind not in {waiting.kind for waiting in self._put_off}:
                self._put_off.append(stroke)
        elif not any(_is(fault, stroke) for fault in self._client.faults()):
            self._client.fault(stroke.kind, **stroke.options)

    def _set_cap(self, cap: int | None) -> None:
        """Say it and see it through, as `fleetcap pools set --cap` does. None: as it is configured."""
        table, clock = self._client.table, SystemClock()
        said_at = clock.now()
        _, pool = pools.change(table, clock, Pool(POOL, self._cap), {"cap": cap})
        for _ in pools.fit_the_cap(table, clock, pool, max(table.override(POOL).cap_max, pool.cap)):
            pass
        self._note_leases(table.slots(POOL))
        self.ledger.caps.append(Cap(pool.cap, said_at, clock.now()))

    def _note_leases(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            if slot.held:
                self.ledger.leases.setdefault(slot.lease, time.time())

    def _strike_what_was_put_off(self) -> None:
        """An act needs a task that runs, so it may have to wait for one."""
        if not self._put_off or self._now < self._act_at:
            return
        victims = [task["arn"] for task in self._client.tasks() if _has_run(task, VICTIM_AGE_S)]
        if victims and self._act(self._put_off[0], self._chance.choice(victims)):
            self._put_off.pop(0)
            self._act_at = self._now + ACT_EVERY_S

    def _resume(self, until: float) -> None:
        """Let go on what hung long enough."""
        for at, arn in [each for each in self._resumes if each[0] <= until]:
            self._resumes.remove((at, arn))
            with suppress(CloudError):  # it is gone
                self._client.act("resume", arn)

    def _act(self, stroke: Stroke, arn: str) -> bool:
        try:
            self._client.act(stroke.kind, arn)
        except CloudError:  # it ended meanwhile
            return False
        self.ledger.acts[stroke.kind] += 1
        if stroke.resume_s is not None:
            self._resumes.append((self._now + stroke.resume_s, arn))
        return True

    # --- looking

    def _look(self) -> Look:
        ledger = self.ledger
        found = self._client.table.jobs([key for key in ledger.sent if key not in ledger.completed])
        pending = found.values()
        ledger.completed |= {job.key for job in pending if job.status is JobStatus.COMPLETED and not job.request.array}
        ledger.failed |= {job.key for job in pending if job.status is JobStatus.FAILED}
        known = ledger.completed | found.keys()
        unknown = [key for key in ledger.sent if key not in known]
        astray = sum(self._now - ledger.sent_at[key] > limits.DECIDER_TIMEOUT_S for key in unknown)
        slots = self._client.table.slots(POOL)
        self._note_leases(slots)
        meter = self._client.meter()
        struck = Ledger(acts=ledger.acts, faults=ledger.faults or self._client.faults()).struck
        return Look(
            now=self._now,
            sent=len(ledger.sent),
            ended=len(known) - sum(not job.ended for job in pending),
            astray=astray,
            held=sum(slot.held for slot in slots),
            cap=ledger.caps[-1].cap,
            live=meter.live_tasks,
            peak=meter.peak_live_tasks,
            in_flight=sum(sum(depth) for depth in depths(self._client).values()),
            struck=struck.total(),
            unstruck=tuple(sorted(kind for kind in kinds() if not struck[kind])),
        )

    def _visible(self) -> int:
        return sum(visible for visible, _ in depths(self._client).values())

    def _what_is_left(self, look: Look) -> str:
        jobs = self._client.table.jobs(list(self.ledger.sent))
        open_jobs = [_described(key, job) for key in self.ledger.sent if not ((job := jobs.get(key)) and job.ended)]
        held = [_slot_described(slot) for slot in self._client.table.slots(POOL) if slot.held]
        parts = [*open_jobs[:5], *held, f"{look.in_flight} messages in flight", f"{look.live} tasks alive"]
        more = f" and {len(open_jobs) - 5} jobs more" if len(open_jobs) > 5 else ""  # noqa: PLR2004
        return f"nothing went on for {STILL_S} s of calm, and this is left: {'; '.join(parts)}{more}"


def depths(client: Client) -> Mapping[str, tuple[int, int]]:
    """How many messages of each queue that deciders read are visible, and how many in somebody's hands."""
    return {name: depth(client, f"{name}QueueUrl") for name in ("Intake", "Events")}


def dead_letters(client: Client) -> Mapping[str, int]:
    """How many messages each dead-letter queue holds."""
    return {name: sum(depth(client, f"{name}DeadLetterQueueUrl")) for name in ("Intake", "Events")}


def unpublished(client: Client) -> int:
    """How many notes of what the bus did not take lie in their queue."""
    return sum(depth(client, "UnpublishedQueueUrl"))


def depth(client: Client, output: str) -> tuple[int, int]:
    """How many messages of a queue wait, and how many somebody has taken and not deleted yet."""
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    answer = client.sqs.get_queue_attributes(QueueUrl=client.outputs[output], AttributeNames=list(names))
    visible, taken = (int(answer["Attributes"][name]) for name in names)
    return visible, taken


def _is(fault: Mapping[str, Any], stroke: Stroke) -> bool:
    """Whether a standing fault is this stroke, ordered before and not yet used up."""
    same = all(fault.get(name) == value for name, value in stroke.options.items())
    return bool(fault["kind"] == stroke.kind and fault["left"] != 0 and same)


def _has_run(task: Mapping[str, Any], seconds: float) -> bool:
    return bool(
        task["lastStatus"] == "RUNNING"
        and task["desiredStatus"] == "RUNNING"
        and time.time() - task["startedAt"] >= seconds
    )


def _described(key: str, job: Job | None) -> str:
    if job is None:
        return f"{key} was never put"
    return (
        f"{key} is {job.status} (attempt {job.attempt}, holder {job.holder}, due {time.time() - job.due_at:.0f} s ago)"
    )


def _slot_described(slot: Slot) -> str:
    silent = f"silent for {time.time() - slot.seen_at:.0f} s" if slot.seen_at else "never beat"
    return f"slot {slot.lease} is {slot.state}, {silent}, task {slot.arn or 'unknown'}"


class Ticker:
    """Calls the tick by hand every few seconds while it is open, beside the schedule. A tick that dies is no news."""

    def __init__(self, client: Client) -> None:
        self._functions = client.cloud.client("lambda", "ticker")
        self._name = client.outputs["TickFunctionName"]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(limits.DECIDER_TIMEOUT_S)

    def _run(self) -> None:
        while not self._closed.wait(TICK_EVERY_S):
            with suppress(ClientError, BotoCoreError):
                self._functions.invoke(FunctionName=self._name, Payload=json.dumps({}).encode())


T = TypeVar("T")


class _Peekable(Generic[T]):
    """An endless iterator whose next value may be looked at."""

    def __init__(self, values: Iterator[T]) -> None:
        self._values = values
        self.head = next(values)

    def take(self) -> T:
        """The next value."""
        taken, self.head = self.head, next(self._values)
        return taken
