"""What a newcomer does, and what an operator hopes never to: `triton demo` on a fresh folder, a backup of it, another
machine's empty folder, and the demo again. The real platform, once."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx2
import pytest

from triton_cli.state import ADMIN_EMAIL, CHECKOUT

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


def test_demo_backup_restore_and_demo_again(free_block):
    # pytest's own folders are closed to the user that Postgres runs as under root
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:
        port = str(free_block())
        old, new, backup = (Path(folder) / name for name in ("old", "new", "backup"))
        first = triton("demo", "--json", "--exit", "--members", "400", "--port", port, "--state", str(old))
        assert first.returncode == 0, first.stderr
        answer = json.loads(first.stdout.splitlines()[-1])
        assert 350 < answer["members"] <= 400
        assert answer["pmpm"] == pytest.approx(answer["total_paid"] / answer["member_months"], abs=0.01)
        assert "<html" in Path(answer["document_file"]).read_text()

        made = triton("backup", "create", str(backup), "--state", str(old))
        assert made.returncode == 0, made.stderr
        new.mkdir()
        refused = triton("backup", "restore", str(backup), "--state", str(new))
        assert refused.returncode == 1
        assert "secrets.json is not there" in refused.stderr
        shutil.copy(old / "secrets.json", new)
        shutil.rmtree(old)
        restored = triton("backup", "restore", str(backup), "--state", str(new))
        assert restored.returncode == 0, restored.stderr

        started = triton("up", "--detach", "--port", port, "--state", str(new))
        assert started.returncode == 0, started.stderr
        try:
            running = triton("backup", "create", str(Path(folder) / "other"), "--state", str(new))
            assert running.returncode == 1
            assert "runs already" in running.stderr
            found = told_by(f"http://127.0.0.1:{port}/api/v1", new, answer["document_id"])
            assert found["members"] == answer["members"], "the prospect's data is what it was"
            assert found["document"]["id"] == answer["document_id"]
            assert found["pdf"].startswith(b"%PDF-")

            second = triton("demo", "--json", "--exit", "--members", "400", "--port", port, "--state", str(new))
            assert second.returncode == 0, second.stderr
            again = json.loads(second.stdout.splitlines()[-1])
            assert again["total_paid"] == answer["total_paid"], "the same file again changes nothing"
            assert again["document_id"] != answer["document_id"]
        finally:
            stopped = triton("down", "--state", str(new))
        assert stopped.stdout == "Everything is stopped.\n"


def told_by(url: str, state: Path, document_id: str) -> dict:
    """What the admin is told of a document, and of its prospect's data."""
    password = json.loads((state / "secrets.json").read_text())["admin_password"]
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as http:
        token = http.post("/auth/login", json={"email": ADMIN_EMAIL, "password": password}).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        document = http.get(f"/documents/{document_id}").raise_for_status().json()
        pdf = http.get(f"/documents/{document_id}", params={"format": "pdf"}).raise_for_status().content
        job = http.get(f"/jobs/{document['job_id']}").raise_for_status().json()
        summary = http.get(f"/analytics/prospects/{job['prospect_id']}/reports/summary").raise_for_status().json()
    return {"document": document, "pdf": pdf, "members": summary["members"]}
