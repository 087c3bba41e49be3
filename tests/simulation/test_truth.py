"""What is judged by the truth, and how: the claims that a history must not break, each scenario spelt out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from fleetcap import limits
from fleetcap.adapters.control_table import READER, StoredControlTable
from fleetcap.model import Holder, Job, JobStatus, Lease, OnParentFailure, Pool, Request, Slot, SlotId, SlotState
from local.memory.ecs import MemoryEcs
from local.simulator.plan import JobPlan, MessagePlan, Plan
from local.simulator.ports import WatchedItems
from local.simulator.shrink import closed
from local.simulator.truth import LANDS_WITHIN_S, UNDER_WAY_S, WRITTEN_WITHIN_S, Truth, Violation
from local.simulator.world import Process, World
from tests.examples import lapse

POOL: Final = Pool("default", 1, {})
FAIL: Final = OnParentFailure.FAIL
SOON_S: Final = 10.0
LIMIT_S: Final = 400.0
LANDS_AFTER_S: Final = 110.0


class Scene:
    """A table whose every write is judged, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.world = World(tracing=False)
        self.truth = Truth(self.world, [1], 1, 0.0)
        self.truth.ecs = MemoryEcs(lambda: self.world.now, lambda _: None)
        self.truth.read = READER
        self.truth.parents_limit_s = LIMIT_S
        self.items = WatchedItems(self.world, self.truth, lambda: 0.0)
        self.items.author = Process(self.world, "somebody", lambda _: None, lambda _: None)
        self.table = StoredControlTable(self.items)

    def put(
        self,
        key: str,
        status: JobStatus = JobStatus.QUEUED,
        queued_at: float | None = None,
        *,
        sent: bool = True,
        **request: object,
    ) -> Job:
        """A run begins now, after the one before if there is one, for a message `sent` now; its put was begun then."""
        self.truth.sent.setdefault(key, []).extend([self.world.now] if sent else [])
        before = self.table.job(key)
        asked = replace(Request("s3://bucket/{index}.bam", "bam"), **request)  # type: ignore[arg-type]
        begun_at = self.world.now if queued_at is None else queued_at
        job = Job(
            key, before.run + 1 if before else 1, status, "default", 5, asked,
            queued_at=begun_at, due_at=begun_at,
        )  # fmt: skip
        assert self.table.put(job, before, f"put {key} {job.run}")
        return job

    def put_late(self, key: str, status: JobStatus = JobStatus.QUEUED, **request: Any) -> Job:
        """A put that was begun at once and lands so much later."""
        began_at = self.world.now
        self.truth.sent[key] = [began_at]
        self.later(LANDS_AFTER_S)
        return self.put(key, status, began_at, **request)

    def end(self, key: str, status: JobStatus, error: str = "") -> None:
        job = self.table.job(key)
        assert job
        assert self.table.finish(job, status, self.world.now, error, (), f"end {key} {job.run}")

    def launch(self, job: Job, number: int) -> Lease:
        """A worker is begun for it."""
        self.truth.cap = 4
        slot = Slot(SlotId("default", number), SlotState.EMPTY, 1)
        self.table.create_slots([slot.id], 1.0)
        assert self.table.lease(slot, "{}", job.key, 0, self.world.now, f"lease {number}")
        return slot.lease

    def claim(self, job: Job, lease: Lease) -> None:
        """That worker takes it."""
        assert self.table.claim(job, Holder(lease), self.world.now, f"claim {job.key}")

    def try_again(self, job: Job, lease: Lease) -> Job:
        """Its attempt there ends without a result, and it waits for the next; the job as it is then."""
        running = replace(job, status=JobStatus.RUNNING, attempt=job.attempt + 1, holder=Holder(lease))
        assert self.table.requeue(running, self.world.now, "internal: no child", lapse(running), f"again {job.key}")
        found = self.table.job(job.key)
        assert found
        return found

    def later(self, seconds: float) -> None:
        self.world.now += seconds


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- parents


@pytest.fixture
def child(scene: Scene) -> Scene:
    """A parent ran twice and its first run was cancelled; a child waits for it, and for one that never comes."""
    scene.truth.parents = {"child": (("parent", "never"), FAIL)}
    scene.truth.judged_within_s = SOON_S
    scene.put("parent")
    scene.end("parent", JobStatus.CANCELLED)
    scene.later(60.0)
    scene.put("parent")
    scene.put("child", JobStatus.WAITING)
    return scene


def test_a_child_that_waits_for_a_run_anew_and_for_its_limit_is_in_time(child: Scene) -> None:
    """How the parent's first run ended concerns nobody any more."""
    child.later(LIMIT_S)
    child.end("child", JobStatus.FAILED, "dependency: not all have ended")


def test_a_child_of_a_parent_that_has_failed_at_last_is_told_at_once(child: Scene) -> None:
    child.end("parent", JobStatus.CANCELLED)
    child.later(SOON_S + 1)
    with pytest.raises(Violation, match="LIVE: child waited"):
        child.end("child", JobStatus.FAILED, "dependency: parent")


# --- arrays


@pytest.fixture
def array(scene: Scene) -> tuple[Scene, Job]:
    """An array of two whose elements are queued."""
    scene.truth.elements = {"a": ["a/0", "a/1"]}
    waiting = scene.put("a", JobStatus.WAITING, array=2, step=1)
    for key in ("a/0", "a/1"):
        scene.put(key, part_of="a")
    assert scene.table.grow(waiting)
    return scene, waiting


def test_an_array_that_is_given_up_may_miss_who_ended_in_that_very_moment(array: tuple[Scene, Job]) -> None:
    scene, waiting = array
    scene.later(LIMIT_S)
    for key in ("a/0", "a/1"):
        scene.end(key, JobStatus.CANCELLED)
    assert scene.table.gather(waiting, JobStatus.FAILED, scene.world.now, "array: given up", (0, 2, 0), "op")
    assert scene.truth.cut_short == {"a"}


def test_an_array_that_is_given_up_before_it_had_put_its_elements_anew_is_cut_short(array: tuple[Scene, Job]) -> None:
    """Seed 751489304: all elements of the run before had failed, and so all of this one's were taken to have ended."""
    scene, waiting = array
    for number, key in enumerate(("a/0", "a/1")):
        job = scene.table.job(key)
        assert job
        scene.claim(job, scene.launch(job, number))
        scene.end(key, JobStatus.FAILED)
    assert scene.table.gather(waiting, JobStatus.FAILED, scene.world.now, "array: 2 failed", (0, 2, 0), "op")
    assert scene.truth.cut_short == set()
    scene.later(1.0)
    again = scene.put("a", JobStatus.WAITING, array=2, step=1)
    scene.later(LIMIT_S)
    assert scene.table.gather(again, JobStatus.FAILED, scene.world.now, "array: given up", (0, 2, 0), "again")
    assert scene.truth.cut_short == {"a"}


def test_the_limit_of_an_array_counts_from_when_its_put_was_begun_though_it_landed_late(scene: Scene) -> None:
    """Seed 1726685726: a part whose intake died landed a hundred seconds later, and was given up in time."""
    scene.truth.elements = {"a": ["a/0", "a/1"]}
    waiting = scene.put_late("a", JobStatus.WAITING, array=2, step=1)
    scene.later(LIMIT_S - LANDS_AFTER_S)
    assert scene.table.gather(waiting, JobStatus.FAILED, scene.world.now, "array: given up", (0, 2, 0), "op")
    assert scene.truth.cut_short == {"a"}


@pytest.mark.parametrize("counts", [(0, 1, 0), (2, 0, 0)])
def test_an_array_that_is_given_up_counts_every_element_and_does_not_complete(
    array: tuple[Scene, Job], counts: tuple[int, int, int]
) -> None:
    scene, waiting = array
    scene.later(LIMIT_S)
    status = JobStatus.COMPLETED if counts[0] else JobStatus.FAILED
    with pytest.raises(Violation, match="ARRAY: a was given up as"):
        scene.table.gather(waiting, status, scene.world.now, "", counts, "op")


def test_before_its_limit_an_array_ends_with_its_elements_and_counts_them_rightly(array: tuple[Scene, Job]) -> None:
    scene, waiting = array
    scene.end("a/0", JobStatus.CANCELLED)
    with pytest.raises(Violation, match="ARRAY: a ended while 1 of its elements had not"):
        scene.table.gather(waiting, JobStatus.FAILED, scene.world.now, "", (0, 0, 2), "op")


@pytest.fixture
def cut_off(scene: Scene) -> tuple[Scene, Job, Job]:
    """An array of two parts. The two elements of the first one completed; the second part has not put its element."""
    elements = ["a/0", "a/1", "a/2"]
    scene.truth.elements = {"a": elements}
    whole = scene.put("a", JobStatus.WAITING, array=3, step=2)
    scene.put("a/part-0", JobStatus.WAITING, array=2, step=1, part_of="a")
    second = scene.put("a/part-1", JobStatus.WAITING, array=1, first=2, step=1, part_of="a")
    for key in elements[:2]:
        scene.put(key, part_of="a/part-0")
        scene.end(key, JobStatus.COMPLETED)
    assert scene.table.grow(whole)
    return scene, whole, second


def test_an_element_that_was_never_put_counts_as_cancelled_once_its_part_is(cut_off: tuple[Scene, Job, Job]) -> None:
    scene, whole, _ = cut_off
    scene.end("a/part-1", JobStatus.CANCELLED)
    assert scene.table.gather(whole, JobStatus.FAILED, scene.world.now, "", (2, 0, 1), "op")


@pytest.mark.parametrize("counts", [(3, 0, 0), (2, 1, 0), (2, 0, 0)])
def test_an_element_that_was_never_put_counts_as_nothing_else(
    cut_off: tuple[Scene, Job, Job], counts: tuple[int, int, int]
) -> None:
    scene, whole, _ = cut_off
    scene.end("a/part-1", JobStatus.CANCELLED)
    with pytest.raises(Violation, match="ARRAY: a is FAILED and counts"):
        scene.table.gather(whole, JobStatus.FAILED, scene.world.now, "", counts, "op")


@pytest.mark.parametrize("anew", [False, True], ids=["it waits", "it runs anew"])
def test_an_element_whose_part_may_still_put_it_has_not_ended(cut_off: tuple[Scene, Job, Job], anew: bool) -> None:
    scene, whole, second = cut_off
    if anew:
        scene.end("a/part-1", JobStatus.CANCELLED)
        scene.later(1.0)
        scene.put("a/part-1", JobStatus.WAITING, **vars(second.request))
    with pytest.raises(Violation, match="ARRAY: a ended while 1 of its elements had not"):
        scene.table.gather(whole, JobStatus.FAILED, scene.world.now, "", (2, 0, 1), "op")


# --- runs


def test_a_message_that_is_sent_while_an_end_is_under_way_may_get_a_run_of_its_own(scene: Scene) -> None:
    scene.put("a")
    scene.later(10.0)
    scene.truth.sent["a"].append(scene.world.now)
    scene.later(LANDS_WITHIN_S)
    scene.end("a", JobStatus.CANCELLED)
    scene.later(300.0)
    scene.put("a", sent=False)


def test_the_message_that_a_run_was_put_for_never_gets_another(scene: Scene) -> None:
    """Seed 1908374223: intake's clock and that of whoever cancelled the job were behind SQS's."""
    scene.truth.skew_s = 20.0
    scene.put("a")
    scene.later(LANDS_WITHIN_S)
    scene.end("a", JobStatus.CANCELLED)
    scene.later(300.0)
    with pytest.raises(Violation, match="ONE-RUN: a was run again for a message that run 1 had answered"):
        scene.put("a", sent=False)


# --- deadlines


def test_a_worker_that_comes_while_a_job_is_given_up_comes_too_late(scene: Scene) -> None:
    scene.truth.dispatch_deadline_s = limits.DECIDER_TIMEOUT_S
    scene.put("a")
    scene.later(4 * limits.DECIDER_TIMEOUT_S)
    scene.truth.ready.append(scene.world.now - 1.0)
    scene.end("a", JobStatus.FAILED, "capacity: none")


def test_a_worker_that_came_in_good_time_saves_a_job_from_its_deadline(scene: Scene) -> None:
    scene.truth.dispatch_deadline_s = 2 * WRITTEN_WITHIN_S
    scene.put("a")
    scene.later(9 * WRITTEN_WITHIN_S)
    scene.truth.ready.append(scene.world.now - 1.1 * WRITTEN_WITHIN_S)
    with pytest.raises(Violation, match="DEADLINE: a was given up"):
        scene.end("a", JobStatus.FAILED, "capacity: none")


def test_a_worker_that_comes_while_the_end_of_a_job_is_under_way_comes_too_late(scene: Scene) -> None:
    """Also where that end lands two minutes after it was decided."""
    scene.truth.dispatch_deadline_s = 2 * WRITTEN_WITHIN_S
    scene.put("a")
    scene.later(9 * WRITTEN_WITHIN_S)
    scene.truth.ready.append(scene.world.now - 110.0)
    scene.end("a", JobStatus.FAILED, "capacity: none")


def test_a_wait_in_the_queue_counts_from_when_the_put_was_begun_though_it_landed_late(scene: Scene) -> None:
    scene.truth.waiting_limit_s = LIMIT_S
    scene.put_late("a")
    scene.later(LIMIT_S - LANDS_AFTER_S)
    scene.end("a", JobStatus.FAILED, "capacity: it has waited for as long as it may")


def test_a_run_that_bears_the_age_of_one_long_before_is_given_up_too_early(scene: Scene) -> None:
    """No put is under way for longer than its decider may take and its write."""
    scene.truth.waiting_limit_s = LIMIT_S
    first = scene.put("a")
    scene.end("a", JobStatus.CANCELLED)
    scene.later(2 * LIMIT_S)
    scene.put("a", queued_at=first.queued_at)
    with pytest.raises(Violation, match="DEADLINE: a was given up after 255 s"):
        scene.end("a", JobStatus.FAILED, "capacity: it has waited for as long as it may")


# --- shrinking


def test_a_history_is_not_made_small_by_taking_a_parent_away_that_is_waited_for() -> None:
    parent, child = JobPlan("p", 1.0), JobPlan("c", 1.0, depends_on=("p", "never"))
    messages = tuple(MessagePlan(0.0, 0.0, job) for job in (parent, child))
    plan = Plan(1, 1, 1, 1, 1, messages)
    [left] = closed(plan.messages[1:], plan.messages)
    assert left.job
    assert left.job.depends_on == ("never",)


def test_a_wait_for_parents_counts_from_when_the_put_was_begun_though_it_landed_late() -> None:
    scene = Scene()
    scene.truth.parents = {"child": (("parent",), FAIL)}
    scene.put_late("child", JobStatus.WAITING, depends_on=("parent",))
    scene.later(LIMIT_S - LANDS_AFTER_S)
    scene.end("child", JobStatus.FAILED, "it has waited for as long as it may")


def test_a_put_that_was_begun_before_its_message_counts_from_that() -> None:
    scene = Scene()
    scene.truth.parents = {"child": (("parent",), FAIL)}
    scene.put("child", JobStatus.WAITING, queued_at=scene.world.now - LIMIT_S, depends_on=("parent",))
    scene.later(LIMIT_S - UNDER_WAY_S - 1.0)
    with pytest.raises(Violation, match="child was given up after 399 s"):
        scene.end("child", JobStatus.FAILED, "it has waited for as long as it may")


def test_a_job_that_is_passed_by_counts_on_the_worker_that_was_begun_for_the_other() -> None:
    """The other one came later, had the better rank, and took the worker that was on its way."""
    scene = Scene()
    scene.truth.pick_up_bound_s = 100.0
    first = scene.put("first")
    old = scene.launch(first, 0)
    scene.later(60.0)
    better = scene.put("better")
    new = scene.launch(better, 1)
    scene.claim(better, old)
    scene.later(99.0)
    scene.claim(first, new)


def test_a_job_that_is_passed_by_twice_counts_on_the_last_ones_worker() -> None:
    scene = Scene()
    scene.truth.pick_up_bound_s = 100.0
    waits = [scene.put("first")]
    workers = [scene.launch(waits[0], 0)]
    for number in (1, 2):
        scene.later(60.0)
        waits.append(scene.put(f"better {number}"))
        workers.append(scene.launch(waits[-1], number))
        scene.claim(waits[-1], workers[-2])
    scene.later(99.0)
    scene.claim(waits[0], workers[2])


def test_a_job_whose_worker_goes_to_one_that_was_passed_by_itself_counts_on_that_ones_worker() -> None:
    scene = Scene()
    scene.truth.pick_up_bound_s = 100.0
    first = scene.put("first")
    mine = scene.launch(first, 0)
    second = scene.put("second")
    its = scene.launch(second, 1)
    scene.later(60.0)
    better = scene.put("better")
    new = scene.launch(better, 2)
    scene.claim(better, its)
    scene.claim(second, mine)
    scene.later(99.0)
    scene.claim(first, new)


@pytest.fixture
def tried_again(scene: Scene) -> tuple[Scene, Job, Lease]:
    """A job whose first attempt failed, and the worker where it did, which is free."""
    scene.truth.pick_up_bound_s = 100.0
    failed = scene.put("failed")
    free = scene.launch(failed, 0)
    scene.claim(failed, free)
    return scene, scene.try_again(failed, free), free


@pytest.mark.parametrize("waited_s", [159.0, 161.0])
def test_a_job_whose_free_worker_goes_to_one_that_is_tried_again_waits_for_the_next_tick(
    tried_again: tuple[Scene, Job, Lease], waited_s: float
) -> None:
    scene, again, free = tried_again
    waits = scene.put("waits")
    scene.claim(again, free)
    scene.later(waited_s)
    if waited_s < 100.0 + limits.TICK_PERIOD_S:
        scene.claim(waits, Lease(SlotId("default", 1), 1))
    else:
        with pytest.raises(Violation, match="waits was picked up after"):
            scene.claim(waits, Lease(SlotId("default", 1), 1))


def test_a_job_with_a_launch_of_its_own_is_not_excused_by_one_that_is_tried_again(
    tried_again: tuple[Scene, Job, Lease],
) -> None:
    scene, again, free = tried_again
    served = scene.put("served")
    own = scene.launch(served, 1)
    scene.claim(again, free)
    scene.later(101.0)
    with pytest.raises(Violation, match="served was picked up after 101 s"):
        scene.claim(served, own)


def test_a_job_whose_own_launch_was_forgotten_is_not_excused_by_others_with_theirs() -> None:
    scene = Scene()
    scene.truth.pick_up_bound_s = 100.0
    first = scene.put("first")
    for number in range(3):
        scene.later(60.0)
        other = scene.put(f"other {number}")
        scene.claim(other, scene.launch(other, number))
    with pytest.raises(Violation, match="first was picked up after 180 s beside free slots"):
        scene.claim(first, Lease(SlotId("default", 3), 1))


def test_a_job_that_one_passed_by_which_came_earlier_is_picked_up_in_time() -> None:
    scene = Scene()
    scene.truth.pick_up_bound_s = 100.0
    earlier = scene.put("earlier")
    scene.later(1.0)
    first = scene.put("first")
    worker = scene.launch(first, 0)
    scene.later(60.0)
    scene.claim(earlier, worker)
    scene.later(41.0)
    with pytest.raises(Violation, match="first was picked up after 101 s beside free slots"):
        scene.claim(first, Lease(SlotId("default", 1), 1))
