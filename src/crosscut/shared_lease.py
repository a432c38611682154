"""A lease on a store with a depot behind it: what is not here is looked for there, and is shared once it is made."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from crosscut.artifacts import Artifacts, Lease
from crosscut.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from crosscut.depot import Held
    from crosscut.sharing import Sharing


def shared_artifacts(root: Path, max_bytes: int, sharing: Sharing, place: str) -> Artifacts:
    """The store of one machine of those that share `place`.

    What was made without it, or shared elsewhere, is not taken: it would be here and not there.
    """
    mark = f"-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    return Artifacts(root, max_bytes, mark=mark, lease=partial(SharedLease, sharing=sharing))


def _nothing() -> None:
    pass


class SharedLease(Lease):
    """What is here is used without asking. What was made is here only after it is there, as the depot has it."""

    at_once = 8

    def __init__(self, store: Artifacts, folder: Path, sharing: Sharing, check: Callable[[], None] = _nothing) -> None:
        super().__init__(store, folder)
        self._sharing = sharing
        self._check = check
        self._spurned: dict[str, Held] = {}
        """Cards whose files a reader found to be of no use, by key; each is asked about by one thread."""

    def watched(self, check: Callable[[], None]) -> SharedLease:
        return SharedLease(self._store, self._folder, self._sharing, check)

    def get_group(self, key: str, suffixes: tuple[str, ...]) -> dict[str, Path] | None:
        found = self._here(key, suffixes)
        if found is None:
            with self._store.fetching(key, self._check):
                found = self._here(key, suffixes)  # another has fetched it while we waited
                if found is None and (taken := self._taken(key, suffixes)):
                    found = taken[1]
        return found

    def content(self, sha256: str, size: int | None = None) -> Path | None:
        if found := super().content(sha256, size):
            return found
        with self._store.fetching(sha256, self._check):
            if found := super().content(sha256, size):
                return found
            self._forget(sha256, "")
            scratch = self._store.with_room(lambda: self._fetched(sha256))
            return self._adopt(scratch, sha256) if scratch else None

    def keep(self, scratch: Path, sha256: str) -> Path:
        self._sharing.give_content(scratch, sha256, self._check)
        return super().keep(scratch, sha256)

    def put_json(self, key: str, value: Any, *, private: bool = False) -> None:
        if not private:
            self._sharing.note(key, value, self._check)
        super().put_json(key, value)

    def get_json(self, key: str, *, private: bool = False) -> Any | None:
        value = super().get_json(key)
        if value is None and not private:
            value = self._sharing.noted(key, self._check)
        return value

    def keep_upload(self, scratch: Path, sha256: str, size: int) -> None:
        self._sharing.give_upload(scratch, sha256, self._check)
        if super().content(sha256, size) is None:
            self._adopt(scratch, sha256)

    def _agreed(self, key: str, scratch: Mapping[str, Path]) -> Mapping[str, Path]:
        with self._targets() as target:
            return self._sharing.give(key, scratch, target, self._check, self._spurned.pop(key, None))

    def _replace(self, key: str, scratch: Mapping[str, Path]) -> dict[str, Path]:
        # Who fetches the group just now would mix its files with these.
        with self._store.fetching(key):
            return super()._replace(key, scratch)

    def _mended(self, key: str, suffixes: tuple[str, ...]) -> Iterator[dict[str, Path]]:
        yield from super()._mended(key, suffixes)
        with self._store.fetching(key, self._check):
            taken = self._taken(key, suffixes)
        if taken:
            yield taken[1]
            self._spurned[key] = taken[0]

    def _taken(self, key: str, suffixes: tuple[str, ...]) -> tuple[Held, dict[str, Path]] | None:
        """Bring a group here; only while `fetching`."""

        def take() -> tuple[Held, dict[str, Path]] | None:
            with self._targets() as target:
                return self._sharing.take(key, suffixes, target, self._check)

        taken = self._store.with_room(take)
        if taken is None:
            return None
        held, files = taken
        return held, super()._replace(key, files)

    def _fetched(self, sha256: str) -> Path | None:
        with self._targets() as target:
            scratch = target("")
            return scratch if self._sharing.take_content(sha256, scratch, self._check) else None

    @contextmanager
    def _targets(self) -> Iterator[Callable[[str], Path]]:
        """Scratch paths by suffix; where something goes wrong, their files are removed."""
        made: list[Path] = []

        def target(suffix: str) -> Path:
            made.append(self.scratch(suffix))
            return made[-1]

        try:
            with storage_errors():
                yield target
        except BaseException:
            for path in made:
                path.unlink(missing_ok=True)
            raise
