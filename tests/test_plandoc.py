"""The decided plan survives its way through JSON exactly, and fast."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from crosscut.media import ClipFacts, Colour, CopyFacts, Format, Seconds, Target, VideoFacts
from crosscut.plan import Plan, SpokenLine
from crosscut.plandoc import FACTS, TARGET, Origin, PlanDoc, Voiced, filenames_of, plan_of
from crosscut.request import Block, Line, Request

texts = st.text(max_size=20).filter(lambda text: text.isprintable())
counts = st.integers(0, 2**40)
rates = st.fractions(min_value=Fraction(1, 1000), max_value=1000)
colours = st.builds(Colour, counts, counts, counts, st.booleans())
videos = st.builds(
    VideoFacts,
    codec=texts,
    width=counts,
    height=counts,
    rotation=st.sampled_from((0, 90, 180, 270)),
    pixel_aspect=rates,
    pixel_format=texts,
    colour=colours,
    frame_rate=rates,
    frames=counts,
    duration=st.fractions(min_value=0),
)
copies = st.builds(CopyFacts, texts, rates, st.lists(texts, max_size=3).map(tuple))
clips = st.builds(ClipFacts, texts, st.none() | videos, st.none() | texts, st.none() | copies)
targets = st.builds(
    Target, st.builds(Format, counts, counts, rates), texts, st.sampled_from(("pad", "crop", "blur")), colours
)
lines = st.builds(SpokenLine, st.fractions(min_value=0), st.booleans()) | texts
documents = st.builds(
    PlanDoc,
    targets=st.lists(targets, max_size=3).map(tuple),
    reason=texts,
    wide_targets=st.lists(targets, max_size=3).map(tuple),
    names=st.dictionaries(texts, texts, max_size=3),
    sources=st.dictionaries(texts, st.builds(Origin, texts, texts, counts, st.none() | texts), max_size=3),
    facts=st.dictionaries(texts, clips, max_size=3),
    clip_problems=st.dictionaries(texts, texts, max_size=3),
    music_problems=st.dictionaries(texts, texts, max_size=3),
    lines=st.lists(lines, max_size=3).map(tuple),
    voices=st.lists(st.none() | st.builds(Voiced, texts, texts, st.none() | texts), max_size=3).map(tuple),
)


@given(documents)
def test_a_plan_comes_back_as_it_went(doc):
    assert PlanDoc.of(doc.as_json()) == doc
    assert PlanDoc.of(doc.as_json()).as_json() == doc.as_json()


@given(clips, targets)
def test_facts_and_targets_come_back_from_a_payload(facts, target):
    assert FACTS.validate_python(json.loads(json.dumps(FACTS.dump_python(facts, mode="json")))) == facts
    assert TARGET.validate_python(json.loads(json.dumps(TARGET.dump_python(target, mode="json")))) == target


CLIP = ClipFacts(
    "mov,mp4",
    VideoFacts(
        "h264",
        1080,
        1920,
        90,
        Fraction(1),
        "yuv420p",
        Colour(1, 1, 1),
        Fraction(30000, 1001),
        300,
        Seconds(Fraction(30030, 3000)),
    ),
    "aac",
    CopyFacts("01640028ff" * 20, Fraction(30000, 1001)),
)


def large(sources):
    names = [f"https://media.example/clips/{number}.mp4?signature={'x' * 200}" for number in range(sources)]
    target = Target(Format(1080, 1920, Fraction(30000, 1001)), "01640028ff")
    return names, PlanDoc(
        targets=(target,),
        reason="most clips are so",
        wide_targets=(target,),
        names={name: name.partition("?")[0] for name in names},
        sources={name: Origin(name.partition("?")[0], "ab" * 32, 10**7) for name in names},
        facts=dict.fromkeys(names, CLIP),
        clip_problems={names[0]: "it cannot be used"},
        music_problems={},
        lines=(SpokenLine(Seconds(Fraction(1, 3))),),
        voices=(Voiced("low", "cd" * 32, "low speaks instead"),),
    )


def test_a_plan_of_three_hundred_sources_loads_in_a_blink():
    document = large(300)[1].as_json()
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        PlanDoc.of(document)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.03


def test_the_plan_itself_is_that_of_the_document():
    names, doc = large(4)
    request = Request("t", (Block("a", tuple(names)),), lines=(Line("Hi"),))
    plan = plan_of(doc, request)
    told = {field.name: getattr(plan, field.name) for field in fields(Plan) if field.name != "request"}
    assert told.pop("filenames") == filenames_of(doc.sources)
    assert told == {name: getattr(doc, name) for name in told}
    assert plan.request == request
    assert [bool(variation.problem) for variation in plan] == [True, False, False, False]


def test_notes_and_sizes_are_gathered():
    _, doc = large(2)
    assert doc.notes == ["low speaks instead"]
    assert set(doc.sizes.values()) == {10**7}
