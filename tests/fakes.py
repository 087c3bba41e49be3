"""Stand-ins for the ports that reach beyond the table: a clock and an ECS that are moved by hand, and what listens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3

from fleetcap import keys, metrics
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.fleet import Fleet
from fleetcap.model import Artifact, LaunchAnswer, Lease, Pool, TaskStatus, Unanswered
from fleetcap.ports import Assignment, Child, ChildReport
from local.fargate.tasks import Status
from local.memory.ecs import MemoryEcs, MemoryTask

LAUNCH = {
    "cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/fleet",
    "taskDefinition": "worker",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}},
    "container": "worker",
}


@dataclass
class HandClock:
    """Time stands still until somebody sleeps or moves it. Chance is the middle of every range."""

    time: float = 1_800_000_000.0
    names: Iterator[int] = field(default_factory=itertools.count)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def unique(self) -> str:
        return f"op-{next(self.names)}"


class HandEcs(MemoryEcs):
    """ECS in memory, moved by hand. It notes what it was asked for, and what it says may not be heard."""

    def __init__(self, now: Callable[[], float], on_change: Callable[[MemoryTask], None] = lambda _: None) -> None:
        super().__init__(now, on_change)
        self.calls: list[Lease] = []
        """Under which leases RunTask was called, whether that arrived or not."""
        self.stopped: list[str] = []
        """The tasks that somebody stopped, as often as it was said."""
        self.lists = 0
        self.doubts: list[Unanswered] = []
        """What the next callers of RunTask hear; their requests do not arrive."""
        self.lost: list[Unanswered] = []
        """What the callers after them hear instead of the answer; their requests arrive."""
        self.unseen: set[str] = set()
        """Tasks that DescribeTasks does not know for now: what it reads may lag."""

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        self.calls.append(lease)
        if self.doubts:
            return self.doubts.pop(0)
        answer = super().run(lease, launch)
        return self.lost.pop(0) if self.lost else answer

    def stop(self, cluster: str, arn: str, why: str) -> None:
        assert why, "a task stopped for no reason"
        self.stopped.append(arn)
        super().stop(cluster, arn, why)

    def listed(self, cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        self.lists += 1
        return super().listed(cluster, stopping, token)

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        return {
            arn: TaskStatus.MISSING if arn in self.unseen else word
            for arn, word in super().describe(cluster, arns).items()
        }

    @property
    def arns(self) -> list[str]:
        """Every task that ever was, the oldest first."""
        return list(self.tasks)

    def ends(self, arn: str) -> None:
        """The task's process has ended, and with it the task."""
        task = self.tasks[arn]
        self.stopping(task, "EssentialContainerExited", "Essential container in task exited")
        self.advance(task, Status.STOPPED)


@dataclass
class FakeCache:
    """Holds whatever keys it is told to."""

    held: set[str] = field(default_factory=set)

    def has_all(self, keys: Sequence[str]) -> bool:
        return bool(keys) and set(keys) <= self.held

    def commit(self, path: str, key: str, kind: str) -> Artifact:
        raise AssertionError(f"nobody commits {kind} {key} from {path} here")


@dataclass
class FakeRechecks:
    """Hears whom to judge anew, or cannot be reached."""

    reachable: bool = True
    heard: list[list[str]] = field(default_factory=list)

    def recheck(self, dependents: Sequence[str]) -> None:
        if not self.reachable:
            raise TimeoutError("no answer")
        self.heard.append(list(dependents))


@dataclass
class FakeChild:
    """A job's process whose reports are written by the test."""

    assignment: Assignment
    said: ChildReport = field(default_factory=ChildReport)
    killed: bool = False
    last_words: ChildReport = field(default_factory=ChildReport)

    def report(self) -> ChildReport:
        return self.last_words if self.killed else self.said

    def kill(self) -> None:
        self.killed = True


@dataclass
class FakeChildren:
    """Starts fake children and keeps them."""

    started: list[FakeChild] = field(default_factory=list)

    def start(self, assignment: Assignment) -> Child:
        self.started.append(FakeChild(assignment))
        return self.started[-1]


@dataclass
class Lines:
    """A log that a test can read."""

    written: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def __call__(self, event: str, **fields: object) -> None:
        metrics.embedded(fields, "Fleetcap/test", 0.0)  # what is a metric is fit to be one
        self.written.append((event, fields))

    def of(self, event: str) -> list[dict[str, object]]:
        """The fields of every line of this event."""
        return [fields for name, fields in self.written if name == event]


def make_table(client: Any, name: str = "control") -> DynamoControlTable:
    """The control table as the stack makes it, as far as a client can see."""
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": keys.TABLE_PK, "KeyType": "HASH"},
            {"AttributeName": keys.TABLE_SK, "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": attribute, "AttributeType": "S"}
            for attribute in (keys.TABLE_PK, keys.TABLE_SK, keys.OPEN_PK, keys.OPEN_RANK)
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": keys.OPEN_INDEX,
                "KeySchema": [
                    {"AttributeName": keys.OPEN_PK, "KeyType": "HASH"},
                    {"AttributeName": keys.OPEN_RANK, "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(keys.OPEN_PROJECTION)},
            }
        ],
    )
    return DynamoControlTable(client, name)


def moto_table() -> DynamoControlTable:
    """A table in moto; the caller has switched moto on."""
    return make_table(boto3.client("dynamodb", region_name="us-east-1"))


def make_fleet(table: DynamoControlTable, cap: int = 2, jobs_per_worker: int = 1) -> Fleet:
    """One pool `default` with hand-moved ports."""
    pool = Pool("default", cap, LAUNCH, jobs_per_worker)
    clock = HandClock()
    return Fleet({"default": pool}, table, HandEcs(clock.now), clock, Lines())
