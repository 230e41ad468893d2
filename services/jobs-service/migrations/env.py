"""Alembic's entry: `alembic upgrade head` in this folder, with DATABASE_URL set."""

import jobs_service.models  # noqa: F401  fills the metadata
from sqlmodel import SQLModel
from triton_common.migrations import run_migrations

run_migrations(SQLModel.metadata)
