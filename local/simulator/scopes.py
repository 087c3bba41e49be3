"""The small scopes that are explored in full."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from fleetcap import keys, limits
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.decide import launch
from fleetcap.decide.capacity import ON_DEMAND
from fleetcap.model import Holder, Job, JobStatus, Lease, OnParentFailure, Pool, Queued, Request, Slot, Started
from local.fargate.tasks import Status
from local.memory.ecs import MemoryTask
from local.simulator.exhaust import Budget, Nobody, Scope
from local.simulator.history import LAUNCH, POOL
from local.simulator.plan import ALL_SPOT, JobPlan, MessagePlan, Plan, Trouble
from local.simulator.ports import TableItems
from local.simulator.world import Process


def _plan(cap: int, *job_keys: str) -> Plan:
    messages = tuple(MessagePlan(0.0, 0.0, JobPlan(key, duration_s=0.4)) for key in job_keys)
    return Plan(0, cap, 1, 4, 1, messages, cold_start_s=40.0, idle_exit_s=5.0, look_s=20.0, lag_s=0.0)


def _message(key: str, *parents: str) -> MessagePlan:
    """Of a job that waits for these, however they end."""
    return MessagePlan(0.0, 0.0, JobPlan(key, 0.4, depends_on=parents, on_parent_failure=OnParentFailure.RUN))


class TwoDeciders(Scope):
    """Two messages about two jobs come to two deciders, and there is one slot."""

    title = "2 deciders × cap 1 × 2 jobs"
    scene = _plan(1, "a", "b")
    budget = Budget(crashes=2, faults=1, mishaps=3)

    def begin(self) -> None:
        self.create_slots()
        for number in range(2):
            self.intake.invoke([self.message(number)])
        self.start()


class AmbiguousLaunch(Scope):
    """A decider launches a task that stops before it runs, while the tick asks again under the same token."""

    title = "an ambiguous launch × the tick × STOPPED"
    scene = _plan(1, "a")
    until_s = 45.0
    budget = Budget(crashes=1, faults=1, mishaps=1)

    def begin(self) -> None:
        self.create_slots()
        self.under_way[Trouble.START_FAILS] = 1
        self.world.after(self.until_s, partial(self._pass_by, Trouble.START_FAILS))
        self.world.after(30.0, partial(self.decider, "tick", self._do_tick))
        self.intake.invoke([self.message(0)])
        self.start()


class WithWorkers(Scope):
    """Scenes in which workers live already."""

    def put_job(self) -> Job:
        """The job of the first message, in the queue for a while."""
        queued_at = self.world.now - 2 * limits.FRESH_LEASE_S
        key = next(iter(self.jobs))
        job = Job(key, 1, JobStatus.QUEUED, POOL, 5, Request("s3://bucket/file.bam", "bam"), queued_at=queued_at)
        job = replace(job, rank=keys.rank_of(key, 5, queued_at))
        self.table(Nobody(self)).put(job, None, "put")
        return job

    def launch_all(self) -> list[MemoryTask]:
        """A task on every slot, its worker about to beat for the first time."""
        self.create_slots()
        tasks = [self._launched(slot) for slot in self.table(Nobody(self)).slots(POOL)]
        self.world.due.clear()  # they start here and now
        for task in tasks:
            self._start(task)
        return tasks

    def _launched(self, slot: Slot, recorded: bool = True) -> MemoryTask:
        table, now = self.table(Nobody(self)), self.world.now
        (provider,) = self.plan.providers or [ON_DEMAND]
        request = launch.request(Pool(POOL, self.plan.cap, LAUNCH), slot.lease, keys.ENV_LEASE, provider)
        began_at = now if recorded else now - 2 * limits.FRESH_LEASE_S
        table.lease(slot, request, "", 0, began_at, f"lease-{slot.id.number}", provider=provider)
        answer = self.ecs.run(slot.lease, request)
        if not isinstance(answer, Started):
            raise TypeError(f"a task was to start, not {answer}")
        if recorded:
            table.launched(slot.lease, answer.arn, now)
        return self.ecs.tasks[answer.arn]


class StoppedTwice(WithWorkers):
    """A worker died in the middle of its job; the event comes twice, and the tick is under way as well."""

    title = "STOPPED × the same event again × the tick × a death"
    scene = _plan(1, "a")
    until_s = 20.0
    budget = Budget(crashes=1, faults=1, mishaps=1)

    def begin(self) -> None:
        message = self.message(0)
        (task,) = self.launch_all()
        worker = self.workers[task.arn]
        job = self.put_job()
        table = self.table(worker)
        table.beat(Lease.parse(task.started_by), task.arn, True, self.world.now)
        table.claim(job, Holder(Lease.parse(task.started_by)), self.world.now, "claim")
        worker.kill()
        self.start()
        self.world.after(10.0, partial(self.decider, "tick", self._do_tick))
        self.world.after(300.0, partial(self.intake.send, message, 0.0))

    def _tell(self, task: MemoryTask) -> None:
        super()._tell(task)
        super()._tell(task)


class UnrecordedEnds(WithWorkers):
    """The task of a launch that nobody recorded has stopped. Its event and the tick may both free the slot."""

    title = "the end of an unrecorded launch × the tick × a death"
    scene = replace(_plan(1, "a"), spot=ALL_SPOT)  # who was refused by Spot is launched on demand at once
    until_s = 10.0
    budget = Budget(crashes=1, faults=0, mishaps=1)

    def begin(self) -> None:
        self.message(0)
        self.create_slots()
        self.put_job()
        task = self._launched(self.table(Nobody(self)).slots(POOL)[0], recorded=False)
        self.world.due.clear()  # it never runs
        self.ecs.stopping(task, "TaskFailedToStart", "CannotPullContainerError")
        self.ecs.advance(task, Status.STOPPED)
        self.decider("tick", self._do_tick)
        self.start()


class TwoWorkers(WithWorkers):
    """Two workers find one job while its message comes again; any of them may die at any call."""

    title = "2 workers × 1 job × a redelivery × a death"
    scene = _plan(2, "a")
    until_s = 1.0
    budget = Budget(crashes=1, faults=1, mishaps=1)

    def begin(self) -> None:
        message = self.message(0)
        self.put_job()
        self.launch_all()
        self.intake.invoke([message])
        self.start()


class Cancelled(WithWorkers):
    """Somebody cancels a job that a worker is about to claim, or has; the worker may die, and the tick is near."""

    title = "a cancel × a worker × the tick × a death"
    scene = _plan(1, "a")
    until_s = 1.0
    budget = Budget(crashes=1, faults=1, mishaps=1)

    def begin(self) -> None:
        self.message(0)
        self.put_job()
        self.launch_all()
        self.decider("person", partial(self.cancel, "a"))
        self.start()
        self.world.after(30.0, partial(self.decider, "tick", self._do_tick))


class ParentEnds(WithWorkers):
    """A job's parent ends while the job arrives; `publish` hears of the end, and the tick judges nobody."""

    title = "a parent's end × its dependent's message × publish × a death"
    scene = replace(_plan(2, "p"), messages=(_message("p"), _message("c", "p")))
    until_s = 2.0
    budget = Budget(crashes=1, faults=1, mishaps=1)

    def begin(self) -> None:
        self.truth.judged_within_s = limits.QUEUE_VISIBILITY_S + 10.0  # a message is delivered once more, at most
        self.message(0)
        self.create_slots()
        self.put_job()
        self.decider("person", partial(self.cancel, "p"))
        self.intake.invoke([self.message(1)])
        self.start()

    def table_of(self, process: Process) -> StoredControlTable:
        return Unseeing(TableItems(self.caller(process), self.items), self.read)


class Unseeing(StoredControlTable):
    """A table that shows nobody who waits: what has to be heard of cannot be found."""

    def waiting(self, pool: Pool, limit: int) -> list[Queued]:  # noqa: ARG002 - whatever is asked
        return []


SCOPES: Final[tuple[type[Scope], ...]] = (
    TwoDeciders,
    AmbiguousLaunch,
    StoppedTwice,
    UnrecordedEnds,
    TwoWorkers,
    Cancelled,
    ParentEnds,
)
