"""The container's health check: 200 while the worker serves, 503 while it drains or its loop stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def serve(healthy: Callable[[], bool], port: int) -> int:
    """Answer `GET /health` on loopback from a daemon thread; the port that was taken. `port` 0 takes any free one."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/health"
            self.send_response(404 if not known else 200 if healthy() else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass  # a check every few seconds is not worth a line

    server = ThreadingHTTPServer(("127.0.0.1", port), Health)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return int(server.server_address[1])
