"""Clip + target -> segment: the clip itself where its packets can be copied, else encoded once ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crosscut import conform
from crosscut.artifacts import artifact_key
from crosscut.errors import ConformError
from crosscut.splice import Segment, read_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from crosscut.media import ClipFacts, Format, Target
    from crosscut.plan import Rendition
    from crosscut.workshop import Material, Workshop


def profile_sets(frame: Format, workshop: Workshop) -> str:
    """The parameter sets (hexadecimal `avcC`) that our encoder writes for `frame`: seen, not assumed."""

    def make(paths: Mapping[str, Path]) -> None:
        workshop.run("crosscut.conform:encode_blank", outputs=[paths[".mp4"]], **_frame(frame))

    blank = workshop.lease.make_read(artifact_key("blank", **_profile(frame)), (".mp4",), make, _read)
    return blank.parameter_sets.hex()


def segment_key(sha256: str, facts: ClipFacts, rendition: Rendition, target: Target) -> str:
    """Names everything that decides the bytes of the segment; `sha256` is of the source."""
    if not rendition.reasons:
        return artifact_key("copy", source=sha256)
    return artifact_key("segment", source=sha256, **_recipe(facts, target), **_profile(target.format))


def make_segment(
    source: Material,
    facts: ClipFacts,
    rendition: Rendition,
    target: Target,
    workshop: Workshop,
    threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> Segment:
    """Raises `CrosscutError` with a sentence about “it”, which the caller completes with the clip's name."""
    if not rendition.reasons:
        return read_segment(source.path)
    key = segment_key(source.sha256, facts, rendition, target)
    segment = workshop.find(key, (".mp4",), _read)
    if segment is None:
        segment = _encoded(key, source, facts, target, workshop, threads, on_progress)
    if len(segment.track.sizes) != rendition.frames:
        raise ConformError(
            "it could not be brought to the format's frame rate: report this clip",
            code="wrong_length",
            detail=f"{len(segment.track.sizes)} frames instead of {rendition.frames}",
        )
    return segment


def _encoded(
    key: str,
    source: Material,
    facts: ClipFacts,
    target: Target,
    workshop: Workshop,
    threads: int,
    on_progress: Callable[[float], None] | None,
) -> Segment:
    path = source.path  # it may be fetched again here, which a maker must not do

    def make(paths: Mapping[str, Path]) -> None:
        assert facts.video is not None
        with workshop.telemetry.timed("conform", source=source.label, format=target.format.name):
            workshop.run(
                "crosscut.conform:encode",
                inputs=[path],
                outputs=[paths[".mp4"]],
                media_seconds=float(facts.video.duration),
                on_progress=on_progress,
                threads=threads,
                **_recipe(facts, target),
                **_frame(target.format),
            )

    return workshop.piece(key, (".mp4",), make, _read)


def _read(paths: Mapping[str, Path]) -> Segment:
    return read_segment(paths[".mp4"])


def _recipe(facts: ClipFacts, target: Target) -> dict[str, Any]:
    video = facts.video
    assert video is not None
    return {
        "fit": target.fit,
        "rotation": video.rotation,
        "pixel_aspect": str(video.pixel_aspect),
        "duration": str(video.duration),
    }


def _frame(frame: Format) -> dict[str, Any]:
    return {"width": frame.width, "height": frame.height, "fps": str(frame.fps)}


def _profile(frame: Format) -> dict[str, Any]:
    return {"version": conform.VERSION, "x264": conform.X264, **_frame(frame)}
