"""Items come back as they went in, generations only grow, ranks sort; and every name of an expression is bound."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetcap import keys, limits
from fleetcap.model import Holder, Job, JobStatus, Lease, Request, Slot, SlotId, SlotState
from tests.examples import NOW, a_job, a_slot, lapse

seconds = st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1000)
numbers = st.integers(0, 2**31)
texts = st.text(max_size=30)
requests = st.builds(
    Request,
    source=texts,
    processor=texts,
    md5=texts,
    params=st.dictionaries(
        texts, texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(), max_size=4
    ),
    max_attempts=numbers,
    timeout_s=numbers,
)
new_jobs = st.builds(
    Job,
    key=st.from_regex(r"[a-z0-9]{1,9}(/[A-Za-z0-9._=@+-]{1,9}){0,3}", fullmatch=True),
    run=numbers,
    status=st.just(JobStatus.QUEUED),
    pool=st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True),
    priority=st.integers(limits.PRIORITY_MIN, limits.PRIORITY_MAX),
    request=requests,
    shard=st.integers(0, 9),
    rank=texts,
    attempt=numbers,
    tenant=texts,
    queued_at=seconds,
    due_at=seconds,
)
ended_jobs = st.builds(
    lambda job, ended_at, artifacts: replace(
        job, status=JobStatus.COMPLETED, ended_at=ended_at, artifacts=tuple(artifacts)
    ),
    new_jobs,
    seconds,
    st.lists(texts, max_size=3),
)
quick = settings(derandomize=True, max_examples=80, deadline=None)


def through_the_wire(item: dict[str, Any]) -> dict[str, Any]:
    serialize, deserialize = TypeSerializer().serialize, TypeDeserializer().deserialize
    return {name: deserialize(serialize(value)) for name, value in item.items()}


@quick
@given(job=new_jobs | ended_jobs)
def test_a_job_comes_back_from_its_item_as_it_went_in(job: Job) -> None:
    item = through_the_wire(keys.job_item(job, "op"))
    assert keys.job_from(item) == job
    assert (keys.OPEN_PK in item) == (not job.ended)
    assert (keys.TTL in item) == job.ended


@quick
@given(pool=st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True), number=st.integers(0, 10_239), now=seconds)
def test_a_slot_comes_back_from_its_item_as_it_went_in(pool: str, number: int, now: float) -> None:
    item = through_the_wire(keys.slot_item(SlotId(pool, number), now))
    assert keys.slot_from(item) == Slot(SlotId(pool, number), SlotState.EMPTY, int(now))


@quick
@given(one=st.tuples(st.integers(0, 9), seconds), other=st.tuples(st.integers(0, 9), seconds), key=texts)
def test_ranks_sort_by_priority_and_then_by_time(one: tuple[int, float], other: tuple[int, float], key: str) -> None:
    earlier, later = sorted((one, other), key=lambda pair: (-pair[0], pair[1]))
    assert keys.rank_of(key, *earlier) <= keys.rank_of(key, *later)


@quick
@given(nows=st.lists(st.floats(0, 4e9), min_size=1, max_size=8), first=st.integers(0, 2**32))
def test_generations_only_grow_whatever_the_clocks_say(nows: list[float], first: int) -> None:
    generations = [first]
    for now in nows:
        lease = Lease(SlotId("p", 0), generations[-1])
        generations.append(keys.release_write(lease, "", now, "", 0, "op").sets["generation"])
    assert generations == sorted(set(generations))


# --- the text forms of fences


@quick
@given(slot=st.builds(SlotId, st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True), numbers), generation=numbers)
def test_a_fence_is_read_back_from_its_text(slot: SlotId, generation: int) -> None:
    lease = Lease(slot, generation)
    assert (SlotId.parse(str(slot)), Lease.parse(str(lease))) == (slot, lease)
    assert Holder.parse(str(Holder(lease, 1))) == Holder(lease, 1)


@pytest.mark.parametrize("text", ["", "pool", "pool/", "/1", "pool/x", "pool/-1", "1", "pool/1/"])
def test_what_is_no_slot_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not a slot"):
        SlotId.parse(text)


@pytest.mark.parametrize("text", ["", "pool/1", "pool/1/", "pool/1/x", "pool/1#1", "ecs-svc/123456789"])
def test_what_is_no_lease_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (lease|slot)"):
        Lease.parse(text)


@pytest.mark.parametrize("text", ["", "pool/1/2", "pool/1/2/", "pool/1/2/x", "pool/1#2#0"])
def test_what_is_no_holder_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (holder|lease|slot)"):
        Holder.parse(text)


# --- expressions

SLOT, JOB = a_slot(), a_job(status=JobStatus.RUNNING, holder=Holder(Lease(SlotId("default", 0), 1)))
WRITES = {
    "lease": keys.lease_write(SLOT, "{}", "job", 0, NOW, "op"),
    "launched": keys.launched_write(SLOT.lease, "arn", NOW),
    "beat": keys.beat_write(SLOT.lease, "arn", True, NOW),
    "release": keys.release_write(SLOT.lease, "arn", NOW, "why", 0, "op"),
    "release without a task": keys.release_write(SLOT.lease, "", NOW, "why", NOW, "op"),
    "missing": keys.missing_write(SLOT.lease, NOW),
    "retire": keys.retire_write(SLOT.id, True),
    "stay": keys.retire_write(SLOT.id, False),
    "claim": keys.claim_write(JOB, Holder(SLOT.lease), NOW, "op"),
    "heartbeat": keys.heartbeat_write(JOB, NOW, "stage", 0.5, "message"),
    "finish": keys.finish_write(JOB, JobStatus.FAILED, NOW, "error", (), "op"),
    "withdraw": keys.finish_write(a_job(), JobStatus.CANCELLED, NOW, "error", (), "op"),
    "cancel": keys.cancel_write(JOB, "why"),
    "requeue": keys.requeue_write(JOB, NOW, "error", lapse(JOB), "op"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_expression_uses_every_value_it_brings_and_brings_every_value_it_uses(write: keys.Write) -> None:
    text = f"{write.update} {write.condition.expression}"
    assert set(re.findall(r":\w+", text)) == set(write.values)
    assert set(re.findall(r"#\w+", text)) == set(keys.names_in(write.update, write.condition.expression))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_no_attribute_is_set_and_removed_by_one_write(write: keys.Write) -> None:
    assert set(write.sets).isdisjoint(write.removes)
