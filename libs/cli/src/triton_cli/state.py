"""The state of a stack: a folder with its data, logs, secrets and documents, and the lock that lets one run in it."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import psutil

CHECKOUT: Final = next((folder for folder in Path(__file__).parents if (folder / "uv.lock").exists()), Path.cwd())
DEFAULT_PORT: Final = 8000
UNFIT: Final = '#?"\\'  # in a folder's path: what ends the path of ClickHouse's URL, and the quotes of redis.conf
ADMIN_EMAIL: Final = "admin@triton.example"


def url_of(port: int) -> str:
    """Where the platform of this machine answers."""
    return f"http://127.0.0.1:{port}"


class CommandFailed(Exception):
    """A command cannot do what it was asked for; the message is a sentence that says what to do."""

    exit_status = 1


class WrongUsage(CommandFailed):
    """The command was called wrongly, which it could tell by itself."""

    exit_status = 2


@dataclass(frozen=True)
class Secrets:
    """What the parts prove themselves with to one another; made once, kept as long as the data."""

    postgres_password: str
    redis_password: str
    admin_password: str
    key_secret: str
    agent_client_secret: str
    member_key: str
    jobs_encryption_key: str = ""  # later than the others: a state without it gets one at its next start

    @classmethod
    def make(cls) -> Self:
        """New ones: 192 bits each, readable in a URL."""
        return cls(*(secrets.token_urlsafe(24) for _ in cls.__dataclass_fields__))


class State:
    """The folder `.triton` of a checkout, or the one that --state or TRITON_STATE names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.logs = self.folder / "logs"
        self.documents = self.folder / "documents"
        self.postgres = self.folder / "postgres"
        self.redis = self.folder / "redis"
        self.clickhouse = self.folder / "clickhouse"
        self.spool = self.folder / "spool"
        self.audit = self.folder / "audit"
        self.secrets_file = self.folder / "secrets.json"
        self._lock = self.folder / "lock"
        self._stack = self.folder / "stack.json"

    def log(self, name: str) -> Path:
        """Where a part writes."""
        return self.logs / f"{name}.log"

    def stamp(self, name: str) -> Path:
        """What tells that a command is done, and need not be again."""
        return self.folder / f"{name}.stamp"

    def prepare(self) -> None:
        """Make the folders, each for its owner alone: what lies there is data of members. As root, Postgres lets its
        user pass through the folders above its own: these lie beside it. Raises CommandFailed."""
        self.check_name()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.documents, self.redis, self.clickhouse, self.spool, self.audit):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise CommandFailed(
                f"{self.folder} cannot be written: {error.strerror}. Name another with --state."
            ) from error

    def check_name(self) -> None:
        """Raises CommandFailed when the servers would take the folder for another."""
        unfit = sorted(set(UNFIT) & set(str(self.folder)))
        if unfit:
            raise CommandFailed(
                f"The servers cannot keep their data in {self.folder}, whose name has {' '.join(unfit)}. "
                "Name another folder with --state."
            )

    def secrets(self) -> Secrets:
        """Those of this state, made on first use, in a file for its owner alone."""
        known = self.known_secrets()
        if known is not None and known.jobs_encryption_key:
            return known
        made = Secrets.make()
        if known is not None:
            made = replace(known, jobs_encryption_key=made.jobs_encryption_key)
        new = self.secrets_file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(asdict(made), indent=2) + "\n")
        new.replace(self.secrets_file)
        return made

    def known_secrets(self) -> Secrets | None:
        """Those of this state, if there are any yet."""
        try:
            return Secrets(**json.loads(self.secrets_file.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise CommandFailed(f"{self.secrets_file} cannot be read: restore it, or run `triton reset`.") from error

    @contextmanager
    def locked(self) -> Iterator[dict[str, Any]]:
        """Hold the lock; the kernel gives it back however we end. Gives what a stack said of itself that was killed
        here, nothing as a rule. Raises CommandFailed when a stack runs here."""
        self.prepare()
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                running = self.running() or {}
                where = f", on port {running['port']}" if "port" in running else ""
                raise CommandFailed(
                    f"The stack of {self.folder} runs already, as process {self.holder()}{where}. Stop it with "
                    "`triton down`, or give a second one its own --state and --port."
                ) from None
            self._lock.write_text(str(os.getpid()))
            left = self.published()  # of a stack that was killed before it could take it away
            self._stack.unlink(missing_ok=True)
            try:
                yield left
            finally:
                self._stack.unlink(missing_ok=True)

    def is_locked(self) -> bool:
        """True while a stack runs here."""
        try:
            with self._lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise CommandFailed(
                f"{self.folder} cannot be read: {error.strerror}. Name another with --state."
            ) from error
        return False

    def holder(self) -> int | None:
        """The process that holds the lock, or held it last."""
        with suppress(FileNotFoundError, ValueError):
            return int(self._lock.read_text())
        return None

    def running(self) -> dict[str, Any] | None:
        """What the stack that runs here says of itself; None when there is none."""
        if not self.is_locked():
            return None
        found = self.published()
        return found if _lives(found.get("pid")) else {}  # else it is from a stack that was killed, and another begins

    def published(self) -> dict[str, Any]:
        """What the last stack here said of itself, if it runs or was killed; nothing once it was stopped."""
        with suppress(FileNotFoundError, ValueError):
            found: dict[str, Any] = json.loads(self._stack.read_text())
            return found
        return {}

    def publish(self, stack: Mapping[str, Any]) -> None:
        """Say what the stack is doing, for the other commands."""
        new = self._stack.with_suffix(".new")
        new.write_text(json.dumps(stack, indent=2) + "\n")
        new.replace(self._stack)

    def is_ours(self) -> bool:
        """Whether a stack was ever started here: each leaves its lock and its secrets."""
        return self._lock.exists() or self.secrets_file.exists()

    def delete(self) -> None:
        """Delete all that a stack put here, and nothing else: the folder may be one that somebody named by mistake."""
        for folder in (self.logs, self.documents, self.postgres, self.redis, self.clickhouse, self.spool, self.audit):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.secrets_file, self._stack, self._lock, *self.folder.glob("*.stamp")):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def _lives(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
