"""Each route of auth-service that changes something, and each refusal that matters, leaves its event: who, from where,
by which request, with what outcome."""

import itertools

import pytest
from uuid_utils.compat import uuid7

from auth_service.keys import AT_ONCE
from auth_service.main import build
from auth_service.sweeps import sweep
from auth_service.throttle import TOLD

EMAIL, PASSWORD, SECRET = "ada@triton.local", "a long enough password", "agent-secret-of-the-tests"
SSO = {
    "sso_discovery_url": "http://127.0.0.1:9/.well-known/openid-configuration",
    "sso_client_id": "triton",
    "sso_redirect_uri": "http://127.0.0.1:9/api/v1/auth/sso/callback",
    "sso_return_origins": "http://127.0.0.1:9",
    "sso_allowed_domains": "triton.local",
}
CHANGES_NOTHING = {"GET", "HEAD"}


@pytest.fixture
async def served(make_settings, starting, rows):
    """`await served.do(…)`: a request, and the one event it must have left."""

    class Served:
        def __init__(self, app, http):
            self.app, self.http = app, http
            self.numbers, self.covered = itertools.count(), set()

        async def do(self, route, action, *, outcome="succeeded", actor="user", count=1, headers=None, **request):
            method, path = route.split(" ", 1)
            self.covered.add(f"{method} {path}")
            request_id = f"request-{next(self.numbers):06}"
            answer = await self.http.request(
                method,
                path.format(**request.pop("path", {})),
                headers=(headers or {}) | {"X-Request-ID": request_id},
                **request,
            )
            left = rows(
                "SELECT action, outcome, actor_kind, actor_id IS NOT NULL, address, source FROM audit_events"
                " WHERE request_id = %s AND action = %s",
                request_id,
                action,
            )
            known = actor != "anonymous"
            assert left == [(action, outcome, actor, known, "127.0.0.1", "auth-service")] * count, (route, answer.text)
            return answer.json() if answer.content else None

        async def log_in(self, email=EMAIL, password=PASSWORD):
            body = {"email": email, "password": password}
            pair = await self.do("POST /login", "login.succeeded", json=body)
            return pair, {"Authorization": f"Bearer {pair['access_token']}"}

    app = build(make_settings(**SSO))
    async with starting(app) as http:
        yield Served(app, http)


async def test_every_route_that_changes_something_leaves_its_event(served, rows):
    do = served.do
    pair, admin = await served.log_in()
    pair = await do("POST /refresh", "session.refreshed", json={"refresh_token": pair["refresh_token"]})
    await do("POST /logout", "session.ended", json={"refresh_token": pair["refresh_token"]})
    _, admin = await served.log_in()

    key = await do("POST /api-keys", "api_key.created", headers=admin, json={"name": "k", "scopes": ["jobs:read"]})
    await do("DELETE /api-keys/{id}", "api_key.revoked", headers=admin, path=key)

    new = {"email": "eve@triton.local", "password": PASSWORD, "role": "editor"}
    user = await do("POST /users", "user.created", headers=admin, json=new)
    await do("PATCH /users/{id}", "user.changed", headers=admin, path=user, json={"role": "viewer"})
    await do("POST /users/{id}/deactivate", "user.deactivated", headers=admin, path=user)
    await do("POST /users/{id}/activate", "user.activated", headers=admin, path=user)
    for _ in "ab":
        await served.log_in(new["email"])
    await do("DELETE /users/{id}/sessions", "session.ended", count=2, headers=admin, path=user)
    await served.log_in(new["email"])
    reset = {"headers": admin, "path": user, "json": {"password": "another long password"}}
    await do("PUT /users/{id}/password", "user.password_reset", **reset)
    assert rows("SELECT details->>'reason' FROM audit_events WHERE action = 'session.ended' ORDER BY id") == [
        ("logout",),
        *[("ended_by_admin",)] * 2,
        ("password_changed",),
    ]
    await do("DELETE /users/{id}/sso-identities", "user.sso_unlinked", headers=admin, path=user)

    for _ in "ab":
        _, eve = await served.log_in(new["email"], "another long password")
    await do("DELETE /sessions", "session.ended", headers=eve)
    await served.log_in(new["email"], "another long password")
    change = {"current_password": "another long password", "new_password": "yet another long one"}
    await do("PUT /me/password", "user.password_changed", headers=eve, json=change)
    [current] = (await served.http.get("/sessions", headers=eve)).json()["items"]
    await do("DELETE /sessions/{id}", "session.ended", headers=admin, path=current)

    account = {"name": "loader", "scopes": ["data:read"]}
    made = await do("POST /service-accounts", "service_account.created", headers=admin, json=account)
    of = {"headers": admin, "path": made}
    await do("PATCH /service-accounts/{id}", "service_account.changed", **of, json={"scopes": ["jobs:read"]})
    turned = await do("POST /service-accounts/{id}/rotate-secret", "service_account.secret_rotated", **of, json={})
    form = {"grant_type": "client_credentials", "client_id": "loader", "client_secret": turned["client_secret"]}
    await do("POST /token", "service_token.granted", actor="service", data=form)
    await do("POST /service-accounts/{id}/deactivate", "service_account.deactivated", **of)
    await do("POST /service-accounts/{id}/activate", "service_account.activated", **of)

    await do("POST /keys/rotate", "signing_key.made", headers=admin, json={"immediately": True})
    rows("UPDATE signing_keys SET signs_from = signs_from - interval '1 minute'")
    [old] = rows("SELECT kid FROM signing_keys WHERE verifies_until IS NOT NULL")
    await do("DELETE /keys/{kid}", "signing_key.revoked", headers=admin, path={"kid": old[0]})

    sso = {"outcome": "refused", "actor": "anonymous", "json": {"code": "nobody's"}}
    await do("POST /sso/token", "login.failed", **sso)

    plain = {route.replace("{id}", "{}").replace("{kid}", "{}") for route in served.covered}
    changing = {
        f"{method.upper()} {path.removeprefix('/api/v1/auth')}"
        for path, operations in served.app.openapi()["paths"].items()
        for method in operations
        if method.upper() not in CHANGES_NOTHING
    }
    for name in ("user_id", "session_id", "key_id", "account_id", "kid"):
        changing = {route.replace(f"{{{name}}}", "{}") for route in changing}
    assert plain == changing


async def test_refusals_leave_theirs(served):
    _, admin = await served.log_in()
    wrong = {"email": EMAIL, "password": "wrong"}
    await served.do("POST /login", "login.failed", outcome="refused", actor="anonymous", json=wrong)
    unknown = {"email": "nobody@triton.local", "password": "wrong"}
    await served.do("POST /login", "login.failed", outcome="refused", actor="anonymous", json=unknown)
    change = {"current_password": "wrong", "new_password": "yet another long one"}
    of = {"headers": admin, "json": change}
    await served.do("PUT /me/password", "user.password_changed", outcome="refused", **of)
    form = {"grant_type": "client_credentials", "client_id": "agent-runner", "client_secret": "wrong"}
    await served.do("POST /token", "service_token.refused", outcome="refused", actor="anonymous", data=form)
    form |= {"client_secret": SECRET, "scope": "users:admin"}
    await served.do("POST /token", "service_token.refused", outcome="refused", actor="service", data=form)


async def test_logins_that_are_throttled_leave_few(make_settings, starting, rows):
    count = "SELECT count(*), count(object_id) FROM audit_events WHERE action = %s"
    async with starting(build(make_settings(throttle_account=2, throttle_address=8, **SSO))) as http:
        for _ in range(5):
            answer = await http.post("/login", json={"email": EMAIL, "password": "wrong"})
        assert answer.status_code == 429
        assert rows(count, "login.throttled") == [(1, 1)]
        form = {"grant_type": "client_credentials", "client_id": "agent-runner", "client_secret": "wrong"}
        for _ in range(5):
            answer = await http.post("/token", data=form)
        assert answer.status_code == 429
        assert rows(count, "service_token.throttled") == [(1, 1)]
        for number in range(2 * TOLD):
            answer = await http.post("/login", json={"email": f"{number}@triton.local", "password": "wrong"})
        assert answer.status_code == 429
        assert rows("SELECT count(*) FROM audit_events WHERE action LIKE '%%.throttled'")[0][0] <= TOLD
    assert "@" not in str(rows("SELECT * FROM audit_events"))


async def test_what_the_platform_does_by_itself_leaves_events_of_the_system(app, http, rows):
    by_itself = (
        "SELECT action, object_kind FROM audit_events WHERE actor_kind = 'system' AND action <> ALL(%s) ORDER BY id"
    )
    assert rows(by_itself, []) == [
        ("signing_key.made", "signing_key"),
        ("user.created", "user"),
        ("service_account.created", "service_account"),
    ]
    rows("UPDATE signing_keys SET signs_from = signs_from - interval '100 days'")
    state = app.state
    await sweep(state.database, state.keys, state.revoker, rotation=AT_ONCE, lead=AT_ONCE)
    rows("UPDATE signing_keys SET verifies_until = now() - interval '1 day' WHERE verifies_until IS NOT NULL")
    await sweep(state.database, state.keys, state.revoker, rotation=AT_ONCE * 1000, lead=AT_ONCE)
    assert rows(by_itself, ["user.created", "service_account.created"]) == [
        ("signing_key.made", "signing_key"),
        ("signing_key.made", "signing_key"),
        ("signing_key.forgotten", "signing_key"),
    ]


async def test_a_clients_admin_sees_what_happens_to_its_users(http, bearer, rows):
    client = str(uuid7())
    new = {"email": "eve@triton.local", "password": PASSWORD, "role": "viewer", "client_id": client}
    user = (await http.post("/users", json=new, headers=bearer)).json()
    pair = (await http.post("/login", json={"email": new["email"], "password": PASSWORD})).json()
    eve = {"Authorization": f"Bearer {pair['access_token']}"}
    key = (await http.post("/api-keys", json={"name": "k", "scopes": ["jobs:read"]}, headers=eve)).json()
    await http.delete(f"/api-keys/{key['id']}", headers=bearer)
    await http.post("/login", json={"email": new["email"], "password": "wrong"})
    await http.post("/logout", json={"refresh_token": pair["refresh_token"]})
    await http.post(f"/users/{user['id']}/deactivate", headers=bearer)
    assert rows("SELECT action FROM audit_events WHERE client_id = %s ORDER BY id", client) == [
        ("user.created",),
        ("login.succeeded",),
        ("api_key.created",),
        ("api_key.revoked",),
        ("login.failed",),
        ("session.ended",),
        ("user.deactivated",),
    ]
