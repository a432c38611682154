"""Random deaths of workers, of their nursery and of everything, until as much has died as was asked for."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest

from engine_play import SOUND, Place, Server, body, check_like_undisturbed, until

SEEDS = (1, 2, 3, 4)
DEATHS = 26
"""In each run."""
LONGEST_PEACE = 0.3
"""Seconds between two of them, beyond the time until something has been finished."""
LONGEST_WAIT = 3.0
"""Seconds after which something dies though nothing has been finished."""
FINISHED = """
    SELECT (SELECT count(*) FROM outputs) + (SELECT count(*) FROM jobs WHERE phase = 'ended')
         + (SELECT count(*) FROM needs WHERE state != 'wait') + (SELECT count(*) FROM slots WHERE state != 'wait')
"""
WHAT = ("worker",) * 2 + ("nursery",) * 2 + ("everything",)
JOBS = 2
"""That are at work at the same time."""
REQUEST = body(4, 4, 3, **SOUND)


def test_the_runs_add_up_to_a_hundred_deaths():
    assert len(SEEDS) * DEATHS >= 100


class Reaper:
    """Kills at random, and counts."""

    def __init__(self, place, server, seed):
        self.place = place
        self.server = server
        self.finished = 0
        self.killed = []
        self._draw = random.Random(seed)

    def strike(self):
        """Kill something that is there, after a while; the server lives on or is started again.

        What is killed over and over without a moment to finish anything would be given up, as it should.
        """
        end = time.monotonic() + LONGEST_WAIT
        until(lambda: self.place.rows(FINISHED)[0][0] > self.finished or time.monotonic() > end)
        self.finished = self.place.rows(FINISHED)[0][0]
        time.sleep(self._draw.random() * LONGEST_PEACE)
        what = self._draw.choice(WHAT)
        if what == "everything":
            self.server.kill()
            self.killed.append(what)
            self.server.start()
        else:
            nursery = until(self.server.nursery)
            victim = nursery if what == "nursery" else self._draw.choice(until(self.server.workers))
            with contextlib.suppress(ProcessLookupError):  # it has just died of something else
                os.kill(victim, signal.SIGKILL)
                self.killed.append(what)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_random_deaths_the_outcome_is_that_of_an_undisturbed_run(tmp_path, seed):
    place = Place(tmp_path)
    with Server(place) as server:
        reaper = Reaper(place, server, seed)
        jobs = []
        while len(reaper.killed) < DEATHS:
            if sum(not server.over(job) for job in jobs) < JOBS:
                jobs.append(server.submit(REQUEST | {"task_name": f"task {len(jobs)}"}))
            reaper.strike()
        until(lambda: all(map(server.over, jobs)))
        statuses = [server.get(f"/jobs/{job}") for job in jobs]
        assert server.stop() == 0
    told = f"seed {seed}: {reaper.killed}"
    assert len(reaper.killed) == DEATHS, told
    for status in statuses:
        assert (status["state"], status["failed"]) == ("done", 0), (told, status["errors"])
    for number in range(len(jobs)):
        check_like_undisturbed(place, REQUEST | {"task_name": f"task {number}"}, uploaded=True)
