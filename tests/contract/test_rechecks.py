"""Word to intake: what is sent is what intake reads, in as few messages as may be, and a refusal is heard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from fleetcap import limits
from fleetcap.adapters.rechecks import SqsRechecks
from fleetcap.messages import to_recheck


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("sqs", region_name="us-east-1")


def received(client: Any, url: str) -> list[str]:
    bodies: list[str] = []
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        bodies += [message["Body"] for message in messages]
    return bodies


@pytest.mark.parametrize("count", [1, limits.RECHECK_KEYS, limits.RECHECK_KEYS * 10 + 1])
def test_every_key_is_in_one_message_and_intake_reads_it_there(client: Any, count: int) -> None:
    url = client.create_queue(QueueName="intake")["QueueUrl"]
    wanted = [f"{number}/".ljust(limits.WORKFLOW_KEY_MAX_CHARS - 400, "k") for number in range(count)]
    SqsRechecks(client, url).recheck(wanted)
    bodies = received(client, url)
    assert sorted(key for body in bodies for key in to_recheck(body)) == sorted(wanted)
    assert all(1 <= len(to_recheck(body)) <= limits.RECHECK_KEYS for body in bodies)
    assert len(bodies) == -(-count // limits.RECHECK_KEYS)


def test_a_message_of_the_longest_keys_is_one_that_intake_takes(client: Any) -> None:
    url = client.create_queue(QueueName="intake")["QueueUrl"]
    wanted = [f"{number}".ljust(limits.WORKFLOW_KEY_MAX_CHARS, "k") for number in range(limits.RECHECK_KEYS)]
    longest = ["/".join(key[start : start + 127] for start in range(0, 508, 127)) for key in wanted]
    SqsRechecks(client, url).recheck(longest)
    [body] = received(client, url)
    assert to_recheck(body) == longest


def test_a_queue_that_does_not_answer_is_heard_of(client: Any) -> None:
    with pytest.raises(ClientError):
        SqsRechecks(client, "https://sqs.us-east-1.amazonaws.com/123456789012/none").recheck(["a"])
