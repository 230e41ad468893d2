"""One run's conversation with its model: calls through agno, repeated while that may help; the model that takes over.

What ends a call is decided by the provider's error code (providers.py), not by agno, whose runs do not raise.
"""

import random
from collections import Counter as Tally
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from loguru import logger
from prometheus_client import Counter

from agent_runner.desk import Desk
from agent_runner.meter import CallFailed, Meter
from triton_common.errors import Internal, Unavailable
from triton_common.telemetry import tracer

if TYPE_CHECKING:
    from agno.agent import Agent
    from agno.models.base import Model

RETRIES: Final = 3  # of each kind: failed call (of each model), invalid output, ungrounded output
LONGEST_PAUSE: Final = 30.0  # seconds between two calls

AGENT_RETRIES: Final = Counter("triton_agent_retries_total", "Model calls repeated", ["agent", "reason"])


class AgentCallRefused(Internal):
    """The model cannot be called as it is set up."""


class AgentCallFailed(Unavailable):
    """The model does not answer."""


class AgentDeadlineExceeded(Unavailable):
    """The agent took longer than it may."""


class Conversation:
    """One run's. `build` makes the agno agent for a model."""

    def __init__(
        self, agent: str, desk: Desk, question: str, *, meter: Meter, build: "Callable[[Model], Agent]", ends_at: float
    ) -> None:
        """`ends_at` by `monotonic`."""
        self.retries: Tally[str] = Tally()
        self._agent = agent
        self._desk = desk
        self._meter = meter
        self._build = build
        self._ends_at = ends_at
        self._question = question
        self._correction: list[tuple[str, str]] = []
        self._names = list(desk.models.names)
        self._built: Agent | None = None

    @property
    def model(self) -> str:
        """The model that is asked at present."""
        return self._names[0]

    def ask(self) -> str:
        """The model's answer. Raises AgentCallRefused, AgentCallFailed, AgentDeadlineExceeded, AgentBudgetExceeded or
        Stopped."""
        while True:
            try:
                return self._call()
            except CallFailed as failed:
                self._after(failed)

    def correct(self, reply: str, feedback: str, *, reason: str) -> None:
        """Have the next answer follow on one that cannot be used."""
        self._count(reason)
        self._correction = [("assistant", reply or "(nothing)"), ("user", feedback)]

    def _call(self) -> str:
        """One agno run."""
        from agno.models.message import Message  # noqa: PLC0415  a second to import, which offline need not wait for
        from agno.run.base import RunStatus  # noqa: PLC0415  same

        if self._built is None:
            self._built = self._build(self._desk.models.metered(self.model, self._meter))
        agent = self._built
        messages = [Message(role=role, content=text) for role, text in [("user", self._question), *self._correction]]
        self._meter.failure = None
        try:
            [answer] = self._desk.stop.gather([lambda: agent.run(messages)], timeout=self._ends_at - monotonic())
        except TimeoutError as error:
            raise self._too_late() from error
        # agno does not raise: a failed run ends with a status, and the error's text as its content
        if self._meter.failure is not None:
            raise self._meter.failure
        if answer.status is not RunStatus.completed:
            raise CallFailed(f"run ended {answer.status.value.lower()}", transient=False)
        return answer.content if isinstance(answer.content, str) else ""

    def _after(self, failed: CallFailed) -> None:
        """Wait before the next call, longer each time, or turn to the next model. Raises what ends the run instead."""
        logger.bind(agent=self._agent, model=self.model, reason=failed.reason, transient=failed.transient).warning(
            "model call failed"
        )
        retry = self.retries["failed_call"]
        if not failed.transient or retry == RETRIES:
            if len(self._names) == 1:
                raise self._given_up(failed) from failed
            self._names.pop(0)
            self._built = None
            self.retries["failed_call"] = 0
            AGENT_RETRIES.labels(self._agent, "fallback").inc()
            logger.bind(agent=self._agent, model=self.model).warning("another model takes over")
            return
        self._count("failed_call")
        # half of it by chance: callers that failed together come back apart
        pause = min(self._desk.settings.retry_pause.total_seconds() * 2**retry, LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311  no secret
        if monotonic() + pause >= self._ends_at:
            raise self._too_late() from failed
        with tracer.start_as_current_span("retry", attributes={"reason": failed.reason, "pause_seconds": pause}):
            self._desk.stop.wait(pause)

    def _given_up(self, failed: CallFailed) -> AgentCallRefused | AgentCallFailed:
        if failed.transient:
            return AgentCallFailed(f"The model failed {RETRIES + 1} times, at last with {failed.reason}.")
        return AgentCallRefused(f"The model {self.model} refuses calls, or is not set up: {failed.reason}.")

    def _count(self, reason: str) -> None:
        self.retries[reason] += 1
        AGENT_RETRIES.labels(self._agent, reason).inc()
        logger.bind(agent=self._agent, reason=reason, retry=self.retries[reason]).info("agent tries again")

    def _too_late(self) -> AgentDeadlineExceeded:
        allowed = self._desk.settings.deadline.total_seconds()
        return AgentDeadlineExceeded(f"{self._agent} had no result within {allowed:g} seconds.")
