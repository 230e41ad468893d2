"""What every service's `migrations/env.py` calls: alembic under an advisory lock, with time limits, by DATABASE_URL.

`python -m triton_common.migrations status|migrate` in a service's folder tells which of them its database has.
"""

import json
import os
import sys
import time
from typing import Any, Final

from alembic import command, context
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import MetaData, create_engine, pool, text
from sqlalchemy.exc import ArgumentError, DBAPIError

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


def standing(url: str, config: Config) -> dict[str, Any]:
    """The migrations of this checkout that the database has, those that it lacks, and its revision if none of them."""
    known = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    engine = create_engine(sqlalchemy_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    has = known.index(current) + 1 if current in known else 0
    return {
        "applied": known[:has],
        "pending": known[has:] if current is None or has else [],
        "unknown": None if has else current,
    }


def _main(arguments: list[str]) -> None:
    """What `triton db` calls, in a service's folder."""
    if arguments not in (["status"], ["migrate"]):
        raise SystemExit("usage: python -m triton_common.migrations status|migrate")
    url = os.environ.get("DATABASE_URL", "")
    config = Config(toml_file="pyproject.toml", stdout=sys.stderr)
    try:
        if arguments == ["migrate"]:
            command.upgrade(config, "head")
        sys.stdout.write(json.dumps(standing(url, config)) + "\n")
    except DBAPIError as error:
        if error.statement:
            raise SystemExit(f"A migration failed: {str(error.orig).partition(chr(10))[0]}") from None
        # the driver's text tells host and user
        raise SystemExit("Postgres does not answer, knows no such database, or refuses the user.") from None
    except (ValueError, ArgumentError):
        raise SystemExit("Its URL is none of Postgres: postgresql://user:password@host:5432/name") from None
    except CommandError:
        raise SystemExit("It is at a revision that this release does not know: a newer one has migrated it.") from None


if __name__ == "__main__":
    _main(sys.argv[1:])
