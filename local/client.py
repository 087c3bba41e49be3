"""A producer's and an onlooker's view of a deployment: send messages, read jobs, ask the Fargate's own meter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import urllib3

from fleetcap.adapters.dynamo import DynamoControlTable
from local.cloud import Endpoints

_BATCH: Final = 10


@dataclass(frozen=True)
class Meter:
    """Ground truth: what the Fargate itself saw of one task family. Never read from the table."""

    live_tasks: int
    peak_live_tasks: int
    tasks_launched: int


@dataclass
class Client:
    """One deployment, its stack outputs by name, and root access to it."""

    cloud: Endpoints
    outputs: Mapping[str, str]

    @cached_property
    def table(self) -> DynamoControlTable:
        """The control table."""
        return DynamoControlTable(self.cloud.client("dynamodb"), self.outputs["TableName"])

    @cached_property
    def sqs(self) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        """Queues."""
        return self.cloud.client("sqs")

    @cached_property
    def s3(self) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        """Buckets."""
        return self.cloud.client("s3")

    def upload(self, files: Sequence[Path]) -> list[str]:
        """Put files into the input bucket under their names; their s3:// addresses."""
        bucket = self.outputs["InputBucketName"]

        def put(path: Path) -> str:
            self.s3.upload_file(str(path), bucket, path.name)
            return f"s3://{bucket}/{path.name}"

        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(put, files))

    def send(self, messages: Iterable[Mapping[str, object] | str], threads: int = 8) -> None:
        """Send each as a message of its own to the intake queue, from several threads at once."""

        def one(message: Mapping[str, object] | str) -> None:
            body = message if isinstance(message, str) else json.dumps(message)
            self.sqs.send_message(QueueUrl=self.outputs["IntakeQueueUrl"], MessageBody=body)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, messages))

    def rejected(self) -> list[dict[str, Any]]:
        """Take what lies in the rejected queue."""
        answer = self.sqs.receive_message(QueueUrl=self.outputs["RejectedQueueUrl"], MaxNumberOfMessages=_BATCH)
        for message in answer.get("Messages", []):
            self.sqs.delete_message(QueueUrl=self.outputs["RejectedQueueUrl"], ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]

    def download(self, key: str, path: Path) -> None:
        """Fetch one artifact of the cache."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.s3.download_file(self.outputs["CacheBucketName"], key, str(path))

    def meter(self, pool: str = "default") -> Meter:
        """What the Fargate saw of this pool's tasks."""
        family = json.loads(self.outputs["WorkerTaskDefinitionArns"])[pool].rpartition("/")[2].partition(":")[0]
        families = self._fargate("GET", "meter")["by_family"]
        return Meter(**families[family]) if family in families else Meter(0, 0, 0)

    def tasks(self) -> list[dict[str, Any]]:
        """Every task that the Fargate knows."""
        return list(self._fargate("GET", "meter")["tasks"])

    def kill(self, arn: str) -> None:
        """kill -9 the main process of a task."""
        self._fargate("POST", "kill", {"arn": arn})

    def _fargate(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        answer = urllib3.request(method, f"{self.cloud.ecs}/_fleetcap/{path}", json=body, timeout=10.0)
        return dict(answer.json())
