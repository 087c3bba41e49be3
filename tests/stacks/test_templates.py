"""The templates as they are uploaded: as they were last reviewed, and without a finding of cfn-lint."""

from __future__ import annotations

import json
import re

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from tests.stacks.conftest import Synthesized

STACKS = ("State", "Worker", "Control", "Observability")
ACCEPTED_FINDINGS = {
    "W3005": "the CDK makes a function depend on its role besides naming it; saying it twice does no harm",
}


@pytest.mark.parametrize("stack", STACKS)
def test_a_template_is_as_reviewed(stack: str, stacks: Synthesized, snapshot: SnapshotAssertion) -> None:
    assert _without_hashes(stacks.templates[stack]) == snapshot(extension_class=JSONSnapshotExtension)


@pytest.mark.parametrize("stack", STACKS)
def test_cfn_lint_has_nothing_to_say(stack: str, stacks: Synthesized) -> None:
    # Here, as it takes as long to load as most other modules together.
    from cfnlint.api import lint_file  # type: ignore[import-untyped]
    from cfnlint.config import ManualArgs  # type: ignore[import-untyped]

    (path,) = stacks.directory.glob(f"*-{stack}.template.json")

    findings = lint_file(path, ManualArgs(regions=["us-east-1", "eu-central-1"], ignore_checks=list(ACCEPTED_FINDINGS)))

    assert [str(finding) for finding in findings] == []


def test_nothing_in_the_templates_names_an_account_or_a_region(stacks: Synthesized) -> None:
    text = json.dumps(list(stacks.templates.values()))

    assert not re.findall(r"(?<![0-9a-f])\d{12}(?![0-9a-f])|\b[a-z]{2}-(?:east|west|central|north|south)\w*-\d\b", text)


def _without_hashes(template: object) -> object:
    """Neither an edit of Lambda code nor a new worker image is a change of the template."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<hash>", json.dumps(template))
    return json.loads(re.sub(r"(image\W+)[0-9a-f]{12}\b", r"\1<image>", text))
