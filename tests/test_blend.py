"""What people complain about in mixes: halved or drowned voices, music that swells, sentences cut, clicks."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from crosscut.blend import EDGE, MOST_GAIN, ClipLevel, Heard, Levels, VoiceLevel, mixed, plan_levels
from crosscut.ducking import ATTACK, CELL, RISE
from crosscut.loudness import Signal, decibels, measure, ratio
from crosscut.media import AAC_FRAME, USUAL_MIX, MixSettings, Seconds
from crosscut.pcm import Sound
from sounds import RATE, speech, tune, write_pcm
from test_mix import Studio, decoded, levels, loudness, mix_of, play, true_peak, units_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PIP = 6_000.0
"""Hertz of a tone as music: above everything that the voices of these tests are made of, so that it is told apart."""


def seconds(value: object) -> Seconds:
    return Seconds(Fraction(str(value)))


def pip(length: float) -> Signal:
    wave = 0.1 * np.sin(2 * np.pi * PIP * np.arange(round(length * RATE)) / RATE)
    return np.tile(wave, (2, 1)).astype(np.float32)


def talk(*runs: tuple[float, float]) -> Signal:
    """Seconds of silence, then of speech that fades away at its end."""
    parts = []
    for quiet, loud in runs:
        said = speech(loud)
        said *= np.minimum(np.arange(said.shape[1])[::-1] / (RATE / 50), 1).astype(np.float32)
        parts += [np.zeros((1, round(quiet * RATE)), np.float32), said]
    return np.concatenate(parts, axis=1)


def level_of_pip(signal: Signal, window: float = 0.02) -> Signal:
    """Of the tone alone, in dB, for every window of that many seconds."""
    carrier = np.exp(-2j * np.pi * PIP * np.arange(signal.shape[1]) / RATE)
    size = round(window * RATE)
    whole = signal.shape[1] // size * size
    smooth = (signal[0] * carrier)[:whole].reshape(-1, size).mean(axis=1)
    return np.asarray(20 * np.log10(np.maximum(2 * np.abs(smooth), 1e-10)), np.float32)


def share_of(part: Signal, whole: Signal) -> float:
    """How loud `part` is in `whole`, in dB, 0 where it is as loud as it came."""
    return decibels(float(np.vdot(part, whole) / np.vdot(part, part)))


def whole_body(studio: Studio, samples: int, step: float = 0) -> Signal:
    studio.body(samples, step)
    return decoded(units_of(studio.files[1]), samples)


@pytest.mark.parametrize("gain", [0.0, -6.0, 3.0])
@pytest.mark.parametrize("music_gain", [-14.0, 0.0])
def test_the_voice_is_as_loud_with_music_as_without(tmp_path: Path, gain: float, music_gain: float) -> None:
    voice, settings = talk((0.2, 3)), MixSettings(voice_gain=gain, music_gain=music_gain)
    both = Studio(tmp_path / "both", tune(8), voice, settings)
    alone = Studio(tmp_path / "alone", None, voice, settings)
    assert both.levels.voices == alone.levels.voices
    part = np.tile(voice[:, : 3 * RATE], (2, 1))
    shares = [share_of(part, whole_body(studio, 8 * RATE, -6)[:, : 3 * RATE]) for studio in (both, alone)]
    assert shares[0] == pytest.approx(shares[1], abs=0.15)
    sound = measure(voice).loudness
    assert sound is not None
    assert shares[1] == pytest.approx(-14 + gain - sound - 6, abs=0.15)


@pytest.mark.parametrize("music_gain", [-20.0, -14.0, -6.0])
@pytest.mark.parametrize("voice_gain", [0.0, -6.0])
def music_in_mix(folder: Path, length: float, voice: Signal, settings: MixSettings = USUAL_MIX) -> Signal:
    """The level of a tone as music, before it is encoded, every 20 ms: what the mix is without its voice.

    With so little gain that no limiter works.
    """
    music = pip(length + 2)
    studios = [Studio(folder / name, part, voice, settings) for name, part in (("both", music), ("voice", None))]
    for studio in studios:
        studio.body(round(length * RATE), -12)
    both, only = map(mix_of, studios)
    return level_of_pip(both - only) + 12


@pytest.mark.parametrize("music_gain", [-20.0, -14.0, -6.0])
@pytest.mark.parametrize("voice_gain", [0.0, -6.0])
def tone_in_mix(folder: Path, length: float, voice: Signal | None, settings: MixSettings = USUAL_MIX) -> Signal:
    """The level of a tone as music, before it is encoded, every 20 ms, with so little gain that no limiter works."""
    studio = Studio(folder, pip(length + 2), voice, settings)
    studio.body(round(length * RATE), -12)
    return level_of_pip(mix_of(studio)) + 12


@pytest.mark.parametrize("music_gain", [-20.0, -14.0, -6.0])
@pytest.mark.parametrize("voice_gain", [0.0, -6.0])
def test_the_music_lies_its_distance_under_every_word(tmp_path: Path, music_gain: float, voice_gain: float) -> None:
    voice, settings = talk((0, 2), (0.4, 1), (3, 1.5)), MixSettings(music_gain=music_gain, voice_gain=voice_gain)
    level = music_in_mix(tmp_path, 13, voice, settings)
    under = level - level[-1]
    for start, stop in ((0.02, 3.4), (6.4, 7.9)):
        assert under[round(start * 50) : round(stop * 50)] == pytest.approx(music_gain + voice_gain, abs=0.05)
    assert under[-50:] == pytest.approx(0, abs=0.01)


def test_music_never_swells(tmp_path: Path) -> None:
    """Demodulated from what a player hears: no more than alone, and up no faster than the slope."""
    voice = talk((0, 2), (1.4, 1), (4, 1.5))
    both, only = Studio(tmp_path / "both", pip(17), voice), Studio(tmp_path / "only", pip(17))
    heard, alone = (level_of_pip(whole_body(studio, 15 * RATE, -8), 0.1)[1:-1] for studio in (both, only))
    assert (heard - alone).max() < 0.15
    assert np.diff(heard).max() * 10 < RISE + 1
    assert (heard - alone)[66:80] == pytest.approx(0, abs=0.1)
    assert (heard - alone)[-20:] == pytest.approx(0, abs=0.1)
    assert -12 < (heard - alone)[23:31].max() < -5


def test_the_voice_begins_when_it_shall_and_the_music_makes_room_before(tmp_path: Path) -> None:
    voice, start = talk((0, 3)), 2.5
    settings = MixSettings(voice_start=seconds(start))
    studio = Studio(tmp_path / "studio", pip(11), voice, settings)
    body = whole_body(studio, 9 * RATE, -8)
    spectrum = np.fft.rfft(body[0]) * np.conj(np.fft.rfft(voice[0], body.shape[1]))
    first = int(np.argmax(np.fft.irfft(spectrum, body.shape[1])))
    assert first == round(start * RATE)
    part = np.tile(voice, (2, 1))
    found = share_of(part, body[:, first : first + voice.shape[1]])
    assert found == pytest.approx(studio.levels.voices[0].gain - 8, abs=0.1)
    level = music_in_mix(tmp_path, 9, voice, settings)
    word, fall = round(start * 50), ATTACK * CELL * 50 // RATE
    assert level[1 : word - fall - 1] == pytest.approx(float(level[-10]), abs=0.01)
    assert level[word : word + 140] == pytest.approx(level[1] - 14, abs=0.05)
    only = whole_body(Studio(tmp_path / "only", None, voice, settings), 9 * RATE, -8)
    assert np.abs(only[:, : first - 2 * AAC_FRAME]).max() < 1e-4


def test_fading_in_begins_in_silence_rises_steadily_and_leaves_the_voice_alone(tmp_path: Path) -> None:
    voice, settings = talk((0, 2)), MixSettings(fade_in=seconds(3))
    music = Studio(tmp_path / "music", pip(10), None, settings)
    heard = whole_body(music, 8 * RATE)
    assert np.abs(heard[:, : RATE // 20]).max() < 1e-3
    level = level_of_pip(heard, 0.1)
    assert (np.diff(level[2:29]) > 0).all()
    assert np.ptp(level[31:-1]) < 0.2
    assert level[15] - level[40] == pytest.approx(-6, abs=0.5)
    both = Studio(tmp_path / "both", pip(10), voice, settings)
    part = np.tile(voice, (2, 1))
    only = Studio(tmp_path / "only", None, voice, settings)
    shares = [share_of(part, whole_body(studio, 8 * RATE, -6)[:, : part.shape[1]]) for studio in (both, only)]
    assert shares[0] == pytest.approx(shares[1], abs=0.15)


@pytest.mark.parametrize("fade", [0.5, 2, 30])
def test_the_end_is_faded_out_as_long_as_asked_for(tmp_path: Path, fade: float) -> None:
    studio = Studio(tmp_path / "studio", pip(8), None, MixSettings(fade_out=seconds(fade)))
    samples = 6 * RATE + 123
    ((plan, signal),) = studio.soundtracks([samples])
    faded = min(round(fade * RATE), samples // 2)
    assert signal.shape[1] == plan.samples == samples
    assert np.abs(signal[:, -20:]).max() < 0.02
    level = level_of_pip(signal)
    before = (samples - faded) // 960
    assert np.ptp(level[2 : before - 1]) < 0.2
    middle = level_of_pip(signal[:, samples - faded // 2 - 480 : samples - faded // 2 + 480])
    assert middle[0] - level[20] == pytest.approx(-6, abs=0.6)
    assert plan.loudness == pytest.approx(loudness(signal), abs=0.1)


def test_without_a_fade_the_sound_lasts_to_the_end(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio", pip(8), None, MixSettings(fade_out=seconds(0)))
    for plan, signal in studio.soundtracks([2 * RATE + 1, 4 * RATE, 5 * RATE + 511, 6 * RATE + 1_023]):
        assert np.ptp(level_of_pip(signal[:, : plan.samples - EDGE], 0.1)[2:]) < 0.2
        assert np.abs(signal[:, -20:]).max() < 0.03
        assert plan.true_peak <= -1.5


def test_no_fade_ever_touches_the_voice(tmp_path: Path) -> None:
    voice = talk((0, 2))
    for fade in (0, 1.5):
        settings = MixSettings(fade_out=seconds(fade), voice_start=seconds(0.5))
        studio = Studio(tmp_path / f"fade {fade}", None, voice, settings)
        samples = round((0.5 + fade) * RATE) + voice.shape[1]
        studio.body(samples + RATE, -6)
        (plan,) = studio.tails([samples])
        end = play(plan)[:, RATE // 2 + voice.shape[1] - RATE // 2 :][:, : RATE // 2 - EDGE]
        part = np.tile(voice[:, -RATE // 2 : -EDGE], (2, 1))
        assert share_of(part, end) == pytest.approx(studio.levels.voices[0].gain - 6, abs=0.15)


@pytest.mark.parametrize("target", [-16.0, -23.0])
def test_another_target_is_met_and_keeps_the_distances(tmp_path: Path, target: float) -> None:
    usual, other = (MixSettings(loudness=wanted) for wanted in (-14.0, target))
    music, voice = tune(8), speech(4)
    planned = [Studio(tmp_path / f"{n}", music, voice, each).levels for n, each in enumerate((usual, other))]
    gains = [np.array([each.music, each.alone, each.voices[0].gain]) for each in planned]
    assert gains[1] - gains[0] == pytest.approx(target + 14)
    for plan, signal in Studio(tmp_path / "studio", music, voice, other).soundtracks([5 * RATE, 9 * RATE]):
        assert plan.loudness == pytest.approx(target, abs=0.5)
        assert loudness(signal) == pytest.approx(target, abs=0.5)
        assert true_peak(signal) <= -1.5


def test_without_a_target_everything_is_as_loud_as_it_came(tmp_path: Path) -> None:
    settings = MixSettings(loudness=None)
    for name, level in (("soft", 0.05), ("usual", 0.2)):
        music = tune(8, level=level)
        ((_, signal),) = Studio(tmp_path / name, music, None, settings).soundtracks([6 * RATE])
        assert loudness(signal[:, : 5 * RATE]) == pytest.approx(loudness(music[:, : 5 * RATE]), abs=0.15)
    ((_, loud),) = Studio(tmp_path / "loud", tune(8, level=2), None, settings).soundtracks([6 * RATE])
    assert true_peak(loud) <= -1.5


def test_without_a_target_the_voice_stays_and_the_music_goes_under_it() -> None:
    off = MixSettings(loudness=None)
    voice = Sound(RATE, -20.0, -3.0)
    assert levels(Sound(RATE, -9.0, -0.5), voice, off) == Levels(-25.0, 0.0, (VoiceLevel(0.0),))
    assert levels(Sound(RATE, -40.0, -20.0), voice, off) == Levels(0.0, 0.0, (VoiceLevel(0.0),))
    assert levels(None, voice, MixSettings(loudness=None, voice_gain=-3)) == Levels(None, None, (VoiceLevel(-3.0),))


def test_under_speech_the_music_is_never_louder_than_alone() -> None:
    settings = MixSettings(voice_gain=6, music_gain=-2)
    planned = levels(Sound(RATE, -9.0, -0.5), Sound(RATE, -20.0, -3.0), settings)
    assert planned.music == planned.alone == -5


def test_the_fade_in_counts_in_whole_samples_and_is_of_the_music_alone() -> None:
    settings = MixSettings(fade_in=seconds("2.00001"))
    music, voice = Sound(RATE, -9.0, -0.5), Sound(RATE, -20.0, -3.0)
    assert levels(music, None, settings) == Levels(-5.0, -5.0, fade_in=2 * RATE)
    assert levels(None, voice, settings) == Levels(None, None, (VoiceLevel(6.0),))
    assert levels(music, voice, settings) == Levels(-19.0, -5.0, (VoiceLevel(6.0),), fade_in=2 * RATE)


def test_a_line_that_says_nothing_leaves_the_music_alone(tmp_path: Path) -> None:
    silent = Studio(tmp_path / "silent", tune(4), np.zeros((1, 2 * RATE), np.float32))
    without = Studio(tmp_path / "without", tune(4))
    assert np.array_equal(whole_body(silent, 3 * RATE), whole_body(without, 3 * RATE))


SETTINGS = MixSettings(fade_in=seconds(1), voice_start=seconds(1))


def test_any_part_of_a_mix_is_a_part_of_the_whole(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio", tune(2), talk((0, 1), (1.5, 0.5)), SETTINGS)
    with studio.inputs[0].open("rb") as music, studio.inputs[1].open("rb") as voice:
        read = mixed((music, voice), studio.levels)
        whole = read(-500, 7 * RATE)
        assert not whole[:, :500].any()
        for start, stop in ((-500, 3), (-12, 50_000), (47_000, 49_000), (100_001, 190_000), (250_000, 336_000)):
            assert np.array_equal(read(start, stop), whole[:, 500 + start : 500 + stop])


def sweep(length: float) -> Signal:
    """From 60 to 4,000 Hz, beginning and ending in the middle of a wave."""
    time = np.arange(round(length * RATE)) / RATE
    phase = 2 * np.pi * 60 * length / np.log(4_000 / 60) * ((4_000 / 60) ** (time / length) - 1)
    return np.tile(0.3 * np.cos(phase), (2, 1)).astype(np.float32)


def chords(length: float) -> Signal:
    time = np.arange(round(length * RATE)) / RATE
    notes = [110 * 2 ** (step / 12) * overtone for step in (0, 4, 7, 12) for overtone in (1, 2, 3)]
    sound = sum(np.cos(2 * np.pi * note * time + note) / note for note in notes)
    return np.tile(sound * 8, (2, 1)).astype(np.float32)


def hiss(length: float) -> Signal:
    return (0.1 * np.random.default_rng(6).standard_normal((2, round(length * RATE)))).astype(np.float32)


BOUND = 8.0
"""Times the second difference of a sample may be that of its neighbourhood (root mean square over 20 ms each side)."""
INAUDIBLE = 1e-5
"""A neighbourhood counts as at least this rough (full scale is 1): a smaller jump than -82 dBFS is none."""


def roughness(signal: Signal, places: Sequence[int], reach: int = 2_048) -> float:
    """The largest second difference near any of `places` against those around it; silence surrounds the signal."""
    padded = np.pad(signal.astype(np.float64), ((0, 0), (2 * reach, 2 * reach)))
    bend = np.square(np.diff(padded, 2, axis=1)).sum(axis=0)
    around = np.convolve(bend, np.full(1_921, 1 / 1_921), "same")
    worst = np.sqrt(bend / np.maximum(around, INAUDIBLE**2))
    return max(float(worst[2 * reach + place - reach : 2 * reach + place + reach].max()) for place in places)


@pytest.mark.parametrize("sound", [sweep, chords, hiss])
@pytest.mark.parametrize("fade", [0, 0.5])
def test_nothing_clicks_at_loops_joins_and_ends(tmp_path: Path, sound: Any, fade: float) -> None:
    studio = Studio(tmp_path / "studio", sound(2.3), talk((0.5, 0.6)), MixSettings(fade_out=seconds(fade)))
    samples = 9 * RATE + 77
    studio.body(10 * RATE, -3)
    (plan,) = studio.tails([samples])
    period = round(2.3 * RATE) - RATE // 2
    seams = [edge for turn in range(1, 4) for edge in (turn * period, turn * period + RATE // 2)]
    joins = [plan.body_frames * AAC_FRAME - AAC_FRAME, samples - round(fade * RATE), 0, samples]
    assert roughness(mix_of(studio), [*seams, 0]) < BOUND
    assert roughness(play(plan), [*seams, *joins]) < BOUND


CLIP = Sound(5 * RATE, -20.0, -3.0)


def test_clips_come_to_the_target_and_go_under_the_voices_that_are_spoken_in_them() -> None:
    voices = [(Sound(RATE, -24.0, -9.0), 6 * RATE)]
    clips = [Heard(CLIP, 0, 5 * RATE), Heard(CLIP, 5 * RATE, 3 * RATE, -6.0), Heard(CLIP, 8 * RATE, RATE)]
    planned = plan_levels(None, voices, clips)
    assert planned.voices == (VoiceLevel(10.0, 6 * RATE),)
    assert planned.clips == (
        ClipLevel(6.0, 6.0, 0, 5 * RATE),
        ClipLevel(0.0, -14.0, 5 * RATE, 3 * RATE),
        ClipLevel(6.0, 6.0, 8 * RATE, RATE),
    )
    quiet = MixSettings(loudness=None, music_gain=-10)
    assert plan_levels(None, voices, clips[1:2], quiet).clips == (ClipLevel(-6.0, -20.0, 5 * RATE, 3 * RATE),)


def test_music_lies_under_clips_as_under_a_voice() -> None:
    music = Sound(RATE, -9.0, -0.5)
    planned = plan_levels(music, [], [Heard(CLIP, 0, RATE)], MixSettings(music_gain=-10))
    assert (planned.music, planned.alone) == (-15.0, -5.0)
    soft = Sound(RATE, -50.0, -40.0)
    planned = plan_levels(music, [], [Heard(CLIP, 0, RATE), Heard(soft, RATE, RATE)])
    assert planned.music == -5.0 - 14 - (50 - 14 - MOST_GAIN)


def test_all_can_be_lifted_until_the_least_lifted_clip_is_at_the_cap() -> None:
    soft = Sound(RATE, -50.0, -40.0)
    assert plan_levels(None, [], [Heard(soft, 0, RATE)]).highest == 0
    assert plan_levels(None, [], [Heard(soft, 0, RATE), Heard(CLIP, RATE, RATE)]).highest == MOST_GAIN - 6
    assert plan_levels(soft, [(CLIP, 0)]).highest == 0
    assert plan_levels(None).highest == MOST_GAIN


def test_levels_reach_a_child_as_they_are() -> None:
    planned = plan_levels(CLIP, [(CLIP, 7)], [Heard(CLIP, 3, 9, -1.0)], MixSettings(fade_in=seconds(1)))
    assert Levels.of(json.loads(json.dumps(planned.arguments()))) == planned
    came = planned.as_they_came
    gains = [came.music, came.alone, came.voices[0].gain, came.clips[0].gain, came.clips[0].under]
    assert (gains, came.fade_in, came.clips[0].start) == ([0.0] * 5, 0, 3)


def test_the_sound_of_a_clip_has_soft_edges_and_ends_with_its_picture(tmp_path: Path) -> None:
    path = write_pcm(tmp_path / "clip", np.full((2, 3 * RATE), 0.5, np.float32))
    with path.open("rb") as file:
        heard = mixed([file], Levels(None, None, (), (ClipLevel(0.0, 0.0, 1_000, RATE),)))(0, 2 * RATE)
    assert not heard[:, :1_000].any()
    assert not heard[:, RATE + 1_000 :].any()
    assert np.abs(np.diff(heard)).max() < 0.01
    assert (heard[:, 1_000 + EDGE : RATE + 1_000 - EDGE] == 0.5).all()


def test_several_voices_are_each_heard_at_their_place(tmp_path: Path) -> None:
    lines = [speech(1, seed=1), speech(1.5, seed=2)]
    paths = [write_pcm(tmp_path / str(number), line) for number, line in enumerate(lines)]
    with paths[0].open("rb") as first, paths[1].open("rb") as second:
        heard = mixed([first, second], Levels(None, None, (VoiceLevel(0.0, RATE), VoiceLevel(-6.0, 3 * RATE))))(
            0, 6 * RATE
        )
    for line, start, gain in ((lines[0], RATE, 1.0), (lines[1], 3 * RATE, ratio(-6))):
        part = heard[:, start + EDGE :][:, : line.shape[1] - 2 * EDGE]
        assert np.allclose(part, gain * line[:, EDGE:-EDGE], atol=1e-6)


@pytest.mark.parametrize("start", [2 * RATE, 5 * RATE // 2])
def test_a_clip_makes_room_for_what_is_said_in_it_alone(tmp_path: Path, start: int) -> None:
    """Up to its last sample, and not for what is said before and after."""
    paths = [write_pcm(tmp_path / name, sound) for name, sound in (("line", speech(1)), ("clip", pip(3)))]
    clips = (ClipLevel(0.0, -14.0, 0, 3 * RATE), ClipLevel(0.0, -14.0, 3 * RATE, 3 * RATE))
    wanted = Levels(None, None, (VoiceLevel(-200.0, start),), clips)
    with paths[0].open("rb") as line, paths[1].open("rb") as first, paths[1].open("rb") as second:
        level = level_of_pip(mixed([line, first, second], wanted)(0, 6 * RATE))
    alone, over = level[20], (start + RATE - 3 * RATE) // 960
    assert level[start // 960 + 1 : 149] - alone == pytest.approx(-14, abs=0.1)
    if over > 0:
        assert level[151 : 149 + over] - alone == pytest.approx(-14, abs=0.1)
    else:
        assert level[151:298] - alone == pytest.approx(0, abs=0.1)
