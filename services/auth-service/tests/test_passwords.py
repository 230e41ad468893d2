"""The pool that hashes passwords."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from auth_service.main import build
from auth_service.passwords import PasswordHashingBusy, Passwords
from auth_service.settings import Settings


@pytest.fixture
def passwords():
    pool = Passwords(memory_kib=8, passes=1, threads=1, queue=1)
    yield pool
    pool.close()


async def test_a_hash_is_argon2id_with_the_parameters_of_owasp():
    settings = Settings()
    pool = Passwords(memory_kib=settings.argon2_memory_kib, passes=settings.argon2_passes, threads=1, queue=0)
    try:
        made = await pool.hash("a long enough password")
    finally:
        pool.close()
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_verify(passwords):
    made = await passwords.hash("a long enough password")
    assert await passwords.verify("a long enough password", password_hash=made)
    assert not await passwords.verify("another password", password_hash=made)
    assert not await passwords.verify("a long enough password", password_hash=None)
    assert not await passwords.verify("a long enough password", password_hash="no hash at all")


async def test_hashes_of_today_are_not_outdated(passwords):
    assert not passwords.is_outdated(await passwords.hash("a long enough password"))


async def test_an_over_long_password_is_not_hashed(passwords, monkeypatch):
    monkeypatch.setattr(passwords, "_run", None)
    assert not await passwords.verify("x" * 129, password_hash=None)


async def test_beyond_its_places_the_pool_refuses_and_recovers(passwords):
    go_on = threading.Event()
    waiting = [asyncio.ensure_future(passwords._run(go_on.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(PasswordHashingBusy) as refused:
        await passwords.hash("a long enough password")
    assert refused.value.retry_after == 1
    waiting[0].cancel()  # its thread still works: the place is not free yet
    await asyncio.sleep(0)
    with pytest.raises(PasswordHashingBusy):
        await passwords.hash("a long enough password")
    go_on.set()
    await waiting[1]
    assert await passwords.hash("a long enough password")


async def test_when_the_pool_is_full_the_routes_that_hash_answer_503(app, http, bearer):
    go_on = threading.Event()
    pool = app.state.passwords
    places = [asyncio.ensure_future(pool._run(go_on.wait)) for _ in range(34)]
    await asyncio.sleep(0)
    try:
        answers = [
            await http.post("/login", json={"email": "ada@triton.local", "password": "a long enough password"}),
            await http.post("/token", data={"grant_type": "client_credentials"}, auth=("agent-runner", "secret")),
            await http.post(
                "/users",
                json={"email": "eve@triton.local", "password": "a long enough password", "role": "viewer"},
                headers=bearer,
            ),
        ]
        for answer in answers:
            assert answer.status_code == 503
            assert answer.json()["code"] == "password_hashing_busy"
            assert answer.headers["Retry-After"] == "1"
        assert (await http.get("/me", headers=bearer)).status_code == 200
    finally:
        go_on.set()
        await asyncio.gather(*places)


async def test_logins_stall_nobody_else(make_settings, starting):
    """Eight logins of 18 ms each wait for two threads; the key set is answered between them."""
    async with starting(build(make_settings(argon2_memory_kib=19_456, argon2_passes=2))) as http:
        body = {"email": "ada@triton.local", "password": "not the password"}
        logins = [asyncio.ensure_future(http.post("/login", json=body)) for _ in range(8)]
        await asyncio.sleep(0.005)
        assert (await http.get("/.well-known/jwks.json")).status_code == 200
        assert sum(login.done() for login in logins) < 8
        assert {login.status_code for login in await asyncio.gather(*logins)} == {401}


def priorities():
    return [os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in Path("/proc/self/task").iterdir()]


async def test_hashes_give_way_to_requests(passwords):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    await passwords.hash("a long enough password")
    assert max(priorities()) > own
