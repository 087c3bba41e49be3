"""The bus adapter: what it sends, and how it reads EventBridge's answers. `tests/e2e/test_events.py` has a real bus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from fleetcap import keys, limits
from fleetcap.adapters.bus import EventBus, batches

ENTRY_BYTES = len(f"{keys.EVENT_SOURCE}{keys.EVENT_DETAIL_TYPE}")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 4) | st.integers(20_000, 140_000) | st.just(300_000), max_size=30))
def test_requests_hold_all_details_in_order_and_keep_to_the_limits(sizes: list[int]) -> None:
    details = [f"{n}".ljust(size, "é") for n, size in enumerate(sizes)]
    made = list(batches(details))
    assert [detail for batch in made for detail in batch] == details
    for batch in made:
        assert 1 <= len(batch) <= limits.PUT_EVENTS_ENTRIES
        size_bytes = sum(len(detail.encode()) + ENTRY_BYTES for detail in batch)
        assert size_bytes < limits.PUT_EVENTS_MAX_BYTES or len(batch) == 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("events", region_name="us-east-1")


def entry(detail: str) -> dict[str, str]:
    about = {"EventBusName": "fleet", "Source": keys.EVENT_SOURCE, "DetailType": keys.EVENT_DETAIL_TYPE}
    return {**about, "Detail": detail}


def test_an_event_says_what_it_is_and_goes_to_the_bus_that_was_named(client: Any) -> None:
    with Stubber(client) as stubber:
        stubber.add_response(
            "put_events", {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}, {"Entries": [entry("{}")]}
        )
        assert EventBus(client, "fleet").publish(["{}"]) == [""]
        stubber.assert_no_pending_responses()


def test_a_refused_entry_is_told_from_its_neighbours(client: Any) -> None:
    with Stubber(client) as stubber:
        refused = {"ErrorCode": "ThrottlingException", "ErrorMessage": "slower"}
        answer = {"FailedEntryCount": 1, "Entries": [{"EventId": "1"}, refused, {"EventId": "3"}]}
        stubber.add_response("put_events", answer, {"Entries": [entry(each) for each in "123"]})
        assert EventBus(client, "fleet").publish(["1", "2", "3"]) == ["", "ThrottlingException: slower", ""]


def test_a_request_without_an_answer_leaves_the_rest_unasked(client: Any) -> None:
    details = [f"{n}" for n in range(25)]
    with Stubber(client) as stubber:
        taken = {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}] * 10}
        stubber.add_response("put_events", taken, {"Entries": [entry(each) for each in details[:10]]})
        stubber.add_client_error("put_events", "InternalException", http_status_code=500)
        answers = EventBus(client, "fleet").publish(details)
        stubber.assert_no_pending_responses()
    assert answers[:10] == [""] * 10
    assert len(answers) == 25
    assert all("InternalException" in answer for answer in answers[10:])


def test_nothing_to_publish_asks_nobody(client: Any) -> None:
    with Stubber(client):
        assert EventBus(client, "fleet").publish([]) == []
