"""`triton backup`: a stack's data into a folder, and back into an empty stack: of this machine's own, or of compose.

The folder has a dump of each Postgres database, a tar of ClickHouse's tables and manifest.json, which says what they
are. Secrets are not in it, only what tells whether a stack has the same ones. Either kind of stack takes the other's.
"""

import asyncio
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from triton_cli.command import DEFAULT_STATE, StateOption, progress, say, sentences
from triton_cli.environment import COMPOSE, values_of
from triton_cli.state import CHECKOUT, CommandFailed, State
from triton_common.embedded import Postgres, ServerNotStarted, postgres_program

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
ANALYTICS: Final = "analytics.tar"
SERVICES: Final = {"auth": "auth-service", "jobs": "jobs-service", "agents": "agent-runner"}
"""The databases, by the service whose migrations build each."""
SECRETS: Final = ("AUTH_KEY_SECRET", "JOBS_ENCRYPTION_KEYS", "ANALYTICS_MEMBER_KEY")
"""Without these the data is not what it was: they decrypt some of it, and tell whose rows the next extract's are."""
USERS: Final = frozenset({*SERVICES.values(), "agent-worker", "agentos", "analytics-service"})
"""The services of compose that must not run while their data comes back."""
REVISION: Final = re.compile(r'^revision = "(\w+)"', re.MULTILINE)

app = typer.Typer(no_args_is_help=True, help="Backups of the platform's data, and their way back.")

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="The backup.", show_default=False)]
ComposeOption = Annotated[
    bool, typer.Option("--compose", help="The stack of compose, in place of this machine's own (`triton up`).")
]
EnvFileOption = Annotated[
    Path, typer.Option("--env-file", dir_okay=False, help="Where compose has its secrets from.", show_default=".env")
]
CommandOption = Annotated[
    str,
    typer.Option("--command", envvar="TRITON_COMPOSE", help="What runs compose.", show_default="docker compose -f …"),
]
DEFAULT_COMMAND: Final = shlex.join(["docker", "compose", "-f", str(COMPOSE)])


class Home(ABC):
    """A kind of stack: where its servers' programs run, and what must be so before its data is read or written."""

    kind: str

    @abstractmethod
    def reading(self) -> Any:
        """A context in which the data can be read. Raises CommandFailed."""

    @abstractmethod
    def writing(self) -> Any:
        """A context in which the empty databases can be filled. Raises CommandFailed."""

    @abstractmethod
    def client(self, program: str, *arguments: str) -> list[str]:
        """The command of a Postgres client, as its superuser."""

    @abstractmethod
    def analytics(self, verb: str, *, alone: bool) -> list[str]:
        """The command that dumps or loads ClickHouse's tables; `alone` where the service does not run."""

    @abstractmethod
    def secrets(self) -> Mapping[str, str]:
        """The values of SECRETS."""

    def environment(self) -> Mapping[str, str]:
        """What its commands are given beside ours."""
        return {}

    def owner(self, database: str) -> list[str]:  # noqa: ARG002  others need it
        """What pg_restore is told of whose the tables are."""
        return []

    def run(self, command: Sequence[str], *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> str:
        """Run one of those; answers its output. Raises CommandFailed with what it said."""
        try:
            done = subprocess.run(
                command,
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | self.environment(),
                check=False,
            )
        except OSError as error:
            raise CommandFailed(f"{command[0]} cannot be run: {error.strerror}.") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
            raise CommandFailed("\n".join([f"{_shown(command)} failed:", *said]))
        return (done.stdout or b"").decode()

    def ask(self, database: str, sql: str) -> str:
        """One value."""
        return self.run(self.client("psql", "--no-psqlrc", "-qAt", "-d", database, "-c", sql)).strip()


class Embedded(Home):
    """The stack of this machine, stopped: nobody else may open ClickHouse's files, and nobody writes meanwhile."""

    kind = "embedded"

    def __init__(self, state: State) -> None:
        self._state = state
        self._secrets = state.known_secrets()
        self._port = _free_port()
        password = self._secrets.postgres_password if self._secrets else None
        self._postgres = Postgres(state.postgres, port=self._port, password=password)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Its Postgres, alone."""
        if not (self._state.postgres / "PG_VERSION").exists():
            raise CommandFailed(f"{self._state.folder} has no data of a stack. Name the right one with --state.")
        with self._alone(), self._started():
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A new Postgres, alone; what a restore that failed has made of it goes."""
        folders = (self._state.postgres, self._state.clickhouse)
        with self._alone():
            if full := [folder for folder in folders if folder.exists() and any(folder.iterdir())]:
                raise CommandFailed(
                    f"{full[0]} has data already. Restore into an empty folder, named with --state, that has the "
                    "secrets.json of the stack that the backup is of."
                )
            for stamp in self._state.folder.glob("*.stamp"):  # or the next start would think it had migrated this
                stamp.unlink()
            try:
                with self._started():
                    self._postgres.create_databases(SERVICES)
                    yield
            except BaseException:
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        from triton_cli.running import end_leftovers  # noqa: PLC0415  the servers' drivers take a second to import

        with self._state.locked() as left:
            asyncio.run(end_leftovers(left.get("parts", []), progress))
            yield

    @contextmanager
    def _started(self) -> Iterator[None]:
        try:
            self._postgres.start()
        except ServerNotStarted as error:
            raise CommandFailed(str(error)) from error
        try:
            yield
        finally:
            self._postgres.stop()

    def client(self, program: str, *arguments: str) -> list[str]:
        """From the same package as the server."""
        where = ["-h", "127.0.0.1", "-p", str(self._port), "-U", self._postgres.user]
        return [str(postgres_program(program)), *where, *arguments]

    def analytics(self, verb: str, *, alone: bool) -> list[str]:  # noqa: ARG002  it always is
        """In this environment, on the stack's files."""
        return [sys.executable, "-m", "analytics_service.backup", verb]

    def environment(self) -> Mapping[str, str]:
        """The password goes by the environment: command lines are everybody's to read."""
        return {
            "PGPASSWORD": self._secrets.postgres_password if self._secrets else "",
            "TRITON_ENV": "dev",  # this stack's secrets are its own, and none of them is asked for here
            "CLICKHOUSE_URL": f"chdb://{self._state.clickhouse}",
            "ANALYTICS_SPOOL_DIR": str(self._state.spool),
        }

    def secrets(self) -> Mapping[str, str]:
        """Those of the state."""
        known = self._secrets
        if known is None:
            raise CommandFailed(
                f"{self._state.secrets_file} is not there. Put that of the stack that the backup is of in its place, "
                "for its owner alone to read: a backup has no secrets."
            )
        return dict(zip(SECRETS, (known.key_secret, known.jobs_encryption_key, known.member_key), strict=True))


class Composed(Home):
    """The stack of compose: it goes on while it is read, and has its databases alone while it is written."""

    kind = "compose"

    def __init__(self, command: Sequence[str], env_file: Path) -> None:
        self._command = command
        self._env_file = env_file

    @contextmanager
    def reading(self) -> Iterator[None]:
        """As it runs."""
        running = self._running()
        if missing := sorted({"postgres", "analytics-service"} - running):
            raise CommandFailed(
                f"{' and '.join(missing)} must run to be read: `{shlex.join(self._command)} up -d --wait`."
            )
        yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The databases alone, started."""
        if users := sorted(USERS & self._running()):
            raise CommandFailed(
                f"{', '.join(users)} must not run while their data comes back: "
                f"`{shlex.join([*self._command, 'stop', *users])}`."
            )
        self.run([*self._command, "up", "-d", "--wait", "postgres", "clickhouse"])
        for database in self._databases():
            if self.ask(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") != "0":
                raise CommandFailed(
                    f"Postgres' database {database} is not empty. Restore into new volumes: "
                    f"`{shlex.join(self._command)} down --volumes` deletes all that there is."
                )
        yield

    def _running(self) -> set[str]:
        return set(self.run([*self._command, "ps", "--services", "--filter", "status=running"]).split())

    def _databases(self) -> list[str]:
        found = self.ask("postgres", "SELECT datname FROM pg_database").split()
        return [name for name in SERVICES if name in found]

    def client(self, program: str, *arguments: str) -> list[str]:
        """Inside the server's container, whose socket needs no password."""
        return [*self._command, "exec", "-T", "postgres", program, "-U", "postgres", *arguments]

    def analytics(self, verb: str, *, alone: bool) -> list[str]:
        """In the service's own container, or one like it."""
        how = ["run", "--rm", "-T", "--no-deps"] if alone else ["exec", "-T"]
        return [*self._command, *how, "analytics-service", "python", "-m", "analytics_service.backup", verb]

    def owner(self, database: str) -> list[str]:
        """Each database has a role of its name, which owns what is in it."""
        return [f"--role={database}"]

    def secrets(self) -> Mapping[str, str]:
        """As compose reads them: what the environment has comes before the file."""
        known = values_of(self._env_file)
        found = {name: os.environ.get(name) or known.get(name, "") for name in SECRETS}
        if missing := [name for name, value in found.items() if not value]:
            raise CommandFailed(f"{self._env_file} has no {', '.join(missing)}: name compose's own with --env-file.")
        return found


def home_of(state: Path, *, compose: bool, command: str, env_file: Path) -> Home:
    """The stack that a command means."""
    return Composed(shlex.split(command), env_file) if compose else Embedded(State(state))


@app.command()
@sentences
def create(
    folder: FolderArgument,
    compose: ComposeOption = False,
    command: CommandOption = DEFAULT_COMMAND,
    env_file: EnvFileOption = CHECKOUT / ".env",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Write a backup into a new folder. This machine's own stack must be stopped; compose goes on running.

    It has all data of the stack, prospects' included, and no secrets: keep those too, and apart from it.
    """
    home = home_of(state, compose=compose, command=command, env_file=env_file)
    folder = folder.absolute()
    if folder.exists():
        raise CommandFailed(f"{folder} is there already: a backup goes into a new folder.")
    new = folder.with_name(f"{folder.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700, parents=True)
        with home.reading():
            _write(home, new)
        new.rename(folder)
    except OSError as error:
        raise CommandFailed(f"{folder} could not be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(f"{folder}: {size / 1e6:.1f} MB. What decrypts it is not in it: keep the stack's secrets too, apart from it.")


@app.command()
@sentences
def verify(folder: FolderArgument) -> None:
    """Look whether a backup is whole: every file there, and not one byte other than it was written."""
    manifest = _manifest(folder)
    _check_files(folder, manifest)
    say(f"{folder} is whole: of {manifest['made_at']}, release {manifest['release']}, {manifest['home']}.")


@app.command()
@sentences
def restore(
    folder: FolderArgument,
    compose: ComposeOption = False,
    command: CommandOption = DEFAULT_COMMAND,
    env_file: EnvFileOption = CHECKOUT / ".env",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Fill an empty stack that has the secrets of the one that the backup is of. Starts nothing: do that afterwards."""
    home = home_of(state, compose=compose, command=command, env_file=env_file)
    manifest = _manifest(folder)
    _check_files(folder, manifest)
    _check_revisions(manifest)
    _check_secrets(manifest, home.secrets())
    with home.writing():
        _check_postgres(manifest, home)
        for database in manifest["databases"]:
            say(f"  database {database}")
            with (folder / f"{database}.dump").open("rb") as file:
                how = ["--no-owner", "--no-acl", "--exit-on-error", "--single-transaction", *home.owner(database)]
                home.run(home.client("pg_restore", *how, "-d", database), stdin=file)
            home.run(home.client("psql", "--no-psqlrc", "-q", "-d", database, "-c", "ANALYZE"))
        say("  analytics")
        with (folder / ANALYTICS).open("rb") as file:
            home.run(home.analytics("load", alone=True), stdin=file)
    start = f"{command} up -d --wait" if compose else f"triton up --state {shlex.quote(str(state))}"
    say(f"All data of {manifest['made_at']} is back. Start the stack: `{start}`.")


def _write(home: Home, folder: Path) -> None:
    """All files. ClickHouse's first: a prospect without data has none yet; data without a prospect is lost."""
    say("  analytics")
    with (folder / ANALYTICS).open("wb") as file:
        home.run(home.analytics("dump", alone=False), stdout=file)
    there = home.ask("postgres", "SELECT datname FROM pg_database").split()
    databases = {}
    for database in (name for name in SERVICES if name in there):
        say(f"  database {database}")
        databases[database] = home.ask(database, "SELECT version_num FROM alembic_version")
        with (folder / f"{database}.dump").open("wb") as file:
            home.run(home.client("pg_dump", "-Fc", "--no-owner", "--no-acl", "-d", database), stdout=file)
    salt = secrets.token_hex(16)
    manifest = {
        "format": FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": version("triton-cli"),
        "home": home.kind,
        "postgres": _major(home),
        "databases": databases,
        "salt": salt,
        "secrets": {name: _fingerprints(value, salt) for name, value in home.secrets().items()},
        "files": {
            file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in sorted(folder.iterdir())
        },
    }
    for written in folder.iterdir():
        written.chmod(0o600)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _manifest(folder: Path) -> dict[str, Any]:
    """What a backup says of itself. Raises CommandFailed: there is none, or none that this release can read."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        found = manifest["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise CommandFailed(f"{folder} is no backup: it has no {MANIFEST}.") from None
    except (OSError, ValueError, TypeError, KeyError):
        raise CommandFailed(f"{folder / MANIFEST} is damaged.") from None
    if found != FORMAT:
        raise CommandFailed(
            f"{folder} has the form {found}; this release reads {FORMAT}. Use the release that made it."
        )
    return manifest


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise CommandFailed(f"{folder} is not whole: {name} is missing.")
        if file.stat().st_size != expected["bytes"] or _sha256(file) != expected["sha256"]:
            raise CommandFailed(f"{file} is damaged: it is not what was written. Nothing was restored.")


def _check_revisions(manifest: Mapping[str, Any]) -> None:
    """A database from the future has columns that this release would not fill."""
    for database, revision in manifest["databases"].items():
        folder = CHECKOUT / "services" / SERVICES[database] / "migrations" / "versions"
        known = [found for file in folder.glob("*.py") for found in REVISION.findall(file.read_text())]
        if revision not in known:
            raise CommandFailed(
                f"The backup is of a newer release, {manifest['release']}: this one does not know revision {revision} "
                f"of the database {database}."
            )


def _check_secrets(manifest: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Each that the backup was made with must be there: in JOBS_ENCRYPTION_KEYS among others."""
    for name, expected in manifest["secrets"].items():
        if not set(expected) <= set(_fingerprints(known[name], manifest["salt"])):
            raise CommandFailed(
                f"{name} is not that of the stack that the backup is of: what it encrypted could not be read. Put that "
                "stack's secrets in place first; nothing was restored."
            )


def _check_postgres(manifest: Mapping[str, Any], home: Home) -> None:
    if _major(home) < manifest["postgres"]:
        raise CommandFailed(
            f"The backup is of Postgres {manifest['postgres']}, and here is {_major(home)}: older ones cannot read it."
        )


def _major(home: Home) -> int:
    return int(home.ask("postgres", "SHOW server_version_num")) // 10_000


def _fingerprints(value: str, salt: str) -> list[str]:
    """What tells a secret from others without telling what it is; of a list, one each."""
    cost = {"n": 2**14, "r": 8, "p": 1, "dklen": 16}
    return [
        hashlib.scrypt(part.strip().encode(), salt=bytes.fromhex(salt), **cost).hex()
        for part in value.split(",")
        if part.strip()
    ]


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _free_port() -> int:
    """One that nobody listens on just now: for a Postgres of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _shown(command: Sequence[str]) -> str:
    """The words of a command that say what it is: neither folders nor options."""
    return " ".join(Path(word).name for word in command if not word.startswith("-"))[:120]
