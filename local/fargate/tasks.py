"""The registry of tasks: every rule about tokens, states and counts, and nothing that waits or reads a clock."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fleetcap.limits import ECS_CALL_TOKEN_LIFE_S, STOPPED_TASKS_VISIBLE_S

Json = dict[str, Any]

TOKEN_LIFE_AFTER_TASK_S = 3_600
NO_CAPACITY = "Capacity is unavailable at this time. Please try again later or in a different availability zone"


class EcsError(Exception):
    """An error as ECS's clients see it, `after_s` later: a code, a sentence, and further members of the answer."""

    def __init__(self, code: str, message: str, after_s: float = 0.0, **details: object) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.after_s, self.details = code, message, after_s, details


class Status(StrEnum):
    """lastStatus, in the order in which a task goes through it."""

    PROVISIONING = "PROVISIONING"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DEPROVISIONING = "DEPROVISIONING"
    STOPPED = "STOPPED"


def family_of(definition: str) -> str:
    """The family of a task definition that is named by its family, with or without a revision, or by its ARN."""
    return definition.rpartition("/")[2].partition(":")[0]


CONTAINER_STATUS = {Status.RUNNING: "RUNNING", Status.DEPROVISIONING: "STOPPED", Status.STOPPED: "STOPPED"}


@dataclass(frozen=True)
class Launch:
    """A RunTask that passed every check. `fingerprint` stands for all parameters but the token."""

    cluster_arn: str
    definition: Mapping[str, Any]
    count: int = 1
    token: str = ""
    fingerprint: str = ""
    started_by: str = ""
    group: str = ""
    capacity_provider: str = ""
    platform_version: str = "1.4.0"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[Mapping[str, str]] = ()

    @property
    def family(self) -> str:
        """The task definition's name without its revision."""
        return str(self.definition["family"])

    @property
    def container(self) -> Mapping[str, Any]:
        """The container that becomes the process: the first essential one."""
        containers: Sequence[Mapping[str, Any]] = self.definition["containerDefinitions"]
        return next((each for each in containers if each.get("essential", True)), containers[0])

    @property
    def container_overrides(self) -> Mapping[str, Any]:
        """What the request overrides of that container."""
        overrides: Sequence[Mapping[str, Any]] = self.overrides.get("containerOverrides", ())
        return next((each for each in overrides if each.get("name") == self.container["name"]), {})

    def role(self, name: str) -> str:
        """`taskRoleArn` or `executionRoleArn`; the request's wins over the definition's. "" where there is none."""
        return str(self.overrides.get(name) or self.definition.get(name) or "")


@dataclass
class Task:
    """One task. Changed by its registry only. Times are unix seconds, 0 where it has not happened."""

    arn: str
    launch: Launch
    created_at: float
    status: Status = Status.PROVISIONING
    desired: str = "RUNNING"
    version: int = 1
    started_at: float = 0.0
    stopping_at: float = 0.0
    stopped_at: float = 0.0
    stop_code: str = ""
    stopped_reason: str = ""
    pid: int = 0
    exit_code: int | None = None
    container_reason: str = ""
    has_containers: bool = True

    @property
    def id(self) -> str:
        """The last part of the ARN."""
        return self.arn.rpartition("/")[2]

    @property
    def live(self) -> bool:
        """PROVISIONING up to, not including, STOPPED: what the cap counts."""
        return self.status is not Status.STOPPED

    def describe(self, tags: bool = False) -> Json:
        """The task as DescribeTasks shows it."""
        launch, definition = self.launch, self.launch.definition
        shown: Json = {
            "taskArn": self.arn,
            "clusterArn": launch.cluster_arn,
            "taskDefinitionArn": definition["taskDefinitionArn"],
            "lastStatus": str(self.status),
            "desiredStatus": self.desired,
            "version": self.version,
            "launchType": "FARGATE",
            "platformVersion": launch.platform_version,
            "platformFamily": "Linux",
            "cpu": str(launch.overrides.get("cpu") or definition.get("cpu", "256")),
            "memory": str(launch.overrides.get("memory") or definition.get("memory", "512")),
            "group": launch.group or f"family:{launch.family}",
            "overrides": {"containerOverrides": [], **launch.overrides},
            "containers": [self._container(each) for each in definition["containerDefinitions"] if self.has_containers],
            "attachments": [],
            "attributes": [],
            "enableExecuteCommand": False,
            "tags": [dict(tag) for tag in launch.tags] if tags else [],
        }
        optional = {
            "startedBy": launch.started_by,
            "capacityProviderName": launch.capacity_provider,
            "stopCode": self.stop_code,
            "stoppedReason": self.stopped_reason,
            "createdAt": self.created_at,
            "startedAt": self.started_at,
            "stoppingAt": self.stopping_at,
            "stoppedAt": self.stopped_at,
        }
        return shown | {name: value for name, value in optional.items() if value}

    def _container(self, definition: Mapping[str, Any]) -> Json:
        shown: Json = {
            "containerArn": f"{self.arn.replace(':task/', ':container/')}/{definition['name']}",
            "taskArn": self.arn,
            "name": definition["name"],
            "image": definition.get("image", ""),
            "lastStatus": CONTAINER_STATUS.get(self.status, "PENDING"),
            "networkInterfaces": [],
        }
        if definition["name"] == self.launch.container["name"]:
            shown |= {"exitCode": self.exit_code} if self.exit_code is not None else {}
            shown |= {"reason": self.container_reason} if self.container_reason else {}
        return shown


@dataclass(frozen=True)
class Answered:
    """What a client token was answered with, for whoever asks again."""

    fingerprint: str
    answer: Json
    at: float
    tasks: Sequence[Task]

    def forgotten(self, now: float) -> bool:
        """Tokens live for a day, or for an hour after their tasks, whichever is less."""
        after_tasks = bool(self.tasks) and all(
            task.stopped_at and now > task.stopped_at + TOKEN_LIFE_AFTER_TASK_S for task in self.tasks
        )
        return after_tasks or now > self.at + ECS_CALL_TOKEN_LIFE_S


Lag = Callable[[str], float]
"""How many seconds a read is behind about the tasks of a family."""


def up_to_date(_family: str) -> float:
    """No lag at all."""
    return 0.0


class Registry:
    """All tasks of the endpoint, and the meter that is the ground truth of every test of the cap.

    One lock guards everything, so the peak is taken at the very instant of a transition. `on_change` is called under
    it with every new picture of a task, in order; it must only take note. `refuses` may find no capacity for a task of
    a family.
    """

    def __init__(
        self,
        on_change: Callable[[Json], None],
        capacity: int | None = None,
        refuses: Callable[[str, str], bool] = lambda *_: False,
    ) -> None:
        self.capacity = capacity
        """How many tasks may live at once; further ones are answered with `failures[]`. None: no limit."""
        self._on_change = on_change
        self._refuses = refuses
        self._lock = threading.RLock()
        self._tasks: dict[str, Task] = {}
        self._past: dict[str, list[tuple[float, Task]]] = {}
        self._tokens: dict[tuple[str, str], Answered] = {}
        self._live: Counter[str] = Counter()
        self._peak: Counter[str] = Counter()
        self._launched: Counter[str] = Counter()
        self._peak_live = self._stopped = 0

    def run(self, launch: Launch, now: float) -> tuple[Json, list[Task]]:
        """Create the tasks of a launch, or repeat the answer of its token. Returns the answer and the new tasks.

        Looking the token up and creating the tasks is one step under the lock: of two equal calls, one creates.
        """
        with self._lock:
            self._forget(now)
            key = (launch.cluster_arn, launch.token)
            if launch.token and (earlier := self._tokens.get(key)):
                return self._repeat(earlier, launch), []
            tasks = [task for _ in range(launch.count) if (task := self._create(launch, now))]
            failures = [{"reason": NO_CAPACITY} for _ in range(launch.count - len(tasks))]
            answer: Json = {"tasks": [task.describe(tags=True) for task in tasks], "failures": failures}
            if launch.token:
                self._tokens[key] = Answered(launch.fingerprint, answer, now, tasks)
            return answer, tasks

    def advance(self, task: Task, status: Status, now: float, pid: int = 0) -> None:
        """The task reached its next status."""
        with self._lock:
            task.status = status
            task.pid = pid or task.pid
            if status is Status.RUNNING:
                task.started_at = now
            self._changed(task, now)

    def stopping(self, task: Task, now: float, code: str, reason: str) -> None:
        """The task is to stop, and why. Who says so first is remembered; later reasons change nothing."""
        with self._lock:
            if task.desired == "STOPPED":
                return
            task.desired, task.stop_code, task.stopped_reason, task.stopping_at = "STOPPED", code, reason, now
            self._changed(task, now)

    def exited(self, task: Task, now: float, exit_code: int) -> None:
        """The main process is gone; so is the reason to keep the task, unless it was being stopped anyway."""
        with self._lock:
            task.exit_code = exit_code
            task.status = Status.DEPROVISIONING
            if task.desired != "STOPPED":
                task.desired, task.stopping_at = "STOPPED", now
                task.stop_code, task.stopped_reason = (
                    "EssentialContainerExited",
                    "Essential container in task exited",
                )
            self._changed(task, now)

    def stopped(self, task: Task, now: float, container_reason: str = "", has_containers: bool = True) -> None:
        """Nothing of the task is left. It stays visible for an hour."""
        with self._lock:
            task.status, task.stopped_at, task.container_reason = Status.STOPPED, now, container_reason
            task.has_containers = has_containers
            self._live[task.launch.family] -= 1
            self._stopped += 1
            self._changed(task, now)

    def find(self, cluster_arn: str, reference: str) -> Task | None:
        """The task of an ARN or an id, within a cluster."""
        arn = reference if reference.startswith("arn:") else f"{_task_prefix(cluster_arn)}{reference}"
        with self._lock:
            task = self._tasks.get(arn)
            return task if task and task.launch.cluster_arn == cluster_arn else None

    def by_id(self, task_id: str) -> Task | None:
        """The task of an id, whatever its cluster."""
        with self._lock:
            return next((task for task in self._tasks.values() if task.id == task_id), None)

    def picture(self, task: Task, tags: bool = False) -> Json:
        """One task as DescribeTasks shows it at this instant."""
        with self._lock:
            return task.describe(tags)

    def describe(
        self, cluster_arn: str, references: Collection[str], tags: bool, now: float, lag_s: Lag = up_to_date
    ) -> Json:
        """DescribeTasks: what is known, and MISSING for the rest."""
        with self._lock:
            self._forget(now)
            known = {reference: self.find(cluster_arn, reference) for reference in references}
            found = {reference: task and self._seen(task, now, lag_s) for reference, task in known.items()}
            prefix = _task_prefix(cluster_arn)
            missing = [reference for reference, task in found.items() if task is None]
            return {
                "tasks": [task.describe(tags) for task in found.values() if task],
                "failures": [
                    {"arn": each if each.startswith("arn:") else prefix + each, "reason": "MISSING"} for each in missing
                ],
            }

    def arns(
        self, cluster_arn: str, desired: str, started_by: str, family: str, now: float, lag_s: Lag = up_to_date
    ) -> list[str]:
        """ListTasks, oldest first. Empty filters match all; a task that is stopping no longer counts as RUNNING."""
        with self._lock:
            self._forget(now)
            seen = [self._seen(task, now, lag_s) for task in self._tasks.values()]
            return [
                task.arn
                for task in seen
                if task
                and task.launch.cluster_arn == cluster_arn
                and task.desired == desired
                and started_by in ("", task.launch.started_by)
                and family in ("", task.launch.family)
            ]

    def meter(self) -> Json:
        """The ground truth: how many tasks live, how many ever lived at once, and who they are."""
        with self._lock:
            return {
                "live_tasks": self._live.total(),
                "peak_live_tasks": self._peak_live,
                "tasks_launched": self._launched.total(),
                "tasks_stopped": self._stopped,
                "tasks": [_metered(task) for task in self._tasks.values()],
                "by_family": {
                    family: {
                        "live_tasks": self._live[family],
                        "peak_live_tasks": self._peak[family],
                        "tasks_launched": self._launched[family],
                    }
                    for family in self._launched
                },
            }

    def _repeat(self, earlier: Answered, launch: Launch) -> Json:
        if earlier.fingerprint == launch.fingerprint:
            return earlier.answer
        raise EcsError(
            "ConflictException",
            "The client token was used before with other parameters.",
            resourceIds=[task.arn for task in earlier.tasks],
        )

    def _create(self, launch: Launch, now: float) -> Task | None:
        family = launch.family
        if (self.capacity is not None and self._live.total() >= self.capacity) or self._refuses(
            family, launch.capacity_provider
        ):
            return None
        task = Task(f"{_task_prefix(launch.cluster_arn)}{uuid.uuid4().hex}", launch, now)
        self._tasks[task.arn] = task
        self._live[family] += 1
        self._launched[family] += 1
        self._peak[family] = max(self._peak[family], self._live[family])
        self._peak_live = max(self._peak_live, self._live.total())
        self._tell(task, now)
        return task

    def _changed(self, task: Task, now: float) -> None:
        task.version += 1
        self._tell(task, now)

    def _tell(self, task: Task, now: float) -> None:
        self._past.setdefault(task.arn, []).append((now, replace(task)))
        self._on_change(task.describe())

    def _seen(self, task: Task, now: float, lag_s: Lag) -> Task | None:
        """The task as a read shows it that may lag behind; None before its creation."""
        lag = lag_s(task.launch.family)
        past = reversed(self._past[task.arn])
        return next((then for at, then in past if at <= now - lag), None) if lag else task

    def _forget(self, now: float) -> None:
        for arn in [task.arn for task in self._long_stopped(now)]:
            del self._tasks[arn], self._past[arn]
        for key in [key for key, answered in self._tokens.items() if answered.forgotten(now)]:
            del self._tokens[key]

    def _long_stopped(self, now: float) -> Iterator[Task]:
        return (task for task in self._tasks.values() if 0 < task.stopped_at < now - STOPPED_TASKS_VISIBLE_S)


def _task_prefix(cluster_arn: str) -> str:
    return f"{cluster_arn.replace(':cluster/', ':task/', 1)}/"


def _metered(task: Task) -> Json:
    return {
        "arn": task.arn,
        "startedBy": task.launch.started_by,
        "family": task.launch.family,
        "lastStatus": str(task.status),
        "desiredStatus": task.desired,
        "pid": task.pid,
        "createdAt": task.created_at,
        "startedAt": task.started_at,
        "stoppedAt": task.stopped_at,
        "stopCode": task.stop_code,
        "exitCode": task.exit_code,
    }
