"""What auth-service takes back is refused here within seconds, and Redis may come, go and be emptied."""

import asyncio
import time

import pytest
from redis import Redis
from uuid_utils.compat import uuid7

from triton_common.app import create_app
from triton_common.auth import Principal, TokenRevoked
from triton_common.revocations import INCARNATION, STREAM, Kind, Revocation, RevocationFeed, Revoked
from triton_common.settings import CommonSettings
from triton_common.testing import access_token, free_port
from triton_common.testing import test_verifier as make_verifier

LATER = int(time.time()) + 3600


def entry(kind, target="", *, epoch=0, until=LATER):
    return Revocation(kind, target, until=until, epoch=epoch)


@pytest.fixture
def redis(redis_url):
    with Redis.from_url(redis_url, decode_responses=True) as client:
        client.set(INCARNATION, "first")
        yield client


async def becomes(condition):
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110  it sets no Event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("revocation", "refused", "good"),
    [
        (entry(Kind.SESSION, "s-1"), {"sid": "s-1"}, {"sid": "s-2"}),
        (entry(Kind.TOKEN, "t-1"), {"jti": "t-1"}, {"jti": "t-2"}),
        (entry(Kind.SUBJECT, "ada", epoch=3), {"sub": "ada", "epoch": 2}, {"sub": "ada", "epoch": 3}),
        (entry(Kind.SUBJECT, "ada", epoch=1), {"sub": "ada"}, {"sub": "eve"}),
    ],
)
async def test_a_revocation_refuses_what_it_is_about_remembered_or_not(revocation, refused, good):
    verifier = make_verifier()
    seen, unseen, other = access_token(refused), access_token(refused), access_token(good)
    await verifier.verify(seen)
    await verifier.verify(other)
    verifier.revoke([revocation])
    assert verifier.known(seen) is None
    for token in (seen, unseen):
        with pytest.raises(TokenRevoked):
            await verifier.verify(token)
    assert verifier.known(other)


async def test_other_keys_let_every_token_be_verified_again():
    verifier = make_verifier()
    token = access_token()
    await verifier.verify(token)
    verifier.revoke([entry(Kind.KEYS)])
    assert verifier.known(token) is None
    await verifier.verify(token)


async def test_a_service_reads_revocations_from_the_start_on_and_each_second(redis, redis_url, running):
    before, after = access_token({"sid": "before"}), access_token({"sid": "after"})
    redis.xadd(STREAM, entry(Kind.SESSION, "before").fields())
    app = create_app(CommonSettings(redis_url=redis_url), name="test", version="1", description="")
    async with running(app) as http:
        with pytest.raises(TokenRevoked):
            await app.state.verifier.verify(before)
        await app.state.verifier.verify(after)
        redis.xadd(STREAM, entry(Kind.SESSION, "after").fields())
        await becomes(lambda: app.state.verifier.known(after) is None)
        assert (await http.get("/health/ready")).json()["dependencies"]["revocations"]["status"] == "ok"


async def test_without_redis_tokens_are_verified_and_readiness_is_degraded(running):
    app = create_app(
        CommonSettings(redis_url=f"redis://127.0.0.1:{free_port()}/0"), name="test", version="1", description=""
    )
    async with running(app) as http:
        assert await app.state.verifier.verify(access_token())
        answer = await http.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == answer.json()["dependencies"]["revocations"]["status"] == "degraded"


class Seen:
    """Remembers what it is told."""

    def __init__(self):
        self.targets = []

    def __call__(self, revocations):
        self.targets += [revocation.target for revocation in revocations]


async def test_a_redis_that_comes_back_is_read_on(redis, redis_url, redis_server):
    seen = Seen()
    feed = RevocationFeed(redis_url, seen)
    async with feed.following():
        redis.xadd(STREAM, entry(Kind.SESSION, "one").fields())
        await becomes(lambda: seen.targets == ["one"])
        redis_server.stop()
        try:
            await becomes(lambda: not feed.alive)
        finally:
            redis_server.start()
        redis.flushall()
        redis.xadd(STREAM, entry(Kind.SESSION, "two").fields())
        await becomes(lambda: "two" in seen.targets)
        assert not feed.alive  # nobody has said yet that these are all
        redis.set(INCARNATION, "second")
        await becomes(lambda: feed.alive)
    assert seen.targets.count("two") == 2  # another incarnation is read from its beginning


async def test_an_emptied_stream_whose_clock_is_behind_is_read_all_the_same(redis, redis_url):
    seen = Seen()
    async with RevocationFeed(redis_url, seen).following():
        redis.xadd(STREAM, entry(Kind.SESSION, "one").fields())
        await becomes(lambda: seen.targets == ["one"])
        redis.flushall()
        redis.xadd(STREAM, entry(Kind.SESSION, "two").fields(), id="1-1")
        redis.set(INCARNATION, "second")
        await becomes(lambda: "two" in seen.targets)


async def test_an_entry_that_is_none_is_passed_over(redis, redis_url, capsys):
    seen = Seen()
    redis.xadd(STREAM, {"kind": "planet", "target": "x", "until": 1, "epoch": 0})
    redis.xadd(STREAM, {"x": "y"})
    redis.xadd(STREAM, entry(Kind.SESSION, "one").fields())
    async with RevocationFeed(redis_url, seen).following():
        assert seen.targets == ["one"]


async def test_a_fault_in_what_is_told_does_not_end_the_reading(redis, redis_url):
    told = []

    def fails_once(revocations):
        told.append(len(revocations))
        if len(told) == 1:
            raise RuntimeError

    redis.xadd(STREAM, entry(Kind.SESSION, "one").fields())
    feed = RevocationFeed(redis_url, fails_once)
    async with feed.following():
        assert not feed.alive
        await becomes(lambda: feed.alive)
    assert told == [1, 1]


async def test_more_than_a_batch_is_read_in_one_turn(redis, redis_url, monkeypatch):
    monkeypatch.setattr("triton_common.revocations.BATCH", 3)
    for number in range(8):
        redis.xadd(STREAM, entry(Kind.SESSION, str(number)).fields())
    seen = Seen()
    async with RevocationFeed(redis_url, seen).following():
        assert seen.targets == [str(number) for number in range(8)]


def test_what_has_expired_is_forgotten_and_the_later_epoch_counts():
    revoked = Revoked()
    assert not revoked.covers(subject="ada", epoch=0, session_id=None, token_id="t")
    revoked.add(entry(Kind.SUBJECT, "ada", epoch=5))
    revoked.add(entry(Kind.SUBJECT, "ada", epoch=4))
    revoked.add(entry(Kind.SESSION, "old", until=int(time.time()) - 1))
    revoked.forget_expired()
    assert revoked.covers(subject="ada", epoch=4, session_id=None, token_id="t")
    assert not revoked.covers(subject="eve", epoch=0, session_id="old", token_id="t")


async def test_a_remembered_token_costs_no_look_at_what_is_revoked():
    verifier = make_verifier()
    token = access_token()
    principal = await verifier.verify(token)
    verifier.revoke([entry(Kind.SESSION, str(uuid7())) for _ in range(1000)])
    assert verifier.known(token) is principal


def test_a_principal_of_before_epochs_counts_as_the_first():
    principal = Principal(subject="ada", role="viewer", scopes=frozenset(), token_id="t", expires_at=LATER, token="x")
    revoked = Revoked()
    revoked.add(entry(Kind.SUBJECT, "ada", epoch=1))
    assert principal.is_covered_by(revoked)
