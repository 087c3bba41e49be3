"""The event ECS sends when a task changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskStopped:
    """A task reached STOPPED. `started_by` is the lease it was launched under, for tasks of ours."""

    arn: str
    started_by: str
    why: str


def task_stopped(event: Mapping[str, Any]) -> TaskStopped | None:
    """Read an ECS Task State Change event; None if the task has not stopped. `containers` may be empty."""
    detail = event["detail"]
    if detail.get("lastStatus") != "STOPPED":
        return None
    why = " ".join(filter(None, (detail.get("stopCode"), detail.get("stoppedReason"))))
    return TaskStopped(detail["taskArn"], detail.get("startedBy") or "", why or "no reason given")
