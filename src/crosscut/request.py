"""What a caller sends: one JSON document, checked in full and turned into a frozen `Request`.

Every refusal is one sentence that names the place, such as `video_blocks.hooks[2]`, and what to change. Nothing here
looks at what a link points to: that is for the fetch.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from crosscut.errors import RequestError
from crosscut.media import Fit, Join  # noqa: TC001  pydantic reads them when it builds the models
from crosscut.naming import NameTemplate
from crosscut.notation import format_size, frame_rate
from crosscut.refusals import EXAMPLE_LINK, Location, first_refusal, kind_of, problem, quoted, refusal
from crosscut.strictjson import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

ClipSound = Literal["mute", "keep"]
VoiceOverflow = Literal["hold", "speed", "choose", "refuse"]

MAX_FORMATS = 8
MAX_COMBINATIONS = 10**15
"""Most combinations of which a part may be selected."""


@dataclass(frozen=True)
class RequestLimits:
    """`body` in bytes, `text`, `url` and `task_name` in characters; `sources` counts clips and music together."""

    body: int = 1 << 20
    depth: int = 32
    sources: int = 10_000
    blocks: int = 16
    lines: int = 1_000
    text: int = 5_000
    url: int = 4_096
    task_name: int = 200
    variations: int = 1_000_000


DEFAULT_LIMITS = RequestLimits()


@dataclass(frozen=True)
class Block:
    name: str
    clips: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A text to speak; `voice` None is the default voice."""

    text: str
    voice: str | None = None


@dataclass(frozen=True)
class Request:
    task_name: str
    blocks: tuple[Block, ...]
    music: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    seed: int = 0
    clip_sound: ClipSound = "mute"
    formats: tuple[tuple[int, int], ...] = ()
    """Width and height in pixels; empty means what the clips suggest."""
    fps: Fraction | None = None
    fit: Fit = "blur"
    join: Join = "safe"
    count: int | None = None
    """How many combinations to choose, in balanced order; None means all of them in plain order."""
    music_gain: float = -14.0
    """Loudness of the music relative to the voice-over, in LU."""
    voice_overflow: VoiceOverflow = "hold"
    name: str | None = None
    """Template of the file names; None means the usual one."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(block.clips) for block in self.blocks)

    @property
    def combinations(self) -> int:
        """How many combinations of clips are asked for."""
        total = math.prod(self.sizes)
        return total if self.count is None else min(self.count, total)


def parse_request(
    body: str | bytes | Mapping[str, Any], *, local: bool = False, limits: RequestLimits = DEFAULT_LIMITS
) -> Request:
    """Check `body` and return what it asks for; `local` lets sources be paths of this machine as well.

    Raises RequestError, and nothing else, with the code `invalid_request`.
    """
    document = read_json(body, most_bytes=limits.body, most_levels=limits.depth)
    if not isinstance(document, dict):
        raise refusal(f'The request must be an object like {{"task_name": ...}}, not {kind_of(document)}.')
    try:
        checked = RequestBody.model_validate(document, context=_Context(local, limits))
    except ValidationError as error:
        raise first_refusal(error, _fields_beside) from None
    request = checked.request()
    _check_amount(request, limits)
    return request


# Checking values. Each check returns the value to keep or raises a `problem`, a sentence that follows the place.


@dataclass(frozen=True)
class _Context:
    local: bool
    limits: RequestLimits


def _context(info: ValidationInfo) -> _Context:
    assert isinstance(info.context, _Context)
    return info.context


def _has_control(text: str, allowed: str = "") -> bool:
    """Whether `text` holds a control character, a line break or half of a surrogate pair."""
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in allowed for c in text)


def _check_label(text: str, limit: int, subject: str = "") -> str:
    if not text.strip():
        raise problem(f"{subject}is empty; write one")
    if len(text) > limit:
        raise problem(f"{subject}is longer than {limit:,} characters; shorten it")
    if _has_control(text):
        raise problem(f"{subject}holds a line break or another control character; remove it")
    return text


def _task_name(text: str, info: ValidationInfo) -> str:
    return _check_label(text.strip(), _context(info).limits.task_name)


def _block_name(text: str, info: ValidationInfo) -> str:
    return _check_label(text, _context(info).limits.task_name, "has a name that ")


def _voice(text: str | None) -> str | None:
    return _check_label(text.strip(), 200) if text and text.strip() else None


def _text(text: str, info: ValidationInfo) -> str:
    limit = _context(info).limits.text
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise problem("is blank; write what to say or remove the line")
    if len(text) > limit:
        raise problem(f"has {len(text):,} characters; at most {limit:,} can be spoken, so shorten it")
    if _has_control(text, allowed="\n\t"):
        raise problem("holds a control character; remove it")
    return text


def _source(text: str, info: ValidationInfo) -> str:
    context = _context(info)
    text = text.strip(" ")
    wanted = "a link that starts with https://" + (" or a path" if context.local else "")
    if not text:
        raise problem(f"is empty; give {wanted}")
    if len(text) > context.limits.url:
        raise problem(f"is longer than {context.limits.url:,} characters; use a shorter link")
    if _has_control(text):
        raise problem("holds a line break, tab or another control character; remove it")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.\-]*):", text)
    drive = context.local and scheme is not None and len(scheme[1]) == 1
    if scheme is None or drive:
        if context.local:
            return text
        raise problem(f"must be {wanted}")
    if scheme[1].lower() not in ("http", "https"):
        raise problem(f"starts with {quoted(scheme[1] + ':')}, which is not supported; give {wanted}")
    _check_link(text)
    return text


def _check_link(link: str) -> None:
    if "\\" in link:
        raise problem("holds a backslash; use / in links")
    try:
        parts = urlsplit(link)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise problem(f"is not a valid link; write it like {EXAMPLE_LINK}") from None
    if "@" in parts.netloc:
        raise problem("holds a user name or password; use a signed or public link instead")
    if not host or port == 0 or re.search(r"\s", parts.netloc):
        raise problem(f"is not a valid link; write it like {EXAMPLE_LINK}")


def _clips(clips: list[str]) -> list[str]:
    if not clips:
        raise problem("has no clips: add at least one link or remove the block")
    return clips


def _video_blocks(blocks: dict[str, list[str]], info: ValidationInfo) -> dict[str, list[str]]:
    limit = _context(info).limits.blocks
    if not blocks:
        raise problem(f'has no blocks: add one like {{"hook": ["{EXAMPLE_LINK}"]}}')
    if len(blocks) > limit:
        raise problem(f"has {len(blocks):,} blocks; at most {limit} can follow one another in a video, so remove some")
    return blocks


def _clip_sound(value: object) -> object:
    if value == "keep":
        raise problem('"keep" is not possible: this version mixes no clip sound yet; leave it out or send "mute"')
    return value


def _formats(formats: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(formats) > MAX_FORMATS:
        raise problem(f"has {len(formats)} entries; at most {MAX_FORMATS} can be made in one task, so remove some")
    if len(set(formats)) < len(formats):
        second = next(position for position, f in enumerate(formats) if f in formats[:position])
        width, height = formats[second]
        first = formats.index((width, height))
        raise problem(f"holds {width}x{height} twice, at [{first}] and [{second}]; remove one")
    return formats


def _texts(value: object, info: ValidationInfo) -> list[str]:
    """One text or a list of them."""
    texts: list[object] = value if isinstance(value, list) else [value]
    if not texts:
        raise problem("is empty; write what to say or remove the line")
    checked = []
    for text in texts:
        if not isinstance(text, str):
            raise problem(f"must be a text or a list of texts, not {kind_of(text)}")
        checked.append(_text(text, info))
    return checked


# The shape


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Line(_Model):
    text: Annotated[str, AfterValidator(_text)]
    voice: Annotated[str | None, AfterValidator(_voice)] = None


class _Lines(_Model):
    text: Annotated[list[str], PlainValidator(_texts)]
    voice: Annotated[str | None, AfterValidator(_voice)] = None


class _Select(_Model):
    count: int = Field(ge=1)


_Source = Annotated[str, AfterValidator(_source)]
_BlockName = Annotated[str, AfterValidator(_block_name)]
_SPEECH = ("text_to_speach", "text_to_speech", "voice_blocks")


class RequestBody(_Model):
    """The fields of the document, their types and defaults."""

    task_name: Annotated[str, AfterValidator(_task_name)]
    video_blocks: Annotated[
        dict[_BlockName, Annotated[list[_Source], AfterValidator(_clips)]], AfterValidator(_video_blocks)
    ]
    audio_blocks: dict[_BlockName, list[_Source]] | None = None
    text_to_speach: list[_Line] | None = None
    text_to_speech: list[_Line] | None = None
    voice_blocks: dict[_BlockName, list[_Lines]] | None = None
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    clip_sound: Annotated[Literal["mute"], BeforeValidator(_clip_sound)] = "mute"
    formats: Annotated[list[Annotated[Any, PlainValidator(format_size)]], AfterValidator(_formats)] | None = None
    fps: Annotated[Any, PlainValidator(frame_rate)] = None
    fit: Fit = "blur"
    join: Join = "safe"
    select: _Select | None = None
    music_gain: float = Field(default=-14.0, ge=-40, le=0)
    voice_overflow: VoiceOverflow = "hold"
    name: str | None = None

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> RequestBody:
        limits = _context(info).limits
        given = [field for field in _SPEECH if field in self.model_fields_set]
        if len(given) > 1:
            raise problem(f"{given[0]} and {given[1]} both say what to speak: send only one of them.")
        sources = sum(map(len, self.video_blocks.values())) + sum(map(len, (self.audio_blocks or {}).values()))
        if sources > limits.sources:
            raise problem(f"{sources:,} links are too many for one task; send at most {limits.sources:,}.")
        if len(self.lines()) > limits.lines:
            raise problem(f"{len(self.lines()):,} voice-over texts are too many; send at most {limits.lines:,}.")
        try:
            NameTemplate.parse(self.name, tuple(self.video_blocks))
        except RequestError as error:
            raise problem(error.public) from None
        return self

    def lines(self) -> tuple[Line, ...]:
        plain = [Line(line.text, line.voice) for line in (*(self.text_to_speach or ()), *(self.text_to_speech or ()))]
        blocks = [lines for block in (self.voice_blocks or {}).values() for lines in block]
        return (*plain, *(Line(text, lines.voice) for lines in blocks for text in lines.text))

    def request(self) -> Request:
        return Request(
            task_name=self.task_name,
            blocks=tuple(Block(name, tuple(clips)) for name, clips in self.video_blocks.items()),
            music=tuple(source for pool in (self.audio_blocks or {}).values() for source in pool),
            lines=self.lines(),
            seed=self.seed,
            clip_sound=self.clip_sound,
            formats=tuple(self.formats or ()),
            fps=self.fps,
            fit=self.fit,
            join=self.join,
            count=self.select.count if self.select else None,
            music_gain=self.music_gain,
            voice_overflow=self.voice_overflow,
            name=(self.name or "").strip() or None,
        )


_MODELS: dict[int | str, type[BaseModel]] = {
    "select": _Select,
    "voice_blocks": _Lines,
    "text_to_speach": _Line,
    "text_to_speech": _Line,
}


def _fields_beside(location: Location) -> list[str]:
    return list((_MODELS[location[0]] if len(location) > 1 else RequestBody).model_fields)


def _check_amount(request: Request, limits: RequestLimits) -> None:
    total = math.prod(request.sizes)
    shape = " × ".join(map(str, request.sizes)) + " clips"
    if total > MAX_COMBINATIONS:
        raise refusal(
            f"{total:,} combinations ({shape}) are too many to choose from: the most is {MAX_COMBINATIONS:,}; "
            "shorten a block."
        )
    formats = max(1, len(request.formats))
    variations = request.combinations * formats
    if variations > limits.variations:
        shape += f" in {formats} formats" if formats > 1 else ""
        fewer = "send a smaller select.count"
        change = fewer if request.count else 'shorten a block or choose a part, like "select": {"count": 100}'
        raise refusal(
            f"{variations:,} variations ({shape}) are too many: at most {limits.variations:,} are made in one task; "
            f"{change}."
        )
