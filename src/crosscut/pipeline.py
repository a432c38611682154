"""The journey in one process: request -> fetch -> probe -> speak -> plan -> conform, mix -> splice -> deliver.

Functions over values and protocols; no database, queue or web framework is known here, and nothing is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crosscut.estimate import estimate
from crosscut.gather import decide
from crosscut.naming import folder_name
from crosscut.plandoc import plan_of
from crosscut.spending import costs
from crosscut.studio import Studio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crosscut.destinations import Destination
    from crosscut.request import Request
    from crosscut.units import Output
    from crosscut.workshop import Workshop


def preview(request: Request, base: Path | None, workshop: Workshop) -> dict[str, Any]:
    """What `request` would make and cost, as JSON: sources are fetched and read, nothing is encoded or bought."""
    doc = decide(request, base, workshop, spend=False)
    price = estimate(plan_of(doc, request), doc.sizes, doc.names.__getitem__)
    return price | {"notes": doc.notes, "cost": costs(request.lines, workshop.voice)}


def produce(request: Request, base: Path | None, workshop: Workshop, destination: Destination) -> Iterator[Output]:
    """Make and deliver every variation in this process; what came of each, in about their order.

    Raises `RequestError` where the request cannot be made at all, and what keeps all the rest from being made.
    """
    studio = Studio(request, decide(request, base, workshop), workshop, base)
    studio.plan.refuse_overflow()
    folder = folder_name(request.task_name)
    with destination.claim(folder), destination.open(folder) as delivery:
        yield from studio.make(range(1, len(studio.plan) + 1), delivery)
