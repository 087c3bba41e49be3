"""Which call is to go wrong, and how. Standing orders of tests and people; no input or output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from random import Random, randrange
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from local.proxy.callers import Caller
from local.proxy.calls import Call


class Kind(StrEnum):
    """What happens to a call."""

    DROP_REQUEST = "drop-request"
    DROP_REPLY = "drop-reply"
    DELAY = "delay"
    KILL_BEFORE = "kill-before"
    KILL_AFTER = "kill-after"


KINDS: Final[Mapping[str, str]] = {
    Kind.DROP_REQUEST: "A call is never passed on; the caller's connection breaks.",
    Kind.DROP_REPLY: "A call is carried out; the caller's connection breaks before it hears so.",
    Kind.DELAY: "A call is passed on late, by up to --seconds.",
    Kind.KILL_BEFORE: "A call is never passed on; the calling process is killed.",
    Kind.KILL_AFTER: "A call is carried out; the calling process is killed before it hears so.",
}
BEFORE: Final = frozenset({Kind.DROP_REQUEST, Kind.KILL_BEFORE})
AFTER: Final = frozenset({Kind.DROP_REPLY, Kind.KILL_AFTER})
SEEDS: Final = 1_000_000
KILLS: Final = frozenset({Kind.KILL_BEFORE, Kind.KILL_AFTER})


class Fault(BaseModel):
    """A standing order. Empty fields match every call. `times` is how often it strikes, None without end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    actor: str = ""
    operation: str = ""
    """`service:Operation`, `Operation`, or `service`."""
    text: str = ""
    """Text within the request's body, for calls that are one short document."""
    pid: int = Field(default=0, ge=0)
    """A process, or the leader of the session that the calling process belongs to."""
    times: int | None = Field(default=None, ge=1)
    share: float = Field(default=1.0, gt=0, le=1)
    seconds: float = Field(default=0.0, ge=0, le=900)
    seed: int = Field(default_factory=lambda: randrange(SEEDS))  # noqa: S311 - drawn, and told, if nobody gives one

    def fits(self, call: Call, caller: Caller) -> bool:
        """Whether this call of this process is meant. A caller that is gone already may have been the one: what it sent
        last must not get through where all that it sends is to be lost."""
        return (
            self.actor in {"", call.actor}
            and self.operation in {"", call.name, call.operation, call.service}
            and (not self.text or self.text.encode() in call.body)
            and (not self.pid or self.pid in caller or not caller.pid)
        )


@dataclass
class Standing:
    """A fault, what it has done so far, and how often it may yet strike (None: without end)."""

    fault: Fault
    chance: Random
    left: int | None
    struck: int = 0

    def strikes(self, call: Call, caller: Caller) -> bool:
        """Whether it strikes this call; counted if so."""
        if self.left == 0 or not self.fault.fits(call, caller) or self.chance.random() >= self.fault.share:
            return False
        self.struck += 1
        self.left = None if self.left is None else self.left - 1
        return True


class Faults:
    """The standing faults in the order of their coming; the first that fits strikes."""

    def __init__(self) -> None:
        self._standing: dict[int, Standing] = {}
        self._ids = count(1)

    def add(self, fault: Fault) -> int:
        """Have it stand; its number."""
        number = next(self._ids)
        self._standing[number] = Standing(fault, Random(fault.seed), fault.times)  # noqa: S311 - under a seed
        return number

    def clear(self, number: int | None = None) -> int:
        """Forget one, or all; how many there were."""
        meant = [each for each in self._standing if number in {None, each}]
        for each in meant:
            del self._standing[each]
        return len(meant)

    @property
    def ask_who(self) -> bool:
        """Whether any of them needs to know the calling process."""
        return any((each.fault.pid or each.fault.kind in KILLS) and each.left != 0 for each in self._standing.values())

    def strike(self, call: Call, caller: Caller) -> tuple[Kind | None, float]:
        """What happens to this call, counted; and for how long, where it is delayed."""
        for each in self._standing.values():
            if each.strikes(call, caller):
                return each.fault.kind, each.chance.uniform(0.0, each.fault.seconds)
        return None, 0.0

    def told(self) -> list[dict[str, Any]]:
        """All of them with their number, how often they struck, and how often they may yet, as JSON."""
        return [
            {"id": number, **each.fault.model_dump(mode="json"), "struck": each.struck, "left": each.left}
            for number, each in self._standing.items()
        ]
