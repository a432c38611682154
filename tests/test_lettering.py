"""Captions as pictures: inside the safe area, whole, in the right order, and drawn as other programs draw them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from bidi import get_display
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, features

import font_table
from crosscut.burning import STYLES, BurnCue, BurnWord, burnt_columns, burnt_cues, safe_area
from crosscut.coverage import uncovered
from crosscut.lettering import DESIGNS, Lettering, widened
from crosscut.typeset import Typesetter
from test_captions import spoken

UPRIGHT, WIDE = (1080, 1920), (1920, 1080)
TEXTS = [
    "Hello", "Åpfel, gÿ", "مرحبا بكم 50%", "שלום (abc) עולם", "नमस्ते क्षत्रिय", "ก็ที่ญู", "🔥🇩🇪 wow", "მ",
    "W" * 32, "\u200b", "i", "_", "ﷺ",
]  # fmt: skip


def cue_of(*lines):
    return BurnCue(
        0, 1000, tuple(tuple(BurnWord(word, True, 0, 0) for word in line.split(" ") if word) for line in lines)
    )


def brightness(picture):
    """How white it is: letters, and nothing of their dark outlines."""
    return picture.pixels[:3].min(axis=0)


# Where they are


@settings(deadline=None, max_examples=150)
@given(
    width=st.integers(8, 400),
    height=st.integers(8, 400),
    style=st.sampled_from(STYLES),
    lines=st.lists(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5).map(" ".join), min_size=1, max_size=2),
    data=st.data(),
)
@example(540, 960, "pop", ["W" * 32, "نص 🔥"], None)
@example(960, 540, "box", ["one two three four five six seven eight nine"], None)
def test_nothing_is_drawn_outside_of_the_safe_area(width, height, style, lines, data):
    cue = cue_of(*lines)
    word = None if data is None else data.draw(st.none() | st.integers(0, len(cue.words) - 1))
    picture = Lettering(2 * width, 2 * height, style).picture(cue, word)
    if picture is None:
        assert not "".join(lines).strip(" \u200b")
        return
    area = safe_area(2 * width, 2 * height)
    planes, rows, columns = picture.pixels.shape
    assert planes == 4
    assert area.left <= picture.left < picture.left + columns <= area.right
    assert area.top <= picture.top < picture.top + rows <= area.bottom
    assert not any(side % 2 for side in (picture.left, picture.top, rows, columns))
    assert (picture.pixels[:3] <= picture.pixels[3].astype(int) + 1).all()


@pytest.mark.parametrize("style", ["plain", "pop"])
@pytest.mark.parametrize(
    "lines", [["W" * 32], ["Jjgyÿ", "Åg"], ["क्षत्रिय ज़बरदस्त की छूट"], ["ที่ญู"], ["🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥"]]
)
@pytest.mark.parametrize("size", [UPRIGHT, WIDE, (120, 214)])
def test_text_is_made_smaller_and_never_cut(style, lines, size):
    picture = Lettering(*size, style).picture(cue_of(*lines), None)
    alpha = picture.pixels[3]
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert alpha.max() > (200 if size[0] > 200 else 60)
    # The shadow may fade out there.
    assert border.max() <= 24


def test_text_stands_in_the_middle_of_the_lower_third_of_the_area():
    for size in (UPRIGHT, WIDE):
        area = safe_area(*size)
        for style in STYLES:
            picture = Lettering(*size, style).picture(cue_of("HHHH"), None)
            rows, columns = np.nonzero(brightness(picture) > 128)
            assert abs(columns.mean() + picture.left - size[0] / 2) < 3
            assert abs(rows.mean() + picture.top - (area.top + (area.bottom - area.top) * 5 / 6)) < 3


def test_lines_do_not_touch_whatever_they_hold():
    for lines in (("gjpqy", "ÅÊŐ"), ("ญู", "ที่"), ("🔥", "🔥"), ("ၐ္ဋ", "ကြို")):
        (one, other) = Typesetter("Inter-Bold").lines(cue_of(*lines).lines)
        picture = Lettering(*UPRIGHT, "plain").picture(cue_of(*lines), None)
        drawn = brightness(picture).max(axis=1) > 128 if "🔥" not in lines else picture.pixels[0].max(axis=1) > 128
        edges = np.flatnonzero(np.diff(np.concatenate([[0], drawn.astype(int), [0]])))
        assert one.ink.top > one.ink.bottom < other.ink.top
        assert len(edges) >= 4


# What they look like


def test_the_spoken_word_stands_out_and_all_else_stays():
    cue = cue_of("one two", "three")
    for style in STYLES:
        design = DESIGNS[style]
        lettering = Lettering(*UPRIGHT, style)
        plain, second = lettering.picture(cue, None), lettering.picture(cue, 1)
        changed = np.any(plain.pixels != second.pixels, axis=0)
        rows, columns = np.nonzero(changed)
        height, width = changed.shape
        # “two” is the right half of the first line.
        assert rows.max() < height * 0.6
        assert columns.min() > width * 0.4
        colour = design.lamp.colour if design.lamp else design.accent
        lit = np.all(second.pixels[:3] == np.array(colour)[:, None, None], axis=0)
        assert lit.sum() > 500
        assert not np.all(plain.pixels[:3] == np.array(colour)[:, None, None], axis=0).any()
        assert np.array_equal(lettering.picture(cue, None).pixels, plain.pixels)


def test_letters_are_white_with_a_dark_outline():
    picture = Lettering(*UPRIGHT, "plain").picture(cue_of("HHH"), None)
    row = picture.pixels[:, picture.pixels.shape[1] // 2]
    white, solid = (row[:3] == 255).all(axis=0), row[3] == 255
    first = np.flatnonzero(solid)[0]
    assert (row[:3, first] < 40).all()
    assert white[first : first + 12].any()


def test_the_box_is_behind_all_lines_with_round_corners():
    picture = Lettering(*UPRIGHT, "box").picture(cue_of("one two", "three four"), None)
    alpha = picture.pixels[3]
    panel = round(DESIGNS["box"].panel.opacity * 255)
    assert alpha[0, 0] == alpha[-1, -1] == 0
    assert (np.abs(alpha[4, 60:-60].astype(int) - panel) <= 1).all()
    assert (alpha[40:-40, 8:-8] >= panel - 1).all()


def test_emoji_are_coloured_and_as_high_as_a_line():
    picture = Lettering(*UPRIGHT, "box").picture(cue_of("🔥"), None)
    red, green, blue, alpha = picture.pixels.astype(int)
    flame = (alpha == 255) & (red > 200) & (green < 180) & (blue < 90)
    rows, _ = np.nonzero((alpha == 255) & (red > 120))
    assert flame.sum() > 400
    assert 0.8 * 64 < np.ptp(rows) < 1.2 * 64


def test_an_outline_is_as_wide_as_asked():
    mask = np.zeros((41, 41), np.uint8)
    mask[20, 20] = 255
    wide = widened(mask, 6.5)
    assert abs(wide.sum() / 255 - np.pi * 6.5**2) < 2
    assert np.array_equal(wide, wide.T)


def test_the_same_caption_is_the_same_picture():
    cue = cue_of("Hello मित्र 🔥", "wörld")
    one, other = (Lettering(*WIDE, "pop").picture(cue, 1) for _ in range(2))
    assert np.array_equal(one.pixels, other.pixels)


# In which order, and joined how


@pytest.mark.parametrize(
    "text",
    [
        "abc def ghi", "אבג דהו זחט", "אבג abc דהו", "abc אבג דהו ghi", "مرحبا 250 دولار", "سعر iPhone 15 قطعة",
        "see (אבג) two", "خصم 50% اليوم!",
    ],
)  # fmt: skip
def test_words_stand_in_visual_order(text):
    (line,) = Typesetter("Inter-Bold").lines(cue_of(text).lines)
    seen = sorted(line.spans, key=lambda number: line.spans[number])
    letters = [next(character for character in word if character.isalnum()) for word in text.split()]
    assert all(text.count(letter) == 1 for letter in letters)
    assert [letters[number] for number in seen] == sorted(letters, key=get_display(text).index)
    assert all(line.spans[one][1] <= line.spans[other][0] for one, other in pairwise(seen))


def test_arabic_letters_are_joined_and_hebrew_is_not_mirrored():
    (word,) = Typesetter("Inter-Bold").lines(cue_of("بيت").lines)
    (alone,) = Typesetter("Inter-Bold").lines(cue_of("ب ي ت").lines)
    letters = {glyph.number for glyph in alone.glyphs if glyph.word is not None}
    assert len(word.glyphs) >= 3
    assert not letters & {glyph.number for glyph in word.glyphs}
    (hebrew,) = Typesetter("Inter-Bold").lines(cue_of("(א").lines)
    assert [glyph.word for glyph in hebrew.glyphs] == [0, 0]


def test_fonts_meet_on_one_baseline():
    (line,) = Typesetter("Inter-Black").lines(cue_of("Hהبख H").lines)
    assert len({glyph.face for glyph in line.glyphs if glyph.word is not None}) == 4
    assert all(glyph.y == 0 for glyph in line.glyphs)
    flat = [glyph.ink.bottom for glyph in line.glyphs if glyph.face in ("Inter-Black", "NotoSansHebrew")]
    assert all(abs(bottom) < 8 for bottom in flat)


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no FriBiDi here")
@pytest.mark.parametrize(
    ("face", "text"),
    [
        ("NotoSansArabic", "مرحبا بكم في متجرنا الجديد"), ("NotoSansHebrew", "שלום לכולם"),
        ("NotoSansDevanagari", "नमस्ते क्षत्रिय दोस्तों"), ("NotoSansThai", "สวัสดีที่นี่"), ("NotoSansBengali", "আমাদের দোকান"),
        ("NotoSansTamil", "வணக்கம்"), ("NotoSansKhmer", "សួស្តី"), ("NotoSansMyanmar", "မင်္ဂလာပါ"), ("Inter", "AVAToWe fi"),
    ],
)  # fmt: skip
def test_another_program_draws_the_same(face, text):
    # Large, as the other rounds the place of each letter to whole pixels.
    size = 194.4
    picture = Lettering(3240, 5760, "box").picture(cue_of(text), None)
    ours = brightness(picture)
    font = ImageFont.truetype(font_table.text_faces()[face], size, layout_engine=ImageFont.Layout.RAQM)
    image = Image.new("L", (2600, 600))
    ImageDraw.Draw(image).text((100, 100), text, 255, font)
    theirs = np.asarray(image)
    ours, theirs = (cropped(np.where(part > 60, part, 0).astype(float)) for part in (ours, theirs))
    height, width = (max(sides) for sides in zip(ours.shape, theirs.shape, strict=True))
    assert np.abs(np.subtract(ours.shape, theirs.shape)).max() <= 5
    ours, theirs = (np.pad(part, ((0, height - part.shape[0]), (0, width - part.shape[1]))) for part in (ours, theirs))
    assert max(np.corrcoef(ours.ravel(), np.roll(theirs, step, 1).ravel())[0, 1] for step in range(-2, 3)) > 0.95


def cropped(part):
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_every_text_of_a_caption_comes_out():
    text = "Fünf Tage 🔥 nur -50% für dich. مرحبا بكم! नमस्ते"
    assert uncovered(text) is None
    lettering = Lettering(*UPRIGHT, "pop")
    for cue in burnt_cues(spoken(text), burnt_columns("pop", *UPRIGHT)):
        for word in range(len(cue.words)):
            assert lettering.picture(cue, word).pixels[3].max() == 255
