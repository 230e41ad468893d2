"""`triton login` and what follows it, on a real auth-service with its database, Redis and an identity provider."""

import asyncio
import fcntl
import json
import os
import pty
import select
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import psycopg
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from triton_cli.identity import api_of
from triton_cli.saved import Login, Logins
from triton_cli.state import State
from triton_common.settings import CommonSettings
from triton_common.testing import eventually, free_port

pytestmark = pytest.mark.timeout(120)

ADMIN, PASSWORD = "ada@triton.local", "a long enough password"  # of conftest.py
NOBODY = ("TRITON_URL", "TRITON_TOKEN", "TRITON_API_KEY", "TRITON_EMAIL", "TRITON_PASSWORD", "TRITON_CONFIG_DIR")


def saved(tmp_path: Path) -> Path:
    return tmp_path / "config" / "triton" / "sessions.json"


def rewrite(file: Path, **values: Any) -> None:
    """Give the only session in the file other values."""
    content = json.loads(file.read_text())
    [login] = content["sessions"].values()
    login |= values
    file.write_text(json.dumps(content))


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


def test_only_its_owner_reads_the_file(cli, auth, tmp_path):
    before = os.umask(0)
    try:
        answer = cli("login", "--url", auth.url, "--email", ADMIN, "--password-stdin", stdin=PASSWORD)
    finally:
        os.umask(before)
    assert answer.exit_code == 0, answer.stderr
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in saved(tmp_path).parent.iterdir()}
    assert modes == {"sessions.json": 0o600, "sessions.lock": 0o600}
    assert stat.S_IMODE(saved(tmp_path).parent.stat().st_mode) == 0o700


async def test_it_is_closed_to_others_from_its_first_byte(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(os.fstat(file)))
    logins = Logins(tmp_path / "config")
    before = os.umask(0)
    try:
        async with logins.locked():
            logins.put("http://one", Login("ada", "token", "refresh", 0.0), last=True)
            (logins.folder / "sessions.new").write_text("left by a command that was killed")
            logins.put("http://two", Login("ada", "token", "refresh", 0.0))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(one.st_mode) for one in seen] == [0o600, 0o600]
    assert logins.last() == "http://one"
    assert logins.get("http://two") is not None
    assert "refresh" not in repr(logins.get("http://two"))


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_others_can_open_is_not_used(admin, tmp_path, which):
    path = saved(tmp_path) if which == "file" else saved(tmp_path).parent
    closed = "600" if which == "file" else "700"
    path.chmod(int(closed, 8) | 0o040)
    for command in (["whoami"], ["logout"], ["login", "--email", ADMIN, "--password-stdin"]):
        answer = admin(*command, stdin=PASSWORD)
        assert answer.exit_code == 1
        assert f"`chmod {closed} {path}`" in answer.stderr
    path.chmod(int(closed, 8))
    assert admin("whoami").exit_code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_another_user_owns_is_not_used(admin, tmp_path):
    os.chown(saved(tmp_path), 1, -1)
    answer = admin("whoami")
    assert answer.exit_code == 1
    assert "belongs to another user" in answer.stderr


def session(**values: Any) -> str:
    """A file with such a session."""
    login = {"email": "a", "access_token": "b", "refresh_token": "c", "expires_at": 1} | values
    return json.dumps({"last": None, "sessions": {"http://x": login}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"last": null}',
        '{"last": null, "sessions": []}',
        '{"last": null, "sessions": {"http://x": null}}',
        session(access_token="a\r\nX-Role: admin"),
        session(access_token="é"),
        session(refresh_token=None),
        session(email=1),
        session(expires_at="tomorrow"),
        session(more="than there is"),
        "[" * 100_000,
        "\x00\x1b[2J",
    ],
)
def test_a_file_that_is_not_ours_is_told_of(admin, tmp_path, content):
    saved(tmp_path).write_text(content)
    answer = admin("whoami")
    assert answer.exit_code == 1
    assert f"{saved(tmp_path)} is not what `triton login` writes: delete it, and log in again." in answer.stderr
    assert admin("jobs", "list", TRITON_URL="http://127.0.0.1:1", TRITON_TOKEN="x").stderr.startswith(
        "error: http://127.0.0.1:1 does not answer"
    ), "who has a token of their own needs no file"


def test_a_folder_that_cannot_be_written_is_told_of(cli, auth, tmp_path):
    (tmp_path / "file").touch()
    environment = {"TRITON_CONFIG_DIR": str(tmp_path / "file" / "triton")}
    answer = cli("login", "--url", auth.url, "--email", ADMIN, "--password-stdin", stdin=PASSWORD, **environment)
    assert answer.exit_code == 1
    assert "cannot be written: Not a directory. Name another folder with TRITON_CONFIG_DIR." in answer.stderr


def test_a_token_is_renewed_shortly_before_its_end(admin, tmp_path):
    before = login_of(saved(tmp_path))
    rewrite(saved(tmp_path), expires_at=time.time() + 50)
    assert admin("whoami").exit_code == 0
    after = login_of(saved(tmp_path))
    assert after["refresh_token"] != before["refresh_token"]
    assert after["expires_at"] > time.time() + 3600
    assert admin("whoami").exit_code == 0
    assert login_of(saved(tmp_path)) == after, "once"


def test_commands_at_once_renew_a_session_once(admin, auth, tmp_path):
    rewrite(saved(tmp_path), expires_at=0)
    kept = {name: value for name, value in os.environ.items() if name not in NOBODY}
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "triton_cli.main", "whoami", "--json"],
            env=kept | {"XDG_CONFIG_HOME": str(tmp_path / "config")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0, 0], answers
    assert {json.loads(out)["email"] for out, _ in answers} == {ADMIN}
    [current] = [one for one in as_json(admin("sessions", "list", "--json"))["items"] if one["current"]]
    with psycopg.connect(auth.database) as connection:
        counted = "SELECT count(*) FROM refresh_tokens WHERE session_id = %s"
        assert connection.execute(counted, [current["id"]]).fetchone() == (2,), "the first, and its one successor"


def test_a_lock_that_is_never_given_back_is_told_of(admin, tmp_path, monkeypatch):
    monkeypatch.setattr("triton_cli.saved.PATIENCE", 0.1)
    rewrite(saved(tmp_path), expires_at=0)
    with saved(tmp_path).with_name("sessions.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = admin("whoami")
    assert answer.exit_code == 1
    assert "Another triton command has held" in answer.stderr
    assert admin("whoami").exit_code == 0


@contextmanager
def gateway(auth: SimpleNamespace, serving: Any, refreshed: Callable[[Response], Any]) -> Iterator[str]:
    """A way to auth-service on which the answer of a refresh may be lost or late."""
    app = FastAPI()
    app.state.settings = CommonSettings()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(request: Request) -> Response:
        kept = {name: request.headers[name] for name in ("authorization", "content-type") if name in request.headers}
        async with httpx2.AsyncClient(base_url=auth.url, trust_env=False) as http:
            body = await request.body()
            found = await http.request(request.method, request.url.path, content=body, headers=kept)
        answer = Response(found.content, status_code=found.status_code, media_type=found.headers["content-type"])
        return await asyncio.to_thread(refreshed, answer) if request.url.path.endswith("/refresh") else answer

    with serving(app) as url:
        yield url


def move(file: Path, url: str) -> None:
    """Let the only session in the file be another platform's, its access token over."""
    file.write_text(json.dumps({"last": url, "sessions": {url: login_of(file) | {"expires_at": 0}}}))


@pytest.mark.parametrize("loss", ["bad gateway", "cut off"])
def test_a_refresh_whose_answer_is_lost_is_repeated(admin, auth, tmp_path, serving, loss):
    lost = {"bad gateway": Response(status_code=502), "cut off": Response("", headers={"content-length": "9"})}
    answers = [lost[loss]]
    with gateway(auth, serving, lambda answer: answers.pop() if answers else answer) as url:
        move(saved(tmp_path), url)
        assert as_json(admin("whoami", "--json"))["platform"] == url
    assert answers == []


def test_a_refresh_that_is_interrupted_is_written_down(admin, auth, tmp_path, serving, monkeypatch):
    asked, release = threading.Event(), threading.Event()

    def late(answer: Response) -> Response:
        asked.set()
        release.wait(10)
        return answer

    for name in NOBODY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with gateway(auth, serving, late) as url:
        move(saved(tmp_path), url)
        before = login_of(saved(tmp_path))

        async def enter() -> None:
            async with api_of(url, State(tmp_path / "state")):
                pass

        async def interrupted() -> None:
            task = asyncio.create_task(enter())
            await asyncio.to_thread(asked.wait, 10)
            task.cancel()
            release.set()
            await task

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(interrupted())
        assert login_of(saved(tmp_path))["refresh_token"] != before["refresh_token"]
        assert as_json(admin("whoami", "--json"))["platform"] == url


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


def test_a_platform_that_is_away_ends_no_session(admin, tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    move(saved(tmp_path), away)
    login = login_of(saved(tmp_path))
    answer = admin("users", "list")
    assert answer.exit_code == 1
    assert f"{away} does not answer" in answer.stderr
    assert login_of(saved(tmp_path))["refresh_token"] == login["refresh_token"]


def test_what_is_named_comes_before_what_is_saved(admin, auth, tmp_path):
    nobody = admin("whoami", "--url", "http://127.0.0.1:1")
    assert "Nobody to log in as at http://127.0.0.1:1" in nobody.stderr
    assert as_json(admin("whoami", "--json", TRITON_URL=f"{auth.url}/"))["by"] == "triton login"
    elsewhere = admin("whoami", TRITON_TOKEN="marked")
    assert "http://127.0.0.1:8000 " in elsewhere.stderr, "not the platform of the login, whose business it is not"
    named = admin("whoami", "--state", str(tmp_path / "state"))
    assert "Nobody to log in as at http://127.0.0.1:8000" in named.stderr, "a state that is named is the platform"
    token = login_of(saved(tmp_path))["access_token"]
    assert as_json(admin("whoami", "--json", TRITON_URL=auth.url, TRITON_TOKEN=token))["by"] == "TRITON_TOKEN"
    account = {"TRITON_EMAIL": ADMIN, "TRITON_PASSWORD": PASSWORD, "TRITON_URL": auth.url}
    assert as_json(admin("whoami", "--json", **account))["by"] == "TRITON_EMAIL"
    wrong = admin("whoami", TRITON_URL=auth.url, TRITON_API_KEY="trk_wrong")
    assert wrong.exit_code == 1
    assert "trk_wrong" not in wrong.output
    assert "TRITON_API_KEY is no token" in admin("whoami", TRITON_API_KEY="a\tb", TRITON_URL=auth.url).stderr


class Terminal:
    """`triton …` on a terminal of its own, which its Ctrl-C comes from too."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._near, far = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if name not in NOBODY}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "triton_cli.main", *arguments],
            env=kept | environment | {"TERM": "xterm", "COLUMNS": "200"},
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no lock is taken there
        )
        os.close(far)
        self.seen = ""

    def until(self, wanted: str) -> None:
        def shows() -> bool:
            if select.select([self._near], [], [], 0.1)[0]:
                self.seen += os.read(self._near, 65_536).decode()
            return wanted in self.seen

        eventually(shows, within=30)

    def types(self, text: str) -> None:
        os.write(self._near, text.encode())

    def ends(self) -> int:
        status = self._process.wait(30)
        while select.select([self._near], [], [], 0)[0]:
            try:
                self.seen += os.read(self._near, 65_536).decode()
            except OSError:  # nobody holds the other end any more
                break
        os.close(self._near)
        return status


def test_a_password_is_typed_unseen(auth, tmp_path, cli):
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    terminal = Terminal("login", "--url", auth.url, **home)
    terminal.until("E-mail address: ")
    terminal.types(f"{ADMIN}\n")
    terminal.until("Password: ")
    terminal.types(f"{PASSWORD}\n")
    assert terminal.ends() == 0, terminal.seen
    assert f"as {ADMIN}, admin." in terminal.seen
    assert PASSWORD not in terminal.seen
    listed = Terminal("users", "list", **home)
    assert listed.ends() == 0
    assert "last login" in listed.seen
    again = Terminal("login", **home)
    again.until(f"E-mail address [{ADMIN}]: ")
    again.types("\n")
    again.until("Password: ")
    again.types("\x04")
    assert again.ends() == 1
    assert "Nobody answered, and nothing was done." in again.seen
    assert as_json(cli("whoami", "--json"))["email"] == ADMIN


@pytest.mark.parametrize("prompt", ["E-mail address: ", "Password: "])
def test_ctrl_c_in_a_prompt_ends_the_command(auth, tmp_path, prompt):
    terminal = Terminal("login", "--url", auth.url, XDG_CONFIG_HOME=str(tmp_path / "config"))
    terminal.until("E-mail address: ")
    if prompt == "Password: ":
        terminal.types(f"{ADMIN}\n")
        terminal.until(prompt)
    terminal.types("\x03")
    assert terminal.ends() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    assert not saved(tmp_path).exists()


def browse(url: str, auth: SimpleNamespace) -> str:
    """Where a browser ends that opens the address."""
    with httpx2.Client(trust_env=False) as browser:
        while "#" not in url:
            answer = browser.get(url.replace("http://test", auth.url))
            assert answer.status_code in (302, 307), answer.text
            url = answer.headers["location"]
    return url


def test_single_sign_on_by_a_browser_anywhere(auth, tmp_path, cli):
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    terminal = Terminal("login", "--sso", "--url", auth.url, **home)
    terminal.until("Address: ")
    [begin] = [line.strip() for line in terminal.seen.splitlines() if "/sso/login?" in line]
    address = browse(begin, auth)
    terminal.types(f"{address}\n")
    assert terminal.ends() == 0, terminal.seen
    assert "as grace@example.com, viewer." in terminal.seen
    assert address.partition("#code=")[2] not in terminal.seen
    assert as_json(cli("sessions", "list", "--json"))["items"][0]["method"] == "sso"

    replayed = Terminal("login", "--sso", "--url", auth.url, **home)
    replayed.until("Address: ")
    replayed.types(f"{address}\n")
    assert replayed.ends() == 1
    assert "That is not the address where this login ended" in replayed.seen


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ("#error=sso_denied", "The identity provider, or you, said no."),
        ("#error=other", "The address has no code: copy all of it."),
        ("", "The address has no code: copy all of it."),
        ("#code=made-up", "The code is unknown, was used, or is older than a minute"),
    ],
)
def test_single_sign_on_that_fails(auth, tmp_path, after, told):
    terminal = Terminal("login", "--sso", "--url", auth.url, XDG_CONFIG_HOME=str(tmp_path / "config"))
    terminal.until("Address: ")
    [begin] = [line.strip() for line in terminal.seen.splitlines() if "/sso/login?" in line]
    [return_to] = parse_qs(urlsplit(begin).query)["return_to"]
    terminal.types(f"{return_to}{after}\n")
    assert terminal.ends() == 1
    assert told in terminal.seen
    assert not saved(tmp_path).exists()


@pytest.mark.parametrize("answer", [[], {}, {"access_token": "a\nb", "refresh_token": "c", "expires_in": 1}, None])
def test_a_platform_that_is_none_of_ours_is_told_of(cli, serving, tmp_path, answer):
    platform = FastAPI()
    platform.state.settings = CommonSettings()
    platform.post("/api/v1/auth/login")(lambda: JSONResponse(answer))
    with serving(platform) as url:
        told = cli("login", "--url", url, "--email", ADMIN, "--password-stdin", stdin=PASSWORD)
    assert (told.exit_code, told.stderr) == (1, "error: The answer is no session: is this a Triton platform?\n")
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
