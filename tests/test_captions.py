"""Captions: how words are divided, what SubRip and other programs read of them, and their track in a splice."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clips
import test_splice_browser as browser
from crosscut.captions import (
    LEAST,
    MOST,
    NARROW_LINE,
    WIDE_LINE,
    Captions,
    Cue,
    columns_for,
    companion,
    cues_of,
    samples_of,
    srt,
    within,
)
from crosscut.splice import AudioRun, Segment, Soundtrack, VirtualFile, read_segment, read_track, splice
from crosscut.voices import Word

if TYPE_CHECKING:
    from pathlib import Path

HOUR = Fraction(3600)


def spoken(text: str, *, pause: Fraction = Fraction(2, 5)) -> list[Word]:
    """Fifteen letters a second, a moment between words, a pause after sentences."""
    at, words = Fraction(0), []
    for token in text.split():
        end = at + Fraction(len(token), 15)
        words.append(Word(token, at, end))
        at = end + Fraction(1, 20) + (pause if token[-1] in ".!?" else 0)
    return words


def texts(text: str, columns: int = WIDE_LINE) -> list[str]:
    return [cue.text for cue in cues_of(spoken(text), columns)]


# Where a text is divided


def test_sentences_are_cues_of_balanced_lines() -> None:
    text = "Tired of dull videos? Crosscut makes hundreds of them from a handful of clips, in minutes. Try it today!"
    assert texts(text) == [
        "Tired of dull videos?",
        "Crosscut makes hundreds of them\nfrom a handful of clips, in minutes.",
        "Try it today!",
    ]


def test_long_sentences_end_cues_at_commas_and_pauses() -> None:
    plain = "When the long winter was over at last, the whole village came out to see what the river had brought"
    assert texts(plain, NARROW_LINE)[0].replace("\n", " ").endswith("at last,")
    words = spoken("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen")
    later = [*words[:7], *(Word(word.text, word.start + 1, word.end + 1) for word in words[7:])]
    assert cues_of(later)[0].text.split()[-1] == "seven"


def test_short_sentences_share_a_cue_and_abbreviations_end_none() -> None:
    assert texts("Hi. Go!") == ["Hi. Go!"]
    assert texts("We met at approx. noon and had some bread.") == ["We met at approx. noon and had some bread."]


def test_ideographs_wrap_between_each_other_but_not_before_their_punctuation() -> None:
    text = "今日は新しい商品を紹介します。これは本当に素晴らしいと言われています。「ぜひ」お試しください！"
    cues = cues_of([Word(text, Fraction(0), Fraction(9))], NARROW_LINE)
    lines = [line for cue in cues for line in cue.text.split("\n")]
    assert "".join(lines) == text
    assert all(sum(2 for _ in line) <= NARROW_LINE for line in lines)
    assert not any(line[0] in "。」！" or line[-1] == "「" for line in lines)
    assert [cue.text[-1] for cue in cues][-2:] == ["。", "！"]


@pytest.mark.parametrize("count", range(1, 36))
def test_no_line_starts_with_what_closes_or_ends_with_what_opens(count: int) -> None:
    text = "字" * count + "、" + "字" * count + "「字」っ" + "字" * 20
    cues = cues_of([Word(text, Fraction(0), Fraction(20))], NARROW_LINE)
    lines = [line for cue in cues for line in cue.text.split("\n")]
    assert "".join(lines) == text
    assert not any(line[0] in "、」っ" or line[-1] == "「" for line in lines)


def test_korean_and_latin_words_stay_whole_among_ideographs() -> None:
    korean = "안녕하세요 오늘은 새로운 제품을 소개합니다 많이 사랑해 주세요 감사합니다"
    assert " ".join(texts(korean, NARROW_LINE)).split() == korean.split()
    mixed = "今日はCrosscutを使って動画を沢山作りましょう"
    (cue,) = cues_of([Word(mixed, Fraction(0), Fraction(3))], NARROW_LINE)
    assert "Crosscut" in cue.text
    assert cue.text.replace("\n", "") == mixed


def test_right_to_left_text_keeps_its_order_and_emoji_their_parts() -> None:
    arabic = "هذا نص عربي طويل بعض الشيء لاختبار تقسيم الأسطر في الترجمة المصاحبة"
    assert " ".join(texts(arabic, NARROW_LINE)).split() == arabic.split()
    family, flag, thumb = "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽"
    for emoji in (family, flag, thumb, "é", "क्षि"):
        (cue,) = cues_of([Word(emoji * 20, Fraction(0), Fraction(2))], NARROW_LINE)
        assert {line.replace(emoji, "") for line in cue.text.split("\n")} == {""}


def test_a_word_too_long_for_a_line_is_cut_and_timed_by_its_letters() -> None:
    one, two = cues_of([Word("a" * 80 + "b" * 20, Fraction(0), Fraction(10))], 40)
    assert one.text == "a" * 40 + "\n" + "a" * 40 or one.text == "a" * 40
    assert (one.text + two.text).replace("\n", "") == "a" * 80 + "b" * 20


def test_line_breaks_and_what_nobody_sees_are_spaces() -> None:
    words = [Word("one\n\n\ntwo", Fraction(0), Fraction(1)), Word("\u200b\ufeff", Fraction(1), Fraction(1))]
    words += [Word("th\x00ree\u2028\ud800four", Fraction(1), Fraction(2))]
    assert [cue.text for cue in cues_of(words)] == ["one two th ree four"]


# When they are shown


def test_times_follow_the_voice_its_speed_and_its_begin() -> None:
    words = [Word("One.", Fraction(0), Fraction(1)), Word("Two.", Fraction(5), Fraction(7))]
    one, two = cues_of(words, speed=Fraction(5, 4), begin=Fraction(1, 3))
    assert (one.start, one.end) == (333, 1333)
    assert (two.start, two.end) == (4333, 5933)


def test_a_cue_stays_long_enough_to_be_read_where_the_next_lets_it() -> None:
    words = [Word("Look!", Fraction(0), Fraction(1, 5)), Word("Now.", Fraction(3), Fraction(16, 5))]
    words += [Word("Quickly said but long to read, isn't it?", Fraction(6), Fraction(13, 2))]
    look, now, quick = cues_of(words)
    assert (look.end, now.end - now.start) == (LEAST, LEAST)
    assert quick.end - quick.start == 2000


def test_gaps_too_short_to_be_seen_are_closed_and_nothing_is_shown_for_long() -> None:
    words = [Word("One.", Fraction(0), Fraction(29, 10)), Word("Two.", Fraction(3), Fraction(20))]
    one, two = cues_of(words)
    assert one.end == two.start == 3000
    assert two.end - two.start == MOST


def test_words_without_times_of_their_own_still_follow_each_other() -> None:
    words = [
        Word(f"Number {number} is all that there is to be read here.", Fraction(1), Fraction(1)) for number in "123"
    ]
    cues = cues_of([*words, Word("Before?", Fraction(0), Fraction(1, 2))], NARROW_LINE)
    assert [cue.text.split()[1] for cue in cues[:3]] == ["1", "2", "3"]
    assert [cue.start for cue in cues[:3]] == [1000, 1001, 1002]
    assert all(one.start < one.end <= other.start for one, other in pairwise(cues))


def test_what_is_not_heard_before_the_end_is_left_out() -> None:
    words = [Word("One.", Fraction(0), Fraction(1)), Word("Two.", Fraction(3), Fraction(5))]
    captions = within(cues_of(words), Fraction(7, 2), "de")
    assert captions == Captions((Cue(0, 1000, "One."), Cue(3000, 3500, "Two.")), 3500, "deu")
    assert within(cues_of(words), Fraction(2999, 1000)).cues == captions.cues[:1]
    assert within([], Fraction(1), "xx") == Captions((), 1000, "und")


moments = st.fractions(0, 60, max_denominator=1000)
word_lists = st.lists(
    st.builds(
        lambda text, start, length: Word(text, start, start + length),
        st.text(max_size=90) | st.text("abc .,!?-->\n字。「é👍🏽", max_size=60),
        moments,
        st.fractions(0, 9, max_denominator=1000),
    ),
    max_size=12,
)


def essence(text: str) -> str:
    """What must not get lost: all that is neither blank nor invisible."""
    return "".join(character for character in text if unicodedata.category(character)[0] not in "CZM")


def display_width(line: str) -> int:
    """At least the columns of a line: its marks and joiners take none."""
    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in line
        if unicodedata.category(character)[0] in "LNPZ"
    )


@settings(deadline=None, max_examples=300)
@given(
    words=word_lists,
    columns=st.sampled_from([WIDE_LINE, NARROW_LINE]),
    length=moments,
    speed=st.fractions(1, Fraction(5, 4), max_denominator=20),
    begin=st.fractions(0, 5, max_denominator=100),
)
def test_cues_hold_for_any_words_and_length(
    words: list[Word], columns: int, length: Fraction, speed: Fraction, begin: Fraction
) -> None:
    cues = cues_of(words, columns, speed=speed, begin=begin)
    seen = [word for word in words if essence(word.text)]
    assert essence("".join(cue.text for cue in cues)) == essence("".join(word.text for word in seen))
    for cue in cues:
        lines = cue.text.split("\n")
        assert len(lines) <= 2
        assert all(line.strip() and display_width(line) <= columns for line in lines)
        assert 0 < cue.end - cue.start <= MOST
    assert all(one.end <= other.start for one, other in pairwise(cues))
    captions = within(cues, length)
    assert captions.cues == () or captions.cues[-1].end <= length * 1000
    assert [cue.text for cue in captions.cues] == [cue.text for cue in cues[: len(captions.cues)]]
    assert all(cue.start >= int(length * 1000) for cue in cues[len(captions.cues) :])
    samples = samples_of(captions)
    assert sum(ticks for ticks, _ in samples) == int(length * 1000)
    assert all(ticks > 0 and len(data) == 2 + int.from_bytes(data[:2]) for ticks, data in samples)


# SubRip


def read_srt(data: str) -> list[Cue]:
    """A reader as simple as players have it: blocks between blank lines."""

    def clock(text: str) -> int:
        hours, minutes, seconds, rest = map(int, re.fullmatch(r"(\d\d):(\d\d):(\d\d),(\d\d\d)", text).groups())
        return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest

    cues = []
    for number, block in enumerate(filter(None, re.split(r"\r\n\s*\r\n", data)), 1):
        head, times, *lines = block.split("\r\n")
        assert head == str(number)
        assert sum("-->" in line for line in [times, *lines]) == 1
        start, end = times.split(" --> ")
        cues.append(Cue(clock(start), clock(end), "\n".join(lines)))
    return cues


@settings(deadline=None, max_examples=200)
@given(words=word_lists)
def test_srt_reads_back(words: list[Word]) -> None:
    cues = cues_of(words)
    read = read_srt("".join(srt(cues)))
    assert [(cue.start, cue.end) for cue in read] == [(cue.start, cue.end) for cue in cues]
    assert [cue.text.replace("→", "-->") for cue in read] == [cue.text.replace("→", "-->") for cue in cues]


def test_no_text_breaks_the_format() -> None:
    cue = Cue(3_599_999, 3_600_001, "2\n00:00:01,000 --> 00:00:02,000")
    assert "".join(srt([cue])) == "1\r\n00:59:59,999 --> 01:00:00,001\r\n2\r\n00:00:01,000 → 00:00:02,000\r\n\r\n"


def test_the_file_is_named_like_its_video() -> None:
    assert companion("1_a.b.mp4") == "1_a.b.srt"
    assert [columns_for(*size) for size in ((1920, 1080), (1080, 1080), (1080, 1920))] == [42, 32, 32]


# The track in a splice


@dataclass(frozen=True)
class Joined:
    path: Path
    file: VirtualFile
    captions: Captions
    segments: list[Segment]
    soundtrack: Soundtrack


TEXT = """Tired of dull videos? Crosscut 🧀 makes hundreds of variations from a handful of clips, in minutes.
    今日は新しい商品を紹介します。 هذا نص عربي. Try it today, and see what your customers really watch."""


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Joined:
    folder = tmp_path_factory.mktemp("captions")
    paths = [
        clips.make_clip(folder / f"{number}.mp4", frames=192, first=24 * number, size=(96, 160)) for number in (0, 1)
    ]
    segments = [read_segment(path) for path in paths]
    clips.make_sound(folder / "sound.mp4", 17 * clips.RATE)
    track = read_track(folder / "sound.mp4", "audio")
    soundtrack = Soundtrack(
        (AudioRun(folder / "sound.mp4", track, 0, len(track.sizes)),), track.media_time, 17 * clips.RATE
    )
    captions = within(cues_of(spoken(TEXT), NARROW_LINE, begin=Fraction(1, 2)), Fraction(17), "ar")
    file = splice(segments, soundtrack, hold=Fraction(1), captions=captions)
    path = folder / "out.mp4"
    with path.open("wb") as out:
        file.copy_to(out)
    return Joined(path, file, captions, segments, soundtrack)


def test_a_demuxer_finds_every_cue_at_its_time(joined: Joined) -> None:
    with av.open(str(joined.path)) as container:
        (stream,) = container.streams.subtitles
        assert stream.codec_context.name == "mov_text"
        assert (stream.language, stream.time_base, stream.duration) == ("ara", Fraction(1, 1000), 17_000)
        packets = [(packet.pts, packet.duration, bytes(packet)) for packet in container.demux(stream) if packet.size]
    shown = [Cue(at, at + ticks, data[2:].decode()) for at, ticks, data in packets if data != b"\0\0"]
    assert tuple(shown) == joined.captions.cues
    assert len(shown) >= 5
    edges = [(at, at + ticks) for at, ticks, _ in packets]
    assert (edges[0][0], edges[-1][1]) == (0, 17_000)
    assert all(one[1] == other[0] for one, other in pairwise(edges))


def test_pictures_and_sound_are_the_same_with_captions(joined: Joined, tmp_path: Path) -> None:
    plain = tmp_path / "plain.mp4"
    with plain.open("wb") as out:
        splice(joined.segments, joined.soundtrack, hold=Fraction(1)).copy_to(out)

    def packets(path: Path, kind: str) -> list[tuple[int | None, int | None, bytes]]:
        with av.open(str(path)) as container:
            stream = container.streams.get({kind: 0})[0]
            return [(packet.pts, packet.duration, bytes(packet)) for packet in container.demux(stream)]

    assert packets(joined.path, "video") == packets(plain, "video")
    assert packets(joined.path, "audio") == packets(plain, "audio")


def test_a_demuxer_seeks_to_a_cue(joined: Joined) -> None:
    late = joined.captions.cues[-1]
    with av.open(str(joined.path)) as container:
        (stream,) = container.streams.subtitles
        container.seek(late.start + 10, stream=stream)
        packet = next(container.demux(stream))
        assert (packet.pts, bytes(packet)[2:].decode()) == (late.start, late.text)


def test_ffmpeg_plays_it_without_a_word_and_tells_the_captions(joined: Joined) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    whole = [ffmpeg, "-v", "warning", "-i", joined.path, "-map", "0:v", "-map", "0:a", "-map", "0:s", "-c:s", "copy"]
    done = subprocess.run([*whole, "-f", "null", "-"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    text = subprocess.run(
        [ffmpeg, "-v", "error", "-i", joined.path, "-map", "0:s", "-f", "srt", "-"], capture_output=True, check=True
    )
    found = read_srt(re.sub(r"</?font[^>]*>", "", text.stdout.decode()).replace("\n", "\r\n"))
    assert tuple(found) == joined.captions.cues
    told = subprocess.run([ffmpeg, "-i", joined.path], capture_output=True, text=True, check=False).stderr
    assert "(ara): Subtitle: mov_text (tx3g" in told


def test_ffmpeg_reads_the_subrip_file(joined: Joined, tmp_path: Path) -> None:
    path = tmp_path / "out.srt"
    path.write_text("".join(srt(joined.captions.cues)), "utf-8", newline="")
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        packets = [packet for packet in container.demux(stream) if packet.size]
    found = [Cue(packet.pts, packet.pts + packet.duration, bytes(packet).decode()) for packet in packets]
    assert tuple(found) == joined.captions.cues


@pytest.mark.parametrize("tool", ["mediainfo", "ffprobe", "MP4Box"])
def test_other_programs_know_the_track(joined: Joined, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    arguments = {"mediainfo": [], "ffprobe": ["-hide_banner"], "MP4Box": ["-info"]}[tool]
    done = subprocess.run([tool, *arguments, joined.path], capture_output=True, text=True, check=True)
    said = (done.stdout + done.stderr).lower()
    assert "tx3g" in said or "timed text" in said


@browser.pytestmark[0]
@browser.pytestmark[1]
def test_a_browser_plays_and_seeks_as_without_captions(joined: Joined, tmp_path: Path) -> None:
    numbers = [100, 30, 191, 192, 383, 0]
    result = browser.watch(joined.file, browser.middles(numbers), tmp_path / "profile")
    shown = [number if number < 192 else number - 192 + 24 for number in numbers]
    browser.check(result, shown, duration=Fraction(17), last=191 + 24)
    assert result["size"] == [96, 160]
