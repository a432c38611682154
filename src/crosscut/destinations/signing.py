"""Links to private objects in buckets, signed with credentials of this machine: for sources that requests name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError

from crosscut.destinations.buckets import Bucket, connect, signs
from crosscut.errors import DeliverError, FetchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crosscut.destinations.buckets import CloudOptions, Store
    from crosscut.links import ObjectName

LASTS = timedelta(minutes=15)
"""Of a link: a download that breaks off asks for another one."""


class BucketSigner:
    """Signs for the objects that `allowed` lets requests read: nobody may see through us what they could not see."""

    def __init__(self, options: CloudOptions, allowed: Callable[[str], bool]) -> None:
        self._options = options
        self._allowed = allowed

    def sign(self, name: ObjectName, region: str | None) -> str | None:
        if not self._allowed(str(name)):
            return None
        options = replace(self._options, s3_region=region or self._options.s3_region)
        try:
            store = connect(Bucket(name.cloud, name.bucket), options)
            return self._signed(store, name) if signs(store) else None
        except DeliverError as error:
            if error.code == "no_credentials":
                return None
            raise FetchError(f"{name}: {error.public}", code=error.code) from None
        except (BaseError, TypeError, ValueError):
            # What obstore says of it may quote a key.
            raise FetchError(
                f"{name} cannot be signed for: check the credentials of this machine, or give the object a plain name",
                code="wrong_credentials",
            ) from None

    @staticmethod
    def _signed(store: Store, name: ObjectName) -> str:
        # obstore signs a name in Cloud Storage as it stands: %2e%2e would lead out of its folder and bucket.
        key = quote(name.key, safe="/~") if name.cloud == "gs" else name.key
        url = obstore.sign(store, "GET", key, LASTS)
        if not unquote(urlsplit(url).path).endswith(f"/{name.key}"):
            raise ValueError("signed for another object")
        return url
