"""The commands that run the API, and workers on other machines."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from crosscut import bootstrap, cluster, standalone
from crosscut.client import Client, running
from crosscut.commands.shared import ALL_MADE, SOME_FAILED, load_settings
from crosscut.errors import ServerError

HEALTH_SECONDS = 5.0
"""A server that takes longer to tell how it is is not well."""


def serve(
    *,
    host: Annotated[str, Parameter(help="Address to listen on.", show_default=True)] = "127.0.0.1",
    port: Annotated[
        int, Parameter(help="Port to listen on.", show_default=True, validator=Number(gte=0, lte=65_535))
    ] = 8000,
    to: Annotated[
        str | None, Parameter(help="Where the folders of tasks are made; default: CROSSCUT_DESTINATION.")
    ] = None,
    engine: Annotated[
        Literal["embedded", "celery"] | None,
        Parameter(help="Who does the work: workers of this machine, or crosscut worker; default: CROSSCUT_ENGINE."),
    ] = None,
) -> int:
    """Run the API, and its workers on this machine unless the engine is celery, until interrupted.

    Without API keys it answers this machine alone; see crosscut keys.
    """
    settings = load_settings()
    settings = settings.model_copy(update={"engine": engine or settings.engine})
    if settings.engine == "celery":
        if error := cluster.refusal(settings):
            raise error
        standalone.serve(settings, host, port, to or settings.destination, cluster.open_scheduler)
    else:
        standalone.serve(settings, host, port, to or settings.destination)
    return 0


def worker(
    *,
    lane: Annotated[
        Literal["network", "processor"] | None,
        Parameter(help="Serve this lane alone: what waits for the network, or what burns processor time."),
    ] = None,
    concurrency: Annotated[
        int | None,
        Parameter(
            help="Units at the same time, of the lane that is named or of the processor lane; default:"
            " CROSSCUT_WORKERS, for the network four times CROSSCUT_NETWORK_WORKERS.",
            validator=Number(gte=1, lte=1_024),
        ),
    ] = None,
) -> int:
    """Work for servers of the engine celery, on this machine, until interrupted.

    It finds them by CROSSCUT_DATABASE_URL and CROSSCUT_BROKER_URL. Without a lane it serves both.
    """
    settings = load_settings()
    network = bootstrap.NETWORK_SHARES * settings.network_workers
    processor = settings.workers
    if lane == "network":
        network, processor = concurrency or network, 0
    elif concurrency:
        processor = concurrency
    if lane == "processor":
        network = 0
    return cluster.work(settings, cluster.Seats(network, processor))


def health(
    *,
    worker: Annotated[bool, Parameter(help="Ask about the workers of this machine, not its server.")] = False,
) -> int:
    """Tell whether the server of this data folder, or a worker here, can work: for health checks.

    Exit status 1, and the reasons, if not.
    """
    settings = load_settings()
    if worker:
        reasons = cluster.ailments(settings)
    else:
        reasons = []
        try:
            server = running(settings.data_dir)
            with Client(server.url, server.token, silence=HEALTH_SECONDS) as client:
                client.check()
        except ServerError as error:
            reasons = [error.public]
    print("; ".join(reasons) or "ok")  # noqa: T201
    return SOME_FAILED if reasons else ALL_MADE
