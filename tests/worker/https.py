"""A real https server on the loopback address, vouched for under whatever names a test needs."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme


class QuietServer(ThreadingHTTPServer):
    """A client that hangs up in the middle is part of the tests, not worth a traceback."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], folder: Path, *names: str) -> Iterator[int]:
    """Its port; the authority that vouches for it under 127.0.0.1 and `names` is trusted meanwhile."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "roots.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", *names).configure_cert(context)
    with QuietServer(("127.0.0.1", 0), handler) as http, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "roots.pem"))
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield int(http.server_address[1])
        http.shutdown()
