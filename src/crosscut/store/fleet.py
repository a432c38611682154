"""The machines of a cluster: who is heard, who is to end a worker, what all must know alike.

Functions over an open transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, select

from crosscut.store.bulk import insert_new, insert_or_replace
from crosscut.store.schema import condemned, stations
from crosscut.units import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from crosscut.store.schema import AnyRow
    from crosscut.units import Lane

HEARD_SECONDS = 15.0
"""Who was last heard longer ago counts as gone; its units have leases of their own."""

FORGOTTEN_SECONDS = 600.0
"""Nobody is left to carry out what was ordered longer ago."""


def report(
    db: Connection, station: str, lane: Lane, at_once: int, busy: int, problem: str | None, now: float
) -> list[str]:
    """The station lives; the names of those of its workers (`station/…`) that it is to end."""
    row = {
        "name": station, "lane": lane, "at_once": at_once, "busy": busy, "version": VERSION, "heard": now,
        "problem": problem,
    }  # fmt: skip
    insert_or_replace(db, stations, [row], ["name"])
    return list(db.scalars(_ORDERS, {"of": f"{station}/"}))


_ORDERS = (
    delete(condemned)
    .where(condemned.c.worker.startswith(bindparam("of"), autoescape=False))
    .returning(condemned.c.worker)
)


def leave(db: Connection, station: str) -> None:
    db.execute(delete(stations).where(stations.c.name == station))


def heard(db: Connection, now: float) -> list[AnyRow]:
    """Stations that live."""
    return list(db.execute(_HEARD, {"since": now - HEARD_SECONDS}))


_HEARD = select(stations).where(stations.c.heard >= bindparam("since")).order_by(stations.c.name)


def condemn(db: Connection, workers: Iterable[str], now: float) -> None:
    """Have workers ended by their stations."""
    insert_new(db, condemned, [{"worker": worker, "since": now} for worker in workers], ["worker"])


def forget(db: Connection, now: float) -> None:
    """Remove what the dead have left."""
    db.execute(delete(stations).where(stations.c.heard < now - FORGOTTEN_SECONDS))
    db.execute(delete(condemned).where(condemned.c.since < now - FORGOTTEN_SECONDS))
