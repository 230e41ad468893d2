"""The agents' turn: the population analyst, then the proposal writer, who builds on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent_runner.agents.population_analyst import PopulationAnalyst
from agent_runner.agents.proposal_writer import ProposalWriter
from agent_runner.checking import Grounding
from agent_runner.desk import AgentContext, Desk
from agent_runner.facts import Facts
from agent_runner.template import AgentResult, BaseAgentTemplate
from triton_common.schemas import ClaimedJob

ANALYST: Final = PopulationAnalyst()
WRITER: Final = ProposalWriter()
AGENTS: Final[tuple[BaseAgentTemplate[Any], ...]] = (ANALYST, WRITER)


@dataclass(frozen=True)
class Draft:
    """A document's texts by section, with references to facts, and what writing them took."""

    sections: Mapping[str, list[str]]
    results: Mapping[str, AgentResult[Any]]


def write(
    job: ClaimedJob,
    facts: Facts,
    grounding: Grounding,
    *,
    desk: Desk,
    written: Callable[[BaseAgentTemplate[Any]], None],
) -> Draft:
    """Every section. `written` is called as each agent is done. Raises what BaseAgentTemplate.run raises."""
    material: dict[str, Any] = {
        "facts": {key: {"label": fact.label, "value": fact.display} for key, fact in facts.items()},
        "value_proposition": {
            "name": job.value_proposition_name,
            "summary": job.value_proposition.summary,
            "programme": job.value_proposition.programme,
        },
    }

    def context(**more: Any) -> AgentContext:
        return AgentContext(desk=desk, facts=facts, grounding=grounding, material=material | more)

    analysis = ANALYST.run(context())
    written(ANALYST)
    proposal = WRITER.run(context(analysis=analysis.output.model_dump()))
    written(WRITER)
    return Draft(
        sections=analysis.output.model_dump() | proposal.output.model_dump(),
        results={ANALYST.name: analysis, WRITER.name: proposal},
    )
