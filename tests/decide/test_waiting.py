"""One sentence for whoever asks why a job waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fleetcap import limits
from fleetcap.decide import waiting
from fleetcap.decide.capacity import View
from fleetcap.model import Job, JobStatus, Mode, Pool, Queued, Slot
from tests.examples import NOW, a_job, a_pool, a_slot, burst, empty_slots, launching, queued, ready

JOB = a_job("mine", age_s=5)
TWO_AHEAD = [queued("first", age_s=9), queued("second", age_s=8), JOB.as_queued, queued("later", age_s=1)]


def why(slots: Sequence[Slot], job: Job = JOB, ahead: Sequence[Queued] = (), pool: Pool | None = None) -> str:
    return waiting.why(job, View(pool or a_pool(cap=len(slots)), slots, ahead, [], NOW))


def test_the_cap_is_full_and_so_many_jobs_are_ahead() -> None:
    assert why([ready(0), launching(1)], ahead=TWO_AHEAD) == "cap full (2 of 2 slots in use); behind 2 jobs"
    assert why([ready(0)], ahead=TWO_AHEAD[1:]) == "cap full (1 of 1 slots in use); behind 1 job"
    assert why([ready(0)]) == "cap full (1 of 1 slots in use); next in its queue"


def test_there_is_no_capacity_until_then() -> None:
    at_noon = 43_200 + 4 * 60 + 10
    until = NOW - NOW % 86_400 + at_noon
    failed = a_slot(0, failed_at=until - 20, retry_at=until, strikes=3, why="AWS has no Fargate capacity at this time")
    view = View(a_pool(cap=2), [failed, a_slot(1)], [], [], until - 10)
    assert waiting.why(replace(JOB, due_at=0.0), view) == (
        "3 launches in a row failed: AWS has no Fargate capacity at this time; next try 12:04:10 UTC; next in its queue"
    )


def test_a_person_has_paused_the_pool() -> None:
    paused = replace(a_pool(), mode=Mode.PAUSED, reason="the reference is being replaced")
    said = why(empty_slots(4), pool=paused)
    assert said == "pool paused: the reference is being replaced; next in its queue"


def test_the_budget_of_the_day_is_spent() -> None:
    spent = [a_slot(0, used_day=int(NOW // 86_400), used_s=7_200.0), a_slot(1)]
    said = why(spent, pool=replace(a_pool(cap=2), budget_task_hours=2.0))
    assert said == "budget spent (2.0 of 2 task-hours a day); next try 00:00:00 UTC; next in its queue"


def test_its_own_worker_is_starting() -> None:
    assert why([launching(0, for_job="mine")], ahead=TWO_AHEAD) == "its worker is starting"


def test_its_own_worker_may_be_starting_though_the_cap_is_full() -> None:
    assert why([launching(0, for_job="mine"), ready(1)]) == "its worker is starting"


def test_a_worker_that_will_take_no_job_is_not_awaited() -> None:
    assert why([launching(0, for_job="mine", retire=True), a_slot(1)]).startswith("a worker is about to take it")
    paused = replace(a_pool(cap=1), mode=Mode.PAUSED)
    assert why([launching(0, for_job="mine")], pool=paused) == "pool paused; next in its queue"


def test_a_queue_that_was_not_read_to_its_end_says_so() -> None:
    said = why([ready(0)], job=replace(JOB, rank="~"), ahead=burst(limits.QUEUED_SHOWN))
    assert said == "cap full (1 of 1 slots in use); behind 2,000 jobs or more"


def test_other_workers_are_starting() -> None:
    slots = [launching(0, for_job="first"), launching(1, for_job="second"), a_slot(2)]
    assert why(slots, ahead=TWO_AHEAD) == "2 workers are starting; behind 2 jobs"
    assert why([slots[0], a_slot(1)], ahead=TWO_AHEAD) == "1 worker is starting; behind 2 jobs"


def test_there_is_a_lane_for_it() -> None:
    assert why([ready(0), a_slot(1)]) == "a worker is about to take it, or to be started; next in its queue"


def test_it_is_tried_again_later() -> None:
    due = NOW - NOW % 86_400 + 86_400 + 3_661
    assert why(empty_slots(1), job=replace(JOB, due_at=due)) == "it is tried again at 01:01:01 UTC"


def waits_for(parents: Sequence[Job], *wanted: str, array: int = 0) -> str:
    job = a_job("mine", JobStatus.WAITING, request=replace(JOB.request, depends_on=wanted, array=array))
    view = View(a_pool(), empty_slots(4), [], [], NOW)
    return waiting.why(job, view, {parent.key: parent for parent in parents})


def test_it_waits_for_the_jobs_that_it_depends_on() -> None:
    done, runs = a_job("done", JobStatus.COMPLETED), a_job("runs", JobStatus.RUNNING)
    said = waits_for([done, runs], "done", "runs", "late")
    assert said == "waiting for 2 of 3 that it depends on: runs, late (not known yet)"
    assert waits_for([], *"abcde").endswith("a (not known yet), b (not known yet), c (not known yet) and 2 more")
    assert waits_for([done], "done") == "all that it depends on have ended, and it is about to hear of it"


def test_an_array_waits_for_its_elements() -> None:
    assert waits_for([], array=1_000) == "it ends when its 1,000 elements have"


@pytest.mark.parametrize(
    "status", [status for status in JobStatus if status not in {JobStatus.QUEUED, JobStatus.WAITING}]
)
def test_a_job_that_does_not_wait_waits_for_nothing(status: JobStatus) -> None:
    assert why([ready(0)], job=replace(JOB, status=status)) == ""
