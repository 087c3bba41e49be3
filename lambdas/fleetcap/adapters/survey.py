"""What people ask the control table: longer reads than any decider makes, and rights that none of them has."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from fleetcap import keys, limits
from fleetcap.adapters.dynamo import DynamoControlTable
from fleetcap.model import Job, JobStatus, Pool


class Found(NamedTuple):
    """Jobs, and whether they are all that there are: False where the reading was cut off."""

    jobs: list[Job]
    whole: bool


class Survey(DynamoControlTable):
    """The control table as an onlooker reads it."""

    def unended(self, pools: Iterable[Pool], most: int) -> Found:
        """Jobs that the lagging index shows as unended, as they stand now; of a pool at most `most` that do not run."""
        wanted: list[str] = []
        whole = True
        for pool in pools:
            queued = [*self.queued(pool, math.inf, most + 1), *self.waiting(pool, most + 1)]
            whole &= len(queued) <= most
            wanted += [entry.key for entry in self.running(pool)] + [entry.key for entry in queued[:most]]
        return Found(list(self.jobs(wanted).values()), whole)

    def ended(
        self,
        statuses: Collection[JobStatus],
        pool: str = "",
        items: int = limits.SURVEY_ITEMS,
        page: int = limits.SURVEY_PAGE_ITEMS,
    ) -> Found:
        """Jobs in one of these final states that a scan of at most `items` items meets; eventually consistent."""
        kept = keys.jobs_in(statuses, pool)
        found: list[Job] = []
        start: Mapping[str, Any] | None = None
        for _ in range(max(1, items // page)):
            kept_items, start = self._dynamo.scan(kept, page, start)
            found += self._legible(keys.job_from, kept_items)
            if start is None:
                return Found(found, True)
        return Found(found, False)
