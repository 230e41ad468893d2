"""The two ways a newcomer starts: `triton demo` on a fresh folder, and again. The real platform, once."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from triton_cli.state import CHECKOUT

pytestmark = [pytest.mark.demo, pytest.mark.timeout(600)]


def triton(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command as people run it, in the environment of the whole workspace."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")
    }
    return subprocess.run(
        ["uv", "run", "--frozen", "triton", *arguments],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_demo_twice_on_one_folder(free_block):
    # pytest's own folders are closed to the user that Postgres runs as under root
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:
        state, port = str(Path(folder) / "state"), str(free_block())
        arguments = ("demo", "--json", "--exit", "--members", "400", "--port", port, "--state", state)
        first = triton(*arguments)
        assert first.returncode == 0, first.stderr
        answer = json.loads(first.stdout.splitlines()[-1])
        assert 350 < answer["members"] <= 400
        assert answer["pmpm"] == pytest.approx(answer["total_paid"] / answer["member_months"], abs=0.01)
        assert "<html" in Path(answer["document_file"]).read_text()

        started = triton("up", "--detach", "--port", port, "--state", state)
        assert started.returncode == 0, started.stderr
        try:
            second = triton(*arguments)
            assert second.returncode == 0, second.stderr
            again = json.loads(second.stdout.splitlines()[-1])
            assert again["total_paid"] == answer["total_paid"], "the same file again changes nothing"
            assert again["document_id"] != answer["document_id"]
        finally:
            stopped = triton("down", "--state", state)
        assert stopped.stdout == "Everything is stopped.\n"
