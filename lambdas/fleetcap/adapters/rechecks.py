"""Word to intake that jobs should be judged anew, because a parent of theirs has ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleetcap import keys, limits

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class SqsRechecks:
    """ports.Rechecks on the intake queue."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def recheck(self, dependents: Sequence[str]) -> None:
        """Some keys a message, and a message a request: a job with thousands of dependents needs seconds for it."""
        for start in range(0, len(dependents), limits.RECHECK_KEYS):
            some = list(dependents[start : start + limits.RECHECK_KEYS])
            self._client.send_message(QueueUrl=self._queue_url, MessageBody=json.dumps({keys.RECHECK: some}))
