"""Faults to order: what may go wrong, how often, and for which tasks. Values and rules; the other rooms carry them out.

A standing fault strikes the calls, events or reads that it matches until it is used up or cleared (`local.standing`);
an act is done once, to one task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final, TypeGuard

from local.fargate.tasks import EcsError, Status
from local.standing import StandingFaults

SECONDS_MAX: Final = 3_600
SPOT_WARNING_S: Final = 120
PROVIDERS: Final = ("FARGATE", "FARGATE_SPOT")


class BadFault(ValueError):
    """What was asked for is no fault; the message is one sentence that says why."""


@dataclass(frozen=True)
class Kind:
    """One way to go wrong. `seconds` and `text` say what these mean to it; empty: it takes none."""

    name: str
    help: str
    seconds: str = ""
    text: str = ""
    needs_seconds: bool = False
    seconds_max: int = SECONDS_MAX


def _table(*kinds: Kind) -> Mapping[str, Kind]:
    return {kind.name: kind for kind in kinds}


_WAIT: Final = "how long the caller waits for the error"
_STATUS: Final = "the only lastStatus that is struck, such as STOPPED"
_REASON: Final = "the stoppedReason"

RUN_TASK: Final = _table(
    Kind(
        "no-capacity",
        "RunTask answers failures[], capacity is unavailable; so does every resend of the token.",
        text="the only capacity provider that is refused, FARGATE or FARGATE_SPOT",
    ),
    Kind("throttle", "RunTask is refused with a ThrottlingException."),
    Kind("wrapped-throttle", "RunTask is refused with an InvalidParameterException whose text is a throttle."),
    Kind("refuse", "RunTask is refused for good.", text="the error, as CODE or CODE: MESSAGE; AccessDeniedException"),
    Kind("timeout-before-start", "RunTask does nothing, and the caller gets a ServerException.", seconds=_WAIT),
    Kind("timeout-after-start", "RunTask does its work, and the caller gets a ServerException.", seconds=_WAIT),
    Kind("never-starts", "The task goes from PROVISIONING to STOPPED, its `containers` empty.", text=_REASON),
    Kind("image", "The task's image cannot be pulled: CannotPullContainerError.", text=_REASON),
)
EVENTS: Final = _table(
    Kind("drop-events", "Task events never arrive.", text=_STATUS),
    Kind("double-events", "Task events arrive twice.", seconds="how much later the copy comes at most", text=_STATUS),
    Kind(
        "delay-events",
        "Task events arrive late, each by a time of its own, so that their order is lost.",
        seconds="how late they come at most",
        text=_STATUS,
        needs_seconds=True,
    ),
)
_AGE: Final = "how old the answer is"
READS: Final = _table(
    Kind("lag-list", "ListTasks answers as of some seconds ago.", seconds=_AGE, needs_seconds=True),
    Kind("lag-describe", "DescribeTasks answers as of some seconds ago.", seconds=_AGE, needs_seconds=True),
    Kind("empty-list", "ListTasks says that there are no tasks."),
)
KINDS: Final = {**RUN_TASK, **EVENTS, **READS}
"""The standing faults."""

ACTS: Final = _table(
    Kind("hang", "Freeze the task's processes (SIGSTOP); ECS still shows it RUNNING."),
    Kind("resume", "Let a hung task go on (SIGCONT)."),
    Kind(
        "spot",
        "Interrupt the task as Spot does: the warning event and SIGTERM, later SIGKILL.",
        seconds="how long after the warning it is killed; its stopTimeout",
        seconds_max=SPOT_WARNING_S,
    ),
    Kind("kill", "Kill the task's main process (SIGKILL)."),
)
"""What can be done to one task, at once."""

REASONS: Final = {
    "never-starts": "Timeout waiting for network interface provisioning to complete.",
    "image": "CannotPullContainerError: pull image manifest has been retried 5 time(s): image not found",
}
ERRORS: Final = {
    "throttle": ("ThrottlingException", "Rate exceeded"),
    "wrapped-throttle": (
        "InvalidParameterException",
        "Error retrieving subnet information: Request limit exceeded. (ErrorCode: RequestLimitExceeded)",
    ),
    "refuse": ("AccessDeniedException", "You do not have permission to perform this action."),
    "timeout-before-start": ("ServerException", "The service did not answer in time."),
    "timeout-after-start": ("ServerException", "The service did not answer in time."),
}


@dataclass(frozen=True)
class Fault:
    """A standing fault. `family` is a task definition's; "" means all. `seed` None: one is drawn."""

    kind: str
    times: int | None = None
    share: float = 1.0
    seconds: float = 0.0
    family: str = ""
    seed: int | None = None
    text: str = ""

    @classmethod
    def parse(cls, body: object) -> Fault:
        """Read what somebody asks for. Raises BadFault."""
        if not isinstance(body, dict):
            raise BadFault("A fault is an object with at least a `kind`.")
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(body) - set(known)):
            raise BadFault(f"A fault has no {unknown[0]!r}; it has {', '.join(known)}.")
        kind = KINDS.get(str(body.get("kind")))
        if kind is None:
            raise BadFault(f"There is no fault {body.get('kind')!r}; there are {', '.join(KINDS)}.")
        times, seed, share = body.get("times"), body.get("seed"), body.get("share", 1.0)
        if times is not None and (not is_whole(times) or times < 1):
            raise BadFault("`times` is a whole number from 1 on, or null for until it is cleared.")
        if seed is not None and not is_whole(seed):
            raise BadFault("`seed` is a whole number, or null for one that is drawn.")
        if not is_number(share) or not 0 <= share <= 1:
            raise BadFault("`share` is a number from 0 to 1.")
        for name in ("family", "text"):
            if not isinstance(body.get(name, ""), str):
                raise BadFault(f"`{name}` is a text.")
        fault = cls(**{**body, "seconds": checked_seconds(kind, body.get("seconds", 0.0))})
        fault._check_text(kind)
        return fault

    def _check_text(self, kind: Kind) -> None:
        if self.text and not kind.text:
            raise BadFault(f"{kind.name} takes no `text`.")
        if self.text and kind.name in EVENTS and self.text not in list(Status):
            raise BadFault(f"There is no lastStatus {self.text!r}; there are {', '.join(Status)}.")
        if self.text and kind.name == "no-capacity" and self.text not in PROVIDERS:
            raise BadFault(f"There is no capacity provider {self.text!r}; there are {', '.join(PROVIDERS)}.")
        if self.text and kind.name == "refuse" and not self.error.code.isalnum():
            raise BadFault("`text` of refuse is CODE or CODE: MESSAGE, such as BlockedException.")

    def covers(self, families: Collection[str] | None, only: str) -> bool:
        """Whether it may strike something that concerns these families (None: all) and, of an event, this status only,
        of a launch this capacity provider.
        """
        other = (self.kind in EVENTS or self.kind == "no-capacity") and self.text not in ("", only)
        return not other and (not self.family or families is None or self.family in families)

    def lag_s(self, family: str) -> float:
        """How old a read that this strikes is about a task of a family; older than everything for an empty list."""
        if self.family not in ("", family):
            return 0.0
        return math.inf if self.kind == "empty-list" else self.seconds

    @property
    def reason(self) -> str:
        """Why a task that this strikes stops."""
        return self.text or REASONS[self.kind]

    @property
    def error(self) -> EcsError:
        """What the caller of a RunTask that this strikes gets."""
        code, message = ERRORS[self.kind]
        if self.text:
            code, _, other = self.text.partition(":")
            message = other.strip() or message
        return EcsError(code, message, after_s=self.seconds)


def checked_seconds(kind: Kind, seconds: object) -> float:
    """The seconds of a kind. Raises BadFault."""
    if not is_number(seconds) or not 0 <= seconds <= kind.seconds_max:
        raise BadFault(f"`seconds` is a number from 0 to {kind.seconds_max}.")
    if seconds and not kind.seconds:
        raise BadFault(f"{kind.name} takes no `seconds`.")
    if not seconds and kind.needs_seconds:
        raise BadFault(f"{kind.name} needs `seconds`: {kind.seconds}.")
    return float(seconds)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is an integer, which True is not here."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is an integer or a float."""
    return is_whole(value) or isinstance(value, float)


class Faults(StandingFaults[Fault]):
    """The standing faults of the endpoint."""

    def __init__(self) -> None:
        super().__init__(asdict)

    def strike(self, *kinds: str, families: Collection[str] | None = None, status: str = "") -> Fault | None:
        """The first fault of these kinds that strikes, if any does. `families`: whom it would concern, None: all."""
        struck = self._first_that_strikes(_covering(kinds, families, status))
        return struck.fault if struck else None

    def refuses(self, family: str, provider: str) -> bool:
        """Whether a provider has no capacity for one more task of a family; "" is the launch type FARGATE."""
        return self.strike("no-capacity", families=[family], status=provider or PROVIDERS[0]) is not None

    def deliveries(self, family: str, status: str) -> list[float]:
        """In how many seconds an event about a task arrives: once for each time that it does."""
        if self.strike("drop-events", families=[family], status=status):
            return []
        at = [0.0]
        with self._lock:
            for each in self._matching(_covering(["double-events"], [family], status)):
                at += [each.moment()] if each.strikes() else []
            for each in self._matching(_covering(["delay-events"], [family], status)):
                at = [seconds + each.moment() if each.strikes() else seconds for seconds in at]
        return at


def _covering(kinds: Collection[str], families: Collection[str] | None, status: str) -> Callable[[Fault], bool]:
    return lambda fault: fault.kind in kinds and fault.covers(families, status)
