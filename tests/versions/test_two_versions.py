"""Two versions side by side: everything that one writes and another reads, in both directions.

`written_before.json` holds what the code wrote before readers passed over what they do not know: literally, down to
DynamoDB's types. It is never made anew; whoever changes what is written adds to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from cli import queues
from cli.rejects import Queue, letter
from cli.target import Target
from fleetcap import catalog, keys, stored, wiring
from fleetcap.adapters.control_table import StoredControlTable
from fleetcap.adapters.dynamo import unpack
from fleetcap.adapters.rejects import SqsRejects
from fleetcap.lifecycle import state_change
from fleetcap.messages import Rejected, submission, to_recheck
from fleetcap.model import (
    Attempt,
    FailureClass,
    Holder,
    Job,
    JobStatus,
    Lease,
    Mode,
    OnParentFailure,
    Override,
    Pool,
    Queued,
    Request,
    Reservation,
    Running,
    Slot,
    SlotId,
    SlotState,
)
from fleetcap.ports import Assignment
from fleetcap.sources import SourceRules
from local.memory.items import MemoryItems
from tests.examples import NOW
from tests.fakes import Lines
from worker_image import child, children
from worker_image.child import Speaker
from worker_image.worker import Settings

BEFORE: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "written_before.json").read_text())
ITEMS: Final = {kind: unpack(item) for kind, item in BEFORE.items() if "pk" in item}

FULL: Final = Request(
    "s3://bucket/a.bam",
    "bam",
    "0" * 32,
    {"level": 3},
    max_attempts=4,
    timeout_s=600,
    max_interruptions=9,
    depends_on=("p/1", "p/2"),
    on_parent_failure=OnParentFailure.RUN,
    array=4,
    first=2,
    step=1,
    part_of="whole",
)
PLAIN: Final = Request("s3://bucket/a.bam", "bam")
HOLDER: Final = Holder(Lease(SlotId("default", 5), 1_700_000_000), 1)


def a_job(key: str, request: Request, **fields: Any) -> Job:
    rank = keys.rank_of(key, 5, NOW)
    job = Job(key, 1, JobStatus.QUEUED, "default", 5, request, rank=rank, queued_at=NOW, due_at=NOW, changes=7)
    return replace(job, **fields)


JOB: Final = a_job(
    "rich",
    FULL,
    status=JobStatus.RUNNING,
    shard=3,
    attempt=2,
    holder=HOLDER,
    due_at=NOW + 9,
    claimed_at=NOW + 10,
    heartbeat_at=NOW + 11,
    changes=10,
    since=NOW - 1,
    correlation_id="c-1",
    tenant="lab",
    task="task-2",
    cancel="enough",
    history=(Attempt(1, FailureClass.FAILED, "it broke", "task-1", NOW + 1, NOW + 2),),
    stage="sort",
    fraction=0.5,
    message="half",
    error="it broke",
    artifacts=("rich/bam@1/sorted.bam",),
)
ENDED: Final = a_job("done", PLAIN, status=JobStatus.COMPLETED, ended_at=NOW + 3, artifacts=("done/bam@1/sorted.bam",))
SLOT: Final = Slot(
    SlotId("default", 5),
    SlotState.READY,
    int(NOW),
    launch='{"cluster":"fleet"}',
    arn="arn:task/1",
    leased_at=NOW + 1,
    launched_at=NOW + 2,
    for_job="rich",
    seen_at=NOW + 3,
    ready_at=NOW + 3,
    missing_since=NOW + 4,
    strikes=2,
    starved_at=NOW - 100,
    keep=True,
    idle_since=NOW + 3,
    provider="FARGATE_SPOT",
    image="image:1",
    cap_version=3,
)
OVERRIDE: Final = Override(1, 3, 1, 2, 1.5, Mode.PAUSED, "lunch", cap_max=9, banks=2)
ASSIGNED: Final = Assignment("id-1", "rich", 2, "s3://bucket/a.bam", "bam", "0" * 32, {"level": 3}, NOW, NOW - 1)
LAUNCH: Final = {"cluster": "fleet", "taskDefinition": "worker", "container": "worker"}
POOL: Final = Pool(
    "default", 16, LAUNCH, warm_workers=2, image="registry/worker:1", fair_shares=True, tenant_weights={"lab": 3}
)
SETTINGS: Final = Settings("default", 2, image="registry/worker:1")
RULES: Final = SourceRules(["mirror.org"], {"b": "1"}, ["b"])


def written(write: Callable[[StoredControlTable], object], key: Mapping[str, str]) -> keys.Item:
    """The item as it stands once the table's own operations have written it."""
    items = MemoryItems()
    write(StoredControlTable(items))
    item = items.get(key)
    assert item is not None
    return item


def put(job: Job) -> keys.Item:
    return written(lambda table: table.put(job, None, "op"), keys.job_key(job.key))


def _lived(table: StoredControlTable) -> None:
    """What befell the job of the sample, written by the code of today."""
    queued = a_job("rich", FULL, shard=3, since=NOW - 1, correlation_id="c-1", tenant="lab")
    assert table.put(queued, None, "op-2")
    failed = table.claim(queued, HOLDER, NOW + 1, "op-3", "task-1")
    assert failed
    assert table.requeue(failed, NOW + 9, "it broke", JOB.history[0], "op-4")
    again = table.job("rich")
    assert again
    running = table.claim(again, HOLDER, NOW + 10, "op-5", "task-2")
    assert running
    assert table.heartbeat(running, NOW + 11, "sort", 0.5, "half", JOB.artifacts)
    assert table.cancel(running, "enough")


def _served(table: StoredControlTable) -> None:
    table.create_slots([SLOT.id], NOW)
    slot = table.slot(SLOT.id)
    assert slot
    assert table.lease(slot, SLOT.launch, "rich", 2, NOW + 1, "op-7", NOW - 100, "FARGATE_SPOT")
    assert table.launched(slot.lease, SLOT.arn, NOW + 2)
    assert table.beat(slot.lease, SLOT.arn, True, NOW + 3, NOW + 3, "image:1")
    assert table.keep(slot.lease, True)
    assert table.missing(slot.lease, NOW + 4)
    assert table.retire(slot.id, True, 2)
    assert table.retire(slot.id, False, 3)


def _said(table: StoredControlTable) -> None:
    figures = {name: getattr(OVERRIDE, name) for name in ("cap", "cap_max", "min_workers", "warm_workers")}
    said = {**figures, "budget_task_hours": 1.5, "mode": OVERRIDE.mode.value, "reason": OVERRIDE.reason}
    assert table.say("default", said, 0, "op-8")
    table.widen("default", 2)


def _edge() -> keys.Item:
    return keys.edge_item("p/1", "rich", NOW)


def _share() -> keys.Item:
    key = keys.share_key("default", 5, "lab")
    return written(lambda table: table.draw(Pool("default", 3), 5, {"lab": 2}, NOW), key)


def _projected(item: keys.Item) -> keys.Item:
    names = (keys.TABLE_PK, keys.TABLE_SK, keys.OPEN_PK, keys.OPEN_RANK, *keys.OPEN_PROJECTION)
    return {name: item[name] for name in names if name in item}


def _processors(said: Mapping[str, Any]) -> catalog.Processor:
    """As whoever reads the environment declares one; the catalog stays as it was."""
    try:
        catalog.declare(json.dumps([said]))
        return catalog.PROCESSORS[said["name"]]
    finally:
        catalog.PROCESSORS.pop(said["name"], None)


def _reject() -> dict[str, Any]:
    """What lies in the queue of rejected messages."""
    sent: list[str] = []

    class Sqs:
        def send_message(self, QueueUrl: str, MessageBody: str) -> None:
            assert QueueUrl == "url"
            sent.append(MessageBody)

    SqsRejects(Sqs(), "url").reject("{}", "too large", "m-1")  # type: ignore[arg-type]
    said: dict[str, Any] = json.loads(sent[0])
    return said


def _rejected(said: Mapping[str, Any]) -> tuple[str, str]:
    found = letter(Queue.REJECTED, queues.Held("m", json.dumps(said), "receipt", NOW, 1))
    return found.reason, found.body


@dataclass(frozen=True)
class Kind:
    """One payload. `read` is its reader, `write` what today's code writes for `value`, `needed` what the reader of
    the recorded sample could not do without, `strict` whether it took no field that it did not know.
    """

    read: Callable[[Any], Any]
    write: Callable[[], Mapping[str, Any]]
    value: Any
    needed: tuple[str, ...]
    strict: bool = False


_JOB_NEEDS: Final = ("pk", "run", "status", "pool", "priority", "request", "shard", "open_rank", "attempt", "queued_at")
_ENTRY_NEEDS: Final = ("pk", "pool", "run", "attempt")
KINDS: Final = {
    "job": Kind(keys.job_from, lambda: written(_lived, keys.job_key("rich")), JOB, (*_JOB_NEEDS, "due_at")),
    "plain job": Kind(
        keys.job_from, lambda: put(a_job("plain", PLAIN)), a_job("plain", PLAIN), (*_JOB_NEEDS, "due_at")
    ),
    "ended job": Kind(keys.job_from, lambda: put(ENDED), ENDED, (*_JOB_NEEDS, "due_at", "ended_at")),
    "queued entry": Kind(
        keys.queued_from,
        lambda: _projected(put(a_job("plain", PLAIN))),
        Queued("plain", "default", keys.rank_of("plain", 5, NOW), 1, 0, NOW, NOW),
        (*_ENTRY_NEEDS, "open_rank", "queued_at", "due_at"),
    ),
    "running entry": Kind(
        keys.running_from,
        lambda: _projected(written(_lived, keys.job_key("rich"))),
        Running("rich", "default", 1, 2, HOLDER),
        (*_ENTRY_NEEDS, "holder"),
    ),
    "new slot": Kind(
        keys.slot_from,
        lambda: keys.slot_item(SLOT.id, NOW),
        Slot(SLOT.id, SlotState.EMPTY, int(NOW)),
        ("pk", "sk", "state", "generation"),
    ),
    "slot": Kind(
        keys.slot_from,
        lambda: written(_served, keys.slot_key(SLOT.id)),
        SLOT,
        ("pk", "sk", "state", "generation"),
    ),
    "override": Kind(keys.override_from, lambda: written(_said, keys.override_key("default")), OVERRIDE, ()),
    "reservation": Kind(
        keys.reservation_from,
        lambda: keys.reserve_write(Reservation("default", "course", 3, NOW + 60, NOW)).item,
        Reservation("default", "course", 3, NOW + 60, NOW),
        ("pk", "sk", "workers", "until", "made_at"),
    ),
    "edge": Kind(keys.dependent_from, _edge, "rich", ("sk",)),
    "share": Kind(keys.drawn_from, _share, ("lab", 1_800_000_000_002_000_000), ("sk", "drawn")),
    "worker settings": Kind(
        lambda said: stored.known(Settings, said), lambda: stored.told(SETTINGS), SETTINGS, (), strict=True
    ),
    "source rules": Kind(
        lambda said: stored.known(SourceRules, said),
        lambda: stored.told(RULES),
        RULES,
        (),
        strict=True,
    ),
    "pool": Kind(lambda said: stored.known(Pool, said), lambda: stored.told(POOL), POOL, ("name", "cap"), strict=True),
    "word of publish": Kind(
        lambda said: to_recheck(json.dumps(said)),
        lambda: {keys.RECHECK: ["a/v1", "b"]},
        ["a/v1", "b"],
        ("recheck",),
        strict=True,
    ),
    "rejected message": Kind(_rejected, _reject, ("too large", "{}"), ("reason", "body", "message_id", "truncated")),
}
"""What lies somewhere while versions change, and is read again."""


def sample(kind: str) -> Mapping[str, Any]:
    return ITEMS.get(kind) or BEFORE[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_version_before_wrote_is_read(kind: str) -> None:
    assert KINDS[kind].read(sample(kind)) == KINDS[kind].value


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_the_next_version_is_passed_over(kind: str) -> None:
    for payload in (sample(kind), KINDS[kind].write()):
        assert KINDS[kind].read({**payload, "of_the_next": {"version": [1]}}) == KINDS[kind].value


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_now_can_be_read_by_the_version_before(kind: str) -> None:
    """It found whatever it asked for by name, and where it took nothing that it did not know, met nothing else."""
    now = KINDS[kind].write()
    assert KINDS[kind].read(now) == KINDS[kind].value
    assert set(KINDS[kind].needed) <= now.keys()
    if KINDS[kind].strict:
        assert now.keys() <= sample(kind).keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_takes_what_says_only_what_it_must(kind: str) -> None:
    """Whoever wrote it knew none of the later fields, or leaves out what is as by default."""
    said = {name: value for name, value in sample(kind).items() if name in {*KINDS[kind].needed, "sk"}}
    KINDS[kind].read(said)


def test_every_recorded_payload_is_tried() -> None:
    assert BEFORE.keys() - KINDS.keys() == {"task", "plain task", "processors"}


def test_a_declared_processor_is_read_in_both_directions() -> None:
    (before,) = BEFORE["processors"]
    wordcount = catalog.Processor("wordcount", 2, (), ("counts.tsv",))
    assert _processors(before) == _processors({**before, "of_the_next": 1}) == wordcount
    assert _processors(stored.told(wordcount)) == wordcount
    assert stored.told(wordcount).keys() <= before.keys()


@pytest.mark.parametrize("kind", ["task", "plain task"])
def test_a_childs_task_is_read_in_both_directions(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(children, "started", lambda _: None)
    monkeypatch.setattr(children, "tended", lambda _, task, *__: told.append(json.loads(task)))
    rules = SourceRules(["mirror.org"], {"b": "1"}, ["b"])
    starter = children.ProcessChildren(
        cache_bucket="cache", base_dir=tmp_path, cache_prefix="x/", source_hosts=["h.org"], source_rules=rules
    )
    plain = Assignment("id-1", "plain", 1, "s3://bucket/a.bam", "bam", "", {})
    starter.start(ASSIGNED if kind == "task" else plain)
    here = {"work_dir": str(tmp_path / "work"), "params": {}}
    before, now = (child._assigned({**task, **here, "of_the_next": 1}, Speaker(1)) for task in (BEFORE[kind], told[0]))
    assert before.assignment == now.assignment
    assert now.since == BEFORE[kind]["since"]
    assert told[0].keys() <= BEFORE[kind].keys()


# --- the request, which rides in the job as text


def of_next(request: str, **more: Any) -> str:
    return json.dumps({**json.loads(request), **more})


@pytest.mark.parametrize("kind", ["job", "plain job", "ended job"])
def test_a_request_of_the_next_version_is_read_by_this_one(kind: str) -> None:
    item = dict(sample(kind))
    item["request"] = of_next(item["request"], of_the_next=["x"])
    assert keys.job_from(item) == KINDS[kind].value


@pytest.mark.parametrize("request_", [FULL, PLAIN])
def test_a_request_as_it_is_written_now_is_known_to_the_version_before(request_: Request) -> None:
    known = json.loads(ITEMS["job"]["request"])
    assert json.loads(put(a_job("a", request_))["request"]).keys() <= known.keys()


def test_nothing_is_written_that_goes_without_saying() -> None:
    item = put(a_job("plain", PLAIN))
    assert json.loads(item["request"]) == {"source": "s3://bucket/a.bam", "processor": "bam"}
    assert item.keys() == {*_JOB_NEEDS, "sk", "due_at", "op", "changes", "open_pk"}
    assert "artifacts" not in put(replace(ENDED, artifacts=()))
    assert stored.told(Settings()) == stored.told(SourceRules()) == {}
    assert stored.told(Pool("default", 1)) == {"name": "default", "cap": 1}


def test_what_goes_without_saying_never_changes() -> None:
    """A default that is left out is part of the format: a reader of another version fills in its own."""
    assert stored.unsaid(Request) == {
        "md5": "",
        "params": {},
        "max_attempts": 3,
        "timeout_s": 14_400,
        "max_interruptions": 5,
        "depends_on": (),
        "on_parent_failure": "fail",
        "array": 0,
        "first": 0,
        "step": 0,
        "part_of": "",
    }
    assert stored.unsaid(Settings) == {
        "pool": "default",
        "jobs_per_worker": 1,
        "idle_exit_s": 600,
        "lifetime_s": 43_200,
        "stop_timeout_s": 120,
        "heartbeat_s": 60,
        "beat_s": 30,
        "look_s": 1.5,
        "fence_check_s": 3.0,
        "sort_memory_mb": 256,
        "sort_threads": 1,
        "disk_gib": 21,
        "keep_failed_dirs": 0,
        "image": "",
    }
    assert stored.unsaid(SourceRules) == {"private_hosts": (), "owners": {}, "requester_pays": ()}
    assert stored.unsaid(Assignment) == {"made_for": 0.0, "since": 0.0}
    assert stored.unsaid(catalog.Processor) == {"params": ()}
    assert stored.unsaid(Pool) == {
        "launch": {},
        "jobs_per_worker": 1,
        "shards": 1,
        "dispatch_deadline_s": 14_400,
        "waiting_limit_s": 0.0,
        "active_jobs_max": 0,
        "min_workers": 0,
        "warm_workers": 0,
        "budget_task_hours": 0.0,
        "providers": {},
        "spot_fallback": True,
        "image": "",
        "job_timeout_s": 14_400,
        "max_attempts": 3,
        "max_interruptions": 5,
        "fair_shares": False,
        "tenant_weights": {},
        "parents_limit_s": 604_800,
        "mode": "open",
        "reason": "",
        "version": 0,
        "banks": 1,
    }


# --- whoever reads it in earnest


def test_the_deciders_and_the_command_line_take_pools_of_the_next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = {**LAUNCH, "networkConfiguration": {}}
    told = json.dumps([{**BEFORE["pool"], "launch": launch, "of_the_next": 7}])
    monkeypatch.setenv(keys.ENV_POOLS, told)
    expected = {"default": replace(POOL, launch=launch)}
    assert wiring.pools() == expected
    target = Target("a deployment", {}, lambda _service: pytest.fail("nobody is asked"))
    monkeypatch.setattr(Target, "settings", {keys.ENV_POOLS: told})
    assert target.pools == expected


@pytest.mark.parametrize("kind", ["job", "ended job"])
def test_publish_tells_of_an_image_of_the_next_version(kind: str) -> None:
    change = state_change(None, {**ITEMS[kind], "of_the_next": "x"}, "s3://cache/")
    assert change is not None
    assert (change.workflow_key, change.status) == (KINDS[kind].value.key, KINDS[kind].value.status)


def test_a_producers_message_with_an_unknown_field_is_refused_as_ever() -> None:
    body = json.dumps({"source": "s3://bucket/a.bam", "of_the_next": 1})
    with pytest.raises(Rejected, match="no such field"):
        submission(body, NOW, {"default": POOL}, ())


# --- words that only a later version knows


def test_a_mode_of_the_next_version_lets_nothing_begin_and_ends_nothing() -> None:
    assert keys.override_from({**ITEMS["override"], "mode": "asleep"}) == OVERRIDE
    opened = keys.override_from({**ITEMS["override"], "mode": "open"})
    assert opened.mode is Mode.OPEN


def test_an_ending_of_the_next_version_counts_against_the_attempts() -> None:
    item = {**ITEMS["job"], "history": [{**ITEMS["job"]["history"][0], "class": "evicted", "of_the_next": 1}]}
    assert keys.job_from(item).failures == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "HELD"},
        {"request": of_next(ITEMS["job"]["request"], on_parent_failure="ask")},
        {"request": "{"},
        {"holder": "somebody"},
        {"run": "first"},
        {keys.SCHEMA: keys.SCHEMA_VERSION + 1},
        {keys.SCHEMA: "two"},
    ],
    ids=str,
)
def test_a_job_that_cannot_be_understood_is_unreadable_and_named(changed: Mapping[str, Any]) -> None:
    with pytest.raises(keys.Unreadable, match="rich cannot be read") as refused:
        keys.job_from({**ITEMS["job"], **changed})
    assert refused.value.key == "rich"


def test_an_unreadable_item_is_told_of_once_and_named_by_where_it_lies() -> None:
    items, lines = MemoryItems(), Lines()
    table = StoredControlTable(items, log=lines)
    table.create_slots([SlotId("default", 0), SlotId("default", 1)], NOW)
    items._stored(
        keys.slot_key(SlotId("default", 0)), None, {**keys.slot_item(SlotId("default", 0), NOW), "state": "?"}
    )
    for _ in range(2):
        assert [slot.id.number for slot in table.slots("default")] == [1]
    assert [line["key"] for line in lines.of("unreadable")] == ["POOL#default#000/SLOT#00000"]


def test_without_anybody_to_tell_an_unreadable_item_is_not_passed_over() -> None:
    """A person's command that showed a pool without it would not say so."""
    items = MemoryItems()
    items._stored(
        keys.slot_key(SlotId("default", 0)), None, {**keys.slot_item(SlotId("default", 0), NOW), "state": "?"}
    )
    with pytest.raises(keys.Unreadable):
        StoredControlTable(items).slots("default")


def test_a_job_that_is_asked_for_by_its_key_and_cannot_be_read_is_not_one_that_is_not_there() -> None:
    items, lines = MemoryItems(), Lines()
    items._stored(keys.job_key("rich"), None, {**ITEMS["job"], "request": "{"})
    with pytest.raises(keys.Unreadable):
        StoredControlTable(items, log=lines).job("rich")
    assert [line["key"] for line in lines.of("unreadable")] == ["rich"]
