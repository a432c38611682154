"""What a job needs before its plan can be drawn: its request with all additions, its sources and its lines. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from crosscut.additions import extended, parse_addition
from crosscut.fields import RequestLimits
from crosscut.request import parse_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crosscut.request import Request
    from crosscut.units import JobRecord

ACCEPTED = RequestLimits(
    body=1 << 30, sources=10**6, blocks=10**4, lines=10**6, text=10**6, url=10**5, task_name=10**4, variations=10**9
)
"""A stored request was checked when it came; settings may have become stricter since."""


@dataclass(frozen=True)
class Want:
    """One thing to be prepared; jobs with the same `key` share it."""

    kind: Literal["source", "speech"]
    key: str
    name: str
    payload: Mapping[str, Any]


def request_of(record: JobRecord) -> Request:
    request = parse_request(record.body, local=record.local, limits=ACCEPTED)
    for extension in record.extensions:
        addition = parse_addition(extension, request, local=record.local, limits=ACCEPTED)
        request = extended(request, addition)
    return request


def planned_request(record: JobRecord) -> Request:
    """The request as far as the plan contains it."""
    return request_of(replace(record, extensions=record.extensions[: record.planned]))


def wants(record: JobRecord, request: Request) -> list[Want]:
    """Clips in the order in which they complete variations soonest, then music, then lines; each once."""
    grid = request.grid(1)
    clips = [request.blocks[block].clips[choice] for block, choice in grid.order()]
    sources = dict.fromkeys([*clips, *(clip for block in request.blocks for clip in block.clips), *request.music])
    found = [_source(source, record) for source in sources]
    return found + [_speech(line.text, line.voice) for line in dict.fromkeys(request.lines)]


def _source(source: str, record: JobRecord) -> Want:
    # Paths are relative to where the request was; links mean the same everywhere.
    base = None if "://" in source or source.startswith("source:") else record.base
    key = _key("source", source, base)
    return Want("source", key, source, {"source": source, "base": base, "since": record.created})


def _speech(text: str, voice: str | None) -> Want:
    name = json.dumps([text, voice], ensure_ascii=False)
    return Want("speech", _key("speech", text, voice), name, {"text": text, "voice": voice})


def _key(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
