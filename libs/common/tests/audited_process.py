# ruff: noqa: T201  it speaks by its output
"""A process that records: `audited_process.py SPOOL REDIS_URL COUNT [LIMIT]`. It asks itself COUNT times, tells how
each was answered, and waits. With a limit no file of its grows over so many bytes, until it is sent a line: then it
asks once more."""

import asyncio
import resource
import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import httpx2
from fastapi import APIRouter
from uuid_utils.compat import uuid7

from triton_common.app import create_app
from triton_common.audit import recorded
from triton_common.auth import Principal, require
from triton_common.settings import CommonSettings
from triton_common.testing import access_token
from triton_common.testing import test_verifier as make_verifier

router = APIRouter()


@router.get("/prospects/{prospect_id}", dependencies=[recorded("prospect.read", on="prospect")])
async def read(prospect_id: UUID, principal: Annotated[Principal, require("prospects:read")]) -> UUID:
    return prospect_id


async def main(spool: str, redis_url: str, count: int, limit: int | None) -> None:
    settings = CommonSettings(audit_spool=Path(spool), redis_url=redis_url, log_level="ERROR")
    app = create_app(settings, name="process", version="1", description="", routers=[router])
    app.state.verifier = make_verifier()
    headers = {"Authorization": f"Bearer {access_token({'scope': 'prospects:read'})}"}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test", headers=headers) as http,
    ):

        async def ask() -> None:
            prospect_id = uuid7()
            answer = await http.get(f"/prospects/{prospect_id}")
            print(answer.status_code, prospect_id, answer.json().get("code") if answer.is_error else "", flush=True)

        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for _ in range(count):
            await ask()
        print("asked", flush=True)
        if limit:
            await asyncio.to_thread(sys.stdin.readline)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await ask()
            print("asked", flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None))
