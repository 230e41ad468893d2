"""What others build on: the OpenAPI document, settings, errors."""

import pytest
from pydantic import ValidationError

from jobs_service.main import build
from jobs_service.settings import Settings
from triton_common.testing import assert_openapi_matches


def test_openapi_is_the_one_in_docs():
    assert_openapi_matches(build(Settings()), "jobs-service")


def test_every_route_declares_what_all_of_them_may_answer():
    document = build(Settings()).openapi()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) > 20
    for operation in operations:
        for status, code in {
            "401": "token_expired",
            "403": "insufficient_scope",
            "503": "keys_unavailable`: The keys that verify tokens cannot be read; `database_unavailable",
        }.items():
            assert f"`{code}`" in operation["responses"][status]["description"], operation["operationId"]


def test_outside_dev_a_start_without_database_url_ends_with_its_name(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert Settings().database_url.get_secret_value() == "", "a password that everyone can read opens nothing"
    monkeypatch.setenv("TRITON_ENV", "prod")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("JOBS_ENCRYPTION_KEYS", "a-good-and-long-key-1")
    with pytest.raises(ValidationError, match="set DATABASE_URL: empty"):
        Settings()


async def test_metrics_have_the_promised_names(api):
    text = (await api.http.get("/metrics")).text
    for name in (
        "triton_jobs_created_total",
        "triton_jobs_completed_total",
        "triton_jobs_failed_total",
        "triton_jobs_cancelled_total",
        "triton_job_duration_seconds",
        "triton_job_queue_wait_seconds",
        "triton_jobs_pending",
        "triton_oldest_pending_job_age_seconds",
        "triton_webhook_deliveries_total",
    ):
        assert f"# TYPE {name} " in text


async def test_readiness_names_each_dependency(api):
    ready = (await api.http.get("/health/ready")).json()
    assert ready["status"] == "ok"
    assert set(ready["dependencies"]) == {"postgres", "redis", "audit"}
