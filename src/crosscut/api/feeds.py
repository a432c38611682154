"""Following a job: one look at it each half second, however many follow it, and no thread held in between."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from crosscut.ports import ENDED, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from crosscut.ports import Service


@dataclass(frozen=True)
class News:
    """A job's status as JSON; `end` where nothing more will come."""

    version: int
    status: str
    end: bool


@dataclass
class _Feed:
    """What those who follow one job share."""

    followers: int = 0
    seen: float = float("-inf")
    news: News | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Feeds:
    """All feeds of one app; used from its event loop alone."""

    def __init__(self, service: Service, poll: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._poll = poll
        self._clock = clock
        self._feeds: dict[tuple[str, str | None], _Feed] = {}

    @property
    def followed(self) -> int:
        """How many follow a job now."""
        return sum(feed.followers for feed in self._feeds.values())

    async def follow(self, job: str, owner: str | None, since: int | None = None) -> AsyncIterator[News]:
        """The status now and at each change, until the job has ended or is deleted.

        Nothing comes for version `since` unless it is the last one.
        """
        async with self._feed(job, owner) as feed:
            while True:
                news = await self._look(feed, job, owner)
                if news.end or news.version != since:
                    since = news.version
                    yield news
                if news.end:
                    return
                await asyncio.sleep(self._poll)

    @asynccontextmanager
    async def _feed(self, job: str, owner: str | None) -> AsyncIterator[_Feed]:
        feed = self._feeds.setdefault((job, owner), _Feed())
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                del self._feeds[job, owner]

    async def _look(self, feed: _Feed, job: str, owner: str | None) -> News:
        async with feed.lock:
            now = self._clock()
            if feed.news is None or now - feed.seen >= self._poll:
                feed.news = await run_in_threadpool(self._read, job, owner, feed.news)
                feed.seen = now
            return feed.news

    def _read(self, job: str, owner: str | None, last: News | None) -> News:
        try:
            if last is not None and self._service.version(job, owner) == last.version:
                return last
            status = self._service.status(job, owner)
        except NotFoundError:
            return News(last.version if last else 0, json.dumps({"id": job, "state": "deleted"}), end=True)
        return News(status["version"], json.dumps(status), end=status["state"] in ENDED)
