"""Deliver into Google Drive: one folder for each task, files that are never there twice.

Drive takes any number of files of one name. So every file and folder gets its id before it is made, and the id is noted
first: a retry, in whatever process, makes the same file again, which Drive refuses, and never another.
"""

from __future__ import annotations

import contextlib
import mimetypes
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from filelock import Timeout

from crosscut.destinations import Delivered, nothing
from crosscut.destinations.drive_account import short
from crosscut.destinations.drive_folders import MOST_IDS, OWN_FOLDER, Shelves, file_key, inside, named, parent_of
from crosscut.destinations.drive_upload import GoneError, Target, Upload
from crosscut.disk import storage_errors
from crosscut.errors import CrosscutError, DeliverError
from crosscut.virtual import Extent, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta

    from crosscut.destinations import Linker
    from crosscut.destinations.drive_account import Account
    from crosscut.destinations.drive_auth import Identity
    from crosscut.destinations.drive_client import DriveClient, Found
    from crosscut.destinations.drive_folders import Shelf

MEMORY_BYTES = 4 << 20
"""A longer text waits in a temporary file until its length is known."""
LOCKS = 256
"""Names share so many locks."""


class DriveDestination:
    """A place such as `drive:`; `account` outlives it. May be pickled."""

    def __init__(self, place: str, account: Account) -> None:
        """Raises RequestError "bad_destination"."""
        self._parent = parent_of(place)
        self._place = named(place)
        self._account = account

    def location(self, folder: str) -> str:
        try:
            known = self._account.shared.notes.get(self._key(self._account.identity(), folder))
        except CrosscutError:
            known = None
        return _link(known) if known else f"{self._place}{'' if self._parent else OWN_FOLDER}/{folder}"

    def check(self) -> None:
        client = self._account.client()
        client.who()
        Shelves(client, self._account.shared.notes).check(self._parent)

    @contextlib.contextmanager
    def claim(self, folder: str) -> Iterator[None]:
        """Against the other processes of this machine. Drive shows nothing that is half there: nothing is swept."""
        lock = self._account.lock("task", short(self._place, folder))
        with storage_errors():
            try:
                lock.acquire()
            except Timeout:
                sentence = (
                    f"another crosscut is writing into {self.location(folder)}: wait for it, or give the task another"
                    " name"
                )
                raise DeliverError(sentence, code="busy", retryable=True) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def open(self, folder: str, check: Callable[[], None] = nothing) -> Iterator[DriveDelivery]:
        """`check` is called often, in every thread that delivers, and may raise to break off."""
        client = self._account.client()
        with client.wire.watched(check):
            shelf = Shelves(client, self._account.shared.notes).task(
                self._parent, self._key(client.identity, folder), folder
            )
        yield DriveDelivery(client, self._account, shelf, check)

    def linker(self, folder: str, lasts: timedelta) -> Linker:
        del folder, lasts
        raise DeliverError(
            "files in Google Drive have lasting links, which the manifest tells anyway: leave link_days out, and share"
            " the folder with those who shall see it",
            code="no_links",
        )

    def _key(self, who: Identity, folder: str) -> str:
        return f"folder {who.account} {self._place} {folder}"


class DriveDelivery:
    """Into one folder, with one account."""

    grouped = False

    def __init__(self, client: DriveClient, account: Account, shelf: Shelf, check: Callable[[], None]) -> None:
        self.location = _link(shelf.id)
        self._client = client
        self._account = account
        self._notes = account.shared.notes
        self._shelf = shelf
        self._check = check
        self._listing = account.listings.of(shelf.id)

    def holds(self, name: str, size: int | None = None) -> bool:
        """From a listing that all deliveries of this process share; what it lacks is asked for by itself.

        A listing may come late.
        """
        file_id = self._notes.get(file_key(self._shelf.id, name))
        if file_id is None:
            return False
        with self._client.wire.watched(self._check):
            there = self._listing.find(file_id, self._list)
            if there is None:
                found = self._client.find(file_id)
                if found is None or not found.lies_in(self._shelf.id):
                    return False
                there = found.name, found.size
                self._listing.note(file_id, *there)
        return there[0] == name and size in (None, there[1])

    def put(self, name: str, file: VirtualFile) -> Delivered:
        """Goes on where an earlier try of whatever process broke off. The file is read once, while it is sent."""
        with self._writing(name):
            found, sha256, retries = self._uploaded(name, file)
        self._listing.note(found.id, name, len(file))
        link = found.link or f"https://drive.google.com/file/d/{found.id}/view"
        return Delivered(link, len(file), sha256, retries=retries, link=link, sent=len(file))

    def put_text(self, name: str, parts: Iterable[str]) -> None:
        with contextlib.ExitStack() as stack:
            self.put(name, _whole(parts, self._account.folder, stack))

    def remove(self, name: str) -> None:
        """Into the trash: not everybody who may write to a Shared Drive may take away for good."""
        key = file_key(self._shelf.id, name)
        with self._writing(name):
            file_id = self._notes.get(key)
            if file_id is None:
                return
            self._client.trash(file_id)
            self._notes.forget(key)
        self._listing.forget(file_id)

    def sweep(self) -> None:
        """Nothing to do: an upload that was broken off is not in the folder, and Google forgets it within a week."""

    def _list(self) -> Iterable[Found]:
        return self._client.list(inside(self._shelf.id), self._shelf.drive)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Alone with this name: two who go on with one upload would be in each other's way."""
        wire = self._client.wire
        number = int(short(self._shelf.id, name)[:8], 16) % LOCKS
        with (
            wire.watched(self._check),
            self._account.shared.locked(f"locks/name-{number:02x}", wire.pause),
            self._client.pace.upload(),
        ):
            yield

    def _uploaded(self, name: str, file: VirtualFile) -> tuple[Found, str, int]:
        key = file_key(self._shelf.id, name)
        gone: str | None = None
        for _ in range(MOST_IDS):
            noted = self._notes.get(key)
            if noted is None or noted == gone:
                noted = self._notes.put_once(key, self._client.new_id(), instead_of=gone)
            mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
            target = Target(noted, name, self._shelf.id, mime)
            upload = Upload(
                self._client,
                self._notes,
                f"session {key}",
                target,
                file,
                chunk=self._account.chunk,
                whole=self._account.whole,
            )
            try:
                return *self._checked(upload, target, file), upload.retries
            except GoneError:
                gone = noted
        raise DeliverError(
            f"{name} cannot be made in Google Drive: try again later", code="unavailable", retryable=True
        )

    def _checked(self, upload: Upload, target: Target, file: VirtualFile) -> tuple[Found, str]:
        """What Drive has is what was sent; once more where it is not, then away with it."""
        for last in (False, True):
            found, sha256 = upload.run()
            if not found.sha256:
                found = self._client.find(found.id) or found
            if found.size == len(file) and found.sha256 == sha256:
                return found, sha256
            if not last:
                upload.again()
        self._client.trash(target.id)
        raise DeliverError(
            f"{target.name} arrived damaged in Google Drive, twice: try again later",
            code="checksum_mismatch",
            retryable=True,
        )


def _whole(parts: Iterable[str], folder: Path, stack: contextlib.ExitStack) -> VirtualFile:
    """A text as a file of known length: in memory while it is short, then in one that lasts as long as the stack."""
    kept: list[bytes] = []
    size, spilled = 0, None
    for part in parts:
        kept.append(part.encode())
        size += len(kept[-1])
        if size > MEMORY_BYTES:
            spilled = spilled or stack.enter_context(_spill(folder))
            with storage_errors():
                spilled.writelines(kept)
            kept, size = [], 0
    rest = b"".join(kept)
    extents = [Extent(rest, 0, len(rest))]
    if spilled is not None:
        with storage_errors():
            spilled.flush()
        extents.insert(0, Extent(Path(spilled.name), 0, spilled.tell()))
    return VirtualFile(extents)


@contextlib.contextmanager
def _spill(folder: Path) -> Iterator[IO[bytes]]:
    with storage_errors():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=".text-")  # noqa: SIM115 - below
    with file:
        yield file


def _link(folder: str) -> str:
    return f"https://drive.google.com/drive/folders/{folder}"
