"""The ffmpeg command line: a combination with the concat filter, one clip conformed, and how alike two videos are."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from imageio_ffmpeg import get_ffmpeg_exe

from benchmarks.measure import Cost, command
from crosscut import conform

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction
    from pathlib import Path

    from crosscut.media import Format

FFMPEG = get_ffmpeg_exe()


def version() -> str:
    said = subprocess.run([FFMPEG, "-version"], check=True, capture_output=True, text=True).stdout
    return said.split()[2].split("-")[0].removeprefix("n")


def render(
    clips: Sequence[Path],
    music: Path | None,
    voice: Path | None,
    frame: Format,
    length: Fraction,
    output: Path,
    *,
    keep: bool = False,
) -> Cost:
    """Clips of another shape get borders; ultrafast, as MoviePy is asked to be. `keep`: with the sound of the clips."""
    width, height = frame.width, frame.height
    fit = (
        f"scale={width}:{height}:force_original_aspect_ratio=decrease,pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,"
        f"setsar=1,fps={frame.fps},format=yuv420p"
    )
    count = len(clips)
    chains = [f"[{number}:v]{fit}[v{number}]" for number in range(count)]
    parts = "".join(f"[v{number}][{number}:a]" if keep else f"[v{number}]" for number in range(count))
    chains.append(f"{parts}concat=n={count}:v=1:a={int(keep)}[v]{'[kept]' if keep else ''}")
    heard = ["[kept]"] if keep else []
    sources = [word for clip in clips for word in ("-i", clip)]
    if music and voice:
        sources += ["-stream_loop", "-1", "-i", music, "-i", voice]
        chains.append(f"[{count}:a]volume=0.2[music]")
        heard = ["[music]", f"[{count + 1}:a]", *heard]
    chains.append(f"{''.join(heard)}amix=inputs={len(heard)}:duration=first:normalize=0[a]")
    return command(
        *(FFMPEG, "-y", *sources),
        *("-filter_complex", ";".join(chains), "-map", "[v]", "-map", "[a]", "-t", float(length)),
        *("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", output),
    )


def encode_sound(sound: Path, output: Path) -> Cost:
    """AAC as the command line makes it by itself: 128 kbit/s for stereo."""
    return command(FFMPEG, "-y", "-i", sound, "-threads", 1, "-ac", 2, "-ar", 48_000, "-c:a", "aac", output)


def conform_clip(clip: Path, frame: Format, shown: tuple[int, int], threads: int, output: Path) -> Cost:
    """What `crosscut.conform.encode` does with fit `blur`: the same filters, encoder settings and threads."""
    options = [word for name, value in conform.X264.items() for word in (f"-{name}", value)]
    return command(
        *(FFMPEG, "-y", "-filter_threads", 1, "-filter_complex_threads", 1, "-threads", threads, "-i", clip),
        *("-filter_complex", _filters(frame, shown), "-an", "-c:v", "libx264", *options, "-threads", threads),
        *("-g", round(frame.fps * conform.KEYFRAME_SECONDS), output),
    )


def _filters(frame: Format, shown: tuple[int, int]) -> str:
    place = conform.layout(shown, frame, "blur")
    colour = "flags=bicubic:out_color_matrix=bt709:out_range=tv"
    scaled = f"scale={place.width}:{place.height}:{colour},format=yuv420p"
    if place.fit is None:
        return f"{scaled},setsar=1,fps={frame.fps}"
    grown = max(frame.width / place.width, frame.height / place.height)
    wide, high = (2 * round(side * grown / conform.BLUR_SHRINK / 2) for side in (place.width, place.height))
    backdrop = (
        f"scale={wide}:{high}:flags=fast_bilinear,gblur=4:2,"
        f"scale={wide * conform.BLUR_SHRINK}:{high * conform.BLUR_SHRINK},crop={frame.width}:{frame.height}"
    )
    return (
        f"{scaled},split[front][back];[back]{backdrop}[backdrop];"
        f"[backdrop][front]overlay=(W-w)/2:(H-h)/2,format=yuv420p,setsar=1,fps={frame.fps}"
    )


def ssim(video: Path, clips: Sequence[Path]) -> float:
    """Structural similarity of `video` to the clips one after the other, frame by frame; all of one size and rate."""
    sources = [word for clip in clips for word in ("-i", str(clip))]
    inputs = "".join(f"[{number}:v]" for number in range(1, len(clips) + 1))
    chain = f"{inputs}concat=n={len(clips)}:v=1,settb=1/1000,setpts=N[a];[0:v]settb=1/1000,setpts=N[b];[b][a]ssim"
    done = subprocess.run(
        [FFMPEG, "-i", str(video), *sources, "-filter_complex", chain, "-f", "null", "-"],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"SSIM .*All:([0-9.]+)", done.stderr)
    assert found, "ffmpeg prints the similarity at its end"
    return float(found[1])
