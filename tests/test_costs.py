"""The page of costs: counts come from the real template and a real idle tick, sums from the page's own figures."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import handlers.log
from fleetcap import limits, metrics
from fleetcap.adapters.dynamo import DynamoControlTable
from handlers import tick
from tests.fakes import HandClock, make_fleet
from tests.stacks.conftest import Synthesized, stacks

__all__ = ["stacks"]  # the fixture, used here as well

PAGE: Final = (Path(__file__).parent.parent / "docs" / "costs.md").read_text()
MONTH_S: Final = 30 * 86_400
TICKS: Final = MONTH_S // limits.TICK_PERIOD_S
POLLS: Final = 650_000
LAMBDAS_OWN_BYTES: Final = 350
"""START, END and REPORT of an invocation."""
FREE: Final = {
    "alarms": 10,
    "dashboards": 3,
    "custom metrics": 10,
    "SQS requests": 1_000_000,
    "schedule": 14_000_000,
    "Lambda requests": 1_000_000,
    "Lambda GB-seconds": 400_000,
    "DynamoDB read units": 0,
    "log bytes": 5_000_000_000,
}
PER: Final = {"each": 1, "a million": 1_000_000, "a GB": 1_000_000_000}


def rows() -> Iterator[list[str]]:
    for line in re.findall(r"^\| (.+) \|$", PAGE, flags=re.MULTILINE):
        cells = [cell.strip() for cell in line.split("|")]
        if cells[0] in FREE:
            yield cells


COUNTS: Final = {what: int(count.replace(",", "")) for what, count, *_ in rows()}


def test_the_sums_are_right() -> None:
    listed = left = 0.0
    for what, _, _, price, list_price, after_free in rows():
        figure, _, per = price.partition(" ")
        each = float(figure) / PER[per]
        listed += round(COUNTS[what] * each, 2)
        left += round(max(COUNTS[what] - FREE[what], 0) * each, 2)
        assert float(list_price) == pytest.approx(COUNTS[what] * each, abs=0.005), what
        assert float(after_free) == pytest.approx(max(COUNTS[what] - FREE[what], 0) * each, abs=0.005), what
    assert COUNTS.keys() == FREE.keys()
    assert f"| **in all** | | | | **{listed:.2f}** | **{left:.2f}** |" in PAGE
    without = listed - sum(float(row[4]) for row in rows() if row[0] in {"alarms", "dashboards", "custom metrics"})
    assert f"leaves ${without:.2f} by the list" in PAGE


def test_alarms_mappings_and_the_schedule_are_those_of_the_template(stacks: Synthesized) -> None:
    def count(kind: str) -> int:
        return len(list(stacks.resources(kind)))

    queues = [
        source
        for _, source in stacks.resources("AWS::Lambda::EventSourceMapping")
        if "Stream" not in json.dumps(source["EventSourceArn"])
    ]
    assert COUNTS["alarms"] == count("AWS::CloudWatch::Alarm")
    assert COUNTS["dashboards"] == count("AWS::CloudWatch::Dashboard")
    assert COUNTS["SQS requests"] == len(queues) * POLLS
    assert COUNTS["schedule"] == COUNTS["Lambda requests"] == count("AWS::Scheduler::Schedule") * TICKS
    memory_gb = stacks.only("AWS::Lambda::Function", "Tick")["MemorySize"] / 1_024
    assert COUNTS["Lambda GB-seconds"] == pytest.approx(TICKS * 0.1 * memory_gb)
    for kind in ("AWS::EC2::NatGateway", "AWS::ElasticLoadBalancingV2::LoadBalancer", "AWS::EC2::EIP"):
        assert count(kind) == 0


def test_an_idle_tick_reads_and_logs_what_the_page_says(
    table: DynamoControlTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(handlers.log._logger.registered_handler, "stream", written)
    monkeypatch.setattr(handlers.log, "_NAMESPACE", "Fleetcap/test")
    clock = HandClock()
    fleet = make_fleet(table, cap=16)._replace(clock=clock, log=handlers.log.log)
    tick.handle(fleet)
    clock.sleep(limits.QUIET_S + 1)
    written.truncate(0)
    reads: list[dict[str, Any]] = []
    client: Any = table._dynamo._client
    client.meta.events.register("before-parameter-build.dynamodb.Query", lambda params, **_: reads.append(params))

    tick.look_on(fleet, tick.handle(fleet), clock.now())

    units = sum(1.0 if read.get("ConsistentRead") else 0.5 for read in reads)  # each reads less than 4 KB
    assert COUNTS["DynamoDB read units"] == units * TICKS
    told = written.getvalue()
    assert metrics.EMBEDDED not in told
    assert COUNTS["log bytes"] >= (len(told.encode()) + LAMBDAS_OWN_BYTES) * TICKS


def test_the_metrics_of_a_pool_are_priced_by_the_hour() -> None:
    of_a_pool = sum(metric.dimension == metrics.POOL for metric in metrics.ALL)
    hourly = of_a_pool * 0.30 / 730
    assert f"up to {of_a_pool} metrics, each $0.30 a month" in PAGE
    assert f"${hourly:.4f} an hour" in PAGE
    assert f"${of_a_pool * 0.30:.2f} a month" in PAGE
