"""API keys: an id that may be shown and finds the row, and a secret of which only a hash is kept.

The secret is 256 random bits, so a plain SHA-256 of it is enough: slow hashes are for what people think up.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "ck"
ID_CHARACTERS = 12
SECRET_BYTES = 32

_TOKEN = re.compile(r"ck_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")


def new_key(random: Callable[[int], bytes]) -> tuple[str, str, str]:
    """Id, token and hash of a new key; `random` gives so many bytes, as `secrets.token_bytes` does.

    The token is for its owner and shown once, the id and the hash are kept.
    """
    key = base64.b32encode(random(8)).decode().lower()[:ID_CHARACTERS]
    secret = base64.urlsafe_b64encode(random(SECRET_BYTES)).decode().rstrip("=")
    return key, f"{PREFIX}_{key}_{secret}", hash_secret(secret)


def parse_token(text: object) -> tuple[str, str] | None:
    """Id and secret of what is spelled like a token, else None."""
    found = _TOKEN.fullmatch(text) if isinstance(text, str) else None
    return (found[1], found[2]) if found else None


def hash_secret(secret: str) -> str:
    """What to keep of a secret: the hexadecimal SHA-256 of its characters."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def matches(secret: str, stored_hash: str) -> bool:
    """Whether `stored_hash` was made of `secret`, in a time that does not tell how nearly."""
    return hmac.compare_digest(hash_secret(secret).encode(), stored_hash.encode(errors="surrogatepass"))
