"""BaseAgentTemplate: what every agent shares. A subclass is a name, instructions in a Markdown file, an output schema,
and the output it composes by rules when no model is set up; tools, if it wants some.

The template asks the model through agno, takes JSON out of what comes back, validates it, checks that it is grounded in
the job's facts, and tells the model what was wrong until it is right or the retries are used up.
"""

import functools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from loguru import logger
from opentelemetry.trace import StatusCode, format_trace_id, get_current_span
from prometheus_client import Counter, Histogram
from pydantic import BaseModel

from agent_runner.checking import AgentOutputUngrounded, Grounding
from agent_runner.conversation import RETRIES, Conversation
from agent_runner.desk import AgentContext, Desk
from agent_runner.facts import Facts
from agent_runner.meter import Meter, count
from agent_runner.models import OFFLINE
from agent_runner.records import RunRecord
from agent_runner.replies import feedback, parse, texts
from agent_runner.stop import Stopped
from triton_common.errors import AppError, Internal
from triton_common.schemas import ProblemDetail
from triton_common.telemetry import tracer

if TYPE_CHECKING:
    from agno.agent import Agent
    from agno.models.base import Model

Output = TypeVar("Output", bound=BaseModel)
Tool = Callable[..., str]
"""A function that a model may call: its name, docstring and annotated arguments are what the model knows of it."""

AGENT_RUNS: Final = Counter(
    "triton_agent_runs_total", "Runs of agents, by how they ended", ["agent", "model", "outcome"]
)
AGENT_DURATION: Final = Histogram(
    "triton_agent_run_duration_seconds",
    "A run with all its retries",
    ["agent", "model"],
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 240, 480),
)
GRACE: Final = timedelta(minutes=1)  # after a run's deadline, for its record to arrive
TOOL_FAILED: Final = "The tool failed. Go on without it."


class AgentOutputInvalid(Internal):
    """The model's answers do not have the form asked for."""


@dataclass(frozen=True)
class AgentResult(Generic[Output]):
    """What a run brought."""

    output: Output
    model: str
    """The one that wrote it: the fallback, when it took over."""
    prompt_version: str
    calls: int
    """Model calls, the repeated ones included."""
    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    """In `currency`; None for models without a price."""
    currency: str
    seconds: float
    trace_id: str
    """Of the run's trace in OpenTelemetry, 32 hex digits."""


class Instructions(NamedTuple):
    """An agent's Markdown file."""

    version: str
    text: str


class BaseAgentTemplate(ABC, Generic[Output]):
    """An agent. Instances hold nothing of a run, so one serves every thread."""

    name: ClassVar[str]
    description: ClassVar[str]
    output: type[Output]

    @abstractmethod
    def compose(self, facts: Facts) -> Output:
        """The output by rules, for `offline:template`."""

    @property
    def instructions(self) -> Instructions:
        """From `agents/<name>.md`: its version, then what the model is told."""
        return read_instructions(self.name)

    def tools(self, context: AgentContext) -> Sequence[Tool]:  # noqa: ARG002  for those who have some
        """What the model may call. Made for one run, so that they reach its job's data alone."""
        return ()

    def run(self, context: AgentContext) -> AgentResult[Output]:
        """The agent's output, valid and grounded.

        Raises AgentOutputInvalid, AgentOutputUngrounded, AgentCallRefused, AgentCallFailed, AgentDeadlineExceeded or
        AgentBudgetExceeded, each with what was wrong at last; or Stopped.
        """
        desk = context.desk
        meter = Meter(
            agent=self.name,
            limit=desk.settings.max_calls,
            budget=desk.budget,
            stop=desk.stop,
            trace_prompts=desk.settings.trace_prompts,
        )
        started, outcome = monotonic(), "failed"
        with tracer.start_as_current_span(
            f"invoke_agent {self.name}",
            record_exception=False,  # its text may quote the model
            set_status_on_exception=False,
            attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": self.name},
        ) as span:
            record = self._begin(context)
            try:
                asked = self._compose(context) if desk.models.offline else self._ask(context, meter, started)
                output, model = asked
                outcome = record.status = "completed"
                record.model = model
            except Stopped as stopped:
                outcome = record.status = stopped.reason
                raise
            except Exception as error:
                outcome = error.code if isinstance(error, AppError) else outcome
                record.fail(error)
                span.set_status(StatusCode.ERROR, outcome)
                raise
            finally:
                record.seconds = round(monotonic() - started, 4)
                record.calls = meter.calls
                span.set_attribute("gen_ai.request.model", record.model)
                span.set_attribute("gen_ai.usage.input_tokens", record.input_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", record.output_tokens)
                self._end(record, desk, outcome)
        return AgentResult(
            output=output,
            model=model,
            prompt_version=record.prompt_version,
            calls=len(meter.calls),
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
            cost=record.cost,
            currency=record.currency,
            seconds=record.seconds,
            trace_id=record.trace_id,
        )

    def build(self, model: "Model", tools: Sequence[Tool] = ()) -> "Agent":
        """The agno agent. It keeps no history, and repeats nothing by itself: `run` does that."""
        from agno.agent import Agent  # noqa: PLC0415  a second to import, which offline need not wait for

        schema = json.dumps(self.output.model_json_schema(), separators=(",", ":"))
        return Agent(
            id=self.name,
            name=self.name,
            description=self.description,
            model=model,
            tools=[_guarded(tool) for tool in tools] or None,
            instructions=f"{self.instructions.text}\n\nAnswer with one JSON object of this schema alone:\n{schema}",
            telemetry=False,
            retries=0,
            resolve_in_context=False,  # it would take our {{references}} for its own variables
            markdown=False,
        )

    def _begin(self, context: AgentContext) -> RunRecord:
        desk, job = context.desk, context.desk.job
        record = RunRecord(
            agent=self.name,
            model=desk.models.name,
            prompt_version=self.instructions.version,
            job_id=job.job_id if job else None,
            client_id=job.client_id if job else None,
            attempt=job.attempt if job else 0,
            worker=desk.worker,
            request_id=job.request_id if job else "",
            trace_id=format_trace_id(get_current_span().get_span_context().trace_id),
            ends_by=datetime.now(UTC) + desk.settings.deadline + GRACE,
            currency=desk.budget.currency,
        )
        desk.record(record)
        return record

    def _end(self, record: RunRecord, desk: Desk, outcome: str) -> None:
        seconds = record.seconds or 0.0
        AGENT_RUNS.labels(self.name, record.model, outcome).inc()
        AGENT_DURATION.labels(self.name, record.model).observe(seconds)
        logger.bind(
            agent=self.name,
            run_id=str(record.id),
            model=record.model,
            outcome=outcome,
            calls=len(record.calls),
            duration_ms=round(seconds * 1000, 1),
        ).info("agent run ended")
        desk.record(record)

    def _compose(self, context: AgentContext) -> tuple[Output, str]:
        count(self.name, OFFLINE, 0, 0, cost=0, currency=context.desk.budget.currency)
        output = self.compose(context.facts)
        if faults := _ungrounded(output, context.grounding):
            raise AgentOutputUngrounded(faults[0].issue, details=faults)
        return output, OFFLINE

    def _ask(self, context: AgentContext, meter: Meter, started: float) -> tuple[Output, str]:
        """(output, the model that wrote it)"""
        tools = self.tools(context)
        conversation = Conversation(
            self.name,
            context.desk,
            json.dumps(context.material, ensure_ascii=False),
            meter=meter,
            build=lambda model: self.build(model, tools),
            ends_at=started + context.desk.settings.deadline.total_seconds(),
        )
        while True:
            reply = conversation.ask()
            output, faults = parse(reply, self.output, cut_off=meter.cut_off)
            reason = "invalid_output"
            error: type[AppError] = AgentOutputInvalid
            if output is not None:
                if not (faults := _ungrounded(output, context.grounding)):
                    return output, conversation.model
                reason, error = "ungrounded_output", AgentOutputUngrounded
            meter.refused(reason, faults)
            if conversation.retries[reason] == RETRIES:
                raise error(f"{self.name}: {faults[0].issue}", details=faults)
            conversation.correct(reply, feedback(faults), reason=reason)


@cache
def read_instructions(name: str) -> Instructions:
    """`agents/<name>.md`. Its first line reads `version: 1`, the rest is for the model."""
    head, _, text = files("agent_runner.agents").joinpath(f"{name}.md").read_text("utf-8").partition("\n")
    version = re.fullmatch(r"version: (\S+)", head)
    if version is None:
        raise ValueError(f"the first line of {name}.md must name its version")
    return Instructions(version=version.group(1), text=text.strip())


def _ungrounded(output: BaseModel, grounding: Grounding) -> list[ProblemDetail]:
    return [fault for place, text in texts(output) for fault in grounding.check(text, place=place)]


def _guarded(tool: Tool) -> Tool:
    """The tool in a span of its own, and whose errors the model does not read: they may tell of the inside."""

    @functools.wraps(tool)
    def call(*args: Any, **kwargs: Any) -> str:
        name = tool.__name__
        with tracer.start_as_current_span(
            f"execute_tool {name}",
            record_exception=False,
            attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name},
        ) as span:
            try:
                return tool(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  whatever it is, the agent goes on
                logger.opt(exception=error).bind(tool=name).warning("tool failed")
                span.set_status(StatusCode.ERROR, type(error).__name__)
                return TOOL_FAILED

    return call
