"""Boxes of ISO/IEC 14496-12, and bounded ways into them.

Pure. Every count a file claims is held against the bytes of its own box and against `MAX_SAMPLES` before anything is
allocated; lists of boxes are never entered deeper than the caller asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosscut.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SAMPLES = 1 << 20
"""Samples of all tracks of one file together: 4.8 hours of pictures at 60 a second."""

MAX_BOXES = 256
"""Boxes side by side in one box."""

Ints = NDArray[np.int64]


class Box(NamedTuple):
    kind: bytes
    whole: memoryview
    payload: memoryview


def damaged(where: str) -> ProbeError:
    return ProbeError(
        "The MP4's index contradicts itself. Export the file again.", code="damaged_mp4", detail=f"damaged {where}"
    )


def too_long() -> ProbeError:
    return ProbeError(
        f"The file lists more than {MAX_SAMPLES:,} pictures and sound frames. Cut it shorter.", code="too_many_samples"
    )


def read_boxes(data: memoryview) -> Iterator[Box]:
    at = 0
    for _ in range(MAX_BOXES):
        if len(data) - at < 8:  # QuickTime may close a list of boxes with four zero bytes
            return
        size, header = int.from_bytes(data[at : at + 4]), 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16]), 16
        elif size == 0:
            size = len(data) - at
        if size < header or size > len(data) - at:
            raise damaged("box size")
        yield Box(bytes(data[at + 4 : at + 8]), data[at : at + size], data[at + header : at + size])
        at += size
    raise damaged("number of boxes")


def children(data: memoryview) -> dict[bytes, memoryview]:
    """Payload of the first box of every kind."""
    found: dict[bytes, memoryview] = {}
    for box in read_boxes(data):
        found.setdefault(box.kind, box.payload)
    return found


def need(found: dict[bytes, memoryview], kind: bytes) -> memoryview:
    if kind not in found:
        raise damaged(f"{kind!r}: missing")
    return found[kind]


def number(data: memoryview, at: int, size: int) -> int:
    if at + size > len(data):
        raise damaged("box: too short")
    return int.from_bytes(data[at : at + size])


def table(payload: memoryview, columns: int, dtype: str = ">u4", at: int = 4) -> Ints:
    """The rows of a counted table whose count stands at `at`."""
    count = number(payload, at, 4)
    if count > MAX_SAMPLES:
        raise too_long()
    if count * columns * np.dtype(dtype).itemsize > len(payload) - at - 4:
        raise damaged("table: longer than its box")
    return np.frombuffer(payload, dtype, count * columns, at + 4).astype(np.int64).reshape(count, columns)


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return (8 + len(body)).to_bytes(4) + kind + body


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, bytes((version,)), flags.to_bytes(3), *parts)
