"""The deployment's event bus, behind `ports.Bus`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from fleetcap import keys, limits

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

_ENVELOPE_BYTES: Final = len(f"{keys.EVENT_SOURCE}{keys.EVENT_DETAIL_TYPE}".encode())


class EventBus:
    """ports.Bus on an EventBridge bus."""

    def __init__(self, client: EventBridgeClient, name: str) -> None:
        self._client = client
        self._name = name

    def publish(self, details: Sequence[str]) -> list[str]:
        """A request without an answer ends it: what is unreachable now would only use up the function's time."""
        answers: list[str] = []
        for batch in batches(details):
            try:
                answers += self._put(batch)
            except (BotoCoreError, ClientError) as error:
                return answers + [repr(error)] * (len(details) - len(answers))
        return answers

    def _put(self, batch: Sequence[str]) -> list[str]:
        about = {"EventBusName": self._name, "Source": keys.EVENT_SOURCE, "DetailType": keys.EVENT_DETAIL_TYPE}
        answer = self._client.put_events(Entries=[{**about, "Detail": detail} for detail in batch])  # type: ignore[typeddict-item]
        return [
            f"{entry['ErrorCode']}: {entry.get('ErrorMessage')}" if "ErrorCode" in entry else ""
            for entry in answer["Entries"]
        ]


def batches(details: Sequence[str]) -> Iterator[list[str]]:
    """In order, as many to a request as EventBridge takes. One that is too large by itself is alone, to be refused."""
    batch: list[str] = []
    batch_bytes = 0
    for detail in details:
        entry_bytes = len(detail.encode()) + _ENVELOPE_BYTES
        full = len(batch) == limits.PUT_EVENTS_ENTRIES or batch_bytes + entry_bytes >= limits.PUT_EVENTS_MAX_BYTES
        if batch and full:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(detail)
        batch_bytes += entry_bytes
    if batch:
        yield batch
