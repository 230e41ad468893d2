"""Agents on a server that speaks OpenAI's chat completions, through the real client and agno."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import examples
import pytest
from bedrock_standin import ANALYSIS, PROPOSAL
from fastapi import FastAPI, Request, Response
from platform_standin import Platform
from pydantic import SecretStr

from agent_runner import runs
from agent_runner.meter import CallFailed
from agent_runner.models import Models
from agent_runner.providers import failure_of
from agent_runner.runs import Worker
from agent_runner.settings import Settings
from triton_common.testing import free_port


class ChatServer:
    """Answers as vLLM or Ollama do; `statuses` are those of the next answers."""

    def __init__(self) -> None:
        self.url = ""
        self.statuses: deque[int] = deque()
        self.keys: set[str] = set()
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self._complete)

    async def _complete(self, request: Request) -> Response:
        asked = await request.json()
        self.keys.add(request.headers["Authorization"])
        if self.statuses and (status := self.statuses.popleft()) != 200:
            return Response('{"error": {"message": "no"}}', status_code=status, media_type="application/json")
        said = PROPOSAL if "executive_summary" in asked["messages"][0]["content"] else ANALYSIS
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(said)}}
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
        return Response(json.dumps(body), media_type="application/json")


@pytest.fixture
def server(serving) -> Iterator[ChatServer]:
    server = ChatServer()
    with serving(server.app) as url:
        server.url = f"{url}/v1"
        yield server


@pytest.fixture
def worker_on(worker_with) -> Callable[..., Worker]:
    def make(url: str, **different: Any) -> Worker:
        return worker_with(model="openai-like:llama-3:8b", openai_base_url=url, **different)

    return make


def run(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    ended = runs.run(worker, row.job.job_id, name="worker-1", task_id=None)
    return ended, row


def test_a_document_is_written_by_the_model(platform: Platform, worker_on, server: ChatServer):
    ended, row = run(platform, worker_on(server.url, openai_api_key=SecretStr("a-key")))

    assert ended == "completed"
    assert row.document.model == "openai-like:llama-3:8b"
    assert (row.document.input_tokens, row.document.output_tokens) == (200, 40)
    assert server.keys == {"Bearer a-key"}


def test_a_busy_server_is_asked_again(platform: Platform, worker_on, server: ChatServer):
    server.statuses.extend([429, 503])

    ended, _ = run(platform, worker_on(server.url))

    assert ended == "completed"
    assert server.keys == {"Bearer none"}


def test_an_unknown_model_is_not_asked_for_again(platform: Platform, worker_on, server: ChatServer):
    server.statuses.extend([404])

    _, row = run(platform, worker_on(server.url))

    assert row.finishes[0].error is not None
    assert row.finishes[0].error.code == "agent_call_refused"
    assert "NotFoundError 404" in row.finishes[0].error.message


def test_a_server_that_is_away_fails_the_attempt(platform: Platform, worker_on):
    _, row = run(platform, worker_on(f"http://127.0.0.1:{free_port()}/v1"))

    assert row.finishes[0].error is not None
    assert row.finishes[0].error.code == "agent_call_failed"
    assert row.finishes[0].retryable


@pytest.mark.parametrize("model", ["gpt", "offline:", "offline:other", "bedrock", "azure:gpt", ""])
def test_a_model_that_no_provider_has_is_refused_at_the_start(settings: Settings, model: str):
    with pytest.raises(ValueError, match="AGENT_MODEL must be offline:template"):
        Models(settings.model_copy(update={"model": model}))


def test_a_failure_of_another_kind_is_not_repeated():
    failure = failure_of(KeyError("prompt"))

    assert isinstance(failure, CallFailed)
    assert (failure.reason, failure.transient) == ("KeyError", False)
