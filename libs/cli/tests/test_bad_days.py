"""Accidents in the middle of a job, on the real platform: whatever falls over, the job ends with one document."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles

import httpx2
import pytest

from triton_cli.sample import write_sample
from triton_common.testing import eventually

pytestmark = [pytest.mark.demo, pytest.mark.timeout(600)]

HEALTH_ASKED = 200  # times at least


def in_the_middle(platform, job_id):
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


def test_a_service_that_stands_still_is_told_of(platform):
    with platform.frozen("jobs"):
        answer = platform.http.get("/jobs", params={"limit": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unreachable")


def test_redis_gone_at_submit(platform):
    os.kill(platform.pid("redis"), signal.SIGKILL)
    platform.completes(platform.submit())


def test_redis_frozen_at_submit(platform):
    with platform.frozen("redis"):
        job_id = platform.submit()
        assert platform.job(job_id)["status"] == "pending"
    platform.completes(job_id)


def test_with_redis_frozen_the_platform_is_degraded_and_never_down(platform):
    url = httpx2.URL(platform.http.base_url).copy_with(path="/health")

    def degraded() -> bool:
        answer = platform.http.get(url)
        assert answer.status_code == 200, answer.text
        services = answer.json()["services"]
        return all(services[name]["status"] == "degraded" for name in ("auth-service", "jobs-service", "agent-runner"))

    with platform.frozen("redis"):
        eventually(degraded, within=30)
    eventually(platform.all_ready, within=30)


def test_postgres_restarted_in_the_middle_of_a_job(platform):
    with platform.frozen("analytics"):
        job_id = platform.submit()
        in_the_middle(platform, job_id)
        os.kill(platform.pid("postgres"), signal.SIGQUIT)  # "immediate": as a crash
    platform.completes(job_id)
    eventually(platform.all_ready, within=90)
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
