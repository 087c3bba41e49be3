"""What a storm's verdict calls trouble: it must fail on each, or a clean one would mean nothing; what a seed fixes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from fleetcap import catalog, limits
from fleetcap.messages import Rejected, submission
from fleetcap.model import Job, JobStatus, Lease, OnParentFailure, Pool, Request, Slot, SlotId, SlotState
from local.chaos.plan import CAPS, LOWER_CAP, TORN, WHOLE, Sent, bursts, elements, kinds, strokes
from local.chaos.report import struck_where
from local.chaos.storm import Look
from local.chaos.verdict import ARRAY_AGAIN, HEARTBEAT_LOST, Cap, Found, Stored, Task, find_trouble, none_after_the_end
from local.client import Meter
from local.cloud import Marked
from local.fargate.faults import ACTS
from local.fargate.faults import KINDS as FARGATE_KINDS
from local.proxy.faults import KINDS as CALL_KINDS
from tests.examples import lapses

SOURCE, BAD_SOURCE = "s3://input/a.bam", "s3://input/missing.bam"
GIVEN_UP = f"{HEARTBEAT_LOST} while they ran this job; last: killed"
BAM, BAI = catalog.artifact_keys("good", "bam")
GOOD = Job(
    "good", 1, JobStatus.COMPLETED, "default", 5, Request(SOURCE, "bam"), attempt=2, history=lapses(1), claimed_at=5.0,
    artifacts=(BAM, BAI), ended_at=9.0, changes=40,
)  # fmt: skip
BAD = Job(
    "bad",
    1,
    JobStatus.FAILED,
    "default",
    5,
    Request(BAD_SOURCE, "bam"),
    attempt=1,
    error="it does not exist",
    history=lapses(1),
    ended_at=7.0,
    changes=20,
)
LOST = replace(
    GOOD, status=JobStatus.FAILED, attempt=6, history=lapses(limits.MAX_INTERRUPTIONS + 1), error=GIVEN_UP, artifacts=()
)
AGAIN = replace(GOOD, run=2, attempt=8)
OTHER = replace(BAD, key="other")
SLOT, ABOVE = SlotId("default", 0), SlotId("default", 1)
SERVERS = (Marked(10, 1, "emulator", "emulator"), Marked(20, 1, "fargate", "fargate"), Marked(11, 10, "a function"))


def told(job: Job, **fields: Any) -> dict[str, Any]:
    """What the bus tells of a job's end, as far as the verdict reads it."""
    event = {"workflow_key": job.key, "job_id": job.id, "run": job.run, "status": job.status.value}
    return event | {"sequence": job.changes, "ended_at": job.ended_at} | fields


def ends(job: Job) -> list[dict[str, Any]]:
    """What the bus tells of all runs of a job's key, as it has to."""
    earlier = [told(job, run=run, status="FAILED", sequence=run, ended_at=1.0) for run in range(1, job.run)]
    return [*earlier, told(job)] if job.ended else earlier


CLEAN = Found(
    cap=1,
    unsettled="",
    waited_for_messages=False,
    wanted=2,
    sent={"good": Sent("a.bam"), "bad": Sent("missing.bam", bad=True)},
    refused={"nonsense"},
    jobs=[GOOD, BAD],
    given_up={"bad"},
    objects={BAM: Stored(9, "x"), BAI: Stored(3, "y")},
    uploads=[],
    unverified=[],
    claims=Counter({"good-1 attempt 1": 1, "good-1 attempt 2": 1}),
    completions=Counter({"good-1": 1}),
    first_claims={},
    events=[told(GOOD), told(BAD), told(GOOD)],
    unpublished=0,
    slots=[Slot(SLOT, SlotState.EMPTY, 7)],
    caps=[Cap(1)],
    leases={Lease(SLOT, 5): 2.0},
    tasks=[Task(Lease(SLOT, 5), 2.5, 8.0), Task(Lease(SLOT, 6), 9.0, 10.0)],
    meter=Meter(0, 1, 3),
    rejected=[{"body": "nonsense", "reason": "it is no JSON"}],
    depths={"Intake": (0, 1), "Events": (0, 0)},
    dead_letters={"Intake": 0, "Events": 0},
    processes=SERVERS,
    kinds={"kill"},
    struck=Counter(kill=1),
)


def test_a_storm_that_was_weathered_is_no_trouble() -> None:
    assert find_trouble(CLEAN) == []


def with_job(job: Job, **more: Any) -> dict[str, Any]:
    return {"jobs": [job, BAD], "events": [*ends(job), told(BAD)], **more}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"unsettled": "nothing went on"}, "nothing went on"),
        ({"wanted": 3}, "only 2 of 3 jobs could be sent"),
        ({"jobs": [GOOD], "events": [told(GOOD)]}, "bad: sent, but there is no such job"),
        ({"jobs": [GOOD, BAD, OTHER], "events": [*CLEAN.events, told(OTHER)]}, "other: a job that nobody sent"),
        (with_job(replace(GOOD, status=JobStatus.RUNNING), objects={}), "good: still RUNNING after 2 attempts"),
        (with_job(replace(GOOD, status=JobStatus.CANCELLED), objects={}), "good: cancelled"),
        (with_job(replace(LOST, error="internal: killed"), objects={}), "good: failed, though its source is good: int"),
        (
            with_job(replace(LOST, history=lapses(4), attempt=4), objects={}),
            "good: given up after 4 interruptions, not 6",
        ),
        ({"sent": {**CLEAN.sent, "good": CLEAN.sent["bad"]}}, "good: completed, though its source holds no alignments"),
        ({"jobs": [GOOD, replace(BAD, error="internal: it broke")]}, "that is not why it failed: internal: it broke"),
        ({"jobs": [GOOD, replace(BAD, error="")]}, "that is not why it failed: no reason"),
        (with_job(replace(GOOD, attempt=3)), "good: 3 attempts, but 2 ends in run 1"),
        (with_job(replace(GOOD, run=2, attempt=1), given_up={"good"}), "good: 1 attempts, but 2 ends in run 2"),
        (with_job(replace(GOOD, run=2)), "good: run 2 times, though none of its runs was seen to fail"),
        (with_job(replace(GOOD, artifacts=(BAM,))), f"good: names {BAM}, not those of its processor"),
        ({"objects": {BAM: Stored(9, "x")}}, f"{BAI}: the artifact of a completed job is missing"),
        ({"objects": {**CLEAN.objects, "stray": Stored(1, "z")}}, "stray: an object that no job left"),
        ({"objects": {**CLEAN.objects, BAI: Stored(0, "y")}}, f"{BAI}: an artifact without bytes"),
        ({"uploads": [BAM]}, f"{BAM}: an upload that was never finished"),
        ({"unverified": ["good: 8 of 9 reads"]}, "good: 8 of 9 reads"),
        ({"meter": Meter(0, 2, 3)}, "the cap of 1 was exceeded: 2 tasks lived at once"),
        ({"caps": [Cap(1), Cap(3, 1.0, 2.0), Cap(1, 3.0, 4.0)], "meter": Meter(0, 4, 3)}, "the cap of 3 was exceeded"),
        ({"meter": Meter(1, 1, 3)}, "1 tasks still live"),
        ({"tasks": []}, "its figures cannot be trusted"),
        (
            {"tasks": [*CLEAN.tasks, Task(Lease(SLOT, 7), 9.5, 11.0)]},
            "two tasks lived at once in slot default/0: under default/0/6 and default/0/7",
        ),
        ({"meter": Meter(0, 0, 0)}, "its figures cannot be trusted"),
        ({"claims": Counter({"good-1 attempt 2": 2})}, "good-1 attempt 2 was claimed 2 times"),
        ({"completions": Counter({"good-1": 2})}, "run good-1 was completed 2 times"),
        ({"completions": Counter()}, "no worker's log says so"),
        ({"slots": []}, "there are 0 slots for a cap of 1"),
        ({"slots": [replace(CLEAN.slots[0], retire=True)]}, "there are 0 slots for a cap of 1"),
        ({"slots": [*CLEAN.slots, Slot(ABOVE, SlotState.EMPTY, 7)]}, "there are 2 slots for a cap of 1"),
        ({"slots": [replace(CLEAN.slots[0], state=SlotState.READY, arn="t")]}, "slot default/0/7 leaked: it is READY"),
        ({"rejected": []}, "neither run nor rejected: nonsense"),
        ({"rejected": [*CLEAN.rejected, {"body": "fine", "reason": "?"}]}, "rejected, though it is no bad message: fi"),
        ({"rejected": [{"body": "nonsense", "reason": ""}]}, "rejected without a reason: nonsense"),
        ({"depths": {"Intake": (2, 0)}}, "2 messages are left in the queue Intake"),
        ({"waited_for_messages": True}, "1 messages are left in the queue Intake"),
        ({"dead_letters": {"Events": 1}}, "1 messages are in the dead-letter queue Events"),
        ({"processes": [*SERVERS, Marked(21, 20, "a worker")]}, "process 21 is left: a worker"),
        ({"processes": [*SERVERS, Marked(31, 1, "an orphan")]}, "process 31 is left: an orphan"),
        ({"kinds": {"kill", "spot"}}, "spot never struck"),
        (with_job(replace(GOOD, tenant="north")), "good: a job of tenant north, sent as one of nobody"),
        ({"events": [told(GOOD)]}, "bad: in run 1 and FAILED, but by its events these runs ended: []"),
        ({"events": [told(GOOD), told(BAD), told(BAD, status="CANCELLED")]}, "bad: two events that differ under the"),
        ({"events": [told(GOOD, status="FAILED"), told(BAD)]}, "good: run 1 was told as FAILED, which it never was"),
        ({"events": [told(GOOD, sequence=41), told(BAD)]}, "good: run 1 was told as COMPLETED, which it never was"),
        (
            with_job(AGAIN, given_up={"good"}, events=[told(AGAIN, run=1, sequence=1), told(AGAIN), told(BAD)]),
            "good: run 1 was told as COMPLETED, which it never was",
        ),
        ({"events": [*CLEAN.events, told(OTHER)]}, "other: an event of a job that there is not"),
        ({"unpublished": 2}, "2 notes of changes that were not published"),
    ],
)
def test_whatever_must_not_be_is_said(change: dict[str, Any], expected: str) -> None:
    [sentence] = find_trouble(replace(CLEAN, **change))
    assert expected in sentence


def test_what_is_told_must_have_been_and_rises() -> None:
    def trouble(job: Job, *events: dict[str, Any]) -> list[str]:
        return find_trouble(replace(CLEAN, **with_job(job, events=[*events, told(BAD)], given_up={"good"})))

    first, second = ends(AGAIN)
    assert trouble(AGAIN, second, first, second) == []
    running = told(GOOD, status="RUNNING", sequence=39)
    assert "good: told as RUNNING, of which there are to be no events" in trouble(GOOD, running, told(GOOD))
    [sentence] = trouble(AGAIN, first | {"sequence": 50}, second)
    assert sentence == "good: in run 2 and COMPLETED, but by its events these runs ended: [2, 1]"
    assert "good: in run 1 and COMPLETED, but by its events these runs ended: [1, 1]" in trouble(
        GOOD, told(GOOD), told(GOOD, status="FAILED", sequence=41)
    )


def test_each_tenant_gets_its_turn() -> None:
    north = Job(
        "late", 1, JobStatus.FAILED, "default", 5, Request(SOURCE, "bam"), tenant="north", error="?", ended_at=1.0
    )
    found = replace(
        CLEAN,
        sent={**CLEAN.sent, "late": Sent("a.bam", bad=True, tenant="north")},
        jobs=[*CLEAN.jobs, north],
        events=[*CLEAN.events, told(north)],
    )
    assert find_trouble(found) == ["tenant north: no worker ever took one of its jobs"]


# --- jobs that wait for others

CHILD_FILES = catalog.artifact_keys("child", "bam")
CHILD = replace(
    GOOD, key="child", attempt=1, history=(), claimed_at=12.0, ended_at=15.0, changes=60, artifacts=CHILD_FILES
)
FALLEN = replace(CHILD, status=JobStatus.FAILED, attempt=0, claimed_at=0.0, artifacts=(), error="dependency: bad: ?")
EARLIER = (replace(lapses(1)[0], began_at=8.0),)
AFTER_GOOD, AFTER_BAD = Sent("a.bam", after=("good",)), Sent("a.bam", after=("bad",))


def trouble_with(child: Job, order: Sent, **more: Any) -> list[str]:
    """What the verdict says of one more job, which waits for another."""
    files = dict(zip(child.artifacts, CLEAN.objects.values(), strict=False))
    given: dict[str, Any] = {"sent": {**CLEAN.sent, "child": order}, "jobs": [*CLEAN.jobs, child]}
    given |= {"events": [*CLEAN.events, *ends(child)], "objects": {**CLEAN.objects, **files}}
    return find_trouble(replace(CLEAN, **(given | more)))


def test_who_waits_for_others_runs_after_them_or_falls_with_them() -> None:
    assert trouble_with(CHILD, AFTER_GOOD) == []
    assert trouble_with(FALLEN, AFTER_BAD) == []
    assert trouble_with(CHILD, replace(AFTER_BAD, anyway=True)) == []


@pytest.mark.parametrize(
    ("child", "order", "more", "expected"),
    [
        (replace(CHILD, claimed_at=8.0), AFTER_GOOD, {}, "child: claimed before good had completed"),
        (CHILD, AFTER_GOOD, {"first_claims": {"child": 8.0}}, "child: claimed before good had completed"),
        (replace(CHILD, attempt=2, history=EARLIER), AFTER_GOOD, {}, "child: claimed before good had completed"),
        (CHILD, AFTER_BAD, {}, "child: claimed before bad had completed"),
        (replace(CHILD, claimed_at=6.0), replace(AFTER_BAD, anyway=True), {}, "child: claimed before bad had ended"),
        (CHILD, Sent("a.bam", after=("good", "bad")), {}, "child: claimed before bad had completed"),
        (FALLEN, AFTER_GOOD, {}, "child: failed for a parent's sake, and none had failed: dependency: bad"),
        (replace(FALLEN, ended_at=6.0), AFTER_BAD, {}, "child: failed for a parent's sake, and none had failed"),
        (FALLEN, replace(AFTER_BAD, anyway=True), {}, "child: failed for a parent's sake, and was to run all the"),
        (replace(FALLEN, error="?"), AFTER_BAD, {}, "child: failed, though its source is good: ?"),
        (FALLEN, Sent("a.bam"), {}, "child: failed, though its source is good: dependency: bad"),
    ],
)
def test_whoever_does_not_wait_or_falls_for_nothing_is_said(
    child: Job, order: Sent, more: dict[str, Any], expected: str
) -> None:
    [sentence] = trouble_with(child, order, **more)
    assert expected in sentence


def test_a_parent_that_fell_and_runs_anew_has_ended_and_had_failed() -> None:
    for child, anyway in ((FALLEN, False), (replace(CHILD, claimed_at=2.0), True)):
        jobs = [AGAIN, BAD, child]
        events = [event for job in jobs for event in ends(job)]
        order = replace(AFTER_GOOD, anyway=anyway)
        assert trouble_with(child, order, jobs=jobs, events=events, given_up={"good"}) == []


# --- arrays

ARRAY = Job(
    "many", 1, JobStatus.FAILED, "default", 5, Request(SOURCE, "bam", array=2, step=1), ended_at=20.0, changes=70,
    error="array: 1 failed and 0 cancelled of 2; many/1 is FAILED: input:", counts=(1, 1, 0),
)  # fmt: skip
ELEMENTS = (replace(CHILD, key="many/0"), replace(BAD, key="many/1", ended_at=16.0))


def trouble_with_array(array: Job, *parts: Job, **more: Any) -> list[str]:
    """What the verdict says of an array of two."""
    files: dict[str, Stored] = {}
    parts = tuple(
        replace(part, artifacts=catalog.artifact_keys(part.key, "bam")) if part.artifacts else part for part in parts
    )
    for part in parts:
        files |= dict(zip(part.artifacts, CLEAN.objects.values(), strict=False))
    order = Sent(TORN, bad=True, array=2)
    found = replace(
        CLEAN,
        sent={**CLEAN.sent, "many": order, **dict(elements("many", order))},
        jobs=[*CLEAN.jobs, array, *parts],
        events=[*CLEAN.events, *ends(array), *(event for part in parts for event in ends(part))],
        objects={**CLEAN.objects, **files},
    )
    return find_trouble(replace(found, **more))


def test_an_array_that_ends_with_its_elements_is_no_trouble() -> None:
    assert trouble_with_array(ARRAY, *ELEMENTS) == []


@pytest.mark.parametrize("before", sorted(ARRAY_AGAIN))
def test_an_array_runs_anew_for_every_later_message(before: str) -> None:
    again = replace(ARRAY, run=2)
    first = told(again, run=1, status=before, sequence=1)
    events = [first, *CLEAN.events, *map(told, (again, *ELEMENTS))]
    assert trouble_with_array(again, *ELEMENTS, events=events) == []
    [sentence] = trouble_with_array(again, *ELEMENTS, events=events[1:])
    assert sentence == "many: in run 2 and FAILED, but by its events these runs ended: [2]"
    cancelled = [first | {"status": "CANCELLED"}, *events[1:]]
    [sentence] = trouble_with_array(again, *ELEMENTS, events=cancelled)
    assert sentence == "many: run 1 was told as CANCELLED, which it never was"


@pytest.mark.parametrize(
    ("array", "parts", "expected"),
    [
        (replace(ARRAY, ended_at=14.0), ELEMENTS, "many: ended before its element many/0"),
        (replace(ARRAY, counts=(2, 0, 0)), ELEMENTS, "many: counts (2, 0, 0), and its elements come to (1, 1, 0)"),
        (replace(ARRAY, counts=None), ELEMENTS, "many: counts None, and its elements come to (1, 1, 0)"),
        (replace(ARRAY, status=JobStatus.COMPLETED, error=""), ELEMENTS, "many: COMPLETED, though 1 of its 2 elements"),
        (replace(ARRAY, error="capacity: ?"), ELEMENTS, "many: failed for another reason than its elements: capacity"),
        (replace(ARRAY, counts=(1, 0, 0)), ELEMENTS[:1], "many/1: sent, but there is no such job"),
        (
            replace(ARRAY, counts=(1, 0, 0)),
            (ELEMENTS[0], replace(ELEMENTS[1], status=JobStatus.RUNNING)),
            "many: ended before its element many/1",
        ),
        (replace(ARRAY, attempt=1), ELEMENTS, "many: 1 attempts, but 0 ends in run 1"),
    ],
)
def test_an_array_that_does_not_is_said(array: Job, parts: tuple[Job, ...], expected: str) -> None:
    assert expected in "; ".join(trouble_with_array(array, *parts))


def test_a_large_array_has_parts_that_nobody_sent_and_that_are_told_of_all_the_same() -> None:
    part = replace(ARRAY, key="many/part-0", request=replace(ARRAY.request, part_of="many"))
    jobs = [*CLEAN.jobs, ARRAY, *ELEMENTS, part]
    events = [told(job) for job in jobs]
    files = dict(zip(catalog.artifact_keys("many/0", "bam"), CLEAN.objects.values(), strict=True))
    first = replace(ELEMENTS[0], artifacts=tuple(files))
    jobs[3] = first
    order = Sent(TORN, bad=True, array=2)
    found = replace(
        CLEAN,
        sent={**CLEAN.sent, "many": order, **dict(elements("many", order))},
        jobs=jobs,
        events=events,
        objects={**CLEAN.objects, **files},
    )
    assert find_trouble(found) == []
    [sentence] = find_trouble(replace(found, events=events[:-1]))
    assert sentence.startswith("many/part-0: in run 1 and FAILED, but by its events these runs ended: []")


# --- a cap that changes


LOWERED = [Cap(2), Cap(1, 4.0, 5.0), Cap(2, 20.0, 21.0), Cap(1, 30.0, 31.0)]


@pytest.mark.parametrize("at", [3.0, 4.5, 5.0, 25.0])
def test_a_slot_may_be_leased_under_a_cap_that_has_it(at: float) -> None:
    above = Lease(ABOVE, 3)
    assert find_trouble(replace(CLEAN, caps=LOWERED, leases={above: at})) == []
    assert find_trouble(replace(CLEAN, caps=LOWERED, tasks=[Task(above, at, at + 9)])) == []
    # Its request may have been under way when the lower cap was said.
    assert find_trouble(replace(CLEAN, caps=LOWERED, leases={above: at}, tasks=[Task(above, at + 10, at + 11)])) == []


@pytest.mark.parametrize("at", [6.0, 19.0, 40.0])
def test_a_slot_above_a_confirmed_cap_may_not(at: float) -> None:
    above = Lease(ABOVE, 3)
    for evidence in ({"leases": {above: at}}, {"tasks": [Task(above, at, at + 9)]}):
        [sentence] = find_trouble(replace(CLEAN, caps=LOWERED, **evidence))
        assert sentence.startswith("slot default/1/3 was leased above the cap of 1, ")


def test_slots_that_a_higher_cap_has_left_are_marked_and_free() -> None:
    left = Slot(ABOVE, SlotState.EMPTY, 7, retire=True)
    assert find_trouble(replace(CLEAN, slots=[*CLEAN.slots, left])) == []
    held = replace(left, state=SlotState.READY, arn="t")
    assert find_trouble(replace(CLEAN, slots=[*CLEAN.slots, held])) == [
        "slot default/1/7 leaked: it is READY, its task t"
    ]


def test_the_same_source_must_come_out_the_same() -> None:
    twin_bam, twin_bai = catalog.artifact_keys("twin", "bam")
    twin = replace(GOOD, key="twin", artifacts=(twin_bam, twin_bai))
    found = replace(
        CLEAN,
        sent={**CLEAN.sent, "twin": Sent("a.bam")},
        jobs=[GOOD, BAD, twin],
        events=[*CLEAN.events, told(twin)],
        objects={**CLEAN.objects, twin_bam: Stored(9, "other"), twin_bai: Stored(3, "y")},
    )
    [sentence] = find_trouble(found)
    assert sentence == f"sorted.bam of {SOURCE} came out in 2 ways: {BAM}, {twin_bam}"


def test_what_a_given_up_job_left_is_no_stray() -> None:
    assert find_trouble(replace(CLEAN, **with_job(LOST), given_up={"good", "bad"})) == []


def test_a_job_that_was_given_up_may_be_run_anew_or_found_in_the_cache() -> None:
    recorded = replace(GOOD, run=2, attempt=6, claimed_at=0.0, history=())
    for job in (AGAIN, recorded):
        assert find_trouble(replace(CLEAN, **with_job(job), given_up={"good", "bad"})) == []


def test_functions_of_the_emulator_may_have_children() -> None:
    assert find_trouble(replace(CLEAN, processes=[*SERVERS, Marked(12, 11, "its child")])) == []


def test_nothing_may_outlive_its_cloud() -> None:
    assert none_after_the_end([]) == []
    assert none_after_the_end([Marked(20, 1, "fargate")]) == ["process 20 outlived its cloud: fargate"]


def first(seed: int, long: bool = False) -> list[Any]:
    return list(islice(strokes(seed, 4, long), 120))


def test_a_seed_stands_for_one_order_of_faults_and_messages() -> None:
    def sent(seed: int) -> list[Any]:
        return list(islice(bursts(seed, "input", ["a.bam"], ["missing.bam"]), 20))

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert sent(1) == sent(1)
    assert sent(1) != sent(2)


@pytest.mark.parametrize("long", [False, True])
def test_faults_come_in_order_of_time_and_are_all_known(long: bool) -> None:
    found = first(3, long)
    assert [stroke.at_s for stroke in found] == sorted(stroke.at_s for stroke in found)
    assert {stroke.kind for stroke in found} <= {*FARGATE_KINDS, *CALL_KINDS, *ACTS, *CAPS}


@pytest.mark.parametrize("seed", range(5))
def test_a_minute_brings_every_kind(seed: int) -> None:
    assert {stroke.kind for stroke in first(seed) if stroke.at_s < 60} == kinds()


def test_a_short_storm_drops_one_stop_event_and_lets_no_worker_hang_for_good() -> None:
    found = first(4)
    assert [stroke.options["times"] for stroke in found if stroke.kind == "drop-events"] == [1]
    assert all(stroke.resume_s for stroke in found if stroke.kind == "hang")


def test_the_first_burst_has_a_bad_source_a_message_sent_twice_and_one_that_nobody_can_read() -> None:
    burst = next(bursts(1, "input", ["a.bam"], ["missing.bam"]))
    assert any(sent.bad for sent in burst.orders.values())
    assert max(Counter(burst.bodies).values()) > 1
    assert burst.refused


@pytest.mark.parametrize("cap", [1, 4, 8])
def test_each_minute_lowers_the_cap_and_raises_it_above_what_is_configured(cap: int) -> None:
    found = [stroke for stroke in islice(strokes(2, cap, False), 200) if stroke.kind in CAPS]
    assert [stroke.kind == LOWER_CAP for stroke in found[:4]] == [True, False, True, False]
    for lowered, raised in zip(found[::2], found[1::2], strict=False):
        assert cap // 2 <= lowered.options["cap"] < cap < raised.options["cap"] <= cap + max(cap // 4, 1)


POOL = Pool("default", 4)


@pytest.mark.parametrize("seed", range(5))
def test_every_message_is_taken_as_it_was_ordered_or_refused_as_it_was_to_be(seed: int) -> None:
    for burst in islice(bursts(seed, "input", ["a.bam"], ["missing.bam"], long=True), 20):
        for body in burst.bodies:
            try:
                accepted = submission(body, 0.0, {"default": POOL}, frozenset())
            except Rejected:
                assert body in burst.refused
                continue
            assert body not in burst.refused
            if order := burst.orders.get(accepted.key):
                request = accepted.request
                assert (accepted.tenant, request.depends_on, request.array) == (order.tenant, order.after, order.array)
                assert (request.on_parent_failure is OnParentFailure.RUN) == order.anyway
                assert request.source == f"s3://input/{order.source}"


@pytest.mark.parametrize("seed", range(5))
def test_the_first_burst_has_a_chain_that_falls_a_diamond_and_arrays(seed: int) -> None:
    burst = next(bursts(seed, "input", ["a.bam"], ["missing.bam"]))
    orders = burst.orders
    assert any(orders[p].bad and not order.anyway for order in orders.values() for p in order.after)
    assert any(order.anyway for order in orders.values())
    assert any(len(order.after) > 1 for order in orders.values())
    assert {order.source for order in orders.values() if order.array} == {WHOLE, TORN}
    assert any(order.bad for key, order in orders.items() if key.count("/") > 1)
    assert {key for order in orders.values() for key in order.after} <= set(orders)
    assert len({json.loads(body)["tenant"] for body in burst.bodies if '"tenant"' in body}) > 0


def test_a_long_storm_begins_with_an_array_of_two_levels() -> None:
    def largest(long: bool) -> int:
        return max(order.array for order in next(bursts(1, "input", ["a.bam"], ["b.bam"], long)).orders.values())

    assert largest(False) <= 8
    assert largest(True) > limits.ARRAY_STEP


def test_a_storm_goes_on_although_messages_are_in_a_dead_deciders_hands() -> None:
    look = Look(now=90.0, sent=50, ended=20, astray=12, held=4, cap=4, live=4, peak=4, in_flight=12, struck=0)
    assert (look.backlog, look.unfinished) == (18, 46)


def test_what_struck_is_told_by_place() -> None:
    faults = [
        {"kind": "kill-after", "actor": "fleetcap-tick", "operation": "RunTask", "struck": 2},
        {"kind": "kill-after", "actor": "fleetcap-tick", "operation": "RunTask", "struck": 1},
        {"kind": "throttle", "struck": 0},
    ]
    assert struck_where({"kill": 3}, faults) == {
        "kill": {"": 3},
        "kill-after": {"fleetcap-tick RunTask": 3},
        "throttle": {},
    }
