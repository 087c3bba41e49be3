"""The fences hold between processes: eight of them, each with a client of its own, set off together again and again.

Threads of one process take turns under one interpreter; processes meet nowhere but in the table, as deciders and
workers do.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Final, TypeVar

import boto3
import pytest

from fleetcap import keys
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.decide import capacity
from fleetcap.model import Flags, Holder, JobStatus, Lease, SlotId
from tests.emulator import running_emulator, s3_environment
from tests.examples import GENERATION, NOW, a_job, a_pool, lapse
from tests.fakes import make_table

pytestmark = pytest.mark.cloud

RACERS: Final = 8
ROUNDS: Final = 20
PATIENCE_S: Final = 60.0
TABLE: Final = "control"
_T = TypeVar("_T")


@dataclass
class Racer:
    """What one of the processes knows: its number, its own way to the table, and where it meets the others."""

    number: int
    table: DynamoControlTable
    meeting: Barrier
    writes: int = 0

    def meet(self) -> None:
        """Go on at the same moment as everybody else."""
        self.meeting.wait(PATIENCE_S)

    def op(self) -> str:
        """A name that no other write of any process has."""
        self.writes += 1
        return f"{self.number}-{self.writes}"


def serve(number: int, meeting: Barrier, orders: Connection) -> None:
    """A process: take part in one race after the other. Where one falls, all stop waiting for it."""
    with closing(boto3.client("dynamodb")) as client:
        me = Racer(number, DynamoControlTable(client, TABLE), meeting)
        me.table.slots("nobody")  # the first request of a client is a slow one
        try:
            while True:
                task = orders.recv()
                me.meet()
                orders.send(task(me))
        except EOFError:
            return
        except BaseException:
            meeting.abort()
            raise


@dataclass
class Race:
    """The processes, as the test sees them, and a table of its own to look at what they left."""

    table: DynamoControlTable
    orders: list[Connection]

    def __call__(self, task: Callable[[Racer], _T]) -> list[_T]:
        """What each of them brings back."""
        for order in self.orders:
            order.send(task)
        return [order.recv() for order in self.orders]


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Race]:
    with pytest.MonkeyPatch.context() as environment, running_emulator(tmp_path_factory.mktemp("emulator")) as endpoint:
        environment.delenv("AWS_PROFILE", raising=False)
        for name, value in s3_environment(endpoint).items():
            environment.setenv(name, value)
        with closing(boto3.client("dynamodb")) as client:
            table = make_table(client, TABLE)
            with processes() as orders:
                yield Race(table, orders)


@contextmanager
def processes() -> Iterator[list[Connection]]:
    """Started anew rather than forked, so that they share nothing but the place where they meet."""
    spawn = multiprocessing.get_context("spawn")
    meeting = spawn.Barrier(RACERS)
    started, orders = [], []
    try:
        for number in range(RACERS):
            ours, theirs = spawn.Pipe()
            started.append(spawn.Process(target=serve, args=(number, meeting, theirs), daemon=True))
            orders.append(ours)
            started[-1].start()
            theirs.close()  # so that we hear of its end
        yield orders
    finally:
        for order in orders:
            order.close()
        for process in started:
            process.join(PATIENCE_S)
            process.kill()
            process.join()
            process.close()


# --- slots

POOL: Final = a_pool(cap=3)
SLOTS: Final = list(keys.slot_ids(POOL.name, POOL.cap))


def win_leases(me: Racer) -> list[Lease]:
    """Round after round: lease every slot that is to be had; then whoever has one gives it back."""
    won = []
    for _ in range(ROUNDS):
        slots = me.table.slots(POOL.name)
        first = me.number % len(slots)
        me.meet()
        tried = slots[first:] + slots[:first]
        mine = [slot.lease for slot in tried if me.table.lease(slot, "{}", "job", 0, NOW, me.op())]
        me.meet()
        for lease in mine:
            assert me.table.release(lease, "", NOW, "again", 0, me.op())
        me.meet()
        assert not me.table.lease(tried[0], "{}", "too late", 0, NOW, me.op())
        me.meet()
        won += mine
    return won


def test_one_of_eight_processes_leases_a_slot_under_each_of_its_generations(race: Race) -> None:
    race.table.create_slots(SLOTS, GENERATION)
    won = [lease for leases in race(win_leases) for lease in leases]
    generations = [GENERATION, *range(int(NOW), int(NOW) + ROUNDS - 1)]
    assert sorted(won) == [Lease(slot, generation) for slot in SLOTS for generation in generations]
    assert [slot.generation for slot in race.table.slots(POOL.name)] == [generations[-1] + 1] * len(SLOTS)


# --- slots at everybody's own pace

BUSY: Final = a_pool(cap=3, name="busy")


@dataclass
class Life:
    """What a process went through: the leases it had, and every generation that it read, by slot."""

    held: list[Lease] = field(default_factory=list)
    read: dict[SlotId, list[int]] = field(default_factory=dict)


def live(me: Racer) -> Life:
    """Look for a free slot; where it is to be had, be its worker from lease to release."""
    life = Life()
    for look in range(ROUNDS):
        slots = me.table.slots(BUSY.name)
        for slot in slots:
            life.read.setdefault(slot.id, []).append(slot.generation)
        candidates = capacity.candidates(BUSY, slots)
        if not candidates:
            continue
        slot = candidates[me.number % len(candidates)]
        if me.table.lease(slot, "{}", "job", 0, NOW, me.op()):
            work(me, slot.lease, f"task {me.number}-{look}")
            life.held.append(slot.lease)
    return life


def work(me: Racer, lease: Lease, arn: str) -> None:
    """Nothing that the holder of a lease does is refused, and nothing that he does after it is taken."""
    assert me.table.launched(lease, arn, NOW)
    assert me.table.beat(lease, arn, True, NOW) == Flags()
    assert me.table.beat(lease, "another", False, NOW) is None
    assert me.table.beat(lease, arn, False, NOW) == Flags()
    assert me.table.release(lease, arn, NOW, "done", 0, me.op())
    assert me.table.beat(lease, arn, False, NOW) is None
    assert not me.table.release(lease, arn, NOW, "done", 0, me.op())


def test_slots_pass_from_process_to_process_under_generations_that_only_grow(race: Race) -> None:
    race.table.create_slots(keys.slot_ids(BUSY.name, BUSY.cap), GENERATION)
    lives = race(live)
    held = [lease for life in lives for lease in life.held]
    assert held
    assert len(held) == len(set(held))
    for slot in race.table.slots(BUSY.name):
        assert not slot.held
        used = sorted(lease.generation for lease in held if lease.slot == slot.id)
        assert [*used, slot.generation] == [GENERATION, *range(int(NOW), int(NOW) + len(used))]
        assert all(life.read[slot.id] == sorted(life.read[slot.id]) for life in lives)


# --- jobs

JOBS: Final = [a_job(f"claimed/{number}") for number in range(6)]
ATTEMPTS: Final = 5


def claim_all(me: Racer) -> list[tuple[str, int]]:
    """Attempt after attempt: claim each job at once; then whoever has it gives it back. The claims that were won."""
    won = []
    holder = Holder(Lease(SlotId(POOL.name, me.number), GENERATION))
    for _ in range(ATTEMPTS):
        for job in JOBS:
            queued = me.table.job(job.key)
            assert queued
            me.meet()
            running = me.table.claim(queued, holder, NOW, me.op())
            me.meet()
            if running:
                assert me.table.job(job.key) == running
                won.append((running.key, running.attempt))
                assert me.table.requeue(running, NOW, "", lapse(running), me.op())
            me.meet()
    return won


def test_one_of_eight_processes_claims_a_job_under_each_of_its_attempts(race: Race) -> None:
    for job in JOBS:
        assert race.table.put(job, None, f"put {job.key}")
    won = [claim for claims in race(claim_all) for claim in claims]
    assert sorted(won) == [(job.key, attempt) for job in JOBS for attempt in range(1, ATTEMPTS + 1)]


def put_runs(me: Racer) -> list[int]:
    """Run after run: put the next one on what was read. The runs that were this process's own."""
    won = []
    for _ in range(ROUNDS):
        standing = me.table.job("put")
        run = standing.run + 1 if standing else 1
        me.meet()
        ours = a_job("put", JobStatus.COMPLETED, run=run, priority=me.number, ended_at=NOW)
        if me.table.put(ours, standing, me.op()):
            won.append(run)
        me.meet()
        stands = me.table.job("put")
        assert stands
        assert stands.run == run
        assert (stands.priority == me.number) == (run in won)
        me.meet()
    return won


def test_one_of_eight_processes_puts_each_run_of_a_job(race: Race) -> None:
    won = [run for runs in race(put_runs) for run in runs]
    assert sorted(won) == list(range(1, ROUNDS + 1))
