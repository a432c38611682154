"""Segments and soundtracks from the store: shared, bounded in memory, made again where they are damaged."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from crosscut.artifacts import Artifacts
from crosscut.errors import MixError
from crosscut.fetch import Fetcher, Source
from crosscut.media import AUDIO_RATE, USUAL_MIX, Format, MixSettings, Seconds
from crosscut.pieces import Pieces
from crosscut.segments import profile_sets
from crosscut.soundtracks import Part, Parts, Range, Recipe, Soundtracks, Spoken, decode_music, music_seconds
from crosscut.telemetry import Telemetry
from crosscut.workshop import Workshop
from fakes import ToneVoice
from sounds import child, read_pcm, tune, write_media, write_silent_video
from test_plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from crosscut.artifacts import Lease

RECIPE = Recipe(0)
SPAN = Range(AUDIO_RATE, 2 * AUDIO_RATE)
LENGTHS = [SPAN.longest - 1000 * number for number in range(6)]


class Here:
    """A sandbox without walls: tasks run in this process, and are counted."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def run(
        self, task: str, *, inputs: Sequence[Path], outputs: Sequence[Path], arguments: dict[str, Any], **_: object
    ) -> Any:
        self.tasks.append(task)
        module, name = task.split(":")
        return child(getattr(importlib.import_module(module), name), inputs, outputs, **arguments)


@pytest.fixture
def store(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "store", 1 << 30)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = write_media(tmp_path_factory.mktemp("song") / "song.wav", tune(4))
    return Source("song.wav", "ab" * 32, path, path.stat().st_size)


def workshop(lease: Lease, tmp_path: Path) -> Workshop:
    sandbox: Any = Here()
    return Workshop(
        lease=lease,
        sandbox=sandbox,
        fetcher=Fetcher(lease),
        voice=ToneVoice(),
        telemetry=Telemetry(),
        workers=2,
        memory_bytes=1 << 30,
        cancelled=threading.Event(),
    )


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as it:
        yield it


def of(
    shop: Workshop, pool: ThreadPoolExecutor, song: Source, kept: int = 100, settings: MixSettings = USUAL_MIX
) -> Soundtracks:
    part = decode_music(song, shop, SPAN.longest)
    return Soundtracks(shop, pool, lambda _: Parts(part), settings, lambda _: SPAN, kept)


def tasks(shop: Workshop) -> list[str]:
    sandbox: Any = shop.sandbox
    return [task.partition(":")[2] for task in sandbox.tasks]


def damage(store: Artifacts, suffix: str, data: bytes | None = None) -> None:
    """Cut every blob with this suffix in half, or replace its content."""
    for blob in store.blob("00", "").parent.parent.glob(f"*/*{suffix}"):
        content = blob.read_bytes()
        blob.chmod(0o600)
        blob.write_bytes(content[: len(content) // 2] if data is None else data)
        blob.chmod(0o444)


def test_soundtracks_held_at_once_are_bounded_and_those_dropped_are_read_again(
    store: Artifacts, tmp_path: Path, pool: ThreadPoolExecutor, song: Source
) -> None:
    with store.lease() as lease:
        shop = workshop(lease, tmp_path)
        sounds = of(shop, pool, song, kept=2)
        for length in LENGTHS:
            sounds.ask([(RECIPE, length)])
            assert sounds.wait(RECIPE, length).soundtrack.samples == length
        assert len(sounds._made) == 2
        made = tasks(shop).count("render_tails")
        sounds.ask([(RECIPE, LENGTHS[0])])
        assert sounds.wait(RECIPE, LENGTHS[0]).soundtrack.samples == LENGTHS[0]
        assert tasks(shop).count("render_tails") == made == len(LENGTHS)


def test_what_was_asked_for_last_is_kept(
    store: Artifacts, tmp_path: Path, pool: ThreadPoolExecutor, song: Source
) -> None:
    with store.lease() as lease:
        sounds = of(workshop(lease, tmp_path), pool, song, kept=2)
        for number in (0, 1, 0, 2):
            sounds.ask([(RECIPE, LENGTHS[number])])
        assert [samples for _, samples in sounds._made] == [LENGTHS[0], LENGTHS[2]]


@pytest.mark.parametrize(
    ("suffix", "data", "again"),
    [
        (".pcm", None, {"decode_audio", "render_body"}),
        (".profile", None, {"render_body"}),
        (".m4a", None, {"render_body", "render_tails"}),
        (".json", b"{", {"decode_audio", "measure_mix", "render_tails"}),
    ],
)
def test_damaged_parts_of_soundtracks_are_made_again(
    store: Artifacts,
    tmp_path: Path,
    pool: ThreadPoolExecutor,
    song: Source,
    suffix: str,
    data: bytes | None,
    again: set[str],
) -> None:
    def once() -> tuple[bytes, list[str]]:
        with store.lease() as lease:
            shop = workshop(lease, tmp_path)
            sounds = of(shop, pool, song)
            sounds.ask([(RECIPE, LENGTHS[1])])
            runs = sounds.wait(RECIPE, LENGTHS[1]).soundtrack.runs
            return b"".join(run.path.read_bytes() for run in runs), tasks(shop)

    sound, _ = once()
    assert once() == (sound, [])
    damage(store, suffix, data)
    mended, done = once()
    assert mended == sound
    assert set(done) == again
    assert once() == (sound, [])


def test_a_damaged_segment_is_made_again(store: Artifacts, tmp_path: Path) -> None:
    frame = Format(64, 64, Fraction(25))

    def once() -> tuple[str, list[str]]:
        with store.lease() as lease:
            shop = workshop(lease, tmp_path)
            return profile_sets(frame, shop), tasks(shop)

    sets, done = once()
    assert done == ["encode_blank"]
    damage(store, ".mp4")
    assert once() == (sets, ["encode_blank"])
    assert once() == (sets, [])


@pytest.mark.parametrize(
    ("longest", "seconds"), [(1, 60), (30 * AUDIO_RATE, 60), (30 * AUDIO_RATE + 1, 90), (9_999 * AUDIO_RATE, 1200)]
)
def test_music_is_decoded_as_far_as_it_can_be_heard(longest: int, seconds: int) -> None:
    assert music_seconds(longest) == seconds


def test_longer_videos_hear_more_of_the_music(store: Artifacts, tmp_path: Path) -> None:
    path = write_media(tmp_path / "long.wav", tune(100), codec="adpcm_ima_wav")
    source = Source("long.wav", "cd" * 32, path, path.stat().st_size)
    with store.lease() as lease:
        shop = workshop(lease, tmp_path)
        parts: list[Part] = [decode_music(source, shop, seconds * AUDIO_RATE) for seconds in (16, 20, 40, 70)]
    assert parts[0] == parts[1]
    assert [round(part.sound.samples / AUDIO_RATE) for part in parts[1:]] == [60, 90, 100]


def lasting(value: str) -> Seconds:
    return Seconds(Fraction(value))


OFF = MixSettings(loudness=None)


@pytest.mark.parametrize(
    ("first", "then", "made"),
    [
        (USUAL_MIX, USUAL_MIX, set()),
        (USUAL_MIX, MixSettings(music_gain=-20.0, voice_gain=2.0, voice_start=lasting("1")), set()),
        (USUAL_MIX, MixSettings(fade_in=lasting("0.25")), {"measure_mix", "render_body", "render_tails"}),
        (USUAL_MIX, MixSettings(loudness=-16.0), {"measure_mix", "render_body", "render_tails"}),
        (USUAL_MIX, OFF, {"render_body", "render_tails"}),
        (OFF, replace(OFF, fade_out=lasting("0.25")), {"render_tails"}),
    ],
)
def test_settings_make_again_what_they_change_and_nothing_else(
    store: Artifacts,
    tmp_path: Path,
    pool: ThreadPoolExecutor,
    song: Source,
    first: MixSettings,
    then: MixSettings,
    made: set[str],
) -> None:
    """Of music alone: what is for a voice-over changes nothing, and a body serves every fade-out."""
    with store.lease() as lease:
        shop = workshop(lease, tmp_path)
        earlier = of(shop, pool, song, settings=first).get(RECIPE, LENGTHS[0]).soundtrack
        before = len(tasks(shop))
        later = of(shop, pool, song, settings=then).get(RECIPE, LENGTHS[0]).soundtrack
        assert set(tasks(shop)[before:]) == made
        assert (later.runs[-1].path == earlier.runs[-1].path) is not bool(made)
        assert [run.own for run in later.runs] == [False, True]


def test_another_fade_out_of_the_same_length_is_measured_for_itself(
    store: Artifacts, tmp_path: Path, pool: ThreadPoolExecutor, song: Source
) -> None:
    with store.lease() as lease:
        shop = workshop(lease, tmp_path)
        of(shop, pool, song).get(RECIPE, LENGTHS[0])
        before = len(tasks(shop))
        of(shop, pool, song, settings=MixSettings(fade_out=lasting("0.25"))).get(RECIPE, LENGTHS[0])
        assert {"measure_mix", "render_tails"} <= set(tasks(shop)[before:])


def test_music_begins_where_it_shall(store: Artifacts, tmp_path: Path) -> None:
    signal = tune(6)
    signal[:, 3 * AUDIO_RATE : 3 * AUDIO_RATE + 9_600] = 0
    path = write_media(tmp_path / "song.wav", signal, codec="pcm_f32le")
    source = Source("song.wav", "ef" * 32, path, path.stat().st_size)
    with store.lease() as lease:
        shop = workshop(lease, tmp_path)
        parts = [decode_music(source, shop, 2 * AUDIO_RATE, lasting(start)) for start in ("0", "1.5", "3", "1.5")]
        heard = [read_pcm(part.pcm, 2) for part in parts]
    assert parts[1] == parts[3]
    assert len({part.key for part in parts}) == 3
    assert np.allclose(heard[1][:, :AUDIO_RATE], signal[:, AUDIO_RATE * 3 // 2 :][:, :AUDIO_RATE], atol=1e-6)
    assert np.allclose(heard[2][:, :AUDIO_RATE], signal[:, 3 * AUDIO_RATE : 4 * AUDIO_RATE], atol=1e-6)
    assert not heard[2][:, :9_600].any()


@pytest.mark.parametrize("start", ["4", "3.95", "600"])
def test_a_start_behind_the_end_is_refused_in_a_sentence(
    store: Artifacts, tmp_path: Path, song: Source, start: str
) -> None:
    with store.lease() as lease, pytest.raises(MixError) as caught:
        decode_music(song, workshop(lease, tmp_path), SPAN.longest, lasting(start))
    assert caught.value.code == "start_too_late"
    assert "ends after 4.0 s" in caught.value.public
    assert "send a smaller start" in caught.value.public


def test_silence_has_no_sound_from_anywhere(store: Artifacts, tmp_path: Path) -> None:
    source = write_silent_video(tmp_path / "silent.mp4")
    with store.lease() as lease, pytest.raises(MixError) as caught:
        decode_music(
            Source("silent.mp4", "12" * 32, source, source.stat().st_size),
            workshop(lease, tmp_path),
            SPAN.longest,
            lasting("2"),
        )
    assert caught.value.code == "no_audio"


def test_the_longest_soundtrack_has_room_for_the_time_before_the_voice_and_the_fade() -> None:
    nothing: Any = None
    late = MixSettings(voice_start=lasting("1.5"), fade_out=lasting("2"))
    for settings, longest in ((USUAL_MIX, Fraction(7, 2)), (late, Fraction(13, 2))):
        plan = make_plan((1,), lines=(3,), mix=settings)
        pieces = Pieces(plan, nothing, nothing, None)
        two = 2 * AUDIO_RATE
        begin = round(settings.voice_start * AUDIO_RATE)
        room = pieces.span(Recipe(None, (Spoken(0, Fraction(1), begin),)))
        assert (room.shortest, room.longest) == (two, round((longest + Fraction(1, 30)) * AUDIO_RATE) + 1)
        assert pieces.span(RECIPE) == Range(two, two)
