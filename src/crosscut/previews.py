"""Variations looked at in this process: as files that exist nowhere, and as posters. Nothing is made or written."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crosscut.artifacts import artifact_key
from crosscut.benches import Benches
from crosscut.plandoc import PlanDoc
from crosscut.ports import NotFoundError, NotReadyError, Playable
from crosscut.studio import Studio
from crosscut.wants import planned_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crosscut.units import JobRecord
    from crosscut.workshop import Toolbox

V = TypeVar("V")

DRAWN_AT_ONCE = 2
"""Posters; each takes a processor."""
PATIENCE_SECONDS = 10.0
FILES_KEPT = 512
POSTERS_KEPT = 256


class Previews:
    """Thread-safe."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._turns = _Turns(DRAWN_AT_ONCE, PATIENCE_SECONDS)
        self._benches = Benches(toolbox)
        self._files: _Latest[Playable] = _Latest(FILES_KEPT)
        self._posters: _Latest[tuple[bytes, str]] = _Latest(POSTERS_KEPT)

    @contextmanager
    def studio(self, job: str, edition: int, record: Callable[[], JobRecord]) -> Iterator[Studio]:
        """The job's studio as of `edition` of its plan; `record` is asked for only when it is not at hand."""
        with self._benches.at(job) as bench:
            with bench.alone:
                if bench.studio is None or bench.record is None or bench.record.edition != edition:
                    found = _planned(record())
                    assert found.plan is not None
                    base = Path(found.base) if found.base else None
                    bench.studio = Studio(planned_request(found), PlanDoc.of(found.plan), bench.workshop, base)
                    bench.record = found
                studio = bench.studio
            yield studio

    def playable(self, job: str, edition: int, index: int, record: Callable[[], JobRecord]) -> Playable:
        """Variation `index` of the job as of `edition`; `record` is asked for only when it is not known yet.

        Raises NotReadyError while its pieces are missing, NotFoundError where there is no such variation.
        """
        known = self._files.get((job, edition, index))
        if known is not None and known.file.intact():
            return known
        with self.studio(job, edition, record) as studio:
            _check(studio, index)
            file = studio.playable(index)
            if file is None:
                raise _not_ready()
            made = Playable(file, file.digest(), studio.plan.variation(index).name)
        return self._files.keep((job, edition, index), made)

    def poster(self, job: str, edition: int, index: int, record: Callable[[], JobRecord]) -> tuple[bytes, str]:
        """A JPEG of the variation's first clip, and its entity tag; raises like `playable`."""
        known = self._posters.get((job, edition, index))
        if known is not None:
            return known
        with self.studio(job, edition, record) as studio:
            _check(studio, index)
            shared = self._drawn(studio, index)
        return self._posters.keep((job, edition, index), shared)

    def _drawn(self, studio: Studio, index: int) -> tuple[bytes, str]:
        key = studio.poster_key(index)
        if (shared := self._posters.get((key,))) is not None:
            return shared
        with self._turns.turn(key):
            if (shared := self._posters.get((key,))) is not None:
                return shared
            picture = studio.poster(index)
            if picture is None:
                raise _not_ready()
            return self._posters.keep((key,), (picture, artifact_key("poster", jpeg=picture)[:32]))

    def forget(self, job: str) -> None:
        """The job is gone."""
        self._benches.forget(job)
        for shelf in (self._files, self._posters):
            shelf.drop(lambda key: key[0] == job)

    def tidy(self) -> None:
        """Let go of the jobs that nobody has looked at for a while."""
        self._benches.tidy()

    def close(self) -> None:
        self._benches.close()


class _Turns:
    """Lets in `at_once` callers, never two with the same key; NotReadyError after `patience` seconds. Thread-safe."""

    def __init__(self, at_once: int, patience: float) -> None:
        self._at_once = at_once
        self._patience = patience
        self._busy: set[str] = set()
        self._change = threading.Condition()

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        with self._change:
            if not self._change.wait_for(lambda: self._is_free(key), self._patience):
                raise NotReadyError(
                    "too many pictures are asked for at once: ask again in a moment",
                    code="not_ready",
                    retryable=True,
                    after=2.0,
                )
            self._busy.add(key)
        try:
            yield
        finally:
            with self._change:
                self._busy.remove(key)
                self._change.notify_all()

    def _is_free(self, key: str) -> bool:
        return key not in self._busy and len(self._busy) < self._at_once


class _Latest(Generic[V]):
    """The `most` values that were asked for last. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[tuple[Any, ...], V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...]) -> V | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def keep(self, key: tuple[Any, ...], value: V) -> V:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def drop(self, due: Callable[[tuple[Any, ...]], bool]) -> None:
        with self._lock:
            for key in [key for key in self._values if due(key)]:
                del self._values[key]


def _planned(record: JobRecord) -> JobRecord:
    if record.plan is None:
        raise _not_ready()
    return record


def _check(studio: Studio, index: int) -> None:
    if not 1 <= index <= len(studio.plan):
        raise NotFoundError(f"this job has variations 1 to {len(studio.plan)}", code="no_such_variation")
    problem = studio.plan.variation(index).problem
    if problem:
        raise NotFoundError(f"this variation cannot be made: {problem}", code="cannot_be_made")


def _not_ready() -> NotReadyError:
    return NotReadyError(
        "the pieces of this variation are not there yet: ask again in a moment",
        code="not_ready",
        retryable=True,
        after=2.0,
    )
