"""Postgres: one request is one transaction, committed before the answer leaves; a plain pool for hot paths."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final, Self, TypeVar
from uuid import UUID

from fastapi import Depends, FastAPI, Request
from loguru import logger
from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy import DateTime, event, func, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as SqlalchemyTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar
from uuid_utils.compat import uuid7

from triton_common.errors import Conflict, Unavailable
from triton_common.pages import decode_id_cursor, encode_cursor
from triton_common.telemetry import begin_statement, end_statement, statement_span

NAMING_CONVENTION: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING_CONVENTION

POSTGRES: Final = "postgresql"  # as OpenTelemetry calls it
CONNECT_TIMEOUT: Final = 3  # seconds, as POOL_TIMEOUT: a request waits no longer than that for a dead Postgres
POOL_TIMEOUT: Final = 3.0
# A connection whose other end is gone without a word is given up after 10 s, and nobody waits for a lock or holds one
# idle for long: else everybody behind would wait too.
_CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "options": "-c lock_timeout=2s -c statement_timeout=60s -c idle_in_transaction_session_timeout=30s",
}
# The plain statements join a few rows to large tables by key. Of a table it has not analyzed yet, Postgres believes
# that reading it whole is cheaper, and keeps that plan.
_HOT: Final = f"{_CONNECTION['options']} -c enable_hashjoin=off -c enable_mergejoin=off"


class AlreadyExists(Conflict):
    """Something with this name or key exists already."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer; try again."""


def timestamp(*, default: bool = False, nullable: bool = False) -> Any:
    """A column of UTC-aware times; `default` fills it with the server's now()."""
    return Field(
        default=None,
        nullable=nullable,
        sa_type=DateTime(timezone=True),
        sa_column_kwargs={"server_default": func.now()} if default else {},
    )


class Table(SQLModel):
    """Base of tables: a UUIDv7 id, and when the row was made."""

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    created_at: datetime = timestamp(default=True)


Record = TypeVar("Record", bound=Table)


class _Cursor(AsyncCursor[DictRow]):
    """Each statement is a span."""

    async def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
        with statement_span(POSTGRES, query.decode() if isinstance(query, bytes) else str(query)):
            return await super().execute(query, *arguments, **options)


def _traced(engine: AsyncEngine) -> AsyncEngine:
    """The same for what sessions do."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def begin(_connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: Any) -> None:
        context.triton_span = begin_statement(POSTGRES, statement)

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def end(_connection: Any, _cursor: Any, _statement: str, _values: Any, context: Any, _many: Any) -> None:
        end_statement(context.triton_span)

    @event.listens_for(engine.sync_engine, "handle_error")
    def fail(failed: Any) -> None:
        end_statement(getattr(failed.execution_context, "triton_span", None), failed.original_exception)

    return engine


class Database:
    """A service's connections: `sessions` for everything ordinary, `pool` (autocommit, rows as dicts) for hot paths."""

    def __init__(self, engine: AsyncEngine, pool: AsyncConnectionPool[AsyncConnection[DictRow]]) -> None:
        self.engine = engine
        self.pool = pool
        self.sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, pool_size: int = 8) -> AsyncIterator[Self]:
        """Open both pools, at most `pool_size` connections each. Does not wait for Postgres: readiness tells."""
        engine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            pool_pre_ping=True,
            connect_args=_CONNECTION,
        )
        pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            min_size=1,
            max_size=pool_size,
            timeout=POOL_TIMEOUT,
            reconnect_timeout=30,
            open=False,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "cursor_factory": _Cursor,
                **_CONNECTION,
                "options": _HOT,
            },
        )
        await pool.open(wait=False)
        try:
            yield cls(_traced(engine), pool)
        finally:
            await pool.close()
            await engine.dispose()


def sqlalchemy_url(url: str) -> str:
    """`postgresql://…`, as everyone names it, for SQLAlchemy's psycopg driver."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise ValueError("DATABASE_URL must begin with postgresql://")
    return f"postgresql+psycopg://{rest}"


@asynccontextmanager
async def transaction(database: Database) -> AsyncIterator[AsyncSession]:
    """One transaction: commit at the end, then what `after_commit` collected; roll back on an error.

    Raises AlreadyExists for a unique violation, DatabaseUnavailable when Postgres is not there.
    """
    async with translated_errors(), database.sessions() as session:
        yield session
        await session.commit()
    for callback in session.info.pop("after_commit", []):
        try:
            callback()
        except Exception as error:  # noqa: BLE001  the row is committed: a sweep makes up for a lost message
            logger.opt(exception=error).warning("after-commit callback failed")


def after_commit(session: AsyncSession, callback: Callable[[], None]) -> None:
    """Call back once the session's transaction is committed; never, if it is rolled back. Must not use the session."""
    session.info.setdefault("after_commit", []).append(callback)


@asynccontextmanager
async def translated_errors() -> AsyncIterator[None]:
    """Turns the driver's errors into ours: races are decided by the database, not by check-then-insert."""
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise AlreadyExists from error
        raise
    except UniqueViolation as error:
        raise AlreadyExists from error
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(error.orig, OperationalError):
            raise DatabaseUnavailable(retry_after=1) from error
        raise
    except (OperationalError, PoolTimeout, SqlalchemyTimeoutError) as error:
        raise DatabaseUnavailable(retry_after=1) from error


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.app.state.database
    async with transaction(database) as session:
        yield session


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


DatabaseDep = Annotated[Database, Depends(_database)]
"""The service's database, for rules that make transactions of their own."""

SessionDep = Annotated[AsyncSession, Depends(_session, scope="function")]
"""The request's transaction. Its scope is the function: with FastAPI's default it would commit after the answer."""


async def postgres(app: FastAPI) -> None:
    """Readiness: a connection answers."""
    database: Database = app.state.database
    async with asyncio.timeout(POOL_TIMEOUT), database.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def newest(
    session: AsyncSession, table: type[Record], *conditions: Any, limit: int, cursor: str | None
) -> tuple[list[Record], str | None]:
    """(a page of the rows that meet all conditions, newest first; the next page's cursor). Raises InvalidCursor.

    Ids are UUIDv7, so their order is the order of creation, and the last one seen is the cursor.
    """
    query: SelectOfScalar[Record] = select(table).where(*conditions)
    if cursor is not None:
        query = query.where(col(table.id) < decode_id_cursor(cursor))
    # one more than asked for tells whether there is a next page
    found = list((await session.exec(query.order_by(col(table.id).desc()).limit(limit + 1))).all())
    page = found[:limit]
    return page, encode_cursor(str(page[-1].id)) if len(found) > limit else None
