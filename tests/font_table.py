"""What `crosscut.glyphs` must say, read out of the fonts themselves; run it to write that module anew."""

from __future__ import annotations

import re
import sys
import textwrap
import unicodedata
from itertools import product
from pathlib import Path

import uharfbuzz as hb
from fontTools.ttLib import TTFont

PACKAGE = Path(__file__).parent.parent / "src" / "crosscut"
FONTS = PACKAGE / "fonts"
EMOJI = "NotoColorEmoji"
TONES = [chr(tone) for tone in range(0x1F3FB, 0x1F400)]
INDICATORS = range(0x1F1E6, 0x1F200)
NUMBER_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u08e2"
"""Format characters that are seen: they enclose the digits after them."""
TAGS = range(0xE0020, 0xE0080)

HEAD = '''"""Which characters the fonts in `fonts/` have. Generated from them by `tests/font_table.py`. Pure."""

'''


def text_faces() -> dict[str, Path]:
    """Name in the table -> file, first choice first; Inter's weights have the same characters."""
    noto = sorted(path.stem for path in FONTS.glob("NotoSans*-Bold.ttf"))
    order = ["NotoSans-Bold", *(name for name in noto if name not in ("NotoSans-Bold", "NotoSansSymbols-Bold"))]
    files = {name.removesuffix("-Bold"): FONTS / f"{name}.ttf" for name in [*order, "NotoSansSymbols-Bold"]}
    return {"Inter": FONTS / "Inter-Bold.otf"} | files


def characters(path: Path) -> set[str]:
    """What it draws: neither controls, nor what has a meaning in this font alone, nor stand-ins for something else."""
    found = map(chr, hb.Face(hb.Blob.from_file_path(str(path))).unicodes)
    return {
        character
        for character in found
        if (unicodedata.category(character)[0] != "C" or character in NUMBER_SIGNS) and character not in "\ufffc\ufffd"
    }


def pictures() -> set[str]:
    """Characters that are a picture by themselves: letters of flags and parts of tags are not."""
    font = hb.Font(face := hb.Face(hb.Blob.from_file_path(str(FONTS / f"{EMOJI}.ttf"))))
    return {
        chr(code)
        for code in face.unicodes
        if code not in INDICATORS and face.glyph_has_color_paint(font.get_nominal_glyph(code))
    }


def sequences() -> set[str]:
    """All ligatures of characters of the emoji font, which takes no notice of variation selectors."""
    font = TTFont(FONTS / f"{EMOJI}.ttf")
    names = {name: chr(code) for code, name in font.getBestCmap().items()}
    found = set()
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, ligatures in getattr(table, "ligatures", {}).items():
                for ligature in ligatures:
                    parts = [first, *ligature.Component]
                    if all(part in names for part in parts):
                        found.add("".join(names[part] for part in parts))
    return {text for text in found if not (len(text) == 2 and ord(text[1]) in TAGS)}


def flags() -> set[str]:
    """Their letters."""
    return {
        "".join(chr(ord(part) - INDICATORS[0] + ord("A")) for part in text)
        for text in sequences()
        if ord(text[0]) in INDICATORS
    }


def patterns() -> set[str]:
    """All other sequences: `+` for any skin tone, `-` for any but the one before, `_` for the joiner."""
    alike: dict[str, set[str]] = {}
    for text in sequences():
        if ord(text[0]) not in INDICATORS:
            pattern = "".join("+" if part in TONES else "_" if part == "\u200d" else part for part in text)
            alike.setdefault(pattern, set()).add(text)
    return {
        pattern if found.issuperset(spelled(pattern)) else "-".join(pattern.rsplit("+", 1))
        for pattern, found in alike.items()
    }


def spelled(pattern: str) -> list[str]:
    """All sequences that a pattern stands for."""
    parts = re.split("[+-]", pattern.replace("_", "\u200d"))
    choices = product(TONES, repeat=len(parts) - 1)
    return [
        "".join(part + tone for part, tone in zip(parts, [*tones, ""], strict=True))
        for tones in choices
        if "-" not in pattern or tones[0] != tones[1]
    ]


def ranges(found: set[str]) -> str:
    """`20-7e a0`."""
    runs: list[list[int]] = []
    for code in sorted(map(ord, found)):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return " ".join(f"{first:x}" if first == last else f"{first:x}-{last:x}" for first, last in runs)


def module() -> str:
    faces = {name: ranges(characters(path)) for name, path in text_faces().items()}
    parts = [HEAD, "FACES = {\n"]
    for name, text in faces.items():
        parts.append(f'    "{name}": """\n{wrapped(text, 8)}""",\n')
    parts.append('}\n"""Of every font for text, best first: ranges of code points, hexadecimal."""\n\n')
    parts.append(f'PICTURES = """\n{wrapped(ranges(pictures()), 4)}"""\n"""Characters that the emoji font has."""\n\n')
    parts.append(f'FLAGS = """\n{wrapped(" ".join(sorted(flags())), 4)}"""\n"""Letters of its flags."""\n\n')
    parts.append(f'SEQUENCES = """\n{wrapped(" ".join(sorted(patterns())), 4, 68)}"""\n')
    parts.append(
        '"""Characters that it draws as one, but for variation selectors.'
        ' `+`: any skin tone, `-`: any but that, `_`: joiner."""\n'
    )
    return "".join(parts)


def wrapped(text: str, indent: int, width: int = 118) -> str:
    space = " " * indent
    filled = textwrap.fill(text, width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)
    return filled + "\n" + " " * (indent - 4)


if __name__ == "__main__":
    sys.stdout.write(module())
