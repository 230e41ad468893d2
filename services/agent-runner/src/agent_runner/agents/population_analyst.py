"""The population analyst: who the prospect's members are, where the money goes, and whom the programme fits."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agent_runner import offline
from agent_runner.facts import Facts
from agent_runner.template import BaseAgentTemplate

Paragraphs = Annotated[
    list[
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=20, max_length=2000, pattern=r"^[^\x00]*$")]
    ],
    Field(min_length=1, max_length=16),
]


class PopulationAnalysis(BaseModel):
    """Three sections of the document."""

    model_config = ConfigDict(extra="forbid")

    population: Paragraphs
    cost_drivers: Paragraphs
    programme_fit: Paragraphs


class PopulationAnalyst(BaseAgentTemplate[PopulationAnalysis]):
    """Reads the facts on the population."""

    name = "population_analyst"
    description = "Describes a prospect's population, what drives its cost, and whom the programme fits"
    output = PopulationAnalysis

    def compose(self, facts: Facts) -> PopulationAnalysis:
        """From the rules in offline.py."""
        return PopulationAnalysis(
            population=offline.population(facts),
            cost_drivers=offline.cost_drivers(facts),
            programme_fit=offline.programme_fit(facts),
        )
