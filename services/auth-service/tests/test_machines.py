"""Service accounts as admins make and change them."""

from urllib.parse import urlencode

import pytest
from uuid_utils.compat import uuid7

NEW = {"name": "etl", "description": "Nightly extracts", "scopes": ["data:read", "data:write"]}


def headers(token):
    return {"Authorization": f"Bearer {token['access_token']}"}


async def token(http, account, secret=None, **form):
    auth = (account["name"], secret or account["client_secret"])
    return await http.post("/token", data={"grant_type": "client_credentials"} | form, auth=auth)


@pytest.fixture
async def etl(http, bearer):
    """A service account with its secret."""
    answer = await http.post("/service-accounts", json=NEW, headers=bearer)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Location"].endswith(answer.json()["id"])
    return answer.json()


async def test_an_account_gets_tokens_with_its_scopes(http, bearer, etl, rows):
    granted = (await token(http, etl)).json()
    assert granted["scope"] == "data:read data:write"
    me = (await http.get("/me", headers=headers(granted))).json()
    assert (me["id"], me["kind"], me["scopes"]) == (etl["id"], "service", ["data:read", "data:write"])
    assert (await token(http, etl, scope="users:admin")).json()["error"] == "invalid_scope"
    shown = (await http.get(f"/service-accounts/{etl['id']}", headers=bearer)).json()
    assert shown["last_used_at"]
    assert "client_secret" not in shown
    listed = (await http.get("/service-accounts", headers=bearer)).json()["items"]
    assert [one["name"] for one in listed] == ["etl", "agent-runner"]
    assert etl["client_secret"] not in str(rows("SELECT * FROM service_accounts"))


async def test_an_account_of_a_client_sees_that_client_alone(http, bearer):
    client_id = str(uuid7())
    account = (await http.post("/service-accounts", json=NEW | {"client_id": client_id}, headers=bearer)).json()
    granted = (await token(http, account)).json()
    assert (await http.get("/me", headers=headers(granted))).json()["client_id"] == client_id


async def test_a_name_is_taken_once(http, bearer, etl):
    again = await http.post("/service-accounts", json=NEW, headers=bearer)
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")


@pytest.mark.parametrize("change", [{"name": "Etl"}, {"name": "-etl"}, {"name": "e" * 65}, {"scopes": ["jobs:fly"]}])
async def test_an_account_that_cannot_be_is_refused(http, bearer, change):
    assert (await http.post("/service-accounts", json=NEW | change, headers=bearer)).status_code == 422


@pytest.mark.parametrize("scope", ["keys:admin", "service-accounts:admin"])
async def test_an_account_of_a_client_does_nothing_for_the_whole_platform(http, bearer, scope):
    bound = NEW | {"client_id": str(uuid7())}
    refused = await http.post("/service-accounts", json=bound | {"scopes": ["jobs:read", scope]}, headers=bearer)
    assert (refused.status_code, refused.json()["code"]) == (422, "scope_of_staff")
    made = (await http.post("/service-accounts", json=bound, headers=bearer)).json()
    refused = await http.patch(f"/service-accounts/{made['id']}", json={"scopes": [scope]}, headers=bearer)
    assert (refused.status_code, refused.json()["code"]) == (422, "scope_of_staff")


async def test_other_scopes_end_the_tokens_it_has(http, bearer, etl):
    granted = (await token(http, etl)).json()
    path = f"/service-accounts/{etl['id']}"
    described = await http.patch(path, json={"description": "Weekly"}, headers=bearer)
    assert described.json()["description"] == "Weekly"
    assert (await http.get("/me", headers=headers(granted))).status_code == 200
    changed = await http.patch(path, json={"scopes": ["data:read"]}, headers=bearer)
    assert changed.json()["scopes"] == ["data:read"]
    assert (await http.get("/me", headers=headers(granted))).json()["code"] == "token_revoked"
    again = (await token(http, etl)).json()
    assert (await http.get("/me", headers=headers(again))).json()["scopes"] == ["data:read"]
    assert (await http.patch(path, json={"scopes": None}, headers=bearer)).status_code == 422


async def test_a_new_secret_replaces_the_old_at_once_or_in_a_while(http, bearer, etl, rows):
    path = f"/service-accounts/{etl['id']}/rotate-secret"
    second = (await http.post(path, json={"keep_old_for_seconds": 60}, headers=bearer)).json()
    assert second["previous_expires_at"]
    for secret in (etl["client_secret"], second["client_secret"]):
        assert (await token(http, etl, secret)).status_code == 200
    rows("UPDATE service_accounts SET previous_expires_at = now() WHERE name = 'etl' RETURNING id")
    assert (await token(http, etl)).status_code == 401
    third = (await http.post(path, json={}, headers=bearer)).json()
    assert (await token(http, etl, second["client_secret"])).status_code == 401
    assert (await token(http, etl, third["client_secret"])).status_code == 200


async def test_a_deactivated_account_has_no_tokens_until_activated(http, bearer, etl):
    granted = (await token(http, etl)).json()
    path = f"/service-accounts/{etl['id']}"
    await http.post(f"{path}/rotate-secret", json={"keep_old_for_seconds": 60}, headers=bearer)
    off = await http.post(f"{path}/deactivate", headers=bearer)
    assert off.json()["deactivated_at"]
    assert (await http.post(f"{path}/deactivate", headers=bearer)).json() == off.json()
    assert (await http.get("/me", headers=headers(granted))).json()["code"] == "token_revoked"
    assert (await token(http, etl)).json()["error"] == "invalid_client"
    assert (await http.post(f"{path}/activate", headers=bearer)).json()["deactivated_at"] is None
    assert (await token(http, etl)).status_code == 200


async def test_an_unknown_account_is_not_found(http, bearer):
    path = f"/service-accounts/{uuid7()}"
    for answer in [
        await http.get(path, headers=bearer),
        await http.patch(path, json={"description": "x"}, headers=bearer),
        await http.post(f"{path}/rotate-secret", json={}, headers=bearer),
        await http.post(f"{path}/activate", headers=bearer),
    ]:
        assert (answer.status_code, answer.json()["code"]) == (404, "service_account_not_found")


@pytest.mark.parametrize("twice", ["grant_type", "scope", "client_id"])
async def test_a_parameter_that_comes_twice_is_refused(http, twice):
    form = f"grant_type=client_credentials&client_id=agent-runner&client_secret=x&scope=&{twice}=client_credentials"
    answer = await http.post("/token", content=form, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


GOOD = {"grant_type": "client_credentials", "client_id": "agent-runner", "client_secret": "agent-secret-of-the-tests"}


@pytest.mark.parametrize(
    "sent",
    [
        {"json": GOOD},
        {"files": {name: (None, value) for name, value in GOOD.items()}},
        {"files": {name: ("a-file.txt", value) for name, value in GOOD.items()}},
        {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
        {"content": urlencode(GOOD)},
        {"content": urlencode(GOOD) + "&a=1" * 2000, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {},
    ],
    ids=["JSON", "parts", "files", "no boundary", "of no type", "many fields", "nothing"],
)
async def test_what_is_no_form_is_refused_in_the_words_of_oauth(http, sent):
    refused = await http.post("/token", **sent)
    assert (refused.status_code, refused.json()["error"], refused.json()["code"]) == (400, *["invalid_request"] * 2)
    assert refused.headers["cache-control"] == "no-store"
    assert (await http.post("/token", data=GOOD)).status_code == 200
