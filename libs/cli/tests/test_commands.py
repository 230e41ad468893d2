"""The commands, as processes: signals, two stacks, the same one twice, what they say and leave."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from triton_cli.main import app
from triton_cli.parts import parts_of
from triton_cli.running import end_leftovers
from triton_cli.state import CommandFailed, Secrets, State
from triton_common.embedded import Postgres
from triton_common.testing import eventually, free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def port(free_block: Callable[[], int]) -> str:
    """Where a stack may start."""
    return str(free_block())


def is_ready(state: Path) -> bool:
    return bool((State(state).running() or {}).get("ready"))


def children(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(triton, tmp_path, number, port):
    process = triton("up", "--port", port)
    eventually(lambda: is_ready(tmp_path / "state"), within=30)
    running = children(process)
    assert len(running) == 2
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Triton is ready" in out
    assert "Everything is stopped." in err
    assert not any(child.is_running() for child in running)
    assert not State(tmp_path / "state").is_locked()


def test_a_signal_during_the_start_stops_what_there_is(triton, tmp_path, port):
    process = triton("up", "--port", port)
    eventually(lambda: len((State(tmp_path / "state").running() or {}).get("parts", [])) > 0, within=30)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert not State(tmp_path / "state").is_locked()


def test_nothing_outlives_a_killed_supervisor(triton, tmp_path, port):
    process = triton("up", "--port", port)
    eventually(lambda: is_ready(tmp_path / "state"), within=30)
    running = children(process)
    process.kill()
    process.communicate()
    eventually(lambda: all(not child.is_running() or child.status() == "zombie" for child in running))


def test_after_a_killed_supervisor_a_start_waits_for_what_is_left(triton, tmp_path, port):
    let_go = tmp_path / "let go"
    killed = triton("up", "--port", port, STAND_IN_SLOW=str(let_go))
    eventually(lambda: is_ready(tmp_path / "state"), within=30)
    killed.kill()
    killed.communicate()
    again = triton("up", "--port", port)
    assert again.stderr is not None
    told = again.stderr.readline()
    assert told.startswith("An earlier start was killed; waiting for what is left of it: ")
    assert "last" in told
    let_go.touch()
    eventually(lambda: is_ready(tmp_path / "state"), within=30)
    again.send_signal(signal.SIGTERM)
    assert "Triton is ready" in again.communicate(timeout=30)[0]


def test_a_detached_start_says_what_it_waits_for(triton, tmp_path, port):
    let_go = tmp_path / "let go"
    killed = triton("up", "--port", port, STAND_IN_SLOW=str(let_go))
    eventually(lambda: is_ready(tmp_path / "state"), within=30)
    killed.kill()
    killed.communicate()
    again = triton("up", "--detach", "--port", port)
    assert again.stderr is not None
    assert again.stderr.readline().startswith("An earlier start was killed; waiting for what is left of it: ")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=30)
    let_go.touch()
    assert again.returncode == 130
    assert not State(tmp_path / "state").is_locked()


def test_what_a_killed_stack_said_is_not_what_the_next_one_says(tmp_path):
    state = State(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as killed:
        killed.wait()
    with state.locked():
        state.publish({"ready": True, "pid": killed.pid})  # as it lies there while the next one takes the lock
        assert state.running() == {}
        state.publish({"ready": True, "pid": os.getpid()})
        assert is_ready(tmp_path)


def test_what_does_not_end_is_killed_but_never_another_process_of_its_number(tmp_path):
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    said = Console(file=StringIO(), width=200)
    with subprocess.Popen([sys.executable, "-c", ignores], stdout=subprocess.PIPE, start_new_session=True) as recorded:
        began = psutil.Process(recorded.pid).create_time()
        part = {"name": "worker", "pid": recorded.pid}
        asyncio.run(end_leftovers([part | {"began": began - 60}, part | {"pid": None}, part], said, grace=0))
        assert recorded.poll() is None
        asyncio.run(end_leftovers([part | {"began": began}], said, grace=0))
        assert recorded.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TRITON_LOG_LEVEL", "LOUD", "TRITON_LOG_LEVEL: Input should be 'TRACE', 'DEBUG'"),
        ("TRITON_ENV", "moon", "TRITON_ENV: Input should be 'dev', 'staging' or 'prod'"),
        ("AGENT_MODEL", "gpt", "AGENT_MODEL=gpt: use offline:template, bedrock:<model id>"),
        ("AGENT_MODEL", "bedrock:", "AGENT_MODEL=bedrock:: use offline:template"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_starts(tmp_path, monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    for command in (["up"], ["up", "--detach"]):
        answer = CliRunner().invoke(app, [*command, "--state", str(tmp_path / "state")])
        assert answer.exit_code == 1
        assert answer.stderr.startswith(f"error: {told}")
        assert not (tmp_path / "state").exists()
    findings = json.loads(CliRunner().invoke(app, ["doctor", "--json", "--state", str(tmp_path)]).stdout)["findings"]
    assert [f["message"] for f in findings if f["verdict"] == "blocked" and f["message"].startswith(told)]


@pytest.mark.parametrize("command", ["up", "down", "status", "logs", "reset", "doctor", "demo", "jobs list"])
def test_a_state_that_is_a_file_is_told_of(tmp_path, command):
    file = tmp_path / "file"
    file.touch()
    answer = CliRunner().invoke(app, [*command.split(), "--state", str(file)])
    assert answer.exit_code == 2
    assert "is a file" in re.sub(r"[\s│]+", " ", answer.stderr)  # out of its box
    below = CliRunner().invoke(app, [*command.split(), "--state", str(file / "state")])
    assert below.exit_code == (0 if command in {"down", "reset"} else 1)
    assert isinstance(below.exception, SystemExit | None)
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_start_says_why_and_leaves_nothing(triton, tmp_path, port):
    process = triton("up", "--port", port, STAND_IN_BROKEN="1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: last ended with exit code 3 before it was ready" in err
    assert "no such table: users" in err
    assert "Traceback" not in err
    assert not State(tmp_path / "state").is_locked()


def test_the_same_state_twice_names_the_first(triton, tmp_path, port, free_block):
    first = triton("up", "--port", port)
    eventually(lambda: is_ready(tmp_path / "state"), within=30)
    _, err = triton("up", "--port", str(free_block())).communicate(timeout=30)
    assert f"runs already, as process {first.pid}, on port {port}" in " ".join(err.split())


def test_two_states_run_at_once(triton, tmp_path, free_block):
    for name in ("one", "two"):
        triton("up", "--port", str(free_block()), state=tmp_path / name)
    for name in ("one", "two"):
        eventually(lambda name=name: is_ready(tmp_path / name), within=30)


def test_a_taken_port_is_named(triton, tmp_path, port):
    triton("up", "--port", port, state=tmp_path / "one")
    eventually(lambda: is_ready(tmp_path / "one"), within=30)
    second = triton("up", "--port", port, state=tmp_path / "two")
    _, err = second.communicate(timeout=30)
    assert second.returncode == 1
    assert f"port {port}, which first needs" in err
    assert "--port" in err


def test_status_logs_and_down_of_a_running_stack(triton, answer_of, tmp_path, port):
    state = tmp_path / "state"
    process = triton("up", "--port", port)
    eventually(lambda: is_ready(state), within=30)

    answer = json.loads(answer_of("status", "--json").stdout)
    assert answer["ready"] is True
    assert answer["port"] == int(port)
    assert [part["phase"] for part in answer["parts"]] == ["ready", "done", "ready"]
    assert "is ready" in answer_of("status").stdout
    assert "listening" in answer_of("logs", "first").stdout
    refused = answer_of("logs", "nobody")
    assert refused.returncode == 1
    assert "There are: first, last, prepare" in refused.stderr
    assert "triton down" in answer_of("reset", "--yes").stderr

    assert answer_of("down").stdout == "Everything is stopped.\n"
    process.communicate(timeout=30)
    assert answer_of("down").stdout == "Nothing runs here.\n"
    stopped = answer_of("status", "--json")
    assert stopped.returncode == 1
    assert json.loads(stopped.stdout)["running"] is False


def test_logs_follow_what_is_written(triton, tmp_path):
    logs = tmp_path / "state" / "logs"
    logs.mkdir(parents=True)
    (logs / "part.log").write_text("old\n")
    process = triton("logs", "part", "-f")
    assert process.stdout is not None
    assert process.stdout.readline() == "old\n"
    with (logs / "part.log").open("a") as log:
        log.write("new\n")
    assert process.stdout.readline() == "new\n"


def test_reset_asks_and_deletes_what_is_its_own(tmp_path):
    state = State(tmp_path)
    state.prepare()
    state.secrets()
    (tmp_path / "somebody's file").touch()
    runner = CliRunner()
    assert runner.invoke(app, ["reset", "--state", str(tmp_path)], input="n\n").exit_code == 1
    closed = runner.invoke(app, ["reset", "--state", str(tmp_path)], input="")
    assert closed.exit_code == 1
    assert closed.stderr.splitlines()[-1].endswith("use --yes.")
    assert state.known_secrets() is not None
    assert runner.invoke(app, ["reset", "--state", str(tmp_path)], input="y\n").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's file"]


def test_reset_refuses_a_folder_that_no_stack_made(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "mine.txt").touch()
    answer = CliRunner().invoke(app, ["reset", "--yes", "--state", str(tmp_path)])
    assert answer.exit_code == 1
    assert (tmp_path / "documents" / "mine.txt").exists()


def test_reset_without_anything_says_so(tmp_path):
    answer = CliRunner().invoke(app, ["reset", "--yes", "--state", str(tmp_path / "none")])
    assert "nothing to delete" in answer.output


def test_secrets_are_made_once_for_their_owner_alone(tmp_path):
    state = State(tmp_path / "state")
    state.prepare()
    secrets = state.secrets()
    assert state.secrets() == secrets
    assert len(set(vars(secrets).values())) == len(vars(secrets))
    assert stat.S_IMODE((state.folder / "secrets.json").stat().st_mode) == 0o600


def test_folders_of_members_data_are_for_their_owner_alone(tmp_path):
    state = State(tmp_path / "state")
    folders = [state.logs, state.documents, state.redis, state.clickhouse, state.spool, state.audit]
    for folder in folders[:3]:
        folder.mkdir(parents=True, mode=0o755)
    state.prepare()
    assert {folder.name: stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {
        folder.name: 0o700 for folder in folders
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_as_root_only_postgres_data_is_in_reach_of_its_user():
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:  # pytest's own are closed to Postgres' user
        state = State(Path(folder) / "state")
        state.prepare()
        kept = [state.secrets_file, *(f / "x" for f in (state.logs, state.documents, state.redis, state.clickhouse))]
        state.secrets()
        for file in kept[1:]:
            file.write_text("a member's data")
            file.chmod(0o644)
        user = Postgres(state.postgres, port=free_port(), password="x", durable=False).prepare()

        def reads(path: Path) -> bool:
            look = "ls" if path.is_dir() else "cat"
            return subprocess.run([look, path], capture_output=True, user=user, group=user, check=False).returncode == 0

        assert reads(state.postgres)
        assert [path for path in (state.folder, *kept) if reads(path)] == []


@pytest.mark.parametrize("name", ["a#b", "a?b", 'a"b', "a\\b"])
def test_a_folder_that_servers_would_take_for_another_is_refused(tmp_path, name):
    with pytest.raises(CommandFailed, match="Name another folder with --state"):
        State(tmp_path / name / "state").prepare()
    assert list(tmp_path.iterdir()) == []
    answer = CliRunner().invoke(app, ["doctor", "--json", "--state", str(tmp_path / name)])
    findings = {finding["name"]: finding for finding in json.loads(answer.stdout)["findings"]}
    assert findings["state"]["verdict"] == "blocked"


def test_uploads_wait_below_the_state_folder(tmp_path, port):
    state = State(tmp_path)
    [analytics] = [part for part in parts_of(state, int(port), secrets=Secrets.make()) if part.name == "analytics"]
    assert analytics.environment["ANALYTICS_SPOOL_DIR"] == str(state.spool)
    assert analytics.environment["TRITON_AUDIT_SPOOL"] == str(state.audit)


def test_a_state_from_before_a_secret_was_needed_gets_it_and_keeps_the_others(tmp_path):
    state = State(tmp_path)
    known = vars(state.secrets()).copy()
    assert known.pop("jobs_encryption_key")
    state.secrets_file.write_text(json.dumps(known))
    assert (old := state.known_secrets()) is not None
    assert old.jobs_encryption_key == ""
    made = state.secrets()
    assert vars(made) == known | {"jobs_encryption_key": made.jobs_encryption_key}
    assert len(made.jobs_encryption_key) == 32
    assert state.secrets() == made
    assert stat.S_IMODE(state.secrets_file.stat().st_mode) == 0o600


def test_damaged_secrets_are_told_of(tmp_path):
    (tmp_path / "secrets.json").write_text("{}")
    with pytest.raises(CommandFailed, match="restore it, or run `triton reset`"):
        State(tmp_path).secrets()


def test_doctor_finds_what_blocks_a_start(tmp_path, monkeypatch, port):
    monkeypatch.setenv("AGENT_MODEL", "bedrock:some.model")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    answer = CliRunner().invoke(app, ["doctor", "--json", "--state", str(tmp_path / "state"), "--port", port])
    findings = {finding["name"]: finding for finding in json.loads(answer.stdout)["findings"]}
    assert answer.exit_code == 1
    assert findings["model"]["verdict"] == "blocked"
    assert "AWS_REGION" in findings["model"]["message"]
    for name in ("python", "postgres", "redis", "traefik", "clickhouse", "checkout"):
        assert findings[name]["verdict"] == "ok", findings[name]
    assert not (tmp_path / "state").exists()


def test_doctor_tells_what_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr("triton_cli.doctor.FREE_DISK", 10**18)
    monkeypatch.setattr("triton_cli.doctor.FREE_MEMORY", 10**18)
    monkeypatch.setattr("triton_cli.doctor.SERVICES", ("no_such_service",))
    monkeypatch.setattr("triton_cli.doctor.CHECKOUT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    found = {finding["name"]: finding for finding in doctor(tmp_path)}
    assert [found[name]["verdict"] for name in ("state", "memory")] == ["warning", "warning"]
    assert [found[name]["verdict"] for name in ("services", "checkout", "traefik")] == 3 * ["blocked"]
    assert found["services"]["message"].startswith("no_such_service not installed")
    assert "run `uv sync`" in found["traefik"]["message"]
    assert found["ports"]["message"].startswith("not looked at: Traefik is not installed")


def test_doctor_tells_a_program_that_does_not_run(tmp_path, monkeypatch):
    broken = tmp_path / "traefik"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    found = {finding["name"]: finding for finding in doctor(tmp_path)}
    assert found["traefik"]["verdict"] == "blocked"
    assert found["traefik"]["message"].startswith("it does not run: ")


def test_doctor_knows_its_own_stack_from_others(tmp_path, port):
    state = State(tmp_path / "state")
    with socket.create_server(("127.0.0.1", int(port) + 2)), state.locked():
        [taken] = [finding for finding in doctor(state.folder, "--port", port) if finding["name"] == "ports"]
        assert taken["verdict"] == "blocked"
        assert f"{int(port) + 2}, which jobs needs, is used by " in taken["message"]
        state.publish({"port": int(port), "pid": os.getpid()})
        [own] = [finding for finding in doctor(state.folder, "--port", port) if finding["name"] == "ports"]
        assert own["verdict"] == "ok"
        assert f"process {os.getpid()}" in own["message"]


@pytest.mark.parametrize(
    ("model", "verdict", "known"),
    [
        ("offline:template", "ok", {}),
        ("openai-like:llama", "warning", {}),
        ("openai-like:llama", "ok", {"AGENT_OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}),
        ("bedrock:some.model", "blocked", {}),
        ("bedrock:some.model", "warning", {"AWS_REGION": "eu-central-1"}),
        ("bedrock:some.model", "ok", {"AWS_REGION": "eu-central-1", "AWS_PROFILE": "work"}),
        ("gpt", "blocked", {}),
    ],
)
def test_doctor_judges_the_model(tmp_path, monkeypatch, model, verdict, known):
    names = ("AGENT_OPENAI_BASE_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"AGENT_MODEL": model, **known}.items():
        monkeypatch.setenv(name, value)
    assert {finding["name"]: finding["verdict"] for finding in doctor(tmp_path)}["model"] == verdict


def doctor(state: Path, *options: str) -> list[dict[str, str]]:
    answer = CliRunner().invoke(app, ["doctor", "--json", "--state", str(state), *options])
    findings: list[dict[str, str]] = json.loads(answer.stdout)["findings"]
    return findings


def test_logs_without_a_name_names_them(tmp_path):
    state = State(tmp_path / "state")
    state.prepare()
    state.log("redis").write_text("ready\n")
    assert CliRunner().invoke(app, ["logs", "--state", str(state.folder)]).stdout.split() == ["redis"]
    unknown = CliRunner().invoke(app, ["logs", "nobody", "--state", str(state.folder)])
    assert unknown.exit_code == 1
    assert "There is no log of nobody. There are: redis." in unknown.stderr


@pytest.mark.parametrize("command", ["", "up", "down", "status", "logs", "reset", "doctor", "demo", "sample", "jobs"])
def test_every_command_explains_itself(command):
    answer = CliRunner().invoke(app, [*command.split(), "--help"])
    assert answer.exit_code == 0
    assert "Usage" in answer.output


def test_demo_refuses_a_folder_that_is_no_export(tmp_path):
    answer = CliRunner().invoke(app, ["demo", "--data", str(tmp_path), "--state", str(tmp_path / "state")])
    assert answer.exit_code == 1
    assert "claims_transactions.csv" in answer.output
    assert not (tmp_path / "state").exists()
