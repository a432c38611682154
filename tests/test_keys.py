"""API keys: made, taken apart, compared."""

from __future__ import annotations

import hashlib
import os
import re
import secrets

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crosscut.keys import hash_secret, matches, new_key, parse_token

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.binary(max_size=80), st.text(max_size=80), st.lists(st.text(max_size=9))
)
TOKEN = "ck_abcdefgh2345_" + "a-_B9" * 8 + "xyz"


@given(st.binary(min_size=40, max_size=40))
def test_a_new_key_is_found_by_its_id_and_proven_by_its_secret(noise):
    pieces = iter([noise[:8], noise[8:]])
    key, token, kept = new_key(lambda size: next(pieces)[:size])
    assert re.fullmatch("[a-z2-7]{12}", key)
    assert token.startswith(f"ck_{key}_")
    assert parse_token(token) == (key, token[16:])
    assert matches(token[16:], kept)
    assert token[16:] not in kept


def test_keys_use_all_the_randomness_they_are_given():
    made = [new_key(secrets.token_bytes) for _ in range(500)]
    for each in zip(*made, strict=True):
        assert len(set(each)) == 500
    asked = []
    new_key(lambda size: asked.append(size) or os.urandom(size))
    assert max(asked) == 32, "256 bits of secret"


@given(ANYTHING)
@example("ck_\ud800")
def test_anything_at_all_can_be_taken_for_a_token(text):
    assert parse_token(text) is None


@given(st.text(max_size=20), st.text(max_size=60))
def test_what_looks_like_a_token_is_one_or_not_without_an_error(key, secret):
    parsed = parse_token(f"ck_{key}_{secret}")
    assert parsed in (None, (key, secret))


@pytest.mark.parametrize(
    "text",
    [
        TOKEN[:-1],
        TOKEN + "a",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN.upper(),
        TOKEN.replace("ck_", "sk_"),
        TOKEN.replace("_", "-", 1),
        TOKEN.replace("abc", "ABC"),
        TOKEN.replace("abc", "ab1"),
        TOKEN.replace("xyz", "xy="),
        TOKEN.replace("xyz", "xyé"),
        TOKEN.replace("2345", "２345"),
        f"Bearer {TOKEN}",
        TOKEN.encode(),
    ],
)
def test_a_token_has_one_spelling(text):
    assert parse_token(TOKEN) is not None
    assert parse_token(text) is None


@pytest.mark.parametrize("position", [0, 1, 21, 41, 42])
def test_a02_a_secret_that_is_nearly_right_is_as_wrong_as_any(position):
    """What is compared are hashes, so the beginning of a right secret shows nowhere."""
    _, token, kept = new_key(secrets.token_bytes)
    secret = parse_token(token)[1]
    near = secret[:position] + ("A" if secret[position] != "A" else "B") + secret[position + 1 :]
    assert not matches(near, kept)
    assert hash_secret(near)[:8] != kept[:8]


def test_a02_the_comparison_is_the_one_of_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr("crosscut.keys.hmac.compare_digest", lambda *both: compared.append(both) or False)
    kept = hashlib.sha256(b"right").hexdigest()
    assert not matches("right", kept)
    assert compared == [(kept.encode(), kept.encode())]


@given(st.text(max_size=60), st.text(max_size=80))
@example("\ud800", "\udfff")
def test_only_its_own_hash_matches_a_secret(secret, kept):
    assert matches(secret, hash_secret(secret))
    assert matches(secret, kept) == (kept == hash_secret(secret))
