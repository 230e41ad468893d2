"""Alembic's entry: `alembic upgrade head` in this folder, with DATABASE_URL set."""

from sqlmodel import SQLModel

import jobs_service.models  # noqa: F401  fills the metadata
from triton_common.migrations import run_migrations

run_migrations(SQLModel.metadata)
