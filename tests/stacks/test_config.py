"""Settings that work are taken; the others are refused with one sentence that names them."""

from __future__ import annotations

import json

import pytest

from fleetcap import catalog, limits
from stacks.config import Config, ConfigError, PoolConfig

BAD_POOLS = {
    "a negative cap": ({"cap": -1}, "cap of pool 'default' is -1"),
    "a memory that does not go with the cpu": ({"cpu_units": 256, "memory_mib": 4096}, "choose from 512, 1024, 2048"),
    "a memory between two steps": ({"cpu_units": 8192, "memory_mib": 17_000}, "memory_mib of pool 'default' is 17000"),
    "cpu units that Fargate does not sell": ({"cpu_units": 300}, "cpu_units of pool 'default' is 300"),
    "too small a disk": ({"disk_gib": 20}, "choose 21 to 200"),
    "an unknown architecture": ({"architecture": "arm64"}, "choose from X86_64, ARM64"),
    "workers that cannot fetch their image": (
        {"assign_public_ip": False},
        "assign_public_ip of pool 'default' is false",
    ),
    "a deadline before it begins": ({"dispatch_deadline_s": -1}, "dispatch_deadline_s of pool 'default' is -1"),
    "a wait of less than nothing": ({"waiting_limit_s": -1}, "waiting_limit_s of pool 'default' is -1"),
    "parents that are waited for no time": ({"parents_limit_s": 0}, "parents_limit_s of pool 'default' is 0"),
    "parents that are waited for too long": ({"parents_limit_s": 14 * 86_400 + 1}, "set 1 to 1209600"),
    "a ceiling below the ground": ({"active_jobs_max": -1}, "active_jobs_max of pool 'default' is -1"),
    "no lane": ({"jobs_per_worker": 0}, "jobs_per_worker of pool 'default' is 0"),
    "a sort larger than the worker": ({"sort_threads": 4, "jobs_per_worker": 2}, "is 2048 MB"),
    "a stop timeout that Fargate does not grant": ({"stop_timeout_s": 121}, "stop_timeout_s of pool 'default' is 121"),
    "a stop timeout too short to end a child": ({"stop_timeout_s": 5}, "stop_timeout_s of pool 'default' is 5"),
    "a heartbeat of half the stale time": ({"heartbeat_s": limits.STALE_S // 2}, "set less than 90"),
    "a beat of a third of the silence": ({"beat_s": limits.SILENT_S // 3}, "set less than 40"),
    "a busy loop": ({"look_s": 0}, "look_s of pool 'default' is 0"),
    "more kept directories than a disk bears": ({"keep_failed_dirs": 17}, "keep_failed_dirs of pool 'default' is 17"),
    "fewer than no kept directories": ({"keep_failed_dirs": -1}, "set 0 to 16"),
    "a weight without a tenant": (
        {"fair_shares": True, "tenant_weights": ["3"]},
        "tenant_weights of pool 'default' holds '3'",
    ),
    "no weight": ({"fair_shares": True, "tenant_weights": ["a=0"]}, "write tenant=3, with a weight of 1 to 100"),
    "too heavy a tenant": ({"fair_shares": True, "tenant_weights": ["a=101"]}, "holds 'a=101'"),
    "one tenant twice": ({"fair_shares": True, "tenant_weights": ["a=2", "a=3"]}, "names the tenant 'a' twice"),
    "weights that nobody asks for": ({"tenant_weights": ["a=2"]}, "without fair_shares its jobs go by age"),
    "more weights than fit": (
        {"fair_shares": True, "tenant_weights": [f"tenant-{n:02}=2" for n in range(15)]},
        "tenant_weights of all pools take 210 characters",
    ),
    "a name with capitals": ({"name": "Large"}, "pool name 'Large'"),
    "too long a name": ({"name": "a" * 33}, "32 at most"),
    "an unknown setting": ({"memory": 2048}, "pools[0].memory is no setting"),
    "a number in quotes": ({"cap": "16"}, "pools[0].cap must be a whole number"),
    "a yes for a number": ({"cap": True}, "pools[0].cap must be a whole number"),
    "a text for a fraction": ({"look_s": "1.5"}, "pools[0].look_s must be a number"),
    "a number for a text": ({"name": 7}, "pools[0].name must be a text"),
    "a number for a yes": ({"assign_public_ip": 1}, "pools[0].assign_public_ip must be true or false"),
}

TOPIC = "arn:aws:sns:eu-central-1:123456789012:on-call"

BAD_SETTINGS = {
    "a topic by its name": ({"alarm_topic_arn": "on-call"}, "alarm_topic_arn is 'on-call'"),
    "a topic of another kind": ({"alarm_topic_arn": f"{TOPIC}.fifo"}, "sent to a standard SNS topic"),
    "a topic and no alarms": ({"alarm_topic_arn": TOPIC, "observability": False}, "no alarm exists"),
    "an alarm before the tick had its turn": ({"alarm_unserved_s": limits.UNSERVED_S}, "alarm_unserved_s is 120"),
    "a backoff between two looks": ({"alarm_backoff_s": 1_000}, "choose a multiple of 300"),
    "a backoff of no look": ({"alarm_backoff_s": 0}, "alarm_backoff_s is 0"),
    "a backoff of more than a day": ({"alarm_backoff_s": 86_700}, "over a day at most"),
    "an age that one retry reaches": ({"alarm_queue_age_s": limits.QUEUE_VISIBILITY_S}, "alarm_queue_age_s is 360"),
    "an age that no message reaches": ({"alarm_queue_age_s": limits.QUEUE_RETENTION_S}, "none is kept for 345600 s"),
    "an unknown setting": ({"bucket": "x"}, "fleetcap.bucket is no setting"),
    "a name that no stack can have": ({"name": "Fleet cap"}, "name is 'Fleet cap'"),
    "deciders that outlive their slot": ({"decider_timeout_s": 61}, "decider_timeout_s is 61"),
    "deciders without time": ({"decider_timeout_s": 0}, "set 1 to 60"),
    "fewer deciders than SQS allows": ({"decider_concurrency": 1}, "choose 2 to 1000"),
    "too small a decider": ({"decider_memory_mib": 64}, "choose 128 to 10240"),
    "an empty batch": ({"intake_batch_size": 0}, "choose 1 to 10"),
    "too large a batch": ({"intake_batch_size": 11}, "choose 1 to 10"),
    "too long a window": ({"intake_batch_window_s": 301}, "choose 0 to 300"),
    "a retention that is not on offer": ({"log_retention_days": 8}, "choose from 1, 3, 5, 7"),
    "a host with its scheme": ({"source_hosts": ["https://example.org"]}, "source_hosts names 'https://example.org'"),
    "more hosts than fit": ({"source_hosts": ["a" * 60 + ".example.org"] * 8}, "source_hosts takes 583 characters"),
    "one host outside a list": ({"source_hosts": "example.org"}, "fleetcap.source_hosts must be a list of texts"),
    "any bucket": ({"extra_source_buckets": ["*"]}, "extra_source_buckets names '*'"),
    "a host that is an address": ({"source_hosts": ["10.0.0.5"]}, "source_hosts names '10.0.0.5', which is an address"),
    "an address in disguise": ({"source_hosts": ["0x7f.1"]}, "source_hosts names '0x7f.1', which is an address"),
    "another disguise": ({"source_hosts": ["2130706433"]}, "which is an address and no name"),
    "a private host that is not allowed at all": (
        {"private_source_hosts": ["inside.example.org"]},
        "private_source_hosts names 'inside.example.org', which source_hosts does not",
    ),
    "an owner without an account": (
        {"extra_source_buckets": ["reads"], "source_bucket_owners": ["reads"]},
        "write bucket=123456789012",
    ),
    "an owner of a bucket that is not read": (
        {"source_bucket_owners": ["reads=123456789012"]},
        "source_bucket_owners names the bucket 'reads', which no worker may read",
    ),
    "two owners of one bucket": (
        {
            "extra_source_buckets": ["reads"],
            "source_bucket_owners": ["reads=123456789012", "reads=210987654321"],
        },
        "source_bucket_owners names the bucket 'reads' twice",
    ),
    "a bucket that nobody reads and somebody pays for": (
        {"requester_pays_buckets": ["reads"]},
        "requester_pays_buckets names the bucket 'reads', which no worker may read",
    ),
    "any key": ({"source_kms_keys": ["*"]}, "source_kms_keys holds '*'"),
    "a key by its alias": (
        {"source_kms_keys": ["arn:aws:kms:us-east-1:123456789012:alias/reads"]},
        "write the key's ARN, not an alias",
    ),
    "a key of the cache by its id": ({"cache_kms_key": "1234"}, "cache_kms_key is '1234'"),
    "a prefix without its slash": ({"cache_prefix": "portal"}, "cache_prefix is 'portal'"),
    "a prefix that climbs": ({"cache_prefix": "../"}, "cache_prefix is '../'"),
    "an expiry at once": ({"cache_expiry_days": 0}, "cache_expiry_days is 0"),
    "no event at all": ({"event_statuses": []}, "event_statuses is empty"),
    "an event of a status that is none": ({"event_statuses": ["DONE"]}, "event_statuses names 'DONE'"),
    "uploads without a pool": ({"s3_trigger": True, "pools": [{"name": "b"}]}, "there is no pool 'default'"),
    "no pool": ({"pools": []}, "pools is empty"),
    "more pools than fit": ({"pools": [{"name": f"p{n}"} for n in range(5)]}, "pools lists 5 pools"),
    "one name twice": ({"pools": [{}, {"cap": 2}]}, "pool name 'default' appears twice"),
    "pools that are no list": ({"pools": {"name": "a"}}, "pools must be a list"),
    "a pool that is no object": ({"pools": [3]}, "pools[0] must be one object"),
}


OWN: dict[str, object] = {"name": "own", "version": 1, "kinds": ["out.txt"]}
BAD_PROCESSORS: dict[str, tuple[object, str]] = {
    "no list": (OWN, "processors must be a list"),
    "no object": (["own"], "processors[0] is no JSON"),
    "no name": ([{"version": 1, "kinds": ["a"]}], "processors[0] has no name"),
    "no version": ([{"name": "own", "kinds": ["a"]}], "processors[0] has no version"),
    "no artifact": ([{**OWN, "kinds": []}], "kinds of processor 'own' is ''"),
    "one artifact twice": ([{**OWN, "kinds": ["a", "a"]}], "kinds of processor 'own' is 'a, a'"),
    "an unknown setting": ([{**OWN, "image": "x"}], "processors[0].image is no setting"),
    "a name of the image's own": ([{**OWN, "name": "bam"}], "processor 'bam' is one of the image's own"),
    "a name with capitals": ([{**OWN, "name": "Own"}], "processor 'Own' is part of every artifact's key"),
    "one name twice": ([OWN, OWN], "processor 'own' is declared twice"),
    "a version below 1": ([{**OWN, "version": 0}], "version of processor 'own' is 0"),
    "a kind that climbs": ([{**OWN, "kinds": ["../x"]}], "kinds of processor 'own' names '../x'"),
    "a suffix in capitals": ([{**OWN, "suffixes": [".TXT"]}], "suffixes of processor 'own' names '.TXT'"),
    "a suffix of the image's own": (
        [{**OWN, "suffixes": [".vcf.gz"]}],
        "'.vcf.gz' of processor 'own' is taken by 'vcf'",
    ),
    "a suffix twice": (
        [{**OWN, "suffixes": [".x"]}, {**OWN, "name": "other", "suffixes": [".x"]}],
        "suffix '.x' of processor 'own' is taken by 'other'",
    ),
    "a param of odd letters": ([{**OWN, "params": ["a b"]}], "params of processor 'own' names 'a b'"),
    "more than fits": ([{**OWN, "kinds": [f"{n:060}" for n in range(40)]}], "characters, but beside 1 pools"),
}


@pytest.mark.parametrize(("processors", "sentence"), BAD_PROCESSORS.values(), ids=BAD_PROCESSORS)
def test_a_processor_is_refused_with(processors: object, sentence: str) -> None:
    assert sentence in _refusal({"fleetcap": {"processors": processors}})


def test_a_declared_processor_is_the_one_that_the_catalog_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {**OWN, "suffixes": [".txt", ".my.vcf"], "params": ["level"]}
    config = Config.from_context({"fleetcap": {"processors": [own]}})
    monkeypatch.setattr(catalog, "PROCESSORS", dict(catalog.PROCESSORS))
    catalog.declare(config.declared_processors)
    assert catalog.PROCESSORS["own"] == config.processors[0]
    assert [catalog.processor_for(name) for name in ("a.txt", "a.my.vcf", "a.vcf")] == [
        config.processors[0],
        config.processors[0],
        catalog.PROCESSORS["vcf"],
    ]


@pytest.mark.parametrize(("pool", "sentence"), BAD_POOLS.values(), ids=BAD_POOLS)
def test_a_pool_is_refused_with(pool: dict[str, object], sentence: str) -> None:
    assert sentence in _refusal({"fleetcap": {"pools": [pool]}})


@pytest.mark.parametrize(("settings", "sentence"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_a_deployment_is_refused_with(settings: dict[str, object], sentence: str) -> None:
    assert sentence in _refusal({"fleetcap": settings})


@pytest.mark.parametrize(
    ("context", "sentence"),
    [
        ({"fleetcap": "{cap: 3}"}, "fleetcap is no JSON"),
        ({"fleetcap": "[3]"}, "fleetcap must be one object"),
        ({"cap": "many"}, "cap must be a whole number"),
        ({"cap": "-1"}, "cap of pool 'default' is -1"),
        ({"cap": 4, "fleetcap": {"pools": [{"name": "large"}]}}, "the pool 'default', which does not exist"),
    ],
)
def test_a_context_is_refused_when_it_cannot_be_read(context: dict[str, object], sentence: str) -> None:
    assert sentence in _refusal(context)


def test_without_settings_there_is_one_pool_of_sixteen_workers() -> None:
    assert Config.from_context({}) == Config(pools=(PoolConfig(name="default", cap=16),))


def test_settings_may_come_as_json_text() -> None:
    settings = {"retain_data": False, "pools": [{"name": "large", "cap": 2, "look_s": 1}]}

    assert Config.from_context({"fleetcap": json.dumps(settings)}) == Config.from_context({"fleetcap": settings})


def test_the_short_cap_changes_the_default_pool_only() -> None:
    pools = Config.from_context({"cap": "4", "fleetcap": {"pools": [{"memory_mib": 4096}, {"name": "b"}]}}).pools

    assert [(pool.name, pool.cap, pool.memory_mib) for pool in pools] == [("default", 4, 4096), ("b", 16, 2048)]


def test_an_address_may_be_a_source_if_it_is_named_twice() -> None:
    hosts = {"source_hosts": ["10.0.0.5"], "private_source_hosts": ["10.0.0.5"]}

    assert Config.from_context({"fleetcap": hosts}).private_source_hosts == ("10.0.0.5",)


def test_a_cap_of_zero_pauses_a_pool() -> None:
    assert Config.from_context({"cap": 0}).pools[0].cap == 0


def _refusal(context: dict[str, object]) -> str:
    """The message, which is one sentence: a reason and, after a colon, what to do."""
    with pytest.raises(ConfigError) as refused:
        Config.from_context(context)
    message = str(refused.value)
    assert message.endswith(".")
    assert ": " in message
    return message


# --- pools


@pytest.mark.parametrize(
    ("pool", "sentence"),
    [
        ({"cap": 10_001}, "cap of pool 'default' is 10001, but it counts workers: set 0 to 10,000."),
        ({"cap": 3, "min_workers": 4}, "min_workers of pool 'default' is 4, but its cap lets 3 live at most"),
        ({"cap": 3, "warm_workers": 4}, "warm_workers of pool 'default' is 4, but its cap lets 3 live at most"),
        ({"min_workers": -1}, "min_workers of pool 'default' is -1"),
        ({"budget_task_hours": -1}, "budget_task_hours of pool 'default' is -1: set 0 for no bound, or more."),
        ({"capacity": []}, "capacity of pool 'default' is '': name FARGATE, FARGATE_SPOT or both, each once."),
        ({"capacity": ["FARGATE=1", "FARGATE=2"]}, "name FARGATE, FARGATE_SPOT or both, each once."),
        ({"capacity": ["EC2"]}, "capacity of pool 'default' names 'EC2', which Fargate does not offer"),
        ({"capacity": ["FARGATE_SPOT=0"]}, "write FARGATE or FARGATE_SPOT, with a weight of 1 to 999"),
        ({"max_attempts": 0}, "max_attempts of pool 'default' is 0, which no job may have: choose 1 to 20."),
        ({"max_interruptions": -1}, "max_interruptions of pool 'default' is -1, which no job may have"),
        ({"job_timeout_s": 0}, "job_timeout_s of pool 'default' is 0, which no job may have"),
        ({"image": "no image"}, "image of pool 'default' is 'no image', which names no image"),
        ({"command": []}, "command of pool 'default' holds nothing to start"),
    ],
)
def test_a_pool_that_cannot_be_kept_is_refused(pool: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_context({"fleetcap": {"pools": [{"name": "default", **pool}]}})
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("capacity", "providers"),
    [
        ([], {}),
        (["FARGATE"], {}),
        (["FARGATE_SPOT"], {"FARGATE_SPOT": 1}),
        (["FARGATE_SPOT=3", "FARGATE"], {"FARGATE_SPOT": 3, "FARGATE": 1}),
    ],
)
def test_capacity_is_read_into_weights(capacity: list[str], providers: dict[str, int]) -> None:
    given = {"capacity": capacity} if capacity else {}
    (pool,) = Config.from_context({"fleetcap": {"pools": [{"name": "default", **given}]}}).pools
    assert pool.providers == providers
