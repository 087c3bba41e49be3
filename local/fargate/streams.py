"""How a table's stream is fed to functions: as Lambda does it, in place of the emulator's own poller.

The emulator's takes every answer for a success, so that what a function reports as failed would be lost; it knows
neither `MaximumRetryAttempts` nor bisecting; and while it calls a function it feeds no queue. Here a failure that a
function reports is the checkpoint from which the stream comes again, a batch that fails from its first record on is
halved, and a record that fails alone is tried again until its retries or its age are used up; then it goes to the
mapping's failure destination, and the stream goes on.

`Cursor` and `after` are the rule; the rest reaches into the emulator as its own poller does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ministack.core.responses import _request_account_id, _request_region
from ministack.services import dynamodb, lambda_svc

from local.fargate.tasks import Json

RETRY_S: Final = 1.0
RETRIES_EXHAUSTED: Final = "RetryAttemptsExhausted"
TOO_OLD: Final = "MaxRecordAgeExceeded"


@dataclass(frozen=True)
class Cursor:
    """Where a mapping stands in the stream, how many records it takes next (0: a full batch), and its failed tries."""

    position: int
    size: int = 0
    tries: int = 0


@dataclass(frozen=True)
class After:
    """What becomes of a batch: where the mapping goes on, whether it waits first, and why the batch is given up."""

    cursor: Cursor
    wait: bool = False
    given_up: str = ""


def after(
    cursor: Cursor, places: Sequence[int], taken: int, failed: int | None, mapping: Mapping[str, Any], oldest_s: float
) -> After:
    """The next step, when of `taken` records from the cursor on those at `places` were handed to the function.

    `failed` is the number, among these, of the first that failed; None where none did. Halving is no retry.
    """
    end = cursor.position + taken
    if failed is None:
        return After(Cursor(end))
    if failed > 0:
        return After(Cursor(cursor.position + places[failed]), wait=True)
    if mapping.get("BisectBatchOnFunctionError") and len(places) > 1:
        half = places[len(places) // 2]
        return After(Cursor(cursor.position, size=half), wait=True)
    retries, age_s = int(mapping.get("MaximumRetryAttempts", -1)), int(mapping.get("MaximumRecordAgeInSeconds", -1))
    for limit, used, why in ((retries, cursor.tries, RETRIES_EXHAUSTED), (age_s, oldest_s, TOO_OLD)):
        if 0 <= limit <= used:
            return After(Cursor(end), given_up=why)
    return After(Cursor(cursor.position, cursor.size, cursor.tries + 1), wait=True)


def first_failed(numbers: Sequence[str], result: Json, reports: bool) -> int | None:
    """Which record the function's answer names as the first that failed. An error and a number unknown mean all."""
    if result.get("error"):
        return 0
    body = result.get("body")
    named = body.get("batchItemFailures") if reports and isinstance(body, dict) else None
    if not named:
        return None
    failed = {str(each.get("itemIdentifier")) for each in named}
    return min(numbers.index(number) for number in failed) if failed <= set(numbers) else 0


class Streams:
    """The mappings of DynamoDB streams: one batch of each is under way at most, off the emulator's polling thread."""

    def __init__(self) -> None:
        self._cursors: dict[str, Cursor] = {}
        self._wait_until: dict[str, float] = {}

    def poll(self) -> bool:
        """Hand over what there is. True where anything was, so that the emulator looks again at once."""
        handed_over = [self._poll(*each) for each in lambda_svc._iter_all_esms()]
        return any(handed_over)

    def _poll(self, account: str, region: str, mapping: Json) -> bool:
        tokens = _request_account_id.set(account), _request_region.set(region)
        try:
            return self._feed(mapping)
        finally:
            _request_account_id.reset(tokens[0])
            _request_region.reset(tokens[1])

    def _feed(self, mapping: Json) -> bool:
        name, arn = mapping["UUID"], mapping.get("EventSourceArn", "")
        table = _table_of(arn)
        function, _ = lambda_svc._get_func_record_for_qualifier(mapping["FunctionName"], mapping.get("Qualifier"))
        busy = name in lambda_svc._esm_inflight or time.monotonic() < self._wait_until.get(name, 0)
        if not table or function is None or busy or not mapping.get("Enabled", True):
            return False
        lambda_svc._init_stream_position(name, arn, mapping.get("StartingPosition", "LATEST"))
        cursor = self._cursors.setdefault(name, Cursor(lambda_svc._dynamodb_stream_positions[name]))
        records = dynamodb.stream_records_since(table, cursor.position, cursor.size or mapping.get("BatchSize", 100))
        if not records:
            return False
        wanted = lambda_svc._apply_filter_criteria(records, mapping)
        if not wanted:
            self._cursors[name] = Cursor(cursor.position + len(records))
            return True
        lambda_svc._dispatch_esm_batch(name, self._hand_over, mapping, function, cursor, records, wanted)
        return True

    def _hand_over(
        self, mapping: Json, function: Json, cursor: Cursor, records: list[Json], wanted: list[Json]
    ) -> None:
        result = lambda_svc._execute_function(function, {"Records": wanted})
        numbers = [record["dynamodb"]["SequenceNumber"] for record in wanted]
        failed = first_failed(numbers, result, "ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", []))
        places = [records.index(record) for record in wanted]
        oldest_s = time.time() - wanted[0]["dynamodb"]["ApproximateCreationDateTime"]
        step = after(cursor, places, len(records), failed, mapping, oldest_s)
        mapping["LastProcessingResult"] = "OK" if failed is None else "PROBLEM: Function call failed"
        if step.given_up:
            lambda_svc._send_ddb_stream_failure_record(
                mapping, function, wanted, mapping["EventSourceArn"], result, step.given_up
            )
        if step.wait:
            self._wait_until[mapping["UUID"]] = time.monotonic() + RETRY_S
        self._cursors[mapping["UUID"]] = step.cursor


def _table_of(arn: str) -> str:
    """The table of a DynamoDB stream's ARN whose stream it is still; "" for any other source."""
    if ":dynamodb:" not in arn or "/stream/" not in arn:
        return ""
    name = arn.partition(":table/")[2].partition("/stream/")[0]
    table = dynamodb._tables.get(name)
    return name if table and table.get("LatestStreamArn") == arn else ""


def take_over() -> None:
    """Feed the emulator's stream mappings from here on."""
    lambda_svc._poll_dynamodb_streams = Streams().poll
