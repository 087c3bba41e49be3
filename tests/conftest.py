"""Fixtures that more than one room uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.fleet import Fleet
from tests.fakes import HandClock, HandEcs, Lines, make_fleet, moto_table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoControlTable]:
    """The DynamoDB adapter over a table of its own, in this process and on one thread."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield moto_table()


@pytest.fixture
def fleet(table: DynamoControlTable) -> Fleet:
    """One pool with a cap of two."""
    return make_fleet(table)


@pytest.fixture
def clock(fleet: Fleet) -> HandClock:
    """The fleet's clock."""
    assert isinstance(fleet.clock, HandClock)
    return fleet.clock


@pytest.fixture
def tasks(fleet: Fleet) -> HandEcs:
    """The fleet's ECS."""
    assert isinstance(fleet.tasks, HandEcs)
    return fleet.tasks


@pytest.fixture
def lines(fleet: Fleet) -> Lines:
    """The fleet's log."""
    assert isinstance(fleet.log, Lines)
    return fleet.log
