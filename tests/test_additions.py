"""What is added to a task comes behind what it has, and is checked as strictly as a request."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.additions import Addition, extended, parse_addition
from crosscut.bindings import Binding
from crosscut.cuts import Cut, clip_key
from crosscut.errors import RequestError
from crosscut.fields import RequestLimits
from crosscut.media import NO_TIME, Seconds
from crosscut.request import Block, Line, Request, parse_request

relaxed = settings(deadline=None, max_examples=100)
LINK = "https://example.com/{}.mp4?sig=secret"


def links(*names):
    return [LINK.format(name) for name in names]


def made(**changes):
    blocks = {"hook": links("h1", "h2"), "body": links("b1", "b2", "b3")}
    return parse_request({"task_name": "t", "video_blocks": blocks, **changes})


def refusal(body, request=None, **options):
    with pytest.raises(RequestError) as caught:
        parse_addition(body, request or made(), **options)
    assert caught.value.code == "invalid_request"
    return caught.value.public


def combinations(request, stages=slice(None)):
    grid = request.grid(1)
    places = [grid.place(index)[:2] for index in range(1, len(grid) + 1)]
    return [grid.combination(*place) for place in places if place[0] in range(len(grid.stages))[stages]]


def request_of(sizes, *, music=0, lines=0, count=None):
    return Request(
        task_name="t",
        blocks=tuple(Block(f"b{n}", tuple(f"b{n}c{c}" for c in range(size))) for n, size in enumerate(sizes)),
        music=tuple(f"m{n}" for n in range(music)),
        lines=tuple(Line(f"line {n}") for n in range(lines)),
        count=count,
    )


def adding(more, *, music=0, lines=0, count=None, tag="new"):
    blocks = tuple(Block(f"b{n}", tuple(f"{tag}{n}-{c}" for c in range(size))) for n, size in enumerate(more) if size)
    return Addition(
        blocks, tuple(f"{tag} m{n}" for n in range(music)), tuple(Line(f"{tag} {n}") for n in range(lines)), count
    )


def test_an_addition_is_understood_in_every_spelling():
    body = {
        "video_blocks": {"hook": links("h3")},
        "audio_blocks": {"any": ["https://example.com/m.mp3"]},
        "text_to_speech": [{"text": "Hello", "voice": "Sarah"}],
        "select": {"count": 2},
    }
    expected = Addition(
        (Block("hook", tuple(links("h3"))),), ("https://example.com/m.mp3",), (Line("Hello", "Sarah"),), 2, (NO_TIME,)
    )
    assert parse_addition(json.dumps(body).encode(), made()) == expected
    for spelling in ("text_to_speach", "voice_blocks"):
        said = body.pop("text_to_speech", None) or [{"text": "Hello", "voice": "Sarah"}]
        other = {**body, spelling: {"v": said} if spelling == "voice_blocks" else said}
        assert parse_addition(other, made()) == expected


def test_sources_may_be_paths_on_the_command_line_only():
    body = {"video_blocks": {"hook": ["new.mp4"]}}
    assert parse_addition(body, made(), local=True).blocks == (Block("hook", ("new.mp4",)),)
    assert refusal(body).startswith("video_blocks.hook[0] must be a link")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "Nothing is added; send video_blocks, audio_blocks or text_to_speech with what is new."),
        (
            {"video_blocks": {}, "audio_blocks": {"m": []}, "text_to_speech": None},
            "Nothing is added; send video_blocks, audio_blocks or text_to_speech with what is new.",
        ),
        (
            {"video_blocks": {"hok": links("h3")}},
            'video_blocks names "hok", which is no block of this task; the nearest is "hook".',
        ),
        (
            {"video_blocks": {"zzz": links("h3")}},
            'video_blocks names "zzz", which is no block of this task; its blocks are "hook", "body".',
        ),
        (
            {"video_blocks": {"hook": []}},
            "video_blocks.hook has no clips: add at least one link or remove the block.",
        ),
        (
            {"video_blocks": {"hook": links("h3", "h1")}},
            'video_blocks.hook[1] (h1) is in block "hook" already; remove it.',
        ),
        (
            {"video_blocks": {"hook": links("h3", "h3")}},
            'video_blocks.hook[1] (h3) is in block "hook" already; remove it.',
        ),
        (
            {"audio_blocks": {"x": links("t9", "t1")}},
            "audio_blocks.x[1] (t1) is among the music already; remove it.",
        ),
        (
            {"text_to_speech": [{"text": "Hello"}]},
            "The line “Hello” is in this task already, with this voice; remove it.",
        ),
        (
            {"video_blocks": {"hook": [{"url": links("h3")[0], "start": 1}] * 2}},
            'video_blocks.hook[1] (h3) is in block "hook" already; remove it.',
        ),
        (
            {"video_blocks": {"hook": [{"url": links("h3")[0], "volume": 2}]}},
            (
                'video_blocks.hook[0].volume has no effect in a task whose clip_sound is "mute"; remove it or make the '
                'task with "clip_sound": "keep".'
            ),
        ),
        (
            {"text_to_speech": [{"text": "a", "block": "cta"}]},
            'text_to_speech[0].block names "cta", which is not there; there are "hook", "body".',
        ),
        (
            {"text_to_speech": [{"text": "a", "clip": "h3"}]},
            'text_to_speech[0].clip names "h3", which is not there; there are "h1", "h2", "b1", "b2", "b3".',
        ),
        (
            {"text_to_speech": [{"text": "Hello", "block": "hook"}] * 2},
            "The line “Hello” is in this task already, with this voice; remove it.",
        ),
        (
            {"text_to_speech": [{"text": "a"}], "voice_blocks": {}},
            "text_to_speech and voice_blocks both say what to speak: send only one of them.",
        ),
        (
            {"text_to_speech": [{"text": "a"}], "select": {"count": 3}},
            "select chooses among the combinations of added clips, and none are added; remove it.",
        ),
        ({"video_blocks": {"hook": links("h3")}, "seed": 3}, "seed is not a known field; did you mean select?"),
        ({"select": {"cuont": 5, "count": 5}}, "select.cuont is not a known field; did you mean count?"),
        ([], 'The request must be an object like {"video_blocks": ...}, not a list.'),
    ],
)
def test_a_mistake_is_named_by_place_with_what_to_change(body, said):
    request = made(audio_blocks={"m": links("t1")}, text_to_speech=[{"text": "Hello"}])
    assert refusal(json.dumps(body), request) == said


def test_a_line_in_another_voice_and_a_clip_in_another_block_are_new():
    request = made(text_to_speech=[{"text": "Hello"}])
    body = {"text_to_speech": [{"text": "Hello", "voice": "Will"}], "video_blocks": {"body": links("h1")}}
    assert parse_addition(body, request).lines == (Line("Hello", "Will"),)


def test_a_part_of_a_clip_is_another_clip():
    part = {"url": links("h1")[0], "start": 1, "label": "later"}
    (block,) = parse_addition({"video_blocks": {"hook": [part]}}, made()).blocks
    assert block.clips == (clip_key(Cut(part["url"], Seconds(Fraction(1)), label="later")),)
    loud = {"video_blocks": {"hook": [{**part, "volume": 2}]}}
    assert parse_addition(loud, made(clip_sound="keep")).blocks


def test_an_added_line_belongs_to_what_is_there_or_comes_with_it():
    request = made(text_to_speech=[{"text": "Hello"}])
    body = {
        "video_blocks": {"body": links("new")},
        "text_to_speech": [
            {"text": "Hello", "block": "body"},
            {"text": "b", "clip": "new"},
            {"text": "c", "clip": links("h2")[0]},
        ],
    }
    addition = parse_addition(body, request)
    new, old = (links(name)[0] for name in ("new", "h2"))
    assert addition.bindings == (Binding(1), Binding(None, new), Binding(None, old))
    assert extended(request, addition).bindings == (None, *addition.bindings)
    assert extended(request, parse_addition({"text_to_speech": [{"text": "b"}]}, request)).bindings == ()
    bound = made(text_to_speech=[{"text": "Hello", "block": "hook"}])
    assert extended(bound, parse_addition({"text_to_speech": [{"text": "b"}]}, bound)).bindings == (Binding(0), None)


@pytest.mark.parametrize(
    ("bindings", "lines"),
    [((), (2, 4)), ((None, None), (2, 4)), ((None, Binding(0)), (2, 4)), ((Binding(0), Binding(1)), (0, 4))],
)
def test_only_added_lines_that_are_drawn_are_all_that_is_drawn(bindings, lines):
    request = request_of((2, 2), lines=2)
    larger = extended(request, replace(adding((0, 0), lines=2), bindings=bindings))
    assert [stage.lines for stage in larger.stages] == [(0, 2), lines]


def test_a_selection_needs_to_know_how_many_of_the_new_combinations():
    request, body = made(select={"count": 3}), {"video_blocks": {"hook": links("h3")}}
    assert refusal(body, request) == (
        "select is missing: this task is a selection, so say how many of the new combinations to make, "
        'like "select": {"count": 20}.'
    )
    addition = parse_addition({**body, "select": {"count": 2}}, request)
    assert extended(request, addition).combinations == 5
    tracks = parse_addition({"audio_blocks": {"m": links("t1")}}, request)
    assert extended(request, tracks).combinations == 6


def test_limits_count_what_is_there_and_what_is_added():
    request = made(text_to_speech=[{"text": "Hello"}])
    clip, line = {"video_blocks": {"hook": links("h3")}}, {"text_to_speech": [{"text": "a"}]}
    assert "6 links are too many" in refusal(clip, request, limits=RequestLimits(sources=5))
    assert "2 voice-over texts are too many" in refusal(line, request, limits=RequestLimits(lines=1))
    assert refusal(clip, request, limits=RequestLimits(variations=8)) == (
        "9 variations, 3 of them new, are too many: at most 8 are made in one task; "
        'add less or choose a part of the new combinations, like "select": {"count": 100}.'
    )
    assert refusal(line, made(formats=["1:1", "9:16"]), limits=RequestLimits(variations=23)) == (
        "24 variations, 12 of them new, are too many: at most 23 are made in one task; add less."
    )
    assert parse_addition(clip, request, limits=RequestLimits(variations=9, sources=6, lines=1)).blocks
    wide = made(video_blocks={f"b{n}": links(*range(10)) for n in range(15)}, select={"count": 5})
    body = {"video_blocks": {"b0": links("new")}, "select": {"count": 1}}
    assert "too many to choose from" in refusal(body, wide)


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@relaxed
@given(sizes, st.data())
def test_added_clips_bring_every_new_combination_once_and_move_nothing(sizes, data):
    more = data.draw(st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes)))
    request = request_of(sizes, music=2, lines=1)
    larger = extended(request, adding(more, music=data.draw(st.integers(0, 2)) if any(more) else 1))
    before = combinations(request)
    assert combinations(larger)[: len(before)] == before
    product = set(itertools.product(*(range(size + plus) for size, plus in zip(sizes, more, strict=True))))
    clip_stages = [stage for stage in larger.stages[1:] if stage.music[0] == 0]
    new = combinations(larger, slice(1, 1 + len(clip_stages)))
    assert len(new) == len(set(new))
    assert set(new) == product - set(before)


def test_added_tracks_and_lines_play_over_every_earlier_combination_once_more():
    request = request_of((2, 2), music=2)
    once = extended(request, adding((0, 1), tag="first"))
    twice = extended(once, adding((0, 0), music=1, lines=2, tag="second"))
    assert [stage.ranges for stage in twice.stages[2:]] == [stage.ranges for stage in once.stages]
    assert {(stage.music, stage.lines) for stage in twice.stages[2:]} == {((2, 3), (0, 2))}
    thrice = extended(twice, adding((0, 0), lines=1, tag="third"))
    assert [stage.ranges for stage in thrice.stages[4:]] == [stage.ranges for stage in once.stages]
    assert {(stage.music, stage.lines) for stage in thrice.stages[4:]} == {((0, 3), (2, 3))}
    assert Counter(combinations(thrice)) == dict.fromkeys(itertools.product(range(2), range(3)), 3)


def test_clips_and_tracks_at_once_give_new_clips_all_music_and_old_ones_the_new():
    larger = extended(request_of((2, 1), music=1), adding((1, 0), music=1))
    assert [(stage.ranges, stage.music) for stage in larger.stages] == [
        (((0, 2), (0, 1)), (0, 1)),
        (((2, 3), (0, 1)), (0, 2)),
        (((0, 2), (0, 1)), (1, 2)),
    ]


@relaxed
@given(sizes, st.integers(1, 40), st.data())
def test_a_count_is_spread_over_the_new_boxes(sizes, count, data):
    more = data.draw(st.lists(st.integers(0, 3), min_size=len(sizes), max_size=len(sizes)).filter(any))
    request = request_of(sizes, count=2)
    larger = extended(request, adding(more, count=count))
    new = combinations(larger, slice(1, None))
    product = set(itertools.product(*(range(size + plus) for size, plus in zip(sizes, more, strict=True))))
    old = set(itertools.product(*map(range, sizes)))
    assert len(set(new)) == len(new) == min(count, len(product - old))
    assert set(new) <= product - old
    if count >= sum(map(bool, more)):
        assert len(larger.stages) == 1 + sum(map(bool, more))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(), max_size=12)
    | st.sampled_from(links("h1", "z")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=6), inner, max_size=3)
    ),
    max_leaves=10,
)
fields = st.sampled_from(["video_blocks", "audio_blocks", "text_to_speech", "text_to_speach", "voice_blocks", "select"])
cut_clips = st.fixed_dictionaries(
    {"url": st.sampled_from(links("h1", "z"))}, optional={"start": st.integers(-1, 3), "label": st.text(max_size=3)}
)
names = json_values | st.sampled_from(["hook", "h1", "z"])
shaped = st.fixed_dictionaries(
    {},
    optional={
        "video_blocks": st.dictionaries(
            st.sampled_from(["hook", "body", "x\n"]), st.lists(cut_clips | json_values, max_size=3), max_size=2
        ),
        "text_to_speech": st.lists(
            st.fixed_dictionaries({"text": json_values}, optional={"block": names, "clip": names}), max_size=2
        ),
        "select": st.fixed_dictionaries({"count": st.integers(-1, 5)}),
    },
)


@relaxed
@given(json_values | st.dictionaries(fields, json_values) | shaped, st.booleans(), st.none() | st.just({"count": 2}))
def test_no_json_value_raises_anything_but_a_request_error(value, local, select):
    request = made(select=select)
    result = outcome(json.dumps(value), request, local=local)
    if isinstance(result, Addition):
        assert extended(request, result).combinations > request.combinations
    else:
        assert result.code == "invalid_request"
        assert result.public.isprintable()
        assert result.public[-1] in ".?"
        assert len(result.public) < 1_000


def outcome(body, request, **options):
    try:
        return parse_addition(body, request, **options)
    except RequestError as error:
        return error
