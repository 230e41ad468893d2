"""What every service's `migrations/env.py` calls: alembic under an advisory lock, with time limits, by DATABASE_URL."""

import os
import time
from typing import Final

from alembic import context
from sqlalchemy import MetaData, create_engine, pool, text

from triton_common.db import sqlalchemy_url

LOCK: Final = 0x747269746F6E  # "triton": one migration at a time in a database
ASK_AGAIN: Final = 0.2  # seconds
LOCK_TIMEOUT: Final = "5s"  # a statement that waits longer than this for a table blocks everybody behind it
STATEMENT_TIMEOUT: Final = "5min"


def run_migrations(metadata: MetaData) -> None:
    """Bring the database of DATABASE_URL to the revision alembic was asked for."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit("Set DATABASE_URL to the database to migrate: postgresql://user:password@host:5432/name")
    engine = create_engine(sqlalchemy_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        # asked again and again: who waits inside a statement is waited for by a CREATE INDEX CONCURRENTLY of the first
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
            connection.rollback()
            time.sleep(ASK_AGAIN)
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.commit()
        context.configure(
            connection=connection, target_metadata=metadata, compare_type=True, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()
