"""`triton login` and what follows it, on a real auth-service with its database and Redis."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from triton_common.settings import CommonSettings
from triton_common.testing import eventually, free_port

pytestmark = pytest.mark.timeout(300)  # the first has to wait for the servers

ADMIN, PASSWORD = "ada@triton.local", "a long enough password"  # of conftest.py


def saved(tmp_path: Path) -> Path:
    return tmp_path / "config" / "triton" / "sessions.json"


def login_of(file: Path) -> Any:
    [login] = json.loads(file.read_text())["sessions"].values()
    return login


def as_json(answer: Any) -> Any:
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


def test_a_session_from_login_to_logout(cli, auth, tmp_path):
    logged = cli("login", "--url", auth.url, "--email", ADMIN, "--password-stdin", stdin=f"{PASSWORD}\r\n")
    assert (logged.exit_code, logged.stdout) == (0, "")
    assert f"Logged in at {auth.url} as {ADMIN}, admin." in logged.stderr
    who = as_json(cli("whoami", "--json"))
    assert (who["email"], who["role"], who["client_id"]) == (ADMIN, "admin", None)
    assert (who["platform"], who["by"]) == (auth.url, "triton login")
    assert "users:admin" in who["scopes"]
    assert who["token_expires_at"] < who["session_expires_at"]
    shown = cli("whoami").stdout
    assert f"platform              {auth.url}\n" in shown
    for secret in (PASSWORD, login_of(saved(tmp_path))["access_token"], login_of(saved(tmp_path))["refresh_token"]):
        assert secret not in logged.output + json.dumps(who) + shown

    refresh_token = login_of(saved(tmp_path))["refresh_token"]
    assert "Logged out" in cli("logout").stderr
    assert json.loads(saved(tmp_path).read_text()) == {"last": None, "sessions": {}}
    assert httpx2.post(f"{auth.url}/api/v1/auth/refresh", json={"refresh_token": refresh_token}).status_code == 401
    again = cli("logout", "--url", auth.url)
    assert (again.exit_code, again.stderr) == (0, f"Nobody is logged in at {auth.url}.\n")
    assert as_json(cli("logout", "--url", auth.url, "--json")) == {"platform": auth.url, "ended": False}
    refused = cli("users", "list", "--url", auth.url)
    assert refused.exit_code == 1
    assert f"Nobody to log in as at {auth.url}: `triton login --url {auth.url}`" in refused.stderr


def test_another_login_ends_the_one_before(admin, auth, tmp_path):
    before = login_of(saved(tmp_path))["refresh_token"]
    again = admin("login", "--email", ADMIN, "--password-stdin", stdin=PASSWORD, TRITON_API_KEY="trk_of_others")
    assert again.exit_code == 0, again.stderr
    assert "TRITON_API_KEY in the environment still comes first" in again.stderr
    assert httpx2.post(f"{auth.url}/api/v1/auth/refresh", json={"refresh_token": before}).status_code == 401
    assert as_json(admin("whoami", "--json"))["email"] == ADMIN


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--email", ADMIN], "The e-mail address or the password is wrong"),
        (["--email", "nobody"], "body.email: An email address must have an @-sign"),
        ([], "Nobody can be asked for the e-mail address: stdin is no terminal."),
    ],
)
def test_a_login_that_is_refused_saves_nothing(cli, auth, tmp_path, arguments, told):
    answer = cli("login", "--url", auth.url, "--password-stdin", *arguments, stdin="marked wrong password")
    assert answer.exit_code == 1
    assert told in answer.stderr
    assert "marked" not in answer.output
    assert not saved(tmp_path).exists()


def test_wrong_usage_of_login(cli, auth):
    assert cli("login", "--sso", "--email", ADMIN).exit_code == 2
    assert cli("login", "--url", "nonsense").exit_code == 2
    not_utf8 = cli("login", "--url", auth.url, "--email", ADMIN, "--password-stdin", stdin=b"\xff\n")
    assert (not_utf8.exit_code, "no UTF-8" in not_utf8.stderr) == (1, True)
    for address, warned in (("http://platform.invalid", True), ("https://platform.invalid", False)):
        answer = cli("login", "--url", address, "--email", ADMIN, "--password-stdin", stdin=PASSWORD)
        assert "does not answer" in answer.stderr
        assert ("is not encrypted" in answer.stderr) is warned


def test_a_new_password_ends_ones_other_sessions(admin, auth, cli, tmp_path):
    assert admin("users", "create", "mia@example.com", "--password-stdin", stdin=PASSWORD).exit_code == 0
    here, elsewhere = ({"XDG_CONFIG_HOME": str(tmp_path / where)} for where in ("here", "elsewhere"))
    login = ("login", "--url", auth.url, "--email", "mia@example.com", "--password-stdin")
    for where in (here, elsewhere):
        assert cli(*login, stdin=PASSWORD, **where).exit_code == 0
    new = "another long password"
    told = cli("change-password", "--password-stdin", "--json", stdin=f"{PASSWORD}\r\n{new}\n", **here)
    assert as_json(told) == {"platform": auth.url, "changed": True}
    assert cli("whoami", **here).exit_code == 0
    assert "is over: log in again" in cli("whoami", **elsewhere).stderr
    for wrong, why in ((f"{PASSWORD}\n{new}", "wrong_password"), (new, "validation_failed"), ("", "validation_failed")):
        refused = cli("change-password", "--password-stdin", stdin=wrong, **here)
        assert (refused.exit_code, f"({why}, request " in refused.stderr) == (1, True)
        assert new not in refused.output
    assert cli(*login, stdin=new, **here).exit_code == 0


def test_other_rights_come_with_another_token(admin, auth, cli, tmp_path):
    user = as_json(admin("users", "create", "eve@example.com", "--password-stdin", "--json", stdin=PASSWORD))
    hers = {"XDG_CONFIG_HOME": str(tmp_path / "hers")}
    login = ("login", "--url", auth.url, "--email", "eve@example.com", "--password-stdin")
    assert cli(*login, stdin=PASSWORD, **hers).exit_code == 0
    assert as_json(cli("whoami", "--json", **hers))["role"] == "viewer"
    assert cli("users", "list", **hers).exit_code == 1
    changed = as_json(admin("users", "change", user["id"], "--role", "editor", "--json"))
    assert changed["role"] == "editor"
    eventually(lambda: as_json(cli("whoami", "--json", **hers))["role"] == "editor")

    [session] = as_json(admin("users", "sessions", "eve@example.com", "--json"))["items"]
    assert admin("sessions", "end", session["id"], "--yes").stdout == f"{session['id']}\tended\n"
    ended = eventually(lambda: (answer := cli("whoami", **hers)).exit_code and answer)
    assert ended.exit_code == 1
    assert f"The session at {auth.url} is over: log in again with `triton login --url {auth.url}`." in ended.stderr
    assert cli("whoami", **hers).stderr == ended.stderr, "and again"
    assert "Logged out" in cli("logout", **hers).stderr


def test_a_logout_that_nobody_hears_is_told_of(admin, tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    content = json.loads(saved(tmp_path).read_text())
    [login] = content["sessions"].values()
    content["sessions"][away] = login
    saved(tmp_path).write_text(json.dumps(content))
    answer = admin("logout", "--url", away)
    assert answer.exit_code == 1
    assert f"is forgotten here, and goes on at {away}, which was not told" in answer.stderr
    assert away not in saved(tmp_path).read_text()
    assert admin("whoami").exit_code == 0, "the other session stays"


def test_what_is_named_comes_before_what_is_saved(admin, auth, tmp_path, monkeypatch):
    port = free_port()  # the usual one may be somebody's platform
    monkeypatch.setattr("triton_cli.identity.DEFAULT_PORT", port)
    nobody = admin("whoami", "--url", "http://127.0.0.1:1")
    assert "Nobody to log in as at http://127.0.0.1:1" in nobody.stderr
    assert as_json(admin("whoami", "--json", TRITON_URL=f"{auth.url}/"))["by"] == "triton login"
    elsewhere = admin("whoami", TRITON_TOKEN="marked")
    assert f"http://127.0.0.1:{port} does not answer" in elsewhere.stderr, (
        "not the platform of the login, whose business it is not"
    )
    named = admin("whoami", "--state", str(tmp_path / "state"))
    assert f"Nobody to log in as at http://127.0.0.1:{port}:" in named.stderr, "a state that is named is the platform"
    token = login_of(saved(tmp_path))["access_token"]
    assert as_json(admin("whoami", "--json", TRITON_URL=auth.url, TRITON_TOKEN=token))["by"] == "TRITON_TOKEN"
    account = {"TRITON_EMAIL": ADMIN, "TRITON_PASSWORD": PASSWORD, "TRITON_URL": auth.url}
    assert as_json(admin("whoami", "--json", **account))["by"] == "TRITON_EMAIL"
    wrong = admin("whoami", TRITON_URL=auth.url, TRITON_API_KEY="trk_wrong")
    assert wrong.exit_code == 1
    assert "trk_wrong" not in wrong.output
    assert "TRITON_API_KEY is no token" in admin("whoami", TRITON_API_KEY="a\tb", TRITON_URL=auth.url).stderr


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([], "answered no object: is this a Triton platform?"),
        (None, "answered no object: is this a Triton platform?"),
        ({}, "The answer has no access_token: is this a Triton platform?"),
        ({"access_token": "a\nb", "refresh_token": "c", "expires_in": 1}, "The answer is no session: is this a Triton"),
    ],
)
def test_a_platform_that_is_none_of_ours_is_told_of(cli, serving, tmp_path, answer, told):
    platform = FastAPI()
    platform.state.settings = CommonSettings()
    platform.api_route("/{path:path}", methods=["GET", "POST"])(lambda: JSONResponse(answer))
    with serving(platform) as url:
        account = {"TRITON_EMAIL": ADMIN, "TRITON_PASSWORD": PASSWORD, "TRITON_URL": url}
        for given in (
            cli("login", "--url", url, "--email", ADMIN, "--password-stdin", stdin=PASSWORD),
            cli("users", "list", **account),
        ):
            assert given.exit_code == 1
            assert told in given.stderr
        for command in (["users", "list"], ["users", "show", ADMIN], ["whoami"], ["keys", "list"]):
            given = cli(*command, TRITON_URL=url, TRITON_TOKEN="x")
            assert (given.exit_code, "is this a Triton platform?" in given.stderr) == (1, True), command
    assert not saved(tmp_path).exists()


def test_single_sign_on_where_there_is_none(cli, serving):
    platform = FastAPI()
    platform.state.settings = CommonSettings()
    problem = {"type": "x", "title": "x", "status": 404, "code": "sso_not_configured", "message": "There is none."}

    @platform.get("/api/v1/auth/sso/login")
    async def begin() -> Response:
        return JSONResponse(problem, status_code=404)

    with serving(platform) as url:
        answer = cli("login", "--sso", "--url", url)
    assert answer.exit_code == 1
    assert "There is none. (sso_not_configured" in answer.stderr
    assert "Open this" not in answer.stderr
