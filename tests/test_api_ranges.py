"""Ranges of a video against plain slicing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_fakes import BODY, JSON, FakeService, client_of, video_bytes
from crosscut.api.ranges import Span, Unsatisfiable, asked_span, is_unchanged, may_continue
from crosscut.virtual import BLOCK

SIZE = BLOCK * 2 + 12_345


class Preview:
    def __init__(self):
        service = FakeService(video_size=SIZE)
        self.client = client_of(service)
        job = self.client.post("/process_media", content=BODY, headers=JSON).json()["id"]
        service.advance(job, "done")
        self.path = f"/jobs/{job}/variations/1.mp4"
        self.data = video_bytes(job, 1, SIZE)

    def get(self, **headers):
        return self.client.get(self.path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture(scope="module")
def preview():
    return Preview()


places = st.one_of(st.integers(0, SIZE + 10), st.sampled_from([0, 1, BLOCK - 1, BLOCK, SIZE - 1, SIZE, 10**30]))


@settings(max_examples=60, deadline=None)
@given(places, places)
def test_any_range_is_a_slice(preview, start, last):
    response = preview.get(range=f"bytes={start}-{last}")
    if last < start:
        assert (response.status_code, response.content) == (200, preview.data)
    elif start >= SIZE:
        assert response.status_code == 416
        assert response.headers["content-range"] == f"bytes */{SIZE}"
        assert response.json()["code"] == "range_not_satisfiable"
    else:
        assert response.status_code == 206
        assert response.content == preview.data[start : last + 1]
        stop = min(last, SIZE - 1)
        assert response.headers["content-range"] == f"bytes {start}-{stop}/{SIZE}"
        assert response.headers["content-length"] == str(len(response.content))


@settings(max_examples=30, deadline=None)
@given(places)
def test_open_ranges_and_suffixes_are_slices(preview, place):
    if place < SIZE:
        assert preview.get(range=f"bytes={place}-").content == preview.data[place:]
    if place:
        response = preview.get(range=f"bytes=-{place}")
        assert (response.status_code, response.content) == (206, preview.data[-place:])
    else:
        assert preview.get(range="bytes=-0").status_code == 416


@pytest.mark.parametrize(
    "header",
    ["bytes=0-1,4-5", "items=0-1", "bytes", "bytes=", "bytes=a-b", "bytes=1", "bytes=--1", "bytes=٣-٤", "", "x" * 9000],
)
def test_what_is_no_single_range_gets_the_whole(preview, header):
    response = preview.client.get(preview.path, headers={"range": header.encode()})
    assert (response.status_code, response.content) == (200, preview.data)
    assert "content-range" not in response.headers


def test_a_caller_that_has_it_is_told_so(preview):
    etag = preview.get().headers["etag"]
    assert etag.startswith('"')
    for condition in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        response = preview.get(if_none_match=condition, range="bytes=0-9")
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    assert preview.get(if_none_match='"other"', range="bytes=0-9").status_code == 206


def test_a_range_goes_on_only_in_the_same_bytes(preview):
    etag = preview.get(range="bytes=0-0").headers["etag"]
    assert preview.get(if_range=etag, range="bytes=0-9").status_code == 206
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert preview.get(if_range=other, range="bytes=0-9").content == preview.data


@given(st.text(max_size=30), st.integers(0, 1000))
def test_no_header_breaks_the_reading(header, size):
    try:
        span = asked_span(header, size)
    except Unsatisfiable:
        return
    assert span is None or 0 <= span.start < span.stop <= size


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 40))
def test_a_span_is_what_slicing_says(start, last, size):
    data = bytes(range(size))
    expected = data[start : last + 1]
    try:
        span = asked_span(f"bytes={start}-{last}", size)
    except Unsatisfiable:
        assert not expected
    else:
        assert span is None or data[span.start : span.stop] == expected
        assert (span is None) == (last < start)


def test_spelling_and_empty_files():
    assert asked_span(" Bytes = 1-2 ", 10) == Span(1, 3)
    assert asked_span(f"bytes=0-{'9' * 5000}", 10) == Span(0, 10)
    assert asked_span(f"bytes=-{'0' * 5000}3", 10) == Span(7, 10)
    with pytest.raises(Unsatisfiable):
        asked_span("bytes=0-", 0)
    assert not is_unchanged(None, "a")
    assert not is_unchanged('a, "b"', "a")
    assert may_continue(None, "a")
