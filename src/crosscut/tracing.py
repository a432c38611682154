"""What a trace is told: a request, the job it asks for, each unit of that, each timed stage of a unit.

request ──> job ──> unit ──> stage; the job keeps, as W3C Trace Context, which request it comes from
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    Told = Callable[[str, Mapping[str, Any]], None]
    """Gives a request its name, such as `GET /jobs`, and more fields."""


class Tracer(Protocol):
    """Thread-safe. Fields are numbers and short words; what may hold an address or a secret is left out."""

    def request(self, parent: str | None) -> AbstractContextManager[Told]:
        """One request of the API; `parent` is the traceparent that came with it."""
        ...

    def current(self) -> str | None:
        """The traceparent of what is at hand, for others to go on with; None where nothing is traced."""
        ...

    def unit(
        self, trace: str | None, job: str, kind: str, fields: Mapping[str, Any]
    ) -> AbstractContextManager[Callable[[str], None]]:
        """A unit of the job that a request of `trace` asked for; call what is given with the code of a failure."""
        ...

    def stage(self, name: str, fields: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Part of the unit at hand, if that is traced; a CrosscutError that comes out of it is told by its code."""
        ...

    def job(self, trace: str | None, job: str, created: float, ended: float, fields: Mapping[str, Any]) -> None:
        """A job has ended; times are seconds of the epoch."""
        ...

    def close(self) -> None:
        """Send what has not been sent."""
        ...


class NoTracer:
    """Tells nobody."""

    @contextmanager
    def request(self, parent: str | None) -> Iterator[Told]:
        del parent
        yield lambda _name, _fields: None

    def current(self) -> str | None:
        return None

    @contextmanager
    def unit(
        self, trace: str | None, job: str, kind: str, fields: Mapping[str, Any]
    ) -> Iterator[Callable[[str], None]]:
        del trace, job, kind, fields
        yield lambda _code: None

    def stage(self, name: str, fields: Mapping[str, Any]) -> AbstractContextManager[None]:
        del name, fields
        return nullcontext()

    def job(self, trace: str | None, job: str, created: float, ended: float, fields: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass
