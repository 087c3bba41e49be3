"""What a DynamoDB call costs, as AWS bills it on demand.

Writes say themselves what they consumed, indexes included, if they are asked to (`ReturnConsumedCapacity=INDEXES`). A
write whose condition failed says nothing and costs the size of the item that refused it; reads are judged by what they
read. Source: "DynamoDB read and write operations" and "item sizes and formats" in the developer guide.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

READ_UNIT_BYTES: Final = 4_096
WRITE_UNIT_BYTES: Final = 1_024
NUMBER_MAX_BYTES: Final = 21
NESTED_BYTES: Final = 3
REFUSED: Final = "ConditionalCheckFailedException"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Units:
    """Request units. `unknown` where a write did not say what it consumed, and nobody else can; `refused` where its
    condition did not hold."""

    read: float = 0.0
    write: float = 0.0
    unknown: bool = False
    refused: bool = False


def units_of(operation: str, request: bytes, accepted: bool, response: bytes) -> Units:
    """The units of one answered call. `accepted`: it was answered with success."""
    asked = json.loads(request or b"{}")
    told = json.loads(response or b"{}")
    match operation:
        case "GetItem" if accepted:
            return Units(read=_read([told.get("Item", {})], asked.get("ConsistentRead")))
        case "Query" | "Scan" if accepted:
            size = sum(map(item_bytes, told.get("Items", [])))
            return Units(read=_read_units(size, asked.get("ConsistentRead")))
        case "BatchGetItem" if accepted:
            return Units(read=sum(_batch(asked["RequestItems"], told)))
        case "PutItem" | "UpdateItem" | "DeleteItem" if accepted:
            consumed = told.get("ConsumedCapacity")
            return Units(write=float(consumed["CapacityUnits"])) if consumed else Units(unknown=True)
        case "PutItem" | "UpdateItem" | "DeleteItem" if REFUSED in str(told.get("__type")):
            known = asked.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            units = _write_units(item_bytes(told.get("Item", {}))) if known else 0.0
            return Units(write=units, unknown=not known, refused=True)
        case _:
            return Units(unknown=accepted and operation in {"BatchWriteItem", "TransactWriteItems", "TransactGetItems"})


def _batch(asked: Json, told: Json) -> Iterable[float]:
    """Each item by itself; those that do not exist cost one unit, those that were not processed none."""
    for table, request in asked.items():
        consistent = request.get("ConsistentRead")
        items = told.get("Responses", {}).get(table, [])
        left = told.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
        missing = len(request["Keys"]) - len(left) - len(items)
        yield _read([*items, *({} for _ in range(missing))], consistent)


def _read(items: Iterable[Json], consistent: bool | None) -> float:
    return sum(_read_units(item_bytes(item), consistent) for item in items)


def _read_units(size: int, consistent: bool | None) -> float:
    return max(1, ceil(size / READ_UNIT_BYTES)) * (1.0 if consistent else 0.5)


def _write_units(size: int) -> float:
    return float(max(1, ceil(size / WRITE_UNIT_BYTES)))


def item_bytes(item: Json) -> int:
    """The size of an item on the wire's terms: names and values."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(typed: Json) -> int:
    [(kind, value)] = typed.items()
    match kind:
        case "S":
            return len(value.encode())
        case "N":
            return _number_bytes(value)
        case "B":
            return len(base64.b64decode(value))
        case "SS" | "NS" | "BS":
            return sum(_value_bytes({kind[0]: each}) for each in value)
        case "M" | "L":
            nested = item_bytes(value) if kind == "M" else sum(map(_value_bytes, value))
            return NESTED_BYTES + len(value) + nested
        case _:
            return 1  # BOOL and NULL


def _number_bytes(text: str) -> int:
    """About a byte for two significant digits, and one more; one more again below zero."""
    digits = text.lower().partition("e")[0].lstrip("+-").replace(".", "").strip("0")
    return min(NUMBER_MAX_BYTES, ceil(len(digits) / 2) + 1 + text.startswith("-"))
