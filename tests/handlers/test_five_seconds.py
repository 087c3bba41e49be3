"""What decision 0019 promises where every call takes five seconds: nobody is killed, and all get on."""

from __future__ import annotations

from typing import Any

import pytest

from fleetcap import keys, limits
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.model import Doubt, Holder, JobStatus, Unanswered
from handlers import tick
from handlers.publish import Publish
from local.memory.items import MemoryItems
from tests.examples import NOW
from tests.fakes import FakeRechecks, HandClock, Lines
from tests.handlers.test_publish import FakeBus, FakeUnpublished, ended, failures, record, slowed
from tests.handlers.test_slow_calls import World, at_step, four_banks


def test_an_event_of_a_launch_without_an_answer_that_is_begun_last_ends_in_time() -> None:
    """It takes six calls (slot, slot, RunTask, launched, release, running), and 25 seconds are left for five."""
    world = World(cap=2)
    [first] = world.launch(1)
    world.ecs.ends(first.arn)
    world.ecs.lost = [Unanswered(Doubt.UNKNOWN, "no answer")]
    [job] = world.queue("b")
    world.fleet.scale(world.fleet.pools["default"], [job.as_queued], most=1)
    [second] = [slot for slot in world.slots() if not slot.arn]
    arn = world.ecs.arns[-1]
    world.ecs.ends(arn)
    assert world.fleet.table.say("default", {"mode": "paused"}, 0, "op")
    # The first event: slot. The second: slot, release, running, job, requeue, bank. So the third begins after 34.9 s.
    events = ((first.lease, "arn:task/another"), (first.lease, first.arn), (second.lease, arn))
    world.hear(*events, get=4.99, update=4.99, open=4.99, partition=4.99, run=4.99)


@pytest.mark.parametrize("behind", [5, 6, 7])
def test_records_that_cannot_be_read_keep_no_stream_from_getting_on(
    behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, rechecks, bus, unpublished, clock = (
        StoredControlTable(MemoryItems()), FakeRechecks(), FakeBus(), FakeUnpublished(), HandClock(),
    )  # fmt: skip
    told = frozenset({JobStatus.COMPLETED.value})
    publish = Publish(bus, unpublished, table, rechecks, told, "s3://cache/", Lines(), clock)
    ports: Any = ((table, "dependents"), (rechecks, "recheck"), (bus, "publish"), (unpublished, "reject"))
    for port, name in ports:
        slowed(monkeypatch, clock, port, name)
    table.lead(("a",), "x", NOW)
    odd = [record(number, {**keys.job_key("odd"), "status": "COMPLETED"}) for number in range(2, 2 + behind)]
    batch = [ended("a", 1), *odd]
    for _ in range(4):
        began_at = clock.now()
        left = failures(publish.handle({"Records": batch}))
        assert clock.now() - began_at < limits.DECIDER_TIMEOUT_S
        batch = [each for each in batch if left and int(each["dynamodb"]["SequenceNumber"]) >= left[0]]
    assert batch == [], f"no progress; {len(unpublished.kept)} times put aside"
    assert rechecks.heard


def test_a_tick_of_a_pool_of_four_banks_ends_in_time_where_a_worker_died_unheard() -> None:
    world = four_banks()
    [slot] = world.launch(1)
    world.ecs.ends(slot.arn)
    world.clock.sleep(limits.SILENT_S + 1)
    at_step(world, tick._look_at_the_doubtful)
    world.tick(partition=5.0, open=5.0, get=5.0, update=5.0, describe=5.0)


def test_a_tick_of_the_largest_pool_but_one_ends_in_time() -> None:
    """Twelve banks are 3,072 slots."""
    world = World(cap=12 * limits.BANK_SLOTS)
    for number in range(1, 12):
        ids = keys.slot_ids("default", 12 * limits.BANK_SLOTS, number)
        world.fleet.table.create_slots(ids, world.clock.now())
    world.fleet.table.widen("default", 12)
    world.tick(partition=5.0)


def test_a_sweep_ends_in_time_where_it_meets_many_tasks_that_no_slot_records() -> None:
    """Between two calls of ECS it reads the slot of each task: up to a hundred reads, one after the other."""
    world = World()
    for slot in world.launch(100):
        assert world.fleet.table.release(slot.lease, slot.arn, world.clock.now(), "proof", 0.0, world.clock.unique())
    for number in range(100):
        job = world.fleet.table.job(f"job {number:03}")
        assert job
        holder: Holder | None = job.holder
        assert holder
        assert world.fleet.table.finish(job, JobStatus.COMPLETED, world.clock.now(), "", (), world.clock.unique())
    world.tick(sweep_now=True, get=0.7)
