"""Run by Alembic with the connection that `Database` has opened."""

from alembic import context

from crosscut.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
