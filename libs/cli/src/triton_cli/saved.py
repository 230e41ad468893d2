"""What `triton login` saved: a session for each platform, in one file for its owner alone."""

import asyncio
import fcntl
import json
import os
import shlex
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import typer

from triton_cli.state import CommandFailed

PATIENCE: Final = 30.0  # seconds for another command to renew its session; it takes 8 at most
PAUSE: Final = 0.05  # seconds


@dataclass(frozen=True)
class Login:
    """A session on one platform. `expires_at` is the access token's, in seconds of this machine's clock."""

    email: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: float

    @classmethod
    def of(cls, pair: Any, *, email: str, asked_at: float) -> "Login":
        """What a login or a refresh that was asked for then has answered. Raises CommandFailed for anything else."""
        try:
            tokens = {name: pair[name] for name in ("access_token", "refresh_token")}
            return _login(email=email, expires_at=asked_at + pair["expires_in"], **tokens)
        except (KeyError, TypeError, ValueError):
            raise CommandFailed("The answer is no session: is this a Triton platform?") from None


class Logins:
    """The file of one user: the sessions by their platforms' URLs, and where the last login was.

    Readers need no lock, since a file is replaced whole. Whoever changes it holds `locked()`, all the while between
    reading a session and writing what became of it. All raise CommandFailed where the file is not to be trusted.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _folder()
        self._file = self.folder / "sessions.json"
        self._lock = self.folder / "sessions.lock"

    def get(self, url: str) -> Login | None:
        """The session on the platform at this URL."""
        return self._read()[1].get(url)

    def last(self) -> str | None:
        """The platform of the last login, until its logout."""
        return self._read()[0]

    def put(self, url: str, login: Login, *, last: bool = False) -> None:
        """Keep a session; `last` makes its platform the one that is meant when none is named."""
        before, known = self._read()
        self._write(url if last else before, known | {url: login})

    def remove(self, url: str) -> None:
        """Forget a session."""
        last, known = self._read()
        known.pop(url, None)
        self._write(None if last == url else last, known)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Be the only command that changes the file; the kernel gives the lock back however we end."""
        with _told(self.folder, "written"):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check(self.folder, self.folder.stat())
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise CommandFailed(
                            f"Another triton command has held {self._lock} for {PATIENCE:.0f} s: end that one."
                        ) from None
                await asyncio.sleep(PAUSE)
            yield
        finally:
            os.close(lock)

    def _read(self) -> tuple[str | None, dict[str, Login]]:
        with _told(self._file, "read"):
            try:
                file = os.open(self._file, os.O_RDONLY)
            except (FileNotFoundError, NotADirectoryError):
                return None, {}
            with os.fdopen(file, "rb") as opened:
                _check(self.folder, self.folder.stat())
                _check(self._file, os.fstat(file))
                text = opened.read()
        try:
            found = json.loads(text)
            last, sessions = found["last"], found["sessions"]
            return last and str(last), {url: _login(**login) for url, login in sessions.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise CommandFailed(
                f"{self._file} is not what `triton login` writes: delete it, and log in again."
            ) from None

    def _write(self, last: str | None, sessions: dict[str, Login]) -> None:
        content = {"last": last, "sessions": {url: asdict(login) for url, login in sessions.items()}}
        new = self._file.with_suffix(".new")
        with _told(self._file, "written"):
            new.unlink(missing_ok=True)  # of a command that was killed
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(json.dumps(content, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())  # the refresh token before this one is used up
            new.replace(self._file)


def _folder() -> Path:
    if named := os.environ.get("TRITON_CONFIG_DIR"):
        return Path(named).expanduser().absolute()
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(home) / "triton" if home.startswith("/") else Path(typer.get_app_dir("triton"))


def _login(*, email: Any, access_token: Any, refresh_token: Any, expires_at: Any) -> Login:
    """As it was written. Raises ValueError for what no platform gave."""
    texts = (email, access_token, refresh_token)
    if not all(isinstance(text, str) and text.isprintable() for text in texts) or not access_token.isascii():
        raise ValueError("a text that no header takes")
    return Login(email, access_token, refresh_token, float(expires_at))


def _check(path: Path, found: os.stat_result) -> None:
    """Raises CommandFailed for what others own, or may look into."""
    if found.st_uid != os.geteuid():
        raise CommandFailed(
            f"{path} belongs to another user, and is not used. Name a folder of your own with TRITON_CONFIG_DIR."
        )
    if found.st_mode & 0o077:
        rights = stat.S_IMODE(found.st_mode)
        closed = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise CommandFailed(
            f"{path} is open to others (mode {rights:o}), and is not used. Close it with "
            f"`chmod {closed} {shlex.quote(str(path))}`; if somebody may have read the sessions there, end them with "
            "`triton logout`."
        )


@contextmanager
def _told(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandFailed(
            f"{path} cannot be {done}: {error.strerror}. Name another folder with TRITON_CONFIG_DIR."
        ) from error
