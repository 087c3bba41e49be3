"""Carries every task through its life: one thread for each, from the cold start to the last process of its session."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from local.fargate.faults import Fault, Faults
from local.fargate.logs import LogShipper
from local.fargate.metadata import Surroundings
from local.fargate.processes import STOP_TIMEOUT_S, CannotStart, TaskProcess, command, environment
from local.fargate.tasks import EcsError, Json, Launch, Registry, Status, Task

CLOSE_GRACE_S = 2.0
CLOSE_S = 10.0


@dataclass
class Life:
    """A task on its way. `fault` keeps it from running; `lock` decides between a start and a stop that come at once."""

    task: Task
    fault: Fault | None = None
    thread: threading.Thread | None = None
    process: TaskProcess | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


class NeverStarts(Exception):
    """The task ends before it has any container; the message is the reason."""


class Fleet:
    """The tasks that have a thread here. The cold start may be changed at any time, for the tasks to come."""

    def __init__(
        self,
        registry: Registry,
        surroundings: Surroundings,
        logs: LogShipper,
        state_dir: Path,
        cold_start_s: float,
        faults: Faults,
    ) -> None:
        self.registry, self.cold_start_s, self.faults = registry, cold_start_s, faults
        self._surroundings, self._logs = surroundings, logs
        self._folder = state_dir.resolve() / "tasks"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lives: dict[str, Life] = {}
        self._lock = threading.Lock()
        self._closing = False

    def run(self, launch: Launch) -> Json:
        """RunTask: the answer comes at once, the tasks live on by themselves."""
        with self._lock:
            if self._closing:
                raise EcsError("ServerException", "The endpoint is shutting down.")
            answer, tasks = self.registry.run(launch, time.time())
            for task in tasks:
                life = Life(task, self.faults.strike("never-starts", "image", families=[launch.family]))
                life.thread = threading.Thread(target=self._live, args=(life,), name=task.id, daemon=True)
                self._lives[task.arn] = life
                life.thread.start()
        return answer

    def stop(self, task: Task, reason: str, timeout_s: float | None = None, code: str = "UserInitiated") -> None:
        """StopTask: a task that has not started never will; a running one gets TERM, later KILL. Repeatable."""
        self.registry.stopping(task, time.time(), code, reason)
        life = self._lives.get(task.arn)
        if life is None:
            return
        with life.lock:
            life.stop.set()
            if life.process:
                life.process.stop(_stop_timeout_s(task.launch) if timeout_s is None else timeout_s)

    def interrupt(self, task: Task, timeout_s: float | None = None) -> bool:
        """A Spot interruption: the warning event and TERM, later KILL. False where the task is at its end already."""
        if task.desired == "STOPPED":
            return False
        self.stop(task, "Your Spot Task was interrupted.", timeout_s, "SpotInterruption")
        return True

    def signal(self, task: Task, do: Callable[[TaskProcess], None]) -> bool:
        """Do something to the task's process. False where there is none."""
        life = self._lives.get(task.arn)
        if life is None or life.process is None:
            return False
        do(life.process)
        return True

    def close(self) -> None:
        """End every task and wait until nothing of them is left. No task starts any more."""
        with self._lock:
            self._closing = True
            lives = list(self._lives.values())
        for life in lives:
            self.stop(life.task, "The embedded cloud is shutting down", CLOSE_GRACE_S)
        until = time.monotonic() + CLOSE_S
        for life in lives:
            if life.thread:
                life.thread.join(max(0.0, until - time.monotonic()))

    def _live(self, life: Life) -> None:
        """PROVISIONING → PENDING → RUNNING → DEPROVISIONING → STOPPED."""
        task, registry = life.task, self.registry
        home, log = self._folder / task.id, self._folder / f"{task.id}.log"
        why_not, has_containers = "", True
        try:
            self._cold_start(life)
            home.mkdir()
            if self._start(life, home, log) and life.process:
                self._logs.follow(log, task)
                life.process.wait(lambda code: registry.exited(task, time.time(), code))
        except (NeverStarts, CannotStart, OSError) as error:
            why_not, has_containers = str(error), not isinstance(error, NeverStarts)
            registry.stopping(task, time.time(), "TaskFailedToStart", why_not)
        registry.stopped(task, time.time(), why_not, has_containers)
        with self._lock:
            del self._lives[task.arn]
        self._surroundings.forget(task)
        self._logs.ended(log)
        shutil.rmtree(home, ignore_errors=True)

    def _cold_start(self, life: Life) -> None:
        half_s = self.cold_start_s / 2
        life.stop.wait(half_s)
        if not life.stop.is_set():
            if life.fault and life.fault.kind == "never-starts":
                raise NeverStarts(life.fault.reason)
            self.registry.advance(life.task, Status.PENDING, time.time())
            life.stop.wait(half_s)

    def _start(self, life: Life, home: Path, log: Path) -> bool:
        with life.lock:
            if life.stop.is_set():
                return False
            if life.fault:
                raise CannotStart(life.fault.reason)
            launch = life.task.launch
            env = environment(launch, home, self._surroundings.environment(life.task))
            life.process = TaskProcess(command(launch), env, log)
            self.registry.advance(life.task, Status.RUNNING, time.time(), life.process.pid)
            return True


def _stop_timeout_s(launch: Launch) -> float:
    return float(launch.container.get("stopTimeout", STOP_TIMEOUT_S))
