"""One combination after the other with MoviePy, as its documentation shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measure import Cost, measured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def render_all(
    combinations: Sequence[Sequence[Path]],
    music: Path | None,
    voice: Path | None,
    size: tuple[int, int],
    outputs: Sequence[Path],
) -> list[Cost]:
    """The cost of each; for a process of its own. Clips of another shape are stretched, which is the cheapest way.

    Sound that the clips have is kept, under music and voice where both are there.
    """
    from moviepy import (  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415 - only here
        AudioFileClip,
        CompositeAudioClip,
        VideoFileClip,
        afx,
        concatenate_videoclips,
    )

    def render(paths: Sequence[Path], output: Path) -> None:
        clips = [VideoFileClip(str(path)) for path in paths]
        shaped = [clip if tuple(clip.size) == size else clip.resized(size) for clip in clips]
        video = concatenate_videoclips(shaped)
        sounds = [AudioFileClip(str(path)) for path in (music, voice) if path]
        heard = [video.audio] if video.audio is not None else []
        if sounds:
            tune, words = sounds
            heard += [tune.with_effects([afx.AudioLoop(duration=video.duration), afx.MultiplyVolume(0.2)]), words]
        video = video.with_audio(CompositeAudioClip(heard).with_duration(video.duration))
        video.write_videofile(str(output), fps=30, preset="ultrafast", codec="libx264", audio_codec="aac", logger=None)
        for source in (*clips, *sounds):
            source.close()

    costs = []
    for paths, output in zip(combinations, outputs, strict=True):
        with measured() as cost:
            render(paths, output)
        costs.append(cost)
    return costs
