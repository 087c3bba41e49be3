"""Whether a result is what its input asked for: a whole, sorted, indexed BAM with every read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pysam
from pysam.utils import SamtoolsError


@dataclass(frozen=True)
class Verified:
    """One result compared with its input; `trouble` is empty where they agree."""

    name: str
    reads: int
    trouble: str


def verify(name: str, source: Path, result: Path) -> Verified:
    """Whether the result is a whole, sorted, indexed BAM with as many reads as its input."""
    try:
        pysam.quickcheck(str(result))
        expected = int(str(pysam.view("-c", str(source))))
        found = int(str(pysam.view("-c", str(result))))
        with pysam.AlignmentFile(str(result)) as bam:
            order = bam.header.to_dict().get("HD", {}).get("SO")
            indexed = bam.check_index()
    except (OSError, ValueError, SamtoolsError) as error:
        return Verified(name, 0, f"{name}: the result cannot be read ({error})")
    if (found, order, indexed) != (expected, "coordinate", True):
        return Verified(name, found, f"{name}: {found} of {expected} reads, order {order}, index {indexed}")
    return Verified(name, found, "")
