"""Whole variations with the clips' own sound, parts of clips, lines that belong to a place, captions in pictures."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import av
import numpy as np
import pyloudnorm
import pytest

from clips import RATE, make_clip, number_of
from crosscut.artifacts import Artifacts
from crosscut.bootstrap import CHILD_MODULES
from crosscut.destinations.folder import FolderDestination
from crosscut.estimate import estimate
from crosscut.fetch import Fetcher
from crosscut.gather import decide
from crosscut.plandoc import PlanDoc
from crosscut.request import parse_request
from crosscut.sandbox import Sandbox
from crosscut.studio import Studio
from crosscut.telemetry import Telemetry
from crosscut.workshop import Workshop
from fakes import ToneVoice
from sounds import tune, write_media

SIZE = (64, 96)
TONES = {"a": 500.0, "b": 900.0, "c": 1_300.0, "d": 1_900.0}
VOICE = 220.0
"""What `ToneVoice` beeps at."""
QUIET = 12.0
"""dB that a tone must lie below another to be taken for absent."""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(CHILD_MODULES) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for first, (name, hertz) in enumerate(TONES.items()):
        frames = 60 if name in "ab" else 75
        make_clip(folder / f"{name}.mp4", frames=frames, fps=30, size=SIZE, first=first, audio=True, hertz=hertz)
    make_clip(folder / "mute.mp4", frames=45, fps=30, size=SIZE, first=4)
    make_clip(folder / "still.mp4", frames=45, fps=30, size=SIZE, first=5)
    write_media(folder / "song.wav", tune(4))
    return folder


class Counted:
    """A sandbox that counts what it is asked for."""

    def __init__(self, inner):
        self.inner = inner
        self.tasks = Counter()

    def run(self, task, **more):
        self.tasks[task.partition(":")[2]] += 1
        return self.inner.run(task, **more)


@pytest.fixture
def shop(tmp_path, sandbox):
    with Artifacts(tmp_path / "data", 1 << 30).lease() as lease:
        yield Workshop(
            lease=lease,
            sandbox=Counted(sandbox),
            fetcher=Fetcher(lease),
            voice=ToneVoice(),
            telemetry=Telemetry(),
            workers=2,
            memory_bytes=1 << 30,
        )


class Made:
    """A request, carried out."""

    def __init__(self, place, shop, out, **body):
        request = parse_request({"task_name": "t", **body}, local=True)
        doc = PlanDoc.of(decide(request, place, shop).as_json())
        self.studio = Studio(request, doc, shop, place)
        self.plan = self.studio.plan
        self.folder = out / "t"
        shop.sandbox.tasks.clear()
        with FolderDestination(out).open("t") as delivery:
            outputs = sorted(self.studio.make(range(1, len(self.plan) + 1), delivery), key=lambda one: one.index)
        assert [output.error for output in outputs] == [None] * len(outputs)
        self.outputs = outputs
        self.rows = [self.studio.row(output.index, output) for output in outputs]
        self.tasks = Counter(shop.sandbox.tasks)

    def sound(self, index):
        with av.open(str(self.folder / self.rows[index - 1]["file"])) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(frames, axis=1)

    def frames(self, index):
        with av.open(str(self.folder / self.rows[index - 1]["file"])) as container:
            return [(frame.time, frame) for frame in container.decode(video=0)]


def level(sound, hertz, start, stop):
    """dB of a tone in a part of the sound, of full scale."""
    part = sound[:, round(start * RATE) : round(stop * RATE)].mean(axis=0)
    times = np.arange(len(part)) / RATE
    window = np.hanning(len(part))
    found = abs((part * window * np.exp(-2j * np.pi * hertz * times)).sum()) / window.sum() * 2
    return 20 * np.log10(max(found, 1e-9))


def heard(sound, start, stop):
    """Which clip's tone is heard there, if it is the only one."""
    levels = {name: level(sound, hertz, start, stop) for name, hertz in TONES.items()}
    first, second = sorted(levels, key=levels.get, reverse=True)[:2]
    return first if levels[first] > -60 and levels[first] - levels[second] > QUIET else None


def loudness(sound):
    return pyloudnorm.Meter(RATE).integrated_loudness(sound.T.astype(np.float64))


TWO = {"one": ["a.mp4", "b.mp4"], "two": ["c.mp4", "d.mp4"]}


def test_each_clip_is_heard_where_it_is_seen_at_the_target(place, shop, tmp_path):
    made = Made(place, shop, tmp_path, video_blocks=TWO, clip_sound="keep")
    for index, names in enumerate(itertools.product("ab", "cd"), 1):
        sound = made.sound(index)
        assert (heard(sound, 0.2, 1.9), heard(sound, 2.1, 3.9)) == names
        assert loudness(sound) == pytest.approx(-14, abs=0.5)
        assert made.rows[index - 1]["loudness"] == pytest.approx(loudness(sound), abs=0.2)
        assert made.rows[index - 1]["true_peak"] <= -1
        assert made.rows[index - 1]["loudness_before"] is not None
    again = Made(place, shop, tmp_path / "again", video_blocks=TWO, clip_sound="keep")
    assert not again.tasks, "all pieces are there"


def test_more_combinations_need_no_more_sounds_than_clips_and_neighbours(place, shop, tmp_path):
    blocks = {name: ["a.mp4", "b.mp4", "c.mp4"] for name in ("one", "two", "three")}
    made = Made(place, shop, tmp_path, video_blocks=blocks, clip_sound="keep")
    assert len(made.outputs) == 27
    sounds = sum(made.tasks.values()) - made.tasks["encode"] - made.tasks["decode_clip"]
    assert sounds <= 3 + 2 * 9 + 2 * 3 * 3, made.tasks
    assert all(abs(loudness(made.sound(index)) + 14) <= 0.5 for index in (1, 9, 14, 27))


def test_the_sound_of_clips_goes_down_under_a_voice_and_music_under_both(place, shop, tmp_path):
    made = Made(
        place,
        shop,
        tmp_path,
        video_blocks={"one": ["a.mp4"], "two": ["c.mp4"]},
        audio_blocks={"m": ["song.wav"]},
        text_to_speech=[{"text": "Hi you there"}],
        clip_sound="keep",
    )
    sound = made.sound(1)
    assert level(sound, VOICE, 0.02, 0.18) > level(sound, TONES["a"], 0.02, 0.18) + 6
    assert level(sound, TONES["c"], 3, 4) > level(sound, TONES["a"], 0.02, 0.18) + 6
    assert loudness(sound) == pytest.approx(-14, abs=0.5)


def test_clips_that_are_all_silent_have_the_soundtrack_of_muted_ones(place, shop, tmp_path):
    body = {"video_blocks": {"one": ["mute.mp4", "still.mp4"]}, "audio_blocks": {"m": ["song.wav"]}}
    kept = Made(place, shop, tmp_path / "kept", **body, clip_sound="keep")
    muted = Made(place, shop, tmp_path / "muted", **body)
    assert not muted.tasks
    assert [output.sha256 for output in kept.outputs] == [output.sha256 for output in muted.outputs]


def test_a_clip_is_as_loud_where_somebody_has_spoken_as_where_nobody_does(place, shop, tmp_path):
    blocks = {"one": ["c.mp4"], "two": [{"url": "c.mp4", "label": "again"}], "three": ["mute.mp4"]}
    lines = [{"text": "Hi", "block": "one"}]
    made = Made(place, shop, tmp_path, video_blocks=blocks, text_to_speech=lines, clip_sound="keep")
    sound = made.sound(1)
    # By then it has come up again from under the voice.
    assert level(sound, TONES["c"], 2.36, 2.46) == pytest.approx(level(sound, TONES["c"], 4.86, 4.96), abs=0.4)
    assert loudness(sound) == pytest.approx(-14, abs=0.5)


def test_a_volume_is_heard(place, shop, tmp_path):
    def levels(volume):
        clip = {"url": "c.mp4", "volume": volume}
        made = Made(
            place, shop, tmp_path / str(volume), video_blocks={"one": ["a.mp4"], "two": [clip]}, clip_sound="keep"
        )
        sound = made.sound(1)
        return level(sound, TONES["a"], 0.5, 1.5), level(sound, TONES["c"], 2.5, 3.5), loudness(sound)

    first, usual, _ = levels(1)
    other, half, whole = levels(0.5)
    assert (other - half) - (first - usual) == pytest.approx(6.02, abs=1)
    assert whole == pytest.approx(-14, abs=0.5)
    _, none, whole = levels(0)
    assert none < -60
    assert whole == pytest.approx(-14, abs=0.5)


def test_a_part_of_a_clip_is_seen_and_heard(place, shop, tmp_path):
    make_clip(place / "long.mp4", frames=66, fps=30, size=SIZE, first=0, audio=True, hertz=TONES["b"])
    cut = {"url": "long.mp4", "start": 0.5, "end": 2, "label": "Middle"}
    made = Made(place, shop, tmp_path, video_blocks={"one": [cut], "two": ["c.mp4"]}, clip_sound="keep")
    frames = made.frames(1)
    assert len(frames) == 45 + 75
    assert [number_of(frame) for _, frame in frames[:45]] == list(range(15, 60))
    assert made.rows[0]["clips"] == ["Middle", "c.mp4"]
    assert made.rows[0]["file"].startswith("1_Middle")
    assert (heard(made.sound(1), 0.1, 1.4), heard(made.sound(1), 1.6, 3.9)) == ("b", "c")


def test_a_line_is_spoken_where_it_belongs_and_its_clip_is_held_for_it(place, shop, tmp_path):
    lines = [{"text": "one two three four five six seven eight", "block": "one"}, {"text": "end", "clip": "c.mp4"}]
    made = Made(place, shop, tmp_path, video_blocks=TWO, text_to_speech=lines)
    # Eight words of 0.3 s are 2.4 s, 12 frames longer than the first clip; one more is to be clear of the next.
    for index, with_end in enumerate([True, False, True, False], 1):
        variation = made.plan.variation(index)
        assert [slot.hold for slot in variation.slots] == [13, 0]
        times = [time for time, _ in made.frames(index)]
        assert (times[59], times[60]) == (pytest.approx(59 / 30), pytest.approx(73 / 30))
        sound = made.sound(index)
        assert level(sound, VOICE, 0.02, 0.18) > -40
        assert (level(sound, VOICE, 73 / 30 + 0.02, 73 / 30 + 0.18) > -40) == with_end
        assert made.rows[index - 1]["hold"] == pytest.approx(13 / 30, abs=1e-6)
    assert made.rows[0]["voice_over"] == "one two three four five six seven eight / end"


def test_a_line_for_the_whole_video_waits_until_the_bound_ones_are_done(place, shop, tmp_path):
    lines = [{"text": "now", "block": "one"}, {"text": "a b c"}]
    made = Made(place, shop, tmp_path, video_blocks={"one": ["a.mp4"], "two": ["c.mp4"]}, text_to_speech=lines)
    said = made.plan.variation(1).said
    assert [each.line for each in said] == [0, 1]
    assert said[1].start >= said[0].end


def test_what_is_kept_from_before_is_what_sounds_the_same(place, shop, tmp_path):
    def sent(volume, **more):
        blocks = {"one": [{"url": "a.mp4", "volume": volume}], "two": ["c.mp4"]}
        made = Made(place, shop, tmp_path, video_blocks=blocks, clip_sound="keep", **more)
        return made.outputs[0].recipe

    assert sent(1) == sent(1) != sent(0.5)


def test_a_preview_is_the_video_byte_for_byte(place, shop, tmp_path):
    lines = [{"text": "now then", "block": "two"}]
    made = Made(place, shop, tmp_path, video_blocks=TWO, clip_sound="keep", text_to_speech=lines)
    for index, row in enumerate(made.rows, 1):
        played = made.studio.playable(index)
        assert played.read_range(0, len(played)) == (made.folder / row["file"]).read_bytes()


def test_captions_are_drawn_while_their_words_are_spoken_once_for_each_clip_and_line(place, shop, tmp_path):
    lines = [{"text": "one two three", "block": "two"}]
    body = {"video_blocks": TWO, "text_to_speech": lines}
    plain = Made(place, shop, tmp_path / "plain", **body)
    burnt = Made(place, shop, tmp_path / "burnt", **body, captions="burn")
    price = estimate(burnt.plan, {}, str)
    assert (price["clips_to_encode"], price["captions_to_draw"]) == (4, {"encodes": 2, "exact": True})
    assert burnt.tasks["encode"] == 4
    for index in range(1, 5):
        changed = [
            bool(np.abs(a.to_ndarray().astype(int) - b.to_ndarray().astype(int)).max() > 60)
            for (_, a), (_, b) in zip(plain.frames(index), burnt.frames(index), strict=True)
        ]
        assert not any(changed[:60])
        assert all(changed[62:85])
    assert not list((tmp_path / "burnt" / "t").glob("*.srt"))


def test_captions_of_a_line_over_the_whole_video_run_through_its_clips_and_its_hold(place, shop, tmp_path):
    words = " ".join("word" for _ in range(18))
    body = {"video_blocks": {"one": ["a.mp4"], "two": ["c.mp4"]}, "text_to_speech": [{"text": words}]}
    plain = Made(place, shop, tmp_path / "plain", **body)
    burnt = Made(place, shop, tmp_path / "burnt", **body, captions="burn", caption_style="box")
    last, end = plain.frames(1)[-1], burnt.frames(1)
    assert len(end) > len(plain.frames(1)), "the held picture is repeated: captions go on over it"
    assert end[-1][0] > last[0]
    with av.open(str(burnt.folder / burnt.rows[0]["file"])) as container:
        length = container.duration
    with av.open(str(plain.folder / plain.rows[0]["file"])) as container:
        assert abs(container.duration - length) < 1000
    sent = json.dumps(burnt.rows[0])
    assert "word word" in sent
