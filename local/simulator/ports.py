"""The ports that the production code is given: each call gives way to the others, and may go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol, TypeVar

from fleetcap import keys, limits
from fleetcap.adapters.control_table import Reply
from fleetcap.catalog import artifact_keys
from fleetcap.model import Artifact, Doubt, LaunchAnswer, Lease, SeenTask, TaskStatus, Unanswered
from fleetcap.ports import Assignment, Child, ChildReport, Failure, Progress
from local.memory.ecs import MemoryEcs
from local.memory.expressions import holds
from local.memory.items import Key, MemoryItems
from local.simulator.plan import Fault, JobPlan
from local.simulator.truth import Truth
from local.simulator.world import FOREVER, Process, World

T = TypeVar("T")

READS: Final = (Fault.FAILS, Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.SLOW)
WRITES: Final = (*READS, Fault.REPLY_LOST, Fault.LANDS_LATE, Fault.CRASH_LATE, Fault.DUPLICATED)
TABLE_WRITES: Final = (*WRITES, Fault.RETRIED)
RUN_TASK: Final = (*WRITES, Fault.THROTTLED)
SIGNS_OF_LIFE: Final = frozenset({"beat", "heartbeat"})
DESCRIBE: Final = (*READS, Fault.STALE)


class NoAnswer(Exception):
    """The call was not answered; what it asked for may have happened, may still happen, or never will."""


class Throttled(NoAnswer):
    """The call was refused for its rate; nothing happened."""


class Caller(Protocol):
    """Makes a call of a port on behalf of one process: when it takes effect, and what the process hears of it."""

    process: Process

    def call(self, port: str, what: object, effect: Callable[[], T], kinds: tuple[Fault, ...]) -> T:
        """Have `effect` happen once, twice, later, or not at all; its answer, NoAnswer, or Crash."""


# --- the table


class WatchedItems(MemoryItems):
    """The one table: its index lags, and every write that is accepted is judged."""

    def __init__(self, world: World, truth: Truth, lag: Callable[[], float]) -> None:
        super().__init__()
        self._world = world
        self._truth = truth
        self._lag = lag
        self._coming: list[tuple[float, Key, keys.Item | None, keys.Item]] = []
        self._shown_at: dict[Key, float] = {}
        self.author: Process
        self.stream: Callable[[keys.Item | None, keys.Item], None] | None = None
        """Hears of every write of a job that has ended, with both images."""
        self.changes = 0
        """How many writes were accepted that change what a tick goes by; that a worker still lives changes nothing."""
        self.shown_by = 0.0
        """When the index shows, or showed, all of them."""

    def _stored(self, key: Mapping[str, str], standing: keys.Item | None, item: keys.Item) -> Reply:
        if self.stream and item.get("status") in keys.ENDED_STATUSES:
            self.stream(standing, item)
        return super()._stored(key, standing, item)

    def update(self, write: keys.Write) -> Reply:
        return self._judged(write, super().update(write))

    def put(self, put: keys.Put) -> Reply:
        return self._judged(put, super().put(put))

    def _judged(self, write: keys.Write | keys.Put, reply: Reply) -> Reply:
        seen = self._truth.seen
        if reply.accepted:
            seen[f"write {write.name}"] += 1
            if write.name not in SIGNS_OF_LIFE:
                key = write.key[keys.TABLE_PK], write.key[keys.TABLE_SK]
                self.changes += 1
                self.shown_by = max(self.shown_by, self._shown_at.get(key, 0.0))
            self._truth.wrote(write, self.author, reply)
        else:
            for clause in write.condition.clauses or (write.condition,):
                if not holds(clause, reply.item, clause.values):
                    seen[f"refused {write.name}: {clause.name}"] += 1
        return reply

    # --- the index

    def open(self, pk: str, page: int, since: str = "") -> list[keys.Item]:
        if self._coming:
            self._catch_up()
        return super().open(pk, page, since)

    def _index(self, key: Key, standing: keys.Item | None, item: keys.Item) -> None:
        """Changes of one item show in their order; those of different items in any."""
        shown_at = max(self._world.now + self._lag(), self._shown_at.get(key, 0.0))
        self._shown_at[key] = shown_at
        self._coming.append((shown_at, key, standing, item))
        if item.get(keys.OPEN_PK, "").startswith("QUEUED"):
            self._truth.visible_at[key[0].removeprefix("JOB#")] = shown_at

    def _catch_up(self) -> None:
        now = self._world.now
        due = [change for change in self._coming if change[0] <= now]
        if due:
            self._coming = [change for change in self._coming if change[0] > now]
            for _, key, standing, item in due:
                super()._index(key, standing, item)


class TableItems:
    """control_table.Items, as one process reaches the table."""

    def __init__(self, caller: Caller, items: WatchedItems) -> None:
        self._caller = caller
        self._items = items

    def get(self, key: Mapping[str, str]) -> keys.Item | None:
        return self._caller.call("table", ("get", key), lambda: self._items.get(key), READS)

    def batch(self, wanted: Sequence[Mapping[str, str]]) -> Iterable[keys.Item]:
        return self._caller.call("table", ("batch", *wanted), lambda: self._items.batch(wanted), READS)

    def partition(self, pk: str) -> Iterable[keys.Item]:
        return self._caller.call("table", ("query", pk), lambda: self._items.partition(pk), READS)

    def open(self, pk: str, page: int, since: str = "") -> Iterable[keys.Item]:
        return self._caller.call("table", ("query", pk), lambda: self._items.open(pk, page, since), READS)

    def update(self, write: keys.Write) -> Reply:
        return self._caller.call("table", write, lambda: self._as_author(self._items.update, write), TABLE_WRITES)

    def put(self, put: keys.Put) -> Reply:
        return self._caller.call("table", put, lambda: self._as_author(self._items.put, put), TABLE_WRITES)

    def put_each(self, puts: Sequence[keys.Put]) -> None:
        what = ("put each", *(put.key for put in puts))
        self._caller.call("table", what, lambda: self._as_author(self._items.put_each, puts), TABLE_WRITES)

    def _as_author(self, write: Callable[[Any], T], what: object) -> T:
        self._items.author = self._caller.process
        return write(what)


# --- ECS, the cache, the queue of refused messages


class Ecs:
    """ports.Tasks, as one process reaches ECS."""

    def __init__(self, caller: Caller, ecs: MemoryEcs, seen: Truth) -> None:
        self._caller = caller
        self._ecs = ecs
        self._truth = seen

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        try:
            answer = self._caller.call("ecs", ("RunTask", lease), lambda: self._ecs.run(lease, launch), RUN_TASK)
        except Throttled:
            answer = Unanswered(Doubt.THROTTLED, "ThrottlingException: Rate exceeded")
        except NoAnswer as error:
            answer = Unanswered(Doubt.UNKNOWN, repr(error))
        self._truth.seen[f"launch {type(answer).__name__}"] += 1
        return answer

    def stop(self, cluster: str, arn: str, why: str) -> None:
        self._caller.call("ecs", ("StopTask", arn[-4:], why), lambda: self._ecs.stop(cluster, arn, why), WRITES)

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        what = ("DescribeTasks", *(arn[-4:] for arn in arns))
        words = self._caller.call("ecs", what, lambda: self._ecs.describe(cluster, arns), DESCRIBE)
        for word in words.values():
            self._truth.seen[f"described {word.value}"] += 1
        return words

    def listed(self, cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        what = ("ListTasks", "stopping" if stopping else "running")
        return self._caller.call("ecs", what, lambda: self._ecs.listed(cluster, stopping, token), READS)

    def identify(self, cluster: str, arns: Collection[str]) -> list[SeenTask]:
        what = ("DescribeTasks", *(arn[-4:] for arn in arns))
        return self._caller.call("ecs", what, lambda: self._ecs.identify(cluster, arns), DESCRIBE)


class Cache:
    """ports.Cache, as far as a decider asks it."""

    def __init__(self, caller: Caller, truth: Truth) -> None:
        self._caller = caller
        self._truth = truth

    def has_all(self, keys: Sequence[str]) -> bool:
        return self._caller.call("cache", ("HEAD", keys[0]), lambda: self._truth.cached.issuperset(keys), READS)

    def commit(self, path: str, key: str, kind: str) -> Artifact:
        raise NotImplementedError(f"jobs commit by themselves here, not {kind} {key} from {path}")


class Rejects:
    """ports.Rejects."""

    def __init__(self, caller: Caller, kept: list[str], truth: Truth) -> None:
        self._caller = caller
        self._kept = kept
        self._truth = truth

    def reject(self, body: str, reason: str, message_id: str) -> None:
        what = ("SendMessage", message_id, reason, f"{len(body)} characters")
        self._caller.call("rejects", what, lambda: self._kept.append(message_id), WRITES)
        if reason.startswith("ceiling"):
            self._truth.turned_away.add(json.loads(body)["workflow_key"])
            self._truth.seen["turned away at the ceiling"] += 1


class Bus:
    """ports.Bus: every event is taken, for nobody listens."""

    def publish(self, details: Sequence[str]) -> list[str]:
        return [""] * len(details)


class IntakeQueue:
    """The client of SQS that `publish` has, as far as it uses it."""

    def __init__(self, caller: Caller, take: Callable[[str], None]) -> None:
        self._caller = caller
        self._take = take

    def send_message(self, QueueUrl: str, MessageBody: str) -> None:
        """It is taken, at least once."""
        self._caller.call(QueueUrl, ("SendMessage", MessageBody), lambda: self._take(MessageBody), WRITES)


# --- jobs' processes


class SimulatedChild:
    """One job's process group: it computes for a while, commits its artifacts, and says how it ended."""

    def __init__(self, truth: Truth, process: Process, random: Random, plan: JobPlan, ending: str) -> None:
        self._truth = truth
        self._process = process
        self._random = random
        self._key = plan.key
        self._ending = ending
        self._killed = ending == "no child"
        now = process.world.now
        self._half_at = now + plan.duration_s / 2
        self._ends_at = FOREVER if ending == "hangs" else now + plan.duration_s
        if ending == "ok":
            process.world.at(self._half_at, self._commit)

    @property
    def alive(self) -> bool:
        return not (self._killed or self._process.dead) and self._process.world.now < self._ends_at

    @property
    def next_at(self) -> float:
        """When there will be something to report."""
        return self._half_at if self._process.world.now < self._half_at else self._ends_at

    def report(self) -> ChildReport:
        now = self._process.world.now
        if now < self._half_at:
            return ChildReport()
        if now < self._ends_at:
            stands = (Artifact(kind, kind, 1) for kind in artifact_keys(self._key, "bam")[:1])
            return ChildReport(Progress("sort", 0.5, "half way"), tuple(stands) if self._ending == "ok" else ())
        if self._ending == "ok":
            artifacts = (Artifact(kind, kind, 1) for kind in artifact_keys(self._key, "bam"))
            return ChildReport(artifacts=tuple(artifacts), exit_code=0)
        return ChildReport(failure=Failure("it broke", self._ending == "permanent"), exit_code=1)

    def kill(self) -> None:
        if self.alive and self._random.random() < 0.5:  # noqa: PLR2004 - it may go at once, or need the KILL
            self._process.pause(self._random.uniform(0.0, limits.CHILD_TERM_S))
        self._killed = True

    def _commit(self) -> None:
        """Some time before its end, if it lives to see it."""
        if not (self._killed or self._process.dead or self._truth.forgetful):
            self._truth.cached.update(artifact_keys(self._key, "bam"))


class SimulatedChildren:
    """ports.Children of one worker."""

    def __init__(self, truth: Truth, process: Process, random: Random, jobs: Mapping[str, JobPlan]) -> None:
        self._truth = truth
        self._process = process
        self._random = random
        self._jobs = jobs
        self.running: list[SimulatedChild] = []

    def start(self, assignment: Assignment) -> Child:
        plan = self._jobs[assignment.workflow_key]
        before = len(self._truth.children.get(plan.key, ()))
        ending = plan.attempts[min(before, len(plan.attempts) - 1)]
        child = SimulatedChild(self._truth, self._process, self._random, plan, ending)
        self._truth.started(plan.key, child)
        if ending == "no child":
            raise OSError("no memory for another process")
        self.running = [other for other in self.running if other.alive] + [child]
        return child

    @property
    def next_at(self) -> float:
        """When any of them will have something to report."""
        return min((child.next_at for child in self.running if not child._killed), default=0.0)


# --- time


class SimulatedClock:
    """ports.Clock of one process, ahead or behind by its skew. A busy worker's loop may come round late."""

    def __init__(self, process: Process, random: Random, supervise_s: float = 0.0) -> None:
        self._process = process
        self._world = process.world
        self._skew = process.skew
        self._random = random
        self._supervise_s = supervise_s
        self._names = 0
        self.children: SimulatedChildren | None = None

    def now(self) -> float:
        world = self._world
        return (self._process.woken_at if world.clocks_stand else world.now) + self._skew

    def sleep(self, seconds: float) -> None:
        if self.children and seconds == limits.SUPERVISE_S:
            until_s = self.children.next_at - self._process.world.now
            seconds = max(seconds, min(until_s, self._supervise_s))
        self._process.pause(seconds, interruptible=True)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def unique(self) -> str:
        self._names += 1
        return f"{self._process.name}-{self._names}"
