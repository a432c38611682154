from __future__ import annotations

import socket
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["json", "no_such_module"])
def test_a_starter_that_is_gone_is_no_reason_for_a_traceback(module: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        command = [sys.executable, "-m", "crosscut.spawner", str(theirs.fileno()), module]
        ended = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
