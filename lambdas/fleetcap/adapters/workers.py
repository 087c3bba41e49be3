"""The Fargate fleet through ECS: one task per lease, one token per lease."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from fleetcap import limits
from fleetcap.decide import launch as decide
from fleetcap.model import Doubt, LaunchAnswer, Lease, SeenTask, TaskStatus, Unanswered

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.literals import DesiredStatusType
    from mypy_boto3_ecs.type_defs import TaskTypeDef


class EcsTasks:
    """ports.Tasks on ECS. The client must not retry RunTask by itself: who asks again is decided by the protocol."""

    def __init__(self, client: ECSClient) -> None:
        self._client = client

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        try:
            answer = self._client.run_task(**json.loads(launch), clientToken=decide.token(lease), startedBy=str(lease))
        except ClientError as error:
            details = error.response["Error"]
            resource_ids = [str(arn) for arn in error.response.get("resourceIds", [])]  # type: ignore[attr-defined]
            return decide.refused(details["Code"], details["Message"], resource_ids)
        except BotoCoreError as error:
            return Unanswered(Doubt.UNKNOWN, f"{type(error).__name__}: {error}")
        return decide.answered(answer.get("tasks", []), answer.get("failures", []))

    def stop(self, cluster: str, arn: str, why: str) -> None:
        try:
            self._client.stop_task(cluster=cluster, task=arn, reason=why)
        except ClientError as error:
            if "not found" not in error.response["Error"]["Message"].lower():
                raise

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        wanted = list(arns)
        found = dict.fromkeys(wanted, TaskStatus.MISSING)
        for start in range(0, len(wanted), limits.DESCRIBE_TASKS_MAX_ARNS):
            page = wanted[start : start + limits.DESCRIBE_TASKS_MAX_ARNS]
            for task in self._client.describe_tasks(cluster=cluster, tasks=page)["tasks"]:
                found[task["taskArn"]] = _status(task)
        return found

    def listed(self, cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        desired: DesiredStatusType = "STOPPED" if stopping else "RUNNING"
        if token:
            answer = self._client.list_tasks(cluster=cluster, desiredStatus=desired, nextToken=token)
        else:
            answer = self._client.list_tasks(cluster=cluster, desiredStatus=desired)
        return list(answer["taskArns"]), answer.get("nextToken", "")

    def identify(self, cluster: str, arns: Collection[str]) -> list[SeenTask]:
        tasks = self._client.describe_tasks(cluster=cluster, tasks=list(arns))["tasks"]
        return [
            SeenTask(task["taskArn"], _status(task), task.get("startedBy", ""), task.get("group", "")) for task in tasks
        ]


def _status(task: TaskTypeDef) -> TaskStatus:
    stopped = task["lastStatus"] == "STOPPED"
    return TaskStatus.STOPPED if stopped else TaskStatus.ALIVE
