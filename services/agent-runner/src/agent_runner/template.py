"""BaseAgentTemplate: what every agent shares. A subclass is a name, instructions in a Markdown file, an output schema,
and the output it composes by rules when no model is set up.

The template asks the model through agno, takes JSON out of what comes back, validates it, checks that it is grounded in
the job's facts, and tells the model what was wrong until it is right or the retries are used up.
"""

import json
import re
from abc import ABC, abstractmethod
from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.resources import files
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from loguru import logger
from prometheus_client import Counter, Histogram
from pydantic import BaseModel

from agent_runner.checking import AgentOutputUngrounded, Grounding
from agent_runner.facts import Facts
from agent_runner.models import OFFLINE, CallFailed, CallLimitReached, Meter, Models
from agent_runner.replies import feedback, parse, texts
from agent_runner.stop import Stop, Stopped
from triton_common.errors import AppError, Internal, Unavailable
from triton_common.schemas import ProblemDetail

if TYPE_CHECKING:
    from agno.agent import Agent
    from agno.models.base import Model

Output = TypeVar("Output", bound=BaseModel)

RETRIES: Final = 3  # of each kind: failed call, invalid output, ungrounded output
LONGEST_PAUSE: Final = 30.0  # seconds between two calls

AGENT_RUNS: Final = Counter(
    "triton_agent_runs_total", "Runs of agents, by how they ended", ["agent", "model", "outcome"]
)
AGENT_DURATION: Final = Histogram(
    "triton_agent_run_duration_seconds",
    "A run with all its retries",
    ["agent", "model"],
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 240, 480),
)
AGENT_RETRIES: Final = Counter("triton_agent_retries_total", "Model calls repeated", ["agent", "reason"])
AGENT_TOKENS: Final = Counter("triton_agent_tokens_total", "Tokens read and written", ["agent", "model", "kind"])


class AgentOutputInvalid(Internal):
    """The model's answers do not have the form asked for."""


class AgentCallRefused(Internal):
    """The model cannot be called as it is set up."""


class AgentCallFailed(Unavailable):
    """The model does not answer."""


class AgentDeadlineExceeded(Unavailable):
    """The agent took longer than it may."""


class AgentBudgetExceeded(Internal):
    """The agent made more model calls than it may."""


@dataclass(frozen=True)
class AgentContext:
    """What a run works with."""

    facts: Facts
    grounding: Grounding
    material: Mapping[str, Any]
    """What the model reads beside its instructions, JSON. Data, whatever it says."""
    models: Models
    stop: Stop
    deadline: timedelta = timedelta(minutes=6)
    max_calls: int = 10
    retry_pause: timedelta = timedelta(seconds=1)


@dataclass(frozen=True)
class AgentResult(Generic[Output]):
    """What a run brought."""

    output: Output
    model: str
    prompt_version: str
    calls: int
    input_tokens: int
    output_tokens: int
    seconds: float


class Instructions(NamedTuple):
    """An agent's Markdown file."""

    version: str
    text: str


@dataclass
class _Run:
    """One run's conversation and what it has cost so far."""

    agent: "Agent"
    meter: Meter
    messages: list[tuple[str, str]]
    retries: Tally[str]
    ends_at: float
    input_tokens: int = 0
    output_tokens: int = 0


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

    def run(self, context: AgentContext) -> AgentResult[Output]:
        """The agent's output, valid and grounded.

        Raises AgentOutputInvalid, AgentOutputUngrounded, AgentCallRefused, AgentCallFailed, AgentDeadlineExceeded or
        AgentBudgetExceeded, each with what was wrong at last; or Stopped.
        """
        model, started = context.models.name, monotonic()
        outcome = "failed"
        try:
            result = self._compose(context, started) if context.models.offline else self._ask(context, started)
            outcome = "completed"
        except AppError as error:
            outcome = error.code
            raise
        except Stopped as stopped:
            outcome = stopped.reason
            raise
        finally:
            AGENT_RUNS.labels(self.name, model, outcome).inc()
            AGENT_DURATION.labels(self.name, model).observe(monotonic() - started)
            logger.bind(
                agent=self.name, model=model, outcome=outcome, duration_ms=round((monotonic() - started) * 1000, 1)
            ).info("agent run ended")
        return result

    def build(self, model: "Model") -> "Agent":
        """The agno agent. It keeps no history, calls no tools, and repeats nothing by itself: `run` does that."""
        from agno.agent import Agent  # noqa: PLC0415  a second to import, which offline need not wait for

        schema = json.dumps(self.output.model_json_schema(), separators=(",", ":"))
        return Agent(
            name=self.name,
            description=self.description,
            model=model,
            instructions=f"{self.instructions.text}\n\nAnswer with one JSON object of this schema alone:\n{schema}",
            telemetry=False,
            retries=0,
            resolve_in_context=False,  # it would take our {{references}} for its own variables
            markdown=False,
        )

    def _compose(self, context: AgentContext, started: float) -> AgentResult[Output]:
        output = self.compose(context.facts)
        if faults := _ungrounded(output, context.grounding):
            raise AgentOutputUngrounded(faults[0].issue, details=faults)
        return AgentResult(
            output=output,
            model=OFFLINE,
            prompt_version=self.instructions.version,
            calls=0,
            input_tokens=0,
            output_tokens=0,
            seconds=monotonic() - started,
        )

    def _ask(self, context: AgentContext, started: float) -> AgentResult[Output]:
        meter = Meter(limit=context.max_calls)
        try:
            model = context.models.metered(meter)
        except CallFailed as failed:
            raise AgentCallRefused(f"The model {context.models.name} is not set up: {failed.reason}.") from failed
        run = _Run(
            agent=self.build(model),
            meter=meter,
            messages=[("user", json.dumps(context.material, ensure_ascii=False))],
            retries=Tally(),
            ends_at=started + context.deadline.total_seconds(),
        )
        question = list(run.messages)
        while True:
            try:
                reply = self._call(run, context)
            except CallFailed as failed:
                self._retry_call(run, failed, context)
                continue
            output, faults = parse(reply, self.output)
            reason = "invalid_output"
            error: type[AppError] = AgentOutputInvalid
            if output is not None:
                if not (faults := _ungrounded(output, context.grounding)):
                    return AgentResult(
                        output=output,
                        model=context.models.name,
                        prompt_version=self.instructions.version,
                        calls=meter.calls,
                        input_tokens=run.input_tokens,
                        output_tokens=run.output_tokens,
                        seconds=monotonic() - started,
                    )
                reason, error = "ungrounded_output", AgentOutputUngrounded
            if run.retries[reason] == RETRIES:
                raise error(f"{self.name}: {faults[0].issue}", details=faults)
            self._count_retry(run, reason)
            run.messages = [*question, ("assistant", reply or "(nothing)"), ("user", feedback(faults))]

    def _call(self, run: _Run, context: AgentContext) -> str:
        """One agno run. Raises CallFailed, Stopped, AgentDeadlineExceeded or AgentBudgetExceeded."""
        from agno.models.message import Message  # noqa: PLC0415  as in build
        from agno.run.base import RunStatus  # noqa: PLC0415  same

        messages = [Message(role=role, content=text) for role, text in run.messages]
        try:
            [answer] = context.stop.gather([lambda: run.agent.run(messages)], timeout=run.ends_at - monotonic())
        except TimeoutError as error:
            raise self._too_late(context) from error
        if answer.metrics is not None:
            run.input_tokens += answer.metrics.input_tokens
            run.output_tokens += answer.metrics.output_tokens
            AGENT_TOKENS.labels(self.name, context.models.name, "input").inc(answer.metrics.input_tokens)
            AGENT_TOKENS.labels(self.name, context.models.name, "output").inc(answer.metrics.output_tokens)
        # agno does not raise: a failed run ends with a status, and the error's text as its content
        if run.meter.failure is not None:
            raise run.meter.failure
        if answer.status is not RunStatus.completed:
            raise CallFailed(f"run ended {answer.status.value.lower()}", transient=False)
        return answer.content if isinstance(answer.content, str) else ""

    def _retry_call(self, run: _Run, failed: CallFailed, context: AgentContext) -> None:
        """Wait before the next call, longer each time. Raises what ends the run instead."""
        logger.bind(agent=self.name, reason=failed.reason, transient=failed.transient).warning("model call failed")
        if isinstance(failed, CallLimitReached):
            raise AgentBudgetExceeded(f"{self.name} made {context.max_calls} model calls without a result.") from failed
        if not failed.transient:
            raise AgentCallRefused(f"The model refuses calls: {failed.reason}.") from failed
        retry = run.retries["failed_call"]
        if retry == RETRIES:
            raise AgentCallFailed(f"The model failed {RETRIES + 1} times, at last with {failed.reason}.") from failed
        self._count_retry(run, "failed_call")
        pause = min(context.retry_pause.total_seconds() * 2**retry, LONGEST_PAUSE)
        if monotonic() + pause >= run.ends_at:
            raise self._too_late(context) from failed
        context.stop.wait(pause)

    def _count_retry(self, run: _Run, reason: str) -> None:
        run.retries[reason] += 1
        AGENT_RETRIES.labels(self.name, reason).inc()
        logger.bind(agent=self.name, reason=reason, retry=run.retries[reason]).info("agent tries again")

    def _too_late(self, context: AgentContext) -> AgentDeadlineExceeded:
        return AgentDeadlineExceeded(f"{self.name} had no result within {context.deadline.total_seconds():g} seconds.")


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
