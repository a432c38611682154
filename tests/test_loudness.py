from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyloudnorm  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly  # type: ignore[import-untyped]

from crosscut.loudness import CHUNK, HOP, Meter, Profile, Signal, decibels, integrated, limited, measure, ratio, ratios
from sounds import tune

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 48_000


def tone(hertz: float, seconds: float, level: float, *, phase: float = 0.0) -> Signal:
    """Stereo; `level` is the peak in dBFS."""
    wave = ratio(level) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE + phase)
    return np.tile(wave, (2, 1)).astype(np.float32)


def noise(seed: int, seconds: float, level: float = -20.0) -> Signal:
    samples = np.random.default_rng(seed).standard_normal((2, round(seconds * RATE)))
    return (samples * ratio(level)).astype(np.float32)


def reader(signal: Signal) -> Callable[[int, int], Signal]:
    def read(start: int, stop: int) -> Signal:
        before, after = max(-start, 0), max(stop - signal.shape[1], 0)
        return np.pad(signal[:, max(start, 0) : max(stop, 0)], ((0, 0), (before, after)))[:, : stop - start]

    return read


def limit(signal: Signal, gain: float, ceiling: float) -> Signal:
    return np.concatenate(list(limited(reader(signal), signal.shape[1], gain, np.array([ceiling]))), axis=1)


def true_peak(signal: Signal) -> float:
    """By another interpolator."""
    return decibels(float(np.abs(resample_poly(signal.astype(np.float64), 4, 1, axis=1)).max()))


def test_a_stereo_tone_reads_as_ebu_tech_3341_says() -> None:
    assert measure(tone(1000, 5, -23)).loudness == pytest.approx(-23.0, abs=0.1)


def test_quiet_parts_are_gated_as_ebu_tech_3341_says() -> None:
    quiet, loud = tone(1000, 2, -36), tone(1000, 12, -23)
    assert measure(np.concatenate([quiet, loud, quiet], axis=1)).loudness == pytest.approx(-23.0, abs=0.1)


def test_nearly_silent_parts_fall_to_the_absolute_gate() -> None:
    silent, loud = tone(1000, 2, -72), tone(1000, 20, -36)
    assert measure(np.concatenate([silent, loud, silent], axis=1)).loudness == pytest.approx(-36.0, abs=0.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_loudness_agrees_with_another_implementation(seed: int) -> None:
    swelling = noise(seed, 6) * np.linspace(0.02, 1, 6 * RATE, dtype=np.float32) ** 2
    reference = pyloudnorm.Meter(RATE).integrated_loudness(swelling.T.astype(np.float64))
    assert measure(swelling).loudness == pytest.approx(reference, abs=0.1)


def test_one_channel_is_heard_on_both_loudspeakers() -> None:
    both = tone(1000, 2, -20)
    assert measure(both[:1]).loudness == pytest.approx(measure(both).loudness, abs=1e-4)


@pytest.mark.parametrize("signal", [np.zeros((2, RATE), np.float32), tone(1000, 1, -90), tone(1000, 0.3, -10)])
def test_silence_and_what_is_shorter_than_a_block_have_no_loudness(signal: Signal) -> None:
    assert measure(signal).loudness is None


def test_nothing_at_all_can_be_measured() -> None:
    profile = Meter().finish()
    assert (profile.loudness, profile.samples) == (None, 0)
    assert profile.true_peak < -100


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 150_000), max_size=5))
def test_the_pieces_a_signal_arrives_in_do_not_matter(cuts: list[int]) -> None:
    signal = noise(3, 3)
    meter = Meter()
    for piece in np.split(signal, sorted(cut for cut in cuts if cut <= signal.shape[1]), axis=1):
        meter.push(piece)
    found, whole = meter.finish(), measure(signal)
    assert np.array_equal(found.energy, whole.energy)
    assert np.array_equal(found.peak, whole.peak)


@settings(deadline=None, max_examples=15)
@given(st.integers(RATE // 2, 4 * RATE))
def test_the_loudness_of_any_beginning_follows_from_the_profile(samples: int) -> None:
    signal = noise(4, 4) * np.linspace(0.1, 1, 4 * RATE, dtype=np.float32)
    profile = measure(signal)
    assert integrated(profile.energy[: samples // HOP]) == pytest.approx(
        measure(signal[:, :samples]).loudness, abs=1e-3
    )


def test_a_profile_survives_being_stored() -> None:
    profile = measure(noise(5, 1.05))
    stored = Profile.from_bytes(profile.to_bytes(), profile.samples)
    assert (stored.loudness, stored.true_peak) == (profile.loudness, profile.true_peak)


def test_the_true_peak_between_two_samples_is_found() -> None:
    between = tone(RATE / 4, 1, 0, phase=np.pi / 4)
    assert decibels(float(np.abs(between).max())) == pytest.approx(-3.01, abs=0.01)
    steady = between * np.hanning(RATE).astype(np.float32)
    assert measure(steady).true_peak == pytest.approx(0.0, abs=0.05)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(-30, 0))
def test_the_true_peak_agrees_with_another_interpolator(seed: int, level: float) -> None:
    signal = np.pad(noise(seed, 0.5, level), ((0, 0), (500, 500)))
    assert measure(signal).true_peak == pytest.approx(true_peak(signal), abs=0.2)


def test_a_peak_in_the_last_samples_counts() -> None:
    signal = np.zeros((2, RATE), np.float32)
    signal[0, -1] = 0.5
    assert measure(signal).true_peak >= decibels(0.5)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(0, 24), st.floats(-12, -1))
def test_the_limiter_holds_its_ceiling(seed: int, gain: float, ceiling: float) -> None:
    signal = noise(seed, 0.7)
    lowpassed = np.cumsum(signal, axis=1) * 0.05
    lowpassed -= lowpassed.mean(axis=1, keepdims=True)
    for sound in (signal, lowpassed.astype(np.float32)):
        assert true_peak(limit(sound, gain, ceiling)) < ceiling + 0.25


def test_what_stays_below_the_ceiling_passes_unchanged() -> None:
    signal = noise(6, 1, -40)
    assert np.array_equal(limit(signal, 6.0, -2.0), signal * np.float32(ratio(6.0)))


@pytest.mark.parametrize("place", [CHUNK - 1, CHUNK, CHUNK + 100])
def test_the_gain_moves_smoothly_also_where_pieces_meet(place: int) -> None:
    peak = np.full((2, 10 * RATE), 0.1, np.float32)
    peak[:, place - 3 : place + 4] = 0.95
    gain = limit(peak, 0.0, -12.0)[0] / peak[0]
    heard = np.abs(np.diff(20 * np.log10(gain)))
    assert gain.min() < 0.3
    assert heard.max() < 0.03
    assert gain[place - 2_400] == pytest.approx(1.0)


def test_after_a_peak_the_gain_comes_back() -> None:
    signal = tone(100, 1, -30)
    signal[:, 1_000] = 1.0
    assert np.allclose(limit(signal, 0.0, -6.0)[:, 9_000:], signal[:, 9_000:])


def test_a_ceiling_can_be_lower_in_some_places() -> None:
    signal = tone(1000, 12, -3)
    ceiling = np.full(50, -6.0)
    ceiling[20:30] = -12.0
    limited_signal = np.concatenate(list(limited(reader(signal), signal.shape[1], 0.0, ceiling)), axis=1)
    peaks = np.abs(limited_signal[0]).reshape(-1, HOP).max(axis=1)
    assert decibels(float(peaks[21:29].max())) == pytest.approx(-12, abs=0.05)
    assert decibels(float(peaks[:19].min())) == pytest.approx(-6, abs=0.05)
    assert decibels(float(peaks[40:].min())) == pytest.approx(-6, abs=0.05)


def test_a_meter_that_looks_at_samples_only_gives_the_same_energy_and_no_higher_peaks() -> None:
    signal = tune(3)
    meter = Meter(between=False)
    meter.push(signal)
    quick, full = meter.finish(), measure(signal)
    assert np.array_equal(quick.energy, full.energy)
    assert float(quick.peak.max()) == pytest.approx(float(np.abs(signal).max()))
    assert (quick.peak <= full.peak).all()
    assert (quick.peak < full.peak).any()


def test_gains_in_single_precision_are_those_of_one_gain() -> None:
    decibels = np.linspace(-120, 40, 999)
    assert ratios(decibels) == pytest.approx([ratio(value) for value in decibels], rel=2e-6)
