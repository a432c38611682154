"""What holds for every test."""

import os
import signal
import subprocess
import uuid

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

POSTGRES = os.environ.get("CROSSCUT_TEST_POSTGRES", "postgresql+psycopg://root@127.0.0.1:5432/test")

# As in a terminal: what is started in the background ignores interrupts, and so do all its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What whoever runs the tests may buy or write elsewhere is nothing for tests.
for name in list(os.environ):
    if name in ("ELEVENLABS_API_KEY", "CROSSCUT_ELEVENLABS_API_KEY") or name.startswith(
        ("CROSSCUT_GOOGLE_", "GOOGLE_")
    ):
        os.environ.pop(name)


@pytest.fixture
def postgres():
    """The URL of an empty database."""
    engine = create_engine(POSTGRES, connect_args={"connect_timeout": 2})
    schema = f"t{uuid.uuid4().hex}"
    try:
        with engine.begin() as db:
            db.execute(text(f"CREATE SCHEMA {schema}"))
    except OperationalError:
        pytest.skip("no PostgreSQL at CROSSCUT_TEST_POSTGRES")
    yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
    with engine.begin() as db:
        db.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def small_disk(tmp_path):
    """Mounts disks of so many bytes."""
    mounted = []

    def mount(folder, size):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def collector(monkeypatch):
    """What traces are sent to, soon."""
    from collecting import collecting

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    with collecting() as collector:
        yield collector
