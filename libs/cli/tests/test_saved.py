"""What `triton login` keeps in the user's config directory: closed to others, never lost, renewed once."""

import asyncio
import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import psycopg
import pytest
from fastapi import FastAPI, Request, Response

from triton_cli.identity import api_of
from triton_cli.saved import Login, Logins
from triton_cli.state import State
from triton_common.settings import CommonSettings
from triton_common.testing import free_port

pytestmark = pytest.mark.timeout(300)  # the first has to wait for the servers

ADMIN, PASSWORD = "ada@triton.local", "a long enough password"  # of conftest.py


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


def test_commands_at_once_renew_a_session_once(admin, auth, tmp_path, nobody):
    rewrite(saved(tmp_path), expires_at=0)
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "triton_cli.main", "whoami", "--json"],
            env=nobody | {"XDG_CONFIG_HOME": str(tmp_path / "config")},
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


def test_a_refresh_that_is_interrupted_is_written_down(  # noqa: PLR0917  pytest calls it by name
    admin, auth, tmp_path, serving, monkeypatch, nobody
):
    asked, release = threading.Event(), threading.Event()

    def late(answer: Response) -> Response:
        asked.set()
        release.wait(10)
        return answer

    for name in os.environ.keys() - nobody.keys():
        monkeypatch.delenv(name)
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


def test_a_platform_that_is_away_ends_no_session(admin, tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    move(saved(tmp_path), away)
    login = login_of(saved(tmp_path))
    answer = admin("users", "list")
    assert answer.exit_code == 1
    assert f"{away} does not answer" in answer.stderr
    assert login_of(saved(tmp_path))["refresh_token"] == login["refresh_token"]
