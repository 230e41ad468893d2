"""What is taken back reaches Redis, once it is there; after Redis was emptied, all of it does again."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from redis import Redis

from auth_service.main import build
from auth_service.sweeps import sweep
from triton_common.app import create_app
from triton_common.auth import TokenRevoked
from triton_common.db import transaction
from triton_common.revocations import INCARNATION, STREAM, Kind
from triton_common.settings import CommonSettings
from triton_common.testing import free_port

LOGIN = {"email": "ada@triton.local", "password": "a long enough password"}


@pytest.fixture
def redis(redis_url):
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def on_redis(make_settings, redis_url):
    """Makes an app whose revocations go to the test's Redis, unless another is given."""
    return partial(lambda **values: build(make_settings(**values)), redis_url=redis_url)


async def becomes(condition):
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110  it sets no Event
            await asyncio.sleep(0.02)


def published(redis):
    return [fields["target"] for _, fields in redis.xrange(STREAM)]


async def log_in_and_out(http):
    pair = (await http.post("/login", json=LOGIN)).json()
    await http.post("/logout", json={"refresh_token": pair["refresh_token"]})
    return pair["access_token"]


def ended(rows):
    return [str(row[0]) for row in rows("SELECT id FROM sessions WHERE ended_at IS NOT NULL ORDER BY ended_at")]


async def test_a_logout_reaches_every_service(on_redis, starting, redis, running, rows):
    redis_url = on_redis.keywords["redis_url"]
    app = on_redis()
    other = create_app(CommonSettings(redis_url=redis_url), name="other", version="1", description="")
    async with starting(app) as http, running(other):
        other.state.verifier = app.state.verifier.__class__(
            app.state.verifier._read_keys, issuer="triton", audience="triton"
        )
        token = (await http.post("/login", json=LOGIN)).json()
        assert await other.state.verifier.verify(token["access_token"])
        await http.post("/logout", json={"refresh_token": token["refresh_token"]})
        await becomes(lambda: other.state.verifier.known(token["access_token"]) is None)
        with pytest.raises(TokenRevoked):
            await other.state.verifier.verify(token["access_token"])
        assert published(redis) == ended(rows)
        assert 24 * 3600 - 10 < int(redis.xrange(STREAM)[0][1]["until"]) - int(redis.time()[0]) < 24 * 3600 + 10


async def test_an_emptied_redis_is_filled_again(on_redis, starting, redis, rows):
    async with starting(on_redis()) as http:
        for _ in range(3):
            await log_in_and_out(http)
        await becomes(lambda: len(published(redis)) == 3)
        await becomes(lambda: redis.get(INCARNATION))
        before = redis.get(INCARNATION)
        redis.flushall()
        await becomes(lambda: redis.get(INCARNATION))
        assert redis.get(INCARNATION) != before
        assert sorted(published(redis)) == sorted(ended(rows))


async def test_a_redis_that_lost_the_last_entries_gets_them_again(on_redis, starting, redis, rows):
    async with starting(on_redis()) as http:
        await log_in_and_out(http)
        await becomes(lambda: redis.get(INCARNATION) and len(published(redis)) == 1)
        await log_in_and_out(http)
        await becomes(lambda: len(published(redis)) == 2)
        before = redis.get(INCARNATION)
        redis.xdel(STREAM, redis.xrevrange(STREAM, count=1)[0][0])
        await becomes(lambda: redis.get(INCARNATION) != before)
        assert set(published(redis)) == set(ended(rows))


async def test_what_is_taken_back_without_redis_is_published_when_it_is_there(
    on_redis, starting, redis, redis_server, rows
):
    async with starting(on_redis()) as http:
        redis_server.stop()
        try:
            token = await log_in_and_out(http)
            refused = await http.get("/me", headers={"Authorization": f"Bearer {token}"})
            assert refused.json()["code"] == "token_revoked"  # here at once, whatever Redis does
        finally:
            redis_server.start()
        await becomes(lambda: published(redis) == ended(rows))
        await becomes(lambda: rows("SELECT count(*) FROM revocations WHERE published_at IS NULL") == [(0,)])


async def test_what_was_not_published_before_a_restart_is_after(on_redis, starting, redis, rows):
    async with starting(on_redis(redis_url=f"redis://127.0.0.1:{free_port()}/0")) as http:
        await log_in_and_out(http)
    async with starting(on_redis()):
        await becomes(lambda: published(redis) == ended(rows))


async def test_a_change_that_is_rolled_back_revokes_nothing(app, http, pair, bearer, rows):
    session_id = rows("SELECT id FROM sessions")[0][0]
    with suppress(RuntimeError):
        async with transaction(app.state.database) as session:
            app.state.revoker.revoke(session, Kind.SESSION, str(session_id))
            raise RuntimeError
    assert (await http.get("/me", headers=bearer)).status_code == 200
    assert rows("SELECT count(*) FROM revocations") == [(0,)]


async def test_many_are_published_in_batches(on_redis, starting, redis, rows, monkeypatch):
    monkeypatch.setattr("auth_service.revocations.BATCH", 4)
    app = on_redis()
    async with starting(app):
        async with transaction(app.state.database) as session:
            for number in range(10):
                app.state.revoker.revoke(session, Kind.SESSION, f"session-{number}")
        await becomes(lambda: set(published(redis)) == {f"session-{number}" for number in range(10)})


async def test_what_has_expired_is_forgotten(on_redis, starting, redis, rows):
    app = on_redis()
    async with starting(app) as http:
        await log_in_and_out(http)
        rows("UPDATE revocations SET expires_at = now() RETURNING id")
        state = app.state
        await sweep(state.database, state.keys, state.revoker, rotation=timedelta(days=90), lead=timedelta(minutes=10))
        assert rows("SELECT count(*) FROM revocations") == [(0,)]


async def test_a_fault_of_one_turn_does_not_end_the_publishing(on_redis, starting, redis, rows, monkeypatch):
    failed = []

    def fails_once(self):
        if not failed:
            failed.append(1)
            raise RuntimeError
        return {"kind": self.kind.value, "target": self.target, "until": self.until, "epoch": self.epoch}

    monkeypatch.setattr("triton_common.revocations.Revocation.fields", fails_once)
    async with starting(on_redis()) as http:
        await log_in_and_out(http)
        await becomes(lambda: published(redis) == ended(rows))
    assert failed
