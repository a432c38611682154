"""The app: routes, errors and edges put together around a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from crosscut.api import intake, jobs, media, operations
from crosscut.api.access import Access
from crosscut.api.answers import Context
from crosscut.api.documents import describe
from crosscut.api.edge import Edge, Gate
from crosscut.api.exposition import exposition
from crosscut.api.feeds import Feeds
from crosscut.api.options import ApiOptions
from crosscut.api.problems import answer_problems
from crosscut.telemetry import event_log
from crosscut.tracing import NoTracer

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from crosscut.commons import Counts
    from crosscut.ports import Service
    from crosscut.tracing import Tracer

ROUTERS = (media.router, intake.router, jobs.router, operations.router, operations.admin)


def create_app(
    service: Service,
    options: ApiOptions | None = None,
    log: FilteringBoundLogger | None = None,
    tracer: Tracer | None = None,
    counts: Counts | None = None,
) -> FastAPI:
    """The API of `service`, which stays the caller's to start and end.

    `log` gets one line, `tracer` one span for each request; `counts` tells who sends too many, by default to this app.
    """
    options = options or ApiOptions()
    app = FastAPI(
        title="Crosscut",
        version=options.version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Edge, log=log or event_log(()), tracer=tracer or NoTracer()),
            Middleware(Gate, hosts=None if options.auth else options.allowed_hosts),
            Middleware(media.Shortcut),
        ],
    )
    app.state.context = Context(service, options, Feeds(service, options.poll))
    app.state.access = Access(service, options, counts)
    app.state.exposition = exposition(service.metrics)
    app.state.routes = [route for router in ROUTERS for route in router.routes]
    answer_problems(app)
    for router in ROUTERS:
        app.include_router(router)
    describe(app, auth=options.auth)
    return app
