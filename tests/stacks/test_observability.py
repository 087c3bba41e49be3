"""Alarms and the dashboard: they read what is written, and each alarm says why somebody should come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app import deployment
from fleetcap import keys, metrics
from tests.stacks.conftest import Synthesized

DOCS = Path(__file__).parents[2] / "docs"
DEPLOYMENT_ALARMS = {
    "CapBreach",
    "ForeignTask",
    "UnresolvedLaunch",
    "TickSilent",
    "TickErrors",
    "TickFailing",
    "PublishBehind",
    "IntakeBehind",
    "EventsBehind",
    "IntakeGivenUp",
    "EventsGivenUp",
    "PublishGivenUp",
}
OF_AWS = {
    ("AWS/Lambda", "Invocations"): "FunctionName",
    ("AWS/Lambda", "Errors"): "FunctionName",
    ("AWS/Lambda", "IteratorAge"): "FunctionName",
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): "QueueName",
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): "QueueName",
}


def alarms(stacks: Synthesized) -> dict[str, Mapping[str, Any]]:
    return dict(stacks.resources("AWS::CloudWatch::Alarm"))


def namespaces(stacks: Synthesized) -> set[str]:
    """Where deciders and workers are told to put their metrics."""
    functions = [each["Environment"]["Variables"] for _, each in stacks.resources("AWS::Lambda::Function")]
    workers = [
        {variable["Name"]: variable["Value"] for variable in container["Environment"]}
        for _, each in stacks.resources("AWS::ECS::TaskDefinition")
        for container in each["ContainerDefinitions"]
    ]
    found = {variables.get(keys.ENV_METRICS) for variables in [*functions, *workers]}
    return {name for name in found if name}


def test_there_is_an_alarm_for_everything_that_is_a_persons_business(stacks: Synthesized, turned: Synthesized) -> None:
    assert set(alarms(stacks)) == DEPLOYMENT_ALARMS | {"Unserveddefault", "Backoffdefault"}
    pools = {f"{kind}{pool}" for kind in ("Unserved", "Backoff") for pool in ("default", "armlarge")}
    assert set(alarms(turned)) == DEPLOYMENT_ALARMS | pools | {"RejectedMessages"}


@pytest.mark.parametrize("name", ["CapBreach", "ForeignTask", "UnresolvedLaunch"])
def test_one_is_enough(stacks: Synthesized, name: str) -> None:
    alarm = alarms(stacks)[name]
    assert (alarm["Threshold"], alarm["EvaluationPeriods"], alarm["ComparisonOperator"], alarm["Statistic"]) == (
        1,
        1,
        "GreaterThanOrEqualToThreshold",
        "Sum",
    )


@pytest.mark.parametrize("which", ["stacks", "turned"])
def test_every_alarm_reads_a_metric_that_somebody_writes(which: str, request: pytest.FixtureRequest) -> None:
    found: Synthesized = request.getfixturevalue(which)
    [namespace] = namespaces(found)
    pools = {pool for pool in ("default", "arm-large") if which == "turned" or pool == "default"}
    for alarm in alarms(found).values():
        assert "Metrics" not in alarm, "arithmetic, which the embedded cloud does not know"
        dimensions = {each["Name"]: each["Value"] for each in alarm.get("Dimensions", [])}
        if alarm["Namespace"] == namespace:
            known = metrics.BY_NAME[alarm["MetricName"]]
            assert dimensions.keys() == ({known.dimension} if known.dimension else set())
            assert not known.dimension or dimensions[known.dimension] in pools
        else:
            assert dimensions.keys() == {OF_AWS[alarm["Namespace"], alarm["MetricName"]]}


def test_silence_is_an_alarm_of_the_tick_alone(stacks: Synthesized) -> None:
    """An idle deployment publishes nothing, and the tick runs all the same."""
    loud = {name for name, alarm in alarms(stacks).items() if alarm["TreatMissingData"] != "notBreaching"}
    assert loud == {"TickSilent"}
    silent = alarms(stacks)["TickSilent"]
    assert (silent["TreatMissingData"], silent["ComparisonOperator"], silent["Period"]) == (
        "breaching",
        "LessThanThreshold",
        300,
    )


def test_thresholds_are_those_of_the_settings(stacks: Synthesized, turned: Synthesized) -> None:
    def told(found: Synthesized) -> list[tuple[float, int]]:
        names = ("Unserveddefault", "Backoffdefault", "IntakeBehind", "EventsBehind", "PublishBehind")
        return [(alarms(found)[name]["Threshold"], alarms(found)[name]["EvaluationPeriods"]) for name in names]

    assert told(stacks) == [(300, 3), (1, 3), (900, 1), (900, 1), (900_000, 1)]
    assert told(turned) == [(600, 3), (1, 6), (1_200, 1), (1_200, 1), (1_200_000, 1)]
    assert {alarms(stacks)[name]["Statistic"] for name in ("Unserveddefault", "Backoffdefault")} == {"Minimum"}


def test_alarms_tell_the_topic_of_their_beginning_and_end_and_nobody_without_one(
    stacks: Synthesized, turned: Synthesized
) -> None:
    topic = ["arn:aws:sns:eu-central-1:123456789012:on-call"]
    assert {name for name, alarm in alarms(stacks).items() if "AlarmActions" in alarm or "OKActions" in alarm} == set()
    assert all(alarm["AlarmActions"] == alarm["OKActions"] == topic for alarm in alarms(turned).values())


def test_every_alarm_says_why_somebody_should_come(turned: Synthesized) -> None:
    reasons = [alarm["AlarmDescription"] for alarm in alarms(turned).values()]
    assert len(set(reasons)) == len(reasons)
    assert all(re.fullmatch(r"[A-Z].+\.", reason) for reason in reasons)


def test_the_page_of_metrics_tells_of_every_alarm(turned: Synthesized) -> None:
    page = (DOCS / "metrics.md").read_text()
    listed = re.findall(r"^\| (\w+)(?:-\*pool\*)? \| .+ \|$", page.partition("## Alarms")[2], flags=re.MULTILINE)
    known = {re.sub(r"(Unserved|Backoff).+", r"\1", name) for name in alarms(turned)}
    assert set(listed) - {"alarm"} == known


def shown(stacks: Synthesized) -> Iterator[tuple[str, str, str]]:
    """Namespace, name and pool of the metrics on the dashboard."""
    body = stacks.only("AWS::CloudWatch::Dashboard")["DashboardBody"]
    separator, parts = body["Fn::Join"]
    text = separator.join(part if isinstance(part, str) else "something" for part in parts)
    for widget in json.loads(text)["widgets"]:
        for metric in widget["properties"]["metrics"]:
            namespace, name, *rest = [each for each in metric if isinstance(each, str)]
            yield namespace, name, dict(zip(rest[::2], rest[1::2], strict=True)).get("pool", "")


def test_the_dashboard_shows_every_metric_of_every_pool(turned: Synthesized) -> None:
    [namespace] = namespaces(turned)
    ours = {(name, pool) for where, name, pool in shown(turned) if where == namespace}
    by_pool = {(each.name, pool) for each in metrics.ALL if each.dimension for pool in ("default", "arm-large")}
    assert ours == by_pool | {(each.name, "") for each in metrics.ALL if not each.dimension}


def test_a_dashboard_of_one_pool_is_one_of_the_free_ones(stacks: Synthesized) -> None:
    """CloudWatch gives away three dashboards of at most fifty metrics each."""
    assert len(list(shown(stacks))) <= 50


def test_no_observability_means_no_stack_and_no_metrics(tmp_path: Path) -> None:
    deployment({"fleetcap": {"observability": False}}, outdir=str(tmp_path)).synth()
    templates = {path.name.split("-")[1]: path.read_text() for path in tmp_path.glob("*.template.json")}
    assert templates.keys() == {"State.template.json", "Worker.template.json", "Control.template.json"}
    assert not [name for name, text in templates.items() if keys.ENV_METRICS in text]
