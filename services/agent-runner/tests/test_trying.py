"""An agent tried without a job: the module that `triton agents run` starts."""

import json

import examples
import pytest
from bedrock_standin import ANALYSIS, Bedrock
from platform_standin import Platform

from agent_runner import runs, trying
from agent_runner.runs import Worker


@pytest.fixture
def document(platform: Platform, worker: Worker, tmp_path):
    """A file with a document, as the API answers it."""
    row = platform.add(examples.job())
    runs.run(worker, row.job.job_id, name="worker-1", task_id=None)
    file = tmp_path / "document.json"
    file.write_text(f'{{"id": "x", "content": {row.document.model_dump_json()}}}')
    return file


def told(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["population_analyst", "proposal_writer"])
def test_an_agent_is_tried_on_a_documents_facts(document, capsys, name):
    assert trying.main(name, str(document)) == 0

    result = told(capsys)
    assert (result["model"], result["calls"], result["cost"]) == ("offline:template", 0, None)
    assert result["output"]


def test_it_is_tried_with_the_model_of_the_shell(document, capsys, bedrock: Bedrock, monkeypatch):
    monkeypatch.setenv("AGENT_MODEL", "bedrock:example.model-v1:0")
    monkeypatch.setenv("AGENT_PRICES", '{"bedrock:example.model-v1:0": {"input": "3", "output": "15"}}')

    bedrock.say({name: ["The data describes {{members}} members."] for name in ANALYSIS})

    assert trying.main("population_analyst", str(document)) == 0

    result = told(capsys)
    assert (result["model"], result["input_tokens"], result["cost"]) == ("bedrock:example.model-v1:0", 100, "0.0006")
    material = json.loads(bedrock.requests[0]["messages"][0]["content"][0]["text"])
    assert material["facts"]["members"]["value"] == "1,000"
    assert "sections" not in material


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("nobody", "{}", "agent_not_found"),
        ("proposal_writer", "{}", "agent_input_invalid"),
        ("proposal_writer", '{"facts": [1]}', "agent_input_invalid"),
        ("proposal_writer", '{"facts": []}', "agent_input_invalid"),
        ("proposal_writer", '{"content": 5}', "agent_input_invalid"),
        ("proposal_writer", "[]", "agent_input_invalid"),
        ("proposal_writer", "no JSON", "not_understood"),
    ],
)
def test_what_cannot_be_tried_is_told(tmp_path, capsys, name, text, code):
    file = tmp_path / "input.json"
    file.write_text(text)

    assert trying.main(name, str(file)) == 1
    assert told(capsys)["error"]["code"] == code
