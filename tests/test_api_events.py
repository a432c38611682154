"""Following a job by server-sent events: every change once, taken up again, many at little cost."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import asynccontextmanager

import pytest

from api_fakes import BODY, JSON, FakeService, client_of
from crosscut.api.app import create_app
from crosscut.api.feeds import Feeds
from crosscut.api.options import ApiOptions
from crosscut.telemetry import event_log

POLL = 0.01
DEADLINE = 10


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def job(service):
    return service.submit(BODY).id


async def until(condition):
    async def look():
        while not condition():  # noqa: ASYNC110  what changes is in another thread
            await asyncio.sleep(POLL)

    await asyncio.wait_for(look(), DEADLINE)


class Listener:
    """The app's answer to one GET of a job's events, as it is sent."""

    def __init__(self):
        self.messages = asyncio.Queue()
        self.leave = asyncio.Event()

    async def receive(self):
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def event(self):
        """The next event as a dict of its fields; None at the end of the stream."""
        while True:
            message = await asyncio.wait_for(self.messages.get(), DEADLINE)
            text = message.get("body", b"").decode()
            if message["type"] == "http.response.body" and not message.get("more_body"):
                return None
            fields = dict(line.split(": ", 1) for line in text.splitlines() if line and not line.startswith(":"))
            if fields:
                return fields | {"data": json.loads(fields["data"])}


@asynccontextmanager
async def listening(app, job, **headers):
    listener = Listener()
    raw = [(b"host", b"localhost"), *((n.replace("_", "-").encode(), v.encode()) for n, v in headers.items())]
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/jobs/{job}/events",
        "query_string": b"",
        "headers": raw,
        "client": ("127.0.0.1", 1),
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
    }
    task = asyncio.create_task(app(scope, listener.receive, listener.messages.put))
    listener.start = await asyncio.wait_for(listener.messages.get(), DEADLINE)
    try:
        yield listener
    finally:
        listener.leave.set()
        await asyncio.wait_for(task, DEADLINE)


def app_of(service):
    return create_app(service, ApiOptions(poll=POLL))


def test_every_change_is_told_until_the_end(service, job):
    async def scenario():
        async with listening(app_of(service), job) as listener:
            headers = dict(listener.start["headers"])
            assert listener.start["status"] == 200
            assert headers[b"content-type"].startswith(b"text/event-stream")
            assert headers[b"cache-control"] == b"no-cache"
            first = await listener.event()
            assert (first["event"], first["id"], first["data"]["state"]) == ("progress", "1", "queued")
            service.advance(job, "done")
            second = await listener.event()
            assert (second["id"], second["data"]["succeeded"]) == ("2", 1)
            service.advance(job, "done", 2)
            assert (await listener.event())["data"]["state"] == "done"
            end = await listener.event()
            assert (end["event"], end["data"]["state"]) == ("end", "done")
            assert await listener.event() is None

    asyncio.run(scenario())


def test_whoever_comes_back_hears_only_what_is_new(service, job):
    async def scenario():
        async with listening(app_of(service), job, last_event_id="1") as listener:
            reads = service.version_reads
            await until(lambda: service.version_reads >= reads + 3)
            assert listener.messages.empty()
            service.advance(job, "failed")
            event = await listener.event()
            assert (event["id"], event["data"]["failed"]) == ("2", 1)

    asyncio.run(scenario())


def test_whoever_comes_back_after_the_end_hears_the_end(service, job):
    service.advance(job, "done", 3)

    async def scenario():
        async with listening(app_of(service), job, last_event_id="2") as listener:
            assert (await listener.event())["event"] == "end"
            assert await listener.event() is None

    asyncio.run(scenario())


@pytest.mark.parametrize("odd", ["x", "-1", "9" * 400, "1.5", "٣"])
def test_an_odd_last_event_id_counts_as_none(service, job, odd):
    service.advance(job, "done", 3)
    text = client_of(service).get(f"/jobs/{job}/events", headers={"last-event-id": odd.encode()}).text
    assert [line for line in text.splitlines() if line.startswith("event")] == ["event: progress", "event: end"]


def test_a_job_that_is_deleted_ends_its_events(service, job):
    async def scenario():
        async with listening(app_of(service), job) as listener:
            await listener.event()
            service.delete(job, "local")
            end = await listener.event()
            assert (end["event"], end["data"]) == ("end", {"id": job, "state": "deleted"})
            assert await listener.event() is None

    asyncio.run(scenario())


def test_a_caller_that_leaves_is_not_looked_for_any_more(service, job):
    app = app_of(service)

    async def scenario():
        async with listening(app, job) as listener:
            await listener.event()
        assert app.state.context.feeds.followed == 0

    asyncio.run(scenario())


def test_many_who_follow_one_job_cost_one_look(service, job):
    clock = 0.0
    feeds = Feeds(service, POLL, lambda: clock)

    async def follow():
        return [news.version async for news in feeds.follow(job, "local")]

    async def scenario():
        nonlocal clock
        tasks = [asyncio.create_task(follow()) for _ in range(200)]
        await until(lambda: feeds.followed == 200)
        assert service.version_reads == 0  # the first look reads the status at once
        for looks in range(1, 4):
            clock += 1
            await until(lambda looks=looks: service.version_reads >= looks)
        assert service.version_reads == 3
        service.advance(job, "done", 3)
        clock += 1
        assert set(map(tuple, await asyncio.gather(*tasks))) == {(1, 2)}

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))
    assert service.version_reads <= 4
    assert feeds.followed == 0


def test_two_owners_do_not_share_what_they_see(service, job):
    feeds = Feeds(service, POLL)
    service.advance(job, "done", 3)

    async def states(owner):
        return [json.loads(news.status)["state"] async for news in feeds.follow(job, owner)]

    async def scenario():
        return await asyncio.gather(states("local"), states("eve"))

    assert asyncio.run(scenario()) == [["done"], ["deleted"]]


def test_a_database_that_fails_ends_the_stream_without_an_end(service, job):
    def breaks():
        raise RuntimeError("gone")

    log = io.StringIO()
    app = create_app(service, ApiOptions(poll=POLL), event_log((log,)))

    async def scenario():
        async with listening(app, job) as listener:
            await listener.event()
            service.breaks = breaks
            assert await listener.event() is None

    asyncio.run(scenario())
    assert "RuntimeError: gone" in log.getvalue()


def test_unknown_jobs_have_no_events(service):
    response = client_of(service).get("/jobs/nobody/events")
    assert (response.status_code, response.json()["code"]) == (404, "no_such_job")
    assert client_of(service).post("/jobs/nobody/events", headers=JSON).status_code == 405
