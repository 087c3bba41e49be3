"""Queues in batches: send many messages, hold what lies in a queue for a moment, and let it go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fleetcap import limits

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

BATCH: Final = 10
SEND_TRIES: Final = 4


@dataclass(frozen=True)
class Sent:
    """What became of the message of this index: its id in the queue, or why it was not sent."""

    index: int
    message_id: str
    trouble: str = ""


@dataclass(frozen=True)
class Held:
    """A message that others do not see for a while. `sent_at` is unix seconds."""

    message_id: str
    body: str
    receipt: str
    sent_at: float
    receives: int


def batches(bodies: Sequence[str]) -> Iterator[list[int]]:
    """The indices of the bodies in groups that one call can take: ten, and SQS's limit in bytes for all of them."""
    group: list[int] = []
    size = 0
    for index, body in enumerate(bodies):
        weight = len(body.encode())
        if group and (len(group) == BATCH or size + weight > limits.SQS_MESSAGE_MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(index)
        size += weight
    if group:
        yield group


def send(sqs: SQSClient, url: str, bodies: Sequence[str]) -> Iterator[Sent]:
    """Send each body as a message of its own; what became of each, as soon as it is known, in no order."""
    for group in batches(bodies):
        yield from _send_group(sqs, url, bodies, group)


def _send_group(sqs: SQSClient, url: str, bodies: Sequence[str], group: list[int]) -> Iterator[Sent]:
    """One call, and more for those that SQS itself failed to take."""
    refused: dict[int, str] = {}
    for _ in range(SEND_TRIES):
        entries: Any = [{"Id": str(index), "MessageBody": bodies[index]} for index in group]
        answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
        for taken in answer.get("Successful", []):
            yield Sent(int(taken["Id"]), taken["MessageId"])
        failed = answer.get("Failed", [])
        refused |= {int(each["Id"]): f"{each['Code']}: {each.get('Message', '')}" for each in failed}
        group = [int(each["Id"]) for each in failed if not each["SenderFault"]]
        for each in failed:
            if each["SenderFault"]:
                yield Sent(int(each["Id"]), "", refused[int(each["Id"])])
        if not group:
            return
    for index in group:
        yield Sent(index, "", refused[index])


def waiting(sqs: SQSClient, url: str) -> int:
    """About how many messages can be received from the queue."""
    name: Any = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def hold(sqs: SQSClient, url: str, for_s: int, most: int = BATCH) -> list[Held]:
    """Up to ten messages, which others do not see for `for_s` seconds. None: the queue shows none any more."""
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=min(most, BATCH),
        VisibilityTimeout=for_s,
        WaitTimeSeconds=1,  # asks all of the queue's servers, not some
        MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
    )
    return [_held(message) for message in answer.get("Messages", [])]


def _held(message: MessageTypeDef) -> Held:
    told = message.get("Attributes", {})
    return Held(
        message["MessageId"],
        message["Body"],
        message["ReceiptHandle"],
        int(told.get("SentTimestamp", 0)) / 1_000,
        int(told.get("ApproximateReceiveCount", 0)),
    )


def let_go(sqs: SQSClient, url: str, held: Sequence[Held]) -> None:
    """Show the messages to others again, at once."""
    for start in range(0, len(held), BATCH):
        group = held[start : start + BATCH]
        entries: Any = [
            {"Id": str(n), "ReceiptHandle": each.receipt, "VisibilityTimeout": 0} for n, each in enumerate(group)
        ]
        sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)


def delete(sqs: SQSClient, url: str, held: Sequence[Held]) -> None:
    """Delete the messages. One whose hold has ended meanwhile may stay; it is then seen again."""
    for start in range(0, len(held), BATCH):
        entries: Any = [
            {"Id": str(n), "ReceiptHandle": each.receipt} for n, each in enumerate(held[start : start + BATCH])
        ]
        sqs.delete_message_batch(QueueUrl=url, Entries=entries)
