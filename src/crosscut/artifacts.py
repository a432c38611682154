"""Content-addressed store on a local disk: files named by what made them, made once, least recently used go first.

Several processes may share one folder; it must be on a local file system with `flock` (not NFS).

    root/blobs/ab/<key><suffix>     finished, read-only files; their mtime is the clock of last use
    root/jobs/<name>/               hard links and scratch files of one lease; removed with it
    root/locks/                     a bounded set of lock files, never deleted
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from crosscut.disk import disk_full, is_full, link, settle, storage_errors
from crosscut.errors import CrosscutError, ProbeError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

T = TypeVar("T")

KEEP = Fraction(9, 10)
"""Share of the cap that is left after eviction, so that it does not run for every new file."""

TOUCH_SECONDS = 60
"""A hit moves the clock of last use at most this often."""


def artifact_key(kind: str, **recipe: Any) -> str:
    """SHA-256 (hex) of everything that makes an artifact; recipes may hold JSON, fractions, bytes and dataclasses."""
    canonical = json.dumps([kind, recipe], sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Fraction):
        return {"fraction": str(value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}}
    raise TypeError(f"{type(value).__name__} cannot be part of an artifact's recipe")


@dataclass(frozen=True)
class _Blob:
    used: int
    size: int
    held: bool
    path: Path


class Artifacts:
    """The store. Thread-safe; one object per process."""

    def __init__(
        self, root: Path, max_bytes: int, *, mark: str = "", lease: Callable[[Artifacts, Path], Lease] | None = None
    ) -> None:
        """Open or create the store and sweep what dead processes left; StorageError when the folder is unusable.

        `mark` is part of the names of blobs: those of another mark are only kept until room is needed. `lease` makes
        what `lease` yields, for a store that others stand behind.
        """
        self._blobs, self._jobs, self._locks = root / "blobs", root / "jobs", root / "locks"
        self._mark = mark
        self._leased = lease or Lease
        self._max_bytes = max_bytes
        self._mutex = threading.Lock()
        self._stored = 0
        self._trim_at = max_bytes
        with storage_errors():
            for folder in (root, self._blobs, self._jobs, self._locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.sweep()
            self._trim()

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Yield a job's private folder: what it holds stays readable until the end, whatever is evicted meanwhile."""
        with storage_errors(), self._lock("jobs"):
            folder = Path(tempfile.mkdtemp(dir=self._jobs))
            alive = self._alive_lock(folder)
            alive.acquire()
        try:
            yield self._leased(self, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(alive.lock_file).unlink(missing_ok=True)
            alive.release()

    @contextmanager
    def locked(self, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of `key` against every thread and process; the kernel frees it when the holder dies.

        Keys share 4,096 lock files, so never ask for a second one while holding one. `waiting` is called several
        times a second and may raise to give up.
        """
        with self._lock(key[:3], waiting):
            yield

    @contextmanager
    def fetching(self, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """The same for bringing `key` here from elsewhere; it may be asked for while `locked` is held."""
        with self._lock(f"fetch-{key[:3]}", waiting):
            yield

    def blob(self, key: str, suffix: str) -> Path:
        return self._blobs / key[:2] / (key + self._mark + suffix)

    def grew(self, size: int) -> None:
        """Take note of `size` new bytes, and evict when they pass the cap."""
        with self._mutex:
            self._stored += size
            due = self._stored > self._trim_at
        if due:
            self._trim()

    def with_room(self, action: Callable[[], T]) -> T:
        """Run `action`; when it fails for want of disk space, evict and run it once more."""
        try:
            return action()
        except Exception as error:
            if not is_full(error):
                raise
        with storage_errors():
            self._evict(sum(blob.size for blob in self._scan()) // 2)
        try:
            return action()
        except Exception as error:
            if is_full(error):
                raise disk_full(error) from error
            raise

    @contextmanager
    def _lock(self, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        def give_up() -> bool:
            if waiting is not None:
                waiting()
            return False

        lock = FileLock(self._locks / f"{name}.lock", fallback_to_soft=False)
        with storage_errors():
            lock.acquire(cancel_check=give_up)
        try:
            yield
        finally:
            lock.release()

    def _alive_lock(self, folder: Path) -> FileLock:
        return FileLock(folder.with_suffix(".lock"), timeout=0, fallback_to_soft=False, thread_local=False)

    def sweep(self) -> None:
        """Remove the folders whose process is gone: nobody holds their lock any more."""
        with self._lock("jobs"):
            for folder in {entry.with_suffix("") for entry in self._jobs.iterdir()}:
                alive = self._alive_lock(folder)
                with suppress(Timeout), alive:
                    shutil.rmtree(folder, ignore_errors=True)
                    Path(alive.lock_file).unlink(missing_ok=True)

    def _scan(self) -> list[_Blob]:
        found = []
        for path in self._blobs.glob("*/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append(_Blob(status.st_mtime_ns, status.st_size, status.st_nlink > 1, path))
        return found

    def _trim(self) -> None:
        with storage_errors():
            total = sum(blob.size for blob in self._scan())
            if total > self._max_bytes:
                self._evict(int(self._max_bytes * KEEP))
            else:
                self._recount(total)

    def _evict(self, goal: int) -> None:
        """Delete the least recently used blobs down to `goal` bytes.

        Those a job holds are left alone: taking their name away would free nothing.
        """
        with self._lock("evict"):
            blobs = self._scan()
            total = sum(blob.size for blob in blobs)
            for blob in sorted(blobs, key=lambda blob: blob.used):
                if total <= goal:
                    break
                if not blob.held:
                    blob.path.unlink(missing_ok=True)
                    total -= blob.size
        self._recount(total)

    def _recount(self, total: int) -> None:
        """Other processes add blobs too: look again after a twentieth of the cap, and at the cap."""
        step = self._max_bytes // 20
        with self._mutex:
            self._stored = total
            self._trim_at = total + step if total > self._max_bytes else min(total + step, self._max_bytes)


class Lease:
    """One job's view of the store: every path it hands out is its own hard link and read-only."""

    at_once = 1
    """How many groups are worth asking for at the same time: more than one where answers come over a network."""

    def __init__(self, store: Artifacts, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def scratch(self, suffix: str = "") -> Path:
        """Return a path for a temporary file, on the store's file system; nothing exists there yet."""
        return self._folder / f"scratch-{secrets.token_hex(8)}{suffix}"

    def locked(self, key: str, waiting: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        return self._store.locked(key, waiting)

    def with_room(self, action: Callable[[], T]) -> T:
        return self._store.with_room(action)

    def watched(self, check: Callable[[], None]) -> Lease:
        """The same hold for one unit of work: `check` is called while it waits for others, and raises what ends it."""
        del check
        return self

    def get(self, key: str, suffix: str = "") -> Path | None:
        found = self.get_group(key, (suffix,))
        return found[suffix] if found else None

    def get_group(self, key: str, suffixes: tuple[str, ...]) -> dict[str, Path] | None:
        """All files of a group, None where one is missing."""
        return self._here(key, suffixes)

    def content(self, sha256: str, size: int | None = None) -> Path | None:
        """The file of these bytes, None where there is none, or none of that size."""
        path = self._find(sha256, "")
        return path if path is not None and size in (None, path.stat().st_size) else None

    def keep(self, scratch: Path, sha256: str) -> Path:
        """Move a scratch file into the store under the SHA-256 of its bytes, replacing what was there."""
        return self._adopt(scratch, sha256)

    def make(self, key: str, maker: Callable[[Path], None], suffix: str = "") -> Path:
        """Return the artifact, made by `maker` at the path it is given unless it exists.

        One maker runs at a time for a key, over all threads and processes; its error is the caller's, and the next
        caller tries again. A maker must not make other artifacts: prepare its inputs before.
        """
        found = self.get(key, suffix)
        if found is not None:
            return found
        return self.make_group(key, (suffix,), lambda paths: maker(paths[suffix]))[suffix]

    def make_json(self, key: str, maker: Callable[[], Any]) -> Any:
        return self.make_read(
            key,
            (".json",),
            lambda paths: _write_json(paths[".json"], maker()),
            lambda paths: json.loads(paths[".json"].read_bytes()),
        )

    def make_group(
        self, key: str, suffixes: tuple[str, ...], maker: Callable[[Mapping[str, Path]], None]
    ) -> dict[str, Path]:
        """Like `make` for several files of one maker call, by suffix: all of them come from the same call."""
        with self._store.locked(key):
            found = self.get_group(key, suffixes)
            return found or self._store.with_room(lambda: self._make(key, suffixes, maker))

    def keep_group(self, key: str, scratch: Mapping[str, Path]) -> dict[str, Path]:
        """Move finished scratch files into the store as a group; the files that stand for it from now on."""
        with self._store.locked(key):
            return self._replace(key, self._agreed(key, scratch))

    def make_read(
        self,
        key: str,
        suffixes: tuple[str, ...],
        maker: Callable[[Mapping[str, Path]], None],
        read: Callable[[Mapping[str, Path]], T],
    ) -> T:
        """What `read` makes of the files of `make_group`: where they are damaged they are made once more.

        `read` says so by raising ValueError, ProbeError or StorageError `damaged_artifact`; it must not make artifacts.
        """
        try:
            return read(self.make_group(key, suffixes, maker))
        except (ValueError, CrosscutError) as error:
            if not _is_damage(error):
                raise
        with self._store.locked(key):
            for found in self._mended(key, suffixes):
                try:
                    return read(found)
                except (ValueError, CrosscutError) as error:
                    if not _is_damage(error):
                        raise
            return read(self._store.with_room(lambda: self._make(key, suffixes, maker)))

    def keep_upload(self, scratch: Path, sha256: str, size: int) -> None:
        """The same for a file that a user sent and nobody could make again."""
        if self.content(sha256, size) is None:
            self._adopt(scratch, sha256)

    def put_json(self, key: str, value: Any, *, private: bool = False) -> None:
        """Keep a note, replacing what was there; `private`: it means nothing to other machines."""
        del private

        def write() -> None:
            scratch = self.scratch()
            _write_json(scratch, value)
            self._adopt(scratch, key, ".json")

        self._store.with_room(write)

    def get_json(self, key: str, *, private: bool = False) -> Any | None:
        """The value, None where there is none or what there is cannot be read."""
        del private
        path = self._find(key, ".json")
        try:
            return None if path is None else json.loads(path.read_bytes())
        except ValueError:
            return None

    def _make(
        self, key: str, suffixes: tuple[str, ...], maker: Callable[[Mapping[str, Path]], None]
    ) -> dict[str, Path]:
        scratch = {suffix: self.scratch(suffix) for suffix in suffixes}
        try:
            maker(scratch)
            return self._replace(key, self._agreed(key, scratch))
        finally:
            for path in scratch.values():
                path.unlink(missing_ok=True)

    def _agreed(self, _key: str, scratch: Mapping[str, Path]) -> Mapping[str, Path]:
        """The files that stand for a group which was just made: these, where nobody else makes any."""
        return scratch

    def _mended(self, key: str, suffixes: tuple[str, ...]) -> Iterator[dict[str, Path]]:
        """What may stand in for a damaged group: perhaps another thread or process has made it again."""
        if found := self._here(key, suffixes):
            yield found

    def _replace(self, key: str, scratch: Mapping[str, Path]) -> dict[str, Path]:
        for suffix in scratch:
            self._forget(key, suffix)
        return {suffix: self._adopt(path, key, suffix) for suffix, path in scratch.items()}

    def _adopt(self, scratch: Path, key: str, suffix: str = "") -> Path:
        with storage_errors():
            size = settle(scratch)
            mine = self._folder / (key + suffix)
            scratch.replace(mine)
            blob = self._store.blob(key, suffix)
            blob.parent.mkdir(mode=0o700, exist_ok=True)
            self._place(mine, blob)
        self._store.grew(size)
        return mine

    def _here(self, key: str, suffixes: tuple[str, ...]) -> dict[str, Path] | None:
        found = {suffix: path for suffix in suffixes if (path := self._find(key, suffix))}
        return found if len(found) == len(suffixes) else None

    def _find(self, key: str, suffix: str) -> Path | None:
        mine, blob = self._folder / (key + suffix), self._store.blob(key, suffix)
        with storage_errors():
            if mine.exists():
                return mine
            try:
                self._place(blob, mine)
            except FileNotFoundError:
                return None
            status = mine.stat()
            if status.st_size == 0:
                self._forget(key, suffix)
                return None
            if time.time() - status.st_mtime > TOUCH_SECONDS:
                with suppress(FileNotFoundError):
                    os.utime(blob)
            return mine

    def _place(self, source: Path, target: Path) -> None:
        """Make `target` appear at once as a hard link to `source`, or as a copy where there are no links."""
        step = self.scratch()
        try:
            link(source, step)
            step.replace(target)
        finally:
            # Renaming one link of a file over another does nothing (POSIX rename) and leaves this name behind.
            step.unlink(missing_ok=True)

    def _forget(self, key: str, suffix: str) -> None:
        (self._folder / (key + suffix)).unlink(missing_ok=True)
        self._store.blob(key, suffix).unlink(missing_ok=True)


def whole(path: Path, size: int) -> Path:
    """`path`, if that is its size in bytes; ValueError if not, for `Lease.make_read`."""
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has not {size} bytes")
    return path


def _is_damage(error: Exception) -> bool:
    return isinstance(error, ValueError | ProbeError) or (
        isinstance(error, StorageError) and error.code == "damaged_artifact"
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False))
