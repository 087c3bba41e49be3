"""What becomes of messages, with the real decider over a real table's expressions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from fleetcap import jobs, keys, limits
from fleetcap.adapters.control_table import Reply
from fleetcap.catalog import artifact_keys
from fleetcap.fleet import Fleet
from fleetcap.model import Doubt, Holder, Job, JobStatus, Lease, SlotId, SlotState, Unanswered
from handlers.intake import Intake
from local.fargate.tasks import NO_CAPACITY
from tests.fakes import FakeCache, FakeRechecks, HandClock, HandEcs, Lines, make_fleet


@dataclass
class FakeRejects:
    """Keeps what is rejected."""

    kept: list[tuple[str, str, str]] = field(default_factory=list)

    def reject(self, body: str, reason: str, message_id: str) -> None:
        self.kept.append((body, reason, message_id))


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache()


@pytest.fixture
def rejects() -> FakeRejects:
    return FakeRejects()


@pytest.fixture
def intake(fleet: Fleet, cache: FakeCache, rejects: FakeRejects) -> Intake:
    return Intake(fleet, cache, rejects, frozenset(), FakeRechecks())


def message(key: str, **fields: object) -> str:
    return json.dumps({"source": "s3://input/a.bam", "workflow_key": key, **fields})


def batch(clock: HandClock, *bodies: str, sent_ago_s: float = 0.0) -> dict[str, Any]:
    sent = {"SentTimestamp": str(int((clock.now() - sent_ago_s) * 1000))}
    return {"Records": [{"messageId": f"m{n}", "body": body, "attributes": sent} for n, body in enumerate(bodies)]}


def test_a_new_key_becomes_a_queued_job_with_a_worker_of_its_own(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    assert intake.handle(batch(clock, message("a"))) == {"batchItemFailures": []}
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run, job.attempt) == (JobStatus.QUEUED, 1, 0)
    held = [slot for slot in fleet.table.slots("default") if slot.held]
    assert [(slot.state, slot.arn, slot.for_job) for slot in held] == [(SlotState.LAUNCHING, tasks.arns[0], "a")]
    assert len(tasks.calls) == 1


def test_an_object_that_s3_tells_of_becomes_one_job_however_often_it_is_told(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    created = {"bucket": {"name": "input"}, "object": {"key": "a b.bam", "etag": "0" * 32}}
    told = json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": created})
    intake.handle(batch(clock, told))
    intake.handle(batch(clock, told))
    [key] = {str(line["key"]) for line in lines.of("admitted")}
    job = fleet.table.job(key)
    assert job is not None
    assert (job.request.source, job.run) == ("s3://input/a b.bam", 1)
    assert len(tasks.calls) == 1


def test_a_burst_beyond_the_cap_launches_exactly_the_cap_and_queues_the_rest(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    for n in range(5):
        intake.handle(batch(clock, message(f"k{n}")))
    assert len(tasks.calls) == 2
    assert len(set(tasks.calls)) == 2
    assert len(fleet.table.queued(fleet.pools["default"], clock.now(), 10)) == 5


def test_the_same_message_ten_times_is_one_run_and_one_launch(
    intake: Intake, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    for _ in range(10):
        intake.handle(batch(clock, message("same")))
    assert len(tasks.calls) == 1
    assert {line["job"] for line in lines.of("admitted")} == {lines.of("admitted")[0]["job"]}
    assert [line["decision"] for line in lines.of("admitted")] == ["Enqueue", *["Attach"] * 9]


def test_the_message_that_a_run_was_put_for_never_begins_another_although_all_clocks_are_behind(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs
) -> None:
    """Nor does such a job wait for its clock: its worker is launched at once."""
    sent = batch(clock, message("a"))
    clock.time -= 12.0
    intake.handle(sent)
    assert len(tasks.calls) == 1
    assert jobs.cancel(fleet.table, clock, "a", "a change of plans")
    clock.time += 370.0
    intake.handle(sent)
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run) == (JobStatus.CANCELLED, 1)
    intake.handle(batch(clock, message("a")))
    assert (job := fleet.table.job("a"))
    assert (job.status, job.run) == (JobStatus.QUEUED, 2)


def test_deciders_that_join_a_run_at_the_same_moment_launch_nothing_of_their_own(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = fleet.look(fleet.pools["default"])
    monkeypatch.setattr(Fleet, "look", lambda *_: empty)  # nobody sees another's lease yet
    for _ in range(3):
        intake.handle(batch(clock, message("same")))
    assert len(tasks.calls) == 1


def test_a_message_that_joins_a_run_nobody_launched_for_asks_again(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(fleet.table, "bank", lambda *_: 1 / 0)
        intake.handle(batch(clock, message("a")))
    assert tasks.calls == []
    clock.sleep(limits.FRESH_LEASE_S + 1)
    intake.handle(batch(clock, message("a")))
    assert len(tasks.calls) == 1


def test_a_bad_message_is_kept_with_its_reason_and_its_neighbours_go_on(
    intake: Intake, fleet: Fleet, clock: HandClock, rejects: FakeRejects
) -> None:
    answer = intake.handle(batch(clock, message("a"), "{nonsense", message("b")))
    assert answer == {"batchItemFailures": []}
    assert [(body, message_id) for body, _, message_id in rejects.kept] == [("{nonsense", "m1")]
    assert fleet.table.job("a")
    assert fleet.table.job("b")


def test_a_message_that_cannot_be_settled_is_delivered_again_and_its_neighbours_are_not(
    intake: Intake, clock: HandClock, rejects: FakeRejects
) -> None:
    broken = batch(clock, message("a"), message("b"))
    del broken["Records"][0]["attributes"]
    assert intake.handle(broken) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert rejects.kept == []


def test_a_finished_result_answers_without_a_run_or_a_launch(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs, cache: FakeCache
) -> None:
    cache.held = set(artifact_keys("old", "bam"))
    intake.handle(batch(clock, message("old")))
    job = fleet.table.job("old")
    assert job is not None
    assert (job.status, job.artifacts) == (JobStatus.COMPLETED, artifact_keys("old", "bam"))
    assert tasks.calls == []


def finished(fleet: Fleet, clock: HandClock, key: str, status: JobStatus) -> None:
    queued = fleet.table.job(key)
    assert queued is not None
    running = fleet.table.claim(queued, Holder(Lease(SlotId("default", 0), 1)), clock.now(), "claimed")
    assert running is not None
    assert fleet.table.finish(running, status, clock.now(), "", (), "finished")


def test_a_redelivery_after_the_end_is_answered_by_that_run(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    original = batch(clock, message("a"))
    intake.handle(original)
    clock.sleep(100)
    finished(fleet, clock, "a", JobStatus.FAILED)
    clock.sleep(100)
    intake.handle(original)
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run) == (JobStatus.FAILED, 1)


def test_a_run_answers_its_message_although_its_decider_had_a_clock_behind(
    intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    """The result stood in the cache, and is gone when the message comes again: it was answered all the same."""
    original = batch(clock, message("a"), sent_ago_s=-2.0)
    cache.held.update(artifact_keys("a", "bam"))
    intake.handle(original)
    cache.held.clear()
    clock.sleep(100)
    intake.handle(original)
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run) == (JobStatus.COMPLETED, 1)


def test_a_message_sent_after_the_end_starts_the_next_run_with_higher_attempts(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    intake.handle(batch(clock, message("a")))
    finished(fleet, clock, "a", JobStatus.FAILED)
    clock.sleep(1)
    intake.handle(batch(clock, message("a")))
    job = fleet.table.job("a")
    assert job is not None
    assert (job.status, job.run, job.attempt) == (JobStatus.QUEUED, 2, 1)


def test_an_unanswered_launch_keeps_its_slot(intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs) -> None:
    tasks.doubts = [Unanswered(Doubt.UNKNOWN, "timed out")]
    intake.handle(batch(clock, message("a")))
    assert [slot.arn for slot in fleet.table.slots("default") if slot.held] == [""]


def test_a_failed_launch_gives_its_slot_back_and_the_pool_backs_off(
    intake: Intake, fleet: Fleet, clock: HandClock, tasks: HandEcs, lines: Lines
) -> None:
    tasks.capacity = 0
    intake.handle(batch(clock, message("a")))
    assert not any(slot.held for slot in fleet.table.slots("default"))
    intake.handle(batch(clock, message("b")))
    assert len(tasks.calls) == 1
    said = f"a launch failed: AWS has no Fargate capacity at this time ({NO_CAPACITY})"
    assert lines.of("wait")[-1]["reason"] == said


def test_a_cap_of_zero_launches_nothing_and_queues(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    stopped = make_fleet(fleet.table, cap=0)  # type: ignore[arg-type]
    Intake(stopped, intake.cache, intake.rejects, frozenset(), intake.rechecks).handle(batch(clock, message("a")))
    assert isinstance(stopped.tasks, HandEcs)
    assert stopped.tasks.calls == []
    assert fleet.table.job("a") is not None


# --- force, the ceiling, the name in the logs


def completed(intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache) -> Job:
    """Run 1 of key `a`, its result in the cache, some time ago."""
    intake.handle(batch(clock, message("a")))
    queued = fleet.table.job("a")
    assert queued
    running = fleet.table.claim(queued, Holder(Lease(SlotId("default", 0), 1)), clock.now(), clock.unique())
    assert running
    artifacts = artifact_keys("a", "bam")
    assert fleet.table.finish(running, JobStatus.COMPLETED, clock.now(), "", artifacts, clock.unique())
    cache.held |= set(artifacts)
    clock.sleep(60)
    ended = fleet.table.job("a")
    assert ended
    return ended


def test_force_begins_a_run_although_the_result_stands_and_marks_what_is_older_as_void(
    intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    before = completed(intake, fleet, clock, cache)
    intake.handle(batch(clock, message("a", force=True)))
    job = fleet.table.job("a")
    assert job
    assert (job.run, job.status, job.attempt) == (2, JobStatus.QUEUED, before.attempt)
    assert job.since == job.queued_at == clock.now()
    assert job.changes > before.changes


def test_a_forced_message_that_comes_again_after_its_run_begins_no_other(
    intake: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    completed(intake, fleet, clock, cache)
    forced = batch(clock, message("a", force=True))
    intake.handle(forced)
    job = fleet.table.job("a")
    assert job
    assert fleet.table.finish(job, JobStatus.CANCELLED, clock.now(), "", (), clock.unique())
    intake.handle(forced)
    again = fleet.table.job("a")
    assert again
    assert again.run == 2


def test_a_message_is_answered_by_a_run_that_was_ended_on_a_clock_that_is_slow(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    told = batch(clock, message("a"))
    intake.handle(told)
    job = fleet.table.job("a")
    assert job
    assert fleet.table.finish(job, JobStatus.CANCELLED, clock.now() - 600, "", (), clock.unique())
    intake.handle(told)
    standing = fleet.table.job("a")
    assert standing
    assert (standing.run, standing.status) == (1, JobStatus.CANCELLED)


def test_a_forced_message_joins_the_run_that_is_under_way(intake: Intake, fleet: Fleet, clock: HandClock) -> None:
    intake.handle(batch(clock, message("a")))
    intake.handle(batch(clock, message("a", force=True)))
    job = fleet.table.job("a")
    assert job
    assert (job.run, job.since) == (1, 0.0)


def test_the_count_of_changes_grows_even_where_the_item_was_deleted_in_between(
    intake: Intake, fleet: Fleet, clock: HandClock
) -> None:
    intake.handle(batch(clock, message("a"), message("b")))
    first, second = fleet.table.job("a"), fleet.table.job("b")
    assert first
    assert second
    assert first.changes == second.changes == int(clock.now())


@pytest.fixture
def crowded(intake: Intake, fleet: Fleet, clock: HandClock) -> Intake:
    """An intake whose pool takes two active jobs, and has them."""
    pools = {"default": replace(fleet.pools["default"], active_jobs_max=2)}
    crowded = intake._replace(fleet=fleet._replace(pools=pools))
    crowded.handle(batch(clock, message("a")))
    crowded.handle(batch(clock, message("b")))
    return crowded


def test_the_ceiling_turns_new_work_away_with_its_reason(
    crowded: Intake, fleet: Fleet, clock: HandClock, rejects: FakeRejects
) -> None:
    assert crowded.handle(batch(clock, message("c"))) == {"batchItemFailures": []}
    assert fleet.table.job("c") is None
    [(_, reason, _)] = rejects.kept
    assert reason.startswith("ceiling: pool default has 2 active jobs")


def test_the_ceiling_lets_a_message_join_a_run_and_a_finished_result_answer(
    crowded: Intake, clock: HandClock, rejects: FakeRejects, cache: FakeCache, lines: Lines
) -> None:
    cache.held |= set(artifact_keys("known", "bam"))
    crowded.handle(batch(clock, message("a"), message("known")))
    assert rejects.kept == []
    assert [line["decision"] for line in lines.of("admitted")][-2:] == ["Attach", "Record"]


def test_the_ceiling_lets_a_message_join_a_run_that_began_just_now(
    crowded: Intake, fleet: Fleet, clock: HandClock, rejects: FakeRejects, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, views = fleet.table.job, [None]  # another intake puts the run right after this one has looked
    monkeypatch.setattr(fleet.table, "job", lambda key: views.pop() if views else read(key))
    crowded.handle(batch(clock, message("a")))
    assert rejects.kept == []


def test_room_below_the_ceiling_takes_new_work_again(crowded: Intake, fleet: Fleet, clock: HandClock) -> None:
    job = fleet.table.job("a")
    assert job
    assert fleet.table.finish(job, JobStatus.CANCELLED, clock.now(), "", (), clock.unique())
    crowded.handle(batch(clock, message("c")))
    assert fleet.table.job("c")


def test_a_job_is_named_in_the_logs_by_its_first_message_or_as_that_message_says(
    intake: Intake, fleet: Fleet, clock: HandClock, lines: Lines
) -> None:
    intake.handle(batch(clock, message("a"), message("b", correlation_id="order-7")))
    intake.handle(batch(clock, message("a", correlation_id="too late")))
    intake.handle(batch(clock, message("b", correlation_id="later")))
    found = [fleet.table.job(key) for key in ("a", "b")]
    assert [job and job.correlation_id for job in found] == ["m0", "order-7"]
    assert [line["correlation_id"] for line in lines.of("admitted")] == ["m0", "order-7", "order-7"]


# --- tenants


@dataclass
class Writes:
    """What was written, by the name of the operation."""

    made: list[str] = field(default_factory=list)

    def of(self, name: str) -> int:
        return self.made.count(name)

    def note(self, write: Callable[[Any], Reply], what: Any) -> Reply:
        self.made.append(what.name)
        return write(what)


@pytest.fixture
def shared(intake: Intake, fleet: Fleet) -> Intake:
    """An intake whose pool is shared; tenant `b` weighs three."""
    pool = replace(fleet.pools["default"], fair_shares=True, tenant_weights={"b": 3})
    return intake._replace(fleet=fleet._replace(pools={"default": pool}))


@pytest.fixture
def writes(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Writes:
    seen = Writes()
    items = fleet.table._items  # type: ignore[attr-defined]
    for kind in ("update", "put"):
        write = getattr(items, kind)
        monkeypatch.setattr(items, kind, partial(seen.note, write))
    return seen


def of(tenant: str, count: int, prefix: str = "") -> list[str]:
    """Messages of a tenant, their keys beginning with its name."""
    return [message(f"{tenant}{prefix}{number}", tenant=tenant) for number in range(count)]


def waiting(fleet: Fleet, clock: HandClock) -> str:
    """The first letters of the keys in the queue, in its order."""
    return "".join(job.key[0] for job in fleet.table.queued(fleet.pools["default"], clock.now(), 100))


def test_a_tenant_is_recorded_and_costs_nothing_where_the_pool_is_not_shared(
    intake: Intake, fleet: Fleet, clock: HandClock, writes: Writes
) -> None:
    intake.handle(batch(clock, *of("a", 5), *of("b", 2)))
    assert [job and job.tenant for job in (fleet.table.job("a0"), fleet.table.job("b0"))] == ["a", "b"]
    assert writes.of("draw") == 0
    clock.sleep(1)
    intake.handle(batch(clock, message("c")))
    assert waiting(fleet, clock)[-1] == "c"
    job = fleet.table.job("c")
    assert job
    assert job.rank == keys.rank_of("c", 5, clock.now())


def test_the_few_jobs_of_one_tenant_do_not_wait_for_the_many_of_another(
    shared: Intake, fleet: Fleet, clock: HandClock
) -> None:
    for number in range(4):
        shared.handle(batch(clock, *of("a", 10, f"{number}-")))
    clock.sleep(600)
    shared.handle(batch(clock, *of("b", 6)))
    assert sorted(waiting(fleet, clock)[:4]) == sorted("abbb")
    assert sorted(waiting(fleet, clock)[:8]) == sorted("aabbbbbb")


def test_jobs_of_no_tenant_share_as_one(shared: Intake, fleet: Fleet, clock: HandClock) -> None:
    shared.handle(batch(clock, *of("a", 4), *(message(f"none{number}") for number in range(4))))
    for first in (0, 2, 4, 6):
        assert sorted(waiting(fleet, clock)[first : first + 2]) == ["a", "n"]


def test_a_batch_draws_once_for_each_tenant_and_priority(
    shared: Intake, fleet: Fleet, clock: HandClock, writes: Writes
) -> None:
    shared.handle(batch(clock, *of("a", 5), *of("b", 4), message("c", tenant="a", priority=9)))
    assert (writes.of("put"), writes.of("draw")) == (10, 3)
    ranks = [job.rank for n in range(5) if (job := fleet.table.job(f"a{n}"))]
    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize("times", [1, 2])
def test_no_job_costs_more_than_one_write_more(shared: Intake, clock: HandClock, writes: Writes, times: int) -> None:
    for number in range(6):
        shared.handle(batch(clock, *of("a", times, f"{number}-")))
        clock.sleep(3_600)
    assert writes.of("draw") == 6
    assert writes.of("put") == 6 * times


def test_what_begins_no_run_draws_no_tag(
    shared: Intake, clock: HandClock, writes: Writes, cache: FakeCache, rejects: FakeRejects
) -> None:
    cache.held = set(artifact_keys("known", "bam"))
    shared.handle(batch(clock, message("a", tenant="a"), message("a", tenant="a")))
    shared.handle(batch(clock, message("a", tenant="b"), message("known", tenant="b"), message("bad", tenant="")))
    assert (writes.of("put"), writes.of("draw")) == (2, 1)
    assert len(rejects.kept) == 1


def test_a_message_joins_what_its_neighbour_of_the_same_key_begins(
    shared: Intake, clock: HandClock, lines: Lines, writes: Writes
) -> None:
    shared.handle(batch(clock, message("a", tenant="a"), message("a", tenant="b"), message("a")))
    assert [line["decision"] for line in lines.of("admitted")] == ["Enqueue", "Attach", "Attach"]
    assert writes.of("put") == 1


def test_a_message_whose_neighbour_of_the_same_key_came_to_nothing_draws_for_itself(
    shared: Intake, fleet: Fleet, clock: HandClock, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet.table, "put", failing_once(fleet.table.put))
    answer = shared.handle(batch(clock, message("a", tenant="a"), message("a", tenant="a")))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert (writes.of("put"), writes.of("draw")) == (1, 2)


def test_where_a_draw_has_no_answer_each_message_draws_for_itself(
    shared: Intake, fleet: Fleet, clock: HandClock, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet.table, "draw", failing_once(fleet.table.draw))
    assert shared.handle(batch(clock, *of("a", 2))) == {"batchItemFailures": []}
    assert len(lines.of("no tags")) == 1
    tags = [keys.tag_of(job.rank) for n in range(2) if (job := fleet.table.job(f"a{n}"))]
    assert [drawn for _, drawn in tags] == [True, True]
    assert tags[1][0] - tags[0][0] == limits.TAGS_PER_MS


def test_a_forced_run_is_in_its_tenants_order_like_any_other(
    shared: Intake, fleet: Fleet, clock: HandClock, cache: FakeCache
) -> None:
    completed(shared, fleet, clock, cache)
    shared.handle(batch(clock, message("a", force=True, tenant="b")))
    job = fleet.table.job("a")
    assert job
    assert (job.run, job.tenant, keys.tag_of(job.rank)[1]) == (2, "b", True)


def failing_once(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, which has no answer the first time."""
    failures = [TimeoutError("no answer")]

    def called(*arguments: object) -> Any:
        if failures:
            raise failures.pop()
        return call(*arguments)

    return called
