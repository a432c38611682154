"""Row 29 of the fault matrix: all that can happen to a cluster, at random, for ten minutes. Run by `make chaos`.

Job follows job, of 19,683 variations each. CHAOS_SEED and CHAOS_SECONDS choose another course.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from contextlib import ExitStack

import redis

from cluster_play import clustered
from crosscut import cluster as module
from crosscut.engine.carrier import TASK, celery_app
from engine_play import body, check_invariants, check_made

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "600"))
SIDE = int(os.environ.get("CHAOS_SIDE", "27"))
"""Clips in each of three blocks."""


class Sea:
    """A cluster, and what may befall it."""

    def __init__(self, cluster, engine, draw, stack):
        self.cluster = cluster
        self.engine = engine
        self.draw = draw
        self.stack = stack
        self.workers = cluster.all_work()
        self.broker = redis.Redis.from_url(cluster.near_broker)
        self.app = celery_app(cluster.near_broker)
        self.queues = [cluster.queue(engine, lane) for lane in ("network", "processor")]

    def one(self):
        return self.draw.choice(self.workers)

    def replace(self, worker):
        self.workers.remove(worker)
        self.workers.append(self.cluster.work(worker.lane, 2 if worker.lane == "network" else 1))

    def crew_is_killed(self):
        if crews := self.one().crews():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(crews), signal.SIGKILL)

    def station_is_killed(self):
        worker = self.one()
        os.kill(worker.pid, signal.SIGKILL)
        worker.process.wait()
        self.replace(worker)

    def machine_is_killed(self):
        worker = self.one()
        worker.kill()
        self.replace(worker)

    def worker_is_told_to_end(self):
        worker = self.one()
        self.stop(worker)
        self.replace(worker)

    def stop(self, worker):
        """One that had not begun yet may end as any process does."""
        begun = self.cluster.station_of(worker)
        assert worker.stop() in ({0} if begun else {0, -signal.SIGTERM})

    def all_are_killed(self):
        for worker in list(self.workers):
            worker.kill()
            self.replace(worker)

    def machine_sleeps(self):
        worker = self.one()
        os.killpg(worker.pid, signal.SIGSTOP)
        time.sleep(self.draw.uniform(1, 8))
        os.killpg(worker.pid, signal.SIGCONT)

    def broker_forgets(self):
        self.broker.delete(*self.queues)

    def broker_freezes(self):
        self.cluster.messages.freeze()
        time.sleep(self.draw.uniform(1, 8))
        self.cluster.messages.mend()

    def broker_is_away(self):
        self.cluster.messages.cut()
        time.sleep(self.draw.uniform(0.1, 4))
        self.cluster.messages.mend()

    def database_drops_connections(self):
        self.cluster.state.shake()

    def database_is_away(self):
        self.cluster.state.cut()
        time.sleep(self.draw.uniform(0.1, 3))
        self.cluster.state.mend()

    def messages_come_again(self):
        rows = self.cluster.place.rows("SELECT id, attempt, lane FROM work WHERE attempt > 0 ORDER BY id DESC LIMIT 50")
        for row in rows:
            for attempt in (row["attempt"], row["attempt"], row["attempt"] - 1):
                self.app.send_task(TASK, (row["id"], attempt), queue=self.cluster.queue(self.engine, row["lane"]))

    def another_scheduler(self):
        with self.cluster.serving(batch=self.draw.choice([0, 1, 3])):
            time.sleep(self.draw.uniform(0.5, 4))

    def close(self):
        self.broker.close()
        self.app.close()


DEEDS = [
    name
    for name, deed in vars(Sea).items()
    if callable(deed) and name not in ("__init__", "one", "replace", "stop", "close")
]


def test_row_29_nothing_is_lost_in_a_rough_sea(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SENT_SECONDS", 3.0)
    draw = random.Random(SEED)
    done = dict.fromkeys(DEEDS, 0)
    documents, jobs = [], []
    with clustered(tmp_path) as cluster, ExitStack() as stack:
        with cluster.serving() as engine:
            sea = Sea(cluster, engine, draw, stack)
            cluster.ready(engine, 3)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                if not jobs or engine.over(jobs[-1]):
                    documents.append(body(SIDE, SIDE, SIDE, task=f"rough {len(jobs) + 1}", encoded=False))
                    jobs.append(engine.submit(documents[-1]))
                time.sleep(draw.uniform(0, 3))
                deed = draw.choice(DEEDS)
                getattr(sea, deed)()
                done[deed] += 1
            for job in jobs:
                status = engine.ended(job, 1_800)
                print(status["task_name"], status["seconds"], status["errors"])  # noqa: T201
                assert (status["succeeded"], status["failed"]) == (SIDE**3, 0)
            print(done, sum(done.values()))  # noqa: T201
            for worker in sea.workers:
                sea.stop(worker)
            sea.close()
        check_invariants(cluster.place)
        for document in documents:
            check_made(cluster.place, document)
