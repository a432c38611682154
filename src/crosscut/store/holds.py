"""Who is at something, over all machines: leases that a thread of each process renews by the clock of the database.

No locks of a session: they would end with a connection that is handed on (pgbouncer), or last as long as one that
nobody sees to be dead.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, Integer, String, bindparam, delete, func, insert, select, text, update

from crosscut.errors import StorageError
from crosscut.store.clock import now
from crosscut.store.schema import holds

if TYPE_CHECKING:
    from crosscut.store.database import Database

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
BEATS = 4
"""Renewals in the time of a lease."""
MARGIN = 0.1
"""The last part of a lease, in which it is not renewed any more: somebody may be taking it at that very moment."""

GATE = 0x63726F76
"""Of `pg_advisory_xact_lock`, with the key: one at a time looks for a place."""


@dataclass(frozen=True)
class StoredHold:
    holds: StoredHolds
    holder: str

    def release(self) -> None:
        self.holds.give_back(self.holder)


class StoredHolds:
    """Implements `commons.Holds`. Thread-safe; not to be used across a fork."""

    poll_seconds = 0.5

    def __init__(self, database: Database, area: str, lease: float = LEASE_SECONDS) -> None:
        """`area` keeps the keys of one purpose from those of others; a holder that died is free in `lease` seconds."""
        self._database = database
        self._area = area
        self._lease = lease
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._changed = threading.Event()
        self._beating = False

    def lock(self, key: str) -> StoredHold | None:
        return self.slot(key, 1)

    def slot(self, key: str, most: int) -> StoredHold | None:
        name, holder = f"{self._area} {key}", secrets.token_hex(16)
        with self._database.begin() as db:
            if not self._database.sqlite:
                db.execute(_GATE, {"gate": GATE, "name": name})
            row = {"name": name, "holder": holder, "most": most, "lease": self._lease}
            if db.execute(_TAKE, row).first() is None:
                return None
            db.execute(_CLEAR, {"of": name})
        with self._lock:
            self._held.add(holder)
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, name="holds", daemon=True).start()
        return StoredHold(self, holder)

    def give_back(self, holder: str) -> None:
        with self._lock:
            self._held.discard(holder)
            if not self._held:
                self._changed.set()
        try:
            with self._database.begin() as db:
                db.execute(_GIVE_BACK, {"by": holder})
        except StorageError as error:
            logger.warning("a hold was left to run out: %s", error.code)

    def _beat(self) -> None:
        """Renew what this process holds, as long as that is anything."""
        while True:
            self._changed.wait(self._lease / BEATS)
            with self._lock:
                self._changed.clear()
                held = sorted(self._held)
                self._beating = bool(held)
            if not held:
                return
            try:
                with self._database.begin() as db:
                    rows: Any = {"by": held, "lease": self._lease, "margin": self._lease * MARGIN}
                    db.execute(_RENEW, rows)
            except StorageError as error:
                logger.warning("holds could not be renewed: %s", error.code)


_GATE = text("SELECT pg_advisory_xact_lock(:gate, hashtext(:name))")
_ALIVE = select(func.count()).where(holds.c.name == bindparam("name"), holds.c.until > now()).scalar_subquery()
_FREE = select(
    bindparam("name", type_=String), bindparam("holder", type_=String), now() + bindparam("lease", type_=Float)
).where(bindparam("most", type_=Integer) > _ALIVE)
_TAKE = insert(holds).from_select(["name", "holder", "until"], _FREE).returning(holds.c.holder)
_CLEAR = delete(holds).where(holds.c.name == bindparam("of"), holds.c.until <= now())
_GIVE_BACK = delete(holds).where(holds.c.holder == bindparam("by"))
_RENEW = (
    update(holds)
    .where(holds.c.holder.in_(bindparam("by", expanding=True)), holds.c.until > now() + bindparam("margin"))
    .values(until=now() + bindparam("lease"))
)
