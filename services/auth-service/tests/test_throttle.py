"""Guessing is slowed down, by account and by address; nobody is locked out by others."""

import asyncio
from datetime import timedelta

import pytest
from redis import Redis

from auth_service.main import build
from auth_service.throttle import Memory, Throttle, TooManyAttempts, _network
from triton_common.errors import Unauthorized
from triton_common.revocations import redis_client
from triton_common.testing import free_port

EMAIL = "ada@triton.local"
PASSWORD = "a long enough password"
WINDOW = timedelta(minutes=15)


class Wrong(Unauthorized):
    """It was wrong."""


@pytest.fixture(params=["redis", "memory", "no redis"])
async def throttle(request, redis_url):
    """The rule as each process keeps it for itself, as Redis keeps it for all, and with a Redis that is not there."""
    url = {"redis": redis_url, "no redis": f"redis://127.0.0.1:{free_port()}/0"}.get(request.param)
    redis = redis_client(url) if url else None
    made = Throttle(redis, free_of_account=3, free_of_address=6, window=WINDOW)
    if request.param == "redis":  # what Redis says alone
        made._memory.admit = lambda _: 0.0
    yield made
    if redis:
        await redis.aclose()


@pytest.fixture
def passes(request, monkeypatch, throttle, redis_url):
    """Lets time pass, for Redis by moving the moments it has noted."""

    def run(seconds):
        with Redis.from_url(redis_url, decode_responses=True) as redis:
            for key in redis.scan_iter("triton:login:slot:*"):
                redis.set(key, float(redis.get(key)) - seconds, keepttl=True)
        values = throttle._memory._values
        for key, (end, value) in values.items():
            if ":slot:" in key:
                values[key] = (end, value - seconds)

    return run


async def wrong(throttle, account="ada", address="192.0.2.1"):
    """The seconds to wait for an attempt that would be wrong; 0 when it was admitted."""
    try:
        async with throttle.attempt(account, address=address):
            raise Wrong  # noqa: TRY301  as a login does
    except TooManyAttempts as refused:
        return refused.retry_after
    except Wrong:
        return 0


async def test_the_wait_doubles_with_each_wrong_attempt(throttle, passes):
    assert [await wrong(throttle) for _ in range(3)] == [0, 0, 0]
    for pause in (1, 2, 4, 8):
        assert await wrong(throttle) == pause
        assert await wrong(throttle) == pause  # being refused costs nothing
        passes(pause)
        assert await wrong(throttle) == 0


async def test_the_wait_does_not_grow_for_ever(throttle, passes):
    longest = 0
    for _ in range(14):
        pause = await wrong(throttle, address="198.51.100.7")
        longest = max(longest, pause)
        passes(pause)
        await wrong(throttle, address="198.51.100.7")
    assert longest <= 300


async def test_who_is_told_when_to_come_is_let_in_then_whatever_others_do(throttle, passes):
    for _ in range(4):
        await wrong(throttle, address="192.0.2.66")
    pause = await wrong(throttle, address="198.51.100.7")  # the owner, elsewhere
    assert pause == 1
    for number in range(20):
        await wrong(throttle, address=f"192.0.2.{100 + number}")
    passes(pause)
    for number in range(5):
        await wrong(throttle, address=f"192.0.2.{100 + number}")
    async with throttle.attempt("ada", address="198.51.100.7"):
        pass


async def test_a_success_begins_the_account_anew(throttle):
    for _ in range(2):
        assert [await wrong(throttle), await wrong(throttle)] == [0, 0]
        async with throttle.attempt("ada", address="192.0.2.1"):
            pass
    assert await wrong(throttle, address="192.0.2.2") == 0


async def test_what_is_right_does_not_hide_what_is_wrong_from_the_same_address(throttle):
    for _ in range(2):
        assert [await wrong(throttle, account="bob"), await wrong(throttle, account="eve")] == [0, 0]
        async with throttle.attempt("ada", address="192.0.2.1"):
            pass
        for account in ("bob", "eve"):
            async with throttle.attempt(account, address="192.0.2.3"):
                pass
    assert [await wrong(throttle, account=account) for account in ("bob", "eve", "carol")] == [0, 0, 1]


async def test_an_address_that_tries_many_accounts_waits(throttle):
    assert [await wrong(throttle, account=str(number)) for number in range(7)] == [0] * 6 + [1]
    assert await wrong(throttle, account="7", address="192.0.2.2") == 0
    assert await wrong(throttle, account="8", address="2001:db8:1:2:3:4:5:6") == 0


async def test_attempts_at_once_do_not_slip_through(throttle):
    waits = await asyncio.gather(*(wrong(throttle) for _ in range(12)))
    assert sorted(waits) == [0] * 3 + [1] * 9


async def test_what_is_begun_counts_until_it_is_finished(throttle):
    async def begin():
        async with throttle.beginning(address="192.0.2.1"):
            pass

    for _ in range(8):
        await begin()
        await throttle.finished(address="192.0.2.1")
    for _ in range(6):
        await begin()
    with pytest.raises(TooManyAttempts) as refused:
        await begin()
    assert refused.value.retry_after == 1
    assert await wrong(throttle) == 0, "logins by password have a count of their own"
    async with throttle.beginning(address="192.0.2.9"):
        pass


async def test_an_attempt_that_nobody_judged_does_not_count(throttle):
    for _ in range(8):
        with pytest.raises(RuntimeError):
            async with throttle.attempt("ada", address="192.0.2.1"):
                raise RuntimeError
    assert await wrong(throttle) == 0


async def test_an_emptied_redis_gives_no_free_attempts(redis_url):
    redis = redis_client(redis_url)
    throttle = Throttle(redis, free_of_account=3, free_of_address=50, window=WINDOW)
    for _ in range(3):
        await wrong(throttle)
    await redis.flushall()
    assert await wrong(throttle) == 1
    await redis.aclose()


async def test_what_one_of_both_refuses_the_other_does_not_count(redis_url):
    redis = redis_client(redis_url)
    one, other = (Throttle(redis, free_of_account=3, free_of_address=50, window=WINDOW) for _ in range(2))
    for _ in range(3):
        await wrong(one)
    gates = other._gates("ada", "192.0.2.1")
    assert await wrong(other) == 1
    assert other._memory._value(gates[0].count, 0) == 0
    await redis.flushall()
    assert await wrong(one) == 1
    assert await redis.get(gates[0].count) == "0"
    await redis.aclose()


async def test_another_process_knows_what_redis_knows(redis_url):
    redis = redis_client(redis_url)
    one, other = (Throttle(redis, free_of_account=3, free_of_address=50, window=WINDOW) for _ in range(2))
    assert [await wrong(one if number % 2 else other) for number in range(4)] == [0, 0, 0, 1]
    await redis.aclose()


async def test_a_redis_that_is_away_is_asked_once_in_a_while(redis_url, monkeypatch):
    redis = redis_client(f"redis://127.0.0.1:{free_port()}/0")
    throttle = Throttle(redis, free_of_account=3, free_of_address=50, window=WINDOW)
    asked = []
    ask = redis.eval
    monkeypatch.setattr(redis, "eval", lambda *values: asked.append(1) or ask(*values))
    for _ in range(4):
        await wrong(throttle)
    assert len(asked) == 1
    throttle._ask_from = 0
    await wrong(throttle)
    assert len(asked) == 2
    await redis.aclose()


async def test_redis_holds_no_address_of_a_person(redis_url):
    redis = redis_client(redis_url)
    throttle = Throttle(redis, free_of_account=1, free_of_address=50, window=WINDOW)
    await wrong(throttle, account=EMAIL)
    keys = await redis.keys("*")
    assert len(keys) == 3
    assert EMAIL not in " ".join(keys)
    assert all([0 < await redis.ttl(key) <= WINDOW.total_seconds() for key in keys])
    await redis.aclose()


def test_a_process_remembers_a_bounded_number(monkeypatch):
    monkeypatch.setattr("auth_service.throttle.REMEMBERED", 4)
    memory = Memory(900)
    throttle = Throttle(None, free_of_account=3, free_of_address=50, window=WINDOW)
    for number in range(20):
        memory.admit(throttle._gates(str(number), "192.0.2.1"))
    assert len(memory._values) == 4


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", "unknown"),
        ("x' OR 1=1", "unknown"),
    ],
)
def test_an_address_counts_as_its_network(address, network):
    assert _network(address) == network


async def test_the_eleventh_wrong_login_is_told_to_wait_and_the_right_one_is_let_in_after(make_settings, starting):
    async with starting(build(make_settings())) as http:
        body = {"email": EMAIL, "password": "not the password"}
        assert {(await http.post("/login", json=body)).status_code for _ in range(10)} == {401}
        refused = await http.post("/login", json=body | {"password": PASSWORD})
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_attempts"
        await asyncio.sleep(int(refused.headers["Retry-After"]))  # as a client does
        assert (await http.post("/login", json=body | {"password": PASSWORD})).status_code == 200


async def test_an_unknown_account_is_throttled_like_a_known_one(http):
    answers = {}
    for email in (EMAIL, "nobody@triton.local"):
        for _ in range(11):
            answers[email] = await http.post("/login", json={"email": email, "password": "not the password"})
    known, unknown = answers.values()
    assert known.status_code == unknown.status_code == 429
    assert known.headers["Retry-After"] == unknown.headers["Retry-After"]
    assert known.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}


async def test_a_service_accounts_secret_is_not_guessed_faster(http):
    form = {"grant_type": "client_credentials", "client_id": "agent-runner", "client_secret": "wrong"}
    codes = [(await http.post("/token", data=form)).status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
