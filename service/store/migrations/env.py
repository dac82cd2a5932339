"""Alembic's entry: runs on the connection that `service.store.database` opened, inside its transaction."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from service.store import tables  # noqa: F401 - registers the tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    version_table="epicrisis_schema_version",
    compare_type=True,
)
context.run_migrations()
