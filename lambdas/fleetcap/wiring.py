"""The composition root: ports from the environment. Clients are made once a process, and only those that are asked for.

A decider lives for a minute and begins things for a part of it. A call, with whatever the SDK repeats, ends within the
rest: else it would take with it the answer about all that was done before. RunTask is never retried by the SDK.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from fleetcap import catalog, keys, limits, stored
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.adapters.system import SystemClock
from fleetcap.adapters.workers import EcsTasks
from fleetcap.fleet import Fleet
from fleetcap.model import Pool
from fleetcap.ports import Log

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_SESSION = boto3.Session()
_BRISK = Config(connect_timeout=3, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})
_ONCE = Config(connect_timeout=3, read_timeout=12, retries={"mode": "standard", "total_max_attempts": 1})
_S3 = Config(signature_version="s3v4").merge(_BRISK)


class Misconfigured(Exception):
    """A setting is missing or cannot be; the text names it."""


def setting(name: str, default: str | None = None) -> str:
    """One environment variable. Raises Misconfigured where it is missing and has no default."""
    value = os.environ.get(name, default)
    if value is None:
        raise Misconfigured(
            f"the environment variable {name} is not set; the stacks set it on every function and worker"
        )
    return value


catalog.declare(setting(keys.ENV_PROCESSORS, ""))


def source_hosts() -> frozenset[str]:
    """The hosts from which https sources are taken."""
    return frozenset(filter(None, setting(keys.ENV_SOURCE_HOSTS, "").split(",")))


def pools() -> dict[str, Pool]:
    """The pools by name, as the stacks wrote them."""
    return {pool.name: pool for pool in map(_pool, json.loads(setting(keys.ENV_POOLS)))}


def _pool(settings: dict[str, Any]) -> Pool:
    pool = stored.known(Pool, settings)
    missing = [
        name for name in ("cluster", "taskDefinition", "networkConfiguration", "container") if name not in pool.launch
    ]
    if missing or not 0 <= pool.cap <= limits.CAP_MAX:
        wrong = f"{', '.join(missing)} missing from its launch settings" if missing else f"its cap is {pool.cap}"
        raise Misconfigured(f"pool {pool.name} cannot launch workers: {wrong}; see {keys.ENV_POOLS}")
    return pool


def control_table(log: Log) -> DynamoControlTable:
    """The control table. Short waits: whoever gets no answer asks again on the next round, the next event or tick."""
    return DynamoControlTable(_SESSION.client("dynamodb", config=_BRISK), setting(keys.ENV_TABLE), log)


@cache
def s3_client() -> S3Client:
    """The client for the cache, as intake asks it; a worker's children have one of their own."""
    return _SESSION.client("s3", config=_S3)


@cache
def sqs_client() -> SQSClient:
    """The client for queues."""
    return _SESSION.client("sqs", config=_BRISK)


@cache
def events_client() -> EventBridgeClient:
    """The client for the bus. Short waits: what was not published comes again from the stream."""
    return _SESSION.client("events", config=_BRISK)


def fleet(log: Log) -> Fleet:
    """What a decider works with."""
    return Fleet(pools(), control_table(log), EcsTasks(_SESSION.client("ecs", config=_ONCE)), SystemClock(), log)
