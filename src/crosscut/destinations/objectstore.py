"""Deliver into a bucket of Google Cloud Storage, S3 or Azure: an object appears when all its bytes are there.

Files are streamed: up to `PART` bytes in one request, larger ones as a multipart upload, which a store shows only when
it is completed. A writer that is killed in the middle leaves parts that nobody sees but that are stored: a lifecycle
rule of the bucket removes them (`AbortIncompleteMultipartUpload` of S3 and GCS; Azure does it after a week).

A bucket cannot be locked. What keeps two jobs apart is a file lock on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import threading
from bisect import bisect_right, insort
from functools import partial
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING

import obstore
from filelock import FileLock, Timeout

from crosscut.destinations import Delivered, nothing
from crosscut.destinations.assembly import HIDDEN, Assemblies, AssemblingDelivery
from crosscut.destinations.bucket_errors import refusals, word_of
from crosscut.destinations.buckets import bucket_of, connect, google_facts
from crosscut.destinations.compose import Composer
from crosscut.destinations.signing import linker
from crosscut.destinations.waiting import waited
from crosscut.disk import storage_errors
from crosscut.errors import DeliverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from crosscut.destinations import Delivery, Linker
    from crosscut.destinations.buckets import Bucket, CloudOptions, Store
    from crosscut.splice import VirtualFile

PART = 8 << 20
"""Bytes sent in one request; at least 5 MiB (S3 and GCS, "Multipart upload limits")."""
MOST_PARTS = 9_000
"""Below the 10,000 of S3 and GCS."""
IN_FLIGHT = 2
"""Parts of a file under way at the same time, while one more is filled."""
GRACE_SECONDS = 1.0
"""For a store to be told that an upload is given up."""
PAGE = 1000
"""Names in one answer of a list."""
LAST = "\U0010ffff"
"""Behind every name."""

TYPES = {
    ".mp4": "video/mp4",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".srt": "application/x-subrip; charset=utf-8",
    ".vtt": "text/vtt; charset=utf-8",
}
MD5 = re.compile(r"[0-9a-f]{32}")


class ObjectStoreDestination:
    def __init__(
        self,
        url: str,
        options: CloudOptions,
        locks: Path,
        environ: Mapping[str, str] | None = None,
        assemblies: Assemblies | None = None,
    ) -> None:
        """`url` is `gs://bucket/prefix`, `s3://…` or `az://…`, else RequestError; `locks` is a folder of this machine.

        Credentials that are not in `options` come from `environ`, by default the process's. `assemblies` are
        those of this process.
        """
        self._bucket = bucket_of(url)
        self._assemblies = assemblies or Assemblies()
        self._options = options
        self._locks = locks
        self._environ = environ

    def location(self, folder: str) -> str:
        return f"{self._bucket}/{self._bucket.prefix}{folder}"

    def check(self) -> None:
        ObjectStoreDelivery(connect(self._bucket, self._options, self._environ), self._bucket, "Crosscut").check()

    @contextlib.contextmanager
    def claim(self, folder: str) -> Iterator[None]:
        location = self.location(folder)
        name = hashlib.sha256(location.encode()).hexdigest()[:32]
        lock = FileLock(self._locks / f"{name}.lock", timeout=0, fallback_to_soft=False, thread_local=False)
        with storage_errors():
            self._locks.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                sentence = f"another crosscut is writing into {location}: wait for it, or give the task another name"
                raise DeliverError(sentence, code="busy", retryable=True) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def open(self, folder: str, check: Callable[[], None] = nothing) -> Iterator[Delivery]:
        """Raises DeliverError before anything is written where the bucket or the credentials are wrong."""
        store = connect(self._bucket, self._options, self._environ)
        delivery = ObjectStoreDelivery(store, self._bucket, folder, check)
        delivery.check()
        if self._bucket.scheme != "gs" or not self._options.assemble:
            yield delivery
            return
        composer = Composer(
            self._bucket,
            google_facts(self._options, self._environ),
            endpoint=self._options.gcs_endpoint,
            patience=self._options.patience,
            check=check,
        )
        hidden = partial(ObjectStoreDelivery, store, self._bucket, f"{HIDDEN}/{folder}", check)
        with contextlib.closing(composer):
            assembling = AssemblingDelivery(delivery, hidden, composer.join, self._assemblies)
            yield assembling
            assembling.close()

    def linker(self, folder: str, lasts: timedelta) -> Linker:
        return linker(connect(self._bucket, self._options, self._environ), self._bucket, folder, lasts)


class ObjectStoreDelivery:
    grouped = False

    def __init__(self, store: Store, bucket: Bucket, folder: str, check: Callable[[], None] = nothing) -> None:
        """`check` is called while a file is sent, and raises to end that."""
        self.location = f"{bucket}/{bucket.prefix}{folder}"
        self._store = store
        self._bucket = bucket
        self._check = check
        self._folder = f"{bucket.prefix}{folder}"
        self._listing = _Listing(store, self._folder)
        self._verified = False

    def check(self) -> None:
        """Ask for names behind all others: an empty answer, if the folder can be listed at all."""
        # Azure may begin at the first name whatever it is asked for; one answer is enough.
        last = None if self._bucket.scheme == "az" else f"{self._folder}/{LAST}"
        with refusals(self._bucket):
            for _ in obstore.list(self._store, prefix=self._folder, offset=last):
                break

    def holds(self, name: str, size: int | None = None) -> bool:
        with refusals(self._bucket):
            found = self._listing.size(name)
        return found is not None and size in (None, found)

    def put(self, name: str, file: VirtualFile) -> Delivered:
        size = len(file)
        if size <= PART:
            sha256 = self._put_whole(name, file.blocks())
        else:
            sha256 = file.sha256()
            part = max(PART, -(-size // MOST_PARTS))
            self._put_parts(name, file.blocks(), part, {"sha256": sha256})
        self._listing.note(name, size)
        return Delivered(f"{self.location}/{name}", size, sha256, sent=size)

    def put_text(self, name: str, parts: Iterable[str]) -> None:
        blocks = _blocks(part.encode() for part in parts)
        first, second = next(blocks, b""), next(blocks, None)
        size = len(first)
        if second is None:
            self._put_whole(name, [first])
        else:
            sizes: list[int] = []
            self._put_parts(name, _counted(chain((first, second), blocks), sizes), PART, {})
            size = sum(sizes)
        self._listing.note(name, size)

    def remove(self, name: str) -> None:
        with refusals(self._bucket):
            try:
                obstore.delete(self._store, self.key(name))
            except FileNotFoundError as error:
                if word_of(str(error)) not in ("", "NoSuchKey", "BlobNotFound"):
                    raise
        self._listing.note(name, None)

    def sweep(self) -> None:
        """Nothing: half of an upload has no name, and obstore cannot list uploads (see the module)."""

    def headers(self, name: str, sha256: str) -> dict[str, str]:
        """What Cloud Storage takes for the attributes of a file."""
        told = _attributes(name, sha256=sha256)
        return {"Content-Type": told.pop("Content-Type"), **{f"x-goog-meta-{key}": told[key] for key in told}}

    def finds(self, name: str, size: int) -> bool:
        """Whether the file is there now, whatever a list has told. Raises DeliverError."""
        with refusals(self._bucket):
            try:
                found = obstore.head(self._store, self.key(name))["size"]
            except FileNotFoundError:
                return False
        self._listing.note(name, found)
        return found == size

    def note(self, name: str, size: int) -> None:
        """A file that was put there in another way."""
        self._listing.note(name, size)

    def discard(self, names: Sequence[str]) -> None:
        """Take these away together, if they are there. Raises DeliverError."""
        if not names:
            return
        with refusals(self._bucket):
            try:
                obstore.delete(self._store, [self.key(name) for name in names])
            except FileNotFoundError:
                # One is gone, perhaps by a try whose answer was lost; what came of the others is not told.
                for name in names:
                    self.remove(name)

    def clear(self) -> None:
        """Take away everything in the folder. Raises DeliverError."""
        with refusals(self._bucket):
            for page in obstore.list(self._store, prefix=self._folder, chunk_size=PAGE):
                self.discard([entry["path"].removeprefix(f"{self._folder}/") for entry in page])
        self._listing = _Listing(self._store, self._folder)

    def _put_whole(self, name: str, blocks: Iterable[bytes]) -> str:
        """In one request. Returns the SHA-256, of each block while it is in the processor's cache."""
        digest, data = hashlib.sha256(), []
        for block in blocks:
            digest.update(block)
            data.append(block)
        sha256 = digest.hexdigest()
        with refusals(self._bucket):
            attributes = _attributes(name, sha256=sha256)
            answer = waited(
                lambda: obstore.put_async(
                    # As a list: joining them would copy every byte once more.
                    self._store,
                    self.key(name),
                    data,
                    attributes=attributes,
                    use_multipart=False,
                ),
                self._check,
            )
        self._verify(answer["e_tag"], data)
        return sha256

    def _verify(self, tag: str | None, data: Iterable[bytes]) -> None:
        """Compare the MD5 that GCS answers (Cloud Storage, "Hashes and ETags") with that of what was sent, once.

        What changes bytes on the way, such as a proxy, changes those of the first file too; chance is up to TLS. Every
        request to S3 is signed with the SHA-256 of its body.
        """
        tag = (tag or "").strip('"')
        if self._bucket.scheme != "gs" or self._verified or not MD5.fullmatch(tag):
            return
        digest = hashlib.md5(usedforsecurity=False)
        for block in data:
            digest.update(block)
        if digest.hexdigest() != tag:
            sentence = f"{self._bucket} has stored other bytes than it was sent: run the same command again"
            raise DeliverError(sentence, code="damaged_upload", retryable=True)
        self._verified = True

    def _put_parts(self, name: str, blocks: Iterable[bytes], part: int, told: dict[str, str]) -> None:
        """In parts of `part` bytes; where reading `blocks` fails, the upload is given up."""
        upload = secrets.token_hex(8)
        attributes = _attributes(name, upload=upload, **told)
        with refusals(self._bucket):
            try:
                waited(
                    lambda: obstore.put_async(
                        self._store,
                        self.key(name),
                        _watched(blocks, self._check),
                        attributes=attributes,
                        use_multipart=True,
                        chunk_size=part,
                        max_concurrency=IN_FLIGHT,
                    ),
                    self._check,
                    GRACE_SECONDS,
                )
            except FileNotFoundError as error:
                # Asked again to complete an upload, a store whose answer was lost says that there is none.
                if word_of(str(error)) != "NoSuchUpload" or not self._is_there(name, upload):
                    raise

    def _is_there(self, name: str, upload: str) -> bool:
        try:
            found = obstore.get(self._store, self.key(name), options={"head": True})
        except FileNotFoundError:
            return False
        return found.attributes.get("upload") == upload

    def key(self, name: str) -> str:
        return f"{self._folder}/{name}"


class _Listing:
    """Names and sizes of a folder, asked for in pages from the names that are looked for on. Thread-safe.

    Names are asked for in about their order, so a folder of a million files costs a request for every thousand.
    """

    def __init__(self, store: Store, folder: str, page: int = PAGE) -> None:
        self._store = store
        self._folder = folder
        self._page = page
        self._sizes: dict[str, int] = {}
        self._spans: list[tuple[str, str]] = []
        """First and last names of what is known, in order; between them nothing else is there."""
        self._ours: dict[str, int | None] = {}
        """What was written or removed here; None: removed."""
        self._lock = threading.Lock()

    def note(self, name: str, size: int | None) -> None:
        with self._lock:
            self._ours[name] = size

    def size(self, name: str) -> int | None:
        """Bytes of the file, None where there is none."""
        with self._lock:
            if name in self._ours:
                return self._ours[name]
            index = bisect_right(self._spans, (name, LAST)) - 1
            if index < 0 or self._spans[index][1] < name:
                self._learn(name)
            return self._sizes.get(name)

    def _learn(self, name: str) -> None:
        # A list starts behind what it is given, as `name` is behind any beginning of it; no path may end in a dot.
        before = f"{self._folder}/{name[:-1].rstrip('.')}"
        end = LAST
        for page in obstore.list(self._store, prefix=self._folder, offset=before, chunk_size=self._page):
            found = {entry["path"].removeprefix(f"{self._folder}/"): entry["size"] for entry in page}
            self._sizes |= found
            if max(found) >= name and len(page) == self._page:
                end = max(found)
                break
        insort(self._spans, (name, end))


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of at least `PART`, but for the last."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= PART:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _watched(blocks: Iterable[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    """Where it is called off here, obstore gives the upload up at the store as well."""
    for block in blocks:
        check()
        yield block


def _counted(blocks: Iterable[bytes], sizes: list[int]) -> Iterator[bytes]:
    for block in blocks:
        sizes.append(len(block))
        yield block


def _attributes(name: str, **told: str) -> dict[str, str]:
    return {"Content-Type": TYPES.get(PurePath(name).suffix, "application/octet-stream"), **told}
