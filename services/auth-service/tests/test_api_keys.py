"""Personal API keys: made, used, listed and revoked."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from uuid_utils.compat import uuid7

NEW = {"name": "ci", "scopes": ["jobs:read", "data:read"]}
EVE = {"email": "eve@example.com", "password": "correct horse battery", "role": "editor"}


def bearing(key):
    return {"Authorization": f"Bearer {key}"}


async def make(http, who, **changes):
    return await http.post("/api-keys", json=NEW | changes, headers=who)


@pytest.fixture
async def eve(http, bearer):
    """An editor's id and headers."""
    made = (await http.post("/users", json=EVE, headers=bearer)).json()
    pair = (await http.post("/login", json={k: EVE[k] for k in ("email", "password")})).json()
    return made["id"], bearing(pair["access_token"])


@pytest.fixture
async def inside(app, http):
    """Another service, which asks whose a key is."""
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://test/internal/v1"
    ) as client:
        yield client


async def test_a_key_is_shown_once_and_stored_as_a_hash(http, bearer, rows):
    answer = await make(http, bearer)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    assert answer.headers["Location"] == f"/api/v1/auth/api-keys/{made['id']}"
    key = made.pop("key")
    assert key.startswith("trk_")
    assert made["hint"] == key[:10]
    assert made["scopes"] == ["data:read", "jobs:read"]
    days = (datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)).days
    assert days in (89, 90)
    assert (await http.get("/api-keys", headers=bearer)).json()["items"] == [made]
    ((stored,),) = rows("SELECT key_hash FROM api_keys")
    assert len(stored) == 32
    assert key not in str(rows("SELECT * FROM audit_events"))


async def test_a_key_acts_for_its_owner_with_its_own_scopes(http, bearer, inside):
    made = (await make(http, bearer)).json()
    me = (await http.get("/me", headers=bearing(made["key"]))).json()
    assert (me["kind"], me["email"], me["scopes"]) == ("api_key", "ada@triton.local", ["data:read", "jobs:read"])
    assert (await http.get("/users", headers=bearing(made["key"]))).json()["code"] == "insufficient_scope"
    told = await inside.get("/principal", headers=bearing(made["key"]))
    assert told.status_code == 200
    assert told.headers["Cache-Control"] == "no-store"
    assert told.json() | {"scopes": set(told.json()["scopes"])} == {
        "subject": me["id"],
        "kind": "api_key",
        "role": "admin",
        "scopes": {"data:read", "jobs:read"},
        "client_id": None,
        "token_id": made["id"],
        "epoch": 0,
        "expires_at": int(datetime.fromisoformat(made["expires_at"]).timestamp()),
    }
    (used,) = (await http.get("/api-keys", headers=bearer)).json()["items"]
    assert used["last_used_at"]


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer trk_" + "x" * 43, "Basic eDp5", "Bearer trk_\u00fc"])
async def test_what_is_no_key_is_nobodys(inside, authorization):
    answer = await inside.get("/principal", headers={"Authorization": authorization.encode()})
    assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")


async def test_a_revoked_key_is_refused_at_once(http, bearer, inside, rows):
    made = (await make(http, bearer)).json()
    assert (await http.get("/me", headers=bearing(made["key"]))).status_code == 200
    assert (await http.delete(f"/api-keys/{made['id']}", headers=bearer)).status_code == 204
    for answer in [
        await http.get("/me", headers=bearing(made["key"])),
        await inside.get("/principal", headers=bearing(made["key"])),
    ]:
        assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")
    assert (await http.get("/api-keys", headers=bearer)).json()["items"] == []
    assert (await http.delete(f"/api-keys/{made['id']}", headers=bearer)).json()["code"] == "api_key_not_found"
    assert rows("SELECT kind, target FROM revocations") == [("token", made["id"])]


async def test_an_expired_key_is_refused(http, bearer, inside, rows):
    made = (await make(http, bearer)).json()
    rows("UPDATE api_keys SET expires_at = now() RETURNING id")
    assert (await inside.get("/principal", headers=bearing(made["key"]))).status_code == 401
    assert (await http.get("/api-keys", headers=bearer)).json()["items"] == []


async def test_a_key_never_allows_more_than_its_owner(http, bearer, eve, inside):
    user_id, headers = eve
    made = (await make(http, headers, scopes=["jobs:write", "jobs:read"])).json()
    await http.patch(f"/users/{user_id}", json={"role": "viewer"}, headers=bearer)
    told = (await inside.get("/principal", headers=bearing(made["key"]))).json()
    assert (told["role"], told["scopes"], told["epoch"]) == ("viewer", ["jobs:read"], 1)
    await http.post(f"/users/{user_id}/deactivate", headers=bearer)
    assert (await inside.get("/principal", headers=bearing(made["key"]))).status_code == 401


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scopes": ["users:admin"]}, "scope_not_yours"),
        ({"scopes": ["jobs:fly"]}, "validation_failed"),
        ({"scopes": []}, "validation_failed"),
        ({"name": " "}, "validation_failed"),
        ({"name": "a\x00b"}, "validation_failed"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expiry_out_of_range"),
        ({"expires_at": (datetime.now(UTC) + timedelta(days=400)).isoformat()}, "expiry_out_of_range"),
        ({"expires_at": "2027-01-01T00:00:00"}, "validation_failed"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(http, eve, change, code):
    answer = await make(http, eve[1], **change)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_a_user_has_a_bounded_number_of_keys(http, eve, monkeypatch):
    monkeypatch.setattr("auth_service.api_keys.MOST_OF_A_USER", 1)
    assert (await make(http, eve[1])).status_code == 201
    refused = await make(http, eve[1])
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_api_keys")


async def test_admins_see_and_revoke_the_keys_of_others_and_nobody_else_does(http, bearer, eve):
    user_id, headers = eve
    own = (await make(http, headers)).json()
    admins = (await make(http, bearer)).json()
    assert (await http.delete(f"/api-keys/{admins['id']}", headers=headers)).json()["code"] == "api_key_not_found"
    bound = EVE | {"email": "b@example.com", "role": "admin", "client_id": str(uuid7())}
    await http.post("/users", json=bound, headers=bearer)
    pair = (await http.post("/login", json={k: bound[k] for k in ("email", "password")})).json()
    refused = await http.delete(f"/api-keys/{own['id']}", headers=bearing(pair["access_token"]))
    assert refused.json()["code"] == "api_key_not_found"
    (listed,) = (await http.get(f"/users/{user_id}/api-keys", headers=bearer)).json()["items"]
    assert listed["id"] == own["id"]
    assert (await http.delete(f"/api-keys/{own['id']}", headers=bearer)).status_code == 204


async def test_a_token_whose_user_is_gone_makes_no_key(app, running, as_user):
    async with running(app) as http:
        answer = await http.post("/api/v1/auth/api-keys", json=NEW, headers=as_user())
    assert (answer.status_code, answer.json()["code"]) == (404, "api_key_not_found")
