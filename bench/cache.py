"""One large artifact up to the cache and back: how fast, and in how much memory. `python -m bench.cache --mib 1024`.

The S3 is the emulator on this machine, which keeps every byte in memory (three times the file's size at its peak), so
the rates compare versions of the code with each other and say nothing about AWS. The memory is that of the product.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from fleetcap.adapters.cache import S3Cache
from tests.emulator import running_emulator, s3_client

MIB_BYTES = 1024 * 1024


def main() -> None:
    """Print one line per step."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--mib", type=int, default=1_024, help="size of the artifact")
    mib = arguments.parse_args().mib
    with TemporaryDirectory() as name, running_emulator(Path(name)) as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket="cache", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        _steps(S3Cache(client, "cache"), Path(name), mib)
        client.close()


def _steps(cache: S3Cache, folder: Path, mib: int) -> None:
    large, small = folder / "large", folder / "small"
    small.write_bytes(b"1")
    with large.open("wb") as file:
        file.truncate(mib * MIB_BYTES)
    cache.commit(str(small), "small", "bench")
    list(cache.get("small"))
    before = _peak_mib()
    print(f"{'step':<22}{'seconds':>9}{'MiB/s':>9}{'peak above start, MiB':>24}")
    steps: dict[str, Callable[[], object]] = {
        "commit, in parts": lambda: cache.commit(str(large), "large", "bench", made_for=1.0),
        "commit, replacing": lambda: cache.commit(str(large), "large", "bench", made_for=2.0, since=2.0),
        "commit, standing": lambda: cache.commit(str(large), "large", "bench", made_for=2.0, since=2.0),
        "fetch to a file": lambda: cache.fetch("large", str(folder / "back")),
        "get, 64 KiB at a time": lambda: sum(map(len, cache.get("large"))),
    }
    for name, step in steps.items():
        began = time.perf_counter()
        step()
        took_s = time.perf_counter() - began
        print(f"{name:<22}{took_s:>9.2f}{mib / took_s:>9.0f}{_peak_mib() - before:>24.1f}")


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB_BYTES if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main()
