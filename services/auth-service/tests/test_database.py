"""The migrations, the tables' own rules, and a Postgres that goes and comes back."""

import os
import subprocess
import sys

import psycopg
import pytest

from auth_service.models import RefreshToken, ServiceAccount, SigningKey, User


def alembic(folder, url, *command):
    return subprocess.run(
        [sys.executable, "-m", "alembic", *command],
        cwd=folder,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_migrations_go_up_down_and_up_and_match_the_models(postgres_url, member_folder, rows):
    alembic(member_folder, postgres_url, "downgrade", "base")
    assert rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("alembic_version",)]
    alembic(member_folder, postgres_url, "upgrade", "head")
    assert "No new upgrade operations detected" in alembic(member_folder, postgres_url, "check").stdout


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET role = 'emperor'",
        "UPDATE sessions SET ended_at = now()",
        "UPDATE sessions SET end_reason = 'logout'",
        "UPDATE sessions SET end_reason = 'boredom', ended_at = now()",
    ],
)
async def test_the_database_refuses_what_must_never_be(http, pair, rows, statement):
    with pytest.raises(psycopg.errors.CheckViolation):
        rows(statement)


def test_reprs_of_rows_hold_no_secret():
    made = [
        User(email="ada@triton.local", password_hash="marked-9f2c", role="admin"),
        ServiceAccount(name="agent-runner", secret_hash="marked-9f2c"),
        SigningKey(kid="k", public_jwk={}, private_key=b"marked-9f2c"),
        RefreshToken(token_hash=b"marked-9f2c"),
    ]
    for row in made:
        assert "marked-9f2c" not in repr(row)


async def test_without_postgres_503_and_with_it_again_200(http, pair, bearer, postgres_server):
    login = {"email": "ada@triton.local", "password": "a long enough password"}
    new = {"email": "eve@triton.local", "password": "a long enough password", "role": "viewer"}
    form = {"grant_type": "client_credentials", "client_id": "agent-runner", "client_secret": "x"}
    token = {"refresh_token": pair["refresh_token"]}
    postgres_server.stop()
    try:
        for answer in [
            await http.post("/login", json=login),
            await http.post("/refresh", json=token),
            await http.post("/logout", json=token),
            await http.post("/token", data=form),
            await http.get("/me", headers=bearer),
            await http.get("/users", headers=bearer),
            await http.get("/users/01a203da-43b5-7609-b3ec-6e1723f821c0", headers=bearer),
            await http.post("/users", json=new, headers=bearer),
        ]:
            assert answer.status_code == 503
            assert answer.json()["code"] == "database_unavailable"
        assert (await http.get("/.well-known/jwks.json")).status_code == 200
    finally:
        postgres_server.start()
    for _ in range(3):
        answer = await http.post("/refresh", json=token)
        if answer.status_code == 200:
            break
    assert answer.status_code == 200
