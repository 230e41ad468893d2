"""AgentOS as its own process would run: closed, silent to its vendor, with the runs of jobs in it."""

import os
import socket
from datetime import UTC, datetime

import examples
import pytest
from bedrock_standin import THROTTLED, Bedrock
from platform_standin import Platform
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from agent_runner import agentos, agentos_traces, runs
from agent_runner.settings import Settings

MODEL = "bedrock:example.model-v1:0"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(agentos_traces, "INTERVAL", 0.05)


@pytest.fixture
async def http(running, postgres_url, quick):
    async with running(agentos.build(Settings(database_url=SecretStr(postgres_url)))) as http:
        yield http


async def test_nothing_is_open(http, as_user):
    agents = await http.get("/agents", headers=as_user("viewer"))
    assert [agent["id"] for agent in agents.json()] == ["population_analyst", "proposal_writer"]  # those of the worker
    for path in ("", "config", "agents", "sessions", "traces", "docs", "openapi.json", "health", "info", "models"):
        missing = await http.get(f"/{path}")
        assert (missing.status_code, missing.json()["code"]) == (401, "missing_token")
        for headers in (as_user("service"), as_user("admin", client_id=uuid7())):
            assert (await http.get(f"/{path}", headers=headers)).status_code == 403
    assert (await http.get("/health/ready")).json()["dependencies"]["postgres"]["status"] == "ok"
    assert "http_requests_total" in (await http.get("/metrics")).text


@pytest.mark.parametrize("name", agentos.FOREIGN)
async def test_nobody_else_s_settings_close_it_to_staff(running, postgres_url, as_user, monkeypatch, name):
    monkeypatch.setenv(name, "true")
    async with running(agentos.build(Settings(database_url=SecretStr(postgres_url)))) as http:
        for path in ("agents", "sessions", "traces", "registry"):
            assert (await http.get(f"/{path}", headers=as_user("viewer"))).status_code == 200
            assert (await http.get(f"/{path}")).status_code == 401


async def test_only_admins_of_the_platform_run_agents(http, as_user):
    async def post(**who):
        form = {"message": "hello", "stream": "false"}
        return await http.post("/agents/population_analyst/runs", data=form, headers=as_user(**who))

    assert (await post(role="editor")).status_code == 403
    assert (await post(role="admin", client_id=uuid7())).status_code == 403
    answer = await post(role="admin")
    assert answer.status_code == 200
    assert "No model is set up" in answer.json()["content"]


async def test_an_agent_talks_to_the_worker_s_model(running, as_user, postgres_url, bedrock: Bedrock):
    settings = Settings(database_url=SecretStr(postgres_url), model=MODEL, max_calls=1)
    async with running(agentos.build(settings)) as http:
        for stream in ("false", "true", "false"):  # the limit is one of a run
            form = {"message": "hello", "stream": stream}
            headers = as_user("admin")
            answer = await http.post("/agents/population_analyst/runs", data=form, headers=headers)
            assert answer.status_code == 200
            assert "{{members}} members" in answer.text

    assert len(bedrock.requests) == 3


async def test_runs_of_jobs_are_traces_in_it(  # noqa: PLR0917  fixtures
    running, as_user, platform: Platform, worker_with, bedrock: Bedrock, postgres_url, quick
):
    """agno's own set-up of tracing does nothing, and says nothing, once there is a tracer provider: there is one."""
    worker = worker_with(model=MODEL, database_url=SecretStr(postgres_url))
    row = platform.add(examples.job())
    bedrock.say(THROTTLED)
    runs.run(worker, row.job.job_id, name="worker-1", task_id=None)
    worker.close()
    settings = Settings(database_url=SecretStr(postgres_url))

    async def traces(http):
        found: list = []
        while len(found) < 2:
            answer = await http.get("/traces", headers=as_user("viewer"), params={"session_id": str(row.job.job_id)})
            found = answer.json()["data"]
        return {trace["name"]: trace for trace in found}

    async with running(agentos.build(settings)) as http:
        found = await traces(http)
        analyst = found["population_analyst.run"]
        tree = await http.get(f"/traces/{analyst['trace_id']}", headers=as_user("viewer"))
    assert (analyst["status"], analyst["total_spans"], analyst["error_count"]) == ("OK", 3, 1)
    assert "ThrottlingException" in tree.text
    assert "{{members}}" not in tree.text  # neither prompts nor answers
    async with running(agentos.build(settings)) as http:  # another start shows them once more, not twice
        assert len(await traces(http)) == 2


def test_a_lost_run_is_an_error():
    row = dict.fromkeys(("seconds", "error"))
    row |= {"id": uuid7(), "started_at": datetime.now(UTC), "status": "lost", "job_id": uuid7(), "agent": "a"}
    row |= {"model": "m", "prompt_version": "1", "attempt": 1, "calls": [], "trace_id": ""}
    row |= {"input_tokens": 0, "output_tokens": 0}
    trace, [root] = agentos_traces.trace_of(row)

    assert (trace.status, root.status_message) == ("ERROR", "lost")


async def test_nothing_is_sent_to_the_vendor(running, postgres_url, monkeypatch):
    monkeypatch.delenv("AGNO_TELEMETRY", raising=False)
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def watched(host, *args, **kwargs):
        asked.append(str(host))
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    async with running(agentos.build(Settings(database_url=SecretStr(postgres_url)))) as http:
        await http.get("/health/live")

    assert not [host for host in asked if "agno" in host]
    assert os.environ["AGNO_TELEMETRY"] == "false"
