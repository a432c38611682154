"""What is known of sources, told by clip: a source is fetched once, however often and in whatever parts it is used."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from crosscut.cuts import Cut, clip_key
from crosscut.gather import Gathered, name_sources, recalled, shown
from crosscut.media import Seconds
from crosscut.plandoc import FACTS, ORIGIN, Origin, PlanDoc
from crosscut.request import Block, Line, Request
from crosscut.units import Found, JobRecord
from crosscut.wants import request_of, wants
from test_media import CLIP

LINK = "https://example.com/a.mp4?sig=secret"
NAME = "https://example.com/a.mp4"
ORIGIN_A = Origin(NAME, "ab" * 32, 10)


def cut(start, end=None, **changes):
    return clip_key(Cut(LINK, Seconds(Fraction(start)), None if end is None else Seconds(Fraction(end)), **changes))


def request(*clips, music=()):
    return Request("t", (Block("hook", clips),), music)


def gathered(asked, found=None, broken=None, earlier=None):
    found = {LINK: (ORIGIN_A, CLIP)} if found is None else found
    return Gathered.of(asked, name_sources(asked), found, broken or {}, earlier)


def planned(asked, known):
    """The plan that was made of it."""
    return PlanDoc(
        (), "", (), known.names, known.sources, known.facts, known.clip_problems, known.music_problems, (), ()
    )


def test_a_clip_is_shown_by_its_label_else_without_secrets_and_wishes():
    assert shown(cut(1, label="Best one")) == "Best one"
    assert shown(cut(1)) == shown(LINK) == NAME
    assert shown(clip_key(Cut("source:" + "a" * 64 + "/a.mp4", volume=2))) == "a.mp4"


def test_clips_that_would_be_called_alike_are_told_apart_by_their_place():
    clips = (LINK, cut(1, label="one"), cut(1), cut(2, label="two"), cut(3, label="two"))
    assert name_sources(request(*clips, music=("m",))) == {
        LINK: f"{NAME} (video_blocks.hook[0])",
        clips[1]: "one",
        clips[2]: f"{NAME} (video_blocks.hook[2])",
        clips[3]: "two (video_blocks.hook[3])",
        clips[4]: "two (video_blocks.hook[4])",
        "m": "m",
    }


def test_a_source_may_be_used_whole_and_in_parts_and_as_music():
    part = cut(1, 2, volume=0.5)
    known = gathered(request(LINK, part, music=(LINK,)), {LINK: (ORIGIN_A, replace(CLIP, audio="aac"))})
    assert known.sources == {LINK: ORIGIN_A, part: ORIGIN_A}
    assert [facts.video.duration for facts in known.facts.values()] == [3, 1]
    assert (known.clip_problems, known.music_problems) == ({}, {})


def test_a_part_behind_the_end_fails_alone_in_its_own_name():
    late = cut(5, label="late")
    known = gathered(request(LINK, late))
    assert known.clip_problems == {late: "late: it is 3.0 s long and its start is at 5.0 s: send a smaller start"}
    assert set(known.facts) == {LINK}


def test_every_part_of_a_source_that_cannot_be_had_says_why_in_its_own_name():
    one, two = cut(1, label="one"), cut(2)
    known = gathered(request(one, two), {}, {LINK: f"{NAME} answered 404: check the link"})
    assert known.clip_problems == {one: "one answered 404: check the link", two: f"{NAME} answered 404: check the link"}
    silent = gathered(request(one, two), {LINK: (ORIGIN_A, replace(CLIP, video=None))})
    assert silent.clip_problems[one] == "one has sound but no pictures: use another file"
    missing = gathered(request(one), {})
    assert missing.clip_problems == {one: "one was not fetched: run the job again"}


@pytest.mark.parametrize("late", [cut(5), cut(5, label="late")])
def test_what_an_earlier_plan_knows_stays_as_it_was(late):
    first = request(LINK, late)
    before = gathered(first)
    larger = request(LINK, late, cut(1))
    longer = replace(CLIP, video=replace(CLIP.video, duration=Seconds(Fraction(4))))
    found = [Found("source", LINK, {"source": ORIGIN.dump_python(ORIGIN_A), "facts": FACTS.dump_python(longer)}, None)]
    after = recalled(larger, found, planned(first, before))
    assert after.facts[LINK] == before.facts[LINK]
    assert after.names[LINK] == before.names[LINK]
    assert after.facts[cut(1)].video.duration == 3
    assert set(after.clip_problems) == {late}
    assert "4.0 s long" in after.clip_problems[late]


def record(body, *extensions, local=False):
    return JobRecord("j", "o", 0.0, body, extensions, local, "/base" if local else None, "d", "f", None, 0)


def test_a_job_wants_each_source_once_whatever_parts_it_uses():
    body = {
        "task_name": "t",
        "video_blocks": {
            "hook": [LINK, {"url": LINK, "start": 1}],
            "body": [{"url": LINK, "volume": 0, "label": "x"}, "https://example.com/b.mp4"],
        },
        "audio_blocks": {"m": [LINK, "https://example.com/c.mp3"]},
        "text_to_speech": [{"text": "a", "block": "hook"}, {"text": "a", "clip": "x"}, {"text": "b"}],
    }
    job = record(
        body, {"video_blocks": {"hook": [{"url": LINK, "end": 2}]}, "text_to_speech": [{"text": "c", "clip": "b"}]}
    )
    found = wants(job, request_of(job))
    assert [want.name for want in found if want.kind == "source"] == [
        LINK,
        "https://example.com/b.mp4",
        "https://example.com/c.mp3",
    ]
    assert sum(want.kind == "speech" for want in found) == 3
    assert request_of(job).lines[3] == Line("c")
    assert [binding is None for binding in request_of(job).bindings] == [False, False, True, False]


def test_a_path_that_is_cut_is_the_path_that_is_whole():
    whole, part = (
        wants(job, request_of(job))[0]
        for clip in ("a.mp4", {"url": "a.mp4", "start": 1})
        for job in [record({"task_name": "t", "video_blocks": {"hook": [clip]}}, local=True)]
    )
    assert whole == part
    assert whole.payload["base"] == "/base"
