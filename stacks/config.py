"""Every knob of a deployment, with its unit in its name. Values only: nothing here knows the CDK.

`Config.from_context` takes overrides from the CDK context and refuses what cannot work with one sentence: the
setting, why it cannot be, what to do. What the stacks create by themselves (network, cluster) cannot be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Final, get_type_hints

from fleetcap import catalog, keys, limits

Knob = int | float | str | bool | tuple[str, ...]

CONTEXT_KEY: Final = "fleetcap"
CONTEXT_CAP: Final = "cap"
DEFAULT_POOL: Final = "default"
POOLS_MAX: Final = 4
SOURCE_HOSTS_MAX_CHARS: Final = 500
"""Lambda's environment holds 4 KB in all; a pool's RunTask parameters take up to 750 characters of it."""

PROCESSORS_MAX_CHARS: Final = 750
"""The same room: what this many pools less than the most leave of it may be taken by declarations of processors."""
TENANT_WEIGHTS_MAX_CHARS: Final = 200
"""The same room: what the weights of all pools may take of it besides."""

GIB_MIB: Final = 1_024
FARGATE_MEMORY_MIB: Final[Mapping[int, Sequence[int]]] = MappingProxyType(
    {
        256: (512, 1 * GIB_MIB, 2 * GIB_MIB),
        512: range(1 * GIB_MIB, 4 * GIB_MIB + 1, GIB_MIB),
        1_024: range(2 * GIB_MIB, 8 * GIB_MIB + 1, GIB_MIB),
        2_048: range(4 * GIB_MIB, 16 * GIB_MIB + 1, GIB_MIB),
        4_096: range(8 * GIB_MIB, 30 * GIB_MIB + 1, GIB_MIB),
        8_192: range(16 * GIB_MIB, 60 * GIB_MIB + 1, 4 * GIB_MIB),
        16_384: range(32 * GIB_MIB, 120 * GIB_MIB + 1, 8 * GIB_MIB),
    }
)
"""Which memory Fargate sells with which CPU units."""
FARGATE_DISK_GIB: Final = range(21, 201)
ARCHITECTURES: Final = ("X86_64", "ARM64")
FARGATE: Final = "FARGATE"
IMAGE: Final = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)+(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?")
ECR_IMAGE: Final = re.compile(r"([0-9]{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([a-z0-9/._-]+?)([:@].*)?")
PROVIDER: Final = re.compile(r"(FARGATE|FARGATE_SPOT)(=[1-9][0-9]{0,2})?")
MAPPING_CONCURRENCY: Final = range(2, 1_001)
SQS_BATCH: Final = range(1, 11)
SQS_WINDOW_S: Final = range(301)
LAMBDA_MEMORY_MIB: Final = range(128, 10_241)
LOG_RETENTION_DAYS: Final = MappingProxyType(
    {
        1: "ONE_DAY",
        3: "THREE_DAYS",
        5: "FIVE_DAYS",
        7: "ONE_WEEK",
        14: "TWO_WEEKS",
        30: "ONE_MONTH",
        60: "TWO_MONTHS",
        90: "THREE_MONTHS",
        180: "SIX_MONTHS",
        365: "ONE_YEAR",
        731: "TWO_YEARS",
        1_827: "FIVE_YEARS",
        3_653: "TEN_YEARS",
    }
)
"""The retentions on offer, by the names that the CDK gives them."""
ALARM_PERIOD_S: Final = 300
ALARM_BACKOFF_S: Final = range(ALARM_PERIOD_S, 86_400 + 1, ALARM_PERIOD_S)

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ADDRESS: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""A host that ends in a number is an IP address, in whichever of its many spellings; no name does."""
OWNER: Final = re.compile(r"([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])=([0-9]{12})")
WEIGHT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,31})=([1-9][0-9]*)")
KMS_KEY: Final = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")
TOPIC: Final = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")
SUFFIX: Final = re.compile(r"(\.[a-z0-9_-]{1,32}){1,4}")
KIND: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PARAM: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
PREFIX: Final = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*")


class ConfigError(ValueError):
    """A setting that cannot work; the message is one sentence for the person who wrote it."""


@dataclass(frozen=True)
class PoolConfig:
    """One class of workers: its cap, the size of a worker, how long jobs wait, and how a worker behaves.

    0 switches `active_jobs_max`, `dispatch_deadline_s`, `waiting_limit_s` and `budget_task_hours` off. `capacity` names
    Fargate's capacity providers, with weights where there are two: "FARGATE_SPOT=3", "FARGATE=1". With `spot_fallback`
    a launch that Spot refuses is tried on demand at once. `image` is a registry's name of a worker image to be used
    instead of the one that is built from worker_image/. `job_timeout_s` and `max_attempts` hold for jobs whose message
    says nothing of it. `parents_limit_s` is how long a job may wait for those that it depends on.
    """

    name: str = DEFAULT_POOL
    cap: int = 16
    min_workers: int = 0
    warm_workers: int = 0
    budget_task_hours: float = 0.0
    capacity: tuple[str, ...] = ("FARGATE",)
    spot_fallback: bool = True
    cpu_units: int = 1_024
    memory_mib: int = 2_048
    disk_gib: int = limits.DISK_GIB
    architecture: str = "X86_64"
    image: str = ""
    command: tuple[str, ...] = ("python", "-m", "worker_image")
    assign_public_ip: bool = True
    jobs_per_worker: int = 1
    active_jobs_max: int = 0
    fair_shares: bool = False
    tenant_weights: tuple[str, ...] = ()
    dispatch_deadline_s: int = limits.DISPATCH_DEADLINE_S
    waiting_limit_s: int = 0
    job_timeout_s: int = limits.JOB_TIMEOUT_S
    max_attempts: int = limits.MAX_ATTEMPTS
    max_interruptions: int = limits.MAX_INTERRUPTIONS
    parents_limit_s: int = limits.PARENTS_LIMIT_S
    idle_exit_s: int = limits.IDLE_EXIT_S
    lifetime_s: int = limits.LIFETIME_S
    stop_timeout_s: int = limits.STOP_TIMEOUT_S
    heartbeat_s: int = limits.HEARTBEAT_S
    beat_s: int = limits.BEAT_S
    look_s: float = limits.LOOK_S
    fence_check_s: float = limits.FENCE_CHECK_S
    sort_memory_mb: int = limits.SORT_MEMORY_MB
    sort_threads: int = limits.SORT_THREADS
    keep_failed_dirs: int = 0

    @property
    def providers(self) -> dict[str, int]:
        """Weights by capacity provider; empty where all is on demand."""
        if self.capacity == (FARGATE,):
            return {}
        named = (entry.partition("=") for entry in self.capacity)
        return {provider: int(weight or 1) for provider, _, weight in named}

    @property
    def weights(self) -> dict[str, int]:
        """What each tenant weighs that does not weigh 1."""
        return {tenant: int(weight) for tenant, _, weight in (entry.partition("=") for entry in self.tenant_weights)}


@dataclass(frozen=True)
class Config:
    """One deployment. `name` leads the stacks' names, so that two deployments can share an account."""

    name: str = "fleetcap"
    retain_data: bool = True
    pools: tuple[PoolConfig, ...] = (PoolConfig(),)
    decider_concurrency: int = 16
    decider_memory_mib: int = 512
    decider_timeout_s: int = limits.DECIDER_TIMEOUT_S
    intake_batch_size: int = 10
    intake_batch_window_s: int = 0
    log_retention_days: int = 30
    source_hosts: tuple[str, ...] = ()
    private_source_hosts: tuple[str, ...] = ()
    extra_source_buckets: tuple[str, ...] = ()
    source_bucket_owners: tuple[str, ...] = ()
    requester_pays_buckets: tuple[str, ...] = ()
    source_kms_keys: tuple[str, ...] = ()
    cache_prefix: str = ""
    cache_expiry_days: int = limits.CACHE_EXPIRY_DAYS
    event_statuses: tuple[str, ...] = keys.ENDED_STATUSES
    s3_trigger: bool = False
    cache_kms_key: str = ""
    processors: tuple[catalog.Processor, ...] = ()
    observability: bool = True
    alarm_topic_arn: str = ""
    alarm_unserved_s: int = 300
    alarm_backoff_s: int = 900
    alarm_queue_age_s: int = 900
    alarm_rejected: bool = False

    @classmethod
    def from_context(cls, context: Mapping[str, object]) -> Config:
        """Read `context["fleetcap"]` (an object, or its JSON) and the shorthand `context["cap"]`.

        Raises ConfigError.
        """
        settings = context.get(CONTEXT_KEY)
        given = _object({} if settings is None else settings, CONTEXT_KEY)
        pools = _pools(given.pop("pools", None))
        cap = context.get(CONTEXT_CAP)
        if cap is not None:
            pools = _with_cap(pools, _cap(cap))
        processors = _processors(given.pop("processors", ()))
        config = cls(pools=pools, processors=processors, **_knobs(cls, given, CONTEXT_KEY))
        for refusal in _refusals(config):
            raise ConfigError(refusal)
        return config

    @property
    def declared_processors(self) -> str:
        """The deployment's own processors as `catalog.declare` reads them; empty where it has none."""
        declared = [
            {name: value for name, value in asdict(processor).items() if value} for processor in self.processors
        ]
        return json.dumps(declared, separators=(",", ":")) if declared else ""

    @property
    def metrics_namespace(self) -> str:
        """Where CloudWatch keeps the deployment's metrics; empty where there are none."""
        return f"Fleetcap/{self.name}" if self.observability else ""

    def stack(self, part: str) -> str:
        """The name of one of the deployment's stacks, such as `Fleetcap-State`."""
        return f"{self.name.capitalize()}-{part}"


# --- reading: shapes and types


def _object(value: object, where: str) -> dict[str, object]:
    """A mapping, or the JSON of one, as a plain dict."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ConfigError(
                f"{where} is no JSON ({error}): pass one object, such as {{'retain_data': false}}."
            ) from None
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be one object of settings, not {value!r}: write {{setting: value}}.")
    return {str(key): item for key, item in value.items()}


def _pools(given: object) -> tuple[PoolConfig, ...]:
    if given is None:
        return (PoolConfig(),)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigError(f"pools must be a list with one object per pool, not {given!r}: write [{{'name': …}}].")
    objects = (_object(pool, f"pools[{number}]") for number, pool in enumerate(given))
    return tuple(PoolConfig(**_knobs(PoolConfig, pool, f"pools[{number}]")) for number, pool in enumerate(objects))


def _processors(given: object) -> tuple[catalog.Processor, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigError(f"processors must be a list with one object each, not {given!r}: write [{{'name': …}}].")
    return tuple(_processor(processor, f"processors[{number}]") for number, processor in enumerate(given))


def _processor(given: object, where: str) -> catalog.Processor:
    knobs = _knobs(catalog.Processor, _object(given, where), where)
    for needed in ("name", "version", "kinds"):
        if needed not in knobs:
            raise ConfigError(f"{where} has no {needed}, by which its artifacts are found: add it.")
    return catalog.Processor(**{"suffixes": (), **knobs})


def _cap(given: object) -> int:
    """The shorthand arrives as text where the command line set it (`-c cap=4`)."""
    if isinstance(given, str) and re.fullmatch(r"-?\d+", given):
        return int(given)
    return _whole(given, CONTEXT_CAP)


def _with_cap(pools: tuple[PoolConfig, ...], cap: int) -> tuple[PoolConfig, ...]:
    if not any(pool.name == DEFAULT_POOL for pool in pools):
        raise ConfigError(
            f"cap={cap} is short for the pool {DEFAULT_POOL!r}, which does not exist: set the cap within pools instead."
        )
    return tuple(_capped(pool, cap) if pool.name == DEFAULT_POOL else pool for pool in pools)


def _capped(pool: PoolConfig, cap: int) -> PoolConfig:
    return PoolConfig(**{**vars(pool), "cap": cap})


def _knobs(kind: type, given: Mapping[str, object], where: str) -> dict[str, Any]:
    """The given settings of one dataclass, each of its field's type. Any: the type is the field's, checked here."""
    readers = {field.name: READERS[hint] for field, hint in _typed_fields(kind) if hint in READERS}
    unknown = sorted(given.keys() - readers.keys())
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]} is no setting: choose from {', '.join(sorted(readers))}.")
    return {name: readers[name](value, f"{where}.{name}") for name, value in given.items()}


def _typed_fields(kind: type) -> Iterator[tuple[Any, object]]:
    hints = get_type_hints(kind)
    return ((field, hints[field.name]) for field in fields(kind))


def _whole(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ConfigError(f"{where} must be a whole number, not {value!r}: write it without quotes and fraction.")


def _number(value: object, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ConfigError(f"{where} must be a number, not {value!r}: write it without quotes.")


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise ConfigError(f"{where} must be a text, not {value!r}: put it in quotes.")


def _yes_or_no(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{where} must be true or false, not {value!r}: write it without quotes.")


def _texts(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_text(item, where) for item in value)
    raise ConfigError(f"{where} must be a list of texts, not {value!r}: write it in brackets, even for one.")


READERS: Final[Mapping[object, Callable[[object, str], Knob]]] = MappingProxyType(
    {int: _whole, float: _number, str: _text, bool: _yes_or_no, tuple[str, ...]: _texts}
)


# --- refusing: figures and combinations that cannot work


def _refusals(config: Config) -> Iterator[str]:
    """One sentence for each thing that cannot work, most general first."""
    if not NAME.fullmatch(config.name):
        yield f"name is {config.name!r}, but stacks are named after it: use a-z, 0-9 and -, a letter first, 32 at most."
    yield from _pool_list_refusals([pool.name for pool in config.pools])
    for pool in config.pools:
        yield from _worker_count_refusals(pool)
        yield from _worker_size_refusals(pool)
        yield from _worker_timing_refusals(pool)
        yield from _tenant_refusals(pool)
    weights_chars = sum(len(entry) + 3 for pool in config.pools for entry in pool.tenant_weights)
    if weights_chars > TENANT_WEIGHTS_MAX_CHARS:
        yield (
            f"tenant_weights of all pools take {weights_chars} characters, but Lambda's environment of 4 KB leaves "
            f"them {TENANT_WEIGHTS_MAX_CHARS}: name only tenants that weigh more than 1."
        )
    yield from _decider_refusals(config)
    yield from _data_refusals(config)
    yield from _event_refusals(config)
    yield from _processor_refusals(config)
    yield from _alarm_refusals(config)


def _pool_list_refusals(names: Sequence[str]) -> Iterator[str]:
    if not names:
        yield "pools is empty, so no job could ever run: name at least one pool, or leave pools out."
    if len(names) > POOLS_MAX:
        yield (
            f"pools lists {len(names)} pools, but Lambda's environment of 4 KB carries the launch parameters of "
            f"{POOLS_MAX}: use a second deployment under another name."
        )
    for name in names:
        if not NAME.fullmatch(name):
            yield f"pool name {name!r} is part of keys and tags: use a-z, 0-9 and -, a letter first, 32 at most."
        if names.count(name) > 1:
            yield f"pool name {name!r} appears twice, but its slots exist once: give each pool its own name."


def _worker_count_refusals(pool: PoolConfig) -> Iterator[str]:
    where = f"pool {pool.name!r}"
    if not 0 <= pool.cap <= limits.CAP_MAX:
        yield f"cap of {where} is {pool.cap}, but it counts workers: set 0 to {limits.CAP_MAX:,}."
    for setting in ("min_workers", "warm_workers"):
        if not 0 <= getattr(pool, setting) <= pool.cap:
            yield (
                f"{setting} of {where} is {getattr(pool, setting)}, but its cap lets {pool.cap} live at most: "
                f"set 0 to {pool.cap}, or raise cap."
            )
    if pool.budget_task_hours < 0:
        yield f"budget_task_hours of {where} is {pool.budget_task_hours:g}: set 0 for no bound, or more."
    yield from _capacity_refusals(pool)
    for setting, allowed in (
        ("max_attempts", range(1, limits.ATTEMPTS_LIMIT + 1)),
        ("max_interruptions", range(limits.INTERRUPTIONS_LIMIT + 1)),
        ("job_timeout_s", range(1, limits.TIMEOUT_MAX_S + 1)),
    ):
        if getattr(pool, setting) not in allowed:
            yield f"{setting} of {where} is {getattr(pool, setting)}, which no job may have: choose {_span(allowed)}."


def _worker_size_refusals(pool: PoolConfig) -> Iterator[str]:
    where = f"pool {pool.name!r}"
    sizes = FARGATE_MEMORY_MIB.get(pool.cpu_units)
    if sizes is None:
        yield (
            f"cpu_units of {where} is {pool.cpu_units}, which Fargate does not sell: "
            f"choose from {_list(FARGATE_MEMORY_MIB)}."
        )
    elif pool.memory_mib not in sizes:
        yield (
            f"memory_mib of {where} is {pool.memory_mib}, which Fargate does not sell with cpu_units "
            f"{pool.cpu_units}: choose from {_list(sizes)}."
        )
    if pool.disk_gib not in FARGATE_DISK_GIB:
        yield f"disk_gib of {where} is {pool.disk_gib}, which Fargate does not sell: choose {_span(FARGATE_DISK_GIB)}."
    if pool.architecture not in ARCHITECTURES:
        yield (
            f"architecture of {where} is {pool.architecture!r}, which Fargate does not run: "
            f"choose from {_list(ARCHITECTURES)}."
        )
    if pool.image and not IMAGE.fullmatch(pool.image):
        yield (
            f"image of {where} is {pool.image!r}, which names no image: "
            f"write registry/name:tag or registry/name@sha256:…, or leave it empty for the one in worker_image/."
        )
    if not pool.command or not all(pool.command):
        yield f"command of {where} holds nothing to start: name a program of the image, or leave it out."
    if not pool.assign_public_ip:
        yield (
            f"assign_public_ip of {where} is false, but the network has no NAT gateway and no way to fetch the image "
            f"without a public address: leave it true; nothing can connect to a worker from outside."
        )
    for setting in ("jobs_per_worker", "sort_memory_mb", "sort_threads"):
        if getattr(pool, setting) < 1:
            yield f"{setting} of {where} is {getattr(pool, setting)}, and with none of it no job runs: set 1 or more."
    if not 0 <= pool.keep_failed_dirs <= limits.KEEP_FAILED_DIRS_MAX:
        yield (
            f"keep_failed_dirs of {where} is {pool.keep_failed_dirs}, but what is kept takes room from the jobs that "
            f"follow: set 0 to {limits.KEEP_FAILED_DIRS_MAX}."
        )
    sorting_mb = pool.sort_memory_mb * pool.sort_threads * pool.jobs_per_worker
    if sorting_mb >= pool.memory_mib:
        yield (
            f"sort_memory_mb × sort_threads × jobs_per_worker of {where} is {sorting_mb} MB, so sorting alone would "
            f"exhaust its {pool.memory_mib} MiB: lower one of them or raise memory_mib."
        )


def _capacity_refusals(pool: PoolConfig) -> Iterator[str]:
    where = f"pool {pool.name!r}"
    named = [entry.partition("=")[0] for entry in pool.capacity]
    if not pool.capacity or len(set(named)) < len(named):
        yield f"capacity of {where} is {_list(pool.capacity)!r}: name FARGATE, FARGATE_SPOT or both, each once."
    for entry in pool.capacity:
        if not PROVIDER.fullmatch(entry):
            yield (
                f"capacity of {where} names {entry!r}, which Fargate does not offer: "
                f"write FARGATE or FARGATE_SPOT, with a weight of 1 to 999 as in 'FARGATE_SPOT=3'."
            )


def _worker_timing_refusals(pool: PoolConfig) -> Iterator[str]:
    where = f"pool {pool.name!r}"
    for setting in ("idle_exit_s", "lifetime_s", "heartbeat_s", "beat_s", "look_s", "fence_check_s"):
        if getattr(pool, setting) <= 0:
            yield f"{setting} of {where} is {getattr(pool, setting)}, but waiting takes time: set more than 0."
    for setting in ("active_jobs_max", "dispatch_deadline_s", "waiting_limit_s"):
        if getattr(pool, setting) < 0:
            yield f"{setting} of {where} is {getattr(pool, setting)}, which bounds nothing: set 0 for no bound."
    if not 0 < pool.parents_limit_s <= limits.PARENTS_LIMIT_MAX_S:
        yield (
            f"parents_limit_s of {where} is {pool.parents_limit_s}, but a parent may never come and nobody should "
            f"wait for ever: set 1 to {limits.PARENTS_LIMIT_MAX_S}."
        )
    if not limits.CHILD_TERM_S < pool.stop_timeout_s <= limits.FARGATE_STOP_TIMEOUT_MAX_S:
        yield (
            f"stop_timeout_s of {where} is {pool.stop_timeout_s}, but Fargate waits "
            f"{limits.FARGATE_STOP_TIMEOUT_MAX_S} s at most and ending a child takes {limits.CHILD_TERM_S} s: "
            f"choose a figure between them."
        )
    if 2 * pool.heartbeat_s >= limits.STALE_S:
        yield (
            f"heartbeat_s of {where} is {pool.heartbeat_s}, but a job is stale after {limits.STALE_S} s and one lost "
            f"heartbeat must not do that: set less than {limits.STALE_S // 2}."
        )
    if 3 * pool.beat_s >= limits.SILENT_S:
        yield (
            f"beat_s of {where} is {pool.beat_s}, but a worker is stopped after {limits.SILENT_S} s of silence and "
            f"three lost beats must not do that: set less than {limits.SILENT_S // 3}."
        )


def _tenant_refusals(pool: PoolConfig) -> Iterator[str]:
    where = f"pool {pool.name!r}"
    tenants = [entry.partition("=")[0] for entry in pool.tenant_weights]
    for tenant, entry in zip(tenants, pool.tenant_weights, strict=True):
        weight = WEIGHT.fullmatch(entry)
        if not weight or int(weight[2]) > limits.TENANT_WEIGHT_MAX:
            yield (
                f"tenant_weights of {where} holds {entry!r}, which names no tenant and weight: "
                f"write tenant=3, with a weight of 1 to {limits.TENANT_WEIGHT_MAX}."
            )
        if tenants.count(tenant) > 1:
            yield f"tenant_weights of {where} names the tenant {tenant!r} twice: say it once."
    if pool.tenant_weights and not pool.fair_shares:
        yield (
            f"tenant_weights of {where} says what tenants weigh, but without fair_shares its jobs go by age: "
            f"set fair_shares true, or leave tenant_weights out."
        )


def _decider_refusals(config: Config) -> Iterator[str]:
    if not 0 < config.decider_timeout_s <= limits.DECIDER_TIMEOUT_S:
        yield (
            f"decider_timeout_s is {config.decider_timeout_s}, but a decider that lives longer than "
            f"{limits.DECIDER_TIMEOUT_S} s may send a launch for a slot that was freed: "
            f"set 1 to {limits.DECIDER_TIMEOUT_S}."
        )
    for setting, allowed, why in (
        ("decider_concurrency", MAPPING_CONCURRENCY, "an SQS event source mapping takes no other maximum"),
        ("decider_memory_mib", LAMBDA_MEMORY_MIB, "Lambda sells no other memory"),
        ("intake_batch_size", SQS_BATCH, "SQS hands over ten messages at most and one at least"),
        ("intake_batch_window_s", SQS_WINDOW_S, "Lambda gathers a batch for five minutes at most"),
    ):
        value = getattr(config, setting)
        if value not in allowed:
            yield f"{setting} is {value}, but {why}: choose {_span(allowed)}."
    if config.log_retention_days not in LOG_RETENTION_DAYS:
        yield (
            f"log_retention_days is {config.log_retention_days}, which CloudWatch Logs does not offer: "
            f"choose from {_list(LOG_RETENTION_DAYS)}."
        )


def _data_refusals(config: Config) -> Iterator[str]:
    yield from _source_host_refusals(config.source_hosts, config.private_source_hosts)
    hosts_chars = len(",".join(config.source_hosts))
    if hosts_chars > SOURCE_HOSTS_MAX_CHARS:
        yield (
            f"source_hosts takes {hosts_chars} characters, but Lambda's environment of 4 KB leaves it "
            f"{SOURCE_HOSTS_MAX_CHARS}: name fewer hosts."
        )
    yield from _source_bucket_refusals(config)
    if not PREFIX.fullmatch(config.cache_prefix):
        yield (
            f"cache_prefix is {config.cache_prefix!r}, but it stands in front of every key: "
            f"write 'folder/', slash included, or leave it empty."
        )
    if config.cache_kms_key and not KMS_KEY.fullmatch(config.cache_kms_key):
        yield (
            f"cache_kms_key is {config.cache_kms_key!r}, but rights are given on keys themselves: "
            f"write the key's ARN, not an alias or an id, or leave it empty."
        )
    if config.cache_expiry_days < 1:
        yield f"cache_expiry_days is {config.cache_expiry_days}, but S3 counts in whole days: set 1 or more."


def _event_refusals(config: Config) -> Iterator[str]:
    if not config.event_statuses:
        yield f"event_statuses is empty, but a stream is read for something: choose from {_list(keys.JOB_STATUSES)}."
    for status in config.event_statuses:
        if status not in keys.JOB_STATUSES:
            yield f"event_statuses names {status!r}, which no job ever has: choose from {_list(keys.JOB_STATUSES)}."
    if config.s3_trigger and not any(pool.name == DEFAULT_POOL for pool in config.pools):
        yield (
            f"s3_trigger is true, but there is no pool {DEFAULT_POOL!r}, where jobs of uploaded objects run: "
            f"name a pool so, or leave s3_trigger false."
        )


def _source_host_refusals(hosts: Sequence[str], private: Sequence[str]) -> Iterator[str]:
    for host in hosts:
        if not HOST.fullmatch(host):
            yield f"source_hosts names {host!r}, which is no host name: leave out scheme, port, path, * and capitals."
        if ADDRESS.fullmatch(host) and host not in private:
            yield (
                f"source_hosts names {host!r}, which is an address and no name: "
                f"use the host's name, or name it in private_source_hosts as well."
            )
    for host in private:
        if host not in hosts:
            yield (
                f"private_source_hosts names {host!r}, which source_hosts does not: "
                f"it only says which of those may stand at a private address, so name the host in both."
            )


def _source_bucket_refusals(config: Config) -> Iterator[str]:
    """What is said about buckets one by one must be about buckets that are read."""
    buckets = config.extra_source_buckets
    for bucket in buckets:
        if not BUCKET.fullmatch(bucket):
            yield f"extra_source_buckets names {bucket!r}, which is no bucket name: leave out s3://, keys and *."
    owned = [entry.partition("=")[0] for entry in config.source_bucket_owners]
    for entry in config.source_bucket_owners:
        if not OWNER.fullmatch(entry):
            yield f"source_bucket_owners holds {entry!r}, which names no bucket and account: write bucket=123456789012."
    for setting, named in (("source_bucket_owners", owned), ("requester_pays_buckets", config.requester_pays_buckets)):
        for bucket in named:
            if bucket not in buckets:
                yield (
                    f"{setting} names the bucket {bucket!r}, which no worker may read: "
                    f"name it in extra_source_buckets as well."
                )
            if named.count(bucket) > 1:
                yield f"{setting} names the bucket {bucket!r} twice: say it once."
    for key in config.source_kms_keys:
        if not KMS_KEY.fullmatch(key):
            yield (
                f"source_kms_keys holds {key!r}, but rights are given on keys themselves: "
                f"write the key's ARN, not an alias or an id."
            )


def _processor_refusals(config: Config) -> Iterator[str]:
    taken = {suffix: own.name for own in (*config.processors, *catalog.BUILT_IN) for suffix in own.suffixes}
    names = [processor.name for processor in config.processors]
    for processor in config.processors:
        where = f"processor {processor.name!r}"
        if processor.name in {built_in.name for built_in in catalog.BUILT_IN}:
            yield f"{where} is one of the image's own, which cannot be replaced: choose another name."
        if not NAME.fullmatch(processor.name):
            yield f"{where} is part of every artifact's key: use a-z, 0-9 and -, a letter first, 32 at most."
        if names.count(processor.name) > 1:
            yield f"{where} is declared twice, but messages name it alone: give each its own name."
        if processor.version < 1:
            yield f"version of {where} is {processor.version}, but versions count from 1: set 1 or more."
        if not processor.kinds or len(set(processor.kinds)) < len(processor.kinds):
            yield f"kinds of {where} is {_list(processor.kinds)!r}, but a result has artifacts: name each of them once."
        yield from _processor_word_refusals(processor, taken)
    room = PROCESSORS_MAX_CHARS * (POOLS_MAX - len(config.pools))
    if len(config.declared_processors) > room:
        yield (
            f"processors takes {len(config.declared_processors)} characters, but beside {len(config.pools)} pools "
            f"Lambda's environment of 4 KB leaves them {room}: use a second deployment under another name."
        )


def _alarm_refusals(config: Config) -> Iterator[str]:
    if config.alarm_topic_arn and not TOPIC.fullmatch(config.alarm_topic_arn):
        yield (
            f"alarm_topic_arn is {config.alarm_topic_arn!r}, but alarms are sent to a standard SNS topic: "
            f"write the topic's ARN, or leave it empty."
        )
    if config.alarm_topic_arn and not config.observability:
        yield "alarm_topic_arn is set, but observability is false and no alarm exists: set it true, or name no topic."
    if config.alarm_unserved_s <= limits.UNSERVED_S:
        yield (
            f"alarm_unserved_s is {config.alarm_unserved_s}, but the tick gives a job a worker of its own only after "
            f"{limits.UNSERVED_S} s: set more."
        )
    if config.alarm_backoff_s not in ALARM_BACKOFF_S:
        yield (
            f"alarm_backoff_s is {config.alarm_backoff_s}, but alarms look at pieces of {ALARM_PERIOD_S} s, and back "
            f"over a day at most: choose a multiple of {ALARM_PERIOD_S}."
        )
    if not limits.QUEUE_VISIBILITY_S < config.alarm_queue_age_s < limits.QUEUE_RETENTION_S:
        yield (
            f"alarm_queue_age_s is {config.alarm_queue_age_s}, but a message that is tried again is "
            f"{limits.QUEUE_VISIBILITY_S} s old, and none is kept for {limits.QUEUE_RETENTION_S} s: "
            f"choose a figure between them."
        )


def _processor_word_refusals(processor: catalog.Processor, taken: Mapping[str, str]) -> Iterator[str]:
    where = f"processor {processor.name!r}"
    for setting, pattern, how in (
        ("suffixes", SUFFIX, "a dot and small letters, digits, _ and -, as '.txt'"),
        ("kinds", KIND, "letters, digits and ._-, a letter or digit first"),
        ("params", PARAM, "letters, digits, _ and -, a letter first"),
    ):
        for word in getattr(processor, setting):
            if not pattern.fullmatch(word):
                yield f"{setting} of {where} names {word!r}, which nothing could match: use {how}."
    for suffix in processor.suffixes:
        if taken[suffix] != processor.name:
            yield f"suffix {suffix!r} of {where} is taken by {taken[suffix]!r}: leave it out, or choose a longer one."


def _list(values: Iterator[object] | Mapping[Any, object] | Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


def _span(allowed: range) -> str:
    return f"{allowed.start} to {allowed.stop - 1}"
