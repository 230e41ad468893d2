"""What the API tells of the agents and of their runs."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlmodel import col

from agent_runner.schemas import AgentPublic, AgentRunDetail, AgentRunPublic, AgentRunQuery, public
from agent_runner.tables import AgentRun
from agent_runner.writing import AGENTS
from triton_common.auth import InsufficientScope, MissingToken, Principal, require
from triton_common.db import DatabaseUnavailable, SessionDep, newest
from triton_common.errors import NotFound, problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/agents", tags=["agents"])

Reader = Annotated[Principal, require("agents:read")]


class AgentRunNotFound(NotFound):
    """There is no such run."""


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


@router.get(
    "/runs",
    dependencies=[once()],
    responses=problems(MissingToken, InsufficientScope, InvalidCursor, DatabaseUnavailable),
)
async def list_runs(
    session: SessionDep, principal: Reader, wanted: Annotated[AgentRunQuery, Query()]
) -> Page[AgentRunPublic]:
    """Runs of agents, newest first: each with its timing, tokens and cost, and why it failed. A job that is tried again
    has runs of each attempt."""
    given = [
        col(AgentRun.job_id) == wanted.job_id if wanted.job_id else None,
        col(AgentRun.agent) == wanted.agent if wanted.agent else None,
        col(AgentRun.status) == wanted.status if wanted.status else None,
        col(AgentRun.client_id) == principal.client_id if principal.client_id else None,
    ]
    conditions = [condition for condition in given if condition is not None]
    runs, following = await newest(session, AgentRun, *conditions, limit=wanted.limit, cursor=wanted.cursor)
    items = [AgentRunPublic(**public(run, with_traceback=_is_admin(principal))) for run in runs]
    return Page(items=items, next_cursor=following)


@router.get(
    "/runs/{run_id}", responses=problems(MissingToken, InsufficientScope, AgentRunNotFound, DatabaseUnavailable)
)
async def get_run(session: SessionDep, principal: Reader, run_id: UUID) -> AgentRunDetail:
    """A run with each of its model calls: how long it took, what it cost, how it ended, and what the model was told."""
    run = await session.get(AgentRun, run_id)
    if run is None or not principal.can_see(run.client_id):
        raise AgentRunNotFound(f"There is no run {run_id}.")
    return AgentRunDetail(**public(run, with_traceback=_is_admin(principal)), calls=run.calls)


def _is_admin(principal: Principal) -> bool:
    """Of the platform, not of a client: what a traceback shows is ours."""
    return principal.is_staff and principal.role == "admin"
