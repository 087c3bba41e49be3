"""Every limit and default of the product, bound once, with its unit last in the name.

Sources: `A` and `B` are the systems that came before; AWS's own limits carry the service's name. The assertions
at the end hold the relations between the figures that the protocol rests on.
"""

from typing import Final

# --- AWS
RUN_TASK_TOKEN_MAX_CHARS: Final = 64
RUN_TASK_OVERRIDES_MAX_CHARS: Final = 8_192
STARTED_BY_MAX_CHARS: Final = 128
DESCRIBE_TASKS_MAX_ARNS: Final = 100
BATCH_GET_ITEMS: Final = 100
PUTS_AT_A_TIME: Final = 10
"""Edges that one decider writes at once: two rounds for as many parents as a job may have."""
SQS_MESSAGE_MAX_BYTES: Final = 1_048_576
PUT_EVENTS_ENTRIES: Final = 10
PUT_EVENTS_MAX_BYTES: Final = 262_144
"""A request stays below it. Some pages say 1 MB by now; what is below the older figure is taken everywhere."""
EVENT_BILLED_BYTES: Final = 65_536
"""EventBridge bills an event by pieces of this size."""
STREAM_RETENTION_S: Final = 86_400
STOPPED_TASKS_VISIBLE_S: Final = 3_600
FARGATE_STOP_TIMEOUT_MAX_S: Final = 120
ECS_CALL_TOKEN_LIFE_S: Final = 86_400

# --- deciders
DECIDER_TIMEOUT_S: Final = 60
DECIDER_BUDGET_S: Final = 30
"""How long after its start a decider still begins things; the rest of its time is for what is under way then."""
SLOW_CALL_S: Final = 5
"""A call that takes longer is an outage, in which a decider may be killed before it has come to its end."""
WAVES_BEGIN_S: Final = 10
"""How long after its start an intake begins another wave of messages, keys, or parts of an array; one it takes in any
case, and all calls for that fit into its time, however slow."""
WAVE_DRAWS: Final = 4
"""Shares from which an intake draws for one wave: reads may be quick where writes are slow."""
WAVE_LOOKS_S: Final = 5
"""How long an intake looks at messages, or parts, before it puts those that it has looked at."""
TICK_PERIOD_S: Final = 60
QUEUE_VISIBILITY_S: Final = 6 * DECIDER_TIMEOUT_S
QUEUE_RETENTION_S: Final = 4 * 86_400
DEAD_LETTER_RETENTION_S: Final = 14 * 86_400
EVENT_MAX_RECEIVES: Final = 10
INTAKE_MAX_RECEIVES: Final = 50
REJECTED_BODY_MAX_BYTES: Final = 200_000

# --- events
PUBLISH_RECORDS: Final = 100
PUBLISH_RETRIES: Final = 100
PUBLISH_MAX_AGE_S: Final = 6 * 3_600
"""A change that the bus has not taken by then, or after so many retries, goes to the unpublished queue."""

# --- slots
BANK_SLOTS: Final = 256
BANKS_MAX: Final = 40
PAGES_MAX: Final = 200
BANKS_PER_DECISION: Final = 4
"""So many banks a decision reads, whatever the cap; what it sees of a larger pool stands for the rest."""
QUEUED_PER_DECISION: Final = 1_000
LEASES_PER_DECISION: Final = 100
CAP_MAX: Final = 10_000
RESERVATION_TTL_S: Final = 86_400
RESERVATION_MAX_S: Final = 30 * 86_400
DAY_S: Final = 86_400
SCALE_ROUNDS: Final = 3
ADMIT_ROUNDS: Final = 8
BEAT_S: Final = 30
SILENT_S: Final = 120
"""A READY slot without a beat for this long is looked at: StopTask and DescribeTasks, never a release."""
SILENT_LAUNCHING_S: Final = 300
RESEND_AFTER_S: Final = 20
"""A LAUNCHING slot without an ARN is left to its own sender for this long; then the tick sends the token again."""
UNRESOLVED_ALARM_S: Final = 3_600
"""A launch without an answer for this long is said aloud at every tick: a person should look before the token dies."""
MISSING_IS_PROOF_S: Final = 65 * 60
UNSERVED_S: Final = 120
"""A job that waits this long beside free READY lanes is not served by them and gets a launch of its own."""
FRESH_LEASE_S: Final = 30
"""How long a lease counts for the job that it was taken for although the index does not show that job."""
BACKOFF_FIRST_S: Final = 10
BACKOFF_MAX_S: Final = 300
STRIKES_REMEMBERED_S: Final = 2 * BACKOFF_MAX_S
INSPECT_LAUNCHING_S: Final = 90
"""A launch whose task is known but has not beaten for this long is looked at; it is stopped much later."""
LOOK_PART: Final = 4
"""Whoever looks at a pool has a part in so many of its time for reading slots; most of it is for what follows."""
VIEW_LASTS_S: Final = 1
"""For how long a tick launches workers by what it saw before its other steps. Who launches meanwhile is not in it."""
CHORES_PART: Final = 3
"""A tick has a part in so many of its time in a pool for whatever is not a launch; launches have what is left."""

# --- watching
GAUGES_LATEST_S: Final = 50
"""How long after its start a tick still tells a pool's gauges."""
QUIET_S: Final = 300
"""How long a pool's gauges are told after the last change of an idle pool: each is seen at zero, then nothing is."""
DEPTH_READ: Final = 2_000
"""How many queued jobs the gauges look at; a longer queue is told as this long."""
SWEEP_PERIOD_S: Final = 300
SWEEP_OFFSET_S: Final = 120
SWEEP_LATEST_S: Final = 25
"""A tick that has taken longer leaves the sweep to the next one whose turn it is."""
SWEEP_BUDGET_S: Final = 15
SWEEP_CALLS: Final = 200
SWEEP_PAUSE_S: Final = 0.06
"""Between two calls of a sweep: ECS grants 20 reads a second, and those who launch and look need some of them."""
SWEEP_SETTLED_S: Final = 120
"""For how long after a release DescribeTasks may still show the task as it was before."""

# --- jobs
OPEN_SHARDS: Final = 1
"""Partitions of the queue in the index. It may be raised by a deploy, never lowered: jobs would be left unread."""
OPEN_PAGE_ITEMS: Final = 200
HEARTBEAT_S: Final = 60
STALE_S: Final = 180
JOB_TIMEOUT_S: Final = 14_400
MAX_ATTEMPTS: Final = 3
MAX_INTERRUPTIONS: Final = 5
MAX_TIMEOUTS: Final = 2
"""How often an attempt may run into its timeout: a second try may meet a better day, a third would not."""
DISPATCH_DEADLINE_S: Final = 14_400
"""A: how long a job may wait while its pool has room under the cap and no worker can be started."""
PARENTS_MAX: Final = 20
PARENTS_LIMIT_S: Final = 7 * 86_400
"""How long a job may wait for its parents by default: one of them may never come."""
PARENTS_LIMIT_MAX_S: Final = 14 * 86_400
EDGE_TTL_S: Final = 28 * 86_400
ANCESTORS_READ: Final = 200
"""How many jobs are read at most to see whether one waits for itself."""
DEPENDENTS_TOLD: Final = 2_000
"""So many dependents hear at once that a job has ended, a hundred messages; the tick finds the others."""
RECHECK_KEYS: Final = 20
"""Dependents a message: a batch of ten, with twenty parents each, is read well within a decider's time."""
ARRAY_MAX: Final = 10_000
ARRAY_STEP: Final = 50
"""Elements of a part: an intake puts ten parts of them, each looked up in the cache, within its time."""
ARRAY_KEY_CHARS: Final = 12
"""What an element's or a part's key adds to that of its array."""
WAITING_READ: Final = 5_000
WAITING_PER_TICK: Final = 100
WAITING_BUDGET_S: Final = 10
"""How long one tick judges waiting jobs of a pool; the rest has its turn at a later one."""
OVERDUE_READ: Final = 2_000
OVERDUE_PER_TICK: Final = 200
ATTEMPT_REASON_MAX_CHARS: Final = 200
CANCEL_ROUNDS: Final = 8
RETRY_FIRST_S: Final = 5
RETRY_MAX_S: Final = 300
PRIORITY_MIN: Final = 0
PRIORITY_MAX: Final = 9
PRIORITY_DEFAULT: Final = 5
FINISHED_JOB_TTL_S: Final = 7 * 86_400
TAGS_PER_MS: Final = 1_000_000
"""Tags are as fine as this next to a rank's milliseconds; and a job of weight 1 costs as many."""
TENANT_WEIGHT_MAX: Final = 100
SHARE_TTL_S: Final = 7 * 86_400
"""How long the table remembers how far a tenant has drawn after its last job was put."""
ERROR_MAX_CHARS: Final = 1_024
PROGRESS_MAX_CHARS: Final = 256
REQUEST_MAX_BYTES: Final = 8_192
WORKFLOW_KEY_MAX_CHARS: Final = 512
SOURCE_MAX_CHARS: Final = 1_024
PARAMS_MAX: Final = 16
TIMEOUT_MAX_S: Final = 7 * 86_400
ATTEMPTS_LIMIT: Final = 20
INTERRUPTIONS_LIMIT: Final = 100

# --- people
SURVEY_ITEMS: Final = 100_000
"""How many items of the table a person's list of ended jobs looks at."""
SURVEY_PAGE_ITEMS: Final = 1_000
QUEUED_SHOWN: Final = 2_000
"""So many jobs of a queue a person's look at its pool counts."""
STOP_PAUSE_S: Final = 0.05
"""Between two tasks that a person's command stops: ECS grants calls that change tasks to the whole account."""

# --- workers
LOOK_S: Final = 1.5
"""How long an idle worker waits between two looks at the index, jittered by a fifth either way."""
FENCE_CHECK_S: Final = 3.0
"""How often a busy worker reads its job: a cancel or a lost fence bites within 5 s."""
LOOK_ITEMS: Final = 16
"""How many queued jobs an idle worker reads at a look; it tries them from a random one among the first on."""
LOOK_SPREAD: Final = 4
SUPERVISE_S: Final = 0.25
NO_ANSWER_MAX_S: Final = 5.0
"""A worker whose calls fail tries again after this at the latest, a quarter early or late."""
PROGRESS_WRITE_S: Final = 10
"""Progress within a stage is written at most this often; a new stage after at least `STAGE_WRITE_S`."""
STAGE_WRITE_S: Final = 1.0
IDLE_EXIT_S: Final = 600
LIFETIME_S: Final = 12 * 3_600
STOP_TIMEOUT_S: Final = 120
CHILD_TERM_S: Final = 5
HEALTH_PORT: Final = 8_080
SORT_MEMORY_MB: Final = 256
SORT_THREADS: Final = 1
DISK_GIB: Final = 21
DISK_FACTOR: Final = 3
"""The disk that a job needs by default, as a multiple of its source: the source, what is spilled, the result."""
KEEP_FAILED_DIRS_MAX: Final = 16
OUTPUT_LINE_MAX_CHARS: Final = 512
OUTPUT_LINES: Final = 2_000
"""What an attempt's tools may say in the log; of the rest their number is told, and the last `OUTPUT_TAIL_LINES`."""
OUTPUT_LINES_AT_ONCE: Final = 100
OUTPUT_TAIL_LINES: Final = 20
LOG_FIELD_MAX_CHARS: Final = 4_096

# --- cache
CACHE_EXPIRY_DAYS: Final = 30
ABORTED_MULTIPART_DAYS: Final = 7

assert STALE_S > 2 * HEARTBEAT_S, "one lost heartbeat must not make a job look stale"
assert SILENT_S > 3 * BEAT_S, "three lost beats in a row before anybody goes and looks"
assert SILENT_LAUNCHING_S > SILENT_S
assert MISSING_IS_PROOF_S > STOPPED_TASKS_VISIBLE_S, "ECS shows a stopped task for an hour"
assert STOP_TIMEOUT_S <= FARGATE_STOP_TIMEOUT_MAX_S
assert CHILD_TERM_S < STOP_TIMEOUT_S, "a drain ends its child before Fargate ends the worker"
assert DECIDER_TIMEOUT_S <= 60, "a longer-lived decider may send a token after the slot was freed"
assert DECIDER_BUDGET_S + 6 * SLOW_CALL_S <= DECIDER_TIMEOUT_S, "a launch or a job's end, then a word about it all"
assert QUEUE_VISIBILITY_S >= 6 * DECIDER_TIMEOUT_S, "AWS asks for six times the function's timeout"
assert QUEUE_RETENTION_S < FINISHED_JOB_TTL_S, "a redelivered message finds the run that answers it"
assert DECIDER_BUDGET_S + 3 * SLOW_CALL_S <= GAUGES_LATEST_S, "the launch that a tick begins last hides no gauge"
assert GAUGES_LATEST_S + 2 * SLOW_CALL_S <= DECIDER_TIMEOUT_S, "a gauge is told within its tick"
assert TAGS_PER_MS >= 1_000 * TENANT_WEIGHT_MAX, "rounding takes less than a thousandth of any share"
assert DECIDER_BUDGET_S > 2 * WAITING_BUDGET_S, "a tick that judges what waits for parents still scales"
assert PARENTS_LIMIT_S <= PARENTS_LIMIT_MAX_S
assert PARENTS_LIMIT_MAX_S + QUEUE_RETENTION_S < EDGE_TTL_S, "an edge outlives every wait that it may end"
assert OUTPUT_TAIL_LINES < OUTPUT_LINES_AT_ONCE < OUTPUT_LINES
assert MISSING_IS_PROOF_S < ECS_CALL_TOKEN_LIFE_S
assert CAP_MAX <= BANKS_MAX * BANK_SLOTS
assert PUBLISH_MAX_AGE_S < STREAM_RETENTION_S, "a change that is put aside can still be read from the stream"
assert 4 * UNRESOLVED_ALARM_S < ECS_CALL_TOKEN_LIFE_S, "a person has most of a day"
assert SWEEP_LATEST_S + SWEEP_BUDGET_S + 15 <= DECIDER_TIMEOUT_S, "a sweep ends within its tick, its last call slow"
assert SWEEP_OFFSET_S % TICK_PERIOD_S == 0, "a sweep is some tick's turn"
assert SWEEP_PERIOD_S % TICK_PERIOD_S == 0
assert 1 / SWEEP_PAUSE_S < 20, "ECS reads come out of one bucket of 20 a second"
