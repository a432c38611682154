from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pyloudnorm  # type: ignore[import-untyped]
import pytest
from av.filter import Graph
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly  # type: ignore[import-untyped]

from crosscut import aac, mix, pcm
from crosscut.blend import MOST_GAIN, Levels, VoiceLevel, plan_levels, samples_in
from crosscut.loudness import HOP, Signal, decibels, measure, ratio
from crosscut.media import AAC_FRAME, USUAL_MIX, MixSettings
from crosscut.mix import SoundtrackPlan, Steps
from crosscut.pcm import Sound
from crosscut.sandbox import Limits, Sandbox
from crosscut.voices.espeak import EspeakVoice
from sounds import RATE, child, read_pcm, speech, tune, write_pcm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILES = ("mix.pcm", "body.m4a", "profile")
TARGET = -14.0
FADE = RATE // 2


def sound_of(signal: Signal) -> Sound:
    return pcm.sound_of(measure(signal), signal.shape[1])


def units_of(path: Path) -> list[bytes]:
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def decoded(units: Sequence[bytes], samples: int) -> Signal:
    return aac.Decoder(bytes.fromhex("119056e500")).decode(units)[:, :samples]


def true_peak(signal: Signal) -> float:
    """By an interpolator that is not ours."""
    return decibels(float(np.abs(resample_poly(signal.astype(np.float64), 4, 1, axis=1)).max()))


def loudness(signal: Signal) -> float:
    """By an implementation that is not ours; its filters read 0.04 LU lower."""
    return float(pyloudnorm.Meter(RATE).integrated_loudness(signal.T.astype(np.float64)))


def by_ffmpeg(signal: Signal) -> tuple[float, float]:
    """LUFS and dBTP by a third implementation: FFmpeg's ebur128."""
    graph = Graph()
    head = graph.add_abuffer(sample_rate=RATE, format="fltp", layout="stereo", time_base=Fraction(1, RATE))
    graph.link_nodes(head, graph.add("ebur128", "metadata=1:peak=true"), graph.add("abuffersink")).configure()
    for start in range(0, signal.shape[1], HOP):
        piece = np.ascontiguousarray(signal[:, start : start + HOP])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        graph.push(frame)
    graph.push(None)
    said: dict[str, str] = {}
    with suppress(av.error.EOFError):
        while True:
            said |= graph.pull().metadata
    return float(said["lavfi.r128.I"]), decibels(float(said["lavfi.r128.true_peak"]))


@dataclass
class Studio:
    """Takes music and a voice-over all the way, and hears the soundtrack as a player does."""

    folder: Path
    music: Signal | None = None
    voice: Signal | None = None
    settings: MixSettings = USUAL_MIX

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        parts = {"music": self.music, "voice": self.voice}
        self.inputs = [write_pcm(self.folder / name, part) for name, part in parts.items() if part is not None]
        music, voice = (None if part is None else sound_of(part) for part in parts.values())
        voices = [(voice, samples_in(self.settings.voice_start))] if voice else []
        self.levels = plan_levels(music, voices, settings=self.settings)
        self.fade_out = samples_in(self.settings.fade_out)

    def steps(self, shortest: int, longest: int) -> Steps:
        if self.settings.loudness is None:
            return mix.AS_IT_IS
        wanted = {"levels": self.levels.arguments(), "target": self.settings.loudness, "fade_out": self.fade_out}
        return Steps.of(child(mix.measure_mix, self.inputs, **wanted, shortest=shortest, longest=longest))

    def body(self, samples: int, step: float) -> dict[str, Any]:
        self.files = [self.folder / f"{step} {name}" for name in FILES]
        levels = self.levels.arguments()
        return child(mix.render_body, self.inputs, self.files, levels=levels, samples=samples, step=step)

    def tails(self, lengths: Sequence[int]) -> list[SoundtrackPlan]:
        outputs = [self.folder / f"{self.files[0].name} {samples}.m4a" for samples in lengths]
        answer = child(mix.render_tails, self.files, outputs, lengths=list(lengths), fade_out=self.fade_out)
        return [SoundtrackPlan.of(self.files[1], *pair) for pair in zip(outputs, answer["tails"], strict=True)]

    def soundtracks(self, lengths: Sequence[int]) -> list[tuple[SoundtrackPlan, Signal]]:
        steps = self.steps(min(lengths), max(lengths))
        heard = []
        for step in sorted({steps.at(samples) for samples in lengths}):
            self.body(max(lengths), step)
            plans = self.tails([samples for samples in lengths if steps.at(samples) == step])
            heard += [(plan, play(plan)) for plan in plans]
        return heard


def play(plan: SoundtrackPlan) -> Signal:
    body, tail = units_of(plan.body), units_of(plan.tail)
    units = body[: plan.body_frames] + tail[plan.tail_skip : plan.tail_skip + plan.tail_frames]
    assert len(units) == aac.frames(plan.samples)
    signal = decoded(units, plan.samples)
    assert signal.shape == (2, plan.samples)
    return signal


def steady(seconds: float, hertz: float = 500.0) -> Signal:
    wave = 0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return np.tile(wave, (2, 1)).astype(np.float32)


CASES = {
    "bass": (2 * steady(8, 20) + steady(8), None),
    "music": (tune(8), None),
    "short music": (tune(1), None),
    "voice": (None, speech(4)),
    "both": (tune(8), speech(4)),
    "quiet beginning": (np.concatenate([tune(4, level=0.1), tune(8)], axis=1), None),
    "voice and quiet music": (tune(5, level=0.05), speech(3)),
    "noise": (0.2 * np.random.default_rng(2).standard_normal((2, 3 * RATE)).astype(np.float32), None),
}


@pytest.mark.parametrize("case", CASES)
def test_every_soundtrack_is_as_loud_as_it_should_be_and_says_so(tmp_path: Path, case: str) -> None:
    music, voice = CASES[case]
    lengths = [RATE * 3 + 17, RATE * 5, RATE * 9 - 1]
    for plan, signal in Studio(tmp_path / "studio", music, voice).soundtracks(lengths):
        assert plan.loudness is not None
        assert plan.loudness == pytest.approx(TARGET, abs=0.5)
        assert plan.loudness == pytest.approx(loudness(signal), abs=0.1)
        # Near half the sampling rate interpolators differ: the one that finds more is right.
        peak = max(true_peak(signal), by_ffmpeg(signal)[1])
        assert peak <= mix.TRUE_PEAK + 0.01
        assert plan.true_peak == pytest.approx(peak, abs=0.1)
        whole = measure(signal)
        assert (plan.loudness, plan.true_peak) == pytest.approx((whole.loudness, whole.true_peak), abs=1e-3)
        assert plan.priming == 1_024


def chords(seconds: float, level: float) -> Signal:
    """Held chords that change twice a second: denser than notes that are plucked."""
    time = np.arange(round(seconds * RATE)) / RATE
    roots = 110 * 2 ** (np.array([0, 5, 7, 3])[np.floor(2 * time).astype(int) % 4] / 12)
    phase = 2 * np.pi * np.cumsum(roots) / RATE
    sound = sum(np.sin(phase * partial) / partial for partial in (1, 1.25, 1.5, 2, 3, 4, 5, 6))
    return np.asarray(level * np.stack([sound, np.roll(sound, 40)]), np.float32)


def paced(seconds: float, pause: float, seed: int) -> Signal:
    """Sentences of two seconds."""
    voice = speech(seconds, seed=seed)
    voice[:, (np.arange(voice.shape[1]) / RATE) % (2 + pause) >= 2] = 0
    return voice


BATCH = [
    (tune(12, seed=1), paced(5, 0.4, 1), 8),
    (tune(40, seed=2, level=0.9), paced(9, 0.4, 2), 31),
    (tune(3, seed=3), paced(20, 0.7, 3), 24),
    (tune(20, seed=4, level=0.05), paced(3, 0.3, 4), 20),
    (tune(9, seed=5), paced(12, 3, 5), 15),
    (chords(15, 0.1), paced(7, 0.4, 6), 12),
    (chords(10, 0.5), 6 * paced(6, 0.4, 7), 9),
    (chords(30, 0.01), None, 21),
    (0.3 * np.random.default_rng(8).standard_normal((2, 8 * RATE)).astype(np.float32), paced(8, 0.4, 8), 11),
    (None, 0.2 * paced(10, 0.6, 9), 11),
    (tune(16, seed=10), None, 6),
    (np.concatenate([chords(6, 0.02), tune(10, level=0.6)], axis=1), paced(4, 0.4, 11), 15),
]


@pytest.mark.parametrize(
    "settings", [USUAL_MIX, MixSettings(loudness=-23, music_gain=-8, voice_gain=3)], ids=["usual", "other"]
)
@pytest.mark.parametrize("number", range(len(BATCH)))
def test_a_batch_of_different_sounds_comes_out_equally_loud(tmp_path: Path, number: int, settings: MixSettings) -> None:
    music, voice, seconds = BATCH[number]
    lengths = [seconds * RATE - 7_777, seconds * RATE]
    for plan, signal in Studio(tmp_path / "studio", music, voice, settings).soundtracks(lengths):
        assert signal.shape[1] == plan.samples
        for loud, peak in ((loudness(signal), true_peak(signal)), by_ffmpeg(signal)):
            assert loud == pytest.approx(settings.loudness, abs=0.5)
            assert peak <= -1


def calm(seconds: float) -> Signal:
    """Two held triads, a clean sine for each tone, of which the encoder takes next to nothing."""
    time = np.arange(round(seconds * RATE)) / RATE
    tones = np.array([(220.0, 277.2, 329.6), (196.0, 246.9, 293.7)])[(time // 2).astype(int) % 2]
    fade = np.minimum(1, np.minimum(time % 2, 2 - time % 2) / 0.05)
    return np.tile(0.2 * fade * np.sin(2 * np.pi * tones * time[:, None]).sum(axis=1), (2, 1)).astype(np.float32)


def test_what_the_encoder_takes_is_asked_of_more_than_the_beginning(tmp_path: Path) -> None:
    """It takes nearly 1 LU of this voice's first words."""
    with Sandbox(("crosscut.voices.espeak",)) as sandbox:
        espeak = EspeakVoice(sandbox)
        text = "This voice was spoken offline. Nothing left your machine."
        espeak.speak(text, espeak.resolve("en-us"), tmp_path / "line")
    voice = read_pcm(tmp_path / "line", 1)
    ((_, signal),) = Studio(tmp_path / "studio", calm(20), voice).soundtracks([12 * RATE])
    assert loudness(signal) == pytest.approx(TARGET, abs=0.5)


@pytest.mark.parametrize("music", [tune(9), chords(9, 0.4)], ids=["plucked", "held"])
def test_a_soundtrack_is_the_body_until_shortly_before_it_fades_and_as_good_as_it_from_there(
    tmp_path: Path, music: Signal
) -> None:
    studio = Studio(tmp_path / "studio", music, speech(3))
    studio.body(RATE * 10, 0)
    mixed, whole = mix_of(studio), decoded(units_of(studio.files[1]), RATE * 10)
    for plan in studio.tails([RATE * 4, RATE * 7 + 333, RATE * 10]):
        signal, fade = play(plan), plan.samples - FADE
        tail = (plan.body_frames - 1) * AAC_FRAME
        assert np.array_equal(signal[:, :tail], whole[:, :tail])
        assert fade - 4 * AAC_FRAME < tail < fade
        errors = [decibels(float(np.std(sound[:, tail:fade] - mixed[:, tail:fade]))) for sound in (signal, whole)]
        assert errors[0] < errors[1] + 1
        assert np.abs(signal[:, -200:]).max() < 0.01


@pytest.mark.parametrize("samples", [300, 700, AAC_FRAME, RATE // 4, RATE // 2, RATE - 1, RATE * 3 // 2])
def test_even_the_shortest_length_is_exact(tmp_path: Path, samples: int) -> None:
    studio = Studio(tmp_path / "studio", tune(3))
    studio.body(RATE * 2, 0)
    (plan,) = studio.tails([samples])
    assert play(plan).shape[1] == samples


def test_the_sound_is_not_shifted_by_the_encoder(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio", tune(4))
    studio.body(RATE * 3, 0)
    mixed = mix_of(studio)
    heard = decoded(units_of(studio.files[1]), RATE * 3)
    power = np.abs(np.fft.rfft(mixed[0])) ** 2
    lag = np.fft.irfft(np.fft.rfft(heard[0]) * np.conj(np.fft.rfft(mixed[0])))
    assert int(np.argmax(lag)) == 0
    assert lag[0] == pytest.approx(np.fft.irfft(power)[0], rel=0.05)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        studio = Studio(tmp_path / name, tune(3), speech(2))
        studio.body(RATE * 4, 1)
        (plan,) = studio.tails([RATE * 3])
        made.append([path.read_bytes() for path in (*studio.files, plan.tail)])
    assert made[0] == made[1]


def test_the_peak_is_held_after_encoding_also_where_the_limiter_works_hard(tmp_path: Path) -> None:
    answer = Studio(tmp_path / "studio", tune(4)).body(RATE * 5, 12)
    assert answer["true_peak"] <= mix.TRUE_PEAK


def test_a_tail_that_overshoots_is_lowered(tmp_path: Path) -> None:
    signal = np.zeros((2, RATE), np.float32)
    signal[:, RATE * 51 // 100 : RATE * 60 // 100] = ratio(-1.2) * steady(0.09) / 0.1
    files = [tmp_path / name for name in FILES]
    files[0].write_bytes(np.rint(signal.T * 32767).astype("<i2").tobytes())
    files[2].write_bytes(measure(signal).to_bytes())
    with files[1].open("x+b") as file, aac.Encoder(file) as encoder:
        units = [*encoder.encode(signal), *encoder.finish()]
    assert measure(decoded(units, RATE)).true_peak > mix.TRUE_PEAK
    (tail,) = child(mix.render_tails, files[:3], [tmp_path / "tail.m4a"], lengths=[RATE], fade_out=FADE)["tails"]
    assert tail["true_peak"] <= mix.TRUE_PEAK


def test_silent_music_stays_silent(tmp_path: Path) -> None:
    ((plan, signal),) = Studio(tmp_path / "studio", np.zeros((2, RATE), np.float32)).soundtracks([RATE * 3])
    assert plan.loudness is None
    assert np.abs(signal).max() == 0


def test_a_recording_of_nearly_nothing_is_lifted_by_no_more_than_the_cap(tmp_path: Path) -> None:
    ((plan, _),) = Studio(tmp_path / "studio", tune(4, level=ratio(-60))).soundtracks([RATE * 3])
    before = sound_of(tune(4, level=ratio(-60))).loudness
    assert before is not None
    assert plan.loudness == pytest.approx(before + MOST_GAIN, abs=1.5)


def mix_of(studio: Studio) -> Signal:
    return np.frombuffer(studio.files[0].read_bytes(), "<i2").reshape(-1, 2).T.astype(np.float32) / np.float32(32767)


def heard_at(studio: Studio, start: int, stop: int) -> float:
    found = measure(mix_of(studio)[:, start:stop]).loudness
    assert found is not None
    return found


def test_music_lies_under_the_voice_and_comes_up_after_it(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio", steady(10), speech(2))
    studio.body(RATE * 10, 0)
    assert heard_at(studio, 0, RATE * 2) == pytest.approx(-14, abs=1)
    assert heard_at(studio, RATE * 5, RATE * 9) == pytest.approx(-14, abs=0.4)
    rising = [heard_at(studio, start, start + RATE * 4 // 10) for start in range(RATE * 21 // 10, RATE * 4, HOP)]
    assert rising == sorted(rising)
    assert -28 < rising[0] < -25


def test_music_is_looped_without_a_gap_or_a_click(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio", steady(1.3, 441.7))
    studio.body(RATE * 6, 0)
    mixed = mix_of(studio)
    level = measure(mixed).energy[: 6 * RATE // HOP]
    assert np.abs(10 * np.log10(level / level[0])).max() < 6.1
    steepest = np.abs(np.diff(mixed[0])).max()
    assert steepest < 2 * 2 * np.pi * 441.7 / RATE * np.abs(mixed[0]).max()


def test_a_long_loop_keeps_the_power_of_unrelated_sound(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(5).standard_normal((2, RATE * 3)).astype(np.float32)
    studio = Studio(tmp_path / "studio", noise)
    studio.body(RATE * 9, 0)
    mixed = mix_of(studio)
    level = measure(mixed).energy[: 9 * RATE // HOP]
    assert np.abs(10 * np.log10(level / level.mean())).max() < 0.7


def test_a_drum_that_the_encoder_overshoots_stays_under_the_peak(tmp_path: Path) -> None:
    times = np.arange(RATE * 6) / RATE
    noise = np.random.default_rng(3).normal(0, 0.3, len(times)) * np.exp(-12 * (times % 0.5))
    tones = 0.3 * np.sin(2 * np.pi * 110 * times)
    studio = Studio(tmp_path / "studio", (0.4 * np.stack([tones + noise, tones - noise])).astype(np.float32))
    answer = studio.body(RATE * 6, studio.steps(RATE * 5, RATE * 6).at(RATE * 6))
    assert answer["true_peak"] <= mix.TRUE_PEAK


def levels(music: Sound | None, voice: Sound | None = None, settings: MixSettings = USUAL_MIX) -> Levels:
    return plan_levels(music, [(voice, 0)] if voice else [], settings=settings)


def test_levels_put_the_voice_at_the_target_and_the_music_under_it() -> None:
    music, voice = Sound(RATE, -9.0, -0.5), Sound(RATE, -20.0, -3.0)
    assert levels(music) == Levels(-5.0, -5.0)
    assert levels(None, voice) == Levels(None, None, (VoiceLevel(6.0),))
    assert levels(music, voice, MixSettings(music_gain=-10)) == Levels(-15.0, -5.0, (VoiceLevel(6.0),))
    assert levels(music, voice, MixSettings(loudness=-16)) == Levels(-21.0, -7.0, (VoiceLevel(4.0),))
    assert levels(music, voice, MixSettings(voice_gain=3)) == Levels(-16.0, -5.0, (VoiceLevel(9.0),))


def test_no_gain_is_planned_for_silence_and_never_more_than_the_cap() -> None:
    assert levels(Sound(RATE, None, -200.0)).music == 0
    assert levels(Sound(RATE, -69.0, -60.0)).music == MOST_GAIN


@settings(deadline=None)
@given(st.integers(0, 200 * HOP))
def test_steps_are_looked_up_by_length(samples: int) -> None:
    steps = Steps.of({"steps": [[30, 4], [40, 2], [100, 0]]})
    hops = samples // HOP
    assert steps.at(samples) == (4 if hops < 40 else 2 if hops < 100 else 0)


def test_all_of_it_runs_in_the_sandbox(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio", tune(2), speech(1))
    levels = studio.levels.arguments()
    limits = Limits(memory_bytes=2**30, cpu_seconds=30)
    files = [tmp_path / name for name in FILES]
    seen: list[float] = []
    with Sandbox(["crosscut.mix"]) as sandbox:
        steps = Steps.of(
            sandbox.run(
                "crosscut.mix:measure_mix",
                arguments={
                    "levels": levels,
                    "target": TARGET,
                    "fade_out": FADE,
                    "shortest": RATE,
                    "longest": RATE * 12,
                },
                inputs=studio.inputs,
                limits=limits,
            )
        )
        sandbox.run(
            "crosscut.mix:render_body",
            arguments={"levels": levels, "samples": RATE * 12, "step": steps.at(RATE * 12)},
            inputs=studio.inputs,
            outputs=files,
            limits=limits,
            on_progress=seen.append,
        )
        answer = sandbox.run(
            "crosscut.mix:render_tails",
            arguments={"lengths": [RATE * 12], "fade_out": FADE},
            inputs=files[:3],
            outputs=[tmp_path / "tail.m4a"],
            limits=limits,
        )
    plan = SoundtrackPlan.of(files[1], tmp_path / "tail.m4a", answer["tails"][0])
    assert loudness(play(plan)) == pytest.approx(TARGET, abs=0.5)
    assert seen == sorted(seen)
    assert seen
