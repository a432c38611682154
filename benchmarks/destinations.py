"""Delivering to other machines: Cloud Storage against obstore, Drive against plain HTTP, joining in the bucket."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx2
import obstore
from obstore.store import GCSStore

from benchmarks import crosscut_way, stand_ins
from benchmarks.measure import fresh
from crosscut.destinations.buckets import CloudOptions
from crosscut.destinations.drive import DriveDestination
from crosscut.destinations.drive_account import Account
from crosscut.destinations.drive_auth import CONSENT_NOTE
from crosscut.destinations.objectstore import ObjectStoreDestination
from crosscut.files import FileNotes
from crosscut.studio import DELIVERIES
from crosscut.virtual import Extent, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.clips import Blocks
    from benchmarks.crosscut_way import Production
    from benchmarks.scale import Scale
    from benchmarks.stand_ins import StandIn
    from crosscut.destinations import Destination

PIECES = 10
"""Ranges that a file to be sent is made of."""


@dataclass(frozen=True)
class Sending:
    """Seconds on the clock for all files, in the median of the rounds."""

    place: str
    files: int
    bytes: int
    """Of one file."""
    ours: float
    plain: float
    hashed: float
    """Plain, with the SHA-256 of each file that a manifest tells."""

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


@dataclass(frozen=True)
class Joining:
    """All variations of a job into a bucket; bytes as the store has received them."""

    variations: int
    clips: int
    bytes: int
    """Of the videos."""
    whole: int
    joined: int
    whole_cost: Production
    joined_cost: Production
    memory_of_few: int
    """Peak of a job of as many clips and few variations, joined."""
    few: int

    @property
    def share(self) -> float:
        return self.joined / self.whole

    @property
    def growth(self) -> float:
        return self.joined_cost.memory / self.memory_of_few


@dataclass(frozen=True)
class Destinations:
    sendings: Sequence[Sending]
    joining: Joining


def destinations(small: Blocks, music: Path, scale: Scale, folder: Path) -> Destinations:
    folder.mkdir()
    source = folder / "source"
    source.write_bytes(os.urandom(scale.file_bytes))
    return Destinations([_bucket(source, scale), _drive(source, scale)], _joining(small, music, scale, folder))


def _bucket(source: Path, scale: Scale) -> Sending:
    with stand_ins.bucket() as store:
        seconds = _rounds(scale, store, source, _bucket_by_crosscut, _bucket_by_obstore)
    return Sending("Cloud Storage", scale.files, scale.file_bytes, *seconds)


def _drive(source: Path, scale: Scale) -> Sending:
    with stand_ins.drive() as store:
        seconds = _rounds(scale, store, source, _drive_by_crosscut, _drive_by_http)
    return Sending("Google Drive", scale.files, scale.file_bytes, *seconds)


def _rounds(
    scale: Scale, store: StandIn, source: Path, ours: Callable[..., float], plain: Callable[..., float]
) -> tuple[float, float, float]:
    """Ours, plain, and plain with hashes in turn, so that what changes on the machine meanwhile meets all of them."""
    where = store.url, store.key, source, scale.files
    found = [
        (fresh(ours, *where), fresh(plain, *where), fresh(plain, *where, hashed=True)) for _ in range(scale.rounds)
    ]
    first, second, third = zip(*found, strict=True)
    return median(first), median(second), median(third)


def _read(source: Path, *, hashed: bool) -> bytes:
    data = source.read_bytes()
    if hashed:
        hashlib.sha256(data).hexdigest()
    return data


def _deliver(destination: Destination, source: Path, files: int) -> float:
    size = source.stat().st_size
    step = -(-size // PIECES)
    pieces = [Extent(source, start, min(step, size - start)) for start in range(0, size, step)]
    start = time.perf_counter()
    with destination.open(secrets.token_hex(8)) as delivery, ThreadPoolExecutor(DELIVERIES) as pool:
        # Read in another order than they lie in, as the pieces of a video do.
        list(pool.map(lambda number: delivery.put(f"{number}.mp4", VirtualFile(pieces[::-1])), range(files)))
    return time.perf_counter() - start


def _bucket_by_crosscut(url: str, key: str, source: Path, files: int) -> float:
    return _deliver(_bucket_of(url, key, source.parent), source, files)


def _bucket_by_obstore(url: str, key: str, source: Path, files: int, *, hashed: bool = False) -> float:
    store = GCSStore(
        "bucket", config={"service_account_key": key, "base_url": url}, client_options={"allow_http": True}
    )
    folder = secrets.token_hex(8)
    start = time.perf_counter()
    with ThreadPoolExecutor(DELIVERIES) as pool:
        list(
            pool.map(
                lambda number: obstore.put(
                    store, f"{folder}/{number}.mp4", _read(source, hashed=hashed), use_multipart=False
                ),
                range(files),
            )
        )
    return time.perf_counter() - start


def _drive_by_crosscut(url: str, key: str, source: Path, files: int) -> float:
    consent = FileNotes(source.parent)
    consent.put(CONSENT_NOTE, key)
    with closing(Account(source.parent / "drive", consent=consent, url=url)) as account:
        return _deliver(DriveDestination("drive:", account), source, files)


def _drive_by_http(url: str, key: str, source: Path, files: int, *, hashed: bool = False) -> float:
    """One request for each file, and no more: ids are drawn before, nothing is noted or checked."""
    with httpx2.Client(timeout=60) as client:
        who = json.loads(key)
        asked = {name: who[name] for name in ("client_id", "client_secret", "refresh_token")}
        told = client.post(f"{url}/token", data=asked | {"grant_type": "refresh_token"}).raise_for_status()
        headers = {"Authorization": f"Bearer {told.json()['access_token']}"}
        drawn = f"{url}/drive/v3/files/generateIds?space=drive&type=files&count={files}"
        ids = client.get(drawn, headers=headers).raise_for_status().json()["ids"]
        # As `drive_client.DriveClient.upload_whole` puts it together.
        kind = {"Content-Type": "multipart/related; boundary=between"}
        where, tail = f"{url}/upload/drive/v3/files?uploadType=multipart&supportsAllDrives=true", b"\r\n--between--\r\n"

        def put(file_id: str) -> None:
            metadata = json.dumps({"id": file_id, "name": "video.mp4", "mimeType": "video/mp4"})
            head = (
                f"--between\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n"
                "--between\r\nContent-Type: video/mp4\r\n\r\n"
            ).encode()
            data = _read(source, hashed=hashed)
            length = {"Content-Length": str(len(head) + len(data) + len(tail))}
            client.post(where, content=iter((head, data, tail)), headers=headers | kind | length).raise_for_status()

        start = time.perf_counter()
        with ThreadPoolExecutor(DELIVERIES) as pool:
            list(pool.map(put, ids))
        return time.perf_counter() - start


def _bucket_of(url: str, key: str, folder: Path, *, assemble: bool = True) -> ObjectStoreDestination:
    file = folder / "key.json"
    file.write_text(key)
    options = CloudOptions(gcs_key_file=str(file), gcs_endpoint=url, assemble=assemble)
    return ObjectStoreDestination("gs://bucket", options, folder / "locks", {})


def _joining(small: Blocks, music: Path, scale: Scale, folder: Path) -> Joining:
    data, clips = folder / "data", sum(map(len, small))

    def job(name: str, count: int) -> dict[str, Any]:
        return crosscut_way.request(name, small, music, scale.text, select={"count": count})

    many, few = scale.many**3, max(2 * scale.many, scale.many**3 // 10)
    fresh(crosscut_way.produce_nowhere, job("all", many), data)  # makes the pieces
    fresh(crosscut_way.produce_unsynced, job("all", many), data, folder / "sized")
    total = sum(path.stat().st_size for path in (folder / "sized").iterdir())
    shutil.rmtree(folder / "sized")
    with stand_ins.bucket() as store:
        at = store.url, store.key, folder
        memory = fresh(_produce, job("few", few), data, *at, assemble=True).memory
        counts, costs = [store.bytes_in()], []
        for name, assemble in (("joined", True), ("whole", False)):
            costs.append(fresh(_produce, job(name, many), data, *at, assemble=assemble))
            counts.append(store.bytes_in())
    joined, whole = (after - before for before, after in pairwise(counts))
    return Joining(many, clips, total, whole, joined, costs[1], costs[0], memory, few)


def _produce(body: dict[str, Any], data: Path, url: str, key: str, folder: Path, *, assemble: bool) -> Production:
    return crosscut_way.produce_into(body, data, _bucket_of(url, key, folder, assemble=assemble))
