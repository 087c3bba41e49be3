"""The rejected queue: messages that can never run, kept with the reason."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from fleetcap import limits

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class SqsRejects:
    """ports.Rejects on an SQS queue. One JSON object a message, so that body and reason stay together."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def reject(self, body: str, reason: str, message_id: str) -> None:
        raw = body.encode()
        kept = raw[: limits.REJECTED_BODY_MAX_BYTES].decode(errors="ignore")
        record = {
            "reason": reason,
            "message_id": message_id,
            "body": kept,
            "body_bytes": len(raw),
            "body_sha256": sha256(raw).hexdigest(),
            "truncated": len(raw) > limits.REJECTED_BODY_MAX_BYTES,
        }
        self._client.send_message(QueueUrl=self._queue_url, MessageBody=json.dumps(record))
