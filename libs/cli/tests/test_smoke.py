"""`triton smoke` on the real platform, and on what is none."""

import json

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from typer.testing import CliRunner

from triton_cli import smoke
from triton_cli.demo import Outcome
from triton_cli.environment import values_of
from triton_cli.main import app
from triton_cli.state import CommandFailed
from triton_common.settings import CommonSettings
from triton_common.testing import free_port

HEALTHY = {"status": "ok", "message": None}
NOBODY = dict.fromkeys(("TRITON_URL", "TRITON_TOKEN", "TRITON_API_KEY", "TRITON_EMAIL", "TRITON_PASSWORD"))


@pytest.fixture
def env_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("AUTH_BOOTSTRAP_EMAIL=admin@triton.example\nAUTH_BOOTSTRAP_PASSWORD='a long enough password'\n")
    return file


def tried(url, *arguments, env_file, tmp_path, **environment):
    """The command, for a user of whom only the .env is known."""
    words = ["smoke", url, "--env-file", str(env_file), "--state", str(tmp_path / "none"), *arguments]
    return CliRunner().invoke(app, words, env=NOBODY | {"TRITON_CONFIG_DIR": str(tmp_path / "config")} | environment)


@pytest.fixture
def listening(serving):
    """Something at a URL: /health answers this, everything else is no route."""

    def at(health, status=200):
        stand_in = FastAPI()
        stand_in.state.settings = CommonSettings()

        @stand_in.get("/health")
        async def answer():
            return PlainTextResponse(health) if isinstance(health, str) else JSONResponse(health, status)

        @stand_in.post("/api/v1/auth/login")
        async def login():
            return {"access_token": "token"}

        @stand_in.get("/metrics")
        async def metrics():
            return PlainTextResponse("# everything there is")

        return serving(stand_in)

    return at


@pytest.mark.demo
@pytest.mark.timeout(600)
def test_the_platform_does_its_main_job(platform, env_file, tmp_path):
    url = f"http://127.0.0.1:{platform.port}"
    password = json.loads((platform.state / "secrets.json").read_text())["admin_password"]
    env_file.write_text(f"AUTH_BOOTSTRAP_PASSWORD={password}\n")
    done = tried(url, "--members", "60", "--json", env_file=env_file, tmp_path=tmp_path)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert 0 < answer["members"] <= 60
    assert {"login", "load", "job", "document", "total"} <= set(answer["seconds"])

    again = platform.triton("smoke", url, "--members", "60")
    assert again.returncode == 0, again.stderr
    assert "does its main job" in again.stdout


@pytest.mark.demo
@pytest.mark.timeout(600)
def test_a_platform_whose_worker_stands_still_is_told_with_its_job(platform):
    url = f"http://127.0.0.1:{platform.port}"
    with platform.frozen("agent-worker"):
        done = platform.triton("smoke", url, "--members", "60", "--timeout", "15")
    assert done.returncode == 1
    assert "was not through the main job within 15 s: job " in done.stderr


@pytest.mark.demo
@pytest.mark.timeout(600)
def test_a_wrong_password_is_the_platforms_own_sentence(platform, env_file, tmp_path):
    done = tried(f"http://127.0.0.1:{platform.port}", env_file=env_file, tmp_path=tmp_path)
    assert done.exit_code == 1
    assert "answered 401" in done.stderr
    assert "invalid_credentials" in done.stderr
    assert "a long enough password" not in done.output


def test_nobody_listens(env_file, tmp_path):
    done = tried(f"http://127.0.0.1:{free_port()}", env_file=env_file, tmp_path=tmp_path)
    assert done.exit_code == 1
    assert "does not answer" in done.stderr


@pytest.mark.parametrize("health", ["welcome to nginx", [], {"services": {"auth": "fine"}}])
def test_what_is_no_platform_is_said_to_be_none(listening, env_file, tmp_path, health):
    with listening(health) as url:
        done = tried(url, env_file=env_file, tmp_path=tmp_path)
    assert done.exit_code == 1
    assert "what listens there?" in done.stderr


def test_a_part_that_is_down_is_named(listening, env_file, tmp_path):
    down = {"status": "down", "message": "jobs-service does not answer."}
    with listening({"services": {"auth-service": HEALTHY, "jobs-service": down}}, 503) as url:
        done = tried(url, env_file=env_file, tmp_path=tmp_path)
    assert done.exit_code == 1
    assert "is not ready. jobs-service: jobs-service does not answer." in done.stderr


def test_metrics_at_the_gateway_fail_it(listening, env_file, tmp_path):
    with listening({"services": {"auth-service": HEALTHY}}) as url:
        done = tried(url, env_file=env_file, tmp_path=tmp_path)
    assert done.exit_code == 1
    assert "/metrics answers through the gateway" in done.stderr


@pytest.mark.parametrize(
    ("url", "environment"),
    [("http://triton.example", {}), ("http://127.0.0.1:1", {"TRITON_EMAIL": "ada@triton.example"})],
)
def test_the_admin_of_the_env_file_goes_nowhere_else(env_file, tmp_path, url, environment):
    done = tried(url, env_file=env_file, tmp_path=tmp_path, **environment)
    assert done.exit_code == 1
    assert "TRITON_PASSWORD" in done.stderr


@pytest.mark.parametrize("url", ["triton.example", "ftp://triton.example"])
def test_what_is_no_url_is_wrong_usage(env_file, tmp_path, url):
    done = tried(url, env_file=env_file, tmp_path=tmp_path)
    assert done.exit_code == 2
    assert "is no URL" in done.stderr


def test_without_any_user_it_says_how_to_be_one(tmp_path):
    done = tried("http://127.0.0.1:1", env_file=tmp_path / "none", tmp_path=tmp_path)
    assert done.exit_code == 1
    assert "Nobody to log in as" in done.stderr


@pytest.mark.parametrize(
    ("members", "form", "said"), [(61, b"%PDF-1.7", "counts 61 members of 60"), (60, b"<html>", "that is no pdf")]
)
def test_a_document_is_judged(tmp_path, members, form, said):
    for name, content in {"json": b"{}", "md": b"# A", "html": b"<!DOCTYPE html>", "pdf": form}.items():
        (tmp_path / f"doc.{name}").write_bytes(content)
    outcome = Outcome(document_id="doc", facts={"members": {"value": str(members)}})
    with pytest.raises(CommandFailed, match=said):
        smoke._judge(outcome, tmp_path, members=60)


def test_a_file_of_variables_is_read_as_compose_does(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# A=0\nA=1\nexport B=two words # and why\nC=\"#3\"\nD=\n'E'=5\n")
    assert values_of(file) == {"A": "1", "B": "two words", "C": "#3", "D": ""}
