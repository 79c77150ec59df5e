"""Alembic's entry: runs on a connection that app.store.migrate hands over."""

from alembic import context

from app.store.indexes import metadata
from app.store.migrate import is_compared

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_name=is_compared,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
