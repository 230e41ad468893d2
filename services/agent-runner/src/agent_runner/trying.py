"""One run of an agent without a job: `python -m agent_runner.trying NAME FILE`, as `triton agents run` starts it.

FILE is JSON with `facts` as a document has them, and its `currency`; all else in it is material that the model reads.
Figures and codes in its `value_proposition` may be written. The model is that of the environment. Prints one JSON
object: the result, or `error`.
"""

import json
import sys
from contextlib import closing
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from loguru import logger
from pydantic import ValidationError
from pydantic_core import to_json

from agent_runner.checking import Grounding
from agent_runner.desk import AgentContext, Desk
from agent_runner.facts import Facts
from agent_runner.models import Models
from agent_runner.settings import Settings
from agent_runner.template import BaseAgentTemplate
from agent_runner.writing import AGENTS
from triton_common.errors import AppError, NotFound, Unprocessable
from triton_common.schemas import Fact


class AgentNotFound(NotFound):
    """There is no such agent."""


class AgentInputInvalid(Unprocessable):
    """The input has no facts that can be read."""


def try_agent(agent: BaseAgentTemplate[Any], given: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The result as JSON has it. Raises what BaseAgentTemplate.run raises, AgentInputInvalid, or ValueError for
    settings that do not go together."""
    try:
        found = [_read(Fact.model_validate(fact)) for fact in given["facts"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise AgentInputInvalid(f"`facts` must be those of a document: {error}") from error
    facts = Facts.of(found, currency=str(given.get("currency", "USD")))
    shown = {fact.id: {"label": fact.label, "value": fact.display} for fact in found}
    context = AgentContext(
        desk=Desk(settings=settings, models=Models(settings)),
        facts=facts,
        grounding=Grounding(facts, own_words=[json.dumps(given.get("value_proposition", ""))]),
        material={name: value for name, value in given.items() if name not in ("facts", "sections", "charts")}
        | {"facts": shown},
    )
    with closing(context.desk.models):
        try:
            result = agent.run(context)
        except KeyError as error:
            raise AgentInputInvalid(f"There is no fact {error}, which {agent.name} needs.") from error
    fields: dict[str, Any] = json.loads(to_json(result))
    return fields


def _read(fact: Fact) -> Fact:
    """With a number as one: JSON has it as a string, like a text."""
    try:
        number = Decimal(str(fact.value))
    except InvalidOperation:
        return fact
    return fact if fact.unit == "text" else fact.model_copy(update={"value": number})


def main(name: str, file: str) -> int:
    """The exit status: 0 with a result."""
    logger.remove()  # stdout is for the answer, and what failed is in it
    try:
        agents = {agent.name: agent for agent in AGENTS}
        if name not in agents:
            raise AgentNotFound(f"There is no agent {name}. There are: {', '.join(agents)}.")
        given = json.loads(Path(file).read_text("utf-8"))
        content = given.get("content", given) if isinstance(given, dict) else None  # the API has it within its row
        if not isinstance(content, dict):
            raise AgentInputInvalid("The input must be a document, or an object with its `facts`.")
        told = try_agent(agents[name], content, Settings())
    except AppError as error:
        details = [detail.model_dump() for detail in error.details]
        told = {"error": {"code": error.code, "message": error.message, "details": details}}
    except (OSError, ValueError) as error:
        told = {"error": {"code": "not_understood", "message": str(error), "details": []}}
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    return 1 if "error" in told else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
