"""The container's command: read the settings, learn which task this is, and serve."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from tempfile import gettempdir
from types import FrameType

import urllib3

from fleetcap import keys, limits, stored, wiring
from fleetcap.adapters.system import LineLog, SystemClock
from fleetcap.model import Lease
from fleetcap.sources import SourceRules
from worker_image.children import ProcessChildren
from worker_image.health import serve
from worker_image.nursery import Nursery
from worker_image.worker import Settings, Worker


def main() -> int:
    """Run one worker until it leaves. 0: it left in order."""
    nursery = Nursery() if sys.platform == "linux" else None  # first, for there is no thread yet
    lease = Lease.parse(wiring.setting(keys.ENV_LEASE))
    settings = stored.known(Settings, json.loads(wiring.setting(keys.ENV_WORKER)))
    log = LineLog(wiring.setting(keys.ENV_METRICS, ""), lease=str(lease))
    clock = SystemClock()
    draining = _on_signals()
    children = _children(settings, nursery)
    children.settle()
    worker = Worker(
        lease, _task_arn(), settings, wiring.control_table(log), children, clock, log, lambda: bool(draining)
    )
    wanted = int(wiring.setting(keys.ENV_HEALTH_PORT, str(limits.HEALTH_PORT)))
    port = serve(lambda: worker.serving and clock.now() - worker.alive_at < limits.SILENT_S, wanted)
    log("serving", health_port=port)
    worker.run()
    return 0


def _on_signals() -> list[int]:
    """The signals received so far. The first asks the worker to leave in order, a second ends it at once."""
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return received


def _task_arn() -> str:
    """Which task this is, from the container's metadata endpoint."""
    url = wiring.setting("ECS_CONTAINER_METADATA_URI_V4")
    retries = urllib3.Retry(5, backoff_factor=0.2, status_forcelist=(500, 502, 503))
    answer = urllib3.PoolManager().request("GET", f"{url}/task", retries=retries, timeout=5.0)
    return str(answer.json()["TaskARN"])


def _children(settings: Settings, nursery: Nursery | None) -> ProcessChildren:
    return ProcessChildren(
        cache_bucket=wiring.setting(keys.ENV_CACHE_BUCKET),
        cache_prefix=wiring.setting(keys.ENV_CACHE_PREFIX, ""),
        source_hosts=sorted(wiring.source_hosts()),
        source_rules=stored.known(SourceRules, json.loads(wiring.setting(keys.ENV_SOURCE_RULES, "{}"))),
        sort_memory_mb=settings.sort_memory_mb,
        sort_threads=settings.sort_threads,
        pool=settings.pool,
        disk_gib=settings.disk_gib,
        keep_failed_dirs=settings.keep_failed_dirs,
        base_dir=Path(gettempdir()) / "fleetcap",
        nursery=nursery,
    )


if __name__ == "__main__":
    sys.exit(main())
