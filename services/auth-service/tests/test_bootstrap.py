"""What a start makes, and makes once; and what stops it."""

import asyncio

import pytest
from pydantic import SecretStr, ValidationError

from auth_service.main import build
from auth_service.settings import Settings

LOGIN = {"email": "ada@triton.local", "password": "a long enough password"}
GRANT = {"grant_type": "client_credentials", "client_id": "agent-runner"}


async def test_a_second_start_makes_nothing_anew(make_settings, starting, rows):
    def made():
        return [
            rows("SELECT id, password_hash FROM users"),
            rows("SELECT id, secret_hash FROM service_accounts"),
            rows("SELECT kid, private_key FROM signing_keys"),
        ]

    async with starting(build(make_settings())) as http:
        before = made()
        tokens = (await http.post("/login", json=LOGIN)).json()
    async with starting(build(make_settings())) as http:
        assert made() == before
        me = await http.get("/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
        assert me.status_code == 200
        assert (await http.post("/refresh", json={"refresh_token": tokens["refresh_token"]})).status_code == 200


async def test_processes_that_start_at_once_make_one_of_each(make_settings, starting, rows):
    apps = [build(make_settings()) for _ in range(4)]

    async def start_and_log_in(app):
        async with starting(app) as http:
            return (await http.post("/login", json=LOGIN)).status_code

    assert await asyncio.gather(*(start_and_log_in(app) for app in apps)) == [200] * 4
    for table in ("users", "service_accounts", "signing_keys"):
        assert rows(f"SELECT count(*) FROM {table}") == [(1,)]
    assert len({app.state.keys.signing.kid for app in apps}) == 1


async def test_a_token_of_one_process_is_good_in_another(make_settings, starting):
    async with starting(build(make_settings())) as one, starting(build(make_settings())) as other:
        tokens = (await one.post("/login", json=LOGIN)).json()
        me = await other.get("/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
        assert me.status_code == 200
        refreshed = await other.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
        repeated = await one.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert refreshed.json()["refresh_token"] == repeated.json()["refresh_token"]


async def test_the_first_admin_is_made_only_when_there_is_no_user(make_settings, starting, rows):
    async with starting(build(make_settings())):
        pass
    other = make_settings(bootstrap_email="eve@triton.local", bootstrap_password="another long password")
    async with starting(build(other)):
        assert rows("SELECT email, role, client_id FROM users") == [("ada@triton.local", "admin", None)]


async def test_a_start_without_a_first_admin_says_how_to_make_one(make_settings, starting, rows, capsys):
    async with starting(build(make_settings(bootstrap_email=None, bootstrap_password=None))):
        assert rows("SELECT count(*) FROM users") == [(0,)]
    assert "set AUTH_BOOTSTRAP_EMAIL and AUTH_BOOTSTRAP_PASSWORD" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"bootstrap_email": "ada"}, "AUTH_BOOTSTRAP_EMAIL"),
        ({"bootstrap_password": "sesame"}, "AUTH_BOOTSTRAP_PASSWORD"),
    ],
)
async def test_a_first_admin_that_cannot_be_stops_the_start(make_settings, starting, values, variable):
    with pytest.raises(ValueError, match=variable) as stopped:
        async with starting(build(make_settings(**values))):
            pass
    assert "sesame" not in str(stopped.value)


async def test_another_key_secret_stops_the_start(make_settings, starting):
    async with starting(build(make_settings())):
        pass
    with pytest.raises(ValueError, match="AUTH_KEY_SECRET") as stopped:
        async with starting(build(make_settings(key_secret="another-key-secret"))):
            pass
    assert "another-key-secret" not in str(stopped.value)


async def test_the_agents_secret_is_the_one_of_the_last_start(make_settings, starting):
    async with starting(build(make_settings(agent_client_secret="the-first-secret"))):
        pass
    async with starting(build(make_settings(agent_client_secret="the-second-secret"))) as http:
        old = await http.post("/token", data=GRANT | {"client_secret": "the-first-secret"})
        new = await http.post("/token", data=GRANT | {"client_secret": "the-second-secret"})
        assert (old.status_code, new.status_code) == (401, 200)


def test_outside_dev_missing_secrets_stop_the_start(monkeypatch):
    monkeypatch.setenv("TRITON_ENV", "prod")
    monkeypatch.setenv("AUTH_KEY_SECRET", "")
    with pytest.raises(ValidationError) as stopped:
        Settings()
    for variable in ("DATABASE_URL", "REDIS_URL", "AUTH_KEY_SECRET", "AUTH_AGENT_CLIENT_SECRET"):
        assert variable in str(stopped.value)
    assert "AUTH_BOOTSTRAP_PASSWORD" not in str(stopped.value)


def test_outside_dev_a_weak_first_password_stops_the_start():
    good = {
        "environment": "prod",
        "database_url": "postgresql://triton:Wq7hT9zLr2Xc5vBn@127.0.0.1/auth",
        "key_secret": "d3Z5LJxwW1c4rTq8",
        "agent_client_secret": "b8Kp2uYt7QmN5xVe",
        "redis_url": "redis://:q7Zr2LxN8vTy4WbE@127.0.0.1:6379/0",
    }
    assert Settings(**good).access_token_ttl.total_seconds() == 24 * 3600
    with pytest.raises(ValidationError, match="AUTH_BOOTSTRAP_PASSWORD"):
        Settings(**good, bootstrap_password=SecretStr("password1234"))


def test_durations_are_read_as_seconds_or_iso_8601(monkeypatch):
    monkeypatch.setenv("AUTH_ACCESS_TOKEN_TTL", "PT15M")
    monkeypatch.setenv("AUTH_REFRESH_TOKEN_TTL", "P7D")
    assert Settings().access_token_ttl.total_seconds() == 900
    assert Settings().refresh_token_ttl.days == 7
