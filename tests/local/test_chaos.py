"""What a storm's verdict calls trouble: it must fail on each, or a clean one would mean nothing; what a seed fixes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from fleetcap import catalog, limits
from fleetcap.model import Job, JobStatus, Request, Slot, SlotId, SlotState
from local.chaos.plan import Sent, bursts, kinds, strokes
from local.chaos.report import struck_where
from local.chaos.verdict import HEARTBEAT_LOST, Found, Stored, find_trouble, none_after_the_end
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
    artifacts=(BAM, BAI),
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
)
LOST = replace(
    GOOD, status=JobStatus.FAILED, attempt=6, history=lapses(limits.MAX_INTERRUPTIONS + 1), error=GIVEN_UP, artifacts=()
)
SERVERS = (Marked(10, 1, "emulator", "emulator"), Marked(20, 1, "fargate", "fargate"), Marked(11, 10, "a function"))
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
    slots=[Slot(SlotId("default", 0), SlotState.EMPTY, 7)],
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
    return {"jobs": [job, BAD], **more}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"unsettled": "nothing went on"}, "nothing went on"),
        ({"wanted": 3}, "only 2 of 3 jobs could be sent"),
        ({"jobs": [GOOD]}, "bad: sent, but there is no such job"),
        ({"jobs": [GOOD, BAD, replace(BAD, key="other")]}, "other: a job that nobody sent"),
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
        ({"meter": Meter(1, 1, 3)}, "1 tasks still live"),
        ({"meter": Meter(0, 0, 0)}, "its figures cannot be trusted"),
        ({"claims": Counter({"good-1 attempt 2": 2})}, "good-1 attempt 2 was claimed 2 times"),
        ({"completions": Counter({"good-1": 2})}, "run good-1 was completed 2 times"),
        ({"completions": Counter()}, "no worker's log says so"),
        ({"slots": []}, "there are 0 slots for a cap of 1"),
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
    ],
)
def test_whatever_must_not_be_is_said(change: dict[str, Any], expected: str) -> None:
    [sentence] = find_trouble(replace(CLEAN, **change))
    assert expected in sentence


def test_the_same_source_must_come_out_the_same() -> None:
    twin_bam, twin_bai = catalog.artifact_keys("twin", "bam")
    twin = replace(GOOD, key="twin", artifacts=(twin_bam, twin_bai))
    found = replace(
        CLEAN,
        sent={**CLEAN.sent, "twin": Sent("a.bam")},
        jobs=[GOOD, BAD, twin],
        objects={**CLEAN.objects, twin_bam: Stored(9, "other"), twin_bai: Stored(3, "y")},
    )
    [sentence] = find_trouble(found)
    assert sentence == f"sorted.bam of {SOURCE} came out in 2 ways: {BAM}, {twin_bam}"


def test_what_a_given_up_job_left_is_no_stray() -> None:
    assert find_trouble(replace(CLEAN, jobs=[LOST, BAD], given_up={"good", "bad"})) == []


def test_a_job_that_was_given_up_may_be_run_anew_or_found_in_the_cache() -> None:
    anew = replace(GOOD, run=2, attempt=8)
    recorded = replace(GOOD, run=2, attempt=6, claimed_at=0.0, history=())
    for job in (anew, recorded):
        assert find_trouble(replace(CLEAN, jobs=[job, BAD], given_up={"good", "bad"})) == []


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
    assert {stroke.kind for stroke in found} <= {*FARGATE_KINDS, *CALL_KINDS, *ACTS}


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
