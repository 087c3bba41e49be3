"""Faults between real processes, and what must hold all the same: the cap, one run of each job, no slot lost.

Each test provokes one kind in a small pool, lets the deciders, the workers and the tick go on, and ends with `sound`:
the pool's tasks never passed its cap, and once its workers have left, every slot is free and no task is left.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fleetcap import keys
from fleetcap.model import Job, JobStatus, SlotState
from tests.e2e.conftest import Stage, staged, without_ticks

pytestmark = pytest.mark.cloud

CAPS = {"one": 1, "two": 2, "three": 3, "eight": 8}
INTAKE, TASK_STATE, TICK, WORKER = (f"fleetcap-{name}" for name in ("intake", "task_state", "tick", "worker"))
LONG_READS = 60_000


def sets(attribute: str, value: str) -> str:
    """How a write that gives the attribute this value looks in its request."""
    return f'":set_{attribute}": {{"S": "{value}"}}'


LEASE, RELEASE, BEAT = (sets("state", state.value) for state in (SlotState.LAUNCHING, SlotState.EMPTY, SlotState.READY))
CLAIM, REQUEUE = (sets("status", status.value) for status in (JobStatus.RUNNING, JobStatus.QUEUED))
FINISH = sets("status", JobStatus.COMPLETED.value)
LAUNCHED = ":set_launched_at"
STAGE = ":set_stage"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("faults"), CAPS, beat_s=3) as stage:
        stage.invoke("TickFunctionName", {})  # the slots exist
        yield stage


@pytest.fixture
def stage(cloud: Stage) -> Iterator[Stage]:
    """No fault stands before and after, and the recording begins anew."""
    cloud.client.calm()
    cloud.client.record_anew()
    yield cloud
    cloud.client.calm()


def ended(stage: Stage, wanted: Sequence[str]) -> bool:
    return all((job := stage.job(key)) and job.ended for key in wanted)


def completed(stage: Stage, wanted: Sequence[str], attempt: int = 1) -> list[Job]:
    """The jobs, each completed in its first run at this attempt."""
    jobs = [job for key in wanted if (job := stage.job(key))]
    assert [(job.key, job.status, job.run, job.attempt) for job in jobs] == [
        (key, JobStatus.COMPLETED, 1, attempt) for key in wanted
    ]
    return jobs


def sound(stage: Stage, pool: str) -> None:
    """The cap held, and when the workers have left nothing is left of them."""
    stage.client.calm()
    stage.drain(pool)
    meter = stage.client.meter(pool)
    assert meter.peak_live_tasks <= CAPS[pool]
    stage.until(lambda: stage.client.meter(pool).live_tasks == 0, "no task is left")
    assert [slot.state for slot in stage.client.table.slots(pool)] == [SlotState.EMPTY] * CAPS[pool]


def struck(stage: Stage) -> list[int]:
    return [fault["struck"] for fault in stage.client.faults()]


# --- the burst that the old way overshot


def test_five_keys_at_once_under_a_cap_of_two_are_two_launches_though_the_task_list_is_always_empty(
    stage: Stage,
) -> None:
    stage.client.fault("empty-list")
    before = stage.client.meter("two").tasks_launched
    wanted = stage.send("two", *(f"burst-{n}" for n in range(5)))
    stage.until(lambda: all(map(stage.job, wanted)), "five jobs are known")
    stage.until_ended(wanted)
    completed(stage, wanted)
    assert stage.launches == stage.client.meter("two").tasks_launched - before == 2
    assert {job.holder.lease.slot.number for key in wanted if (job := stage.job(key)) and job.holder} <= {0, 1}
    sound(stage, "two")


# --- RunTask that fails or does not answer


def test_a_launch_that_ecs_refuses_frees_its_slot_and_its_job_runs_later(stage: Stage) -> None:
    stage.client.fault("no-capacity", times=1, pool="one")
    before = stage.client.meter("one").tasks_launched
    wanted = stage.send("one", "refused")
    stage.until(lambda: stage.client.table.slots("one")[0].failed_at, "the launch failed")
    [slot] = stage.client.table.slots("one")
    job = stage.job(wanted[0])
    assert job
    assert (slot.state, job.status, stage.client.meter("one").live_tasks) == (SlotState.EMPTY, JobStatus.QUEUED, 0)
    stage.tick_until(lambda: ended(stage, wanted), "the job ran later")
    completed(stage, wanted)
    assert stage.client.meter("one").tasks_launched - before == 1
    sound(stage, "one")


def test_launches_without_a_true_answer_are_one_task_each_and_no_slot_is_freed_meanwhile(stage: Stage) -> None:
    """Seven launches at once, each with an error of its own: throttled in two ways, refused for good, timed out before
    and after the task was made, the request lost, the reply lost."""
    stage.client.fault("drop-request", operation="ecs:RunTask", times=1)
    stage.client.fault("drop-reply", operation="ecs:RunTask", times=1)
    for kind in ("throttle", "wrapped-throttle", "refuse", "timeout-before-start", "timeout-after-start"):
        stage.client.fault(kind, times=1, pool="eight")
    before, slots = stage.client.meter("eight").tasks_launched, stage.client.table.slots
    wanted = stage.send("eight", *(f"doubtful-{n}" for n in range(7)))
    stage.until(lambda: struck(stage) == [1] * 7, "every fault struck")
    stage.until(lambda: sum(slot.held for slot in slots("eight")) == 7, "seven slots are held")
    leases = {slot.lease for slot in slots("eight") if slot.held}
    stage.tick_until(lambda: all(slot.arn for slot in slots("eight") if slot.held) and ended(stage, wanted), "all done")
    assert {slot.lease for slot in slots("eight") if slot.held} == leases
    assert stage.client.meter("eight").tasks_launched - before == 7
    completed(stage, wanted)
    sound(stage, "eight")


def test_an_image_that_cannot_be_pulled_makes_the_pool_wait_and_say_why(stage: Stage) -> None:
    stage.client.fault("image", pool="one")
    before, [slot] = stage.client.meter("one").tasks_launched, stage.client.table.slots("one")
    wanted = stage.send("one", "no-image")
    stage.until(lambda: stage.client.table.slots("one")[0].failed_at > slot.failed_at, "the launch failed")
    assert stage.client.meter("one").tasks_launched - before == 1
    with without_ticks(stage):
        stage.until(lambda: waits_through_three_ticks(stage, "one"), "three ticks within one wait")
    [said] = [line for line in stage.lines("TickFunctionName", "wait") if line["pool"] == "one"][-1:]
    why = r"(a launch|\d+ launches in a row) failed: the worker's image cannot be pulled; see that it exists"
    assert re.search(why, said["reason"])
    assert said["until"] > stage.client.table.slots("one")[0].failed_at
    stage.client.calm()
    stage.tick_until(lambda: ended(stage, wanted), "the job ran when the image was there")
    completed(stage, wanted)
    sound(stage, "one")


def waits_through_three_ticks(stage: Stage, pool: str) -> bool:
    """Whether three ticks fell into one wait; if they did, nothing was launched. Each wait is longer than the last."""
    stage.invoke("TickFunctionName", {})
    until = max((line["until"] for line in stage.lines("TickFunctionName", "wait") if line["pool"] == pool), default=0)
    before = stage.client.meter(pool).tasks_launched
    for _ in range(3):
        stage.invoke("TickFunctionName", {})
    launched = stage.client.meter(pool).tasks_launched - before
    if time.time() >= until:
        return False  # the machine was too slow
    assert launched == 0
    return True


# --- deciders that die


def test_intakes_that_die_before_and_after_the_lease_and_before_and_after_run_task_are_healed_by_the_tick(
    stage: Stage,
) -> None:
    for kind, operation, text in (
        ("kill-before", "dynamodb:UpdateItem", LEASE),
        ("kill-after", "dynamodb:UpdateItem", LEASE),
        ("kill-before", "ecs:RunTask", ""),
        ("kill-after", "ecs:RunTask", ""),
    ):
        stage.client.fault(kind, actor=INTAKE, operation=operation, text=text, times=1)
    before = stage.client.meter("eight").tasks_launched
    wanted = stage.send("eight", *(f"orphan-{n}" for n in range(4)))
    stage.until(lambda: struck(stage) == [1, 1, 1, 1], "four intakes died")
    stage.tick_until(lambda: ended(stage, wanted), "all four jobs ran")
    stage.tick_until(lambda: all(s.arn for s in stage.client.table.slots("eight") if s.held), "every launch is known")
    completed(stage, wanted)
    assert 3 <= stage.client.meter("eight").tasks_launched - before <= 4
    sound(stage, "eight")


@pytest.mark.parametrize(("after", "text"), [("release", RELEASE), ("requeue", REQUEUE)])
def test_a_task_state_that_dies_between_release_requeue_and_the_next_lease_is_healed_by_the_tick(
    stage: Stage, after: str, text: str
) -> None:
    wanted = stage.send("one", f"dies-after-{after}", reads=LONG_READS)
    _, slot = stage.running(wanted[0])
    stage.client.fault("kill-after", actor=TASK_STATE, operation="dynamodb:UpdateItem", text=text, times=1)
    stage.client.kill(slot.arn)
    stage.until(lambda: struck(stage) == [1], "the decider died")
    assert not stage.client.table.slots("one")[0].held
    stage.tick_until(lambda: ended(stage, wanted), "the job ran again")
    [job] = completed(stage, wanted, attempt=2)
    assert job.interruptions == 1
    sound(stage, "one")


def test_two_ticks_at_once_and_one_that_dies_half_way_launch_nothing_twice(stage: Stage) -> None:
    stage.client.fault("timeout-before-start", times=4, pool="eight")
    before = stage.client.meter("eight").tasks_launched
    with without_ticks(stage):
        wanted = stage.send("eight", *(f"ticks-{n}" for n in range(4)))
        stage.until(lambda: struck(stage) == [4], "four launches have no answer")
        time.sleep(21)  # as long as the tick leaves a launch to its own sender
        stage.client.fault("kill-after", actor=TICK, operation="ecs:RunTask", times=1)
        stage.client.cloud.client("lambda").invoke(FunctionName=stage.client.outputs["TickFunctionName"], Payload=b"{}")
        assert struck(stage) == [4, 1]
        with ThreadPoolExecutor(2) as threads:
            for ticked in [threads.submit(stage.invoke, "TickFunctionName", {}) for _ in range(2)]:
                ticked.result()
    stage.tick_until(lambda: ended(stage, wanted), "all four jobs ran")
    completed(stage, wanted)
    stage.tick_until(lambda: all(s.arn for s in stage.client.table.slots("eight") if s.held), "every launch is known")
    assert stage.client.meter("eight").tasks_launched - before == 4
    sound(stage, "eight")


# --- events twice, late, early


def test_a_stopped_event_that_comes_twice_late_and_after_the_slot_was_leased_again_changes_nothing(
    stage: Stage,
) -> None:
    stage.client.fault("double-events", text="STOPPED", seconds=6, pool="one")
    before = stage.client.meter("one").tasks_launched
    wanted = stage.send("one", "twice", reads=LONG_READS)
    first, slot = stage.running(wanted[0])
    stage.client.kill(slot.arn)
    stage.until(lambda: (job := stage.job(wanted[0])) and job.attempt == 2, "the job runs again")
    again = {"messageId": "again", "body": json.dumps(stopped_event(stage, slot.arn))}
    assert stage.invoke("TaskStateFunctionName", {"Records": [again]}) == {"batchItemFailures": []}
    stage.until_ended(wanted)
    told = [line for line in stage.lines("TaskStateFunctionName", "stopped") if line["arn"] == slot.arn]
    stage.until(lambda: len(told) >= 2, "the copy came, too")
    [job] = completed(stage, wanted, attempt=2)
    assert job.interruptions == 1
    assert job.holder != first.holder
    assert stage.client.meter("one").tasks_launched - before == 2
    sound(stage, "one")


def stopped_event(stage: Stage, arn: str) -> dict[str, Any]:
    """What EventBridge said, or says again, of a stopped task."""
    ecs = stage.client.cloud.client("ecs")
    [task] = ecs.describe_tasks(cluster=stage.client.outputs["ClusterArn"], tasks=[arn])["tasks"]
    assert task["lastStatus"] == "STOPPED"
    detail = {name: task[name] for name in ("taskArn", "startedBy", "lastStatus", "stopCode", "stoppedReason")}
    return {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail}


def test_a_task_that_stopped_before_its_launch_was_recorded_is_proof_for_its_own_slot(stage: Stage) -> None:
    stage.client.fault("never-starts", times=1, pool="one")
    stage.client.fault("kill-after", actor=INTAKE, operation="ecs:RunTask", times=1)
    before = stage.client.meter("one").tasks_launched
    wanted = stage.send("one", "stopped-first")
    stage.until(lambda: stage.client.table.slots("one")[0].failed_at, "the event freed the slot")
    stage.tick_until(lambda: ended(stage, wanted), "the job ran later")
    completed(stage, wanted)
    assert stage.client.meter("one").tasks_launched - before == 2
    sound(stage, "one")


# --- writes whose reply is lost, or that come late


def test_a_write_whose_reply_is_lost_and_that_the_sdk_sends_again_happens_once(stage: Stage) -> None:
    lost = {"PutItem": ('"status"',), "UpdateItem": (LEASE, LAUNCHED, BEAT, CLAIM, FINISH)}
    for operation, texts in lost.items():
        for text in texts:
            stage.client.fault("drop-reply", operation=f"dynamodb:{operation}", text=text, times=1)
    before = stage.client.meter("one").tasks_launched
    wanted = stage.send("one", "unheard")
    stage.until_ended(wanted)
    assert struck(stage) == [1] * 6
    completed(stage, wanted)
    assert stage.client.meter("one").tasks_launched - before == 1
    stage.client.fault("drop-reply", operation="dynamodb:UpdateItem", text=RELEASE, times=1)
    sound(stage, "one")


@pytest.mark.parametrize(("what", "text", "reads"), [("completion", FINISH, 400), ("stage", STAGE, 3 * LONG_READS)])
def test_a_late_write_of_a_dead_attempt_is_refused_and_its_successor_is_unharmed(
    stage: Stage, what: str, text: str, reads: int
) -> None:
    stage.client.fault("delay", actor=WORKER, text=text, seconds=900, seed=3, times=1)  # until all is calm
    wanted = stage.send("one", f"late-{what}", reads=reads)
    first, slot = stage.running(wanted[0])
    stage.until(lambda: struck(stage) == [1], f"the {what} is under way", every_s=0.02)
    stage.client.kill(slot.arn)
    stage.until(lambda: (job := stage.job(wanted[0])) and job.attempt == 2, "another attempt began")
    stage.until_ended(wanted)
    [successor] = completed(stage, wanted, attempt=2)
    assert successor.holder != first.holder
    assert stage.client.recording()[WORKER].refused == 0
    stage.client.calm()
    stage.until(lambda: stage.client.recording()[WORKER].refused == 1, f"the late {what} came and was refused")
    assert stage.job(wanted[0]) == successor
    sound(stage, "one")


# --- the cap changes


def recap(stage: Stage, pool: str, cap: int) -> None:
    """What a deploy with another cap changes: the environment of the three functions."""
    functions = stage.client.cloud.client("lambda")
    for output in ("IntakeFunctionName", "TaskStateFunctionName", "TickFunctionName"):
        name = stage.client.outputs[output]
        variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        pools = [
            {**each, "cap": cap} if each["name"] == pool else each for each in json.loads(variables[keys.ENV_POOLS])
        ]
        changed = {**variables, keys.ENV_POOLS: json.dumps(pools)}
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": changed})


class Watch:
    """Counts a pool's live tasks all the time, from a thread of its own."""

    def __init__(self, stage: Stage, pool: str) -> None:
        self._stage, self._pool = stage, pool
        self._over = threading.Event()
        self.highest = 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.highest = max(self.highest, self._stage.client.meter(self._pool).live_tasks)


def test_a_cap_that_is_lowered_and_raised_under_load_is_kept_and_no_job_is_lost(stage: Stage) -> None:
    wanted: list[str] = []

    def load(name: str, count: int) -> list[str]:
        """Send jobs, and wait until all are known: here a function that is changed dies with what it does."""
        sent = stage.send("three", *(f"{name}-{n}" for n in range(count)), reads=12_000)
        wanted.extend(sent)
        stage.until(lambda: all(map(stage.job, sent)), f"{name} is known")
        return sent

    def live() -> int:
        return stage.client.meter("three").live_tasks

    load("first", 12)
    stage.until(lambda: live() == 3, "three workers")
    recap(stage, "three", 1)
    stage.tick_until(lambda: live() == 1, "workers above the cap have left")
    with Watch(stage, "three") as lowered:
        more = load("more", 16)
        stage.tick_until(lambda: any(ended(stage, [key]) for key in more), "the one goes on")
    assert lowered.highest == 1
    recap(stage, "three", 2)
    with Watch(stage, "three") as raised:
        load("last", 16)
        stage.tick_until(lambda: live() == 2, "two workers")
        stage.until_ended(wanted)
    assert raised.highest == 2
    completed(stage, wanted)
    recap(stage, "three", 3)
    stage.invoke("TickFunctionName", {})
    sound(stage, "three")
