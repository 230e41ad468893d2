"""Signing keys follow one another, and no valid token fails."""

import asyncio
from datetime import timedelta

import pytest

from auth_service.main import build
from auth_service.sweeps import sweep

LOGIN = {"email": "ada@triton.local", "password": "a long enough password"}


async def log_in(http):
    return {"Authorization": f"Bearer {(await http.post('/login', json=LOGIN)).json()['access_token']}"}


async def kids(http):
    return [key["kid"] for key in (await http.get("/.well-known/jwks.json")).json()["keys"]]


def passes(rows, seconds):
    """Lets time pass for the keys."""
    rows(
        "UPDATE signing_keys SET signs_from = signs_from - %s * interval '1 second',"
        " verifies_until = verifies_until - %s * interval '1 second' RETURNING kid",
        seconds,
        seconds,
    )


@pytest.fixture
def turn(app):
    """One turn of the sweeps."""

    async def run(*, every=timedelta(days=90), lead=timedelta(minutes=10)):
        await sweep(app.state.database, app.state.keys, app.state.revoker, rotation=every, lead=lead)

    return run


async def test_a_next_key_is_published_before_it_signs_and_the_old_one_verifies_on(http, bearer, turn, rows, app):
    (first,) = await kids(http)
    made = await http.post("/keys/rotate", json={}, headers=bearer)
    assert made.status_code == 201
    assert made.json()["status"] == "next"
    second = made.json()["kid"]
    assert await kids(http) == [second, first]
    assert app.state.keys.signing.kid == first
    passes(rows, 601)
    await turn()
    assert app.state.keys.signing.kid == second
    new = await log_in(http)
    for headers in (bearer, new):
        assert (await http.get("/me", headers=headers)).status_code == 200
    listed = (await http.get("/keys", headers=bearer)).json()["items"]
    assert [(key["kid"], key["status"]) for key in listed] == [(second, "signing"), (first, "retired")]
    passes(rows, 24 * 3600 + 61)
    await turn()
    assert await kids(http) == [second]
    assert rows("SELECT kid FROM signing_keys") == [(second,)]


async def test_a_second_rotation_waits_for_the_first_unless_it_must_be_now(http, bearer, rows, app, turn):
    (first,) = await kids(http)
    second = (await http.post("/keys/rotate", json={}, headers=bearer)).json()
    refused = await http.post("/keys/rotate", json={}, headers=bearer)
    assert (refused.status_code, refused.json()["code"]) == (409, "key_rotation_under_way")
    now = (await http.post("/keys/rotate", json={"immediately": True}, headers=bearer)).json()
    assert now["kid"] == second["kid"]
    assert now["signs_from"] < second["signs_from"]
    assert rows("SELECT count(*) FROM revocations WHERE kind = 'keys'") == [(2,)]
    passes(rows, 6)
    await turn()
    assert app.state.keys.signing.kid == second["kid"]
    assert await kids(http) == [second["kid"], first]


async def test_a_key_that_somebody_has_is_taken_away(http, bearer, rows, turn):
    (first,) = await kids(http)
    in_use = await http.delete(f"/keys/{first}", headers=bearer)
    assert (in_use.status_code, in_use.json()["code"]) == (409, "signing_key_in_use")
    await http.post("/keys/rotate", json={"immediately": True}, headers=bearer)
    passes(rows, 6)
    await turn()
    new = await log_in(http)
    assert (await http.delete(f"/keys/{first}", headers=new)).status_code == 204
    async with asyncio.timeout(5):
        while (answer := await http.get("/me", headers=bearer)).status_code == 200:
            pass
    assert answer.json()["code"] == "token_key_unknown"
    assert (await http.get("/me", headers=new)).status_code == 200
    unknown = await http.delete("/keys/nobody", headers=new)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "signing_key_not_found")
    actions = [row[0] for row in rows("SELECT action FROM audit_events WHERE object_kind = 'signing_key' ORDER BY id")]
    assert actions == ["signing_key.made", "signing_key.made", "signing_key.revoked"]


async def test_the_next_key_is_made_when_it_is_time(http, turn, rows):
    await turn(every=timedelta(days=1), lead=timedelta(minutes=10))
    assert len(await kids(http)) == 1
    passes(rows, 24 * 3600 - 590)
    await turn(every=timedelta(days=1), lead=timedelta(minutes=10))
    assert len(await kids(http)) == 2
    await turn(every=timedelta(days=1), lead=timedelta(minutes=10))
    assert len(await kids(http)) == 2


async def test_every_process_signs_with_the_new_key(make_settings, starting, rows):
    one, other = build(make_settings()), build(make_settings())
    async with starting(one) as http, starting(other) as there:
        bearer = await log_in(http)
        made = (await http.post("/keys/rotate", json={}, headers=bearer)).json()
        state, lead = other.state, timedelta(minutes=10)
        await sweep(state.database, state.keys, state.revoker, rotation=timedelta(days=90), lead=lead)
        assert made["kid"] in await kids(there)


async def test_the_key_set_is_asked_for_with_its_tag(http):
    whole = await http.get("/.well-known/jwks.json")
    tag = whole.headers["ETag"]
    for given in (tag, f'"other", W/{tag}'):
        same = await http.get("/.well-known/jwks.json", headers={"If-None-Match": given})
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["ETag"] == tag
        assert same.headers["Cache-Control"] == "public, max-age=300"
    assert (await http.get("/.well-known/jwks.json", headers={"If-None-Match": '"other"'})).status_code == 200
