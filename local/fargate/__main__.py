"""Serve the process-backed Fargate; `python -m local.fargate --help` for the options."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import uvicorn

from local.fargate.emulator import Emulator
from local.fargate.events import Events, FaultyEvents
from local.fargate.faults import Faults
from local.fargate.fleet import Fleet
from local.fargate.logs import LogShipper
from local.fargate.metadata import Surroundings
from local.fargate.server import Server, application
from local.fargate.tasks import Registry

FLUSH_S = 2.0


def main() -> None:
    """Put the parts together, serve until SIGTERM or SIGINT, then leave no process behind."""
    parser = argparse.ArgumentParser(prog="python -m local.fargate", description="ECS with a process for every task")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--emulator", required=True, help="URL of the emulator, served by local.fargate.gate:app")
    parser.add_argument("--aws", default="", help="URL that tasks find as AWS, if it is not the emulator's")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder for the tasks' files and logs")
    parser.add_argument("--cold-start-s", type=float, default=2.0, help="seconds from PROVISIONING to RUNNING")
    options = parser.parse_args()

    emulator = Emulator(options.emulator, os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    if not emulator.has_gate():
        sys.exit(f"{options.emulator} must be served by local.fargate.gate:app, or no call could be authorized")
    events, logs, faults = Events(emulator), LogShipper(emulator.logs_client), Faults()
    registry = Registry(FaultyEvents(events, faults).take, refuses=faults.refuses)
    surroundings = Surroundings(emulator, registry, options.aws, f"http://127.0.0.1:{options.port}")
    fleet = Fleet(registry, surroundings, logs, options.state_dir, options.cold_start_s, faults)

    def close() -> None:
        fleet.close()
        events.close(FLUSH_S)
        logs.close(FLUSH_S)

    # uvicorn raises the signal that ended it once more when it is done; by then there is nothing left to do.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    app = application(Server(emulator, fleet), surroundings, close)
    uvicorn.run(
        app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )


if __name__ == "__main__":
    main()
