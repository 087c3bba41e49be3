"""Makes a failing history small: whatever can be left out without losing the violation is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from local.simulator.history import Result, run
from local.simulator.plan import JobPlan, MessagePlan, Plan

TRIES_MAX: Final = 600


def shrink(failed: Result) -> Result:
    """The smallest history found that breaks the same invariant, traced."""
    best, tries = failed, 0
    progress = True
    while progress and tries < TRIES_MAX:
        progress = False
        for candidate in _smaller(best):
            tries += 1
            result = run(candidate)
            if _same(result, failed) and _size(result) < _size(best):
                best, progress = result, True
                break
            if tries >= TRIES_MAX:
                break
    return run(best.plan, tracing=True)


def _same(result: Result, failed: Result) -> bool:
    return bool(result.violation and failed.violation and result.violation.invariant == failed.violation.invariant)


def _size(result: Result) -> tuple[int, int, int, int]:
    plan = result.plan
    return len(plan.messages), len(plan.troubles) + len(plan.cancels) + len(plan.words), result.faults, result.calls


def _smaller(result: Result) -> Iterator[Plan]:
    """Plans with one thing less, the largest things first."""
    plan = result.plan
    for count in (len(plan.messages) // 2, 1):
        for start in range(0, len(plan.messages), max(count, 1)):
            left = plan.messages[:start] + plan.messages[start + count :]
            if left and len(left) < len(plan.messages):
                yield replace(plan, messages=closed(left, plan.messages))
    for number in range(len(plan.troubles)):
        yield replace(plan, troubles=plan.troubles[:number] + plan.troubles[number + 1 :])
    for number in range(len(plan.words)):
        yield replace(plan, words=plan.words[:number] + plan.words[number + 1 :])
    for number in range(len(plan.cancels)):
        yield replace(plan, cancels=plan.cancels[:number] + plan.cancels[number + 1 :])
    for fault in sorted(plan.faults):
        yield replace(plan, faults=plan.faults - {fault})
    drawn = [number for number in range(1, result.faults + 1) if number not in plan.without]
    for count in (len(drawn) // 2, 1):
        for start in range(0, len(drawn), max(count, 1)):
            if count:
                yield replace(plan, without=plan.without | frozenset(drawn[start : start + count]))
    simpler: dict[str, object] = {
        "lanes": 1, "cap": 1, "deciders": 1, "batch": 1, "skew_s": 0.0, "lag_s": 0.0, "latency_s": 0.02,
    }  # fmt: skip
    for name, value in simpler.items():
        if getattr(plan, name) != value:
            yield replace(plan, **{name: value})  # type: ignore[arg-type]


def closed(left: tuple[MessagePlan, ...], before: tuple[MessagePlan, ...]) -> tuple[MessagePlan, ...]:
    """What is left, nobody waiting for a job that has been left out: it would never come, which is another story."""
    here = {message.job.key for message in left if message.job}
    gone = {message.job.key for message in before if message.job} - here
    return tuple(replace(each, job=_without_parents(each.job, gone)) for each in left)


def _without_parents(job: JobPlan | None, gone: set[str]) -> JobPlan | None:
    return job and replace(job, depends_on=tuple(parent for parent in job.depends_on if parent not in gone))
