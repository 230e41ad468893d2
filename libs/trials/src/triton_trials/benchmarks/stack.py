"""The whole platform as users have it: `triton up`, with its own settings, in a process of its own."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from triton_common.testing import WORKSPACE, free_ports
from triton_trials.platform import PartFailed
from triton_trials.wire import Answer, Wire, encode

OWN: Final = ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")  # of this process: the platform needs every member's parts
ADMIN: Final = "admin@triton.example"


@dataclass(frozen=True)
class Stack:
    """A running platform: its ports are `port` (the gateway) and those after it."""

    port: int
    state: Path
    password: str

    @property
    def gateway(self) -> tuple[str, int]:
        """Where it answers."""
        return "127.0.0.1", self.port

    async def ask(self, method: str, path: str, *, token: str | None = None, body: Any = None) -> Answer:
        """One request through the gateway, on a connection of its own."""
        wire = Wire(*self.gateway)
        try:
            return await wire.send(encode(method, path, headers=bearer(token), body=body), patience=60.0)
        finally:
            wire.close()

    async def login(self) -> str:
        """An access token of the admin."""
        answer = await self.ask("POST", "/api/v1/auth/login", body={"email": ADMIN, "password": self.password})
        return str(answer.json["access_token"])


def bearer(token: str | None) -> Mapping[str, str]:
    """The header that brings a token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[Stack]:
    """The platform, from ready to stopped. Raises PartFailed."""
    state, port = folder / "state", free_ports(10)
    try:
        await asyncio.to_thread(triton, "up", "--detach", "--port", str(port), "--state", str(state))
        secrets = json.loads((state / "secrets.json").read_text())
        yield Stack(port, state, secrets["admin_password"])
    finally:
        await asyncio.to_thread(triton, "down", "--state", str(state))


def triton(*arguments: str) -> str:
    """What a command of the platform's environment prints. Raises PartFailed."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    command = ["uv", "run", "--frozen", "triton", *arguments]
    done = subprocess.run(command, cwd=WORKSPACE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PartFailed(f"triton {arguments[0]} failed\n{done.stdout}{done.stderr}")
    return done.stdout
