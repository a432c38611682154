"""What is foretold of a mix against the mix itself, measured."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from crosscut.blend import Heard, mixed, plan_levels
from crosscut.energies import energies, foretold
from crosscut.loudness import HOP, measure
from crosscut.media import MixSettings, Seconds
from crosscut.pcm import Sound, sound_of
from sounds import RATE, speech, tune, write_pcm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from crosscut.blend import Levels
    from crosscut.loudness import Signal

SAMPLES = 15 * RATE
SONG, SHORT = tune(16, seed=3), tune(4, seed=4)
LINE, LATE = speech(3), speech(2, seed=5)
CLIPS = [tune(5, seed=seed, level=0.1 * seed) for seed in (6, 7, 8)]


def plain(levels: Levels, folder: Path, parts: Sequence[Signal]) -> Signal:
    """The mix as it is before its limiter and its fade-out."""
    with ExitStack() as stack:
        files = [write_pcm(folder / f"{number}", part) for number, part in enumerate(parts)]
        return mixed([stack.enter_context(file.open("rb")) for file in files], levels)(0, SAMPLES)


def sounds(parts: Sequence[Signal]) -> list[Sound]:
    return [sound_of(measure(part), part.shape[1]) for part in parts]


CASES = {
    "music": (SONG, [], []),
    "looped music": (SHORT, [], []),
    "a voice": (None, [(LINE, RATE)], []),
    "music under voices": (SONG, [(LINE, RATE), (LATE, 9 * RATE)], []),
    "clips": (None, [], CLIPS),
    "clips under a voice": (None, [(LINE, 4 * RATE)], CLIPS),
    "everything": (SHORT, [(LINE, 0), (LATE, 11 * RATE)], CLIPS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("levelled", [True, False], ids=["levelled", "as it came"])
def test_the_loudness_of_a_mix_is_foretold(tmp_path: Path, case: str, levelled: bool) -> None:
    music, voices, clips = CASES[case]
    parts = [*([] if music is None else [music]), *(voice for voice, _ in voices), *clips]
    measured = sounds(parts)
    spoken = measured[0 if music is None else 1 :]
    levels = plan_levels(
        None if music is None else measured[0],
        [(sound, start) for sound, (_, start) in zip(spoken, voices, strict=False)],
        [Heard(sound, place, sound.samples) for sound, place in zip(spoken[len(voices) :], count(clips), strict=True)],
    )
    levels = levels if levelled else levels.as_they_came
    told = foretold(levels, measured, SAMPLES, 0)
    heard = measure(plain(levels, tmp_path, parts)).loudness
    assert told == pytest.approx(heard, abs=0.25)


def count(clips: Sequence[Signal]) -> list[int]:
    return [5 * RATE * number for number in range(len(clips))]


def test_every_hop_of_a_sound_is_foretold_where_it_is_heard() -> None:
    (sound,) = sounds([LINE])
    told = energies(plan_levels(None, [(sound, RATE)], settings=MixSettings(loudness=None)), [sound], SAMPLES)
    expected = np.zeros(SAMPLES // HOP)
    expected[10 : 10 + len(sound.hops)] = sound.hops
    assert told == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_clip_is_heard_no_longer_than_it_is_shown() -> None:
    (sound,) = sounds(CLIPS[:1])
    levels = plan_levels(None, [], [Heard(sound, 0, 2 * RATE)], MixSettings(loudness=None))
    told = energies(levels, [sound], SAMPLES)
    assert (told[:20] > 0).all()
    assert not told[20:].any()


def test_a_fade_out_takes_what_it_takes() -> None:
    settings = MixSettings(loudness=None, fade_out=Seconds(2))
    (sound,) = sounds([SONG])
    levels = plan_levels(sound, settings=settings)
    faded = SONG[:, : 5 * RATE].copy()
    faded[:, 3 * RATE :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(2 * RATE) / (2 * RATE)).astype(np.float32)
    assert foretold(levels, [sound], 5 * RATE, 2 * RATE) == pytest.approx(measure(faded).loudness, abs=0.1)


def test_nothing_is_foretold_of_silence() -> None:
    (sound,) = sounds([np.zeros((2, RATE), np.float32)])
    assert foretold(plan_levels(sound), [sound], SAMPLES, 0) is None
