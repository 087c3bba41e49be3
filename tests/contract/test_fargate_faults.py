"""Faults to order, against a real emulator: what the caller sees, what the events say, what the meter says."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError
from typer.testing import CliRunner

from cli import calls, faults
from cli.main import app
from fleetcap.decide.launch import refused as read_refusal
from fleetcap.events import TaskStopped, task_change
from fleetcap.model import Doubt, Unanswered
from local.client import Client
from local.cloud import CloudError, Endpoints
from local.fargate.faults import ACTS, KINDS
from local.fargate.tasks import Launch, Registry, Status
from local.proxy.faults import KINDS as CALL_KINDS
from tests.contract.fargate_cloud import NETWORK, SLEEP, Cloud, code, refused, running_cloud, wait_for

QUICK: Final = ["true"]
DEAF: Final = [
    "python",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]
POLITE: Final = [
    "python",
    "-c",
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True);"
    "time.sleep(60)",
]
LONG_AGO_S: Final = 60


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        cloud.proxy_url = cloud.start_proxy()
        yield cloud


@pytest.fixture
def cloud(running: Cloud) -> Iterator[Cloud]:
    """The cloud, in which no fault outlasts its test."""
    yield running
    client(running).calm()


def client(cloud: Cloud, **families: str) -> Client:
    """A client of the cloud, with a pool for each of these families."""
    definitions = {pool: f"arn:aws:ecs:us-east-1:000000000000:task-definition/{f}" for pool, f in families.items()}
    endpoints = Endpoints(cloud.proxy_url, cloud.url, str(cloud.certificate))
    return Client(endpoints, {"WorkerTaskDefinitionArns": json.dumps(definitions)})


def metered(cloud: Cloud, definition: str) -> Any:
    """The meter's figures of a family; None where no task of it ever lived."""
    return cloud.meter()["by_family"].get(definition.removesuffix(":1"))


def statuses(events: list[Any]) -> list[str]:
    return [event["detail"]["lastStatus"] for event in events]


def has_stopped(seen: list[Any]) -> bool:
    return "STOPPED" in statuses(seen)


# --- the past of a task: no cloud needed


def test_a_read_may_show_a_task_as_it_was() -> None:
    definition = {"family": "f", "taskDefinitionArn": "f:1", "containerDefinitions": [{"name": "worker"}]}
    registry = Registry(lambda _: None)
    _, [task] = registry.run(Launch("arn:aws:ecs:r:1:cluster/c", definition), now=0)
    registry.advance(task, Status.RUNNING, now=10)
    registry.stopping(task, 20, "UserInitiated", "enough")
    registry.stopped(task, now=30)

    def seen(lag: float) -> list[str]:
        shown = registry.describe("arn:aws:ecs:r:1:cluster/c", [task.arn], False, now=35, lag_s=lambda _: lag)
        return [each["lastStatus"] for each in shown["tasks"]] + [each["reason"] for each in shown["failures"]]

    def listed(lag: float) -> list[str]:
        return registry.arns("arn:aws:ecs:r:1:cluster/c", "RUNNING", "", "", now=35, lag_s=lambda _: lag)

    assert [seen(lag) for lag in (0, 4, 6, 20, 30, 36)] == [
        ["STOPPED"], ["STOPPED"], ["RUNNING"], ["RUNNING"], ["PROVISIONING"], ["MISSING"],
    ]  # fmt: skip
    assert [listed(lag) for lag in (0, 6, 16, 36)] == [[], [], [task.arn], []]


# --- RunTask


@pytest.mark.cloud
def test_missing_capacity_is_recorded_under_the_token(cloud: Cloud) -> None:
    definition = cloud.define(QUICK)
    fault = client(cloud).fault("no-capacity", times=1)
    failed = cloud.run(definition, clientToken="short")
    assert failed["tasks"] == [] and failed["failures"][0]["reason"].startswith("Capacity is unavailable at this time")
    assert cloud.run(definition, clientToken="short")["failures"] == failed["failures"]
    [listed] = client(cloud).faults()
    assert (listed["id"], listed["struck"], listed["left"]) == (fault, 1, 0)
    assert metered(cloud, definition) is None
    assert len(cloud.run(definition, clientToken="other")["tasks"]) == 1


@pytest.mark.cloud
def test_some_tasks_of_one_call_may_lack_capacity(cloud: Cloud) -> None:
    client(cloud).fault("no-capacity", times=2)
    answer = cloud.run(cloud.define(QUICK), count=3)
    assert (len(answer["tasks"]), len(answer["failures"])) == (1, 2)


@pytest.mark.cloud
@pytest.mark.parametrize(
    ("kind", "text", "error", "doubt"),
    [
        ("throttle", "", "ThrottlingException", Doubt.THROTTLED),
        ("wrapped-throttle", "", "InvalidParameterException", Doubt.THROTTLED),
        ("refuse", "", "AccessDeniedException", Doubt.PERMANENT),
        ("refuse", "BlockedException: Your account is blocked.", "BlockedException", Doubt.PERMANENT),
        ("refuse", "ConflictException", "ConflictException", Doubt.UNKNOWN),
        ("timeout-before-start", "", "ServerException", Doubt.UNKNOWN),
    ],
)
def test_an_error_of_run_task_starts_nothing_and_is_read_for_what_it_is(
    cloud: Cloud, kind: str, text: str, error: str, doubt: Doubt
) -> None:
    definition = cloud.define(QUICK)
    client(cloud).fault(kind, times=1, text=text)
    answer = refused(lambda: cloud.run(definition, clientToken=f"{kind}{text}"[:64]))
    assert answer["Error"]["Code"] == error
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == (500 if error == "ServerException" else 400)
    read = read_refusal(error, answer["Error"]["Message"], [])
    assert isinstance(read, Unanswered) and read.doubt is doubt
    assert metered(cloud, definition) is None
    assert len(cloud.run(definition, clientToken=f"{kind}{text}"[:64])["tasks"]) == 1


@pytest.mark.cloud
def test_a_token_whose_answer_was_lost_is_answered_with_the_very_task(cloud: Cloud) -> None:
    definition = cloud.define(SLEEP)
    client(cloud).fault("timeout-after-start", times=2)
    for _ in range(2):
        assert code(lambda: cloud.run(definition, clientToken="lost")) == "ServerException"
    [task] = [task for task in cloud.meter()["tasks"] if task["family"] == definition.removesuffix(":1")]
    assert [each["taskArn"] for each in cloud.run(definition, clientToken="lost")["tasks"]] == [task["arn"]]
    assert metered(cloud, definition)["tasks_launched"] == 1
    cloud.reaches(task["arn"], "RUNNING")
    client(cloud).kill(task["arn"])


@pytest.mark.cloud
def test_an_error_may_come_so_late_that_the_caller_has_given_up(cloud: Cloud) -> None:
    definition = cloud.define(QUICK)
    client(cloud).fault("timeout-after-start", seconds=2)
    config = Config(read_timeout=0.5, retries={"total_max_attempts": 1})
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    impatient = boto3.client("ecs", endpoint_url=cloud.url, config=config, **keys)  # type: ignore[call-overload]
    with pytest.raises(ReadTimeoutError):
        impatient.run_task(
            cluster="fleet", taskDefinition=definition, launchType="FARGATE", networkConfiguration=NETWORK
        )
    impatient.close()
    wait_for(lambda: metered(cloud, definition)["tasks_launched"] == 1)


@pytest.mark.cloud
def test_a_task_that_never_starts_stops_without_containers(cloud: Cloud) -> None:
    definition = cloud.define(SLEEP)
    client(cloud).fault("never-starts", times=1)
    arn = cloud.launch(definition, startedBy="pool/1/7")
    stopped = cloud.reaches(arn, "STOPPED")
    assert (stopped["stopCode"], stopped["containers"], "startedAt" in stopped) == ("TaskFailedToStart", [], False)
    events = cloud.events(arn, has_stopped)
    assert (statuses(events), events[-1]["detail"]["containers"]) == (["PROVISIONING", "PROVISIONING", "STOPPED"], [])
    read = task_change(events[-1])
    assert isinstance(read, TaskStopped)
    assert (read.arn, read.started_by) == (arn, "pool/1/7")
    assert "TaskFailedToStart Timeout waiting for network interface" in read.stop.text
    assert metered(cloud, definition) == {"live_tasks": 0, "peak_live_tasks": 1, "tasks_launched": 1}
    assert cloud.metered(arn)["pid"] == 0
    next_one = cloud.launch(definition)
    cloud.reaches(next_one, "RUNNING")
    client(cloud).kill(next_one)


@pytest.mark.cloud
def test_an_image_that_cannot_be_pulled_is_the_containers_reason(cloud: Cloud) -> None:
    client(cloud).fault("image", times=1)
    arn = cloud.launch(cloud.define(QUICK))
    stopped = cloud.reaches(arn, "STOPPED")
    assert stopped["stopCode"] == "TaskFailedToStart"
    assert stopped["containers"][0]["reason"] == stopped["stoppedReason"]
    assert stopped["stoppedReason"].startswith("CannotPullContainerError")
    assert "PENDING" in statuses(cloud.events(arn, has_stopped))


# --- whom, and how often


@pytest.mark.cloud
def test_a_fault_of_one_pool_leaves_the_others_alone(cloud: Cloud) -> None:
    mine, other = cloud.define(QUICK), cloud.define(QUICK)
    client(cloud, mine=mine).fault("throttle", pool="mine")
    for reference in (mine, mine.removesuffix(":1"), f"arn:aws:ecs:us-east-1:000000000000:task-definition/{mine}"):
        assert code(lambda r=reference: cloud.run(r)) == "ThrottlingException"  # type: ignore[misc]
    assert len(cloud.run(other)["tasks"]) == 1
    assert [each["struck"] for each in client(cloud).faults()] == [3]
    with pytest.raises(CloudError, match="There is no pool 'theirs'; there are mine"):
        client(cloud, mine=mine).fault("throttle", pool="theirs")


@pytest.mark.cloud
def test_a_share_under_a_seed_strikes_the_same_calls_again(cloud: Cloud) -> None:
    definition = cloud.define(SLEEP)
    cloud.launch(definition, startedBy="share/1/1")

    def struck() -> list[bool]:
        client(cloud).fault("empty-list", share=0.5, seed=11)
        answers = [cloud.ecs.list_tasks(cluster="fleet", startedBy="share/1/1")["taskArns"] for _ in range(20)]
        assert client(cloud).faults()[0]["struck"] == answers.count([])
        client(cloud).calm()
        return [not arns for arns in answers]

    first = struck()
    assert struck() == first and 4 <= sum(first) <= 16
    [arn] = cloud.ecs.list_tasks(cluster="fleet", startedBy="share/1/1")["taskArns"]
    cloud.ecs.stop_task(cluster="fleet", task=arn)


@pytest.mark.cloud
def test_faults_are_listed_and_cleared_one_or_all(cloud: Cloud) -> None:
    assert client(cloud).faults() == []
    first = client(cloud).fault("throttle", times=2, share=0.5, seed=3)
    second = client(cloud).fault("lag-list", seconds=5)
    listed, other = client(cloud).faults()
    assert listed == {
        "id": first, "kind": "throttle", "times": 2, "share": 0.5, "seconds": 0.0, "family": "", "seed": 3,
        "text": "", "struck": 0, "left": 2,
    }  # fmt: skip
    assert (other["id"], other["seconds"], other["left"], other["struck"]) == (second, 5, None, 0)
    assert client(cloud)._ask("ecs", "DELETE", f"faults?id={first}") == {"cleared": 1}
    with pytest.raises(CloudError, match=f"No fault {first} stands"):
        client(cloud)._ask("ecs", "DELETE", f"faults?id={first}")
    assert (client(cloud).calm(), client(cloud).faults()) == (1, [])


@pytest.mark.cloud
def test_what_cannot_be_done_is_refused_with_a_sentence(cloud: Cloud) -> None:
    ask = client(cloud)._ask
    wrong: list[tuple[str, object, str]] = [
        ("faults", {"kind": "flood"}, "There is no fault 'flood'"),
        ("faults", ["throttle"], "The body must be a JSON object"),
        ("capacity", {"tasks": -1}, "`tasks` is a whole number"),
        ("cold-start", {"seconds": None}, "`seconds` is a number"),
        ("tasks/tickle", {"arn": "x"}, "there are hang, resume, spot, kill"),
        ("tasks/spot", {"arn": "x", "seconds": 121}, "`seconds` is a number from 0 to 120"),
        ("tasks/hang", {"arn": "x", "seconds": 1}, "hang takes no `seconds`"),
        ("tasks/hang", {"arn": "x"}, "There is no task 'x'"),
    ]
    for path, body, sentence in wrong:
        with pytest.raises(CloudError, match=sentence):
            ask("ecs", "POST", path, body)  # type: ignore[arg-type]
    assert client(cloud).faults() == []


# --- events


@pytest.mark.cloud
def test_the_event_that_a_task_stopped_is_lost_and_the_others_are_not(cloud: Cloud) -> None:
    definition = cloud.define(QUICK)
    client(cloud, mine=definition).fault("drop-events", text="STOPPED", pool="mine")
    arn = cloud.launch(definition)
    cloud.reaches(arn, "STOPPED")
    other = cloud.launch(cloud.define(QUICK))
    cloud.events(other, has_stopped)
    assert statuses(cloud.events(arn, bool)) == ["PROVISIONING", "PENDING", "RUNNING", "DEPROVISIONING"]
    assert metered(cloud, definition)["live_tasks"] == 0


@pytest.mark.cloud
def test_events_that_arrive_twice_have_one_version(cloud: Cloud) -> None:
    definition = cloud.define(QUICK)
    client(cloud, mine=definition).fault("double-events", pool="mine")
    arn = cloud.launch(definition)
    events = cloud.events(arn, lambda seen: len(seen) == 10)
    assert sorted(event["detail"]["version"] for event in events) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.cloud
def test_events_that_are_delayed_lose_their_order_within_one_task(cloud: Cloud) -> None:
    definition = cloud.define(QUICK)
    client(cloud, mine=definition).fault("delay-events", seconds=10, seed=158, pool="mine")  # 10, 1, 7, 6, 0.4 s
    arn = cloud.launch(definition)
    assert cloud.reaches(arn, "STOPPED")
    events = cloud.events(arn, lambda seen: len(seen) == 5)
    versions = [event["detail"]["version"] for event in events]
    assert sorted(versions) == [1, 2, 3, 4, 5]
    assert versions.index(5) < versions.index(3) and versions.index(2) < versions.index(1)
    changed = [event["detail"]["updatedAt"] for event in sorted(events, key=lambda event: event["detail"]["version"])]
    assert changed == sorted(changed)  # an event says when the task changed, not when it arrives


# --- reads


@pytest.mark.cloud
def test_reads_that_lag_do_not_know_a_new_task(cloud: Cloud) -> None:
    definition = cloud.define(SLEEP)
    arn = cloud.launch(definition, startedBy="lag/1/1")
    family = definition.removesuffix(":1")
    lagging = client(cloud, mine=family, other="other")
    for kind in ("lag-list", "lag-describe"):
        lagging.fault(kind, seconds=LONG_AGO_S, pool="mine")
    assert cloud.ecs.list_tasks(cluster="fleet", startedBy="lag/1/1")["taskArns"] == []
    assert cloud.ecs.list_tasks(cluster="fleet", family=family)["taskArns"] == []
    shown = cloud.ecs.describe_tasks(cluster="fleet", tasks=[arn])
    assert (shown["tasks"], shown["failures"]) == ([], [{"arn": arn, "reason": "MISSING"}])
    lagging.calm()
    for kind in ("lag-list", "lag-describe", "empty-list"):
        lagging.fault(kind, seconds=0 if kind == "empty-list" else LONG_AGO_S, pool="other")
    assert cloud.ecs.list_tasks(cluster="fleet", startedBy="lag/1/1")["taskArns"] == [arn]
    assert cloud.task(arn)["taskArn"] == arn
    lagging.calm()
    lagging.fault("empty-list")
    assert cloud.ecs.list_tasks(cluster="fleet", startedBy="lag/1/1")["taskArns"] == []
    assert cloud.task(arn)["taskArn"] == arn
    cloud.ecs.stop_task(cluster="fleet", task=arn)


@pytest.mark.cloud
def test_reads_that_lag_show_a_stopped_task_running(cloud: Cloud) -> None:
    arn = cloud.launch(cloud.define(SLEEP), startedBy="lag/2/1")
    cloud.reaches(arn, "RUNNING")
    lag_s = 5.0  # as long as a busy machine may take from the kill to the last look
    time.sleep(lag_s)
    for kind in ("lag-list", "lag-describe"):
        client(cloud).fault(kind, seconds=lag_s)
    client(cloud).kill(arn)
    wait_for(lambda: cloud.metered(arn)["lastStatus"] == "STOPPED")
    assert (cloud.task(arn)["lastStatus"], cloud.task(arn)["desiredStatus"]) == ("RUNNING", "RUNNING")
    assert cloud.ecs.list_tasks(cluster="fleet", startedBy="lag/2/1")["taskArns"] == [arn]
    cloud.reaches(arn, "STOPPED")
    assert cloud.ecs.list_tasks(cluster="fleet", startedBy="lag/2/1")["taskArns"] == []


# --- acts on one task


def states(pids: list[int]) -> set[str]:
    return {psutil.Process(pid).status() for pid in pids}


def started(cloud: Cloud, argv: list[str]) -> str:
    """A task that runs and has said so."""
    arn = cloud.launch(cloud.define(argv))
    cloud.reaches(arn, "RUNNING")
    wait_for(lambda: "\n" in cloud.printed(arn))
    return arn


FAMILY: Final = [
    "python",
    "-c",
    "import subprocess, time; sleep = ['sleep', '60']; own = {'start_new_session': True};"
    "print(subprocess.Popen(sleep).pid, subprocess.Popen(sleep, **own).pid, flush=True); time.sleep(60)",
]


@pytest.mark.cloud
def test_a_hung_task_is_frozen_with_all_its_processes_and_resumes(cloud: Cloud) -> None:
    arn = started(cloud, FAMILY)
    pids = [cloud.metered(arn)["pid"], *map(int, cloud.printed(arn).split())]
    assert psutil.STATUS_STOPPED not in states(pids)
    client(cloud).act("hang", arn)
    wait_for(lambda: states(pids) == {psutil.STATUS_STOPPED})
    assert (cloud.task(arn)["lastStatus"], cloud.task(arn)["desiredStatus"]) == ("RUNNING", "RUNNING")
    assert cloud.metered(arn)["lastStatus"] == "RUNNING"
    client(cloud).act("resume", arn)
    wait_for(lambda: psutil.STATUS_STOPPED not in states(pids))
    client(cloud).act("hang", arn)
    client(cloud).kill(arn)
    cloud.reaches(arn, "STOPPED")
    wait_for(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids))


@pytest.mark.cloud
def test_a_hung_task_hears_no_stop_and_is_killed_after_its_stop_timeout(cloud: Cloud) -> None:
    arn = cloud.launch(cloud.define(POLITE, stopTimeout=1))
    cloud.reaches(arn, "RUNNING")
    wait_for(lambda: "\n" in cloud.printed(arn))
    client(cloud).act("hang", arn)
    cloud.ecs.stop_task(cluster="fleet", task=arn)
    assert cloud.reaches(arn, "STOPPED")["containers"][0]["exitCode"] == 128 + signal.SIGKILL


@pytest.mark.cloud
def test_a_spot_interruption_warns_by_event_and_signal_before_the_task_stops(cloud: Cloud) -> None:
    arn = started(cloud, POLITE)
    client(cloud).act("spot", arn)
    events = cloud.events(arn, has_stopped)
    details = [event["detail"] for event in events[3:]]
    assert [(each["lastStatus"], each["desiredStatus"], each["stopCode"]) for each in details] == [
        ("RUNNING", "STOPPED", "SpotInterruption"),
        ("DEPROVISIONING", "STOPPED", "SpotInterruption"),
        ("STOPPED", "STOPPED", "SpotInterruption"),
    ]
    assert details[-1]["containers"][0]["exitCode"] == 7
    assert details[-1]["stoppedReason"] == "Your Spot Task was interrupted."
    with pytest.raises(CloudError, match=f"too early or too late for spot: task {arn.rpartition('/')[2]} is STOPPED"):
        client(cloud).act("spot", arn)
    with pytest.raises(CloudError, match="too early or too late for hang"):
        client(cloud).act("hang", arn)


@pytest.mark.cloud
def test_a_spot_task_that_ignores_the_warning_is_killed(cloud: Cloud) -> None:
    arn = started(cloud, DEAF)
    before = time.monotonic()
    client(cloud).act("spot", arn, 3)
    assert (cloud.task(arn)["lastStatus"], cloud.task(arn)["stopCode"]) == ("RUNNING", "SpotInterruption")
    stopped = cloud.reaches(arn, "STOPPED")
    assert 2.9 < time.monotonic() - before < 28  # far below what it would be by default
    assert (stopped["stopCode"], stopped["containers"][0]["exitCode"]) == ("SpotInterruption", 137)


# --- the command line


@pytest.fixture
def fleetcap(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command, told that the only cloud is this one; what it prints."""

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, ["local", *map(str, arguments)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    for command in (faults, calls):
        monkeypatch.setattr(command, "client", lambda _: client(cloud, default="family-1", idle="nobody"))
    return run


def test_the_command_knows_every_kind() -> None:
    text = CliRunner().invoke(app, ["local", "fault", "--help"], env={"COLUMNS": "160"}).output
    assert [name for name in [*KINDS, *CALL_KINDS, *ACTS] if f" {name} " not in text] == []


@pytest.mark.cloud
def test_faults_are_ordered_shown_and_cleared_by_command(fleetcap: Callable[..., str]) -> None:
    assert fleetcap("faults") == "No fault stands.\n"
    said = fleetcap("fault", "drop-events", "--text", "STOPPED", "--share", 0.3, "--times", 2, "--pool", "default")
    assert "drop-events, stands until it has struck 2 times or `fleetcap local calm`." in said
    fleetcap("fault", "lag-list", "--seconds", 5, "--seed", 9)
    [dropped, lagging] = json.loads(fleetcap("faults", "--json"))
    assert (dropped["family"], dropped["text"], dropped["share"], dropped["left"]) == ("family-1", "STOPPED", 0.3, 2)
    assert (lagging["kind"], lagging["seconds"], lagging["seed"]) == ("lag-list", 5, 9)
    shown = fleetcap("faults")
    assert "drop-events" in shown and "family-1" in shown and "always" in shown
    with pytest.raises(CloudError, match="delay-events needs `seconds`: how late they come at most"):
        fleetcap("fault", "delay-events")
    said = fleetcap("fault", "kill-after", "--actor", "fleetcap-tick", "--operation", "ecs:RunTask")
    assert "kill-after, stands until `fleetcap local calm`." in said
    killing = json.loads(fleetcap("faults", "--json"))[-1]
    assert (killing["kind"], killing["actor"], killing["operation"]) == ("kill-after", "fleetcap-tick", "ecs:RunTask")
    shown = fleetcap("faults")
    assert "fleetcap-tick" in shown and "ecs:RunTask" in shown and str(killing["seed"]) in shown
    with pytest.raises(CloudError, match="share: Input should be greater than 0"):
        fleetcap("fault", "drop-reply", "--share", 0)
    assert fleetcap("calm") == "3 faults cleared.\n"
    assert fleetcap("calls") == "Nobody has called yet.\n"


@pytest.mark.cloud
def test_an_act_without_a_task_is_done_to_the_one_that_runs_longest(cloud: Cloud, fleetcap: Callable[..., str]) -> None:
    wait_for(lambda: cloud.meter()["live_tasks"] == 0)
    with pytest.raises(CloudError, match="No task of the pool idle is running"):
        fleetcap("fault", "spot", "--pool", "idle")
    first, second = started(cloud, SLEEP), started(cloud, SLEEP)
    assert fleetcap("fault", "hang") == f"hang: {first}\n"
    assert fleetcap("fault", "resume") == f"resume: {first}\nresume: {second}\n"
    assert fleetcap("fault", "kill", "--task", second.rpartition("/")[2]) == f"kill: {second.rpartition('/')[2]}\n"
    assert fleetcap("fault", "spot", "--seconds", 1) == f"spot: {first}\n"
    for arn in (first, second):
        cloud.reaches(arn, "STOPPED")
