"""The supervising loop, pass by pass, over a real table's expressions and with time moved by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fleetcap import jobs, keys, limits, metrics
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.fleet import Fleet
from fleetcap.model import Artifact, Flags, Holder, Job, JobStatus, Lease, Slot, SlotState
from fleetcap.ports import ChildReport, Failure, Progress
from tests.examples import lapse
from tests.fakes import FakeChildren, HandClock, Lines
from tests.handlers.test_task_state import queue
from worker_image.worker import Settings, Worker

DONE = ChildReport(artifacts=(Artifact("sorted.bam", "a/bam@1/sorted.bam", 10),), exit_code=0)


class Enough(Exception):
    """Ends a loop that would go on."""


@dataclass
class Script:
    """A clock whose sleeps run the next step of a test; after the last one the loop is ended.

    `chance`, 0 to 1, is where in its range every random number lies.
    """

    clock: HandClock
    steps: list[Callable[[], Any]] = field(default_factory=list)
    chance: float = 0.0

    def now(self) -> float:
        return self.clock.now()

    def sleep(self, seconds: float) -> None:
        if not self.steps:
            raise Enough
        self.steps.pop(0)()
        self.clock.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.chance

    def unique(self) -> str:
        return self.clock.unique()


@dataclass
class Bench:
    """One worker under a lease, and what it works with."""

    fleet: Fleet
    table: DynamoControlTable
    clock: HandClock
    lease: Lease
    arn: str
    children: FakeChildren = field(default_factory=FakeChildren)
    log: Lines = field(default_factory=Lines)
    signals: list[int] = field(default_factory=list)

    def worker(self, *steps: Callable[[], Any], **settings: Any) -> Worker:
        clock = Script(self.clock, list(steps))
        return Worker(
            self.lease, self.arn, Settings(**settings), self.table, self.children, clock, self.log,
            lambda: bool(self.signals),
        )  # fmt: skip

    def run(self, *steps: Callable[[], Any], **settings: Any) -> str:
        """Run the loop through the steps; why it left, or "" if it would have gone on."""
        try:
            return self.worker(*steps, **settings).run()
        except Enough:
            return ""

    def job(self, key: str = "a") -> Job:
        job = self.table.job(key)
        assert job is not None
        return job

    def slot(self) -> Slot:
        slot = self.table.slot(self.lease.slot)
        assert slot is not None
        return slot

    def say(self, report: ChildReport, child: int = 0) -> Callable[[], None]:
        def step() -> None:
            self.children.started[child].said = report

        return step

    def later(self, seconds: float) -> Callable[[], None]:
        return lambda: self.clock.sleep(seconds)

    def kill_slot(self) -> None:
        assert self.table.release(self.lease, self.arn, self.clock.now(), "proof", 0.0, self.clock.unique())


@pytest.fixture
def bench(fleet: Fleet, clock: HandClock, table: DynamoControlTable) -> Bench:
    """A launched slot with one job in the queue."""
    job = queue(fleet, clock, "a")
    fleet.scale(fleet.pools["default"], [job.as_queued], most=1)
    slot = next(slot for slot in table.slots("default") if slot.held)
    return Bench(fleet, table, clock, slot.lease, slot.arn)


def nothing() -> None:
    """A step in which only time passes."""


def test_a_worker_is_ready_when_it_says_so_itself(bench: Bench) -> None:
    assert bench.slot().state is SlotState.LAUNCHING
    bench.run()
    assert (bench.slot().state, bench.slot().arn) == (SlotState.READY, bench.arn)


def test_a_job_is_claimed_run_and_finished_with_its_artifacts(bench: Bench) -> None:
    bench.run(nothing, bench.say(DONE), nothing)
    job = bench.job()
    assert (job.status, job.attempt, job.artifacts) == (JobStatus.COMPLETED, 1, ("a/bam@1/sorted.bam",))
    assert job.holder == Holder(bench.lease)
    assert bench.children.started[0].killed


def test_a_freed_lane_takes_the_next_job_at_once(bench: Bench) -> None:
    queue(bench.fleet, bench.clock, "b")
    bench.run(bench.say(DONE))
    assert [child.assignment.workflow_key for child in bench.children.started] == ["a", "b"]


def test_two_lanes_run_two_jobs_and_no_third(bench: Bench) -> None:
    for key in ("b", "c"):
        queue(bench.fleet, bench.clock, key)
    bench.run(nothing, nothing, jobs_per_worker=2)
    assert [child.assignment.workflow_key for child in bench.children.started] == ["a", "b"]
    assert {bench.job("a").holder, bench.job("b").holder} == {Holder(bench.lease, 0), Holder(bench.lease, 1)}


def test_a_lost_slot_kills_the_job_and_writes_nothing(bench: Bench) -> None:
    assert bench.run(bench.kill_slot, bench.later(limits.BEAT_S), nothing) == "the slot is not ours any more"
    assert bench.children.started[0].killed
    assert bench.job().status is JobStatus.RUNNING  # whoever proved the death takes it from there
    assert bench.slot().state is SlotState.EMPTY


def test_a_job_that_was_taken_away_is_killed_within_the_fence_check(bench: Bench) -> None:
    def take_away() -> None:
        assert bench.table.requeue(bench.job(), bench.clock.now() + 1_000, "", lapse(bench.job()), bench.clock.unique())

    killed: list[bool] = []  # while the loop goes on: whoever leaves kills in any case

    def look() -> None:
        killed.append(bench.children.started[0].killed)

    bench.run(nothing, take_away, bench.later(limits.FENCE_CHECK_S), look)
    assert killed == [True]
    assert bench.children.started[0].killed
    assert bench.job().status is JobStatus.QUEUED
    assert len(bench.children.started) == 1


def test_a_zombies_result_is_refused(bench: Bench) -> None:
    def successor() -> None:
        assert bench.table.requeue(bench.job(), bench.clock.now(), "", lapse(bench.job()), bench.clock.unique())
        assert bench.table.claim(bench.job(), Holder(Lease(bench.lease.slot, 99)), bench.clock.now(), "other")
        bench.children.started[0].said = DONE

    bench.run(nothing, successor, nothing)
    assert (bench.job().status, bench.job().attempt) == (JobStatus.RUNNING, 2)
    assert bench.log.of("ended")[0]["accepted"] is False


def test_a_failed_attempt_goes_back_later_until_its_attempts_are_used_up(bench: Bench) -> None:
    failed = ChildReport(failure=Failure("internal: no luck", permanent=False), exit_code=1)
    waits = [bench.later(1_000), nothing]
    bench.run(*(step for n in range(3) for step in (nothing, bench.say(failed, n), *waits)))
    job = bench.job()
    assert (job.status, job.attempt, job.error) == (JobStatus.FAILED, 3, "internal: no luck")


def test_a_permanent_failure_is_not_tried_again(bench: Bench) -> None:
    failed = ChildReport(failure=Failure("input: this is no BAM file", permanent=True), exit_code=1)
    bench.run(nothing, bench.say(failed), bench.later(1_000), nothing)
    assert (bench.job().status, bench.job().attempt) == (JobStatus.FAILED, 1)


def test_an_attempt_that_takes_too_long_is_killed(bench: Bench) -> None:
    bench.run(nothing, bench.later(bench.job().request.timeout_s + 1), nothing, nothing)
    job = bench.job()
    assert bench.children.started[0].killed
    assert (job.status, job.failures) == (JobStatus.QUEUED, 1)
    assert job.error.startswith("timeout: ")


def test_a_signal_gives_the_job_back_without_using_up_an_attempt_and_the_worker_leaves(bench: Bench) -> None:
    assert bench.run(nothing, lambda: bench.signals.append(15), nothing) == "asked to leave"
    job = bench.job()
    assert (job.status, job.failures, job.interruptions) == (JobStatus.QUEUED, 0, 1)
    assert bench.children.started[0].killed


@pytest.mark.parametrize("flag", ["leave", "retire"])
def test_a_flagged_worker_finishes_its_job_takes_no_other_and_leaves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    queue(bench.fleet, bench.clock, "b")
    real = bench.table.beat
    flagged = Flags(**{flag: True})

    def beat(lease: Lease, arn: str, first: bool, *told: Any) -> Flags | None:
        return (real(lease, arn, first, *told) and flagged) if not first else real(lease, arn, first, *told)

    monkeypatch.setattr(bench.table, "beat", beat)
    reason = bench.run(nothing, bench.later(limits.BEAT_S), nothing, bench.say(DONE), nothing, nothing)
    assert reason == "drained"
    assert (bench.job("a").status, bench.job("b").status) == (JobStatus.COMPLETED, JobStatus.QUEUED)


def test_an_idle_worker_leaves_after_its_time(bench: Bench) -> None:
    reason = bench.run(bench.say(DONE), nothing, bench.later(limits.IDLE_EXIT_S), nothing)
    assert reason.startswith("idle for ")


def test_a_busy_worker_beyond_its_lifetime_finishes_first(bench: Bench) -> None:
    queue(bench.fleet, bench.clock, "b")
    reason = bench.run(nothing, bench.later(100), bench.say(DONE), nothing, nothing, lifetime_s=50)
    assert reason == "drained"
    assert (bench.job("a").status, bench.job("b").status) == (JobStatus.COMPLETED, JobStatus.QUEUED)


def test_a_new_stage_is_written_and_a_heartbeat_keeps_coming(bench: Bench) -> None:
    sorting = ChildReport(progress=Progress("sort", 0.4, "half way"))
    bench.run(nothing, bench.later(2), bench.say(sorting), nothing)
    assert (bench.job().stage, bench.job().fraction, bench.job().message) == ("sort", 0.4, "half way")
    before = bench.job().heartbeat_at
    bench.children.started.clear()
    bench.run()
    assert before > bench.job().claimed_at


@pytest.mark.long
def test_a_silent_stage_of_hours_keeps_its_heartbeat(bench: Bench) -> None:
    hours = [bench.later(limits.HEARTBEAT_S) for _ in range(200)]
    bench.run(nothing, *hours)
    assert bench.clock.now() - bench.job().heartbeat_at <= 2 * limits.HEARTBEAT_S
    assert bench.job().status is JobStatus.RUNNING


class Silence(Exception):
    """The table does not answer."""


def failing(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, times: int, lands: bool) -> None:
    """Let the table's next calls of one operation raise; where `lands`, after the write was made."""
    real, left = getattr(bench.table, name), [times]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            if lands:
                real(*args, **kwargs)
            raise Silence
        return real(*args, **kwargs)

    monkeypatch.setattr(bench.table, name, call)


@pytest.mark.parametrize("lands", [False, True], ids=["request lost", "reply lost"])
@pytest.mark.parametrize("operation", ["beat", "claim", "finish", "heartbeat", "queued", "job"])
def test_a_call_without_an_answer_is_made_good_on_a_later_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, operation: str, lands: bool
) -> None:
    failing(bench, monkeypatch, operation, 2, lands)
    wait = [bench.later(2)] * 4
    bench.run(*wait, lambda: [bench.say(DONE)() for _ in bench.children.started], *wait)
    job = bench.job()
    assert (job.status, job.attempt, len(bench.children.started)) == (JobStatus.COMPLETED, 1, 1)


@pytest.mark.parametrize("lands", [False, True], ids=["request lost", "reply lost"])
def test_a_claim_without_an_answer_does_not_keep_a_draining_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    failing(bench, monkeypatch, "claim", 1, lands)
    assert bench.run(lambda: bench.signals.append(15), nothing, nothing) == "asked to leave"
    assert bench.job().status is JobStatus.QUEUED


def test_nothing_is_claimed_before_the_slot_has_vouched_for_its_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(bench, monkeypatch, "beat", 3, lands=False)
    bench.run(nothing, nothing)
    assert bench.children.started == []
    assert bench.job().status is JobStatus.QUEUED


def test_a_worker_that_cannot_reach_its_slot_takes_no_further_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(bench.fleet, bench.clock, "b")

    def cut_off() -> None:
        failing(bench, monkeypatch, "beat", 1_000, lands=False)

    bench.run(nothing, cut_off, bench.later(limits.SILENT_S + 1), bench.say(DONE), nothing, nothing)
    assert (bench.job("a").status, bench.job("b").status) == (JobStatus.COMPLETED, JobStatus.QUEUED)


def test_a_process_that_cannot_be_started_fails_its_attempt_and_frees_the_lane(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("no more processes")

    monkeypatch.setattr(bench.children, "start", refuse)
    bench.run(nothing, nothing)
    job = bench.job()
    assert (job.status, job.failures, job.holder) == (JobStatus.QUEUED, 1, None)


def test_a_job_that_ended_with_the_signal_is_finished_and_not_given_back(bench: Bench) -> None:
    def both() -> None:
        bench.signals.append(15)
        bench.children.started[0].said = DONE

    assert bench.run(nothing, both, nothing) == "asked to leave"
    assert bench.job().status is JobStatus.COMPLETED


def test_an_idle_worker_looks_beyond_entries_that_others_have_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = bench.job().as_queued
    stale = [replace(entry, key=f"taken-{n}", rank=f"0{n:03}") for n in range(40)]
    lagging = sorted([*stale, entry], key=lambda queued: queued.rank)
    monkeypatch.setattr(bench.table, "queued", lambda _pool, _now, limit: lagging[:limit])
    bench.run(nothing)
    assert [child.assignment.workflow_key for child in bench.children.started] == ["a"]


# --- calls that fail at once


def watched(monkeypatch: pytest.MonkeyPatch, thing: object, name: str, fails: Callable[[], bool]) -> list[object]:
    """The calls of an operation, each as what it was about; they raise while `fails`."""
    real, calls = getattr(thing, name), list[object]()

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[0] if args else None)
        if fails():
            raise Silence
        return real(*args, **kwargs)

    monkeypatch.setattr(thing, name, call)
    return calls


def serve_for(bench: Bench, seconds: float, **settings: Any) -> int:
    """Run the loop for so long; how often it came round."""
    ends_at, passes = bench.clock.now() + seconds, [0]

    def come_round() -> None:
        passes[0] += 1
        if bench.clock.now() >= ends_at:
            raise Enough

    bench.run(*[come_round] * 10_000, **settings)
    return passes[0]


def always() -> bool:
    return True


def never() -> bool:
    return False


@pytest.mark.parametrize("operation", ["queued", "beat", "job", "override", "claim"])
def test_a_worker_whose_calls_fail_at_once_does_not_spin(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    calls = watched(monkeypatch, bench.table, operation, always)
    passes = serve_for(bench, 300)
    lines = bench.log.of("no answer")
    longest_s = limits.FENCE_CHECK_S / 1.25 if operation == "claim" else limits.NO_ANSWER_MAX_S
    assert 300 / limits.NO_ANSWER_MAX_S <= len(calls) <= 300 / (0.75 * longest_s) + 10  # chance is always early here
    assert len(lines) == len(calls)
    assert passes <= (300 / limits.SUPERVISE_S if operation == "claim" else 300) + 10


def test_a_worker_whose_processes_do_not_start_does_not_use_up_the_queue(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        queue(bench.fleet, bench.clock, f"more/{number}")
    starts = watched(monkeypatch, bench.children, "start", always)
    assert serve_for(bench, 60, jobs_per_worker=2) <= 120
    assert 60 / limits.NO_ANSWER_MAX_S <= len(starts) <= 60 / (0.75 * limits.NO_ANSWER_MAX_S) + 4
    assert len(bench.log.of("no child")) == len(bench.log.of("claimed")) == len(starts)


@pytest.mark.parametrize("operation", ["queued", "beat", "job", "start"])
def test_a_worker_serves_again_within_seconds_after_the_trouble(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    for number in range(60):
        queue(bench.fleet, bench.clock, f"more/{number}")
    ends_at = bench.clock.now() + 100
    thing = bench.children if operation == "start" else bench.table
    watched(monkeypatch, thing, operation, lambda: bench.clock.now() < ends_at)

    def look() -> None:
        if bench.children.started:
            raise Enough

    bench.run(*[look] * 10_000)
    assert 0 <= bench.clock.now() - ends_at <= 1.25 * limits.NO_ANSWER_MAX_S + limits.LOOK_S
    assert bench.clock.now() - bench.slot().seen_at < limits.BEAT_S + limits.LOOK_S


@pytest.mark.parametrize("operation", ["queued", "beat", "job"])
def test_a_signal_is_obeyed_promptly_in_the_midst_of_trouble(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    watched(monkeypatch, bench.table, operation, always)
    signalled_at = bench.clock.now() + 60

    def look() -> None:
        if bench.clock.now() >= signalled_at:
            bench.signals.append(15)

    assert bench.run(*[look] * 10_000) == "asked to leave"
    assert bench.clock.now() - signalled_at <= 2 * limits.LOOK_S


def test_a_running_job_is_heard_and_its_fence_read_in_the_usual_rhythm_while_the_table_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, list[object]] = {}
    away = bench.clock.now() + 60

    def cut_off() -> None:
        calls["report"] = watched(monkeypatch, bench.children.started[0], "report", never)
        for operation in ("job", "heartbeat", "beat"):
            calls[operation] = watched(monkeypatch, bench.table, operation, lambda: bench.clock.now() < away)

    bench.run(cut_off, *[nothing] * 240)
    assert len(calls["report"]) == 241  # each time that the loop comes round
    assert 60 / limits.FENCE_CHECK_S <= len(calls["job"] + calls["heartbeat"]) <= 2 * 60 / limits.FENCE_CHECK_S
    assert not bench.log.of("job lost")


def test_an_end_that_cannot_be_written_is_tried_again_in_a_bounded_rhythm_and_stands_at_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = bench.clock.now() + 60
    calls = watched(monkeypatch, bench.table, "finish", lambda: bench.clock.now() < away)
    bench.run(nothing, bench.say(DONE), *[nothing] * 280)
    assert 60 / limits.NO_ANSWER_MAX_S <= len(calls) <= 60 / (0.75 * limits.FENCE_CHECK_S / 1.25) + 6
    assert bench.job().status is JobStatus.COMPLETED


# --- jobs of another version


def rewritten(bench: Bench, key: str, **attributes: Any) -> None:
    """Change a job's item as another version, or a mishap, may have written it."""
    items = bench.table._dynamo
    item = items.get(keys.job_key(key))
    assert item
    assert items.put(keys.Put("", {**item, **attributes}, keys.WHATEVER)).accepted


def test_a_job_of_the_next_version_is_run_by_this_worker(bench: Bench) -> None:
    item = bench.table._dynamo.get(keys.job_key("a"))
    assert item
    request = json.dumps({**json.loads(item["request"]), "of_the_next": ["x"]})
    rewritten(bench, "a", request=request, of_the_next={"y": 1})
    bench.run(nothing, bench.say(DONE), nothing)
    assert (bench.job().status, bench.job().attempt) == (JobStatus.COMPLETED, 1)
    assert not bench.log.of("no answer")
    item = bench.table._dynamo.get(keys.job_key("a"))
    assert item
    assert (item["request"], item["of_the_next"]) == (request, {"y": 1})  # and stay for who knows them


@pytest.mark.parametrize(
    "wrong", [{"v": 2}, {"request": "{"}, {"status": 7, "request": "[]"}], ids=["a later version", "no JSON", "no map"]
)
def test_a_job_that_cannot_be_read_is_left_alone_and_the_next_one_is_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    bench.table = DynamoControlTable(bench.table._dynamo._client, "control", bench.log)
    rewritten(bench, "a", **wrong)
    queue(bench.fleet, bench.clock, "b")
    reads = watched(monkeypatch, bench.table, "job", never)
    serve_for(bench, 30)
    assert [child.assignment.workflow_key for child in bench.children.started] == ["b"]
    assert [line["key"] for line in bench.log.of("unreadable")] == ["a"]
    assert not bench.log.of("no answer")
    assert reads.count("a") == 1


# --- cancel


def cancelling(bench: Bench) -> Callable[[], None]:
    """A step in which somebody cancels the job."""

    def step() -> None:
        assert jobs.cancel(bench.table, bench.clock, "a", "by hand")

    return step


def test_a_running_job_that_is_cancelled_is_killed_and_ends_within_the_fence_check(bench: Bench) -> None:
    bench.run(nothing, cancelling(bench), bench.later(limits.FENCE_CHECK_S), nothing)
    job = bench.job()
    assert bench.children.started[0].killed
    assert (job.status, job.error, job.attempt) == (JobStatus.CANCELLED, "cancelled: by hand", 1)


def test_a_heartbeat_shows_a_cancel_as_well_so_that_a_busy_job_cannot_hide_it(bench: Bench) -> None:
    steps: list[Callable[[], None]] = []
    for number in range(8):
        stage = ChildReport(progress=Progress(f"stage {number}", number / 10))
        steps += [bench.say(stage), bench.later(limits.STAGE_WRITE_S)]
    bench.run(nothing, cancelling(bench), *steps[:6], fence_check_s=1_000)
    assert bench.job().status is JobStatus.CANCELLED


def test_a_cancelled_job_whose_attempt_fails_at_that_moment_is_not_queued_again(bench: Bench) -> None:
    failed = ChildReport(failure=Failure("internal: it broke", permanent=False), exit_code=1)

    def both() -> None:
        cancelling(bench)()
        bench.say(failed)()

    bench.run(nothing, both, nothing, nothing)
    assert (bench.job().status, bench.job().error) == (JobStatus.CANCELLED, "cancelled: by hand")


def test_a_cancelled_job_that_was_done_before_anybody_noticed_is_completed(bench: Bench) -> None:
    def both() -> None:
        cancelling(bench)()
        bench.say(DONE)()

    bench.run(nothing, both, nothing)
    assert bench.job().status is JobStatus.COMPLETED


def test_a_worker_that_is_asked_to_leave_ends_a_cancelled_job_and_gives_none_back(bench: Bench) -> None:
    def both() -> None:
        cancelling(bench)()
        bench.signals.append(15)

    assert bench.run(nothing, both, nothing, nothing) == "asked to leave"
    assert bench.job().status is JobStatus.CANCELLED


def test_artifacts_are_on_the_job_as_soon_as_their_stage_is_committed(bench: Bench) -> None:
    committed = ChildReport(progress=Progress("index", 0.8), artifacts=DONE.artifacts)
    bench.run(nothing, bench.say(committed), bench.later(limits.STAGE_WRITE_S), nothing)
    assert (bench.job().status, bench.job().artifacts) == (JobStatus.RUNNING, ("a/bam@1/sorted.bam",))


def test_what_a_job_says_is_logged_under_its_name(bench: Bench) -> None:
    bench.run(nothing, bench.say(ChildReport(lines=("sorting", "merging"))), bench.say(ChildReport()), bench.say(DONE))
    job = bench.job()
    named = {"job": job.id, "key": "a", "attempt": 1, "correlation_id": ""}
    said = [{**named, "line": line} for line in ("sorting", "merging")]
    assert bench.log.of("output") == said


@pytest.mark.parametrize("how", ["it takes too long", "the worker is asked to leave", "it is another's"])
def test_the_last_words_of_a_job_that_is_stopped_are_heard(bench: Bench, how: str) -> None:
    def stop() -> None:
        bench.children.started[0].last_words = ChildReport(lines=("… 3 more lines left out", "merging"), exit_code=-15)
        if how == "it takes too long":
            bench.clock.sleep(limits.JOB_TIMEOUT_S + 1)
        elif how == "the worker is asked to leave":
            bench.signals.append(15)
        else:
            bench.clock.sleep(limits.FENCE_CHECK_S)
            job = bench.job()
            assert bench.table.requeue(job, bench.clock.now(), "lost", lapse(job), "another")

    bench.run(nothing, stop, nothing, beat_s=10.0**6)
    assert [line["line"] for line in bench.log.of("output")] == ["… 3 more lines left out", "merging"]


# --- what is counted


BROKEN = ChildReport(failure=Failure("it broke", permanent=False), exit_code=1)


def counted(bench: Bench, event: str) -> list[dict[str, object]]:
    """The metrics in the lines of an event."""
    assert all(told["pool"] == "default" for told in bench.log.of(event))
    return [{name: told[name] for name in told if name in metrics.BY_NAME} for told in bench.log.of(event)]


def test_the_wait_for_a_worker_is_told_of_the_first_attempt_alone(bench: Bench) -> None:
    bench.clock.sleep(40)
    bench.run(bench.say(BROKEN), bench.later(limits.BEAT_S), nothing)
    assert len(bench.children.started) == 2
    assert counted(bench, "claimed") == [{"time_to_worker_s": 40.0}, {}]


def leave(bench: Bench) -> None:
    bench.signals.append(15)


def cancel(bench: Bench) -> None:
    assert jobs.cancel(bench.table, bench.clock, "a", "by hand")
    bench.clock.sleep(limits.FENCE_CHECK_S)


ENDINGS: dict[str, Callable[[Bench], Any]] = {
    "completed": lambda bench: bench.say(DONE)(),
    "failed": lambda bench: bench.say(BROKEN)(),
    "permanent": lambda bench: bench.say(ChildReport(failure=Failure("input: empty", True), exit_code=1))(),
    "timeout": lambda bench: bench.clock.sleep(limits.JOB_TIMEOUT_S + 1),
    "interrupted": leave,
    "cancelled": cancel,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_attempt_is_counted_once_by_how_it_ended(bench: Bench, ending: str) -> None:
    bench.run(nothing, lambda: ENDINGS[ending](bench), nothing, beat_s=10.0**6, idle_exit_s=10.0**6)
    assert counted(bench, "ended")[0] == {f"attempts_{ending}": 1}
    assert len(bench.log.of("ended")) == 1


def test_every_ending_of_an_attempt_is_a_metric() -> None:
    assert {f"attempts_{ending}" for ending in ENDINGS} == {
        name for name in metrics.BY_NAME if name.startswith("attempts_")
    }


def test_the_end_of_an_attempt_that_is_not_ours_any_more_is_not_counted(bench: Bench) -> None:
    def take_away() -> None:
        assert bench.table.requeue(bench.job(), bench.clock.now() + 1_000, "", lapse(bench.job()), bench.clock.unique())
        bench.children.started[0].said = DONE

    bench.run(take_away, nothing)
    assert counted(bench, "ended") == [{}]
