"""What errors and log lines may say: nothing that opens a door, and nothing of the machine that it was said on.

One pass of one expression over a line: whatever is an address, a path from the root on, or looks like a credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fleetcap import limits

SECRET: Final = "(secret)"  # noqa: S105 - stands where one stood
PATH: Final = "(path)"
SHORT_CHARS: Final = 8
"""Nothing below this length holds a path or a secret worth the search; most fields of a log line are that short."""

_SUSPECT: Final = re.compile(
    r"""
      (?P<file>(?<=\bfile)://[^\s"'<>]*)
    | (?P<address>://)(?:[^\s/?\#"'<>]*@)?(?P<rest>[^\s?\#"'<>]*)(?:[?\#][^\s"'<>]*)?
    | (?P<name>(?=[acpstACPST])(?i:
          secret|passwd|password|passphrase|pwd|token|signature|credential
          |(?:api|access|private)[_-]?key|authorization
      )[\w.-]{0,40}\\*["']?\s*(?:[:=]|%3D)\s*\\*(?P<quote>["'])?)
      (?(quote)[^"']{1,200}|(?:(?i:bearer|basic|token|aws4-hmac-sha256)\s+)?[^\s"',;&)}\]]+)
    | (?P<flag>(?<![\w-])--?(?:\w{1,20}-){0,2}(?i:
          secret|passwd|password|passphrase|token|credentials?|(?:api|access|private)-?key
      )\s+)[^\s-]\S*
    | (?P<bearer>\b(?:[Bb]earer|BEARER)\s+)[\w.~+/=-]{8,}
    | \bA(?:KIA|SIA|BIA|CCA|IDA|ROA|GPA|NPA)[A-Z0-9]{12,}
    | \beyJ[\w-]{8,}\.[\w.-]+
    | \b(?:gh[pousr]_|github_pat_|xox[abprs]-|sk-)[\w-]{16,}
    | \b(?:FwoG|IQoJ)[\w+/=]{40,}
    | (?<![\w/+.~-])(?=[A-Za-z0-9/+]{40}(?![\w/+=-]))
      (?=[a-z0-9/+]*[A-Z])(?=[A-Z0-9/+]*[a-z])(?=[A-Za-z/+]*\d)(?![\w/+]{0,20}[0-9a-f]{20})[A-Za-z0-9/+]{40}
    | (?P<path>(?<![\w./~-])/[^\s'",;:()<>|]*[^\s'",;:()<>|.])
    """,
    re.VERBOSE,
)
"""Addresses keep neither user nor query, where passwords and signatures live. A value goes with the name that gives it
away; without one, by its form: key ids, web tokens, session tokens, and forty mixed characters, as AWS's secrets are
(no digest is mixed). A slash between words begins no path."""


def scrubbed(text: str, max_chars: int = limits.ERROR_MAX_CHARS) -> str:
    """One line without paths, users and queries of addresses, and credentials; cut to length."""
    if len(text) < SHORT_CHARS and "/" not in text:
        return " ".join(text.split())[:max_chars]
    # Beyond four lengths nothing is shown, whatever is taken out before: a megabyte of noise costs no more than that.
    line = " ".join(_SUSPECT.sub(_harmless, text[: 4 * max_chars]).split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


def scrubbed_field(value: object) -> object:
    """A field of a log line: texts scrubbed wherever they stand in it, figures as they are, the rest as its text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return scrubbed(value, limits.LOG_FIELD_MAX_CHARS)
    if isinstance(value, Mapping):
        return {scrubbed(str(name)): scrubbed_field(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [scrubbed_field(item) for item in value]
    return scrubbed(str(value), limits.LOG_FIELD_MAX_CHARS)


def _harmless(found: re.Match[str]) -> str:
    if found["file"]:
        return ":" + PATH
    if found["address"]:
        return "://" + found["rest"]
    return PATH if found["path"] else (found["name"] or found["flag"] or found["bearer"] or "") + SECRET
