"""The table's stream tells what became of jobs; each change of status is an event, and each end is told to dependents.

So whoever wrote the change, however it died right after, the event follows: the table is the outbox. A record that
comes again, because of a lost answer or a neighbour that failed, is the same event under the same sequence. Those who
wait for a job that ended are named to intake, which judges them; nothing is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetcap import keys, wiring
from fleetcap.adapters.bus import EventBus
from fleetcap.adapters.dynamo import unpack
from fleetcap.adapters.rechecks import SqsRechecks
from fleetcap.adapters.rejects import SqsRejects
from fleetcap.lifecycle import StateChange, detail, state_change
from fleetcap.model import JobStatus
from fleetcap.ports import Bus, Jobs, Log, Rechecks, Rejects
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

    def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """Publish what changed in a batch of stream records, and report the records that are to come again.

        The stream comes again from the first of them on. The others are published now all the same: were the batch
        given up in the end, nothing would be missing but what could not be published.
        """
        changes: dict[str, StateChange] = {}
        failed: list[str] = []
        for record in event["Records"]:
            number = record["dynamodb"]["SequenceNumber"]
            try:
                if change := self._change(record, number):
                    changes[number] = change
            except Exception as error:  # its neighbours must not suffer
                self.log("not put aside", record=number, error=repr(error))
                failed.append(number)
        failed += self._wake(changes)
        told = {number: change for number, change in changes.items() if change.status in self.told}
        answers = self.bus.publish([detail(change) for change in told.values()])
        for (number, change), refusal in zip(told.items(), answers, strict=True):
            self._tell(number, change, refusal)
            failed += [number] if refusal else []
        return {"batchItemFailures": [{"itemIdentifier": number} for number in dict.fromkeys(failed)]}

    def _wake(self, changes: Mapping[str, StateChange]) -> list[str]:
        """Have those judged whom the end of a job concerns; the records for which that is not certain."""
        ended = {number: change for number, change in changes.items() if change.status.ended}
        try:
            found = [key for change in ended.values() for key in self._concerned(change)]
            if found:
                self.rechecks.recheck(list(dict.fromkeys(found)))
        except Exception as error:  # their events must not suffer
            self.log("dependents not told", keys=[change.workflow_key for change in ended.values()], error=repr(error))
            return list(ended)
        return []

    def _concerned(self, change: StateChange) -> list[str]:
        """Who depends on it, what it is a part of, and itself if it may be an array with parts that are to end."""
        found = self.table.dependents(change.workflow_key)
        if change.array:
            found.append(change.array)
        if change.status is JobStatus.CANCELLED and change.old_status is JobStatus.WAITING:
            found.append(change.workflow_key)
        return found

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
    return Publish(bus, unreadable, wiring.control_table(log), rechecks, told, cache, log)


_publish: Publish | None = None


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Lambda entry point."""
    global _publish  # noqa: PLW0603 - made once an execution environment, at the first call
    _publish = _publish or _wired()
    return _publish.handle(event)
