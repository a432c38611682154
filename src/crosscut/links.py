"""Share links and names of objects: where their bytes are, and what the answers from there mean. Pure.

Addresses come from `Endpoints` alone; of a link only ids, keys and names are taken, never a host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Cloud = Literal["gs", "s3"]
Service = Literal["drive", "dropbox", "gs", "s3"]

CLOUDS: Mapping[Cloud, str] = {"gs": "Google Cloud Storage", "s3": "Amazon S3"}
PAGE = 1 << 16
"""Bytes of a service's page within which it says what it is about."""
LONGEST_KEY = 1_024
"""Bytes of an object's name, in both clouds."""
LONGEST_FILE_NAME = 200
"""Characters."""

PERMISSION = frozenset({401, 403, 407, 451})
ELSEWHERE = frozenset({301, 400})
"""How S3 answers for a bucket of another region where it gives no Location (Amazon S3 User Guide, Request routing)."""

_SHARED = re.compile(r"https?://(?:[a-z.]+\.)?(?:google|dropbox)\.com[:/?]", re.IGNORECASE)
"""How every share link begins; requests hold hundreds of links that are none."""
_OBJECT = re.compile(r"(gs|s3):", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
# Cloud Storage, "Bucket names"; Amazon S3 User Guide, "General purpose bucket naming rules".
_BUCKETS: Mapping[Cloud, re.Pattern[str]] = {
    "gs": re.compile(r"(?=.{3,222}\Z)[a-z0-9][a-z0-9_-]{0,62}(?:\.[a-z0-9_-]{1,63})*(?<=[a-z0-9])"),
    "s3": re.compile(r"(?=.{3,63}\Z)[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*(?<=[a-z0-9])"),
}
_BUCKET_RULES: Mapping[Cloud, str] = {
    "gs": "3 to 63 small letters, digits, dashes and underscores, with dots between them",
    "s3": "3 to 63 small letters, digits and dashes, with dots between them",
}
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")
_FILE_ID = re.compile(r"[A-Za-z0-9_-]{10,200}")
_IN_PATH = re.compile(r"(?:/a/[^/]+)?(?:/u/[0-9]+)?/file(?:/u/[0-9]+)?/d/([^/]+)(?:/.*)?")
_IN_QUERY = re.compile(r"(?:/a/[^/]+)?(?:/u/[0-9]+)?/(?:open|uc|download)/?")
_DROPBOX_PATH = re.compile(r"/(?:s|sh|scl)/.+")
_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)
_QUOTED_NAME = re.compile(r'filename\s*=\s*"((?:\\.|[^"\\])*)"', re.IGNORECASE)
_PLAIN_NAME = re.compile(r'filename\s*=\s*([^;\s"]+)', re.IGNORECASE)
_QUOTA = ("quota exceeded", "too many users have viewed or downloaded")


class LinkError(ValueError):
    """What cannot be had this way. `reason` continues a sentence that begins with the source: "names no object ..."."""

    def __init__(self, reason: str, code: str = "bad_url") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True)
class ObjectName:
    """An object of a cloud, by its exact name: nothing in `key` is percent-encoded."""

    cloud: Cloud
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.cloud}://{self.bucket}/{self.key}"


class Signer(Protocol):
    """Reads private objects with credentials of this machine."""

    def sign(self, name: ObjectName, region: str | None) -> str | None:
        """A URL that gives the object for the next minutes; None without credentials for its cloud.

        It is asked for anew for every try. `region` is where S3 says that the bucket is, if it said so. Raises
        FetchError where the credentials do not work.
        """


@dataclass(frozen=True)
class Endpoints:
    """Where the services are. Another `gs` or `s3` is an emulator, whose buckets are in the path."""

    drive: str = "https://drive.usercontent.google.com"
    dropbox: str = "https://www.dropbox.com"
    gs: str = "https://storage.googleapis.com"
    s3: str = "https://s3.amazonaws.com"


PUBLIC = Endpoints()


@dataclass(frozen=True)
class Place:
    """Where the bytes of a source are. `key` is the same for every spelling of it and never holds a signature."""

    key: str
    url: str
    """For everybody; a `private` place has to be signed for instead."""
    service: Service | None = None
    name: ObjectName | None = None
    region: str | None = None
    private: bool = False

    def after(self, status: int, headers: Mapping[str, str]) -> Place | None:
        """The place to ask instead after this answer, None where the answer stands.

        At most two follow one another: another region and a private place.
        """
        if self.name is None:
            return None
        region = None if self.region else _region_told(self.name, headers)
        there = replace(self, region=region, url=_in_region(self.url, self.name, region)) if region else None
        if there and status in ELSEWHERE:
            return there
        if status in PERMISSION and not self.private:
            return replace(there or self, private=True)
        return None

    @property
    def has_pages(self) -> bool:
        """Whether what comes as HTML is a page of the service, see `past`."""
        return self.service in _NOT_SHARED

    def closed(self, status: int) -> str:
        """What to change where this place needs permission; continues a sentence."""
        match self.service:
            case "drive" | "dropbox":
                return _NOT_SHARED[self.service]
            case "gs" | "s3" if self.private:
                return f"may not be read with this machine's credentials (HTTP {status}): grant them read access to it"
            case "gs" | "s3":
                return (
                    f"is not public, or not there (HTTP {status}): let everyone read it, or set "
                    f"CROSSCUT_PRIVATE_SOURCES and {_CREDENTIALS[self.service]} where crosscut runs"
                )
        return f"needs permission (HTTP {status}); give a link that works without signing in"

    def past(self, url: str, page: str) -> str:
        """Where to go on from a page that came from `url` instead of the file; LinkError where there is no way."""
        if self.service == "drive":
            hidden = _DownloadForm.read(page)
            if hidden:
                return self._confirmed(url, hidden)
            if any(words in page.lower() for words in _QUOTA):
                raise LinkError(
                    "was downloaded too often of late, says Google Drive: try again tomorrow, or copy it in Drive and "
                    "give the link of the copy",
                    "quota_exceeded",
                )
        raise LinkError(self.closed(200), "not_permitted")

    def _confirmed(self, url: str, hidden: Mapping[str, str]) -> str:
        base, _, query = self.url.partition("?")
        given = dict(parse_qsl(query))
        wanted = f"{base}?{urlencode({**given, **hidden, 'id': given['id']})}"
        if wanted == url or "uuid" in parse_qs(urlsplit(url).query):
            raise LinkError(
                "stays behind a warning of Google Drive about its size: give another link to it", "not_media"
            )
        return wanted


_NOT_SHARED: Mapping[str, str] = {
    "drive": "is not given to everyone by Google Drive: share it with anyone who has the link and let viewers download"
    " it, or give the file itself",
    "dropbox": "is not given to everyone by Dropbox: share it with anyone who has the link, or give the file itself",
}
_CREDENTIALS: Mapping[str, str] = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


def object_name(text: str) -> ObjectName | None:
    """The object named by `gs://bucket/key` or `s3://bucket/key`; None for other links; LinkError for bad names."""
    scheme = _OBJECT.match(text)
    if scheme is None:
        return None
    cloud: Cloud = "gs" if scheme[1].lower() == "gs" else "s3"
    example = f"write it like {cloud}://bucket/clip.mp4"
    if _CONTROL.search(text):
        raise LinkError("holds a line break, tab or another control character; remove it")
    bucket, _, key = text[3:].removeprefix("//").partition("/")
    if not text.startswith("//", 3) or not bucket:
        raise LinkError(f"names no bucket; {example}")
    if "@" in bucket or ":" in bucket:
        raise LinkError(f"holds a user name, a password or a port; {example}", "credentials_in_url")
    if "?" in text or "#" in text:
        raise LinkError(f"holds ? or #, which a name cannot; {example}")
    if not _BUCKETS[cloud].fullmatch(bucket) or _ADDRESS.fullmatch(bucket):
        raise LinkError(f"names a bucket as {CLOUDS[cloud]} has none; bucket names are {_BUCKET_RULES[cloud]}")
    _check_key(key, example)
    return ObjectName(cloud, bucket, key)


def _check_key(key: str, example: str) -> None:
    if not key or key.endswith("/"):
        raise LinkError(f"names no object; {example}")
    if "\\" in key:
        raise LinkError("holds a backslash; use / in names")
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise LinkError("holds a . or .. between slashes; give the object's full name")
    if len(key.encode()) > LONGEST_KEY:
        raise LinkError(f"names an object in more than {LONGEST_KEY:,} bytes; check the name")


def object_place(name: ObjectName, endpoints: Endpoints = PUBLIC) -> Place:
    path = quote(name.key, safe="/~")
    if name.cloud == "s3" and endpoints.s3 == PUBLIC.s3:
        return Place(str(name), f"{_s3_host(name, None)}/{path}", "s3", name)
    base = endpoints.s3 if name.cloud == "s3" else endpoints.gs
    return Place(str(name), f"{base}/{name.bucket}/{path}", name.cloud, name)


def _s3_host(name: ObjectName, region: str | None) -> str:
    """Virtual-hosted style, but for buckets with dots, which the certificate of `*.s3.amazonaws.com` does not cover."""
    host = f"s3.{region}.amazonaws.com" if region else "s3.amazonaws.com"
    return f"https://{host}/{name.bucket}" if "." in name.bucket else f"https://{name.bucket}.{host}"


def _in_region(url: str, name: ObjectName, region: str) -> str:
    """The URL of an object of Amazon in its region; that of an emulator stays."""
    anywhere = _s3_host(name, None)
    return _s3_host(name, region) + url.removeprefix(anywhere) if url.startswith(f"{anywhere}/") else url


def _region_told(name: ObjectName, headers: Mapping[str, str]) -> str | None:
    told = headers.get("x-amz-bucket-region", "")
    return told if name.cloud == "s3" and _REGION.fullmatch(told) else None


def share_place(text: str, endpoints: Endpoints = PUBLIC) -> Place | None:
    """Where the file behind a share link of Google Drive or Dropbox is, None for any other link."""
    if not _SHARED.match(text):
        return None
    parts = urlsplit(text)
    if parts.port not in (None, 80, 443):
        return None
    match parts.hostname:
        case "drive.google.com" | "docs.google.com" | "drive.usercontent.google.com":
            return _drive_place(parts.path, parse_qs(parts.query), endpoints)
        case "dropbox.com" | "www.dropbox.com" if _DROPBOX_PATH.fullmatch(parts.path):
            return _dropbox_place(parts.path, parse_qsl(parts.query, keep_blank_values=True), endpoints)
    return None


def _drive_place(path: str, query: Mapping[str, list[str]], endpoints: Endpoints) -> Place:
    in_path = _IN_PATH.fullmatch(path)
    given = in_path[1] if in_path else query.get("id", [""])[0] if _IN_QUERY.fullmatch(path) else ""
    if not _FILE_ID.fullmatch(given):
        if "/folders/" in path or "/folderview" in path:
            raise LinkError("is a folder of Google Drive; give the link of one file in it", "not_a_file")
        raise LinkError(
            "leads to no file of Google Drive, as documents and searches do not; give the link that Share, Copy link "
            "gives for a video or sound",
            "not_a_file",
        )
    wanted = {"id": given, "export": "download", "confirm": "t"}
    key = query.get("resourcekey", [""])[0]
    if key:
        wanted["resourcekey"] = key
    return Place(f"drive:{key}/{given}", f"{endpoints.drive}/download?{urlencode(wanted)}", "drive")


def _dropbox_place(path: str, query: Sequence[tuple[str, str]], endpoints: Endpoints) -> Place:
    """The path and `rlkey` give access; `st` and `e` are of the visit in which the link was copied."""
    kept = [(name, value) for name, value in query if name not in ("dl", "raw")]
    known = sorted((name, value) for name, value in kept if name not in ("st", "e"))
    link = f"{endpoints.dropbox}{path}?{urlencode([*kept, ('dl', '1')])}"
    return Place(f"dropbox:{path}?{urlencode(known)}", link, "dropbox")


class _DownloadForm(HTMLParser):
    """The hidden fields of the form on the page with which Drive warns that it cannot scan a file for viruses."""

    def __init__(self) -> None:
        super().__init__()
        self._inside = False
        self.hidden: dict[str, str] = {}

    @classmethod
    def read(cls, page: str) -> dict[str, str]:
        """Empty where there is no such form."""
        parser = cls()
        parser.feed(page)
        return parser.hidden

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._inside = given.get("id") == "download-form"
        elif tag == "input" and self._inside and given.get("type") == "hidden" and given.get("name"):
            self.hidden[str(given["name"])] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False


def file_name(disposition: str) -> str | None:
    """What a Content-Disposition calls the file (RFC 6266, 4.3), without folders; None where it does not."""
    extended = _EXTENDED_NAME.search(disposition)
    quoted = _QUOTED_NAME.search(disposition)
    plain = _PLAIN_NAME.search(disposition)
    if extended:
        name = unquote(extended[2], encoding=extended[1], errors="replace")
    elif quoted:
        name = re.sub(r"\\(.)", r"\1", quoted[1])
    else:
        name = plain[1] if plain else ""
    name = _CONTROL.sub("", re.split(r"[/\\]", name)[-1]).strip()[:LONGEST_FILE_NAME]
    return name if name.strip(".") else None


def names_file(text: str) -> bool:
    """Whether a link says what its file is called."""
    return re.search(r"\.(?=[^.]*[A-Za-z])[A-Za-z0-9]{1,5}$", urlsplit(text).path) is not None
