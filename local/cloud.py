"""The embedded cloud's life: an AWS emulator, a process-backed Fargate and the proxy before both, started as one.

Everything of one cloud lives in one directory and carries that directory in the environment variable FLEETCAP_CLOUD,
children's children included. So a cloud whose launcher was killed is swept away by the mark, never by a stale process
id, and two clouds side by side cannot touch each other. Everything listens on 127.0.0.1 only.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, NamedTuple, Self

import boto3
import psutil
import urllib3
from botocore.config import Config

MARK: Final = "FLEETCAP_CLOUD"
HOST: Final = "127.0.0.1"
REGION: Final = "us-east-1"
ROOT: Final = Path(__file__).resolve().parent.parent
START_S: Final = 60
STOP_S: Final = 20
START_TRIES: Final = 2


class CloudError(Exception):
    """The embedded cloud cannot do what was asked; one sentence that says why and what to do."""


class NotUp(CloudError):
    """There is no embedded cloud of this name, not even a half-made one."""


@dataclass(frozen=True)
class Endpoints:
    """Where a running cloud answers, and the credentials of its root user (the emulator's, good for nothing else).

    `aws` is the proxy, which stands for all of AWS; `ecs` is the process-backed Fargate's own address, for its knobs.
    """

    aws: str
    ecs: str
    ca_bundle: str

    def environment(self) -> dict[str, str]:
        """What any AWS client needs in its environment to talk to this cloud."""
        return {
            "AWS_ENDPOINT_URL": self.aws,
            "AWS_CA_BUNDLE": self.ca_bundle,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
        }

    def client(self, service: str, actor: str = "onlooker") -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        """A root client of this cloud, recorded under the name of its user."""
        return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION).client(  # type: ignore[call-overload]  # noqa: S106
            service,
            endpoint_url=self.aws,
            verify=self.ca_bundle,
            config=Config(  # type: ignore[call-arg]  # the stubs do not know user_agent_appid yet
                signature_version="s3v4" if service == "s3" else None,
                max_pool_connections=32,
                user_agent_appid=actor,
            ),
        )


class Marked(NamedTuple):
    """A process that carries a cloud's mark. `server` is the name of one that the cloud itself started, or empty."""

    pid: int
    parent: int
    command: str
    server: str = ""


class Cloud:
    """One embedded cloud in one directory: a context manager that holds the directory, and in it `start`."""

    def __init__(self, directory: Path, cold_start_s: float, in_use: str = "An embedded cloud is up already") -> None:
        self.directory = directory.resolve()
        self._in_use = in_use
        self.cold_start_s = cold_start_s
        self._lock: IO[str] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._names: dict[int, str] = {}

    def __enter__(self) -> Self:
        """Take the directory for this process, and sweep what a killed predecessor left there."""
        self._lock = self._locked()
        (self.directory / "cloud.json").unlink(missing_ok=True)
        sweep(self.directory)
        for name in ("tmp", "fargate"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
            (self.directory / name).mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """What a helper process of this cloud is started with, so that it is found and swept like all others."""
        return {**os.environ, MARK: str(self.directory), "TMPDIR": str(self.directory / "tmp")}

    def marked(self) -> list[Marked]:
        """Every process of this cloud that lives now, whoever started it."""
        found: list[Marked] = []
        for process in _marked(str(self.directory)):
            with _gone_is_fine(), process.oneshot():
                command, server = " ".join(process.cmdline()), self._names.get(process.pid, "")
                found.append(Marked(process.pid, process.ppid(), command, server))
        return found

    def start(self) -> Endpoints:
        """Start everything and wait until it answers. A port that somebody else took meanwhile is chosen anew."""
        for _ in range(START_TRIES - 1):
            try:
                return self._start()
            except CloudError:
                self._end_servers()  # and no sweep: what else carries the mark is at work for this cloud
        return self._start()

    def _start(self) -> Endpoints:
        proxy_port, emulator_port, fargate_port = _free_ports(3)
        ca_bundle = self._certificates()
        emulator = f"http://{HOST}:{emulator_port}"
        endpoints = Endpoints(f"https://{HOST}:{proxy_port}", f"http://{HOST}:{fargate_port}", str(ca_bundle))
        self._start_emulator(emulator_port, endpoints)
        self._wait_until_up("emulator", f"{emulator}/_ministack/health", ca_bundle)
        self._start_fargate(fargate_port, emulator, endpoints)
        self._wait_until_up("fargate", f"{endpoints.ecs}/_fleetcap/meter", ca_bundle)
        self._start_proxy(proxy_port, emulator, endpoints)
        self._wait_until_up("proxy", f"{endpoints.aws}/_fleetcap/recording", ca_bundle)
        return endpoints

    def announce(self, endpoints: Endpoints, outputs: Mapping[str, str]) -> None:
        """Let `attach` find this cloud, now that it is complete."""
        known = {"launcher_pid": os.getpid(), **asdict(endpoints), "outputs": dict(outputs)}
        _write_json(self.directory / "cloud.json", known)

    def stop(self) -> None:
        """Stop the tasks in order, then whatever carries the mark: nothing in the emulator is worth a slow farewell.

        Whoever asks a second time meanwhile has to wait, or processes would stay behind.
        """
        with _undisturbed():
            (self.directory / "cloud.json").unlink(missing_ok=True)
            self._end_servers()
            sweep(self.directory)
            shutil.rmtree(self.directory / "tmp", ignore_errors=True)
            if self._lock:
                self._lock.close()
                self._lock = None

    def _end_servers(self) -> None:
        """The Fargate in order, so that it stops its tasks; then each server with all of its group."""
        for process in reversed(self._processes[1:]):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        for process in self._processes:
            if process.poll() is None:  # else its number may be anybody's by now
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()
        self._names.clear()

    def _locked(self) -> IO[str]:
        """Hold the directory for this process; the system lets go of it when the process dies, however it dies."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = (self.directory / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise CloudError(f"{self._in_use} in {self.directory}; end that one first.") from None
        return lock

    def _certificates(self) -> Path:
        """A fresh authority and a server certificate for the loopback address."""
        import trustme  # whose cryptography takes as long to load as all else that is needed to reach a cloud

        tls = self.directory / "tls"
        shutil.rmtree(tls, ignore_errors=True)
        tls.mkdir(mode=0o700)
        authority = trustme.CA()
        server = authority.issue_cert(HOST, "localhost")
        server.private_key_and_cert_chain_pem.write_to_path(str(tls / "server.pem"))
        authority.cert_pem.write_to_path(str(tls / "ca.pem"))
        return tls / "ca.pem"

    def _base_environment(self) -> dict[str, str]:
        """Only what is needed: the emulator hands its environment on to every Lambda process."""
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "HOME": str(self.directory / "tmp"),
            "TMPDIR": str(self.directory / "tmp"),
            "LANG": "C.UTF-8",
            MARK: str(self.directory),
        }

    def _start_emulator(self, port: int, endpoints: Endpoints) -> None:
        """Without TLS of its own: it takes the proxy's word that a call came over TLS, and its functions call there."""
        settings = {
            "AUTH": "true",
            "GATEWAY_PORT": str(port),
            "BIND_HOST": HOST,
            "MINISTACK_HOST": HOST,
            "MINISTACK_REGION": REGION,
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CA_BUNDLE": endpoints.ca_bundle,
            "AWS_ENDPOINT_URL": endpoints.aws,
        }
        command = ["-m", "hypercorn", "local.fargate.gate:app", "--bind", f"{HOST}:{port}", "--keep-alive", "75"]
        self._spawn("emulator", command, settings)

    def _start_fargate(self, port: int, emulator: str, endpoints: Endpoints) -> None:
        arguments = {
            "--port": str(port),
            "--emulator": emulator,
            "--aws": endpoints.aws,
            "--state-dir": str(self.directory / "fargate"),
            "--cold-start-s": str(self.cold_start_s),
        }
        root = endpoints.environment()
        del root["AWS_ENDPOINT_URL"]
        self._spawn("fargate", ["-m", "local.fargate", *_words(arguments)], root)

    def _start_proxy(self, port: int, emulator: str, endpoints: Endpoints) -> None:
        arguments = {
            "--port": str(port),
            "--emulator": emulator,
            "--fargate": endpoints.ecs,
            "--certificate": str(self.directory / "tls" / "server.pem"),
        }
        self._spawn("proxy", ["-m", "local.proxy", *_words(arguments)], {})

    def _spawn(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        """Start a server in a session of its own, so that a Ctrl-C at the launcher's terminal does not reach it."""
        with (self.directory / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**self._base_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        self._names[process.pid] = name

    def _wait_until_up(self, name: str, url: str, ca_bundle: Path) -> None:
        """Until the server started last answers."""
        pool = urllib3.PoolManager(ssl_context=ssl.create_default_context(cafile=ca_bundle), retries=False)
        give_up_at = time.monotonic() + START_S
        while time.monotonic() < give_up_at:
            if self._processes[-1].poll() is not None:
                raise CloudError(f"The {name} ended at once; {name}.log in {self.directory} says why.")
            with suppress(urllib3.exceptions.HTTPError):
                if pool.request("GET", url, timeout=2.0).status == HTTPStatus.OK:
                    return
            time.sleep(0.05)
        raise CloudError(f"The {name} did not answer within {START_S} s; see {name}.log in {self.directory}.")


@dataclass(frozen=True)
class Running:
    """A cloud that is up: where it answers, and its stacks' outputs."""

    launcher_pid: int
    endpoints: Endpoints
    outputs: Mapping[str, str]


def attach(directory: Path) -> Running:
    """The cloud that runs in this directory. Raises CloudError if none does, or if it is not deployed yet."""
    if not _holds_lock(directory):
        raise NotUp(f"No embedded cloud {directory.name} is up; start one with: fleetcap local up")
    try:
        known = json.loads((directory / "cloud.json").read_text())
    except FileNotFoundError:
        raise CloudError(f"The embedded cloud {directory.name} is still being deployed; try again shortly.") from None
    endpoints = Endpoints(known["aws"], known["ecs"], known["ca_bundle"])
    return Running(known["launcher_pid"], endpoints, known["outputs"])


def shut_down(directory: Path) -> bool:
    """End the cloud of this directory through its launcher, and sweep. False if there was nothing to end."""
    if not directory.is_dir():
        return False
    if not _holds_lock(directory):
        (directory / "cloud.json").unlink(missing_ok=True)
        return sweep(directory) > 0
    with suppress(psutil.NoSuchProcess):  # while the lock is held, the process id is the launcher's
        psutil.Process(attach(directory).launcher_pid).terminate()
    give_up_at = time.monotonic() + 2 * STOP_S
    while _holds_lock(directory) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    sweep(directory)
    return True


def _holds_lock(directory: Path) -> bool:
    """Whether a launcher is alive in this directory."""
    if not (directory / "lock").exists():
        return False
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def unwind_on_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP unwind this program, so that it ends what it started.

    SIGINT, too: Python leaves it alone where it was ignored when the program began, as it is below `nohup ... &`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def sweep(directory: Path) -> int:
    """Kill every process that carries this cloud's mark; how many there were. The caller itself is never among them."""
    swept = 0
    while found := list(_marked(str(directory.resolve()))):
        for process in found:
            swept += 1
            with _gone_is_fine():
                process.kill()
        psutil.wait_procs(found, timeout=5)
    return swept


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with _gone_is_fine():
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if process.pid != os.getpid() and not zombie and process.environ().get(MARK) == mark:
                yield process


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no signal cut this short."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _gone_is_fine() -> AbstractContextManager[None]:
    return suppress(psutil.NoSuchProcess, psutil.AccessDenied)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _words(options: Mapping[str, str]) -> list[str]:
    return [word for option in options.items() for word in option]


def _write_json(path: Path, value: object) -> None:
    """Write a file that is never seen half-written."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(value, indent=2))
    partial.replace(path)
