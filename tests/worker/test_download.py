"""Downloads over https from a server that redirects, stalls, breaks off and lies."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fleetcap.scrub import scrubbed
from fleetcap.sources import SourceRules
from tests.worker.https import serving
from worker_image.download import Downloader
from worker_image.errors import TransientError
from worker_image.processors.base import InputError

DATA = bytes(range(256)) * 4_000


class Server(BaseHTTPRequestHandler):
    """Each path is one way in which a server can answer."""

    asked: ClassVar[list[str]] = []
    failures_left: ClassVar[int] = 0

    def do_GET(self) -> None:
        Server.asked.append(self.path)
        if self.path.startswith("/file"):
            self.answer(200, DATA)
        elif self.path == "/short":
            self.answer(200, DATA[:1_000], promised=len(DATA))
        elif self.path == "/sometimes" and not Server.failures_left:
            self.answer(200, DATA)
        elif self.path == "/sometimes":
            Server.failures_left -= 1
            self.answer(503)
        elif self.path == "/redirect":
            self.answer(302, location="/file")
        elif self.path.startswith("/to/"):
            self.answer(302, location=self.path.removeprefix("/to/"))
        elif self.path == "/loop":
            self.answer(302, location="/loop")
        else:
            self.answer(int(self.path.strip("/").partition("?")[0]))

    def answer(self, status: int, data: bytes = b"", promised: int = 0, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(promised or len(data)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its `host:port`; the authority that vouches for it is trusted for the time of the tests."""
    with serving(Server, tmp_path_factory.mktemp("tls")) as port:
        yield f"127.0.0.1:{port}"


def downloader(server: str, **settings: Any) -> Downloader:
    """One that may go to the loopback address, where a test's server has to stand."""
    return Downloader(None, [server], SourceRules(private_hosts=[server]), **settings)  # type: ignore[arg-type]


def fetch(server: str, path: str, target: Path, md5: str = "") -> list[float]:
    """Download without real pauses; returns the pauses asked for."""
    pauses: list[float] = []
    downloader(server, pause=pauses.append).fetch(f"https://{server}{path}", md5, target, lambda _: None)
    return pauses


def refusal(server: str, path: str, target: Path) -> str:
    with pytest.raises(InputError) as caught:
        fetch(server, path, target)
    return str(caught.value)


def test_a_file_comes_whole_and_gets_its_name_last(server: str, tmp_path: Path) -> None:
    told: list[float] = []
    target = tmp_path / "source"
    downloader(server).fetch(f"https://{server}/file?signature=secret", "", target, told.append)
    assert target.read_bytes() == DATA
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_redirect_within_the_allowed_hosts_is_followed(server: str, tmp_path: Path) -> None:
    assert fetch(server, "/redirect", tmp_path / "source") == []
    assert (tmp_path / "source").read_bytes() == DATA


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("https://example.org/x", "input: the host example.org is not among the allowed source hosts"),
        ("http://127.0.0.1/x", "input: the source redirects to an address that is not https"),
        ("file:///etc/hosts", "input: the source redirects to an address that is not https"),
    ],
)
def test_a_redirect_to_anywhere_else_is_refused(server: str, tmp_path: Path, target: str, sentence: str) -> None:
    assert refusal(server, f"/to/{target}", tmp_path / "source") == sentence


def test_an_allowed_host_does_not_allow_its_other_ports_or_a_name_in_front(server: str, tmp_path: Path) -> None:
    for address in (f"https://{server}@evil.example/x", f"https://user@{server}/file", "https://127.0.0.1/x"):
        with pytest.raises(InputError, match=r"not among the allowed|names a host and no user"):
            downloader(server).fetch(address, "", tmp_path / "x", print)


def test_endless_redirects_are_refused(server: str, tmp_path: Path) -> None:
    assert refusal(server, "/loop", tmp_path / "source").endswith("redirects more than 5 times")


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "does not exist"), (403, "may not be read by this worker"), (410, "was refused with status 410")],
)
def test_what_the_server_refuses_is_permanent_and_tells_no_secret(
    server: str, tmp_path: Path, status: int, reason: str
) -> None:
    sentence = refusal(server, f"/{status}?signature=secret", tmp_path / "source")
    assert sentence == f"input: the source https://{server}/{status} {reason}"
    assert scrubbed(sentence) == sentence


def test_a_server_that_recovers_is_asked_again(server: str, tmp_path: Path) -> None:
    Server.failures_left = 2
    assert fetch(server, "/sometimes", tmp_path / "source") == [0.5, 1.0]
    assert (tmp_path / "source").read_bytes() == DATA


@pytest.mark.parametrize(("path", "times"), [("/500", 4), ("/503", 4), ("/408", 4), ("/425", 4), ("/short", 5)])
def test_a_server_that_does_not_recover_is_given_up_for_now(server: str, tmp_path: Path, path: str, times: int) -> None:
    """Four tries that bring nothing new; the first of `/short` does."""
    Server.asked.clear()
    with pytest.raises(TransientError):
        fetch(server, path, tmp_path / "source")
    assert len(Server.asked) == times
    assert not (tmp_path / "source").exists()


def test_a_wrong_md5_is_permanent_and_not_asked_again(server: str, tmp_path: Path) -> None:
    Server.asked.clear()
    with pytest.raises(InputError, match="md5"):
        fetch(server, "/file", tmp_path / "source", md5="0" * 32)
    assert len(Server.asked) == 1


def test_a_full_disk_is_not_mistaken_for_a_broken_network(server: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fetch(server, "/file", tmp_path / "not-there" / "source")
