"""The agent that docs/AGENTS.md adds, taken out of the page and run."""

import re
from contextlib import closing
from typing import Any

import pytest
from bedrock_standin import Bedrock, Said

from agent_runner import template
from agent_runner.checking import Grounding
from agent_runner.desk import AgentContext, Desk
from agent_runner.facts import Facts
from agent_runner.models import Models
from agent_runner.settings import Settings
from triton_common.schemas import Fact
from triton_common.testing import WORKSPACE


def block(name: str) -> str:
    """The fenced block of the page that a comment names."""
    page = (WORKSPACE / "docs" / "AGENTS.md").read_text()
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)\n```\n", page, re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture
def reviewer(tmp_path, monkeypatch) -> Any:
    (tmp_path / "risk_reviewer.md").write_text(block("risk_reviewer.md"))
    monkeypatch.setattr(template, "files", lambda _: tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("risk_reviewer.py"), "risk_reviewer.py", "exec"), names)
    yield names["RiskReviewer"]()
    template.read_instructions.cache_clear()


def context(**different: Any) -> AgentContext:
    settings = Settings().model_copy(update=different)
    fact = Fact(id="members", label="Members", value="27", unit="members", display="27", source="test")
    facts = Facts.of([fact], currency="USD")
    desk = Desk(settings=settings, models=Models(settings))
    return AgentContext(desk=desk, facts=facts, grounding=Grounding(facts), material={"facts": {}})


def test_the_pages_agent_runs_without_a_model(reviewer):
    result = reviewer.run(context())

    assert result.output.risks == ["The result rests on {{members}} members."]
    assert result.prompt_version == "1"


def test_the_pages_agent_runs_on_bedrock_with_its_tool(reviewer, bedrock: Bedrock):
    bedrock.say(Said(tool=("fact", {"fact_id": "members"})), {"risks": ["Only {{members}} members are in the data."]})

    asked = context(model="bedrock:m")
    with closing(asked.desk.models):
        result = reviewer.run(asked)

    assert result.calls == 2
    assert "Members" in str(bedrock.requests[1]["messages"][-1])
    assert "Never write a figure" in bedrock.requests[0]["system"][0]["text"]
