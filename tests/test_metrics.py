"""Figures in log lines become metrics: the format as CloudWatch documents it, and the page that lists them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]
import pytest

import handlers.log
from fleetcap import metrics
from fleetcap.adapters.system import LineLog

DOCS: Final = Path(__file__).parent.parent / "docs"
NAMESPACE: Final = "Fleetcap/test"
UNITS: Final = ["Seconds", "Milliseconds", "Bytes", "Percent", "Count", "Count/Second", "None"]
EMBEDDED_METRIC_FORMAT: Final = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["CloudWatchMetrics", "Timestamp"],
            "additionalProperties": False,
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 1_000_000_000_000},
                "CloudWatchMetrics": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1_024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {"type": "array", "maxItems": 30, "items": {"type": "string"}},
                            },
                            "Metrics": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": {"type": "string", "minLength": 1, "maxLength": 1_024},
                                        "Unit": {"enum": UNITS},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
"""As the CloudWatch user guide specifies it ("Specification: Embedded metric format")."""


def extracted(line: dict[str, Any]) -> dict[tuple[str, str, tuple[tuple[str, str], ...]], float]:
    """The metrics that CloudWatch Logs makes of a line: namespace, name and dimensions → value."""
    jsonschema.validate(line, EMBEDDED_METRIC_FORMAT)
    found = {}
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = tuple((name, line[name]) for name in names)
            assert all(isinstance(value, str) and 0 < len(value) <= 1_024 for _, value in dimensions)
            for metric in directive["Metrics"]:
                value = line[metric["Name"]]
                assert isinstance(value, int | float)
                assert not isinstance(value, bool)
                found[directive["Namespace"], metric["Name"], dimensions] = value
    return found


EVERYTHING: Final = {metric.name: number for number, metric in enumerate(metrics.ALL)}


def test_a_line_with_every_metric_is_valid_and_each_is_told_once_by_its_own_dimension() -> None:
    line = {"message": "all", "pool": "default", **EVERYTHING}
    found = extracted(line | metrics.embedded(line, NAMESPACE, 1_800_000_000.1234))
    assert found == {
        (NAMESPACE, metric.name, (("pool", "default"),) if metric.dimension else ()): EVERYTHING[metric.name]
        for metric in metrics.ALL
    }


def test_lines_without_figures_and_deployments_without_metrics_are_left_as_they_are() -> None:
    assert metrics.embedded({"pool": "default", "error": "x"}, NAMESPACE, 0.0) == {}
    assert metrics.embedded({"pool": "default", "cap": 1}, "", 0.0) == {}


@pytest.mark.parametrize("value", ["7", None, True, [1]])
def test_a_metric_that_is_no_figure_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match="launches_failed is"):
        metrics.embedded({"pool": "default", "launches_failed": value}, NAMESPACE, 0.0)


@pytest.mark.parametrize("fields", [{}, {"pool": ""}, {"pool": None}])
def test_a_metric_without_its_dimension_is_an_error(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="told by pool"):
        metrics.embedded({"launches_failed": 1, **fields}, NAMESPACE, 0.0)


def test_the_deciders_log_tells_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(handlers.log._logger.registered_handler, "stream", written)
    monkeypatch.setattr(handlers.log, "_NAMESPACE", NAMESPACE)
    handlers.log.log("launched", pool="default", arn="x", launches_started=1)
    handlers.log.log("wait", pool="default", reason="cap full")
    told, other = map(json.loads, written.getvalue().splitlines())
    assert extracted(told) == {(NAMESPACE, "launches_started", (("pool", "default"),)): 1}
    assert "_aws" not in other


def test_the_workers_log_tells_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    LineLog(NAMESPACE, lease="default/7/1")("claimed", pool="default", time_to_worker_s=2.5)
    LineLog(lease="default/7/1")("claimed", pool="default", time_to_worker_s=2.5)
    told, other = map(json.loads, capsys.readouterr().err.splitlines())
    assert extracted(told) == {(NAMESPACE, "time_to_worker_s", (("pool", "default"),)): 2.5}
    assert "_aws" not in other


def test_a_unit_of_time_is_last_in_the_name() -> None:
    assert {metric.name for metric in metrics.ALL if metric.unit == metrics.SECONDS} == {
        metric.name for metric in metrics.ALL if metric.name.endswith("_s")
    }
    assert len(metrics.BY_NAME) == len(metrics.ALL) <= metrics.METRICS_PER_LINE


def test_the_page_of_metrics_lists_them_all_as_they_are() -> None:
    page = (DOCS / "metrics.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (pool|none) \| ", page, flags=re.MULTILINE)
    assert listed == [(metric.name, metric.unit, metric.dimension or "none") for metric in metrics.ALL]
