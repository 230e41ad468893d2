"""What a job gives all its agents: the models, what they may spend, the signal to stop, where their runs are kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_runner.budget import Budget
from agent_runner.checking import Grounding
from agent_runner.facts import Facts
from agent_runner.models import Models
from agent_runner.records import Record, RunRecord
from agent_runner.settings import Settings
from agent_runner.stop import Stop
from triton_common.schemas import ClaimedJob


def forget(_: RunRecord) -> None:
    """For runs that nobody keeps."""


@dataclass
class Desk:
    """One job's. Without a job, runs are not kept: somebody tries an agent."""

    settings: Settings
    models: Models
    stop: Stop = field(default_factory=Stop)
    job: ClaimedJob | None = None
    worker: str = ""
    record: Record = forget
    budget: Budget = field(init=False)

    def __post_init__(self) -> None:
        """The budget is the job's, whichever agents spend it."""
        self.budget = Budget(
            max_tokens=self.settings.job_max_tokens,
            max_cost=self.settings.job_max_cost,
            prices=self.settings.prices,
            currency=self.settings.price_currency,
        )


@dataclass(frozen=True)
class AgentContext:
    """What a run works with."""

    desk: Desk
    facts: Facts
    grounding: Grounding
    material: Mapping[str, Any]
    """What the model reads beside its instructions, JSON. Data, whatever it says."""
