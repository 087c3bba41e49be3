"""Somebody who hears of jobs, as anybody may: by a rule of their own on the deployment's bus, and a queue behind it."""

from __future__ import annotations

import json
from typing import Any, Final

from fleetcap import keys
from local.client import Client

NAME: Final = "chaos"
_BATCH: Final = 10


class Listener:
    """Hears every event from now on. The queue keeps them until somebody takes them."""

    def __init__(self, client: Client) -> None:
        self._sqs, events = client.sqs, client.cloud.client("events")
        self._url = self._sqs.create_queue(QueueName=NAME)["QueueUrl"]
        asked = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])
        bus, pattern = client.outputs["EventBusName"], {"source": [keys.EVENT_SOURCE]}
        events.put_rule(Name=NAME, EventBusName=bus, EventPattern=json.dumps(pattern))
        target = {"Id": "queue", "Arn": asked["Attributes"]["QueueArn"]}
        events.put_targets(Rule=NAME, EventBusName=bus, Targets=[target])
        self.heard: list[dict[str, Any]] = []
        """The details, in the order in which they came."""

    def hear(self) -> None:
        """Take what has come since."""
        while got := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=_BATCH).get("Messages"):
            self.heard += [json.loads(message["Body"])["detail"] for message in got]
            done = [{"Id": str(number), "ReceiptHandle": each["ReceiptHandle"]} for number, each in enumerate(got)]
            self._sqs.delete_message_batch(QueueUrl=self._url, Entries=done)
