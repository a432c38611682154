"""What holds for every test."""

import os
import uuid

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

POSTGRES = os.environ.get("CROSSCUT_TEST_POSTGRES", "postgresql+psycopg://root@127.0.0.1:5432/test")

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
