"""Virtual time and the processes in it: greenlets that give way at every port call, and a heap of what comes next."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush
from typing import Final, NamedTuple

from greenlet import getcurrent, greenlet

BEGAN_AT: Final = 1_800_000_000.0
FOREVER: Final = float("inf")


@contextmanager
def rare_garbage() -> Iterator[Callable[[], object]]:
    """A history leaves cycles behind. Looking for them only now and then, and among these alone, saves a third.

    What is there before stays out of every later search as well: going through all modules anew takes as long as many
    histories do.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.enable()


class Crash(BaseException):
    """The process is gone, in the middle of whatever it did. No handler of the product catches it."""


class Line(NamedTuple):
    """One line of the trace: seconds since the start, who, what, and how it ended."""

    at: float
    who: str
    what: str
    outcome: str


class World:
    """The clock, the heap and the trace. Whatever is due first runs first; equal times run in the order of asking."""

    def __init__(self, tracing: bool) -> None:
        self.now = BEGAN_AT
        self.horizon = FOREVER
        """When something happens that is not in the heap."""
        self.lines: list[Line] | None = [] if tracing else None
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.hub = getcurrent()
        self.clocks_stand = False
        self.failure: BaseException | None = None
        self.processes: list[Process] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen."""
        self._count += 1
        heappush(self.due, (when, self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something happen later."""
        self.at(self.now + seconds, what)

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, what = heappop(self.due)
        what()
        if self.failure:
            raise self.failure

    @property
    def idle(self) -> bool:
        """Nothing is due any more."""
        return not self.due

    @property
    def next_at(self) -> float:
        """When the next thing happens."""
        return min(self.due[0][0], self.horizon) if self.due else self.horizon

    def give_way(self) -> None:
        """Called in a process: let the world go on until the process is woken."""
        self.hub.switch()

    def log(self, who: str, what: str, outcome: str = "") -> None:
        """Write a line of the trace, if anybody reads it."""
        if self.lines is not None:
            self.lines.append(Line(self.now - BEGAN_AT, who, what, outcome))


_idle: list[greenlet] = []


def _serve(process: Process) -> None:
    """One process after the other in one greenlet: each new one has the kernel map a stack of Python frames for it."""
    while True:
        hub = process.world.hub
        process.run()
        _idle.append(getcurrent())
        del process
        process = hub.switch()


class Process:
    """One running decider or worker: a greenlet with a clock of its own that may be ahead or behind by `skew` seconds.

    It dies at `deadline` (true time), by `kill`, or by itself. `ended` is called once, whichever way; it learns whether
    the process returned.
    """

    def __init__(
        self,
        world: World,
        name: str,
        body: Callable[[Process], object],
        ended: Callable[[bool], None],
        skew: float = 0.0,
        deadline: float = FOREVER,
    ) -> None:
        self.world = world
        self.name = name
        self.skew = skew
        self.deadline = deadline
        self.dead = False
        self.draining = False
        self.frozen_until = 0.0
        self.cut_until = 0.0
        self._ended = ended
        self._nap = 0
        self._interruptible = False
        self._body = body
        self.dozes: Callable[[], float] | None = None
        """Asked where it would wake from a sleep: for how many seconds it sleeps on; 0: it wakes."""
        self._greenlet: greenlet | None = None
        """Which one it runs in, from its start to its end."""
        self._over = False
        world.processes.append(self)
        self.woken_at = world.now
        """Where clocks stand, its clock stands here: at when it last woke."""
        world.at(world.now, self.resume)

    def resume(self) -> None:
        """Let it begin, or go on with what it does, now."""
        if self._greenlet:
            self._greenlet.switch()
        elif not self._over:
            self._greenlet = _idle.pop() if _idle else greenlet(_serve)
            self._greenlet.switch(self)

    def abandon(self) -> None:
        """Nobody is interested in it any more."""
        self.dead = True
        if self._greenlet:
            self._greenlet.throw(Crash)

    def run(self) -> None:
        """All of its life, in its greenlet."""
        returned = False
        try:
            if not self.dead:
                self._body(self)
                returned = True
        except Crash:
            pass
        except BaseException as error:  # a violated invariant, or a bug: it ends the history, not just the process
            self.world.failure = error
        self.dead = True
        self._ended(returned)
        self._greenlet, self._over = None, True

    def pause(self, seconds: float, interruptible: bool = False) -> None:
        """Let time pass; others act meanwhile. Raises Crash where the process does not live to see the end of it."""
        if self.dead:
            raise Crash
        world = self.world
        until = world.now + seconds
        while until < self.deadline and until <= world.horizon and (not world.due or until <= world.due[0][0]):
            world.now = until  # nobody else acts before
            if not (interruptible and self.dozes and (seconds := self.dozes())):
                return
            until += seconds
        if until >= self.deadline:
            until, self.dead = max(self.deadline, world.now), True
        self._nap += 1
        nap = self._nap
        self._interruptible = interruptible
        world.at(until, partial(self._wake, nap))
        world.give_way()
        self._interruptible = False
        if self.dead:
            raise Crash

    def _wake(self, nap: int) -> None:
        if nap != self._nap or self._greenlet is None:
            return  # woken earlier by something else
        if self.world.now < self.frozen_until and not self.dead:
            if self.frozen_until < FOREVER:
                self.world.at(self.frozen_until, partial(self._wake, nap))
            return
        self.woken_at = self.world.now
        if self.dozes and self._interruptible and not self.dead and (seconds := self.dozes()):
            self.world.at(self.world.now + seconds, partial(self._wake, nap))
            return
        self._nap += 1
        self._greenlet.switch()

    def freeze(self, until: float) -> None:
        """It does nothing before then, whatever wakes it. Who is frozen for longer stays so."""
        self.frozen_until = max(self.frozen_until, until)

    def cut_off(self, until: float) -> None:
        """It cannot reach the table before then."""
        self.cut_until = max(self.cut_until, until)

    def kill(self) -> None:
        """SIGKILL: whatever it waits for, it does not come back from it."""
        if not self.dead:
            self.dead = True
            self.world.at(self.world.now, partial(self._wake, self._nap))

    def signal(self) -> None:
        """SIGTERM: it is asked to leave, and wakes up if it sleeps."""
        self.draining = True
        if self._interruptible and not self.dead:
            self.world.at(self.world.now, partial(self._wake, self._nap))
