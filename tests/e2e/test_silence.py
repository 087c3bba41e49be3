"""Workers that fall silent while no event tells of it: the tick finds them within its bounds, never by the clock alone.

The bounds are minutes, so all of it happens at once, in four pools of one cloud: workers that die busy and idle, a task
that never starts, a worker cut off from the table that computes on, and a worker that hangs. Not one event arrives.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from fleetcap import limits
from fleetcap.model import Job, JobStatus, Slot, SlotState
from tests.e2e.conftest import Stage, staged

pytestmark = pytest.mark.cloud

CAPS = {"dead": 3, "mute": 1, "cut": 1, "hung": 1}
STOP_TIMEOUT_S = 12
LOOK_S = 3.0
WITHIN_S = limits.SILENT_S + STOP_TIMEOUT_S + 60
LONG_READS = 60_000


@dataclass
class Victim:
    """A worker to which something was done, and the job it ran then, if any."""

    slot: Slot
    at: float
    key: str = ""


@dataclass
class Silence:
    """What was done, and when its traces were gone."""

    stage: Stage
    victims: dict[str, Victim]
    freed_at: dict[str, float]

    def job(self, name: str) -> Job:
        """The victim's job as it is now."""
        job = self.stage.job(self.victims[name].key)
        assert job
        return job

    def after_s(self, name: str) -> float:
        """How long it took until the victim's slot was free under its lease."""
        return self.freed_at[name] - self.victims[name].at


@pytest.fixture(scope="module")
def silence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Silence]:
    """All of it done, and waited for."""
    with staged(tmp_path_factory.mktemp("silence"), CAPS, stop_timeout_s=STOP_TIMEOUT_S) as stage:
        stage.invoke("TickFunctionName", {})  # the slots exist
        stage.client.fault("drop-events")
        stage.client.fault("never-starts", pool="mute", times=1)
        warm = stage.send("dead", "first", "second", "third")
        stage.until_ended(warm)
        victims = {"busy": busy(stage, "dead")}
        stage.client.kill(victims["busy"].slot.arn)
        idle = next(slot for slot in stage.client.table.slots("dead") if slot.lease != victims["busy"].slot.lease)
        victims["idle"] = Victim(idle, time.time())
        stage.client.kill(idle.arn)
        [key] = stage.send("mute", "never-starts")
        stage.until(lambda: stage.client.table.slots("mute")[0].arn, "the launch is recorded")
        victims["mute"] = Victim(stage.client.table.slots("mute")[0], time.time(), key)
        victims["cut"] = cut_off(stage)
        victims["hung"] = busy(stage, "hung")
        stage.client.act("hang", victims["hung"].slot.arn)
        yield Silence(stage, victims, waited(stage, victims))
        stage.client.calm()


def busy(stage: Stage, pool: str) -> Victim:
    """A worker in the middle of a job."""
    [key] = stage.send(pool, "long", reads=LONG_READS)
    return Victim(stage.running(key)[1], time.time(), key)


def cut_off(stage: Stage) -> Victim:
    """A worker whose calls to the table are lost from now on, while its job's process goes on for as long as it likes:
    it is held, which to its worker looks like one that computes."""
    victim = busy(stage, "cut")
    pid = process_of(stage, victim.slot.arn)
    for child in psutil.Process(pid).children(recursive=True):
        os.kill(child.pid, signal.SIGSTOP)
    stage.client.fault("drop-request", operation="dynamodb", pid=pid)
    return victim


def process_of(stage: Stage, arn: str) -> int:
    return next(int(task["pid"]) for task in stage.client.tasks() if task["arn"] == arn)


def waited(stage: Stage, victims: dict[str, Victim]) -> dict[str, float]:
    """When each victim's slot was free again, and every job had ended. The tick runs more often than once a minute."""
    freed_at: dict[str, float] = {}
    jobs = [victim.key for victim in victims.values() if victim.key]

    def all_found() -> bool:
        for name, victim in victims.items():
            slot = stage.client.table.slot(victim.slot.id)
            if name not in freed_at and slot and slot.generation > victim.slot.generation:
                freed_at[name] = time.time()
        return len(freed_at) == len(victims) and all((job := stage.job(key)) and job.ended for key in jobs)

    stage.tick_until(all_found, f"all were found: {list(victims)}", WITHIN_S + 60, every_s=LOOK_S)
    return freed_at


def test_a_busy_worker_that_died_unheard_is_found_and_its_job_runs_again(silence: Silence) -> None:
    job = silence.job("busy")
    assert (job.status, job.attempt, job.interruptions) == (JobStatus.COMPLETED, 2, 1)
    assert silence.after_s("busy") < WITHIN_S


def test_an_idle_worker_that_died_unheard_is_found_and_its_slot_is_free(silence: Silence) -> None:
    assert silence.after_s("idle") < WITHIN_S


def test_a_task_that_never_started_is_found_and_its_job_runs_later(silence: Silence) -> None:
    job = silence.job("mute")
    assert (job.status, job.attempt, job.interruptions) == (JobStatus.COMPLETED, 1, 0)
    assert limits.INSPECT_LAUNCHING_S < silence.after_s("mute") < WITHIN_S
    assert silence.stage.client.meter("mute").tasks_launched == 2


@pytest.mark.parametrize("name", ["cut", "hung"])
def test_a_worker_that_lives_but_does_not_beat_is_stopped_first_and_only_then_is_its_job_run_again(
    silence: Silence, name: str
) -> None:
    victim, job = silence.victims[name], silence.job(name)
    assert (job.status, job.attempt, job.interruptions) == (JobStatus.COMPLETED, 2, 1)
    assert job.holder
    assert job.holder.lease.generation > victim.slot.generation
    assert limits.SILENT_S - 2 * limits.BEAT_S < silence.after_s(name) < WITHIN_S
    task = next(task for task in silence.stage.client.tasks() if task["arn"] == victim.slot.arn)
    assert task["stopCode"] == "UserInitiated"
    assert task["stoppedAt"] < job.claimed_at


def test_no_cap_was_passed_meanwhile_and_nothing_is_left_of_the_victims(silence: Silence) -> None:
    for pool, cap in CAPS.items():
        assert silence.stage.client.meter(pool).peak_live_tasks <= cap
    silence.stage.client.calm()
    for pool, cap in CAPS.items():
        silence.stage.drain(pool)
        assert [slot.state for slot in silence.stage.client.table.slots(pool)] == [SlotState.EMPTY] * cap
    assert not any(psutil.pid_exists(task["pid"]) for task in silence.stage.client.tasks() if task["pid"])
