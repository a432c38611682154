"""Lines name the block or the clip that they belong to, and are spoken there in every variation that has it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.bindings import Binding
from crosscut.cuts import Cut, clip_key
from crosscut.errors import RequestError
from crosscut.estimate import LISTED, estimate
from crosscut.media import NO_TIME, USUAL_MIX, Format, MixSettings, Seconds, Target
from crosscut.request import parse_request
from crosscut.timeline import BREATH, SPEED_LIMIT, gaps
from test_plan import LATE, TARGET, extend, make_plan

HOOK = "https://example.com/Hook%20(1).mp4?sig=secret"
BODY = "https://example.com/body.mp4"
LABELLED = {"url": "https://example.com/x.mp4", "label": "Best one"}
LABELLED_KEY = clip_key(Cut(LABELLED["url"], label="Best one"))
BLOCKS = {"hook": [HOOK, LABELLED], "body": [BODY, LABELLED]}


def bound(*lines, blocks=BLOCKS):
    said = [{"text": f"line {number}", **line} for number, line in enumerate(lines)]
    return parse_request({"task_name": "t", "video_blocks": blocks, "text_to_speech": said}).bindings


def refusal(*lines, blocks=BLOCKS):
    with pytest.raises(RequestError) as caught:
        bound(*lines, blocks=blocks)
    assert caught.value.code == "invalid_request"
    return caught.value.public


@pytest.mark.parametrize(
    ("line", "binding"),
    [
        ({}, None),
        ({"block": None, "clip": None}, None),
        ({"block": "body"}, Binding(1)),
        ({"clip": HOOK}, Binding(None, HOOK)),
        ({"clip": "Hook-1"}, Binding(None, HOOK)),
        ({"clip": " Best one "}, Binding(None, LABELLED_KEY)),
        ({"clip": LABELLED["url"]}, Binding(None, LABELLED_KEY)),
        ({"block": "body", "clip": "Best one"}, Binding(1, LABELLED_KEY)),
    ],
)
def test_a_clip_is_named_by_its_label_its_link_or_its_file(line, binding):
    assert bound(line, {"block": "hook"}) == (binding, Binding(0))


def test_all_lines_over_the_whole_video_need_no_bindings():
    assert bound({}, {}) == ()


def test_every_text_of_an_entry_belongs_where_that_does():
    spoken = {"v": [{"text": ["a", "b"], "block": "body"}, {"text": "c"}]}
    request = parse_request({"task_name": "t", "video_blocks": BLOCKS, "voice_blocks": spoken})
    assert request.bindings == (Binding(1), Binding(1), None)
    assert [request.binding(number) for number in range(4)] == [Binding(1), Binding(1), None, None]


def test_a_label_goes_before_the_name_of_a_file():
    blocks = {"hook": [BODY, {"url": HOOK, "label": "body"}]}
    assert bound({"clip": "body"}, blocks=blocks) == (Binding(None, clip_key(Cut(HOOK, label="body"))),)


def test_a_block_is_named_exactly():
    assert bound({"block": " hook"}, blocks={" hook": [HOOK], "hook": [BODY]}) == (Binding(0),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"block": "hok"}, '.block names "hok", which is not there; the nearest is "hook".'),
        ({"block": "zz"}, '.block names "zz", which is not there; there are "hook", "body".'),
        ({"clip": "hook-1"}, '.clip names "hook-1", which is not there; the nearest is "Hook-1".'),
        ({"clip": "zz"}, '.clip names "zz", which is not there; there are "Hook-1", "Best one", "body".'),
        (
            {"block": "body", "clip": "Hook-1"},
            '.clip names "Hook-1", which is not there; there are "body", "Best one".',
        ),
        ({"clip": 3}, ".clip must be a text, not a number."),
    ],
)
def test_a_place_that_is_not_there_is_refused_with_those_that_are(line, said):
    assert refusal({}, line) == f"text_to_speech[1]{said}"


@pytest.mark.parametrize("clip", [BODY, "body"])
def test_a_name_of_several_clips_is_refused(clip):
    blocks = {"hook": [BODY, {"url": BODY, "start": 1}]}
    assert refusal({"clip": clip}, blocks=blocks) == (
        f'text_to_speech[0].clip names "{clip}", which means several clips; give each a label of its own and name one.'
    )
    assert bound({"block": "other", "clip": clip}, blocks={**blocks, "other": [BODY]}) == (Binding(1, BODY),)


def test_many_names_are_not_all_told():
    blocks = {"hook": [f"https://example.com/{number}.mp4" for number in range(2_000)]}
    assert refusal({"clip": "zz"}, blocks=blocks).endswith('there are "0", "1", "2", "3", "4" and 1,995 more.')
    assert len(refusal({"clip": "z" * 100_000}, blocks=blocks)) < 300


# What a plan makes of them


SLOW = Target(Format(1080, 1350, Fraction(24)), "0164")
HELD = MixSettings(voice_start=Seconds(Fraction(1, 3)), fade_out=Seconds(Fraction(5, 2)))

lasting = st.fractions(Fraction(1, 10), 7, max_denominator=100)


@st.composite
def tasks(draw, overflow=("hold", "speed", "choose", "refuse"), spoken=lasting):
    """Small plans with lines over the whole video, with blocks, and with clips."""
    sizes = tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=3)))
    clips = [(block, f"b{block}c{clip}") for block, size in enumerate(sizes) for clip in range(size)]
    block, clip = st.integers(0, len(sizes) - 1), st.sampled_from(clips)
    alone, inside = clip.map(lambda place: Binding(None, place[1])), clip.map(lambda place: Binding(*place))
    lines = draw(st.lists(st.tuples(spoken, st.none() | block.map(Binding) | alone | inside), max_size=5))
    return make_plan(
        sizes,
        lines=tuple(seconds for seconds, _ in lines),
        bindings=tuple(binding for _, binding in lines),
        seconds={name: draw(lasting) for _, name in clips},
        targets=(TARGET, SLOW)[: draw(st.integers(1, 2))],
        mix=draw(st.sampled_from([USUAL_MIX, LATE, HELD, MixSettings(fade_out=NO_TIME)])),
        voice_overflow=draw(st.sampled_from(overflow)),
        seed=draw(st.integers(0, 9)),
    )


def belonging(plan, block, clip):
    return [
        line
        for line, binding in enumerate(plan.request.bindings)
        if binding and binding.block in (None, block) and binding.clip in (None, clip)
    ]


@settings(deadline=None, max_examples=100)
@given(tasks())
def test_every_line_is_heard_whole_and_alone(plan):
    fade, fastest = plan.request.mix.fade_out, SPEED_LIMIT if plan.request.voice_overflow == "speed" else 1
    for variation in plan:
        said, fps = variation.said, plan.targets[variation.target].format.fps
        assert all(before.end <= after.start for before, after in pairwise(said))
        assert all(1 <= each.speed <= fastest for each in said)
        assert all(each.end - each.start == plan.lines[each.line].seconds / each.speed for each in said)
        assert variation.hold >= 0
        if said:
            assert said[-1].end + fade <= plan.length(variation)
        if variation.hold:
            assert said[-1].end + fade > plan.length(variation) - 1 / fps
        assert (variation.overflow is None) == (variation.held == 0 and variation.speed == 1)


@settings(deadline=None, max_examples=100)
@given(tasks())
def test_a_line_is_spoken_with_what_it_belongs_to_and_the_drawn_one_beside_it(plan):
    for variation in plan:
        fps, begin = plan.targets[variation.target].format.fps, 0
        drawn = [each for each in variation.said if each.line == variation.line]
        assert len(drawn) == (variation.line is not None)
        assert all(each.start >= plan.request.mix.voice_start for each in drawn)
        rest = [each for each in variation.said if each not in drawn]
        for block, slot in enumerate(variation.slots):
            end = begin + slot.length
            mine = [each for each in rest if begin <= each.start * fps < end]
            assert [each.line for each in mine] == belonging(plan, block, slot.clip)
            assert all(after.start - before.end == BREATH for before, after in pairwise(mine))
            assert not mine or (mine[0].start * fps == begin and mine[-1].end * fps <= end)
            rest, begin = [each for each in rest if each not in mine], end
        assert not rest
        assert begin == variation.frames
        assert [slot.clip for slot in variation.slots] == list(variation.clips)


@settings(deadline=None, max_examples=60)
@given(tasks(overflow=("choose",)))
def test_choose_draws_what_fits_between_the_lines_that_are_there(plan):
    free = [line for line in range(len(plan.lines)) if plan.request.binding(line) is None]
    mix = plan.request.mix
    for variation in plan:
        assert (variation.line is None) == (not free)
        others = [each for each in variation.said if each.line != variation.line]
        picture = variation.frames / plan.targets[variation.target].format.fps
        room = max(end - start for start, end in gaps(others, mix.voice_start, Seconds(picture - mix.fade_out)))
        lengths = [plan.lines[line].seconds for line in free]
        if free:
            assert plan.lines[variation.line].seconds <= max(room, min(lengths))


def test_choose_looks_at_the_largest_gap_not_at_the_last():
    plan = make_plan((2, 1, 1), lines=(1, 3, 1), bindings=(None, None, Binding(2)), voice_overflow="choose", music=())
    assert sorted((variation.line, variation.overflow) for variation in plan) == [(0, None), (1, None)]


@settings(deadline=None, max_examples=80)
@given(tasks(overflow=("refuse",)))
def test_a_task_is_refused_where_a_line_is_too_long_and_only_there(plan):
    tight = [variation for variation in plan if variation.overflow]
    error = plan.overflow_refusal()
    assert (error is not None) == bool(tight)
    if error:
        assert f"variation {tight[0].index} ({tight[0].name}) is " in error.public
        said, needed = (
            float(part.split(" s")[0].split()[-1]) for part in (error.public, error.public.split("needs")[1])
        )
        assert said <= needed


@settings(deadline=None, max_examples=60)
@given(tasks(spoken=lasting | st.just("cannot be spoken")))
def test_a_line_that_cannot_be_spoken_fails_only_where_it_would_be(plan):
    for variation in plan:
        places = enumerate(variation.clips)
        wanted = [line for place in places for line in belonging(plan, *place)] + [variation.line]
        silent = any(isinstance(plan.lines[line], str) for line in wanted if line is not None)
        assert variation.problem == ("cannot be spoken" if silent else None)
        assert not silent or (variation.said, variation.slots, variation.held, variation.overflow) == ((), (), 0, None)


@settings(deadline=None, max_examples=40)
@given(tasks())
def test_lines_that_belong_nowhere_are_drawn_as_ever(plan):
    free = replace(plan.request, bindings=())
    nowhere = replace(plan.request, bindings=(None,) * len(plan.lines))
    assert list(replace(plan, request=nowhere)) == list(replace(plan, request=free))


def test_a_bound_line_holds_its_clip_and_others_move():
    plan = make_plan((1, 1, 1), lines=(3, 1), bindings=(Binding(1), None), music=())
    variation = plan.variation(1)
    assert [(slot.frames, slot.hold) for slot in variation.slots] == [(60, 0), (60, 31), (60, 0)]
    assert [(each.line, each.start, each.end) for each in variation.said] == [(1, 0, 1), (0, 2, 5)]
    assert (variation.held, variation.overflow, plan.length(variation)) == (31, "hold", 7 + Fraction(1, 30))
    late = replace(plan, request=replace(plan.request, mix=MixSettings(voice_start=Seconds(Fraction(3, 2)))))
    assert [(each.line, each.start) for each in late.variation(1).said] == [(0, 2), (1, Fraction(21, 4))]


def test_a_line_before_the_last_clip_is_not_faded_out():
    """The fade of 2.5 s begins in the middle of the clip before the last one."""
    variation = make_plan((1, 1), lines=(Fraction(59, 30),), bindings=(Binding(0),), mix=HELD, music=()).variation(1)
    assert (variation.hold, variation.overflow) == (14, "hold")


def test_a_clip_in_two_blocks_is_spoken_over_in_both_unless_a_block_is_named():
    plan = make_plan((1, 1), lines=(1, 1), music=())
    blocks = tuple(replace(block, clips=("b0c0",)) for block in plan.request.blocks)
    bindings = (Binding(None, "b0c0"), Binding(1, "b0c0"))
    twice = replace(plan, request=replace(plan.request, blocks=blocks, bindings=bindings))
    assert [(each.line, each.start) for each in twice.variation(1).said] == [(0, 0), (0, 2), (1, Fraction(13, 4))]


@pytest.mark.parametrize(
    ("settled", "said"),
    [
        (
            {"lines": (1, 3), "bindings": (None, Binding(1))},
            (
                "clip 2 of variation 1 (1_b0c0-b1c0.mp4) is 2.0 s long and its voice-over (line 2) needs 3.5 s: "
                "shorten the text, use longer clips, or send voice_overflow hold or speed"
            ),
        ),
        (
            {"lines": (1, 1, Fraction(9, 5)), "bindings": (Binding(0), Binding(0), Binding(1))},
            (
                "clip 1 of variation 1 (1_b0c0-b1c0.mp4) is 2.0 s long and its voice-over (lines 1 and 2) needs 2.3 s: "
                "shorten the text, use longer clips, or send voice_overflow hold or speed"
            ),
        ),
        (
            {"lines": (Fraction(9, 5),), "bindings": (Binding(1),)},
            (
                "clip 2 of variation 1 (1_b0c0-b1c0.mp4) is 2.0 s long and its voice-over (line 1) needs 2.3 s: "
                "shorten the text, use longer clips, or send voice_overflow hold or speed"
            ),
        ),
        (
            {"lines": (Fraction(59, 30),), "bindings": (Binding(0),), "mix": HELD},
            (
                "variation 1 (1_b0c0-b1c0.mp4) is 4.0 s long and its voice-over (line 1) needs 4.5 s: "
                "shorten the text, use longer clips, or send voice_overflow hold, speed or choose"
            ),
        ),
        (
            {"lines": (1, 1, 3), "bindings": (Binding(0), Binding(1), None)},
            (
                "variation 1 (1_b0c0-b1c0.mp4) is 4.0 s long and its voice-over (lines 1, 2 and 3) needs 6.8 s: "
                "shorten the text, use longer clips, or send voice_overflow hold, speed or choose"
            ),
        ),
    ],
)
def test_refuse_names_the_clip_and_the_lines_that_do_not_fit(settled, said):
    assert make_plan((1, 1), voice_overflow="refuse", **settled).overflow_refusal().public == said


@pytest.mark.parametrize(
    ("overflow", "lines", "places"),
    [
        ("hold", (1, 3, Fraction(5, 2)), (Binding(0), None, None)),
        ("choose", (1, 3, Fraction(5, 2)), (Binding(0), None, None)),
        ("hold", (1, 3, "cannot be spoken"), (Binding(1), Binding(None, "b2c3"), Binding(None, "b0c1"))),
        ("speed", (2, 1, 2), (Binding(0, "b0c7"), Binding(1), Binding(2))),
    ],
)
def test_a_large_job_with_bound_lines_is_priced_like_it_is(overflow, lines, places):
    lengths = {f"b{block}c{number}": 1 + Fraction(number, 20) for block in range(3) for number in range(22)}
    plan = make_plan(
        (22,) * 3, lines=lines, bindings=places, seconds=lengths, broken=("b1c3",), voice_overflow=overflow
    )
    price, whole = estimate(plan, {}, str), [variation for variation in plan if not variation.problem]
    assert len(plan) > LISTED
    assert price["cannot_be_made"] == pytest.approx(len(plan) - len(whole), rel=0.05)
    assert price["total_minutes"] == pytest.approx(float(sum(map(plan.length, whole))) / 60, rel=0.02)
    short = sum(variation.overflow is not None for variation in whole)
    assert price["shorter_than_voice_over"]["count"] == pytest.approx(short, rel=0.05, abs=60)
    assert not price["shorter_than_voice_over"]["exact"]


@settings(deadline=None, max_examples=60)
@given(tasks(), st.data())
def test_lines_that_belong_somewhere_stay_there_in_all_that_is_added(plan, data):
    binding = st.none() | st.integers(0, len(plan.request.blocks) - 1).map(Binding)
    places = tuple(data.draw(st.lists(binding, max_size=2)))
    clips = [("b0", ("new",))] if data.draw(st.booleans()) or not places else []
    larger = extend(plan, clips, lines=(1, 9)[: len(places)], bindings=places)
    assert list(larger)[: len(plan)] == list(plan)
    drawn = [line for line in range(len(larger.lines)) if larger.request.binding(line) is None]
    added = [line for line in drawn if line >= len(plan.lines)]
    for variation in list(larger)[len(plan) :]:
        wanted = [line for place in enumerate(variation.clips) for line in belonging(larger, *place)]
        assert sorted(each.line for each in variation.said if each.line != variation.line) == sorted(wanted)
        assert variation.line in (drawn if "new" in variation.clips else added or drawn) or not drawn
