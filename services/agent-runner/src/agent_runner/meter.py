"""What happens between an agent's run and its model: each call counted, timed, traced and paid, its failure kept.

agno turns every failure of a model into text, so whatever ends a call is told here, past agno.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from time import monotonic
from typing import Any, Final, Literal

from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import Counter

from agent_runner.budget import AgentBudgetExceeded, Budget
from agent_runner.stop import Stop
from triton_common.schemas import ProblemDetail
from triton_common.telemetry import tracer

CallOutcome = Literal["answered", "cut_off", "failed", "abandoned"]

AGENT_TOKENS: Final = Counter("triton_agent_tokens_total", "Tokens read and written", ["agent", "model", "kind"])
AGENT_COST: Final = Counter("triton_agent_cost_total", "Money, by AGENT_PRICES", ["agent", "model", "currency"])


class CallFailed(Exception):
    """A model call that brought no answer."""

    def __init__(self, reason: str, *, transient: bool) -> None:
        """`reason` is the provider's error code, not its text, which may quote the prompt; `transient`: try again."""
        self.reason = reason
        self.transient = transient
        super().__init__(reason)


@dataclass
class Call:
    """One model call. `abandoned` until its model has answered: one that nobody waits for any more stays so."""

    model: str
    began_at: datetime
    outcome: CallOutcome = "abandoned"
    reason: str = ""
    """Of a failure the provider's error code; of an answer that cannot be used, why."""
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = None
    faults: Sequence[ProblemDetail] = ()
    """What was wrong with its answer, as the model was told."""


@dataclass
class Meter:
    """One run's calls, whatever number of them agno makes for tools."""

    agent: str
    limit: int
    """Calls in the run; agno's own limit is one of tool calls."""
    budget: Budget
    stop: Stop
    trace_prompts: bool = False
    calls: list[Call] = field(default_factory=list)
    failure: Exception | None = None
    """How the last call ended, unless with an answer."""

    @property
    def cut_off(self) -> bool:
        """Whether the last answer ended at the length that the model may write."""
        return bool(self.calls) and self.calls[-1].outcome == "cut_off"

    @contextmanager
    def call(self, model: str, messages: Sequence[Any]) -> Iterator["Call"]:
        """Around a call; whoever makes it calls `answered`, or raises. Raises AgentBudgetExceeded, or Stopped."""
        self.failure = None
        try:
            self.stop.check()
            self.budget.check()
            if len(self.calls) >= self.limit:
                raise AgentBudgetExceeded(f"{self.agent} made {self.limit} model calls without a result.")  # noqa: TRY301  kept as the others
        except Exception as error:
            self.failure = error  # agno swallows what is raised here
            raise
        call, started = Call(model=model, began_at=datetime.now(UTC)), monotonic()
        self.calls.append(call)
        with tracer.start_as_current_span(
            f"chat {model}",
            kind=SpanKind.CLIENT,
            record_exception=False,  # its text may quote the prompt
            set_status_on_exception=False,
            attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": model},
        ) as span:
            if self.trace_prompts:
                said = [{"role": message.role, "content": message.get_content_string()} for message in messages]
                span.set_attribute("gen_ai.input.messages", json.dumps(said))
            try:
                yield call
            except BaseException as error:
                call.outcome = "failed"
                call.reason = self._reason(error)
                span.set_status(StatusCode.ERROR, call.reason)
                span.set_attribute("error.type", call.reason)
                raise
            finally:
                call.seconds = round(monotonic() - started, 4)
                span.set_attribute("gen_ai.usage.input_tokens", call.input_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", call.output_tokens)

    def _reason(self, error: BaseException) -> str:
        return self.failure.reason if isinstance(self.failure, CallFailed) else type(error).__name__

    def refused(self, reason: str, faults: Sequence[ProblemDetail]) -> None:
        """The last answer cannot be used."""
        if self.calls:
            self.calls[-1].reason, self.calls[-1].faults = reason, faults

    def answered(self, call: Call, *, input_tokens: int, output_tokens: int, cut_off: bool) -> None:
        """The model has answered."""
        call.outcome = "cut_off" if cut_off else "answered"
        call.input_tokens, call.output_tokens = input_tokens, output_tokens
        call.cost = self.budget.spend(call.model, input_tokens=input_tokens, output_tokens=output_tokens)
        count(self.agent, call.model, input_tokens, output_tokens, cost=call.cost or 0, currency=self.budget.currency)


def count(agent: str, model: str, input_tokens: int, output_tokens: int, *, cost: Decimal | int, currency: str) -> None:
    """What was used. Nothing is counted too, so that the first of it is seen to come after nothing."""
    AGENT_TOKENS.labels(agent, model, "input").inc(input_tokens)
    AGENT_TOKENS.labels(agent, model, "output").inc(output_tokens)
    AGENT_COST.labels(agent, model, currency).inc(float(cost))
