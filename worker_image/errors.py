"""What a job's error may say: one sentence under a stable prefix, without the paths of the machine it ran on."""

from __future__ import annotations

import re
from typing import Final

from fleetcap import limits

ADDRESS_OR_PATH: Final = re.compile(
    r"(?P<address>\b(?:s3|https?)://[^\s?]+)(?:\?\S*)?|(?<![\w./~-])/[^\s'\",;:()<>|]*[^\s'\",;:()<>|.]"
)
"""An address, whose query may hold a signature; or a path from the root on, which is no slash between words."""


class TransientError(Exception):
    """The world failed, not the input: the same job may well succeed later. The text is one plain sentence."""


def scrubbed(text: str, max_chars: int = limits.ERROR_MAX_CHARS) -> str:
    """One line without absolute paths and the queries of addresses, cut to length."""
    line = " ".join(ADDRESS_OR_PATH.sub(lambda found: found["address"] or "(path)", text).split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"
