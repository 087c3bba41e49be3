"""A deployment's own processor: the example, installed as a user would, run by the real child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleetcap import keys

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "wordcount"
DECLARED = {"name": "wordcount", "version": 1, "suffixes": [".txt"], "kinds": ["counts.tsv"], "params": ["top"]}

pytestmark = pytest.mark.cloud


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the example, offline: without its dependencies (none) and with the builder that is here."""
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(EXAMPLE)]
    subprocess.run(command, check=True, timeout=120)
    return target


@pytest.fixture
def assignment(at_the_emulator: None, s3: S3Client, tmp_path: Path) -> dict[str, Any]:
    assert at_the_emulator is None
    s3.put_object(Bucket="sources", Key=f"{tmp_path.name}/x.txt", Body=b"to be or not to be, to")
    return {
        "job_id": "job",
        "workflow_key": f"tests/{tmp_path.name}/v1",
        "attempt": 1,
        "source": f"s3://sources/{tmp_path.name}/x.txt",
        "processor": "wordcount",
        "md5": "",
        "params": {"top": 2},
        "cache_bucket": "cache",
        "cache_prefix": "",
        "source_hosts": [],
        "work_dir": str(tmp_path / "work"),
        "sort_memory_mb": 16,
        "sort_threads": 1,
        "made_for": 1_000.5,
        "since": 0.0,
    }


def last_event(assignment: dict[str, Any], site: Path | None, declared: list[dict[str, Any]]) -> dict[str, Any]:
    paths = [*([str(site)] if site else []), os.environ.get("PYTHONPATH", ""), str(ROOT / "lambdas"), str(ROOT)]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), keys.ENV_PROCESSORS: json.dumps(declared)}
    result = subprocess.run(
        [sys.executable, "-m", "worker_image.child"],
        input=json.dumps(assignment),
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    event: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return event


def test_the_example_is_installed_declared_and_run(assignment: dict[str, Any], s3: S3Client, installed: Path) -> None:
    assert last_event(assignment, installed, [DECLARED]) == {"event": "done"}
    key = f"{assignment['workflow_key']}/wordcount@1/counts.tsv"
    assert s3.get_object(Bucket="cache", Key=key)["Body"].read() == b"to\t3\nbe\t1\n"


def test_its_own_word_about_the_input_is_permanent(assignment: dict[str, Any], s3: S3Client, installed: Path) -> None:
    s3.put_object(Bucket="sources", Key="blank.txt", Body=b" \n")
    event = last_event({**assignment, "source": "s3://sources/blank.txt"}, installed, [DECLARED])
    assert event == {"event": "failed", "error": "input: the text holds no words", "permanent": True}


MISMATCHES: dict[str, tuple[bool, list[dict[str, Any]], str]] = {
    "not declared": (True, [], "input: this worker has no processor named 'wordcount'"),
    "not in the image": (
        False,
        [DECLARED],
        "internal: the deployment declares the processor 'wordcount', but in this worker's image no entry points",
    ),
    "another version": (
        True,
        [{**DECLARED, "version": 2}],
        "internal: the deployment declares the processor 'wordcount', but in this worker's image it is wordcount@1 "
        "with counts.tsv instead of wordcount@2 with counts.tsv",
    ),
    "other artifacts": (True, [{**DECLARED, "kinds": ["a", "b"]}], "with counts.tsv instead of wordcount@1 with a, b"),
    "another param": (True, [{**DECLARED, "params": []}], "input: wordcount knows no param 'top'; it takes none"),
}


@pytest.mark.parametrize(("in_the_image", "declared", "sentence"), MISMATCHES.values(), ids=MISMATCHES)
def test_where_declaration_and_image_disagree_one_sentence_says_how(
    assignment: dict[str, Any], installed: Path, in_the_image: bool, declared: list[dict[str, Any]], sentence: str
) -> None:
    event = last_event(assignment, installed if in_the_image else None, declared)
    assert sentence in event["error"]
    assert event["permanent"] is event["error"].startswith("input: ")


def test_the_readme_shows_the_example_as_it_is() -> None:
    shown = (ROOT / "README.md").read_text()
    code = (EXAMPLE / "wordcount.py").read_text()
    assert code[code.index("class WordCount") :] in shown
