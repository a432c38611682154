"""The order of text in which scripts of both directions meet: the Unicode Bidirectional Algorithm (UAX 9). Pure.

Explicit embeddings, overrides and isolates (rules X1 to X8) are left out: no font draws their characters, so no caption
holds one, and a paragraph is one isolating run sequence. Rules are named as in UAX 9.
"""

from __future__ import annotations

import unicodedata
from itertools import groupby

_STRONG = {"L": 0, "R": 1, "AL": 1}
_NEUTRAL = frozenset({"B", "S", "WS", "ON"})
_PAIRS = (
    "()[]{}༺༻༼༽᚛᚜⁅⁆⁽⁾₍₎⌈⌉⌊⌋〈〉❨❩❪❫❬❭❮❯❰❱❲❳❴❵⟅⟆⟦⟧⟨⟩⟪⟫⟬⟭⟮⟯⦃⦄⦅⦆⦇⦈⦉⦊⦋⦌⦍⦐⦏⦎⦑⦒⦓⦔⦕⦖⦗⦘⧘⧙⧚⧛⧼⧽⸢⸣⸤⸥⸦⸧⸨⸩"
    "〈〉《》「」『』【】〔〕〖〗〘〙〚〛（）［］｛｝｟｠｢｣"
)
"""Opening and closing brackets (BidiBrackets.txt)."""
_OPENED_BY = {closing: opening for opening, closing in zip(_PAIRS[::2], _PAIRS[1::2], strict=True)}
_OPENING = frozenset(_OPENED_BY.values())
_DEEPEST = 63
"""Open brackets that are remembered (BD16)."""


def levels(text: str) -> list[int]:
    """Of every character; odd: from right to left. The first strong one decides for the paragraph (P2, P3)."""
    kinds = [unicodedata.bidirectional(character) or "L" for character in text]
    base = next((_STRONG[kind] for kind in kinds if kind in _STRONG), 0)
    # What shapes others and is not seen takes no part (X9).
    parts = [at for at, kind in enumerate(kinds) if kind != "BN"]
    resolved = [kinds[at] for at in parts]
    marks = [kind == "NSM" for kind in resolved]
    _resolve_weak(resolved, "R" if base else "L")
    _resolve_brackets(resolved, [text[at] for at in parts], marks, base)
    _resolve_neutral(resolved, base)
    found = dict(zip(parts, (base + _raised(kind, base) for kind in resolved), strict=True))
    result: list[int] = []
    for at in range(len(text)):
        result.append(found.get(at, result[-1] if result else base))
    return result


def visual(line: list[int]) -> list[int]:
    """The places of a line's characters, by their levels, from left to right (L2)."""
    order = list(range(len(line)))
    for level in range(max(line, default=0), 0, -1):
        runs = [(high, list(run)) for high, run in groupby(order, key=lambda at: line[at] >= level)]
        order = [at for high, run in runs for at in (reversed(run) if high else run)]
    return order


def _resolve_weak(kinds: list[str], edge: str) -> None:
    """W1 to W7, in place; `edge` is the type before the first character."""
    for at, kind in enumerate(kinds):
        if kind == "NSM":
            kinds[at] = kinds[at - 1] if at else edge
    _turn_numbers(kinds, edge, "AL", "AN")
    kinds[:] = ["R" if kind == "AL" else kind for kind in kinds]
    for at in range(1, len(kinds) - 1):
        before, kind, after = kinds[at - 1 : at + 2]
        if before == after and (kind, before) in (("ES", "EN"), ("CS", "EN"), ("CS", "AN")):
            kinds[at] = before
    for first, stop, kind in _runs(kinds):
        if kind == "ET" and "EN" in (*kinds[first - 1 : first], *kinds[stop : stop + 1]):
            kinds[first:stop] = ["EN"] * (stop - first)
    kinds[:] = ["ON" if kind in ("ES", "ET", "CS") else kind for kind in kinds]
    _turn_numbers(kinds, edge, "L", "L")


def _turn_numbers(kinds: list[str], edge: str, after: str, into: str) -> None:
    """W2 and W7: European numbers are something else where the last strong type is `after`."""
    strong = edge
    for at, kind in enumerate(kinds):
        if kind in _STRONG:
            strong = kind
        elif kind == "EN" and strong == after:
            kinds[at] = into


def _resolve_brackets(kinds: list[str], characters: list[str], marks: list[bool], base: int) -> None:
    """N0, in place; `marks` tells which of them were nonspacing marks."""
    for opening, closing in _pairs(kinds, characters):
        inside = {_direction(kind) for kind in kinds[opening + 1 : closing]} - {None}
        if not inside:
            continue
        direction = base
        if base not in inside:
            around = (_direction(kind) for kind in reversed(kinds[:opening]))
            direction = next((found for found in around if found is not None), base)
        for at in (opening, closing):
            stop = at + 1
            while stop < len(kinds) and marks[stop]:
                stop += 1
            kinds[at:stop] = ["LR"[direction]] * (stop - at)


def _pairs(kinds: list[str], characters: list[str]) -> list[tuple[int, int]]:
    """BD16: the brackets that belong together, by their openings."""
    pairs = []
    opened: list[tuple[str, int]] = []
    for at, character in enumerate(characters):
        if kinds[at] != "ON":
            continue
        bracket = unicodedata.normalize("NFC", character)
        if bracket in _OPENING:
            if len(opened) == _DEEPEST:
                return []
            opened.append((bracket, at))
        elif bracket in _OPENED_BY:
            depth = next(
                (depth for depth in reversed(range(len(opened))) if opened[depth][0] == _OPENED_BY[bracket]), None
            )
            if depth is not None:
                pairs.append((opened[depth][1], at))
                del opened[depth:]
    return sorted(pairs)


def _resolve_neutral(kinds: list[str], base: int) -> None:
    """N1 and N2, in place."""
    for first, stop, kind in _runs(["ON" if kind in _NEUTRAL else kind for kind in kinds]):
        if kind == "ON":
            before = _direction(kinds[first - 1]) if first else base
            after = _direction(kinds[stop]) if stop < len(kinds) else base
            direction = before if before is not None and before == after else base
            kinds[first:stop] = ["LR"[direction]] * (stop - first)


def _direction(kind: str) -> int | None:
    """Of what is strong for N0 and N1: numbers count as from right to left."""
    return {"L": 0, "R": 1, "EN": 1, "AN": 1}.get(kind)


def _raised(kind: str, base: int) -> int:
    """I1 and I2: how far the level of a resolved type is above the paragraph's."""
    if base:
        return 0 if kind == "R" else 1
    return {"L": 0, "R": 1}.get(kind, 2)


def _runs(kinds: list[str]) -> list[tuple[int, int, str]]:
    """First, stop and type of each run of one type."""
    runs, at = [], 0
    for kind, run in groupby(kinds):
        stop = at + len(list(run))
        runs.append((at, stop, kind))
        at = stop
    return runs
