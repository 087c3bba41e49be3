"""One history: a plan carried out by the production code until everything is settled or an invariant broke."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from boto3.dynamodb.types import TypeSerializer

from fleetcap import jobs, keys, limits, pools
from fleetcap.adapters.control_table import Reply, StoredControlTable
from fleetcap.adapters.rechecks import SqsRechecks
from fleetcap.catalog import artifact_keys
from fleetcap.fleet import Fleet
from fleetcap.model import Lease, Mode, Override, Pool, Reservation, TaskStatus
from handlers import task_state, tick
from handlers.intake import Intake
from handlers.publish import Publish
from local.fargate.tasks import Status
from local.memory.ecs import MemoryEcs, MemoryTask
from local.memory.items import remembering
from local.simulator.plan import (
    CRASHES,
    LONG,
    WORKERS_TROUBLES,
    Fault,
    MessagePlan,
    Plan,
    Trouble,
    TroubleAt,
    Word,
    WordAt,
)
from local.simulator.ports import (
    DESCRIBE,
    READS,
    RUN_TASK,
    TABLE_WRITES,
    WRITES,
    Bus,
    Cache,
    Ecs,
    IntakeQueue,
    NoAnswer,
    Rejects,
    SimulatedChildren,
    SimulatedClock,
    TableItems,
    Throttled,
    WatchedItems,
)
from local.simulator.rounds import SparedWorker
from local.simulator.truth import CONFIGURED_WITHIN_S, LANDS_WITHIN_S, Truth, Violation, Worker
from local.simulator.world import BEGAN_AT, FOREVER, Crash, Line, Process, World
from worker_image.worker import Settings

T = TypeVar("T")

CLUSTER: Final = "arn:aws:ecs:local:000000000000:cluster/fleet"
LAUNCH: Final = {
    "cluster": CLUSTER,
    "taskDefinition": "worker",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    "container": "worker",
}
POOL: Final = "default"
QUEUE: Final = keys.queued_pk(POOL, 0)
JOB_TIMEOUT_S: Final = 60

LEAVES_S: Final = 15.0
"""How long a task takes from its end to STOPPED. A job that arrives meanwhile counts on a worker that is leaving."""

TOLD_S: Final = (0.3, 3.0)
"""How soon EventBridge tells of a task's new state, at least and at most."""

LIKELY: Final = {READS: 0.4, WRITES: 1.0, TABLE_WRITES: 1.0, RUN_TASK: 5.0, DESCRIBE: 5.0}
"""How likely a call goes wrong, next to a write of the table: there are many reads, and few launches."""

EARLY_WORD: Final = 0.1
"""How often a state before STOPPED is told as well, rule or no rule."""

CALM_AFTER_S: Final = 200.0
"""How long what was begun in bad times may still be under way."""

IDLE_TICKS_S: Final = 4.5 * limits.TICK_PERIOD_S
IDLE_TICKS_LEFT_OUT: Final = 0.9
"""How rarely the tick comes while there is nothing for it to do: at least once in that time, else one in ten."""

ONLOOKERS_COME: Final = 0.25
"""How often a tick goes on to tell of what it saw and to sweep: nothing that decides waits for that."""

CANCEL_TRIES: Final = 3

STREAM_S: Final = 2.0
"""How late the table's stream may tell on a good day."""

SOMETIMES: Final = 0.2

JUDGED_WITHIN_S: Final = STREAM_S + 8.0
"""How long a job may wait after its last parent's end where nothing goes wrong: no tick is needed for it."""

BEFALLS_WITHIN_S: Final = 5.0
"""How long a worker has lived at most when the trouble befalls it that lay in wait for one."""

LIVE_S: Final = 300.0
SLOW_S: Final = 0.5
"""Where calls take this long, a tick does not get through all that waits."""

STALE_S: Final = 60.0
"""How long DescribeTasks may lag."""

WORLDLY: Final = ("NoAnswer", "Throttled", "Unresolved", "no memory for another process")
"""The errors that a process may meet here. Any other one that it logs is a fault of its own."""


@dataclass(frozen=True)
class Result:
    """How a history went. `seen` counts faults, decisions, writes and refusals."""

    plan: Plan
    violation: Violation | None
    seen: Counter[str]
    lines: list[Line] = field(default_factory=list)
    peak: int = 0
    calls: int = 0
    faults: int = 0
    seconds: float = 0.0
    claims: list[tuple[float, str]] = field(default_factory=list)
    """Every claim in order: seconds since the start, and the job's key."""


def run(plan: Plan, tracing: bool = False) -> Result:
    """Carry out a plan. The same plan goes the same way every time."""
    history = History(plan, tracing)
    violation: Violation | None = None
    try:
        with _banks(plan):
            history.run()
    except Violation as error:
        violation = error
        history.world.log("truth", str(error), "VIOLATION")
    truth, world = history.truth, history.world
    truth.seen["a token had been forgotten"] += history.ecs.forgotten
    result = Result(
        plan,
        violation,
        truth.seen,
        world.lines or [],
        truth.peak,
        history.calls,
        history.faults,
        world.now - BEGAN_AT,
        truth.claims,
    )
    history.forget()
    return result


@contextmanager
def _banks(plan: Plan) -> Iterator[None]:
    """Banks as small as the plan has them, so that a pool of four slots is one of which a decision sees a part."""
    usual = {name: getattr(limits, name) for name in ("BANK_SLOTS", "BANKS_PER_DECISION")}
    vars(limits).update(BANK_SLOTS=plan.bank_slots, BANKS_PER_DECISION=plan.banks_read)
    try:
        yield
    finally:
        vars(limits).update(usual)


@dataclass(frozen=True)
class KnownPool(Pool):
    """A pool that is made once under each override: deciders look at it far more often than anybody speaks."""

    _known: dict[int, tuple[Override, Pool]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def under(self, override: Override) -> Pool:
        """What the reader of the table remembers is one object, and kept here it remains the one of its id."""
        found = self._known.get(id(override))
        if found is None:
            found = self._known[id(override)] = override, super().under(override)
        return found[1]


class History:
    """The world of one plan."""

    def __init__(self, plan: Plan, tracing: bool) -> None:
        self.plan = plan
        self.random, self.chance = self._dice(plan.seed)
        self.onlookers_chance = Random(plan.seed ^ 0x100C)
        """Its own, so that looking on changes nothing in the course of a history."""
        self.world = World(tracing)
        self.calls = self.faults = 0
        self.calm_at = BEGAN_AT + plan.calm_at
        self.truth = truth = Truth(self.world, plan.caps, plan.lanes, plan.skew_s)
        truth.ecs = self.ecs = MemoryEcs(lambda: self.world.now, self._task_changed)
        truth.cap = plan.cap
        self.jobs = {each.job.key: each.job for each in plan.messages if each.job}
        self.jobs |= {each.key: each for job in list(self.jobs.values()) for each in job.elements}
        self._hold_to_bounds(truth)
        self.items = WatchedItems(self.world, truth, self._lag)
        self.read = remembering()
        truth.read = self.read
        if plan.linked:
            self.items.stream = self._streamed
        self.rejected: list[str] = []
        self.wrong: list[str] = []
        for job in self.jobs.values():
            if job.cached:
                truth.cached.update(artifact_keys(job.key, "bam"))
        self.under_way: dict[Trouble, int] = dict.fromkeys(Trouble, 0)
        self.intake = Queue(self, "intake", self._take_in, plan.batch, plan.deciders, limits.INTAKE_MAX_RECEIVES)
        self.events = Queue(self, "task_state", self._hear, 10, plan.deciders, limits.EVENT_MAX_RECEIVES)
        self.workers: dict[str, Process] = {}
        self.tick_at = BEGAN_AT + self.random.uniform(0.0, limits.TICK_PERIOD_S)
        self.names: Counter[str] = Counter()
        self.strangers: set[str] = set()
        self._pools: dict[tuple[int, str], Pool] = {}
        """As they are configured. Pools never change, so each is made once."""
        self._cap_before = plan.cap
        self._image, self._image_before, self._image_at = "1", "1", BEGAN_AT
        self._in_wait: list[TroubleAt] = []
        """Troubles of workers that came while there was none."""
        self._events_late_s = self._table_back_at = 0.0
        self._cut_off = False
        self._got_through: tuple[float, int] | None = None
        """When the last tick began that got through, and what changes it went by."""

    def _hold_to_bounds(self, truth: Truth) -> None:
        """How soon things must happen in a history of this kind."""
        plan = self.plan
        if plan.faultless:
            count = len(self.jobs)
            bound_s = plan.cold_start_s * 1.5 + LEAVES_S + 10.0
            truth.pick_up_bound_s = bound_s if count <= plan.cap else 0.0
        undisturbed = plan.lifetime_s == limits.LIFETIME_S and len(plan.caps) == 1 and not plan.words
        if undisturbed and not any(each.kind is Trouble.IMAGE for each in plan.troubles):
            # nobody is asked to leave its lanes empty
            round_s = max(plan.look_s, plan.supervise_s if plan.lanes > 1 else 0.0)
            truth.idle_bound_s = 2 * 1.2 * round_s + 1.0 + 12 * plan.latency_s + 2 * plan.skew_s
            truth.calm_from = BEGAN_AT if plan.faultless else self.calm_at + CALM_AFTER_S
        if plan.faultless:
            truth.cancel_bound_s = (
                limits.FENCE_CHECK_S + plan.supervise_s + limits.CHILD_TERM_S + 12 * plan.latency_s + 1.0
            )
        truth.dispatch_deadline_s, truth.waiting_limit_s = plan.dispatch_deadline_s, plan.waiting_limit_s
        truth.parents = {key: (job.depends_on, job.on_parent_failure) for key, job in self.jobs.items()}
        truth.elements = {key: [each.key for each in job.elements] for key, job in self.jobs.items() if job.array}
        truth.parents_limit_s = plan.parents_limit_s
        if plan.faultless:
            truth.judged_within_s = JUDGED_WITHIN_S
        elif plan.latency_s < SLOW_S:
            truth.judged_within_s = LIVE_S
            truth.judged_from = BEGAN_AT + max([plan.calm_at, *(each.at + each.seconds for each in plan.troubles)])
        if len(self.jobs) <= plan.cap:  # an array may have more elements than there are slots
            truth.live_within_s = plan.live_within_s and plan.live_within_s + plan.cold_start_s * 1.5 + LEAVES_S

    def _dice(self, seed: int) -> tuple[Random, Random]:
        """Where chance comes from: how the world goes, and what goes wrong with calls."""
        return Random(seed ^ 0x5EED), Random(seed ^ 0xFA17)

    def forget(self) -> None:
        """Let go of everything at once: a world is full of cycles, and looking for them takes a tenth of the time."""
        for process in self.world.processes:
            process.abandon()
        whole = (self.world, self.truth, self.items, self.ecs, self.intake, self.events, self)
        for part in (*self.world.processes, *whole):
            vars(part).clear()

    # --- the course of things

    def run(self) -> None:
        """From the first message until everything is settled. Raises Violation."""
        world = self.world
        for number, message in enumerate(self.plan.messages):
            world.at(BEGAN_AT + message.at, partial(self._send, message, f"message-{number}"))
        for trouble in self.plan.troubles:
            world.at(BEGAN_AT + trouble.at, partial(self._befall, trouble))
        for number, word in enumerate(self.plan.words):
            world.at(BEGAN_AT + word.at, partial(self._say, word, number))
        for cancel in self.plan.cancels:
            world.at(BEGAN_AT + cancel.at, partial(self.decider, "person", partial(self.cancel, cancel.key)))
        self.settle()

    def settle(self) -> None:
        """Until nothing is left to do. Raises Violation, also where that takes longer than it may."""
        world, truth = self.world, self.truth
        due, deadline = world.due, self._deadline()
        while True:
            world.horizon = self.tick_at
            if due and due[0][0] < self.tick_at:
                world.step()
            elif not truth.quiet:
                world.now = self.tick_at
                self._tick()
            elif world.idle:
                break
            else:  # with nothing to do, no tick does anything until something happens
                world.horizon = FOREVER
                self.tick_at = world.next_at + self.random.uniform(0.0, limits.TICK_PERIOD_S)
            if world.now > deadline and not truth.quiet:
                kind = "LIVE" if truth.open_jobs else "LEAK"
                raise Violation(
                    kind, f"not settled {world.now - self.calm_at:.0f} s after all was calm: {truth.unfinished()}"
                )
        truth.settled(self.rejected, self.wrong)

    def _deadline(self) -> float:
        """When everything must be settled: the stated bound of LIVE, plus the work itself, one after the other."""
        plan = self.plan
        last = max((m.at + m.late_s + m.duplicate_s for m in plan.messages), default=0.0)
        late = sum(each.seconds for each in plan.troubles if each.kind in LONG)
        late += sum(each.at + each.seconds for each in plan.words)
        work = sum(
            (JOB_TIMEOUT_S if "hangs" in job.attempts else 0) + 4 * (job.duration_s + plan.cold_start_s + 30.0)
            for job in self.jobs.values()
        ) / (min(plan.caps) if len(self.jobs) > 12 else 1)  # noqa: PLR2004
        if plan.linked:
            work += len(self.jobs) * LIVE_S + plan.parents_limit_s * (plan.parents_limit_s < limits.PARENTS_LIMIT_S)
        missing = limits.MISSING_IS_PROOF_S + limits.STOPPED_TASKS_VISIBLE_S
        bound = limits.QUEUE_VISIBILITY_S + limits.SILENT_LAUNCHING_S + 2 * limits.BACKOFF_MAX_S + limits.STOP_TIMEOUT_S
        return BEGAN_AT + max(plan.calm_at, last) + late + missing + 2 * bound + work

    def _tick(self) -> None:
        plan = self.plan
        self.tick_at += limits.TICK_PERIOD_S
        if self.under_way[Trouble.NO_TICKS] or self.under_way[Trouble.BLACKOUT]:
            self.truth.seen["trouble: a tick did not come"] += 1
            return
        if self._tick_is_idle():
            return
        self.decider("tick", self._do_tick)
        if not plan.faultless and self._calm_is_far() and self.random.random() < 0.1:  # noqa: PLR2004
            self.world.after(self.random.uniform(0.0, 50.0), partial(self.decider, "tick", self._do_tick))

    def _tick_is_idle(self) -> bool:
        """Nothing has changed, nor come to be seen, since a tick got through: of many that do nothing a few will do.

        Which, is left to chance: at a rhythm they might meet that of the steps, and leave the same one out each time.
        """
        if self._got_through is None or self.plan.live_within_s:
            return False
        began_at, changes = self._got_through
        recent = self.world.now - began_at < IDLE_TICKS_S
        unchanged = self.items.changes == changes and self.items.shown_by <= began_at
        return recent and unchanged and self.random.random() < IDLE_TICKS_LEFT_OUT

    def _calm_is_far(self) -> bool:
        return self.world.now < self.calm_at

    # --- deciders

    def decider(
        self, kind: str, body: Callable[[Process], object], ended: Callable[[bool], None] | None = None
    ) -> None:
        self.names[kind] += 1
        name = f"{kind} {self.names[kind]}"
        deadline = self.world.now + limits.DECIDER_TIMEOUT_S

        def over(returned: bool) -> None:
            if not returned and not self.world.failure:
                self.world.log(name, "died")
            if ended:
                ended(returned)

        Process(self.world, name, body, over, self._skew(), deadline)

    def fleet(self, process: Process) -> Fleet:
        """What a decider works with, configured as deciders are that start now."""
        return Fleet(
            {POOL: self._pool()},
            self.table_of(process),
            Ecs(self.caller(process), self.ecs, self.truth),
            SimulatedClock(process, self.random),
            partial(self._hear_log, process),
        )

    def _pool(self) -> Pool:
        cap, image = self._configured_cap(), self._configured_image()
        return self._pools.get((cap, image)) or self._pools.setdefault((cap, image), self._pool_of(cap, image))

    def _pool_of(self, cap: int, image: str) -> Pool:
        plan = self.plan
        return KnownPool(
            POOL,
            cap,
            LAUNCH,
            plan.lanes,
            dispatch_deadline_s=plan.dispatch_deadline_s,
            waiting_limit_s=plan.waiting_limit_s,
            active_jobs_max=plan.active_jobs_max,
            providers=plan.providers,
            image=image,
            fair_shares=plan.fair_shares,
            tenant_weights=plan.tenant_weights,
            parents_limit_s=plan.parents_limit_s,
        )

    def table_of(self, process: Process) -> StoredControlTable:
        """The table, as a process reaches it."""
        return StoredControlTable(TableItems(self.caller(process), self.items), self.read)

    def cancel(self, key: str, process: Process) -> None:
        """Somebody cancels a job, and tries again where there is no answer."""
        clock = SimulatedClock(process, self.random)
        for _ in range(CANCEL_TRIES):
            try:
                found = jobs.cancel(self.table_of(process), clock, key, "by hand")
            except (NoAnswer, jobs.Contended):
                clock.sleep(1.0)
            else:
                self.truth.seen[f"cancelled while {found.status}" if found else "cancelled what is not there"] += 1
                return

    def _say(self, word: WordAt, number: int) -> None:
        """Somebody speaks, and for as long as he is not told that he was heard, speaks again."""
        self.truth.seen[f"word: {word.word}"] += 1
        name = f"word-{number}"
        until = self.world.now + word.seconds
        match word.word:
            case Word.CAP:
                self._insist(partial(self._say_cap, word.amount))
            case Word.RESERVE:
                self.truth.wanted_until = max(self.truth.wanted_until, until)
                reservation = Reservation(POOL, name, word.amount, until, self.world.now)
                self._insist(lambda process: self.table_of(process).reserve(reservation))
                if number % 2:  # and ends it before its time
                    end = partial(self._unreserve, name)
                    self.world.after(word.seconds / 2, partial(self._insist, end))
            case Word.STANDBY:
                self.truth.wanted_until = max(self.truth.wanted_until, until)
                wanted = {("min_workers", "warm_workers")[number % 2]: word.amount}
                self._for_a_time(wanted, {"min_workers": None, "warm_workers": None}, until)
            case Word.PAUSE | Word.DRAIN | Word.STOP:
                mode = {Word.PAUSE: Mode.PAUSED, Word.DRAIN: Mode.DRAINING, Word.STOP: Mode.STOPPED}[word.word]
                said = {"mode": mode.value, "reason": str(word.word)}
                self._for_a_time(said, {"mode": Mode.OPEN.value, "reason": None}, until)

    def _for_a_time(self, said: Mapping[str, Any], afterwards: Mapping[str, Any], until: float) -> None:
        """Somebody speaks, and takes it back at some time once he was heard."""
        back = partial(self._insist, partial(self._say_words, afterwards))
        self._insist(partial(self._say_words, said), lambda: self.world.at(max(until, self.world.now), back))

    def _insist(self, deed: Callable[[Process], object], then: Callable[[], object] = lambda: None) -> None:
        """A person does something, and again where it came to nothing."""
        heard = False

        def careful(process: Process) -> None:
            nonlocal heard
            try:
                deed(process)
                heard = True
            except pools.Refused:
                heard = True
                self.truth.seen["a word was refused"] += 1
            except (NoAnswer, jobs.Contended):
                pass

        def over(_returned: bool) -> None:
            if heard:
                then()
            else:
                self.world.after(5.0, partial(self._insist, deed, then))

        self.decider("person", careful, over)

    def _say_words(self, said: Mapping[str, Any], process: Process) -> None:
        clock = SimulatedClock(process, self.random)
        pools.change(self.table_of(process), clock, self._pool(), said)
        if said.get("mode") == Mode.STOPPED:
            fleet = self.fleet(process)
            fleet.stop_all(fleet.look(fleet.pools[POOL], whole=True))

    def _say_cap(self, cap: int, process: Process) -> None:
        clock, table = SimulatedClock(process, self.random), self.table_of(process)
        before, after = pools.change(table, clock, self._pool(), {"cap": cap})
        highest = max(self.plan.caps)
        for _ in pools.fit_the_cap(table, clock, after, highest):
            self.truth.seen["a slot was fitted to a cap"] += 1
        if self.truth.said_cap == cap and table.override(POOL).version == after.version:
            self.truth.fitted = True
        self.world.log(process.name, "said", f"cap {before.cap} → {after.cap}")

    def _unreserve(self, name: str, process: Process) -> None:
        self.table_of(process).unreserve(POOL, name, SimulatedClock(process, self.random).now())

    def _configured_image(self) -> str:
        """The image that deciders take for the newest: for some minutes after a deploy perhaps still the old one."""
        if self.world.now < self._image_at + CONFIGURED_WITHIN_S:
            return self.random.choice([self._image_before, self._image])
        return self._image

    def caller(self, process: Process) -> Calls:
        """The way of a process to the ports."""
        return Calls(self, process)

    def _do_tick(self, process: Process) -> None:
        fleet = self.fleet(process)
        began_at, went_by = fleet.clock.now(), (self.world.now, self.items.changes)
        self._cut_off, self._got_through = False, None
        passes = tick.handle(fleet)
        if passes and not self._cut_off:
            self._got_through = went_by
        if self.onlookers_chance.random() > ONLOOKERS_COME:
            return
        calls = Calls(self, process, self.onlookers_chance)
        table = StoredControlTable(TableItems(calls, self.items), self.read)
        tick.look_on(fleet._replace(table=table, tasks=Ecs(calls, self.ecs, self.truth)), passes, began_at)

    def _take_in(self, process: Process, records: list[dict[str, Any]]) -> dict[str, Any]:
        caller = self.caller(process)
        client: Any = IntakeQueue(caller, self._told)
        intake = Intake(
            self.fleet(process),
            Cache(caller, self.truth),
            Rejects(caller, self.rejected, self.truth),
            frozenset(),
            SqsRechecks(client, "intake"),
            self.plan.array_step,
        )
        return intake.handle({"Records": records})

    def _hear(self, process: Process, records: list[dict[str, Any]]) -> dict[str, Any]:
        return task_state.handle(self.fleet(process), {"Records": records})

    def _configured_cap(self) -> int:
        """The new cap, or for some minutes after a change perhaps still an old one."""
        if self.world.now < self.truth.cap_changed_at + CONFIGURED_WITHIN_S:
            return self.random.choice([self._cap_before, self.truth.cap])
        return self.truth.cap

    def _hear_log(self, process: Process, event: str, **fields: object) -> None:
        detail = fields.get("decision") or fields.get("outcome")
        self.truth.seen[f"log {event} {detail}" if detail else f"log {event}"] += 1
        self._cut_off |= event in {"cut off", "tick failed"}
        if event == "leaving" and "not ours" not in str(fields["reason"]):
            self.truth.left(process)
        if event == "cap breach":
            raise Violation("CAP", f"a sweep found {fields}")
        if event == "foreign task" and fields["arn"] not in self.strangers:
            raise Violation("CAP", f"a sweep takes a task of ours for a foreign one: {fields}")
        if "error" in fields and not any(word in str(fields["error"]) for word in WORLDLY):
            raise Violation("ERROR", f"{process.name} met {fields['error']} in {event!r} {fields}")
        if self.world.lines is not None:
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            self.world.log(process.name, f"  says: {event}", told)

    # --- messages

    def _send(self, message: MessagePlan, message_id: str) -> None:
        record = self.record(message, message_id)
        self.intake.send(record, message.late_s)
        if message.duplicate_s:
            self.world.after(message.late_s + message.duplicate_s, partial(self._duplicate, self.intake, record))

    def record(self, message: MessagePlan, message_id: str) -> dict[str, Any]:
        """The message as SQS hands it to a function, sent now."""
        sent_at, job = self.world.now, message.job
        body: dict[str, Any] = {"source": "s3://bucket/file.bam", "priority": message.priority}
        body |= {"tenant": message.tenant} if message.tenant else {}
        if job:
            body |= {"workflow_key": job.key, "max_attempts": job.max_attempts}
            if "hangs" in job.attempts:
                body["timeout_s"] = JOB_TIMEOUT_S
            if job.array:
                body |= {"array": job.array, "source": "s3://bucket/file-{index}.bam"}
            if job.depends_on:
                body |= {"depends_on": job.depends_on, "on_parent_failure": job.on_parent_failure}
            if message.force:
                body["force"] = True
                self.truth.forced.setdefault(job.key, []).append(sent_at)
            self.truth.sent.setdefault(job.key, []).append(sent_at)
        else:
            body["processor"] = "no-such-processor"
            self.wrong.append(message_id)
        self.world.log("producer", f"sends {message_id}", job.key if job else "one that can never run")
        sent = {"SentTimestamp": str(int(sent_at * 1000))}
        return {"messageId": message_id, "body": json.dumps(body), "attributes": sent}

    def _duplicate(self, queue: Queue, record: dict[str, Any]) -> None:
        self.truth.seen["trouble: a duplicate delivery"] += 1
        queue.send(dict(record), 0.0)

    # --- the stream

    def _streamed(self, old: keys.Item | None, new: keys.Item) -> None:
        """A job has ended: the table's stream tells `publish`, soon, perhaps twice, or gives up on it in the end."""
        random = self.random
        if random.random() < self.plan.stream_loses:
            self.truth.seen["trouble: the stream gave up on an end"] += 1
            return
        self.names["record"] += 1
        images = {name: _wired(item) for name, item in (("OldImage", old), ("NewImage", new)) if item}
        record = {"dynamodb": {"SequenceNumber": str(self.names["record"]), **images}}
        self.world.after(random.uniform(0.1, STREAM_S), partial(self._publish, record))
        if not self.plan.faultless and random.random() < SOMETIMES:
            self.world.after(random.uniform(0.1, 60.0), partial(self._publish, record))

    def _publish(self, record: dict[str, Any]) -> None:
        """The stream comes again and again until the function has done with the record."""
        failed = True

        def body(process: Process) -> None:
            nonlocal failed
            caller, log = self.caller(process), partial(self._hear_log, process)
            client: Any = IntakeQueue(caller, self._told)
            publish = Publish(
                Bus(),
                Rejects(caller, self.rejected, self.truth),
                self.table_of(process),
                SqsRechecks(client, "intake"),
                frozenset(),
                "s3://cache/",
                log,
                SimulatedClock(process, self.random),
            )
            failed = bool(publish.handle({"Records": [record]})["batchItemFailures"])

        def ended(_returned: bool) -> None:
            if failed:
                self.world.after(self.random.uniform(0.5, 10.0), partial(self._publish, record))

        self.decider("publish", body, ended)

    def _told(self, body: str) -> None:
        """A message of `publish` is in the intake queue."""
        self.names["word"] += 1
        sent = {"SentTimestamp": str(int(self.world.now * 1000))}
        self.intake.send({"messageId": f"word-{self.names['word']}", "body": body, "attributes": sent}, 0.0)

    # --- tasks

    def _task_changed(self, task: MemoryTask) -> None:
        random, world = self.random, self.world
        if task.status is Status.STOPPED:
            world.log(f"task {task.number}", "STOPPED", task.started_by)
            self._tell(task)
        elif task.status is Status.PROVISIONING and not task.stopping:
            self.truth.created(task)
            world.log(f"task {task.number}", "PROVISIONING", task.started_by)
            if self.under_way[Trouble.START_FAILS]:
                world.after(random.uniform(1.0, 30.0), partial(self._fail_to_start, task))
            else:
                world.after(self.cold_start_s(), partial(self._start, task))
        elif task.status is Status.PROVISIONING:
            world.after(random.uniform(1.0, 5.0), partial(self._stop_for_good, task))
        elif task.status is Status.DEPROVISIONING:
            if random.random() < EARLY_WORD:
                self._tell(task)
        elif task.status is Status.RUNNING and task.stopping:
            worker = self.workers[task.arn]
            if task.stop_code == keys.SPOT_INTERRUPTION:
                self._tell(task)
            world.log(worker.name, "SIGTERM", task.reason)
            worker.signal()
            world.after(limits.STOP_TIMEOUT_S, worker.kill)

    def cold_start_s(self) -> float:
        """How long the next task takes from RunTask to its worker's first step."""
        return self.plan.cold_start_s * self.random.uniform(0.7, 1.3)

    def _fail_to_start(self, task: MemoryTask) -> None:
        self.ecs.stopping(task, "TaskFailedToStart", "CannotPullContainerError")

    def _stop_for_good(self, task: MemoryTask) -> None:
        if task.live:
            self.ecs.advance(task, Status.STOPPED)

    def _start(self, task: MemoryTask) -> None:
        if task.stopping or not task.live:
            return
        name = f"worker {task.number}"
        lease = Lease.parse(task.started_by)
        process = Process(
            self.world, name, partial(self._work, lease, task.arn), partial(self._worker_ended, task), self._skew()
        )
        self.workers[task.arn] = process
        self.truth.workers[process] = Worker(process, lease)
        if self.under_way[Trouble.TABLE_CUT]:
            process.cut_off(self._table_back_at)
        self.ecs.advance(task, Status.RUNNING)
        self.world.log(name, "starts", task.started_by)
        if self.world.now + BEFALLS_WITHIN_S < self.calm_at:
            for trouble in self._in_wait:
                self.world.after(self.random.uniform(0.0, BEFALLS_WITHIN_S), partial(self._befall, trouble))
            self._in_wait.clear()

    def _work(self, lease: Lease, arn: str, process: Process) -> None:
        plan = self.plan
        clock = self.clock_of(process)
        clock.children = SimulatedChildren(self.truth, process, self.random, self.jobs)
        settings = Settings(
            pool=POOL,
            jobs_per_worker=plan.lanes,
            idle_exit_s=plan.idle_exit_s,
            lifetime_s=plan.lifetime_s,
            look_s=plan.look_s,
            image=self._image,
        )
        table = self.table_of(process)
        log = partial(self._hear_log, process)
        worker = SparedWorker(
            lease,
            arn,
            settings,
            table,
            clock.children,
            clock,
            log,
            lambda: process.draining,
            in_vain=partial(self.looks_in_vain, process),
        )
        process.dozes = worker.dozes
        worker.run()

    def looks_in_vain(self, process: Process) -> bool:
        """Whether a look for jobs that took no time would go well now and find none. Draws chance as that look does."""
        now = self.world.now
        in_doubt = process.cut_until > now or (self.plan.fault_rate and now < self.calm_at)
        if in_doubt or self.items.open(QUEUE, 1):
            return False
        self.chance.random()
        return True

    def clock_of(self, process: Process) -> SimulatedClock:
        """The clock of a worker."""
        return SimulatedClock(process, self.random, self.plan.supervise_s)

    def _worker_ended(self, task: MemoryTask, returned: bool) -> None:
        process = self.workers[task.arn]
        self.world.log(process.name, "exits" if returned else "is killed")
        del self.truth.workers[process]
        if task.live:
            self.ecs.stopping(task, "EssentialContainerExited", "Essential container in task exited")
            self.ecs.advance(task, Status.DEPROVISIONING)
            self.world.after(self.random.uniform(1.0, LEAVES_S), partial(self._stop_for_good, task))

    def _tell(self, task: MemoryTask) -> None:
        """EventBridge: late, twice, or never."""
        random, seen = self.random, self.truth.seen
        event = {"messageId": f"event-{task.number}", "body": json.dumps(task.event())}
        if self.under_way[Trouble.NO_EVENTS] or self.under_way[Trouble.BLACKOUT]:
            seen["trouble: an event was lost"] += 1
            return
        late_s = random.uniform(*TOLD_S)
        if self.under_way[Trouble.EVENTS_LATE]:
            late_s = random.uniform(0.0, self._events_late_s)
            seen["trouble: an event was late"] += 1
            if random.random() < 0.5:  # noqa: PLR2004
                self.world.after(random.uniform(0.0, self._events_late_s), partial(self._duplicate, self.events, event))
        self.events.send(event, late_s)

    # --- troubles

    def _befall(self, trouble: TroubleAt) -> None:
        kind = trouble.kind
        if kind in WORKERS_TROUBLES and not self._alive():
            self._in_wait.append(trouble)
            return
        self.truth.troubled_at = self.world.now
        self.truth.seen[f"trouble: {kind}"] += 1
        self.world.log("trouble", str(kind), f"{trouble.seconds:.0f} s, {trouble.amount}")
        match kind:
            case _ if kind in WORKERS_TROUBLES:
                if kind is Trouble.TABLE_CUT:
                    self._table_back_at = max(self._table_back_at, self.world.now + trouble.seconds)
                for process in self._some_workers(trouble.amount):
                    self._befall_worker(kind, process, trouble.seconds)
            case Trouble.CAP:
                self._cap_before, self.truth.cap = self.truth.cap, trouble.amount
                self.truth.cap_changed_at = self.world.now
                return
            case Trouble.EVICTED:
                self.truth.cached.clear()
                self.truth.forgetful = True
                return
            case Trouble.FOREIGN:
                stranger = self.ecs.stranger(CLUSTER, "ecs-svc/1", "service:other")
                self.strangers.add(stranger.arn)
                self.world.after(trouble.seconds, partial(self.ecs.advance, stranger, Status.STOPPED))
            case Trouble.NO_CAPACITY:
                self.ecs.capacity = trouble.amount
            case Trouble.NO_SPOT:
                self.ecs.spot = False
            case Trouble.IMAGE:
                self._image_before, self._image = self._image, f"{int(self._image) + 1}"
                self._image_at = self.world.now
                return
            case Trouble.EVENTS_LATE:
                self._events_late_s = trouble.seconds
        self.under_way[kind] += 1
        self.world.after(trouble.seconds, partial(self._pass_by, kind))

    def _pass_by(self, kind: Trouble) -> None:
        if kind not in {Trouble.NO_EVENTS, Trouble.HANG_FOREVER}:  # what was lost stays lost
            self.truth.troubled_at = self.world.now
        self.under_way[kind] -= 1
        if not self.under_way[Trouble.NO_CAPACITY]:
            self.ecs.capacity = None
        self.ecs.spot = not self.under_way[Trouble.NO_SPOT]

    def _alive(self) -> list[Process]:
        return [process for process in self.workers.values() if not process.dead]

    def _some_workers(self, most: int) -> list[Process]:
        alive = self._alive()
        return self.random.sample(alive, min(most, len(alive)))

    def _befall_worker(self, kind: Trouble, process: Process, seconds: float) -> None:
        match kind:
            case Trouble.DEATH:
                process.kill()
            case Trouble.HANG:
                process.freeze(self.world.now + seconds)
            case Trouble.HANG_FOREVER:
                process.freeze(FOREVER)
            case Trouble.TABLE_CUT:
                process.cut_off(self.world.now + seconds)
            case Trouble.SPOT:
                arn = next(arn for arn, worker in self.workers.items() if worker is process)
                self.ecs.stopping(self.ecs.tasks[arn], "SpotInterruption", "Your Spot Task was interrupted.")

    def stale(self, answer: Any) -> Any:  # noqa: ANN401 - DescribeTasks' answer goes in and comes out
        """What DescribeTasks may say for a while: a stopped task lives still, a live one is not known."""
        if isinstance(answer, list):
            words = self.stale({task.arn: task.status for task in answer})
            return [
                replace(task, status=words[task.arn]) for task in answer if words[task.arn] is not TaskStatus.MISSING
            ]
        found = {}
        for arn, word in answer.items():
            stopped_at = self.ecs.tasks[arn].stopped_at
            if word is TaskStatus.STOPPED and stopped_at > self.world.now - STALE_S:
                found[arn] = TaskStatus.ALIVE
            else:
                found[arn] = TaskStatus.MISSING if word is TaskStatus.ALIVE else word
        return found

    # --- chance

    def _lag(self) -> float:
        lag_s = self.plan.lag_s
        return self.chance.random() * (lag_s if self._calm_is_far() or lag_s < 1.0 else 1.0)

    def _skew(self) -> float:
        return self.chance.uniform(-self.plan.skew_s, self.plan.skew_s) if self.plan.skew_s else 0.0

    def draw(self, kinds: tuple[Fault, ...], chance: Random) -> Fault | None:
        """What goes wrong with a call, where something is to; nothing, where the plan has no such fault."""
        plan = self.plan
        possible = [kind for kind in kinds if kind in plan.faults]
        if not possible:
            return None
        fault = chance.choice(possible)
        self.faults += 1
        if self.faults in plan.without:
            return None
        self.truth.seen[f"fault: {fault}"] += 1
        return fault


class Queue:
    """An SQS queue and the Lambda functions behind it: at least once, in any order, a batch at a time."""

    def __init__(
        self,
        history: History,
        name: str,
        handle: Callable[[Process, list[dict[str, Any]]], dict[str, Any]],
        batch: int,
        concurrency: int,
        most_receives: int,
    ) -> None:
        self._history = history
        self._name = name
        self._handle = handle
        self._batch = batch
        self._concurrency = concurrency
        self._most_receives = most_receives
        self._visible: list[dict[str, Any]] = []
        self._receives: Counter[str] = Counter()
        self._running = 0
        self._pumping = False

    def send(self, record: dict[str, Any], late_s: float) -> None:
        """Take a message that shows after `late_s`."""
        self._history.world.after(late_s, partial(self._show, record))

    def _show(self, record: dict[str, Any]) -> None:
        self._visible.append(record)
        if not self._pumping:  # messages of one moment may come in one batch
            self._pumping = True
            self._history.world.after(self._history.random.uniform(0.0, 0.2), self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self._visible and self._running < self._concurrency:
            self._history.random.shuffle(self._visible)
            records, self._visible = self._visible[: self._batch], self._visible[self._batch :]
            self._running += 1
            self.invoke(records)

    def invoke(self, records: list[dict[str, Any]]) -> None:
        """Start a function with a batch. What it does not settle is shown again after the visibility timeout."""
        history = self._history
        received_at = history.world.now
        failed = [record["messageId"] for record in records]

        def body(process: Process) -> None:
            nonlocal failed
            answer = self._handle(process, records)
            failed = [each["itemIdentifier"] for each in answer["batchItemFailures"]]

        def ended(_returned: bool) -> None:
            self._running -= 1
            again_at = max(received_at + limits.QUEUE_VISIBILITY_S, history.world.now)
            for record in records:
                if record["messageId"] in failed:
                    self._again(record, again_at)
            self._pump()

        history.decider(self._name, body, ended)

    def _again(self, record: dict[str, Any], at: float) -> None:
        self._receives[record["messageId"]] += 1
        if self._receives[record["messageId"]] < self._most_receives:
            self._history.truth.seen["trouble: a redelivery"] += 1
            self._history.world.at(at, partial(self._show, record))


class Calls:
    """ports.Caller of one process: time passes at each call, and the seed decides what becomes of it."""

    def __init__(self, history: History, process: Process, chance: Random | None = None) -> None:
        self._history = history
        self._chance = chance or history.chance
        self._world = history.world
        self._rate = history.plan.fault_rate
        self._slowest_s = 2 * history.plan.latency_s
        self.process = process

    def call(self, port: str, what: object, effect: Callable[[], T], kinds: tuple[Fault, ...]) -> T:
        history, process, world = self._history, self.process, self._world
        history.calls += 1
        if process.cut_until > world.now and port == "table":
            self._note(what, "the table is out of reach")
            process.pause(5.0)
            raise NoAnswer("the table is out of reach")
        fault = None
        if self._rate and world.now < history.calm_at and self._chance.random() < self._rate * LIKELY[kinds]:
            fault = history.draw(kinds, self._chance)
        if fault is None:
            process.pause(self._chance.random() * self._slowest_s)
            if world.lines is None:
                return effect()
            answer = self.carry_out(what, effect)
            self._note(what, shown(answer))
            return answer
        return self._faulty(fault, what, effect)

    def carry_out(self, what: object, effect: Callable[[], T]) -> T:
        """Have it happen. Where that breaks an invariant, the trace shows by what."""
        try:
            return effect()
        except Violation:
            self._note(what, "accepted, and this is it")
            raise

    def _faulty(self, fault: Fault, what: object, effect: Callable[[], T]) -> T:
        process, chance = self.process, self._chance
        if fault in CRASHES:
            self._note(what, str(fault))
            if fault is Fault.CRASH_LATE:
                self._later(what, effect)
            elif fault is Fault.CRASH_AFTER:
                self.carry_out(what, effect)
            process.dead = True
            raise Crash
        if fault is Fault.THROTTLED:
            self._note(what, str(fault))
            raise Throttled("Rate exceeded")
        process.pause(chance.uniform(0.0, 12.0) if fault is not Fault.SLOW else chance.uniform(0.0, 50.0))
        if fault in {Fault.FAILS, Fault.LANDS_LATE}:
            self._note(what, str(fault))
            if fault is Fault.LANDS_LATE:
                self._later(what, effect)
            raise NoAnswer(fault.name)
        answer = self.carry_out(what, effect)
        if fault is Fault.REPLY_LOST:
            self._note(what, f"{fault}: {shown(answer)}")
            process.pause(chance.uniform(0.0, 12.0))
            raise NoAnswer(fault.name)
        if fault is Fault.RETRIED:
            process.pause(chance.uniform(0.0, 3.0))
            answer = self.carry_out(what, effect)
        elif fault is Fault.DUPLICATED:
            self._later(what, effect)
        elif fault is Fault.STALE:
            answer = self._history.stale(answer)
        self._note(what, f"{fault}: {shown(answer)}")
        return answer

    def _later(self, what: object, effect: Callable[[], object]) -> None:
        """The request is still under way, whatever becomes of the caller."""
        chance = self._chance
        seconds = chance.choice((1.0, 5.0, 30.0, LANDS_WITHIN_S)) * chance.random()
        self.process.world.after(seconds, partial(self._land, what, effect))

    def _land(self, what: object, effect: Callable[[], object]) -> None:
        answer = self.carry_out(what, effect)
        self.process.world.log(self.process.name, told(what), f"lands only now: {shown(answer)}")

    def _note(self, what: object, outcome: str) -> None:
        if self.process.world.lines is not None:
            self.process.world.log(self.process.name, told(what), outcome)


_to_wire = TypeSerializer().serialize


def _wired(item: keys.Item) -> dict[str, Any]:
    """An item as streams spell it."""
    return {name: _wire_value(value) for name, value in item.items()}


def _wire_value(value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - whatever an item holds
    """Most are text and numbers, for which the serializer of all types takes ten times as long."""
    if type(value) is str:
        return {"S": value}
    return {"N": str(value)} if type(value) in {int, Decimal} else _to_wire(value)


def told(what: object) -> str:
    """A call, for the trace."""
    match what:
        case keys.Write(name=name, key=key):
            sets = {k: v for k, v in what.sets.items() if k not in {"launch", keys.OP, keys.OPEN_PK}}
            told = " ".join(f"{k}={v}" for k, v in sets.items())
            return f"{name} {_item_name(key)} where {what.condition.values} → {told}"
        case keys.Put(name=name):
            return f"{name} {_item_name(what.key)} run {what.item.get('run', '-')} {what.item.get('status', '')}"
        case tuple():
            return " ".join(_item_name(part) if isinstance(part, dict) else str(part) for part in what)
        case _:
            return str(what)


def _item_name(key: Mapping[str, str]) -> str:
    return f"{key[keys.TABLE_PK]} {key[keys.TABLE_SK]}"


def shown(answer: object) -> str:
    """An answer, for the trace."""
    match answer:
        case Reply(accepted=accepted):
            return "accepted" if accepted else f"refused by {_brief(answer.item)}"
        case list():
            return f"[{'; '.join(_brief(each) if isinstance(each, Mapping) else str(each) for each in answer)}]"
        case dict():
            return _brief(answer)
        case _:
            return str(answer)


def _brief(item: Mapping[str, Any]) -> str:
    left_out = {
        keys.TABLE_PK,
        "launch",
        "request",
        keys.OP,
        keys.OPEN_PK,
        keys.SCHEMA,
        keys.OPEN_RANK,
        "priority",
        "shard",
    }
    return " ".join(f"{name}={value}" for name, value in item.items() if name not in left_out)
