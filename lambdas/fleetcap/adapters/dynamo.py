"""The control table's items in DynamoDB: expressions on the wire, pages, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from fleetcap import keys, limits
from fleetcap.adapters.control_table import Reply, StoredControlTable
from fleetcap.ports import Log

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_TELL: Final[dict[str, Any]] = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD", "ReturnConsumedCapacity": "INDEXES"}
"""What a write answers for nothing: the item that refused it, and what it cost with its index entries."""

_to_wire = TypeSerializer().serialize
_from_wire = TypeDeserializer().deserialize


def _pack(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _to_wire(value) for name, value in values.items()}


def unpack(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as Python values, from DynamoDB's JSON as its API and its streams speak it."""
    return {name: _from_wire(value) for name, value in item.items()}


class DynamoItems:
    """control_table.Items in one DynamoDB table."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def get(self, key: Mapping[str, str]) -> keys.Item | None:
        answer = self._client.get_item(TableName=self._table, Key=_pack(key), ConsistentRead=True)
        return unpack(answer["Item"]) if "Item" in answer else None

    def batch(self, wanted: Sequence[Mapping[str, str]]) -> Iterator[keys.Item]:
        """Those of the items that exist, strongly consistent, a hundred a request."""
        for start in range(0, len(wanted), limits.BATCH_GET_ITEMS):
            asked = [_pack(key) for key in wanted[start : start + limits.BATCH_GET_ITEMS]]
            while asked:
                request: Any = {self._table: {"Keys": asked, "ConsistentRead": True}}
                answer: Any = self._client.batch_get_item(RequestItems=request)
                yield from map(unpack, answer["Responses"].get(self._table, []))
                asked = answer["UnprocessedKeys"].get(self._table, {}).get("Keys", [])

    def partition(self, pk: str) -> Iterator[keys.Item]:
        return self._pages(
            KeyConditionExpression=f"#{keys.TABLE_PK} = :pk",
            ExpressionAttributeNames={f"#{keys.TABLE_PK}": keys.TABLE_PK},
            ExpressionAttributeValues=_pack({":pk": pk}),
            ConsistentRead=True,
        )

    def open(self, pk: str, page: int, since: str = "") -> Iterator[keys.Item]:
        condition = f"#{keys.OPEN_PK} = :pk" + (f" AND #{keys.OPEN_RANK} >= :since" if since else "")
        return self._pages(
            IndexName=keys.OPEN_INDEX,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=keys.names_in(condition),
            ExpressionAttributeValues=_pack({":pk": pk, **({":since": since} if since else {})}),
            Limit=min(page, limits.OPEN_PAGE_ITEMS),
        )

    def scan(
        self, kept: keys.Condition, page: int, start: Mapping[str, Any] | None
    ) -> tuple[list[keys.Item], Mapping[str, Any] | None]:
        """One page of the whole table: those of its `page` items that pass the filter, and where the next begins."""
        request: dict[str, Any] = {
            "TableName": self._table,
            "FilterExpression": kept.expression,
            "ExpressionAttributeNames": keys.names_in(kept.expression),
            "ExpressionAttributeValues": _pack(kept.values),
            "Limit": page,
        }
        if start:
            request["ExclusiveStartKey"] = start
        answer = self._client.scan(**request)
        return list(map(unpack, answer["Items"])), answer.get("LastEvaluatedKey")

    def _pages(self, **query: Any) -> Iterator[keys.Item]:  # noqa: ANN401 - the query goes to boto3 as it is
        """Every item, a page at a time as the caller goes on, at most as many pages as a decision may read."""
        for _ in range(limits.PAGES_MAX):
            answer = self._client.query(TableName=self._table, **query)
            yield from map(unpack, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def update(self, write: keys.Write) -> Reply:
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=_pack(write.key),
                UpdateExpression=write.update,
                ConditionExpression=write.condition.expression,
                ExpressionAttributeNames=keys.names_in(write.update, write.condition.expression),
                ExpressionAttributeValues=_pack(write.values),
                ReturnValues="ALL_NEW",
                **_TELL,
            )
        except ClientError as error:
            return _refusal(error)
        return Reply(True, unpack(answer["Attributes"]))

    def put(self, put: keys.Put) -> Reply:
        request: dict[str, Any] = {
            "TableName": self._table,
            "Item": _pack(put.item),
            "ConditionExpression": put.condition.expression,
            "ExpressionAttributeNames": keys.names_in(put.condition.expression),
        }
        if put.condition.values:  # DynamoDB refuses an empty map
            request["ExpressionAttributeValues"] = _pack(put.condition.values)
        try:
            self._client.put_item(**request, **_TELL)
        except ClientError as error:
            return _refusal(error)
        return Reply(True, put.item)

    def put_each(self, puts: Sequence[keys.Put]) -> None:
        """As many requests, some at a time: one that carries many items would need a right to delete them too."""
        with ThreadPoolExecutor(limits.PUTS_AT_A_TIME) as pool:
            for _ in pool.map(self.put, puts):
                pass


def _refusal(error: ClientError) -> Reply:
    if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
        raise error
    return Reply(False, unpack(error.response.get("Item", {})))  # type: ignore[arg-type]


class DynamoControlTable(StoredControlTable):
    """ports.ControlTable on one DynamoDB table."""

    def __init__(self, client: DynamoDBClient, table: str, log: Log | None = None) -> None:
        self._dynamo = DynamoItems(client, table)
        super().__init__(self._dynamo, log=log)
