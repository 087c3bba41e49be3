"""Small scopes in full: every interleaving of a few processes, with every crash and every lost reply, state by state.

A scope is a history whose calls are not timed: which process goes on next, and how its call goes, is a choice, and so
is letting time go on to what is due next. All choices are tried, depth first, by running the scope anew along a path.
Two paths that lead to the same state (table, ECS, what every process has been told and when, what is due) are followed
once. Where nothing is left to choose, calls are timed and go well, and everything must settle within LIVE's bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from fleetcap import keys, limits
from fleetcap.adapters.control_table import StoredControlTable
from handlers import tick
from local.memory.ecs import MemoryTask
from local.simulator.history import POOL, Calls, History, shown, told
from local.simulator.plan import Fault, Plan
from local.simulator.ports import READS, NoAnswer
from local.simulator.truth import Violation
from local.simulator.world import BEGAN_AT, Crash, Line, Process, rare_garbage

T = TypeVar("T")

GARBAGE_STEPS: Final = 20_000
LATE_S: Final = (1.0, 100.0)
"""When a request that was not answered lands: before what else is due, or long after."""


class Choice(NamedTuple):
    """Let time go on (`process` is empty), or let a process go on, its call going like this."""

    process: str = ""
    fault: Fault | None = None
    late_s: float = 0.0


class Middle(Random):
    """No chance at all: the middle of every range, the first of every choice."""

    def random(self) -> float:
        return 0.5

    def choice(self, seq: Any) -> Any:  # noqa: ANN401 - as Random has it
        return seq[0]

    def shuffle(self, x: Any) -> None:  # noqa: ANN401 - as Random has it
        """Left in order."""

    def sample(self, population: Any, k: int, **_: Any) -> Any:  # noqa: ANN401 - as Random has it
        return list(population)[:k]


@dataclass(frozen=True)
class Budget:
    """How much may go wrong on one path: processes that die, calls without an answer, and both together."""

    crashes: int
    faults: int
    mishaps: int


class Scope(History):
    """A history whose calls wait for the explorer."""

    title: ClassVar[str]
    scene: ClassVar[Plan]
    """The jobs and the fleet."""
    until_s: ClassVar[float] = 0.0
    """From here on calls are timed and go well."""
    budget: ClassVar[Budget]

    def __init__(self, tracing: bool = False) -> None:
        super().__init__(self.scene, tracing)
        self.truth.idle_bound_s = self.truth.pick_up_bound_s = 0.0
        self.crashes, self.faults_left, self.mishaps = self.budget.crashes, self.budget.faults, self.budget.mishaps
        self.waiting: dict[str, Explored] = {}
        self.told: dict[str, int] = {}
        self.chosen = Choice()
        self.exploring = self.world.clocks_stand = True  # when a call is made makes no difference but by its order
        self.world.horizon = 0.0  # no process goes on by itself
        self.begin()

    def begin(self) -> None:
        """Set the scene and start the processes."""
        raise NotImplementedError

    def _dice(self, seed: int) -> tuple[Random, Random]:
        return Middle(seed), Middle(seed)

    def caller(self, process: Process) -> Calls:
        return Explored(self, process)

    def looks_in_vain(self, _process: Process) -> bool:
        return False  # each look has its place in the order

    def _do_tick(self, process: Process) -> None:
        """Without its look at gauges and tasks, which follows everything that it does, and changes nothing."""
        tick.handle(self.fleet(process))

    # --- setting the scene

    def table(self, process: Process) -> StoredControlTable:
        """The table, at once and without faults."""
        self.items.author = process
        return StoredControlTable(self.items)

    def message(self, number: int) -> dict[str, Any]:
        """A message of the scene, sent now."""
        return self.record(self.plan.messages[number], f"message-{number}")

    def start(self) -> None:
        """Processes that are to start at this moment wait at their first call."""
        while self.world.due and self.world.due[0][0] <= self.world.now:
            self.world.step()

    def create_slots(self) -> None:
        """The slots of the cap exist and are empty."""
        self.table(Nobody(self)).create_slots(keys.slot_ids(POOL, self.plan.cap), BEGAN_AT)

    # --- exploring

    def choices(self) -> list[Choice]:
        """What may happen next; nothing, where the scope is explored."""
        if not self.exploring:
            return []
        found = [choice for name in sorted(self.waiting) for choice in self._of(self.waiting[name])]
        if self.world.due and self.world.due[0][0] <= BEGAN_AT + self.until_s:
            found.append(Choice())
        return found

    def _of(self, explored: Explored) -> Iterator[Choice]:
        name = explored.process.name
        yield Choice(name)
        if not self.mishaps:
            return
        write = explored.kinds is not READS
        if self.crashes:
            yield Choice(name, Fault.CRASH_BEFORE)
            if write:
                yield Choice(name, Fault.CRASH_AFTER)
        if self.faults_left:
            yield Choice(name, Fault.FAILS)
            if write:
                yield Choice(name, Fault.REPLY_LOST)
                for late_s in LATE_S:
                    yield Choice(name, Fault.LANDS_LATE, late_s)

    def take(self, choice: Choice) -> None:
        """Let it happen. Raises Violation."""
        if not choice.process:
            self.world.step()
        else:
            self.chosen = choice
            self.waiting[choice.process].process.resume()
            if self.world.failure:
                raise self.world.failure

    def close(self) -> None:
        """From here on everything goes well, and must settle. Raises Violation."""
        self.exploring = self.world.clocks_stand = False
        for explored in [self.waiting[name] for name in sorted(self.waiting)]:
            self.world.at(self.world.now, explored.process.resume)
        self.waiting.clear()
        self.chosen = Choice()
        self.calm_at = self.world.now
        self.tick_at = self.world.now + limits.TICK_PERIOD_S
        self.settle()

    def state(self) -> int:
        """What the future depends on, as a fingerprint."""
        world = self.world
        tasks = tuple((task.number, task.status, task.stopping) for task in self.ecs.tasks.values())
        due = tuple(sorted((when - BEGAN_AT, label(what)) for when, _, what in world.due))
        processes = tuple((p.name, p.dead, p.draining, p.name in self.waiting) for p in world.processes)
        items = tuple(repr(item) for item in self.items.all())
        answers = tuple(sorted(self.told.items()))
        children = tuple((key, child.alive) for key, started in self.truth.children.items() for child in started)
        rest = (self.crashes, self.faults_left, self.mishaps, len(self.truth.cached), tuple(self.rejected))
        return hash((world.now, items, tasks, due, processes, answers, children, rest))

    def abandon(self) -> None:
        """End what is still suspended."""
        self.exploring = False
        for process in self.world.processes:
            process.abandon()


def label(what: Callable[..., object]) -> str:
    """What is due, told apart from everything else that may be."""
    if isinstance(what, partial):
        return f"{label(what.func)}({', '.join(map(_tag, what.args))})"
    owner = getattr(what, "__self__", None)
    return f"{_tag(owner)}.{what.__name__}"


def _tag(value: object) -> str:
    match value:
        case MemoryTask(number=number):
            return f"task {number}"
        case dict():
            return str(value.get("messageId", value))
        case Calls(process=process):
            return process.name
        case keys.Write() | keys.Put() | tuple():
            return told(value)
        case str() | int() | float():
            return str(value)
        case _:
            return str(getattr(value, "name", type(value).__name__))


class Nobody(Process):
    """The author of what was there before."""

    def __init__(self, scope: Scope) -> None:
        self.world, self.name, self.dead = scope.world, "before", False


class Explored(Calls):
    """ports.Caller whose calls wait to be chosen."""

    def __init__(self, scope: Scope, process: Process) -> None:
        super().__init__(scope, process)
        self._scope = scope
        self.kinds: tuple[Fault, ...] = ()

    def call(self, port: str, what: object, effect: Callable[[], T], kinds: tuple[Fault, ...]) -> T:
        scope, process = self._scope, self.process
        if process.dead:
            raise Crash
        if not scope.exploring:
            return super().call(port, what, effect, kinds)
        self.kinds = kinds
        scope.waiting[process.name] = self
        process.world.give_way()
        scope.waiting.pop(process.name, None)
        if process.dead or process.world.now >= process.deadline:
            process.dead = True
            raise Crash
        answer = self._chosen(scope.chosen, what, effect)
        self._remember(shown(answer))
        return answer

    def _remember(self, answer: str) -> None:
        name = self.process.name
        self._scope.told[name] = hash((self._scope.told.get(name), self.process.woken_at, answer))

    def _chosen(self, choice: Choice, what: object, effect: Callable[[], T]) -> T:
        scope, process = self._scope, self.process
        scope.chosen = Choice()
        match choice.fault:
            case None:
                answer = self.carry_out(what, effect)
                self._note(what, shown(answer))
                return answer
            case Fault.CRASH_BEFORE | Fault.CRASH_AFTER:
                scope.crashes -= 1
                scope.mishaps -= 1
                self._note(what, str(choice.fault))
                if choice.fault is Fault.CRASH_AFTER:
                    self.carry_out(what, effect)
                process.dead = True
                raise Crash
            case Fault.REPLY_LOST:
                self.carry_out(what, effect)
            case Fault.LANDS_LATE:
                process.world.after(choice.late_s, partial(self._land, what, effect))
        scope.faults_left -= 1
        scope.mishaps -= 1
        self._note(what, str(choice.fault))
        self._remember(str(choice.fault))
        raise NoAnswer(choice.fault.name)


@dataclass
class Found:
    """What exploring a scope came to."""

    name: str
    states: int = 0
    ends: int = 0
    steps: int = 0
    violation: Violation | None = None
    lines: list[Line] = field(default_factory=list)


def explore(kind: type[Scope]) -> Found:
    """Try every path of a scope, up to the first violation."""
    found = Found(kind.title)
    collected = 0
    seen: set[int] = set()
    paths: list[tuple[Choice, ...]] = [()]
    with rare_garbage() as collect:
        while paths and not found.violation:
            _follow(kind, paths.pop(), paths, seen, found)
            if found.steps // GARBAGE_STEPS > collected:
                collected += 1
                collect()
    return found


def _follow(
    kind: type[Scope], path: tuple[Choice, ...], paths: list[tuple[Choice, ...]], seen: set[int], found: Found
) -> None:
    """Go along a path and on from its end, first choices first, to a state that is known or where all is settled."""
    scope = kind()
    try:
        for choice in path:
            scope.take(choice)
        found.steps += len(path)
        while (state := scope.state()) not in seen:
            seen.add(state)
            found.states += 1
            choices = scope.choices()
            if not choices:
                found.ends += 1
                scope.close()
                return
            paths.extend((*path, choice) for choice in choices[1:])
            path = (*path, choices[0])
            scope.take(choices[0])
            found.steps += 1
    except Violation as violation:
        found.violation = violation
        found.lines = _trace(kind, path)
    finally:
        scope.abandon()


def _trace(kind: type[Scope], path: tuple[Choice, ...]) -> list[Line]:
    """The path once more, told."""
    scope = kind(tracing=True)
    try:
        for choice in path:
            scope.take(choice)
        scope.close()
    except Violation as violation:
        scope.world.log("truth", str(violation), "VIOLATION")
    lines = list(scope.world.lines or [])
    scope.abandon()
    return lines
