"""Folders in Google Drive: which one a destination names, and one for each task, however many begin it at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosscut.destinations.drive_account import short
from crosscut.destinations.drive_client import FOLDER_TYPE, quoted
from crosscut.destinations.drive_errors import NO_STORAGE
from crosscut.errors import DeliverError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crosscut.commons import Notes
    from crosscut.destinations.drive_client import DriveClient, Found

SCHEME = "drive:"
OWN_FOLDER = "Crosscut"
"""What the app's own folder is called, at the top of somebody's Drive."""
ID = re.compile(r"[A-Za-z0-9_-]{15,120}")
LINK = re.compile(
    r"https://drive\.google\.com/(?:drive/(?:u/\d+/)?folders/|open\?id=)([A-Za-z0-9_-]{15,120})(?:[/?&#].*)?"
)
OURS = "appProperties has { key='crosscut' and value='file' }"
MOST_IDS = 3
"""So many ids of one folder may lead nowhere before it is given up."""


def is_drive(place: str) -> bool:
    return place.startswith(SCHEME) or LINK.fullmatch(place) is not None


def named(place: str) -> str:
    """The one name of a place in Drive: `drive:`, or `drive:` and an id. Raises like `parent_of`."""
    return f"{SCHEME}{parent_of(place) or ''}"


def parent_of(place: str) -> str | None:
    """The id of the folder or Shared Drive in `drive:ID` or `drive:LINK`; None for `drive:`, the app's own folder.

    Raises RequestError "bad_destination".
    """
    where = place.removeprefix(SCHEME).strip()
    if not where:
        return None
    found = LINK.fullmatch(where)
    if found:
        return found[1]
    if place.startswith(SCHEME) and ID.fullmatch(where):
        return where
    raise RequestError(
        "a destination in Google Drive is drive: alone, or drive: and the link or id of a folder or Shared Drive, such"
        " as drive:https://drive.google.com/drive/folders/…",
        code="bad_destination",
    )


@dataclass(frozen=True)
class Shelf:
    """A folder in Drive, and the Shared Drive it is in."""

    id: str
    drive: str | None


class Shelves:
    """Folders in Drive, found or made, by ids that are noted."""

    def __init__(self, client: DriveClient, notes: Notes) -> None:
        self._client = client
        self._notes = notes

    def task(self, parent: str | None, key: str, name: str) -> Shelf:
        """The folder of a task in the parent, or in the app's own folder where there is none."""
        self._check_storage(parent)
        return self._made(lambda: self._above(parent), key, name)

    def check(self, parent: str | None) -> None:
        """Whether tasks can have folders there."""
        self._check_storage(parent)
        if parent:
            self._parent(parent)

    def _check_storage(self, parent: str | None) -> None:
        if not parent and not self._client.identity.has_storage:
            code, public = NO_STORAGE
            raise DeliverError(public, code=code)

    def _above(self, parent: str | None) -> Shelf:
        if parent:
            return self._parent(parent)
        return self._made(lambda: None, f"top {self._client.identity.account}", OWN_FOLDER)

    def _parent(self, folder: str) -> Shelf:
        found = self._client.find(folder)
        if found is None or found.trashed:
            raise DeliverError(
                "Google Drive shows this account no folder or Shared Drive of that id: share it with the account (a"
                " service account has an address for that); one connected by crosscut auth google sees no folder that"
                " crosscut did not make, so use drive: alone",
                code="not_found",
            )
        if found.mime != FOLDER_TYPE:
            raise DeliverError("the link leads to a file in Google Drive: give that of a folder", code="not_a_folder")
        return Shelf(found.id, found.drive)

    def _made(self, find_above: Callable[[], Shelf | None], key: str, name: str) -> Shelf:
        """The folder that is noted, while it is there; else one of a new id, the same for all who try."""
        gone: str | None = None
        noted = self._notes.get(key)
        for _ in range(MOST_IDS):
            here = self._client.find(noted) if noted and noted != gone else None
            if here is None:
                above = find_above()
                if noted is None or noted == gone:
                    noted = self._notes.put_once(key, self._drawn(above, key, name, gone), instead_of=gone)
                # Of two who make it, the second is told that the id is taken.
                here = self._client.make_folder(self._metadata(above, noted, key, name)) or self._client.find(noted)
            if here is not None and not here.trashed:
                return Shelf(here.id, here.drive)
            gone = noted
        raise DeliverError(
            f"the folder {name} cannot be made in Google Drive: try again later", code="unavailable", retryable=True
        )

    def _drawn(self, above: Shelf | None, key: str, name: str, gone: str | None) -> str:
        """An id for the folder: that of the one which was made before the notes were lost, or a new one."""
        found = self._adopted(above, key, name) if gone is None else None
        return found.id if found else self._client.new_id()

    @staticmethod
    def _metadata(above: Shelf | None, folder: str, key: str, name: str) -> dict[str, Any]:
        told = {"id": folder, "name": name, "appProperties": {"crosscut": short(key)}}
        return {**told, "parents": [above.id]} if above else told

    def _adopted(self, above: Shelf | None, key: str, name: str) -> Found | None:
        """The folder with all its files, which are noted anew."""
        query = (
            f"{inside(above.id if above else 'root')} and name = {quoted(name)} and mimeType = {quoted(FOLDER_TYPE)}"
            f" and appProperties has {{ key='crosscut' and value={quoted(short(key))} }}"
        )
        found = next(self._client.list(query, above.drive if above else None), None)
        if found:
            for file in self._client.list(f"{inside(found.id)} and {OURS}", found.drive):
                self._notes.put_once(file_key(found.id, file.name), file.id)
        return found


def inside(folder: str) -> str:
    return f"{quoted(folder)} in parents"


def file_key(folder: str, name: str) -> str:
    """Under which the id of a file is noted; ids of folders are unique, whatever the account."""
    return f"file {folder} {name}"
