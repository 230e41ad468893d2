"""Client credentials: POST /token."""

import base64

import pytest

from auth_service.main import build
from triton_common.auth import SCOPES_OF_ROLE

SECRET = "agent-secret-of-the-tests"
GRANT = {"grant_type": "client_credentials"}
FORM = GRANT | {"client_id": "agent-runner", "client_secret": SECRET}


async def test_a_token_by_http_basic(http):
    answer = await http.post("/token", data=GRANT, auth=("agent-runner", SECRET))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert set(body["scope"].split()) == SCOPES_OF_ROLE["service"]
    me = await http.get("/me", headers={"Authorization": f"Bearer {body['access_token']}"})
    assert me.status_code == 200
    assert me.json()["email"] is None
    assert me.json()["role"] == "service"
    assert me.json()["scopes"] == body["scope"].split()


async def test_a_token_by_form_fields(http):
    answer = await http.post("/token", data=FORM)
    assert answer.status_code == 200


async def test_a_machine_does_no_admins_work(http):
    token = (await http.post("/token", data=FORM)).json()["access_token"]
    answer = await http.get("/users", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403


async def test_scope_narrows_the_token(http):
    answer = await http.post("/token", data=FORM | {"scope": "data:read jobs:work"})
    assert answer.json()["scope"] == "data:read jobs:work"
    beyond = await http.post("/token", data=FORM | {"scope": "data:read users:admin"})
    assert beyond.status_code == 400
    assert beyond.json()["error"] == "invalid_scope"


@pytest.mark.parametrize(
    "change",
    [
        {"client_secret": "wrong"},
        {"client_secret": ""},
        {"client_secret": "x" * 100_000},
        {"client_id": "nobody"},
        {"client_id": ""},
        {"client_id": "agent-runner\x00"},
        {"client_id": "agent-runner' OR 1=1 --"},
        {"client_secret": "\udcff"},
    ],
)
async def test_wrong_credentials_are_all_the_same(http, change):
    fields = FORM | change
    answer = await http.post(
        "/token", content="&".join(f"{key}={_quoted(value)}" for key, value in fields.items()), headers=_FORM_TYPE
    )
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="triton"'
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert body["code"] == body["error"] == "invalid_client"
    assert body["message"] == body["error_description"]


_FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}


def _quoted(value):
    return "".join(f"%{byte:02x}" for byte in value.encode(errors="surrogateescape"))


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !", "Basic " + base64.b64encode(b"no colon").decode(), "Basic /w=="]
)
async def test_a_malformed_basic_header_is_refused(http, header):
    answer = await http.post("/token", data=GRANT, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password", "username": "ada", "password": "x"}, "unsupported_grant_type"),
    ],
)
async def test_other_grants_are_refused_in_the_words_of_oauth(http, fields, error):
    answer = await http.post("/token", data=fields)
    assert answer.status_code == 400
    assert answer.json()["error"] == error


async def test_credentials_come_one_way(http):
    answer = await http.post("/token", data=FORM, auth=("agent-runner", SECRET))
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"


async def test_json_is_no_token_request(http):
    answer = await http.post("/token", json=FORM)
    assert answer.json()["error"] == "invalid_request"
    assert "x-www-form-urlencoded" in answer.json()["message"]


async def test_a_percent_encoded_secret_is_read_as_oauth_has_it(make_settings, starting):
    secret = "a+b/c%d=e:f-and-more"
    async with starting(build(make_settings(agent_client_secret=secret))) as http:
        for sent in (secret.replace("%", "%25"), "a%2Bb%2Fc%25d%3De%3Af-and-more"):
            answer = await http.post("/token", data=GRANT, auth=("agent-runner", sent))
            assert answer.status_code == 200
