from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crosscut.cuts import Cut, cut_of
from crosscut.errors import RequestError
from crosscut.fields import PLAIN_LINK, RequestLimits, _check_link
from crosscut.media import NO_TIME, USUAL_MIX, Manner, MixSettings, Seconds
from crosscut.request import Block, Line, Request, Webhook, parse_request

relaxed = settings(deadline=None, max_examples=150)
LINK = "https://example.com/a.mp4"
README = Path(__file__).parent.parent / "README.md"

DOCUMENTED = {
    "task_name": "test_task_2blocks_with_audio",
    "video_blocks": {
        "block1": ["https://example.com/video1.mp4", "https://example.com/video2.mp4"],
        "block2": ["https://example.com/video3.mp4"],
    },
    "audio_blocks": {"audio1": ["https://example.com/audio1.mp3", "https://example.com/audio2.mp3"]},
    "text_to_speach": [{"text": "Hello world", "voice": "Sarah"}],
}


def body(**changes: Any) -> dict[str, Any]:
    return {"task_name": "t", "video_blocks": {"hook": [LINK]}, **changes}


def clips(*sizes: int) -> dict[str, list[str]]:
    return {f"b{number}": [LINK] * size for number, size in enumerate(sizes)}


def refusal(document: Any, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        parse_request(document, **options)
    assert caught.value.code == "invalid_request"
    assert not caught.value.retryable
    return caught.value.public


@pytest.mark.parametrize(
    "sent",
    [
        DOCUMENTED,
        json.dumps(DOCUMENTED),
        json.dumps(DOCUMENTED).encode(),
        "\ufeff" + json.dumps(DOCUMENTED),
        b"\xef\xbb\xbf" + json.dumps(DOCUMENTED).encode(),
    ],
)
def test_the_documented_request_is_understood(sent: Any) -> None:
    assert parse_request(sent) == Request(
        task_name="test_task_2blocks_with_audio",
        blocks=(
            Block("block1", ("https://example.com/video1.mp4", "https://example.com/video2.mp4")),
            Block("block2", ("https://example.com/video3.mp4",)),
        ),
        music=("https://example.com/audio1.mp3", "https://example.com/audio2.mp3"),
        music_starts=(NO_TIME, NO_TIME),
        lines=(Line("Hello world", "Sarah"),),
    )


def test_the_requests_that_the_readme_shows_are_understood() -> None:
    shown = re.findall(r"^```json\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    requests = [parse_request(text) for text in shown]
    assert [bool(request.bindings) for request in requests] == [False, True]


def test_defaults() -> None:
    request = parse_request(body())
    assert (request.seed, request.clip_sound, request.formats, request.fps) == (0, "mute", (), None)
    assert (request.fit, request.join, request.count, request.mix) == ("blur", "safe", None, USUAL_MIX)
    assert (request.voice_overflow, request.name, request.music, request.lines) == ("hold", None, (), ())
    assert (request.webhook, request.passthrough, request.destination, request.stages) == (None, None, None, ())
    assert (request.captions, request.caption_style, request.bindings) == ("none", "plain", ())


@pytest.mark.parametrize(
    "nothing",
    [
        {"audio_blocks": None},
        {"audio_blocks": {}},
        {"audio_blocks": {"a": []}},
        {"text_to_speach": None},
        {"text_to_speech": []},
        {"voice_blocks": {}},
        {"formats": []},
        {"formats": None},
        {"fps": None},
        {"select": None},
        {"name": None},
        {"name": " "},
        {"webhook": None},
        {"passthrough": None},
        {"destination": None},
    ],
)
def test_optional_fields_may_be_empty_or_null(nothing: dict[str, Any]) -> None:
    assert parse_request(body(**nothing)) == parse_request(body())


def test_blocks_play_in_the_order_given_and_audio_blocks_are_one_pool() -> None:
    request = parse_request(
        body(video_blocks={"z": [LINK], "a": [LINK, LINK]}, audio_blocks={"m": ["http://x/1"], "b": ["http://x/2"]})
    )
    assert [block.name for block in request.blocks] == ["z", "a"]
    assert request.sizes == (1, 2)
    assert request.music == ("http://x/1", "http://x/2")


@pytest.mark.parametrize("field", ["text_to_speach", "text_to_speech"])
def test_both_spellings_of_the_speech_field_mean_the_same(field: str) -> None:
    lines = parse_request(body(**{field: [{"text": " Hi\r\nyou ", "voice": " "}, {"text": "b", "voice": None}]})).lines
    assert lines == (Line("Hi\nyou", None), Line("b", None))


def test_voice_blocks_are_flattened_in_order() -> None:
    blocks = {"v2": [{"text": ["a", "b"], "voice": "Will"}], "v1": [{"text": "c"}]}
    assert parse_request(body(voice_blocks=blocks)).lines == (Line("a", "Will"), Line("b", "Will"), Line("c"))


@pytest.mark.parametrize("empty", [[], None])
def test_two_speech_fields_at_once_are_refused_even_when_one_is_empty(empty: Any) -> None:
    said = refusal(body(text_to_speach=[{"text": "a"}], text_to_speech=empty))
    assert said == "text_to_speach and text_to_speech both say what to speak: send only one of them."
    assert "voice_blocks" in refusal(body(voice_blocks={}, text_to_speech=[]))


@pytest.mark.parametrize(
    "link",
    [
        "https://e.com/Hook%20(2).MP4?X-Sig=a%2Fb&e=1",
        "http://e.com/a b (c).mp4",
        "HTTPS://E.com/x",
        "https://e.com:8443/x",
        "https://[2001:db8::1]/x",
        "https://пример.рф/видео.mp4",
        "https://e.com/a@b",
    ],
)
def test_links_of_everyday_shape_are_kept_as_they_are(link: str) -> None:
    assert parse_request(body(video_blocks={"hook": [f" {link} "]})).blocks[0].clips == (link,)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("file:///etc/passwd", 'starts with "file:"'),
        ("FILE:/etc/passwd", 'starts with "FILE:"'),
        ("az://bucket/x.mp4", 'starts with "az:"'),
        ("data:video/mp4;base64,AA", 'starts with "data:"'),
        ("concat:a|b", 'starts with "concat:"'),
        ("C:\\x.mp4", 'starts with "C:"'),
        ("a.mp4", "must be a link"),
        ("//e.com/a.mp4", "must be a link"),
        ("/etc/passwd", "must be a link"),
        ("https://user:secret@e.com/x", "user name or password"),
        ("https://secret@e.com/x", "user name or password"),
        ("https:///x?secret", "not a valid link"),
        ("https:x", "not a valid link"),
        ("https://e.com:99999/x", "not a valid link"),
        ("https://[::1/x", "not a valid link"),
        ("https://e .com/x", "not a valid link"),
        ("https://127.0.0.1\\@e.com/", "backslash"),
        ("https://e.com/\tx", "control character"),
        ("\nhttps://e.com/x", "control character"),
        ("https://e.com/\ud800", "control character"),
        ("https://e.com/" + "x" * 5000, "longer than 4,096 characters"),
        ("", "is empty"),
    ],
)
def test_other_links_are_refused_by_place_without_repeating_them(link: str, words: str) -> None:
    said = refusal(body(video_blocks={"hooks": [LINK, link]}))
    assert said.startswith("video_blocks.hooks[1] ")
    assert words in said
    assert "secret" not in said
    assert refusal(body(audio_blocks={"m": [link]})).startswith("audio_blocks.m[0] ")


@relaxed
@given(st.from_regex(PLAIN_LINK, fullmatch=True))
@example("https://a@b/")
@example("http://a:0/")
@example("http://a\\b/")
def test_what_passes_as_a_plain_link_would_pass_every_check(link: str) -> None:
    if PLAIN_LINK.fullmatch(link):
        assert link.isascii()
        assert link.isprintable()
        _check_link(link)
    else:
        refusal(body(video_blocks={"hooks": [link]}))


@pytest.mark.parametrize("path", ["a b.mp4", "./x:y.mp4", "/abs/x.mp4", "C:\\x.mp4", "~/x.mp4", "100%.mp4"])
def test_paths_are_sources_on_the_command_line_only(path: str) -> None:
    document = body(video_blocks={"hook": [path, LINK]})
    assert parse_request(document, local=True).blocks[0].clips == (path, LINK)
    refusal(document)


@pytest.mark.parametrize("path", ["file:x.mp4", "concat:a|b", "a\0b", " ", "rtmp://x/y", "https://u:p@e.com/x"])
def test_paths_that_are_something_else_are_refused(path: str) -> None:
    refusal(body(video_blocks={"hook": [path]}), local=True)


@pytest.mark.parametrize("local", [False, True])
def test_uploads_are_sources_by_their_id(local: bool) -> None:
    ids = ["source:" + "0123456789abcdef" * 2, "source:" + "a" * 64]
    request = parse_request(body(video_blocks={"hook": ids}, audio_blocks={"m": ids[:1]}), local=local)
    assert (request.blocks[0].clips, request.music) == (tuple(ids), (ids[0],))
    for wrong in ("a" * 31, "a" * 65, "A" * 32, "g" * 32, "../" + "a" * 32, "a" * 32 + "\u0660", ""):
        said = refusal(body(video_blocks={"hook": ["source:" + wrong]}), local=local)
        assert said.startswith("video_blocks.hook[0] is no id of an upload; ")


def test_how_lines_are_spoken_and_the_sound_is_mixed_is_understood() -> None:
    request = parse_request(
        body(
            audio_blocks={"a": [LINK, {"url": LINK + "?2", "start": 12.5}]},
            text_to_speech=[
                {"text": "a", "model": "eleven_v3", "language": "de", "settings": {"speed": 1.1, "stability": 0.2}}
            ],
            voice_gain=1.5,
            voice_start=0.1,
            fade_in=1,
            fade_out=0,
            loudness="off",
            captions="soft",
            spending_limit=2,
        )
    )
    assert (request.music, request.music_starts) == ((LINK, LINK + "?2"), (NO_TIME, Fraction(25, 2)))
    manner = Manner("eleven_v3", "de", (("speed", 1.1), ("stability", 0.2)))
    assert request.lines == (Line("a", None, manner),)
    assert request.mix == MixSettings(
        voice_gain=1.5, voice_start=Fraction(1, 10), fade_in=Fraction(1), fade_out=NO_TIME, loudness=None
    )
    assert (request.captions, request.spending_limit) == ("soft", 2.0)


def test_a_clip_may_be_a_part_of_its_source_with_a_volume_and_a_label() -> None:
    sent = [
        LINK,
        {"url": LINK},
        {"url": f" {LINK} ", "start": 0, "end": None, "volume": 1, "label": None},
        {"url": LINK, "start": 1.1, "end": 4, "volume": 0.5, "label": " Best “one” "},
        {"url": LINK, "end": 86_400, "volume": 0},
    ]
    request = parse_request(body(video_blocks={"hook": sent}, clip_sound="keep"))
    cut = Cut(LINK, Seconds(Fraction(11, 10)), Seconds(Fraction(4)), 0.5, "Best “one”")
    assert request.clip_sound == "keep"
    assert request.blocks[0].clips[:3] == (LINK,) * 3
    assert [cut_of(clip) for clip in request.blocks[0].clips[3:]] == [
        cut,
        Cut(LINK, end=Seconds(Fraction(86_400)), volume=0),
    ]
    assert parse_request(body(video_blocks={"hook": sent[4:]})).clip_sound == "mute"


def test_paths_and_uploads_may_be_cut_like_links() -> None:
    upload = "source:" + "a" * 64 + "/a.mp4"
    sent = [{"url": "clips/a.mp4", "start": 1}, {"url": upload, "start": 1}]
    request = parse_request(body(video_blocks={"hook": sent}), local=True)
    assert [cut_of(clip).source for clip in request.blocks[0].clips] == ["clips/a.mp4", upload]
    assert "a link that starts with https://" in refusal(body(video_blocks={"hook": sent[:1]}))


def test_captions_are_drawn_in_a_style() -> None:
    request = parse_request(body(captions="burn", caption_style="pop"))
    assert (request.captions, request.caption_style) == ("burn", "pop")


def test_a_webhook_is_told_of_everything_unless_it_names_events() -> None:
    url = "https://example.com/hook?key=1"
    assert parse_request(body(webhook={"url": f" {url} "})).webhook == Webhook(url, ("job.ended", "job.first_failure"))
    named = parse_request(body(webhook={"url": url, "events": ["job.first_failure"] * 2})).webhook
    assert named == Webhook(url, ("job.first_failure",))


def test_a_passthrough_and_a_destination_are_kept_as_they_are() -> None:
    text = ' {"id": 7}\n\t😀 '
    request = parse_request(body(passthrough=text, destination="/mnt/videos of may"))
    assert (request.passthrough, request.destination) == (text, "/mnt/videos of may")
    assert parse_request(body(passthrough="")).passthrough == ""
    assert parse_request(body(passthrough="x" * 1_000, destination="x" * 1_000)).combinations == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (["9:16", "1:1", "4:5", "16:9"], ((1080, 1920), (1080, 1080), (1080, 1350), (1920, 1080))),
        (["720x1280", "640×640", "64 X 4096"], ((720, 1280), (640, 640), (64, 4096))),
    ],
)
def test_formats_are_ratios_or_sizes(sent: Any, kept: Any) -> None:
    assert parse_request(body(formats=sent)).formats == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (30, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (29.97, Fraction(30000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        (" 25 ", Fraction(25)),
        (24, Fraction(24)),
        (60.0, Fraction(60)),
        (1, Fraction(1)),
    ],
)
def test_frame_rates_are_exact(sent: Any, kept: Any) -> None:
    assert parse_request(body(fps=sent)).fps == kept


@pytest.mark.parametrize(
    "sent", [0, -1, 0.5, 61, 60.1, True, "1/0", "0/5", "1e3", "1e999999999", "x", "", "30000/1009", [], {}, 10**400]
)
def test_impossible_frame_rates_are_refused(sent: Any) -> None:
    assert refusal(body(fps=sent)).startswith('fps must be a number from 1 to 60, or a fraction like "30000/1001"')


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task_name": None}, "task_name must be a text, not null."),
        ({"task_name": "  "}, "task_name is empty; write one."),
        ({"task_name": "a\u2028b"}, "task_name holds a line break or another control character; remove it."),
        ({"task_name": "\ud800"}, "task_name holds a line break or another control character; remove it."),
        ({"task_name": "x" * 201}, "task_name is longer than 200 characters; shorten it."),
        (
            {"video_blocks": []},
            'video_blocks must be an object like {"hook": ["https://example.com/clip.mp4"]}, not a list.',
        ),
        ({"video_blocks": {"h": LINK}}, "video_blocks.h must be a list, not a text; put it in [ ]."),
        (
            {"video_blocks": {"h": [LINK, [LINK]]}},
            'video_blocks.h[1] must be a link like "https://example.com/clip.mp4", not a list.',
        ),
        (
            {"video_blocks": {"h": [LINK, {"start": 1}]}},
            "video_blocks.h[1].url is missing: give the link.",
        ),
        ({"video_blocks": {"h": [{"url": "x"}]}}, "video_blocks.h[0].url must be a link that starts with https://."),
        (
            {"video_blocks": {"h": [{"url": [LINK]}]}},
            'video_blocks.h[0].url must be a link like "https://example.com/clip.mp4", not a list.',
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "lable": "x"}]}},
            "video_blocks.h[0].lable is not a known field; did you mean label?",
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "start": "1"}]}},
            "video_blocks.h[0].start must be a number of seconds, not a text.",
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "end": 86_401}]}},
            "video_blocks.h[0].end must be a number of seconds from 0 to 86,400.",
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "start": 2, "end": 2}]}},
            "video_blocks.h[0] ends before it begins; send an end that is larger than its start.",
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "volume": 4.1}]}, "clip_sound": "keep"},
            "video_blocks.h[0].volume must be a number from 0 (silent) to 4; 1 is as it is.",
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "volume": True}]}},
            "video_blocks.h[0].volume must be a number, not true or false.",
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "volume": 0.5}]}},
            (
                'video_blocks.h[0].volume has no effect in a task whose clip_sound is "mute"; remove it or make the '
                'task with "clip_sound": "keep".'
            ),
        ),
        ({"video_blocks": {"h": [{"url": LINK, "label": " "}]}}, "video_blocks.h[0].label is empty; write one."),
        (
            {"video_blocks": {"h": [{"url": LINK, "label": "x" * 101}]}},
            "video_blocks.h[0].label is longer than 100 characters; shorten it.",
        ),
        (
            {"video_blocks": {"h": [{"url": LINK, "label": "a\x1fb"}]}},
            "video_blocks.h[0].label holds a line break or another control character; remove it.",
        ),
        (
            {"audio_blocks": {"m": [None]}},
            'audio_blocks.m[0] must be a link like "https://example.com/music.mp3", not null.',
        ),
        ({"text_to_speach": {"text": "a"}}, "text_to_speach must be a list, not an object; put it in [ ]."),
        (
            {"voice_blocks": [{"text": "a"}]},
            'voice_blocks must be an object like {"greetings": [{"text": "Hello"}]}, not a list.',
        ),
        (
            {"video_blocks": {"block2": []}},
            "video_blocks.block2 has no clips: add at least one link or remove the block.",
        ),
        (
            {"video_blocks": {"a.b c": []}},
            'video_blocks["a.b c"] has no clips: add at least one link or remove the block.',
        ),
        ({"video_blocks": {" ": [LINK]}}, 'video_blocks[" "] has a name that is empty; write one.'),
        (
            {"video_blocks": {"h\n": [LINK]}},
            'video_blocks["h�"] has a name that holds a line break or another control character; remove it.',
        ),
        ({"text_to_speach": ["hi"]}, 'text_to_speach[0] must be an object like {"text": "Hello"}, not a text.'),
        ({"text_to_speach": [{"voice": "x"}]}, "text_to_speach[0].text is missing: write what to say."),
        (
            {"text_to_speach": [{"text": " \n"}]},
            "text_to_speach[0].text is blank; write what to say or remove the line.",
        ),
        ({"text_to_speach": [{"text": "a\x07"}]}, "text_to_speach[0].text holds a control character; remove it."),
        ({"text_to_speach": [{"text": "a", "voice": 1}]}, "text_to_speach[0].voice must be a text, not a number."),
        (
            {"text_to_speach": [{"text": "a", "voise": "x"}]},
            "text_to_speach[0].voise is not a known field; did you mean voice?",
        ),
        (
            {"voice_blocks": {"v": [{"text": []}]}},
            "voice_blocks.v[0].text is empty; write what to say or remove the line.",
        ),
        (
            {"voice_blocks": {"v": [{"text": ["a", 3]}]}},
            "voice_blocks.v[0].text must be a text or a list of texts, not a number.",
        ),
        ({"seed": -1}, "seed must be a whole number from 0 to 9,223,372,036,854,775,807."),
        ({"seed": 10**400}, "seed must be a whole number from 0 to 9,223,372,036,854,775,807."),
        ({"seed": 1.5}, "seed must be a whole number, not a number with a decimal point."),
        ({"seed": True}, "seed must be a whole number, not true or false."),
        ({"seed": "7"}, "seed must be a whole number, not a text; write it without quotes."),
        ({"clip_sound": 1}, 'clip_sound must be "mute" or "keep".'),
        ({"formats": "9:16"}, "formats must be a list, not a text; put it in [ ]."),
        ({"formats": ["9:17"]}, 'formats[0] must be "9:16", "1:1", "4:5", "16:9" or a size like "1080x1920".'),
        (
            {"formats": ["1:1", 4]},
            'formats[1] must be "9:16", "1:1", "4:5", "16:9" or a size like "1080x1920", not a number.',
        ),
        ({"formats": ["1081x1920"]}, "formats[0] must have even sides from 64 to 4,096 pixels."),
        ({"formats": ["62x100"]}, "formats[0] must have even sides from 64 to 4,096 pixels."),
        ({"formats": ["1:1", "9:16", "1080x1920"]}, "formats holds 1080x1920 twice, at [1] and [2]; remove one."),
        (
            {"formats": [f"{n}x100" for n in range(64, 82, 2)]},
            "formats has 9 entries; at most 8 can be made in one task, so remove some.",
        ),
        ({"fit": "stretch"}, 'fit must be "pad", "crop" or "blur".'),
        ({"join": None}, 'join must be "safe" or "wide".'),
        ({"select": 5}, 'select must be an object like {"count": 50}, not a number.'),
        ({"select": {}}, "select.count is missing: send how many combinations to make."),
        ({"select": {"count": 0}}, "select.count must be 1 or more."),
        ({"select": {"count": 5.0}}, "select.count must be a whole number, not a number with a decimal point."),
        ({"select": {"cuont": 5, "count": 5}}, "select.cuont is not a known field; did you mean count?"),
        ({"music_gain": 1}, "music_gain must be a number from -40 to 0."),
        ({"voice_gain": 20}, "voice_gain must be a number from -12 to 6."),
        ({"voice_start": -1}, "voice_start must be a number of seconds from 0 to 600."),
        ({"fade_in": True}, "fade_in must be a number of seconds, not true or false."),
        ({"fade_out": "1"}, "fade_out must be a number of seconds, not a text."),
        ({"loudness": -15}, 'loudness must be -14, -16, -23 or "off".'),
        ({"captions": "burnt"}, 'captions must be "none", "soft" or "burn".'),
        ({"caption_style": "bold"}, 'caption_style must be "plain", "box" or "pop".'),
        ({"caption_style": "pop"}, 'caption_style has no effect without "captions": "burn"; send both or neither.'),
        ({"spending_limit": -1}, "spending_limit must be an amount in US dollars, 0 or more."),
        (
            {"audio_blocks": {"m": [{"url": LINK, "start": -2}]}},
            "audio_blocks.m[0].start must be a number of seconds from 0 to 600.",
        ),
        ({"audio_blocks": {"m": [{"start": 2}]}}, "audio_blocks.m[0].url is missing: give the link."),
        ({"audio_blocks": {"m": [{"url": "nope"}]}}, "audio_blocks.m[0].url must be a link that starts with https://."),
        (
            {"audio_blocks": {"m": [{"url": LINK, "end": 2}]}},
            "audio_blocks.m[0].end is not a known field; known here: url, start.",
        ),
        (
            {"text_to_speech": [{"text": "a", "language": "english"}]},
            'text_to_speech[0].language must be a language code of two small letters, like "en".',
        ),
        (
            {"text_to_speech": [{"text": "a", "settings": {"stability": 2}}]},
            "text_to_speech[0].settings.stability must be a number from 0 to 1.",
        ),
        (
            {"text_to_speech": [{"text": "a", "settings": {"spead": 1}}]},
            "text_to_speech[0].settings.spead is not a known field; did you mean speed?",
        ),
        (
            {"voice_blocks": {"v": [{"text": "a", "settings": 3}]}},
            'voice_blocks.v[0].settings must be an object like {"stability": 0.5}, not a number.',
        ),
        ({"music_gain": "-14"}, "music_gain must be a number, not a text; write it without quotes."),
        ({"voice_overflow": "cut"}, 'voice_overflow must be "hold", "speed", "choose" or "refuse".'),
        ({"name": "{clips}"}, "name: put {index} or {code} in it, so that no two videos get the same name."),
        ({"name": 3}, "name must be a text, not a number."),
        (
            {"webhook": LINK},
            'webhook must be an object like {"url": "https://example.com/hook"}, not a text.',
        ),
        ({"webhook": {}}, "webhook.url is missing: give the link."),
        ({"webhook": {"url": "a/b"}}, "webhook.url must be a link that starts with https://."),
        ({"webhook": {"url": "source:" + "a" * 32}}, "webhook.url must be a link that starts with https://."),
        (
            {"webhook": {"url": "https://u:p@e.com/"}},
            "webhook.url holds a user name or password; use a signed or public link instead.",
        ),
        (
            {"webhook": {"url": "https://e.com/a\nb"}},
            "webhook.url holds a line break, tab or another control character; remove it.",
        ),
        (
            {"webhook": {"url": LINK + "x" * 5000}},
            "webhook.url is longer than 4,096 characters; use a shorter link.",
        ),
        (
            {"webhook": {"url": LINK, "events": ["job.done"]}},
            'webhook.events[0] must be "job.ended" or "job.first_failure".',
        ),
        (
            {"webhook": {"url": LINK, "events": []}},
            "webhook.events is empty; name the events or leave it out for all of them.",
        ),
        ({"webhook": {"uri": LINK, "url": LINK}}, "webhook.uri is not a known field; did you mean url?"),
        ({"passthrough": {}}, "passthrough must be a text, not an object."),
        ({"passthrough": "x" * 1_001}, "passthrough is longer than 1,000 characters; shorten it."),
        (
            {"passthrough": "a\ud800"},
            "passthrough holds a null character or half of a surrogate pair; remove it.",
        ),
        ({"passthrough": "a\0"}, "passthrough holds a null character or half of a surrogate pair; remove it."),
        ({"destination": " "}, "destination is empty; write one."),
        ({"destination": "x" * 1_001}, "destination is longer than 1,000 characters; shorten it."),
        ({"destination": "a\nb"}, "destination holds a line break or another control character; remove it."),
        ({"video_block": {}}, "video_block is not a known field; did you mean video_blocks?"),
        (
            {"seed": -1, "fit": "x"},
            "seed must be a whole number from 0 to 9,223,372,036,854,775,807 (and 1 more mistake).",
        ),
        ({"zz\ud800": 1}, "A field name holds a broken character, half of a surrogate pair; remove it."),
    ],
)
def test_a_mistake_is_named_by_place_with_what_to_change(changes: dict[str, Any], said: str) -> None:
    assert refusal(body(**changes)) == said


def test_several_mistakes_name_the_first_and_count_the_rest() -> None:
    said = refusal({"video_blocks": {"a": [], "b": ["x"]}, "seed": -1})
    assert said == "task_name is missing: give the task a name, which becomes its folder (and 3 more mistakes)."


def test_a_misspelt_field_is_named_rather_than_the_one_it_leaves_missing() -> None:
    said = refusal({"taskName": "t", "video_blocks": {"hook": [LINK]}})
    assert said == "taskName is not a known field; did you mean task_name? (and 1 more mistake)."


def test_an_unknown_field_far_from_all_others_lists_them() -> None:
    assert "known here: task_name, video_blocks, " in refusal(body(qqqqqqqq=1))
    assert refusal(body(select={"count": 1, "q\n": 1})) == 'select["q�"] is not a known field; known here: count.'


def test_anything_but_control_characters_may_stand_in_a_task_name() -> None:
    assert parse_request(body(task_name=" ../a\"b'/😀 ")).task_name == "../a\"b'/😀"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("[]", "must be an object"),
        ("null", "not null"),
        ("", "request is empty"),
        (b" \n", "request is empty"),
        ("{'a': 1}", "in double quotes at line 1, column 2; check quotes"),
        ('{"a": "b', "unterminated string starting at line 1, column 7; check"),
        ('{"a": 1,}', "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        ('{"seed": 1, "seed": 2}', 'holds "seed" twice'),
        ('{"video_blocks": {"h": [], "h": []}}', 'holds "h" twice'),
        ('{"music_gain": NaN}', "holds NaN"),
        ('{"music_gain": -Infinity}', "holds -Infinity"),
        ('{"music_gain": 1e999}', "task_name is missing"),
        ('{"seed": 1' + "0" * 5000 + "}", "too many digits"),
        ("[" * 100_000, "nested deeper than 32 levels"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper than 32 levels"),
        ('{"\\ud800": 1}', "surrogate"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "larger than 1,048,576 bytes"),
        (('{"a": "' + "é" * 600_000 + '"}'), "larger than 1,048,576 bytes"),
        ({"seed": float("nan")}, "holds NaN"),
        ({"seed": b"x"}, "JSON cannot express"),
        ({1: {2}}, "JSON cannot express"),
    ],
)
def test_documents_that_are_no_plain_json_are_refused(sent: Any, words: str) -> None:
    assert words in refusal(sent)


def test_a_document_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = body()
    loop["select"] = loop
    assert "JSON cannot express" in refusal(loop)


def test_brackets_inside_texts_do_not_count_as_nesting() -> None:
    assert parse_request(json.dumps(body(text_to_speech=[{"text": '[{"\\' * 40}]))).lines[0].text == '[{"\\' * 40


def test_hostile_documents_of_full_size_are_judged_quickly() -> None:
    quotes = '{"a": "' + '\\"' * 500_000
    keys = "{" + ",".join(f'"{n}":0' for n in range(90_000)) + ',"0":0}'
    assert "not valid JSON" in refusal(quotes)
    assert 'holds "0" twice' in refusal(keys)


def test_every_bound_is_a_limit_that_can_be_set() -> None:
    limits = RequestLimits(sources=3, blocks=2, lines=1, text=5, url=30, task_name=4, variations=2)
    parse_request(body(task_name="four", video_blocks=clips(1, 2), text_to_speach=[{"text": "12345"}]), limits=limits)
    for changes, words in (
        ({"video_blocks": clips(1, 2), "audio_blocks": {"m": [LINK]}}, "4 links are too many"),
        ({"video_blocks": clips(1, 1, 1)}, "video_blocks has 3 blocks; at most 2"),
        ({"text_to_speach": [{"text": "a"}] * 2}, "2 voice-over texts are too many"),
        ({"text_to_speach": [{"text": "123456"}]}, "text_to_speach[0].text has 6 characters; at most 5"),
        ({"voice_blocks": {"v": [{"text": ["123456"]}]}}, "voice_blocks.v[0].text has 6 characters; at most 5"),
        ({"video_blocks": {"h": [LINK + "x" * 10]}}, "video_blocks.h[0] is longer than 30"),
        ({"task_name": "fives"}, "task_name is longer than 4"),
        ({"video_blocks": clips(3)}, "3 variations (3 clips) are too many: at most 2"),
    ):
        assert words in refusal(body(**changes), limits=limits)
    assert "larger than 10 bytes" in refusal(body(), limits=RequestLimits(body=10))
    assert "deeper than 2 levels" in refusal(body(), limits=RequestLimits(depth=2))


def test_variations_are_counted_before_anything_is_enumerated() -> None:
    assert refusal(body(video_blocks=clips(*[10] * 12))) == (
        "1,000,000,000,000 variations (10 × 10 × 10 × 10 × 10 × 10 × 10 × 10 × 10 × 10 × 10 × 10 clips) are too many: "
        'at most 1,000,000 are made in one task; shorten a block or choose a part, like "select": {"count": 100}.'
    )
    assert parse_request(body(video_blocks=clips(*[10] * 6))).combinations == 10**6


def test_formats_multiply_the_variations() -> None:
    said = refusal(body(video_blocks=clips(*[10] * 6), formats=["1:1", "9:16"]))
    assert said.startswith("2,000,000 variations (10 × 10 × 10 × 10 × 10 × 10 clips in 2 formats)")
    said = refusal(body(video_blocks=clips(*[10] * 12), formats=["1:1", "9:16"], select={"count": 600_000}))
    assert said.startswith("1,200,000 variations")
    assert said.endswith("send a smaller select.count.")


def test_a_part_of_a_product_beyond_the_limit_may_be_selected() -> None:
    request = parse_request(body(video_blocks=clips(*[10] * 15), select={"count": 50}))
    assert (request.count, request.combinations) == (50, 50)
    assert "too many to choose from" in refusal(body(video_blocks=clips(*[10] * 15, 2), select={"count": 50}))


def test_a_count_beyond_the_product_is_all_of_it() -> None:
    assert parse_request(body(video_blocks=clips(2, 3), select={"count": 10**30})).combinations == 6


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20) | st.just(LINK),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
known_fields = st.sampled_from(
    [
        "task_name",
        "video_blocks",
        "audio_blocks",
        "text_to_speach",
        "voice_blocks",
        "seed",
        "formats",
        "fps",
        "fit",
        "select",
        "name",
        "webhook",
        "passthrough",
        "destination",
    ]
)
numbers = json_values | st.floats(-1, 5)
names = json_values | st.text(max_size=5) | st.sampled_from(["hook", "a"])
cut_clips = st.fixed_dictionaries(
    {"url": st.just(LINK) | json_values},
    optional={"start": numbers, "end": numbers, "volume": numbers, "label": st.text() | json_values},
)
shaped = st.fixed_dictionaries(
    {},
    optional={
        "video_blocks": st.dictionaries(st.text(max_size=5), st.lists(cut_clips | json_values, max_size=3), max_size=3),
        "voice_blocks": st.dictionaries(
            st.text(max_size=5), st.lists(st.fixed_dictionaries({"text": json_values}), max_size=2), max_size=2
        ),
        "text_to_speach": st.lists(
            st.fixed_dictionaries(
                {"text": st.text() | json_values}, optional={"voice": json_values, "block": names, "clip": names}
            ),
            max_size=2,
        ),
        "clip_sound": st.just("keep") | json_values,
        "formats": st.lists(json_values | st.from_regex(r"\d{1,6}x\d{1,6}"), max_size=3),
        "fps": json_values | st.from_regex(r"[0-9./e]{1,12}"),
        "name": st.text(alphabet="{}index_code!.", max_size=20),
    },
)


def outcome(sent: Any, **options: Any) -> Request | RequestError:
    try:
        return parse_request(sent, **options)
    except RequestError as error:
        return error


def assert_only_request_errors(sent: Any, **options: Any) -> None:
    result = outcome(sent, **options)
    if isinstance(result, Request):
        hash(result)
        repr(result).encode()
    else:
        assert result.code == "invalid_request"
        assert result.public.isprintable()
        assert result.public[-1] in ".?"
        assert len(result.public) < 1_000


@relaxed
@given(
    json_values | st.dictionaries(known_fields, json_values) | st.builds(lambda some: body(**some), shaped),
    st.booleans(),
)
@example({"text_to_speach": {"": 0}}, False)
def test_no_json_value_raises_anything_but_a_request_error(value: Any, local: bool) -> None:
    assert_only_request_errors(json.dumps(value), local=local)
    if isinstance(value, dict):
        assert_only_request_errors(value, local=local)


@relaxed
@given(st.binary(max_size=60) | st.text(max_size=60) | st.text(alphabet='{}[]":,\\01eENaI -', max_size=40))
def test_no_body_raises_anything_but_a_request_error(sent: Any) -> None:
    assert_only_request_errors(sent)
