"""Faults that stand: which of them strikes, how often it did, and how often it may yet. Their kinds are others' matter.

The local Fargate and the proxy each keep some. Chance comes from each fault's own seed: the same matches in the same
order are struck again.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Generic, Protocol, TypeVar

SEEDS: Final = 1_000_000


class Order(Protocol):
    """What every fault says of itself. `times` None: until it is cleared; `seed` None: one is drawn."""

    @property
    def times(self) -> int | None: ...
    @property
    def share(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def seed(self) -> int | None: ...


F = TypeVar("F", bound=Order)


@dataclass
class Standing(Generic[F]):
    """A fault that stands, and what it has done so far."""

    id: int
    fault: F
    seed: int
    chance: random.Random
    struck: int = 0

    @property
    def left(self) -> int | None:
        """How often it may still strike; None: until it is cleared."""
        return None if self.fault.times is None else self.fault.times - self.struck

    def strikes(self) -> bool:
        """Draw whether it strikes what it matches, and count if it does."""
        hit = self.left != 0 and self.chance.random() < self.fault.share
        self.struck += hit
        return hit

    def moment(self) -> float:
        """Some time within its seconds."""
        return self.chance.uniform(0, self.fault.seconds)


class StandingFaults(Generic[F]):
    """In the order of their coming. Any thread may ask; what is used up stays listed until it is cleared."""

    def __init__(self, told: Callable[[F], dict[str, Any]]) -> None:
        """`told` gives the fields of a fault, as JSON."""
        self._told = told
        self._standing: list[Standing[F]] = []
        self._ids = count(1)
        self._lock = threading.RLock()

    def add(self, fault: F) -> int:
        """Let a fault stand from now on; its id."""
        with self._lock:
            seed = random.randrange(SEEDS) if fault.seed is None else fault.seed
            each = Standing(next(self._ids), fault, seed, random.Random(seed))
            self._standing.append(each)
            return each.id

    def listed(self) -> list[dict[str, Any]]:
        """Each with its fields, its id, how often it struck and what is left."""
        with self._lock:
            return [
                {"id": each.id, **self._told(each.fault), "seed": each.seed, "struck": each.struck, "left": each.left}
                for each in self._standing
            ]

    def clear(self, number: int | None = None) -> int:
        """Clear one fault, or all; how many. What already struck goes its way."""
        with self._lock:
            kept = [each for each in self._standing if number not in (None, each.id)]
            cleared = len(self._standing) - len(kept)
            self._standing = kept
            return cleared

    def _first_that_strikes(self, fits: Callable[[F], bool]) -> Standing[F] | None:
        with self._lock:
            return next((each for each in self._matching(fits) if each.strikes()), None)

    def _matching(self, fits: Callable[[F], bool]) -> list[Standing[F]]:
        return [each for each in self._standing if fits(each.fault)]
