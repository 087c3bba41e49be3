"""Which deployment a command talks to: an embedded cloud of this folder, or the stacks of an account.

A person's own credentials do what the commands do; nothing is granted for them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final

import boto3
import typer
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

from cli.clouds import checked_name, state
from fleetcap import catalog, keys, stored
from fleetcap.adapters.cache import S3Cache
from fleetcap.adapters.survey import Survey
from fleetcap.model import Pool
from local.cloud import CloudError, NotUp, attach
from stacks.config import NAME, Config

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

APP_ID: Final = "fleetcap-cli"
DEFAULT_CLOUD: Final = "default"
DEFAULT_STACK: Final = "fleetcap"
_CAPITAL: Final = re.compile(r"(?<=.)(?=[A-Z])")
PARTS: Final = ("State", "Worker", "Control")
"""The stacks whose outputs a command may need."""


class Failed(Exception):
    """A command could not do what was asked; one sentence for whoever asked. The exit code is 1."""


def _checked_stack(stack: str | None) -> str | None:
    if stack is not None and not NAME.fullmatch(stack):
        raise typer.BadParameter("a deployment's name is up to 32 small letters, digits and hyphens, a letter first")
    return stack


CloudName = Annotated[
    str | None,
    typer.Option(
        "--name",
        callback=lambda name: None if name is None else checked_name(name),
        help="An embedded cloud; without this and --stack, the one named default if it is up.",
    ),
]
StackName = Annotated[
    str | None,
    typer.Option("--stack", callback=_checked_stack, help="A deployment in the account of your AWS credentials."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@dataclass(frozen=True)
class Target:
    """One deployment: its name in a sentence, its stacks' outputs, and clients with the rights of who asks."""

    told: str
    outputs: Mapping[str, str]
    make_client: Callable[[str], Any]
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        """The client of a service, made once."""
        if service not in self._made:
            self._made[service] = self.make_client(service)
        return self._made[service]

    def output(self, name: str) -> str:
        """An output of the stacks. Raises Failed where they have none of this name."""
        if name not in self.outputs:
            raise Failed(f"{self.told} has no output {name}: other stacks than this version's; deploy them anew")
        return self.outputs[name]

    @property
    def s3(self) -> S3Client:
        """Buckets."""
        client: S3Client = self.client("s3")
        return client

    @property
    def sqs(self) -> SQSClient:
        """Queues."""
        client: SQSClient = self.client("sqs")
        return client

    @property
    def logs(self) -> CloudWatchLogsClient:
        """Log groups."""
        client: CloudWatchLogsClient = self.client("logs")
        return client

    @cached_property
    def table(self) -> Survey:
        """The control table."""
        return Survey(self.client("dynamodb"), self.output("TableName"), _tell)

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """What the intake function is told in its environment: whatever it accepts is to be accepted here as well."""
        known = self.client("lambda").get_function_configuration(FunctionName=self.output("IntakeFunctionName"))
        variables: Mapping[str, str] = known["Environment"]["Variables"]
        return variables

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The pools by name."""
        return {pool["name"]: stored.known(Pool, pool) for pool in json.loads(self.settings[keys.ENV_POOLS])}

    @property
    def source_hosts(self) -> frozenset[str]:
        """The hosts from which https sources are taken."""
        return frozenset(filter(None, self.settings.get(keys.ENV_SOURCE_HOSTS, "").split(",")))

    @property
    def cache_prefix(self) -> str:
        """What leads the cache's keys in its bucket: empty, or text that ends in a slash."""
        return self.settings.get(keys.ENV_CACHE_PREFIX, "")

    @cached_property
    def cache(self) -> S3Cache:
        """The cache of results."""
        return S3Cache(self.s3, self.output("CacheBucketName"), self.cache_prefix)

    def log_groups(self) -> dict[str, str]:
        """The log group of every decider and of the workers, by who writes there."""
        groups = {"worker": self.output("WorkerLogGroupName")}
        for name, function in self.outputs.items():
            decider, found, _ = name.partition("FunctionName")
            if found:
                known = self.client("lambda").get_function_configuration(FunctionName=function)
                groups[_CAPITAL.sub("_", decider).lower()] = known["LoggingConfig"]["LogGroup"]
        return groups


def _tell(event: str, **fields: object) -> None:
    """What the table has to say beside its answers is for whoever asked, and no part of the output."""
    typer.echo(f"{event}: {fields['error']}", err=True)


@contextmanager
def reached(name: str | None, stack: str | None) -> Iterator[Target]:
    """The deployment that is meant. Whatever AWS refuses there is told as one sentence that names it."""
    if name and stack:
        raise typer.BadParameter("an embedded cloud or a deployment, not both", param_hint="--name, --stack")
    target = find(name, stack)
    try:
        catalog.declare(target.settings.get(keys.ENV_PROCESSORS, ""))  # its own processors are known from here on
        yield target
    except (BotoCoreError, ClientError) as error:
        raise Failed(f"{target.told}: {said(error)}") from error
    except keys.Unreadable as error:
        raise Failed(f"{target.told}: {error}") from error
    except BrokenPipeError:  # whoever read our output has enough
        raise
    except OSError as error:
        raise Failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}") from error


def said(error: BotoCoreError | ClientError) -> str:
    """What went wrong with a call, in AWS's words where it has any."""
    if isinstance(error, ClientError):
        told = error.response["Error"]
        return f"{told.get('Message') or told.get('Code', 'no reason given')} ({error.operation_name})"
    return str(error).rstrip(".")


def find(name: str | None, stack: str | None) -> Target:
    """The embedded cloud of this name or the deployment of this one; of neither, the default ones in this order.

    Raises Failed where there is none.
    """
    if stack:
        return deployed(stack)
    try:
        return embedded(name or DEFAULT_CLOUD)
    except NotUp as none_up:
        if name:
            raise Failed(str(none_up)) from none_up
    except CloudError as error:  # one that is only half up must not send the command to an account instead
        raise Failed(str(error)) from error
    try:
        return deployed(DEFAULT_STACK)
    except Failed as error:
        raise Failed(f"no embedded cloud {DEFAULT_CLOUD} is up in this folder, and {error}") from error


def embedded(name: str) -> Target:
    """The embedded cloud of this name. Raises CloudError if none is up."""
    running = attach(state() / "local" / name)
    return Target(
        f"the embedded cloud {name}", running.outputs, lambda service: running.endpoints.client(service, APP_ID)
    )


def deployed(stack: str) -> Target:
    """The deployment of this name, as the SDK's usual settings reach it. Raises Failed where there is none."""
    try:
        session = boto3.Session()

        def make(service: str) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
            return session.client(service, config=_config(service))  # type: ignore[call-overload]

        told = f"the deployment {stack} in {os.environ.get('AWS_ENDPOINT_URL') or session.region_name}"
        formation = make("cloudformation")
        outputs: dict[str, str] = {}
        for part in PARTS:
            answer = formation.describe_stacks(StackName=Config(name=stack).stack(part))
            outputs |= {each["OutputKey"]: each["OutputValue"] for each in answer["Stacks"][0].get("Outputs", [])}
    except (BotoCoreError, ClientError) as error:
        raise Failed(f"the deployment {stack} cannot be reached: {said(error)}") from error
    return Target(told, outputs, make)


def _config(service: str) -> ClientConfig:
    """Patient, because a person waits; S3 is asked in the one way of signing that every region and emulator checks."""
    return ClientConfig(  # type: ignore[call-arg]  # the stubs do not know user_agent_appid yet
        retries={"mode": "standard", "max_attempts": 4},
        signature_version="s3v4" if service == "s3" else None,
        max_pool_connections=32,
        user_agent_appid=APP_ID,
    )
