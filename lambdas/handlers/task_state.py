"""ECS says that a task stopped: on that proof its slot is freed, its jobs go back, and a replacement is weighed.

Of a task that Fargate Spot is about to take back it says so two minutes ahead: its worker takes no further job, and
another is weighed now.
"""

from __future__ import annotations

import json
from typing import Any

from fleetcap import wiring
from fleetcap.decide import taxonomy
from fleetcap.events import SpotWarning, TaskStopped, task_change
from fleetcap.fleet import Fleet
from fleetcap.model import Lease, Pool, TaskStatus
from fleetcap.timebox import Timebox
from handlers.log import log


class Unresolved(Exception):
    """ECS did not yet say which task a launch means, or not all is done; the event is delivered again."""


def handle(fleet: Fleet, event: dict[str, Any]) -> dict[str, Any]:
    """Take an SQS batch of events. Every step may repeat, so a redelivered event runs them all again.

    Events for which there is no time come again by themselves: were the decider killed, all of them would.
    """
    fleet = fleet.within(Timebox.begin(fleet.clock))
    unsettled: list[str] = []
    for number, record in enumerate(event["Records"]):
        if not fleet.time.allows(number):
            left = [late["messageId"] for late in event["Records"][number:]]
            fleet.log("cut off", reason="the time for these events is spent; they come again", left=left)
            unsettled += left
            break
        try:
            match task_change(json.loads(record["body"])):
                case TaskStopped() as stopped:
                    _stopped(fleet, stopped)
                case SpotWarning() as warning:
                    _warned(fleet, warning)
        except Exception as error:  # its neighbours must not suffer
            fleet.log("not settled", message_id=record["messageId"], error=repr(error))
            unsettled.append(record["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in unsettled]}


def _ours(fleet: Fleet, change: TaskStopped | SpotWarning) -> tuple[Lease, Pool] | None:
    """The lease and the pool of a task, if we launched it."""
    try:
        lease = Lease.parse(change.started_by)
        return lease, fleet.pools[lease.slot.pool]
    except (ValueError, KeyError):
        fleet.log("ignore", arn=change.arn, reason="not a task of ours")
        return None


def _warned(fleet: Fleet, warning: SpotWarning) -> None:
    """The worker hears SIGTERM as well and gives its jobs back; that its lanes are lost is known here from now on."""
    if ours := _ours(fleet, warning):
        lease, pool = ours
        asked = fleet.table.leave(lease, "Fargate Spot takes its capacity back")
        fleet.log("interrupted", lease=str(lease), arn=warning.arn, refused=not asked)
        fleet.scale(pool, None, most=pool.jobs_per_worker, near=lease.slot)


def _stopped(fleet: Fleet, stopped: TaskStopped) -> None:
    ours = _ours(fleet, stopped)
    if not ours:
        return
    lease, pool = ours
    fleet.log("stopped", lease=str(lease), arn=stopped.arn, why=stopped.stop.text)
    if not _gone(fleet, lease, stopped):
        return
    orphans = [job for job in fleet.table.running(pool, [lease.slot.bank]) if job.holder.lease == lease]
    if not fleet.requeue(orphans, *taxonomy.stopped(stopped.stop)):
        raise Unresolved(f"there was no time for all jobs of {lease}")
    fleet.scale(pool, None, most=1, near=lease.slot)


def _gone(fleet: Fleet, lease: Lease, stopped: TaskStopped) -> bool:
    """Free the slot if the stopped task is the one it records. True once nobody can act under this lease any more.

    What is proven is proven of this lease's task alone: whoever holds the slot by the time that it is looked at, lives.
    """
    slot = fleet.table.slot(lease.slot)
    if slot and slot.lease == lease and slot.held and not slot.arn:
        slot = fleet.resend(slot).slot  # which may find that the slot has been released and leased anew meanwhile
    if slot is None or slot.lease != lease:
        return slot is not None and slot.generation > lease.generation
    if not slot.held:
        return False  # the generation rises at release: an empty slot at this one was never leased under it
    if not slot.arn:
        raise Unresolved(f"ECS does not say yet which task {lease} means")
    if slot.arn != stopped.arn:
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
