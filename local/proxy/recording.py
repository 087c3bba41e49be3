"""Who called what how often, and what DynamoDB bills for it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from local.proxy.calls import Call
from local.proxy.units import Units


@dataclass
class Account:
    """One actor's calls by `service:operation`, its units, how many calls' units nobody knows, and how many writes were
    refused by their condition."""

    requests: dict[str, int] = field(default_factory=dict)
    read_units: float = 0.0
    write_units: float = 0.0
    unknown_units: int = 0
    refused: int = 0


class Recording:
    """Counts from its beginning on. A call counts when it was carried out, whether its reply got through or not."""

    def __init__(self) -> None:
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    def add(self, call: Call, units: Units) -> None:
        """Count one call."""
        account = self._accounts[call.actor]
        account.requests[call.name] = account.requests.get(call.name, 0) + 1
        account.read_units += units.read
        account.write_units += units.write
        account.unknown_units += units.unknown
        account.refused += units.refused

    def clear(self) -> None:
        """Begin anew."""
        self._accounts.clear()

    def told(self) -> dict[str, Any]:
        """By actor, as JSON."""
        return {actor: asdict(account) for actor, account in sorted(self._accounts.items())}
