"""The control table on DynamoDB: every conditional operation of the protocol, one item at a time.

Two things are settled here once. A refusal is an answer (False, None); and a refusal that hands back our own `op` is a
success whose first reply was lost, whoever retried: the SDK or the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from fleetcap import keys, limits
from fleetcap.model import (
    Flags,
    Holder,
    Job,
    JobStatus,
    Lease,
    Pool,
    Queued,
    Running,
    Slot,
    SlotId,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_to_wire = TypeSerializer().serialize
_from_wire = TypeDeserializer().deserialize


def _pack(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _to_wire(value) for name, value in values.items()}


def _unpack(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _from_wire(value) for name, value in item.items()}


class DynamoControlTable:
    """ports.ControlTable on one DynamoDB table."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    # --- slots

    def slots(self, pool: str) -> list[Slot]:
        found: list[Slot] = []
        for bank in range(limits.BANKS_MAX):
            items = list(self._query(keys.bank_pk(pool, bank)))
            found += map(keys.slot_from, items)
            if len(items) < limits.BANK_SLOTS:
                break
        return found

    def slot(self, slot: SlotId) -> Slot | None:
        item = self._get(keys.slot_key(slot))
        return keys.slot_from(item) if item else None

    def create_slots(self, slots: Iterable[SlotId], now: float) -> None:
        for slot in slots:
            self._put(keys.slot_item(slot, now), keys.ABSENT, op="")

    def lease(self, slot: Slot, launch: str, for_job: str, strikes: int, now: float, op: str) -> bool:
        return self._write(keys.lease_write(slot, launch, for_job, strikes, now, op)) is not None

    def launched(self, lease: Lease, arn: str, now: float) -> bool:
        return self._write(keys.launched_write(lease, arn, now)) is not None

    def beat(self, lease: Lease, arn: str, first: bool, now: float) -> Flags | None:
        item = self._write(keys.beat_write(lease, arn, first, now))
        if item is None:
            return None
        slot = keys.slot_from(item)
        return Flags(leave=slot.leave, retire=slot.retire)

    def release(self, lease: Lease, arn: str, now: float, why: str, retry_at: float, op: str) -> bool:
        return self._write(keys.release_write(lease, arn, now, why, retry_at, op)) is not None

    def missing(self, lease: Lease, since: float) -> bool:
        return self._write(keys.missing_write(lease, since)) is not None

    def retire(self, slot: SlotId, retire: bool) -> None:
        self._write(keys.retire_write(slot, retire))

    # --- jobs

    def job(self, key: str) -> Job | None:
        item = self._get(keys.job_key(key))
        return keys.job_from(item) if item else None

    def jobs(self, job_keys: Sequence[str]) -> list[Job]:
        """Those of the jobs that exist, strongly consistent, a hundred a request; for onlookers, not for deciders."""
        found: list[Job] = []
        for start in range(0, len(job_keys), limits.BATCH_GET_ITEMS):
            wanted = [_pack(keys.job_key(key)) for key in job_keys[start : start + limits.BATCH_GET_ITEMS]]
            while wanted:
                request: Any = {self._table: {"Keys": wanted, "ConsistentRead": True}}
                answer: Any = self._client.batch_get_item(RequestItems=request)
                found += (keys.job_from(_unpack(item)) for item in answer["Responses"].get(self._table, []))
                wanted = answer["UnprocessedKeys"].get(self._table, {}).get("Keys", [])
        return found

    def queued(self, pool: Pool, now: float, limit: int) -> list[Queued]:
        found: list[Queued] = []
        for shard in range(pool.shards):
            entries = map(keys.queued_from, self._query_open(keys.queued_pk(pool.name, shard), limit))
            found += islice((entry for entry in entries if entry.due_at <= now), limit)
        return sorted(found, key=lambda entry: entry.rank)[:limit]

    def running(self, pool: Pool) -> list[Running]:
        return [
            keys.running_from(item)
            for shard in range(pool.shards)
            for item in self._query_open(keys.running_pk(pool.name, shard), limits.OPEN_PAGE_ITEMS)
        ]

    def put(self, job: Job, replacing: Job | None, op: str) -> bool:
        condition = keys.run_ended(replacing.run) if replacing else keys.ABSENT
        return self._put(keys.job_item(job, op), condition, op)

    def claim(self, queued: Job, holder: Holder, now: float, op: str) -> Job | None:
        if self._write(keys.claim_write(queued, holder, now, op)) is None:
            return None
        return replace(
            queued,
            status=JobStatus.RUNNING,
            attempt=queued.attempt + 1,
            holder=holder,
            claimed_at=now,
            heartbeat_at=now,
        )

    def heartbeat(self, running: Job, now: float, stage: str, fraction: float, message: str) -> bool:
        return self._write(keys.heartbeat_write(running, now, stage, fraction, message)) is not None

    def finish(
        self, running: Job, status: JobStatus, now: float, error: str, artifacts: Sequence[str], op: str
    ) -> bool:
        return self._write(keys.finish_write(running, status, now, error, artifacts, op)) is not None

    def requeue(self, running: Job, due_at: float, failures: int, interruptions: int, error: str, op: str) -> bool:
        return self._write(keys.requeue_write(running, due_at, failures, interruptions, error, op)) is not None

    # --- requests

    def _get(self, key: Mapping[str, str]) -> dict[str, Any] | None:
        answer = self._client.get_item(TableName=self._table, Key=_pack(key), ConsistentRead=True)
        return _unpack(answer["Item"]) if "Item" in answer else None

    def _query(self, pk: str) -> Iterator[dict[str, Any]]:
        return self._pages(
            KeyConditionExpression=f"#{keys.TABLE_PK} = :pk",
            ExpressionAttributeNames={f"#{keys.TABLE_PK}": keys.TABLE_PK},
            ExpressionAttributeValues=_pack({":pk": pk}),
            ConsistentRead=True,
        )

    def _query_open(self, pk: str, page: int) -> Iterator[dict[str, Any]]:
        return self._pages(
            IndexName=keys.OPEN_INDEX,
            KeyConditionExpression=f"#{keys.OPEN_PK} = :pk",
            ExpressionAttributeNames={f"#{keys.OPEN_PK}": keys.OPEN_PK},
            ExpressionAttributeValues=_pack({":pk": pk}),
            Limit=min(page, limits.OPEN_PAGE_ITEMS),
        )

    def _pages(self, **query: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - the query goes to boto3 as it is
        """Every item, a page at a time as the caller goes on, at most as many pages as a decision may read."""
        for _ in range(limits.PAGES_MAX):
            answer = self._client.query(TableName=self._table, **query)
            yield from map(_unpack, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _write(self, write: keys.Write) -> dict[str, Any] | None:
        """The item after the write, or None where its condition refused it."""
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=_pack(write.key),
                UpdateExpression=write.update,
                ConditionExpression=write.condition.expression,
                ExpressionAttributeNames=keys.names_in(write.update, write.condition.expression),
                ExpressionAttributeValues=_pack(write.values),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            return _landed_unseen(error, write.sets.get(keys.OP, ""))
        return _unpack(answer["Attributes"])

    def _put(self, item: Mapping[str, Any], condition: keys.Condition, op: str) -> bool:
        request: dict[str, Any] = {
            "TableName": self._table,
            "Item": _pack(item),
            "ConditionExpression": condition.expression,
            "ExpressionAttributeNames": keys.names_in(condition.expression),
        }
        if condition.values:  # DynamoDB refuses an empty map
            request["ExpressionAttributeValues"] = _pack(condition.values)
        try:
            self._client.put_item(**request, ReturnValuesOnConditionCheckFailure="ALL_OLD")
        except ClientError as error:
            return _landed_unseen(error, op) is not None
        return True


def _landed_unseen(error: ClientError, op: str) -> dict[str, Any] | None:
    """The item that stands, if our own write made it so and only its reply was lost; None where we are refused."""
    if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
        raise error
    standing = _unpack(error.response.get("Item", {}))  # type: ignore[arg-type]
    return standing if op and standing.get(keys.OP) == op else None
