"""What is asked for at a terminal: passwords unseen, Ctrl-C, and single sign-on, at a real identity provider."""

import codecs
import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx2
import pytest

from triton_common.testing import eventually

pytestmark = pytest.mark.timeout(300)  # the first has to wait for the servers

ADMIN, PASSWORD = "ada@triton.local", "a long enough password"  # of conftest.py


def saved(tmp_path: Path) -> Path:
    return tmp_path / "config" / "triton" / "sessions.json"


def as_json(answer: Any) -> Any:
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


class Terminal:
    """`triton …` on a terminal of its own, which its Ctrl-C comes from too."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self._near, far = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "triton_cli.main", *arguments],
            env=environment | {"TERM": "xterm", "COLUMNS": "200"},
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no lock is taken there
        )
        os.close(far)
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
        self.seen = ""

    def until(self, wanted: str) -> None:
        def shows() -> bool:
            assert self._goes_on() or wanted in self.seen, self.seen
            return wanted in self.seen

        eventually(shows, within=30)

    def types(self, text: str) -> None:
        os.write(self._near, text.encode())

    def ends(self) -> int:
        """The exit status, after all that was shown: a command waits for its reader."""
        while self._goes_on():
            pass
        os.close(self._near)
        return self.process.wait(30)

    def _goes_on(self) -> bool:
        """Read more, if there is more soon; False once nobody holds the other end."""
        if select.select([self._near], [], [], 0.1)[0]:
            try:
                self.seen += self._decoder.decode(os.read(self._near, 65_536))
            except OSError:
                return False
        return True


@pytest.fixture
def terminal(nobody: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Run `triton …` as nobody on a terminal, with a config directory of the test's own."""
    started: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        environment = nobody | {"XDG_CONFIG_HOME": str(tmp_path / "config")}
        started.append(Terminal(*arguments, environment=environment))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_a_password_is_typed_unseen(auth, cli, terminal):
    login = terminal("login", "--url", auth.url)
    login.until("E-mail address: ")
    login.types(f"{ADMIN}\n")
    login.until("Password: ")
    login.types(f"{PASSWORD}\n")
    assert login.ends() == 0, login.seen
    assert f"as {ADMIN}, admin." in login.seen
    assert PASSWORD not in login.seen
    listed = terminal("users", "list")
    assert listed.ends() == 0
    assert "last login" in listed.seen
    again = terminal("login")
    again.until(f"E-mail address [{ADMIN}]: ")
    again.types("\n")
    again.until("Password: ")
    again.types("\x04")
    assert again.ends() == 1
    assert "Nobody answered, and nothing was done." in again.seen
    assert as_json(cli("whoami", "--json"))["email"] == ADMIN


def test_ones_own_password_is_changed_unseen(admin, auth, cli, terminal, tmp_path):
    email = f"{uuid4().hex[:8]}@example.com"
    assert admin("users", "create", email, "--password-stdin", stdin=PASSWORD).exit_code == 0
    assert cli("login", "--url", auth.url, "--email", email, "--password-stdin", stdin=PASSWORD).exit_code == 0
    for typed, told in (
        (("a wrong password", "another long one 7", "another long one 7"), "(wrong_password, request "),
        ((PASSWORD, "another long one 7", "another long one 8"), "The two are not the same, and nothing was done."),
        ((PASSWORD, "another long one 7", "another long one 7"), f"Changed at {auth.url}."),
    ):
        change = terminal("change-password")
        for prompt, text in zip(("Present password: ", "New password: ", "New password again: "), typed, strict=True):
            change.until(prompt)
            change.types(f"{text}\n")
        assert change.ends() == (0 if told.startswith("Changed") else 1)
        assert told in change.seen
        assert not [text for text in typed if text in change.seen]
    login = ("login", "--url", auth.url, "--email", email, "--password-stdin")
    assert cli(*login, stdin=PASSWORD).exit_code == 1
    assert cli(*login, stdin="another long one 7").exit_code == 0


@pytest.mark.parametrize("prompt", ["E-mail address: ", "Password: "])
def test_ctrl_c_in_a_prompt_ends_the_command(auth, tmp_path, terminal, prompt):
    login = terminal("login", "--url", auth.url)
    login.until("E-mail address: ")
    if prompt == "Password: ":
        login.types(f"{ADMIN}\n")
        login.until(prompt)
    login.types("\x03")
    assert login.ends() == 130, login.seen
    assert "Traceback" not in login.seen
    assert not saved(tmp_path).exists()


def browse(url: str, auth: SimpleNamespace) -> str:
    """Where a browser ends that opens the address."""
    with httpx2.Client(trust_env=False) as browser:
        while "#" not in url:
            answer = browser.get(url.replace("http://test", auth.url))
            assert answer.status_code in (302, 307), answer.text
            url = answer.headers["location"]
    return url


def test_single_sign_on_by_a_browser_anywhere(auth, cli, terminal):
    login = terminal("login", "--sso", "--url", auth.url)
    login.until("Address: ")
    [begin] = [line.strip() for line in login.seen.splitlines() if "/sso/login?" in line]
    address = browse(begin, auth)
    login.types(f"{address}\n")
    assert login.ends() == 0, login.seen
    assert "as grace@example.com, viewer." in login.seen
    assert address.partition("#code=")[2] not in login.seen
    assert as_json(cli("sessions", "list", "--json"))["items"][0]["method"] == "sso"

    replayed = terminal("login", "--sso", "--url", auth.url)
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
def test_single_sign_on_that_fails(auth, tmp_path, terminal, after, told):
    login = terminal("login", "--sso", "--url", auth.url)
    login.until("Address: ")
    [begin] = [line.strip() for line in login.seen.splitlines() if "/sso/login?" in line]
    [return_to] = parse_qs(urlsplit(begin).query)["return_to"]
    login.types(f"{return_to}{after}\n")
    assert login.ends() == 1
    assert told in login.seen
    assert not saved(tmp_path).exists()
