"""Posters are drawn once each and few at a time; what nobody looks at is let go."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from crosscut.ports import NotReadyError
from crosscut.previews import DRAWN_AT_ONCE, Previews, _Turns
from serving import eventually


class Easel:
    """Draws what it is asked for only when `dry` is set, and counts."""

    def __init__(self):
        self.drawn = []
        self.at_work = self.most = 0
        self.dry = threading.Event()
        self.lock = threading.Lock()
        self.plan = [None] * 20

    def poster_key(self, index):
        return f"clip {index}"

    def poster(self, index):
        with self.lock:
            self.drawn.append(index)
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        assert self.dry.wait(20)
        with self.lock:
            self.at_work -= 1
        return b"%d" % index


def asked_at_once(previews, easel, indexes):
    """Threads that have asked for the posters of these, and what they got."""
    answers = []

    def ask(index):
        answers.append(previews._drawn(easel, index)[0])

    threads = [threading.Thread(target=ask, args=(index,)) for index in indexes]
    for thread in threads:
        thread.start()
    return threads, answers


def test_a_poster_many_ask_for_is_drawn_once():
    previews, easel = Previews(SimpleNamespace()), Easel()
    threads, answers = asked_at_once(previews, easel, [1] * 6)
    eventually(lambda: easel.at_work)
    easel.dry.set()
    for thread in threads:
        thread.join(20)
    assert (answers, easel.drawn) == ([b"1"] * 6, [1])


def test_few_posters_are_drawn_at_once():
    previews, easel = Previews(SimpleNamespace()), Easel()
    threads, answers = asked_at_once(previews, easel, range(8))
    eventually(lambda: easel.at_work == DRAWN_AT_ONCE)
    easel.dry.set()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == [b"%d" % index for index in range(8)]
    assert easel.most == DRAWN_AT_ONCE


def test_who_waits_too_long_is_told_to_come_again():
    turns = _Turns(1, patience=0.05)
    with turns.turn("a"):
        for key in ("a", "b"):
            with pytest.raises(NotReadyError) as caught, turns.turn(key):
                pass
            assert (caught.value.retryable, caught.value.code) == (True, "not_ready")
    with turns.turn("a"):
        pass


def test_a_poster_that_cannot_be_drawn_is_not_in_the_way_of_others():
    turns = _Turns(1, patience=0.05)
    with pytest.raises(ZeroDivisionError), turns.turn("a"):
        raise ZeroDivisionError
    with turns.turn("a"):
        pass
