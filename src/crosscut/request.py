"""What a caller sends: one JSON document, checked in full and turned into a frozen `Request`.

Every refusal is one sentence that names the place, such as `video_blocks.hooks[2]`, and what to change. Nothing here
looks at what a link points to: that is for the fetch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, model_validator

from crosscut.bindings import Binding, Places
from crosscut.coverage import uncovered
from crosscut.errors import RequestError
from crosscut.fields import (
    EVENTS,
    SPEECH,
    AudioBlocks,
    ClipField,
    ClipSound,
    Context,
    Destination,
    Duration,
    Event,
    Formats,
    FrameRate,
    LineField,
    LinkDays,
    Loudness,
    Model,
    Passthrough,
    RequestLimits,
    SelectField,
    SpokenField,
    TaskName,
    TextsField,
    TrackField,
    VideoBlocks,
    VoiceBlocks,
    VoiceSettings,
    WebhookField,
    clip_of,
    context_of,
)
from crosscut.grid import Grid, Stage
from crosscut.media import NO_TIME, PLAIN, USUAL_MIX, Captions, CaptionStyle, Fit, Join, Manner, MixSettings, Seconds
from crosscut.naming import NameTemplate
from crosscut.refusals import Location, first_refusal, kind_of, place_of, problem, quoted, refusal
from crosscut.strictjson import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VoiceOverflow = Literal["hold", "speed", "choose", "refuse"]

MAX_COMBINATIONS = 10**15
"""Most combinations of which a part may be selected."""

DEFAULT_LIMITS = RequestLimits()


@dataclass(frozen=True)
class Block:
    """`clips` are keys (see `cuts`)."""

    name: str
    clips: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A text to speak; `voice` None is the default voice."""

    text: str
    voice: str | None = None
    manner: Manner = PLAIN


@dataclass(frozen=True)
class Webhook:
    """A link to call when one of `events` happens."""

    url: str
    events: tuple[Event, ...]


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
    music_starts: tuple[Seconds, ...] = ()
    """Where in its file each track begins, by its number; none: at the beginning."""
    mix: MixSettings = USUAL_MIX
    bindings: tuple[Binding | None, ...] = ()
    """For each line, by its number, where it is spoken; None: over the whole video. None at all: all of them are."""
    captions: Captions = "none"
    caption_style: CaptionStyle = "plain"
    spending_limit: float | None = None
    """US dollars that the voice-overs of the task may cost at most."""
    voice_overflow: VoiceOverflow = "hold"
    name: str | None = None
    """Template of the file names; None means the usual one."""
    webhook: Webhook | None = None
    passthrough: str | None = None
    """What the caller wants to hear again with everything that is told of the task."""
    destination: str | None = None
    """Where the task's folder is made; None means the usual place."""
    link_days: float | None = None
    """How many days the links to files in a bucket shall work that the manifest has; None: it has none."""
    stages: tuple[Stage, ...] = ()
    """What was asked for first and, stage by stage, later; empty: everything at once."""

    def binding(self, line: int) -> Binding | None:
        return self.bindings[line] if line < len(self.bindings) else None

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(block.clips) for block in self.blocks)

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        everything = tuple((0, size) for size in self.sizes)
        return self.stages or (Stage(everything, self.count, (0, len(self.music)), (0, len(self.lines))),)

    @property
    def combinations(self) -> int:
        """How many combinations of clips are asked for, one that was asked for again counted again."""
        return sum(stage.combinations for stage in self.all_stages)

    def grid(self, targets: int) -> Grid:
        """All variations in so many formats."""
        return Grid(self.all_stages, targets)


def parse_request(
    body: str | bytes | Mapping[str, Any], *, local: bool = False, limits: RequestLimits = DEFAULT_LIMITS
) -> Request:
    """Check `body` and return what it asks for; `local` lets sources be paths of this machine as well.

    Raises RequestError, and nothing else, with the code `invalid_request`.
    """
    request = read_model(RequestBody, body, "task_name", Context(local, limits)).request()
    check_product(request)
    _check_amount(request, limits)
    return request


Document = TypeVar("Document", bound=Model)


def read_model(
    model: type[Document], body: str | bytes | Mapping[str, Any], example: str, context: Context
) -> Document:
    """The body as a `model`, of which `example` is a field; raises RequestError."""
    limits = context.limits
    document = read_json(body, most_bytes=limits.body, most_levels=limits.depth)
    if not isinstance(document, dict):
        raise refusal(f'The request must be an object like {{"{example}": ...}}, not {kind_of(document)}.')
    try:
        return model.model_validate(document, context=context)
    except ValidationError as error:
        raise first_refusal(error, lambda location: list(_model_at(location, model).model_fields)) from None


class Sounds(Protocol):
    """The fields with music and lines; the three for lines are three ways to say the same."""

    @property
    def audio_blocks(self) -> AudioBlocks | None: ...
    @property
    def text_to_speach(self) -> list[LineField] | None: ...
    @property
    def text_to_speech(self) -> list[LineField] | None: ...
    @property
    def voice_blocks(self) -> VoiceBlocks | None: ...
    @property
    def model_fields_set(self) -> set[str]: ...


def music_in(body: Sounds) -> tuple[str, ...]:
    return tuple(link_of(track) for pool in (body.audio_blocks or {}).values() for track in pool)


def link_of(track: str | TrackField) -> str:
    return track if isinstance(track, str) else track.url


def starts_in(body: Sounds) -> tuple[Seconds, ...]:
    tracks = [track for pool in (body.audio_blocks or {}).values() for track in pool]
    return tuple(NO_TIME if isinstance(track, str) else Seconds(track.start) for track in tracks)


def lines_in(body: Sounds) -> tuple[Line, ...]:
    return tuple(Line(text, said.voice, said.manner()) for _, said, texts in _spoken(body) for text in texts)


def _spoken(body: Sounds) -> Iterator[tuple[Location, SpokenField, list[str]]]:
    """Every entry that says what to speak: where it stands, what it is, and its texts."""
    for field in ("text_to_speach", "text_to_speech"):
        for number, line in enumerate(getattr(body, field) or ()):
            yield (field, number), line, [line.text]
    for name, entries in (body.voice_blocks or {}).items():
        for number, lines in enumerate(entries):
            yield ("voice_blocks", name, number), lines, lines.text


def bindings_in(body: Sounds, blocks: Sequence[Block]) -> tuple[Binding | None, ...]:
    """For each line of `lines_in`; () where none is bound. Raises a problem where there is no such block or clip."""
    places = Places({block.name: block.clips for block in blocks})
    found: list[Binding | None] = []
    for place, said, texts in _spoken(body):
        found += [places.binding(place, said.block, said.clip)] * len(texts)
    return tuple(found) if any(found) else ()


def check_drawable(body: Sounds, captions: Captions) -> None:
    """Refuse what no font can draw, where captions are drawn into the pictures."""
    if captions != "burn":
        return
    for place, _, texts in _spoken(body):
        for text in texts:
            if missing := uncovered(text):
                raise problem(
                    f"{place_of((*place, 'text'))} holds {quoted(missing)}, which the fonts of burned captions do not"
                    ' have: change the text, or send "captions": "soft".'
                )


def blocks_of(blocks: Mapping[str, Sequence[str | ClipField]]) -> tuple[Block, ...]:
    return tuple(Block(name, tuple(map(clip_of, clips))) for name, clips in blocks.items())


def check_volumes(blocks: Mapping[str, Sequence[str | ClipField]], clip_sound: ClipSound) -> None:
    if clip_sound == "keep":
        return
    for name, clips in blocks.items():
        for number, clip in enumerate(clips):
            if not isinstance(clip, str) and clip.volume not in (0, 1):
                place = place_of(("video_blocks", name, number, "volume"))
                raise problem(
                    f'{place} has no effect in a task whose clip_sound is "mute"; '
                    'remove it or make the task with "clip_sound": "keep".'
                )


def check_sounds(body: Sounds) -> None:
    given = [field for field in SPEECH if field in body.model_fields_set]
    if len(given) > 1:
        raise problem(f"{given[0]} and {given[1]} both say what to speak: send only one of them.")


def check_totals(sources: int, lines: int, limits: RequestLimits) -> None:
    if sources > limits.sources:
        raise problem(f"{sources:,} links are too many for one task; send at most {limits.sources:,}.")
    if lines > limits.lines:
        raise problem(f"{lines:,} voice-over texts are too many; send at most {limits.lines:,}.")


class RequestBody(Model):
    """The fields of the document, their types and defaults."""

    task_name: TaskName
    video_blocks: VideoBlocks
    audio_blocks: AudioBlocks | None = None
    text_to_speach: list[LineField] | None = None
    text_to_speech: list[LineField] | None = None
    voice_blocks: VoiceBlocks | None = None
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    clip_sound: ClipSound = "mute"
    formats: Formats | None = None
    fps: FrameRate = None
    fit: Fit = "blur"
    join: Join = "safe"
    select: SelectField | None = None
    music_gain: float = Field(default=-14.0, ge=-40, le=0)
    voice_gain: float = Field(default=0.0, ge=-12, le=6)
    voice_start: Duration = Fraction(0)
    fade_in: Duration = Fraction(0)
    fade_out: Duration = Fraction(1, 2)
    loudness: Loudness = -14
    captions: Captions = "none"
    caption_style: CaptionStyle = "plain"
    spending_limit: float | None = Field(default=None, ge=0)
    voice_overflow: VoiceOverflow = "hold"
    name: str | None = None
    webhook: WebhookField | None = None
    passthrough: Passthrough = None
    destination: Destination = None
    link_days: LinkDays = None

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> RequestBody:
        check_sounds(self)
        check_volumes(self.video_blocks, self.clip_sound)
        bindings_in(self, self.blocks)
        check_drawable(self, self.captions)
        if "caption_style" in self.model_fields_set and self.captions != "burn":
            raise problem('caption_style has no effect without "captions": "burn"; send both or neither.')
        sources = sum(map(len, self.video_blocks.values())) + len(music_in(self))
        check_totals(sources, len(lines_in(self)), context_of(info).limits)
        try:
            NameTemplate.parse(self.name, tuple(self.video_blocks))
        except RequestError as error:
            raise problem(error.public) from None
        return self

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return blocks_of(self.video_blocks)

    def request(self) -> Request:
        return Request(
            task_name=self.task_name,
            blocks=self.blocks,
            music=music_in(self),
            lines=lines_in(self),
            seed=self.seed,
            clip_sound=self.clip_sound,
            formats=tuple(self.formats or ()),
            fps=self.fps,
            fit=self.fit,
            join=self.join,
            count=self.select.count if self.select else None,
            music_starts=starts_in(self),
            mix=MixSettings(
                music_gain=self.music_gain,
                voice_gain=self.voice_gain,
                voice_start=Seconds(self.voice_start),
                fade_in=Seconds(self.fade_in),
                fade_out=Seconds(self.fade_out),
                loudness=None if self.loudness == "off" else float(self.loudness),
            ),
            bindings=bindings_in(self, self.blocks),
            captions=self.captions,
            caption_style=self.caption_style,
            spending_limit=self.spending_limit,
            voice_overflow=self.voice_overflow,
            name=(self.name or "").strip() or None,
            webhook=Webhook(hook.url, tuple(hook.events or EVENTS)) if (hook := self.webhook) else None,
            passthrough=self.passthrough,
            destination=self.destination,
            link_days=self.link_days,
        )


_MODELS: dict[int | str, type[BaseModel]] = {
    "audio_blocks": TrackField,
    "video_blocks": ClipField,
    "select": SelectField,
    "voice_blocks": TextsField,
    "text_to_speach": LineField,
    "text_to_speech": LineField,
    "webhook": WebhookField,
}


def _model_at(location: tuple[int | str, ...], whole: type[BaseModel]) -> type[BaseModel]:
    """Whose field is at that place."""
    if len(location) == 1:
        return whole
    return VoiceSettings if location[-2] == "settings" else _MODELS[location[0]]


def check_product(request: Request) -> None:
    total = math.prod(request.sizes)
    if total > MAX_COMBINATIONS:
        raise refusal(
            f"{total:,} combinations ({_shape(request)}) are too many to choose from: the most is "
            f"{MAX_COMBINATIONS:,}; shorten a block."
        )


def _check_amount(request: Request, limits: RequestLimits) -> None:
    formats = max(1, len(request.formats))
    variations = request.combinations * formats
    if variations > limits.variations:
        shape = _shape(request) + (f" in {formats} formats" if formats > 1 else "")
        fewer = "send a smaller select.count"
        change = fewer if request.count else 'shorten a block or choose a part, like "select": {"count": 100}'
        raise refusal(
            f"{variations:,} variations ({shape}) are too many: at most {limits.variations:,} are made in one task; "
            f"{change}."
        )


def _shape(request: Request) -> str:
    return " × ".join(map(str, request.sizes)) + " clips"
