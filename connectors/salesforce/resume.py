"""What earlier runs left behind, and what of it this one goes on with.

A run that was killed, that failed or that had to stop leaves the directories of its objects with their journals. The next pull takes
over each that began where it would begin itself: from the same committed watermark, with the same query, in the same API version,
no longer ago than Salesforce keeps results. Everything else is given up and its jobs are closed.

What is taken over is older than this run. So it is topped up: asked once more for what changed since it began, less the overlap,
as an ordinary increment would be. An object that the warehouse knew before and that is read whole anew (sync --full, a new field) counts
only when that has been done: other runs may have loaded it meanwhile, and a whole reading of last week would undo them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta

from connectors.landing import Landing, LeftOver
from connectors.salesforce import bulk
from connectors.salesforce.client import Client
from connectors.salesforce.landed import Landed, Reading
from connectors.salesforce.objects import SObject
from connectors.salesforce.schema import Selection

KEEP = timedelta(days=7)  # jobs and their results live as long (Bulk API 2.0); the log of deletions reaches back twice as far

Say = Callable[[str], None]


class Earlier:
    """The work of earlier runs of one source, while this run takes it over."""

    def __init__(self, client: Client, landing: Landing, say: Say) -> None:
        self.client, self.landing, self.say = client, landing, say
        self._left: dict[str, list[LeftOver]] = {}
        for left in landing.left_behind():
            self._left.setdefault(left.object, []).append(left)
        self._given_up: list[tuple[LeftOver, Landed]] = []
        self._gone_on: list[tuple[SObject, Landed]] = []

    def whole_anew(self) -> set[str]:
        """Objects that an earlier run began to read whole although the warehouse knew them."""
        names = set()
        for name, lefts in self._left.items():
            journals = (Landed.resume(left.directory) for left in lefts if not (left.loaded and left.finished))
            if any(landed and landed.whole and landed.base for landed in journals):
                names.add(name)
        return names

    def claim(self, spec: SObject, selection: Selection, lower: datetime | None, base: datetime | None) -> Landed | None:
        """What there is of the reading of `spec` that would begin now, moved into this run; None when all of it must be read.

        selection, lower, base: what would be asked for, from when on, and the committed watermark. What is there of another attempt
        to read the object whole is left for who makes that attempt; the rest is given up.
        """
        found: Landed | None = None
        for left in self._left.pop(spec.name, []):
            landed = Landed.resume(left.directory)
            if landed is None:
                self._remove(left)
            elif found is None and self._may_go_on(left) and self._fits(landed, spec, selection, lower, base):
                found = landed
                found.directory = self.landing.adopt(left)
                self._settle(found, selection)
            elif lower is None or not self._is_another_attempt(left, landed):
                left.give_up()
                self._given_up.append((left, landed))
        if found:
            self._gone_on.append((spec, found))
            self.say(f"{spec.name}: going on where an earlier run stopped, {sum(r.rows for r in found.readings):,} records are there")
        return found

    def close(self) -> None:
        """Close the jobs of what was given up, and remove it. What cannot be closed now is tried again by the next run."""
        for lefts in self._left.values():  # what is read beside an object is always read anew; an object that is not read has no use
            self._given_up += [(left, landed) for left in lefts if (landed := Landed.resume(left.directory))]
        for spec, landed in self._gone_on:
            bulk.close(self.client, spec, landed)  # of readings that came to their end before the job could be closed
        for left, landed in self._given_up:
            landed.let_all_go()
            bulk.close(self.client, SObject(left.object, of=left.object.split(".")[0]), landed)
            if not landed.loose:
                self._remove(left)
        self.landing.tidy()

    def _remove(self, left: LeftOver) -> None:
        if not (left.loaded and left.finished):  # else it is the record of what was loaded
            shutil.rmtree(left.directory, ignore_errors=True)

    def _may_go_on(self, left: LeftOver) -> bool:
        return not (left.loaded and left.finished) and not left.outdated

    def _fits(self, landed: Landed, spec: SObject, selection: Selection, lower: datetime | None, base: datetime | None) -> bool:
        first, last = landed.readings[0], landed.reading
        return (
            landed.whole == (lower is None)
            and (landed.whole or landed.base == base)
            and first.since == lower
            and self._is_young(first)
            and all(r.version == self.client.version and r.wanted == selection.soql(r.since) for r in landed.readings)
            and landed.check()
            and (len(landed.readings) > 1 or last.done or self._can_go_on(last, spec))
        )

    def _can_go_on(self, reading: Reading, spec: SObject) -> bool:
        """Whether there is a job or a next page, of an API that the configuration still wants."""
        api = self.client.settings.api
        return reading.under_way and not (reading.job and api == "rest") and not (reading.job is None and api == "bulk" and spec.bulk)

    def _settle(self, landed: Landed, selection: Selection) -> None:
        """A reading that had not even begun, or that nobody can go on with, is dropped when others stand before it."""
        if not landed.reading.done and not self._can_go_on(landed.reading, selection.spec):
            landed.drop_last()

    def _is_young(self, reading: Reading) -> bool:
        now = self.client.server_time
        return now is None or reading.started is None or now - reading.started < KEEP

    def _is_another_attempt(self, left: LeftOver, landed: Landed) -> bool:
        return landed.whole and landed.base is not None and not (left.loaded and left.finished) and self._is_young(landed.readings[0])


def asked(selection: Selection, reading: Reading) -> Selection:
    """`selection` as it was asked for in the end, after refused parts were left away."""
    for name in reading.dropped:
        selection = selection.without(name)
    if not reading.filtered:
        selection = selection.unfiltered()
    return selection.without_bin() if reading.operation == "query" and selection.operation == "queryAll" else selection
