"""Do one leased unit: take it in hand, keep its lease, perform it, hand in what came of it; the same in any engine."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Self, TypeAlias

from structlog.contextvars import bound_contextvars

from crosscut.errors import CrosscutError
from crosscut.units import Failure, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from crosscut.units import Ledger, Unit

    Perform: TypeAlias = Callable[[Unit, Ledger, threading.Event, Callable[[float], None]], Outcome]
    """Does the work of a unit until it ends or the event is set, and reports the fraction done, 0 to 1."""

BEAT_SECONDS = 0.5
HAND_IN_PAUSES = (0.1, 0.3, 1.0)
"""Seconds between the attempts to hand in what was made: the ledger may be out of reach for a moment."""

_UNEXPECTED = "this is an error in crosscut: report it with the lines of the log around it"
_NOT_RECORDED = "what came of this could not be recorded; see the log of the server"

logger = logging.getLogger(__name__)


def execute(
    ledger: Ledger, unit: int, attempt: int, worker: str, perform: Perform, beat_seconds: float = BEAT_SECONDS
) -> None:
    """Returns without a word when the unit is not to be done (any more), or was taken away meanwhile.

    What `perform` raises becomes the unit's failure. What the ledger raises at the start, or for good at the end, is
    raised: the unit is then left to its lease.
    """
    work = ledger.start(unit, attempt, worker)
    if work is None:
        return
    with bound_contextvars(job=work.job, unit=work.id, worker=worker), _Pulse(ledger, work, beat_seconds) as pulse:
        try:
            outcome = perform(work, ledger, pulse.cancelled, pulse.report)
        except BaseException as error:
            _hand_in(ledger, work, Outcome(failure=_failure(work, error)))
            if not isinstance(error, Exception):
                raise
        else:
            _hand_in(ledger, work, outcome)


class _Pulse:
    """Keeps the lease of a unit for the length of a block, and sets `cancelled` when it is lost."""

    def __init__(self, ledger: Ledger, unit: Unit, seconds: float) -> None:
        self.cancelled = threading.Event()
        self._ledger = ledger
        self._unit = unit
        self._seconds = seconds
        self._fraction = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pulse of {unit.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def report(self, fraction: float) -> None:
        self._fraction = fraction

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                wanted = self._ledger.beat(self._unit.id, self._unit.attempt, self._fraction)
            except Exception:  # a lease outlives a few beats
                logger.warning("a heartbeat was lost", exc_info=True)
            else:
                if not wanted:
                    self.cancelled.set()
                    return


def _hand_in(ledger: Ledger, unit: Unit, outcome: Outcome) -> None:
    for pause in HAND_IN_PAUSES:
        try:
            ledger.finish(unit.id, unit.attempt, outcome)
        except Exception:
            logger.warning("an outcome could not be handed in", exc_info=True)
            time.sleep(pause)
        else:
            return
    failure = Failure(unit.kind, "not_recorded", _NOT_RECORDED, retryable=True)
    ledger.finish(unit.id, unit.attempt, Outcome(failure=failure))


def _failure(unit: Unit, error: BaseException) -> Failure:
    if isinstance(error, CrosscutError):
        return Failure(error.stage, error.code, error.public, error.retryable, error.after)
    logger.error("a unit failed unexpectedly", exc_info=error)
    return Failure(unit.kind, "unexpected", _UNEXPECTED)
