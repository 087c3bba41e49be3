"""Every guard of the product as data: the clauses of each operation's condition, and what keeps each rule.

A clause is named `operation: clause`, as `local.simulator.coverage.guards()` names them; a part of a clause has that
part in brackets behind. Whatever keeps rule N is named `rule N: …`.
"""

from __future__ import annotations

from typing import Final

from tests.mutation.guard import Guard

KEYS: Final = "lambdas/fleetcap/keys.py"
FLEET: Final = "lambdas/fleetcap/fleet.py"
ADMIT: Final = "lambdas/fleetcap/decide/admit.py"
CAPACITY: Final = "lambdas/fleetcap/decide/capacity.py"
LAUNCH: Final = "lambdas/fleetcap/decide/launch.py"
SHARES: Final = "lambdas/fleetcap/decide/shares.py"
RECOVER: Final = "lambdas/fleetcap/decide/recover.py"
RETRY: Final = "lambdas/fleetcap/decide/retry.py"
STANDBY: Final = "lambdas/fleetcap/decide/standby.py"
BUDGET: Final = "lambdas/fleetcap/decide/budget.py"
POOLS: Final = "lambdas/fleetcap/pools.py"
DEADLINES: Final = "lambdas/fleetcap/decide/deadlines.py"
CONTROL_TABLE: Final = "lambdas/fleetcap/adapters/control_table.py"
DYNAMO: Final = "lambdas/fleetcap/adapters/dynamo.py"
WORKERS: Final = "lambdas/fleetcap/adapters/workers.py"
EVENTS: Final = "lambdas/fleetcap/events.py"
WIRING: Final = "lambdas/fleetcap/wiring.py"
STORED: Final = "lambdas/fleetcap/stored.py"
ARRAYS: Final = "lambdas/fleetcap/decide/arrays.py"
JUDGE: Final = "lambdas/fleetcap/decide/dependencies.py"
DEPENDENCIES: Final = "lambdas/fleetcap/dependencies.py"
PUBLISH: Final = "lambdas/handlers/publish.py"
INTAKE: Final = "lambdas/handlers/intake.py"
TASK_STATE: Final = "lambdas/handlers/task_state.py"
TICK: Final = "lambdas/handlers/tick.py"
WORKER: Final = "worker_image/worker.py"

ANYTHING: Final = 'Condition("anything", f"attribute_exists(#{TABLE_PK}) OR attribute_not_exists(#{TABLE_PK})")'


def _in_lease(name: str, left: str) -> Guard:
    condition = "condition = SLOT_EMPTY & at_generation(slot.generation) & SLOT_STAYS\n"
    return Guard(f"lease: {name}", 0, KEYS, condition, f"condition = {left}\n")


def _in_launched(name: str, left: str) -> Guard:
    condition = "condition = at_generation(lease.generation) & SLOT_LAUNCHING & arn_none_or(arn)"
    return Guard(f"launched: {name}", 0, KEYS, condition, f"condition = {left}")


def _in_beat(name: str, left: str) -> Guard:
    condition = "at_generation(lease.generation) & SLOT_HELD & arn_none_or(arn), sets)"
    return Guard(f"beat: {name}", 0, KEYS, condition, f"{left}, sets)")


def _in_release(name: str, left: str) -> Guard:
    return Guard(f"release: {name}", 0, KEYS, "at_generation(lease.generation) & SLOT_HELD & arn_is(arn),", left)


def _in_missing(name: str, left: str) -> Guard:
    condition = "at_generation(lease.generation) & SLOT_HELD,\n"
    return Guard(f"missing: {name}", 0, KEYS, condition, f"{left},\n")


def _in_leave(name: str, left: str) -> Guard:
    condition = 'at_generation(lease.generation) & SLOT_HELD, sets, ("keep",))'
    return Guard(f"leave: {name}", 0, KEYS, condition, f'{left}, sets, ("keep",))')


def _in_keep(name: str, left: str) -> Guard:
    condition = 'condition = at_generation(lease.generation) & SLOT_HELD\n    return Write("keep"'
    return Guard(f"keep: {name}", 0, KEYS, condition, f'condition = {left}\n    return Write("keep"')


def _in_put(name: str, left: str) -> Guard:
    condition = "run_ended(replacing.run) if replacing else ABSENT)"
    return Guard(f"put: {name}", 0, KEYS, condition, f"{left})")


def _in_ended(part: str, old: str, new: str) -> Guard:
    return Guard(f"put: the run as read has ended ({part})", 0, KEYS, old, new)


CLAUSES: Final = (
    Guard(
        "create: it does not exist",
        0,
        KEYS,
        'return Put("create", slot_item(slot, now) | mark, ABSENT)',
        f'return Put("create", slot_item(slot, now) | mark, {ANYTHING})',
    ),
    _in_lease("the slot is empty", "at_generation(slot.generation) & SLOT_STAYS"),
    _in_lease("the generation is as read", "SLOT_EMPTY & SLOT_STAYS"),
    _in_lease("the slot is not retiring", "SLOT_EMPTY & at_generation(slot.generation)"),
    _in_launched("the generation is as read", "SLOT_LAUNCHING & arn_none_or(arn)"),
    _in_launched("the slot is launching", "at_generation(lease.generation) & arn_none_or(arn)"),
    _in_launched("the recorded task is none or this one", "at_generation(lease.generation) & SLOT_LAUNCHING"),
    _in_beat("the generation is as read", "SLOT_HELD & arn_none_or(arn)"),
    _in_beat("the slot is held", "at_generation(lease.generation) & arn_none_or(arn)"),
    _in_beat("the recorded task is none or this one", "at_generation(lease.generation) & SLOT_HELD"),
    _in_release("the generation is as read", "SLOT_HELD & arn_is(arn),"),
    _in_release("the slot is held", "at_generation(lease.generation) & arn_is(arn),"),
    _in_release(
        "the recorded task is this one", "at_generation(lease.generation) & (SLOT_HELD if arn else SLOT_HELD & NO_ARN),"
    ),
    _in_release(
        "no task is recorded", "at_generation(lease.generation) & (SLOT_HELD & arn_is(arn) if arn else SLOT_HELD),"
    ),
    _in_missing("the generation is as read", "SLOT_HELD"),
    _in_missing("the slot is held", "at_generation(lease.generation)"),
    Guard(
        "retire: it exists",
        0,
        KEYS,
        'EXISTS: Final = Condition("it exists", f"attribute_exists(#{TABLE_PK})")',
        f"EXISTS: Final = {ANYTHING}",
    ),
    Guard(
        "retire: no newer cap has marked it",
        15,
        KEYS,
        "EXISTS & no_newer_cap(version), sets,",
        "EXISTS, sets,",
    ),
    _in_leave("the generation is as read", "SLOT_HELD"),
    _in_leave("the slot is held", "at_generation(lease.generation)"),
    _in_keep("the generation is as read", "SLOT_HELD"),
    _in_keep("the slot is held", "at_generation(lease.generation)"),
    Guard("override: the version is as read", 0, KEYS, "        at_version(version),\n", f"        {ANYTHING},\n"),
    Guard(
        "widen: fewer banks are known",
        0,
        KEYS,
        "override_key(pool), fewer, {",
        f"override_key(pool), {ANYTHING}, {{",
    ),
    Guard("reserve: the name is free", 0, KEYS, 'Put("reserve", item, free)', f'Put("reserve", item, {ANYTHING})'),
    Guard(
        "unreserve: it exists",
        0,
        KEYS,
        'reservation_key(pool, name), EXISTS, {"until"',
        f'reservation_key(pool, name), {ANYTHING}, {{"until"',
    ),
    _in_put("it does not exist", f"run_ended(replacing.run) if replacing else {ANYTHING}"),
    _in_put("the run as read has ended", f"{ANYTHING} if replacing else ABSENT"),
    _in_ended(
        "the run as read",
        """f"#run = :run AND #status IN ({', '.join(f':ended_{n}' for n in range(len(ended)))})",
        {":run": run, **{""",
        """f"#status IN ({', '.join(f':ended_{n}' for n in range(len(ended)))})",
        {**{""",
    ),
    _in_ended(
        "that it has ended",
        """f"#run = :run AND #status IN ({', '.join(f':ended_{n}' for n in range(len(ended)))})",
        {":run": run, **{f":ended_{n}": status for n, status in enumerate(ended)}},""",
        '"#run = :run", {":run": run},',
    ),
    Guard(
        "claim: queued at the attempt as read", 0, KEYS, "        queued_at_attempt(queued),", f"        {ANYTHING},"
    ),
    Guard(
        "claim: queued at the attempt as read (queued)",
        0,
        KEYS,
        """"#status = :queued AND #run = :run AND #attempt = :attempt",
        {":queued": JobStatus.QUEUED.value, ":run": job.run,""",
        '"#run = :run AND #attempt = :attempt", {":run": job.run,',
    ),
    Guard(
        "claim: queued at the attempt as read (the run)",
        0,
        KEYS,
        """"#status = :queued AND #run = :run AND #attempt = :attempt",
        {":queued": JobStatus.QUEUED.value, ":run": job.run,""",
        '"#status = :queued AND #attempt = :attempt", {":queued": JobStatus.QUEUED.value,',
    ),
    Guard(
        "claim: queued at the attempt as read (the attempt)",
        12,
        KEYS,
        """"#status = :queued AND #run = :run AND #attempt = :attempt",
        {":queued": JobStatus.QUEUED.value, ":run": job.run, ":attempt": job.attempt},""",
        '"#status = :queued AND #run = :run", {":queued": JobStatus.QUEUED.value, ":run": job.run},',
    ),
    Guard(
        "heartbeat: running under this attempt",
        0,
        KEYS,
        '"heartbeat", job_key(running.key), running_at_attempt(running), sets)',
        f'"heartbeat", job_key(running.key), {ANYTHING}, sets)',
    ),
    Guard(
        "finish: running under this attempt",
        0,
        KEYS,
        "running_at_attempt(job) if running else unclaimed(job),",
        f"{ANYTHING} if running else unclaimed(job),",
    ),
    Guard(
        "withdraw: queued at the attempt as read",
        0,
        KEYS,
        "is JobStatus.WAITING else queued_at_attempt(job)",
        f"is JobStatus.WAITING else {ANYTHING}",
    ),
    Guard(
        "withdraw: the run as read is waiting",
        0,
        KEYS,
        "return run_waiting(job.run) if job.status",
        f"return {ANYTHING} if job.status",
    ),
    Guard(
        "unblock: the run as read is waiting",
        0,
        KEYS,
        "        run_waiting(waiting.run),\n",
        f"        {ANYTHING},\n",
    ),
    Guard(
        "unblock, withdraw: the run as read is waiting (the run)",
        0,
        KEYS,
        """"#run = :run AND #status = :waiting",
        {":run": run, ":waiting": JobStatus.WAITING.value},""",
        '"#status = :waiting", {":waiting": JobStatus.WAITING.value},',
    ),
    Guard(
        "unblock, withdraw: the run as read is waiting (waiting)",
        0,
        KEYS,
        """"#run = :run AND #status = :waiting",
        {":run": run, ":waiting": JobStatus.WAITING.value},""",
        '"#run = :run", {":run": run},',
    ),
    Guard(
        "cancel: the run as read is running",
        0,
        KEYS,
        '"cancel", job_key(running.key), run_running(running.run),',
        f'"cancel", job_key(running.key), {ANYTHING},',
    ),
    Guard(
        "cancel: the run as read is running (the run)",
        0,
        KEYS,
        """"#run = :run AND #status = :running",
        {":run": run, ":running": JobStatus.RUNNING.value},""",
        '"#status = :running", {":running": JobStatus.RUNNING.value},',
    ),
    Guard(
        "cancel: the run as read is running (running)",
        0,
        KEYS,
        """"#run = :run AND #status = :running",
        {":run": run, ":running": JobStatus.RUNNING.value},""",
        '"#run = :run", {":run": run},',
    ),
    Guard(
        "cancel: a claim's op stays",
        11,
        KEYS,
        '{"cancel": reason[: limits.PROGRESS_MAX_CHARS]}',
        '{"cancel": reason[: limits.PROGRESS_MAX_CHARS], OP: "cancel"}',
    ),
    Guard(
        "requeue: nobody asked to cancel it",
        0,
        KEYS,
        "running_at_attempt(running) & held_by(running.holder) & NOT_CANCELLED,",
        "running_at_attempt(running) & held_by(running.holder),",
    ),
    Guard(
        "requeue: running under this attempt",
        0,
        KEYS,
        "running_at_attempt(running) & held_by(running.holder) & NOT_CANCELLED,",
        "held_by(running.holder) & NOT_CANCELLED,",
    ),
    Guard(
        "requeue: held by this holder",
        8,
        KEYS,
        "running_at_attempt(running) & held_by(running.holder) & NOT_CANCELLED,",
        "running_at_attempt(running) & NOT_CANCELLED,",
    ),
    Guard(
        "heartbeat, finish, requeue: running under this attempt (running)",
        0,
        KEYS,
        """"#status = :running AND #run = :run AND #attempt = :attempt",
        {":running": JobStatus.RUNNING.value, ":run": job.run,""",
        '"#run = :run AND #attempt = :attempt", {":run": job.run,',
    ),
    Guard(
        "heartbeat, finish, requeue: running under this attempt (the run)",
        0,
        KEYS,
        """"#status = :running AND #run = :run AND #attempt = :attempt",
        {":running": JobStatus.RUNNING.value, ":run": job.run,""",
        '"#status = :running AND #attempt = :attempt", {":running": JobStatus.RUNNING.value,',
    ),
    Guard(
        "heartbeat, finish, requeue: running under this attempt (the attempt)",
        0,
        KEYS,
        """"#status = :running AND #run = :run AND #attempt = :attempt",
        {":running": JobStatus.RUNNING.value, ":run": job.run, ":attempt": job.attempt},""",
        '"#status = :running AND #run = :run", {":running": JobStatus.RUNNING.value, ":run": job.run},',
    ),
    Guard(
        "draw: it exists",
        0,
        KEYS,
        'return Write("draw", key, EXISTS, sets, adds={"drawn": cost})',
        f'return Write("draw", key, {ANYTHING}, sets, adds={{"drawn": cost}})',
    ),
    Guard(
        "draw: it has drawn nothing beyond",
        0,
        KEYS,
        'return Write("draw", key, drawn_before(at), {**sets, "drawn": at + cost})',
        f'return Write("draw", key, {ANYTHING}, {{**sets, "drawn": at + cost}})',
    ),
)


RULES: Final = (
    Guard(
        "rule 1: a resend carries the token of the first sending",
        1,
        LAUNCH,
        "return hashlib.sha256(str(lease).encode()).hexdigest()",
        "_SENT.append(lease)\n"
        '    return hashlib.sha256(f"{lease} {len(_SENT)}".encode()).hexdigest()\n\n\n_SENT: list[Lease] = []',
    ),
    Guard(
        "rule 1: the next generation has another token",
        1,
        LAUNCH,
        "return hashlib.sha256(str(lease).encode()).hexdigest()",
        "return hashlib.sha256(str(lease.slot).encode()).hexdigest()",
    ),
    Guard(
        "rule 1: a launch without an answer is never given up",
        1,
        FLEET,
        "        answer = self.launch(fresh.lease, fresh.launch, fresh.strikes)\n",
        "        if self.clock.now() - fresh.leased_at > limits.SILENT_LAUNCHING_S:\n"
        '            self._release(fresh.lease, "", "no answer", True, fresh.strikes)\n'
        "            return Resent(fresh)\n"
        "        answer = self.launch(fresh.lease, fresh.launch, fresh.strikes)\n",
    ),
    Guard(
        "rule 1: a launch without an answer for an hour raises the alarm",
        1,
        RECOVER,
        " and now - slot.leased_at > limits.UNRESOLVED_ALARM_S]",
        " and now - slot.leased_at > limits.ECS_CALL_TOKEN_LIFE_S]",
    ),
    Guard(
        "rule 1: a task that turns out to live under a freed slot is stopped",
        1,
        FLEET,
        "if slot and slot.generation > lease.generation:",
        "if False and slot:",
    ),
    Guard(
        "rule 1: the SDK does not repeat RunTask",
        1,
        WIRING,
        '_ONCE = Config(connect_timeout=3, read_timeout=12, retries={"mode": "standard", "total_max_attempts": 1})',
        '_ONCE = Config(connect_timeout=3, read_timeout=12, retries={"mode": "standard", "total_max_attempts": 3})',
    ),
    Guard(
        "rule 2: a launch without an answer frees no slot",
        2,
        FLEET,
        "doubt=doubt.value, reason=reason, launches_unanswered=1)",
        "doubt=doubt.value, reason=reason, launches_unanswered=1)\n"
        '                self._release(lease, "", reason, failed=True, strikes=strikes)',
    ),
    Guard(
        "rule 2: a throttled launch frees no slot",
        2,
        FLEET,
        "doubt=doubt.value, reason=reason, launches_unanswered=1)",
        "doubt=doubt.value, reason=reason, launches_unanswered=1)\n"
        '                if doubt.value == "throttled":\n'
        '                    self._release(lease, "", reason, failed=True, strikes=strikes)',
    ),
    Guard(
        "rule 2: an error of ECS is doubt",
        2,
        LAUNCH,
        "    return Unanswered(Doubt.PERMANENT if code in _PERMANENT else Doubt.UNKNOWN, text)",
        "    return NotStarted(text) if code in _PERMANENT else Unanswered(Doubt.UNKNOWN, text)",
    ),
    Guard(
        "rule 2: silence of ECS is doubt",
        2,
        WORKERS,
        'return Unanswered(Doubt.UNKNOWN, f"{type(error).__name__}: {error}")',
        'return decide.answered([], [{"reason": type(error).__name__}])',
    ),
    Guard(
        "rule 2: an empty answer of ECS is doubt",
        2,
        LAUNCH,
        'return Unanswered(Doubt.UNKNOWN, "the answer named neither a task nor a failure")',
        'return NotStarted("the answer named neither a task nor a failure")',
    ),
    Guard(
        "rule 2: after a launch without an answer the pool backs off",
        2,
        CAPACITY,
        "unanswered = [s for s in mine if unresolved(s, now) and s.leased_at > forgotten]",
        "unanswered: list[Slot] = []",
    ),
    Guard("rule 3: the lease stores the launch", 3, KEYS, '        "launch": launch,\n', ""),
    Guard(
        "rule 3: a resend sends what was leased",
        3,
        FLEET,
        "answer = self.launch(fresh.lease, fresh.launch, fresh.strikes)",
        "answer = self.launch(\n            fresh.lease,"
        " launch.request(self.pools[fresh.id.pool], fresh.lease, keys.ENV_LEASE), fresh.strikes\n        )",
    ),
    Guard(
        "rule 3: a conflict that names no task is unknown",
        3,
        LAUNCH,
        'if code == "ConflictException" and resource_ids:\n',
        'if code == "ConflictException" and not resource_ids:\n        return NotStarted(text)\n'
        '    if code == "ConflictException":\n',
    ),
    Guard(
        "rule 4: an event about a launch without a task is not believed",
        4,
        TASK_STATE,
        """    if not slot.arn:
        raise Unresolved(f"ECS does not say yet which task {lease} means")
    if slot.arn != stopped.arn:""",
        "    if slot.arn and slot.arn != stopped.arn:",
    ),
    Guard(
        "rule 4: an event frees only the task that is recorded",
        4,
        TASK_STATE,
        "    if slot.arn != stopped.arn:",
        "    if False:",
    ),
    Guard(
        "rule 4: only STOPPED is an end",
        4,
        EVENTS,
        'if detail.get("lastStatus") != "STOPPED":',
        'if "stopCode" not in detail and detail.get("lastStatus") != "STOPPED":',
    ),
    Guard(
        "rule 4: a task that is to stop has not stopped",
        4,
        WORKERS,
        'stopped = task["lastStatus"] == "STOPPED"',
        'stopped = "STOPPED" in (task["lastStatus"], task.get("desiredStatus"))',
    ),
    Guard(
        "rule 4: a task that lives keeps its slot",
        4,
        RECOVER,
        "if status is TaskStatus.STOPPED:",
        "if status is not TaskStatus.MISSING:",
    ),
    Guard(
        "rule 5: MISSING is not STOPPED",
        5,
        RECOVER,
        "if status is TaskStatus.STOPPED:",
        "if status is not TaskStatus.ALIVE:",
    ),
    Guard(
        "rule 5: MISSING is proof only after 65 minutes",
        5,
        RECOVER,
        "if now - slot.missing_since > limits.MISSING_IS_PROOF_S:",
        "if now > slot.missing_since:",
    ),
    Guard(
        "rule 5: a task that is seen again was not missing",
        5,
        RECOVER,
        "seen_again: list[Verdict] = [Missing(slot, 0.0)] if slot.missing_since else []",
        "seen_again: list[Verdict] = []",
    ),
    Guard(
        "rule 5: a beat begins the hour anew",
        5,
        RECOVER,
        "if not slot.missing_since or slot.seen_at > slot.missing_since:",
        "if not slot.missing_since:",
    ),
    Guard(
        "rule 6: a generation grows",
        6,
        KEYS,
        "max(lease.generation + 1, int(now))",
        "lease.generation",
    ),
    Guard(
        "rule 6: a generation grows though the clock is behind",
        6,
        KEYS,
        "max(lease.generation + 1, int(now))",
        "int(now)",
    ),
    Guard(
        "rule 6: a generation keeps up with the clock",
        6,
        KEYS,
        "max(lease.generation + 1, int(now))",
        "lease.generation + 1",
    ),
    Guard(
        "rule 6: a new slot's generation starts at the clock", 6, KEYS, '"generation": int(now)}', '"generation": 1}'
    ),
    Guard(
        "rule 7: the tick requeues the jobs of dead holders",
        7,
        TICK,
        "    orphans = recover.orphans(sight.view.running, sight.view.slots)\n",
        "    orphans: list[Any] = []\n",
    ),
    Guard(
        "rule 8: a holder of the slot's own generation lives",
        8,
        RECOVER,
        "return slot is not None and slot.generation > holder.lease.generation",
        "return slot is not None and slot.generation >= holder.lease.generation",
    ),
    Guard(
        "rule 8: a slot that is not seen proves nothing",
        8,
        RECOVER,
        "return slot is not None and slot.generation > holder.lease.generation",
        "return slot is None or slot.generation > holder.lease.generation",
    ),
    Guard(
        "rule 8: the holder that was found dead is the one that loses the job",
        8,
        FLEET,
        "if job is None or job.status is not JobStatus.RUNNING or job.holder != orphan.holder:",
        "if job is None or job.status is not JobStatus.RUNNING:",
    ),
    Guard(
        "rule 8: an event requeues only the jobs of its own lease",
        8,
        TASK_STATE,
        "if job.holder.lease == lease]",
        "if job.holder]",
    ),
    Guard(
        "rule 8: an event that frees nothing requeues nothing",
        8,
        TASK_STATE,
        "    if not _gone(fleet, lease, stopped):\n        return\n",
        "    _gone(fleet, lease, stopped)\n",
    ),
    Guard(
        "rule 8: an event under a generation that is yet to be leased proves nothing",
        8,
        TASK_STATE,
        "        return False  # the generation rises at release",
        "        return True  # the generation rises at release",
    ),
    Guard(
        "rule 8: a silent worker keeps its slot",
        8,
        RECOVER,
        '[Stop(slot, "no beat from this worker")] if silent(slot, now) else []',
        '[Release(slot, "no beat from this worker", False)] if silent(slot, now) else []',
    ),
    Guard(
        "rule 9: a silent worker is stopped",
        9,
        RECOVER,
        '[Stop(slot, "no beat from this worker")] if silent(slot, now) else []',
        "[]",
    ),
    Guard(
        "rule 9: a silent worker is looked at",
        9,
        RECOVER,
        "return Inspect if slot.missing_since or late or silent(slot, now) else None",
        "return Inspect if slot.missing_since or late else None",
    ),
    Guard(
        "rule 9: a launch is looked at while its first beat is awaited",
        9,
        RECOVER,
        "    if slot.state is SlotState.LAUNCHING:\n        return now - slot.launched_at",
        "    if slot.state is SlotState.LAUNCHING:\n        return False and now - slot.launched_at",
    ),
    Guard(
        "rule 9: a worker that beats is not stopped",
        9,
        RECOVER,
        "    return now - slot.seen_at > limits.SILENT_S",
        "    return True",
    ),
    Guard(
        "rule 9: the loop beats",
        9,
        WORKER,
        "        self._beat_at = now + self._settings.beat_s\n",
        "        self._beat_at = now + 1e9\n",
    ),
    Guard(
        "rule 10: a job that READY lanes leave waiting gets a launch",
        10,
        CAPACITY,
        "if self.ready > 0 and self._now - job.runnable_at < limits.UNSERVED_S:",
        "if self.ready > 0:",
    ),
    Guard(
        "rule 11: a refusal that returns my op is success",
        11,
        CONTROL_TABLE,
        "return reply.item if reply.accepted or (op and reply.item.get(keys.OP) == op) else None",
        "return reply.item if reply.accepted else None",
    ),
    Guard(
        "rule 11: an op is the writer's own",
        11,
        CONTROL_TABLE,
        "(op and reply.item.get(keys.OP) == op)",
        "(op and reply.item.get(keys.OP))",
    ),
    Guard(
        "rule 11: a claim is repeated under its op",
        11,
        WORKER,
        "job = self._table.claim(claim.job, claim.holder, self._clock.now(), claim.op, task)",
        "job = self._table.claim(claim.job, claim.holder, self._clock.now(), self._clock.unique(), task)",
    ),
    Guard(
        "rule 11: a claim without an answer is repeated",
        11,
        WORKER,
        "        if self._claim:\n"
        "            self._try(self._settle_claim, self._claim, lane=self._claim.holder.lane)\n",
        "        self._claim = None\n",
    ),
    Guard(
        "rule 12: a claim counts the attempt", 12, KEYS, '"attempt": queued.attempt + 1,', '"attempt": queued.attempt,'
    ),
    Guard(
        "rule 12: attempts never restart",
        12,
        INTAKE,
        "attempt=replacing.attempt if replacing else 0,",
        "attempt=0,",
    ),
    Guard(
        "rule 13: a run answers the messages that were sent before its end",
        13,
        ADMIT,
        "    if job is not None and sent_at <= job.ended_at:\n",
        "    if False and job:\n",
    ),
    Guard(
        "rule 13: what counts is when a message was sent",
        13,
        INTAKE,
        'sent_at = int(record["attributes"]["SentTimestamp"]) / 1000',
        "sent_at = self.fleet.clock.now()",
    ),
    Guard(
        "rule 14: the job is read before the cache is asked",
        14,
        INTAKE,
        """        return self._decide(accepted, self.fleet.table.job(accepted.key))
""",
        """        cached = self.cache.has_all(_results(accepted))
        standing = self.fleet.table.job(accepted.key)
        return _Seen(standing, admit.admit(standing, accepted.sent_at, cached, accepted.force))
""",
    ),
    Guard(
        "rule 14: an active run is joined",
        14,
        ADMIT,
        "    if job is not None and not job.ended:\n        return Attach(job)\n",
        "",
    ),
    Guard(
        "rule 15: a slot above the cap is no candidate",
        15,
        CAPACITY,
        "not s.retire and s.id.number < pool.cap",
        "not s.retire",
    ),
    Guard(
        "rule 15: the tick marks the slots above the cap",
        15,
        TICK,
        "        fleet.table.retire(mark.slot, mark.retire, mark.version)",
        "        pass",
    ),
    Guard(
        "rule 15: a raised cap takes the marks back",
        15,
        RECOVER,
        "for slot in slots if slot.retire != (slot.id.number >= pool.cap)]",
        "for slot in slots if not slot.retire and slot.id.number >= pool.cap]",
    ),
    Guard(
        "rule 15: a worker on a retiring slot takes no job",
        15,
        WORKER,
        "self._flags.leave or self._flags.retire or too_old)",
        "self._flags.leave or too_old)",
    ),
    Guard(
        "rule 15: a mark outlives the release",
        15,
        KEYS,
        "        _OF_A_LEASE,\n",
        '        (*_OF_A_LEASE, "retire"),\n',
    ),
    Guard(
        "rule 16: a task that never beat is not replaced at once",
        16,
        RECOVER,
        "    return slot.state is SlotState.LAUNCHING\n",
        "    return False\n",
    ),
    Guard(
        "rule 16: a task that had beaten is replaced at once",
        16,
        RECOVER,
        "    return slot.state is SlotState.LAUNCHING\n",
        "    return True\n",
    ),
    Guard(
        "rule 16: failures that ECS names are not tried again at once",
        16,
        FLEET,
        "taxonomy.never_started(reason), failed=True, strikes=strikes)",
        "taxonomy.never_started(reason), failed=False, strikes=strikes)",
    ),
    Guard(
        "rule 16: a pool that backs off launches nothing",
        16,
        CAPACITY,
        "max(until, default=0.0), _reason(failed, strikes)",
        "0.0, _reason(failed, strikes)",
    ),
    Guard(
        "rule 16: a provider that backs off is left alone though another is not",
        16,
        CAPACITY,
        "        if now < held_up.until:\n",
        "        if False:\n",
    ),
    Guard(
        "rule 16: a pool that backs off says why",
        16,
        CAPACITY,
        "    if now < pause.until:\n",
        "    if False:\n",
    ),
    Guard(
        "rule 16: each failure waits longer",
        16,
        CAPACITY,
        "limits.BACKOFF_FIRST_S, limits.BACKOFF_MAX_S, strikes, jitter)",
        "limits.BACKOFF_FIRST_S, limits.BACKOFF_MAX_S, 0, jitter)",
    ),
    Guard(
        "rule 17: the tick resends what was leased",
        17,
        RECOVER,
        "return Resend if unresolved(slot, now) else None",
        "return None",
    ),
    Guard(
        "rule 17: nothing is sent for a slot that is not held",
        17,
        FLEET,
        "fresh.lease != slot.lease or not fresh.held or fresh.arn:",
        "fresh.arn:",
    ),
    Guard(
        "rule 17: nothing is sent for a slot that is empty under the generation that was read",
        17,
        FLEET,
        "fresh.lease != slot.lease or not fresh.held or fresh.arn:",
        "fresh.lease != slot.lease or fresh.arn:",
    ),
)


OWN: Final = (
    Guard(
        "worker: a refused beat ends it",
        0,
        WORKER,
        "        if flags is None:\n            raise FenceLost\n        self._flags = flags\n",
        "        self._flags = flags or Flags()\n",
    ),
    Guard(
        "worker: whoever leaves kills its jobs' processes",
        0,
        WORKER,
        '            for lane in self._lanes.values():\n                lane.kill()\n        self._log("leaving"',
        '            pass\n        self._log("leaving"',
    ),
    Guard(
        "worker: a job that is lost has its process killed",
        0,
        WORKER,
        "            lane.kill()\n            self._free(number)",
        "            self._free(number)",
    ),
    Guard(
        "worker: a job that is lost is noticed",
        0,
        WORKER,
        "        if standing is None or not _same_attempt(standing, lane.job):\n            return False\n        if",
        "        if standing is None:\n            return True\n        if",
    ),
    Guard(
        "worker: a process dies before its end is written",
        0,
        WORKER,
        "        lane.kill()\n        now, jitter =",
        "        now, jitter =",
    ),
    Guard(
        "worker: a process dies before its job is cancelled",
        0,
        WORKER,
        "        lane.kill()\n        lane.ending = _Ending(self._clock.unique(), retry.cancelled(standing))",
        "        lane.ending = _Ending(self._clock.unique(), retry.cancelled(standing))",
    ),
    Guard(
        "worker: a cancel is obeyed",
        0,
        WORKER,
        "        if standing.cancel:\n            self._cancel(lane, standing)\n        return True",
        "        return True",
    ),
    Guard(
        "worker: a job that may not return to the queue ends",
        0,
        WORKER,
        "        if accepted or not isinstance(ending.outcome, retry.Requeue):",
        "        if ending:",
    ),
    Guard(
        "decider: a job that is to be cancelled ends with its worker",
        0,
        RETRY,
        "    if job.cancel:\n        return cancelled(job)\n",
        "",
    ),
    Guard(
        "tick: a job that was claimed meanwhile is not given up",
        0,
        FLEET,
        "if job is None or job.status is not JobStatus.QUEUED or (job.run, job.attempt) != seen:",
        "if job is None:",
    ),
    Guard(
        "tick: another pool comes first each minute",
        0,
        TICK,
        "first = minute % max(len(things), 1)",
        "first = 0",
    ),
    Guard(
        "tick: launches that half of the time was too short for go on",
        0,
        TICK,
        "        again = half.time.spent\n",
        "        again = False\n",
    ),
    Guard(
        "tick: what needs no index is done without it",
        0,
        TICK,
        "            sight = Sight(mine, began_at, mine.look(pool, whole=True))\n",
        "            sight = Sight(mine, began_at, mine.look(pool, whole=True))\n            _ = sight.view\n",
    ),
    Guard(
        "tick: launches come first every other time",
        0,
        TICK,
        "    if launches_first:\n",
        "    if False:\n",
    ),
    Guard(
        "tick: a pool is read for a part of the time",
        0,
        FLEET,
        "        for number in reading.each(numbers):\n",
        "        for number in numbers:\n",
    ),
    Guard(
        "tick: nobody is given up by a part of the slots",
        0,
        FLEET,
        "        if not standing.whole:  #",
        "        if False:  #",
    ),
    Guard(
        "tick: a dead worker's jobs go back with its slot",
        0,
        TICK,
        "if job.holder.lease in released]",
        "if job.holder.lease not in released]",
    ),
    Guard(
        "tick: launches go by what the steps before have changed",
        0,
        TICK,
        "left += _scale(fleet, sight, anew=moved or old)",
        "left += _scale(fleet, sight, anew=False)",
    ),
    Guard(
        "tick: what there was no time for has its turn another time",
        0,
        FLEET,
        "        offset = int(self.clock.uniform(0, len(things)))\n",
        "        offset = 0\n",
    ),
    Guard(
        "tick: only time without capacity counts against the dispatch deadline",
        0,
        DEADLINES,
        "    return now - max(since, came_at) if since and has_room else 0.0",
        "    return now - max(since, came_at) if has_room else 0.0",
    ),
    Guard(
        "worker: a job that ended with the signal is not given back",
        0,
        WORKER,
        """                self._hear(lane)
            if not lane.ending:
                self._end(lane, FailureClass.INTERRUPTED,""",
        """                self._end(lane, FailureClass.INTERRUPTED,""",
    ),
    Guard(
        "worker: nothing is claimed without a beat that was accepted lately",
        0,
        WORKER,
        "if self.serving and self._vouched_for and not self._claim:",
        "if self.serving and not self._claim:",
    ),
    Guard(
        "worker: one claim at a time",
        0,
        WORKER,
        "if self.serving and self._vouched_for and not self._claim:",
        "if self.serving and self._vouched_for:",
    ),
    Guard(
        "worker: a worker that leaves claims nothing",
        0,
        WORKER,
        "if self.serving and self._vouched_for and not self._claim:",
        "if self._vouched_for and not self._claim:",
    ),
    Guard(
        "worker: nobody leaves with a job in hand",
        0,
        WORKER,
        "        if self._lanes or self._claim:\n            return None\n        if not self.serving:",
        "        if not self.serving:",
    ),
    Guard(
        "worker: a job whose process does not start does not stay in its lane",
        0,
        WORKER,
        '            self._end(lane, FailureClass.FAILED, "internal: the job\'s process could not be started")\n',
        "",
    ),
    Guard(
        "worker: what a job makes is made for the run that was put",
        0,
        WORKER,
        "        made_for=job.queued_at,\n",
        "        made_for=job.claimed_at,\n",
    ),
    Guard(
        "worker: workers that look at the same moment begin at different jobs",
        0,
        WORKER,
        "first = int(self._clock.uniform(0, min(len(ahead), limits.LOOK_SPREAD)))",
        "first = 0",
    ),
    Guard(
        "worker: and none of them far behind the head of the queue",
        0,
        WORKER,
        "first = int(self._clock.uniform(0, min(len(ahead), limits.LOOK_SPREAD)))",
        "first = int(self._clock.uniform(0, len(ahead)))",
    ),
    Guard(
        "worker: an attempt that takes too long is ended",
        0,
        WORKER,
        "elif elapsed_s > lane.job.request.timeout_s:",
        "elif False:",
    ),
    Guard(
        "rule 15: slots that a decider of the old cap may still make are there with their mark",
        15,
        POOLS,
        "        if slot_id not in standing:",
        "        if False and slot_id not in standing:",
    ),
    Guard(
        "capacity: in a pool that is not open nobody launches",
        0,
        CAPACITY,
        "if pool.mode is not Mode.OPEN:",
        "if False:",
    ),
    Guard(
        "capacity: the budget of a day is kept", 0, CAPACITY, "if 0 < pool.budget_task_hours <= spent_h:", "if False:"
    ),
    Guard(
        "capacity: a failure is that of its provider",
        16,
        CAPACITY,
        "if s.failed_at > remembered and _from(s.failed_with, provider)]",
        "if s.failed_at > remembered]",
    ),
    Guard(
        "capacity: a worker speaks for its provider",
        16,
        CAPACITY,
        "[s.ready_at for s in slots if _from(s.ready_with, provider)]",
        "[s.ready_at for s in slots]",
    ),
    Guard(
        "capacity: what was not read is estimated from what was",
        0,
        CAPACITY,
        "self.ready = round(self.ready / view.share)",
        "self.ready = self.ready",
    ),
    Guard(
        "budget: what a slot was held for outlives its lease",
        0,
        FLEET,
        "use = budget.use(slot, self.clock.now())",
        "use = None",
    ),
    Guard(
        "standby: a worker that is launched to stand by knows it from the first",
        0,
        KEYS,
        "    if not for_job:\n        sets",
        "    if False:\n        sets",
    ),
    Guard(
        "standby: who stays is decided on all slots",
        0,
        STANDBY,
        "    if not view.whole:\n",
        "    if False:\n",
    ),
    Guard(
        "standby: a worker that is to stay counts",
        0,
        CAPACITY,
        'return leases + [LeaseFor("")] * min(room - len(leases), _short_of(view, lanes, len(leases)))',
        "return leases",
    ),
    Guard(
        "standby: an old image leaves only once a newer one has started",
        0,
        STANDBY,
        "newest = max(ready, key=lambda slot: slot.began_at, default=None)",
        "newest = min(ready, key=lambda slot: slot.began_at, default=None)",
    ),
    Guard(
        "worker: nothing is claimed in a pool that is not open",
        0,
        WORKER,
        "if ahead and not tried and self._table.override(self._pool.name).mode is not Mode.OPEN:",
        "if False:",
    ),
    Guard(
        "worker: one that is to stay does not leave for idleness",
        0,
        WORKER,
        "stays = idle_s < self._settings.idle_exit_s or self._flags.keep",
        "stays = idle_s < self._settings.idle_exit_s",
    ),
    Guard(
        "task_state: a Spot warning takes the lanes out of account",
        0,
        TASK_STATE,
        'asked = fleet.table.leave(lease, "Fargate Spot takes its capacity back")',
        "asked = False",
    ),
    Guard(
        "intake: a message that could not be settled is reported back",
        0,
        INTAKE,
        'if record["messageId"] not in took.settled]',
        "if False]",
    ),
    Guard(
        "intake: it does not look at all messages before it puts the first",
        0,
        INTAKE,
        "for record in self.fleet.time.within(limits.WAVE_LOOKS_S).each(tuple(rest)):",
        "for record in tuple(rest):",
    ),
    Guard(
        "intake: it begins no wave that it could not end",
        0,
        INTAKE,
        "        while rest and not took.begin.spent:\n",
        "        while rest:\n",
    ),
    Guard(
        "intake: who waits for others and is put too late to be judged has a word of his own",
        0,
        INTAKE,
        "                self.rechecks.recheck([job.key])\n            else:",
        "                pass\n            else:",
    ),
    Guard(
        "intake: whom a word names and there is no time for has another word",
        0,
        INTAKE,
        "                    self.rechecks.recheck(left)\n",
        "                    pass\n",
    ),
    Guard(
        "intake: a wave draws from few shares",
        0,
        INTAKE,
        "== limits.WAVE_DRAWS:",
        "== 99:",
    ),
    Guard(
        "intake: one key of a word keeps no other from being judged",
        0,
        INTAKE,
        "                        failed.append(error)\n",
        "                        raise\n",
    ),
    Guard(
        "tick: who is given up is judged by slots as they are then",
        0,
        FLEET,
        "deadlines.overdue(standing.pool, standing.slots, queued, now)",
        "deadlines.overdue(pool, slots, queued, now)",
    ),
    Guard(
        "dependency: the tick knows all whose turn it is",
        0,
        DEPENDENCIES,
        "            settled = settle(fleet, entry.key, known)\n",
        "            settled = settle(fleet, entry.key)\n",
    ),
    Guard(
        "intake: a refused message is kept",
        0,
        INTAKE,
        '                self.rejects.reject(record["body"], str(reason), message_id)\n',
        "",
    ),
    Guard(
        "intake: of one key in a batch only the first decides before it is put",
        0,
        INTAKE,
        "self._look(accepted) if alone else None, record)",
        "self._look(accepted), record)",
    ),
    Guard(
        "shares: a job that came back is not where the queue has come to",
        0,
        CONTROL_TABLE,
        "for each in waiting if each.due_at == each.queued_at or not each.attempt)",
        "for each in waiting)",
    ),
    Guard(
        "shares: each priority has come to a place of its own",
        0,
        CONTROL_TABLE,
        "takewhile(lambda entry: entry.rank.startswith(level), self._legible(self._read.queued, entries))",
        "takewhile(lambda entry: bool(entry.rank), self._legible(self._read.queued, entries))",
    ),
    Guard(
        "shares: an empty queue has come to where the furthest tenant is",
        0,
        SHARES,
        "    return latest if latest > oldest else max(",
        "    return max(",
    ),
    Guard(
        "shares: a tenant that is ahead of the queue goes on from its own last tag",
        0,
        KEYS,
        "    if drawn >= at:\n",
        "    if False:\n",
    ),
    Guard(
        "task_state: an event that could not be settled is reported back",
        0,
        TASK_STATE,
        '            unsettled.append(record["messageId"])\n',
        "",
    ),
    Guard(
        "table: jobs and slots are read consistently",
        0,
        DYNAMO,
        "Key=_pack(key), ConsistentRead=True)",
        "Key=_pack(key), ConsistentRead=False)",
    ),
)

ORDER: Final = (
    Guard(
        "dependency: a job with parents begins as waiting",
        0,
        INTAKE,
        "    waits = accepted.request.depends_on or accepted.request.array\n",
        "    waits = accepted.request.array\n",
    ),
    Guard(
        "dependency: a parent that has not ended is waited for",
        0,
        JUDGE,
        "if key not in parents or not parents[key].ended)",
        "if key not in parents)",
    ),
    Guard(
        "dependency: a parent that is not known is waited for",
        0,
        JUDGE,
        "if key not in parents or not parents[key].ended)",
        "if key in parents and not parents[key].ended)",
    ),
    Guard(
        "dependency: a parent that failed fails the job",
        0,
        JUDGE,
        "            if parent.ended and parent.status is not JobStatus.COMPLETED:\n",
        "            if False:\n",
    ),
    Guard(
        "dependency: only where it was asked for",
        0,
        JUDGE,
        "    if job.request.on_parent_failure is OnParentFailure.FAIL:\n",
        "    if True:\n",
    ),
    Guard(
        "dependency: the wait for a parent that never comes ends",
        0,
        JUDGE,
        "    if now - job.queued_at > limit_s:\n",
        "    if False:\n",
    ),
    Guard(
        "dependency: and not before its time",
        0,
        JUDGE,
        "    if now - job.queued_at > limit_s:\n",
        "    if now - job.queued_at > limit_s / 4:\n",
    ),
    Guard(
        "dependency: a circle is looked for",
        0,
        DEPENDENCIES,
        "    if isinstance(verdict, dependencies.Wait) and (way := _circle(fleet, job, parents, known)):\n",
        "    if way := []:\n",
    ),
    Guard(
        "dependency: a circle leads back to the job itself",
        0,
        DEPENDENCIES,
        """            if job.key in waiting.request.depends_on:
                return dependencies.circle(job.key, waits)
""",
        """            if set(waits) & set(waiting.request.depends_on):
                return [job.key]
""",
    ),
    Guard(
        "dependency: the edges are written before the job is put",
        0,
        INTAKE,
        """                    self.fleet.table.lead(parents, job.key, self.fleet.clock.now())  # who ends now finds it
                    if self.fleet.table.put(job, replacing, self.fleet.clock.unique()):
""",
        """                    if self.fleet.table.put(job, replacing, self.fleet.clock.unique()):
                        self.fleet.table.lead(parents, job.key, self.fleet.clock.now())
""",
    ),
    Guard(
        "dependency: a job is judged after its put",
        0,
        INTAKE,
        "            else:\n                self._judge(job, took)\n",
        "            else:\n                return\n",
    ),
    Guard(
        "dependency: a job that waits is judged whoever put it",
        0,
        INTAKE,
        "        elif job.status is JobStatus.WAITING:\n            if",
        "        elif job.status is JobStatus.WAITING and isinstance(decision, admit.Enqueue):\n            if",
    ),
    Guard(
        "dependency: whoever unblocks a job asks for its worker",
        0,
        INTAKE,
        "elif unblocked or admit.asks_for_capacity(admit.Attach",
        "elif admit.asks_for_capacity(admit.Attach",
    ),
    Guard(
        "dependency: publish names those who wait for a job that ended",
        0,
        PUBLISH,
        "        failed |= dict.fromkeys(self._wake(changes, time.part(2)))\n",
        "",
    ),
    Guard(
        "dependency: whom publish could not name comes again",
        0,
        PUBLISH,
        "            return list(ended)\n",
        "",
    ),
    Guard(
        "dependency: the tick judges those of whom nobody was told",
        0,
        TICK,
        "    return dependencies.settle_some(fleet, fleet.pools[sight.standing.pool.name])\n",
        "    return False\n",
    ),
    Guard(
        "dependency: the tick goes through all that wait",
        0,
        JUDGE,
        "    first = int(minute * _GOLDEN % 1.0 * len(waiting))\n",
        "    first = 0 * minute\n",
    ),
    Guard(
        "dependency: the wait for parents does not count as one for capacity",
        0,
        DEADLINES,
        "now - job.runnable_at, starved_s, why)",
        "now - job.queued_at, starved_s, why)",
    ),
)

ARRAY: Final = (
    Guard(
        "grow: the run as read is waiting",
        0,
        KEYS,
        'return Write("grow", job_key(array.key), run_waiting(array.run), sets)',
        f'return Write("grow", job_key(array.key), {ANYTHING}, sets)',
    ),
    Guard(
        "pass: the run is as read",
        0,
        KEYS,
        "run_is(array.run), ",
        f"{ANYTHING}, ",
    ),
    Guard(
        "gather: the run as read is waiting",
        0,
        KEYS,
        'name="gather", condition=run_waiting(array.run), sets=sets)',
        f'name="gather", condition={ANYTHING}, sets=sets)',
    ),
    Guard(
        "array: only what has grown ends with its parts",
        0,
        DEPENDENCIES,
        "_passed_over(fleet, array) if array.grown else",
        "_passed_over(fleet, array) if True else",
    ),
    Guard(
        "array: every part is waited for",
        0,
        ARRAYS,
        "    if left(array, passed):\n",
        "    if False:\n",
    ),
    Guard(
        "array: it has grown only once all its parts are put",
        0,
        INTAKE,
        "        words: list[str] = []\n        while",
        "        words: list[str] = []\n        self.fleet.table.grow(array)\n        while",
    ),
    Guard(
        "array: the words of its parts are sent",
        0,
        INTAKE,
        "            words.append(job.key)\n",
        "            pass\n",
    ),
    Guard(
        "array: a word has put what there was no time for",
        0,
        INTAKE,
        "        elif not whole:\n            self.rechecks.recheck([array.key])\n",
        "        elif not whole:\n            pass\n",
    ),
    Guard(
        "array: what has been put of it is not looked at again",
        0,
        INTAKE,
        "        done, whole = array.put, False\n",
        "        done, whole = 0, False\n",
    ),
    Guard(
        "array: a part that was cut short counts as its elements end",
        0,
        DEPENDENCIES,
        "    if not arrays.is_cut_short(part):\n",
        "    if True:\n",
    ),
    Guard(
        "array: the end of an element of a part that was cut short is told to the whole",
        0,
        DEPENDENCIES,
        "            settle(fleet, job.request.part_of)\n",
        "            pass\n",
    ),
    Guard(
        "array: what has been passed over is noted",
        0,
        DEPENDENCIES,
        "            fleet.table.pass_over(array, passed)\n",
        "            pass\n",
    ),
    Guard(
        "array: one that could not be looked through in time is looked at again",
        0,
        INTAKE,
        "if not array.ended and self.fleet.time.spent:",
        "if False:",
    ),
    Guard(
        "intake: a run answers whoever asked for it, whatever the clock that put it",
        0,
        INTAKE,
        "        asked_at = max(now, accepted.sent_at)  #",
        "        asked_at = now  #",
    ),
    Guard(
        "array: a cancelled one ends its parts",
        0,
        INTAKE,
        "            if arrays.left(job, job.passed):\n                self._cancel_parts(job, took)\n",
        "            pass\n",
    ),
    Guard(
        "array: that all of a cancelled one have been told is noted only where nobody puts any more",
        0,
        INTAKE,
        "        elif standing.grown:\n",
        "        else:\n",
    ),
    Guard(
        "array: the cancel of one run leaves the next alone",
        0,
        INTAKE,
        "standing.run != array.run or standing.status is not JobStatus.CANCELLED:",
        "standing.run == 0:",
    ),
    Guard(
        "array: who did not complete may have run anew",
        0,
        DEPENDENCIES,
        "    if array.grown and passed.first and not arrays.left(array, passed):\n",
        "    if False:\n",
    ),
    Guard(
        "array: one that was cancelled while it grew ends what it has put",
        0,
        INTAKE,
        "done):\n            self._cancel_parts(array, took)\n",
        "done):\n            pass\n",
    ),
    Guard(
        "array: the end of an element is told to it",
        0,
        PUBLISH,
        "            found.append(change.array)\n",
        "            pass\n",
    ),
    Guard(
        "array: its cancel is told to itself",
        0,
        PUBLISH,
        "            found.append(change.workflow_key)\n",
        "            pass\n",
    ),
    Guard(
        "array: a ceiling lets the elements of an accepted one in",
        0,
        INTAKE,
        "if not most or accepted.request.part_of:",
        "if not most:",
    ),
)

READ: Final = (
    Guard(
        "read: a field that only a later version knows is passed over",
        0,
        STORED,
        "return kind(**{name: said[name] for name in _defaults(kind) if name in said})",
        "return kind(**said)",
    ),
    Guard(
        "read: what is left out is as by default",
        0,
        STORED,
        "for name in _defaults(kind) if name in said})",
        "for name in _defaults(kind)})",
    ),
    Guard(
        "read: a job that is for a later version is left to it",
        0,
        KEYS,
        "if (version := item.get(SCHEMA, SCHEMA_VERSION)) > SCHEMA_VERSION:",
        "if (version := 0):",
    ),
    Guard(
        "read: in a mode that only a later version knows nothing begins",
        0,
        KEYS,
        "else Mode.PAUSED",
        "else Mode.OPEN",
    ),
    Guard(
        "read: in a mode that only a later version knows nothing is ended",
        0,
        KEYS,
        "else Mode.PAUSED",
        "else Mode.STOPPED",
    ),
    Guard(
        "read: an ending that only a later version knows counts as an attempt",
        0,
        KEYS,
        "else FailureClass.FAILED",
        "else FailureClass.INTERRUPTED",
    ),
    Guard(
        "read: an item that cannot be read keeps nobody from the others",
        0,
        CONTROL_TABLE,
        "                if self._log is None:\n                    raise\n",
        "                raise\n",
    ),
    Guard(
        "read: whatever is wrong with an item, it is one that cannot be read",
        0,
        KEYS,
        "        except Exception as error:\n            raise Unreadable(item, repr(error)) from error",
        "        except ValueError as error:\n            raise Unreadable(item, repr(error)) from error",
    ),
    Guard(
        "read: a pool of which people said what cannot be read is not run",
        0,
        CONTROL_TABLE,
        "                override = self._read.override(item)\n            elif",
        "                override = next(self._legible(self._read.override, [item]), override)\n            elif",
    ),
    Guard(
        "worker: a job that cannot be read keeps it from no other",
        0,
        WORKER,
        "            self._unreadable.add(entry)\n            return False\n",
        "            raise\n",
    ),
    Guard(
        "tick: an overdue job that cannot be read keeps no other waiting",
        0,
        FLEET,
        "            except keys.Unreadable:  # the table has told of it\n                continue\n",
        "            except keys.Unreadable:\n                raise\n",
    ),
)

GUARDS: Final = (*CLAUSES, *RULES, *OWN, *ORDER, *ARRAY, *READ)
