"""What ports.Tasks and the events promise: ECS in memory and the Fargate of real processes keep it alike.

The simulator rests on the one, the demo and the tests of whole bursts on the other; the product must not be able to
tell them apart. What takes an hour is asked of the two that have a clock to move.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Protocol
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError

from fleetcap import keys
from fleetcap.adapters.workers import EcsTasks
from fleetcap.decide import launch as decide
from fleetcap.events import TaskStopped, task_change
from fleetcap.limits import DESCRIBE_TASKS_MAX_ARNS
from fleetcap.model import (
    Doubt,
    LaunchAnswer,
    Lease,
    NotStarted,
    Pool,
    SeenTask,
    SlotId,
    Started,
    Stop,
    TaskStatus,
    Unanswered,
)
from fleetcap.ports import Tasks
from local.fargate.tasks import EcsError, Launch, Registry, Status
from local.memory.ecs import MemoryEcs, MemoryTask
from tests.contract.fargate_cloud import COLD_START_S, Cloud, post, running_cloud, wait_for
from tests.examples import GENERATION, LAUNCH, NOW
from tests.fakes import HandEcs

CLUSTER: Final = "fleet"
ELSEWHERE: Final = "elsewhere"
NOBODY: Final = "arn:aws:ecs:us-east-1:000000000000:task/fleet/" + "f" * 32
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
ORDER: Final = list(Status)
NUMBERS: Final = itertools.count()

WORKS: Final = (
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1});"
    "print('up', flush=True); signal.sigwait({signal.SIGUSR1})"
)
"""A main process that ends by itself once it gets SIGUSR1."""
DEAF: Final = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + WORKS


def a_lease() -> Lease:
    """Another one each time, as the Fargate of real processes remembers the tokens of earlier tests."""
    return Lease(SlotId("default", next(NUMBERS)), GENERATION)


def request(lease: Lease, definition: str = "worker:7", **changes: object) -> str:
    """The parameters that are stored with a lease."""
    pool = Pool("default", 4, {**LAUNCH, "cluster": CLUSTER, "taskDefinition": definition, **changes})
    return decide.request(pool, lease, keys.ENV_LEASE)


# --- the worlds


class World(ABC):
    """An ECS, its capacity, what befalls its tasks, and what it told of them."""

    tasks: Tasks

    @abstractmethod
    def request(self, lease: Lease, deaf: bool = False, **changes: object) -> str:
        """What is sent for a lease. A deaf task does not end for being asked to."""

    @abstractmethod
    def limit(self, tasks: int | None) -> None:
        """How many tasks may live from now on."""

    @abstractmethod
    def hold_starts(self) -> None:
        """Tasks launched from now on do not come to run."""

    @abstractmethod
    def status(self, arn: str) -> Status:
        """The truth."""

    @abstractmethod
    def reaches(self, arn: str, status: Status) -> None:
        """Let the task go its way until it is that far. One that nobody stops goes no further than RUNNING."""

    @abstractmethod
    def ends(self, arn: str, killed: bool = False) -> None:
        """The main process of a running task ends by itself, or gets killed."""

    @abstractmethod
    def told(self, arn: str) -> list[dict[str, Any]]:
        """The events about a task that has stopped, once STOPPED is among them."""

    @abstractmethod
    def at_once(self, times: int, send: Callable[[], LaunchAnswer]) -> list[LaunchAnswer]:
        """The answers of senders of whom none waits for another."""

    def send(self, lease: Lease, deaf: bool = False, **changes: object) -> LaunchAnswer:
        """RunTask."""
        return self.tasks.run(lease, self.request(lease, deaf, **changes))

    def launch(self, lease: Lease | None = None, deaf: bool = False) -> str:
        """A new task's ARN."""
        return started(self.send(lease or a_lease(), deaf))

    def word(self, arn: str, cluster: str = CLUSTER) -> TaskStatus:
        """What DescribeTasks says about one task."""
        return self.tasks.describe(cluster, [arn])[arn]


class MemoryWorld(World):
    """Tasks move when a test moves them, and time does."""

    def __init__(self, make: type[MemoryEcs] = MemoryEcs) -> None:
        self.time = NOW
        self.ecs = make(lambda: self.time, self._hear)
        self.tasks = self.ecs
        self._events: list[dict[str, Any]] = []
        self._meanwhile: list[Callable[[], None]] = []

    def request(self, lease: Lease, deaf: bool = False, **changes: object) -> str:
        return request(lease, "deaf:1" if deaf else "worker:7", **changes)

    def limit(self, tasks: int | None) -> None:
        self.ecs.capacity = tasks

    def hold_starts(self) -> None:
        """Nothing starts by itself here."""

    def status(self, arn: str) -> Status:
        return self.ecs.tasks[arn].status

    def reaches(self, arn: str, status: Status) -> None:
        task = self.ecs.tasks[arn]
        while ORDER.index(task.status) < ORDER.index(status):
            self.ecs.advance(task, self._next(task))

    def ends(self, arn: str, killed: bool = False) -> None:
        task = self.ecs.tasks[arn]
        self.ecs.stopping(task, "EssentialContainerExited", "killed" if killed else "exited")
        self.ecs.advance(task, Status.DEPROVISIONING)

    def told(self, arn: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event["detail"]["taskArn"] == arn]

    def at_once(self, times: int, send: Callable[[], LaunchAnswer]) -> list[LaunchAnswer]:
        """The others send as soon as anybody hears of the first one's task, which is before the first one does."""
        answers: list[LaunchAnswer] = []
        self._meanwhile = [lambda: answers.append(send())] * (times - 1)
        answers.append(send())
        return answers

    def stopped(self, arn: str) -> None:
        """The task runs and ends."""
        self.reaches(arn, Status.RUNNING)
        self.ends(arn)
        self.reaches(arn, Status.STOPPED)

    def _next(self, task: MemoryTask) -> Status:
        if task.stopping:
            return Status.DEPROVISIONING if task.status is Status.RUNNING else Status.STOPPED
        assert task.status is not Status.RUNNING, "nobody stops it"
        return ORDER[ORDER.index(task.status) + 1]

    def _hear(self, task: MemoryTask) -> None:
        self._events.append(task.event())
        while self._meanwhile:
            self._meanwhile.pop()()


class FargateWorld(World):
    """Tasks are processes, and the product's adapter asks for them over HTTP."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.tasks = EcsTasks(cloud.ecs)
        self._definitions = {deaf: cloud.define(["python", "-c", DEAF if deaf else WORKS]) for deaf in (False, True)}
        cloud.client("ecs").create_cluster(clusterName=ELSEWHERE)

    def request(self, lease: Lease, deaf: bool = False, **changes: object) -> str:
        return request(lease, self._definitions[deaf], **changes)

    def limit(self, tasks: int | None) -> None:
        post(f"{self.cloud.url}/_fleetcap/capacity", {"tasks": tasks})

    def hold_starts(self) -> None:
        self._cold_start(3_600)

    def status(self, arn: str) -> Status:
        return Status(self.cloud.metered(arn)["lastStatus"])

    def reaches(self, arn: str, status: Status) -> None:
        wait_for(lambda: ORDER.index(self.status(arn)) >= ORDER.index(status))
        if status is Status.RUNNING:
            wait_for(lambda: "up" in self.cloud.printed(arn))

    def ends(self, arn: str, killed: bool = False) -> None:
        pid = self.cloud.metered(arn)["pid"]
        assert pid, "it has not come to run"  # 0 would mean our own process group
        os.kill(pid, signal.SIGKILL if killed else signal.SIGUSR1)

    def told(self, arn: str) -> list[dict[str, Any]]:
        return self.cloud.events(arn, lambda seen: any(isinstance(task_change(event), TaskStopped) for event in seen))

    def at_once(self, times: int, send: Callable[[], LaunchAnswer]) -> list[LaunchAnswer]:
        barrier = threading.Barrier(times)

        def sender(_: int) -> LaunchAnswer:
            barrier.wait()
            return send()

        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(sender, range(times)))

    def clear(self) -> None:
        """End every task of a test, so that the next one has the capacity for itself."""
        self.limit(None)
        self._cold_start(COLD_START_S)

        def cleared() -> bool:
            living = [task for task in self.cloud.meter()["tasks"] if task["lastStatus"] != "STOPPED"]
            for task in living:
                for cluster in (CLUSTER, ELSEWHERE):
                    self.tasks.stop(cluster, task["arn"], "the test is over")
                with suppress(HTTPError):  # it has no process yet, or none any more
                    post(f"{self.cloud.url}/_fleetcap/tasks/kill", {"arn": task["arn"]})
            return not living

        wait_for(cleared)

    def _cold_start(self, seconds: float) -> None:
        post(f"{self.cloud.url}/_fleetcap/cold-start", {"seconds": seconds})


@pytest.fixture(scope="module")
def fargate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FargateWorld]:
    with running_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield FargateWorld(cloud)


@pytest.fixture(params=[MemoryEcs, HandEcs, pytest.param("fargate", marks=pytest.mark.cloud)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param != "fargate":
        yield MemoryWorld(request.param)
        return
    fargate: FargateWorld = request.getfixturevalue("fargate")
    yield fargate
    fargate.clear()


def started(answer: LaunchAnswer) -> str:
    """The ARN of an answer that names one."""
    assert isinstance(answer, Started), answer
    return answer.arn


def statuses(events: list[dict[str, Any]]) -> list[Status]:
    return [Status(event["detail"]["lastStatus"]) for event in events]


def the_end(world: World, arn: str) -> TaskStopped:
    """What the product reads from the event of a task that has stopped, however often it was told."""
    read = {stopped for event in world.told(arn) if isinstance(stopped := task_change(event), TaskStopped)}
    assert len(read) == 1
    return read.pop()


# --- tokens


def test_one_lease_is_one_task_however_often_it_is_sent(world: World) -> None:
    lease = a_lease()
    arn = world.launch(lease)
    assert world.send(lease) == Started(arn)
    world.reaches(arn, Status.RUNNING)
    assert world.send(lease) == Started(arn)
    world.ends(arn)
    world.reaches(arn, Status.STOPPED)
    assert world.send(lease) == Started(arn)
    assert world.word(arn) is TaskStatus.STOPPED


def test_senders_that_come_at_once_are_told_of_one_task(world: World) -> None:
    lease = a_lease()
    answers = world.at_once(8, lambda: world.send(lease))
    assert len(answers) == 8
    assert len({started(answer) for answer in answers}) == 1


def test_another_lease_is_another_task(world: World) -> None:
    lease = a_lease()
    leases = [lease, a_lease(), lease._replace(generation=lease.generation + 1)]
    arns = [world.launch(each) for each in leases]
    assert len(set(arns)) == 3
    assert world.tasks.describe(CLUSTER, arns) == dict.fromkeys(arns, TaskStatus.ALIVE)


def test_a_failure_is_the_answer_of_its_lease_also_when_there_is_capacity_again(world: World) -> None:
    lease = a_lease()
    world.limit(0)
    failed = world.send(lease)
    world.limit(None)
    assert isinstance(failed, NotStarted)
    assert failed.reason.startswith("Capacity is unavailable at this time")
    assert world.send(lease) == failed
    world.launch(a_lease())
    assert world.send(lease) == failed


def test_other_parameters_under_a_lease_conflict_and_name_its_task(world: World) -> None:
    lease = a_lease()
    arn = world.launch(lease)
    assert world.send(lease, group="other") == Started(arn)
    world.reaches(arn, Status.RUNNING)
    world.ends(arn)
    world.reaches(arn, Status.STOPPED)
    assert world.send(lease, group="other") == Started(arn)
    assert world.send(lease) == Started(arn)


def test_other_parameters_after_a_failure_conflict_and_say_nothing(world: World) -> None:
    lease = a_lease()
    world.limit(0)
    failed = world.send(lease)
    world.limit(None)
    doubt = world.send(lease, group="other")
    assert isinstance(doubt, Unanswered)
    assert doubt.doubt is Doubt.UNKNOWN
    assert doubt.reason.startswith("ConflictException")
    assert world.send(lease) == failed


def test_a_token_is_known_in_its_cluster_only(world: World) -> None:
    lease = a_lease()
    here, elsewhere = world.launch(lease), started(world.send(lease, cluster=ELSEWHERE))
    assert here != elsewhere
    assert (world.send(lease), world.send(lease, cluster=ELSEWHERE)) == (Started(here), Started(elsewhere))


# --- capacity


def test_capacity_counts_the_tasks_that_live(world: World) -> None:
    world.limit(2)
    lease = a_lease()
    arn, _ = world.launch(lease), world.launch()
    assert isinstance(world.send(a_lease()), NotStarted)
    assert world.send(lease) == Started(arn), "what was started is not started again"
    world.reaches(arn, Status.RUNNING)
    world.ends(arn)
    world.reaches(arn, Status.STOPPED)
    world.launch()
    assert isinstance(world.send(a_lease()), NotStarted)


def test_less_capacity_ends_no_task(world: World) -> None:
    arns = [world.launch(), world.launch()]
    world.limit(1)
    assert isinstance(world.send(a_lease()), NotStarted)
    assert world.tasks.describe(CLUSTER, arns) == dict.fromkeys(arns, TaskStatus.ALIVE)


def test_a_task_takes_its_place_until_it_has_stopped(world: World) -> None:
    world.limit(1)
    arn = world.launch(deaf=True)
    world.reaches(arn, Status.RUNNING)
    world.tasks.stop(CLUSTER, arn, "no beat")
    assert world.word(arn) is TaskStatus.ALIVE
    assert isinstance(world.send(a_lease()), NotStarted)
    world.ends(arn)
    world.reaches(arn, Status.STOPPED)
    world.launch()


# --- DescribeTasks


def test_a_task_is_alive_until_it_has_stopped(world: World) -> None:
    arn = world.launch()
    assert world.word(arn) is TaskStatus.ALIVE
    for status in (Status.PENDING, Status.RUNNING):
        world.reaches(arn, status)
        assert world.word(arn) is TaskStatus.ALIVE
    world.ends(arn)
    word = world.word(arn)
    assert word is TaskStatus.ALIVE or world.status(arn) is Status.STOPPED
    world.reaches(arn, Status.STOPPED)
    assert world.word(arn) is TaskStatus.STOPPED


def test_a_task_that_nobody_knows_is_missing(world: World) -> None:
    assert world.word(NOBODY) is TaskStatus.MISSING


def test_every_task_is_in_the_answer_however_many_are_asked_for(world: World) -> None:
    alive, stopped = world.launch(), world.launch()
    world.reaches(stopped, Status.RUNNING)
    world.ends(stopped)
    world.reaches(stopped, Status.STOPPED)
    unknown = [f"{NOBODY[:-3]}{number:03}" for number in range(DESCRIBE_TASKS_MAX_ARNS + 1)]
    words = world.tasks.describe(CLUSTER, [stopped, *unknown, alive])
    known = {alive: TaskStatus.ALIVE, stopped: TaskStatus.STOPPED}
    assert words == dict.fromkeys(unknown, TaskStatus.MISSING) | known
    assert world.tasks.describe(CLUSTER, []) == {}


def test_a_task_is_found_in_its_cluster_only(world: World) -> None:
    arn = world.launch()
    assert world.word(arn, ELSEWHERE) is TaskStatus.MISSING
    world.tasks.stop(ELSEWHERE, arn, "not there")
    world.reaches(arn, Status.RUNNING)
    assert world.word(arn) is TaskStatus.ALIVE


# --- ListTasks


def listed(world: World, stopping: bool) -> list[str]:
    """Every page of it."""
    arns, token = world.tasks.listed(CLUSTER, stopping, "")
    while token:
        page, token = world.tasks.listed(CLUSTER, stopping, token)
        arns += page
    return arns


def test_a_task_is_listed_as_running_until_it_is_to_stop_and_as_stopping_from_then_on(world: World) -> None:
    arn = world.launch(deaf=True)
    assert (arn in listed(world, stopping=False), arn in listed(world, stopping=True)) == (True, False)
    world.reaches(arn, Status.RUNNING)
    assert (arn in listed(world, stopping=False), arn in listed(world, stopping=True)) == (True, False)
    world.tasks.stop(CLUSTER, arn, "to see")
    assert (arn in listed(world, stopping=False), arn in listed(world, stopping=True)) == (False, True)
    assert world.word(arn) is TaskStatus.ALIVE
    world.ends(arn, killed=True)
    world.reaches(arn, Status.STOPPED)
    assert (arn in listed(world, stopping=False), arn in listed(world, stopping=True)) == (False, True)


def test_a_task_is_listed_in_its_cluster_only(world: World) -> None:
    arn = world.launch()
    assert arn not in world.tasks.listed(ELSEWHERE, False, "")[0]


def test_a_task_says_under_which_lease_it_was_launched(world: World) -> None:
    lease = a_lease()
    arn = world.launch(lease)
    [task] = world.tasks.identify(CLUSTER, [arn, NOBODY])
    assert (task.arn, task.status, task.started_by) == (arn, TaskStatus.ALIVE, str(lease))
    world.reaches(arn, Status.RUNNING)
    world.ends(arn)
    world.reaches(arn, Status.STOPPED)
    assert [task.status for task in world.tasks.identify(CLUSTER, [arn])] == [TaskStatus.STOPPED]


@pytest.mark.parametrize("count", [0, DESCRIBE_TASKS_MAX_ARNS + 1])
def test_one_call_says_who_at_least_one_task_is_and_at_most_a_hundred(world: World, count: int) -> None:
    arns = [f"{NOBODY[:-3]}{number:03}" for number in range(count)]
    with pytest.raises((EcsError, ClientError), match="Name 1 to 100 tasks"):
        world.tasks.identify(CLUSTER, arns)
    assert world.tasks.identify(CLUSTER, arns[:DESCRIBE_TASKS_MAX_ARNS] or [NOBODY]) == []


# --- StopTask


def test_a_task_that_is_stopped_comes_to_its_end(world: World) -> None:
    lease = a_lease()
    arn = world.launch(lease)
    world.reaches(arn, Status.RUNNING)
    world.tasks.stop(CLUSTER, arn, "no beat for 2 minutes")
    world.reaches(arn, Status.STOPPED)
    assert world.word(arn) is TaskStatus.STOPPED
    end = the_end(world, arn)
    assert (end.arn, end.started_by) == (arn, str(lease))
    assert (end.stop.code, end.stop.reason) == ("UserInitiated", "no beat for 2 minutes")


def test_a_stop_may_be_repeated_and_the_first_reason_stays(world: World) -> None:
    arn = world.launch(deaf=True)
    world.reaches(arn, Status.RUNNING)
    world.tasks.stop(CLUSTER, arn, "first")
    world.tasks.stop(CLUSTER, arn, "second")
    world.ends(arn, killed=True)
    world.reaches(arn, Status.STOPPED)
    world.tasks.stop(CLUSTER, arn, "third")
    assert world.word(arn) is TaskStatus.STOPPED
    stop = the_end(world, arn).stop
    assert (stop.code, stop.reason) == ("UserInitiated", "first")


def test_a_task_that_nobody_knows_need_not_be_stopped(world: World) -> None:
    world.tasks.stop(CLUSTER, NOBODY, "no beat")
    assert world.word(NOBODY) is TaskStatus.MISSING


def test_a_task_that_is_stopped_before_it_runs_never_runs(world: World) -> None:
    world.hold_starts()
    lease = a_lease()
    arn = world.launch(lease)
    world.tasks.stop(CLUSTER, arn, "not needed")
    world.reaches(arn, Status.STOPPED)
    assert the_end(world, arn) == TaskStopped(arn, str(lease), Stop("UserInitiated", "not needed"))
    assert Status.RUNNING not in statuses(world.told(arn))


# --- what is told


@pytest.mark.parametrize("killed", [False, True], ids=["exits", "killed"])
def test_a_task_whose_process_ends_stops_and_tells_whose_it_was(world: World, killed: bool) -> None:
    lease = a_lease()
    arn = world.launch(lease)
    world.reaches(arn, Status.RUNNING)
    world.ends(arn, killed)
    world.reaches(arn, Status.STOPPED)
    assert world.word(arn) is TaskStatus.STOPPED
    end = the_end(world, arn)
    assert (end.arn, Lease.parse(end.started_by)) == (arn, lease)
    assert end.stop.code == "EssentialContainerExited"


def test_a_task_tells_its_statuses_in_the_order_of_life(world: World) -> None:
    arn = world.launch()
    world.reaches(arn, Status.RUNNING)
    world.ends(arn)
    world.reaches(arn, Status.STOPPED)
    told = statuses(world.told(arn))
    assert list(dict.fromkeys(told)) == ORDER
    assert told == sorted(told, key=ORDER.index)


def test_nothing_is_told_of_a_task_that_has_stopped(world: World) -> None:
    arn, later = world.launch(), world.launch()
    for each in (arn, later):
        world.reaches(each, Status.RUNNING)
        world.tasks.stop(CLUSTER, each, "drained")
        world.reaches(each, Status.STOPPED)
        world.tasks.stop(CLUSTER, arn, "again")
    assert Status.STOPPED in statuses(world.told(later))
    assert statuses(world.told(arn)).index(Status.STOPPED) == len(world.told(arn)) - 1


# --- what takes hours


class Clocked(Protocol):
    """An ECS whose time can be moved."""

    time: float

    @property
    def tasks(self) -> Tasks:
        """The port."""

    def limit(self, tasks: int | None) -> None:
        """How many tasks may live from now on."""

    def stopped(self, arn: str) -> None:
        """The task reaches STOPPED, now."""


class RegistryWorld:
    """The rules of the Fargate of real processes without the processes, asked as the product's adapter asks."""

    def __init__(self) -> None:
        self.time = NOW
        self._registry = Registry(lambda _: None)

    @property
    def tasks(self) -> Tasks:
        return self

    def limit(self, tasks: int | None) -> None:
        self._registry.capacity = tasks

    def stopped(self, arn: str) -> None:
        task = self._registry.find(self._arn(CLUSTER), arn)
        assert task
        self._registry.stopped(task, self.time)

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        definition = {"family": "f", "taskDefinitionArn": "f:1", "containerDefinitions": [{"name": "worker"}]}
        cluster = self._arn(decide.cluster_of(launch))
        wanted = Launch(cluster, definition, 1, decide.token(lease), launch, str(lease))
        try:
            answer, _ = self._registry.run(wanted, self.time)
        except EcsError as error:
            named: Any = error.details["resourceIds"]
            return decide.refused(error.code, error.message, named)
        return decide.answered(answer["tasks"], answer["failures"])

    def stop(self, cluster: str, arn: str, why: str) -> None:
        if task := self._registry.find(self._arn(cluster), arn):
            self._registry.stopping(task, self.time, "UserInitiated", why)

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        shown = self._registry.describe(self._arn(cluster), arns, False, self.time)["tasks"]
        words = {task["taskArn"]: TaskStatus.STOPPED if "stoppedAt" in task else TaskStatus.ALIVE for task in shown}
        return dict.fromkeys(arns, TaskStatus.MISSING) | words

    def listed(self, cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        desired = "STOPPED" if stopping else "RUNNING"
        return self._registry.arns(self._arn(cluster), desired, "", "", self.time), token

    def identify(self, cluster: str, arns: Collection[str]) -> list[SeenTask]:
        shown = self._registry.describe(self._arn(cluster), arns, False, self.time)["tasks"]
        words = self.describe(cluster, arns)
        return [SeenTask(each["taskArn"], words[each["taskArn"]], each["startedBy"], each["group"]) for each in shown]

    def _arn(self, cluster: str) -> str:
        return f"arn:aws:ecs:us-east-1:000000000000:cluster/{cluster}"


@pytest.fixture(params=[MemoryWorld, RegistryWorld], ids=["memory", "registry"])
def clocked(request: pytest.FixtureRequest) -> Clocked:
    world: Clocked = request.param()
    return world


def test_a_token_is_forgotten_an_hour_after_its_task_stopped(clocked: Clocked) -> None:
    lease = a_lease()
    arn = started(clocked.tasks.run(lease, request(lease)))
    clocked.time += 2 * HOUR_S
    clocked.stopped(arn)
    clocked.time += HOUR_S
    assert clocked.tasks.run(lease, request(lease)) == Started(arn)
    clocked.time += 1
    again = started(clocked.tasks.run(lease, request(lease, group="other")))
    assert again != arn
    assert clocked.tasks.run(lease, request(lease, group="other")) == Started(again)


def test_a_token_lives_for_a_day_at_most(clocked: Clocked) -> None:
    lives, stopped = a_lease(), a_lease()
    arns = {lease: started(clocked.tasks.run(lease, request(lease))) for lease in (lives, stopped)}
    clocked.time += DAY_S - HOUR_S / 2
    clocked.stopped(arns[stopped])
    clocked.time += HOUR_S / 2
    assert {lease: started(clocked.tasks.run(lease, request(lease))) for lease in arns} == arns
    clocked.time += 1
    later = {started(clocked.tasks.run(lease, request(lease))) for lease in arns}
    assert len(later | set(arns.values())) == 4
    assert clocked.tasks.describe(CLUSTER, [arns[lives]]) == {arns[lives]: TaskStatus.ALIVE}


def test_the_token_of_a_failure_lives_for_a_day(clocked: Clocked) -> None:
    lease = a_lease()
    clocked.limit(0)
    failed = clocked.tasks.run(lease, request(lease))
    assert isinstance(failed, NotStarted)
    clocked.limit(None)
    clocked.time += DAY_S
    assert clocked.tasks.run(lease, request(lease)) == failed
    clocked.time += 1
    assert isinstance(clocked.tasks.run(lease, request(lease)), Started)


def test_a_stopped_task_is_shown_for_an_hour(clocked: Clocked) -> None:
    leases = [a_lease(), a_lease()]
    stopped, lives = [started(clocked.tasks.run(lease, request(lease))) for lease in leases]
    clocked.time += 2 * DAY_S
    clocked.stopped(stopped)
    clocked.time += HOUR_S
    words = {stopped: TaskStatus.STOPPED, lives: TaskStatus.ALIVE}
    assert clocked.tasks.describe(CLUSTER, [stopped, lives]) == words
    clocked.time += 1
    assert clocked.tasks.describe(CLUSTER, [stopped, lives]) == words | {stopped: TaskStatus.MISSING}
    clocked.tasks.stop(CLUSTER, stopped, "gone")


# --- what memory refuses its owner, who moves the tasks


@pytest.mark.parametrize("status", ORDER)
def test_a_task_in_memory_never_goes_back(status: Status) -> None:
    world = MemoryWorld()
    task = world.ecs.tasks[world.launch()]
    world.ecs.advance(task, Status.PENDING)
    if status in (Status.PROVISIONING, Status.PENDING):
        with pytest.raises(ValueError, match=f"cannot become {status}"):
            world.ecs.advance(task, status)
    else:
        world.ecs.advance(task, status)
    assert statuses(world.told(task.arn)) == sorted(statuses(world.told(task.arn)), key=ORDER.index)


def test_a_task_in_memory_that_has_stopped_stays_so() -> None:
    world = MemoryWorld()
    arn = world.launch()
    task = world.ecs.tasks[arn]
    world.ecs.advance(task, Status.STOPPED)
    told = world.told(arn)
    world.ecs.stopping(task, "UserInitiated", "too late")
    for status in ORDER:
        with pytest.raises(ValueError, match="cannot become"):
            world.ecs.advance(task, status)
    assert (world.told(arn), world.ecs.live) == (told, {})


def test_a_task_in_memory_that_is_to_stop_cannot_come_to_run() -> None:
    world = MemoryWorld()
    arn = world.launch()
    world.tasks.stop(CLUSTER, arn, "not needed")
    with pytest.raises(ValueError, match="is PROVISIONING, stopping, and cannot become RUNNING"):
        world.ecs.advance(world.ecs.tasks[arn], Status.RUNNING)
