"""Serve the front door; `python -m local.proxy --help` for the options."""

from __future__ import annotations

import argparse
import os
import ssl
from pathlib import Path

from aiohttp import web

from local.proxy.server import Proxy

HOST = "127.0.0.1"
MARK = "FLEETCAP_CLOUD"


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m local.proxy", description="counts and disturbs AWS calls")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--emulator", required=True, help="URL of the emulator")
    parser.add_argument("--fargate", required=True, help="URL of the process-backed Fargate")
    parser.add_argument("--certificate", type=Path, required=True, help="PEM file with key and chain")
    options = parser.parse_args()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(options.certificate)
    proxy = Proxy(options.emulator, options.fargate, (MARK, os.environ.get(MARK, "")))
    web.run_app(
        proxy.application(),
        host=HOST,
        port=options.port,
        ssl_context=tls,
        print=None,
        access_log=None,
        shutdown_timeout=1.0,
    )


if __name__ == "__main__":
    main()
