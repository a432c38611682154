from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from crosscut import pcm
from crosscut.errors import CrosscutError, MixError
from crosscut.loudness import measure
from crosscut.pcm import Sound
from sounds import RATE, child, read_pcm, speech, tune, write_media, write_pcm, write_silent_video

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crosscut.loudness import Signal


def decode(source: Path, *, channels: int = 2, max_seconds: int = 60, trim: bool = False) -> tuple[Sound, Signal]:
    target = source.with_suffix(".pcm")
    answer = child(pcm.decode_audio, [source], [target], channels=channels, max_seconds=max_seconds, trim=trim)
    sound = Sound(**answer)
    signal = read_pcm(target, channels)
    assert signal.shape == (channels, sound.samples)
    return sound, signal


def hertz(signal: Signal) -> float:
    spectrum = np.abs(np.fft.rfft(signal[0] * np.hanning(signal.shape[1])))
    return float(np.argmax(spectrum) * RATE / signal.shape[1])


def tone(seconds: float, rate: int, channels: int = 2) -> Signal:
    wave = 0.25 * np.sin(2 * np.pi * 1000 * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave, (channels, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s16le", 8_000),
        ("a.wav", "pcm_s16le", 44_100),
        ("a.wav", "pcm_f32le", 192_000),
        ("a.flac", "flac", 96_000),
        ("a.mp3", "libmp3lame", 44_100),
        ("a.ogg", "libopus", 48_000),
        ("a.aac", "aac", 22_050),
        ("a.m4a", "aac", 48_000),
    ],
)
def test_any_rate_and_codec_becomes_48_khz(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    source = write_media(tmp_path / name, tone(1, rate), codec=codec, rate=rate)
    sound, signal = decode(source)
    assert sound.samples == pytest.approx(RATE, abs=RATE * 0.12)
    assert hertz(signal) == pytest.approx(1000, abs=5)
    assert sound.true_peak == pytest.approx(-12, abs=1)
    assert sound.loudness == pytest.approx(-12, abs=1)


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_any_layout_becomes_stereo(tmp_path: Path, layout: str, channels: int) -> None:
    source = write_media(tmp_path / "a.wav", tone(1, RATE, channels), layout=layout)
    _, signal = decode(source)
    assert signal.shape == (2, RATE)
    assert np.abs(signal).max() > 0.1


def test_a_voice_is_mono_and_counted_on_both_loudspeakers(tmp_path: Path) -> None:
    sound, signal = decode(write_media(tmp_path / "a.wav", tone(1, RATE, 1), layout="mono"), channels=1)
    assert signal.shape == (1, RATE)
    assert sound.loudness == pytest.approx(measure(np.tile(signal, (2, 1))).loudness, abs=0.01)


def test_silence_at_both_ends_is_trimmed_and_pauses_stay(tmp_path: Path) -> None:
    quiet, loud = np.zeros((2, RATE), np.float32), tone(1, RATE)
    source = write_media(tmp_path / "a.wav", np.concatenate([quiet, loud, quiet, loud, quiet], axis=1))
    sound, signal = decode(source, trim=True)
    assert sound.samples == pytest.approx(3 * RATE, abs=960)
    assert np.abs(signal[:, :960]).max() > 0.2
    assert np.abs(signal[:, -960:]).max() > 0.2


def test_long_silence_before_and_after_is_trimmed_in_several_pieces(tmp_path: Path) -> None:
    signal = np.zeros((2, 25 * RATE), np.float32)
    signal[:, 10 * RATE : 22 * RATE] = tone(12, RATE)
    _, found = decode(write_media(tmp_path / "a.wav", signal), trim=True)
    start = round((found.shape[1] - 12 * RATE) / 2)
    assert abs(start) < 480
    assert np.allclose(found[:, RATE : 11 * RATE], signal[:, 11 * RATE : 21 * RATE], atol=1e-4)


def test_a_file_of_silence_stays_what_it_is(tmp_path: Path) -> None:
    sound, _ = decode(write_media(tmp_path / "a.wav", np.zeros((2, RATE), np.float32)), trim=True)
    assert (sound.samples, sound.loudness, sound.true_peak) == (RATE, None, -200.0)
    assert not sound.hops.any()


def test_decoding_stops_at_the_limit(tmp_path: Path) -> None:
    sound, _ = decode(write_media(tmp_path / "a.wav", tune(3)), max_seconds=2)
    assert sound.samples == 2 * RATE


def test_a_short_beep_is_as_loud_as_its_share_of_a_block(tmp_path: Path) -> None:
    sound, _ = decode(write_media(tmp_path / "a.wav", tone(0.2, RATE)))
    assert sound.loudness == pytest.approx(-15, abs=1)


def test_the_sound_of_a_video_can_be_music(tmp_path: Path) -> None:
    sound, _ = decode(write_media(tmp_path / "a.mp4", tone(1, RATE), codec="aac", picture=True))
    assert sound.loudness == pytest.approx(-12, abs=1)


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MixError) as caught:
        decode(write_silent_video(tmp_path / "a.mp4"))
    assert caught.value.code == "no_audio"


def test_a_click_is_no_music(tmp_path: Path) -> None:
    with pytest.raises(MixError) as caught:
        decode(write_media(tmp_path / "a.wav", tone(0.05, RATE)))
    assert caught.value.code == "too_short"


def test_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_text("<html>not found</html>")
    with pytest.raises(CrosscutError) as caught:
        decode(tmp_path / "a.mp3")
    assert caught.value.code == "not_media"


def test_a_stream_may_change_its_shape_on_the_way() -> None:
    def frames() -> list[av.AudioFrame]:
        made = []
        for rate, layout, channels in ((44_100, "stereo", 2), (48_000, "mono", 1), (22_050, "stereo", 2)):
            frame = av.AudioFrame.from_ndarray(tone(0.5, rate, channels), format="fltp", layout=layout)
            frame.sample_rate = rate
            made.append(frame)
        return made

    signal = np.concatenate(list(pcm.resampled(frames(), "stereo")), axis=1)
    assert signal.shape[1] == pytest.approx(1.5 * RATE, abs=100)
    assert hertz(signal) == pytest.approx(1000, abs=5)


def test_samples_that_are_no_numbers_become_silence() -> None:
    data = np.array([[np.nan, np.inf, -np.inf, 1e30] + [0.1] * 1020] * 2, np.float32)
    frame = av.AudioFrame.from_ndarray(data, format="fltp", layout="stereo")
    frame.sample_rate = RATE
    signal = np.concatenate(list(pcm.resampled([frame], "stereo")), axis=1)
    assert np.isfinite(signal).all()
    assert np.abs(signal).max() <= pcm.HEADROOM


@pytest.mark.parametrize("factor", [1.0, 1.1, 1.25])
def test_speech_is_stretched_to_the_exact_length_at_its_pitch(tmp_path: Path, factor: float) -> None:
    source = write_pcm(tmp_path / "voice.pcm", tone(11, RATE, 1))
    answer = child(pcm.stretch, [source], [tmp_path / "fast.pcm"], factor=factor)
    signal = read_pcm(tmp_path / "fast.pcm", 1)
    assert answer["samples"] == signal.shape[1] == round(11 * RATE / factor)
    assert hertz(signal) == pytest.approx(1000, abs=5)
    assert answer["loudness"] == pytest.approx(-12, abs=0.5)


@pytest.mark.parametrize("factor", [0.9, 1.3])
def test_speech_is_never_slowed_or_hurried(tmp_path: Path, factor: float) -> None:
    source = write_pcm(tmp_path / "voice.pcm", speech(1))
    with pytest.raises(MixError) as caught:
        child(pcm.stretch, [source], [tmp_path / "fast.pcm"], factor=factor)
    assert caught.value.code == "too_fast"


def test_measured_speech_is_what_decoding_it_would_say(tmp_path: Path) -> None:
    source = write_media(tmp_path / "a.wav", speech(2), codec="pcm_f32le", layout="mono")
    sound, _ = decode(source, channels=1)
    assert Sound(**child(pcm.measure_speech, [tmp_path / "a.pcm"])) == sound


def flash_and_beep(
    path: Path, *, sound_from: float = 0, picture_from: float = 0, rate: int = RATE, hole: tuple[float, float] = (9, 9)
) -> Path:
    """Four seconds of pictures and sound, with a beep at every whole second of the clock."""
    with av.open(path, "w") as sink:
        video, audio = sink.add_stream("libx264", rate=25), sink.add_stream("aac", rate=rate, layout="stereo")
        video.width, video.height, video.pix_fmt, video.time_base = 64, 64, "yuv420p", Fraction(1, 25)
        for number in range(round(picture_from * 25), 100):
            picture = av.VideoFrame.from_ndarray(np.full((96, 64), 16, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            sink.mux(video.encode(picture))
        sink.mux(video.encode(None))
        time = np.arange(4 * rate) / rate
        beeps = np.where(time % 1 < 0.05, 0.5 * np.sin(2 * np.pi * 1000 * time), 0).astype(np.float32)
        for start in range(int(sound_from * rate) // 1_024 * 1_024, len(beeps), 1_024):
            if not hole[0] <= start / rate < hole[1]:
                piece = np.tile(beeps[start : start + 1_024], (2, 1))
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                sink.mux(audio.encode(frame))
        sink.mux(audio.encode(None))
    return path


def clip_sound(source: Path, start: str = "0", samples: int = 3 * RATE) -> tuple[Sound, Signal]:
    target = source.with_suffix(".pcm")
    sound = Sound(**child(pcm.decode_clip, [source], [target], start=start, samples=samples))
    signal = read_pcm(target, 2)
    assert signal.shape == (2, sound.samples) == (2, samples)
    return sound, signal


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("wanted", "start"),
    [
        ({}, "0"),
        ({}, "13/10"),
        ({"sound_from": 0.7}, "0"),
        ({"picture_from": 0.52}, "0"),
        ({"picture_from": 0.52}, "1/3"),
        ({"rate": 44_100}, "0"),
        ({"hole": (1.3, 1.6)}, "0"),
    ],
)
def test_a_clip_is_heard_with_its_pictures(tmp_path: Path, kind: str, wanted: dict[str, Any], start: str) -> None:
    """Wherever its streams begin, and whatever is missing of its sound."""
    _, signal = clip_sound(flash_and_beep(tmp_path / f"clip.{kind}", **wanted), start)
    loud = np.abs(signal).max(axis=0) > 0.1
    onsets = [place for place in np.flatnonzero(loud) if not loud[max(place - 4_800, 0) : place].any()]
    begin = wanted.get("picture_from", 0) + float(Fraction(start))
    late = [(begin + place / RATE + 0.5) % 1 - 0.5 for place in onsets]
    assert len(late) >= 2
    assert np.abs(late).max() < 0.005


def test_what_a_clip_has_no_sound_for_is_silence(tmp_path: Path) -> None:
    sound, signal = clip_sound(write_silent_video(tmp_path / "a.mp4"), samples=RATE)
    assert (sound.loudness, sound.true_peak) == (None, -200.0)
    _, signal = clip_sound(flash_and_beep(tmp_path / "b.mp4"), "7/2", 2 * RATE)
    assert not signal[:, RATE:].any()


def test_the_times_of_a_recorder_may_be_uneven_without_a_gap() -> None:
    """Frames that are some milliseconds early or late are joined; one that is far off is put in its place."""

    def frames() -> Iterator[av.AudioFrame]:
        for number, shift in enumerate((0, 300, -400, 500, 0, 48_000, 48_300)):
            frame = av.AudioFrame.from_ndarray(np.full((2, 960), 0.5, np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, number * 960 + shift, Fraction(1, RATE)
            yield frame

    placed = list(pcm._placed(frames(), Fraction(0)))
    ends = [place + piece.shape[1] for place, piece in placed]
    starts = [place for place, _ in placed]
    jumps = [(end, start) for end, start in zip(ends, starts[1:], strict=False) if start != end]
    assert jumps == [(5 * 960, 5 * 960 + 48_000)]


def test_damaged_sound_is_told_of(tmp_path: Path) -> None:
    source = flash_and_beep(tmp_path / "a.ts")
    data = bytearray(source.read_bytes())
    draw = np.random.default_rng(1)
    for start in range(188 * 40, len(data) - 188, 188):
        if data[start] == 0x47 and data[start + 1] & 0x1F == 1 and data[start + 2] == 1:
            data[start + 20 : start + 180] = draw.bytes(160)
    source.write_bytes(bytes(data))
    with pytest.raises(CrosscutError) as caught:
        clip_sound(source)
    assert caught.value.code in ("damaged", "no_frames")
