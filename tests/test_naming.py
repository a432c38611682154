from __future__ import annotations

import itertools
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crosscut.cuts import MARK, Cut, clip_key
from crosscut.errors import RequestError
from crosscut.media import Seconds
from crosscut.naming import NameTemplate, clip_label, folder_name, labels, slug

relaxed = settings(deadline=None, max_examples=150)
BLOCKS = ("hook", "body", "cta")
RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³")}

nasty = st.text() | st.text(alphabet="aA.-_ /\\:%é\u0301\u200d\u202e\ud800\u3164\x00\n0😀日", max_size=40)


def assert_safe(name: str, limit: int) -> None:
    assert name
    assert len(name.encode()) <= limit
    assert unicodedata.is_normalized("NFC", name)
    assert not name.startswith((".", "-", " "))
    assert not name.endswith((".", " "))
    assert name.split(".", maxsplit=1)[0].casefold() not in RESERVED
    for character in name:
        assert character not in '/\\:*?"<>|%'
        assert not unicodedata.category(character).startswith("C")


@relaxed
@given(nasty, st.integers(8, 60))
@example("com1-.-.-.x", 8)
@example("con!", 8)
@example("nul.", 60)
@example("a\u200d\u0301", 60)
@example(".\u0301.x", 60)
def test_a_slug_is_one_safe_component_of_limited_length(text: str, limit: int) -> None:
    name = slug(text, limit)
    assert_safe(name, limit)
    assert slug(name, limit) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test_task_2blocks_with_audio", "test_task_2blocks_with_audio"),
        ("../../etc/passwd", "etc-passwd"),
        ("Untitled design (5)", "Untitled_design-5"),
        ("aux.mp4", "_aux.mp4"),
        ("LPT²", "_LPT²"),
        ("console", "console"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("e\u0301te\u0301", "été"),
        ("日本語 テスト", "日本語_テスト"),
        ("हिन्दी", "हिन्दी"),
        ("-rf", "rf"),
        ("\u0301a", "a"),
        ("a\ufe0fb", "ab"),
        ("\u3164", "untitled"),
        ("tr...", "tr"),
        ("😀", "untitled"),
        ("", "untitled"),
    ],
)
def test_slugs_stay_recognisable(text: str, expected: str) -> None:
    assert slug(text, 60) == expected


def test_a_slug_never_splits_a_character() -> None:
    assert slug("日本語", 8) == "日本"


@relaxed
@given(nasty, nasty)
def test_different_tasks_have_different_safe_folders(one: str, other: str) -> None:
    assert_safe(folder_name(one), 120)
    assert (folder_name(one) == folder_name(other)) == (one == other)


def test_a_task_named_like_the_folder_of_another_gets_its_own() -> None:
    taken = folder_name("summer/sale")
    assert taken.startswith("summer-sale-")
    assert folder_name(taken) != taken
    assert folder_name("test_task_2blocks_with_audio") == "test_task_2blocks_with_audio"
    assert folder_name("Sommer & Sale (2), it's on") == "Sommer & Sale (2), it's on"
    assert folder_name("x" * 300) != folder_name("x" * 301)


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("https://storage.example.com/SF/Hook%20(2).MP4?sig=a/b.c&e=1#t", "Hook-2"),
        ("https://example.com/v1/b/media/o/folder%2Fclip.mp4?alt=media", "clip"),
        ("https://example.com/a/", "a"),
        ("https://example.com", "example"),
        ("https://example.com/v1.2.mp4", "v1.2"),
        ("https://example.com/v1.2", "v1.2"),
        ("clips/a b%20.mov", "a_b-20"),
        ("C:\\media\\hook?.mp4", "hook"),
        ("https://example.com/%E6%97%A5.mp4", "日"),
        ("https://[::1/%ff%2e%2e%2f.mp4", "untitled"),
    ],
)
def test_a_label_is_what_the_link_calls_its_file(source: str, label: str) -> None:
    assert clip_label(source) == label


def test_a_label_of_the_users_goes_before_the_file() -> None:
    assert clip_label(clip_key(Cut("https://example.com/x.mp4", label="Best one/ever.mp4"))) == "Best_one-ever.mp4"
    assert clip_label(clip_key(Cut("https://example.com/x.mp4", Seconds(Fraction(1)), volume=2))) == "x"
    parts = [clip_key(Cut("x.mp4", Seconds(Fraction(start)))) for start in range(3)]
    assert labels([*parts, clip_key(Cut("y.mp4", label="X"))]) == ("x", "x-2", "x-3", "X-4")


sources = (nasty | st.sampled_from(["a.mp4", "A.mp4", "x/a.mp4", "a-2.mp4", "a-3"])).map(
    # No source holds a control character: the mark between it and what is wished of it is one.
    lambda text: text.replace(MARK, "")
)


@relaxed
@given(st.lists(sources | st.builds(Cut, st.just("a.mp4"), label=nasty).map(clip_key), max_size=12))
def test_labels_are_safe_and_unique_whatever_the_case(sources: list[str]) -> None:
    result = labels(sources)
    assert len({label.casefold() for label in result}) == len(sources)
    for label in result:
        assert_safe(label, 60)


def test_equal_labels_are_numbered() -> None:
    assert labels(["x/a.mp4", "y/a.mp4", "z/A.mp4", "a-2.mp4"]) == ("a", "a-3", "A-4", "a-2")


def render(template: NameTemplate, **changes: object) -> str:
    values: dict[str, object] = {
        "index": 7,
        "total": 125,
        "choices": (1, 0, 2),
        "clips": ("hook2", "body1", "cta3"),
        "music": "Song 1",
        "voice": "",
        "format": None,
        "seed": 5,
        "task": "summer sale",
    }
    return template.render(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (None, "007_hook2-body1-cta3.mp4"),
        (" ", "007_hook2-body1-cta3.mp4"),
        ("{code}.mp4", "h2-b1-c3.mp4"),
        ("{task}_{index}", "summer_sale_007.mp4"),
        ("{hook} + {cta} [{code}]", "hook2 + cta3 [h2-b1-c3].mp4"),
        ("{music}-{voice}-{seed}-{index}", "Song_1-none-5-007.mp4"),
        ("com{index}", "com007.mp4"),
    ],
)
def test_a_template_names_files(template: str | None, name: str) -> None:
    assert render(NameTemplate.parse(template, BLOCKS)) == name


def test_the_format_is_appended_where_the_template_lacks_it() -> None:
    assert render(NameTemplate.parse(None, BLOCKS), format="9x16") == "007_hook2-body1-cta3_9x16.mp4"
    assert render(NameTemplate.parse("{format}_{index}", BLOCKS), format="9x16") == "9x16_007.mp4"
    assert render(NameTemplate.parse("{index}", BLOCKS), format="9x16", append_format=False) == "007.mp4"


def test_a_name_is_never_a_device() -> None:
    template = NameTemplate.parse("com{index}", BLOCKS)
    assert render(template, index=1, total=3) == "_com1.mp4"


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        (BLOCKS, "h2-b1-c3"),
        (("Hook", "Body", "CTA"), "h2-b1-c3"),
        (("block1", "block2", "block3"), "a2-b1-c3"),
        (("хук", "тело", "1"), "a2-b1-c3"),
    ],
)
def test_the_code_uses_initials_where_they_tell_blocks_apart(blocks: tuple[str, ...], code: str) -> None:
    assert NameTemplate.parse(None, blocks).code((1, 0, 2)) == code


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{clips}", "{index} or {code}"),
        ("{indx}", "did you mean {index}?"),
        ("{qqqqqqq}_{index}", "known are {task}"),
        ("{index", "a brace is not closed"),
        ("{index}}", "a brace is not closed"),
        ("{0.__class__}_{index}", "no placeholder"),
        ("{index!r}", "did you mean {index}"),
        ("../{index}", "“/”"),
        ("{index}\u202e", "U+202E"),
        ("{index}\n{clips}", "U+000A"),
        ("-{index}", "dash or a dot"),
        (".{index}", "dash or a dot"),
        ("{index}_{index}", "twice"),
        ("{index}{clips}", "between two placeholders"),
        ("{music}_{index}_{voice}", "first or last"),
        ("{code}_{clips}_{format}_{music}", "first or last"),
        ("{index}" + "x" * 500, "at most 400 characters"),
        ("{index}" + "x" * 50, "at most 24 bytes"),
    ],
)
def test_templates_that_could_clash_or_hurt_are_refused_in_one_sentence(template: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        NameTemplate.parse(template, BLOCKS)
    assert caught.value.code == "invalid_name"
    assert caught.value.public.startswith("name: ")
    assert words in caught.value.public


@relaxed
@given(nasty)
def test_no_template_raises_anything_else(template: str) -> None:
    problem = ""
    try:
        NameTemplate.parse(template, BLOCKS)
    except RequestError as error:
        problem = error.public
    assert problem.isprintable()


placeholders = st.sampled_from(["task", "index", "code", "clips", "music", "voice", "format", "seed", *BLOCKS])
templates = st.lists(placeholders, min_size=1, max_size=6, unique=True).flatmap(
    lambda fields: st.lists(
        st.sampled_from(["_", "-", "1_", " (", "_0x1_", ""]), min_size=len(fields) + 1, max_size=len(fields) + 1
    ).map(lambda marks: marks[0] + "".join(f"{{{f}}}{m}" for f, m in zip(fields, marks[1:], strict=True)))
)
labels_ = st.text(alphabet="h12_-x0", max_size=8) | nasty


@relaxed
@given(templates, st.lists(labels_, min_size=3, max_size=3), st.lists(labels_, min_size=3, max_size=3), labels_)
def test_all_names_of_a_task_are_safe_and_different(
    template: str, one: list[str], other: list[str], music: str
) -> None:
    try:
        parsed = NameTemplate.parse(template, BLOCKS)
    except RequestError:
        return
    names = []
    for index, (choices, shape) in enumerate(
        itertools.product(itertools.product(range(2), range(12), range(2)), ("9x16", "1080x1080")), 1
    ):
        clips = [(one, other)[choice % 2][block] for block, choice in enumerate(choices)]
        song = music if index % 3 else "1_h1-b1"
        names.append(render(parsed, index=index, total=96, choices=choices, clips=clips, music=song, format=shape))
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert_safe(name, 200)


def test_the_longest_names_stay_within_two_hundred_bytes_and_differ() -> None:
    blocks = tuple(f"b{i}" for i in range(16))
    names = {
        render(
            NameTemplate.parse(template, blocks),
            index=index,
            total=8 * 10**15,
            choices=(choice,) * 9 + (99,) * 7,
            clips=["日" * 60] * 16,
            music="é" * 99,
            voice="v" * 99,
            seed=2**63 - 1,
            task="t" * 200,
            format="4096x4096",
        )
        for index, choice in ((1, 998), (2, 998), (1, 997))
        for template in (
            "{task}_{seed}_{clips}_{music}_{voice}_{b1}_{b2}_{code}_{index}",
            "{clips}-{seed}_{task}--------------_{code}_{index}",
        )
    }
    assert len(names) == 6
    for name in names:
        assert_safe(name, 200)


def test_long_labels_are_shortened_alike() -> None:
    name = render(NameTemplate.parse(None, BLOCKS), clips=("a" * 60, "b" * 60, "c" * 60), task="", music="")
    assert name == f"007_{'a' * 60}-{'b' * 60}-{'c' * 60}.mp4"
    template = NameTemplate.parse("{index}_{clips}_{music}", BLOCKS)
    name = render(template, clips=("a" * 60, "b" * 60, "c"), music="m" * 60, total=10**12)
    assert name == f"{7:013}_{'a' * 59}-{'b' * 59}-c_{'m' * 59}.mp4"
