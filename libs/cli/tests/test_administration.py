"""`triton users`, `sessions`, `service-accounts`, `api-keys` and `keys` on a real auth-service."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import httpx2
import pytest
from rich.console import Console

from triton_cli.lists import table_of
from triton_cli.machines import ACCOUNTS, API_KEYS, KEYS
from triton_cli.people import SESSIONS, USERS
from triton_cli.state import CHECKOUT

pytestmark = pytest.mark.timeout(300)  # the first has to wait for the servers

PASSWORD = "a long enough password"


def as_json(answer: Any) -> Any:
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


def lines(answer: Any) -> list[list[str]]:
    assert answer.exit_code == 0, answer.stderr
    return [line.split("\t") for line in answer.stdout.splitlines()]


def new_name(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:8]}"


def test_a_user_from_create_to_deactivate(admin, auth):
    email = f"{new_name('sam')}@example.com"
    created = admin("users", "create", email, "--role", "editor", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert created.exit_code == 0, created.stderr
    user_id = created.stdout.strip()
    assert str(uuid.UUID(user_id)) == user_id
    twice = admin("users", "create", email, "--password-stdin", stdin=PASSWORD)
    assert twice.exit_code == 1
    assert "(already_exists, request " in twice.stderr

    shown = as_json(admin("users", "show", email.upper(), "--json"))
    assert (shown["id"], shown["role"], shown["has_password"]) == (user_id, "editor", True)
    assert f"email                 {email}\n" in admin("users", "show", user_id).stdout
    [row] = lines(admin("users", "list", "--email", email))
    assert row[:3] == [user_id, email, "editor"]
    assert lines(admin("users", "list", "--email", email, "--deactivated")) == []

    assert as_json(admin("users", "change", email, "--role", "viewer", "--json"))["role"] == "viewer"
    assert admin("users", "change", email).exit_code == 2
    client = admin("users", "change", email, "--client", str(uuid.uuid4()))
    assert client.exit_code == 1
    assert "body.client_id" in client.stderr
    assert as_json(admin("users", "change", email, "--client", "none", "--json"))["client_id"] is None

    reset = admin("users", "reset-password", email, "--password-stdin", stdin="another long password")
    assert reset.stdout == f"{user_id}\tpassword reset\n"
    assert "another" not in reset.output
    log_in = f"{auth.url}/api/v1/auth/login"
    assert httpx2.post(log_in, json={"email": email, "password": "another long password"}).status_code == 200
    assert len(lines(admin("users", "sessions", email))) == 1
    assert admin("sessions", "end", "--user", email, "--yes").stdout == f"{user_id}\tended\n"
    assert lines(admin("users", "sessions", email)) == []

    unasked = admin("users", "deactivate", email)
    assert unasked.exit_code == 1
    assert f"Lock out {email}, and end all their sessions and API keys at {auth.url}?" in unasked.stderr
    assert "Where nobody can be asked, use --yes." in unasked.stderr
    assert admin("users", "deactivate", email, stdin="n\n").stderr.endswith("error: Nothing was changed.\n")
    assert admin("users", "deactivate", email, "--yes").stdout == f"{user_id}\tdeactivated\n"
    assert [row[0] for row in lines(admin("users", "list", "--email", email, "--deactivated"))] == [user_id]
    assert as_json(admin("users", "activate", email, "--json"))["deactivated_at"] is None
    unknown = admin("users", "show", "nobody@example.com")
    assert (unknown.exit_code, unknown.stderr) == (1, "error: There is no user nobody@example.com.\n")


def test_the_last_admin_stays(admin):
    answer = admin("users", "deactivate", "ada@triton.local", "--yes")
    assert answer.exit_code == 1
    assert "(last_admin, request " in answer.stderr


def test_lists_have_all_pages(admin):
    made = {admin("service-accounts", "create", new_name("page"), "--scope", "jobs:read").exit_code for _ in range(3)}
    assert made == {0}
    first = as_json(admin("service-accounts", "list", "-n", "1", "--json"))
    assert len(first["items"]) == 1
    rest = as_json(admin("service-accounts", "list", "--cursor", first["next_cursor"], "--all", "--json"))
    everything = as_json(admin("service-accounts", "list", "--all", "--json"))
    assert everything["next_cursor"] is None
    assert everything["items"] == first["items"] + rest["items"]


def test_a_service_account_from_create_to_activate(admin, auth):
    name = new_name("reports")
    created = admin(
        "service-accounts", "create", name, "--scope", "jobs:read,documents:read", "--description", "Nightly"
    )
    assert created.exit_code == 0, created.stderr
    secret = created.stdout.removesuffix("\n")
    assert "\n" not in secret
    assert secret not in created.stderr
    assert "The secret is shown this once" in created.stderr

    def token(secret: str) -> int:
        form = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
        return httpx2.post(f"{auth.url}/api/v1/auth/token", data=form).status_code

    assert token(secret) == 200
    shown = admin("service-accounts", "show", name)
    assert "scopes                documents:read jobs:read\n" in shown.stdout
    assert secret not in shown.output + admin("service-accounts", "list", "--json").output
    changed = as_json(admin("service-accounts", "change", name, "--scope", "jobs:read", "--json"))
    assert (changed["scopes"], changed["description"]) == (["jobs:read"], "Nightly")
    assert admin("service-accounts", "change", name).exit_code == 2

    assert admin("service-accounts", "rotate-secret", name).exit_code == 1
    kept = as_json(admin("service-accounts", "rotate-secret", name, "--keep-old", "1h", "--json"))["client_secret"]
    assert [token(secret), token(kept)] == [200, 200]
    last = admin("service-accounts", "rotate-secret", name, "--yes").stdout.strip()
    assert [token(secret), token(kept), token(last)] == [401, 401, 200]
    assert admin("service-accounts", "deactivate", name, "--yes").stdout.endswith("\tdeactivated\n")
    assert token(last) == 401
    assert admin("service-accounts", "activate", name).stdout.endswith("\tactivated\n")
    assert token(last) == 200
    assert admin("service-accounts", "create", name).exit_code == 2
    unknown = admin("service-accounts", "show", "nobody")
    assert unknown.stderr == "error: There is no service account named nobody.\n"


def test_an_api_key_from_create_to_revoke(admin, cli, auth, tmp_path):
    name = new_name("laptop")
    created = admin("api-keys", "create", name, "--scope", "jobs:read", "--scope", "users:admin", "--expires-in", "2d")
    assert created.exit_code == 0, created.stderr
    key = created.stdout.removesuffix("\n")
    assert key.startswith("trk_")
    assert key not in created.stderr
    script = {"XDG_CONFIG_HOME": str(tmp_path / "script"), "TRITON_URL": auth.url, "TRITON_API_KEY": key}
    who = as_json(cli("whoami", "--json", **script))
    assert (who["kind"], who["by"], who["scopes"]) == ("api_key", "TRITON_API_KEY", ["jobs:read", "users:admin"])
    assert (who["token_expires_at"], who["session_expires_at"]) == (None, None)
    assert lines(cli("users", "list", "--email", "ada@triton.local", **script))
    refused = cli("sessions", "list", **script)
    assert refused.exit_code == 1
    assert "(session_required, request " in refused.stderr

    [row] = [row for row in lines(admin("api-keys", "list")) if row[1] == name]
    assert key.startswith(row[2])
    assert [one["name"] for one in as_json(admin("users", "api-keys", "ada@triton.local", "--json"))["items"]][:1] == [
        name
    ]
    assert admin("api-keys", "revoke", name).exit_code == 1
    assert as_json(admin("api-keys", "revoke", name, "--yes", "--json")) == {"id": row[0]}
    revoked = cli("whoami", **script)
    assert revoked.exit_code == 1
    assert "(api_key_invalid, request " in revoked.stderr or "(token_revoked, request " in revoked.stderr
    assert key not in revoked.output


def test_signing_keys_follow_one_another(admin):
    [first, *_] = lines(admin("keys", "list"))
    made = as_json(admin("keys", "rotate", "--now", "--json"))
    again = admin("whoami")
    assert again.exit_code == 0, again.stderr
    listed = {key["kid"]: key["status"] for key in as_json(admin("keys", "list", "--json"))["items"]}
    assert made["kid"] in listed
    assert admin("keys", "revoke", first[0]).exit_code == 1
    in_use = admin("keys", "revoke", next(kid for kid, status in listed.items() if status == "signing"), "--yes")
    assert in_use.exit_code == 1
    assert "(signing_key_in_use, request " in in_use.stderr
    unknown = admin("keys", "revoke", "../users", "--yes")
    assert unknown.exit_code == 1
    assert "(signing_key_not_found, request " in unknown.stderr or "answered 404" in unknown.stderr


def test_one_ends_ones_other_sessions(admin, cli, auth, tmp_path):
    other = {"XDG_CONFIG_HOME": str(tmp_path / "other")}
    login = ("login", "--url", auth.url, "--email", "ada@triton.local", "--password-stdin")
    assert cli(*login, stdin=PASSWORD, **other).exit_code == 0
    assert len(lines(admin("sessions", "list"))) > 1
    assert admin("sessions", "end", "--others", "--yes", "--json").stdout == '{"ended": "others"}\n'
    [row] = lines(admin("sessions", "list"))
    assert row[-1] == "yes"
    assert admin("whoami").exit_code == 0
    for wrong in ([], ["--others", "--user", "ada@triton.local"], ["", "--yes"], ["..", "--yes"]):
        assert admin("sessions", "end", *wrong).exit_code == 2
    unknown = admin("sessions", "end", str(uuid.uuid4()), "--yes")
    assert "(session_not_found, request " in unknown.stderr


def test_columns_are_fields_of_the_api():
    schemas = json.loads((CHECKOUT / "docs" / "openapi" / "auth-service.json").read_text())["components"]["schemas"]
    known = {
        "UserPublic": USERS,
        "SessionPublic": SESSIONS,
        "ServiceAccountPublic": ACCOUNTS,
        "ApiKeyPublic": API_KEYS,
        "SigningKeyPublic": KEYS,
    }
    for name, noun in known.items():
        assert set(noun.shown) <= set(noun.columns) <= set(schemas[name]["properties"]), name


def test_tables_fit_a_terminal():
    text, when = "01a2062b-77b1-731e-ba97-729a1ac06727", (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    later = (datetime.now(UTC) + timedelta(days=30, hours=1)).isoformat()
    agent = "Mozilla/5.0 (X11; Linux x86_64) \x1b[2J AppleWebKit/537.36 (KHTML, like Gecko)"
    one = {"id": text, "address": "192.0.2.17", "user_agent": agent, "last_used_at": when, "current": True}
    console = Console(width=80, file=StringIO())
    console.print(table_of([one, one | {"current": False}], SESSIONS.shown))
    console.print(table_of([{"id": text, "name": "x", "expires_at": later, "last_used_at": "9"}], API_KEYS.shown))
    shown = console.file.getvalue()
    for wanted in (text, "192.0.2.17", "2 h ago", "yes", "in 30 d"):
        assert wanted in shown
    assert "scopes" not in shown, "nobody has any"
    assert "KHTML" not in shown
    assert "\x1b" not in shown
