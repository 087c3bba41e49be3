"""ECS Task State Change events: from the registry to the targets of every rule on the default bus that matches.

PutEvents refuses the source `aws.ecs` to everybody, so the rules are asked one by one whether they match.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.fargate.emulator import Emulator, Kept
from local.fargate.faults import Faults
from local.fargate.tasks import Json, family_of

RULES_KEPT_S = 3.0
SENDERS = 8
ATTEMPTS_MAX = 6
RETRY_FIRST_S = 0.1
TIMES = ("createdAt", "startedAt", "stoppingAt", "stoppedAt")


@dataclass
class Parcel:
    """One event on its way: to one target, or, while `target` is None, to the rules that name the targets."""

    event: Json
    target: Json | None = None
    attempts: int = 0


@dataclass
class Lane:
    """Parcels that must arrive in order. `busy` while a sender, or a pause before a retry, holds it."""

    parcels: deque[Parcel] = field(default_factory=deque)
    busy: bool = False


LaneKey = tuple[str, str]
"""A task's ARN, and the target's or "" for the rules."""


def envelope(task: Json, region: str, now: float) -> Json:
    """The event about a task as DescribeTasks shows it."""
    times = {name: _iso(task[name]) for name in TIMES if name in task}
    detail = {name: value for name, value in task.items() if name != "tags"} | times
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": task["taskArn"].split(":")[4],
        "time": _iso(now)[:19] + "Z",
        "region": region,
        "resources": [task["taskArn"]],
        "detail": {**detail, "updatedAt": _iso(now)},
    }


def ruled_out(pattern: Json, event: Json) -> bool:
    """Whether a plain list of values in the pattern already excludes the event, which spares a question."""
    for name, wanted in pattern.items():
        value = event.get(name)
        if isinstance(wanted, dict) and isinstance(value, dict):
            if ruled_out(wanted, value):
                return True
        elif isinstance(value, str) and all(isinstance(each, str) for each in wanted) and value not in wanted:
            return True
    return False


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Events:
    """Delivers at least once and in order for each task and target. A failing target holds up only itself."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._lanes: dict[LaneKey, Lane] = {}
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="events")
        self._kept = Kept()
        self._said: set[str] = set()

    def take(self, task: Json, at: float) -> None:
        """Take note of a task's new picture and of when it changed; returns at once."""
        self._put((task["taskArn"], ""), Parcel(envelope(task, self._emulator.region, at)))

    def close(self, timeout_s: float) -> None:
        """Give what is on its way some time, then stop."""
        with self._idle:
            self._idle.wait_for(lambda: not self._lanes, timeout_s)
        self._senders.shutdown(wait=False, cancel_futures=True)

    def _put(self, key: LaneKey, parcel: Parcel) -> None:
        with self._lock:
            lane = self._lanes.setdefault(key, Lane())
            lane.parcels.append(parcel)
            if not lane.busy:
                lane.busy = True
                self._resume(key, lane)

    def _resume(self, key: LaneKey, lane: Lane) -> None:
        try:
            self._senders.submit(self._drain, key, lane)
        except RuntimeError:  # closed: nobody is left to send it
            return

    def _drain(self, key: LaneKey, lane: Lane) -> None:
        while True:
            with self._lock:
                if not lane.parcels:
                    del self._lanes[key]
                    self._idle.notify_all()
                    return
                parcel = lane.parcels[0]
            pause_s = self._attempt(parcel)
            if pause_s:
                timer = threading.Timer(pause_s, self._resume, (key, lane))
                timer.daemon = True
                timer.start()
                return
            with self._lock:
                lane.parcels.popleft()

    def _attempt(self, parcel: Parcel) -> float:
        """Move one parcel on. Returns how long to pause before the next attempt, 0 when there is none."""
        parcel.attempts += 1
        arn = parcel.event["resources"][0]
        try:
            if parcel.target is None:
                for target in self._targets_of(parcel.event):
                    self._put((arn, target["Arn"]), Parcel(parcel.event, target))
            else:
                self._send(parcel.target, parcel.event)
        except Exception as error:
            if parcel.attempts < ATTEMPTS_MAX:
                return float(RETRY_FIRST_S * 2 ** (parcel.attempts - 1))
            _say(f"gave up on an event about {arn}: {type(error).__name__}: {error}")
        return 0.0

    def _targets_of(self, event: Json) -> list[Json]:
        body = json.dumps(event)
        asked = [rule for rule in self._rules() if not ruled_out(json.loads(rule["EventPattern"]), event)]
        matching = [rule for rule in asked if self._matches(rule, body)]
        return [target for rule in matching for target in self._targets(rule["Name"])]

    def _rules(self) -> Sequence[Json]:
        def load() -> list[Json]:
            pages = self._emulator.events.get_paginator("list_rules").paginate()
            rules = [dict(rule) for page in pages for rule in page["Rules"]]
            return [rule for rule in rules if rule.get("EventPattern") and rule.get("State") != "DISABLED"]

        return self._kept.get("rules", RULES_KEPT_S, load) or []

    def _matches(self, rule: Json, body: str) -> bool:
        return bool(self._emulator.events.test_event_pattern(EventPattern=rule["EventPattern"], Event=body)["Result"])

    def _targets(self, rule: str) -> Sequence[Json]:
        def load() -> list[Json]:
            return [dict(target) for target in self._emulator.events.list_targets_by_rule(Rule=rule)["Targets"]]

        return self._kept.get(("targets", rule), RULES_KEPT_S, load) or []

    def _send(self, target: Json, event: Json) -> None:
        arn, body = target["Arn"], json.dumps(event)
        service = arn.split(":")[2]
        if service == "sqs":
            group: dict[str, Any] = {k: v for k, v in target.get("SqsParameters", {}).items() if k == "MessageGroupId"}
            self._emulator.sqs.send_message(QueueUrl=self._queue_url(arn), MessageBody=body, **group)
        elif service == "lambda":
            self._emulator.functions.invoke(FunctionName=arn, InvocationType="Event", Payload=body.encode())
        elif arn not in self._said:
            self._said.add(arn)
            _say(f"no delivery to {arn}: only SQS queues and Lambda functions are served")

    def _queue_url(self, arn: str) -> str:
        def load() -> str:
            return str(self._emulator.sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"])

        return self._kept.get(("queue", arn), RULES_KEPT_S, load) or ""


class FaultyEvents:
    """Stands before `Events`, so that the standing faults may drop, double and delay what the registry tells."""

    def __init__(self, events: Events, faults: Faults) -> None:
        self._events, self._faults = events, faults

    def take(self, task: Json) -> None:
        """Pass a task's new picture on, now or later, as often as it is to arrive; returns at once."""
        now = time.time()
        for delay_s in self._faults.deliveries(family_of(task["taskDefinitionArn"]), task["lastStatus"]):
            if delay_s:
                timer = threading.Timer(delay_s, self._events.take, (task, now))
                timer.daemon = True
                timer.start()
            else:
                self._events.take(task, now)


def _say(sentence: str) -> None:
    print(f"fargate: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
