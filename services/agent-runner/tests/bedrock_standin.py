"""A stand-in for AWS Bedrock's Converse over HTTP, for the real boto3. It answers well, or as a test scripts it."""

import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

ANALYSIS = {
    "population": ["The data describes {{members}} members, who cost {{pmpm}} per member per month."],
    "cost_drivers": ["Cost falls on inpatient care with {{cost.inpatient}}, then on others."],
    "programme_fit": ["Of all members, {{cohort.members}} have type 2 diabetes (E11.9) and qualify."],
}
PROPOSAL = {
    "executive_summary": ["{{programme}} would save {{prospect}} {{savings.base}}, net {{net.base}}."],
    "financial_case": ["Savings are {{savings.base.year1}} at first, and paid back by {{payback_month.base}}."],
    "assumptions": ["Of those who qualify, {{engagement.base}} take part in the 12-week programme."],
    "risks": ["In the low case the net result is {{net.low}}, so the effects decide."],
    "next_steps": ["Agree on the list of qualifying members, and settle when to start."],
}


@dataclass
class Said:
    """One scripted answer."""

    text: str = ""
    status: int = 200
    error: str = ""
    stop: str = "end_turn"
    """Why the model ended: `max_tokens` for an answer that was cut off."""
    tool: tuple[str, dict[str, Any]] | None = None
    """A tool that the model calls, and its arguments, in place of a text."""
    breaks: bool = False
    """The connection ends in the middle of the answer."""
    before: Callable[[], None] = lambda: None
    """Called before the answer leaves, in a thread."""


class Bedrock:
    """Answers scripted replies in order, then good ones."""

    def __init__(self) -> None:
        self.url = ""
        self._changed = threading.Condition()
        self.reset()
        self.app = FastAPI()
        self.app.post("/model/{model}/converse")(self._converse)

    def reset(self) -> None:
        """Nothing scripted, nothing asked."""
        self.script: deque[Said] = deque()
        self.requests: list[dict[str, Any]] = []
        self.models: set[str] = set()

    def say(self, *answers: str | Said | dict[str, Any]) -> None:
        """The next answers; a dict is answered as JSON."""
        for answer in answers:
            match answer:
                case Said():
                    self.script.append(answer)
                case str():
                    self.script.append(Said(answer))
                case _:
                    self.script.append(Said(json.dumps(answer)))

    def wait(self, condition: Callable[[], Any]) -> None:
        """Until a request has made `condition` true."""
        with self._changed:
            assert self._changed.wait_for(condition, 30), "it did not come to pass in time"

    async def _converse(self, model: str, request: Request) -> Response:
        asked = await request.json()
        with self._changed:
            self.requests.append(asked)
            self.models.add(model)
            self._changed.notify_all()
        said = self.script.popleft() if self.script else Said(json.dumps(good_answer(asked)))
        await run_in_threadpool(said.before)
        if said.error:
            return Response(
                json.dumps({"message": "Too many tokens, please wait before trying again."}),
                status_code=said.status,
                media_type="application/json",
                headers={"x-amzn-ErrorType": said.error},
            )
        content: dict[str, Any] = {"text": said.text}
        if said.tool:
            content = {"toolUse": {"toolUseId": "call-1", "name": said.tool[0], "input": said.tool[1]}}
        body = {
            "output": {"message": {"role": "assistant", "content": [content]}},
            "stopReason": "tool_use" if said.tool else said.stop,
            "usage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120},
            "metrics": {"latencyMs": 5},
        }
        answer = Response(json.dumps(body), media_type="application/json")
        return Breaking(answer.body) if said.breaks else answer


class Breaking(StreamingResponse):
    """Promises the whole answer, and ends after half of it."""

    def __init__(self, body: bytes) -> None:
        async def half() -> AsyncIterator[bytes]:
            yield body[: len(body) // 2]
            raise ConnectionResetError

        super().__init__(half(), media_type="application/json", headers={"Content-Length": str(len(body))})


def good_answer(asked: dict[str, Any]) -> dict[str, list[str]]:
    """What the asked agent should say, told apart by its schema."""
    return PROPOSAL if "executive_summary" in asked["system"][0]["text"] else ANALYSIS


THROTTLED = Said(status=429, error="ThrottlingException")
BROKEN = Said(status=500, error="InternalServerException")
REFUSED = Said(status=403, error="AccessDeniedException")
