"""How the fleet is looked at from outside: gauges of each pool, and a sweep of everything that runs in its clusters.

Nothing here decides about a slot or a job, and nothing that decides waits for it: a tick watches last.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fleetcap import limits
from fleetcap.decide import gauges
from fleetcap.decide import sweep as decide
from fleetcap.fleet import Fleet
from fleetcap.model import Pool, SeenTask, Slot, TaskStatus
from fleetcap.timebox import Timebox


def tell(fleet: Fleet, pool: Pool, slots: Sequence[Slot], took_s: float, reservations: Mapping[str, int]) -> None:
    """One line with the pool's gauges, until it has been quiet for a while. `slots` are as this tick read them."""
    now = fleet.clock.now()
    queued = fleet.table.queued(pool, math.inf, limits.DEPTH_READ)
    if gauges.quiet(slots, queued, reservations, now):
        fleet.log("ticked", pool=pool.name, quiet=True)
        return
    fleet.log(
        "ticked",
        pool=pool.name,
        **gauges.gauges(pool, slots, queued, reservations, now),
        tick_duration_s=round(took_s, 3),
    )


def sweep(fleet: Fleet, slots: Collection[Slot]) -> None:
    """Every task of every cluster, held against the slots; what does not belong is told, once a sweep.

    `slots` are all slots of all pools as this tick read them: a task that one of them records needs no other look.
    """
    budget = _Budget(fleet, Timebox.begin(fleet.clock, limits.SWEEP_BUDGET_S))
    for cluster in dict.fromkeys(str(pool.launch["cluster"]) for pool in fleet.pools.values()):
        _sweep_cluster(fleet, cluster, slots, budget)


@dataclass
class _Budget:
    """How often and for how long a sweep may call ECS, and how fast: other deciders share the rate."""

    fleet: Fleet
    time: Timebox
    calls: int = 0

    def allows(self) -> bool:
        """Wait for the next call's turn. False: there is none."""
        if self.calls:
            self.fleet.clock.sleep(limits.SWEEP_PAUSE_S)
        self.calls += 1
        return self.calls <= limits.SWEEP_CALLS and not self.time.over


def _sweep_cluster(fleet: Fleet, cluster: str, slots: Collection[Slot], budget: _Budget) -> None:
    arns, listed_all = _listed(fleet, cluster, budget)
    pending = decide.unknown(arns, slots)
    unknown = len(pending)
    breaches = foreign = 0
    late = 0
    while pending and budget.allows():
        page, pending = pending[: limits.DESCRIBE_TASKS_MAX_ARNS], pending[limits.DESCRIBE_TASKS_MAX_ARNS :]
        found, too_late_for = _found(fleet, cluster, page, budget)
        late += too_late_for
        for finding in found:
            if isinstance(finding, decide.Breach):
                breaches += 1
                _report(fleet, "cap breach", finding.task, cluster, reason=finding.why)
            else:
                foreign += 1
                _report(fleet, "foreign task", finding.task, cluster)
    counted = {"cap_breaches": breaches, "foreign_tasks": foreign} if arns else {}
    left_out = "" if listed_all else "tasks beyond those listed; "
    left_out += f"{len(pending) + late} tasks not looked at" if pending or late else ""
    fleet.log("swept", cluster=cluster, listed=len(arns), unknown=unknown, **counted, left_out=left_out or None)


def _report(fleet: Fleet, event: str, task: SeenTask, cluster: str, **more: object) -> None:
    fleet.log(event, arn=task.arn, started_by=task.started_by, group=task.group, cluster=cluster, **more)


def _listed(fleet: Fleet, cluster: str, budget: _Budget) -> tuple[list[str], bool]:
    """The tasks that ECS lists, and whether they are all. One that is stopping is still live, but listed apart."""
    arns: list[str] = []
    for stopping in (False, True):
        token = ""
        while True:
            if not budget.allows():
                return arns, False
            page, token = fleet.tasks.listed(cluster, stopping, token)
            arns += page
            if not token:
                break
    return arns, True


def _found(
    fleet: Fleet, cluster: str, arns: Sequence[str], budget: _Budget
) -> tuple[list[decide.Foreign | decide.Breach], int]:
    """What is wrong with these tasks, each confirmed by DescribeTasks first and a look at its slot after that.

    And how many of them there was no time for.
    """
    asked_at = fleet.clock.now()
    live = _live(fleet, cluster, arns)
    leases = {task.arn: decide.lease_of(task, fleet.pools) for task in live}
    wanted = dict.fromkeys(lease.slot for lease in leases.values() if lease)
    looked = {id_: fleet.table.slot(id_) for id_ in budget.time.each(wanted)}
    in_time = [task for task in live if (lease := leases[task.arn]) is None or lease.slot in looked]
    slots = {slot.id: slot for slot in looked.values() if slot}
    too_late_for = len(live) - len(in_time)
    rivals = {slot.arn for slot in slots.values() if slot.arn} - {task.arn for task in live}
    if rivals:  # recorded since this tick began, or another task under the same lease
        in_time += _live(fleet, cluster, sorted(rivals))
    return list(decide.judge(in_time, slots, fleet.pools, asked_at)), too_late_for


def _live(fleet: Fleet, cluster: str, arns: Sequence[str]) -> list[SeenTask]:
    return [task for task in fleet.tasks.identify(cluster, arns) if task.status is TaskStatus.ALIVE]
