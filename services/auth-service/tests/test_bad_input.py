"""What nobody should send: bodies that are none, and texts that mean something to a database, a header or a shell."""

import re

import pytest
from uuid_utils.compat import uuid7

from auth_service.main import build
from auth_service.settings import Settings
from triton_common.settings import CommonSettings

JSON = "application/json"
OPERATIONS = [
    (method, path.removeprefix("/api/v1/auth"), operation)
    for path, methods in build(Settings()).openapi()["paths"].items()
    for method, operation in methods.items()
]
WRITES = [
    (method, path)
    for method, path, operation in OPERATIONS
    if JSON in operation.get("requestBody", {}).get("content", {})
]
LISTS = [
    path
    for _, path, operation in OPERATIONS
    if "limit" in {parameter["name"] for parameter in operation.get("parameters", [])} and "{" not in path
]
TOO_LARGE = CommonSettings().max_body_bytes + 1
INJECTIONS = [
    "'; DROP TABLE users; --",
    '" OR ""="',
    "%' OR '1'='1",
    "$(touch /tmp/x) `id` | cat /etc/passwd",
    "{{7*7}} ${7*7} %s %(x)s {0.__class__}",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "../../../etc/passwd",
    "\r\nSet-Cookie: session=stolen\r\n\r\n",
    "\u202egpj.exe",
    "\ud7ff\ufeff\u2028",
]


@pytest.fixture
def app(make_settings):
    """With single sign-on, at a provider that does not listen."""
    provider = {
        "sso_discovery_url": "http://127.0.0.1:9/.well-known/openid-configuration",
        "sso_client_id": "triton",
        "sso_redirect_uri": "http://test/api/v1/auth/sso/callback",
        "sso_return_origins": "http://app.example",
        "sso_allowed_domains": "example.com",
    }
    return build(make_settings(**provider))


@pytest.mark.parametrize(
    ("body", "content_type", "answer"),
    [
        (b'{"x": "' + b"x" * TOO_LARGE + b'"}', JSON, (413, "content_too_large")),
        (b"{}", "text/plain", (415, "unsupported_content")),
        (b"{}", "application/x-www-form-urlencoded", (415, "unsupported_content")),
        (b"{}", None, (415, "unsupported_content")),
        (b"[" * 200_000 + b"]" * 200_000, JSON, (422, "malformed_json")),
        (b'{"x":' * 100_000 + b"1" + b"}" * 100_000, JSON, (422, "malformed_json")),
        (b'{"x": ' + b"1" * 5_000 + b"}", JSON, (422, "malformed_json")),
        (b'{"x": "\xff"}', JSON, (422, "malformed_json")),
        (b'{"x": ', JSON, (422, "malformed_json")),
        (b'{"x": NaN}', JSON, (422, "validation_failed")),
        (b'{"__proto__": {}, "constructor": 1}', JSON, (422, "validation_failed")),
        (b"[]", JSON, (422, "validation_failed")),
        (b"null", JSON, (422, "validation_failed")),
        (b'"a string"', JSON, (422, "validation_failed")),
    ],
    ids=[
        *("too large", "plain text", "a form", "of no type", "deep lists", "deep objects", "a long number"),
        *("not UTF-8", "half", "NaN", "unknown fields", "a list", "null", "a string"),
    ],
)
async def test_a_body_that_is_none_is_refused(http, bearer, body, content_type, answer):
    headers = bearer | ({"content-type": content_type} if content_type else {})
    for method, path in WRITES:
        url = re.sub(r"{\w+}", str(uuid7()), path)
        given = await http.request(method, url, content=body, headers=headers)
        assert (given.status_code, given.json()["code"]) == answer, f"{method} {path}"


@pytest.mark.parametrize("text", INJECTIONS)
async def test_a_text_is_a_text_and_nothing_else(http, bearer, rows, text):
    account = {"name": "etl", "scopes": ["jobs:read"], "description": text}
    made = await http.post("/service-accounts", json=account, headers=bearer | {"user-agent": repr(text)})
    assert made.json()["description"] == text
    for path in ("/users", "/sessions", "/api-keys", "/service-accounts"):
        given = await http.get(path, params={"cursor": text}, headers=bearer)
        assert (given.status_code, given.json()["code"]) == (400, "invalid_cursor")
    for name in ("email", "role", "client_id", "active", "limit", text):
        assert (await http.get("/users", params={name: text}, headers=bearer)).status_code == 422
    for path in ("/login", "/users"):
        body = {"email": f"{text}@example.com", "password": text}
        assert (await http.post(path, json=body, headers=bearer)).status_code == 422
    wrong = await http.post("/login", json={"email": "ada@triton.local", "password": text[:128]})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_credentials")
    form = {"grant_type": "client_credentials", "client_id": text, "client_secret": text}
    assert (await http.post("/token", data=form)).json()["error"] == "invalid_client"
    assert rows("SELECT email FROM users") == [("ada@triton.local",)]
    [account, _] = (await http.get("/service-accounts", headers=bearer)).json()["items"]
    assert account["description"] == text


async def test_a_parameter_of_a_list_comes_once(http, bearer):
    assert len(LISTS) > 4
    for path in LISTS:
        given = await http.get(f"{path}?limit=1&limit=200", headers=bearer)
        assert (given.status_code, given.json()["details"][0]["code"]) == (422, "repeated"), path
