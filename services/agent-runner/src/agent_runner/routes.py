"""What the API tells of the agents."""

from typing import Any

from fastapi import APIRouter, Request

from agent_runner.writing import AGENTS
from triton_common.auth import InsufficientScope, MissingToken, require
from triton_common.errors import problems
from triton_common.schemas import Schema

router = APIRouter(prefix="/api/v1/agents", tags=["agents"])


class AgentPublic(Schema):
    """An agent as it runs at present."""

    name: str
    description: str
    model: str
    prompt_version: str
    output_schema: dict[str, Any]


@router.get("", dependencies=[require("agents:read")], responses=problems(MissingToken, InsufficientScope))
async def list_agents(request: Request) -> list[AgentPublic]:
    """The agents that write documents, in the order they work: what each does, its model, the version of its
    instructions, and the JSON schema its output must have."""
    return [
        AgentPublic(
            name=agent.name,
            description=agent.description,
            model=request.app.state.settings.model,
            prompt_version=agent.instructions.version,
            output_schema=agent.output.model_json_schema(),
        )
        for agent in AGENTS
    ]
