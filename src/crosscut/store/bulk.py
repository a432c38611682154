"""Many rows at once, where some may be there already: what SQLite and PostgreSQL both can, in one statement."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Table


def insert_new(db: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str]) -> None:
    """Insert those whose `key` columns are new."""
    if rows:
        db.execute(_insert_new(db.dialect.name, table, tuple(key)), rows)


def insert_or_replace(db: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str]) -> None:
    """Insert all; of rows with the same `key` columns the new one stays."""
    if rows:
        db.execute(_insert_or_replace(db.dialect.name, table, tuple(key)), rows)


def insert_or_add(
    db: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str], column: str
) -> None:
    """Insert all; where there is a row with the same `key` columns, what is in `column` is added to it."""
    if rows:
        db.execute(_insert_or_add(db.dialect.name, table, tuple(key), column), rows)


@cache
def _insert_new(dialect: str, table: Table, key: tuple[str, ...]) -> Any:
    return _insert(dialect, table).on_conflict_do_nothing(index_elements=key)


@cache
def _insert_or_replace(dialect: str, table: Table, key: tuple[str, ...]) -> Any:
    statement = _insert(dialect, table)
    fresh = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=fresh)


@cache
def _insert_or_add(dialect: str, table: Table, key: tuple[str, ...], column: str) -> Any:
    statement = _insert(dialect, table)
    grown = {column: table.c[column] + statement.excluded[column]}
    return statement.on_conflict_do_update(index_elements=key, set_=grown)


def _insert(dialect: str, table: Table) -> Any:
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)
