"""What a job needs before its plan can be drawn: its request with all additions, its sources and its lines. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from crosscut.additions import extended, parse_addition
from crosscut.cuts import cut_of
from crosscut.fields import RequestLimits
from crosscut.media import Manner
from crosscut.request import Line, parse_request

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
    clips += [clip for block in request.blocks for clip in block.clips]
    sources = dict.fromkeys([*(cut_of(clip).source for clip in clips), *request.music])
    found = [_source(source, record) for source in sources]
    return found + [_speech(line) for line in dict.fromkeys(request.lines)]


def line_name(line: Line) -> str:
    """What a line is called among what a job needs: all that it is, as JSON."""
    told = asdict(line)
    return json.dumps(told, ensure_ascii=False, sort_keys=True)


def line_of(name: str) -> Line:
    """The line of that name."""
    told = json.loads(name)
    manner = told["manner"]
    settings = tuple((setting, value) for setting, value in manner["settings"])
    return Line(told["text"], told["voice"], Manner(manner["model"], manner["language"], settings))


def _source(source: str, record: JobRecord) -> Want:
    # Paths are relative to where the request was; links mean the same everywhere.
    base = None if "://" in source or source.startswith("source:") else record.base
    key = _key("source", source, base)
    return Want("source", key, source, {"source": source, "base": base, "since": record.created})


def _speech(line: Line) -> Want:
    name = line_name(line)
    return Want("speech", _key("speech", name), name, {"line": name})


def _key(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
