"""The event ECS sends when a task changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetcap.model import Stop
from fleetcap.scrub import scrubbed


@dataclass(frozen=True)
class TaskStopped:
    """A task reached STOPPED. `started_by` is the lease it was launched under, for tasks of ours."""

    arn: str
    started_by: str
    stop: Stop


def task_stopped(event: Mapping[str, Any]) -> TaskStopped | None:
    """Read an ECS Task State Change event; None if the task has not stopped. `containers` may be empty."""
    detail = event["detail"]
    if detail.get("lastStatus") != "STOPPED":
        return None
    containers = detail.get("containers") or []
    reasons = [detail.get("stoppedReason"), *(container.get("reason") for container in containers)]
    exits = [container["exitCode"] for container in containers if container.get("exitCode") is not None]
    reason = scrubbed(" ".join(dict.fromkeys(filter(None, reasons))))  # it ends up in jobs' errors, which are events
    stop = Stop(detail.get("stopCode") or "", reason, max(exits, default=None))
    return TaskStopped(detail["taskArn"], detail.get("startedBy") or "", stop)
