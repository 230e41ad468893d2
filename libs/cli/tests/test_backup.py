"""`triton backup` of compose, by a stand-in for what runs it, and what it refuses. The embedded stack's is in
test_end_to_end.py."""

import hashlib
import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import psycopg
import pytest
from typer.testing import CliRunner

from triton_cli.backup import ANALYTICS, MANIFEST, SECRETS, SERVICES, _fingerprints
from triton_cli.main import app
from triton_cli.state import CHECKOUT, State

SECRETS_OF_IT = {name: f"a strong value of {name}" for name in SECRETS}
RUNNING = ["gateway", "postgres", "clickhouse", "analytics-service", "auth-service"]


def triton(*arguments: str, **environment: str):
    return CliRunner().invoke(app, ["backup", *arguments], env=dict.fromkeys(SECRETS) | environment)


@pytest.fixture
def composed(postgres_server, tmp_path):
    """A stack of compose with three databases of one role each, empty: `.args` are the options that name it."""
    server = urlsplit(postgres_server.url("postgres"))
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        for name in SERVICES:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE IF EXISTS {name}")
            connection.execute(f"CREATE ROLE {name} LOGIN")
            connection.execute(f"CREATE DATABASE {name} OWNER {name}")
    state, env_file = tmp_path / "state.json", tmp_path / ".env"
    known = {
        "port": server.port,
        "password": server.password,
        "spool": str(tmp_path),
        "checkout": str(CHECKOUT),
    }
    env_file.write_text("".join(f"{name}='{value}'\n" for name, value in SECRETS_OF_IT.items()))

    def at(clickhouse: str, running: list[str]) -> None:
        state.write_text(json.dumps(known | {"clickhouse": str(tmp_path / clickhouse), "running": running}))

    def sql(database: str, statement: str) -> list[tuple]:
        with psycopg.connect(postgres_server.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    script = Path(__file__).with_name("compose.py")
    command = shlex.join([sys.executable, str(script), str(state)])
    yield SimpleNamespace(at=at, sql=sql, args=["--compose", "--command", command, "--env-file", str(env_file)])
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        for name in SERVICES:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_compose_is_backed_up_while_it_runs_and_restored_into_empty_volumes(composed, tmp_path):
    folder = tmp_path / "backup"
    composed.at("old", RUNNING)
    for name in SERVICES:
        composed.sql(name, "CREATE TABLE alembic_version (version_num text)")
        composed.sql(name, "INSERT INTO alembic_version VALUES ('0001')")
        composed.sql(name, f"CREATE TABLE words AS SELECT 'of {name}' AS word")
    made = triton("create", str(folder), *composed.args)
    assert made.exit_code == 0, made.output
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(file.name for file in folder.iterdir()) == [
        "agents.dump",
        ANALYTICS,
        "auth.dump",
        "jobs.dump",
        MANIFEST,
    ]
    assert not any(value in (folder / MANIFEST).read_text() for value in SECRETS_OF_IT.values())
    assert triton("verify", str(folder)).exit_code == 0

    in_use = triton("restore", str(folder), *composed.args)
    assert "analytics-service, auth-service must not run" in in_use.stderr
    composed.at("new", [])
    full = triton("restore", str(folder), *composed.args)
    assert "Postgres' database auth is not empty" in full.stderr
    for name in SERVICES:
        composed.sql(name, "DROP TABLE words, alembic_version")
    restored = triton("restore", str(folder), *composed.args)
    assert restored.exit_code == 0, restored.output
    for name in SERVICES:
        assert composed.sql(name, "SELECT word FROM words") == [(f"of {name}",)]
        assert composed.sql(name, "SELECT tableowner FROM pg_tables WHERE tablename = 'words'") == [(name,)]


def test_what_must_run_to_be_read_is_named(composed, tmp_path):
    composed.at("old", ["postgres"])
    done = triton("create", str(tmp_path / "backup"), *composed.args)
    assert done.exit_code == 1
    assert "analytics-service must run" in done.stderr
    assert not list(tmp_path.glob("backup*"))


def test_secrets_that_are_not_where_they_were_said_to_be_are_named(composed, tmp_path, backup):
    nowhere = [*composed.args[:-1], str(tmp_path / "nowhere")]
    done = triton("restore", backup(), *nowhere)
    assert done.exit_code == 1
    assert "has no AUTH_KEY_SECRET, JOBS_ENCRYPTION_KEYS, ANALYTICS_MEMBER_KEY" in done.stderr


def test_a_command_that_is_not_there_or_fails_is_a_sentence(tmp_path):
    nowhere = triton("create", str(tmp_path / "backup"), "--compose", "--command", "no-such-program compose")
    assert nowhere.exit_code == 1
    assert "no-such-program cannot be run" in nowhere.stderr
    failing = triton("create", str(tmp_path / "backup"), "--compose", "--command", "ls --no-such-option")
    assert failing.exit_code == 1
    assert "ls ps status=running failed:" in failing.stderr


@pytest.fixture
def backup(tmp_path):
    """A backup of a stack whose secrets are SECRETS_OF_IT."""
    folder = tmp_path / "backup"
    folder.mkdir()
    (folder / "auth.dump").write_bytes(b"a dump")
    manifest = {
        "format": 1,
        "made_at": "2026-11-23T06:00:00+00:00",
        "release": "0.1.0",
        "home": "compose",
        "postgres": 18,
        "databases": {"auth": "0001"},
        "salt": "00" * 16,
        "secrets": {name: _fingerprints(value, "00" * 16) for name, value in SECRETS_OF_IT.items()},
    }

    def write(**changes):
        files = {"auth.dump": {"bytes": 6, "sha256": hashlib.sha256(b"a dump").hexdigest()}}
        (folder / MANIFEST).write_text(json.dumps(manifest | {"files": files} | changes))
        return str(folder)

    return write


def test_a_backup_that_is_no_backup_or_damaged_is_told_before_anything_is_touched(backup, tmp_path):
    folder = Path(backup())
    assert triton("verify", str(folder)).exit_code == 0
    (folder / "auth.dump").write_bytes(b"a Dump")
    assert "auth.dump is damaged" in triton("verify", str(folder)).stderr
    (folder / "auth.dump").write_bytes(b"a dum")
    assert "auth.dump is damaged" in triton("restore", str(folder), "--state", str(stack(tmp_path))).stderr
    (folder / "auth.dump").unlink()
    assert "auth.dump is missing" in triton("verify", str(folder)).stderr
    backup(format=2)
    assert "has the form 2; this release reads 1" in triton("verify", str(folder)).stderr
    (folder / MANIFEST).write_text("{")
    assert "manifest.json is damaged" in triton("verify", str(folder)).stderr
    assert "is no backup" in triton("verify", str(tmp_path / "nowhere")).stderr


def stack(tmp_path, **secrets):
    """The folder of a stack that was never started, with its secrets."""
    state = State(tmp_path / "state")
    state.prepare()
    names = ("key_secret", "jobs_encryption_key", "member_key")
    own = dict(zip(names, SECRETS_OF_IT.values(), strict=True))
    others = dict.fromkeys(("postgres_password", "redis_password", "admin_password", "agent_client_secret"), "x" * 32)
    state.secrets_file.write_text(json.dumps(others | own | secrets))
    return state.folder


def test_other_secrets_or_a_newer_release_are_refused(backup, tmp_path):
    folder = backup(databases={"auth": "0999"})
    newer = triton("restore", folder, "--state", str(stack(tmp_path)))
    assert newer.exit_code == 1
    assert "does not know revision 0999 of the database auth" in newer.stderr
    foreign = triton("restore", backup(), "--state", str(stack(tmp_path, member_key="another strong value")))
    assert foreign.exit_code == 1
    assert "ANALYTICS_MEMBER_KEY is not that of the stack" in foreign.stderr
    assert "another strong value" not in foreign.output


def test_a_restore_that_fails_leaves_the_folder_empty(backup, tmp_path):
    folder = stack(tmp_path, jobs_encryption_key=f"a new key, {SECRETS_OF_IT['JOBS_ENCRYPTION_KEYS']}")
    newer = triton("restore", backup(postgres=99), "--state", str(folder))
    assert "The backup is of Postgres 99" in newer.stderr
    assert not (folder / "postgres").exists()
    failed = triton("restore", backup(), "--state", str(folder))
    assert failed.exit_code == 1
    assert "pg_restore" in failed.stderr
    assert not (folder / "postgres").exists()


def test_folders_that_are_in_use_are_left_alone(backup, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    assert "is there already" in triton("create", str(taken), "--state", str(tmp_path / "none")).stderr
    none = triton("create", str(tmp_path / "other"), "--state", str(tmp_path / "none"))
    assert "has no data of a stack" in none.stderr
    folder = stack(tmp_path)
    (folder / "clickhouse" / "data").mkdir(parents=True)
    full = triton("restore", backup(), "--state", str(folder))
    assert "has data already" in full.stderr
    assert (folder / "clickhouse" / "data").exists()
    with State(folder).locked():
        running = triton("restore", backup(), "--state", str(folder))
    assert "runs already" in running.stderr
    assert (folder / "clickhouse" / "data").exists()
