"""The variations of a job as rows: pages of them, chosen by state and clip, and the whole manifest."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crosscut.errors import DeliverError
from crosscut.report import linked
from crosscut.store import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crosscut.destinations import Destination, Linker
    from crosscut.previews import Previews
    from crosscut.store import Store
    from crosscut.studio import Studio
    from crosscut.units import JobRecord, Output

ROWS_AT_ONCE = 1_000
EVERYTHING = 10**9
"""More than any page."""

LOOKED_AT = 2_000
"""Variations one look at a filtered list goes through; a page may end before it is full."""

Page = tuple[list[dict[str, Any]], int | None]
"""Rows, and the index after which the next page begins, None at the end."""


class Listing:
    """One job's variations; `row` is the job's (see `reading.LIGHT`), `record` is asked for its documents."""

    def __init__(
        self,
        store: Store,
        previews: Previews,
        row: Any,
        record: Callable[[], JobRecord],
        places: Callable[[str], Destination] | None = None,
    ) -> None:
        """`places` opens the place of the job, where links to files are asked for."""
        self._store = store
        self._previews = previews
        self._row = row
        self._record = record
        self._places = places
        self._link: Linker | None = None

    def page(self, state: str | None, clip: str | None, after: int, limit: int) -> Page:
        if not self._row.edition:
            return [], None
        with self._studio() as studio:
            # What failed for want of a clip has no row of its own.
            if clip is None and (state == "done" or (state == "failed" and not self._row.doomed)):
                return self._recorded(studio, state == "done", after, limit)
            return self._looked_through(studio, state, clip, after, limit)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The manifest's."""
        if not self._row.edition:
            return
        broken = self._store.read(lambda db: reading.broken(db, self._row.id))
        with self._studio() as studio:
            rows = studio.rows(self._outputs(), stopped=self._row.state == "cancelled", broken=broken)
            yield from map(dict, linked(rows, self._link))

    @contextlib.contextmanager
    def _studio(self) -> Iterator[Studio]:
        with self._previews.studio(self._row.id, self._row.edition, self._record) as studio:
            days = studio.plan.request.link_days
            if days and self._places:
                # Rows without links are better than none: the credentials may be on the machines that deliver alone.
                with contextlib.suppress(DeliverError):
                    place = self._places(self._row.destination)
                    self._link = place.linker(self._row.folder, timedelta(days=days))
            yield studio

    def _outputs(self) -> Iterator[Output]:
        after = 0
        while page := self._page_of(after):
            yield from page
            after = page[-1].index

    def _page_of(self, after: int) -> list[Output]:
        found: list[Output] = self._store.read(lambda db: reading.page(db, self._row.seq, after, ROWS_AT_ONCE))
        return found

    def _recorded(self, studio: Studio, good: bool, after: int, limit: int) -> Page:
        found = self._store.read(lambda db: reading.page(db, self._row.seq, after, limit + 1, good=good))
        shown = [self._told(studio, one.index, one, None) for one in found[:limit]]
        return shown, found[limit - 1].index if len(found) > limit else None

    def _looked_through(self, studio: Studio, state: str | None, clip: str | None, after: int, limit: int) -> Page:
        grid = studio.plan.grid
        most = min(self._row.total, len(grid))
        last = min(most, after + (limit if state is None and clip is None else LOOKED_AT))

        def look(db: Any) -> tuple[list[Output], dict[tuple[int, int, int], str]]:
            return reading.page(db, self._row.seq, after, EVERYTHING, until=last), reading.broken(db, self._row.id)

        outputs, broken = self._store.read(look)
        by_index = {one.index: one for one in outputs}
        wanted = None if clip is None else studio.places_of(clip)
        shown: list[dict[str, Any]] = []
        for index in range(after + 1, last + 1):
            stage, position, target = grid.place(index)
            places = tuple(enumerate(grid.combination(stage, position)))
            if wanted is not None and wanted.isdisjoint(places):
                continue
            problem = next((broken[target, *place] for place in places if (target, *place) in broken), None)
            output = by_index.get(index)
            if state is None or state == self._state(output, problem):
                shown.append(self._told(studio, index, output, problem))
            if len(shown) == limit:
                return shown, index if index < most else None
        return shown, last if last < most else None

    def _state(self, output: Output | None, problem: str | None) -> str:
        if output is not None:
            return "failed" if output.error else "done"
        if problem is not None:
            return "failed"
        return "cancelled" if self._row.state == "cancelled" else "queued"

    def _told(self, studio: Studio, index: int, output: Output | None, problem: str | None) -> dict[str, Any]:
        told = dict(next(iter(linked([studio.row(index, output)], self._link))))
        told |= {"file": told.pop("name"), "state": self._state(output, problem)}
        return told if output is not None or problem is None else told | {"error": problem}
