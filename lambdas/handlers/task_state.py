"""ECS says that a task stopped: on that proof its slot is freed, its jobs go back, and a replacement is weighed."""

from __future__ import annotations

import json
from typing import Any

from fleetcap import wiring
from fleetcap.decide import taxonomy
from fleetcap.events import TaskStopped, task_stopped
from fleetcap.fleet import Fleet
from fleetcap.model import Lease, TaskStatus
from handlers.log import log


class Unresolved(Exception):
    """ECS did not yet say which task a launch means; the event is delivered again."""


def handle(fleet: Fleet, event: dict[str, Any]) -> dict[str, Any]:
    """Take an SQS batch of events. Every step may repeat, so a redelivered event runs them all again."""
    unsettled: list[str] = []
    for record in event["Records"]:
        try:
            stopped = task_stopped(json.loads(record["body"]))
            if stopped:
                _stopped(fleet, stopped)
        except Exception as error:  # its neighbours must not suffer
            fleet.log("not settled", message_id=record["messageId"], error=repr(error))
            unsettled.append(record["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in unsettled]}


def _stopped(fleet: Fleet, stopped: TaskStopped) -> None:
    try:
        lease = Lease.parse(stopped.started_by)
        pool = fleet.pools[lease.slot.pool]
    except (ValueError, KeyError):
        fleet.log("ignore", arn=stopped.arn, reason="not a task of ours")
        return
    fleet.log("stopped", lease=str(lease), arn=stopped.arn, why=stopped.stop.text)
    if not _gone(fleet, lease, stopped):
        return
    orphans = [job for job in fleet.table.running(pool) if job.holder.lease == lease]
    fleet.requeue(orphans, *taxonomy.stopped(stopped.stop))
    fleet.scale(pool, None, most=1)


def _gone(fleet: Fleet, lease: Lease, stopped: TaskStopped) -> bool:
    """Free the slot if the stopped task is the one it records. True once nobody can act under this lease any more."""
    slot = fleet.table.slot(lease.slot)
    if slot is None or slot.generation != lease.generation:
        return slot is not None and slot.generation > lease.generation
    if not slot.held:
        return False  # the generation rises at release: an empty slot at this one was never leased under it
    if not slot.arn:
        slot = fleet.resend(slot)
    if slot.lease == lease and not slot.arn:
        raise Unresolved(f"ECS does not say yet which task {lease} means")
    if slot.lease == lease and slot.arn != stopped.arn:
        fleet.log("ignore", lease=str(lease), arn=stopped.arn, reason=f"the slot records {slot.arn}")
        return False
    return fleet.settle(slot, TaskStatus.STOPPED, stopped.stop.text) or _moved_on(fleet, lease)


def _moved_on(fleet: Fleet, lease: Lease) -> bool:
    """Whether somebody else released the slot meanwhile."""
    slot = fleet.table.slot(lease.slot)
    return slot is not None and slot.generation > lease.generation


_fleet: Fleet | None = None


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Lambda entry point."""
    global _fleet  # noqa: PLW0603 - made once an execution environment, at the first call
    _fleet = _fleet or wiring.fleet(log)
    return handle(_fleet, event)
