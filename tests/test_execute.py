from __future__ import annotations

import logging
import threading
import time

import pytest
from structlog.contextvars import get_contextvars

from crosscut.engine import execute as module
from crosscut.engine.execute import execute
from crosscut.errors import FetchError, StorageError
from crosscut.units import Failure, Outcome
from engine_tasks import MemoryLedger, until


@pytest.fixture
def ledger():
    return MemoryLedger()


def leased(ledger):
    unit = ledger.add()
    return unit, ledger.lease(unit)


def do(ledger, perform, beat_seconds=0.5):
    unit, attempt = leased(ledger)
    execute(ledger, unit, attempt, "w", perform, beat_seconds)
    return ledger.rows[unit]


def test_what_was_performed_is_handed_in(ledger):
    row = do(ledger, lambda unit, *_: Outcome(result={"saw": unit.id}))
    assert row.outcomes == [Outcome(result={"saw": 0})]
    assert ledger.starts == [(0, 1, "w")]


def test_a_unit_that_is_not_to_be_done_is_not_performed(ledger):
    unit, attempt = leased(ledger)
    ledger.cancel(unit)
    execute(ledger, unit, attempt, "w", lambda *_: pytest.fail("performed"))
    assert ledger.refused == [(unit, attempt)]


def test_the_second_of_two_equal_messages_does_nothing(ledger):
    unit, attempt = leased(ledger)
    inside, leave, performed = threading.Event(), threading.Event(), []

    def perform(*_):
        performed.append(1)
        inside.set()
        leave.wait(5)
        return Outcome()

    first = threading.Thread(target=execute, args=(ledger, unit, attempt, "first", perform))
    first.start()
    assert inside.wait(5)
    execute(ledger, unit, attempt, "second", perform)
    leave.set()
    first.join()
    execute(ledger, unit, attempt, "third", perform)
    assert len(performed) == len(ledger.rows[unit].outcomes) == 1
    assert ledger.refused == [(unit, attempt)] * 2


def test_a_late_outcome_is_fenced_without_a_word(ledger):
    def perform(unit, *_):
        ledger.rows[unit.id].state = "ready"
        ledger.lease(unit.id)
        return Outcome()

    assert do(ledger, perform).outcomes == []
    assert ledger.fenced == [(0, 1)]


def test_an_error_of_ours_keeps_its_words(ledger):
    def perform(*_):
        raise FetchError("the server is busy", code="http_429", retryable=True, after=7)

    assert do(ledger, perform).outcomes[0].failure == Failure("fetch", "http_429", "the server is busy", True, 7)


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), SystemExit(3)])
def test_any_other_error_is_unexpected_and_told_to_the_log_alone(ledger, caplog, error):
    def perform(*_):
        raise error

    if isinstance(error, SystemExit):
        with pytest.raises(SystemExit):
            do(ledger, perform)
    else:
        do(ledger, perform)
    failure = ledger.rows[0].outcomes[0].failure
    assert (failure.stage, failure.code, failure.retryable) == ("batch", "unexpected", False)
    assert "secret" not in failure.public
    assert [record.exc_info[1] for record in caplog.records] == [error]


def test_a_lost_lease_sets_cancelled_within_a_second(ledger):
    seconds = []

    def perform(unit, _ledger, cancelled, _report):
        ledger.cancel(unit.id)
        start = time.monotonic()
        assert cancelled.wait(5)
        seconds.append(time.monotonic() - start)
        return Outcome()

    assert do(ledger, perform).outcomes == []
    assert seconds[0] < 1


def test_beats_tell_the_fraction_and_end_with_the_unit(ledger):
    def perform(unit, _ledger, cancelled, report):
        for fraction in (0.25, 0.75):
            report(fraction)
            until(lambda fraction=fraction: ledger.rows[unit.id].fraction == fraction)
        assert not cancelled.is_set()
        return Outcome()

    before = threading.active_count()
    assert do(ledger, perform, 0.001).fraction == 0.75
    assert threading.active_count() == before


def test_a_beat_that_fails_is_no_reason_to_stop(ledger, caplog):
    class Shaky(MemoryLedger):
        def beat(self, unit, attempt, fraction=0.0):
            self.beats += 1
            if self.beats < 3:
                raise StorageError("locked")
            return super().beat(unit, attempt, fraction)

    shaky = Shaky()

    def perform(_unit, _ledger, cancelled, _report):
        until(lambda: shaky.beats > 4)
        assert not cancelled.is_set()
        return Outcome()

    assert len(do(shaky, perform, 0.001).outcomes) == 1
    assert [record.message for record in caplog.records] == ["a heartbeat was lost"] * 2


def test_the_lease_is_kept_while_the_outcome_waits_for_the_ledger(ledger, monkeypatch, caplog):
    monkeypatch.setattr(module, "HAND_IN_PAUSES", (0.05, 0.05))
    ledger.failures = [StorageError("the disk is full", retryable=True), KeyError("x")]
    row = do(ledger, lambda *_: Outcome(result={"made": 1}), 0.01)
    assert row.outcomes[0].failure.code == "not_recorded"
    assert row.outcomes[0].failure.retryable
    assert ledger.beats >= 2
    ledger.failures = [StorageError("the disk is full", retryable=True)]
    assert do(ledger, lambda *_: Outcome(result={"made": 1})).outcomes == [Outcome(result={"made": 1})]


def test_a_ledger_out_of_reach_is_the_callers_to_know(ledger, monkeypatch):
    monkeypatch.setattr(module, "HAND_IN_PAUSES", (0.001,))
    ledger.failures = [StorageError("gone")] * 2
    with pytest.raises(StorageError):
        do(ledger, lambda *_: Outcome())
    assert ledger.states() == ["running"]


def test_every_log_line_of_a_unit_names_it(ledger):
    seen = {}

    def perform(*_):
        seen.update(get_contextvars())
        return Outcome()

    do(ledger, perform)
    assert seen == {"job": "job", "unit": 0, "worker": "w"}
    assert get_contextvars() == {}
    assert logging.getLogger("crosscut.engine.execute").propagate
