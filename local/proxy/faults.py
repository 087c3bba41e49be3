"""Which call is to go wrong, and how. Standing orders of tests and people; no input or output."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from local.proxy.callers import Caller
from local.proxy.calls import Call
from local.standing import StandingFaults


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
    Kind.DELAY: "A call is passed on late, by up to --seconds, or once all faults are cleared.",
    Kind.KILL_BEFORE: "A call is never passed on; the calling process is killed.",
    Kind.KILL_AFTER: "A call is carried out; the calling process is killed before it hears so.",
}
BEFORE: Final = frozenset({Kind.DROP_REQUEST, Kind.KILL_BEFORE})
AFTER: Final = frozenset({Kind.DROP_REPLY, Kind.KILL_AFTER})
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
    seed: int | None = None

    def fits(self, call: Call, caller: Caller) -> bool:
        """Whether this call of this process is meant. A caller that is gone already may have been the one: what it sent
        last must not get through where all that it sends is to be lost."""
        return (
            self.actor in {"", call.actor}
            and self.operation in {"", call.name, call.operation, call.service}
            and (not self.text or self.text.encode() in call.body)
            and (not self.pid or self.pid in caller or not caller.pid)
        )


class Faults(StandingFaults[Fault]):
    """The standing faults of calls; the first that fits strikes."""

    def __init__(self) -> None:
        super().__init__(lambda fault: fault.model_dump(mode="json"))

    @property
    def ask_who(self) -> bool:
        """Whether any of them needs to know the calling process."""
        return any(each.left != 0 for each in self._matching(lambda fault: bool(fault.pid) or fault.kind in KILLS))

    def strike(self, call: Call, caller: Caller) -> tuple[Kind | None, float]:
        """What happens to this call, counted; and for how long, where it is delayed."""
        struck = self._first_that_strikes(lambda fault: fault.fits(call, caller))
        return (struck.fault.kind, struck.moment()) if struck else (None, 0.0)
