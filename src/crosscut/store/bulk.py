"""Many rows at once, where some may be there already: what SQLite and PostgreSQL both can, in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table


def insert_new(db: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str]) -> None:
    """Insert those whose `key` columns are new."""
    if rows:
        db.execute(_insert(db, table).on_conflict_do_nothing(index_elements=key), rows)


def insert_or_replace(db: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str]) -> None:
    """Insert all; of rows with the same `key` columns the new one stays."""
    if rows:
        statement = _insert(db, table)
        fresh = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
        db.execute(statement.on_conflict_do_update(index_elements=key, set_=fresh), rows)


def insert_or_add(
    db: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str], column: str
) -> None:
    """Insert all; where there is a row with the same `key` columns, what is in `column` is added to it."""
    if rows:
        statement = _insert(db, table)
        grown = {column: table.c[column] + statement.excluded[column]}
        db.execute(statement.on_conflict_do_update(index_elements=key, set_=grown), rows)


def _insert(db: Connection, table: Table) -> Any:
    return (sqlite if db.dialect.name == "sqlite" else postgresql).insert(table)
