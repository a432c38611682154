"""What a caller sends: one JSON document, checked in full and turned into a frozen `Request`.

Every refusal is one sentence that names the place, such as `video_blocks.hooks[2]`, and what to change. Nothing here
looks at what a link points to: that is for the fetch.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from crosscut.errors import RequestError
from crosscut.media import Fit, Join  # noqa: TC001  pydantic reads them when it builds the models
from crosscut.naming import NameTemplate, printable

ClipSound = Literal["mute", "keep"]
VoiceOverflow = Literal["hold", "speed", "choose", "refuse"]

NAMED_FORMATS = {"9:16": (1080, 1920), "1:1": (1080, 1080), "4:5": (1080, 1350), "16:9": (1920, 1080)}
SIDES = range(64, 4097)
MAX_FORMATS = 8
MAX_COMBINATIONS = 10**15
"""Most combinations of which a part may be selected."""

NTSC_RATES = (Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001))
"""What people mean by 23.976, 29.97 and 59.94 (SMPTE ST 170)."""

EXAMPLE_LINK = "https://example.com/clip.mp4"


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
    document = _read_json(body, limits)
    if not isinstance(document, dict):
        raise _error(f'The request must be an object like {{"task_name": ...}}, not {_kind(document)}.')
    try:
        checked = _Body.model_validate(document, context=_Context(local, limits))
    except ValidationError as error:
        problems = [_sentence(details) for details in error.errors(include_url=False)]
        raise _error(_with_rest(problems[0], len(problems) - 1)) from None
    request = checked.request()
    _check_amount(request, limits)
    return request


def _error(sentence: str) -> RequestError:
    return RequestError(sentence, code="invalid_request")


def _with_rest(sentence: str, rest: int) -> str:
    if not rest:
        return sentence
    return f"{sentence.removesuffix('.')} (and {rest:,} more mistake{'s' if rest > 1 else ''})."


# Reading JSON


def _read_json(body: str | bytes | Mapping[str, Any], limits: RequestLimits) -> object:
    text = "" if len(body) > limits.body else _text_of(body)
    if len(body) > limits.body or len(text.encode(errors="surrogatepass")) > limits.body:
        raise _error(f"The request is larger than {limits.body:,} bytes; make it smaller.")
    if _depth(text) > limits.depth:
        raise _error(f"The request is nested deeper than {limits.depth} levels; send plain lists of links.")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _error(f"The request is not valid JSON at {place}: {error.msg[:1].lower()}{error.msg[1:]}.") from None
    except ValueError:  # int() refuses more than a few thousand digits
        raise _error("The request holds a number with too many digits; shorten it.") from None


def _text_of(body: str | bytes | Mapping[str, Any]) -> str:
    if isinstance(body, Mapping):
        try:
            return json.dumps(dict(body), ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            raise _error("The request holds something JSON cannot express; use texts, numbers and lists.") from None
    if isinstance(body, str):
        return body.removeprefix("\ufeff")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _error("The request is not UTF-8 text; send JSON encoded as UTF-8.") from None


def _depth(text: str) -> int:
    """How deep brackets nest, counted before parsing because the parser recurses."""
    deepest = depth = 0
    for token in re.finditer(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise _error(f"The request holds {_quoted(name)} twice in one object; rename or remove one.")
        result[name] = value
    return result


def _no_constant(word: str) -> NoReturn:
    raise _error(f"The request holds {word}, which is not a JSON number; use a finite one.")


# Checking values. Each check returns the value to keep or raises a `_problem`, a sentence that follows the place.


@dataclass(frozen=True)
class _Context:
    local: bool
    limits: RequestLimits


def _problem(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("sentence", "{sentence}", {"sentence": sentence})


def _context(info: ValidationInfo) -> _Context:
    assert isinstance(info.context, _Context)
    return info.context


def _has_control(text: str, allowed: str = "") -> bool:
    """Whether `text` holds a control character, a line break or half of a surrogate pair."""
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in allowed for c in text)


def _check_label(text: str, limit: int) -> str:
    text = text.strip()
    if not text:
        raise _problem("is empty; give it a name")
    if len(text) > limit:
        raise _problem(f"is longer than {limit:,} characters; shorten it")
    if _has_control(text):
        raise _problem("holds a line break or another control character; remove it")
    return text


def _task_name(text: str, info: ValidationInfo) -> str:
    return _check_label(text, _context(info).limits.task_name)


def _block_name(text: str, info: ValidationInfo) -> str:
    _check_label(text, _context(info).limits.task_name)
    return text


def _voice(text: str | None) -> str | None:
    return _check_label(text, 200) if text and text.strip() else None


def _text(text: str, info: ValidationInfo) -> str:
    limit = _context(info).limits.text
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise _problem("is blank; write what to say or remove the line")
    if len(text) > limit:
        raise _problem(f"has {len(text):,} characters; at most {limit:,} can be spoken, so split it")
    if _has_control(text, allowed="\n\t"):
        raise _problem("holds a control character; remove it")
    return text


def _source(text: str, info: ValidationInfo) -> str:
    context = _context(info)
    text = text.strip(" ")
    wanted = "a link that starts with https://" + (" or a path" if context.local else "")
    if not text:
        raise _problem(f"is empty; give {wanted}")
    if len(text) > context.limits.url:
        raise _problem(f"is longer than {context.limits.url:,} characters; use a shorter link")
    if _has_control(text):
        raise _problem("holds a line break, tab or another control character; remove it")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.\-]*):", text)
    drive = context.local and scheme is not None and len(scheme[1]) == 1
    if scheme is None or drive:
        if context.local:
            return text
        raise _problem(f"must be {wanted}")
    if scheme[1].lower() not in ("http", "https"):
        raise _problem(f"starts with {printable(scheme[1], 20)}: which is not read; give {wanted}")
    _check_link(text)
    return text


def _check_link(link: str) -> None:
    if "\\" in link:
        raise _problem("holds a backslash; use / in links")
    try:
        parts = urlsplit(link)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _problem(f"is not a valid link; write it like {EXAMPLE_LINK}") from None
    if "@" in parts.netloc:
        raise _problem("holds a user name or password; use a signed or public link instead")
    if not host or port == 0 or re.search(r"\s", parts.netloc):
        raise _problem(f"is not a valid link; write it like {EXAMPLE_LINK}")


def _clips(clips: list[str]) -> list[str]:
    if not clips:
        raise _problem("has no clips: add at least one link or remove the block")
    return clips


def _video_blocks(blocks: dict[str, list[str]], info: ValidationInfo) -> dict[str, list[str]]:
    limit = _context(info).limits.blocks
    if not blocks:
        raise _problem(f'has no blocks: add one like {{"hook": ["{EXAMPLE_LINK}"]}}')
    if len(blocks) > limit:
        raise _problem(f"has {len(blocks):,} blocks; at most {limit} follow one another in a video")
    return blocks


def _clip_sound(value: str) -> str:
    if value == "keep":
        raise _problem('"keep" is not possible: this version mixes no clip sound yet; leave it out or send "mute"')
    return value


def _format(value: object) -> tuple[int, int]:
    shown = f"must be one of {', '.join(NAMED_FORMATS)} or a size like 1080x1920"
    if not isinstance(value, str):
        raise _problem(f"{shown}, not {_kind(value)}")
    text = value.replace(" ", "")
    if text in NAMED_FORMATS:
        return NAMED_FORMATS[text]
    size = re.fullmatch(r"([0-9]{1,5})[x×X]([0-9]{1,5})", text)
    if not size:
        raise _problem(shown)
    width, height = int(size[1]), int(size[2])
    if width % 2 or height % 2 or width not in SIDES or height not in SIDES:
        raise _problem(f"must have even sides from {SIDES[0]} to {SIDES[-1]:,} pixels")
    return width, height


def _formats(formats: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(formats) > MAX_FORMATS:
        raise _problem(f"has {len(formats)} entries; at most {MAX_FORMATS} are made in one task")
    if len(set(formats)) < len(formats):
        width, height = next(f for position, f in enumerate(formats) if f in formats[:position])
        raise _problem(f"holds {width}x{height} twice; remove one")
    return formats


def _fps(value: object) -> Fraction | None:
    """Decimals near an NTSC rate mean that rate; others keep the nearest fraction with a divisor up to 1001."""
    if value is None:
        return None
    wanted = "must be a number from 1 to 60, or a fraction like 30000/1001"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _problem(f"{wanted}, not {_kind(value)}")
    text = value.strip() if isinstance(value, str) else ""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}|/0*[1-9][0-9]{0,8})?", text):
        raise _problem(wanted)
    if not isinstance(value, str) and not 1 <= value <= 60:
        raise _problem(wanted)
    rate = Fraction(text or value)
    if "/" not in text:
        near = next((ntsc for ntsc in NTSC_RATES if abs(rate - ntsc) < Fraction(1, 200)), rate)
        rate = near.limit_denominator(1001)
    if not 1 <= rate <= 60 or rate.denominator > 1001:
        raise _problem(wanted)
    return rate


def _texts(value: object, info: ValidationInfo) -> list[str]:
    """One text or a list of them."""
    texts: list[object] = value if isinstance(value, list) else [value]
    if not texts:
        raise _problem("is empty; write what to say or remove the line")
    checked = []
    for text in texts:
        if not isinstance(text, str):
            raise _problem(f"must be a text or a list of texts, not {_kind(text)}")
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


class _Body(_Model):
    task_name: Annotated[str, AfterValidator(_task_name)]
    video_blocks: Annotated[
        dict[_BlockName, Annotated[list[_Source], AfterValidator(_clips)]], AfterValidator(_video_blocks)
    ]
    audio_blocks: dict[_BlockName, list[_Source]] | None = None
    text_to_speach: list[_Line] | None = None
    text_to_speech: list[_Line] | None = None
    voice_blocks: dict[_BlockName, list[_Lines]] | None = None
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    clip_sound: Annotated[ClipSound, AfterValidator(_clip_sound)] = "mute"
    formats: Annotated[list[Annotated[Any, PlainValidator(_format)]], AfterValidator(_formats)] | None = None
    fps: Annotated[Any, PlainValidator(_fps)] = None
    fit: Fit = "blur"
    join: Join = "safe"
    select: _Select | None = None
    music_gain: float = Field(default=-14.0, ge=-40, le=0)
    voice_overflow: VoiceOverflow = "hold"
    name: str | None = None

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> _Body:
        limits = _context(info).limits
        given = [field for field in _SPEECH if field in self.model_fields_set]
        if len(given) > 1:
            raise _problem(f"{given[0]} and {given[1]} are the same field: send one of them.")
        sources = sum(map(len, self.video_blocks.values())) + sum(map(len, (self.audio_blocks or {}).values()))
        if sources > limits.sources:
            raise _problem(f"{sources:,} links are too many for one task; send at most {limits.sources:,}.")
        if len(self.lines()) > limits.lines:
            raise _problem(f"{len(self.lines()):,} voice-over texts are too many; send at most {limits.lines:,}.")
        try:
            NameTemplate.parse(self.name, tuple(self.video_blocks))
        except RequestError as error:
            raise _problem(error.public) from None
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


def _check_amount(request: Request, limits: RequestLimits) -> None:
    total = math.prod(request.sizes)
    shape = " × ".join(map(str, request.sizes)) + " clips"
    if total > MAX_COMBINATIONS:
        raise _error(
            f"{total:,} combinations ({shape}) are too many to choose from: at most {MAX_COMBINATIONS:,} are; "
            "shorten a block."
        )
    formats = max(1, len(request.formats))
    variations = request.combinations * formats
    if variations > limits.variations:
        shape += f" in {formats} formats" if formats > 1 else ""
        change = "shorten a block or send select.count" if request.count is None else "send a smaller select.count"
        raise _error(
            f"{variations:,} variations ({shape}) are too many: at most {limits.variations:,} are made in one task; "
            f"{change}."
        )


# Sentences for what pydantic found

_WANTED = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
}
_RANGES = {"seed": "from 0 to 9,223,372,036,854,775,807", "select.count": "1 or more", "music_gain": "from -40 to 0"}
_MISSING = {
    "task_name": "give the task a name, which becomes its folder",
    "video_blocks": f'send at least one block like {{"hook": ["{EXAMPLE_LINK}"]}}',
    "count": "send how many variations you want",
    "text": "write what to say",
}


def _sentence(details: ErrorDetails) -> str:
    kind, location, value = details["type"], details["loc"], details["input"]
    place = _place(location)
    match kind:
        case "sentence":
            found = details["ctx"]["sentence"]
            sentence = f"{place} {found}." if place else found
        case "missing":
            sentence = f"{place} is missing: {_MISSING[str(location[-1])]}."
        case "extra_forbidden":
            sentence = _unknown_field(location, place)
        case "literal_error":
            sentence = f"{place} must be {details['ctx']['expected'].replace(chr(39), chr(34))}."
        case "string_unicode":
            sentence = f"{place or 'A field name'} holds half of a surrogate pair, which is no character; remove it."
        case _ if kind in _WANTED and _WANTED[kind] != _kind(value):
            shown = value if isinstance(value, float) else _kind(value)
            sentence = f"{place} must be {_WANTED[kind]}, not {shown}."
        case _:
            sentence = f"{place} must be {_RANGES.get(place, 'another value')}."
    return sentence


def _unknown_field(location: tuple[int | str, ...], place: str) -> str:
    models: dict[str, type[BaseModel]] = {
        "select": _Select,
        "voice_blocks": _Lines,
        "text_to_speach": _Line,
        "text_to_speech": _Line,
    }
    model: type[BaseModel] = models[str(location[0])] if len(location) > 1 else _Body
    near = difflib.get_close_matches(str(location[-1])[:100], model.model_fields, n=1)
    known = f"did you mean {near[0]}?" if near else f"known are {', '.join(model.model_fields)}."
    return f"{place} is not a known field; {known}"


def _place(location: tuple[int | str, ...]) -> str:
    """`video_blocks.hooks[2]`; names that are no plain words stand in quotes."""
    text = ""
    for step in location:
        if step == "[key]":
            continue
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[^\W\d][\w\-]{0,59}", step):
            text += f".{step}" if text else step
        else:
            text += f"[{_quoted(step)}]" if text else _quoted(step)
    return text


def _quoted(name: str) -> str:
    return f'"{printable(name)}"'


def _kind(value: object) -> str:
    names = {
        bool: "true or false",
        str: "a text",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")
