from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crosscut.errors import RequestError
from crosscut.guard import RefusedError, checked_url
from crosscut.links import (
    LinkError,
    ObjectName,
    Place,
    file_name,
    names_file,
    object_name,
    object_place,
    share_place,
)
from crosscut.request import parse_request

ID = "1aB_cd-EF23456789012345678901234"
DRIVE = f"https://drive.usercontent.google.com/download?id={ID}&export=download&confirm=t"


def place(link: str) -> Place:
    found = share_place(link)
    assert found is not None
    return found


def named(text: str) -> ObjectName:
    name = object_name(text)
    assert name is not None
    return name


@pytest.mark.parametrize(
    "link",
    [
        f"https://drive.google.com/file/d/{ID}/view?usp=sharing",
        f"https://drive.google.com/file/d/{ID}",
        f"http://Drive.Google.com:80/file/d/{ID}/preview",
        f"https://drive.google.com/file/u/1/d/{ID}/edit?usp=drive_link",
        f"https://drive.google.com/a/example.com/file/d/{ID}/view",
        f"https://drive.google.com/open?id={ID}&authuser=0",
        f"https://drive.google.com/uc?export=download&id={ID}&confirm=no_antivirus",
        f"https://drive.google.com/u/0/uc?id={ID}",
        f"https://docs.google.com/uc?id={ID}",
        f"https://docs.google.com/file/d/{ID}/edit",
        f"https://drive.usercontent.google.com/download?id={ID}&uuid=x&at=y",
        f"https://drive.usercontent.google.com/uc?id={ID}",
    ],
)
def test_every_spelling_of_a_drive_link_leads_to_the_file(link: str) -> None:
    assert place(link).url == DRIVE
    assert place(link).key == place(f"https://drive.google.com/open?id={ID}").key
    assert not names_file(link)


def test_the_resource_key_of_a_drive_link_is_kept_and_known_by() -> None:
    link = f"https://drive.google.com/file/d/{ID}/view?usp=sharing"
    with_key = place(f"{link}&resourcekey=0-a_B")
    assert with_key.url == f"{DRIVE}&resourcekey=0-a_B"
    assert len({place(link).key, with_key.key, place(f"{link}&resourcekey=0-a_C").key}) == 3


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (f"https://drive.google.com/drive/folders/{ID}?usp=sharing", "is a folder of Google Drive"),
        (f"https://drive.google.com/drive/u/0/folders/{ID}", "is a folder of Google Drive"),
        (f"https://drive.google.com/folderview?id={ID}", "is a folder of Google Drive"),
        (f"https://docs.google.com/document/d/{ID}/edit", "leads to no file of Google Drive, as documents"),
        (f"https://docs.google.com/spreadsheets/d/{ID}/edit#gid=0", "leads to no file of Google Drive, as documents"),
        ("https://drive.google.com/drive/my-drive", "leads to no file of Google Drive"),
        ("https://drive.google.com/open", "leads to no file of Google Drive"),
        ("https://drive.google.com/open?id=../../etc/passwd", "leads to no file of Google Drive"),
        ("https://drive.google.com/file/d/%2e%2e%2fx%2f%2f%2f%2f/view", "leads to no file of Google Drive"),
    ],
)
def test_what_is_no_file_of_drive_is_refused_already_in_the_request(link: str, said: str) -> None:
    with pytest.raises(LinkError) as caught:
        share_place(link)
    assert caught.value.reason.startswith(said)
    refusal = refused(link)
    assert refusal.startswith(f"video_blocks.h[0] {said}")
    assert ID not in refusal


@pytest.mark.parametrize(
    ("link", "wanted"),
    [
        ("https://www.dropbox.com/s/abc/My%20clip.mp4?dl=0", "https://www.dropbox.com/s/abc/My%20clip.mp4?dl=1"),
        ("http://dropbox.com/s/abc/clip.mp4", "https://www.dropbox.com/s/abc/clip.mp4?dl=1"),
        (
            "https://www.dropbox.com/scl/fi/xy/a.mov?rlkey=k+1&st=now&e=1&raw=1",
            "https://www.dropbox.com/scl/fi/xy/a.mov?rlkey=k+1&st=now&e=1&dl=1",
        ),
    ],
)
def test_a_dropbox_link_leads_to_the_file(link: str, wanted: str) -> None:
    assert place(link).url == wanted
    assert names_file(link)


def test_dropbox_links_are_one_source_where_path_and_key_are() -> None:
    path = "https://www.dropbox.com/scl/fi/xy/a.mov"
    same = ["?rlkey=k&dl=0", "?dl=1&rlkey=k", "?rlkey=k", "?rlkey=k&st=now&dl=0", "?e=2&rlkey=k&raw=1"]
    assert len({place(path + query).key for query in same}) == 1
    others = ["?rlkey=K&dl=0", "?dl=0", "?rlkey=", "/b.mov?rlkey=k"]
    assert len({place(path + query).key for query in [same[0], *others]}) == 5


@pytest.mark.parametrize(
    "link",
    [
        "https://example.com/file/d/1234567890ab/view",
        "https://drive.google.com.example.com/file/d/1234567890ab/view",
        "https://drive.google.com:8443/file/d/1234567890ab/view",
        "https://example.com/?https://drive.google.com/open?id=1234567890ab",
        "https://notdropbox.com/s/a/b.mp4",
        "https://www.dropbox.com/login",
        "https://www.dropbox.com/s/",
        "https://dl.dropboxusercontent.com/s/a/b.mp4",
        "https://google.com/file/d/1234567890ab/view",
    ],
)
def test_any_other_link_is_left_alone(link: str) -> None:
    assert share_place(link) is None
    assert object_name(link) is None


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["drive.google.com", "docs.google.com", "www.dropbox.com", "dropbox.com"]),
    st.sampled_from(
        ["/file/d/", "/open?id=", "/uc?id=1234567890ab&resourcekey=", "/s/", "/scl/fi/", "/", "@", ":80", ""]
    ),
    st.text("aZ09_-./%@:?&=#\\ é", max_size=30),
)
def test_a_share_link_never_leads_to_another_host(host: str, path: str, rest: str) -> None:
    try:
        link = str(checked_url(f"https://{host}{path}{rest}"))
        found = share_place(link)
    except (LinkError, RefusedError):
        return
    if found is not None:
        expected = "www.dropbox.com" if "dropbox" in host else "drive.usercontent.google.com"
        assert checked_url(found.url).host == expected
        assert found.service in ("drive", "dropbox")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("gs://bucket/clip.mp4", "https://storage.googleapis.com/bucket/clip.mp4"),
        ("GS://my_bucket/a/My clip+ü%20.mp4", "https://storage.googleapis.com/my_bucket/a/My%20clip%2B%C3%BC%2520.mp4"),
        ("gs://media.example.com/x", "https://storage.googleapis.com/media.example.com/x"),
        ("s3://bucket/clip.mp4", "https://bucket.s3.amazonaws.com/clip.mp4"),
        ("S3://bucket/a b/c=d&e.mp4", "https://bucket.s3.amazonaws.com/a%20b/c%3Dd%26e.mp4"),
        ("s3://media.example.com/x", "https://s3.amazonaws.com/media.example.com/x"),
        ("s3://bucket//x", "https://bucket.s3.amazonaws.com//x"),
    ],
)
def test_an_object_has_a_public_address(text: str, url: str) -> None:
    name = named(text)
    found = object_place(name)
    assert found.url == str(checked_url(found.url)) == url
    assert found.key == str(name) == text[:2].lower() + text[2:]
    assert accepted(text) == str(name)


HOSTILE = [
    ("{}://../x", "names a bucket as"),
    ("{}://bucket/../../etc", "holds a . or .. between slashes"),
    ("{}://bucket/a/./b", "holds a . or .. between slashes"),
    ("{}://bucket/..", "holds a . or .. between slashes"),
    ("{}://user:secret@bucket/x", "holds a user name, a password or a port"),
    ("{}://secret@bucket/x", "holds a user name, a password or a port"),
    ("{}://bucket:443/x", "holds a user name, a password or a port"),
    ("{}://[::1]/x", "holds a user name, a password or a port"),
    ("{}://bucket/x?X-Amz-Signature=secret", "holds ? or #"),
    ("{}://bucket/x#1", "holds ? or #"),
    ("{}://bucket?x/secret", "holds ? or #"),
    ("{}://bucket/a\nb", "holds a line break"),
    ("{}://bucket/a\x00b", "holds a line break"),
    ("{}://buc\u2028ket/ab", "holds a line break"),
    ("{}://bucket/a\\b", "holds a backslash"),
    ("{}://bucket", "names no object"),
    ("{}://bucket/", "names no object"),
    ("{}://bucket/folder/", "names no object"),
    ("{}://", "names no bucket"),
    ("{}:///x", "names no bucket"),
    ("{}:bucket/x", "names no bucket"),
    ("{}:/bucket/x", "names no bucket"),
    ("{}://ab/x", "names a bucket as"),
    ("{}://Bucket/x", "names a bucket as"),
    ("{}://buck et/x", "names a bucket as"),
    ("{}://-bucket/x", "names a bucket as"),
    ("{}://bucket-/x", "names a bucket as"),
    ("{}://.bucket/x", "names a bucket as"),
    ("{}://bucket./x", "names a bucket as"),
    ("{}://buc..ket/x", "names a bucket as"),
    ("{}://büchse/x", "names a bucket as"),
    ("{}://buc%2fket/x", "names a bucket as"),
    ("{}://127.0.0.1/x", "names a bucket as"),
    ("{}://169.254.169.254/latest", "names a bucket as"),
    (f"{{}}://{'b' * 64}/x", "names a bucket as"),
    (f"{{}}://bucket/{'ü' * 513}", "names an object in more than 1,024 bytes"),
]


@pytest.mark.parametrize("cloud", ["gs", "s3"])
@pytest.mark.parametrize(("form", "said"), HOSTILE, ids=[form[:30] for form, _ in HOSTILE])
def test_a_hostile_name_is_refused_with_a_sentence(form: str, said: str, cloud: str) -> None:
    text = form.format(cloud)
    with pytest.raises(LinkError) as caught:
        object_name(text)
    assert caught.value.reason.startswith(said)
    refusal = refused(text)
    assert refusal.startswith(f"video_blocks.h[0] {said}")
    assert "secret" not in refusal


def test_each_cloud_has_its_own_rules_for_buckets() -> None:
    assert object_name("gs://my_bucket/x")
    assert object_name(f"gs://{'b' * 63}.{'c' * 63}/x")
    for text in ("s3://my_bucket/x", f"s3://{'b' * 63}.{'c' * 63}/x", f"gs://{'b' * 63}.{'c' * 64}/x"):
        with pytest.raises(LinkError):
            object_name(text)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(["gs", "s3"]), st.text("ab0-_./", max_size=12), st.text(max_size=20))
@example("s3", "a.b", "x/y")
def test_whatever_name_is_taken_stays_in_its_cloud_and_is_asked_for_exactly(cloud: str, bucket: str, key: str) -> None:
    try:
        name = object_name(f"{cloud}://{bucket}/{key}")
    except LinkError:
        return
    assert name is not None
    assert object_name(str(name)) == name
    url = urlsplit(str(checked_url(object_place(name).url)))
    own = f"{name.bucket}.s3.amazonaws.com"
    assert url.hostname in ({"storage.googleapis.com"} if cloud == "gs" else {own, "s3.amazonaws.com"})
    assert (url.query, url.fragment, url.port) == ("", "", None)
    assert unquote(url.path) == (f"/{name.key}" if url.hostname == own else f"/{name.bucket}/{name.key}")


def test_s3_is_asked_in_the_region_it_names_once() -> None:
    for bucket, there in [
        ("clips", "https://clips.s3.eu-south-2.amazonaws.com/a%20b"),
        ("my.clips", "https://s3.eu-south-2.amazonaws.com/my.clips/a%20b"),
    ]:
        first = object_place(named(f"s3://{bucket}/a b"))
        told = {"x-amz-bucket-region": "eu-south-2"}
        for status in (301, 400):
            moved = first.after(status, told)
            assert moved is not None
            assert (moved.url, moved.region, moved.private, moved.key) == (there, "eu-south-2", False, first.key)
            assert moved.after(status, {"x-amz-bucket-region": "us-west-2"}) is None
        private = first.after(403, told)
        assert private is not None
        assert (private.region, private.private) == ("eu-south-2", True)
        assert private.after(403, told) is None


@pytest.mark.parametrize("told", ["", "evil.example/", "eu-west-1.evil.example", "eu-west-1@", "EU-WEST-1"])
def test_a_region_is_a_word_and_no_host(told: str) -> None:
    assert object_place(named("s3://clips/a")).after(400, {"x-amz-bucket-region": told}) is None


def test_only_s3_has_regions_and_only_objects_are_signed_for() -> None:
    told = {"x-amz-bucket-region": "eu-west-1"}
    public = object_place(named("gs://clips/a"))
    assert public.after(400, told) is None
    assert public.after(403, told) == replace(public, private=True)
    assert public.after(404, {}) is None
    assert Place("https://h/", "https://h/").after(403, told) is None
    assert place(f"https://drive.google.com/open?id={ID}").after(403, told) is None


FORM = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
<form action="https://evil.example/download" id="download-form" method="get">
<input type="submit" id="uc-download-link" value="Download anyway"/>
<input name="id" type="hidden" value="somebody-elses-file"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t2"/><input type="hidden" name="uuid" value="a&amp;b=1"></form>
<form><input type="hidden" name="other" value="form"></form></body></html>"""


def test_the_warning_of_drive_is_confirmed_for_our_file_at_our_address_alone() -> None:
    found = place(f"https://drive.google.com/open?id={ID}&resourcekey=k")
    onward = found.past(found.url, FORM)
    assert onward.startswith("https://drive.usercontent.google.com/download?")
    assert parse_qs(urlsplit(onward).query) == {
        "id": [ID], "export": ["download"], "confirm": ["t2"], "resourcekey": ["k"], "uuid": ["a&b=1"],
    }  # fmt: skip
    with pytest.raises(LinkError, match="stays behind a warning of Google Drive"):
        found.past(onward, FORM)


@pytest.mark.parametrize(
    ("page", "code", "said"),
    [
        ("<title>Sign in - Google Accounts</title>", "not_permitted", "share it with anyone who has the link"),
        ("", "not_permitted", "share it with anyone who has the link"),
        ("<title>Google Drive - Quota exceeded</title>", "quota_exceeded", "try again tomorrow"),
        ("<p>Sorry. Too many users have viewed or downloaded this file recently.", "quota_exceeded", "try again"),
    ],
)
def test_a_page_of_drive_instead_of_the_file_says_what_to_do(page: str, code: str, said: str) -> None:
    found = place(f"https://drive.google.com/open?id={ID}")
    with pytest.raises(LinkError, match=said) as caught:
        found.past(found.url, page)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="hook 1.mp4"', "hook 1.mp4"),
        ("attachment; filename=hook.mp4; size=3", "hook.mp4"),
        ("attachment; filename=\"h.mp4\"; filename*=UTF-8''%C3%BCber%20uns.mp4", "über uns.mp4"),
        ("inline; filename*=iso-8859-1'de'%FCber.mp4", "über.mp4"),
        (r'attachment; filename="say \"hi\".mp4"', 'say "hi".mp4'),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        (r'attachment; filename="C:\\tmp\\a.mp4"', "a.mp4"),
        ("attachment; filename*=UTF-8''a%2F..%2Fb%0A%00.mp4", "b.mp4"),
        ('attachment; filename=".."', None),
        ('attachment; filename=""', None),
        ("attachment", None),
        ("", None),
    ],
)
def test_the_name_of_a_download_is_read(disposition: str, name: str | None) -> None:
    assert file_name(disposition) == name


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(['attachment; filename="{}"', "filename={}", "filename*=utf-8''{}"]), st.text(max_size=300))
def test_no_name_of_a_download_is_a_path(form: str, text: str) -> None:
    name = file_name(form.replace("{}", text))
    assert name is None or (
        0 < len(name) <= 200 and not {"/", "\\", "\n", "\0"} & set(name) and name not in (".", "..")
    )


@pytest.mark.parametrize(
    ("link", "named"),
    [
        ("https://h.example/a.mp4?x=1", True),
        ("https://h.example/a.mp4/", False),
        ("https://h.example", False),
        ("https://h.example/download?file=a.mp4", False),
        ("https://h.example/v1.2/download", False),
        ("https://h.example/take.2", False),
    ],
)
def test_a_link_names_its_file_by_an_extension(link: str, named: bool) -> None:
    assert names_file(link) is named


def body(link: str) -> dict[str, object]:
    return {"task_name": "t", "video_blocks": {"h": [link]}}


def accepted(link: str) -> str:
    return parse_request(body(link)).blocks[0].clips[0]


def refused(link: str) -> str:
    with pytest.raises(RequestError) as caught:
        accepted(link)
    return caught.value.public
