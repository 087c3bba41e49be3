"""What becomes of a job whose attempt did not end well."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import limits
from fleetcap.decide import retry
from fleetcap.decide.retry import Cancel, GiveUp, Requeue
from fleetcap.model import Attempt, FailureClass, Job, JobStatus, Request
from tests.examples import NOW, a_job, lapses

REQUEST = Request("s3://bucket/a.bam", "bam", max_attempts=3)
INTERRUPTED, FAILED = FailureClass.INTERRUPTED, FailureClass.FAILED
TIMEOUT, PERMANENT = FailureClass.TIMEOUT, FailureClass.PERMANENT


def a_run(*before: FailureClass, max_attempts: int = 3, **fields: object) -> Job:
    """A RUNNING job whose earlier attempts ended like this."""
    history = tuple(replace(lapses(1, failure)[0], number=n) for n, failure in enumerate(before, start=1))
    job = a_job(
        status=JobStatus.RUNNING,
        request=replace(REQUEST, max_attempts=max_attempts),
        attempt=len(history) + 1,
        task="task-9",
        claimed_at=NOW - 30,
        history=history,
    )
    return replace(job, **fields)  # type: ignore[arg-type]


def outcomes(job: Job, failure: FailureClass, error: str = "why") -> retry.Outcome:
    return retry.after(job, failure, error, NOW, 0.5)


def test_an_interrupted_job_goes_back_at_once_and_uses_up_no_attempt() -> None:
    job = a_run(FAILED, INTERRUPTED, INTERRUPTED, INTERRUPTED)
    ended = Attempt(5, INTERRUPTED, "heartbeat lost: Spot", "task-9", NOW - 30, NOW)
    assert outcomes(job, INTERRUPTED, "heartbeat lost: Spot") == Requeue(NOW, "heartbeat lost: Spot", ended)


def test_a_job_that_was_interrupted_too_often_ends() -> None:
    outcome = outcomes(a_run(*[INTERRUPTED] * limits.MAX_INTERRUPTIONS), INTERRUPTED, "heartbeat lost: Spot")
    assert isinstance(outcome, GiveUp)
    assert outcome.error == "heartbeat lost: 6 workers went away while they ran this job; last: Spot"
    assert outcome.attempt.reason == "heartbeat lost: Spot"


def test_a_failed_job_is_tried_again_later_each_time_until_its_attempts_are_used_up() -> None:
    dues = [outcomes(a_run(*[FAILED] * before), FAILED) for before in range(3)]
    assert [getattr(each, "due_at", None) for each in dues] == [NOW + 5, NOW + 10, None]
    assert isinstance(dues[2], GiveUp)


def test_interruptions_use_up_no_attempts() -> None:
    assert isinstance(outcomes(a_run(INTERRUPTED, INTERRUPTED, INTERRUPTED, FAILED), FAILED), Requeue)


def test_a_second_timeout_is_the_last_and_a_first_one_uses_up_an_attempt() -> None:
    assert isinstance(outcomes(a_run(), TIMEOUT), Requeue)
    assert isinstance(outcomes(a_run(TIMEOUT, max_attempts=9), TIMEOUT), GiveUp)
    assert isinstance(outcomes(a_run(max_attempts=1), TIMEOUT), GiveUp)
    assert isinstance(outcomes(a_run(TIMEOUT, FAILED), FAILED), GiveUp)


def test_a_permanent_failure_is_never_tried_again() -> None:
    job = a_run()
    ended = Attempt(1, PERMANENT, "input: empty", "task-9", NOW - 30, NOW)
    assert outcomes(job, PERMANENT, "input: empty") == GiveUp("input: empty", ended)


@pytest.mark.parametrize("failure", FailureClass)
def test_a_job_that_is_to_be_cancelled_ends_however_its_attempt_did(failure: FailureClass) -> None:
    assert outcomes(a_run(cancel="by hand"), failure) == Cancel("cancelled: by hand")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(failures=st.integers(0, limits.ATTEMPTS_LIMIT - 2), jitter=st.floats(0, 1), interruptions=st.integers(0, 5))
def test_a_retry_is_never_immediate_nor_later_than_its_bound(failures: int, jitter: float, interruptions: int) -> None:
    job = a_run(*[FAILED] * failures, *[INTERRUPTED] * interruptions, max_attempts=limits.ATTEMPTS_LIMIT)
    outcome = retry.after(job, FAILED, "internal: x", 0.0, jitter)
    assert isinstance(outcome, Requeue)
    assert 0.75 * limits.RETRY_FIRST_S <= outcome.due_at <= 1.25 * limits.RETRY_MAX_S
