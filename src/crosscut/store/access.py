"""Who may ask, and what they uploaded. Functions over an open transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, or_, select, update

from crosscut.store.schema import api_keys, uploads

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from crosscut.store.schema import AnyRow


def add_key(db: Connection, key: str, owner: str, name: str, hashed: str, now: float) -> None:
    db.execute(insert(api_keys).values(id=key, owner=owner, name=name, hash=hashed, created=now))


def end_key(db: Connection, key: str, when: float) -> bool:
    """From `when` on the key is good no more; a key that ends sooner keeps its end."""
    lasting = or_(api_keys.c.ends.is_(None), api_keys.c.ends > when)
    here = api_keys.c.id == key
    db.execute(update(api_keys).where(here, lasting).values(ends=when))
    return db.scalar(select(func.count()).where(here)) == 1


def find_key(db: Connection, key: str, now: float) -> AnyRow | None:
    good = or_(api_keys.c.ends.is_(None), api_keys.c.ends > now)
    return db.execute(select(api_keys).where(api_keys.c.id == key, good)).one_or_none()


def keys(db: Connection) -> list[AnyRow]:
    return list(db.execute(select(api_keys).order_by(api_keys.c.created, api_keys.c.id)))


def any_key(db: Connection, now: float) -> bool:
    good = or_(api_keys.c.ends.is_(None), api_keys.c.ends > now)
    return bool(db.scalar(select(func.count()).select_from(api_keys).where(good)))


def hold_upload(db: Connection, upload: str) -> None:
    """Let nobody else add or remove it until the transaction ends; SQLite has one transaction at a time."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(upload, 0))))


def add_upload(db: Connection, owner: str, upload: str, name: str, size: int, now: float) -> None:
    known = select(uploads.c.id).where(uploads.c.owner == owner, uploads.c.id == upload)
    if db.scalar(known) is None:
        db.execute(insert(uploads).values(owner=owner, id=upload, name=name, bytes=size, created=now))


def uploaded(db: Connection, owner: str | None, asked: Collection[str]) -> set[str]:
    """Those that are uploads of that owner, None: of anybody."""
    query = select(uploads.c.id).where(uploads.c.id.in_(asked))
    return set(db.scalars(query if owner is None else query.where(uploads.c.owner == owner)))


def remove_upload(db: Connection, owner: str | None, upload: str) -> bool:
    """Whether there was one of that owner, None: of anybody."""
    known = bool(uploaded(db, owner, [upload]))
    here = delete(uploads).where(uploads.c.id == upload)
    db.execute(here if owner is None else here.where(uploads.c.owner == owner))
    return known
