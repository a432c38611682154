"""The command that runs the API and its workers."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from crosscut import bootstrap
from crosscut.commands.shared import load_settings


def serve(
    *,
    host: Annotated[str, Parameter(help="Address to listen on.", show_default=True)] = "127.0.0.1",
    port: Annotated[
        int, Parameter(help="Port to listen on.", show_default=True, validator=Number(gte=0, lte=65_535))
    ] = 8000,
    to: Annotated[
        str | None, Parameter(help="Where the folders of tasks are made; default: CROSSCUT_DESTINATION.")
    ] = None,
) -> int:
    """Run the API and its workers on this machine, until interrupted.

    Without API keys it answers this machine alone; see crosscut keys.
    """
    settings = load_settings()
    bootstrap.serve(settings, host, port, to or settings.destination)
    return 0
