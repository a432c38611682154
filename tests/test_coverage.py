"""What the fonts have: the table says it as they do, and whatever it allows is drawn, never as an empty box."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import font_table
from crosscut import coverage
from crosscut.burning import BurnWord
from crosscut.coverage import EMOJI, face_of, uncovered
from crosscut.typeset import Typesetter

EMOJI_TEXTS = ["😀", "❤️", "👍🏽", "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🇩🇪"]
EMOJI_TEXTS += ["🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "🐻‍❄️", "⚡", "⬜", "🫱🏻‍🫲🏿", "👩🏽‍❤️‍👨🏽"]
SETTER = Typesetter("Inter-Bold")


def glyphs(text):
    words = tuple(BurnWord(word, True, 0, 0) for word in text.split())
    return [glyph for line in SETTER.lines([words]) for glyph in line.glyphs]


def test_the_table_says_what_the_fonts_have():
    written = (font_table.PACKAGE / "glyphs.py").read_text(encoding="utf-8")
    assert written == font_table.module(), "python tests/font_table.py > src/crosscut/glyphs.py"


def test_both_weights_of_the_latin_font_have_the_same_characters():
    bold, black = (font_table.characters(font_table.FONTS / f"Inter-{weight}.otf") for weight in ("Bold", "Black"))
    assert bold == black


@pytest.mark.parametrize(
    "text",
    [
        "Hello, wörld – “naïve” … 100 € ½ №5 ™ → ✓ ★",
        "Привіт Ελλάδα Tiếng Việt Łódź",
        "مرحبا بالعالم، سعر ٢٥٠", "می‌خواهم", "שָׁלוֹם עולם",
        "नमस्ते क्षत्रिय", "বাংলা", "ગુજરાતી", "ਪੰਜਾਬੀ", "தமிழ்", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "සිංහල", "ଓଡ଼ିଆ",
        "ภาษาไทย", "ພາສາລາວ", "ភាសាខ្មែរ", "မြန်မာ", "ქართული", "Հայերեն", "አማርኛ", "ދިވެހި", "♪ ⚔\ufe0e",
        "e\u0301 a\u0323\u0302 \u200fx\u00ady\u200b",
    ],
)  # fmt: skip
def test_these_scripts_are_drawn(text):
    assert uncovered(text) is None
    assert all(glyph.number for glyph in glyphs(text))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("one 漢字", "漢"), ("こんにちは", "こ"), ("안녕", "안"), ("ok \ue000", "\ue000"), ("\u202bשלום", "\u202b"),
        ("x \ufffd", "\ufffd"), ("😀🏽 no such tone", "😀🏽"), ("👨‍👩 no such family", "👨‍👩"),
        ("🇦🇦", "🇦🇦"), ("🇩", "🇩"), ("🫱🏽‍🫲🏽", "🫱🏽‍🫲🏽"), ("😀\u0301", "😀\u0301"), ("a\U000e0061", "a\U000e0061"),
        ("\U00012000 cuneiform", "\U00012000"),
    ],
)  # fmt: skip
def test_what_no_font_has_is_named(text, first):
    assert uncovered(text) == first


def test_blanks_and_what_nobody_sees_need_no_font():
    assert uncovered("a\tb\nc\u3000d\u2028e\x00f\u200b \u200e \ufeff \ufe0f") is None
    assert uncovered("") is None


@pytest.mark.parametrize(
    "text", ["😀", "❤️", "👍🏽", "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🇩🇪", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "🐻‍❄️", "⚡", "⬜", "🧑🏻‍🤝‍🧑🏿"]
)
def test_an_emoji_is_one_picture(text):
    assert face_of(text) == EMOJI
    assert len([glyph for glyph in glyphs(text) if glyph.ink.right > glyph.ink.left]) == 1


def test_signs_are_letters_unless_they_are_asked_for_as_pictures():
    assert [face_of(text) for text in ("©", "☀", "1", "❤\ufe0e", "#\ufe0f")] == ["Inter"] * 5
    assert [face_of(text) for text in ("©\ufe0f", "☀\ufe0f", "❤\ufe0f")] == [EMOJI] * 3


def test_every_sequence_of_the_table_is_one_picture():
    sequences = [text for pattern in font_table.patterns() for text in font_table.spelled(pattern)]
    flags = ["".join(chr(ord(letter) - ord("A") + 0x1F1E6) for letter in flag) for flag in font_table.flags()]
    assert len(sequences) > 2000
    for text in sequences + flags + sorted(font_table.pictures() - set("#*0123456789")):
        shown = [text, text + "\ufe0f"] if len(text) == 1 else [text]
        assert face_of(shown[-1]) == EMOJI, ascii(text)
        drawn = [glyph for glyph in glyphs(shown[-1]) if glyph.ink.right > glyph.ink.left]
        assert [glyph.face for glyph in drawn] == [EMOJI], ascii(text)


characters = st.sampled_from(sorted(set().union(*coverage._FACES.values(), coverage._PICTURES, "\u200d\ufe0f🏽🇩🇪")))


@settings(max_examples=300, deadline=None)
@given(st.text(characters | st.characters(), max_size=8))
def test_whatever_is_not_named_is_drawn(text):
    kept = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp"))
    if uncovered(kept) is None:
        assert all(glyph.number for glyph in glyphs(kept))
