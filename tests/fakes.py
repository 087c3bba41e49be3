"""Stand-ins for the ports that reach beyond the table: a clock that is moved by hand, an ECS with a token memory."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3

from fleetcap import keys, limits, metrics
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.fleet import Fleet
from fleetcap.model import Artifact, LaunchAnswer, Lease, Pool, SeenTask, Started, TaskStatus
from fleetcap.ports import Assignment, Child, ChildReport

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


@dataclass
class FakeTasks:
    """An ECS that answers a token always the same, and can be told to answer otherwise."""

    answers: list[LaunchAnswer] = field(default_factory=list)
    launched: dict[str, str] = field(default_factory=dict)
    calls: list[Lease] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    words: dict[str, TaskStatus] = field(default_factory=dict)
    strangers: list[SeenTask] = field(default_factory=list)
    stopping: set[str] = field(default_factory=set)
    page: int = 100
    lists: int = 0

    def run(self, lease: Lease, launch: str) -> LaunchAnswer:
        assert launch, "a launch without parameters"
        self.calls.append(lease)
        if self.answers:
            return self.answers.pop(0)
        return Started(self.launched.setdefault(str(lease), f"arn:task/{len(self.launched)}"))

    def stop(self, cluster: str, arn: str, why: str) -> None:
        assert cluster == LAUNCH["cluster"]
        assert why
        self.stopped.append(arn)

    def describe(self, cluster: str, arns: Collection[str]) -> Mapping[str, TaskStatus]:
        assert cluster == LAUNCH["cluster"]
        return {arn: self.words.get(arn, TaskStatus.ALIVE) for arn in arns}

    def listed(self, cluster: str, stopping: bool, token: str) -> tuple[list[str], str]:
        assert cluster == LAUNCH["cluster"]
        self.lists += 1
        arns = [task.arn for task in self._everybody() if (task.arn in self.stopping) is stopping]
        start = int(token or 0)
        end = start + self.page
        return arns[start:end], str(end) if end < len(arns) else ""

    def identify(self, cluster: str, arns: Collection[str]) -> list[SeenTask]:
        assert cluster == LAUNCH["cluster"]
        assert 0 < len(arns) <= limits.DESCRIBE_TASKS_MAX_ARNS
        return [task for task in self._everybody() if task.arn in arns]

    def _everybody(self) -> list[SeenTask]:
        """Whom we launched, as DescribeTasks words it, and the strangers."""
        ours = (
            SeenTask(arn, self.words.get(arn, TaskStatus.ALIVE), lease, "family:worker")
            for lease, arn in self.launched.items()
        )
        return [*ours, *self.strangers]


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
    return Fleet({"default": pool}, table, FakeTasks(), HandClock(), Lines())
