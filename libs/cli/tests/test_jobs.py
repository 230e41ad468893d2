"""`triton jobs` on the real platform: what people and scripts see of a job, from submit to its end."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from triton_cli.main import app
from triton_cli.state import ADMIN_EMAIL

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

NOBODY = dict.fromkeys(("TRITON_URL", "TRITON_TOKEN", "TRITON_API_KEY", "TRITON_EMAIL", "TRITON_PASSWORD"))
UNKNOWN = "01a20496-da65-731f-bb3d-0d5fc2137ef4"


@pytest.fixture
def triton_jobs(platform) -> Callable[..., Any]:
    """Run `triton jobs …` as the admin of the platform."""

    def run(*arguments: str, **environment: str) -> Any:
        known = NOBODY | {"TRITON_STATE": str(platform.state)}
        answer = CliRunner().invoke(app, ["jobs", *arguments], env=known | environment)
        assert isinstance(answer.exception, SystemExit | None), answer.exception
        return answer

    return run


@pytest.fixture
def process(platform) -> Callable[..., "subprocess.Popen[str]"]:
    """Start `triton jobs …` as a process of its own."""

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        kept = {name: value for name, value in os.environ.items() if name not in NOBODY}
        return subprocess.Popen(
            [sys.executable, "-m", "triton_cli.main", "jobs", *arguments],
            env=kept | {"TRITON_STATE": str(platform.state), "COLUMNS": "100", "TERM": "xterm"},
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
        )

    return start


def of(platform) -> tuple[str, ...]:
    return ("--prospect", platform.prospect_id, "--value-proposition", platform.value_proposition_id)


def test_a_job_from_submit_to_document(platform, triton_jobs):
    submitted = triton_jobs("submit", *of(platform), "--wait", "--priority", "high", "--time-limit", "10m")
    assert submitted.exit_code == 0, submitted.stderr
    job_id = submitted.stdout.rstrip("\n")
    assert str(UUID(job_id)) == job_id

    job = json.loads(triton_jobs("get", job_id, "--json").stdout)
    assert (job["status"], job["priority"], job["time_limit_seconds"]) == ("completed", "high", 600)
    assert f"document {job['document_id']}" in submitted.stderr
    assert f"document id           {job['document_id']}" in triton_jobs("get", job_id).stdout

    lines = [line.split("\t") for line in triton_jobs("events", job_id).stdout.splitlines()]
    kinds = [line[2] for line in lines]
    assert [line[0] for line in lines] == [str(number) for number in range(1, len(lines) + 1)]
    assert (kinds[:2], kinds[-1]) == (["submitted", "claimed"], "completed")
    watched = triton_jobs("watch", job_id)
    assert watched.exit_code == 0
    assert [line.split("\t") for line in watched.stdout.splitlines()] == lines
    for follow in ([], ["--follow"]):
        events = triton_jobs("events", job_id, "--json", *follow).stdout.splitlines()
        assert [json.loads(event)["kind"] for event in events] == kinds


def test_names_do_as_well_as_ids_and_a_key_submits_once(platform, triton_jobs):
    names = ("--prospect", "Lakeside", "--value-proposition", "Coaching", "--idempotency-key", os.urandom(8).hex())
    first = json.loads(triton_jobs("submit", *names, "--json").stdout)
    assert (first["prospect_id"], first["value_proposition_id"]) == (of(platform)[1], of(platform)[3])
    assert triton_jobs("submit", *names).stdout == f"{first['id']}\n"
    other = triton_jobs("submit", *names, "--horizon", "24")
    assert other.exit_code == 1
    assert "(idempotency_key_reused, request " in other.stderr
    assert triton_jobs("watch", first["id"]).exit_code == 0


def test_lists_find_by_filter(platform, triton_jobs):
    job_id = triton_jobs("submit", *of(platform), "--priority", "low", "--wait").stdout.strip()
    found = triton_jobs(
        *("list", "--status", "completed", "--status", "failed", "--client", "Northstar", "--prospect", "Lakeside"),
        *("--type", "value_proposition", "--priority", "low", "--created-after", "1h", "--json", "--all"),
    )
    assert job_id in {job["id"] for job in json.loads(found.stdout)["items"]}
    assert json.loads(found.stdout)["next_cursor"] is None
    one = triton_jobs("list", "-n", "1", "--priority", "low").stdout.split("\t")
    assert one[:5] == [job_id, "completed", "100", "low", "1"]
    for nothing in (["--created-before", "30d"], ["--error-code", "no_such_*"], ["--schedule", UNKNOWN]):
        assert triton_jobs("list", *nothing).stdout == ""


def test_a_job_that_waits_too_long_is_cancelled_and_retried(platform, triton_jobs):
    with platform.frozen("analytics"):
        late = triton_jobs("submit", *of(platform), "--wait", "--timeout", "0.5s")
        assert late.exit_code == 5
        job_id = late.stdout.strip()
        assert f"`triton jobs watch {job_id}`" in late.stderr
        platform.until(job_id, is_so=lambda job: job["status"] == "processing")
        assert triton_jobs("retry", job_id).exit_code == 1, "it is not over"
        cancelled = triton_jobs("cancel", job_id, UNKNOWN, "--json")
        assert cancelled.exit_code == 1
        answer = json.loads(cancelled.stdout)
        assert [job["id"] for job in answer["items"]] == [job_id]
        assert [(error["id"], error["code"]) for error in answer["errors"]] == [(UNKNOWN, "job_not_found")]
        assert triton_jobs("watch", job_id).exit_code == 4
    assert triton_jobs("retry", job_id).stdout == f"{job_id}\tretried\n"
    watched = triton_jobs("watch", job_id)
    assert watched.exit_code == 0, watched.stderr
    kinds = [line.split("\t")[2] for line in watched.stdout.splitlines()]
    assert kinds.index("cancelled") < kinds.index("retried") < kinds.index("completed"), "the whole history"


def test_a_job_that_fails_says_why_and_is_retried_by_its_code(platform, triton_jobs):
    client_id = platform.create("/clients", name="Harbor")
    empty = platform.create("/prospects", client_id=client_id, name="Nothing yet")
    content = platform.http.get(f"/value-propositions/{platform.value_proposition_id}").json()["content"]
    proposition = platform.create("/value-propositions", client_id=client_id, name="Coaching", content=content)
    failed = triton_jobs("submit", "--prospect", empty, "--value-proposition", proposition, "--watch", "--json")
    assert failed.exit_code == 3
    job = json.loads(failed.stdout)
    code = job["error"]["code"]
    assert f"Job {job['id']} failed in attempt 1: {job['error']['message']} ({code})" in failed.stderr
    chosen = ("--client", "Harbor", "--error-code", f"{code[:3]}*")
    assert triton_jobs("retry", *chosen, "--dry-run").stdout == "1 job would be retried.\n"
    assert triton_jobs("retry", *chosen).exit_code == 1, "nobody said yes"
    assert json.loads(triton_jobs("retry", *chosen, "--yes", "--json").stdout) == {
        "matched": 1,
        "changed": 1,
        "complete": True,
    }
    assert triton_jobs("watch", job["id"]).exit_code == 3
    assert json.loads(triton_jobs("get", job["id"], "--json").stdout)["series"] == 2
    stats = json.loads(triton_jobs("stats", "--client", "Harbor", "--json").stdout)
    assert stats["counts"] == {"pending": 0, "processing": 0, "completed": 0, "failed": 1, "cancelled": 0}
    assert "failed               1\n" in triton_jobs("stats", "--client", client_id).stdout


def test_what_is_wrong_is_told_in_a_sentence(platform, triton_jobs):
    unknown = triton_jobs("watch", UNKNOWN)
    assert unknown.exit_code == 1
    assert f"There is no job {UNKNOWN}. (job_not_found, request " in unknown.stderr
    assert triton_jobs("get", "").exit_code == 2
    token = triton_jobs("list", TRITON_TOKEN="nonsense")
    assert "(token_malformed, request " in token.stderr
    invalid = triton_jobs("list", "--cursor", "nonsense")
    assert invalid.exit_code == 1
    assert "(invalid_cursor, request " in invalid.stderr


def test_jobs_are_those_of_who_is_logged_in(platform, tmp_path):
    known = NOBODY | {"TRITON_STATE": None, "TRITON_CONFIG_DIR": str(tmp_path / "config")}

    def triton(*arguments: str, stdin: str | None = None) -> Any:
        answer = CliRunner().invoke(app, arguments, input=stdin, env=known)
        assert answer.exit_code == 0, answer.stderr
        return answer

    password = json.loads((platform.state / "secrets.json").read_text())["admin_password"]
    url = f"http://127.0.0.1:{platform.port}"
    triton("login", "--url", url, "--email", ADMIN_EMAIL, "--password-stdin", stdin=password)
    assert json.loads(triton("whoami", "--json").stdout)["platform"] == url
    assert triton("jobs", "submit", *of(platform), "--wait").stdout.strip() in triton("jobs", "list").stdout
    assert "login.succeeded" in triton("audit", "list", "--since", "1h").stdout
    assert "login.succeeded" in triton("audit", "export", "--since", "1h").stdout
    assert triton("audit", "verify").stdout.startswith("valid\t")
    triton("logout")


def test_ctrl_c_ends_the_watching_not_the_job(platform, triton_jobs, process):
    terminal, inside = pty.openpty()
    with platform.frozen("analytics"):
        job_id = triton_jobs("submit", *of(platform)).stdout.strip()
        watching = process("watch", job_id, stdin=inside, stdout=inside, stderr=inside)
        os.close(inside)
        seen = read_until(terminal, b"collecting")
        watching.send_signal(signal.SIGINT)
        seen += read_until(terminal, b"stops it.")
        assert watching.wait(30) == 130
    os.close(terminal)
    assert b"5%" in seen
    assert f"Job {job_id} goes on" in seen.decode()
    assert platform.completes(job_id)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What a terminal shows, up to what is wanted."""
    seen, deadline = b"", time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65_536)
    return seen


def test_a_reader_that_has_gone_is_no_news(platform, triton_jobs, process):
    job_id = triton_jobs("submit", *of(platform), "--wait").stdout.strip()
    commands = [process(*arguments) for arguments in (("list", "--json"), ("events", job_id), ("watch", job_id))]
    for running in commands:
        assert running.stdout is not None
        running.stdout.close()
    for running in commands:
        assert running.stderr is not None
        with running.stderr:
            told = running.stderr.read()
        assert "Traceback" not in told, told
        assert "BrokenPipe" not in told
        assert running.wait(30) in (0, 1)
