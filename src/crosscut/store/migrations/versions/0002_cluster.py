"""What the machines of a cluster know of each other."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "stations",
        sa.Column("name", sa.String(length=160), nullable=False),
        sa.Column("lane", sa.String(length=9), nullable=False),
        sa.Column("at_once", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("heard", sa.Float(precision=53), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "condemned",
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("since", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("worker"),
    )
