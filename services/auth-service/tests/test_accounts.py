"""What becomes of accounts: changed, deactivated, given another password; and of the tokens they have."""

import asyncio

import pytest
from uuid_utils.compat import uuid4, uuid7

from auth_service.main import build
from auth_service.passwords import PasswordTooCommon, check_strength

ADMIN = "ada@triton.local"
PASSWORD = "a long enough password"
EVE = {"email": "eve@example.com", "password": "correct horse battery", "role": "editor"}


def headers(pair):
    return {"Authorization": f"Bearer {pair['access_token']}"}


async def log_in(http, email=EVE["email"], password=EVE["password"]):
    return await http.post("/login", json={"email": email, "password": password})


async def refresh(http, pair):
    return await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})


@pytest.fixture
async def eve(http, bearer):
    """An editor's id and tokens."""
    made = (await http.post("/users", json=EVE, headers=bearer)).json()
    return made["id"], (await log_in(http)).json()


@pytest.fixture
def actions(rows):
    """What the audit log has, oldest first."""
    return lambda: [row[0] for row in rows("SELECT action FROM audit_events ORDER BY id")]


async def test_another_role_ends_the_tokens_and_leaves_the_session(http, bearer, eve, rows):
    user_id, pair = eve
    changed = await http.patch(f"/users/{user_id}", json={"role": "viewer"}, headers=bearer)
    assert changed.json()["role"] == "viewer"
    refused = await http.get("/me", headers=headers(pair))
    assert (refused.status_code, refused.json()["code"]) == (401, "token_revoked")
    renewed = (await refresh(http, pair)).json()
    assert (await http.get("/me", headers=headers(renewed))).json()["role"] == "viewer"
    assert rows("SELECT kind, target, epoch FROM revocations") == [("subject", user_id, 1)]


async def test_a_change_that_changes_nothing_ends_nothing(http, bearer, eve):
    user_id, pair = eve
    for same in ({}, {"role": "editor"}, {"client_id": None}):
        assert (await http.patch(f"/users/{user_id}", json=same, headers=bearer)).status_code == 200
    assert (await http.get("/me", headers=headers(pair))).status_code == 200


async def test_a_user_is_bound_to_a_client_and_let_go(http, bearer, eve):
    user_id, pair = eve
    client_id = str(uuid7())
    bound = await http.patch(f"/users/{user_id}", json={"client_id": client_id}, headers=bearer)
    assert bound.json()["client_id"] == client_id
    assert (await http.get("/me", headers=headers((await refresh(http, pair)).json()))).json()["client_id"] == client_id
    free = await http.patch(f"/users/{user_id}", json={"client_id": None}, headers=bearer)
    assert free.json()["client_id"] is None


@pytest.mark.parametrize(
    "change", [{"role": None}, {"role": "emperor"}, {"email": "x@example.com"}, {"client_id": str(uuid4())}]
)
async def test_a_change_that_cannot_be_is_refused(http, bearer, eve, change):
    assert (await http.patch(f"/users/{eve[0]}", json=change, headers=bearer)).status_code == 422


async def test_a_client_is_named_by_an_id_of_its_kind(http, bearer):
    for client_id in (str(uuid4()), "00000000-0000-0000-0000-000000000000", "acme"):
        answer = await http.post("/users", json=EVE | {"client_id": client_id}, headers=bearer)
        assert answer.status_code == 422
        assert answer.json()["details"][0]["field"] == "body.client_id"


async def test_a_deactivated_user_is_out_at_once_until_activated(http, bearer, eve, actions):
    user_id, pair = eve
    off = await http.post(f"/users/{user_id}/deactivate", headers=bearer)
    assert off.json()["deactivated_at"]
    assert (await http.post(f"/users/{user_id}/deactivate", headers=bearer)).json() == off.json()
    assert (await http.get("/me", headers=headers(pair))).json()["code"] == "token_revoked"
    assert (await refresh(http, pair)).json()["code"] == "invalid_refresh_token"
    refused, wrong = await log_in(http), await log_in(http, password="not the password")
    assert refused.json() | {"request_id": ""} == wrong.json() | {"request_id": ""}
    listed = await http.get("/users", params={"active": False}, headers=bearer)
    assert [user["id"] for user in listed.json()["items"]] == [user_id]
    on = await http.post(f"/users/{user_id}/activate", headers=bearer)
    assert on.json()["deactivated_at"] is None
    assert (await http.get("/me", headers=headers(pair))).status_code == 401
    assert (await log_in(http)).status_code == 200
    assert (await http.post(f"/users/{user_id}/activate", headers=bearer)).status_code == 200
    assert actions()[-5:] == ["user.deactivated", "login.failed", "login.failed", "user.activated", "login.succeeded"]


async def test_the_last_admin_stays(http, bearer, pair):
    me = (await http.get("/me", headers=bearer)).json()["id"]
    for change in ({"role": "viewer"}, {"client_id": str(uuid7())}):
        answer = await http.patch(f"/users/{me}", json=change, headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    assert (await http.post(f"/users/{me}/deactivate", headers=bearer)).json()["code"] == "last_admin"
    await http.post("/users", json=EVE | {"role": "admin", "client_id": str(uuid7())}, headers=bearer)
    assert (await http.post(f"/users/{me}/deactivate", headers=bearer)).json()["code"] == "last_admin"


async def test_of_two_last_admins_who_take_each_others_rights_one_stays(http, bearer, rows):
    other = (await http.post("/users", json=EVE | {"role": "admin"}, headers=bearer)).json()["id"]
    me = (await http.get("/me", headers=bearer)).json()["id"]
    answers = await asyncio.gather(
        *(http.patch(f"/users/{one}", json={"role": "viewer"}, headers=bearer) for one in (me, other))
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 409], [200, 401])
    assert rows("SELECT count(*) FROM users WHERE role = 'admin'") == [(1,)]


async def test_an_admin_gives_another_password(http, bearer, eve):
    user_id, pair = eve
    answer = await http.put(f"/users/{user_id}/password", json={"password": "an entirely new one"}, headers=bearer)
    assert answer.status_code == 204
    assert (await http.get("/me", headers=headers(pair))).json()["code"] == "token_revoked"
    assert (await refresh(http, pair)).status_code == 401
    assert (await log_in(http)).status_code == 401
    assert (await log_in(http, password="an entirely new one")).status_code == 200
    common = await http.put(f"/users/{user_id}/password", json={"password": "password12345"}, headers=bearer)
    assert (common.status_code, common.json()["code"]) == (422, "password_too_common")


async def test_a_user_changes_their_own_password_and_keeps_the_session(http, eve):
    _, pair = eve
    other = (await log_in(http)).json()
    body = {"current_password": EVE["password"], "new_password": "an entirely new one"}
    wrong = await http.put("/me/password", json=body | {"current_password": "not it"}, headers=headers(pair))
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_password")
    common = await http.put("/me/password", json=body | {"new_password": "eve@example.com"}, headers=headers(pair))
    assert common.json()["code"] == "password_too_common"
    assert (await http.put("/me/password", json=body, headers=headers(pair))).status_code == 204
    assert (await http.get("/me", headers=headers(pair))).status_code == 200
    assert (await refresh(http, pair)).status_code == 200
    assert (await http.get("/me", headers=headers(other))).json()["code"] == "token_revoked"
    assert (await refresh(http, other)).status_code == 401
    assert (await log_in(http, password="an entirely new one")).status_code == 200


async def test_ones_own_password_is_not_guessed_faster_than_a_login(http, eve):
    _, pair = eve
    body = {"current_password": "not it", "new_password": "an entirely new one"}
    codes = [(await http.put("/me/password", json=body, headers=headers(pair))).status_code for _ in range(11)]
    assert codes == [403] * 10 + [429]


async def test_a_password_changed_during_a_login_wins(app, http, eve, rows, monkeypatch):
    verify = app.state.passwords.verify

    async def slow(password, **values):
        matches = await verify(password, **values)
        rows("UPDATE users SET password_hash = 'another' WHERE email = 'eve@example.com' RETURNING id")
        return matches

    monkeypatch.setattr(app.state.passwords, "verify", slow)
    assert (await log_in(http)).status_code == 401


async def test_who_has_no_password_logs_in_without_one_nowhere(http, eve, rows):
    _, pair = eve
    rows("UPDATE users SET password_hash = NULL WHERE email = 'eve@example.com' RETURNING id")
    assert (await log_in(http)).status_code == 401
    body = {"current_password": EVE["password"], "new_password": "an entirely new one"}
    answer = await http.put("/me/password", json=body, headers=headers(pair))
    assert answer.json()["code"] == "wrong_password"


async def test_a_client_bound_admin_changes_that_clients_users_alone(http, bearer, eve):
    user_id, _ = eve
    client_id = str(uuid7())
    await http.post(
        "/users", json=EVE | {"email": "b@example.com", "role": "admin", "client_id": client_id}, headers=bearer
    )
    bound = headers((await log_in(http, email="b@example.com")).json())
    own = await http.post("/users", json=EVE | {"email": "o@example.com", "client_id": client_id}, headers=bound)
    path = f"/users/{own.json()['id']}"
    assert (await http.patch(path, json={"role": "viewer"}, headers=bound)).status_code == 200
    for client in (None, str(uuid7())):
        answer = await http.patch(path, json={"client_id": client}, headers=bound)
        assert answer.json()["code"] == "user_client_not_found"
    foreign = f"/users/{user_id}"
    for answer in [
        await http.patch(foreign, json={"role": "viewer"}, headers=bound),
        await http.post(f"{foreign}/deactivate", headers=bound),
        await http.post(f"{foreign}/activate", headers=bound),
        await http.put(f"{foreign}/password", json={"password": "an entirely new one"}, headers=bound),
        await http.get(f"{foreign}/sessions", headers=bound),
        await http.delete(f"{foreign}/sessions", headers=bound),
        await http.get(f"{foreign}/api-keys", headers=bound),
    ]:
        assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")
    for path in ("/keys", "/service-accounts"):
        assert (await http.get(path, headers=bound)).json()["code"] == "insufficient_scope"


async def test_the_list_of_users_has_filters(http, bearer, eve):
    async def emails(**wanted):
        answer = await http.get("/users", params=wanted, headers=bearer)
        return [user["email"] for user in answer.json()["items"]]

    assert await emails(role="editor") == await emails(email="EVE@example.com") == ["eve@example.com"]
    assert await emails(active=True) == ["eve@example.com", ADMIN]
    assert await emails(client_id=str(uuid7())) == []
    assert (await http.get("/users", params={"name": "x"}, headers=bearer)).status_code == 422


@pytest.mark.parametrize(
    "password",
    [
        *("password1234", "PASSWORD!!!!", "1234567890123", "P@ssw0rd2026!", "passwordpassword", "qwertyuiop12"),
        *("aaaaaaaaaaaa", "abababababab", "............", "eve@example.com", "eve123456789", "Triton!!!!!!"),
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44\uff11\uff12\uff13\uff14",
    ],
)
def test_what_everybody_tries_first_is_no_password(password):
    with pytest.raises(PasswordTooCommon):
        check_strength(password, email="eve@example.com")


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "a long enough password",
        "\u5bc6\u7801\u5f88\u957f\u7684\u4e00\u53e5\u8bdd\u554a\u554a\u662f",
        "x9!Kd7#qLm2$",
    ],
)
def test_other_passwords_are_the_owners_choice(password):
    check_strength(password, email="eve@example.com")


async def test_a_password_is_the_same_in_every_spelling_of_unicode(http, bearer):
    new = EVE | {"password": "Stra\u00dfe am \u00c5ngstr\u00f6m"}
    assert (await http.post("/users", json=new, headers=bearer)).status_code == 201
    assert (await log_in(http, password="Stra\u00dfe am A\u030angstro\u0308m")).status_code == 200


async def test_what_is_done_with_accounts_is_in_the_audit_log(http, bearer, eve, rows):
    user_id, _ = eve
    await http.patch(f"/users/{user_id}", json={"role": "viewer"}, headers=bearer | {"X-Request-ID": "request-0007"})
    admin = (await http.get("/me", headers=bearer)).json()["id"]
    assert rows("SELECT * FROM audit_events WHERE action = 'user.changed'")
    (event,) = rows(
        "SELECT source, actor_kind, actor_id, object_kind, object_id, address, request_id, outcome, details"
        " FROM audit_events WHERE action = 'user.changed'"
    )
    assert event == (
        *("auth-service", "user", admin, "user", user_id, "127.0.0.1", "request-0007", "succeeded"),
        {"changed": {"role": "viewer"}},
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET action = 'nothing'",
        "UPDATE audit_events SET seq = 1, hash = 'x', outcome = 'failed'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
    ],
)
def test_an_audit_event_stays_as_it_is(rows, statement):
    rows(
        "INSERT INTO audit_events (id, at, source, actor_kind, action, request_id, outcome, details)"
        " VALUES (gen_random_uuid(), now(), 'jobs-service', 'system', 'job.begun', '', 'succeeded', '{}')"
    )
    with pytest.raises(Exception, match="audit events stay as they are"):
        rows(statement)
    sealed = "UPDATE audit_events SET seq = 1, hash = 'x' "
    rows(sealed)
    with pytest.raises(Exception, match="audit events stay as they are"):
        rows(sealed.replace("seq = 1", "seq = 2"))


async def test_a_subject_that_is_no_id_is_no_token_of_ours(make_settings, running, as_user):
    app = build(make_settings())
    async with running(app) as http:
        answers = [
            await http.get("/api/v1/auth/me", headers=as_user(sub="ada")),
            await http.get("/api/v1/auth/sessions", headers=as_user(sub="ada")),
            await http.get("/api/v1/auth/api-keys", headers=as_user(sub="ada")),
            await http.post(
                "/api/v1/auth/api-keys", json={"name": "x", "scopes": ["jobs:read"]}, headers=as_user(sub="ada")
            ),
        ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "token_malformed")] * 4
