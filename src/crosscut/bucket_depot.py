"""A depot in a bucket of Google Cloud Storage, S3, Azure or what speaks their protocols.

It must refuse a write under a condition: `If-None-Match` and `If-Match` of S3 and Azure, generations of Cloud Storage.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from crosscut.depot import BLOCK, Held, unavailable
from crosscut.destinations.bucket_errors import is_out_of_range, refusals, word_of
from crosscut.destinations.buckets import bucket_of, connect
from crosscut.errors import DeliverError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from obstore import PutMode

    from crosscut.destinations.buckets import CloudOptions, Store

ABSENT = frozenset({"", "NoSuchKey", "BlobNotFound"})
"""What a store says where the object is missing; other words are about its bucket."""

IN_FLIGHT = 2
"""Parts of an object under way at the same time, while one more is read."""

CLOUD_PATIENCE = 2.0
"""Seconds that one request is tried again within; whoever asks tries again after that."""


class BucketDepot:
    def __init__(self, url: str, options: CloudOptions, environ: Mapping[str, str] | None = None) -> None:
        """`url` is `gs://bucket/prefix`, `s3://…` or `az://…`, else RequestError."""
        self._bucket = bucket_of(url)
        self._options = replace(options, patience=min(options.patience, CLOUD_PATIENCE))
        self._environ = environ
        self._lock = threading.Lock()
        self._connected: Store | None = None

    def check(self) -> None:
        name = f"check/{secrets.token_hex(8)}"
        try:
            # Who may not list a bucket is told that a missing object is forbidden.
            first = self.read(name) is None and self.write(name, b"first")
            held = self.read(name)
            wrong = self.write(name, b"second") or not (first and held)
            wrong = wrong or not self.write(name, b"third", held) or self.write(name, b"fourth", held)
            self.remove(name)
        except StorageError as error:
            raise StorageError(
                f"what the machines share (CROSSCUT_SHARED) cannot be used: {error.public}",
                code="shared_unusable",
                detail=error.detail,
            ) from None
        if wrong:
            raise StorageError(
                f"{self._bucket} cannot be shared by machines (CROSSCUT_SHARED): it does not heed conditions of a write"
                " (If-None-Match, If-Match); use another store",
                code="shared_unusable",
            )

    def read(self, name: str) -> Held | None:
        with self._errors():
            try:
                found = obstore.get(self._store, self._key(name))
                data = bytes(found.bytes())
            except FileNotFoundError as error:
                return self._absent(error)
        told = {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}
        return Held(data, {word: value for word, value in told.items() if value})

    def write(self, name: str, data: bytes, instead_of: Held | None = None) -> bool:
        mode: PutMode = "create" if instead_of is None else instead_of.edition
        with self._errors():
            try:
                obstore.put(self._store, self._key(name), data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            except FileNotFoundError as error:  # what was to be replaced is gone
                self._absent(error)
                return False
        return True

    def size(self, name: str) -> int | None:
        with self._errors():
            try:
                return obstore.head(self._store, self._key(name))["size"]
            except FileNotFoundError as error:
                return self._absent(error)

    def blocks(self, name: str) -> Iterator[bytes]:
        start, size = 0, 1
        while start < size:
            with self._errors(missing=True):
                try:
                    found = obstore.get(self._store, self._key(name), options={"range": (start, start + BLOCK)})
                    block, size = bytes(found.bytes()), found.meta["size"]
                except BaseError as error:
                    if is_out_of_range(error):  # it ends here, or is empty
                        return
                    raise
            yield block
            start += len(block)

    def store(self, name: str, blocks: Iterable[bytes]) -> None:
        coming = iter(blocks)
        first, second = next(coming, b""), next(coming, None)
        with self._errors():
            if second is None:
                obstore.put(self._store, self._key(name), first, use_multipart=False)
                return
            obstore.put(
                self._store,
                self._key(name),
                chain((first, second), coming),
                use_multipart=True,
                chunk_size=BLOCK,
                max_concurrency=IN_FLIGHT,
            )

    def remove(self, name: str) -> None:
        with self._errors():
            try:
                obstore.delete(self._store, self._key(name))
            except FileNotFoundError as error:
                self._absent(error)

    @property
    def _store(self) -> Store:
        with self._lock:
            if self._connected is None:
                self._connected = connect(self._bucket, self._options, self._environ)
            return self._connected

    def _key(self, name: str) -> str:
        return f"{self._bucket.prefix}{name}"

    @staticmethod
    def _absent(error: FileNotFoundError) -> None:
        if word_of(str(error)) not in ABSENT:
            raise error

    @contextlib.contextmanager
    def _errors(self, *, missing: bool = False) -> Iterator[None]:
        """`missing`: that there is no such object is the caller's to hear."""
        try:
            with refusals(self._bucket):
                try:
                    yield
                except FileNotFoundError as error:
                    if missing and word_of(str(error)) in ABSENT:
                        raise _Missing from None
                    raise
        except _Missing:
            raise FileNotFoundError from None
        except DeliverError as error:
            raise unavailable(error.public, f"{error.code} {error.detail}") from None


class _Missing(Exception):  # noqa: N818 - goes no further than this module
    pass
