"""The engine of many machines, over real services: the rows of the fault matrix that are different there."""

from __future__ import annotations

import pytest

from cluster_play import clustered
from engine_play import SOUND, body, check_like_undisturbed

SMALL = body(2, 2, **SOUND)


@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_a_job_is_made_by_workers_of_both_lanes(tmp_path, broker):
    with clustered(tmp_path, broker) as cluster:
        with cluster.serving() as engine:
            workers = [cluster.work("network"), cluster.work("processor")]
            status = engine.ended(engine.submit(SMALL))
            assert (status["succeeded"], status["failed"]) == (4, 0)
            assert engine.machine.troubles() == []
            assert [worker.stop() for worker in workers] == [0, 0]
        check_like_undisturbed(cluster.place, SMALL)
