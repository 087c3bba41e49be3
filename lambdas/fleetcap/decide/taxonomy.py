"""What AWS's words about a task mean: for the jobs that it ran, and for a pool whose launch came to nothing.

Words and codes: ECS "Stopped tasks error codes", RunTask's "API failure reasons" and errors. An unknown word is passed
on as it is, and counts as nobody's fault.
"""

from __future__ import annotations

from typing import Final

from fleetcap.model import FailureClass, Stop

OUT_OF_MEMORY: Final = "internal: out of memory: the worker needed more than its pool gives it; use a pool with more"

_BY_STOP_CODE: Final = {
    "SpotInterruption": "Fargate Spot took the capacity back",
    "TerminationNotice": "AWS gave notice to the host",
    "InfrastructureHealth": "the host was unhealthy",
    "UserInitiated": "the task was stopped",
    "ServiceSchedulerInitiated": "the ECS service scheduler stopped the task",
    "TaskFailedToStart": "the task failed to start",
}

_BY_EXIT_CODE: Final = {
    137: (FailureClass.INTERRUPTED, "heartbeat lost: the worker was killed (signal 9)"),
    139: (FailureClass.FAILED, "internal: the worker crashed (signal 11)"),
    143: (FailureClass.INTERRUPTED, "heartbeat lost: the worker was asked to end (signal 15)"),
}

_LAUNCH: Final = (
    ("cannotpull", "the worker's image cannot be pulled; see that it exists and that the execution role may read it"),
    # Before the rest: the words behind these two name resources and agents of all kinds.
    ("resourceinitialization", "Fargate could not prepare the task's network, secrets or logs"),
    ("accessdenied", "the decider may not launch this task definition; deploy again"),
    ("capacity is unavailable", "AWS has no Fargate capacity at this time"),
    ("vcpu", "the account's Fargate vCPU quota is used up; ask AWS for a higher one or lower the cap"),
    ("resource:eni", "the subnets have no network interface left"),
    ("resource:", "AWS lacks a resource that the task needs"),
    ("agent", "the ECS agent is not connected"),
    ("outofmemory", "the worker ran out of memory before it was ready; give its pool more"),
    ("cannotstartcontainer", "the worker's container does not start; see its command and image"),
    ("cannotcreatevolume", "the task's disk could not be made"),
    ("clusternotfound", "the cluster does not exist; deploy again"),
    ("blocked", "AWS has blocked this account from launching; ask its support"),
    ("platformtaskdefinitionincompatibility", "the task definition does not fit Fargate's platform version"),
    ("platformunknown", "Fargate's platform version does not exist"),
    ("unsupportedfeature", "Fargate does not offer a feature of the task here"),
    ("throttl", "AWS throttles launches"),
    ("rate exceeded", "AWS throttles launches"),
    ("invalidparameter", "RunTask refuses the launch parameters; deploy again"),
    ("spotinterruption", "Fargate Spot took the capacity back before the worker was ready"),
    ("essentialcontainerexited", "the worker ended before it was ready; its log says why"),
    ("taskfailedtostart", "the task failed to start"),
)


def stopped(stop: Stop) -> tuple[FailureClass, str]:
    """What it means for a job that its worker's task stopped: the class of failure, and the job's error."""
    if "outofmemory" in stop.reason.lower():
        return FailureClass.FAILED, OUT_OF_MEMORY
    if stop.code in _BY_STOP_CODE:
        return FailureClass.INTERRUPTED, f"heartbeat lost: {_BY_STOP_CODE[stop.code]}{_said(stop.reason)}"
    if stop.exit_code in _BY_EXIT_CODE:
        return _BY_EXIT_CODE[stop.exit_code]
    ended = f"ended with exit code {stop.exit_code}" if stop.exit_code is not None else f"ended ({stop.text})"
    return FailureClass.INTERRUPTED, f"heartbeat lost: the worker {ended}"


def never_started(words: str) -> str:
    """Why a launch brought no worker, in a person's words and then in AWS's."""
    compact = words.lower()
    meaning = next((sentence for mark, sentence in _LAUNCH if mark in compact), "")
    return f"{meaning} ({words})" if meaning else words


def _said(words: str) -> str:
    return f" ({words})" if words else ""
