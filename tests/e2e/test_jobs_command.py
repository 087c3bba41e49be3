"""The commands for jobs as a person and a script use them: by the name of an embedded cloud and by that of a stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli import watch
from cli.target import Target
from fleetcap.messages import submission
from fleetcap.model import JobStatus, Pool
from local.cloud import MARK
from local.results import verify
from local.samples import make_bam
from tests import commands
from tests.e2e.conftest import Stage

pytestmark = pytest.mark.cloud

FLEETCAP = Path(sys.executable).with_name("fleetcap")
HERMETIC = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass
class Person:
    """Somebody with a terminal in a folder, who reaches the deployment in one of two ways."""

    folder: Path
    stage: Stage
    reach: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def fleetcap(self, *words: object, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
        """Carry out the command to its end, in this process."""
        return commands.fleetcap([*words, *self.reach], self.folder, self._environment(extra), stdin)

    def process(self, *words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        """Carry it out to its end, whatever that is, in a process of its own."""
        return subprocess.run(
            [FLEETCAP, *map(str, words), *self.reach],
            cwd=self.folder,
            env=self._environment(extra),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {**clean, **HERMETIC, **self.environment, **extra}

    def told(self, *words: object, code: int = 0, **more: Any) -> Any:
        """What it prints as JSON; stderr where it should have."""
        done = self.fleetcap(*words, "--json", **more)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder below which the module's cloud is known as the embedded cloud `default`."""
    cloud = stage.folder.parent / "state"
    known = {"launcher_pid": os.getpid(), **asdict(stage.client.cloud), "outputs": dict(stage.client.outputs)}
    (cloud / "cloud.json").write_text(json.dumps(known))
    home = tmp_path_factory.mktemp("home")
    (home / ".fleetcap" / "local").mkdir(parents=True)
    (home / ".fleetcap" / "local" / "default").symlink_to(cloud)
    return home


@pytest.fixture
def me(folder: Path, stage: Stage) -> Person:
    """By the embedded cloud that is up: no option, no credentials."""
    return Person(folder, stage)


@pytest.fixture(params=["cloud", "stack"])
def anyone(request: pytest.FixtureRequest, folder: Path, stage: Stage, tmp_path: Path) -> Person:
    """By either way; the second is that of a real account, with credentials in the environment."""
    if request.param == "cloud":
        return Person(folder, stage)
    return Person(tmp_path, stage, ["--stack", "fleetcap"], stage.client.cloud.environment())


@pytest.fixture
def by_stack(folder: Path, stage: Stage) -> Person:
    """By the deployment's name although an embedded cloud of the default name is up."""
    return Person(folder, stage, ["--stack", "fleetcap"], stage.client.cloud.environment())


@pytest.fixture
def bam(tmp_path: Path, stage: Stage) -> Path:
    """A small file that nobody has submitted."""
    stage.made += 1
    path = tmp_path / f"reads {stage.made}.bam"
    make_bam(path, reads=400, seed=10_000 + stage.made)
    return path


def test_a_file_is_submitted_waited_for_and_got_back(anyone: Person, bam: Path, tmp_path: Path) -> None:
    told = anyone.told("submit", bam, "--wait")
    [key] = [each["workflow_key"] for each in told["submitted"]]
    assert [(job["workflow_key"], job["status"]) for job in told["jobs"]] == [(key, "COMPLETED")]

    renamed = bam.with_name("another name.bam")
    renamed.write_bytes(bam.read_bytes())
    again = anyone.process("submit", renamed, bam, "--wait")
    assert (again.returncode, again.stdout.split()) == (0, [key, key])
    assert f"{key}: COMPLETED" in again.stderr

    job = anyone.told("job", key)
    assert (job["run"], job["attempt"], job["history"]) == (1, 1, [])
    got = anyone.fleetcap("get", key, "--out", tmp_path / "out")
    paths = [Path(line) for line in got.stdout.splitlines()]
    assert [(path.name, path.stat().st_size) for path in paths] == [
        (each["key"].rpartition("/")[2], each["size_bytes"]) for each in job["artifacts"]
    ]
    assert verify(key, bam, paths[0]).trouble == ""
    [part] = anyone.told("get", key, "--kind", "sorted.bam", "--range", "2-5", "--out", tmp_path)["artifacts"]
    assert Path(part["path"]).read_bytes() == paths[0].read_bytes()[2:6]
    assert not list(tmp_path.rglob("*.part"))

    assert anyone.fleetcap("get", key, "--range", "2-5").returncode == 2
    beyond = anyone.fleetcap("get", key, "--kind", "sorted.bam", "--range", "999999999-999999999")
    assert (beyond.returncode, "has no bytes 999999999" in beyond.stderr) == (1, True)
    other = anyone.fleetcap("get", key, "--kind", "bed")
    assert (other.returncode, "has no bed; it has sorted.bam, sorted.bam.bai" in other.stderr) == (1, True)


def test_an_artifact_that_has_expired_is_told_and_one_of_a_forgotten_job_is_found(
    me: Person, stage: Stage, bam: Path, tmp_path: Path
) -> None:
    [job] = me.told("submit", bam, "--wait")["jobs"]
    key, bucket = job["workflow_key"], stage.client.outputs["CacheBucketName"]
    table = {"TableName": stage.client.outputs["TableName"]}
    stage.client.cloud.client("dynamodb").delete_item(**table, Key={"pk": {"S": f"JOB#{key}"}, "sk": {"S": "JOB"}})
    assert len(me.told("get", key, "--out", tmp_path)["artifacts"]) == 2
    forgotten = me.fleetcap("job", key)
    assert (forgotten.returncode, f"has no job {key}" in forgotten.stderr) == (1, True)

    assert me.fleetcap("submit", bam, "--wait").returncode == 0
    stage.client.s3.delete_object(Bucket=bucket, Key=job["artifacts"][1])
    gone = me.fleetcap("get", key, "--kind", "sorted.bam.bai", "--out", tmp_path / "again")
    assert (gone.returncode, "has expired or was deleted" in gone.stderr) == (1, True)
    assert not list((tmp_path / "again").rglob("*.*"))
    assert "gone" in me.fleetcap("job", key).stdout
    assert me.told("job", key)["run"] == 1  # asking never starts work


def test_a_broken_file_fails_with_the_reason_everywhere_and_may_be_tried_again(me: Person, bam: Path) -> None:
    bam.write_bytes(bam.read_bytes()[:2_000])
    done = me.fleetcap("submit", bam, "--wait")
    assert done.returncode == 1
    key = done.stdout.strip()
    assert f"{key}: FAILED: input: " in done.stderr

    assert "input: " in me.fleetcap("job", key).stdout
    listed = me.told("jobs", "--status", "FAILED", "--pool", "default")
    assert key in {job["workflow_key"] for job in listed["jobs"]}
    assert {job["status"] for job in listed["jobs"]} == {"FAILED"}
    refused = me.fleetcap("get", key)
    assert (refused.returncode, f"{key} is FAILED: input: " in refused.stderr) == (1, True)

    [told] = me.told("retry", key)["jobs"]
    assert told["outcome"] == "sent"
    me.stage.until(lambda: (job := me.stage.job(key)) and job.run == 2 and job.ended, "the second run")
    superseded = me.fleetcap("job", key, "--run", "1")
    assert (superseded.returncode, "was superseded by run 2" in superseded.stderr) == (1, True)


def test_running_and_queued_jobs_are_cancelled_and_run_when_they_are_retried(anyone: Person, stage: Stage) -> None:
    name = "stack" if anyone.reach else "cloud"
    (running, waiting), gate = stage.behind_a_gate("one", name, 2)
    stage.until(lambda: any(_runs(stage, key) for key in (running, waiting)), "one of them runs", every_s=0.02)
    if not _runs(stage, running):
        running, waiting = waiting, running
    _, slot = stage.running(running)
    [task] = [task for task in stage.client.tasks() if task["arn"] == slot.arn]
    stage.until(lambda: _children(task["pid"]), "its child", every_s=0.02)
    children = _children(task["pid"])

    done = anyone.fleetcap("cancel", running, "nobody/knows", waiting, "--reason", "a change of plans")
    assert done.returncode == 1
    assert f"{running}: its worker was asked to end it" in done.stdout
    assert f"{waiting}: cancelled\n" in done.stdout
    assert "nobody/knows: " in done.stderr
    ended = stage.until_ended([running, waiting])
    assert {(job.status, job.error) for job in ended} == {(JobStatus.CANCELLED, "cancelled: a change of plans")}
    stage.until(lambda: not any(child.is_running() for child in children), "its children are gone")
    assert psutil.pid_exists(task["pid"])  # the worker lives on

    assert anyone.fleetcap("cancel", running).stdout == f"{running}: had ended before: CANCELLED\n"
    gate.touch()
    assert anyone.fleetcap("retry", running, waiting).returncode == 0
    for key in (running, waiting):
        stage.until(lambda key=key: _completed(stage, key, run=2), f"{key} completes")  # type: ignore[misc]
    refused = anyone.fleetcap("retry", running)
    assert (refused.returncode, "--force runs it again" in refused.stderr) == (1, True)
    assert anyone.fleetcap("retry", running, "--force").returncode == 0
    stage.until(lambda: (job := stage.job(running)) and job.run == 3 and job.ended, "the forced run")


def _runs(stage: Stage, key: str) -> bool:
    job = stage.job(key)
    return job is not None and job.status is JobStatus.RUNNING


def _completed(stage: Stage, key: str, run: int) -> bool:
    job = stage.job(key)
    return job is not None and (job.status, job.run) == (JobStatus.COMPLETED, run)


def _children(pid: int) -> list[psutil.Process]:
    """The processes of its jobs, which are in groups of their own."""
    below = psutil.Process(pid).children(recursive=True)
    return [process for process in below if os.getpgid(process.pid) != os.getpgid(pid)]


def test_the_lines_about_a_job_are_found_by_its_key_and_by_its_correlation_id(anyone: Person, stage: Stage) -> None:
    name = f"logs-{'stack' if anyone.reach else 'cloud'}"
    sources = stage.sources(2)
    keys = [f"{name}/1", f"{name}/12"]
    stage.client.send(
        {"source": source, "workflow_key": key, "correlation_id": f"{name}-{number}"}
        for number, (source, key) in enumerate(zip(sources, keys, strict=True))
    )
    stage.until_ended(keys)

    def lines(word: str) -> list[dict[str, Any]]:
        done = anyone.fleetcap("logs", word, "--json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def events(word: str) -> set[tuple[str, str]]:
        return {(line["who"].partition(" ")[0], line["event"]) for line in lines(word)}

    wanted = {("intake", "admitted"), ("worker", "claimed"), ("worker", "ended"), ("publish", "published")}
    for word in (keys[0], f"{name}-0"):
        stage.until(lambda word=word: wanted <= events(word), f"the lines about {word}")  # type: ignore[misc]
    found = lines(keys[0])
    assert {line["fields"].get("correlation_id", f"{name}-0") for line in found} == {f"{name}-0"}
    assert [line["at"] for line in found] == sorted(line["at"] for line in found)
    followed = anyone.fleetcap("logs", keys[1], "--follow")  # ends, as the job has
    assert (followed.returncode, "ended" in followed.stdout) == (0, True)
    unknown = anyone.fleetcap("logs", "nobody/knows")
    assert (unknown.returncode, "no lines about nobody/knows" in unknown.stderr) == (1, True)


# --- rejected


@pytest.fixture
def clean(stage: Stage) -> None:
    """Both queues empty."""
    for output in ("RejectedQueueUrl", "IntakeDeadLetterQueueUrl"):
        stage.client.sqs.purge_queue(QueueUrl=stage.client.outputs[output])


def waiting(stage: Stage, output: str) -> int:
    name = "ApproximateNumberOfMessages"
    told = stage.client.sqs.get_queue_attributes(QueueUrl=stage.client.outputs[output], AttributeNames=[name])
    return int(told["Attributes"][name])


def rejected_before(stage: Stage, message: object, message_id: str, truncated: bool = False) -> None:
    """As intake would have rejected it, for a reason that holds no more."""
    body = json.dumps(message)
    record = {"reason": "ceiling: too many", "message_id": message_id, "body": body, "truncated": truncated}
    queue = stage.client.outputs["RejectedQueueUrl"]
    stage.client.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(record))


@pytest.mark.usefixtures("clean")
def test_rejected_and_dead_messages_are_listed_and_stay_where_they_are(me: Person, stage: Stage) -> None:
    stage.client.send(["no json", {"source": "s3://b-1/x.bam", "pool": "nope"}])
    stage.until(lambda: waiting(stage, "RejectedQueueUrl") == 2, "both are rejected")
    dead = stage.client.outputs["IntakeDeadLetterQueueUrl"]
    stage.client.sqs.send_message(QueueUrl=dead, MessageBody="never settled")
    for _ in range(2):
        told = me.told("rejected")
        assert sorted((each["queue"], each["body"][:8]) for each in told["messages"]) == [
            ("dead", "never se"), ("rejected", "no json"), ("rejected", '{"source'),
        ]  # fmt: skip
        assert (waiting(stage, "RejectedQueueUrl"), waiting(stage, "IntakeDeadLetterQueueUrl")) == (2, 1)
    text = me.fleetcap("rejected").stdout
    assert "pool: there is no pool 'nope'; the pools are default" in text
    sample = me.fleetcap("rejected", "--limit", 1)
    assert "A sample: the queues hold more (rejected about 2, dead about 1)" in sample.stderr


@pytest.mark.usefixtures("clean")
def test_a_redrive_sends_what_can_run_once_and_leaves_the_rest_with_its_reason(anyone: Person, stage: Stage) -> None:
    name = "stack" if anyone.reach else "cloud"
    good, late = stage.sources(2)
    rejected_before(stage, {"source": good, "workflow_key": f"redriven/{name}"}, "good")
    rejected_before(stage, {"source": good, "workflow_key": f"redriven/{name}"}, "good")  # at a redelivery, too
    rejected_before(stage, {"source": good, "pool": "nope"}, "bad")
    rejected_before(stage, "x", "cut off", truncated=True)
    dead = {"source": late, "workflow_key": f"dead/{name}"}
    stage.client.sqs.send_message(
        QueueUrl=stage.client.outputs["IntakeDeadLetterQueueUrl"], MessageBody=json.dumps(dead)
    )
    assert anyone.fleetcap("redrive").returncode == 2
    unknown = anyone.fleetcap("redrive", "--message-id", "none", "--queue", "dead")
    assert (unknown.returncode, "not found in dead: none" in unknown.stderr) == (1, True)
    assert waiting(stage, "IntakeDeadLetterQueueUrl") == 1

    told = anyone.told("redrive", "--all", code=1)
    assert sorted(each["message_id"] for each in told["redriven"] if each["queue"] == "rejected") == ["bad", "good"]
    assert [each["message_id"] for each in told["left"]] == ["cut off"]
    stage.until_ended([f"redriven/{name}", f"dead/{name}"])
    stage.until(lambda: waiting(stage, "RejectedQueueUrl") == 2, "the bad one is back")
    again = anyone.told("rejected")["messages"]
    assert sorted(each["reason"][:30] for each in again) == ["ceiling: too many", "pool: there is no pool 'nope';"]
    assert waiting(stage, "IntakeDeadLetterQueueUrl") == 0


@pytest.mark.usefixtures("clean")
def test_a_redrive_killed_between_send_and_delete_loses_nothing_and_runs_nothing_twice(
    by_stack: Person, stage: Stage
) -> None:
    key = "killed/1"
    [source] = stage.sources(1)
    rejected_before(stage, {"source": source, "workflow_key": key}, "m")
    stage.client.fault("kill-after", actor="fleetcap-cli", operation="sqs:SendMessageBatch", times=1)
    condemned = {MARK: str((stage.folder.parent / "state").resolve())}
    assert by_stack.process("redrive", "--all", **condemned).returncode == -9
    stage.until_ended([key])

    stage.until(lambda: waiting(stage, "RejectedQueueUrl") == 1, "it shows again")
    assert len(by_stack.told("redrive", "--all")["redriven"]) == 1
    assert waiting(stage, "RejectedQueueUrl") == 0
    time.sleep(2)  # for intake to take what must change nothing
    job = stage.job(key)
    assert job
    assert (job.status, job.run, job.attempt) == (JobStatus.COMPLETED, 1, 1)


@pytest.mark.usefixtures("clean")
def test_whoever_waits_hears_that_a_message_was_rejected(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "ASK_REJECTED_EVERY_S", 0.0)
    target = Target("here", stage.client.outputs, stage.client.cloud.client)
    wanted = {"source": "s3://b-1/x.bam", "workflow_key": "above/the-ceiling"}
    rejected_before(stage, wanted, "mine")
    accepted = submission(json.dumps(wanted), 0.0, {"default": Pool("default", 1)}, [])
    ended = watch.until_ended(target, [accepted], {}, {accepted.key: "mine"})
    assert (ended.jobs, ended.refused) == ([], {"above/the-ceiling": "ceiling: too many"})


# --- import


def test_imported_results_answer_messages_without_a_run_or_a_launch(
    anyone: Person, stage: Stage, bam: Path, tmp_path: Path
) -> None:
    [job] = anyone.told("submit", bam, "--wait")["jobs"]
    client, bucket = stage.client, stage.client.outputs["InputBucketName"]
    old = {}
    for artifact in job["artifacts"]:
        kind = artifact.rpartition("/")[2]
        client.s3.copy_object(
            Bucket=bucket,
            Key=f"old/{bam.stem}/{kind}",
            CopySource={"Bucket": client.outputs["CacheBucketName"], "Key": artifact},
        )
        old[kind] = f"s3://{bucket}/old/{bam.stem}/{kind}"
    key = f"old/{'stack' if anyone.reach else 'cloud'}/v1"
    manifest = tmp_path / "manifest.jsonl"
    lost = {
        "workflow_key": f"{key}/lost",
        "processor": "bam",
        "artifacts": {**old, "sorted.bam": f"{old['sorted.bam']}x"},
    }
    manifest.write_text(json.dumps({"workflow_key": key, "processor": "bam", "artifacts": old}) + "\n")

    def counts(*words: object, code: int = 0) -> list[int]:
        told = anyone.told("import", manifest, *words, code=code)
        return [told[name] for name in ("jobs", "copied", "there_already", "missing")]

    assert counts("--dry-run") == [1, 2, 0, 0]
    assert anyone.fleetcap("get", key).returncode == 1
    assert counts() == [1, 2, 0, 0]
    manifest.write_text(manifest.read_text() + json.dumps(lost) + "\n")
    assert counts(code=1) == [2, 0, 2, 1]
    assert f"line 2: {old['sorted.bam']}x does not exist" in anyone.fleetcap("import", manifest).stderr

    launches = stage.launches
    stage.client.send([{"source": f"s3://{bucket}/never-there.bam", "workflow_key": key}])
    [answer] = stage.until_ended([key])
    assert (answer.status, answer.attempt, answer.claimed_at) == (JobStatus.COMPLETED, 0, 0.0)
    assert stage.launches == launches
    fetched = anyone.told("get", key, "--out", tmp_path)["artifacts"]
    assert verify(key, bam, Path(fetched[0]["path"])).reads == 400


# --- what is refused


def test_what_intake_would_reject_is_refused_at_once_and_nothing_is_sent(by_stack: Person, bam: Path) -> None:
    good = json.dumps({"source": "s3://b-1/x.bam", "workflow_key": "refused/good"})
    for words, stdin, why in (
        (["-"], f'{good}\n{{"source": "s3://b-1/x.bam", "pool": "nope"}}', "line 2: pool: there is no pool 'nope'"),
        (["-"], f"{good}\nno json", "line 2 is no JSON"),
        (["https://example.org/x.bam"], "", "the host example.org is not on the allow-list"),
        ([bam, "--key", "../x"], "", "workflow_key: must be 1 to 8 segments"),
        ([bam, "--processor", "nope"], "", "processor: "),
        ([bam, "--md5", "0" * 32], "", "its MD5 is"),
        (["no such file.bam"], "", "is neither a file nor"),
    ):
        done = by_stack.fleetcap("submit", *words, stdin=stdin)
        assert (done.returncode, done.stdout) == (1, "")
        assert why in done.stderr
        assert done.stderr.strip().endswith("nothing was sent")
        assert len(done.stderr.splitlines()) == 1
    for usage in ([], [bam, "s3://b-1/x.bam", "--key", "a"], ["-", "--pool", "one"], [bam, "--param", "x"]):
        assert by_stack.fleetcap("submit", *usage).returncode == 2
    time.sleep(1)
    assert by_stack.stage.job("refused/good") is None


def test_a_target_that_is_not_there_is_named_in_one_sentence(me: Person, tmp_path: Path) -> None:
    stranger = Person(tmp_path, me.stage)
    for words, environment, why in (
        (["--name", "other"], {}, "No embedded cloud other is up"),
        ([], {"AWS_REGION": "eu-central-1"}, "no embedded cloud default is up in this folder, and the deployment"),
        (["--stack", "other"], me.stage.client.cloud.environment(), "the deployment other cannot be reached: "),
    ):
        done = stranger.fleetcap("jobs", *words, **environment)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
        assert why in done.stderr
    assert me.fleetcap("jobs", "--name", "default", "--stack", "fleetcap").returncode == 2
    named = me.fleetcap("job", "0123456789abcdef-1")
    assert (named.returncode, "reads like a job's id" in named.stderr) == (1, True)
