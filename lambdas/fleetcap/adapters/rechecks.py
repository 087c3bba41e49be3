"""Word to intake that jobs should be judged anew, because a parent of theirs has ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleetcap import keys, limits

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class NotSent(Exception):
    """The queue did not take a message; the text is what it said."""


class SqsRechecks:
    """ports.Rechecks on the intake queue."""

    def __init__(self, client: SQSClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def recheck(self, dependents: Sequence[str]) -> None:
        """Some keys a message, and as many messages a request as SQS takes."""
        bodies = [json.dumps({keys.RECHECK: some}) for some in _parted(dependents, limits.RECHECK_KEYS)]
        for batch in _parted(bodies, limits.SQS_BATCH_ENTRIES):
            answer = self._client.send_message_batch(
                QueueUrl=self._queue_url,
                Entries=[{"Id": str(number), "MessageBody": body} for number, body in enumerate(batch)],
            )
            for refused in answer.get("Failed", []):
                raise NotSent(f"{refused['Code']}: {refused.get('Message', '')}")


def _parted(whole: Sequence[str], most: int) -> list[list[str]]:
    return [list(whole[start : start + most]) for start in range(0, len(whole), most)]
