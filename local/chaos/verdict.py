"""What must not be after a storm: every check a pure function over what was found, one sentence for each trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetcap import catalog, limits
from fleetcap.model import Job, JobStatus, Slot, SlotState
from local.chaos.plan import Sent
from local.client import Meter
from local.cloud import Marked

EMULATOR: Final = "emulator"
HEARTBEAT_LOST: Final = f"heartbeat lost: {limits.MAX_INTERRUPTIONS + 1} workers went away"
INTERNAL: Final = "internal:"


@dataclass(frozen=True)
class Stored:
    """One object of the cache bucket: its size and S3's checksum of its bytes."""

    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Found:
    """Everything that was found after a storm."""

    cap: int
    unsettled: str
    """What was left when nothing went on any more; empty for a fleet that settled."""
    waited_for_messages: bool
    wanted: int
    """How many jobs were to be sent at least."""
    sent: Mapping[str, Sent]
    refused: Collection[str]
    jobs: Sequence[Job]
    given_up: Collection[str]
    """The keys of which a run was seen to fail: only these may have had another one."""
    objects: Mapping[str, Stored]
    uploads: Sequence[str]
    unverified: Sequence[str]
    """A sentence for each distinct result that is not what its source asked for."""
    claims: Counter[str]
    """By workers' own lines, how often each attempt was claimed; lines of a killed worker may be missing."""
    completions: Counter[str]
    """By the same lines, how often each run was completed."""
    slots: Sequence[Slot]
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


def find_trouble(found: Found) -> list[str]:
    """Everything that must not be, one sentence each."""
    checks = (
        every_job_ended_as_it_had_to,
        attempts_add_up,
        no_attempt_had_two_workers,
        every_artifact_is_there_once,
        equal_sources_gave_equal_results,
        the_cap_held,
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
    yield from (f"{key}: a job that nobody sent" for key in by_key if key not in found.sent)
    for job in found.jobs:
        if not job.ended:
            yield f"{job.key}: still {job.status} after {job.attempt} attempts"
        elif job.status is JobStatus.CANCELLED:
            yield f"{job.key}: cancelled, which nobody asked for"
        elif job.key in found.sent:
            yield from _wrong_end(job, found.sent[job.key].bad)


def _wrong_end(job: Job, bad: bool) -> Iterator[str]:
    if job.status is JobStatus.COMPLETED:
        if bad:
            yield f"{job.key}: completed, though its source holds no alignments"
    elif job.error.startswith(HEARTBEAT_LOST):
        most = limits.MAX_INTERRUPTIONS + 1
        if job.interruptions != most:
            yield f"{job.key}: given up after {job.interruptions} interruptions, not {most}"
    elif not bad:
        yield f"{job.key}: failed, though its source is good: {job.error}"
    elif job.error.startswith(INTERNAL) or not job.error:
        yield f"{job.key}: its source is bad, but that is not why it failed: {job.error or 'no reason'}"


def attempts_add_up(found: Found) -> Iterator[str]:
    """Each attempt of a run ended once: well, or as its history tells."""
    for job in found.jobs:
        if not job.ended:
            continue
        ends = len(job.history) + (job.status is not JobStatus.FAILED)
        recorded = job.run > 1 and job.status is JobStatus.COMPLETED and job.claimed_at == 0
        wrong = job.attempt != ends if job.run == 1 else job.attempt < ends and not recorded
        if wrong:
            yield (f"{job.key}: {job.attempt} attempts, but {ends} ends in run {job.run}")
        if job.run > 1 and job.key not in found.given_up:
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
    return catalog.artifact_keys(job.key, job.request.processor)


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
    """By the Fargate's own count, for the whole of its life."""
    if found.meter.peak_live_tasks > found.cap:
        yield f"the cap of {found.cap} was exceeded: {found.meter.peak_live_tasks} tasks lived at once"
    if found.meter.live_tasks:
        yield f"{found.meter.live_tasks} tasks still live"
    if found.with_status(JobStatus.COMPLETED) and not found.meter.peak_live_tasks:
        yield "jobs completed, but the Fargate's meter saw no task: its figures cannot be trusted"


def no_slot_leaked(found: Found) -> Iterator[str]:
    """As many slots as the cap has, and each is free again."""
    if len(found.slots) != found.cap:
        yield f"there are {len(found.slots)} slots for a cap of {found.cap}"
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
