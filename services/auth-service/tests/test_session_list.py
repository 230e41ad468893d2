"""Sessions as their owners and admins see and end them."""

import pytest
from uuid_utils.compat import uuid7

EVE = {"email": "eve@example.com", "password": "correct horse battery", "role": "admin"}


def headers(pair):
    return {"Authorization": f"Bearer {pair['access_token']}"}


@pytest.fixture
async def eve(http, bearer):
    """An admin of one client: their id and tokens."""
    made = (await http.post("/users", json=EVE | {"client_id": str(uuid7())}, headers=bearer)).json()
    return made["id"], (await http.post("/login", json={k: EVE[k] for k in ("email", "password")})).json()


async def sessions(http, who, path="/sessions"):
    return (await http.get(path, headers=who)).json()["items"]


async def test_ones_sessions_tell_where_they_began(http, pair, bearer, rows):
    login = {"email": "ada@triton.local", "password": "a long enough password"}
    await http.post("/login", json=login, headers={"User-Agent": f"curl/8\t{'x' * 300}"})
    newest, first = await sessions(http, bearer)
    assert (newest["current"], first["current"]) == (False, True)
    assert newest["address"] == "127.0.0.1"
    assert newest["user_agent"].startswith("curl/8xxx")
    assert len(newest["user_agent"]) < 200
    assert newest["method"] == "password"


async def test_a_refresh_is_a_use(http, pair, bearer):
    (before,) = await sessions(http, bearer)
    await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})
    (after,) = await sessions(http, bearer)
    assert after["last_used_at"] > before["last_used_at"]


async def test_ending_a_session_ends_its_tokens_at_once(http, pair, bearer, rows):
    login = {"email": "ada@triton.local", "password": "a long enough password"}
    other = (await http.post("/login", json=login)).json()
    newest, _ = await sessions(http, bearer)
    assert (await http.delete(f"/sessions/{newest['id']}", headers=bearer)).status_code == 204
    refused = await http.get("/me", headers=headers(other))
    assert (refused.status_code, refused.json()["code"]) == (401, "token_revoked")
    assert (await http.post("/refresh", json={"refresh_token": other["refresh_token"]})).status_code == 401
    again = await http.delete(f"/sessions/{newest['id']}", headers=bearer)
    assert (again.status_code, again.json()["code"]) == (404, "session_not_found")
    assert rows("SELECT end_reason FROM sessions WHERE id = %s", newest["id"]) == [("ended",)]


async def test_logout_ends_the_access_token_too(http, pair, bearer):
    await http.post("/logout", json={"refresh_token": pair["refresh_token"]})
    assert (await http.get("/me", headers=bearer)).json()["code"] == "token_revoked"


async def test_all_but_the_one_that_asks(http, pair, bearer):
    login = {"email": "ada@triton.local", "password": "a long enough password"}
    others = [(await http.post("/login", json=login)).json() for _ in range(2)]
    assert (await http.delete("/sessions", headers=bearer)).status_code == 204
    assert [one["current"] for one in await sessions(http, bearer)] == [True]
    for other in others:
        assert (await http.get("/me", headers=headers(other))).status_code == 401
    assert (await http.get("/me", headers=bearer)).status_code == 200


async def test_admins_see_and_end_the_sessions_of_others(http, bearer, eve, rows):
    user_id, pair = eve
    (one,) = await sessions(http, bearer, f"/users/{user_id}/sessions")
    assert one["user_id"] == user_id
    assert (await http.delete(f"/sessions/{one['id']}", headers=bearer)).status_code == 204
    assert (await http.get("/me", headers=headers(pair))).status_code == 401
    assert rows("SELECT end_reason FROM sessions WHERE id = %s", one["id"]) == [("ended_by_admin",)]
    again = (await http.post("/login", json={k: EVE[k] for k in ("email", "password")})).json()
    assert (await http.delete(f"/users/{user_id}/sessions", headers=bearer)).status_code == 204
    assert (await http.get("/me", headers=headers(again))).status_code == 401
    assert rows("SELECT DISTINCT actor_kind FROM audit_events WHERE action = 'session.ended'") == [("user",)]


async def test_nobody_ends_a_session_they_do_not_see(http, bearer, eve):
    _, pair = eve
    (admins,) = await sessions(http, bearer)
    for session_id in (admins["id"], uuid7()):
        answer = await http.delete(f"/sessions/{session_id}", headers=headers(pair))
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
    assert (await http.get("/me", headers=bearer)).status_code == 200


async def test_a_reused_refresh_token_ends_the_access_tokens_too(http, pair, bearer):
    second = (await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})).json()
    await http.post("/refresh", json={"refresh_token": second["refresh_token"]})
    reused = await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})
    assert reused.json()["code"] == "refresh_token_reused"
    for token in (bearer, headers(second)):
        assert (await http.get("/me", headers=token)).json()["code"] == "token_revoked"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sessions"),
        ("DELETE", "/sessions"),
        ("DELETE", f"/sessions/{uuid7()}"),
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("DELETE", f"/api-keys/{uuid7()}"),
        ("PUT", "/me/password"),
    ],
)
async def test_machines_and_keys_do_not_administer_a_person(http, bearer, method, path):
    form = {
        "grant_type": "client_credentials",
        "client_id": "agent-runner",
        "client_secret": "agent-secret-of-the-tests",
    }
    machine = headers((await http.post("/token", data=form)).json())
    made = await http.post("/api-keys", json={"name": "ci", "scopes": ["users:admin"]}, headers=bearer)
    key = {"Authorization": f"Bearer {made.json()['key']}"}
    bodies = {
        ("POST", "/api-keys"): {"name": "x", "scopes": ["jobs:read"]},
        ("PUT", "/me/password"): {"current_password": "x", "new_password": "correct horse battery"},
    }
    for who in (machine, key):
        answer = await http.request(method, path, headers=who, json=bodies.get((method, path)))
        assert (answer.status_code, answer.json()["code"]) == (403, "session_required")
    assert (await http.request(method, path, json=bodies.get((method, path)))).json()["code"] == "missing_token"
