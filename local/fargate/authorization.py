"""Which permissions a call needs, on which resources and under which conditions, as AWS's reference lists them.

| call | action | resource | condition keys |
|---|---|---|---|
| RunTask | ecs:RunTask | the revision | ecs:cluster, ecs:enable-execute-command, aws:RequestTag, aws:TagKeys |
| | iam:PassRole | task role, execution role | iam:PassedToService |
| | ecs:TagResource, with tags | task/<cluster>/* | ecs:cluster, ecs:CreateAction, aws:RequestTag, aws:TagKeys |
| StopTask, DescribeTasks | the same | each task | ecs:cluster, aws:ResourceTag |
| ListTasks | ecs:ListTasks | container-instance/<cluster>/* | ecs:cluster |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from local.fargate.tasks import Json, Registry

AUTHORIZE_PATH = "/_fleetcap/authorize"
ROLES = ("taskRoleArn", "executionRoleArn")


def run_task(
    request: Json, cluster_arn: str, definition_arn: str, definition: Json | None, tags: Sequence[Mapping[str, str]]
) -> list[Json]:
    """The checks of RunTask. Without a definition there are no roles to pass yet, and the call fails later."""
    tagged = _tag_context("aws:RequestTag", tags) | ({"aws:TagKeys": [tag["key"] for tag in tags]} if tags else {})
    context = {
        "ecs:cluster": cluster_arn,
        "ecs:enable-execute-command": str(bool(request.get("enableExecuteCommand"))).lower(),
        **tagged,
    }
    checks = [_check("ecs:RunTask", definition_arn, context)]
    overrides = request.get("overrides") or {}
    for role in dict.fromkeys(overrides.get(name) or (definition or {}).get(name) for name in ROLES):
        if role:
            checks.append(_check("iam:PassRole", role, {"iam:PassedToService": "ecs-tasks.amazonaws.com"}))
    if tags:
        any_task = f"{cluster_arn.replace(':cluster/', ':task/', 1)}/*"
        created = {"ecs:cluster": cluster_arn, "ecs:CreateAction": "RunTask", **tagged}
        checks.append(_check("ecs:TagResource", any_task, created))
    return checks


def on_tasks(action: str, cluster_arn: str, references: Iterable[str], registry: Registry) -> list[Json]:
    """The checks of a call on tasks that it names by ARN or id."""
    prefix = f"{cluster_arn.replace(':cluster/', ':task/', 1)}/"
    checks = []
    for reference in references:
        task = registry.find(cluster_arn, reference)
        tags = task.launch.tags if task else ()
        resource = reference if reference.startswith("arn:") else prefix + reference
        context = {"ecs:cluster": cluster_arn, **_tag_context("aws:ResourceTag", tags)}
        checks.append(_check(action, resource, context))
    return checks


def list_tasks(cluster_arn: str) -> list[Json]:
    """The check of ListTasks, which AWS puts on the container instances of the cluster."""
    resource = f"{cluster_arn.replace(':cluster/', ':container-instance/', 1)}/*"
    return [_check("ecs:ListTasks", resource, {"ecs:cluster": cluster_arn})]


def _tag_context(prefix: str, tags: Sequence[Mapping[str, str]]) -> Json:
    return {f"{prefix}/{tag['key']}": tag.get("value", "") for tag in tags}


def _check(action: str, resource: str, context: Mapping[str, Any]) -> Json:
    return {"action": action, "resource": resource, "context": dict(context)}
