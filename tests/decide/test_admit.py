"""What becomes of an accepted message: joined to a run, answered by one, or the beginning of one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap.decide.admit import Answer, Attach, Enqueue, Record, admit
from fleetcap.model import JobStatus
from tests.examples import NOW, a_job

ENDED = [status for status in JobStatus if status.ended]
ACTIVE = [status for status in JobStatus if not status.ended]


def test_three_statuses_end_a_run() -> None:
    assert {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED} == set(ENDED)


def test_a_new_key_begins_a_run() -> None:
    assert admit(None, NOW, cached=False) == Enqueue(None)


def test_a_new_key_whose_result_is_cached_is_recorded_without_a_run() -> None:
    assert admit(None, NOW, cached=True) == Record(None)


@pytest.mark.parametrize("status", ACTIVE)
@pytest.mark.parametrize("cached", [True, False])
def test_a_message_joins_the_active_run_of_its_key(status: JobStatus, cached: bool) -> None:
    job = a_job(status=status)
    assert admit(job, NOW, cached) == Attach(job)


@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("before_s", [0, 1, 9_000])
def test_a_message_sent_before_the_runs_end_is_answered_by_that_run(
    status: JobStatus, cached: bool, before_s: float
) -> None:
    job = a_job(status=status, ended_at=NOW)
    assert isinstance(admit(job, NOW - before_s, cached), Answer)


@pytest.mark.parametrize("status", ENDED)
def test_a_later_message_begins_a_new_run_where_nothing_is_cached(status: JobStatus) -> None:
    job = a_job(status=status, ended_at=NOW)
    assert admit(job, NOW + 0.001, cached=False) == Enqueue(job)


def test_a_completed_run_whose_artifacts_stand_answers_at_any_time() -> None:
    job = a_job(status=JobStatus.COMPLETED, ended_at=NOW)
    assert admit(job, NOW + 1e6, cached=True) == Answer(job, "the result is in the cache")


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_result_in_the_cache_is_recorded_over_a_run_that_did_not_complete(status: JobStatus) -> None:
    job = a_job(status=status, ended_at=NOW)
    assert admit(job, NOW + 1, cached=True) == Record(job)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    status=st.sampled_from(JobStatus),
    ended_at=st.floats(0, 100),
    deliveries=st.integers(1, 4),
    sent_at=st.floats(0, 100),
    cached=st.booleans(),
)
def test_a_redelivery_never_replaces_what_the_first_delivery_did_not(
    status: JobStatus, ended_at: float, deliveries: int, sent_at: float, cached: bool
) -> None:
    job = a_job(status=status, ended_at=ended_at if status.ended else 0.0)
    answers = {type(admit(job, sent_at, cached)) for _ in range(deliveries)}
    replaced = bool(answers & {Enqueue, Record})
    assert len(answers) == 1
    assert not replaced or (status.ended and sent_at > ended_at)
