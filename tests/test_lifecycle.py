"""Which changes of an item are told, and what is told of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import keys, lifecycle, limits
from fleetcap.catalog import PROCESSORS, artifact_keys
from fleetcap.lifecycle import StateChange, detail, json_schema, state_change
from fleetcap.model import FailureClass, Holder, Job, JobStatus, Lease, SlotId
from tests.examples import NOW, a_job, lapse

DOCS = Path(__file__).parent.parent / "docs"
CACHE = "s3://cache/portal/"
HOLDER = Holder(Lease(SlotId("default", 0), 1))


def item(job: Job, **further: Any) -> dict[str, Any]:
    return keys.job_item(job, "op") | further


def after(before: dict[str, Any], write: keys.Write) -> dict[str, Any]:
    """The item once a write has gone through."""
    return {name: value for name, value in before.items() if name not in write.removes} | dict(write.sets)


QUEUED = a_job()
QUEUED_ITEM = item(QUEUED)
RUNNING_ITEM = after(QUEUED_ITEM, keys.claim_write(QUEUED, HOLDER, NOW, "op"))
RUNNING = keys.job_from(RUNNING_ITEM)


def finished(status: JobStatus, error: str = "", artifacts: tuple[str, ...] = ()) -> dict[str, Any]:
    return after(RUNNING_ITEM, keys.finish_write(RUNNING, status, NOW + 60, error, artifacts, "op"))


def told(old: keys.Item | None, new: keys.Item | None) -> StateChange:
    change = state_change(old, new, CACHE)
    assert change
    return change


# --- what is told


def test_a_new_key_is_told_without_a_status_before() -> None:
    change = told(None, QUEUED_ITEM)
    assert (change.old_status, change.status, change.run, change.attempt) == (None, JobStatus.QUEUED, 1, 0)
    assert (change.queued_at, change.claimed_at, change.ended_at) == (NOW - 5, None, None)
    assert (change.waited_s, change.ran_s) == (None, None)


def test_a_claim_is_told_with_how_long_the_job_waited() -> None:
    change = told(QUEUED_ITEM, RUNNING_ITEM)
    assert (change.old_status, change.status, change.attempt) == (JobStatus.QUEUED, JobStatus.RUNNING, 1)
    assert (change.claimed_at, change.waited_s, change.ran_s) == (NOW, 5, None)


def test_an_end_is_told_with_its_results_where_they_lie_and_how_long_it_took() -> None:
    change = told(RUNNING_ITEM, finished(JobStatus.COMPLETED, artifacts=("k/bam@1/sorted.bam", "k/bam@1/bai")))
    assert change.artifacts == ("s3://cache/portal/k/bam@1/sorted.bam", "s3://cache/portal/k/bam@1/bai")
    assert (change.ended_at, change.waited_s, change.ran_s) == (NOW + 60, 5, 60)
    assert (change.job_id, change.workflow_key, change.pool) == (QUEUED.id, QUEUED.key, "default")
    assert (change.processor, change.source) == ("bam", "s3://bucket/a.bam")


def test_a_failure_is_told_with_its_reason_and_its_class() -> None:
    lapsed = lapse(RUNNING, FailureClass.PERMANENT)
    failed = after(RUNNING_ITEM, keys.finish_write(RUNNING, JobStatus.FAILED, NOW, "no BAM", (), "op", lapsed))
    change = told(RUNNING_ITEM, failed)
    assert (change.reason, change.failure_class, change.artifacts) == ("no BAM", FailureClass.PERMANENT, ())


def test_an_earlier_attempts_failure_is_not_told_as_the_end_of_a_later_one() -> None:
    queued = after(RUNNING_ITEM, keys.requeue_write(RUNNING, NOW, "Spot", lapse(RUNNING), "op"))
    back = keys.job_from(queued)
    again = after(queued, keys.claim_write(back, HOLDER, NOW, "op"))
    done = after(again, keys.finish_write(keys.job_from(again), JobStatus.COMPLETED, NOW, "", ("k",), "op"))
    late = after(queued, keys.finish_write(back, JobStatus.FAILED, NOW, "it waited too long", (), "op"))
    assert [told(*pair).failure_class for pair in ((queued, again), (again, done), (queued, late))] == [None] * 3


def test_a_cancelled_job_is_told_with_why() -> None:
    asked = after(RUNNING_ITEM, keys.cancel_write(RUNNING, "not needed"))
    assert state_change(RUNNING_ITEM, asked, CACHE) is None
    change = told(asked, after(asked, keys.finish_write(RUNNING, JobStatus.CANCELLED, NOW, "", (), "op")))
    assert (change.status, change.reason) == (JobStatus.CANCELLED, "not needed")


def test_a_job_that_goes_back_into_the_queue_is_told_with_the_reason() -> None:
    queued = after(RUNNING_ITEM, keys.requeue_write(RUNNING, NOW, "Spot", lapse(RUNNING), "op"))
    change = told(RUNNING_ITEM, queued)
    assert (change.old_status, change.status, change.reason) == (JobStatus.RUNNING, JobStatus.QUEUED, "Spot")
    assert (change.claimed_at, change.failure_class) == (None, FailureClass.INTERRUPTED)


def test_the_next_run_of_a_key_is_told_even_if_it_ends_as_the_run_before() -> None:
    answered = replace(QUEUED, run=2, status=JobStatus.COMPLETED, ended_at=NOW + 99, artifacts=("k",))
    change = told(finished(JobStatus.COMPLETED), item(answered))
    assert (change.run, change.old_status, change.status) == (2, JobStatus.COMPLETED, JobStatus.COMPLETED)
    assert change.ran_s is None


def test_sequence_correlation_and_tenant_are_those_of_the_item() -> None:
    queued = replace(QUEUED, changes=1_800_000_007, correlation_id="request/42", tenant="lab")
    running = after(item(queued), keys.claim_write(queued, HOLDER, NOW, "op"))
    change = told(item(queued), running)
    assert (change.sequence, change.correlation_id, change.tenant) == (1_800_000_008, "request/42", "lab")


def test_a_run_after_another_leads_from_that_one_to_itself() -> None:
    again = replace(QUEUED, run=2)
    assert told(finished(JobStatus.FAILED), item(again)).supersedes == QUEUED.id
    assert told(None, QUEUED_ITEM).supersedes == ""


def test_the_query_of_a_source_stays_out_of_events() -> None:
    signed = replace(QUEUED, request=replace(QUEUED.request, source="https://host/a.bam?X-Amz-Signature=abc"))
    assert told(None, item(signed)).source == "https://host/a.bam"


def test_the_same_record_always_makes_the_same_event() -> None:
    assert detail(told(QUEUED_ITEM, RUNNING_ITEM)) == detail(told(dict(QUEUED_ITEM), dict(RUNNING_ITEM)))


# --- what is not

HEARTBEAT = keys.heartbeat_write(RUNNING, NOW + 9, "sort", 0.5, "")
UNTOLD: dict[str, tuple[keys.Item | None, keys.Item | None]] = {
    "a heartbeat": (RUNNING_ITEM, after(RUNNING_ITEM, HEARTBEAT)),
    "a write that changed nothing": (QUEUED_ITEM, QUEUED_ITEM),
    "a finished job that TTL takes away": (finished(JobStatus.COMPLETED), None),
    "a slot": (None, keys.slot_item(SlotId("default", 0), NOW)),
    "another item beside a job's": (None, {**keys.job_key("k"), keys.TABLE_SK: "HISTORY"}),
}


@pytest.mark.parametrize(("old", "new"), UNTOLD.values(), ids=UNTOLD)
def test_nothing_is_told_of(old: keys.Item | None, new: keys.Item | None) -> None:
    assert state_change(old, new, CACHE) is None


@pytest.mark.parametrize("lacking", ["status", "run", "request"])
def test_an_image_that_is_no_job_is_an_error_and_no_event(lacking: str) -> None:
    with pytest.raises(keys.Unreadable):
        state_change(None, {name: value for name, value in QUEUED_ITEM.items() if name != lacking}, CACHE)


# --- which of it the stream hands over


@pytest.mark.parametrize(("status", "wanted"), [("COMPLETED", True), ("FAILED", True), ("RUNNING", False)])
def test_the_filter_lets_jobs_of_the_wanted_statuses_pass(status: str, wanted: bool) -> None:
    pattern = keys.stream_filter(keys.ENDED_STATUSES)
    images = pattern["dynamodb"]
    assert (status in images["NewImage"]["status"]["S"]) is wanted
    assert images["Keys"] == {keys.TABLE_SK: {"S": [keys.job_key("k")[keys.TABLE_SK]]}}
    assert pattern["eventName"] == ["INSERT", "MODIFY"]


# --- how it is published

texts = st.text(max_size=limits.ERROR_MAX_CHARS)
times = st.floats(0, 4e9)
changes = st.builds(
    StateChange, schema=st.just(1), reason=texts, source=texts, claimed_at=times | st.none(), ended_at=times | st.none()
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(change=changes)
def test_every_detail_fits_the_published_schema(change: StateChange) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(detail(change)))


def test_the_schema_in_the_docs_is_the_one_that_is_spoken() -> None:
    assert json.loads((DOCS / "event.schema.json").read_text()) == json_schema()


def test_the_page_in_the_docs_tells_every_field_and_its_meaning() -> None:
    section = (DOCS / "events.md").read_text().partition("## The detail")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, flags=re.MULTILINE)) == lifecycle.meanings()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_largest_event_is_billed_as_one_and_ten_of_them_fit_a_request(processor: str) -> None:
    widest = "🧬"
    key = "k" * limits.WORKFLOW_KEY_MAX_CHARS
    job = replace(
        RUNNING,
        key=key,
        status=JobStatus.FAILED,
        error=widest * limits.ERROR_MAX_CHARS,
        artifacts=artifact_keys(key, processor),
        request=replace(RUNNING.request, source=widest * limits.SOURCE_MAX_CHARS, processor=processor),
        ended_at=NOW,
    )
    largest = state_change(None, item(job) | {"error": job.error}, "s3://" + "b" * 63 + "/" + "p" * 200)
    assert largest
    size_bytes = len(detail(largest).encode())
    assert size_bytes < limits.EVENT_BILLED_BYTES
    assert size_bytes * limits.PUT_EVENTS_ENTRIES < limits.PUT_EVENTS_MAX_BYTES
