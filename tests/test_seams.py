"""Where two bodies meet: the units of a seam stand for those of both, and nothing else changes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from crosscut import aac, levelling, seams
from crosscut.blend import EDGE, ClipLevel, Levels
from crosscut.loudness import decibels, loudness_of, measure, ratio
from crosscut.media import AAC_FRAME
from crosscut.mix import TRUE_PEAK
from crosscut.seams import QUIET, Seam
from sounds import RATE, child, tune, write_pcm
from test_mix import chords, decoded, steady, units_of

if TYPE_CHECKING:
    from pathlib import Path

    from crosscut.loudness import Signal


def body(folder: Path, name: str, sound: Signal) -> list[Path]:
    """Limited mix and AAC of a clip's sound, as a slot has them."""
    files = [folder / f"{name} {kind}" for kind in ("mix", "aac", "profile")]
    level = Levels(None, None, (), (ClipLevel(0.0, 0.0, 0, sound.shape[1]),))
    child(
        levelling.render_levelled,
        [write_pcm(folder / name, sound)],
        files,
        levels=level.arguments(),
        samples=(-(-sound.shape[1] // AAC_FRAME) + QUIET) * AAC_FRAME,
        fade_out=0,
        first=0.0,
        target=None,
        near=0.05,
        peak=-1.6,
        hop=AAC_FRAME,
    )
    return files[:2]


def seam(folder: Path, files: list[Path], frames: int, fade: int = EDGE) -> tuple[dict[str, Any], list[Path]]:
    outputs = [folder / "seam", folder / "seam profile"]
    return child(seams.render_seam, files, outputs, frames=frames, fade=fade), outputs


def encoded(sound: Signal) -> list[bytes]:
    with aac.Encoder(io.BytesIO()) as encoder:
        return [*encoder.encode(sound), *encoder.finish()]


def test_units_agree_where_their_windows_do() -> None:
    long, shared = bytes([0b0010_0001, 0b0001_1111, 3]), bytes([0b0010_0001, 0b0001_0000, 99, 5])
    short, apart = bytes([0b0010_0001, 0b0100_0000]), bytes([0b0010_0000, 0b0001_1111])
    assert aac.windows(long) == aac.windows(shared) != aac.windows(short)
    assert aac.windows(apart) == apart
    assert aac.windows(b"") == b""


def test_a_hit_changes_windows_and_silence_has_none() -> None:
    hit = np.zeros((2, 20 * AAC_FRAME), np.float32)
    hit[:, 10 * AAC_FRAME : 10 * AAC_FRAME + 500] = 0.5
    kinds = {aac.windows(unit) for unit in encoded(hit)}
    assert len(kinds) > 1
    assert len({aac.windows(unit) for unit in encoded(np.zeros_like(hit))}) == 1


@pytest.mark.parametrize("frames", [40, 93, 94, 120])
def test_a_seam_takes_the_place_of_the_units_it_says(tmp_path: Path, frames: int) -> None:
    """Also where the second body begins before the first has ended, or long after."""
    first, second = chords(2, 0.2), chords(1.5, 0.3)[:, ::-1]
    files = [*body(tmp_path, "one", first), *body(tmp_path, "two", second)]
    answer, (made, profile) = seam(tmp_path, files, frames)
    place = Seam(**answer["seam"])
    before, after, own = units_of(files[1]), units_of(files[3]), units_of(made)
    quiet = [before[-1]] * (place.first - len(before))
    units = [*before[: place.first], *quiet, *own[place.skip : place.skip + place.count], *after[place.reach + 1 :]]
    heard = decoded(units, frames * AAC_FRAME + second.shape[1])
    mixed = np.zeros_like(heard)
    span = min(first.shape[1], frames * AAC_FRAME)
    mixed[:, :span] = first[:, :span]
    mixed[:, frames * AAC_FRAME :] = second
    middle = slice(EDGE, (frames * AAC_FRAME) - EDGE)
    assert np.std((heard - mixed)[:, middle]) < 0.1 * np.std(mixed[:, middle])
    rest = slice(frames * AAC_FRAME + EDGE, -EDGE)
    assert np.std((heard - mixed)[:, rest]) < 0.1 * np.std(mixed[:, rest])
    energy, peak = np.frombuffer(profile.read_bytes(), "<f4").reshape(2, answer["frames"])
    whole = measure_frames(heard)
    told = slice(place.lead, place.lead + answer["frames"])
    assert answer["frames"] == frames - place.lead + place.reach + 1
    assert energy == pytest.approx(whole.energy[told], rel=1e-3, abs=1e-9)
    assert peak == pytest.approx(whole.peak[told], rel=1e-3, abs=1e-4)


def measure_frames(sound: Signal) -> Any:
    meter = seams.Meter(hop=AAC_FRAME)
    meter.push(sound)
    return meter.finish()


def test_a_tail_is_a_seam_with_silence(tmp_path: Path) -> None:
    files = body(tmp_path, "one", chords(2, 0.2))
    answer, (made, _) = seam(tmp_path, files, 60, fade=RATE // 2)
    place = Seam(**answer["seam"])
    units = [*units_of(files[1])[: place.first], *units_of(made)[place.skip : place.skip + place.count]]
    heard = decoded(units, 61 * AAC_FRAME)
    fade = 60 * AAC_FRAME - RATE // 2
    levels = [measure(heard[:, start : start + 19_200]).loudness for start in (fade - 19_200, fade + 4_000)]
    assert levels[0] is not None
    assert levels[1] is not None
    assert levels[1] < levels[0] - 3
    assert np.abs(heard[:, 60 * AAC_FRAME - 200 : 60 * AAC_FRAME]).max() < 0.01
    assert np.abs(heard[:, 60 * AAC_FRAME :]).max() < 1e-3


def test_bodies_that_cannot_be_met_are_said_to_be_so(tmp_path: Path) -> None:
    """An AAC that is of another sound than its mix: its windows are never met."""
    hits = np.zeros((2, 60 * AAC_FRAME), np.float32)
    for place in range(300, 58 * AAC_FRAME, 1_500):
        hits[:1, place : place + 40] = hits[1:, place + 700 : place + 740] = 0.8
    other = body(tmp_path, "hits", hits)
    files = [*body(tmp_path, "one", chords(2, 0.2)), body(tmp_path, "two", chords(1, 0.2))[0], other[1]]
    answer, _ = seam(tmp_path, files, 60)
    assert answer == {"seam": None, "frames": 0}


def test_a_seam_that_overshoots_is_lowered(tmp_path: Path) -> None:
    loud = np.zeros((2, 40 * AAC_FRAME), np.float32)
    loud[:, 34 * AAC_FRAME + 500 : 35 * AAC_FRAME + 700] = ratio(-1.2) * steady(1)[:, : AAC_FRAME + 200] / 0.1
    files = [tmp_path / "mix", tmp_path / "aac"]
    files[0].write_bytes(np.rint(loud.T * 32767).astype("<i2").tobytes())
    with files[1].open("x+b") as file, aac.Encoder(file) as encoder:
        units = [*encoder.encode(loud), *encoder.finish()]
    assert measure(decoded(units, loud.shape[1])).true_peak > TRUE_PEAK
    answer, (_, profile) = seam(tmp_path, files, 36)
    _, peak = np.frombuffer(profile.read_bytes(), "<f4").reshape(2, answer["frames"])
    assert TRUE_PEAK - 3 < decibels(float(peak.max())) <= TRUE_PEAK


def test_loudness_is_told_from_frames(tmp_path: Path) -> None:
    sound = np.concatenate([tune(3), tune(2, level=0.05), chords(3, 0.4)], axis=1)
    for samples in (RATE, 3 * RATE + 17, 8 * RATE):
        part = sound[:, :samples]
        assert loudness_of(measure_frames(part).energy, AAC_FRAME, samples) == pytest.approx(
            measure(part).loudness, abs=0.02
        )
    assert loudness_of(measure_frames(sound[:, :9_000]).energy, AAC_FRAME, 9_000) is None
