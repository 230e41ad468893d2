"""The API, and what documents promise of it. Its readiness is in test_health.py."""

import pytest
from pydantic import SecretStr

from agent_runner import main
from agent_runner.settings import Settings
from triton_common.testing import assert_openapi_matches


@pytest.fixture
async def http(running, postgres_url):
    settings = Settings(database_url=SecretStr(postgres_url), task_queue_url=SecretStr("memory://"))
    async with running(main.build(settings)) as http:
        yield http


async def test_agents_are_listed_in_the_order_they_work(http, as_user):
    answer = await http.get("/api/v1/agents", headers=as_user("viewer"))

    assert answer.status_code == 200
    analyst, writer = answer.json()
    assert (analyst["name"], writer["name"]) == ("population_analyst", "proposal_writer")
    assert analyst["model"] == "offline:template"
    assert analyst["prompt_version"] == "3"
    assert set(writer["output_schema"]["required"]) == {
        *("executive_summary", "financial_case", "assumptions", "risks", "next_steps"),
    }


async def test_nobody_unknown_sees_agents(http):
    answer = await http.get("/api/v1/agents")

    assert answer.status_code == 401
    assert answer.json()["code"] == "missing_token"


async def test_agents_need_a_scope(http, as_user):
    answer = await http.get("/api/v1/agents", headers=as_user("service"))

    assert answer.status_code == 403
    assert answer.json()["code"] == "insufficient_scope"


async def test_it_is_alive(http):
    assert (await http.get("/health/live")).json()["status"] == "ok"


def test_openapi_is_the_kept_document():
    assert_openapi_matches(main.build(Settings()), "agent-runner")
