"""The words of media: exact time, what a clip is, what an output format is, and what keeps a clip from being copied.

Pure values. Times and rates are `Fraction` (30000/1001 stays 30000/1001); sizes are in pixels; colour codes are the
numbers of ITU-T H.273, which MP4, H.264 and FFmpeg share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NewType

Seconds = NewType("Seconds", Fraction)

Fit = Literal["pad", "crop", "blur"]
Join = Literal["safe", "wide"]

Captions = Literal["none", "soft", "burn"]
CaptionStyle = Literal["plain", "box", "pop"]

AUDIO_RATE = 48_000
"""Samples a second of everything we mix and encode."""

AAC_FRAME = 1_024
"""Samples in one AAC-LC access unit (ISO/IEC 14496-3, 4.5.2.1.1)."""

HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""H.273 table 3: SMPTE ST 2084 and ARIB STD-B67."""


@dataclass(frozen=True)
class Manner:
    """How a line is to be spoken; None: as the provider does by itself.

    `language` is a code of ISO 639-1; `settings` are the provider's own, by name.
    """

    model: str | None = None
    language: str | None = None
    settings: tuple[tuple[str, float | bool], ...] = ()


PLAIN = Manner()

NO_TIME = Seconds(Fraction(0))
USUAL_FADE = Seconds(Fraction(1, 2))


@dataclass(frozen=True)
class MixSettings:
    """What the sound of a task is to be like."""

    music_gain: float = -14.0
    """Loudness of the music under the voice-over, relative to it, in LU."""
    voice_gain: float = 0.0
    """Loudness of the voice-over relative to where it usually is, in LU."""
    voice_start: Seconds = NO_TIME
    """When the voice-over begins."""
    fade_in: Seconds = NO_TIME
    fade_out: Seconds = USUAL_FADE
    loudness: float | None = -14.0
    """LUFS integrated that every soundtrack comes to; None: as loud as it happens to be."""


USUAL_MIX = MixSettings()


@dataclass(frozen=True)
class Colour:
    """H.273 code points; 2 means unspecified."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool = False

    @property
    def hdr(self) -> str | None:
        """`"PQ"`, `"HLG"` or None."""
        return HDR_TRANSFERS.get(self.transfer)

    def __str__(self) -> str:
        return f"{self.primaries}/{self.transfer}/{self.matrix}{' full range' if self.full_range else ''}"


BT709 = Colour(1, 1, 1)


def usual_colour(colour: Colour, height: int) -> Colour:
    """Fill in unspecified code points the way players do: BT.601 below 720 lines, BT.709 from there on."""
    usual = 6 if height < 720 else 1
    # 5 and 6 are one matrix under two names (H.273, table 4).
    matrix = {0: usual, 2: usual, 3: usual, 5: 6}.get(colour.matrix, colour.matrix)
    primaries = usual if colour.primaries in (0, 2, 3) else colour.primaries
    transfer = usual if colour.transfer in (0, 2, 3) else colour.transfer
    return Colour(primaries, transfer, matrix, colour.full_range)


@dataclass(frozen=True)
class VideoFacts:
    """`width` and `height` are as stored; `rotation` (0, 90, 180, 270) turns it upright, clockwise."""

    codec: str
    width: int
    height: int
    rotation: int
    pixel_aspect: Fraction
    pixel_format: str
    colour: Colour
    frame_rate: Fraction
    """Mean frames a second, as close to a standard rate as the timestamps allow."""
    frames: int
    duration: Seconds

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as a viewer sees them."""
        return shown_size(self.width, self.height, self.pixel_aspect, self.rotation)


def shown_size(width: int, height: int, pixel_aspect: Fraction, rotation: int) -> tuple[int, int]:
    """Stored size -> size in square pixels, upright; a side grows, none shrinks."""
    wide = round(width * max(pixel_aspect, Fraction(1)))
    high = round(height / min(pixel_aspect, Fraction(1)))
    return (wide, high) if rotation % 180 == 0 else (high, wide)


@dataclass(frozen=True)
class CopyFacts:
    """What the sample tables of an MP4 say about copying its video packets.

    `parameter_sets` is the `avcC` record in hexadecimal; `obstacles` are structural reasons that forbid copying into
    any target (an edit list that cuts into the picture, no sync sample at the start, uneven sample times, ...).
    """

    parameter_sets: str
    frame_rate: Fraction
    """Exact; 0 where frames are not equally long, which is one of the obstacles."""
    obstacles: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipFacts:
    """Everything the plan needs to know of a source; `video` or `audio` is None where there is no such stream."""

    container: str
    video: VideoFacts | None
    audio: str | None
    """Codec of its sound."""
    copy: CopyFacts | None = None
    """None when the container is not MP4 or the video is not H.264 in an `avc1` entry."""


@dataclass(frozen=True, order=True)
class Format:
    """An output frame: even width and height in square pixels, constant frames a second."""

    width: int
    height: int
    fps: Fraction

    @property
    def name(self) -> str:
        """`"9x16"` and the like for the named ratios, else `"1080x1920"`."""
        ratio = NAMED_RATIOS.get(Fraction(self.width, self.height))
        return ratio or f"{self.width}x{self.height}"

    def __str__(self) -> str:
        return f"{self.width}×{self.height} at {rate_text(self.fps)} fps"


NAMED_RATIOS = {Fraction(9, 16): "9x16", Fraction(1): "1x1", Fraction(4, 5): "4x5", Fraction(16, 9): "16x9"}


def rate_text(rate: Fraction) -> str:
    """`30`, `29.97`: for sentences, never for computing."""
    return f"{float(rate):.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Target:
    """What the segments of one format must be: the format, and the parameter sets they share (hexadecimal `avcC`)."""

    format: Format
    parameter_sets: str
    fit: Fit = "blur"
    colour: Colour = field(default=BT709)


def differences(clip: ClipFacts, target: Target, join: Join = "safe") -> tuple[str, ...]:
    """Why `clip` cannot be joined to `target` by copying packets; empty means it can.

    `wide` lets the encoder differ (its parameter sets travel with the clip); everything a decoder cannot change in
    the middle of a track must still agree.
    """
    video = clip.video
    if video is None:
        return ("no video",)
    found = []
    if clip.copy is None:
        found.append(
            f"{video.codec} in {clip.container}, not H.264 in MP4"
            if video.codec != "h264" or "mp4" not in clip.container
            else "its H.264 is not in a plain avc1 track"
        )
    if video.rotation:
        found.append(f"turned by {video.rotation}°")
    if (video.width, video.height) != (target.format.width, target.format.height):
        found.append(f"size {video.width}×{video.height} ≠ {target.format.width}×{target.format.height}")
    if video.pixel_aspect != 1:
        found.append(f"pixel shape {video.pixel_aspect.numerator}:{video.pixel_aspect.denominator} ≠ 1:1")
    found += _picture_differences(video, target)
    if clip.copy is not None:
        found += _rate_differences(clip.copy, target)
        found += clip.copy.obstacles
        if join == "safe" and clip.copy.parameter_sets != target.parameter_sets and not found:
            found.append("another encoder (its parameter sets differ)")
    return tuple(found)


def _picture_differences(video: VideoFacts, target: Target) -> list[str]:
    found = []
    if video.pixel_format not in ("yuv420p", "yuvj420p"):
        found.append(f"pixel format {video.pixel_format} ≠ yuv420p")
    colour = usual_colour(video.colour, video.height)
    wanted = usual_colour(target.colour, target.format.height)
    if colour != wanted:
        found.append(f"colour {colour} ≠ {wanted}")
    return found


def _rate_differences(copy: CopyFacts, target: Target) -> list[str]:
    # An uneven rate is an obstacle already.
    if copy.frame_rate and copy.frame_rate != target.format.fps:
        return [f"frame rate {rate_text(copy.frame_rate)} ≠ {rate_text(target.format.fps)}"]
    return []
