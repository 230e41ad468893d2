"""Transactions against a real Postgres."""

import asyncio

import psycopg
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import UniqueConstraint
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel, select

from triton_common.app import create_app
from triton_common.db import (
    AlreadyExists,
    Database,
    DatabaseUnavailable,
    SessionDep,
    Table,
    after_commit,
    postgres,
    sqlalchemy_url,
    transaction,
    translated_errors,
)
from triton_common.pages import InvalidCursor, decode_cursor, encode_cursor
from triton_common.settings import CommonSettings
from triton_common.testing import free_port


class Gadget(Table, table=True):
    """A table."""

    __tablename__ = "gadgets"
    __table_args__ = (UniqueConstraint("name"),)

    name: str


@pytest.fixture(scope="module")
def url(postgres_server):
    """An empty database; the library has no migrations."""
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE gadgets")
    return postgres_server.url("gadgets")


@pytest_asyncio.fixture
async def database(url):
    """The database with an empty gadgets table."""
    async with Database.connect(url) as connected:
        async with connected.engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.drop_all)
            await connection.run_sync(SQLModel.metadata.create_all)
        yield connected


async def names(database):
    async with database.sessions() as session:
        return sorted((await session.exec(select(Gadget.name))).all())


async def test_commit_then_callbacks_in_order(database):
    said = []
    async with transaction(database) as session:
        session.add(Gadget(name="a"))
        after_commit(session, lambda: said.append("first"))
        after_commit(session, lambda: 1 / 0)
        after_commit(session, lambda: said.append("second"))
        assert said == []
    assert said == ["first", "second"]
    assert await names(database) == ["a"]


async def test_error_rolls_back_and_calls_nobody(database):
    said = []

    async def fail_halfway():
        async with transaction(database) as session:
            session.add(Gadget(name="a"))
            after_commit(session, lambda: said.append("called"))
            await session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_halfway()
    assert (said, await names(database)) == ([], [])


async def test_races_are_decided_by_the_database(database):
    async def add():
        async with transaction(database) as session:
            session.add(Gadget(name="same"))

    results = await asyncio.gather(*(add() for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, AlreadyExists) for result in results) == 7
    assert await names(database) == ["same"]


async def test_row_has_a_time_ordered_id_and_an_aware_time(database):
    async with transaction(database) as session:
        gadget = Gadget(name="a")
        session.add(gadget)
    assert gadget.id.version == 7
    async with database.sessions() as session:
        stored = (await session.exec(select(Gadget))).one()
    assert stored.created_at.utcoffset().total_seconds() == 0


async def test_unique_violation_of_a_plain_connection_is_a_conflict(database):
    async with database.pool.connection() as connection:
        await connection.execute("INSERT INTO gadgets (id, name) VALUES (uuidv7(), 'x')")
        with pytest.raises(AlreadyExists):
            async with translated_errors():
                await connection.execute("INSERT INTO gadgets (id, name) VALUES (uuidv7(), 'x')")
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with translated_errors():
                await connection.execute("SELECT 1 FROM nowhere")


async def test_other_broken_constraints_are_not_conflicts(database):
    with pytest.raises(Exception, match="not-null"):
        async with transaction(database) as session:
            session.add(Gadget(name=None))


async def test_failed_commit_is_no_success_answer(database, running):
    app = create_app(CommonSettings(), name="gadget-service", version="1", description="Gadgets.")
    app.state.database = database

    @app.post("/gadgets", status_code=202)
    async def create(session: SessionDep) -> dict[str, str]:
        session.add(Gadget(name="twice"))
        return {"status": "accepted"}

    async with running(app) as http:
        assert (await http.post("/gadgets")).status_code == 202
        second = await http.post("/gadgets")
    assert (second.status_code, second.json()["code"]) == (409, "already_exists")


async def test_dead_postgres_is_unavailable_and_does_not_stop_a_start():
    app = FastAPI()
    dead = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none"
    async with Database.connect(dead) as app.state.database:
        with pytest.raises(DatabaseUnavailable) as caught:
            async with transaction(app.state.database) as session:
                await session.exec(select(Gadget))
        assert "secret" not in caught.value.message
        with pytest.raises(OperationalError):
            await postgres(app)
        with pytest.raises(DatabaseUnavailable):
            async with translated_errors(), app.state.database.pool.connection(timeout=0.2):
                pass


async def test_postgres_restarted_is_found_again(database, postgres_server, url):
    app = FastAPI()
    app.state.database = database
    await postgres(app)
    postgres_server.stop()
    postgres_server.start()
    await postgres(app)
    async with transaction(database) as session:
        session.add(Gadget(name="after"))
    assert await names(database) == ["after"]


def test_cursor_comes_back_as_it_went():
    assert decode_cursor(encode_cursor("2026-01-01T00:00:00Z", "x"), length=2) == ["2026-01-01T00:00:00Z", "x"]


@pytest.mark.parametrize(
    "cursor", ["", "é", "AAAA", "bm9uc2Vuc2U", "e30", encode_cursor("a"), "W1tdXQ", "WzIsImEiLCJiIl0"]
)
def test_made_up_cursor_is_refused(cursor):
    with pytest.raises(InvalidCursor):
        decode_cursor(cursor, length=2)


def test_url_of_another_database_is_refused():
    with pytest.raises(ValueError, match="postgresql://"):
        sqlalchemy_url("mysql://localhost")
    assert sqlalchemy_url("postgres://h/d") == "postgresql+psycopg://h/d"
