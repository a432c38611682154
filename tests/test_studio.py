"""One job's variations: made, kept, played before they are delivered, and told as rows."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
from dataclasses import replace

import av
import pytest
import structlog
from av.video.reformatter import ColorRange

from clips import make_clip, number_of
from crosscut.artifacts import Artifacts
from crosscut.bootstrap import CHILD_MODULES
from crosscut.destinations.folder import FolderDestination
from crosscut.errors import DeliverError, StorageError
from crosscut.fetch import Fetcher
from crosscut.gather import decide
from crosscut.plandoc import PlanDoc
from crosscut.report import COLUMNS
from crosscut.request import parse_request
from crosscut.sandbox import Sandbox
from crosscut.studio import DELIVERIES, Studio
from crosscut.telemetry import Telemetry
from crosscut.units import Failure, Output
from crosscut.workshop import Meters, Once, Threads, Workshop
from fakes import ToneVoice
from sounds import tune, write_media

SIZE = (64, 96)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(CHILD_MODULES) as sandbox:
        yield sandbox


class Counted:
    """A sandbox that counts what it is asked for."""

    def __init__(self, inner):
        self.inner = inner
        self.tasks = []

    def run(self, task, **more):
        self.tasks.append(task)
        return self.inner.run(task, **more)


@pytest.fixture
def place(tmp_path):
    make_clip(tmp_path / "a.mp4", frames=45, fps=30, size=SIZE, first=0)
    make_clip(tmp_path / "b.mp4", frames=24, fps=24, size=SIZE, first=20)
    make_clip(tmp_path / "c.mp4", frames=15, fps=30, size=SIZE, first=40)
    write_media(tmp_path / "song.wav", tune(4))
    return tmp_path


@pytest.fixture
def shop(place, sandbox):
    with Artifacts(place / "data", 1 << 30).lease() as lease:
        yield Workshop(
            lease=lease,
            sandbox=Counted(sandbox),
            fetcher=Fetcher(lease),
            voice=ToneVoice(),
            telemetry=Telemetry(),
            workers=2,
            memory_bytes=1 << 30,
        )


BLOCKS = {"one": ["a.mp4", "b.mp4"], "two": ["c.mp4"]}
SOUND = {"audio_blocks": {"m": ["song.wav"]}, "text_to_speech": [{"text": "Hi you"}]}


def studio_for(place, shop, **body):
    request = parse_request({"task_name": "t", **(body or {"video_blocks": BLOCKS, **SOUND})}, local=True)
    # Through JSON, as a worker gets it.
    return Studio(request, PlanDoc.of(decide(request, place, shop).as_json()), shop, place)


def everything(studio, place, **more):
    with FolderDestination(place / "out").open("t") as delivery:
        made = list(studio.make(range(1, len(studio.plan) + 1), delivery, **more))
    return sorted(made, key=lambda output: output.index)


def files(place):
    return {path.name: path.read_bytes() for path in (place / "out" / "t").iterdir()}


class Mute(ToneVoice):
    def speak(self, *_):
        raise AssertionError("who only looks does not speak")


# Made


def test_each_variation_is_made_once_and_told_in_a_row(place, shop):
    studio = studio_for(place, shop)
    outputs = everything(studio, place)
    rows = [studio.row(output.index, output) for output in outputs]
    assert set(rows[0]) == {*COLUMNS, "name"}
    assert [(row["index"], row["clips"], row["error"]) for row in rows] == [
        (1, ["a.mp4", "c.mp4"], None),
        (2, ["b.mp4", "c.mp4"], None),
    ]
    assert {row["file"]: row["bytes"] for row in rows} == {name: len(data) for name, data in files(place).items()}
    assert rows[0]["duration"] == pytest.approx(2.0, abs=0.01)
    with av.open(str(place / "out" / "t" / rows[0]["file"])) as container:
        numbers = [number_of(frame) for frame in container.decode(video=0)]
    assert (numbers[0], numbers[44], numbers[45]) == (0, 44, 40)


def test_a_row_tells_what_is_not_made_yet_and_what_went_wrong(place, shop):
    studio = studio_for(place, shop)
    waiting = studio.row(1)
    assert (waiting["file"], waiting["error"], waiting["duration"]) == (None, None, pytest.approx(2.0, abs=0.01))
    failed = studio.row(1, Output(1, error=Failure("deliver", "refused", "it was refused")))
    assert (failed["file"], failed["error"], failed["duration"]) == (None, "it was refused", None)


def test_why_a_variation_cannot_be_made_is_known_from_the_plan_and_from_broken_clips(place, shop):
    studio = studio_for(place, shop, video_blocks={"one": ["a.mp4", "gone.mp4"], "two": ["c.mp4", "b.mp4"]})
    broken = {(0, 1, 1): "b.mp4 could not be encoded"}
    reasons = [studio.cannot(index, broken) for index in range(1, 5)]
    assert reasons[:2] == [None, "b.mp4 could not be encoded"]
    assert all("gone.mp4 does not exist" in reason for reason in reasons[2:])
    assert studio.cannot(2) is None
    assert studio.places_of("b.mp4") == {(1, 1)}
    assert [row["index"] for row in studio.rows([], broken=broken)] == [2, 3, 4]


def test_what_failed_is_tried_again_by_the_next_who_asks(place, shop):
    studio = studio_for(place, shop)
    source = studio.doc.sources["song.wav"]
    song = place / "song.wav"
    song.rename(place / "away")
    lost = Artifacts(place / "data", 1 << 30).blob(source.sha256, "")
    lost.unlink()
    held = shop.lease.get(source.sha256)
    held.unlink()
    assert {output.error.code for output in everything(studio, place)} == {"not_found"}
    shutil.copy2(place / "away", song)
    assert [output.error for output in everything(studio, place)] == [None, None]


def test_a_full_disk_ends_all_and_tells_what_was_finished(place, shop):
    clips = ["a.mp4", "b.mp4", "c.mp4"]
    studio = studio_for(place, shop, video_blocks={"one": clips, "two": clips, "three": clips})

    class Full:
        grouped = False
        location = "there"
        left = 3
        lock = threading.Lock()
        puts = 0

        def holds(self, *_):
            return False

        def put(self, name, file):
            with self.lock:
                self.puts += 1
                self.left -= 1
                if self.left < 0:
                    raise StorageError("the disk is full", code="disk_full", retryable=True)
            return self.inner.put(name, file)

    full, made = Full(), []
    with FolderDestination(place / "out").open("t") as full.inner, pytest.raises(StorageError):
        for output in studio.make(range(1, 28), full):
            made.append(output)  # noqa: PERF402 - what came before the error counts
    assert sorted(output.index for output in made) == sorted(
        index for index in range(1, 28) if studio.plan.variation(index).name in files(place)
    )
    assert len(made) == 3
    assert full.puts <= 3 + DELIVERIES


def test_an_unexpected_error_costs_one_variation(place, shop):
    studio = studio_for(place, shop)

    class Broken:
        grouped = False

        def holds(self, *_):
            return False

        def put(self, *_):
            raise ZeroDivisionError

    outputs = list(studio.make([1, 2], Broken()))
    assert [output.error.code for output in outputs] == ["unexpected"] * 2
    assert all("report it" in output.error.public for output in outputs)


def test_other_tools_may_be_taken_in_hand(place, shop):
    studio = studio_for(place, shop)
    everything(studio, place)
    meters, log = Meters(), io.StringIO()
    studio.use(replace(shop, telemetry=Telemetry(None, [log]), meters=meters))
    everything(studio, place)
    assert meters.read()["bytes_out"] == sum(map(len, files(place).values()))
    assert {json.loads(line)["stage"] for line in log.getvalue().splitlines()} == {"deliver"}


# Kept


def test_what_is_there_whole_is_kept(place, shop):
    studio = studio_for(place, shop)
    first = {output.index: output for output in everything(studio, place)}
    again = everything(studio, place, earlier=first.get)
    assert again == [replace(output, kept=True) for output in first.values()]
    (place / "out" / "t" / studio.plan.variation(1).name).write_bytes(b"short")
    assert [output.kept for output in everything(studio, place, earlier=first.get)] == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        {"music_gain": -20},
        {"voice_start": 0.2},
        {"audio_blocks": {"m": [{"url": "song.wav", "start": 1}]}},
        {"fit": "crop", "formats": ["64x64"]},
    ],
)
def test_what_was_made_otherwise_is_made_again(place, shop, other):
    first = {output.index: output for output in everything(studio_for(place, shop), place)}
    changed = studio_for(place, shop, video_blocks=BLOCKS, **{**SOUND, **other})
    assert [output.kept for output in everything(changed, place, earlier=first.get)] == [False, False]


def test_what_was_made_of_a_source_is_kept_when_the_source_is_gone(place, shop):
    first = {output.index: output for output in everything(studio_for(place, shop), place)}
    (place / "a.mp4").unlink()
    gone = studio_for(place, shop)
    again = everything(gone, place, earlier=first.get)
    assert [(output.kept, output.error) for output in again] == [(True, None), (True, None)]
    assert gone.row(1, again[0])["file"] == gone.plan.variation(1).name
    assert everything(gone, place)[0].error.code == "unusable_source"


def test_a_recipe_is_the_same_wherever_it_is_worked_out(place, shop):
    one, other = studio_for(place, shop), studio_for(place, shop)
    assert [one.fingerprint(variation) for variation in one.plan] == [
        other.fingerprint(variation) for variation in other.plan
    ]
    assert one.fingerprint(one.plan.variation(1)) != one.fingerprint(one.plan.variation(2))


def test_a_recipe_says_how_the_file_lies_where_that_is_not_as_usual(place, shop):
    studio = studio_for(place, shop)
    variation = studio.plan.variation(1)
    usual, grouped = (studio.fingerprint(variation, grouped=grouped) for grouped in (False, True))
    assert usual == studio.fingerprint(variation)
    assert (usual[:16] == grouped[:16], usual == grouped) == (True, False)


# With captions


SPOKEN = {
    "audio_blocks": {"m": ["song.wav"]},
    "text_to_speech": [{"text": "Look here. Now try it!", "language": "de"}],
    "captions": "soft",
}


def captions_of(path):
    """(start, end, text) of each cue of a video, as a demuxer finds them, in milliseconds."""
    with av.open(str(path)) as container:
        found = container.streams.subtitles
        packets = [packet for stream in found for packet in container.demux(stream) if packet.size]
        assert {(stream.codec_context.name, stream.language) for stream in found} <= {("mov_text", "deu")}
        scale = {1000 * packet.time_base for packet in packets}
    assert scale <= {1}
    shown = [(packet.pts, packet.pts + packet.duration, bytes(packet)[2:].decode()) for packet in packets]
    return [cue for cue in shown if cue[2]]


def captions_beside(data):
    """The same of a SubRip file."""
    cues = []
    for block in data.decode().split("\r\n\r\n")[:-1]:
        _, times, *lines = block.split("\r\n")
        hours, minutes, seconds, rest, *end = map(int, re.split(r":|,| --> ", times))
        ends = (
            ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest,
            ((end[0] * 60 + end[1]) * 60 + end[2]) * 1000 + end[3],
        )
        cues.append((*ends, "\n".join(lines)))
    return cues


def test_captions_are_in_the_video_and_beside_it_at_the_times_of_the_voice(place, shop):
    studio = studio_for(place, shop, video_blocks=BLOCKS, **SPOKEN)
    outputs = everything(studio, place)
    rows = [studio.row(output.index, output) for output in outputs]
    assert [row["error"] for row in rows] == [None, None]
    for row in rows:
        assert row["captions"] == row["file"].replace(".mp4", ".srt")
        cues = captions_of(place / "out" / "t" / row["file"])
        assert cues == captions_beside(files(place)[row["captions"]])
        # ToneVoice says a word every 300 ms.
        assert [(start, text) for start, _, text in cues] == [(0, "Look here. Now try it!")]
        assert 1400 <= cues[-1][1] <= row["duration"] * 1000
    assert len(files(place)) == 4


def test_captions_are_as_fast_as_the_voice_and_begin_with_it(place, shop):
    sentence = "Words " + " ".join(["word"] * 6) + " end."
    said = {"text_to_speech": [{"text": f"{sentence} {sentence}", "language": "de"}], "voice_overflow": "speed"}
    blocks = {"one": ["a.mp4", "c.mp4"]}
    studio = studio_for(place, shop, video_blocks=blocks, captions="soft", voice_start=0.25, **said)
    assert max(variation.speed for variation in studio.plan) > 1
    everything(studio, place)
    for variation in studio.plan:
        cues = captions_of(place / "out" / "t" / variation.name)
        assert [start for start, _, _ in cues] == [250, round(250 + 300 * 8 / variation.speed)]


def test_a_silent_variation_has_no_captions_and_none_are_left_beside_it(place, shop):
    everything(studio_for(place, shop, video_blocks=BLOCKS, **SPOKEN), place)
    silent = studio_for(place, shop, video_blocks=BLOCKS, captions="soft")
    outputs = everything(silent, place)
    assert [silent.row(output.index, output)["captions"] for output in outputs] == [None, None]
    assert {name[-4:] for name in files(place)} == {".mp4"}
    assert captions_of(place / "out" / "t" / silent.plan.variation(1).name) == []


def test_captions_change_what_a_variation_is_only_where_they_are(place, shop):
    def prints(**body):
        studio = studio_for(place, shop, video_blocks=BLOCKS, **body)
        return [studio.fingerprint(variation) for variation in studio.plan]

    spoken = {name: SPOKEN[name] for name in ("audio_blocks", "text_to_speech")}
    plain, soft = prints(**spoken), prints(**SPOKEN)
    assert all(one[:16] != other[:16] and one[16:] != other[16:] for one, other in zip(plain, soft, strict=True))
    assert prints(captions="none", **spoken) == plain
    assert prints(captions="soft") == prints()
    english = {**SPOKEN, "text_to_speech": [{**SPOKEN["text_to_speech"][0], "language": "en"}]}
    assert not set(prints(**english)) & set(soft)


def test_a_video_is_kept_with_its_captions_or_made_again(place, shop):
    studio = studio_for(place, shop, video_blocks=BLOCKS, **SPOKEN)
    first = {output.index: output for output in everything(studio, place)}
    assert [output.kept for output in everything(studio, place, earlier=first.get)] == [True, True]
    beside = place / "out" / "t" / studio.row(1, first[1])["captions"]
    before = files(place)
    beside.unlink()
    assert [output.kept for output in everything(studio, place, earlier=first.get)] == [False, True]
    assert files(place) == before


class Failing:
    """A delivery that fails to write what its name says."""

    grouped = False

    def __init__(self, inner, suffix):
        self.inner = inner
        self.suffix = suffix

    def holds(self, *arguments):
        return self.inner.holds(*arguments)

    def remove(self, name):
        self.inner.remove(name)

    def put(self, name, file):
        self._fail(name)
        return self.inner.put(name, file)

    def put_text(self, name, parts):
        self._fail(name)
        self.inner.put_text(name, parts)

    def _fail(self, name):
        if name.endswith(self.suffix):
            raise DeliverError("it was refused", code="refused", retryable=True)


@pytest.mark.parametrize("suffix", [".mp4", ".srt"])
def test_captions_are_written_with_their_video_or_not_reported_and_a_retry_writes_both(place, shop, suffix):
    studio = studio_for(place, shop, video_blocks=BLOCKS, **SPOKEN)
    with FolderDestination(place / "out").open("t") as delivery:
        outputs = list(studio.make([1, 2], Failing(delivery, suffix)))
        assert [output.error.code for output in outputs] == ["refused"] * 2
        assert not [name for name in files(place) if name.endswith(".srt")]
        assert [studio.row(output.index, output)["captions"] for output in outputs] == [None, None]
        assert [output.error for output in studio.make([1, 2], delivery)] == [None, None]
        whole = files(place)
        assert len(whole) == 4
        list(studio.make([1, 2], Failing(delivery, suffix)))
        assert not [name for name in files(place) if name.endswith(".srt")]
        list(studio.make([1, 2], delivery))
    assert files(place) == whole


def test_a_preview_has_the_captions_of_the_file(place, shop):
    studio = studio_for(place, shop, video_blocks=BLOCKS, **SPOKEN)
    assert studio.playable(1) is None
    everything(studio, place)
    other = Studio(studio.plan.request, studio.doc, replace(shop, voice=Mute(), telemetry=Telemetry()), place)
    for watcher in (studio, other):
        for variation in studio.plan:
            file = watcher.playable(variation.index)
            assert b"".join(file.blocks()) == files(place)[variation.name]
            assert b"tx3g" in file.read_range(0, 20_000)


# Played


def test_a_variation_is_playable_as_soon_as_its_pieces_exist_and_is_the_file_that_is_delivered(place, shop):
    studio = studio_for(place, shop)
    before = len(shop.sandbox.tasks)
    assert studio.playable(1) is None
    assert len(shop.sandbox.tasks) == before
    everything(studio, place)
    made = len(shop.sandbox.tasks)
    other = Studio(studio.plan.request, studio.doc, replace(shop, telemetry=Telemetry()), place)
    for watcher in (studio, other):
        for variation in studio.plan:
            file = watcher.playable(variation.index)
            assert b"".join(file.blocks()) == files(place)[variation.name]
    assert len(shop.sandbox.tasks) == made


@pytest.mark.parametrize("suffix", [".mp4", ".m4a", ".pcm", ".profile", ".json"])
def test_a_variation_without_one_of_its_pieces_is_not_playable(place, shop, suffix):
    studio = studio_for(place, shop)
    everything(studio, place)
    for path in (place / "data").glob(f"*/*/*{suffix}"):
        path.unlink()
    log = io.StringIO()
    told = replace(shop, voice=Mute(), telemetry=Telemetry(None, [log]))
    other = Studio(studio.plan.request, studio.doc, told, place)
    tasks = len(shop.sandbox.tasks)
    assert other.playable(1) is None
    assert len(shop.sandbox.tasks) == tasks
    assert log.getvalue() == ""
    other.use(shop)
    everything(other, place)
    assert other.playable(1) is not None


def test_a_variation_that_cannot_be_made_is_not_playable(place, shop):
    studio = studio_for(place, shop, video_blocks={"one": ["a.mp4", "gone.mp4"]})
    assert studio.playable(2) is None
    assert studio.poster(2) is None


def test_silent_copies_are_playable_before_anything_is_made(place, shop):
    studio = studio_for(place, shop, video_blocks={"one": ["a.mp4"], "two": ["c.mp4"]})
    assert studio.playable(1) is not None


# Posters


def picture(data):
    with av.open(io.BytesIO(data), format="jpeg_pipe") as container:
        return next(container.decode(video=0))


def test_a_poster_shows_the_middle_of_a_short_first_clip(place, shop):
    studio = studio_for(place, shop, video_blocks=BLOCKS)
    from_source = picture(studio.poster(1))
    everything(studio, place)
    assert any(path.suffix == ".mp4" for path in (place / "data" / "blobs").glob("*/*"))
    from_segment = picture(studio.poster(1))
    for frame in (from_source, from_segment):
        assert (frame.width, frame.height) == SIZE
        limited = frame.reformat(format="yuv420p", src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.MPEG)
        assert number_of(limited) == pytest.approx(22, abs=1)


def test_a_poster_is_of_the_formats_shape_and_640_pixels_at_most(place, shop):
    studio = studio_for(place, shop, video_blocks={"one": ["a.mp4"]}, formats=["1280x720"], fit="crop")
    frame = picture(studio.poster(1))
    assert (frame.width, frame.height) == (640, 360)


def test_there_is_no_poster_where_nothing_is_at_hand(place, shop):
    studio = studio_for(place, shop, video_blocks={"one": ["a.mp4"]})
    shop.lease.get(studio.doc.sources["a.mp4"].sha256).unlink()
    Artifacts(place / "data", 1 << 30).blob(studio.doc.sources["a.mp4"].sha256, "").unlink()
    assert studio.poster(1) is None


# Tools


def test_pools_hand_the_log_context_on_to_their_threads():
    log = io.StringIO()
    with structlog.contextvars.bound_contextvars(job="j1"), Threads(1) as pool:
        pool.submit(Telemetry(None, [log]).log.info, "one").result()
    assert json.loads(log.getvalue())["job"] == "j1"


def test_what_is_done_once_is_bounded_and_forgets_errors_when_told():
    asked = []

    def make(key):
        asked.append(key)
        if key == "bad" and asked.count("bad") == 1:
            raise DeliverError("no")
        return key

    once = Once(make, kept=2)
    for key in ("a", "b", "a", "c", "a"):
        assert once.get(key) == key
    assert asked == ["a", "b", "c"]
    assert "b" not in once
    for _ in range(2):
        with pytest.raises(DeliverError):
            once.get("bad")
    once.forget_errors()
    assert once.get("bad") == "bad"
    assert asked.count("bad") == 2
