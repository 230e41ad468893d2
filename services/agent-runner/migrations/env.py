"""Alembic's entry: the tables of agent_runner.tables, in the database of DATABASE_URL."""

from sqlmodel import SQLModel

import agent_runner.tables  # noqa: F401  registers the tables
from triton_common.migrations import run_migrations

run_migrations(SQLModel.metadata)
