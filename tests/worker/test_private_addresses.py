"""A source cannot lead a worker to a place that only the worker can reach: by address, by redirect, or by its name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fleetcap.sources import SourceRules, is_public
from tests.worker.https import serving
from worker_image.download import Downloader
from worker_image.errors import TransientError
from worker_image.processors.base import InputError

NAME, OTHER = "data.example.org", "inside.example.org"
LOOPBACK, PUBLIC, METADATA = "127.0.0.1", "93.184.215.14", "169.254.169.254"


class Server(BaseHTTPRequestHandler):
    """Answers whoever reaches it, and remembers them."""

    reached: ClassVar[list[str]] = []
    location: ClassVar[str] = ""

    def do_GET(self) -> None:
        Server.reached.append(self.headers["Host"])
        redirects = self.path == "/redirect"
        self.send_response(302 if redirects else 200)
        if redirects:
            self.send_header("Location", Server.location)
        self.send_header("Content-Length", "0" if redirects else "5")
        self.end_headers()
        self.wfile.write(b"" if redirects else b"hello")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(Server, tmp_path_factory.mktemp("tls"), NAME, OTHER) as number:
        yield number


@pytest.fixture(autouse=True)
def _nobody_was_there() -> None:
    Server.reached.clear()


class Names:
    """A resolver whose answers are written by the test: each call takes the next, and the last one stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): texts for name, texts in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        answers = self.answers[host]
        texts = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for text in texts for found in socket.getaddrinfo(text, port, type=socket.SOCK_STREAM)]


def downloader(port: int, names: Callable[..., Any], private: list[str] | None = None) -> Downloader:
    hosts = [f"{host}:{port}" for host in (NAME, OTHER, LOOPBACK)]
    rules = SourceRules(private_hosts=private or [])
    return Downloader(None, hosts, rules, pause=lambda _: None, resolve=names)  # type: ignore[arg-type]


def refusal(downloader: Downloader, address: str, folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        downloader.fetch(address, "", folder / "source", lambda _: None)
    assert not (folder / "source").exists()
    return str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "100.64.0.1", "169.254.169.254", "169.254.170.2", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7",
        "203.0.113.9", "192.88.99.1", "224.0.0.251", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "3fff::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::169.254.169.254",
        "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378::1", "100::1",
        "2600::1%eth0", "", "localhost", "0x7f.1", "2130706433",
    ],
)  # fmt: skip
def test_what_is_not_the_public_internet_is_told_apart(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.215.14", "1.1.1.1", "100.128.0.1", "172.32.0.1", "2600:9000::1", "2a00:1450::1", "::ffff:1.1.1.1",
     "64:ff9b::101:101"],
)  # fmt: skip
def test_what_is_public_stays_so(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", [LOOPBACK, METADATA, "10.0.0.5", "fd00:ec2::254", "::ffff:127.0.0.1"])
def test_a_name_that_stands_at_a_private_address_is_refused(port: int, tmp_path: Path, address: str) -> None:
    names = Names(data_example_org=[[address]])
    sentence = refusal(downloader(port, names), f"https://{NAME}:{port}/x", tmp_path)
    assert sentence == f"input: the host {NAME}:{port} stands at an address that is not public"
    assert (names.asked, Server.reached) == ([NAME], [])


def test_one_private_address_among_public_ones_is_enough(port: int, tmp_path: Path) -> None:
    names = Names(data_example_org=[[PUBLIC, LOOPBACK]])
    refusal(downloader(port, names), f"https://{NAME}:{port}/x", tmp_path)
    assert Server.reached == []


def test_a_name_allowed_to_be_private_is_reached_under_its_own_certificate(port: int, tmp_path: Path) -> None:
    names = Names(data_example_org=[[LOOPBACK]], inside_example_org=[[LOOPBACK]])
    allowed = downloader(port, names, private=[f"{NAME}:{port}"])
    allowed.fetch(f"https://{NAME}:{port}/x", "", tmp_path / "source", lambda _: None)
    assert ((tmp_path / "source").read_bytes(), Server.reached) == (b"hello", [f"{NAME}:{port}"])
    (tmp_path / "source").unlink()
    assert "not public" in refusal(allowed, f"https://{OTHER}:{port}/x", tmp_path)


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address that was dialled; the public one is not there to be reached."""
    places: list[str] = []
    connect = socket.socket.connect

    def noting(self: socket.socket, place: Any) -> None:
        places.append(place[0])
        if place[0] == PUBLIC:
            raise ConnectionRefusedError
        connect(self, place)

    monkeypatch.setattr(socket.socket, "connect", noting)
    return places


def test_a_name_that_changes_its_mind_never_leads_inside(port: int, tmp_path: Path, dialled: list[str]) -> None:
    """First the public address, to pass the check, and from then on loopback, where a server waits."""
    names = Names(data_example_org=[[PUBLIC], [LOOPBACK]])
    sentence = refusal(downloader(port, names), f"https://{NAME}:{port}/x", tmp_path)
    assert sentence.endswith("stands at an address that is not public")
    # Asked once a connection: what was looked at is what was dialled.
    assert (dialled, names.asked, Server.reached) == ([PUBLIC], [NAME, NAME], [])


def test_a_name_is_resolved_once_for_a_connection(port: int, tmp_path: Path, dialled: list[str]) -> None:
    names = Names(data_example_org=[[PUBLIC]])
    with pytest.raises(TransientError):
        downloader(port, names).fetch(f"https://{NAME}:{port}/x", "", tmp_path / "source", lambda _: None)
    assert len(names.asked) == len(dialled) == 4


def test_the_next_address_is_tried_where_one_does_not_answer(port: int, tmp_path: Path, dialled: list[str]) -> None:
    names = Names(data_example_org=[[PUBLIC, LOOPBACK]])
    allowed = downloader(port, names, private=[f"{NAME}:{port}"])
    allowed.fetch(f"https://{NAME}:{port}/x", "", tmp_path / "source", lambda _: None)
    assert (dialled, Server.reached) == ([PUBLIC, LOOPBACK], [f"{NAME}:{port}"])


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("https://{other}:{port}/x", "the host {other}:{port} stands at an address that is not public"),
        ("https://{loopback}:{port}/x", "is an address, which private_source_hosts does not name"),
        ("https://169.254.169.254/latest", "the host 169.254.169.254 is not among the allowed source hosts"),
        ("https://[::1]:{port}/x", "is not among the allowed source hosts"),
        ("https://u:p@{name}:{port}/x", "names a host and no user"),
        ("http://{name}:{port}/x", "redirects to an address that is not https"),
    ],
)
def test_a_redirect_leads_nowhere_else_either(port: int, tmp_path: Path, location: str, sentence: str) -> None:
    values = {"name": NAME, "other": OTHER, "loopback": LOOPBACK, "port": port}
    Server.location = location.format(**values)
    names = Names(data_example_org=[[LOOPBACK]], inside_example_org=[[LOOPBACK]])
    allowed = downloader(port, names, private=[f"{NAME}:{port}"])
    assert sentence.format(**values) in refusal(allowed, f"https://{NAME}:{port}/redirect", tmp_path)
    assert Server.reached == [f"{NAME}:{port}"]


def test_an_address_for_a_host_must_be_named_as_private(port: int, tmp_path: Path) -> None:
    address = f"https://{LOOPBACK}:{port}/x"
    sentence = refusal(downloader(port, socket.getaddrinfo), address, tmp_path)
    assert sentence == f"input: the host {LOOPBACK}:{port} is an address, which private_source_hosts does not name"
    allowed = downloader(port, socket.getaddrinfo, private=[f"{LOOPBACK}:{port}"])
    allowed.fetch(address, "", tmp_path / "source", lambda _: None)


def test_a_certificate_for_another_name_is_refused(port: int, tmp_path: Path) -> None:
    host = f"elsewhere.example.org:{port}"
    names = Names(elsewhere_example_org=[[LOOPBACK]])
    rules = SourceRules(private_hosts=[host])
    mistaken = Downloader(None, [host], rules, pause=lambda _: None, resolve=names)  # type: ignore[arg-type]
    with pytest.raises(TransientError, match="SSL"):
        mistaken.fetch(f"https://{host}/x", "", tmp_path / "source", lambda _: None)
    assert Server.reached == []


def test_no_variable_of_the_environment_diverts_a_download(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    allowed = downloader(port, Names(data_example_org=[[LOOPBACK]]), private=[f"{NAME}:{port}"])
    allowed.fetch(f"https://{NAME}:{port}/x", "", tmp_path / "source", lambda _: None)
    assert Server.reached == [f"{NAME}:{port}"]


def test_a_host_without_an_address_may_have_one_later(tmp_path: Path) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    lost = Downloader(None, [NAME], pause=lambda _: None, resolve=unknown)  # type: ignore[arg-type]
    with pytest.raises(TransientError, match="broke off"):
        lost.fetch(f"https://{NAME}/x", "", tmp_path / "source", lambda _: None)
