"""Fixtures that more than one room uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import botocore.session
import pytest
from botocore.loaders import create_loader
from moto import mock_aws

from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.fleet import Fleet
from tests.fakes import HandClock, HandEcs, Lines, make_fleet, moto_table

# Each session of botocore reads its megabytes of service models anew, which takes longer than most tests do.
vars(botocore.session)["create_loader"] = cache(create_loader)

# Half of the time in which the CDK makes templates is its own look at them; the test of its CLI leaves that in.
os.environ["CDK_VALIDATION"] = "false"

TESTS: Final = Path(__file__).parent
LONGEST_FIRST: Final = (
    "e2e/test_silence.py",
    "e2e/test_chaos.py",
    "simulation/test_scopes.py",
    "e2e/test_faults.py",
    "e2e/test_command.py",
    "simulation/test_histories.py",
    "e2e/test_burst.py",
    "e2e/test_recovery.py",
    "simulation/test_shares.py",
    "e2e/test_jobs_command.py",
    "e2e/test_cdk_cli.py",
    "contract/test_memory_agrees.py",
    "e2e/test_life.py",
    "simulation/test_policy.py",
    "e2e/test_events.py",
    "contract/test_fargate_faults.py",
    "contract/test_fargate.py",
    "worker/test_child.py",
    "contract/test_tasks.py",
    "contract/test_control_table.py",
)
"""Modules of minutes, in the order in which they begin: one that began late would be waited for when all else is done.

Those of the embedded cloud, which wait, and those of the simulator, which compute, are mixed.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, all else as it was."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
