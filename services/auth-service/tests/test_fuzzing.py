"""Requests that Schemathesis makes up from the OpenAPI document, valid ones and others: each is answered as it says."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2
import psycopg
import pytest
import requests
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from auth_service.main import build
from auth_service.settings import Settings
from triton_common.auth import SCOPES_OF_ROLE
from triton_common.testing import access_token

EXAMPLES = 8  # of each operation, beside those that cover its schema; each is sent by all of ROLES
ROLES = ("admin", "viewer", "")  # the last without a token of ours
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
NOBODY = "http://127.0.0.1:9"  # nothing listens on the discard port
SETTINGS = {
    "bootstrap_email": "ada@example.com",
    "bootstrap_password": "a long enough password",
    "key_secret": "key-secret-of-the-tests",
    "argon2_memory_kib": 8,
    "argon2_passes": 1,
    "sso_discovery_url": f"{NOBODY}/.well-known/openid-configuration",
    "sso_client_id": "triton",
    "sso_redirect_uri": "http://127.0.0.1/api/v1/auth/sso/callback",
    "sso_return_origins": "http://app.example",
    "sso_allowed_domains": "example.com",
}

schema = schemathesis.openapi.from_dict(build(Settings()).openapi())


@dataclass
class Service:
    """A running service, the headers of its first user in each role, and objects that there are."""

    url: str
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    there: dict[str, str] = field(default_factory=dict)
    http: requests.Session = field(default_factory=requests.Session)


@pytest.fixture(scope="module")
def service(postgres_server, migrated_template, serving) -> Iterator[Service]:
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE fuzzing TEMPLATE {migrated_template} STRATEGY FILE_COPY".encode())
    database_url = postgres_server.url("fuzzing")
    with serving(build(Settings(database_url=database_url, **SETTINGS))) as url:
        with psycopg.connect(database_url) as connection:
            [(ada,)] = connection.execute("SELECT id FROM users").fetchall()
        found = Service(url)
        for role in filter(None, ROLES):
            claims = {"sub": str(ada), "role": role, "scope": " ".join(SCOPES_OF_ROLE[role])}
            found.headers[role] = {"Authorization": f"Bearer {access_token(claims)}"}
        with httpx2.Client(base_url=f"{url}/api/v1/auth", headers=found.headers["admin"]) as http, found.http:
            for name, path, body in (
                (
                    "user_id",
                    "/users",
                    {"email": "bob@example.com", "password": "four words of no one", "role": "editor"},
                ),
                ("account_id", "/service-accounts", {"name": "etl", "scopes": ["data:read"]}),
                ("key_id", "/api-keys", {"name": "mine", "scopes": ["jobs:read"]}),
            ):
                found.there[name] = http.post(path, json=body).raise_for_status().json()["id"]
            yield found


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
def test_every_answer_is_documented(case, service):
    if case.meta.generation.mode.is_positive:  # an id that is made up finds nothing
        case.path_parameters = {
            name: service.there.get(name, made_up) for name, made_up in case.path_parameters.items()
        }
    for role in ROLES:
        answer = case.call(base_url=service.url, headers=service.headers.get(role), session=service.http)
        case.validate_response(answer, checks=CHECKS)
