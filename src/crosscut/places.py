"""The destination behind a name: a folder of this machine, a bucket, a folder of Google Drive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from crosscut.destinations.assembly import Assemblies
from crosscut.destinations.buckets import bucket_of, is_bucket
from crosscut.destinations.drive import DriveDestination
from crosscut.destinations.drive_folders import is_drive, named
from crosscut.destinations.folder import FolderDestination
from crosscut.destinations.objectstore import ObjectStoreDestination
from crosscut.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosscut.destinations import Destination
    from crosscut.destinations.buckets import CloudOptions
    from crosscut.destinations.drive_account import Account


SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""What begins like a link is no folder; a drive of Windows is one letter."""


def is_remote(place: str) -> bool:
    """Whether it is on other machines."""
    return is_bucket(place) or is_drive(place)


def whole(place: str) -> str:
    """The one name of a place, which means the same wherever a command is started. Raises RequestError."""
    if is_drive(place):
        return named(place)
    if is_bucket(place):
        bucket = bucket_of(place)
        return f"{bucket}/{bucket.prefix}".rstrip("/")
    if SCHEME.match(place):
        raise RequestError(
            f"“{place[:200]}” is no place that crosscut knows: give a folder, drive:, gs://…, s3://… or az://…",
            code="bad_destination",
        )
    return str(Path(place).absolute())


def within(place: str, allowed: Sequence[str]) -> bool:
    """Whether a remote place is one of the `allowed` or below one; all as `whole` names them."""
    return is_remote(place) and any(f"{place}/".startswith(f"{each.removesuffix('/')}/") for each in allowed)


def check_links(place: str) -> None:
    """Raises RequestError where no links can be signed for what is delivered there."""
    if not is_bucket(place):
        raise RequestError(
            "link_days is for videos in a bucket (gs://…, s3://… or az://…): leave it out, or send them to one",
            code="no_links",
        )


class Places:
    """One for a process: `close` it at the end."""

    def __init__(self, cloud: CloudOptions, account: Account, locks: Path) -> None:
        """`locks` is a folder of this machine, in which places are held that cannot be locked themselves."""
        self._cloud = cloud
        self._account = account
        self._locks = locks
        self._assemblies = Assemblies()

    def __call__(self, place: str) -> Destination:
        """Raises RequestError where the name is none."""
        if is_bucket(place):
            return ObjectStoreDestination(place, self._cloud, self._locks, assemblies=self._assemblies)
        if is_drive(place):
            return DriveDestination(place, self._account)
        return FolderDestination(Path(place))

    def close(self) -> None:
        self._account.close()
