"""Who may write where: a place, which is a folder of a destination, has one job at a time.

Functions over an open transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, exists, func, or_, select

from crosscut.store.bulk import insert_new
from crosscut.store.schema import LIVE, jobs, places

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from crosscut.store.schema import AnyRow


def held() -> Any:
    """Whether the job of the row has its place."""
    return exists().where(places.c.job == jobs.c.id)


def contenders(db: Connection) -> list[AnyRow]:
    """For each place that is free, the oldest job that has something to write there: `id`, `destination`, `folder`."""
    return list(db.execute(_CONTENDERS))


_FIRST = (
    select(func.min(jobs.c.seq))
    .where(
        jobs.c.mode == "make",
        LIVE,
        jobs.c.edition > 0,
        or_(jobs.c.state == "running", and_(jobs.c.state == "cancelled", jobs.c.ok > 0)),
        ~exists().where(places.c.place == jobs.c.place),
    )
    .group_by(jobs.c.place)
)
_CONTENDERS = select(jobs.c.id, jobs.c.destination, jobs.c.folder).where(jobs.c.seq.in_(_FIRST)).order_by(jobs.c.seq)


def hold(db: Connection, job: str) -> None:
    """Give the job its place, unless another has it."""
    place = db.scalar(select(jobs.c.place).where(jobs.c.id == job, jobs.c.phase != "ended"))
    if place is not None:
        insert_new(db, places, [{"place": place, "job": job}], ["place"])


def holders(db: Connection) -> set[str]:
    return set(db.scalars(_HOLDERS))


_HOLDERS = select(places.c.job)


def free(db: Connection, job: str) -> None:
    db.execute(delete(places).where(places.c.job == job))


def free_all(db: Connection) -> None:
    db.execute(delete(places))
