"""The AWS around this endpoint: one client for each service, and a short memory for what rarely changes."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar, cast

import boto3
import urllib3
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError
from botocore.session import get_session

from local.fargate.authorization import AUTHORIZE_PATH
from local.fargate.tasks import Json

CLUSTER_KEPT_S = 5.0
DEFINITION_KEPT_S = 60.0
ROLE_SESSION_S = 3_600
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}

_T = TypeVar("_T")


@dataclass(frozen=True)
class SignedCall:
    """A request as it arrived: the signature covers headers and body, so neither is touched."""

    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An HTTP answer to hand back, `after_s` seconds from now."""

    status: int
    headers: dict[str, str]
    body: bytes
    after_s: float = 0.0


class Kept:
    """Answers remembered for some seconds. Two threads may both ask; the answers are equal."""

    def __init__(self) -> None:
        self._values: dict[object, tuple[float, Any]] = {}

    def get(self, key: object, seconds: float, load: Callable[[], _T | None]) -> _T | None:
        """The value under `key`, loaded where it is missing or old. None is not remembered."""
        until, kept = self._values.get(key, (0.0, None))
        if time.monotonic() < until:
            return cast(_T, kept)
        value = load()
        if value is not None:
            self._values[key] = (time.monotonic() + seconds, value)
        return value


def _within_aws(request: Any, **_: object) -> None:  # noqa: ANN401 - botocore's request
    """This endpoint stands for a part of AWS, whose own calls are secured; policies that ask for TLS let them pass."""
    request.headers["X-Forwarded-Proto"] = "https"


class Emulator:
    """What the endpoint needs of the emulator. Holds the admin's credentials; tasks never see them."""

    def __init__(self, url: str, region: str) -> None:
        self.url, self.region = url, region
        self.config = Config(
            max_pool_connections=64, connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2}
        )
        session = boto3.Session(region_name=region)
        session.events.register("before-sign", _within_aws)
        self.ecs = session.client("ecs", endpoint_url=url, config=self.config)
        self.events = session.client("events", endpoint_url=url, config=self.config)
        self.sqs = session.client("sqs", endpoint_url=url, config=self.config)
        self.functions = session.client("lambda", endpoint_url=url, config=self.config)
        self.sts = session.client("sts", endpoint_url=url, config=self.config)
        self._http = urllib3.PoolManager(
            maxsize=64, ca_certs=os.environ.get("AWS_CA_BUNDLE"), timeout=urllib3.Timeout(connect=3, read=30)
        )
        self._kept = Kept()
        self.account = self.sts.get_caller_identity()["Account"]

    def cluster_arn(self, reference: str) -> str:
        """The ARN that a cluster of this name would have."""
        if reference.startswith("arn:"):
            return reference
        return f"arn:aws:ecs:{self.region}:{self.account}:cluster/{reference}"

    def cluster(self, reference: str) -> Json | None:
        """The ACTIVE cluster of a name or an ARN."""

        def load() -> Json | None:
            described = self.ecs.describe_clusters(clusters=[reference])["clusters"]
            return next((dict(each) for each in described if each.get("status") == "ACTIVE"), None)

        return self._kept.get(("cluster", reference), CLUSTER_KEPT_S, load)

    def definition(self, reference: str) -> Json | None:
        """The task definition with its tags. A family without a revision is its latest, looked up every time."""

        def load() -> Json | None:
            try:
                described = self.ecs.describe_task_definition(taskDefinition=reference, include=["TAGS"])
            except ClientError as error:
                if error.response["Error"]["Code"] == "ClientException":
                    return None
                raise
            return {**described["taskDefinition"], "tags": described.get("tags", [])}

        revisioned = reference.rpartition(":")[2].isdecimal() and "/" not in reference.rpartition(":")[2]
        return self._kept.get(("definition", reference), DEFINITION_KEPT_S if revisioned else 0.0, load)

    def role_credentials(self, role_arn: str, session_name: str) -> Json:
        """Temporary credentials of a role, with `Expiration` as a datetime. Raises ClientError where it is not ours."""
        answer = self.sts.assume_role(
            RoleArn=role_arn, RoleSessionName=session_name[:64], DurationSeconds=ROLE_SESSION_S
        )
        return dict(answer["Credentials"])

    def logs_client(self, role_arn: str) -> Any:  # noqa: ANN401 - a client or, without a role, the admin's
        """A CloudWatch Logs client that acts as an execution role, for as long as it is used."""
        core = get_session()
        core.set_config_variable("region", self.region)
        if role_arn:
            core._credentials = RefreshableCredentials.create_from_metadata(  # type: ignore[attr-defined]
                self._metadata(role_arn), lambda: self._metadata(role_arn), "assume-role"
            )
        session = boto3.Session(botocore_session=core, region_name=self.region)
        session.events.register("before-sign", _within_aws)
        return session.client("logs", endpoint_url=self.url, config=self.config)

    def _metadata(self, role_arn: str) -> dict[str, str]:
        taken = self.role_credentials(role_arn, "ecs-logs")
        return {
            "access_key": taken["AccessKeyId"],
            "secret_key": taken["SecretAccessKey"],
            "token": taken["SessionToken"],
            "expiry_time": taken["Expiration"].isoformat(),
        }

    def forward(self, call: SignedCall) -> Reply:
        """Pass a call on as it is; Host is part of the signature and stays the caller's."""
        headers = {name: value for name, value in call.headers if name.lower() not in HOP_BY_HOP}
        return self._post("/", call.body, headers)

    def authorize(self, call: SignedCall, checks: Sequence[Json]) -> Reply | None:
        """None if the caller may do all of this; otherwise the refusal to hand back. See `gate`."""
        asked = {"headers": call.headers, "body": base64.b64encode(call.body).decode(), "checks": checks}
        reply = self._post(AUTHORIZE_PATH, json.dumps(asked).encode(), {"Content-Type": "application/json"})
        return None if reply.status == HTTPStatus.OK else reply

    def has_gate(self) -> bool:
        """Whether the emulator runs behind `local.fargate.gate`, without which nothing could be authorized."""
        return self._http.request("GET", self.url + AUTHORIZE_PATH, retries=False).status == HTTPStatus.NO_CONTENT

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        answer = self._http.request(
            "POST", self.url + path, body=body, headers=headers, redirect=False, retries=False, decode_content=False
        )
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        return Reply(answer.status, kept, answer.data)
