"""The table's stream tells what became of jobs; each change of status is an event, and each end is told to dependents.

So whoever wrote the change, however it died right after, the event follows: the table is the outbox. A record that
comes again, because of a lost answer or a neighbour that failed, is the same event under the same sequence. Those who
wait for a job that ended are named to intake, which judges them; nothing is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetcap import keys, limits, wiring
from fleetcap.adapters.bus import EventBus
from fleetcap.adapters.dynamo import unpack
from fleetcap.adapters.rechecks import SqsRechecks
from fleetcap.adapters.rejects import SqsRejects
from fleetcap.adapters.system import SystemClock
from fleetcap.lifecycle import StateChange, detail, state_change
from fleetcap.model import JobStatus
from fleetcap.ports import Bus, Clock, Jobs, Log, Rechecks, Rejects
from fleetcap.timebox import Timebox
from handlers.log import log


@dataclass(frozen=True)
class Publish:
    """The decider with its ports. `cache` stands in front of artifact keys; `unreadable` keeps what no event tells.

    `told` are the statuses of which there are events; that jobs ended is heard in any case.
    """

    bus: Bus
    unreadable: Rejects
    table: Jobs
    rechecks: Rechecks
    told: frozenset[str]
    cache: str
    log: Log
    clock: Clock

    def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """Publish what changed in a batch of stream records, and report the records that are to come again.

        The stream comes again from the first of them on. The others are published now all the same: were the batch
        given up in the end, nothing would be missing but what could not be published. Records that there was no time
        for are reported too, never the first one: however slow the calls, the stream goes on.
        """
        time = Timebox.begin(self.clock)
        changes: dict[str, StateChange] = {}
        numbers = [record["dynamodb"]["SequenceNumber"] for record in event["Records"]]
        failed = dict.fromkeys(numbers)
        for number, record in time.part(3).each(zip(numbers, event["Records"], strict=True)):
            try:
                if change := self._change(record, number):
                    changes[number] = change
                del failed[number]
            except Exception as error:  # its neighbours must not suffer
                self.log("not put aside", record=number, error=repr(error))
        failed |= dict.fromkeys(self._wake(changes, time.part(2)))
        told = {number: change for number, change in changes.items() if change.status in self.told}
        failed |= dict.fromkeys(self._publish(told, time))
        return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers if number in failed]}

    def _wake(self, changes: Mapping[str, StateChange], time: Timebox) -> list[str]:
        """Have those judged whom the end of a job concerns; the records for which that is not certain."""
        ended = {number: change for number, change in changes.items() if change.status.ended}
        found: dict[str, list[str]] = {}
        try:
            for number, change in time.part(2).each(ended.items()):
                found[number] = self._concerned(change)
            heard = self._tell_all(list(dict.fromkeys(key for keys in found.values() for key in keys)), time)
        except Exception as error:  # their events must not suffer
            self.log("dependents not told", keys=[change.workflow_key for change in ended.values()], error=repr(error))
            return list(ended)
        unheard = [number for number in ended if number not in found or not heard.issuperset(found[number])]
        if unheard:
            self.log("cut off", reason="there was no time to tell all dependents", left=list(unheard))
        first = next(iter(changes), "")
        if unheard[:1] == [first] and first in found and heard.issuperset(found[first][: limits.RECHECK_KEYS]):
            del unheard[0]  # its array and itself have been told; of its dependents the tick finds the rest
        return unheard

    def _tell_all(self, dependents: Sequence[str], time: Timebox) -> set[str]:
        """Name them to intake, a message's worth at a time; those that were named."""
        heard: set[str] = set()
        for start in time.each(range(0, len(dependents), limits.RECHECK_KEYS)):
            some = dependents[start : start + limits.RECHECK_KEYS]
            self.rechecks.recheck(some)
            heard.update(some)
        return heard

    def _concerned(self, change: StateChange) -> list[str]:
        """What it is a part of, itself if it may be an array with parts that are to end, and those who depend on it.

        Of these a bounded number, whatever comes again: the tick judges the others.
        """
        found: list[str] = []
        if change.array:
            found.append(change.array)
        if change.status is JobStatus.CANCELLED and change.old_status is JobStatus.WAITING:
            found.append(change.workflow_key)
        dependents = self.table.dependents(change.workflow_key, limits.DEPENDENTS_TOLD + 1)
        if len(dependents) > limits.DEPENDENTS_TOLD:
            self.log("dependents left to the tick", key=change.workflow_key, told=limits.DEPENDENTS_TOLD)
        return found + dependents[: limits.DEPENDENTS_TOLD]

    def _publish(self, told: Mapping[str, StateChange], time: Timebox) -> list[str]:
        """Send the events, a request's worth at a time; the records whose event the bus has not taken."""
        left, pending = list(told), list(told)
        for start in time.each(range(0, len(pending), limits.PUT_EVENTS_ENTRIES)):
            numbers = pending[start : start + limits.PUT_EVENTS_ENTRIES]
            answers = self.bus.publish([detail(told[number]) for number in numbers])
            for number, refusal in zip(numbers, answers, strict=True):
                self._tell(number, told[number], refusal)
                if not refusal:
                    left.remove(number)
        return left

    def _change(self, record: dict[str, Any], number: str) -> StateChange | None:
        """What the record says. One that cannot be read never can: it is put aside, and the stream goes on."""
        images = record["dynamodb"]
        try:
            old, new = (unpack(images[name]) if name in images else None for name in ("OldImage", "NewImage"))
            return state_change(old, new, self.cache)
        except (KeyError, ValueError, TypeError) as error:
            self.log("unreadable", record=number, error=repr(error))
            self.unreadable.reject(json.dumps(record), f"no job can be read from the record: {error!r}", number)
            return None

    def _tell(self, number: str, change: StateChange, refusal: str) -> None:
        said = "not published" if refusal else "published"
        status, error = change.status.value, refusal or None
        self.log(
            said,
            record=number,
            job=change.job_id,
            key=change.workflow_key,
            correlation_id=change.correlation_id,
            status=status,
            sequence=change.sequence,
            error=error,
        )


def _wired() -> Publish:
    bus = EventBus(wiring.events_client(), wiring.setting(keys.ENV_EVENT_BUS))
    unreadable = SqsRejects(wiring.sqs_client(), wiring.setting(keys.ENV_UNPUBLISHED_QUEUE_URL))
    cache = f"s3://{wiring.setting(keys.ENV_CACHE_BUCKET)}/{wiring.setting(keys.ENV_CACHE_PREFIX, '')}"
    rechecks = SqsRechecks(wiring.sqs_client(), wiring.setting(keys.ENV_INTAKE_QUEUE_URL))
    told = frozenset(wiring.setting(keys.ENV_EVENT_STATUSES).split(","))
    return Publish(bus, unreadable, wiring.control_table(log), rechecks, told, cache, log, SystemClock())


_publish: Publish | None = None


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Lambda entry point."""
    global _publish  # noqa: PLW0603 - made once an execution environment, at the first call
    _publish = _publish or _wired()
    return _publish.handle(event)
