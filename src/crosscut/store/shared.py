"""What the machines of a cluster share beside artifacts: notes, holds and counts, in the database."""

from __future__ import annotations

import hashlib
from math import floor
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, exists, select, update

from crosscut.commons import Commons, Inherited, Shared, Standing
from crosscut.store.bulk import insert_new, insert_or_add, insert_or_replace
from crosscut.store.clock import now
from crosscut.store.holds import LEASE_SECONDS, StoredHolds
from crosscut.store.schema import counts, notes

if TYPE_CHECKING:
    from crosscut.commons import Notes
    from crosscut.store.database import Database

MINUTE = 60.0


def commons_of(database: Database, before: Notes) -> Commons:
    """`before` are the notes of an installation that was one machine alone."""
    return Commons(
        own=Inherited(StoredNotes(database, "own"), before),
        voices=shared_by(database, "voices"),
        drive=shared_by(database, "drive"),
        counts=StoredCounts(database),
    )


def shared_by(database: Database, area: str, lease: float = LEASE_SECONDS) -> Shared:
    """What all share who have this database, for one purpose."""
    return Shared(StoredNotes(database, area), StoredHolds(database, area, lease), database.clock)


class StoredNotes:
    """Implements `commons.Notes`: a row for each note, by the SHA-256 of its area and key."""

    def __init__(self, database: Database, area: str) -> None:
        self._database = database
        self._area = area

    def get(self, key: str) -> str | None:
        with self._database.begin() as db:
            found: str | None = db.execute(_GET, {"of": self._hash(key)}).scalar()
        return found

    def has(self, key: str) -> bool:
        with self._database.begin() as db:
            return bool(db.execute(_HAS, {"of": self._hash(key)}).scalar())

    def put_once(self, key: str, value: str, instead_of: str | None = None) -> str:
        name = self._hash(key)
        while True:
            with self._database.begin() as db:
                if instead_of is not None:
                    db.execute(_REPLACE, {"of": name, "old": instead_of, "new": value})
                insert_new(db, notes, [{"key": name, "value": value}], ["key"])
                found: str | None = db.execute(_GET, {"of": name}).scalar()
            if found is not None:  # else another has forgotten it between
                return found

    def put(self, key: str, value: str, *, moment: bool = False) -> None:
        del moment  # every row lasts
        with self._database.begin() as db:
            insert_or_replace(db, notes, [{"key": self._hash(key), "value": value}], ["key"])

    def forget(self, key: str) -> None:
        with self._database.begin() as db:
            db.execute(_FORGET, {"of": self._hash(key)})

    def _hash(self, key: str) -> str:
        return hashlib.sha256(f"{self._area} {key}".encode()).hexdigest()


class StoredCounts:
    """Implements `commons.Counts`: what came in this minute and the one before, which counts less and less."""

    def __init__(self, database: Database, minute: float = MINUTE) -> None:
        """`minute` is how many seconds it has."""
        self._database = database
        self._minute = minute

    def hit(self, key: str, most: int) -> Standing:
        name = hashlib.sha256(key.encode()).hexdigest()
        with self._database.begin(haste=True) as db:
            # Where there is a row it is locked by this.
            insert_or_add(db, counts, [{"key": name, "minute": 0, "current": 0, "previous": 0}], ["key"], "current")
            row = db.execute(_COUNTED, {"of": name}).one()
            minute = floor(row.moment / self._minute)
            into = row.moment / self._minute - minute
            current = row.current if row.minute == minute else 0
            previous = {minute: row.previous, minute - 1: row.current}.get(row.minute, 0)
            allowed = previous * (1 - into) + current + 1 <= most
            current += allowed
            db.execute(_COUNT, {"of": name, "at": minute, "here": current, "before": previous})
        if row.minute != minute:
            with self._database.begin() as db:
                db.execute(_TIDY, {"since": minute - 1})
        left = max(0, floor(most - previous * (1 - into) - current))
        return Standing(allowed, left, self._minute * _wait(previous, current, into, most - left - 1))


def _wait(previous: int, current: int, into: float, room: int) -> float:
    """How many minutes it takes, `into` one, until what counts is at most `room`."""
    if current <= room:
        return max(0.0, 1 - into - (room - current) / previous) if previous else 0.0
    return 1 - into + max(0.0, 1 - max(room, 0) / current)


_GET = select(notes.c.value).where(notes.c.key == bindparam("of"))
_HAS = select(exists().where(notes.c.key == bindparam("of")))
_REPLACE = (
    update(notes)
    .where(notes.c.key == bindparam("of"), notes.c.value == bindparam("old"))
    .values(value=bindparam("new"))
)
_FORGET = delete(notes).where(notes.c.key == bindparam("of"))
_COUNTED = select(counts.c.minute, counts.c.current, counts.c.previous, now().label("moment")).where(
    counts.c.key == bindparam("of")
)
_COUNT = (
    update(counts)
    .where(counts.c.key == bindparam("of"))
    .values(minute=bindparam("at"), current=bindparam("here"), previous=bindparam("before"))
)
_LONG_PAST = select(counts.c.key).where(counts.c.minute < bindparam("since")).with_for_update(skip_locked=True)
_TIDY = delete(counts).where(counts.c.key.in_(_LONG_PAST))
