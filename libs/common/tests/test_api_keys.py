"""API keys as bearer tokens in a service that is not auth-service."""

import asyncio
import time

import pytest
from fastapi import FastAPI, Header, Response

from triton_common.api_keys import ApiKeys, remote_principal
from triton_common.auth import ApiKeyInvalid, KeysUnavailable, Principal, TokenVerifier
from triton_common.revocations import Kind, Revocation
from triton_common.testing import free_port

KEY = "trk_" + "k" * 43
OTHER = "trk_" + "o" * 43


def principal(key, **changes):
    told = {"subject": "ada", "kind": "api_key", "role": "viewer", "scopes": ["jobs:read"], "token_id": "key-1"}
    return Principal.model_validate(told | {"expires_at": int(time.time()) + 600, "token": key, "epoch": 1} | changes)


class Asked:
    """Answers for a key; counts how often it is asked."""

    def __init__(self, answer):
        self.answer = answer
        self.times = 0
        self.begun = asyncio.Event()

    async def __call__(self, _):
        self.times += 1
        self.begun.set()
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def verifying():
    def make(answer, *, live=True):
        asked = Asked(answer)

        async def no_keys():
            raise KeysUnavailable

        known = ApiKeys(asked, revocations_are_read=lambda: live)
        return TokenVerifier(no_keys, issuer="triton", audience="triton", api_keys=known), asked

    return make


async def test_a_key_is_asked_for_once_and_kept(verifying):
    verifier, asked = verifying(principal(KEY))
    found = await asyncio.gather(*(verifier.verify(KEY) for _ in range(5)))
    assert {one.subject for one in found} == {"ada"}
    assert await verifier.verify(KEY) is found[0]
    assert asked.times == 1


@pytest.mark.parametrize(("live", "seconds"), [(True, 60), (False, 4)])
async def test_it_is_kept_longer_while_revocations_are_read(verifying, monkeypatch, live, seconds):
    verifier, asked = verifying(principal(KEY), live=live)
    await verifier.verify(KEY)
    start = time.monotonic()
    monkeypatch.setattr("triton_common.api_keys.time.monotonic", lambda: start + seconds - 1)
    await verifier.verify(KEY)
    assert asked.times == 1
    monkeypatch.setattr("triton_common.api_keys.time.monotonic", lambda: start + seconds + 1)
    await verifier.verify(KEY)
    assert asked.times == 2


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation(Kind.TOKEN, "key-1", until=int(time.time()) + 60),
        Revocation(Kind.SUBJECT, "ada", until=int(time.time()) + 60, epoch=2),
    ],
)
async def test_a_revoked_key_is_asked_for_again(verifying, revocation):
    verifier, asked = verifying(principal(KEY))
    await verifier.verify(KEY)
    asked.answer = ApiKeyInvalid()
    verifier.revoke([revocation])
    with pytest.raises(ApiKeyInvalid):
        await verifier.verify(KEY)


async def test_an_answer_from_before_a_revocation_is_not_kept(verifying):
    verifier, asked = verifying(principal(KEY))
    under_way = asyncio.create_task(verifier.verify(KEY))
    await asked.begun.wait()
    verifier.revoke([Revocation(Kind.TOKEN, "key-1", until=int(time.time()) + 60)])
    await under_way
    asked.answer = ApiKeyInvalid()
    with pytest.raises(ApiKeyInvalid):
        await verifier.verify(KEY)


async def test_a_bad_key_is_remembered_for_a_moment_and_a_silent_auth_service_is_not(verifying):
    verifier, asked = verifying(ApiKeyInvalid())
    for _ in range(3):
        with pytest.raises(ApiKeyInvalid):
            await verifier.verify(KEY)
    assert asked.times == 1
    verifier, asked = verifying(KeysUnavailable())
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await verifier.verify(KEY)
    assert asked.times == 3
    asked.answer = principal(KEY)
    assert await verifier.verify(KEY)


@pytest.mark.parametrize("key", ["trk_", "trk_short", "trk_" + "ü" * 43, "trk_" + "x" * 5000])
async def test_what_is_no_key_by_its_form_is_not_asked_for(verifying, key):
    verifier, asked = verifying(principal(KEY))
    with pytest.raises(ApiKeyInvalid):
        await verifier.verify(key)
    assert asked.times == 0


async def test_a_key_that_expires_while_it_is_kept_is_refused(verifying, monkeypatch):
    verifier, _ = verifying(principal(KEY, expires_at=int(time.time()) + 30))
    await verifier.verify(KEY)
    later = time.time() + 31
    monkeypatch.setattr("triton_common.api_keys.time.time", lambda: later)
    with pytest.raises(ApiKeyInvalid):
        await verifier.verify(KEY)


async def test_the_memory_of_keys_is_bounded(verifying, monkeypatch):
    monkeypatch.setattr("triton_common.api_keys.CACHED_KEYS", 1)
    verifier, asked = verifying(principal(KEY))
    for key in (KEY, OTHER, KEY):
        await verifier.verify(key)
    assert asked.times == 3


async def test_auth_service_tells_whose_a_key_is(serving):
    app = FastAPI()

    @app.get("/internal/v1/principal")
    async def tell(response: Response, authorization: str = Header()):
        if authorization == f"Bearer {KEY}":
            return principal(KEY).model_dump(mode="json")
        response.status_code = 401 if authorization == f"Bearer {OTHER}" else 500
        return {"nonsense": True}

    app.state.verifier = None
    with serving(app) as url:
        ask = remote_principal(url)
        told = await ask(KEY)
        assert (told.subject, told.kind, told.token, told.scopes) == ("ada", "api_key", KEY, {"jobs:read"})
        with pytest.raises(ApiKeyInvalid):
            await ask(OTHER)
        with pytest.raises(KeysUnavailable):
            await ask("trk_" + "x" * 43)
    with pytest.raises(KeysUnavailable):
        await remote_principal(f"http://127.0.0.1:{free_port()}")(KEY)
