"""What becomes of stream records, with the real decider over the images that DynamoDB's writes leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from boto3.dynamodb.types import TypeSerializer

from fleetcap import keys, limits
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.model import Holder, JobStatus, Lease, SlotId
from handlers.publish import Publish
from local.memory.items import MemoryItems
from tests.examples import NOW, a_job
from tests.fakes import FakeRechecks, HandClock, Lines

LAMBDAS = Path(__file__).parents[2] / "lambdas"

Record = dict[str, Any]


@dataclass
class FakeBus:
    """Takes events, but not those of the keys it is told to refuse; may lose its answers."""

    refused: dict[str, str] = field(default_factory=dict)
    lost_answers: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)

    def publish(self, details: Sequence[str]) -> list[str]:
        events = [json.loads(detail) for detail in details]
        self.taken += [event for event in events if event["workflow_key"] not in self.refused]
        if self.lost_answers:
            self.lost_answers -= 1
            return ["ReadTimeoutError"] * len(details)
        return [self.refused.get(event["workflow_key"], "") for event in events]

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(event["workflow_key"], event["sequence"]) for event in self.taken]


@dataclass
class FakeUnpublished:
    """Keeps records that cannot be read, or cannot itself be reached."""

    reachable: bool = True
    kept: list[tuple[str, str, str]] = field(default_factory=list)

    def reject(self, body: str, reason: str, message_id: str) -> None:
        if not self.reachable:
            raise TimeoutError("no answer")
        self.kept.append((body, reason, message_id))


@pytest.fixture
def table() -> StoredControlTable:
    return StoredControlTable(MemoryItems())


@pytest.fixture
def rechecks() -> FakeRechecks:
    return FakeRechecks()


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


@pytest.fixture
def unpublished() -> FakeUnpublished:
    return FakeUnpublished()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def publish(
    bus: FakeBus,
    unpublished: FakeUnpublished,
    table: StoredControlTable,
    rechecks: FakeRechecks,
    lines: Lines,
    clock: HandClock,
) -> Publish:
    told = frozenset({JobStatus.QUEUED.value, JobStatus.COMPLETED.value})
    return Publish(bus, unpublished, table, rechecks, told, "s3://cache/", lines, clock)


def wire(item: keys.Item) -> dict[str, Any]:
    return {name: TypeSerializer().serialize(value) for name, value in item.items()}


def record(number: int, new: keys.Item | None, old: keys.Item | None = None) -> Record:
    """A record of the table's stream."""
    images = {name: wire(item) for name, item in (("OldImage", old), ("NewImage", new)) if item}
    event = "INSERT" if not old else "MODIFY" if new else "REMOVE"
    return {"eventName": event, "dynamodb": {"SequenceNumber": f"{number:021d}", **images}}


def ended(key: str, number: int, status: JobStatus = JobStatus.COMPLETED) -> Record:
    """A job that ended, as the n-th record of the stream and the n-th change of its key."""
    queued = a_job(key, changes=number - 2)
    claim = keys.claim_write(queued, Holder(Lease(SlotId("default", 0), 1)), NOW, "op")
    running = keys.job_item(queued, "op") | dict(claim.sets)
    finish = keys.finish_write(keys.job_from(running), status, NOW, "", (), "op")
    return record(number, running | dict(finish.sets), running)


def failures(answer: dict[str, Any]) -> list[int]:
    return [int(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]


def test_changes_are_published_in_order_and_all_else_is_passed_over(publish: Publish, bus: FakeBus) -> None:
    standing = keys.job_item(a_job("c"), "op")
    untold = [record(2, standing, standing), record(3, None, standing)]
    answer = publish.handle({"Records": [ended("a", 1), *untold, ended("b", 4)]})
    assert bus.told == [("a", 1), ("b", 4)]
    assert answer == {"batchItemFailures": []}


def test_an_event_that_the_bus_refuses_is_reported_and_its_neighbours_are_published(
    publish: Publish, bus: FakeBus, lines: Lines
) -> None:
    bus.refused = {"b": "InternalFailure: try again"}
    batch = {"Records": [ended("a", 1), ended("b", 2), ended("c", 3)]}
    assert failures(publish.handle(batch)) == [2]
    assert bus.told == [("a", 1), ("c", 3)]
    assert lines.of("not published")[0]["error"] == "InternalFailure: try again"


def test_what_comes_again_after_a_refusal_is_the_same_event_under_the_same_sequence(
    publish: Publish, bus: FakeBus
) -> None:
    bus.refused = {"b": "InternalFailure: try again"}
    batch = [ended("a", 1), ended("b", 2), ended("c", 3)]
    [first] = failures(publish.handle({"Records": batch}))
    before = list(bus.taken)
    bus.refused = {}

    assert failures(publish.handle({"Records": batch[first - 1 :]})) == []

    assert bus.told == [("a", 1), ("c", 3), ("b", 2), ("c", 3)]
    assert bus.taken[-1] == before[-1]


def test_an_answer_that_is_lost_makes_duplicates_and_loses_nothing(publish: Publish, bus: FakeBus) -> None:
    bus.lost_answers = 1
    batch = {"Records": [ended("a", 1), ended("b", 2)]}
    assert failures(publish.handle(batch)) == [1, 2]
    assert failures(publish.handle(batch)) == []
    assert bus.told == [("a", 1), ("b", 2)] * 2


def test_a_consumer_that_keeps_the_highest_sequence_ends_right_whatever_comes_again(
    publish: Publish, bus: FakeBus
) -> None:
    older, newer = ended("a", 1), ended("a", 2)
    for batch in ([older, newer], [older], [newer, older]):
        publish.handle({"Records": batch})
    kept: dict[str, int] = {}
    for key, sequence in bus.told:
        kept[key] = max(sequence, kept.get(key, 0))
    assert kept == {"a": 2}


def test_a_record_that_no_job_can_be_read_from_is_put_aside_and_does_not_come_again(
    publish: Publish, bus: FakeBus, unpublished: FakeUnpublished
) -> None:
    poison = record(1, {**keys.job_key("odd"), "status": "COMPLETED"})
    assert failures(publish.handle({"Records": [poison, ended("b", 2)]})) == []
    assert bus.told == [("b", 2)]
    [(body, reason, number)] = unpublished.kept
    assert json.loads(body) == poison
    why = """no job can be read from the record: Unreadable("odd cannot be read: KeyError('run')")"""
    assert (reason, int(number)) == (why, 1)


def test_a_cold_start_does_not_wait_for_what_only_validation_needs() -> None:
    asked = "import sys, handlers.publish; print('pydantic' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=LAMBDAS)
    assert said.stdout == "False\n"


def test_a_record_that_cannot_even_be_put_aside_comes_again(
    publish: Publish, bus: FakeBus, unpublished: FakeUnpublished
) -> None:
    unpublished.reachable = False
    poison = record(1, {**keys.job_key("odd"), "status": "COMPLETED"})
    assert failures(publish.handle({"Records": [poison, ended("b", 2)]})) == [1]
    assert bus.told == [("b", 2)]


# --- those who wait for a job that ended


def test_the_dependents_of_a_job_that_ended_are_named_once(
    publish: Publish, table: StoredControlTable, rechecks: FakeRechecks
) -> None:
    for dependent in ("x", "y"):
        table.lead(("a", "b"), dependent, NOW)
    publish.handle({"Records": [ended("a", 1), ended("b", 2), ended("nobodys", 3)]})
    assert rechecks.heard == [["x", "y"]]


def test_only_an_end_is_told_to_dependents(
    publish: Publish, table: StoredControlTable, rechecks: FakeRechecks, bus: FakeBus
) -> None:
    table.lead(("a",), "x", NOW)
    publish.handle({"Records": [record(1, keys.job_item(a_job("a"), "op"))]})
    assert (len(bus.taken), rechecks.heard) == (1, [])


def test_an_end_of_which_there_is_to_be_no_event_is_told_to_dependents(
    publish: Publish, table: StoredControlTable, rechecks: FakeRechecks, bus: FakeBus
) -> None:
    table.lead(("a",), "x", NOW)
    assert failures(publish.handle({"Records": [ended("a", 1, JobStatus.FAILED)]})) == []
    assert (bus.taken, rechecks.heard) == ([], [["x"]])


def test_an_end_that_dependents_may_not_have_heard_of_comes_again_and_its_event_is_published(
    publish: Publish, table: StoredControlTable, rechecks: FakeRechecks, bus: FakeBus
) -> None:
    table.lead(("a",), "x", NOW)
    rechecks.reachable = False
    batch = {"Records": [ended("a", 1)]}
    assert failures(publish.handle(batch)) == [1]
    assert bus.told == [("a", 1)]
    rechecks.reachable = True
    assert failures(publish.handle(batch)) == []
    assert rechecks.heard == [["x"]]


def test_an_end_whose_dependents_cannot_be_read_comes_again(
    publish: Publish, table: StoredControlTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "dependents", lambda *_: 1 / 0)
    assert failures(publish.handle({"Records": [ended("a", 1)]})) == [1]


# --- when calls are slow


def slowed(monkeypatch: pytest.MonkeyPatch, clock: HandClock, port: object, name: str, seconds: float = 5.0) -> None:
    """Each call of this method of the port takes so long."""
    call = getattr(port, name)

    def slowly(*arguments: Any) -> Any:
        clock.sleep(seconds)
        return call(*arguments)

    monkeypatch.setattr(port, name, slowly)


@pytest.fixture
def slow(
    publish: Publish,
    table: StoredControlTable,
    rechecks: FakeRechecks,
    bus: FakeBus,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Publish:
    for port, name in ((table, "dependents"), (rechecks, "recheck"), (bus, "publish")):
        slowed(monkeypatch, clock, port, name)
    return publish


def test_however_slow_the_calls_a_batch_gets_on_and_ends_in_time(
    slow: Publish, table: StoredControlTable, rechecks: FakeRechecks, bus: FakeBus, clock: HandClock
) -> None:
    batch = [ended(f"job {number}", number) for number in range(1, 31)]
    for number in range(1, 31):
        table.lead((f"job {number}",), f"dependent {number}", NOW)
    rounds = 0
    while batch:
        began_at = clock.now()
        left = failures(slow.handle({"Records": batch}))
        assert clock.now() - began_at < limits.DECIDER_TIMEOUT_S
        assert left[:1] != [int(batch[0]["dynamodb"]["SequenceNumber"])]
        batch = [each for each in batch if left and int(each["dynamodb"]["SequenceNumber"]) >= left[0]]
        rounds += 1
    assert rounds > 1
    assert {key for heard in rechecks.heard for key in heard} == {f"dependent {number}" for number in range(1, 31)}
    assert {key for key, _ in bus.told} == {f"job {number}" for number in range(1, 31)}


def test_a_parent_whose_dependents_take_too_long_to_tell_does_not_come_again(
    slow: Publish, table: StoredControlTable, rechecks: FakeRechecks, lines: Lines
) -> None:
    for number in range(50 * limits.RECHECK_KEYS):
        table.lead(("a",), f"{number:05}", NOW)
    table.lead(("b",), "of b", NOW)
    assert failures(slow.handle({"Records": [ended("a", 1), ended("b", 2)]})) == [2]
    assert 0 < len(rechecks.heard) < 10
    assert [len(cast(Any, line["left"])) for line in lines.of("cut off")] == [2]


def test_a_bounded_number_of_dependents_is_told_and_the_tick_finds_the_rest(
    publish: Publish, table: StoredControlTable, rechecks: FakeRechecks, lines: Lines
) -> None:
    for number in range(limits.DEPENDENTS_TOLD + 1):
        table.lead(("a",), f"{number:05}", NOW)
    assert failures(publish.handle({"Records": [ended("a", 1)]})) == []
    assert sum(map(len, rechecks.heard)) == limits.DEPENDENTS_TOLD
    assert max(map(len, rechecks.heard)) == limits.RECHECK_KEYS
    assert [line["key"] for line in lines.of("dependents left to the tick")] == ["a"]


def test_a_whole_batch_that_cannot_be_read_is_put_aside_over_several_deliveries(
    slow: Publish, unpublished: FakeUnpublished, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the stream would stand still behind it until all of it is given up, and what came after is lost."""
    slowed(monkeypatch, clock, unpublished, "reject")
    batch = [record(number, {**keys.job_key("odd"), "status": "COMPLETED"}) for number in range(1, 31)]
    while batch:
        began_at = clock.now()
        left = failures(slow.handle({"Records": batch}))
        assert clock.now() - began_at < limits.DECIDER_TIMEOUT_S
        assert len(left) < len(batch)
        batch = batch[len(batch) - len(left) :]
    assert {int(number) for *_, number in unpublished.kept} == set(range(1, 31))


def test_a_full_batch_of_events_is_published_as_far_as_there_is_time(
    slow: Publish, bus: FakeBus, clock: HandClock
) -> None:
    """Otherwise it is killed after the last of them, and all are published again and again."""
    batch = [record(number, keys.job_item(a_job(f"{number}"), "op")) for number in range(1, limits.PUBLISH_RECORDS + 1)]
    began_at = clock.now()
    left = failures(slow.handle({"Records": batch}))
    assert clock.now() - began_at < limits.DECIDER_TIMEOUT_S
    assert left == list(range(len(bus.taken) + 1, limits.PUBLISH_RECORDS + 1))
    assert 0 < len(bus.taken) < limits.PUBLISH_RECORDS


def test_an_end_of_which_nobody_has_been_told_comes_again_though_it_is_the_first_of_its_batch(
    slow: Publish,
    table: StoredControlTable,
    rechecks: FakeRechecks,
    unpublished: FakeUnpublished,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record behind it took the time. Whoever answered for it would leave its dependents to a tick."""
    slowed(monkeypatch, clock, unpublished, "reject", limits.DECIDER_BUDGET_S)
    table.lead(("a",), "x", NOW)
    odd = record(2, {**keys.job_key("odd"), "status": "COMPLETED"})
    assert failures(slow.handle({"Records": [ended("a", 1, JobStatus.FAILED), odd]})) == [1]
    assert rechecks.heard == []


def test_whose_dependents_were_read_is_not_read_again_because_there_was_no_time_to_tell_them(
    slow: Publish, table: StoredControlTable
) -> None:
    """Reading takes no more than half of the time, or each delivery would read many parents and tell of one."""
    for number in range(1, 11):
        for dependent in range(limits.RECHECK_KEYS):
            table.lead((f"job {number}",), f"{number} {dependent}", NOW)
    left = failures(slow.handle({"Records": [ended(f"job {number}", number) for number in range(1, 11)]}))
    assert left[0] == 2


def test_of_a_parent_of_very_many_no_more_dependents_are_read_than_are_told(
    publish: Publish, table: StoredControlTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of them would take longer than the decider has, each time."""
    asked: list[int] = []

    def dependents(_parent: str, most: int) -> list[str]:
        asked.append(most)
        return []

    monkeypatch.setattr(table, "dependents", dependents)
    publish.handle({"Records": [ended("a", 1)]})
    assert asked == [limits.DEPENDENTS_TOLD + 1]
