"""Every variation is a pure function of the request, the facts and its number."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clips import make_clip
from crosscut.additions import Addition, extended
from crosscut.artifacts import Artifacts
from crosscut.bindings import Binding
from crosscut.errors import RequestError
from crosscut.estimate import LISTED, estimate
from crosscut.gather import Gathered, draw_plan
from crosscut.media import NO_TIME, USUAL_FADE, USUAL_MIX, CopyFacts, Format, MixSettings, Seconds, Target
from crosscut.plan import Plan, SpokenLine
from crosscut.request import Block, Line, Request
from test_media import CLIP, VIDEO, with_video

TARGET = Target(Format(1080, 1920, Fraction(30)), "0164")


def clip_of(seconds):
    frames = round(seconds * 30)
    return replace(CLIP, video=replace(VIDEO, frames=frames, duration=Seconds(Fraction(frames, 30))))


def make_plan(blocks, *, lines=(), music=("m1", "m2"), targets=(TARGET,), broken=(), mute=(), seconds=None, **request):
    seconds = seconds or {}
    names = {f"b{number}c{clip}": 2 for number, size in enumerate(blocks) for clip in range(size)}
    facts = {name: clip_of(seconds.get(name, length)) for name, length in names.items() if name not in broken}
    made = Request(
        task_name="t",
        blocks=tuple(Block(f"b{n}", tuple(f"b{n}c{c}" for c in range(size))) for n, size in enumerate(blocks)),
        music=music,
        lines=tuple(Line(f"line {number}") for number in range(len(lines))),
        **request,
    )
    problems = {name: f"{name} is gone" for name in broken}
    spoken = tuple(line if isinstance(line, str) else SpokenLine(Seconds(Fraction(line))) for line in lines)
    silent = {source: f"{source} has no sound" for source in mute}
    return Plan(made, targets, "because", facts, problems, silent, spoken, targets)


def test_the_product_is_in_stable_order_and_every_name_is_its_own():
    plan = make_plan((3, 2, 2))
    assert len(plan) == 12
    assert [variation.clips for variation in plan][:3] == [
        ("b0c0", "b1c0", "b2c0"),
        ("b0c0", "b1c0", "b2c1"),
        ("b0c0", "b1c1", "b2c0"),
    ]
    assert len({variation.name for variation in plan}) == 12
    assert [variation.index for variation in plan] == list(range(1, 13))


def test_formats_of_one_combination_share_its_draws():
    square = Target(Format(1080, 1080, Fraction(30)), "0164")
    plan = make_plan((2, 2), lines=(1, 1, 1), targets=(TARGET, square))
    assert len(plan) == 8
    for first, second in zip(*[iter(plan)] * 2, strict=True):
        assert (first.clips, first.music, first.line) == (second.clips, second.music, second.line)
        assert {first.target, second.target} == {0, 1}
        assert "9x16" in first.name
        assert "1x1" in second.name


def test_two_sizes_of_one_ratio_are_told_apart_by_name():
    small = Target(Format(720, 1280, Fraction(30)), "0164")
    plan = make_plan((2,), targets=(TARGET, small), name="{code}")
    assert len({variation.name for variation in plan}) == len(plan) == 4
    assert plan.format_names == ("1080x1920", "720x1280")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**62), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
def test_draws_are_even_and_depend_on_the_seed_alone(seed, tracks, lines, size):
    build = lambda: make_plan((size, 3), music=tuple(map(str, range(tracks))), lines=(1,) * lines, seed=seed)
    plan, again = build(), build()
    drawn = [(variation.music, variation.line) for variation in plan]
    assert drawn == [(again.variation(index).music, again.variation(index).line) for index in range(1, len(again) + 1)]
    for position, choices in ((0, tracks), (1, lines)):
        counts = [sum(draw[position] == choice for draw in drawn) for choice in range(choices)]
        assert max(counts) - min(counts) <= 1


def test_a_broken_clip_fails_only_what_uses_it():
    plan = make_plan((3, 2), broken=("b0c1",))
    assert [variation.index for variation in plan if variation.problem] == [3, 4]
    assert plan.variation(3).problem == "b0c1 is gone"


def test_broken_music_and_lines_fail_only_who_drew_them():
    plan = make_plan((4,), lines=(1, "line 2 cannot be spoken"))
    spoken = [variation.problem is None for variation in plan]
    assert sorted(spoken) == [False, False, True, True]


def test_a_long_voice_holds_the_last_picture_until_it_has_ended():
    plan = make_plan((1,), lines=(Fraction(31, 10),))
    variation = plan.variation(1)
    assert variation.overflow == "hold"
    assert plan.length(variation) >= Fraction(31, 10) + USUAL_FADE
    assert plan.length(variation) - Fraction(31, 10) - USUAL_FADE < Fraction(1, 30)


def test_a_voice_is_sped_up_within_its_limit_and_the_rest_is_held():
    plan = make_plan((1,), lines=(Fraction(17, 10), 4), voice_overflow="speed")
    quick = {variation.line: variation for variation in map(plan.variation, range(1, 2))}
    both = make_plan((2,), lines=(Fraction(17, 10), 4), voice_overflow="speed")
    quick = {variation.line: variation for variation in both}
    assert (quick[0].speed, quick[0].hold, quick[0].overflow) == (Fraction(23, 20), 0, "speed")
    assert quick[1].speed == Fraction(5, 4)
    assert quick[1].overflow == "hold"
    assert plan.length(quick[1]) >= 4 / quick[1].speed + USUAL_FADE


LATE = MixSettings(voice_start=Seconds(Fraction(1)), fade_out=Seconds(Fraction(3, 2)))


def test_the_time_before_the_voice_and_the_fade_after_it_count_with_it():
    """Of 4 s of picture 1 s is before the voice and 1.5 s fade."""
    held = make_plan((1, 1), lines=(2,), mix=LATE)
    assert held.length(held.variation(1)) == Fraction(9, 2)
    quick = make_plan((1, 1), lines=(Fraction(8, 5),), mix=LATE, voice_overflow="speed").variation(1)
    assert (quick.speed, quick.hold) == (Fraction(11, 10), 0)
    chosen = make_plan((1, 1), lines=(2, Fraction(3, 2)), mix=LATE, voice_overflow="choose").variation(1)
    assert (chosen.line, chosen.overflow) == (1, None)
    refused = make_plan((1, 1), lines=(2,), mix=LATE, voice_overflow="refuse")
    assert "needs 4.5 s" in refused.overflow_refusal().public
    assert make_plan((1, 1), lines=(Fraction(3, 2),), mix=LATE, voice_overflow="refuse").overflow_refusal() is None


def test_without_a_fade_a_voice_may_fill_its_picture():
    plan = make_plan((1, 1), lines=(4,), mix=MixSettings(fade_out=NO_TIME), voice_overflow="refuse")
    assert plan.overflow_refusal() is None
    assert plan.variation(1).overflow is None


def test_a_voice_that_begins_behind_its_picture_holds_it_until_then():
    plan = make_plan((1,), lines=(1,), mix=MixSettings(voice_start=Seconds(Fraction(5))), voice_overflow="speed")
    variation = plan.variation(1)
    assert variation.speed == Fraction(5, 4)
    assert plan.length(variation) >= 5 + Fraction(4, 5) + USUAL_FADE


def test_choose_draws_a_voice_that_fits():
    plan = make_plan((2, 2), lines=(1, 9, 2), seconds={"b0c0": 1, "b1c0": 1}, voice_overflow="choose")
    assert {plan.variation(1).line} == {0}
    assert all(variation.line != 1 and not variation.overflow for variation in plan)
    none_fits = make_plan((1,), lines=(9, 8), voice_overflow="choose")
    assert (none_fits.variation(1).line, none_fits.variation(1).overflow) == (1, "hold")


def test_a_clip_that_is_out_of_reach_changes_no_draw_where_every_voice_fits():
    whole, broken = (
        make_plan((3, 8), lines=(1, Fraction(3, 2), 2), broken=gone, voice_overflow="choose")
        for gone in ((), ("b0c1",))
    )
    assert [variation.line for variation in whole] == [variation.line for variation in broken]


def test_refuse_names_the_variation_and_what_to_change():
    plan = make_plan((1,), lines=(4,), voice_overflow="refuse")
    with pytest.raises(RequestError) as caught:
        plan.refuse_overflow()
    assert "variation 1" in caught.value.public
    assert "shorten the text" in caught.value.public
    make_plan((1,), lines=(1,), voice_overflow="refuse").refuse_overflow()
    assert estimate(plan, {}, str)["refused"] == caught.value.public
    assert estimate(make_plan((1,), lines=(4,)), {}, str)["refused"] is None


def test_an_expected_length_is_told_as_such():
    plan = replace(
        make_plan((1,), lines=(4,), voice_overflow="refuse"), lines=(SpokenLine(Seconds(Fraction(4)), False),)
    )
    assert "needs about 4.5 s" in plan.overflow_refusal().public


@pytest.mark.parametrize(
    "settled",
    [
        {"lines": (Fraction(11, 2), "cannot be spoken")},
        {"lines": (9,), "voice_overflow": "hold"},
        {"lines": (9,), "broken": tuple(f"b1c{number}" for number in range(100))},
        {"lines": (9,), "mute": ("m1", "m2")},
        {"lines": ("cannot be spoken",)},
        {},
        {"lines": (Fraction(3, 2), Fraction(19, 10)), "bindings": (None, Binding(0))},
        {"lines": (Fraction(19, 10), "cannot be spoken"), "bindings": (Binding(1), Binding(2, "b2c7"))},
    ],
)
def test_where_lengths_settle_it_no_variation_is_looked_at(settled):
    class Unread(Plan):
        def variation(self, index):
            raise AssertionError(index)

    plan = Unread(**vars(make_plan((100, 100, 100), **{"voice_overflow": "refuse", **settled})))
    plan.refuse_overflow()


def test_making_more_of_a_job_renames_nothing():
    few, more, all_ = (make_plan((3, 4), count=count) for count in (2, 11, 99))
    names = [variation.name for variation in all_]
    assert [variation.name for variation in few] == names[:2]
    assert [variation.name for variation in more] == names[:11]
    square = Target(Format(1080, 1080, Fraction(30)), "0164")
    assert make_plan((5, 10), count=1, targets=(TARGET, square)).variation(2).name.startswith("002_")


def test_frames_of_encoded_and_copied_clips_are_counted_exactly():
    plan = make_plan((2,), seconds={"b0c1": Fraction(31, 30)}, targets=(Target(Format(1080, 1920, Fraction(24)), "x"),))
    assert plan.renditions["b0c0", 0].frames == 48
    assert plan.renditions["b0c1", 0].frames == round(Fraction(31, 30) * 24)
    assert plan.renditions["b0c0", 0].reasons == ("frame rate 30 ≠ 24",)


def test_a_million_variations_cost_nothing_until_they_are_asked_for():
    plan = make_plan((100, 100, 100))
    assert len(plan) == 1_000_000
    last = plan.variation(1_000_000)
    assert last.clips == ("b0c99", "b1c99", "b2c99")


def test_the_estimate_adds_up():
    plan = make_plan((2, 2), lines=(4, 1), broken=("b1c1",))
    price = estimate(plan, {"b0c0": 3_000_000, "b0c1": 3_000_000, "b1c0": 3_000_000}, str)
    assert price["variations"] == 4
    assert price["cannot_be_made"] == 2
    assert price["joinable_as_they_came"] == 3
    assert price["clips_to_encode"] == 0
    assert price["unusable_sources"] == [{"source": "b1c1", "reason": "b1c1 is gone"}]
    assert price["shorter_than_voice_over"]["count"] == 1
    assert price["voice_over_characters"] == len("line 0") + len("line 1")
    seconds = sum(plan.length(variation) for variation in plan if not variation.problem)
    assert price["total_minutes"] == round(float(seconds) / 60, 2)


def test_large_jobs_are_priced_like_small_ones():
    lengths = {f"b0c{number}": 1 + Fraction(number, 30) for number in range(23)}
    small = make_plan((23, 22, 2), lines=(Fraction(49, 10), 1), seconds=lengths, broken=("b1c3",))
    large = make_plan((23, 22, 20), lines=(Fraction(49, 10), 1), seconds=lengths, broken=("b1c3",))
    assert len(small) <= LISTED < len(large)
    one, ten = estimate(small, {}, str), estimate(large, {}, str)
    assert ten["cannot_be_made"] == 10 * one["cannot_be_made"]
    assert abs(ten["shorter_than_voice_over"]["count"] - 10 * one["shorter_than_voice_over"]["count"]) <= 100
    assert ten["total_minutes"] == pytest.approx(10 * one["total_minutes"], rel=0.01)


@pytest.mark.parametrize("overflow", ["hold", "speed", "choose"])
@pytest.mark.parametrize("lines", [(5, 1, Fraction(61, 10), "cannot be spoken"), (9, 8), ("cannot be spoken",), ()])
@pytest.mark.parametrize("mix", [USUAL_MIX, LATE], ids=["usual", "late"])
def test_what_is_counted_by_lengths_is_what_is_there(overflow, lines, mix):
    lengths = {f"b{block}c{number}": 1 + Fraction(number, 20) for block in range(3) for number in range(22)}
    plan = make_plan(
        (22, 22, 22), lines=lines, seconds=lengths, broken=("b1c3",), mute=("m2",), voice_overflow=overflow, mix=mix
    )
    price, variations = estimate(plan, {}, str), list(plan)
    assert len(plan) > LISTED
    whole = [variation for variation in variations if not variation.problem]
    assert price["cannot_be_made"] == pytest.approx(len(plan) - len(whole), rel=0.02)
    seconds = float(sum(map(plan.length, whole)))
    assert price["total_minutes"] == pytest.approx(seconds / 60, rel=0.02)
    short = sum(variation.overflow is not None for variation in whole)
    assert price["shorter_than_voice_over"]["count"] == pytest.approx(short, rel=0.05)


def test_an_estimate_calls_sources_as_it_is_told():
    plan = make_plan((2,), broken=("b0c1",), mute=("m1",))
    price = estimate(plan, {}, lambda source: f"<{source}>")
    assert [clip["source"] for clip in price["clips"]] == ["<b0c0>", "<b0c1>"]
    assert [problem["source"] for problem in price["unusable_sources"]] == ["<b0c1>", "<m1>"]


def drawn(tmp_path, *clips, **request):
    """The plan for these facts, with a real clip in the place of what our encoder would show of itself."""
    blank = make_clip(tmp_path / "blank.mp4", frames=2)
    names = tuple(map(str, range(len(clips))))
    gathered = Gathered(
        names={}, sources={}, facts=dict(zip(names, clips, strict=True)), clip_problems={}, music_problems={}
    )
    with Artifacts(tmp_path / "store", 10**8).lease() as lease:
        workshop = SimpleNamespace(lease=lease, run=lambda _, *, outputs, **__: shutil.copy(blank, outputs[0]))
        return draw_plan(Request("t", (Block("a", names),), **request), gathered, (), workshop)


def shot(encoder, **video):
    clip = with_video(**video)
    return replace(clip, copy=CopyFacts(encoder, clip.video.frame_rate))


@pytest.mark.parametrize(
    ("video", "request_"),
    [
        ({}, {}),
        ({"width": 2160, "height": 3840}, {}),
        ({"frame_rate": Fraction(15)}, {"formats": ((1080, 1920),)}),
        ({"frame_rate": Fraction(15)}, {"formats": ((1080, 1080), (1080, 1920))}),
        ({"frame_rate": Fraction(25)}, {"fps": Fraction(25)}),
    ],
)
def test_the_plan_says_what_a_wide_join_would_save(tmp_path, video, request_):
    clips = [shot("0142", **video), shot("0164", **video)]
    safe, wide = (drawn(tmp_path, *clips, **request_, join=join) for join in ("safe", "wide"))
    encodes = [estimate(plan, {}, str)["clips_to_encode"] for plan in (safe, wide)]
    assert estimate(safe, {}, str)["wide_would_save"] == encodes[0] - encodes[1] == 2
    assert estimate(wide, {}, str)["wide_would_save"] == 0


def test_a_wide_join_also_copies_some_of_many(tmp_path):
    clips = [shot("0142"), shot("0164"), shot("0164", width=720)]
    assert estimate(drawn(tmp_path, *clips), {}, str)["wide_would_save"] == 2
    asked = drawn(tmp_path, *clips[:2], formats=((1080, 1080),))
    assert estimate(asked, {}, str)["wide_would_save"] == 0


SQUARE = Target(Format(1080, 1080, Fraction(30)), "0164")


def told(variations):
    return [replace(variation, problem=bool(variation.problem)) for variation in variations]


def digest(plan):
    text = "\n".join(
        f"{v.index} {v.name} {v.combination} {v.music} {v.line} {v.frames} {v.hold} {v.speed} {v.overflow} {v.problem}"
        for v in plan
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_variations_names_and_draws_never_change_between_versions():
    whole = make_plan(
        (4, 3, 2), lines=(1, Fraction(7, 2), 9), music=("m1", "m2", "m3"), targets=(TARGET, SQUARE), seed=11
    )
    part = make_plan(
        (7, 5, 6),
        lines=(1, 5, 6, 9),
        voice_overflow="choose",
        count=60,
        seed=3,
        broken=("b1c2",),
        name="{code}_{music}_{voice}",
    )
    assert (digest(whole), digest(part)) == ("02215cf370ea53d0", "92ae447a8986ef43")
    small = make_plan((2, 2), lines=(1, 2), seed=5)
    assert [(one.name, one.music, one.line) for one in small] == [
        ("1_b0c0-b1c0.mp4", 0, 1),
        ("2_b0c0-b1c1.mp4", 1, 0),
        ("3_b0c1-b1c0.mp4", 1, 1),
        ("4_b0c1-b1c1.mp4", 0, 0),
    ]


def extend(plan, blocks=(), music=(), lines=(), count=None, bindings=()):
    """The plan with these clips (each 2 s), tracks and seconds of spoken lines more."""
    addition = Addition(
        tuple(Block(name, clips) for name, clips in blocks),
        music,
        tuple(Line(f"more {number}") for number in range(len(plan.lines), len(plan.lines) + len(lines))),
        count,
        bindings=bindings,
    )
    return replace(
        plan,
        request=extended(plan.request, addition),
        facts={**plan.facts, **{clip: clip_of(2) for _, clips in blocks for clip in clips}},
        lines=(*plan.lines, *(SpokenLine(Seconds(Fraction(line))) for line in lines)),
    )


TEMPLATES = [
    "{index}_{clips}",
    "{code}_{clips}",
    "{clips}_{code}",
    "{code}r2-{music}",
    "{music}_r2{code}",
    "{code}-{voice}",
    "{voice}.{index}",
]


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(TEMPLATES), st.sampled_from(["hold", "choose"]))
def test_an_extension_changes_no_earlier_variation_and_names_stay_unique(data, template, overflow):
    sizes = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    count = data.draw(st.none() | st.integers(1, 8))
    plan = make_plan(
        sizes,
        lines=(1, 5)[: data.draw(st.integers(0, 2))],
        music=("m1", "m2")[: data.draw(st.integers(0, 2))],
        targets=(TARGET, SQUARE)[: data.draw(st.integers(1, 2))],
        count=count,
        seed=data.draw(st.integers(0, 99)),
        name=template,
        voice_overflow=overflow,
    )
    for step in range(data.draw(st.integers(1, 3))):
        # Labels that collide with those there are, after they were numbered.
        clips = [(f"b{block}", (f"x{step}/b{block}c0", f"y{step}/b{block}c0-2")) for block in range(len(sizes))]
        larger = extend(
            plan,
            clips[: data.draw(st.integers(0, len(sizes)))],
            tuple(f"z{step}/m{number}" for number in range(data.draw(st.integers(0, 2)))),
            (1, 9)[: data.draw(st.integers(0, 2))],
            count and 5,
        )
        assert told(larger)[: len(plan)] == told(plan)
        plan = larger
    names = [variation.name.casefold() for variation in plan]
    assert len(set(names)) == len(names) == len(plan)


def test_a_file_called_like_a_numbered_label_takes_no_number_away():
    plan = extend(make_plan((1,), music=("m",)), (("b0", ("x/b0c0",)),), ("x/m",))
    larger = extend(plan, (("b0", ("b0c0-2",)),), ("m-2",))
    named = replace(larger, request=replace(larger.request, name="{index}_{clips}_{music}"))
    assert {one.name.split("_")[1] for one in named} == {"b0c0", "b0c0-2", "b0c0-2-2"}
    earlier = [
        replace(plan, request=replace(plan.request, name="{index}_{clips}_{music}")).variation(n) for n in (2, 3)
    ]
    assert [named.variation(n).name for n in (2, 3)] == [one.name for one in earlier]
    assert {one.name.split("_")[2] for one in named} == {"m.mp4", "m-2.mp4", "m-2-2.mp4"}


def test_added_tracks_and_lines_are_all_that_the_repeated_combinations_draw():
    plan = make_plan((3, 4), lines=(1, 1), music=("m1", "m2"))
    larger = extend(plan, music=("m3", "m4", "m5"), lines=(1,))
    again = list(larger)[len(plan) :]
    assert [one.combination for one in again] == [one.combination for one in plan]
    assert {one.line for one in again} == {2}
    counts = [sum(one.music == track for one in again) for track in range(5)]
    assert counts == [0, 0, 4, 4, 4]


def test_the_first_music_and_voice_of_a_silent_task_may_come_later():
    plan = make_plan((2, 2), music=())
    assert {(one.music, one.line) for one in plan} == {(None, None)}
    larger = extend(plan, music=("m1",), lines=(1,))
    assert [(one.music, one.line) for one in larger] == [(None, None)] * 4 + [(0, 0)] * 4


def test_the_draws_of_a_stage_are_its_own():
    plan = make_plan((6, 5), lines=(1,) * 5, music=tuple("abcde"))
    larger = extend(plan, (("b0", tuple(f"new{n}" for n in range(6))),))
    first, second = list(larger)[:30], list(larger)[30:60]
    assert [one.music for one in first] != [one.music for one in second]
    assert [one.line for one in first] != [one.line for one in second]


def test_a_repeated_combination_has_its_own_code_and_a_longer_index():
    plan = make_plan((3, 3), music=("m1",), name="{code}")
    assert extend(plan, music=("m2",)).variation(10).name == "a1-b1r2.mp4"
    indexed = extend(make_plan((3, 3), music=("m1",)), music=("m2",))
    assert [indexed.variation(index).name[:3] for index in (9, 10)] == ["9_b", "10_"]


def test_only_the_added_lines_can_be_too_long():
    plan = extend(make_plan((2,), lines=(1,), voice_overflow="refuse"), lines=(8,))
    assert "variation 3" in plan.overflow_refusal().public
    muted = replace(extend(plan, music=("m3",)), music_problems={"m1": "gone", "m2": "gone", "m3": "gone"})
    assert muted.overflow_refusal() is None


@pytest.mark.parametrize("overflow", ["hold", "choose"])
def test_an_extended_task_is_counted_by_lengths_like_it_is_there(overflow):
    lengths = {f"b{block}c{number}": 1 + Fraction(number, 20) for block in range(3) for number in range(19)}
    plan = make_plan((19, 19, 19), lines=(1, 5), seconds=lengths, mute=("m2",), voice_overflow=overflow)
    plan = extend(plan, (("b0", ("n1", "n2")),), ("m3", "m4"), (4, 9))
    price, whole = estimate(plan, {}, str), [variation for variation in plan if not variation.problem]
    assert LISTED < len(plan) == price["variations"] == price["combinations"]
    assert price["cannot_be_made"] == pytest.approx(len(plan) - len(whole), rel=0.02)
    assert price["total_minutes"] == pytest.approx(float(sum(map(plan.length, whole))) / 60, rel=0.02)
    short = sum(variation.overflow is not None for variation in whole)
    assert price["shorter_than_voice_over"]["count"] == pytest.approx(short, rel=0.05)
