"""`triton agents`: what people and scripts see of agents and their runs, and an agent that is tried in this shell."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from triton_cli.main import app
from triton_cli.parts import parts_of
from triton_cli.state import CHECKOUT, Secrets, State
from triton_common.testing import eventually

NOBODY = dict.fromkeys(("TRITON_URL", "TRITON_TOKEN", "TRITON_API_KEY", "TRITON_EMAIL", "TRITON_PASSWORD"))
on_the_platform = pytest.mark.demo


@pytest.fixture
def triton_agents(platform) -> Callable[..., Any]:
    """Run `triton agents …` as the admin of the platform."""

    def run(*arguments: str) -> Any:
        answer = CliRunner().invoke(app, ["agents", *arguments], env=NOBODY | {"TRITON_STATE": str(platform.state)})
        assert isinstance(answer.exception, SystemExit | None), answer.exception
        return answer

    return run


def tried(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`triton agents run …` as users have it: in the environment that has all services."""
    kept = {name: value for name, value in os.environ.items() if name not in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")}
    command = ["uv", "run", "--frozen", "triton", "agents", "run", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env=kept, capture_output=True, text=True, check=False)


@on_the_platform
@pytest.mark.timeout(300)
def test_agents_their_runs_and_a_try(platform, triton_agents, tmp_path: Path):
    job_id = platform.submit(platform.prospect_id, platform.value_proposition_id)
    document_id = platform.completes(job_id)["document_id"]

    agents = triton_agents("list").stdout.splitlines()
    assert [line.split("\t")[0] for line in agents] == ["population_analyst", "proposal_writer"]
    assert len(json.loads(triton_agents("list", "--json").stdout)) == 2
    eventually(lambda: len(triton_agents("runs", "--job", job_id, "--status", "completed").stdout.splitlines()) == 2)
    assert json.loads(triton_agents("runs", "--job", job_id, "--json").stdout)["items"][0]["job_id"] == job_id

    file = tmp_path / "document.json"
    file.write_text(platform.http.get(f"/documents/{document_id}").raise_for_status().text)
    done = tried("proposal_writer", "--input", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "offline:template"
    assert '"executive_summary"' in tried("proposal_writer", "--input", str(file)).stdout


@on_the_platform
def test_what_cannot_be_tried_is_a_sentence(tmp_path: Path):
    file = tmp_path / "input.json"
    file.write_text("{}")

    done = tried("nobody", "--input", str(file))

    assert done.returncode == 1
    assert "There is no agent nobody." in done.stderr


def test_agentos_is_a_part_when_it_is_wanted(tmp_path: Path):
    def names(**wanted: int) -> list[str]:
        return [part.name for part in parts_of(State(tmp_path), 8000, secrets=Secrets.make(), **wanted)]

    assert "agentos" not in names()
    assert "agentos" in names(agentos=7777)
