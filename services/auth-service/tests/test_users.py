"""Users: made and listed by admins; one who is bound to a client sees that client's alone."""

import asyncio
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

NEW = {"email": "Grace@Example.com", "password": "twelve chars", "role": "editor"}


@pytest.fixture
async def http(app, running):
    """A client of the app, which trusts the test key: for headers of as_user."""
    async with running(app) as client:
        client.base_url = "http://test/api/v1/auth"
        yield client


async def test_an_admin_makes_a_user_who_can_log_in(http, as_user):
    answer = await http.post("/users", json=NEW, headers=as_user())
    assert answer.status_code == 201
    user = answer.json()
    assert user.keys() == {
        *("id", "email", "role", "client_id", "created_at"),
        *("deactivated_at", "last_login_at", "has_password"),
    }
    assert user["email"] == "grace@example.com"
    assert answer.headers["Location"] == f"/api/v1/auth/users/{user['id']}"
    assert (await http.get(f"/users/{user['id']}", headers=as_user())).json() == user
    login = await http.post("/login", json={"email": "grace@example.com", "password": NEW["password"]})
    assert login.status_code == 200
    assert (await http.get(f"/users/{user['id']}", headers=as_user())).json()["last_login_at"]


async def test_a_client_bound_user_has_the_client_in_their_token(app, starting, rows):
    client_id = str(uuid7())
    async with starting(app) as http:
        login = await http.post("/login", json={"email": "ada@triton.local", "password": "a long enough password"})
        admin = {"Authorization": f"Bearer {login.json()['access_token']}"}
        made = await http.post("/users", json=NEW | {"client_id": client_id}, headers=admin)
        assert made.json()["client_id"] == client_id
        login = await http.post("/login", json={"email": NEW["email"], "password": NEW["password"]})
        me = await http.get("/me", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
        assert me.json()["client_id"] == client_id
        assert me.json()["role"] == "editor"


async def test_an_address_is_taken_once_in_any_spelling(http, as_user):
    assert (await http.post("/users", json=NEW, headers=as_user())).status_code == 201
    # in capitals, full-width, mathematical and circled letters, with blanks, and a full-width @ and stop
    for spelling in (
        "GRACE@example.COM",
        "\uff47race@example.com",
        "\U0001d420race@example.com",
        "\u24d6race@example.com",
        " grace@example.com ",
        "grace\uff20example\uff0ecom",
        "grace@\uff45xample.com",
    ):
        again = await http.post("/users", json=NEW | {"email": spelling}, headers=as_user())
        assert (again.status_code, again.json()["code"]) == (409, "already_exists"), ascii(spelling)


async def test_an_address_that_only_looks_like_anothers_is_refused(http, as_user):
    # a Cyrillic a, a Greek omicron and a Cyrillic e among Latin letters
    for alike in ("gr\u0430ce@example.com", "grace@ex\u03bfmple.com", "grace@mail.\u0435xample.com"):
        answer = await http.post("/users", json=NEW | {"email": alike}, headers=as_user())
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "body.email"), ascii(alike)
    for one in ("\u0438\u0432\u0430\u043d@example.com", "zo\u00eb.\u03b6\u03c9\u03ae@m\u00fcnchen.example"):
        answer = await http.post("/users", json=NEW | {"email": one}, headers=as_user())
        assert answer.status_code == 201, ascii(one)


async def test_of_two_at_once_one_gets_the_address(http, as_user):
    answers = await asyncio.gather(*(http.post("/users", json=NEW, headers=as_user()) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"password": "eleven char"}, "body.password"),
        ({"password": "x" * 129}, "body.password"),
        ({"email": "grace"}, "body.email"),
        ({"email": f"{'g' * 250}@example.com"}, "body.email"),
        ({"role": "service"}, "body.role"),
        ({"client_id": "7"}, "body.client_id"),
        ({"is_admin": True}, "body.is_admin"),
    ],
)
async def test_a_bad_field_is_named(http, as_user, change, field):
    answer = await http.post("/users", json=NEW | change, headers=as_user())
    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


@pytest.mark.parametrize(
    ("password", "issue"),
    [
        ("eleven char", "Value should have at least 12 characters, not 11"),
        ("x" * 129, "Value should have at most 128 characters, not 129"),
    ],
)
async def test_the_length_of_a_secret_is_told_in_characters(http, as_user, password, issue):
    answer = await http.post("/users", json=NEW | {"password": password}, headers=as_user())
    assert [detail["issue"] for detail in answer.json()["details"]] == [issue]


async def test_all_or_nothing_is_known_of_an_unknown_user(http, as_user):
    answer = await http.get(f"/users/{uuid7()}", headers=as_user())
    assert answer.status_code == 404
    assert answer.json()["code"] == "user_not_found"
    assert (await http.get("/users/7", headers=as_user())).status_code == 422


async def test_the_list_has_the_newest_first_by_pages(http, as_user):
    for number in range(3):
        await http.post("/users", json=NEW | {"email": f"user{number}@example.com"}, headers=as_user())
    first = (await http.get("/users", params={"limit": 3}, headers=as_user())).json()
    assert [user["email"] for user in first["items"]] == [f"user{number}@example.com" for number in (2, 1, 0)]
    rest = (await http.get("/users", params={"cursor": first["next_cursor"]}, headers=as_user())).json()
    assert [user["email"] for user in rest["items"]] == ["ada@triton.local"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["x", "WzEsICJub3QgYW4gaWQiXQ", "WzIsICJhIl0"])
async def test_a_cursor_no_list_gave_is_refused(http, as_user, cursor):
    answer = await http.get("/users", params={"cursor": cursor}, headers=as_user())
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_cursor"


@pytest.mark.parametrize("path", ["/users", f"/users/{UUID(int=0)}"])
async def test_users_are_for_admins(http, as_user, path):
    assert (await http.get(path)).json()["code"] == "missing_token"
    for role in ("editor", "viewer", "service"):
        answer = await http.get(path, headers=as_user(role))
        assert answer.status_code == 403
        assert answer.json()["code"] == "insufficient_scope"
        assert "users:admin" in answer.json()["message"]


async def test_only_admins_make_users(http, as_user):
    assert (await http.post("/users", json=NEW)).status_code == 401
    assert (await http.post("/users", json=NEW, headers=as_user("editor"))).status_code == 403


async def test_a_client_bound_admin_sees_and_makes_that_clients_users_alone(http, as_user):
    own, foreign = uuid7(), uuid7()
    bound = as_user("admin", client_id=own)
    made = {}
    for client_id in (own, foreign, None):
        body = NEW | {"email": f"{client_id}@example.com", "client_id": str(client_id) if client_id else None}
        made[client_id] = (await http.post("/users", json=body, headers=as_user())).json()
    listed = (await http.get("/users", headers=bound)).json()["items"]
    assert listed == [made[own]]
    assert (await http.get(f"/users/{made[own]['id']}", headers=bound)).status_code == 200
    for client_id in (foreign, None):
        assert (await http.get(f"/users/{made[client_id]['id']}", headers=bound)).json()["code"] == "user_not_found"
        body = NEW | {"client_id": str(client_id) if client_id else None}
        refused = await http.post("/users", json=body, headers=bound)
        assert refused.status_code == 404
        assert refused.json()["code"] == "user_client_not_found"
    assert (await http.post("/users", json=NEW | {"client_id": str(own)}, headers=bound)).status_code == 201
