"""For how long a decider begins things. What it has done by then stands; the rest is for the next event or tick.

A decider that is killed at its timeout has lost what it was about to tell: a batch comes again as a whole, however much
of it was done. So each of them counts from its start, and stops by itself while what is under way can still end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self, TypeVar

from fleetcap import limits
from fleetcap.ports import Clock

T = TypeVar("T")


class Timebox(NamedTuple):
    """Until when things are begun, in unix seconds: `over_at` by the decider, `spent_at` by the part that this is for.

    By default there is no end: people and tests have as long as they like.
    """

    clock: Clock
    over_at: float = math.inf
    spent_at: float = math.inf

    @classmethod
    def begin(cls, clock: Clock, seconds: float = limits.DECIDER_BUDGET_S) -> Self:
        """The time of a decider that starts now."""
        over_at = clock.now() + seconds
        return cls(clock, over_at, over_at)

    @property
    def over(self) -> bool:
        """The decider has to come to its end: it begins nothing."""
        return self.clock.now() >= self.over_at

    @property
    def spent(self) -> bool:
        """This part has had its time: it begins nothing more."""
        return self.clock.now() >= self.spent_at

    @property
    def rest(self) -> Timebox:
        """All that is left to the decider, whatever this part has had."""
        return Timebox(self.clock, self.over_at, self.over_at)

    def part(self, of: float) -> Timebox:
        """One of so many equal parts of what is left of this one."""
        now = self.clock.now()
        return Timebox(self.clock, self.over_at, now + max(self.spent_at - now, 0.0) / of)

    def within(self, seconds: float) -> Timebox:
        """As much of this one, at most."""
        return Timebox(self.clock, self.over_at, min(self.spent_at, self.clock.now() + seconds))

    def allows(self, begun: int) -> bool:
        """Whether another thing is begun after so many. The first is unless it is over: each part makes progress."""
        return not (self.over or (begun and self.spent))

    def each(self, things: Iterable[T]) -> Iterator[T]:
        """The things, as far as they are allowed."""
        for number, thing in enumerate(things):
            if not self.allows(number):
                return
            yield thing
