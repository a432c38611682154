"""Links to private objects in buckets, signed with credentials of this machine.

For sources that requests name, and for those who are to see what was delivered. Nothing is asked of the store.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import obstore
from obstore.exceptions import BaseError

from crosscut.destinations.buckets import Bucket, connect, signs
from crosscut.errors import DeliverError, FetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crosscut.destinations import Linker
    from crosscut.destinations.buckets import CloudOptions, Store
    from crosscut.links import ObjectName

LASTS = timedelta(minutes=15)
"""Of a link to a source: a download that breaks off asks for another one."""

SIGNERS = {
    "gs": "the key file of a service account (CROSSCUT_GCS_KEY_FILE)",
    "s3": "an access key",
    "az": "the key of the storage account (CROSSCUT_AZURE_KEY)",
}
"""By scheme: credentials that sign without asking anybody."""


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
            return _signed(store, name.cloud, name.key, LASTS) if signs(store) else None
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


def linker(store: Store, bucket: Bucket, folder: str, lasts: timedelta) -> Linker:
    """Signs for what was delivered into a folder of the bucket; DeliverError "no_links" where it cannot."""

    def link(name: str) -> str:
        try:
            return _signed(store, bucket.scheme, f"{bucket.prefix}{folder}/{name}", lasts)
        except (BaseError, TypeError, ValueError):
            # What obstore says of it may quote a key.
            raise DeliverError(
                f"the credentials for {bucket} sign no links: check them, or leave link_days out", code="no_links"
            ) from None

    if not signs(store):
        raise DeliverError(
            f"the credentials for {bucket} sign no links: give {SIGNERS[bucket.scheme]}, or leave link_days out",
            code="no_links",
        )
    link("1.mp4")
    return link


def _signed(store: Store, scheme: str, key: str, lasts: timedelta) -> str:
    # obstore signs a name in Cloud Storage as it stands: %2e%2e would lead out of its folder and bucket.
    url = obstore.sign(store, "GET", quote(key, safe="/~") if scheme == "gs" else key, lasts)
    if not unquote(urlsplit(url).path).endswith(f"/{key}"):
        raise ValueError("signed for another object")
    return _for_azure(url, key, dict(store.config)) if scheme == "az" else url


def _for_azure(url: str, key: str, config: Mapping[str, Any]) -> str:
    """Signed anew: obstore signs the name as it is spelled in the URL, Azure checks it as it is (`sv` 2020-12-06 on).

    Azure Storage, "Create a service SAS", "Construct the signature string".
    """
    parts = urlsplit(url)
    told = dict(parse_qsl(parts.query))
    resource = f"/blob/{config['account_name']}/{config['container_name']}/{key}"
    lines = [told["sp"], told["st"], told["se"], resource, "", "", "", told["sv"], told["sr"], *[""] * 7]
    secret = base64.b64decode(config["account_key"])
    told["sig"] = base64.b64encode(hmac.digest(secret, "\n".join(lines).encode(), "sha256")).decode()
    return parts._replace(query=urlencode(told)).geturl()
