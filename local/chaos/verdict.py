"""What must not be after a storm: every check a pure function over what was found, one sentence for each trouble."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from fleetcap import catalog, keys, limits
from fleetcap.model import Job, JobStatus, Lease, Slot, SlotState
from local.chaos.plan import Sent, elements
from local.client import Meter
from local.cloud import Marked

EMULATOR: Final = "emulator"
HEARTBEAT_LOST: Final = f"heartbeat lost: {limits.MAX_INTERRUPTIONS + 1} workers went away"
INTERNAL: Final = "internal:"
DEPENDENCY: Final = "dependency:"
ARRAY: Final = "array:"
ARRAY_AGAIN: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


@dataclass(frozen=True)
class Stored:
    """One object of the cache bucket: its size and S3's checksum of its bytes."""

    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Cap:
    """A cap that was in force, in unix seconds from some moment between these two on. The first one always was."""

    cap: int
    said_at: float = -math.inf
    confirmed_at: float = -math.inf
    """From here on nobody may lease a slot above it, until somebody begins to say another one."""


@dataclass(frozen=True)
class Task:
    """A task as the Fargate tells of it, in unix seconds: the lease under which it was begun, and how long it lived."""

    lease: Lease
    began_at: float
    ended_at: float = math.inf


@dataclass(frozen=True)
class Found:
    """Everything that was found after a storm."""

    cap: int
    """The configured one, which is in force again at the end."""
    unsettled: str
    """What was left when nothing went on any more; empty for a fleet that settled."""
    waited_for_messages: bool
    wanted: int
    """How many jobs were to be sent at least."""
    sent: Mapping[str, Sent]
    refused: Collection[str]
    jobs: Sequence[Job]
    given_up: Collection[str]
    """The keys of which a run was seen to fail: only these may have had another one, and arrays."""
    objects: Mapping[str, Stored]
    uploads: Sequence[str]
    unverified: Sequence[str]
    """A sentence for each distinct result that is not what its source asked for."""
    claims: Counter[str]
    """By workers' own lines, how often each attempt was claimed; lines of a killed worker may be missing."""
    completions: Counter[str]
    """By the same lines, how often each run was completed."""
    first_claims: Mapping[str, float]
    """By the same lines, when a job of each key was claimed for the first time, in unix seconds."""
    events: Sequence[Mapping[str, Any]]
    """The details of all that a rule on the deployment's bus heard, in the order in which they came."""
    unpublished: int
    slots: Sequence[Slot]
    caps: Sequence[Cap]
    leases: Mapping[Lease, float]
    """By looks at the table, when each lease was seen for the first time, in unix seconds."""
    tasks: Sequence[Task]
    meter: Meter
    rejected: Sequence[Mapping[str, Any]]
    depths: Mapping[str, tuple[int, int]]
    dead_letters: Mapping[str, int]
    processes: Sequence[Marked]
    kinds: Collection[str]
    struck: Counter[str]

    def with_status(self, status: JobStatus) -> list[Job]:
        """The jobs in this state."""
        return [job for job in self.jobs if job.status is status]

    @property
    def highest_cap(self) -> int:
        """The highest one that was ever in force."""
        return max(cap.cap for cap in self.caps)

    @property
    def ended(self) -> dict[str, list[tuple[float, JobStatus]]]:
        """When and how the runs of each key ended, by the table for the last one, by events for those before."""
        found: dict[str, list[tuple[float, JobStatus]]] = defaultdict(list)
        for job in self.jobs:
            if job.ended:
                found[job.key].append((job.ended_at, job.status))
        for event in self.events:
            if event["ended_at"] is not None:
                found[event["workflow_key"]].append((event["ended_at"], JobStatus(event["status"])))
        return found


def find_trouble(found: Found) -> list[str]:
    """Everything that must not be, one sentence each."""
    checks = (
        every_job_ended_as_it_had_to,
        dependents_waited,
        arrays_ended_with_their_elements,
        every_tenant_was_served,
        every_end_was_told,
        attempts_add_up,
        no_attempt_had_two_workers,
        every_artifact_is_there_once,
        equal_sources_gave_equal_results,
        the_cap_held,
        no_slot_above_a_lowered_cap_was_leased,
        no_slot_leaked,
        every_message_was_answered,
        no_process_is_left,
        every_kind_struck,
    )
    trouble = [found.unsettled] if found.unsettled else []
    return trouble + [sentence for check in checks for sentence in check(found)]


def every_job_ended_as_it_had_to(found: Found) -> Iterator[str]:
    """Exactly one job for each key that was sent, in one final state: COMPLETED, or FAILED for a reason of its own."""
    if len(found.sent) < found.wanted:
        yield f"only {len(found.sent)} of {found.wanted} jobs could be sent: too little got through the storm"
    by_key = Counter(job.key for job in found.jobs)
    yield from (f"{key}: sent, but there is no such job" for key in found.sent if not by_key[key])
    own = {job.key for job in found.jobs if job.request.array and job.request.part_of in found.sent}
    yield from (f"{key}: a job that nobody sent" for key in by_key if key not in found.sent and key not in own)
    for job in found.jobs:
        if not job.ended:
            yield f"{job.key}: still {job.status} after {job.attempt} attempts"
        elif job.status is JobStatus.CANCELLED:
            yield f"{job.key}: cancelled, which nobody asked for"
        elif job.key in found.sent and not job.request.array:
            yield from _wrong_end(job, found.sent[job.key])


def _wrong_end(job: Job, order: Sent) -> Iterator[str]:
    """What is wrong with the end of a job that is no array. Whether its parents are to blame: `dependents_waited`."""
    bad = order.bad
    if job.status is JobStatus.COMPLETED:
        if bad:
            yield f"{job.key}: completed, though its source holds no alignments"
    elif job.error.startswith(HEARTBEAT_LOST):
        most = limits.MAX_INTERRUPTIONS + 1
        if job.interruptions != most:
            yield f"{job.key}: given up after {job.interruptions} interruptions, not {most}"
    elif order.after and job.error.startswith(DEPENDENCY):
        return
    elif not bad:
        yield f"{job.key}: failed, though its source is good: {job.error}"
    elif job.error.startswith(INTERNAL) or not job.error:
        yield f"{job.key}: its source is bad, but that is not why it failed: {job.error or 'no reason'}"


def dependents_waited(found: Found) -> Iterator[str]:
    """ORDER: a job was claimed only after each of its parents had ended as asked, and fell only where one fell."""
    ended = found.ended
    for job in found.jobs:
        order = found.sent.get(job.key)
        if order is None or not order.after:
            continue
        began_at = _first_claim(found, job)
        for parent in order.after:
            fit = [at for at, status in ended[parent] if order.anyway or status is JobStatus.COMPLETED]
            if began_at < min(fit, default=math.inf) and began_at < math.inf:
                yield f"{job.key}: claimed before {parent} had {'ended' if order.anyway else 'completed'}"
        if job.error.startswith(DEPENDENCY):
            ends = [end for parent in order.after for end in ended[parent]]
            fallen = [at for at, status in ends if status is not JobStatus.COMPLETED and at <= job.ended_at]
            if order.anyway:
                yield f"{job.key}: failed for a parent's sake, and was to run all the same: {job.error}"
            elif not fallen:
                yield f"{job.key}: failed for a parent's sake, and none had failed: {job.error}"


def _first_claim(found: Found, job: Job) -> float:
    """When a worker first took a job of this key, by the table and by the workers' own lines; infinity: none did."""
    times = [attempt.began_at for attempt in job.history] + [job.claimed_at]
    return min([found.first_claims.get(job.key, math.inf), *(at for at in times if at)])


def arrays_ended_with_their_elements(found: Found) -> Iterator[str]:
    """ARRAY: an array ended after the last of its elements, as they did, and counts them as they stand."""
    by_key = {job.key: job for job in found.jobs}
    for key, order in found.sent.items():
        array = by_key.get(key)
        if not order.array or array is None or not array.ended:
            continue
        parts = [by_key[element] for element, _ in elements(key, order) if element in by_key]
        for part in parts:
            if not part.ended or part.ended_at > array.ended_at:
                yield f"{key}: ended before its element {part.key}"
        of = Counter(part.status for part in parts)
        counts = of[JobStatus.COMPLETED], of[JobStatus.FAILED], of[JobStatus.CANCELLED]
        if array.counts != counts:
            yield f"{key}: counts {array.counts}, and its elements come to {counts}"
        if (array.status is JobStatus.COMPLETED) != (of[JobStatus.COMPLETED] == order.array):
            yield f"{key}: {array.status}, though {of[JobStatus.COMPLETED]} of its {order.array} elements completed"
        if array.status is JobStatus.FAILED and not array.error.startswith(ARRAY):
            yield f"{key}: failed for another reason than its elements: {array.error or 'no reason'}"


def every_tenant_was_served(found: Found) -> Iterator[str]:
    """Each job is whose it was sent as, and each tenant had its turn. In which order is not judged under faults."""
    taken: Counter[str] = Counter()
    for job in found.jobs:
        if job.key not in found.sent:
            continue
        tenant = found.sent[job.key].tenant
        if job.tenant != tenant:
            yield f"{job.key}: a job of tenant {job.tenant or 'nobody'}, sent as one of {tenant or 'nobody'}"
        taken[tenant] += job.attempt
    for tenant, times in taken.items():
        if not times:
            yield f"tenant {tenant or 'nobody'}: no worker ever took one of its jobs"


def every_end_was_told(found: Found) -> Iterator[str]:
    """Each run's end was told at least once, as the table has it, and nothing was told that never was.

    Events may come late, doubled and in any order: their sequence says which is the last one.
    """
    told: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for event in found.events:
        key, status, sequence = event["workflow_key"], event["status"], event["sequence"]
        if status not in keys.ENDED_STATUSES:
            yield f"{key}: told as {status}, of which there are to be no events"
        if told[key].setdefault(sequence, event) != event:
            yield f"{key}: two events that differ under the sequence {sequence}"
    yield from (f"{key}: an event of a job that there is not" for key in told.keys() - {job.key for job in found.jobs})
    for job in found.jobs:
        yield from _mistold(job, [event for _, event in sorted(told[job.key].items())])
    if found.unpublished:
        yield f"{found.unpublished} notes of changes that were not published"


def _mistold(job: Job, events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is wrong with what was told of a job's key, by sequence: each run is to end once, the last as it stands."""
    runs = [event["run"] for event in events]
    if runs != list(range(1, job.run + job.ended)):
        yield f"{job.key}: in run {job.run} and {job.status}, but by its events these runs ended: {runs}"
    for event in events:
        standing = event["run"] == job.run and (event["status"], event["sequence"]) == (job.status, job.changes)
        # Only a run that failed makes room for another one: nobody forces any here, and all results stay. An array
        # has no result of its own, so a message that comes later has its elements looked at anew.
        made_room = event["status"] in (ARRAY_AGAIN if job.request.array else {JobStatus.FAILED})
        if not standing and not (event["run"] < job.run and made_room):
            yield f"{job.key}: run {event['run']} was told as {event['status']}, which it never was"


def attempts_add_up(found: Found) -> Iterator[str]:
    """Each attempt of a run ended once: well, or as its history tells. An array has none."""
    for job in found.jobs:
        if not job.ended:
            continue
        ends = len(job.history) + (job.status is not JobStatus.FAILED and not job.request.array)
        recorded = job.run > 1 and job.status is JobStatus.COMPLETED and job.claimed_at == 0
        wrong = job.attempt != ends if job.run == 1 else job.attempt < ends and not recorded
        if wrong:
            yield (f"{job.key}: {job.attempt} attempts, but {ends} ends in run {job.run}")
        if job.run > 1 and job.key not in found.given_up and not job.request.array:
            yield f"{job.key}: run {job.run} times, though none of its runs was seen to fail"


def no_attempt_had_two_workers(found: Found) -> Iterator[str]:
    """The same told by the workers' logs, which nothing in the table can mend."""
    yield from (f"{attempt} was claimed {times} times" for attempt, times in found.claims.items() if times > 1)
    yield from (f"run {run} was completed {times} times" for run, times in found.completions.items() if times > 1)
    if found.with_status(JobStatus.COMPLETED) and not found.completions:
        yield "jobs completed, but no worker's log says so: the logs cannot be trusted"


def every_artifact_is_there_once(found: Found) -> Iterator[str]:
    """The bucket holds what the completed jobs say, nothing else but what given-up ones left, and it is valid."""
    expected = {key for job in found.with_status(JobStatus.COMPLETED) for key in _artifacts(job)}
    possible = {key for job in found.jobs if job.key in found.given_up for key in _artifacts(job)}
    for job in found.with_status(JobStatus.COMPLETED):
        if sorted(job.artifacts) != sorted(_artifacts(job)):
            yield f"{job.key}: names {', '.join(job.artifacts) or 'no artifacts'}, not those of its processor"
    yield from (f"{key}: the artifact of a completed job is missing" for key in sorted(expected - set(found.objects)))
    yield from (f"{key}: an object that no job left" for key in sorted(set(found.objects) - expected - possible))
    yield from (f"{key}: an artifact without bytes" for key, stored in found.objects.items() if not stored.size_bytes)
    yield from (f"{key}: an upload that was never finished" for key in found.uploads)
    yield from found.unverified


def _artifacts(job: Job) -> tuple[str, ...]:
    """Those of a job that completed. An array has none of its own."""
    return () if job.request.array else catalog.artifact_keys(job.key, job.request.processor)


def equal_sources_gave_equal_results(found: Found) -> Iterator[str]:
    """Jobs share sources, and the processors are deterministic: what differs was written by more than one hand."""
    seen: dict[tuple[str, str], dict[Stored, str]] = {}
    for job in found.with_status(JobStatus.COMPLETED):
        for artifact in _artifacts(job):
            if stored := found.objects.get(artifact):
                result = (job.request.source, artifact.rpartition("/")[2])
                seen.setdefault(result, {}).setdefault(stored, artifact)
    for (source, kind), variants in seen.items():
        if len(variants) > 1:
            yield f"{kind} of {source} came out in {len(variants)} ways: {', '.join(variants.values())}"


def the_cap_held(found: Found) -> Iterator[str]:
    """By the Fargate's own count, for the whole of its life; and never two tasks in one slot."""
    if found.meter.peak_live_tasks > found.highest_cap:
        yield f"the cap of {found.highest_cap} was exceeded: {found.meter.peak_live_tasks} tasks lived at once"
    if found.meter.live_tasks:
        yield f"{found.meter.live_tasks} tasks still live"
    if found.with_status(JobStatus.COMPLETED) and not (found.meter.peak_live_tasks and found.tasks):
        yield "jobs completed, but the Fargate's meter saw no task: its figures cannot be trusted"
    for before, after in pairwise(sorted(found.tasks, key=lambda task: (task.lease.slot, task.began_at))):
        if before.lease.slot == after.lease.slot and after.began_at < before.ended_at:
            yield f"two tasks lived at once in slot {after.lease.slot}: under {before.lease} and {after.lease}"


def no_slot_above_a_lowered_cap_was_leased(found: Found) -> Iterator[str]:
    """Once a cap is confirmed, no lease begins above it, by looks at the table and by the Fargate's tasks.

    With one task in a slot at most, what lives is so never more than the cap and those that were there before.
    """
    began = dict(found.leases)
    for task in found.tasks:
        began[task.lease] = min(task.began_at, began.get(task.lease, math.inf))
    until = [cap.said_at for cap in found.caps[1:]] + [math.inf]
    for cap, until_at in zip(found.caps, until, strict=True):
        for lease, at in began.items():
            if lease.slot.number >= cap.cap and cap.confirmed_at < at < until_at:
                late_s = at - cap.confirmed_at
                yield f"slot {lease} was leased above the cap of {cap.cap}, {late_s:.1f} s after that was confirmed"


def no_slot_leaked(found: Found) -> Iterator[str]:
    """As many slots as the cap has, but for those that a higher cap has left marked; and each is free again."""
    staying = [slot for slot in found.slots if not slot.retire]
    if len(staying) != found.cap:
        yield f"there are {len(staying)} slots for a cap of {found.cap}"
    for slot in found.slots:
        if slot.state is not SlotState.EMPTY:
            yield f"slot {slot.lease} leaked: it is {slot.state}, its task {slot.arn or 'unknown'}"


def every_message_was_answered(found: Found) -> Iterator[str]:
    """What could never run was rejected with a reason, and no message lies about. A reject may come twice."""
    rejected = {str(record.get("body")) for record in found.rejected}
    yield from (f"neither run nor rejected: {body}" for body in sorted(set(found.refused) - rejected))
    yield from (f"rejected, though it is no bad message: {body}" for body in sorted(rejected - set(found.refused)))
    yield from (f"rejected without a reason: {record.get('body')}" for record in found.rejected if not record["reason"])
    for name, (visible, taken) in found.depths.items():
        if left := visible + (taken if found.waited_for_messages else 0):
            yield f"{left} messages are left in the queue {name}"
    for name, left in found.dead_letters.items():
        if left:
            yield f"{left} messages are in the dead-letter queue {name}"


def no_process_is_left(found: Found) -> Iterator[str]:
    """Only the cloud's servers live, and below the emulator its functions' processes."""
    by_pid = {process.pid: process for process in found.processes}
    for process in found.processes:
        if not process.server and not _below_the_emulator(process, by_pid):
            yield f"process {process.pid} is left: {process.command[:120]}"


def _below_the_emulator(process: Marked, by_pid: Mapping[int, Marked]) -> bool:
    above = by_pid.get(process.parent)
    return above is not None and (above.server == EMULATOR or _below_the_emulator(above, by_pid))


def every_kind_struck(found: Found) -> Iterator[str]:
    """A storm that was none proves nothing."""
    yield from (f"{kind} never struck" for kind in sorted(found.kinds) if not found.struck[kind])


def none_after_the_end(processes: Collection[Marked]) -> list[str]:
    """After the cloud's end not even its servers live."""
    return [f"process {process.pid} outlived its cloud: {process.command[:120]}" for process in processes]
