"""The connection to SQL: one for SQLite, whose file one process owns; transactions; migrations."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from sqlalchemy import QueuePool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from crosscut.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

MIGRATIONS = Path(__file__).parent / "migrations"

MIGRATION_LOCK = 0x63726F7373
"""Of `pg_advisory_xact_lock`: several processes may start at once."""


class Database:
    """Transactions over one URL: `sqlite:///path` or `postgresql+psycopg://…`. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Open it, making or bringing up to date its tables; StorageError when that cannot be."""
        self.sqlite = url.startswith("sqlite")
        self._engine = _open(url, sqlite=self.sqlite)
        with _storage_errors():
            self._migrate()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction, committed at the end; on SQLite nobody else has one meanwhile."""
        with _storage_errors(), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._engine.begin() as connection:
            if not self.sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _open(url: str, *, sqlite: bool) -> Engine:
    if not sqlite:
        return create_engine(url, pool_pre_ping=True)
    # One connection: no "database is locked", and safe from the WAL-reset bug of SQLite up to 3.51.2.
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=60,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-16000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if "disk is full" in str(error.orig):
            raise StorageError(
                "The disk is full: free some space, or set CROSSCUT_DATA_DIR to a folder on a larger disk.",
                code="disk_full",
                retryable=True,
                detail=str(error),
            ) from error
        raise _unusable(error) from error
    except DBAPIError as error:
        raise _unusable(error) from error


def _unusable(error: DBAPIError) -> StorageError:
    return StorageError(
        "The database cannot be used at the moment: look at the log, its disk and its server.",
        code="database_unusable",
        retryable=True,
        detail=str(error.orig),
    )
