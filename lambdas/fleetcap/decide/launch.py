"""RunTask: what is sent under a lease, and what its answers and errors mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from fleetcap.model import Doubt, LaunchAnswer, Lease, NotStarted, Pool, Started, Unanswered

_THROTTLES: Final = (
    "throttl",
    "rate exceeded",
    "too many requests",
    "toomanyrequests",
    "limit exceeded",
    "requestlimit",
)
_PERMANENT: Final = (
    "AccessDeniedException",
    "BlockedException",
    "ClusterNotFoundException",
    "InvalidParameterException",
    "PlatformTaskDefinitionIncompatibilityException",
    "PlatformUnknownException",
    "UnsupportedFeatureException",
    "ClientException",
)


def token(lease: Lease) -> str:
    """The clientToken: 64 hex digits, the same for every resend under one lease and for nothing else."""
    return hashlib.sha256(str(lease).encode()).hexdigest()


def request(pool: Pool, lease: Lease, lease_variable: str, provider: str = "") -> str:
    """Every parameter of RunTask but the token and startedBy, as JSON: it is stored with the lease and sent as stored.

    A resend with other parameters would conflict for ever, so nothing here may be looked up again later.
    """
    parameters = {name: value for name, value in pool.launch.items() if name != "container"}
    if provider and provider != parameters.get("launchType"):  # ECS takes either, never both
        parameters.pop("launchType", None)
        parameters["capacityProviderStrategy"] = [{"capacityProvider": provider, "weight": 1}]
    environment = [{"name": lease_variable, "value": str(lease)}]
    overrides = {"containerOverrides": [{"name": pool.launch["container"], "environment": environment}]}
    return json.dumps({**parameters, "count": 1, "overrides": overrides}, separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=1_024)
def cluster_of(launch: str) -> str:
    """The cluster that a stored request names."""
    return str(json.loads(launch)["cluster"])


def answered(tasks: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]]) -> LaunchAnswer:
    """Read RunTask's answer. `failures[]` is recorded under the token, so it is final for this lease."""
    if tasks:
        return Started(str(tasks[0]["taskArn"]))
    if failures:
        reasons = {" ".join(filter(None, (f.get("reason"), f.get("detail")))) for f in failures}
        return NotStarted("; ".join(sorted(reasons)) or "no reason given")
    return Unanswered(Doubt.UNKNOWN, "the answer named neither a task nor a failure")


def throttled(answer: LaunchAnswer) -> bool:
    """The account has asked for too much: whatever is sent next is refused alike."""
    return isinstance(answer, Unanswered) and answer.doubt is Doubt.THROTTLED


def ends(answer: LaunchAnswer) -> bool:
    """Whether a decision launches nothing more after this answer: the next one would get the same.

    A launch that was not answered for another reason says nothing about the next; their number is bounded by time.
    """
    return isinstance(answer, Unanswered) and answer.doubt is not Doubt.UNKNOWN


def refused(code: str, message: str, resource_ids: Sequence[str]) -> LaunchAnswer:
    """Read an error of RunTask. None of them frees a slot: another sender of the same token may have succeeded.

    A ConflictException with ARNs says that the task of this token exists; without, it says nothing. Throttling also
    comes wrapped in the texts of InvalidParameterException and ClientException.
    """
    text = f"{code}: {message}"
    if code == "ConflictException" and resource_ids:
        return Started(resource_ids[0])
    if any(mark in text.lower() for mark in _THROTTLES):
        return Unanswered(Doubt.THROTTLED, text)
    return Unanswered(Doubt.PERMANENT if code in _PERMANENT else Doubt.UNKNOWN, text)
