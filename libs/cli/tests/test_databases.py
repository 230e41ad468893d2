"""`triton db` on real databases: what each has and lacks, applied once, and failures told in sentences."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from triton_cli import databases
from triton_cli.stack import Part
from triton_cli.state import CHECKOUT

pytestmark = pytest.mark.timeout(300)

NAMES = ("auth", "jobs", "agents")
PYTHON = CHECKOUT / ".venv" / "bin" / "python"  # of the environment that has all services
OPEN = "import sys; from chdb.session import Session; held = Session(sys.argv[1]); print('open', flush=True); input()"


@pytest.fixture
def urls(postgres_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Four databases without a table, by their settings."""
    postgres_server.create_databases(NAMES)
    found = {databases.SETTINGS[name]: postgres_server.url(name) for name in NAMES}
    found["CLICKHOUSE_URL"] = f"chdb://{tmp_path / 'engine'}"
    for setting, url in found.items():
        monkeypatch.setenv(setting, url)
    monkeypatch.setattr("sys.executable", str(PYTHON))
    yield found
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        for name in NAMES:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def db(action: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the databases by name."""
    answer = CliRunner().invoke(databases.app, [action, "--json"])
    found = json.loads(answer.stdout)
    assert found["current"] == (answer.exit_code == 0)
    return answer.exit_code, {one["name"]: one for one in found["databases"]}


def test_every_service_is_migrated_once(urls: dict[str, str]):
    exit_code, before = db("status")
    assert exit_code == 1
    assert set(before) == set(databases.SERVICES)
    assert all(one["state"] == "behind" and one["pending"] and not one["applied"] for one in before.values()), before
    exit_code, after = db("migrate")
    assert exit_code == 0, after
    for name, one in after.items():
        assert (one["state"], one["applied"], one["pending"]) == ("current", before[name]["pending"], [])
    answer = CliRunner().invoke(databases.app, ["migrate"])
    lines = [line.split("\t") for line in answer.stdout.splitlines()]
    assert answer.exit_code == 0
    assert lines == [[name, "current", str(len(one["applied"])), "", ""] for name, one in after.items()]


def test_a_database_of_a_newer_release_is_left_alone(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    for setting in ("AUTH_DATABASE_URL", "JOBS_DATABASE_URL", "CLICKHOUSE_URL"):
        monkeypatch.delenv(setting)
    assert db("migrate")[0] == 0
    with psycopg.connect(urls["AGENT_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    exit_code, found = db("status")
    assert (exit_code, set(found), found["agents"]["state"]) == (1, {"agents"}, "ahead")
    assert "9999" in found["agents"]["message"]
    assert "newer" in db("migrate")[1]["agents"]["message"]


def test_what_fails_is_a_sentence_and_the_others_are_told(
    urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUTH_DATABASE_URL", "postgresql://somebody:hidden@127.0.0.1:1/auth")
    monkeypatch.setenv("JOBS_DATABASE_URL", "mysql://somebody:hidden@127.0.0.1/jobs")
    command = [str(PYTHON), "-c", OPEN, str(tmp_path / "engine")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout
        assert held.stdout.readline() == "open\n"
        exit_code, found = db("migrate")
        held.communicate("\n")
    assert (exit_code, found["agents"]["state"]) == (1, "current")
    messages = {name: one["message"] for name, one in found.items() if one["state"] == "failed"}
    assert "does not answer" in messages["auth"]
    assert "none of Postgres" in messages["jobs"]
    assert "a running analytics-service has its folder" in messages["analytics"]
    assert "hidden" not in json.dumps(found)


def test_a_migration_that_fails_says_why(urls: dict[str, str]):
    with psycopg.connect(urls["AUTH_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE users (id int)")
    exit_code, found = db("migrate")
    assert exit_code == 1
    assert found["auth"]["message"] == 'A migration failed: relation "users" already exists'
    assert found["jobs"]["state"] == "current"


def test_who_does_not_answer_in_time_is_told_so(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("triton_cli.databases.TIMEOUTS", {"status": 0.01})
    assert "did not answer within" in db("status")[1]["jobs"]["message"]


def test_where_nothing_runs_it_says_how_to_name_databases(tmp_path: Path):
    answer = CliRunner().invoke(databases.app, ["status", "--state", str(tmp_path)])
    assert (answer.exit_code, "triton up" in answer.stderr, "CLICKHOUSE_URL" in answer.stderr) == (1, True, True)


def test_a_service_that_is_not_ready_answers_for_nothing():
    found = databases._of_running(Part(name="analytics", layer=0, command=[], ports=[1]), "status")
    assert (found.state, found.message) == ("failed", "analytics-service, which holds it, is not ready")


@pytest.mark.demo
def test_the_stack_that_runs_is_asked(platform: Any):
    for action in ("status", "migrate"):
        answer = platform.triton("db", action, "--json")
        assert answer.returncode == 0, answer.stderr
        found = {one["name"]: one for one in json.loads(answer.stdout)["databases"]}
        assert set(found) == set(databases.SERVICES)
        assert found["jobs"]["pending"] == []
        assert found["jobs"]["applied"]
        assert found["analytics"]["message"] == databases.RUNS
