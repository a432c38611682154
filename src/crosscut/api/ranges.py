"""Which part of a representation a GET asks for (RFC 9110 §13, §14). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPEC = re.compile(r"[ \t]*bytes[ \t]*=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
_DIGITS = 18
"""A number with more digits is beyond every file."""


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop`, without `stop`; never empty."""

    start: int
    stop: int


class Unsatisfiable(Exception):  # noqa: N818  the standard's own word
    """The range begins beyond the end, or holds nothing."""


def asked_span(header: str | None, size: int) -> Span | None:
    """The one range of a Range header; None for the whole: no header, another unit, several ranges or nonsense."""
    match = _SPEC.fullmatch(header) if header else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(_number(suffix), size)
        if length == 0:
            raise Unsatisfiable
        return Span(size - length, size)
    start = _number(first)
    stop = _number(last) + 1 if last else size
    if last and stop <= start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Span(start, min(stop, size))


def _number(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _DIGITS else 10**_DIGITS


def is_unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether one of the caller's entity tags is `etag`; weak ones count, as they may for a GET."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return f'"{etag}"' in re.findall(r'"[^"]*"', if_none_match)


def may_continue(if_range: str | None, etag: str) -> bool:
    """Whether the caller's part belongs to this representation: only the very same strong tag says so."""
    return if_range is None or if_range.strip() == f'"{etag}"'
