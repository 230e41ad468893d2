"""Alembic's entry: the tables of auth_service.models, in the database of DATABASE_URL."""

from sqlmodel import SQLModel

import auth_service.models  # noqa: F401  registers the tables
from triton_common.migrations import run_migrations

run_migrations(SQLModel.metadata)
