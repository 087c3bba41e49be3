"""What a task finds around itself: its environment from Fargate, its metadata, its role's credentials."""

from __future__ import annotations

import os
import secrets
import threading
from datetime import UTC, datetime, timedelta

from fleetcap.keys import ENV_HEALTH_PORT
from local.fargate.emulator import Emulator
from local.fargate.tasks import Json, Registry, Task

RENEW_BEFORE = timedelta(minutes=20)
"""Clients renew credentials in their last quarter of an hour; what they are given then must be fresh."""
PASSED_ON = ("AWS_CA_BUNDLE", "FLEETCAP_CLOUD")


class Surroundings:
    """The two addresses that a task talks to. Credentials lie under a secret that only their task knows."""

    def __init__(self, emulator: Emulator, registry: Registry, aws: str, url: str) -> None:
        """`aws` is what tasks find as AWS; empty where they call the emulator, and this endpoint for ECS."""
        self._emulator, self._registry, self._url = emulator, registry, url
        self._aws = {"AWS_ENDPOINT_URL": aws or emulator.url} | ({} if aws else {"AWS_ENDPOINT_URL_ECS": url})
        self._tasks: dict[str, Task] = {}
        self._taken: dict[str, Json] = {}
        self._lock = threading.Lock()

    def environment(self, task: Task) -> dict[str, str]:
        """What Fargate adds to a container's environment. The endpoint's own credentials are never part of it."""
        provided = {
            "AWS_REGION": self._emulator.region,
            "AWS_DEFAULT_REGION": self._emulator.region,
            **self._aws,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            "ECS_CONTAINER_METADATA_URI_V4": f"{self._url}/v4/{task.id}",
            # On Fargate every task has a loopback of its own; here they share the machine's, so any free port serves.
            ENV_HEALTH_PORT: "0",
        }
        provided |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        if task.launch.role("taskRoleArn"):
            secret = secrets.token_urlsafe(32)
            with self._lock:
                self._tasks[secret] = task
            provided["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{self._url}/v2/credentials/{secret}"
        return provided

    def credentials(self, secret: str) -> Json | None:
        """The task role's credentials, renewed near their end. None for an unknown secret or a task that is gone."""
        with self._lock:
            task, taken = self._tasks.get(secret), self._taken.get(secret)
        if task is None or not task.live:
            return None
        role_arn = task.launch.role("taskRoleArn")
        if taken is None or taken["Expiration"] < datetime.now(UTC) + RENEW_BEFORE:
            taken = self._emulator.role_credentials(role_arn, task.id)
            with self._lock:
                self._taken[secret] = taken
        return {
            "RoleArn": role_arn,
            "AccessKeyId": taken["AccessKeyId"],
            "SecretAccessKey": taken["SecretAccessKey"],
            "Token": taken["SessionToken"],
            "Expiration": taken["Expiration"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def forget(self, task: Task) -> None:
        """The task is gone; so are its credentials."""
        with self._lock:
            for secret in [secret for secret, owner in self._tasks.items() if owner is task]:
                del self._tasks[secret]
                self._taken.pop(secret, None)

    def container(self, task_id: str) -> Json | None:
        """Metadata v4 of the container that asks."""
        task = self._registry.by_id(task_id)
        if task is None:
            return None
        shown, name = self._registry.picture(task), task.launch.container["name"]
        return next((_container(shown, each) for each in shown["containers"] if each["name"] == name), None)

    def task(self, task_id: str) -> Json | None:
        """Metadata v4 of the task."""
        task = self._registry.by_id(task_id)
        if task is None:
            return None
        shown = self._registry.picture(task)
        return {
            "Cluster": shown["clusterArn"],
            "TaskARN": shown["taskArn"],
            "Family": task.launch.family,
            "Revision": str(task.launch.definition["revision"]),
            "DesiredStatus": shown["desiredStatus"],
            "KnownStatus": shown["lastStatus"],
            "Limits": {"CPU": int(shown["cpu"]) / 1_024, "Memory": int(shown["memory"])},
            "AvailabilityZone": f"{self._emulator.region}a",
            "LaunchType": "FARGATE",
            "Containers": [_container(shown, each) for each in shown["containers"]],
        }


def _container(task: Json, container: Json) -> Json:
    return {
        "DockerId": f"{task['taskArn'].rpartition('/')[2]}-{container['name']}",
        "Name": container["name"],
        "DockerName": container["name"],
        "Image": container["image"],
        "KnownStatus": container["lastStatus"],
        "DesiredStatus": task["desiredStatus"],
        "ContainerARN": container["containerArn"],
        "Type": "NORMAL",
    }
