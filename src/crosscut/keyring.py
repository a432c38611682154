"""API keys in the store: made, told, ended, recognised."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crosscut.errors import RequestError
from crosscut.keys import hash_secret, matches, new_key, parse_token
from crosscut.ports import NotFoundError
from crosscut.store import access

if TYPE_CHECKING:
    from crosscut.store import Store

NOBODY = hash_secret("")
"""Compared with where there is no such key, so that the answer takes as long."""


class Keyring:
    """Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def authenticate(self, token: str) -> str | None:
        """The owner of a good key."""
        parsed = parse_token(token)
        if parsed is None:
            return None
        key, secret = parsed
        row = self._store.read(lambda db: access.find_key(db, key, self._store.clock()))
        good = matches(secret, row.hash if row else NOBODY)
        return row.owner if row and good else None

    def create_key(
        self, owner: str, name: str, replaces: str | None = None, overlap_seconds: float = 0
    ) -> tuple[str, str]:
        """Id and token; the key it `replaces` stays good for the overlap."""
        if not owner.strip() or len(owner) > 200:
            raise RequestError("an owner is a name of 1 to 200 characters", code="invalid_owner")
        key, token, hashed = new_key(secrets.token_bytes)

        def write(db: Any) -> bool:
            now = self._store.clock()
            if replaces is not None and not access.end_key(db, replaces, now + overlap_seconds):
                return False
            access.add_key(db, key, owner, name, hashed, now)
            return True

        if not self._store.read(write):
            raise _no_such_key(replaces)
        return key, token

    def list_keys(self) -> list[dict[str, Any]]:
        return [
            {
                "id": row.id,
                "owner": row.owner,
                "name": row.name,
                "created_at": _iso(row.created),
                "ends_at": _iso(row.ends),
            }
            for row in self._store.read(access.keys)
        ]

    def revoke_key(self, key: str) -> None:
        if not self._store.read(lambda db: access.end_key(db, key, self._store.clock())):
            raise _no_such_key(key)

    def any(self) -> bool:
        """Whether there is a key that is good now."""
        return bool(self._store.read(lambda db: access.any_key(db, self._store.clock())))


def _no_such_key(key: str | None) -> NotFoundError:
    return NotFoundError(f"there is no key {key}: crosscut keys list shows them", code="no_such_key")


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
