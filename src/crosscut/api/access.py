"""Who asks, and how often: keys, wrong keys by address, requests by owner."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from hmac import compare_digest
from math import ceil
from typing import TYPE_CHECKING, Annotated, NamedTuple

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from crosscut.api.counting import OwnCounts
from crosscut.api.edge import EXTRA_HEADERS
from crosscut.api.options import LOCAL
from crosscut.api.problems import Problem, not_found

if TYPE_CHECKING:
    from crosscut.api.options import ApiOptions
    from crosscut.commons import Counts, Standing
    from crosscut.ports import Service

_BEARER = re.compile(r"bearer +([\x21-\x7e]{1,500})", re.IGNORECASE)
_KEY = re.compile(r"ck_[A-Za-z0-9_\-]{1,200}")
_MINUTE = 60
UPLOADS = 10
"""So many times as many uploads as other requests, and counted apart: one request may name thousands."""
_COUNTED = {"posts": "requests", "uploads": "uploads"}


class Allowance(NamedTuple):
    name: str
    amount: int
    """A minute."""


@dataclass(frozen=True)
class Caller:
    owner: str | None
    """Whose things may be seen and changed; None, this machine's own command line: everybody's."""

    @property
    def account(self) -> str:
        """To whom goes what is sent."""
        return self.owner or LOCAL


class Access:
    """Decides for every request; one for each app. Thread-safe."""

    def __init__(self, service: Service, options: ApiOptions, counts: Counts | None = None) -> None:
        """`counts` are those of all processes that answer together; they may wait for a database."""
        self._service = service
        self._options = options
        self._waits = options.auth or counts is not None
        self._counts = counts or OwnCounts()
        self._wrong = Allowance("wrong", options.wrong_keys_per_minute)
        rate = options.rate_per_minute
        self._posts, self._uploads = (
            None if rate is None else Allowance(name, rate * times)
            for name, times in (("posts", 1), ("uploads", UPLOADS))
        )

    def identify(self, request: Request) -> Caller:
        """Whose request this is; raises Problem 401, or 429 after too many wrong keys. May wait for a database."""
        if not self._options.auth:
            return Caller(LOCAL)
        token = _bearer(request)
        if self._is_admin(token):
            return Caller(None)
        owner = self._owner(token, request) if token and _KEY.fullmatch(token) else None
        if owner is None:
            raise _unauthorized()
        return Caller(owner)

    async def caller(self, request: Request) -> Caller:
        """The same, for use on the event loop."""
        return await run_in_threadpool(self.identify, request) if self._options.auth else self.identify(request)

    def _owner(self, token: str, request: Request) -> str | None:
        """A right key is let in even from an address that tries wrong ones: colleagues may share it."""
        owner = self._service.authenticate(token)
        if owner is not None:
            return owner
        standing = self._hit(self._wrong, _address(request))
        if not standing.allowed:
            wait = _whole(standing.wait)
            raise Problem(
                429,
                "too_many_wrong_keys",
                f"Too many wrong keys came from your address; wait {wait} s.",
                headers={"retry-after": str(wait)},
            )
        return None

    async def sender(self, request: Request) -> Caller:
        """Like `caller`, for what starts or changes something: counted; raises Problem 429 when there is too much."""
        return await self._sent(request, self._posts)

    async def uploader(self, request: Request) -> Caller:
        """The same for uploads, which have a larger count of their own."""
        return await self._sent(request, self._uploads)

    async def _sent(self, request: Request, item: Allowance | None) -> Caller:
        if self._waits:
            return await run_in_threadpool(self._counted, request, item)
        return self._counted(request, item)

    def _counted(self, request: Request, item: Allowance | None) -> Caller:
        caller = self.identify(request)
        if item is None:
            return caller
        standing = self._hit(item, caller.account)
        wait = _whole(standing.wait)
        extra = request.scope[EXTRA_HEADERS]
        extra["ratelimit-policy"] = f'"{item.name}";q={item.amount};w={_MINUTE}'
        extra["ratelimit"] = f'"{item.name}";r={standing.left};t={wait}'
        if not standing.allowed:
            raise Problem(
                429,
                "rate_limited",
                f"More than {item.amount} {_COUNTED[item.name]} came within a minute; wait {wait} s and send them"
                " slower.",
                headers={"retry-after": str(wait)},
            )
        return caller

    def admin(self, request: Request) -> None:
        """Lets in this machine's own command line; for all others these routes do not exist."""
        if not self._is_admin(_bearer(request)):
            raise not_found()

    def _is_admin(self, token: str | None) -> bool:
        wanted = self._options.admin_token
        return bool(wanted and token and compare_digest(token.encode(), wanted.encode()))

    def _hit(self, item: Allowance, who: str) -> Standing:
        return self._counts.hit(f"{item.name} {who}", item.amount)


def _whole(wait: float) -> int:
    """Seconds until one more may be let in, as headers say it."""
    return max(1, ceil(wait))


def _bearer(request: Request) -> str | None:
    given = request.headers.getlist("authorization")
    match = _BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
    return match[1] if match else None


def _unauthorized() -> Problem:
    return Problem(
        401,
        "unauthorized",
        "A valid key is needed; send one as “Authorization: Bearer ck_…” (crosscut keys create makes one).",
        headers={"www-authenticate": 'Bearer realm="crosscut"'},
    )


def _address(request: Request) -> str:
    """The caller's address; of IPv6 the network that one customer has."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def access_of(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


async def _caller(request: Request) -> Caller:
    return await access_of(request).caller(request)


async def _sender(request: Request) -> Caller:
    return await access_of(request).sender(request)


async def _uploader(request: Request) -> Caller:
    return await access_of(request).uploader(request)


async def inspected(request: Request) -> None:
    """Lets in who may see how the server is: everybody on a loopback-only one, else who has a key."""
    await access_of(request).caller(request)


async def administered(request: Request) -> None:
    access_of(request).admin(request)


ByCaller = Annotated[Caller, Depends(_caller)]
BySender = Annotated[Caller, Depends(_sender)]
ByUploader = Annotated[Caller, Depends(_uploader)]
