"""Which font draws a character, and what no font of ours draws. Pure: the fonts' tables are in `glyphs`."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from crosscut.glyphs import FACES, FLAGS, PICTURES, SEQUENCES
from crosscut.graphemes import clusters

EMOJI = "NotoColorEmoji"

JOINER = "\u200d"
_TEXT_STYLE, _PICTURE_STYLE = "\ufe0e", "\ufe0f"
_UNSEEN = frozenset("\u00ad\u034f\u061c\u200b\u200c\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff").union(
    JOINER, map(chr, range(0xFE00, 0xFE10)), map(chr, range(0xE0100, 0xE01F0))
)
"""Characters that shape or divide others and are not drawn; controls of direction but marks are not among them."""

_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
_INDICATOR_A = 0x1F1E6
"""REGIONAL INDICATOR SYMBOL LETTER A"""


def _characters(ranges: str) -> frozenset[str]:
    edges = [[int(edge, 16) for edge in run.split("-")] for run in ranges.split()]
    return frozenset(chr(code) for run in edges for code in range(run[0], run[-1] + 1))


_FACES = {name: _characters(ranges) for name, ranges in FACES.items()}
_LATIN = frozenset.union(*(_FACES[name] for name in ("Inter", "NotoSans")))
_PICTURES = _characters(PICTURES) - frozenset("#*0123456789")
_FLAGS = frozenset(FLAGS.split())
_SEQUENCES = frozenset(SEQUENCES.replace("_", JOINER).split())


def uncovered(text: str) -> str | None:
    """The first character of it that no font of ours can draw, with its marks and joiners; None: all can be drawn."""
    for cluster in clusters(text):
        # Captions divide words at these and leave them out.
        seen = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in cluster).strip()
        if seen and not _UNSEEN.issuperset(seen) and face_of(seen) is None:
            return seen
    return None


@lru_cache(4096)
def face_of(cluster: str, before: str | None = None) -> str | None:
    """The font for a whole cluster (a name in `glyphs`, or `EMOJI`); None where no font has all of it.

    Spaces and punctuation stay in the font of the text `before` them. What nobody sees is in any font.
    """
    if _is_picture(cluster):
        return EMOJI
    drawn = frozenset(cluster) - _UNSEEN
    composed = frozenset(unicodedata.normalize("NFC", cluster)) - _UNSEEN
    stays = before in _FACES and unicodedata.category(cluster[0])[0] in "PZ"
    order = [before, *_FACES] if before and stays else _FACES
    return next((name for name in order if _FACES[name] >= drawn or _FACES[name] >= composed), None)


def _is_picture(cluster: str) -> bool:
    """Whether the emoji font draws it, and as one.

    What is a letter or sign as well (© ™ ☀) is a picture where a variation selector says so (Unicode UTS 51, 2.9).
    """
    if _TEXT_STYLE in cluster:
        return False
    bare = "".join(c for c in cluster if c == JOINER or c not in _UNSEEN).rstrip(JOINER)
    if len(bare) == 1:
        return bare in _PICTURES and (_PICTURE_STYLE in cluster or bare not in _LATIN)
    letters = "".join(chr(ord(c) - _INDICATOR_A + ord("A")) for c in bare if ord(c) >= _INDICATOR_A)
    return letters in _FLAGS if len(letters) == len(bare) == 2 and letters.isascii() else _joined(bare)


def _joined(bare: str) -> bool:
    pattern = _TONES.sub("+", bare)
    if pattern in _SEQUENCES:
        return True
    tones = _TONES.findall(bare)
    return len(tones) == 2 and tones[0] != tones[1] and "-".join(pattern.rsplit("+", 1)) in _SEQUENCES
