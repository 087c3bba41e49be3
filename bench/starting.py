"""What it takes of a processor to start a job's process, up to the point where it would look at its artifacts.

`python -m bench.starting`: a new interpreter for each, and forks of a nursery, in one run. How soon a nursery is of
use, for which a worker waits once, is told as well.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from fleetcap import stored
from fleetcap.ports import Assignment
from worker_image import child
from worker_image.children import Process, ProcessChildren, started, tended
from worker_image.nursery import Nursery
from worker_image.scratch import Directories

JOBS = 15
ANEW = "from worker_image import child; child._carry_out = lambda _: None; child.main()"


def used_s() -> float:
    """Seconds of a processor that children have used, those that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cost_s(process: Process, task: str, work: Path) -> float:
    """What one job's process used."""
    before, one = used_s(), tended(process, task, work, Directories(work.parent))
    while (report := one.report()).exit_code is None:
        time.sleep(0.002)
    assert report.failure is None, report
    return used_s() - before


def main() -> None:
    """Print both, and how they relate."""
    os.environ |= {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    child._carry_out = lambda run: None  # noqa: ARG005 - as the one it stands for
    began_at = time.perf_counter()
    nursery = Nursery()
    with tempfile.TemporaryDirectory() as base:
        settings = ProcessChildren(cache_bucket="cache", base_dir=base)._settings
        task = {**stored.told(Assignment("id", "a", 1, "s3://b/a.bam", "bam", "", {})), **settings}
        work = Path(base) / "work"
        costs: dict[str, list[float]] = {"anew": [], "forked": []}
        ready_s = 0.0
        for _ in range(JOBS):
            told = json.dumps({**task, "work_dir": str(work)})
            costs["forked"].append(cost_s(nursery.bear(), told, work))
            ready_s = ready_s or time.perf_counter() - began_at
            costs["anew"].append(cost_s(started([sys.executable, "-c", ANEW]), told, work))
    anew, forked = median(costs["anew"]), median(costs["forked"])
    print(f"{JOBS} jobs each: anew {anew:.3f} s of a processor, forked {forked:.3f} s, ratio {anew / forked:.0f}")
    print(f"the first that is forked has ended {ready_s:.2f} s after its nursery began")


if __name__ == "__main__":
    main()
