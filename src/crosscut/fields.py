"""What the fields of a document may hold: each value is kept as it should be or refused with a sentence."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationInfo,
    model_validator,
)

from crosscut.cuts import Cut, clip_key
from crosscut.links import CLOUDS, LinkError, object_name, share_place
from crosscut.media import Manner, Seconds
from crosscut.notation import format_size, frame_rate
from crosscut.refusals import EXAMPLE_LINK, kind_of, problem, quoted

Event = Literal["job.ended", "job.first_failure"]
"""What a webhook can be told."""
EVENTS: tuple[Event, ...] = get_args(Event)
SPEECH = ("text_to_speach", "text_to_speech", "voice_blocks")
"""Names of the fields that say what to speak."""

MAX_FORMATS = 8
LONGEST_DURATION = 600
"""Seconds."""
LONGEST_CLIP = 86_400
"""Seconds of a source within which a part of it may be chosen."""
PASSTHROUGH = 1_000
"""Most characters that are kept for the caller and handed back."""
LABEL = 100
"""Most characters of a clip's label."""
DESTINATION = 1_000
"""Most characters of the place in which the task's folder is made."""

MOST_LINK_DAYS = 7
"""As long as Google Cloud Storage ("V4 signing process") and S3 ("Sharing objects with presigned URLs") sign for."""

PLAIN_LINK = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?/[!-\[\]-~]*")
"""What most links look like, and nothing that could be wrong with one: requests hold hundreds."""


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


# Checking values. Each check returns the value to keep or raises a `problem`, a sentence that follows the place.


@dataclass(frozen=True)
class Context:
    """What the checks must know; `local` lets sources be paths of this machine as well."""

    local: bool
    limits: RequestLimits


def context_of(info: ValidationInfo) -> Context:
    assert isinstance(info.context, Context)
    return info.context


def _has_control(text: str, allowed: str = "") -> bool:
    """Whether `text` holds a control character, a line break or half of a surrogate pair."""
    if text.isascii() and text.isprintable():
        return False
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
    return _check_label(text.strip(), context_of(info).limits.task_name)


def _block_name(text: str, info: ValidationInfo) -> str:
    return _check_label(text, context_of(info).limits.task_name, "has a name that ")


def _label(text: str | None) -> str | None:
    return None if text is None else _check_label(text.strip(), LABEL)


def _voice(text: str | None) -> str | None:
    return _check_label(text.strip(), 200) if text and text.strip() else None


def _block(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise problem("is empty; name one, or leave it out for a line over the whole video")
    return text


def _clip(text: str | None) -> str | None:
    named = _block(text)
    return named and named.strip()


def _text(text: str, info: ValidationInfo) -> str:
    limit = context_of(info).limits.text
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise problem("is blank; write what to say or remove the line")
    if len(text) > limit:
        raise problem(f"has {len(text):,} characters; at most {limit:,} can be spoken, so shorten it")
    if _has_control(text, allowed="\n\t"):
        raise problem("holds a control character; remove it")
    return text


def _source(text: str, info: ValidationInfo) -> str:
    context = context_of(info)
    text = text.strip(" ")
    wanted = "a link that starts with https://" + (" or a path" if context.local else "")
    if not text:
        raise problem(f"is empty; give {wanted}")
    if len(text) > context.limits.url:
        raise problem(f"is longer than {context.limits.url:,} characters; use a shorter link")
    if PLAIN_LINK.fullmatch(text):
        return _shared_link(text)
    if _has_control(text):
        raise problem("holds a line break, tab or another control character; remove it")
    if text.startswith("source:"):
        if not re.fullmatch(r"[0-9a-f]{32,64}(/[^/\\]+)?", text.removeprefix("source:")):
            raise problem("is no id of an upload; send it as the upload answered it, source: and at least 32 digits")
        return text
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.\-]*):", text)
    drive = context.local and scheme is not None and len(scheme[1]) == 1
    if scheme is None or drive:
        if context.local:
            return text
        raise problem(f"must be {wanted}")
    if scheme[1].lower() in CLOUDS:
        return _object(text)
    if scheme[1].lower() not in ("http", "https"):
        raise problem(f"starts with {quoted(scheme[1] + ':')}, which is not supported; give {wanted}")
    _check_link(text)
    return _shared_link(text)


def _object(text: str) -> str:
    try:
        return str(object_name(text))
    except LinkError as error:
        raise problem(error.reason) from None


def _shared_link(link: str) -> str:
    """The link as it is, where it leads to no folder or document of a service that we know."""
    try:
        share_place(link)
    except LinkError as error:
        raise problem(error.reason) from None
    return link


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


def _webhook_link(text: str, info: ValidationInfo) -> str:
    text = text.strip(" ")
    limit = context_of(info).limits.url
    if len(text) > limit:
        raise problem(f"is longer than {limit:,} characters; use a shorter link")
    if _has_control(text):
        raise problem("holds a line break, tab or another control character; remove it")
    if not re.match("https?://", text, re.IGNORECASE):
        raise problem("must be a link that starts with https://")
    _check_link(text)
    return text


def _events(events: list[Event]) -> list[Event]:
    if not events:
        raise problem("is empty; name the events or leave it out for all of them")
    return list(dict.fromkeys(events))


def _passthrough(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) > PASSTHROUGH:
        raise problem(f"is longer than {PASSTHROUGH:,} characters; shorten it")
    if any(c == "\0" or unicodedata.category(c) == "Cs" for c in text):
        raise problem("holds a null character or half of a surrogate pair; remove it")
    return text


def _destination(text: str | None) -> str | None:
    return None if text is None else _check_label(text, DESTINATION)


def _language(code: str | None) -> str | None:
    if code is not None and not re.fullmatch("[a-z]{2}", code):
        raise problem('must be a language code of two small letters, like "en"')
    return code


def _duration(value: object, longest: int = LONGEST_DURATION) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem(f"must be a number of seconds, not {kind_of(value)}")
    if not 0 <= value <= longest:
        raise problem(f"must be a number of seconds from 0 to {longest:,}")
    return Fraction(str(value))


def _link_days(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem(f"must be a number of days, not {kind_of(value)}")
    if not 0 < value <= MOST_LINK_DAYS:
        raise problem(f"must be a number of days above 0, at most {MOST_LINK_DAYS}")
    return float(value)


def _moment(value: object) -> Fraction:
    return _duration(value, LONGEST_CLIP)


def _clips(clips: list[str | ClipField]) -> list[str | ClipField]:
    if not clips:
        raise problem("has no clips: add at least one link or remove the block")
    return clips


def _video_blocks(blocks: dict[str, list[str | ClipField]], info: ValidationInfo) -> dict[str, list[str | ClipField]]:
    limit = context_of(info).limits.blocks
    if not blocks:
        raise problem(f'has no blocks: add one like {{"hook": ["{EXAMPLE_LINK}"]}}')
    if len(blocks) > limit:
        raise problem(f"has {len(blocks):,} blocks; at most {limit} can follow one another in a video, so remove some")
    return blocks


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


Source = Annotated[str, AfterValidator(_source)]
Duration = Annotated[Any, PlainValidator(_duration)]
Moment = Annotated[Any, PlainValidator(_moment)]
Loudness = Literal[-14, -16, -23, "off"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class VoiceSettings(Model):
    """Those of ElevenLabs; Piper uses `speed`, other providers have no use for them."""

    stability: float | None = Field(default=None, ge=0, le=1)
    similarity_boost: float | None = Field(default=None, ge=0, le=1)
    style: float | None = Field(default=None, ge=0, le=1)
    speed: float | None = Field(default=None, ge=0.7, le=1.2)
    use_speaker_boost: bool | None = None


class SpokenField(Model):
    """How a line is spoken."""

    voice: Annotated[str | None, AfterValidator(_voice)] = None
    model: Annotated[str | None, AfterValidator(_voice)] = None
    language: Annotated[str | None, AfterValidator(_language)] = None
    settings: VoiceSettings | None = None
    block: Annotated[str | None, AfterValidator(_block)] = None
    clip: Annotated[str | None, AfterValidator(_clip)] = None

    def manner(self) -> Manner:
        given = self.settings.model_dump(exclude_none=True) if self.settings else {}
        return Manner(self.model, self.language, tuple(sorted(given.items())))


class LineField(SpokenField):
    text: Annotated[str, AfterValidator(_text)]


class TextsField(SpokenField):
    text: Annotated[list[str], PlainValidator(_texts)]


class TrackField(Model):
    """A track, and where in it to begin."""

    url: Source
    start: Duration = Fraction(0)


class ClipField(Model):
    """A clip, what part of it to show, how loud its own sound is, and what to call it."""

    url: Source
    start: Moment = Fraction(0)
    end: Moment | None = None
    volume: float = Field(default=1.0, ge=0, le=4)
    label: Annotated[str | None, AfterValidator(_label)] = None

    @model_validator(mode="after")
    def _ordered(self) -> ClipField:
        if self.end is not None and self.end <= self.start:
            raise problem("ends before it begins; send an end that is larger than its start")
        return self

    def key(self) -> str:
        return clip_key(Cut(self.url, Seconds(self.start), self.end, self.volume, self.label))


def clip_of(clip: str | ClipField) -> str:
    """The clip's key (see `cuts`)."""
    return clip if isinstance(clip, str) else clip.key()


def _written(value: object) -> str:
    # Most are texts, and every other look takes its time: requests hold hundreds.
    return "[link]" if isinstance(value, str) or not isinstance(value, dict | BaseModel) else "[object]"


class SelectField(Model):
    count: int = Field(ge=1)


class WebhookField(Model):
    url: Annotated[str, AfterValidator(_webhook_link)]
    events: Annotated[list[Event], AfterValidator(_events)] | None = None


TaskName = Annotated[str, AfterValidator(_task_name)]
BlockName = Annotated[str, AfterValidator(_block_name)]
Clip = Annotated[Annotated[Source, Tag("[link]")] | Annotated[ClipField, Tag("[object]")], Discriminator(_written)]
"""A link, or an object that says more; tags in brackets are no places."""
Clips = Annotated[list[Clip], AfterValidator(_clips)]
VideoBlocks = Annotated[dict[BlockName, Clips], AfterValidator(_video_blocks)]
Track = Annotated[Annotated[Source, Tag("[link]")] | Annotated[TrackField, Tag("[object]")], Discriminator(_written)]
AudioBlocks = dict[BlockName, list[Track]]
VoiceBlocks = dict[BlockName, list[TextsField]]
ClipSound = Literal["mute", "keep"]
Formats = Annotated[list[Annotated[Any, PlainValidator(format_size)]], AfterValidator(_formats)]
FrameRate = Annotated[Any, PlainValidator(frame_rate)]
Passthrough = Annotated[str | None, AfterValidator(_passthrough)]
LinkDays = Annotated[Any, PlainValidator(_link_days)]
Destination = Annotated[str | None, AfterValidator(_destination)]
