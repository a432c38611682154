"""Clip + target -> segment: the clip itself where its packets can be copied, else encoded once ever."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosscut import conform
from crosscut.artifacts import artifact_key
from crosscut.errors import ConformError
from crosscut.media import NO_TIME
from crosscut.splice import Segment, read_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from crosscut.media import ClipFacts, Format, Seconds, Target
    from crosscut.plan import Rendition
    from crosscut.workshop import Material, Workshop


def profile_sets(frame: Format, workshop: Workshop) -> str:
    """The parameter sets (hexadecimal `avcC`) that our encoder writes for `frame`: seen, not assumed."""

    def make(paths: Mapping[str, Path]) -> None:
        workshop.run("crosscut.conform:encode_blank", outputs=[paths[".mp4"]], **_frame(frame))

    blank = workshop.lease.make_read(artifact_key("blank", **_profile(frame)), (".mp4",), make, _read)
    return blank.parameter_sets.hex()


@dataclass(frozen=True)
class Take:
    """What is shown of a source in a format: its facts are those of the part from `start` on."""

    facts: ClipFacts
    rendition: Rendition
    target: Target
    start: Seconds = NO_TIME
    captions: str | None = None
    """What is drawn into the pictures, as JSON (see `burning`)."""
    hold: int = 0
    """Frames that the last picture is repeated: captions go on over it."""

    @property
    def copied(self) -> bool:
        return not self.rendition.reasons and self.captions is None


def segment_key(sha256: str, take: Take) -> str:
    """Names everything that decides the bytes of the segment; `sha256` is of the source."""
    if take.copied:
        return artifact_key("copy", source=sha256)
    return artifact_key("segment", source=sha256, **_recipe(take), **_profile(take.target.format))


def make_segment(
    source: Material,
    take: Take,
    workshop: Workshop,
    threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> Segment:
    """Raises `CrosscutError` with a sentence about “it”, which the caller completes with the clip's name."""
    if take.copied:
        return read_segment(source.path)
    key = segment_key(source.sha256, take)
    segment = workshop.find(key, (".mp4",), _read)
    if segment is None:
        segment = _encoded(key, source, take, workshop, threads, on_progress)
    wanted = take.rendition.frames + take.hold
    if len(segment.track.sizes) != wanted:
        raise ConformError(
            "it could not be brought to the format's frame rate: report this clip",
            code="wrong_length",
            detail=f"{len(segment.track.sizes)} frames instead of {wanted}",
        )
    return segment


def _encoded(
    key: str,
    source: Material,
    take: Take,
    workshop: Workshop,
    threads: int,
    on_progress: Callable[[float], None] | None,
) -> Segment:
    path = source.path  # it may be fetched again here, which a maker must not do

    def make(paths: Mapping[str, Path]) -> None:
        video = take.facts.video
        assert video is not None
        with workshop.telemetry.timed("conform", source=source.label, format=take.target.format.name):
            workshop.run(
                "crosscut.conform:encode",
                inputs=[path],
                outputs=[paths[".mp4"]],
                media_seconds=float(take.start + video.duration),
                on_progress=on_progress,
                threads=threads,
                **_recipe(take),
                **_frame(take.target.format),
            )

    return workshop.piece(key, (".mp4",), make, _read)


def _read(paths: Mapping[str, Path]) -> Segment:
    return read_segment(paths[".mp4"])


def _recipe(take: Take) -> dict[str, Any]:
    video = take.facts.video
    assert video is not None
    # What is not wished stays out, so that pieces of before keep their names.
    wishes = {
        "start": str(take.start) if take.start else None,
        "captions": None if take.captions is None else json.loads(take.captions),
        "hold": take.hold or None,
    }
    return {
        "fit": take.target.fit,
        "rotation": video.rotation,
        "pixel_aspect": str(video.pixel_aspect),
        "duration": str(video.duration),
        **{name: wish for name, wish in wishes.items() if wish is not None},
    }


def _frame(frame: Format) -> dict[str, Any]:
    return {"width": frame.width, "height": frame.height, "fps": str(frame.fps)}


def _profile(frame: Format) -> dict[str, Any]:
    return {"version": conform.VERSION, "x264": conform.X264, **_frame(frame)}
