"""The control table's items in memory: atomic writes under the very conditions that DynamoDB is sent."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from fleetcap import keys, limits
from fleetcap.adapters.control_table import READER, Reader, Reply
from local.memory.expressions import holds

Key = tuple[str, str]
T = TypeVar("T")

_PROJECTED: Final = (keys.TABLE_PK, keys.TABLE_SK, keys.OPEN_PK, keys.OPEN_RANK, *keys.OPEN_PROJECTION)


_REMEMBERED: Final = 50_000
"""How many items a reader keeps before it begins anew: a long history would keep every version of every item."""


def remembering() -> Reader:
    """A reader for items that are never changed: each is read once. It keeps what it read, so make one per store."""
    slot, job, queued, running, override = READER
    return Reader(_remembered(slot), _remembered(job), _remembered(queued), _remembered(running), _remembered(override))


def _remembered(read: Callable[[keys.Item], T]) -> Callable[[keys.Item], T]:
    known: dict[int, tuple[keys.Item, T]] = {}

    def remembered(item: keys.Item) -> T:
        found = known.get(id(item))
        if found is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            found = known[id(item)] = item, read(item)  # the item is kept too, so that its id stays its own
        return found[1]

    return remembered


class MemoryItems:
    """control_table.Items. Items are replaced, never changed, so a reader keeps what it read."""

    def __init__(self) -> None:
        self._partitions: dict[str, dict[str, keys.Item]] = {}
        self._open: dict[str, _Ranked] = {}

    def get(self, key: Mapping[str, str]) -> keys.Item | None:
        return self._partitions.get(key[keys.TABLE_PK], {}).get(key[keys.TABLE_SK])

    def batch(self, wanted: Sequence[Mapping[str, str]]) -> list[keys.Item]:
        return [item for key in wanted if (item := self.get(key))]

    def partition(self, pk: str) -> list[keys.Item]:
        found = self._partitions.get(pk, {})
        return [found[sk] for sk in sorted(found)]

    def open(self, pk: str, page: int, since: str = "") -> list[keys.Item]:
        """As far as a decision may read, at once: pages make no other difference in memory."""
        ranked = self._open.get(pk)
        if ranked is None:
            return []
        first = bisect_left(ranked.entries, since, key=lambda entry: str(entry[keys.OPEN_RANK])) if since else 0
        return ranked.entries[first : first + limits.PAGES_MAX * min(page, limits.OPEN_PAGE_ITEMS)]

    def update(self, write: keys.Write) -> Reply:
        standing = self.get(write.key)
        if not holds(write.condition, standing or {}, write.condition.values):
            return Reply(False, standing or {})
        item: dict[str, Any] = {**(standing or write.key), **write.sets}
        if write.add_strike:
            item["strikes"] = item.get("strikes", 0) + 1
        for name, amount in write.adds.items():
            item[name] += amount
        for name in write.removes:
            item.pop(name, None)
        return self._stored(write.key, standing, item)

    def put(self, put: keys.Put) -> Reply:
        standing = self.get(put.key)
        if not holds(put.condition, standing or {}, put.values):
            return Reply(False, standing or {})
        return self._stored(put.key, standing, put.item)

    def put_each(self, puts: Sequence[keys.Put]) -> None:
        for put in puts:
            self.put(put)

    def all(self) -> Iterator[keys.Item]:
        """Every item, for onlookers."""
        for found in self._partitions.values():
            yield from found.values()

    def _stored(self, key: Mapping[str, str], standing: keys.Item | None, item: keys.Item) -> Reply:
        pk, sk = key[keys.TABLE_PK], key[keys.TABLE_SK]
        self._partitions.setdefault(pk, {})[sk] = item
        if keys.OPEN_PK in item or (standing and keys.OPEN_PK in standing):
            self._index((pk, sk), standing, item)
        return Reply(True, item)

    def _index(self, key: Key, standing: keys.Item | None, item: keys.Item) -> None:
        """Bring the index to what the write made of an item that is, or was, in it. Here at once; AWS lags."""
        if standing and (old := standing.get(keys.OPEN_PK)) in self._open:
            self._open[old].pop(key)
        if new := item.get(keys.OPEN_PK):
            self._open.setdefault(new, _Ranked()).put(key, {name: item[name] for name in _PROJECTED if name in item})


class _Ranked:
    """A partition of the index, in its order at any time: a long queue is read far too often to be sorted each time."""

    def __init__(self) -> None:
        self.entries: list[keys.Item] = []
        self._order: list[tuple[str, Key]] = []
        self._ranks: dict[Key, str] = {}

    def put(self, key: Key, entry: keys.Item) -> None:
        self.pop(key)
        rank = self._ranks[key] = entry[keys.OPEN_RANK]
        place = bisect_left(self._order, (rank, key))
        self._order.insert(place, (rank, key))
        self.entries.insert(place, entry)

    def pop(self, key: Key) -> None:
        """Take the entry out, if it is there."""
        if (rank := self._ranks.pop(key, None)) is not None:
            place = bisect_left(self._order, (rank, key))
            del self._order[place], self.entries[place]
