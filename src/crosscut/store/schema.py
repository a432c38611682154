"""The tables. Times are seconds of the epoch; documents are JSON texts; hashes are bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

AnyRow: TypeAlias = Any
"""A row with whichever columns were asked for."""

BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in columns declared INTEGER."""

jobs = Table(
    "jobs",
    metadata,
    Column("seq", BigId, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", String(200), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("task_name", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("phase", String(8), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("started", Float(53)),
    Column("making", Float(53)),
    Column("made_before", BigInteger, nullable=False, default=0),
    Column("ended", Float(53)),
    Column("planned", Integer, nullable=False, default=0),
    Column("local", Boolean, nullable=False),
    Column("base", Text),
    Column("destination", Text, nullable=False),
    Column("remote", Boolean, nullable=False, default=False),
    Column("folder", Text, nullable=False),
    Column("place", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("idempotency_hash", String(64)),
    Column("edition", Integer, nullable=False, default=0),
    Column("outline", Text, nullable=False, default="{}"),
    Column("webhook", Text),
    Column("passthrough", Text),
    Column("total", BigInteger, nullable=False),
    Column("ok", BigInteger, nullable=False, default=0),
    Column("kept", BigInteger, nullable=False, default=0),
    Column("failed", BigInteger, nullable=False, default=0),
    Column("doomed", BigInteger, nullable=False, default=0),
    Column("rescued", Text, nullable=False, default="{}"),
    Column("spent", Text, nullable=False, default="{}"),
    Column("meters", Text, nullable=False, default="{}"),
    Column("errors", Text, nullable=False, default="{}"),
    Column("location", Text),
    Column("manifest_problem", Text),
    Column("loudness", Text),
    Column("failure_told", Boolean, nullable=False, default=False),
    Column("end_told", Boolean, nullable=False, default=False),
    Column("served", Float(53), nullable=False, default=0.0),
    Column("version", BigInteger, nullable=False, default=1),
    Column("trace", String(55)),
    UniqueConstraint("owner", "idempotency_key", name="one_job_per_key"),
)
"""`phase`: queued, gather, plan, make, close, ended. `edition` counts the plans that were drawn, 0: none yet.

`failed` counts outputs, `doomed` what lacks a usable piece.

`rescued` counts by reason those of the doomed that may still lie in the place from an earlier job: they are asked for.
`outline` is what a status tells of the estimate. `place` names destination and folder together. `planned` is how many
of the extensions the plan contains. `location` is what a user opens to see the folder. `making` is when the first
variation came out since the job last began, `made_before` how many there were then, `served` a count that says whose
turn is next. `trace` is the traceparent of the request that asked for it, where requests are traced.
"""
INSIDE = ("gather", "plan", "make", "close")
"""Phases of the jobs whose work is in the queue."""
LIVE = jobs.c.phase.in_(("queued", *INSIDE))
Index("jobs_phase", jobs.c.phase, jobs.c.seq)
Index("jobs_untold", jobs.c.seq, sqlite_where=text("end_told = 0"), postgresql_where=text("NOT end_told"))
Index("jobs_owner", jobs.c.owner, jobs.c.seq)
Index("jobs_place", jobs.c.place)

documents = Table(
    "documents",
    metadata,
    Column("job", String(32), primary_key=True),
    Column("body", Text, nullable=False),
    Column("extensions", Text, nullable=False, default="[]"),
    Column("plan", Text),
    Column("grid", Text),
    Column("estimate", Text),
)
"""One row for each job: what is long and seldom changes, apart from the row that changes all the time."""

needs = Table(
    "needs",
    metadata,
    Column("job", String(32), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", String(6), nullable=False),
    Column("result", Text),
    Column("error", Text),
)
"""A source or line that a job waits for, has got, or cannot have: state wait, done, failed, off."""
Index("needs_key", needs.c.key, needs.c.state)
Index("needs_next", needs.c.job, needs.c.state, needs.c.position)

slots = Table(
    "slots",
    metadata,
    Column("job", String(32), primary_key=True),
    Column("target", Integer, primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("choice", Integer, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("key", String(64)),
    Column("state", String(6), nullable=False),
    Column("ord", Integer),
    Column("error", Text),
)
"""A clip of a block in a format; state wait, ready, failed, off (its job is cancelled).

`position` says in which order they are best made, `ord` is its place among those that are ready.
"""
Index("slots_key", slots.c.key, slots.c.state)
Index("slots_next", slots.c.job, slots.c.state, slots.c.position)
Index("slots_ord", slots.c.job, slots.c.target, slots.c.ord, unique=True)

boxes = Table(
    "boxes",
    metadata,
    Column("job", String(32), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("target", Integer, primary_key=True),
    Column("ord", Integer, primary_key=True),
    Column("block", Integer, nullable=False),
    Column("choice", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("cursor", BigInteger, nullable=False, default=0),
)
"""What a slot made possible when it became ready: combinations with slots of a lower `ord`, cut from `cursor` on."""
Index(
    "boxes_open",
    boxes.c.job,
    sqlite_where=boxes.c.cursor < boxes.c.size,
    postgresql_where=boxes.c.cursor < boxes.c.size,
)

work = Table(
    "work",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),
    Column("lane", String(9), nullable=False),
    Column("job", String(32)),
    Column("payload", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("size", Integer, nullable=False, default=1),
    Column("allowed", Float(53), nullable=False),
    Column("state", String(7), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("tries", Integer, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),
    Column("not_before", Float(53), nullable=False, default=0.0),
    Column("ready_since", Float(53), nullable=False),
    Column("worker", String(200)),
    Column("lease", Float(53)),
    Column("deadline", Float(53)),
    Column("fraction", Float(53), nullable=False, default=0.0),
    Column("done", Text),
    sqlite_autoincrement=True,
)
"""Units to be done: ready, queued (handed out), running, done (to be folded).

`job` is whose account it runs on; None for a preparation nobody has been given yet. `version` is that of the payload:
what newer code put there is left to newer code. `tries` counts failures,
`crashes` dead workers; `allowed` seconds is how long one attempt may take; `done` is what `fold` adds up.
"""
Index("work_ready", work.c.state, work.c.lane, work.c.not_before)
Index("work_job", work.c.job)

outputs = Table(
    "outputs",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("variation", BigInteger, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger),
    Column("sent", BigInteger),
    Column("sha256", LargeBinary),
    Column("recipe", LargeBinary),
    Column("loudness_before", Float),
    Column("loudness", Float),
    Column("true_peak", Float),
    Column("seconds", Float, nullable=False, default=0.0),
    Column("kept", Boolean, nullable=False, default=False),
    Column("link", Text),
    Column("error", Text),
    sqlite_with_rowid=False,
)
"""One row for each variation that came out, by the job's `seq`."""
Index(
    "outputs_failed",
    outputs.c.job,
    outputs.c.variation,
    sqlite_where=outputs.c.error.is_not(None),
    postgresql_where=outputs.c.error.is_not(None),
)

totals = Table(
    "totals",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("label", String(40), primary_key=True),
    Column("value", Float(53), nullable=False),
)
"""What all jobs ever spent and made, for the metrics."""

places = Table(
    "places",
    metadata,
    Column("place", String(64), primary_key=True),
    Column("job", String(32), nullable=False, unique=True),
)
"""The job that may write into a place."""

folders = Table(
    "folders",
    metadata,
    Column("place", String(64), primary_key=True),
    Column("owner", String(200), nullable=False),
)
"""Whose folder it is, also when all jobs that wrote there are forgotten."""

destinations = Table(
    "destinations",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("not_before", Float(53), nullable=False),
)
"""Destinations that asked everybody to wait."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("ends", Float(53)),
)
"""Only hashes are kept; `ends` is when a key stops to be good."""

uploads = Table(
    "uploads",
    metadata,
    Column("owner", String(200), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Float(53), nullable=False),
)
"""Who uploaded which bytes, by their SHA-256."""

stations = Table(
    "stations",
    metadata,
    Column("name", String(160), primary_key=True),
    Column("lane", String(9), nullable=False),
    Column("at_once", Integer, nullable=False),
    Column("busy", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("heard", Float(53), nullable=False),
    Column("problem", Text),
)
"""Who serves a lane on some machine of a cluster, for as long as it is heard.

`at_once` and `busy` count units, `version` is that of the payloads it understands, `problem` is why it cannot work.
"""

condemned = Table(
    "condemned",
    metadata,
    Column("worker", String(200), primary_key=True),
    Column("since", Float(53), nullable=False),
)
"""Workers that hang: their station is to end them."""

notes = Table(
    "notes",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""What the machines of a cluster know together, by the SHA-256 of purpose and key. Some of it is secret.

The answers of a voice provider are here, and stay for ever: they are what was paid for.
"""

holds = Table(
    "holds",
    metadata,
    Column("holder", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("until", Float(53), nullable=False),
)
"""Who is at something, until a moment that the database's clock tells."""
Index("holds_name", holds.c.name)

counts = Table(
    "counts",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("minute", BigInteger, nullable=False),
    Column("current", Integer, nullable=False),
    Column("previous", Integer, nullable=False),
)
"""How often somebody asked in a minute and in the one before."""
