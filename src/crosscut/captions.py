"""Words and when they are heard -> captions: cues of one or two lines, as SubRip and as samples of a text track. Pure.

All times of cues are whole milliseconds, which is what SubRip can write; the track in the MP4 has the same clock.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from crosscut.graphemes import clusters
from crosscut.media import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crosscut.media import Seconds
    from crosscut.voices import Word

VERSION = 1
"""Raised when the same words make other captions, so that files of before are not taken for the same."""

CLOCK = 1_000
"""Ticks a second."""

WIDE_LINE, NARROW_LINE = 42, 32
"""Columns of a line in a landscape picture and in any other; an ideograph takes two."""

LEAST, MOST = 1_000, 6_000
"""Milliseconds a cue is shown: at least so long where the next word allows it, never longer."""

READ = 20
"""Columns a second that are read with ease."""

FLICKER = 250
"""Milliseconds: a shorter gap between two cues is closed."""

PAUSE, SILENCE = 0.3, 0.7
"""Seconds between two words at which a cue may well end, and at which it should."""

_SENTENCE = frozenset(".!?…。！？｡؟۔।॥")
_CLAUSE = frozenset(",;:—–،؛、，；：")
_STUCK = frozenset("ーｰ々〻ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ")
"""Letters of Japanese that no line starts with (JIS X 4051), besides punctuation."""

_LANGUAGES = """
    aa aar ab abk ae ave af afr ak aka am amh an arg ar ara as asm av ava ay aym az aze ba bak be bel bg bul bh bih
    bi bis bm bam bn ben bo bod br bre bs bos ca cat ce che ch cha co cos cr cre cs ces cu chu cv chv cy cym da dan
    de deu dv div dz dzo ee ewe el ell en eng eo epo es spa et est eu eus fa fas ff ful fi fin fj fij fo fao fr fra
    fy fry ga gle gd gla gl glg gn grn gu guj gv glv ha hau he heb hi hin ho hmo hr hrv ht hat hu hun hy hye hz her
    ia ina id ind ie ile ig ibo ii iii ik ipk io ido is isl it ita iu iku ja jpn jv jav ka kat kg kon ki kik kj kua
    kk kaz kl kal km khm kn kan ko kor kr kau ks kas ku kur kv kom kw cor ky kir la lat lb ltz lg lug li lim ln lin
    lo lao lt lit lu lub lv lav mg mlg mh mah mi mri mk mkd ml mal mn mon mr mar ms msa mt mlt my mya na nau nb nob
    nd nde ne nep ng ndo nl nld nn nno no nor nr nbl nv nav ny nya oc oci oj oji om orm or ori os oss pa pan pi pli
    pl pol ps pus pt por qu que rm roh rn run ro ron ru rus rw kin sa san sc srd sd snd se sme sg sag si sin sk slk
    sl slv sm smo sn sna so som sq sqi sr srp ss ssw st sot su sun sv swe sw swa ta tam te tel tg tgk th tha ti tir
    tk tuk tl tgl tn tsn to ton tr tur ts tso tt tat tw twi ty tah ug uig uk ukr ur urd uz uzb ve ven vi vie vo vol
    wa wln wo wol xh xho yi yid yo yor za zha zh zho zu zul
""".split()  # noqa: SIM905
"""Codes of ISO 639-1, each before its terminological code of ISO 639-2."""

_THREE_LETTERS = dict(zip(_LANGUAGES[::2], _LANGUAGES[1::2], strict=True))


@dataclass(frozen=True)
class Cue:
    """One or two lines, shown from `start` until `end` (milliseconds)."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Captions:
    """The cues of a video of `length` milliseconds; `language` is a code of ISO 639-2."""

    cues: tuple[Cue, ...]
    length: int
    language: str = "und"

    def until(self, end: int) -> Captions:
        """What of them is seen in a video that ends there, if it is the shorter one."""
        shown = tuple(replace(cue, end=min(cue.end, end)) for cue in self.cues if cue.start < end)
        return Captions(shown, min(self.length, end), self.language)


@dataclass(frozen=True)
class Atom:
    """What no line break goes through: a word, a part of one that is too long, an ideograph with its punctuation."""

    text: str
    spaced: bool
    """Whether a space goes before it, where it does not begin a line."""
    start: Fraction
    end: Fraction
    width: int


@dataclass(frozen=True)
class Passage:
    """What one cue holds, line by line, and when it is shown (milliseconds)."""

    start: int
    end: int
    lines: tuple[tuple[Atom, ...], ...]


def cues_of(
    words: Iterable[Word], columns: int = WIDE_LINE, *, speed: Fraction = Fraction(1), begin: Seconds = NO_TIME
) -> tuple[Cue, ...]:
    """The words as cues in order, none over another, for a voice that is `speed` times as fast and begins at `begin`.

    The last may end after the voice: see `within`.
    """
    return tuple(
        Cue(passage.start, passage.end, "\n".join(_line_text(line) for line in passage.lines))
        for passage in passages(words, columns, columns, speed, begin)
    )


def passages(words: Iterable[Word], columns: int, longest: int, speed: Fraction, begin: Fraction) -> Iterator[Passage]:
    """What the cues hold, on lines of `columns`; a word of more than `longest` is cut, any other keeps to one line."""
    page = _Page(list(_atoms(words, longest, speed, begin)), columns)
    parts = list(pairwise(page.divided()))
    starts: list[int] = []
    for first, _ in parts:
        # Words without a time of their own, or with one before the last word's, still follow each other.
        starts.append(max(round(page.atoms[first].start * CLOCK), starts[-1] + 1 if starts else 0))
    for (first, stop), start, following in zip(parts, starts, [*starts[1:], None], strict=False):
        needed = max(LEAST, page.span(first, stop) * CLOCK // READ)
        end = max(round(page.atoms[stop - 1].end * CLOCK), start + needed)
        if following is not None and end > following - FLICKER:
            end = following
        yield Passage(start, min(end, start + MOST), page.lines(first, stop))


def _line_text(line: Iterable[Atom]) -> str:
    return "".join(f" {atom.text}" if atom.spaced else atom.text for atom in line).removeprefix(" ")


def within(cues: Iterable[Cue], length: Seconds, language: str | None = None) -> Captions:
    """The captions of a video that long; what would begin after its end is not heard either and left out.

    `language` is a code of ISO 639-1.
    """
    end = int(length * CLOCK)
    return Captions(tuple(cues), end, _THREE_LETTERS.get(language or "", "und")).until(end)


def columns_for(width: int, height: int) -> int:
    """Columns of a line in a picture of that size."""
    return WIDE_LINE if width > height else NARROW_LINE


def companion(name: str) -> str:
    """The name of the captions beside a video of that name, as players look for it."""
    return f"{name.removesuffix('.mp4')}.srt"


def srt(cues: Iterable[Cue]) -> Iterator[str]:
    """A SubRip file, cue by cue; lines end in CR LF as SubRip itself writes them."""
    for number, cue in enumerate(cues, 1):
        # An arrow between times is the only thing that a line of text must not look like.
        text = cue.text.replace("-->", "→").replace("\n", "\r\n")
        yield f"{number}\r\n{_clock(cue.start)} --> {_clock(cue.end)}\r\n{text}\r\n\r\n"


def samples_of(captions: Captions) -> list[tuple[int, bytes]]:
    """Milliseconds and bytes of every sample of a text track (3GPP TS 26.245, 5.17); empty ones fill the gaps."""
    samples = []
    at = 0
    for cue in captions.cues:
        if cue.start > at:
            samples.append((cue.start - at, _sample("")))
        samples.append((cue.end - cue.start, _sample(cue.text)))
        at = cue.end
    if at < captions.length:
        samples.append((captions.length - at, _sample("")))
    return samples


def _sample(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2) + data


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, CLOCK)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{rest:03}"


def _atoms(words: Iterable[Word], columns: int, speed: Fraction, begin: Fraction) -> Iterator[Atom]:
    """The words; the time of a divided word goes by the widths of its parts."""
    for word in words:
        parts = [
            (part, number == 0)
            for token in _clean(word.text).split()
            for number, part in enumerate(_cut(token, columns))
        ]
        if not parts:
            continue
        start, length = begin + word.start / speed, (word.end - word.start) / speed
        widths = [_width(part) for part, _ in parts]
        edges = list(accumulate(widths, initial=0))
        for (part, spaced), width, edge in zip(parts, widths, edges, strict=False):
            first = start + length * edge / edges[-1]
            yield Atom(part, spaced, first, first + length * width / edges[-1], width)


def _clean(text: str) -> str:
    """Spaces for what could end a line or cannot be encoded; nothing at all where nothing would be seen."""
    kinds = [unicodedata.category(character) for character in text]
    if all(kind[0] in "CZM" for kind in kinds):
        return ""
    return "".join(
        " " if kind in ("Cc", "Cs", "Zl", "Zp") else character for character, kind in zip(text, kinds, strict=True)
    )


def _cut(token: str, columns: int) -> list[str]:
    """Parts of at most `columns` between which a line may end: at ideographs, else only where it must."""
    parts: list[str] = []
    room = 0
    before = ""
    for cluster in clusters(token):
        width = _width(cluster)
        apart = (_ideograph(cluster) or _ideograph(before)) and not _closes(cluster) and not _opens(before)
        if not parts or apart or width > room:
            parts.append("")
            room = columns
        parts[-1] += cluster
        room -= width
        before = cluster
    return parts


def _width(text: str) -> int:
    """Columns it takes."""
    return sum(2 if unicodedata.east_asian_width(cluster[0]) in "WF" else 1 for cluster in clusters(text))


def _ideograph(cluster: str) -> bool:
    """Whether lines may end before and after it. Korean is written with spaces and keeps its words."""
    if not cluster or unicodedata.east_asian_width(cluster[0]) not in "WF":
        return False
    return unicodedata.category(cluster[0])[0] in "LP" and "HANGUL" not in unicodedata.name(cluster[0], "")


def _closes(cluster: str) -> bool:
    return unicodedata.category(cluster[0]) in ("Pe", "Pf", "Po") or cluster[0] in _STUCK


def _opens(cluster: str) -> bool:
    return bool(cluster) and unicodedata.category(cluster[0]) in ("Ps", "Pi")


class _Page:
    """Where a text is divided best. The costs are of no unit: a cue more than needed costs a half."""

    def __init__(self, atoms: Sequence[Atom], columns: int) -> None:
        self.atoms = atoms
        self._columns = columns
        self._edges = list(accumulate((atom.spaced + atom.width for atom in atoms), initial=0))
        self._starts = [float(atom.start) for atom in atoms]
        self._starts.append(float(atoms[-1].end) + LEAST / CLOCK if atoms else 0.0)
        self._ends = [float(atom.end) for atom in atoms]
        self._breaks = [0.0, *(self._break(at) for at in range(1, len(atoms))), 0.0]
        self._spans = list(accumulate((self._spanned(at) for at in range(len(atoms))), initial=0.0))

    def span(self, first: int, stop: int) -> int:
        """Columns that these atoms take on one line."""
        return self._edges[stop] - self._edges[first] - self.atoms[first].spaced

    def divided(self) -> list[int]:
        """The borders of the cues, first and last included."""
        count = len(self.atoms)
        best, back = [0.0] * (count + 1), [0] * (count + 1)
        for stop in range(1, count + 1):
            first = stop - 1
            best[stop], back[stop] = best[first] + self._cost(first, stop), first
            while first > 0 and self._fits(first - 1, stop):
                first -= 1
                cost = best[first] + self._cost(first, stop)
                if cost < best[stop]:
                    best[stop], back[stop] = cost, first
        borders = [count]
        while borders[-1] > 0:
            borders.append(back[borders[-1]])
        return borders[::-1]

    def lines(self, first: int, stop: int) -> tuple[tuple[Atom, ...], ...]:
        """The atoms of a cue, on two lines about as long where one is too short for it."""
        if stop - first == 1 or self.span(first, stop) <= self._columns:
            return (tuple(self.atoms[first:stop]),)
        fitting = [
            at
            for at in range(first + 1, stop)
            if self.span(first, at) <= self._columns and self.span(at, stop) <= self._columns
        ]
        middle = min(fitting, key=lambda at: abs(self.span(first, at) - self.span(at, stop)) + 8 * self._breaks[at])
        return tuple(self.atoms[first:middle]), tuple(self.atoms[middle:stop])

    def _fits(self, first: int, stop: int) -> bool:
        """Whether two lines hold it and it is not heard for too long."""
        line_end = self._edges[first] + self.atoms[first].spaced + self._columns
        middle = bisect_right(self._edges, line_end) - 1
        if middle < stop and self.span(middle, stop) > self._columns:
            return False
        return self._ends[stop - 1] - self._starts[first] <= MOST / CLOCK

    def _cost(self, first: int, stop: int) -> float:
        shown = max(0.001, self._starts[stop] - self._starts[first])
        speed = self.span(first, stop) / shown
        return (
            0.5
            + 0.5 * (self.span(first, stop) / (2 * self._columns)) ** 2
            + self._breaks[stop]
            + self._spans[stop]
            - self._spans[first + 1]
            + 3 * max(0.0, 1 - shown * CLOCK / LEAST)
            + min(3.0, max(0.0, speed - READ) / 10)
        )

    def _break(self, at: int) -> float:
        """What it costs to end a cue or a line before that atom."""
        if self._ends_sentence(at):
            return 0.0
        if self._pause(at) >= PAUSE:
            return 0.1
        if self._last(at) in _CLAUSE:
            return 0.4
        return 1.0 if self.atoms[at].spaced else 1.3

    def _spanned(self, at: int) -> float:
        """What it costs to go on with that atom in the cue of the one before."""
        if at == 0:
            return 0.0
        return 1.5 * (self._pause(at) >= SILENCE) + 0.6 * self._ends_sentence(at)

    def _ends_sentence(self, at: int) -> bool:
        # A full stop before a small letter belongs to an abbreviation.
        return self._last(at) in _SENTENCE and not self.atoms[at].text[0].islower()

    def _last(self, at: int) -> str:
        """The last character before that atom, quotes and brackets apart."""
        return self.atoms[at - 1].text.rstrip("\"'”’»«“)]}」』）】》")[-1:] or " "

    def _pause(self, at: int) -> float:
        return self._starts[at] - self._ends[at - 1]
