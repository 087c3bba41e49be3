"""The deployment, synthesized once per session: with the defaults, and with many knobs turned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import deployment

TURNED = {
    "cap": "3",
    "fleetcap": json.dumps(
        {
            "name": "genomics",
            "retain_data": False,
            "decider_concurrency": 5,
            "intake_batch_size": 2,
            "source_hosts": ["data.example.org", "mirror.example.org"],
            "private_source_hosts": ["mirror.example.org"],
            "extra_source_buckets": ["public-reads"],
            "source_bucket_owners": ["public-reads=210987654321"],
            "requester_pays_buckets": ["public-reads"],
            "source_kms_keys": ["arn:aws:kms:us-east-1:210987654321:key/mrk-0123456789abcdef0123456789abcdef"],
            "cache_prefix": "portal/",
            "event_statuses": ["QUEUED", "COMPLETED"],
            "s3_trigger": True,
            "alarm_topic_arn": "arn:aws:sns:eu-central-1:123456789012:on-call",
            "alarm_unserved_s": 600,
            "alarm_backoff_s": 1_800,
            "alarm_queue_age_s": 1_200,
            "alarm_rejected": True,
            "cache_kms_key": "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555",
            "processors": [{"name": "wordcount", "version": 1, "suffixes": [".txt"], "kinds": ["counts.tsv"]}],
            "pools": [
                {"name": "default", "look_s": 2, "disk_gib": 50, "keep_failed_dirs": 2},
                {
                    "name": "arm-large",
                    "cap": 0,
                    "architecture": "ARM64",
                    "cpu_units": 4096,
                    "memory_mib": 8192,
                    "fair_shares": True,
                    "tenant_weights": ["portal=3"],
                },
            ],
        }
    ),
}


@dataclass(frozen=True)
class Synthesized:
    """The templates by the last part of their stack's name: State, Worker, Control, Observability."""

    directory: Path
    templates: Mapping[str, Mapping[str, Any]]

    def resources(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Name and properties of every resource of a type, whichever stack it is in."""
        for template in self.templates.values():
            for logical_id, resource in template["Resources"].items():
                if resource["Type"] == kind:
                    yield name_of(logical_id), resource.get("Properties", {})

    def only(self, kind: str, name: str = "") -> Mapping[str, Any]:
        """The properties of the one resource of a type (and name, where there are several)."""
        (found,) = (properties for each, properties in self.resources(kind) if name in {"", each})
        return found


def name_of(logical_id: str) -> str:
    """A logical id without the hash that the CDK appends."""
    return re.sub(r"(?<=.)[0-9A-F]{8}$", "", logical_id)


def _synthesize(overrides: Mapping[str, object], directory: Path) -> Synthesized:
    deployment(overrides, outdir=str(directory)).synth()
    found = sorted(directory.glob("*.template.json"))
    return Synthesized(
        directory, {path.name.split(".")[0].split("-")[-1]: json.loads(path.read_text("utf-8")) for path in found}
    )


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """Every knob at its default."""
    return _synthesize({}, tmp_path_factory.mktemp("cdk.out"))


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """The knobs of TURNED."""
    return _synthesize(TURNED, tmp_path_factory.mktemp("cdk.turned"))


@pytest.fixture(scope="session")
def own_images(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """Two pools with worker images of somebody else's making, on Spot where it can be had."""
    ecr = "210987654321.dkr.ecr.us-east-1.amazonaws.com/tools/worker:7"
    pools = [
        {"name": "default", "image": ecr, "command": ["serve", "--all"], "capacity": ["FARGATE_SPOT=3", "FARGATE"]},
        {"name": "public", "image": "public.ecr.aws/portal/worker:1", "min_workers": 1, "max_attempts": 5},
    ]
    return _synthesize({"fleetcap": json.dumps({"pools": pools})}, tmp_path_factory.mktemp("cdk.images"))
