"""The proposal writer: the case for the programme, built on the population analyst's sections."""

from pydantic import BaseModel, ConfigDict

from agent_runner import offline_case
from agent_runner.agents.population_analyst import Paragraphs
from agent_runner.facts import Facts
from agent_runner.template import BaseAgentTemplate


class Proposal(BaseModel):
    """Five sections of the document."""

    model_config = ConfigDict(extra="forbid")

    executive_summary: Paragraphs
    financial_case: Paragraphs
    assumptions: Paragraphs
    risks: Paragraphs
    next_steps: Paragraphs


class ProposalWriter(BaseAgentTemplate[Proposal]):
    """Reads all facts and the analysis."""

    name = "proposal_writer"
    description = "Writes the summary, the financial case, its assumptions and risks, and the next steps"
    output = Proposal

    def compose(self, facts: Facts) -> Proposal:
        """From the rules in offline_case.py."""
        return Proposal(
            executive_summary=offline_case.executive_summary(facts),
            financial_case=offline_case.financial_case(facts),
            assumptions=offline_case.assumptions(facts),
            risks=offline_case.risks(facts),
            next_steps=offline_case.next_steps(facts),
        )
