"""What AWS's words mean: every stop code, exit code and launch failure that is known, and what is made of others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap.decide import taxonomy
from fleetcap.model import FailureClass, Stop

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
EXITED = "Essential container in task exited"
INTERRUPTED, FAILED = FailureClass.INTERRUPTED, FailureClass.FAILED

STOPS: list[tuple[Stop, FailureClass, str]] = [
    (Stop("SpotInterruption", "Your Spot Task was interrupted."), INTERRUPTED, "heartbeat lost: Fargate Spot took"),
    (Stop("TerminationNotice", "notice"), INTERRUPTED, "heartbeat lost: AWS gave notice to the host"),
    (Stop("InfrastructureHealth", "bad host"), INTERRUPTED, "heartbeat lost: the host was unhealthy"),
    (Stop("UserInitiated", "no beat"), INTERRUPTED, "heartbeat lost: the task was stopped (no beat)"),
    (Stop("UserInitiated", "by hand", 137), INTERRUPTED, "heartbeat lost: the task was stopped (by hand)"),
    (Stop("ServiceSchedulerInitiated"), INTERRUPTED, "heartbeat lost: the ECS service scheduler stopped the task"),
    (Stop("TaskFailedToStart", "CannotPullContainerError"), INTERRUPTED, "heartbeat lost: the task failed to start"),
    (Stop("EssentialContainerExited", f"{EXITED} {OUT_OF_MEMORY}", 137), FAILED, "internal: out of memory: "),
    (Stop("EssentialContainerExited", EXITED, 137), INTERRUPTED, "heartbeat lost: the worker was killed (signal 9)"),
    (Stop("EssentialContainerExited", EXITED, 139), FAILED, "internal: the worker crashed (signal 11)"),
    (Stop("EssentialContainerExited", EXITED, 143), INTERRUPTED, "heartbeat lost: the worker was asked to end"),
    (Stop("EssentialContainerExited", EXITED, 0), INTERRUPTED, "heartbeat lost: the worker ended with exit code 0"),
    (Stop("EssentialContainerExited", EXITED, 1), INTERRUPTED, "heartbeat lost: the worker ended with exit code 1"),
    (Stop("EssentialContainerExited", EXITED), INTERRUPTED, "heartbeat lost: the worker ended (Essential"),
    (Stop("Unheard", "of"), INTERRUPTED, "heartbeat lost: the worker ended (Unheard of)"),
    (Stop(), INTERRUPTED, "heartbeat lost: the worker ended (no reason given)"),
]

LAUNCHES: list[tuple[str, str]] = [
    ("TaskFailedToStart CannotPullContainerError: pull image manifest has been retried", "image cannot be pulled"),
    ("CannotPullECRContainerError: AccessDeniedException", "image cannot be pulled"),
    ("Capacity is unavailable at this time. Please try again later", "no Fargate capacity"),
    ("You've reached the limit on the number of vCPUs you can run concurrently", "vCPU quota"),
    ("RESOURCE:ENI", "no network interface left"),
    ("RESOURCE:MEMORY", "lacks a resource"),
    ("RESOURCE:CPU", "lacks a resource"),
    ("AGENT", "agent is not connected"),
    ("TaskFailedToStart ResourceInitializationError: unable to pull secrets", "network, secrets or logs"),
    (
        "TaskFailedToStart ResourceInitializationError: unable to retrieve ecr registry auth: AccessDeniedException: "
        "User: arn:aws:sts::123456789012:assumed-role/x is not authorized to perform: ecr:GetAuthorizationToken on "
        "resource: * because no identity-based policy allows it",
        "network, secrets or logs",
    ),
    ("AccessDeniedException: User: x is not authorized to perform: ecs:RunTask on resource: y", "may not launch"),
    (f"EssentialContainerExited {OUT_OF_MEMORY} exit code 137", "ran out of memory before it was ready"),
    ("CannotStartContainerError: failed to create", "container does not start"),
    ("CannotCreateVolumeError: no room", "disk could not be made"),
    ("ClusterNotFoundException: Cluster not found.", "cluster does not exist"),
    ("BlockedException: Your account is currently blocked", "blocked this account"),
    ("PlatformTaskDefinitionIncompatibilityException: x", "does not fit Fargate's platform version"),
    ("PlatformUnknownException: x", "platform version does not exist"),
    ("AccessDeniedException: not authorized to perform ecs:RunTask", "may not launch"),
    ("UnsupportedFeatureException: x", "does not offer a feature"),
    ("InvalidParameterException: No subnets", "refuses the launch parameters"),
    ("InvalidParameterException: Rate exceeded", "throttles launches"),
    ("ThrottlingException: x", "throttles launches"),
    ("SpotInterruption Your Spot Task was interrupted.", "took the capacity back before"),
    (f"EssentialContainerExited {EXITED} exit code 1", "the worker ended before it was ready"),
    ("TaskFailedToStart Timeout waiting for network interface provisioning to complete.", "failed to start"),
]


@pytest.mark.parametrize(("stop", "failure", "beginning"), STOPS, ids=[str(stop.text)[:60] for stop, _, _ in STOPS])
def test_the_end_of_a_task_tells_what_became_of_its_jobs(stop: Stop, failure: FailureClass, beginning: str) -> None:
    found, error = taxonomy.stopped(stop)
    assert found is failure
    assert error.startswith(beginning)


@pytest.mark.parametrize(("words", "meaning"), LAUNCHES, ids=[words[:60] for words, _ in LAUNCHES])
def test_a_launch_that_brought_no_worker_is_told_in_plain_words_and_in_those_of_aws(words: str, meaning: str) -> None:
    told = taxonomy.never_started(words)
    assert meaning in told
    assert told.endswith(f"({words})")


def test_words_that_nobody_knows_are_passed_on_as_they_are() -> None:
    assert taxonomy.never_started("a new kind of trouble") == "a new kind of trouble"


@settings(derandomize=True, max_examples=200, deadline=None)
@given(code=st.text(max_size=20), reason=st.text(max_size=40), exit_code=st.none() | st.integers(-300, 300))
def test_whatever_is_said_of_a_stop_has_a_class_and_a_stable_prefix(
    code: str, reason: str, exit_code: int | None
) -> None:
    failure, error = taxonomy.stopped(Stop(code, reason, exit_code))
    assert error.startswith("internal: " if failure is FAILED else "heartbeat lost: ")
