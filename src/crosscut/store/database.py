"""The connection to SQL: one for SQLite, whose file one process owns; transactions; migrations; what time it is."""

from __future__ import annotations

import math
import time
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import StaticPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from crosscut.errors import StorageError
from crosscut.store.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

MIGRATIONS = Path(__file__).parent / "migrations"

MIGRATION_LOCK = 0x63726F7373
"""Of `pg_advisory_xact_lock`: several processes may start at once."""

LOG_PAGES = 8_000
"""Pages, of 4 KiB, that SQLite's write-ahead log may grow to."""

PATIENCE_SECONDS = 60.0
"""How long to wait for the one connection of SQLite."""

OWNER_LOCK = 0x63726F74
"""Of `pg_try_advisory_lock`, with the schema: one engine of one machine works on a state, or those of a cluster."""

STEP_LOCK = 0x63726F75
"""Of `pg_try_advisory_xact_lock`, with the schema and step: what only one scheduler does at a time."""

CONNECTIONS = 40
"""Most connections to PostgreSQL of one process: as many as it has threads that work for the network lane, and more."""

TRANSACTION_SECONDS = 15
"""So long PostgreSQL waits for a process that is in the middle of a transaction, or for another's locks."""

CONNECT = {
    "connect_timeout": 5,
    # A cut cable is noticed within seconds, by both sides.
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "crosscut",
}
SESSION = {
    # Whoever sleeps in a transaction must not keep its rows from all others.
    "idle_in_transaction_session_timeout": f"{TRANSACTION_SECONDS}s",
    "lock_timeout": f"{TRANSACTION_SECONDS}s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}

CLOCK_SECONDS = 10.0
"""How old the comparison with the database's clock may be."""

CLOCK_DOUBT = 0.5
"""A comparison that took longer says too little."""

COLLISIONS = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATE of transactions that got into each other's way: serialization failures, deadlocks, locks not to be had."""


class Database:
    """Transactions over one URL: `sqlite:///path` or `postgresql+psycopg://…`. Thread-safe."""

    def __init__(self, url: str, *, newer: bool = False, connections: int = CONNECTIONS) -> None:
        """Open it, making or bringing up to date its tables; StorageError when that cannot be.

        `newer`: tables that newer code has brought up to date will do. At most so many `connections` are opened.
        """
        self.sqlite = url.startswith("sqlite")
        self._newer = newer
        self._ahead = 0.0
        """Seconds of the database's epoch at the zero of our monotonic clock."""
        self._compared = -math.inf
        self._engine = _open(url, connections, sqlite=self.sqlite)
        self._turns = Turns(PATIENCE_SECONDS) if self.sqlite else None
        with _storage_errors():
            self._migrate()

    @contextmanager
    def begin(self, *, haste: bool = False) -> Iterator[Connection]:
        """One transaction, committed at the end; on SQLite nobody else has one meanwhile.

        Those in `haste`, for whom somebody waits, come first.
        """
        turn = self._turns.turn(haste=haste) if self._turns else nullcontext()
        with _storage_errors(), turn, self._engine.begin() as connection:
            self._compare(connection)
            yield connection

    @contextmanager
    def alone(self, step: str) -> Iterator[Connection | None]:
        """One transaction that nobody else has for the same `step` meanwhile; None where somebody has."""
        with self.begin() as connection:
            free = self.sqlite or connection.scalar(_ALONE, {"key": STEP_LOCK, "step": step})
            yield connection if free else None

    def clock(self) -> float:
        """Seconds of the epoch as the database counts them, whatever this machine's clock shows and does."""
        return time.time() if self.sqlite else self._ahead + time.monotonic()

    def _compare(self, connection: Connection) -> None:
        """Look at the database's clock, if that was long ago."""
        asked = time.monotonic()
        if self.sqlite or asked - self._compared < CLOCK_SECONDS:
            return
        told: float = connection.scalar(_NOW)
        now = time.monotonic()
        if now - asked < CLOCK_DOUBT or self._compared < 0:
            self._ahead, self._compared = told - (asked + now) / 2, now

    @contextmanager
    def owned(self, *, shared: bool = False) -> Iterator[None]:
        """Be the only one who hands out this state's work, for the block; StorageError where another process does.

        `shared`: one of several, who let each other. The file of SQLite has its owner by a lock of whoever opens it.
        """
        if self.sqlite:
            yield
            return
        with _storage_errors():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # it is never another's, and the lock ends with it
        with closing(connection):
            with _storage_errors():
                query = _SHARED if shared else _OWNED
                if not connection.scalar(query, {"key": OWNER_LOCK}):
                    raise StorageError(
                        "another crosscut serve works on this database: stop it, or set CROSSCUT_DATABASE_URL to"
                        " another one",
                        code="state_in_use",
                    )
            yield

    def close(self) -> None:
        self._engine.dispose()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._engine.begin() as connection:
            if not self.sqlite:
                # Another's migration may take as long as it takes.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            self._compare(connection)
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                if self._newer:
                    return
                raise StorageError(
                    "this state was made by a newer crosscut: update crosscut", code="newer_state", detail=str(error)
                ) from error


_OWNED = text("SELECT pg_try_advisory_lock(:key, hashtext(current_schema()))")
_SHARED = text("SELECT pg_try_advisory_lock_shared(:key, hashtext(current_schema()))")
_ALONE = text("SELECT pg_try_advisory_xact_lock(:key, hashtext(current_schema() || :step))")
_NOW = text("SELECT extract(epoch FROM clock_timestamp())::float8")


def _open(url: str, connections: int, *, sqlite: bool) -> Engine:
    if not sqlite:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=(kept := max(1, connections // 8)),
            max_overflow=connections - kept,
            hide_parameters=True,
            connect_args=CONNECT,
        )

        @event.listens_for(engine, "connect")
        def _settle(connection: Any, _record: object) -> None:
            with connection.cursor() as cursor:
                for name, value in SESSION.items():
                    cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
            connection.commit()

        return engine
    # One connection: no "database is locked", and safe from the WAL-reset bug of SQLite up to 3.51.2.
    engine = create_engine(url, poolclass=StaticPool, hide_parameters=True, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below
        # A checkpoint makes one commit last as long as the disk takes: have few of them.
        log = f"wal_autocheckpoint={LOG_PAGES}"
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", log, "cache_size=-8000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except (PoolTimeoutError, TimeoutError) as error:
        raise _busy(str(error)) from error
    except OperationalError as error:
        if "disk is full" in str(error.orig):
            raise StorageError(
                "The disk is full: free some space, or set CROSSCUT_DATA_DIR to a folder on a larger disk.",
                code="disk_full",
                retryable=True,
                detail=str(error.orig),
            ) from error
        raise _unusable(error) from error
    except DBAPIError as error:
        raise _unusable(error) from error


def _busy(detail: str) -> StorageError:
    return StorageError(
        "The database has too much to do at the moment: try again shortly.",
        code="database_busy",
        retryable=True,
        detail=detail,
    )


def _unusable(error: DBAPIError) -> StorageError:
    if getattr(error.orig, "sqlstate", None) in COLLISIONS:
        return _busy(str(error.orig))
    return StorageError(
        "The database cannot be used at the moment: look at the log, its disk and its server.",
        code="database_unusable",
        retryable=True,
        detail=str(error.orig),
    )
