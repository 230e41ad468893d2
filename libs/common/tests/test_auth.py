"""Tokens that are not what they should be, each with its own answer."""

import asyncio
import base64
import hmac
import json
import time
from uuid import uuid4

import pytest
from joserfc.jwk import KeySet, OKPKey

from triton_common.auth import (
    KeysUnavailable,
    TokenExpired,
    TokenKeyUnknown,
    TokenMalformed,
    TokenSignatureInvalid,
    TokenVerifier,
    require,
    scopes_of,
)
from triton_common.revocations import Kind, Revocation
from triton_common.testing import KEY, access_token


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def segment(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned():
    _, payload, _ = access_token().split(".")
    return f"{segment({'alg': 'none', 'typ': 'at+jwt', 'kid': 'test-key'})}.{payload}."


def tampered():
    header, payload, signature = access_token({"role": "viewer"}).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{header}.{segment(claims | {'role': 'admin'})}.{signature}"


def signed_with_the_public_key():
    _, payload, _ = access_token().split(".")
    signed = f"{segment({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'test-key'})}.{payload}"
    mac = hmac.digest(KEY.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


BAD_TOKENS = {
    "alg none": (unsigned, "token_algorithm_not_allowed"),
    "HS256 with the public key": (signed_with_the_public_key, "token_algorithm_not_allowed"),
    "tampered": (tampered, "token_signature_invalid"),
    "signed by another key": (
        lambda: access_token(key=OKPKey.generate_key("Ed25519", parameters={"kid": "test-key"})),
        "token_signature_invalid",
    ),
    "expired": (lambda: access_token({"exp": int(time.time()) - 1}), "token_expired"),
    "not yet valid": (lambda: access_token({"nbf": int(time.time()) + 60}), "token_not_yet_valid"),
    "other issuer": (lambda: access_token({"iss": "https://evil.example"}), "token_issuer_invalid"),
    "other audience": (lambda: access_token({"aud": "payroll"}), "token_audience_invalid"),
    "no audience": (lambda: access_token({"aud": None}), "token_audience_invalid"),
    "unknown kid": (lambda: access_token(header={"kid": "../../etc/passwd"}), "token_key_unknown"),
    "kid is a number": (
        lambda: f"{segment({'alg': 'Ed25519', 'typ': 'at+jwt', 'kid': 7})}.e30.AA",
        "token_malformed",
    ),
    "brings its own key": (lambda: access_token(header={"jwk": KEY.as_dict(private=False)}), "token_malformed"),
    "an id token": (lambda: access_token(header={"typ": "JWT"}), "token_malformed"),
    "no expiry": (lambda: access_token({"exp": None}), "token_malformed"),
    "expiry is a string": (lambda: access_token({"exp": str(int(time.time()) + 60)}), "token_malformed"),
    "expiry is true": (lambda: access_token({"exp": True}), "token_malformed"),
    "start is a string": (lambda: access_token({"nbf": "0"}), "token_malformed"),
    "epoch is a string": (lambda: access_token({"epoch": "9"}), "token_malformed"),
    "integer subject": (lambda: access_token({"sub": 7}), "token_malformed"),
    "no scope": (lambda: access_token({"scope": None}), "token_malformed"),
    "client_id is no uuid": (lambda: access_token({"client_id": "acme"}), "token_malformed"),
    "20 KB": (lambda: "x" * 20_000, "token_malformed"),
    "noise": (lambda: "not.a.token", "token_malformed"),
    "one part": (lambda: "token", "token_malformed"),
    "empty claims and signature": (lambda: access_token().split(".")[0] + "..", "token_signature_invalid"),
}


@pytest.mark.parametrize(("make", "code"), BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_bad_token_is_refused_with_its_own_code(http, make, code):
    answer = await http.get("/me", headers=bearer(make()))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer "}])
async def test_no_token_is_refused(http, headers):
    answer = await http.get("/me", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")


async def test_good_token_names_the_principal(http):
    assert (await http.get("/me", headers=bearer(access_token({"sub": "ada"})))).json() == {"subject": "ada"}


async def test_scope_decides(http, as_user):
    assert (await http.get("/jobs-only", headers=as_user("editor"))).status_code == 200
    refused = await http.get("/jobs-only", headers=as_user("viewer"))
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert "jobs:write" in refused.json()["message"]


def test_unknown_scope_is_a_programming_error():
    with pytest.raises(ValueError, match="jobs:fly"):
        require("jobs:fly")


def key_source(*sets):
    """Answers each set in turn, the last one for ever, and counts."""
    calls = []

    async def keys():
        answer = sets[min(len(calls), len(sets) - 1)]
        calls.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return keys, calls


def jwks(*keys):
    return KeySet(list(keys)).as_dict()


async def test_unknown_keys_ask_for_the_key_set_once_a_minute():
    keys, calls = key_source(jwks(KEY))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    for number in range(20):
        with pytest.raises(TokenKeyUnknown):
            await verifier.verify(access_token(header={"kid": f"made-up-{number}"}))
    assert len(calls) == 1


async def test_new_key_is_found(monkeypatch):
    new = OKPKey.generate_key("Ed25519", parameters={"kid": "new"})
    keys, _ = key_source(jwks(KEY), jwks(KEY, new))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    await verifier.verify(access_token())
    monkeypatch.setattr("triton_common.auth.REFETCH_SECONDS", -1)
    assert (await verifier.verify(access_token({"sub": "new"}, key=new))).subject == "new"


async def test_auth_service_down_at_first_is_unavailable_and_heals():
    keys, _ = key_source(KeysUnavailable(), KeysUnavailable(), jwks(KEY))
    async with TokenVerifier(keys, issuer="triton", audience="triton") as verifier:
        with pytest.raises(KeysUnavailable):
            await verifier.verify(access_token())
        assert (await verifier.verify(access_token({"sub": "ada"}))).subject == "ada"


async def test_a_new_key_that_could_not_be_fetched_is_no_unknown_one(monkeypatch):
    new = OKPKey.generate_key("Ed25519", parameters={"kid": "new"})
    keys, calls = key_source(jwks(KEY), KeysUnavailable(), jwks(KEY, new))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    await verifier.verify(access_token())
    monkeypatch.setattr("triton_common.auth.REFETCH_SECONDS", -1)
    with pytest.raises(KeysUnavailable):
        await verifier.verify(access_token(key=new))
    monkeypatch.undo()
    with pytest.raises(KeysUnavailable) as within_the_minute:
        await verifier.verify(access_token(key=new))
    assert within_the_minute.value.retry_after
    assert (await verifier.verify(access_token({"sub": "old key"}))).subject == "old key"
    assert len(calls) == 2
    monkeypatch.setattr("triton_common.auth.REFETCH_SECONDS", -1)
    await verifier.verify(access_token(key=new))
    monkeypatch.undo()
    with pytest.raises(TokenKeyUnknown):
        await verifier.verify(access_token(header={"kid": "made-up"}))


async def test_verified_token_is_remembered_until_it_expires(monkeypatch):
    keys, _ = key_source(jwks(KEY))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    token = access_token({"exp": int(time.time()) + 60})
    assert await verifier.verify(token) is await verifier.verify(token)
    later = time.time() + 61
    monkeypatch.setattr("triton_common.auth.time.time", lambda: later)
    with pytest.raises(TokenExpired):
        await verifier.verify(token)


async def test_cache_is_bounded(monkeypatch):
    monkeypatch.setattr("triton_common.auth.CACHED_TOKENS", 2)
    keys, _ = key_source(jwks(KEY))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    for number in range(5):
        await verifier.verify(access_token({"sub": str(number)}))
    assert len(verifier._verified) == 2


async def test_cache_keeps_what_is_in_use(monkeypatch):
    monkeypatch.setattr("triton_common.auth.CACHED_TOKENS", 2)
    keys, _ = key_source(jwks(KEY))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    used, unused = access_token({"sub": "used"}), access_token({"sub": "unused"})
    principal = await verifier.verify(used)
    await verifier.verify(unused)
    assert verifier.known(used) is principal
    await verifier.verify(access_token())
    assert verifier.known(used) is principal
    assert verifier.known(unused) is None
    later = time.time() + 601
    monkeypatch.setattr("triton_common.auth.time.time", lambda: later)
    assert verifier.known(used) is None
    assert used not in verifier._verified


async def test_keys_are_read_again_while_nobody_asks_for_a_new_one(monkeypatch):
    monkeypatch.setattr("triton_common.auth.REFRESH_SECONDS", 0.01)
    new = OKPKey.generate_key("Ed25519", parameters={"kid": "new"})
    keys, calls = key_source(jwks(KEY), KeysUnavailable(), jwks(new))
    async with TokenVerifier(keys, issuer="triton", audience="triton") as verifier:
        old = access_token()
        await verifier.verify(old)
        while len(calls) < 4:  # noqa: ASYNC110  it sets no Event
            await asyncio.sleep(0.01)
        assert await verifier.verify(access_token(key=new))
        with pytest.raises(TokenKeyUnknown):  # remembered as verified, but its key is gone
            await verifier.verify(old)


async def test_keys_that_change_while_they_are_read_are_read_again():
    new = OKPKey.generate_key("Ed25519", parameters={"kid": "new"})
    answer, calls = asyncio.Event(), []

    async def keys():
        calls.append(1)
        if len(calls) > 1:
            return jwks(KEY, new)
        await answer.wait()
        return jwks(KEY)

    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    waiting = asyncio.create_task(verifier.verify(access_token()))
    while not calls:  # noqa: ASYNC110  it sets no Event
        await asyncio.sleep(0)
    verifier.revoke([Revocation(Kind.KEYS, "", until=int(time.time()) + 60)])
    answer.set()
    await waiting
    while len(calls) < 2:  # noqa: ASYNC110  it sets no Event
        await asyncio.sleep(0)
    assert await verifier.verify(access_token(key=new))


def test_an_admin_of_one_client_does_nothing_for_the_whole_platform():
    beyond = scopes_of("admin", client_id=None) - scopes_of("admin", client_id=uuid4())
    assert beyond == {"keys:admin", "service-accounts:admin"}
    assert scopes_of("viewer", client_id=None) == scopes_of("viewer", client_id=uuid4())


async def test_client_bound_principal_sees_that_client_alone():
    keys, _ = key_source(jwks(KEY))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    mine, other = uuid4(), uuid4()
    bound = await verifier.verify(access_token({"client_id": str(mine)}))
    staff = await verifier.verify(access_token())
    assert (bound.can_see(mine), bound.can_see(other), bound.is_staff) == (True, False, False)
    assert (staff.can_see(mine), staff.can_see(other), staff.is_staff) == (True, True, True)


async def test_token_does_not_show_in_a_principal():
    keys, _ = key_source(jwks(KEY))
    principal = await TokenVerifier(keys, issuer="triton", audience="triton").verify(access_token())
    assert principal.token
    assert principal.token not in repr(principal)
    assert principal.token not in principal.model_dump_json()


async def test_malformed_and_wrongly_signed_are_told_apart():
    keys, _ = key_source(jwks(KEY))
    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    with pytest.raises(TokenSignatureInvalid):
        await verifier.verify(tampered())
    with pytest.raises(TokenMalformed):
        await verifier.verify(access_token({"exp": "tomorrow"}))


async def test_requests_share_a_fetch_that_fails():
    calls = []
    asked, answer = asyncio.Event(), asyncio.Event()

    async def keys():
        calls.append(1)
        asked.set()
        await answer.wait()
        raise KeysUnavailable

    verifier = TokenVerifier(keys, issuer="triton", audience="triton")
    requests = [asyncio.create_task(verifier.verify(access_token())) for _ in range(8)]
    await asked.wait()
    answer.set()
    assert all(
        isinstance(result, KeysUnavailable) for result in await asyncio.gather(*requests, return_exceptions=True)
    )
    assert len(calls) == 1
