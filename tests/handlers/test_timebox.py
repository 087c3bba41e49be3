"""A decider's time: what is begun in it, and how it is divided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import MagicMock

import pytest
from botocore.config import Config

from fleetcap import keys, limits, wiring
from fleetcap.timebox import Timebox
from tests.fakes import HandClock


def begun(box: Timebox, clock: HandClock, each_s: float, things: int = 99) -> int:
    """How many things are begun that take so long each."""
    number = 0
    for _ in box.each(range(things)):
        number += 1
        clock.sleep(each_s)
    return number


def test_a_decider_begins_things_until_its_time_is_over_and_the_last_one_still_ends() -> None:
    clock = HandClock()
    started_at = clock.now()
    assert begun(Timebox.begin(clock), clock, each_s=4.0) == 8
    assert limits.DECIDER_BUDGET_S <= clock.now() - started_at < limits.DECIDER_TIMEOUT_S


def test_of_a_part_one_thing_is_begun_however_little_time_it_has() -> None:
    clock = HandClock()
    box = Timebox.begin(clock)
    assert begun(box.part(100), clock, each_s=5.0) == 1
    assert begun(box.within(0.0), clock, each_s=5.0) == 1


def test_once_a_decider_is_over_no_part_begins_anything() -> None:
    clock = HandClock()
    box = Timebox.begin(clock)
    clock.sleep(limits.DECIDER_BUDGET_S)
    assert (box.over, box.spent) == (True, True)
    assert [begun(part, clock, 1.0) for part in (box, box.part(2), box.within(9.0))] == [0, 0, 0]


def test_parts_are_of_what_is_left() -> None:
    clock = HandClock()
    box = Timebox.begin(clock, 12.0)
    assert begun(box.part(3), clock, each_s=1.0) == 4
    assert begun(box.part(2), clock, each_s=1.0) == 4
    assert begun(box, clock, each_s=1.0) == 4
    assert box.over


def test_a_part_of_a_part_ends_with_it() -> None:
    clock = HandClock()
    part = Timebox.begin(clock).within(6.0)
    assert begun(part.within(20.0), clock, each_s=1.0) == 6
    assert (part.spent, part.over) == (True, False)


@pytest.mark.parametrize("things", [0, 3])
def test_without_a_decider_there_is_no_end(things: int) -> None:
    clock = HandClock()
    assert begun(Timebox(clock), clock, 1e6, things) == things


# --- the last call


@dataclass
class Clients:
    """Who is asked for clients, and under which settings."""

    made: dict[str, Config] = field(default_factory=dict)

    def client(self, name: str, config: Config) -> Any:
        self.made[name] = config
        return MagicMock()


def longest_s(config: Any) -> float:
    """A call that is never answered, with each attempt and each wait of the SDK between two of them at its longest."""
    attempts = config.retries["total_max_attempts"]
    assert config.retries["mode"] == "standard", "whose waits are these"
    waits_s = sum(min(2.0**number, 20.0) for number in range(attempts - 1))
    return float(attempts * (config.connect_timeout + config.read_timeout) + waits_s)


def test_the_call_that_a_decider_begins_last_ends_before_the_decider_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients()
    monkeypatch.setattr(wiring, "_SESSION", clients)
    monkeypatch.setenv(keys.ENV_POOLS, "[]")
    monkeypatch.setenv(keys.ENV_TABLE, "table")
    wiring.fleet(MagicMock())
    for make in (wiring.s3_client, wiring.sqs_client, wiring.events_client):
        make.__wrapped__()
    assert set(clients.made) == {"dynamodb", "ecs", "s3", "sqs", "events"}
    left_s = limits.DECIDER_TIMEOUT_S - limits.DECIDER_BUDGET_S
    assert {name: longest_s(config) for name, config in clients.made.items() if longest_s(config) >= left_s} == {}
