"""Formats and frame rates as people write them, `9:16`, `1080x1920`, `29.97`, `30000/1001`, made exact.

Both functions take any JSON value and raise a `problem` for what they cannot read.
"""

from __future__ import annotations

import re
from fractions import Fraction

from crosscut.refusals import kind_of, problem, quoted

NAMED_FORMATS = {"9:16": (1080, 1920), "1:1": (1080, 1080), "4:5": (1080, 1350), "16:9": (1920, 1080)}
SIDES = range(64, 4097)

NTSC_RATES = (Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001))
"""What people mean by 23.976, 29.97 and 59.94 (SMPTE ST 170)."""


def format_size(value: object) -> tuple[int, int]:
    """Width and height in pixels."""
    shown = f"must be {', '.join(map(quoted, NAMED_FORMATS))} or a size like {quoted('1080x1920')}"
    if not isinstance(value, str):
        raise problem(f"{shown}, not {kind_of(value)}")
    text = value.replace(" ", "")
    if text in NAMED_FORMATS:
        return NAMED_FORMATS[text]
    size = re.fullmatch(r"([0-9]{1,5})[x×X]([0-9]{1,5})", text)
    if not size:
        raise problem(shown)
    width, height = int(size[1]), int(size[2])
    if width % 2 or height % 2 or width not in SIDES or height not in SIDES:
        raise problem(f"must have even sides from {SIDES[0]} to {SIDES[-1]:,} pixels")
    return width, height


def frame_rate(value: object) -> Fraction | None:
    """Decimals near an NTSC rate mean that rate; others keep the nearest fraction with a divisor up to 1001.

    None stays None.
    """
    if value is None:
        return None
    wanted = 'must be a number from 1 to 60, or a fraction like "30000/1001"'
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise problem(f"{wanted}, not {kind_of(value)}")
    text = value.strip() if isinstance(value, str) else ""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}|/0*[1-9][0-9]{0,8})?", text):
        raise problem(wanted)
    if not isinstance(value, str) and not 1 <= value <= 60:
        raise problem(wanted)
    rate = Fraction(text or value)
    if "/" not in text:
        near = next((ntsc for ntsc in NTSC_RATES if abs(rate - ntsc) < Fraction(1, 200)), rate)
        rate = near.limit_denominator(1001)
    if not 1 <= rate <= 60 or rate.denominator > 1001:
        raise problem(wanted)
    return rate
