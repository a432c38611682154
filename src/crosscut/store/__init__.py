"""Durable state in SQL: the queue and the truth. One `Store` for SQLite and PostgreSQL; each call is a transaction."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, update

from crosscut.errors import CrosscutError
from crosscut.grid import Grid
from crosscut.store import batches, fleet, jobs, leasing, outcomes, places, planning, queue, reading, results
from crosscut.store.database import Database
from crosscut.store.jobs import Submission, Submitted
from crosscut.store.options import Options
from crosscut.store.schema import documents
from crosscut.store.schema import jobs as job_table
from crosscut.wants import request_of, wants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from crosscut.fields import Event
    from crosscut.store.schema import AnyRow
    from crosscut.units import Found, JobRecord, Lane, Outcome, Output, Unit
    from crosscut.wants import Want

__all__ = ["Options", "Store", "Submission", "Submitted"]

_EDITION = select(job_table.c.edition).where(job_table.c.id == bindparam("at"))
_GRID = select(documents.c.grid).where(documents.c.job == bindparam("at"))

WANTED_AT_ONCE = 50
"""Preparations put into the queue in one transaction."""

GRIDS_KEPT = 256
ROWS_KEPT = 3_000_000
"""Rows of selections held in memory, for all jobs together."""


def _free(_job: str, _destination: str, _folder: str) -> bool:
    return True


class Store:
    """Implements `units.Ledger`. Thread-safe; raises StorageError where the database fails.

    On SQLite one process owns the file. `clock` gives seconds of the epoch; default: the database's.
    """

    def __init__(
        self,
        url: str,
        options: Options | None = None,
        clock: Callable[[], float] | None = None,
        *,
        newer: bool = False,
    ) -> None:
        """`options` may be replaced at any time. `newer`: see `Database`."""
        self.options = options or Options()
        self.database = Database(url, newer=newer)
        self.clock = clock or self.database.clock
        self._grids: OrderedDict[tuple[str, int], Grid] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        self.database.close()

    # For those who work: units.Ledger

    def start(self, unit: int, attempt: int, worker: str) -> Unit | None:
        with self.database.begin() as db:
            return queue.start(db, unit, attempt, worker, self.clock(), self.options.lease_seconds)

    def beat(self, unit: int, attempt: int, fraction: float = 0.0) -> bool:
        with self.database.begin() as db:
            return queue.beat(db, unit, attempt, fraction, self.clock(), self.options.lease_seconds)

    def finish(self, unit: int, attempt: int, outcome: Outcome) -> bool:
        with self.database.begin() as db:
            return results.finish(db, unit, attempt, outcome, self._grid_of(db), self.options, self.clock())

    def job(self, job: str) -> JobRecord | None:
        with self.database.begin() as db:
            row = reading.whole(db, job, None)
            return jobs.record_of(row) if row else None

    def found(self, job: str) -> list[Found]:
        with self.database.begin() as db:
            return reading.found(db, job)

    def earlier(self, job: str, indexes: Sequence[int]) -> dict[int, Output]:
        with self.database.begin() as db:
            return reading.earlier(db, job, indexes)

    def outputs(self, job: str, after: int, limit: int) -> list[Output]:
        with self.database.begin() as db:
            row = reading.owned(db, job, None, [job_table.c.seq])
            return reading.page(db, row.seq, after, limit) if row else []

    # For the scheduler

    def admit(self) -> None:
        """Let waiting jobs in, as long as there is room."""
        while True:
            with self.database.begin() as db:
                row = jobs.next_in(db, self.options.admitted)
            if row is None:
                return
            record = jobs.record_of(row)
            try:
                # Reading a large request takes a while: not while others wait for the database.
                wanted = [want for want in wants(record, request_of(record)) if self._is_wanted(want, row.mode)]
            except CrosscutError as error:
                with self.database.begin() as db:
                    jobs.fail(db, record.id, error.public, self.clock())
                continue
            self._let_in(record.id, wanted)

    def _is_wanted(self, want: Want, mode: str) -> bool:
        """A plan spends nothing: what it would pay for is estimated."""
        return mode != "plan" or want.kind != "speech" or self.options.free_speech

    def _let_in(self, job: str, wanted: Sequence[Want]) -> None:
        """In several transactions: others wait for the database."""
        for start in range(0, len(wanted), WANTED_AT_ONCE):
            with self.database.begin() as db:
                some = wanted[start : start + WANTED_AT_ONCE]
                if not planning.want(db, job, some, self.options, self.clock()):
                    return
        with self.database.begin() as db:
            planning.let_in(db, job)

    def take_places(self, claim: Callable[[str, str, str], bool] = _free) -> None:
        """Give free places to the jobs that wait for them; `claim` (job, destination, folder) keeps others out."""
        with self.database.begin() as db:
            waiting = places.contenders(db)
        # Asking the destination takes a while: not while others wait for the database.
        claimed = [job.id for job in waiting if claim(job.id, job.destination, job.folder)]
        if claimed:
            with self.database.begin() as db:
                for job in claimed:
                    places.hold(db, job)

    def holders(self) -> set[str]:
        """Jobs that have a place."""
        with self.database.begin() as db:
            return places.holders(db)

    def advance(self) -> None:
        """Fold what has ended, draw plans, cut batches, end jobs; each in a transaction of its own."""
        folded = True
        while folded:
            with self.database.begin() as db:
                folded = outcomes.fold(db, self.clock())
        with self.database.begin() as db:
            planning.gathered(db, self.options, self.clock())
        with self.database.alone("cut") as db:
            if db is not None:
                batches.cut(db, self._grid_of(db), self.options, self.clock())
        with self.database.begin() as db:
            planning.ending(db, self.options, self.clock())

    def lease(self, lane: Lane, room: Callable[[int, int], int]) -> list[tuple[int, int]]:
        """Hand out some units of `lane`: (unit, attempt), none when nothing waits or there is no room.

        `room` says how many more there may be, from how many are queued and running.
        """
        most = self.options.most_in_hand(lane)
        # One at a time over all schedulers: turns, and how much is out, are for all of them together.
        with self.database.alone(f"lease {lane}") as db:
            return (
                leasing.lease(db, lane, room, self.clock(), self.options.sent_seconds, most) if db is not None else []
            )

    def reap(self, waiting: Callable[[Lane], int | None] = lambda _lane: None) -> list[str]:
        """Take back what was lost; the workers that are silent or hung, to be ended.

        `waiting` tells how many messages of a lane nobody has taken yet, None where nobody knows.
        """
        with self.database.begin() as db:
            overdue = queue.overdue(db, self.clock())
        # As long as a message waits for each of them nothing is lost. To ask takes a while: others want the database.
        lost = [lane for lane, units in overdue.items() if (there := waiting(lane)) is None or there < units]
        with self.database.begin() as db:
            if resent := sum(queue.expired(db, lane, self.clock()) for lane in lost):
                outcomes.add(db, {("units", "resent"): resent})
            planning.rearm(db, lambda job: jobs.record_of(reading.whole(db, job, None)), self.options, self.clock())
            silent = results.silent(db, self._grid_of(db), self.options, self.clock())
            return silent + queue.hung(db, self.clock())

    def died(self, worker: str) -> None:
        """A worker's process is gone."""
        with self.database.begin() as db:
            results.died(db, worker, self._grid_of(db), self.options, self.clock())

    def give_back(self, worker: str) -> None:
        """A worker was stopped by us: what it had in hand is ready again."""
        with self.database.begin() as db:
            queue.give_back(db, worker, self.clock())

    def decline(self, unit: int, attempt: int) -> None:
        """A unit was handed out to somebody who cannot begin it."""
        with self.database.begin() as db:
            queue.decline(db, unit, attempt, self.clock())

    # For a cluster

    def report(self, station: str, lane: Lane, at_once: int, busy: int, problem: str | None) -> list[str]:
        """A station lives; the workers that it is to end."""
        with self.database.begin() as db:
            return fleet.report(db, station, lane, at_once, busy, problem, self.clock())

    def leave(self, station: str) -> None:
        with self.database.begin() as db:
            fleet.leave(db, station)

    def stations(self) -> list[AnyRow]:
        """Those that live: name, lane, at_once, busy, problem."""
        with self.database.begin(haste=True) as db:
            return fleet.heard(db, self.clock())

    def condemn(self, worker: str) -> None:
        """Have a worker ended by its station."""
        with self.database.begin() as db:
            fleet.condemn(db, [worker], self.clock())

    def bury(self) -> None:
        """Remove what dead stations have left; to be called every minute or so."""
        with self.database.begin() as db:
            fleet.forget(db, self.clock())

    # For whoever is the only one

    def all_back(self) -> None:
        """At the start of the only process that hands out work."""
        with self.database.begin() as db:
            queue.all_back(db, self.clock())
            places.free_all(db)

    def abandon(self) -> None:
        """End all jobs as they are; what they made stays known to later ones into the same place."""
        with self.database.begin() as db:
            jobs.abandon(db, self.clock())

    def unannounced(self) -> list[tuple[str, Event]]:
        with self.database.begin() as db:
            return reading.unannounced(db)

    def announce(self, job: str, event: Event, payload: Mapping[str, Any] | None) -> None:
        """Note that an event is told, and queue its webhook, if it is wanted."""
        told = {"failure_told": True} if event == "job.first_failure" else {"end_told": True}
        with self.database.begin() as db:
            changed = db.execute(
                update(job_table).where(job_table.c.id == job, ~job_table.c[next(iter(told))]).values(**told)
            ).rowcount
            if changed and payload is not None:
                allowed = self.options.allowed("webhook")
                queue.put(db, [queue.unit_row("webhook", job, payload, self.clock(), allowed=allowed)])

    # For owners

    def submit(self, wanted: Submission) -> Submitted:
        with self.database.begin(haste=True) as db:
            return jobs.submit(db, wanted, self.clock())

    def owned(self, job: str, owner: str | None) -> AnyRow | None:
        """The job's row, None when it is not that owner's."""
        with self.database.begin(haste=True) as db:
            return reading.owned(db, job, owner)

    def whole(self, job: str, owner: str | None) -> AnyRow | None:
        """The job's row with its documents, None when it is not that owner's."""
        with self.database.begin(haste=True) as db:
            return reading.whole(db, job, owner)

    def version(self, job: str, owner: str | None) -> int | None:
        with self.database.begin(haste=True) as db:
            row = reading.owned(db, job, owner, [job_table.c.version])
            return row.version if row else None

    def edition(self, job: str, owner: str | None) -> int | None:
        with self.database.begin(haste=True) as db:
            row = reading.owned(db, job, owner, [job_table.c.edition])
            return row.edition if row else None

    def cancel(self, job: str) -> bool:
        with self.database.begin(haste=True) as db:
            return jobs.cancel(db, job, self.clock())

    def retry(self, job: str) -> dict[str, int] | None:
        """None: it has not come to rest yet."""
        with self.database.begin(haste=True) as db:
            row = db.execute(select(job_table).where(job_table.c.id == job).with_for_update()).one()
            return jobs.retry(db, row, self.clock()) if row.phase == "ended" else None

    def extend(self, job: str, edition: int, addition: Mapping[str, Any], total: int) -> bool:
        """False: it changed since it was looked at, or is not at a point where it can grow."""
        with self.database.begin(haste=True) as db:
            row = db.execute(reading.entire().where(job_table.c.id == job).with_for_update(of=job_table)).one()
            if row.edition != edition or row.phase not in ("make", "ended") or row.state == "cancelled":
                return False
            jobs.extend(db, row, addition, total)
            return True

    def remove(self, job: str) -> None:
        with self.database.begin(haste=True) as db:
            row = reading.owned(db, job, None)
            if row is not None:
                jobs.remove(db, row)

    def supersede(self, job: str) -> None:
        """Forget what earlier jobs made in the same place as far as this one made it anew."""
        with self.database.begin(haste=True) as db:
            row = reading.owned(db, job, None)
            if row is not None:
                jobs.supersede(db, row)

    def read(self, look: Callable[[Connection], Any]) -> Any:
        """Several look-ups of `reading` or `access` in one transaction."""
        with self.database.begin(haste=True) as db:
            return look(db)

    # Grids are immutable for an edition of the plan

    def _grid_of(self, db: Connection) -> Callable[[str], Grid]:
        def grid_of(job: str) -> Grid:
            edition = db.execute(_EDITION, {"at": job}).scalar_one()
            return self._grid(job, edition, lambda: db.execute(_GRID, {"at": job}).scalar_one())

        return grid_of

    def _grid(self, job: str, edition: int, text: Callable[[], str]) -> Grid:
        with self._lock:
            known = self._grids.get((job, edition))
            if known is None:
                known = self._grids[job, edition] = Grid.of(json.loads(text()))
            self._grids.move_to_end((job, edition))
            while len(self._grids) > 1 and self._heavy():
                self._grids.popitem(last=False)
        return known

    def _heavy(self) -> bool:
        rows = sum(grid.weight for grid in self._grids.values())
        return len(self._grids) > GRIDS_KEPT or rows > ROWS_KEPT
