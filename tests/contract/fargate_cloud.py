"""A cloud of its own for tests: the emulator and the process-backed Fargate, as processes on free loopback ports."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import boto3
import psutil
import pytest
import trustme
from botocore.config import Config
from botocore.exceptions import ClientError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
ADMIN: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
BASE: Final = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
NETWORK: Final = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
MARK: Final = f"test-fargate-{os.getpid()}"
COLD_START_S: Final = 0.2
SLEEP: Final = ["python", "-c", "import time; print('up', flush=True); time.sleep(60)"]


class Cloud:
    """An emulator with a cluster, roles, a queue and a rule, and the endpoint in front of its ECS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.emulator_port, self.port = free_port(), free_port()
        self.emulator_url, self.url = f"https://127.0.0.1:{self.emulator_port}", f"http://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.families = 0
        self.proxy_url = ""

    def start(self) -> None:
        cert = self._certificate()
        tmp = self.folder / "tmp"
        tmp.mkdir()
        settings = {
            "AUTH": "true", "USE_SSL": "1", "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1",
            "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0", "GATEWAY_PORT": str(self.emulator_port), "TMPDIR": str(tmp),
            "MINISTACK_SSL_CERT": cert, "MINISTACK_SSL_KEY": cert,
            "AWS_CA_BUNDLE": str(self.certificate),
        }  # fmt: skip
        serve = [
            sys.executable,
            "-m",
            "hypercorn",
            "local.fargate.gate:app",
            "--bind",
            f"127.0.0.1:{self.emulator_port}",
        ]
        self._spawn([*serve, "--certfile", cert, "--keyfile", cert], BASE | settings, "emulator.log")
        wait_for(lambda: answers(self.emulator_port))
        self._arrange()
        self.start_endpoint(self.port)

    def start_endpoint(self, port: int, cold_start_s: float = COLD_START_S) -> subprocess.Popen[bytes]:
        options = ["--port", str(port), "--emulator", self.emulator_url, "--state-dir", str(self.folder / str(port))]
        env = BASE | ADMIN | {"AWS_CA_BUNDLE": str(self.certificate), "FLEETCAP_CLOUD": MARK}
        argv = [sys.executable, "-m", "local.fargate", *options, "--cold-start-s", str(cold_start_s)]
        process = self._spawn(argv, env, "fargate.log")
        wait_for(lambda: answers(port))
        return process

    def start_proxy(self) -> str:
        """A proxy before both, for its knobs; its URL."""
        port = free_port()
        behind = ["--emulator", self.emulator_url, "--fargate", self.url]
        options = ["--port", str(port), *behind, "--certificate", str(self.folder / "server.pem")]
        self._spawn([sys.executable, "-m", "local.proxy", *options], BASE, "proxy.log")
        wait_for(lambda: answers(port))
        return f"https://127.0.0.1:{port}"

    def stop(self) -> None:
        """End the endpoints, then the emulator with its children: it would wait for our open connections."""
        emulator, *endpoints = self.processes
        for process in endpoints:
            process.terminate()
            process.wait(20)
        children = psutil.Process(emulator.pid).children(recursive=True)
        emulator.kill()
        emulator.wait(20)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def client(self, service: str, endpoint: str = "", **credentials: str) -> Any:
        keys = credentials or {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        config = Config(retries={"total_max_attempts": 1}, max_pool_connections=40)
        url, ca = endpoint or self.emulator_url, str(self.certificate)
        make: Any = boto3.Session(region_name="us-east-1").client
        return make(service, endpoint_url=url, config=config, verify=ca if url.startswith("https") else None, **keys)

    def as_role(self, *statements: dict[str, Any], secret: str = "") -> Any:
        """An ECS client with the credentials of a new role that has these statements."""
        self.families += 1
        name = f"caller-{self.families}"
        arn = self.role(name, list(statements))
        taken = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        return self.client(
            "ecs",
            self.url,
            aws_access_key_id=taken["AccessKeyId"],
            aws_secret_access_key=secret or taken["SecretAccessKey"],
            aws_session_token=taken["SessionToken"],
        )

    def role(self, name: str, statements: list[dict[str, Any]]) -> str:
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "*"}]}
        arn = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        policy = json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}
        )
        self.iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy)
        return str(arn)

    def define(self, command: list[str], family: str = "", **container: Any) -> str:
        """Register a task definition around a command; returns `family:1`."""
        self.families += 1
        family = family or f"family-{self.families}"
        own = {"name": "worker", "image": "none", "essential": True, "command": command, **container}
        self.client("ecs").register_task_definition(
            family=family, networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512",
            taskRoleArn=self.task_role, executionRoleArn=self.execution_role, containerDefinitions=[own],
        )  # fmt: skip
        return f"{family}:1"

    def run(self, definition: str, **more: Any) -> Any:
        """RunTask by the admin; returns the answer."""
        parameters = {"cluster": "fleet", "launchType": "FARGATE", "networkConfiguration": NETWORK, **more}
        return self.ecs.run_task(taskDefinition=definition, **parameters)

    def launch(self, definition: str, **more: Any) -> str:
        """RunTask by the admin; returns the ARN."""
        return str(self.run(definition, **more)["tasks"][0]["taskArn"])

    def task(self, arn: str) -> Any:
        return self.ecs.describe_tasks(cluster="fleet", tasks=[arn], include=["TAGS"])["tasks"][0]

    def reaches(self, arn: str, status: str) -> Any:
        wait_for(lambda: self.task(arn)["lastStatus"] == status)
        return self.task(arn)

    def printed(self, arn: str) -> str:
        return (self.folder / str(self.port) / "tasks" / f"{arn.rpartition('/')[2]}.log").read_text()

    def meter(self) -> Any:
        return get(f"{self.url}/_fleetcap/meter")

    def metered(self, arn: str) -> Any:
        return next(task for task in self.meter()["tasks"] if task["arn"] == arn)

    def events(self, arn: str, enough: Callable[[list[Any]], bool]) -> list[Any]:
        """The events about a task, in the order of their arrival, once there are enough."""

        def arrived() -> bool:
            for message in self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", []):
                self.inbox.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
            return enough([event for event in self.inbox if event["resources"] == [arn]])

        wait_for(arrived)
        return [event for event in self.inbox if event["resources"] == [arn]]

    def _arrange(self) -> None:
        self.iam, self.sqs, self.logs = self.client("iam"), self.client("sqs"), self.client("logs")
        self.ecs = self.client("ecs", self.url)
        self.client("ecs").create_cluster(clusterName="fleet", capacityProviders=["FARGATE", "FARGATE_SPOT"])
        self.task_role = self.role("task-role", [{"Action": "dynamodb:*", "Resource": "*"}])
        self.execution_role = self.role("execution-role", [{"Action": "logs:*", "Resource": "*"}])
        self.logs.create_log_group(logGroupName="/fleet")
        self.queue = self.sqs.create_queue(QueueName="stopped")["QueueUrl"]
        self.relayed = self.sqs.create_queue(QueueName="relayed")["QueueUrl"]
        self.inbox: list[Any] = []
        sqs = "arn:aws:sqs:us-east-1:000000000000:"
        self._rule("tasks", {"detail-type": ["ECS Task State Change"]}, sqs + "stopped")
        self._rule("nowhere", {"detail": {"group": ["lost"]}}, sqs + "missing-queue")
        self._rule("relay", {"detail": {"startedBy": [{"prefix": "relay/"}], "lastStatus": ["STOPPED"]}}, self._relay())

    def _rule(self, name: str, pattern: dict[str, Any], target: str) -> None:
        events = self.client("events")
        events.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.ecs"], **pattern}))
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": target}])

    def _relay(self) -> str:
        """A Lambda function that puts the event it gets into a queue; returns its ARN."""
        source = (
            "import boto3, json\n"
            "def handle(event, _):\n"
            f"    boto3.client('sqs').send_message(QueueUrl='{self.relayed}', MessageBody=json.dumps(event))\n"
        )
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("relay.py", source)
        role = self.role("relay-role", [{"Action": ["sqs:*", "logs:*"], "Resource": "*"}])
        created = self.client("lambda").create_function(
            FunctionName="relay",
            Runtime="python3.11",
            Role=role,
            Handler="relay.handle",
            Code={"ZipFile": packed.getvalue()},
            Timeout=15,
        )
        return str(created["FunctionArn"])

    def _certificate(self) -> str:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.certificate))
        path = self.folder / "server.pem"
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)

    def _spawn(self, argv: list[str], env: dict[str, str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(argv, env=env, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process


@contextmanager
def running_cloud(folder: Path) -> Iterator[Cloud]:
    """Start a cloud with its files in `folder`; afterwards nothing of it may be left."""
    cloud = Cloud(folder)
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.stop()
    assert not marked(MARK), "the endpoint left task processes behind"


def refused(call: Callable[[], Any]) -> Any:
    """The error that a call is refused with."""
    with pytest.raises(ClientError) as caught:
        call()
    response: Any = caught.value.response
    return response


def code(call: Callable[[], Any]) -> str:
    return str(refused(call)["Error"]["Code"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def get(url: str) -> Any:
    with urlopen(url, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def post(url: str, body: dict[str, Any]) -> Any:
    with urlopen(Request(url, json.dumps(body).encode(), method="POST"), timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def marked(mark: str) -> list[int]:
    """The processes whose environment carries the launcher's mark, apart from the endpoint itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLEETCAP_CLOUD") == mark and "local.fargate" not in process.cmdline():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
