"""No secret, token, password or hash reaches the log, whatever is asked."""

from urllib.parse import urlsplit

from auth_service.main import build
from auth_service.schemas import LoginRequest, ServiceTokenPublic, TokenPair, UserCreate

MARKED = "marked-Secret-9f2c"


async def test_logs_hold_no_secret(make_settings, starting, capsys, rows, postgres_url):
    settings = make_settings(
        log_level="TRACE",
        key_secret=f"{MARKED}-key",
        agent_client_secret=f"{MARKED}-agent",
        bootstrap_password=f"{MARKED}-admin",
    )
    seen = [MARKED, urlsplit(postgres_url).password]
    async with starting(build(settings)) as http:
        email = "ada@triton.local"
        pair = (await http.post("/login", json={"email": email, "password": f"{MARKED}-admin"})).json()
        bearer = {"Authorization": f"Bearer {pair['access_token']}"}
        refreshed = (await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})).json()
        form = {"grant_type": "client_credentials", "client_id": "agent-runner", "client_secret": f"{MARKED}-agent"}
        granted = (await http.post("/token", data=form)).json()
        await http.get("/me", headers=bearer)
        await http.get("/me", headers={"Authorization": f"Bearer {MARKED}"})
        await http.post("/users", json={"email": email, "password": f"{MARKED}-dup", "role": "viewer"}, headers=bearer)
        await http.post("/users", json={"email": MARKED, "password": MARKED, "role": MARKED, MARKED: 1}, headers=bearer)
        await http.post("/login", json={"email": email, "password": f"{MARKED}-wrong"})
        await http.post("/login", json={"email": email, "password": MARKED * 10})
        await http.post("/token", data=form | {"client_secret": MARKED})
        await http.post("/refresh", json={"refresh_token": MARKED})
        await http.post("/refresh", json={"refresh_token": refreshed["refresh_token"]})
        await http.post("/refresh", json={"refresh_token": pair["refresh_token"]})
        await http.post("/logout", json={"refresh_token": refreshed["refresh_token"]})
        # what nobody caught: a user with a role that no release knows
        rows("ALTER TABLE users DROP CONSTRAINT ck_users_role_known")
        rows("UPDATE users SET role = 'emperor'")
        broken = await http.post("/login", json={"email": email, "password": f"{MARKED}-admin"})
        assert broken.status_code == 500
        seen += [pair["access_token"], pair["refresh_token"], refreshed["access_token"], refreshed["refresh_token"]]
        seen += [granted["access_token"]]
    seen += [value for row in rows("SELECT password_hash FROM users") for value in row]
    out = capsys.readouterr()
    lines = out.out + out.err
    assert "request served" in lines
    assert '"code":"invalid_credentials"' in lines
    assert "refresh token used again: session ended" in lines
    for secret in seen:
        assert secret not in lines


def test_reprs_of_bodies_hold_no_secret():
    bodies = [
        LoginRequest(email="ada@triton.local", password=MARKED),
        UserCreate(email="ada@triton.local", password=MARKED, role="admin"),
        TokenPair(access_token=MARKED, refresh_token=MARKED, expires_in=1),
        ServiceTokenPublic(access_token=MARKED, expires_in=1, scope="data:read"),
    ]
    for body in bodies:
        assert MARKED not in repr(body)
        assert MARKED not in str(body)
