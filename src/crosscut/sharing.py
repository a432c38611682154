"""Pieces and sources in a depot, for all machines of a cluster: what one has made or fetched the others take.

    pieces/ab/<key>        a card: the files of a group, each with its SHA-256 and size; small ones are in it
    files/ab/<sha256>      larger files, and sources, by their content
    uploads/ab/<sha256>    what users sent; nobody could make it again
    notes/ab/<key>         JSON that is replaced by newer
    cluster                the word by which a machine knows that it shares what its server does

The card is what makes a group exist. It is written only where there is none, after its files, so that of several
makers one is the first, and all others use its bytes: encoders need not give the same bytes twice. A card is replaced
only by who found it damaged, and only if it still is the one that was found so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from crosscut.depot import BLOCK, UNAVAILABLE, unavailable
from crosscut.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from crosscut.depot import Depot, Held

    Check: TypeAlias = Callable[[], None]
    Target: TypeAlias = Callable[[str], Path]
    """Where the file of a suffix is written to."""

T = TypeVar("T")

MARK = "cluster"

SMALL = 48 << 10
"""Bytes up to which a file is in its card: a tail or a seam is one object."""

TRANSFERS = 4
"""Files on their way at the same time in one process, each with three blocks in memory at most."""

PAUSES = (0.2, 1.0, 3.0, 8.0)
"""Seconds before a request is tried again; the queue waits after that."""

WRITERS = 10
"""How often others may be quicker to replace a card before we give up."""


@dataclass(frozen=True)
class Listed:
    """A file as its card tells of it; `data` where it is small."""

    sha256: str
    size: int
    data: bytes | None = None


class Sharing:
    """Thread-safe. Paths that are written to do not exist yet, or are replaced; `check` may raise to give up.

    Raises StorageError `shared_unavailable` where the depot cannot be had.
    """

    def __init__(self, depot: Depot, pauses: tuple[float, ...] = PAUSES) -> None:
        self._depot = depot
        self._pauses = pauses
        self._transfers = threading.BoundedSemaphore(TRANSFERS)

    def check(self) -> None:
        """Raises StorageError where the depot cannot be used as it is."""
        self._depot.check()

    def trouble(self) -> str | None:
        """A sentence while the depot cannot be had."""
        try:
            self._depot.size(MARK)
        except StorageError as error:
            return error.public
        return None

    def mark(self, cluster: str) -> None:
        """Note which cluster it is of now."""
        self._depot.write(MARK, cluster.encode(), self._depot.read(MARK))

    def is_marked(self, cluster: str) -> bool:
        held = self._depot.read(MARK)
        return held is not None and held.data == cluster.encode()

    def take(
        self, key: str, suffixes: Iterable[str], target: Target, check: Check
    ) -> tuple[Held, dict[str, Path]] | None:
        """The card and all files of a group at their targets; None where it is not there whole."""
        held = self._tried(lambda: self._depot.read(_place("pieces", key)), check)
        files = held and self._taken(held, suffixes, target, check)
        return (held, files) if held and files else None

    def give(
        self, key: str, files: Mapping[str, Path], target: Target, check: Check, spurned: Held | None = None
    ) -> Mapping[str, Path]:
        """Share a group that was just made; the files that stand for it: these, or another maker's at their targets.

        `spurned` is a card whose files are whole but of no use.
        """
        name = _place("pieces", key)
        listed = {suffix: _listed(path) for suffix, path in files.items()}
        card = _card(listed)
        large = [(files[suffix], file) for suffix, file in listed.items() if file.data is None]
        for path, file in large:
            # Perhaps another was first while ours was made: nothing need be sent then.
            if theirs := self._theirs(name, card, files, target, check, spurned):
                return theirs
            self._give_file("files", path, file.sha256, file.size, check)
        for _ in range(WRITERS):
            if self._tried(lambda: self._depot.write(name, card), check):
                return files
            held = self._tried(lambda: self._depot.read(name), check)
            if held is None:
                continue
            if held.data == card:  # ours, and the answer was lost
                return files
            if theirs := self._usable(held, files, target, check, spurned):
                return theirs
            if self._tried(partial(self._depot.write, name, card, held), check):
                return files
        raise unavailable("what the machines share changes too fast: try again later", name)

    def take_content(self, sha256: str, target: Path, check: Check) -> bool:
        """Write the source or upload of that hash to `target`; False where nobody has it, whole."""
        return any(self._take_file(area, sha256, None, target, check) for area in ("files", "uploads"))

    def give_content(self, path: Path, sha256: str, check: Check) -> None:
        self._give_file("files", path, sha256, path.stat().st_size, check)

    def give_upload(self, path: Path, sha256: str, check: Check) -> None:
        self._give_file("uploads", path, sha256, path.stat().st_size, check)

    def has_upload(self, sha256: str, size: int) -> bool:
        return self._depot.size(_place("uploads", sha256)) == size

    def remove_upload(self, sha256: str) -> None:
        self._depot.remove(_place("uploads", sha256))

    def note(self, key: str, value: Any, check: Check) -> None:
        """Keep a note for all; where others write the same at this moment, theirs is as good."""
        name, data = _place("notes", key), json.dumps(value).encode()
        held = self._tried(lambda: self._depot.read(name), check)
        self._tried(lambda: self._depot.write(name, data, held), check)

    def noted(self, key: str, check: Check) -> Any | None:
        held = self._tried(lambda: self._depot.read(_place("notes", key)), check)
        try:
            return held and json.loads(held.data)
        except ValueError:
            return None

    def _theirs(
        self,
        name: str,
        card: bytes,
        files: Mapping[str, Path],
        target: Target,
        check: Check,
        spurned: Held | None,
    ) -> Mapping[str, Path] | None:
        held = self._tried(lambda: self._depot.read(name), check)
        if held is None or held.data == card:
            return None
        return self._usable(held, files, target, check, spurned)

    def _usable(
        self, held: Held, suffixes: Iterable[str], target: Target, check: Check, spurned: Held | None
    ) -> dict[str, Path] | None:
        if spurned is not None and held.data == spurned.data:
            return None
        return self._taken(held, suffixes, target, check)

    def _taken(self, held: Held, suffixes: Iterable[str], target: Target, check: Check) -> dict[str, Path] | None:
        """The files of a card, None where one is missing or damaged."""
        try:
            listed = _read_card(held.data)
            wanted = {suffix: listed[suffix] for suffix in suffixes}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        taken = {}
        for suffix, file in wanted.items():
            taken[suffix] = target(suffix)
            if file.data is not None:
                taken[suffix].write_bytes(file.data)
            elif not self._take_file("files", file.sha256, file.size, taken[suffix], check):
                for path in taken.values():
                    path.unlink(missing_ok=True)
                return None
        return taken

    def _take_file(self, area: str, sha256: str, size: int | None, target: Path, check: Check) -> bool:
        """Whether it is there, whole; one that is damaged is removed, so that it can be given again."""
        name = _place(area, sha256)
        for _ in range(2):  # what came damaged may lie there whole
            try:
                with self._transfer(check):
                    found = self._tried(lambda: _written(self._depot.blocks(name), target, check), check)
            except FileNotFoundError:
                return False
            if found[0] == sha256 and size in (None, found[1]):
                return True
        target.unlink(missing_ok=True)
        self._tried(lambda: self._depot.remove(name), check)
        return False

    def _give_file(self, area: str, path: Path, sha256: str, size: int, check: Check) -> None:
        name = _place(area, sha256)

        def store() -> None:
            if self._depot.size(name) != size:
                self._depot.store(name, _blocks(path, check))

        with self._transfer(check):
            self._tried(store, check)

    @contextmanager
    def _transfer(self, check: Check) -> Iterator[None]:
        while not self._transfers.acquire(timeout=0.1):
            check()
        try:
            yield
        finally:
            self._transfers.release()

    def _tried(self, action: Callable[[], T], check: Check) -> T:
        for pause in self._pauses:
            check()
            try:
                return action()
            except StorageError as error:
                if error.code != UNAVAILABLE:
                    raise
            until = time.monotonic() + pause
            while (left := until - time.monotonic()) > 0:
                check()
                time.sleep(min(left, 0.1))
        return action()


def _place(area: str, name: str) -> str:
    return f"{area}/{name[:2]}/{name}"


def _listed(path: Path) -> Listed:
    size = path.stat().st_size
    if size <= SMALL:
        data = path.read_bytes()
        return Listed(hashlib.sha256(data).hexdigest(), size, data)
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return Listed(digest.hexdigest(), size)


def _card(files: Mapping[str, Listed]) -> bytes:
    told = {
        suffix: {"sha256": file.sha256, "size": file.size}
        | ({} if file.data is None else {"data": base64.b64encode(file.data).decode()})
        for suffix, file in files.items()
    }
    return json.dumps({"files": told}, sort_keys=True).encode()


def _read_card(data: bytes) -> dict[str, Listed]:
    """Raises ValueError, KeyError, TypeError or AttributeError where it is none, or what is in it is damaged."""
    files = {}
    for suffix, told in json.loads(data)["files"].items():
        try:
            small = base64.b64decode(told["data"], validate=True) if "data" in told else None
        except binascii.Error as error:
            raise ValueError(suffix) from error
        if small is not None and hashlib.sha256(small).hexdigest() != told["sha256"]:
            raise ValueError(suffix)
        files[suffix] = Listed(told["sha256"], told["size"], small)
    return files


def _blocks(path: Path, check: Check) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            check()
            yield block


def _written(blocks: Iterable[bytes], target: Path, check: Check) -> tuple[str, int]:
    """SHA-256 and size of what was written to `target`."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb", buffering=0) as file:
        for block in blocks:
            check()
            digest.update(block)
            size += len(block)
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
    return digest.hexdigest(), size
