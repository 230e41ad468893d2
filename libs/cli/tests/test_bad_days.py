"""Accidents in the middle of a job, on the real platform: whatever falls over, the job ends with one document."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx2
import pytest

from triton_cli.demo import PROPOSITION
from triton_cli.sample import write_sample
from triton_cli.state import ADMIN_EMAIL, CHECKOUT
from triton_common.testing import eventually, free_port

pytestmark = [pytest.mark.demo, pytest.mark.timeout(600)]

LEASE = 4  # seconds; half a minute by default
HEALTH_ASKED = 200  # times at least
WAIT = 90.0  # seconds a job may take through its accident


class Platform:
    """The stack of one folder, and a user of it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.port = free_port() // 10 * 10
        self.prospect_id = self.value_proposition_id = ""
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}/api/v1", timeout=30)

    def triton(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        kept = {
            name: value for name, value in os.environ.items() if name not in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")
        }
        return subprocess.run(
            ["uv", "run", "--frozen", "triton", *arguments],
            cwd=CHECKOUT,
            env=kept | {"JOBS_LEASE": f"PT{LEASE}S", "TRITON_STATE": str(self.state)},
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self) -> None:
        started = self.triton("up", "--detach", "--port", str(self.port))
        assert started.returncode == 0, started.stderr

    def down(self) -> None:
        stopped = self.triton("down")
        assert stopped.returncode == 0, stopped.stderr

    def log_in(self) -> None:
        password = json.loads((self.state / "secrets.json").read_text())["admin_password"]
        answer = self.http.post("/auth/login", json={"email": ADMIN_EMAIL, "password": password})
        self.http.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"

    def create(self, path: str, **body: Any) -> str:
        created: str = self.http.post(path, json=body).raise_for_status().json()["id"]
        return created

    def set_up(self, folder: Path) -> None:
        """A prospect with data, and something to sell to it."""
        client_id = self.create("/clients", name="Northstar")
        self.prospect_id = self.create("/prospects", client_id=client_id, name="Lakeside")
        content = PROPOSITION.model_dump(mode="json")
        self.value_proposition_id = self.create(
            "/value-propositions", client_id=client_id, name="Coaching", content=content
        )
        files = write_sample(folder / "sample", members=100, seed=7)
        for dataset, file in files.items():
            self.http.post(
                f"/analytics/prospects/{self.prospect_id}/{dataset}",
                content=file.read_bytes(),
                headers={"content-type": "text/csv"},
            ).raise_for_status()

    def pid(self, part: str) -> int:
        parts = json.loads(self.triton("status", "--json").stdout)["parts"]
        found: int = next(known["pid"] for known in parts if known["name"] == part)
        return found

    def all_ready(self) -> bool:
        return self.triton("status", "--json").returncode == 0

    @contextmanager
    def frozen(self, part: str) -> Iterator[None]:
        """Stop a part's process as it is: whoever asks it waits."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def submit(self) -> str:
        answer = self.http.post(
            "/jobs",
            json={
                "job_type": "value_proposition",
                "prospect_id": self.prospect_id,
                "value_proposition_id": self.value_proposition_id,
            },
        )
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        try:
            answer = self.http.get(f"/jobs/{job_id}")
        except httpx2.TransportError:
            return {"status": "unknown"}
        known: dict[str, Any] = answer.json() if answer.status_code == 200 else {"status": "unknown"}
        return known

    def until(self, job_id: str, *, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        found: dict[str, Any] = eventually(lambda: (job := self.job(job_id)) and is_so(job) and job, within=WAIT)
        return found

    def completes(self, job_id: str) -> dict[str, Any]:
        """The job once it is over; it must be completed, with the one document there is of it."""
        job = self.until(job_id, is_so=lambda known: known["status"] in ("completed", "failed", "cancelled"))
        assert job["status"] == "completed", job["error"]
        documents = self.http.get("/documents", params={"job_id": job_id}).raise_for_status().json()["items"]
        assert [document["id"] for document in documents] == [job["document_id"]]
        return job


@pytest.fixture(scope="module")
def platform():
    """A platform with a prospect's data, whose leases are short."""
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:  # pytest's own are closed to Postgres' user
        stack = Platform(Path(folder))
        stack.up()
        try:
            stack.log_in()
            stack.set_up(Path(folder))
            yield stack
        finally:
            stack.http.close()
            stack.down()


def in_the_middle(platform: Platform, job_id: str) -> None:
    platform.until(job_id, is_so=lambda job: job["status"] == "processing")


def test_health_answers_while_jobs_and_an_upload_run(platform, tmp_path):
    upload = write_sample(tmp_path / "sample", members=4000, seed=8)["claims"]
    root = httpx2.URL(platform.http.base_url).copy_with(path="/health")
    urls = {"GET /health": root} | {
        f"{part} /health/ready": root.copy_with(port=platform.port + offset, path="/health/ready")
        for part, offset in (("jobs", 2), ("analytics", 3), ("agent-runner", 4))
    }
    seconds: dict[str, list[float]] = {name: [] for name in urls}

    def load() -> None:
        platform.http.post(
            f"/analytics/prospects/{platform.prospect_id}/claims",
            content=upload.read_bytes(),
            headers={"content-type": "text/csv"},
        ).raise_for_status()

    with ThreadPoolExecutor() as threads, httpx2.Client(timeout=30) as http:
        work = [
            threads.submit(load),
            *(threads.submit(lambda: platform.completes(platform.submit())) for _ in range(4)),
        ]
        while len(seconds["GET /health"]) < HEALTH_ASKED or not all(one.done() for one in work):
            for name, url in urls.items():
                started = time.monotonic()
                answer = http.get(url)
                seconds[name].append(time.monotonic() - started)
                assert answer.status_code == 200, answer.text
        for one in work:
            one.result()
    for name, took in seconds.items():
        p99 = quantiles(took, n=100)[-1]
        print(f"{name}: {len(took)} answers, p99 {1000 * p99:.0f} ms, max {1000 * max(took):.0f} ms")


def test_worker_killed_in_the_middle_of_a_job(platform):
    with platform.frozen("analytics"):
        job_id = platform.submit()
        in_the_middle(platform, job_id)
        os.kill(platform.pid("agent-worker"), signal.SIGKILL)
    assert platform.completes(job_id)["attempt"] == 2


def test_redis_gone_at_submit(platform):
    os.kill(platform.pid("redis"), signal.SIGKILL)
    platform.completes(platform.submit())


def test_redis_frozen_at_submit(platform):
    with platform.frozen("redis"):
        job_id = platform.submit()
        assert platform.job(job_id)["status"] == "pending"
    platform.completes(job_id)


def test_postgres_restarted_in_the_middle_of_a_job(platform):
    with platform.frozen("analytics"):
        job_id = platform.submit()
        in_the_middle(platform, job_id)
        os.kill(platform.pid("postgres"), signal.SIGQUIT)  # "immediate": as a crash
    platform.completes(job_id)
    eventually(platform.all_ready, within=WAIT)
    platform.log_in()
    platform.completes(platform.submit())


def test_stopped_in_the_middle_of_a_job_and_started_again(platform):
    with platform.frozen("analytics"):
        job_id = platform.submit()
        in_the_middle(platform, job_id)
    os.kill(platform.pid("agent-worker"), signal.SIGSTOP)  # it can neither finish nor give the job back
    platform.down()
    platform.up()
    platform.completes(job_id)
