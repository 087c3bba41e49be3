"""What the proxy reads off a request, what it says a call costs, and which fault strikes."""

from __future__ import annotations

import json
import math
from base64 import b64encode

import pytest
from boto3.dynamodb.types import TypeSerializer
from hypothesis import given
from hypothesis import strategies as st
from ministack.services.dynamodb import _item_size_bytes
from multidict import CIMultiDict
from pydantic import ValidationError

from local.proxy.callers import Caller
from local.proxy.calls import OTHERS, Call, call_of
from local.proxy.faults import Fault, Faults, Kind
from local.proxy.units import Units, item_bytes, units_of

KIB = 1_024


def signed(service: str, **headers: str) -> CIMultiDict[str]:
    scope = f"AWS4-HMAC-SHA256 Credential=AKIA/20261122/us-east-1/{service}/aws4_request, SignedHeaders=host"
    return CIMultiDict({"Authorization": scope, **{name.replace("_", "-"): value for name, value in headers.items()}})


@pytest.mark.parametrize(
    ("service", "method", "path", "query", "operation"),
    [
        ("s3", "HEAD", "/b/k", {}, "HeadObject"),
        ("s3", "GET", "/b/a/k.bam", {}, "GetObject"),
        ("s3", "GET", "/b", {"list-type": "2"}, "ListObjectsV2"),
        ("s3", "PUT", "/b/k", {}, "PutObject"),
        ("s3", "PUT", "/b/k", {"partNumber": "1", "uploadId": "u"}, "UploadPart"),
        ("s3", "POST", "/b/k", {"uploads": ""}, "CreateMultipartUpload"),
        ("s3", "POST", "/b/k", {"uploadId": "u"}, "CompleteMultipartUpload"),
        ("s3", "DELETE", "/b/k", {"uploadId": "u"}, "AbortMultipartUpload"),
        ("s3", "PUT", "/b", {"policy": ""}, "PutBucket?policy"),
        ("lambda", "POST", "/2015-03-31/functions/f/invocations?x=1", {}, "POST /2015-03-31/functions/f/invocations"),
    ],
)
def test_an_operation_of_a_rest_service_is_told_by_method_and_path(
    service: str, method: str, path: str, query: dict[str, str], operation: str
) -> None:
    assert call_of(method, path, query, signed(service), b"").name == f"{service}:{operation}"


def test_a_call_names_its_actor_service_and_operation() -> None:
    agent = "Boto3/1.43 md/Botocore ua/2.1 os/linux app/fleetcap-intake"
    headers = signed("dynamodb", user_agent=agent, x_amz_target="DynamoDB_20120810.GetItem")
    assert call_of("POST", "/", {}, headers, b"{}") == Call("fleetcap-intake", "dynamodb", "GetItem", b"{}")


def test_a_call_in_the_query_protocol_names_its_action_in_the_body() -> None:
    headers = signed("sts", content_type="application/x-www-form-urlencoded; charset=utf-8")
    assert call_of("POST", "/", {}, headers, b"Version=1&Action=AssumeRole").name == "sts:AssumeRole"


def test_who_does_not_say_who_it_is_counts_with_the_others() -> None:
    assert call_of("GET", "/", {}, CIMultiDict({"User-Agent": "curl"}), b"").actor == OTHERS


def item(size: int) -> dict[str, dict[str, str]]:
    """An item of exactly this many bytes."""
    return {"a": {"S": "x" * (size - 1)}}


def units(operation: str, asked: object, told: object, accepted: bool = True) -> Units:
    return units_of(operation, json.dumps(asked).encode(), accepted, json.dumps(told).encode())


@pytest.mark.parametrize(
    ("operation", "asked", "told", "read"),
    [
        ("GetItem", {}, {"Item": item(1)}, 0.5),
        ("GetItem", {"ConsistentRead": True}, {}, 1),
        ("GetItem", {"ConsistentRead": True}, {"Item": item(4 * KIB)}, 1),
        ("GetItem", {"ConsistentRead": True}, {"Item": item(4 * KIB + 1)}, 2),
        ("Query", {"ConsistentRead": True}, {"Items": []}, 1),
        ("Query", {"ConsistentRead": True}, {"Items": [item(3 * KIB), item(3 * KIB)]}, 2),
        ("Query", {}, {"Items": [item(3 * KIB), item(3 * KIB)]}, 1),
        (
            "BatchGetItem",
            {"RequestItems": {"t": {"Keys": [1, 2, 3, 4], "ConsistentRead": True}}},
            {"Responses": {"t": [item(3), item(5 * KIB)]}, "UnprocessedKeys": {"t": {"Keys": [4]}}},
            1 + 2 + 1,
        ),
    ],
)
def test_a_read_costs_by_what_it_read(operation: str, asked: object, told: object, read: float) -> None:
    assert units(operation, asked, told) == Units(read=read)


REFUSAL = {"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}
ALL_OLD = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


@pytest.mark.parametrize(
    ("asked", "told", "accepted", "expected"),
    [
        ({}, {"ConsumedCapacity": {"CapacityUnits": 3.0}}, True, Units(write=3)),
        ({}, {}, True, Units(unknown=True)),
        (ALL_OLD, REFUSAL, False, Units(write=1, refused=True)),
        (ALL_OLD, {**REFUSAL, "Item": item(KIB)}, False, Units(write=1, refused=True)),
        (ALL_OLD, {**REFUSAL, "Item": item(KIB + 1)}, False, Units(write=2, refused=True)),
        ({}, REFUSAL, False, Units(unknown=True, refused=True)),
        (ALL_OLD, {"__type": "ThrottlingException"}, False, Units()),
    ],
)
def test_a_write_costs_what_it_says_and_a_refused_one_the_item_that_refused_it(
    asked: object, told: object, accepted: bool, expected: Units
) -> None:
    assert units("UpdateItem", asked, told, accepted) == expected


SCALARS = st.one_of(st.text(), st.binary(), st.booleans(), st.none(), st.integers(-(10**30), 10**30))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=5))
def test_sizes_agree_with_the_emulators_but_for_the_rounding_of_numbers(value: dict[str, object]) -> None:
    typed = {name: TypeSerializer().serialize(each) for name, each in value.items()}
    wire = json.loads(json.dumps(typed, default=lambda binary: b64encode(bytes(binary)).decode()))
    numbers = json.dumps(wire).count('"N":')
    assert math.isclose(item_bytes(wire), _item_size_bytes(wire), abs_tol=2 * numbers)


CALL = Call("fleetcap-tick", "dynamodb", "UpdateItem", b'{"state": "LAUNCHING"}')


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({}, True),
        ({"actor": "fleetcap-tick"}, True),
        ({"actor": "fleetcap"}, False),
        ({"operation": "UpdateItem"}, True),
        ({"operation": "dynamodb:UpdateItem"}, True),
        ({"operation": "dynamodb"}, True),
        ({"operation": "ecs:UpdateItem"}, False),
        ({"text": "LAUNCHING"}, True),
        ({"text": "READY"}, False),
        ({"pid": 7}, True),
        ({"pid": 8}, True),
        ({"pid": 9}, False),
    ],
)
def test_a_fault_strikes_the_calls_that_fit_all_it_says(fields: dict[str, object], fits: bool) -> None:
    faults = Faults()
    faults.add(Fault.model_validate({"kind": "drop-reply", **fields}))
    assert faults.strike(CALL, Caller(7, 8))[0] is (Kind.DROP_REPLY if fits else None)


def test_the_last_call_of_a_process_that_is_gone_does_not_slip_through() -> None:
    faults = Faults()
    faults.add(Fault(kind=Kind.DROP_REQUEST, pid=7))
    assert faults.strike(CALL, Caller())[0] is Kind.DROP_REQUEST
    assert faults.strike(CALL, Caller(9, 9))[0] is None


def test_a_fault_strikes_as_often_as_it_was_told_then_the_next_has_its_turn() -> None:
    faults = Faults()
    faults.add(Fault(kind=Kind.DROP_REPLY, times=2))
    second = faults.add(Fault(kind=Kind.DELAY, seconds=5, seed=1))
    kinds = [faults.strike(CALL, Caller()) for _ in range(3)]
    assert [kind for kind, _ in kinds] == [Kind.DROP_REPLY, Kind.DROP_REPLY, Kind.DELAY]
    assert 0 < kinds[-1][1] < 5
    assert [(each["struck"], each["left"]) for each in faults.listed()] == [(2, 0), (1, None)]
    assert (faults.clear(second), faults.clear(second), faults.clear()) == (1, 0, 1)
    assert faults.strike(CALL, Caller()) == (None, 0.0)


def test_a_share_is_drawn_under_the_seed() -> None:
    def struck(seed: int) -> list[bool]:
        faults = Faults()
        faults.add(Fault(kind=Kind.DROP_REPLY, share=0.3, seed=seed))
        return [faults.strike(CALL, Caller())[0] is not None for _ in range(200)]

    assert struck(1) == struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


def test_who_calls_is_asked_only_where_a_fault_needs_it() -> None:
    faults = Faults()
    faults.add(Fault(kind=Kind.DROP_REPLY))
    assert not faults.ask_who
    faults.add(Fault(kind=Kind.KILL_AFTER, times=1))
    assert faults.ask_who


@pytest.mark.parametrize(
    "wrong", [{"kind": "explode"}, {"kind": "delay", "share": 0}, {"kind": "delay", "colour": 1}, {}, {"times": 0}]
)
def test_a_fault_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(wrong)
