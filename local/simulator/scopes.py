"""The small scopes that are explored in full."""

from __future__ import annotations

from functools import partial
from typing import Final

from fleetcap import keys, limits
from fleetcap.decide import launch
from fleetcap.model import Job, JobStatus, Pool, Request, Slot, Started
from local.memory.ecs import MemoryTask
from local.simulator.exhaust import Budget, Nobody, Scope
from local.simulator.history import LAUNCH, POOL
from local.simulator.plan import JobPlan, MessagePlan, Plan, Trouble


def _plan(cap: int, *job_keys: str) -> Plan:
    messages = tuple(MessagePlan(0.0, 0.0, JobPlan(key, duration_s=2.0)) for key in job_keys)
    return Plan(0, cap, 1, 4, 1, messages, cold_start_s=40.0, idle_exit_s=5.0, lag_s=0.0)


class TwoDeciders(Scope):
    """Two messages about two jobs come to two deciders, and there is one slot."""

    title = "2 deciders × cap 1 × 2 jobs"
    scene = _plan(1, "a", "b")
    until_s = 0.0
    budget = Budget(crashes=2, faults=1)

    def begin(self) -> None:
        self.create_slots()
        for number, key in enumerate(("a", "b")):
            self.intake.invoke([self.record(number, key)])
        self.start()


class AmbiguousLaunch(Scope):
    """A decider launches a task that stops before it runs; the tick asks again, and the event comes twice."""

    title = "an ambiguous launch × the tick × STOPPED, twice"
    scene = _plan(1, "a")
    until_s = 45.0
    budget = Budget(crashes=1, faults=1)

    def begin(self) -> None:
        self.create_slots()
        self.under_way[Trouble.START_FAILS] = 1
        self.world.after(self.until_s, partial(self._pass_by, Trouble.START_FAILS))
        self.world.after(30.0, partial(self.decider, "tick", self._do_tick))
        self.intake.invoke([self.record(0, "a")])
        self.start()

    def _tell(self, task: MemoryTask) -> None:
        super()._tell(task)
        super()._tell(task)


class TwoWorkers(Scope):
    """Two workers find one job while its message comes again; one of them dies at some moment."""

    title = "2 workers × 1 job × a redelivery × a death"
    scene = _plan(2, "a")
    until_s = 8.0
    budget = Budget(crashes=1, faults=1)

    def begin(self) -> None:
        self.create_slots()
        message = self.record(0, "a")
        table, now = self.table(Nobody(self)), self.world.now
        queued_at = now - 2 * limits.FRESH_LEASE_S
        job = Job("a", 1, JobStatus.QUEUED, POOL, 5, Request("s3://bucket/file.bam", "bam"), queued_at=queued_at)
        table.put(Job(**vars(job) | {"rank": keys.rank_of("a", 5, queued_at)}), None, "put")
        tasks = [self._launched(slot) for slot in table.slots(POOL)]
        self.world.due.clear()  # they start here and now
        for task in tasks:
            self._start(task)
        self.world.after(3.0, self.workers[tasks[0].arn].kill)
        self.intake.invoke([message])
        self.start()

    def _launched(self, slot: Slot) -> MemoryTask:
        table, now = self.table(Nobody(self)), self.world.now
        request = launch.request(Pool(POOL, self.plan.cap, LAUNCH), slot.lease, keys.ENV_LEASE)
        table.lease(slot, request, "", 0, now, f"lease-{slot.id.number}")
        answer = self.ecs.run(slot.lease, request)
        if not isinstance(answer, Started):
            raise TypeError(f"a task was to start, not {answer}")
        table.launched(slot.lease, answer.arn, now)
        return self.ecs.tasks[answer.arn]


SCOPES: Final[tuple[type[Scope], ...]] = (TwoDeciders, AmbiguousLaunch, TwoWorkers)
