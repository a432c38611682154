"""How many bytes of a file left the machine."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("outputs", sa.Column("sent", sa.BigInteger(), nullable=True))
