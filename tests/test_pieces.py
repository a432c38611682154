"""Segments and soundtracks from the store: shared, bounded in memory, made again where they are damaged."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from crosscut.artifacts import Artifacts
from crosscut.fetch import Fetcher, Source
from crosscut.media import AUDIO_RATE, Format
from crosscut.segments import profile_sets
from crosscut.soundtracks import Part, Range, Recipe, Soundtracks, decode_music, music_seconds
from crosscut.telemetry import Telemetry
from crosscut.workshop import Workshop
from fakes import ToneVoice
from sounds import child, tune, write_media

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from crosscut.artifacts import Lease

RECIPE = Recipe(0, None, Fraction(1))
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


def of(shop: Workshop, pool: ThreadPoolExecutor, song: Source, kept: int = 100) -> Soundtracks:
    part = decode_music(song, shop, SPAN.longest)
    return Soundtracks(shop, pool, lambda _: (part, None), -14.0, lambda _: SPAN, kept)


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
