"""The fleetcap command as a person uses it, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest

from local.cloud import MARK
from local.samples import make_bam
from tests import commands

pytestmark = pytest.mark.cloud

FLEETCAP = Path(sys.executable).with_name("fleetcap")


def fleetcap(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLEETCAP, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False, timeout=200
    )


def told(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same without a process of its own, for what starts nothing."""
    return commands.fleetcap(arguments, folder, os.environ)


def started_by(folder: Path) -> list[psutil.Process]:
    """Every process that carries the mark of a cloud below this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(str(folder.resolve())):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_for(path: Path) -> None:
    give_up_at = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < give_up_at, f"no {path.name}"
        time.sleep(0.1)


def test_the_demo_runs_verifies_reports_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = fleetcap(tmp_path, "demo", "--jobs", 3, "--cap", 2, "--reads", 500, "--cold-start-s", 0.2)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / ".fleetcap" / "summary.json").read_text())
    assert {name: summary[name] for name in ("jobs", "completed", "failed", "cap", "overshoot")} == {
        "jobs": 3, "completed": 3, "failed": 0, "cap": 2, "overshoot": 0,
    }  # fmt: skip
    assert summary["peak_live_tasks"] == summary["tasks_launched"] == 2
    assert 0 < summary["first_result_s"] <= summary["wall_s"]
    assert len(list((tmp_path / "demo-out").glob("*.sorted.bam"))) == 3
    assert len(list((tmp_path / "demo-out").glob("*.sorted.bam.bai"))) == 3
    assert "the cap was never exceeded" in done.stdout
    assert started_by(tmp_path) == []


def test_the_demo_of_a_broken_file_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    make_bam(tmp_path / "été 1.bam", reads=500, seed=1)
    (tmp_path / "broken.bam").write_bytes((tmp_path / "été 1.bam").read_bytes()[:2_000])
    done = fleetcap(tmp_path, "demo", "--cap", 2, "--cold-start-s", 0.2, "été 1.bam", "broken.bam")
    assert done.returncode == 1
    assert "demo/broken: failed: input: " in done.stdout
    assert json.loads((tmp_path / ".fleetcap" / "summary.json").read_text())["completed"] == 1
    assert (tmp_path / "demo-out" / "été 1.sorted.bam").exists()


def test_a_file_that_cannot_be_a_job_is_refused_before_anything_starts_or_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no reads here")
    (tmp_path / "demo-out").mkdir()
    (tmp_path / "demo-out" / "earlier.sorted.bam").write_bytes(b"a result")
    inside = told(tmp_path, "demo", "demo-out/earlier.sorted.bam")
    assert (inside.returncode, "would be deleted" in inside.stderr) == (2, True)
    done = told(tmp_path, "demo", "notes.txt")
    assert (tmp_path / "demo-out" / "earlier.sorted.bam").exists()
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "fleetcap: notes.txt cannot be a job: it must be an existing file that ends in .bam, .sam."
    )


LAUNCHERS: list[subprocess.Popen[bytes]] = []


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[None]:
    """Whatever a failing test leaves up is ended."""
    yield
    while LAUNCHERS:
        LAUNCHERS.pop().kill()
    for process in started_by(tmp_path):
        process.kill()


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT]],
    ids=["Ctrl-C", "TERM", "a closed terminal", "Ctrl-C twice"],
)
def test_an_interrupted_demo_stops_everything_that_it_started(tmp_path: Path, numbers: list[signal.Signals]) -> None:
    demo = subprocess.Popen([FLEETCAP, "demo", "--jobs", "30", "--cap", "3", "--reads", "500"], cwd=tmp_path)
    LAUNCHERS.append(demo)
    wait_for(tmp_path / ".fleetcap" / "demo" / "cloud" / "fargate" / "tasks")
    assert started_by(tmp_path)
    for number in numbers:
        demo.send_signal(number)
        time.sleep(0.3)
    assert demo.wait(120) != 0
    assert started_by(tmp_path) == []


class Up:
    """A `fleetcap local up` in the background."""

    def __init__(self, folder: Path, name: str) -> None:
        known = folder / ".fleetcap" / "local" / name / "cloud.json"
        before = known.stat().st_mtime if known.exists() else 0.0
        self.process = subprocess.Popen([FLEETCAP, "local", "up", "--name", name, "--cap", "1"], cwd=folder)
        LAUNCHERS.append(self.process)
        give_up_at = time.monotonic() + 300
        while not known.exists() or known.stat().st_mtime == before:
            assert time.monotonic() < give_up_at, f"{name} is not up"
            time.sleep(0.1)


@pytest.mark.usefixtures("ended")
def test_two_clouds_stand_side_by_side_and_any_client_talks_to_them(tmp_path: Path) -> None:
    clouds = [Up(tmp_path, name) for name in ("one", "two")]
    queues = set()
    for name in ("one", "two"):
        lines = told(tmp_path, "local", "env", "--name", name).stdout.splitlines()
        assert lines[0] == "unset AWS_PROFILE AWS_SESSION_TOKEN"
        variables = dict(line.removeprefix("export ").split("=", 1) for line in lines[1:])
        client = boto3.client(
            "sqs",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            verify=variables["AWS_CA_BUNDLE"],
            region_name=variables["AWS_REGION"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )
        assert client.get_queue_attributes(QueueUrl=variables["FLEETCAP_INTAKE_QUEUE_URL"])["Attributes"]
        client.close()
        queues.add(variables["FLEETCAP_INTAKE_QUEUE_URL"])
    assert len(queues) == 2
    listening = {
        connection.laddr.ip
        for process in started_by(tmp_path)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    again = fleetcap(tmp_path, "local", "up", "--name", "one")
    assert again.returncode == 2
    assert "The embedded cloud one is up already" in again.stderr
    for name, cloud in zip(("one", "two"), clouds, strict=True):
        assert fleetcap(tmp_path, "local", "down", "--name", name).stdout == f"The embedded cloud {name} is down.\n"
        cloud.process.wait(60)
    assert started_by(tmp_path) == []


@pytest.mark.usefixtures("ended")
def test_what_a_killed_launcher_leaves_is_swept_by_the_next_start_and_by_down(tmp_path: Path) -> None:
    first = Up(tmp_path, "lost")
    left = {process.pid for process in started_by(tmp_path)}
    first.process.kill()
    first.process.wait()
    second = Up(tmp_path, "lost")
    assert left.isdisjoint(process.pid for process in started_by(tmp_path))
    second.process.kill()
    second.process.wait()
    assert started_by(tmp_path)
    assert fleetcap(tmp_path, "local", "down", "--name", "lost").stdout == "The embedded cloud lost is down.\n"
    assert started_by(tmp_path) == []
    assert told(tmp_path, "local", "env", "--name", "lost").returncode == 2


@pytest.mark.parametrize("name", ["../..", "/tmp", "", "-x", "UP", "a" * 33])
def test_a_name_that_would_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    for command in ("up", "down", "env"):
        done = told(tmp_path, "local", command, f"--name={name}")
        assert done.returncode == 2
        assert "small letters" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_fault_without_a_cloud_is_refused_with_one_sentence(tmp_path: Path) -> None:
    for command in (("fault", "throttle"), ("fault", "hang"), ("faults",), ("calm",)):
        done = told(tmp_path, "local", *command)
        assert done.returncode == 2
        assert done.stderr == "fleetcap: No embedded cloud default is up; start one with: fleetcap local up\n"
    unknown = told(tmp_path, "local", "fault", "flood")
    assert (unknown.returncode, "No such command 'flood'" in unknown.stderr) == (2, True)


def test_the_schema_is_printed_as_json(tmp_path: Path) -> None:
    schema = json.loads(fleetcap(tmp_path, "schema").stdout)
    assert schema["required"] == ["source"]
    assert schema["additionalProperties"] is False
    assert "sequence" in json.loads(told(tmp_path, "schema", "--event").stdout)["required"]
