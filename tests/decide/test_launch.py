"""RunTask under a lease: one token, one request, and what every answer and error of ECS means."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import keys, limits
from fleetcap.decide import launch
from fleetcap.model import Doubt, Lease, NotStarted, SlotId, Started, Unanswered
from tests.examples import GENERATION, LAUNCH, a_pool

LEASE = Lease(SlotId("default", 3), GENERATION)
ARN = "arn:aws:ecs:eu-central-1:123456789012:task/fleet/0123"

leases = st.builds(
    Lease,
    st.builds(SlotId, st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True), st.integers(0, 10_239)),
    st.integers(0, 2**40),
)
quick = settings(derandomize=True, max_examples=150, deadline=None)


# --- what is sent


@quick
@given(one=leases, other=leases)
def test_the_token_is_the_leases_own_and_fits_ecs(one: Lease, other: Lease) -> None:
    assert launch.token(one) == launch.token(Lease.parse(str(one)))
    assert (launch.token(one) == launch.token(other)) == (one == other)
    assert len(launch.token(one)) <= limits.RUN_TASK_TOKEN_MAX_CHARS


@quick
@given(lease=leases)
def test_the_lease_fits_what_ecs_takes_as_started_by(lease: Lease) -> None:
    assert re.fullmatch(r"[A-Za-z0-9/_-]+", str(lease))
    assert len(str(lease)) <= limits.STARTED_BY_MAX_CHARS


def test_the_next_generation_has_another_token() -> None:
    assert launch.token(LEASE) != launch.token(Lease(LEASE.slot, LEASE.generation + 1))


def test_the_request_holds_every_launch_parameter_as_it_will_be_sent() -> None:
    sent = json.loads(launch.request(a_pool(), LEASE, keys.ENV_LEASE))
    overrides = sent.pop("overrides")
    expected = {name: value for name, value in LAUNCH.items() if name != "container"}
    assert sent == {**expected, "count": 1}
    environment = [{"name": keys.ENV_LEASE, "value": str(LEASE)}]
    assert overrides == {"containerOverrides": [{"name": "worker", "environment": environment}]}
    assert len(json.dumps(overrides)) <= limits.RUN_TASK_OVERRIDES_MAX_CHARS


def test_the_request_of_a_lease_is_the_same_text_every_time() -> None:
    shuffled = dict(reversed(LAUNCH.items()))
    pool = a_pool()
    again = type(pool)(pool.name, pool.cap, shuffled)
    assert launch.request(pool, LEASE, "X") == launch.request(again, LEASE, "X")


def test_the_cluster_is_read_from_the_stored_request() -> None:
    assert launch.cluster_of(launch.request(a_pool(), LEASE, keys.ENV_LEASE)) == "fleet"


# --- answers


def test_a_task_is_an_answer() -> None:
    assert launch.answered([{"taskArn": ARN}], []) == Started(ARN)


@pytest.mark.parametrize("reason", ["Capacity is unavailable at this time", "RESOURCE:ENI", "AGENT"])
def test_recorded_failures_say_that_no_task_will_come(reason: str) -> None:
    assert launch.answered([], [{"reason": reason}]) == NotStarted(reason)


def test_a_failure_keeps_its_detail() -> None:
    answer = launch.answered([], [{"reason": "RESOURCE:CPU", "detail": "none left"}])
    assert answer == NotStarted("RESOURCE:CPU none left")


def test_a_failure_without_a_reason_is_still_one() -> None:
    assert launch.answered([], [{"arn": "x"}]) == NotStarted("no reason given")


def test_an_answer_with_neither_task_nor_failure_frees_nothing() -> None:
    answer = launch.answered([], [])
    assert isinstance(answer, Unanswered)
    assert answer.doubt is Doubt.UNKNOWN


# --- errors

PERMANENT = [
    ("ClusterNotFoundException", "Cluster not found."),
    ("BlockedException", "Your account has been blocked."),
    ("PlatformTaskDefinitionIncompatibilityException", "The platform lacks a capability."),
    ("PlatformUnknownException", "The platform version does not exist."),
    ("InvalidParameterException", "No Container Instances were found in your cluster."),
    ("AccessDeniedException", "not authorized to perform: ecs:RunTask"),
    ("UnsupportedFeatureException", "Not supported in this region."),
    ("ClientException", "TaskDefinition is inactive"),
]
THROTTLED = [
    ("ThrottlingException", "Rate exceeded"),
    ("ThrottlingException", ""),
    ("Throttling", "slow down"),
    ("TooManyRequestsException", "again later"),
    ("RequestLimitExceeded", ""),
    ("InvalidParameterException", "Error retrieving subnet information: Request limit exceeded (RequestLimitExceeded)"),
    ("ClientException", "ECS was unable to assume the role: Rate exceeded (Service: Sts; Error Code: Throttling)"),
    ("ClientException", "Too Many Requests"),
]
UNKNOWN = [
    ("ServerException", "Service Unavailable. Please try again later."),
    ("InternalFailure", ""),
    ("503", "Service Unavailable"),
    ("ExpiredTokenException", "The security token included in the request is expired"),
    ("ConflictException", "The request conflicts with another under this clientToken"),
]


@pytest.mark.parametrize(("code", "message"), PERMANENT, ids=lambda text: text[:30])
def test_an_error_that_will_not_pass_asks_for_a_person(code: str, message: str) -> None:
    assert launch.refused(code, message, []) == Unanswered(Doubt.PERMANENT, f"{code}: {message}")


@pytest.mark.parametrize(("code", "message"), THROTTLED, ids=lambda text: text[:30])
def test_a_throttle_is_one_however_it_is_wrapped(code: str, message: str) -> None:
    assert launch.refused(code, message, []) == Unanswered(Doubt.THROTTLED, f"{code}: {message}")


@pytest.mark.parametrize(("code", "message"), UNKNOWN, ids=lambda text: text[:30])
def test_any_other_error_leaves_the_question_open(code: str, message: str) -> None:
    assert launch.refused(code, message, []) == Unanswered(Doubt.UNKNOWN, f"{code}: {message}")


def test_a_conflict_that_names_a_task_is_the_answer() -> None:
    assert launch.refused("ConflictException", "already launched", [ARN]) == Started(ARN)


def test_resource_ids_mean_a_task_only_in_a_conflict() -> None:
    assert isinstance(launch.refused("ServerException", "", [ARN]), Unanswered)


@quick
@given(code=st.sampled_from([code for code, _ in PERMANENT + THROTTLED + UNKNOWN]) | st.text(), message=st.text())
def test_an_error_never_says_that_no_task_will_come(code: str, message: str) -> None:
    assert isinstance(launch.refused(code, message, []), Unanswered)
