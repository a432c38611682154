"""What a file plainly is when it is no media, by its first bytes."""

from __future__ import annotations

import codecs

HEAD = 4096
"""Bytes that are enough to tell."""

WEB_PAGE = "a web page (HTML)"

_TEXTS = {
    b"<!doctype html": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"#extm3u": "a playlist (M3U)",
    b"[playlist]": "a playlist (PLS)",
    b"ffconcat": "a playlist (ffconcat)",
    b"v=0": "a description of a stream (SDP)",
    b"<svg": "a drawing (SVG)",
    b"<": "XML",
    b"{": "JSON",
    b"[": "JSON",
    b"": "text",
}
"""How a text begins, the special before the general."""
_BINARIES = (
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a GZIP archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (0, b"\x89PNG", "a picture (PNG)"),
    (8, b"WEBP", "a picture (WebP)"),
    (4, b"ftyphei", "a picture (HEIC)"),
    (4, b"ftypmif1", "a picture (HEIC)"),
    (4, b"ftypavif", "a picture (AVIF)"),
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")
"""Bytes that no text has and every media file has at once."""


def looks_like(head: bytes) -> str | None:
    """Words that complete “the file is …”, None where it may be media; `head` is all of the file or `HEAD` bytes."""
    if not head.strip(b"\0"):
        return "empty"
    text = head[2:].replace(b"\0", b"") if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else head
    if _CONTROLS.intersection(text):
        return next((name for at, magic, name in _BINARIES if head.startswith(magic, at)), None)
    start = text.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith(b"<") and b"<html" in start:  # behind a comment or an XML declaration
        return WEB_PAGE
    return next(name for beginning, name in _TEXTS.items() if start.startswith(beginning))
