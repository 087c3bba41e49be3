"""ECS in memory: tokens, failures, states and visibility. Whoever owns it moves the tasks; nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetcap.decide import launch as decide
from fleetcap.decide.capacity import SPOT
from fleetcap.limits import DESCRIBE_TASKS_MAX_ARNS, ECS_CALL_TOKEN_LIFE_S, STOPPED_TASKS_VISIBLE_S
from fleetcap.model import LaunchAnswer, Lease, SeenTask, TaskStatus
from local.fargate.tasks import NO_CAPACITY, TOKEN_LIFE_AFTER_TASK_S, EcsError, Status

_ARN: Final = "arn:aws:ecs:local:000000000000:task/fleet/{:032x}"
LIST_PAGE: Final = 100
_LATER: Final = {status: frozenset(list(Status)[number:]) for number, status in enumerate(Status, start=1)}


@dataclass
class MemoryTask:
    """One task. `number` counts from 0 in the order of creation; times are unix seconds, 0 where not yet."""

    number: int
    arn: str
    cluster: str
    started_by: str
    created_at: float
    status: Status = Status.PROVISIONING
    stopping: bool = False
    stopped_at: float = 0.0
    stop_code: str = ""
    reason: str = ""
    group: str = ""

    @property
    def live(self) -> bool:
        """PROVISIONING up to, not including, STOPPED: what the cap counts."""
        return self.status is not Status.STOPPED

    def event(self) -> dict[str, Any]:
        """The ECS Task State Change event of its present state, as far as anybody reads it."""
        detail = {"taskArn": self.arn, "startedBy": self.started_by, "lastStatus": str(self.status)}
        if self.stopping:
            detail |= {"stopCode": self.stop_code, "stoppedReason": self.reason}
        return {"detail-type": "ECS Task State Change", "source": "aws.ecs", "detail": detail}


@dataclass(frozen=True)
class _Answered:
    request: str
    task: MemoryTask | None
    at: float

    def forgotten(self, now: float) -> bool:
        """A token lives for a day, or for an hour after its task, whichever is less."""
        stopped_at = self.task.stopped_at if self.task else 0.0
        return now > self.at + ECS_CALL_TOKEN_LIFE_S or 0 < stopped_at < now - TOKEN_LIFE_AFTER_TASK_S


class MemoryEcs:
    """ports.Tasks. `on_change` hears of every new state of a task; `now` is the only clock."""

    def __init__(self, now: Callable[[], float], on_change: Callable[[MemoryTask], None]) -> None:
        self.capacity: int | None = None
        """How many tasks may live at once; further ones are answered with `failures[]`. None: no limit."""
        self.spot = True
        """Whether Spot can be had."""
        self.tasks: dict[str, MemoryTask] = {}
        """Every task that ever was, by ARN: the ground truth, also of those that ECS no longer shows."""
        self.live: dict[str, MemoryTask] = {}
        self.forgotten = 0
        """How often a token was used again after it had been forgotten."""
        self._tokens: dict[tuple[str, str], _Answered] = {}
        self._now = now
        self._on_change = on_change

    # --- the port

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        now, cluster = self._now(), decide.cluster_of(launch)
        token = cluster, decide.token(lease)
        earlier = self._tokens.get(token)
        if earlier and not earlier.forgotten(now):
            if earlier.request != launch:
                named = [earlier.task.arn] if earlier.task else []
                return decide.refused("ConflictException", "the token was used with other parameters", named)
            return _answer(earlier.task)
        self.forgotten += earlier is not None
        refused = not self.spot and SPOT in launch
        task = None if refused else self._create(cluster, str(lease), now)
        self._tokens[token] = _Answered(launch, task, now)
        if task:
            self._on_change(task)  # not earlier: whoever hears of the task may send its token
        return _answer(task)

    def stop(self, cluster: str, arn: str, why: str) -> None:
        task = self._shown(cluster, arn)
        if task:
            self.stopping(task, "UserInitiated", why)

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        return {arn: self._status(cluster, arn) for arn in arns}

    def listed(self, cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        shown = (task for task in self.tasks.values() if task.stopping is stopping and self._shown(cluster, task.arn))
        arns = [task.arn for task in shown]
        start = int(token or 0)
        end = start + LIST_PAGE
        return arns[start:end], str(end) if end < len(arns) else ""

    def identify(self, cluster: str, arns: Collection[str]) -> list[SeenTask]:
        if not 1 <= len(arns) <= DESCRIBE_TASKS_MAX_ARNS:
            raise EcsError("InvalidParameterException", f"Name 1 to {DESCRIBE_TASKS_MAX_ARNS} tasks.")
        tasks = (task for arn in arns if (task := self._shown(cluster, arn)))
        return [SeenTask(task.arn, self._status(cluster, task.arn), task.started_by, task.group) for task in tasks]

    # --- what happens to tasks

    def stranger(self, cluster: str, started_by: str, group: str) -> MemoryTask:
        """A task that somebody else runs in the cluster. It lives until it is advanced, and is none of `live`."""
        number = len(self.tasks)
        task = MemoryTask(number, _ARN.format(number), cluster, started_by, self._now(), Status.RUNNING, group=group)
        self.tasks[task.arn] = task
        return task

    def advance(self, task: MemoryTask, status: Status) -> None:
        """The task reached a later status. A task that was stopped before it ran never runs. Raises ValueError."""
        if status not in _LATER[task.status] or (task.stopping and status is Status.RUNNING):
            how = "stopping" if task.stopping else "not stopping"
            raise ValueError(f"{task.arn} is {task.status}, {how}, and cannot become {status}")
        task.status = status
        if status is Status.STOPPED:
            task.stopped_at = self._now()
            self.live.pop(task.arn, None)
        self._on_change(task)

    def stopping(self, task: MemoryTask, code: str, reason: str) -> None:
        """The task is to stop, and why. Who says so first is remembered; later reasons change nothing."""
        if task.live and not task.stopping:
            task.stopping, task.stop_code, task.reason = True, code, reason
            self._on_change(task)

    def _create(self, cluster: str, started_by: str, now: float) -> MemoryTask | None:
        if self.capacity is not None and len(self.live) >= self.capacity:
            return None
        number = len(self.tasks)
        task = MemoryTask(number, _ARN.format(number), cluster, started_by, now)
        self.tasks[task.arn] = self.live[task.arn] = task
        return task

    def _shown(self, cluster: str, arn: str) -> MemoryTask | None:
        task = self.tasks.get(arn)
        hidden = task is None or task.cluster != cluster or 0 < task.stopped_at < self._now() - STOPPED_TASKS_VISIBLE_S
        return None if hidden else task

    def _status(self, cluster: str, arn: str) -> TaskStatus:
        task = self._shown(cluster, arn)
        if task is None:
            return TaskStatus.MISSING
        return TaskStatus.ALIVE if task.live else TaskStatus.STOPPED


def _answer(task: MemoryTask | None) -> LaunchAnswer:
    return decide.answered([{"taskArn": task.arn}] if task else [], [] if task else [{"reason": NO_CAPACITY}])
