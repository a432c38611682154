"""Names of files and folders that are safe on every file system and still say what is inside."""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from crosscut.cuts import cut_of
from crosscut.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_TEMPLATE = "{index}_{clips}"
SUFFIX = ".mp4"

NAME_BYTES = 200
"""Longest file name in UTF-8: below the 255 of common file systems, with room for suffixes others add."""
FOLDER_BYTES = 120
LABEL_BYTES = 60
TASK_BYTES = 32
TEMPLATE_CHARACTERS = 400
LITERAL_BYTES = 24
"""Literals, task, seed, index, code and format are never cut, so that names stay unique. For 16 blocks, 10¹⁵
combinations and 8 formats they come to 24 + 32 + 19 + 16 + 62 + 10 bytes, which leaves room for the dashes between
clips."""

FIELDS = ("task", "index", "code", "clips", "music", "voice", "format", "seed")
KEYS = ("index", "code")
CONSTANT = ("task", "seed")
PUNCTUATION = " +,()[]"

# Windows: "Naming Files, Paths, and Namespaces", reserved device names, which no extension makes legal.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(?=\.|$)", re.IGNORECASE)
_BLANK = {"\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u3164", "\uffa0", *map(chr, range(0xFE00, 0xFE10))}
"""Letters and marks that show nothing: fillers, joiners, variation selectors."""
_PLAIN = frozenset("()[]{}'&+,!@#=;^$")
"""Marks that no file system and no shell-free program takes for more than they are."""
_HASHED = re.compile(r"-[0-9a-f]{8}$")
_EXTENSION = re.compile(r"\.(?=[^.]*[A-Za-z])[A-Za-z0-9]{1,5}$")


@lru_cache(maxsize=4096)
def slug(text: str, limit: int) -> str:
    """`text` as one path component of at most `limit` (8 or more) UTF-8 bytes; `"untitled"` when nothing is left.

    Keeps letters of any script, digits, `_`, `-` and `.`; spaces become `_` and everything else `-`. Normalised to
    NFC, without invisible characters, never a device name of Windows, never led or ended by a dot or dash.
    """
    kept = "".join(map(_kept, unicodedata.normalize("NFC", text))).strip(" ")
    kept = re.sub(r"[ -]+", lambda run: "-" if "-" in run[0] else "_", kept)
    kept = unicodedata.normalize("NFC", re.sub(r"\.+", ".", kept)).lstrip("-.")
    while unicodedata.category(kept[:1] or "a").startswith("M"):
        kept = kept[1:].lstrip("-.")
    kept = cut(kept, limit).rstrip("-.")
    if _RESERVED.match(kept):
        kept = cut(f"_{kept}", limit).rstrip("-.")
    return kept or "untitled"


def _kept(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" or character in _BLANK:
        return ""
    if character.isalnum() or category[0] == "M" or character in "_-.":
        return character
    return " " if category == "Zs" else "-"


def cut(text: str, limit: int) -> str:
    """The longest beginning of `text` within `limit` UTF-8 bytes."""
    return text.encode()[:limit].decode(errors="ignore")


def folder_name(task_name: str) -> str:
    """A folder for a task: its own name, spaces and all, where that is safe; else its slug and a short hash.

    Names that slug alike get different folders; so does a name that looks as if it carried such a hash.
    """
    name = unicodedata.normalize("NFC", task_name)
    if _is_safe_folder(name) and name == task_name and not _HASHED.search(name):
        return name
    digest = hashlib.blake2b(task_name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{slug(task_name, FOLDER_BYTES - 9)}-{digest}"


def _is_safe_folder(name: str) -> bool:
    visible = all(character == " " or character in _PLAIN or _kept(character) == character for character in name)
    edges = bool(name) and name[0] not in "-. ~" and name[-1] not in "-. " and "  " not in name
    fits = len(name.encode(errors="surrogatepass")) <= FOLDER_BYTES
    return visible and edges and fits and ".." not in name and not _RESERVED.match(name)


def clip_label(clip: str, filename: str | None = None) -> str:
    """The clip's label, or the name of its file without extension: `filename`, or what its URL or path calls it.

    A slug with room for a number behind it.
    """
    cut = cut_of(clip)
    if cut.label:
        return slug(cut.label, LABEL_BYTES - 6)
    return slug(_EXTENSION.sub("", file_of(filename or cut.source)), LABEL_BYTES - 6)


def file_of(source: str) -> str:
    """What a URL or path calls its file, without its query."""
    if re.match(r"https?://", source, re.IGNORECASE):
        source = unquote(re.split("[?#]", source, maxsplit=1)[0])
    return re.split(r"[/\\]", source.rstrip("/\\"))[-1]


def labels(
    sources: Sequence[str], ends: Sequence[int] = (), filenames: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, ...]:
    """A label for each source, unique among them whatever the case; `filenames` holds those that no link tells.

    The labels before each of `ends`, in rising order, are what they would be without the sources behind.
    """
    named: tuple[str, ...] = ()
    for end in (*ends, len(sources)):
        fresh = [clip_label(source, filenames.get(source)) for source in sources[len(named) : end]]
        named = unique([*named, *fresh])
    return named


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names with `-2`, `-3` ... appended to those that came before, ignoring case."""
    wanted = {name.casefold() for name in names}
    used: set[str] = set()
    last: dict[str, int] = {}
    result = []
    for name in names:
        chosen, key = name, name.casefold()
        while chosen.casefold() in used or (chosen != name and chosen.casefold() in wanted):
            last[key] = last.get(key, 1) + 1
            chosen = f"{name}-{last[key]}"
        used.add(chosen.casefold())
        result.append(chosen)
    return tuple(result)


@dataclass(frozen=True)
class NameTemplate:
    """`parts` alternates literals and placeholders, a literal first and last."""

    parts: tuple[str, ...]
    blocks: tuple[str, ...]
    initials: tuple[str, ...]

    @classmethod
    def parse(cls, template: str | None, blocks: Sequence[str]) -> NameTemplate:
        """Raises RequestError when names made this way could be unsafe or equal; None or blank means the default."""
        text = unicodedata.normalize("NFC", template or "").strip() or DEFAULT_TEMPLATE
        text = text.removesuffix(SUFFIX)
        parts = tuple(re.split(r"\{([^{}]*)\}", text))
        _check_literals(text, parts[::2])
        _check_fields(parts[1::2], blocks)
        _check_uniqueness(parts)
        return cls(parts, tuple(blocks), _initials(blocks))

    def code(self, combination: Sequence[int], repeat: int = 1) -> str:
        """`h2-b1-c3` for clip numbers (1, 0, 2) of hook, body and cta; `h2-b1-c3r2` where they come once more."""
        code = "-".join(f"{i}{clip + 1}" for i, clip in zip(self.initials, combination, strict=True))
        return code if repeat == 1 else f"{code}r{repeat}"

    def render(
        self,
        *,
        index: int,
        total: int,
        choices: Sequence[int],
        clips: Sequence[str],
        music: str,
        voice: str,
        format: str | None,  # noqa: A002  named like its placeholder
        seed: int,
        task: str,
        append_format: bool = True,
        repeat: int = 1,
    ) -> str:
        """The file name of variation `index`, counted from 1 and written as wide as `total`, `.mp4` included.

        `choices` holds a clip number per block, `clips` the labels; `repeat` counts how often these choices came so
        far. A `format` is appended where the template lacks it, unless `append_format` is false. For one template,
        total, seed and task, names are unique over (index or choices and repeat, format).
        """
        labelled = [slug(label, LABEL_BYTES) for label in clips]
        values = {
            **{block: [label] for block, label in zip(self.blocks, labelled, strict=True)},
            "task": [slug(task, TASK_BYTES)],
            "index": [f"{index:0{len(str(total))}}"],
            "code": [self.code(choices, repeat)],
            "clips": labelled,
            "music": [slug(music, LABEL_BYTES) if music else "none"],
            "voice": [slug(voice, LABEL_BYTES) if voice else "none"],
            "format": [format or "none"],
            "seed": [str(seed)],
        }
        parts = self.parts
        if format and append_format and "format" not in parts[1::2]:
            parts = (*parts[:-1], f"{parts[-1]}_", "format", "")
        pieces = [(parts[0], False)]
        for field, literal in zip(parts[1::2], parts[2::2], strict=True):
            pieces += _joined(values[field], flexible=field not in (*KEYS, *CONSTANT, "format"))
            pieces.append((literal, False))
        stem = _fitted(pieces, NAME_BYTES - len(SUFFIX) - 1).lstrip("-. ")
        return f"{'_' if _RESERVED.match(stem) else ''}{stem}{SUFFIX}"


def _joined(values: Sequence[str], *, flexible: bool) -> list[tuple[str, bool]]:
    pieces = [(values[0], flexible)]
    for value in values[1:]:
        pieces += [("-", False), (value, flexible)]
    return pieces


def _fitted(pieces: list[tuple[str, bool]], limit: int) -> str:
    """The pieces joined, the longest flexible ones cut to one common length where the whole passes `limit` bytes."""
    sizes = [len(text.encode()) for text, flexible in pieces if flexible]
    budget = limit - sum(len(text.encode()) for text, flexible in pieces if not flexible)
    longest = max(sizes, default=0)
    while longest and sum(min(size, longest) for size in sizes) > budget:
        longest -= 1
    return "".join(cut(text, longest) if flexible else text for text, flexible in pieces)


def _refuse(reason: str) -> RequestError:
    return RequestError(f"name: {reason}{'' if reason.endswith('?') else '.'}", code="invalid_name")


def _check_literals(text: str, literals: Sequence[str]) -> None:
    if len(text) > TEMPLATE_CHARACTERS:
        raise _refuse(f"a template holds at most {TEMPLATE_CHARACTERS} characters; shorten it")
    joined = "".join(literals)
    if "{" in joined or "}" in joined:
        raise _refuse("a brace is not closed; write placeholders like {index}")
    if bad := next((c for c in joined if _kept(c) != c and c not in PUNCTUATION), None):
        shown = bad if bad.isprintable() else f"U+{ord(bad):04X}"
        raise _refuse(f"“{shown}” cannot stand in a file name; use letters, digits, spaces and . _ - + , ( ) [ ]")
    if len(joined.encode()) > LITERAL_BYTES:
        raise _refuse(f"the text between placeholders holds at most {LITERAL_BYTES} bytes; shorten it")
    if text.startswith(("-", ".")):
        raise _refuse("a file name cannot start with a dash or a dot")


def _check_fields(fields: Sequence[str], blocks: Sequence[str]) -> None:
    known = (*FIELDS, *(b for b in blocks if b.isidentifier() and b not in FIELDS))
    for position, field in enumerate(fields):
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {{{near[0]}}}?" if near else f"known are {', '.join(f'{{{k}}}' for k in known)}"
            raise _refuse(f"there is no placeholder {{{printable(field)}}}; {hint}")
        if field in fields[:position]:
            raise _refuse(f"{{{field}}} stands there twice; once is enough")


def _check_uniqueness(parts: Sequence[str]) -> None:
    """Names differ whenever (index or code, format) do if these can be read off the beginning or the end of a name.

    So only what is the same for a whole task may stand outside of them, and a mark that is part of no number and no
    format between any two placeholders.
    """
    fields = parts[1::2]
    if not set(KEYS) & set(fields):
        raise _refuse("put {index} or {code} in it, so that no two videos get the same name")
    if not all(re.search(r"[\W_]", literal) for literal in parts[2:-1:2]):
        raise _refuse("put a mark such as _ or - between two placeholders")
    outer = (*KEYS, "format")
    varying = [f for f in fields if f not in CONSTANT]
    head = list(takewhile(outer.__contains__, varying))
    tail = list(takewhile(outer.__contains__, reversed(varying)))
    legible = {*head, *tail}
    if not legible & set(KEYS) or ("format" in fields and "format" not in legible):
        raise _refuse("put {index} or {code}, and {format} if there, first or last, so that no two names can be equal")


def _initials(blocks: Sequence[str]) -> tuple[str, ...]:
    """The first letters of the block names where all differ and are plain, else a, b, c ..."""
    firsts = [block.strip()[:1].lower() for block in blocks]
    if len(set(firsts)) == len(firsts) and all(re.fullmatch("[a-z]", first) for first in firsts):
        return tuple(firsts)
    return tuple(_letters(position) for position in range(len(blocks)))


def _letters(position: int) -> str:
    higher, letter = divmod(position, 26)
    return (_letters(higher - 1) if higher else "") + chr(ord("a") + letter)


def printable(text: str, limit: int = 60) -> str:
    """`text` for a sentence: shortened, and without characters that would disturb a log or a screen."""
    shown = "".join(c if c.isprintable() else "�" for c in text[:limit])
    return f"{shown}…" if len(text) > limit else shown
