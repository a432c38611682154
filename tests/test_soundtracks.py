"""Soundtracks with the clips' own sound, heard as a player hears them and measured by meters that are not ours."""

from __future__ import annotations

import importlib
import io
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise, permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyloudnorm  # type: ignore[import-untyped]
import pytest

from crosscut import aac
from crosscut.artifacts import Artifacts
from crosscut.blend import EDGE, MOST_GAIN, fade_gain
from crosscut.fetch import Fetcher
from crosscut.joining import Slot
from crosscut.loudness import measure, ratio
from crosscut.media import AAC_FRAME, USUAL_MIX, MixSettings, Seconds
from crosscut.mix import read_mix
from crosscut.pcm import sound_of
from crosscut.soundtracks import Part, Parts, Range, Recipe, Shown, Soundtracks, Spoken
from crosscut.telemetry import Telemetry
from crosscut.workshop import Workshop
from fakes import ToneVoice
from sounds import RATE, child, speech, tune, write_pcm
from test_blend import BOUND, hiss, level_of_pip, pip, roughness, sweep
from test_blend import chords as smooth_chords
from test_mix import by_ffmpeg, decoded, loudness, true_peak
from test_mix import chords as held_chords

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from crosscut.artifacts import Lease
    from crosscut.loudness import Signal
    from crosscut.splice import Soundtrack


class Here:
    """A sandbox without walls: tasks run in this process, and are counted."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def run(
        self, task: str, *, inputs: Sequence[Path], outputs: Sequence[Path], arguments: dict[str, Any], **_: object
    ) -> Any:
        module, name = task.split(":")
        self.tasks.append(name)
        return child(getattr(importlib.import_module(module), name), inputs, outputs, **arguments)


@dataclass
class Studio:
    """Clips and lines by name, and the soundtracks that are made of them."""

    folder: Path
    lease: Lease
    clips: Mapping[str, Signal]
    lines: Sequence[Signal] = ()
    music: Signal | None = None
    settings: MixSettings = USUAL_MIX
    here: Here = field(default_factory=Here)

    def __post_init__(self) -> None:
        sandbox: Any = self.here
        shop = Workshop(
            self.lease, sandbox, Fetcher(self.lease), ToneVoice(), Telemetry(), 2, 1 << 30, threading.Event()
        )
        self.parts = {name: self.part(name, signal) for name, signal in self.clips.items()}
        self.spoken = [self.part(f"line {number}", line) for number, line in enumerate(self.lines)]
        self.song = None if self.music is None else self.part("music", self.music)
        self.sounds = Soundtracks(shop, None, self.of, self.settings, lambda _: Range(RATE, 9 * RATE))

    def part(self, name: str, signal: Signal) -> Part:
        return Part(name, write_pcm(self.folder / name, signal), sound_of(measure(signal), signal.shape[1]))

    def of(self, recipe: Recipe) -> Parts:
        return Parts(
            None if recipe.music is None else self.song,
            tuple(self.spoken[voice.line] for voice in recipe.voices),
            tuple(self.parts[shown.clip] if shown.clip else None for shown in recipe.clips),
        )

    def recipe(
        self,
        names: Sequence[str | None],
        lengths: Sequence[int],
        voices: Sequence[tuple[int, int]] = (),
        gains: Sequence[float] = (),
        music: bool = False,
    ) -> tuple[Recipe, int]:
        starts = np.cumsum([0, *lengths]).tolist()
        gains = gains or [0.0] * len(names)
        shown = tuple(Shown(*each) for each in zip(names, starts, lengths, gains, strict=False))
        spoken = tuple(Spoken(line, Fraction(1), start) for line, start in voices)
        return Recipe(0 if music else None, spoken, shown), starts[-1]


def exact(signal: Signal) -> float:
    """By an implementation that is not ours, with the filters of the tables: its own read up to 0.1 lower."""
    return float(pyloudnorm.Meter(RATE, filter_class="DeMan").integrated_loudness(signal.T.astype(np.float64)))


def play(soundtrack: Soundtrack) -> Signal:
    units = []
    for run in soundtrack.runs:
        data = run.path.read_bytes()
        for number in range(run.first, run.first + run.count):
            at = int(run.track.offsets[number])
            units.append(data[at : at + int(run.track.sizes[number])])
    return decoded(units, soundtrack.samples)


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    with Artifacts(tmp_path / "store", 1 << 30).lease() as it:
        yield it


def rough(seconds: float, seed: int) -> Signal:
    """Noise that swells: nothing in it repeats."""
    noise = np.random.default_rng(seed).standard_normal((2, round(seconds * RATE)))
    return (0.05 * noise * (1.2 + np.sin(np.arange(noise.shape[1]) / 9_000))).astype(np.float32)


def voiced(seconds: float, seed: int) -> Signal:
    return np.tile(3 * speech(seconds, seed=seed), (2, 1))


CLIPS = {
    "notes": tune(3.1, seed=1),
    "soft": tune(2.7, seed=2, level=0.05),
    "talk": voiced(3.3, 4),
    "held": held_chords(2.9, 0.3),
    "noise": rough(2.6, 5),
    "silent": np.zeros((2, 2 * RATE), np.float32),
}
LINES = (speech(1.4, seed=2), speech(0.9, seed=6))
SOUNDING = [name for name in CLIPS if name != "silent"]


def lengths_of(names: Sequence[str | None], off: int = 0) -> list[int]:
    """As long as they are shown: about their sound, as pictures come in whole frames."""
    return [(CLIPS[name].shape[1] if name else 2 * RATE) - off for name in names]


@pytest.fixture
def studio(tmp_path: Path, lease: Lease) -> Studio:
    return Studio(tmp_path, lease, CLIPS, LINES)


def batch(count: int) -> list[tuple[list[str], list[tuple[int, int]]]]:
    """Clips, and lines with the number of the clip they are spoken in."""
    draw = np.random.default_rng(11)
    found = []
    for _ in range(count):
        names = [str(name) for name in draw.choice(list(CLIPS), draw.integers(2, 5))]
        spoken = [(line, int(draw.integers(len(names)))) for line in range(len(LINES)) if draw.random() < 0.4]
        found.append((names, spoken))
    return [each for each in found if set(each[0]) != {"silent"}]


def places(names: Sequence[str], spoken: Sequence[tuple[int, int]], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """At the beginning of their clips, and one after the other where they share one."""
    starts = np.cumsum([0, *lengths]).tolist()
    return [(line, starts[clip] + 4_800 + 72_000 * line) for line, clip in spoken]


@pytest.mark.parametrize(
    ("settings", "count"), [(USUAL_MIX, 8), (MixSettings(loudness=-19), 3)], ids=["usual", "softer"]
)
def test_any_combination_is_as_loud_as_it_should_be_and_says_so(
    tmp_path: Path, lease: Lease, settings: MixSettings, count: int
) -> None:
    studio = Studio(tmp_path, lease, CLIPS, LINES, settings=settings)
    for number, (names, spoken) in enumerate(batch(count)):
        lengths = lengths_of(names, number * 37)
        recipe, samples = studio.recipe(names, lengths, places(names, spoken, lengths))
        mixed = studio.sounds.get(recipe, samples)
        signal = play(mixed.soundtrack)
        assert signal.shape[1] == samples
        for loud, peak in ((loudness(signal), true_peak(signal)), by_ffmpeg(signal)):
            assert loud == pytest.approx(settings.loudness, abs=0.5)
            assert exact(signal) == pytest.approx(mixed.loudness, abs=0.1)
            assert peak <= -1
            assert peak == pytest.approx(mixed.true_peak, abs=0.15)


def test_a_clip_that_is_too_quiet_to_be_lifted_does_not_make_the_whole_too_soft(tmp_path: Path, lease: Lease) -> None:
    clips = {"faint": rough(4, 1) * ratio(-35), "usual": rough(2.5, 2)}
    studio = Studio(tmp_path, lease, clips)
    for names in (["faint", "usual"], ["usual", "faint", "faint"]):
        recipe, samples = studio.recipe(names, [clips[name].shape[1] for name in names])
        assert exact(play(studio.sounds.get(recipe, samples).soundtrack)) == pytest.approx(-14, abs=0.5)
    recipe, samples = studio.recipe(["faint", "faint"], [4 * RATE] * 2)
    faint = studio.sounds.get(recipe, samples)
    assert faint.before is not None
    assert faint.loudness == pytest.approx(faint.before + MOST_GAIN, abs=0.5)


def test_joins_do_not_click(tmp_path: Path, lease: Lease) -> None:
    clips = {"sweep": sweep(2.3), "chords": smooth_chords(2.1), "hiss": hiss(1.9)}
    studio = Studio(tmp_path, lease, clips, [], settings=MixSettings(fade_out=Seconds(Fraction(0))))
    for names in permutations(clips):
        recipe, samples = studio.recipe(names, [clips[name].shape[1] - 700 for name in names])
        mixed = studio.sounds.get(recipe, samples)
        assert len(mixed.soundtrack.runs) > 1
        heard = play(mixed.soundtrack)
        assert roughness(heard, [shown.start for shown in recipe.clips[1:]] + [samples]) < BOUND
        at_once = decoded(encoded(joined(studio, recipe, samples)), samples)
        for edge in np.cumsum([run.count for run in mixed.soundtrack.runs])[:-1] * AAC_FRAME:
            assert roughness(heard, [edge]) < max(BOUND, 1.2 * roughness(at_once, [edge]))


def test_a_spliced_soundtrack_is_as_near_to_its_mix_as_one_encoded_at_once(studio: Studio, tmp_path: Path) -> None:
    errors = []
    for first, second in permutations(SOUNDING, 2):
        recipe, samples = studio.recipe([first, second], lengths_of([first, second]))
        mixed = studio.sounds.get(recipe, samples)
        assert len(mixed.soundtrack.runs) == 4
        sound = joined(studio, recipe, samples)[:, : samples - RATE]
        heard, at_once = play(mixed.soundtrack), decoded(encoded(sound), sound.shape[1])
        for edge in np.cumsum([run.count for run in mixed.soundtrack.runs])[:2] * AAC_FRAME:
            part = slice(edge - AAC_FRAME, edge)
            errors.append([np.square(each[:, part] - sound[:, part]).mean() for each in (heard, at_once)])
    ratios = 10 * np.log10(np.divide(*(np.transpose(errors) + 1e-12)))
    assert ratios.max() < 1


def joined(studio: Studio, recipe: Recipe, samples: int) -> Signal:
    """The limited mixes of the slots, one after the other, before anything is encoded."""
    borders = [round(shown.start / AAC_FRAME) * AAC_FRAME for shown in recipe.clips] + [samples]
    limited = [body_of(studio, shown.clip or "") for shown in recipe.clips]
    parts = zip(limited, pairwise(borders), strict=True)
    return np.concatenate([faded(body[:, : stop - start]) for body, (start, stop) in parts], axis=1)


def body_of(studio: Studio, name: str) -> Signal:
    """The limited mix of a slot with nothing but that clip."""
    body = studio.sounds._joiner._bodies.get(Slot(studio.parts[name]))
    with body.files[".pcm"].open("rb") as file:
        found = read_mix(file, 0, 40 * RATE)
    return np.pad(found, ((0, 0), (0, RATE)))


def faded(sound: Signal) -> Signal:
    sound = sound.copy()
    sound[:, -EDGE:] *= fade_gain(EDGE)
    return sound


def encoded(sound: Signal) -> list[bytes]:
    with aac.Encoder(io.BytesIO()) as encoder:
        return [*encoder.encode(sound), *encoder.finish()]


def test_bodies_and_seams_are_encoded_once_for_all_combinations(studio: Studio) -> None:
    blocks = (("notes", "talk", "held"), ("soft", "noise", "silent"), ("talk", "soft", "noise"))
    for names in product(*blocks):
        recipe, samples = studio.recipe(names, lengths_of(names))
        studio.sounds.get(recipe, samples)
    done = Counter(studio.here.tasks)
    pairs = {pair for names in product(*blocks) for pair in pairwise(names)}
    assert done["render_levelled"] == len({name for block in blocks for name in block})
    assert len(pairs) <= done["render_seam"] <= 3 * (len(pairs) + len(blocks[2]))
    assert set(done) == {"render_levelled", "render_seam"}


def test_a_slot_is_the_same_beside_any_neighbours_whatever_its_place(tmp_path: Path, lease: Lease) -> None:
    """Exact places differ by fractions of a frame; the body is one all the same."""
    studio = Studio(tmp_path, lease, CLIPS, LINES, settings=MixSettings(loudness=None))
    for off in range(0, 1_000, 111):
        names = ["notes", "talk", "held"]
        lengths = lengths_of(names, off)
        recipe, samples = studio.recipe(names, lengths, [(1, lengths[0] + 9_600 + off % 2)])
        studio.sounds.get(recipe, samples)
    assert studio.here.tasks.count("render_levelled") == 3


def test_every_beep_is_where_its_picture_is_and_nothing_adds_up(tmp_path: Path, lease: Lease) -> None:
    signal = np.zeros((2, RATE + 413), np.float32)
    signal[:, 24_000:40_000] = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / RATE)
    studio = Studio(tmp_path, lease, {"beep": signal}, settings=MixSettings(loudness=None))
    recipe, samples = studio.recipe(["beep"] * 9, [signal.shape[1]] * 9)
    mixed = studio.sounds.get(recipe, samples)
    assert len(mixed.soundtrack.runs) > 9
    loud = np.abs(play(mixed.soundtrack)).max(axis=0) > 0.1
    onsets = [place for place in np.flatnonzero(loud) if not loud[place - 4_800 : place].any()]
    late = [onset - shown.start - 24_000 for onset, shown in zip(onsets, recipe.clips, strict=True)]
    assert np.abs(late).max() <= AAC_FRAME / 2 + 60


def test_a_clip_goes_down_under_the_voice_that_is_spoken_in_it_and_no_other_does(tmp_path: Path, lease: Lease) -> None:
    studio = Studio(tmp_path, lease, {"first": pip(5), "second": pip(4)}, LINES)
    names, lengths = ["first", "second"], [5 * RATE, 4 * RATE]
    plain, samples = studio.recipe(names, lengths)
    spoken, _ = studio.recipe(names, lengths, [(0, RATE)])
    before, after = (level_of_pip(play(studio.sounds.get(recipe, samples).soundtrack)) for recipe in (plain, spoken))
    assert after[52:118] - after[5:35].mean() == pytest.approx(-14, abs=0.6)
    assert after[215:245].mean() - after[5:35].mean() == pytest.approx(0, abs=0.1)
    # The whole may become louder for it, but no clip beside another.
    raised = after[5:35].mean() - before[5:35].mean()
    assert after[255:-30] - before[255:-30] == pytest.approx(raised, abs=0.1)


def test_clips_and_voices_make_the_music_go_down_and_it_comes_up_between_them(tmp_path: Path, lease: Lease) -> None:
    studio = Studio(tmp_path, lease, {"noise": hiss(3), "low": sweep(3)}, LINES, music=pip(20))
    recipe, samples = studio.recipe(["low", None, "low", None], [3 * RATE, 6 * RATE, 3 * RATE, 6 * RATE], music=True)
    level = level_of_pip(play(studio.sounds.get(recipe, samples).soundtrack), 0.1)
    under, alone = level[5:28].mean(), level[60:86].mean()
    assert under - alone == pytest.approx(-14, abs=0.6)
    assert level[95:118] == pytest.approx(under, abs=0.8)
    assert level[150:170] == pytest.approx(alone, abs=0.5)


def test_music_over_clips_is_made_in_one_go_and_comes_out_right(tmp_path: Path, lease: Lease) -> None:
    studio = Studio(tmp_path, lease, CLIPS, LINES, music=tune(9, seed=7))
    for number, (names, spoken) in enumerate(batch(5)):
        lengths = lengths_of(names, number * 37)
        recipe, samples = studio.recipe(names, lengths, places(names, spoken, lengths), music=True)
        mixed = studio.sounds.get(recipe, samples)
        signal = play(mixed.soundtrack)
        for loud, peak in ((loudness(signal), true_peak(signal)), by_ffmpeg(signal)):
            assert loud == pytest.approx(-14, abs=0.5)
            assert exact(signal) == pytest.approx(mixed.loudness, abs=0.1)
            assert peak <= -1
        assert np.abs(signal[:, -200:]).max() < 0.01
    assert set(studio.here.tasks) == {"render_levelled"}
    assert len(studio.here.tasks) == number + 1


def test_a_voice_that_goes_on_over_a_join_is_heard_in_full(studio: Studio) -> None:
    names, start = ["soft", "silent", "soft"], round(2.2 * RATE)
    recipe, samples = studio.recipe(names, lengths_of(names), [(0, start)])
    heard = play(studio.sounds.get(recipe, samples).soundtrack)
    line = np.tile(LINES[0], (2, 1))
    part = heard[:, start : start + line.shape[1]]
    gain = np.vdot(line, part) / np.vdot(line, line)
    assert np.std(part - gain * line) < 0.35 * np.std(part)
    assert [run.own for run in studio.sounds.get(recipe, samples).soundtrack.runs] == [True]


def test_silent_clips_share_the_soundtrack_of_muted_ones(tmp_path: Path, lease: Lease) -> None:
    clips = {"silent": CLIPS["silent"], "hush": 1e-5 * CLIPS["noise"]}
    studio = Studio(tmp_path, lease, clips, LINES, music=tune(6))
    made = []
    for names in (["silent", "hush"], ["hush", "silent"], ["hush"], [None]):
        recipe, samples = studio.recipe(names, [2 * RATE] * len(names), [(0, 0)], music=True)
        recipe = replace(recipe, clips=() if names == [None] else recipe.clips)
        made.append(studio.sounds.get(recipe, samples))
    paths = [[run.path for run in mixed.soundtrack.runs] for mixed in made]
    assert paths[0] == paths[1]
    assert paths[2] == paths[3]
    assert studio.here.tasks.count("measure_mix") == 1


def test_a_silent_clip_among_others_is_silence(studio: Studio) -> None:
    for names in (["silent", "notes", "talk"], ["notes", "silent", "talk"], ["notes", "talk", "silent"]):
        recipe, samples = studio.recipe(names, lengths_of(names))
        heard = play(studio.sounds.get(recipe, samples).soundtrack)
        shown = recipe.clips[names.index("silent")]
        assert np.abs(heard[:, shown.start + 3 * AAC_FRAME :][:, : shown.samples - 6 * AAC_FRAME]).max() < 1e-4


def test_a_picture_that_is_held_long_is_silent_after_its_sound(studio: Studio) -> None:
    recipe, samples = studio.recipe(["notes", "talk"], [9 * RATE, lengths_of(["talk"])[0]])
    mixed = studio.sounds.get(recipe, samples)
    heard = play(mixed.soundtrack)
    assert heard.shape[1] == samples
    assert np.abs(heard[:, 4 * RATE : 9 * RATE - 3 * AAC_FRAME]).max() < 1e-4
    assert loudness(heard) == pytest.approx(mixed.loudness, abs=0.1)


@pytest.mark.parametrize("music", [False, True])
def test_the_volume_of_a_clip_is_beside_its_usual_level(tmp_path: Path, lease: Lease, music: bool) -> None:
    clips = {"low": sweep(4), "pip": pip(4)}
    studio = Studio(tmp_path, lease, clips, music=rough(9, 1) * 1e-3 if music else None)
    heard = []
    for gain in (0.0, -6.0):
        recipe, samples = studio.recipe(["low", "pip"], [4 * RATE] * 2, gains=[0.0, gain], music=music)
        mixed = studio.sounds.get(recipe, samples)
        signal = play(mixed.soundtrack)
        assert loudness(signal) == pytest.approx(-14, abs=0.5)
        heard.append((level_of_pip(signal)[210:360].mean(), loudness(signal[:, : 4 * RATE])))
    lowered = (heard[1][0] - heard[0][0]) - (heard[1][1] - heard[0][1])
    assert lowered == pytest.approx(-6, abs=0.4)


def test_without_a_target_clips_are_as_loud_as_they_came(tmp_path: Path, lease: Lease) -> None:
    studio = Studio(tmp_path, lease, CLIPS, settings=MixSettings(loudness=None))
    recipe, samples = studio.recipe(["held", "noise"], lengths_of(["held", "noise"]))
    heard = play(studio.sounds.get(recipe, samples).soundtrack)
    for name, shown in zip(["held", "noise"], recipe.clips, strict=True):
        part = slice(shown.start + 9_600, shown.start + 2 * RATE)
        assert loudness(heard[:, part]) == pytest.approx(loudness(CLIPS[name][:, 9_600 : 2 * RATE]), abs=0.3)


@pytest.mark.parametrize("music", [False, True])
def test_the_loudness_before_is_that_of_the_plain_sum(tmp_path: Path, lease: Lease, music: bool) -> None:
    song = tune(12, seed=7, level=0.5)
    studio = Studio(tmp_path, lease, CLIPS, LINES, music=song if music else None)
    names = ["notes", "talk", "soft"]
    lengths = lengths_of(names)
    recipe, samples = studio.recipe(names, lengths, [(0, lengths[0] + 4_800)], music=music)
    plain = np.concatenate([CLIPS[name] for name in names], axis=1)
    plain[:, lengths[0] + 4_800 :][:, : LINES[0].shape[1]] += LINES[0]
    if music:
        plain = plain + song[:, :samples]
    assert studio.sounds.get(recipe, samples).before == pytest.approx(loudness(plain), abs=0.15)


def test_the_loudness_before_is_told_of_every_length_of_a_shared_soundtrack(tmp_path: Path, lease: Lease) -> None:
    song = np.concatenate([tune(3, seed=7, level=0.05), tune(6, seed=8, level=0.5)], axis=1)
    studio = Studio(tmp_path, lease, {}, LINES, music=song)
    for seconds in (3, 8):
        mixed = studio.sounds.get(Recipe(0), seconds * RATE)
        assert mixed.before == pytest.approx(loudness(song[:, : seconds * RATE]), abs=0.1)
        assert mixed.loudness == pytest.approx(-14, abs=0.5)


def test_lines_of_muted_clips_are_slots_too(studio: Studio) -> None:
    recipe, samples = studio.recipe([None, None, None], [2 * RATE] * 3, [(0, 4_800), (1, 4 * RATE + 4_800)])
    mixed = studio.sounds.get(recipe, samples)
    heard = play(mixed.soundtrack)
    assert loudness(heard) == pytest.approx(-14, abs=0.5)
    assert np.abs(heard[:, 2 * RATE : 4 * RATE]).max() < 1e-3
    assert set(studio.here.tasks) == {"render_levelled", "render_seam"}


def test_clips_too_short_for_two_seams_are_mixed_all_the_same(studio: Studio) -> None:
    names = ["notes", "talk", "held", "noise"]
    recipe, samples = studio.recipe(names, [RATE, 4_000, 3_000, RATE])
    mixed = studio.sounds.get(recipe, samples)
    assert len(mixed.soundtrack.runs) == 1
    assert play(mixed.soundtrack).shape[1] == samples
    assert mixed.loudness == pytest.approx(-14, abs=0.5)


@pytest.mark.parametrize(("rest", "runs"), [(0.5, 4), (0.25, 1)])
def test_a_line_that_ends_where_the_fade_out_begins_is_spliced(studio: Studio, rest: float, runs: int) -> None:
    names = ["notes", "talk"]
    lengths = lengths_of(names)
    end = sum(lengths) - round(rest * RATE)
    recipe, samples = studio.recipe(names, lengths, [(0, end - LINES[0].shape[1])])
    mixed = studio.sounds.get(recipe, samples)
    assert len(mixed.soundtrack.runs) == runs
    assert mixed.loudness == pytest.approx(-14, abs=0.5)
