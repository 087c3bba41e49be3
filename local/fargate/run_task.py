"""RunTask's parameters, refused as AWS refuses them. Nothing here talks to anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetcap.limits import RUN_TASK_OVERRIDES_MAX_CHARS, RUN_TASK_TOKEN_MAX_CHARS, STARTED_BY_MAX_CHARS
from local.fargate.tasks import EcsError, Json, Launch

STARTED_BY: Final = re.compile(r"[A-Za-z0-9/_-]*")

TASKS_PER_CALL_MAX = 10


def launch_of(request: Json, cluster: Json, definition: Json) -> Launch:
    """What the request asks for, given its cluster and task definition as described. Raises EcsError."""
    overrides = request.get("overrides") or {}
    _check_sizes(request, overrides)
    provider = _capacity_provider(request, cluster)
    _check_definition(request, overrides, definition)
    return Launch(
        cluster_arn=cluster["clusterArn"],
        definition=definition,
        count=request.get("count", 1),
        token=request.get("clientToken", ""),
        fingerprint=_fingerprint(request),
        started_by=request.get("startedBy", ""),
        group=request.get("group", ""),
        capacity_provider=provider,
        platform_version=_platform_version(request),
        overrides=overrides,
        tags=tags_of(request, definition),
    )


def tags_of(request: Json, definition: Json) -> list[Mapping[str, str]]:
    """The tags the tasks will carry: the request's, and the definition's where they are to be propagated."""
    propagated = definition.get("tags", []) if request.get("propagateTags") == "TASK_DEFINITION" else []
    own = request.get("tags") or []
    return [*(tag for tag in propagated if tag["key"] not in {each["key"] for each in own}), *own]


def _fingerprint(request: Json) -> str:
    rest = {name: value for name, value in request.items() if name != "clientToken"}
    return json.dumps(rest, sort_keys=True)


def _platform_version(request: Json) -> str:
    asked = str(request.get("platformVersion") or "LATEST")
    return "1.4.0" if asked == "LATEST" else asked


def _check_sizes(request: Json, overrides: Json) -> None:
    if not 1 <= request.get("count", 1) <= TASKS_PER_CALL_MAX:
        raise _invalid(f"count must be between 1 and {TASKS_PER_CALL_MAX}.")
    if len(request.get("startedBy", "")) > STARTED_BY_MAX_CHARS:
        raise _invalid(f"startedBy must not be longer than {STARTED_BY_MAX_CHARS} characters.")
    if not STARTED_BY.fullmatch(request.get("startedBy", "")):
        raise _invalid("startedBy may hold letters, digits, hyphens, forward slashes and underscores only.")
    if len(request.get("clientToken", "")) > RUN_TASK_TOKEN_MAX_CHARS:
        raise _invalid(f"clientToken must not be longer than {RUN_TASK_TOKEN_MAX_CHARS} characters.")
    if len(json.dumps(overrides, separators=(",", ":"), ensure_ascii=False)) > RUN_TASK_OVERRIDES_MAX_CHARS:
        raise _invalid(f"overrides must not be longer than {RUN_TASK_OVERRIDES_MAX_CHARS} characters.")


def _capacity_provider(request: Json, cluster: Json) -> str:
    """The provider that the strategy names, "" for the launch type FARGATE. The two exclude each other."""
    strategy: Sequence[Mapping[str, Any]] = request.get("capacityProviderStrategy") or []
    launch_type = request.get("launchType", "")
    if strategy and launch_type:
        raise _invalid(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
        )
    strategy = strategy or ([] if launch_type else cluster.get("defaultCapacityProviderStrategy") or [])
    unknown = {each["capacityProvider"] for each in strategy} - set(cluster.get("capacityProviders", []))
    if unknown:
        raise _invalid(f"The capacity providers {sorted(unknown)} are not associated with the cluster.")
    if strategy:
        first = max(strategy, key=lambda each: (each.get("base", 0), each.get("weight", 0)))
        return str(first["capacityProvider"])
    if launch_type != "FARGATE":
        raise _invalid("No Container Instances were found in your cluster.")
    return ""


def _check_definition(request: Json, overrides: Json, definition: Json) -> None:
    if definition.get("status", "ACTIVE") != "ACTIVE":
        raise EcsError("ClientException", "TaskDefinition is inactive")
    if "FARGATE" not in definition.get("requiresCompatibilities", []):
        raise _invalid("Task definition does not support launch_type FARGATE.")
    network = (request.get("networkConfiguration") or {}).get("awsvpcConfiguration")
    if not network:
        raise _invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    if not network.get("subnets"):
        raise _invalid("subnets can not be empty.")
    names = {container["name"] for container in definition["containerDefinitions"]}
    for override in overrides.get("containerOverrides", []):
        if override.get("name") not in names:
            raise _invalid(
                f"Override for container named {override.get('name')} is not a container in the TaskDefinition."
            )


def _invalid(message: str) -> EcsError:
    return EcsError("InvalidParameterException", message)
