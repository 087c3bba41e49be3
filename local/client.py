"""A view of a deployment from outside: send messages, read jobs, ask the Fargate's own meter, order faults."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import urllib3

from fleetcap.adapters.dynamo import DynamoControlTable
from local.cloud import CloudError, Endpoints
from local.fargate.faults import ACTS, KINDS
from local.fargate.tasks import family_of
from local.proxy.faults import KINDS as CALL_KINDS
from local.proxy.recording import Account

_BATCH: Final = 10
_FARGATE: Final = "ecs"
_PROXY: Final = "aws"
_SERVERS: Final[Mapping[str, Collection[str]]] = {_FARGATE: {*KINDS, *ACTS}, _PROXY: {*CALL_KINDS}}
"""The servers with faults to order, as fields of Endpoints, and which kinds and acts are theirs."""


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

    @cached_property
    def _http(self) -> urllib3.PoolManager:
        return urllib3.PoolManager(ca_certs=self.cloud.ca_bundle)

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

    def family(self, pool: str) -> str:
        """The task definition family of a pool."""
        definitions = json.loads(self.outputs["WorkerTaskDefinitionArns"])
        if pool not in definitions:
            raise CloudError(f"There is no pool {pool!r}; there are {', '.join(definitions)}.")
        return family_of(definitions[pool])

    def meter(self, pool: str = "default") -> Meter:
        """What the Fargate saw of this pool's tasks."""
        families, family = self._ask(_FARGATE, "GET", "meter")["by_family"], self.family(pool)
        return Meter(**families[family]) if family in families else Meter(0, 0, 0)

    def tasks(self) -> list[dict[str, Any]]:
        """Every task that the Fargate knows."""
        return list(self._ask(_FARGATE, "GET", "meter")["tasks"])

    def fault(
        self,
        kind: str,
        *,
        times: int | None = None,
        share: float = 1.0,
        seconds: float = 0.0,
        pool: str = "",
        seed: int | None = None,
        text: str = "",
        actor: str = "",
        operation: str = "",
        pid: int = 0,
    ) -> int:
        """Let a fault stand from now on; its id.

        The kinds and what they take: `local.fargate.faults`, and for calls that go wrong (which alone take an actor, an
        operation and a process) `local.proxy.faults`.
        """
        fault = {"kind": kind, "times": times, "share": share, "seconds": seconds, "seed": seed, "text": text}
        fault |= {"actor": actor, "operation": operation, "pid": pid or None}
        fault["family"] = self.family(pool) if pool else ""
        given = {name: value for name, value in fault.items() if value not in (None, "")}
        return int(self._ask(_server(kind), "POST", "faults", given)["id"])

    def faults(self) -> list[dict[str, Any]]:
        """The standing faults: the fields of each, and `id`, `struck` and `left`."""
        return [fault for server in _SERVERS for fault in self._ask(server, "GET", "faults")]

    def calm(self) -> int:
        """Clear all standing faults; how many there were."""
        return sum(self._ask(server, "DELETE", "faults")["cleared"] for server in _SERVERS)

    def act(self, act: str, arn: str, seconds: float | None = None) -> None:
        """Do something to one task at once: hang, resume, spot, kill."""
        self._ask(_server(act), "POST", f"tasks/{act}", {"arn": arn, "seconds": seconds})

    def kill(self, arn: str) -> None:
        """kill -9 the main process of a task."""
        self.act("kill", arn)

    def recording(self) -> dict[str, Account]:
        """What every actor asked of AWS since the beginning, or the last `record_anew`, by its name."""
        return {actor: Account(**told) for actor, told in self._ask(_PROXY, "GET", "recording").items()}

    def record_anew(self) -> None:
        """Begin the recording anew."""
        self._ask(_PROXY, "DELETE", "recording")

    def _ask(self, server: str, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401
        """Turn a knob of a server; its answer. Raises CloudError with the sentence that the server gives."""
        url = f"{getattr(self.cloud, server)}/_fleetcap/{path}"
        try:
            answer = self._http.request(method, url, json=body, timeout=10.0, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise CloudError(f"The embedded cloud does not answer at {url}: {error}") from error
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise CloudError(f"The embedded cloud failed at {url} with status {answer.status}.")
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise CloudError(answer.json()["message"])
        return answer.json()


def _server(kind: str) -> str:
    """Who carries out a kind of fault or act; an unknown one is for the Fargate to refuse."""
    return next((server for server, kinds in _SERVERS.items() if kind in kinds), _FARGATE)
