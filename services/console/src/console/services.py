"""The services behind the gateway: their addresses, their public paths, and how they are asked."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import httpx2

from console.settings import Settings
from triton_common.logging import current_request_id
from triton_common.telemetry import outgoing_headers


class ServiceSilent(Exception):
    """A service does not answer; the message says so in a sentence."""


@dataclass(frozen=True)
class Service:
    """One service; `prefixes` are the public paths that the gateway sends to it."""

    name: str
    url: str
    prefixes: tuple[str, ...]

    def has(self, path: str) -> bool:
        """Whether the gateway sends `path` here: by whole segments."""
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self.prefixes)


def services_of(settings: Settings) -> list[Service]:
    """All services but console, in the order in which a user needs them."""
    jobs = ("clients", "value-propositions", "prospects", "jobs", "documents", "webhooks", "schedules")
    return [
        Service("auth-service", settings.auth_url, ("/api/v1/auth",)),
        Service("jobs-service", settings.jobs_url, tuple(f"/api/v1/{noun}" for noun in jobs)),
        Service("analytics-service", settings.analytics_url, ("/api/v1/analytics",)),
        Service("agent-runner", settings.agents_url, ("/api/v1/agents",)),
    ]


async def ask(http: httpx2.AsyncClient, service: Service, path: str, *, within: timedelta) -> httpx2.Response:
    """What the service answers, whatever its status. Raises ServiceSilent when nothing comes in time."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await http.get(f"{service.url}{path}", headers=outgoing_headers(current_request_id()))
    except TimeoutError as error:
        raise ServiceSilent(f"{service.name} does not answer within {within.total_seconds():g} s.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ServiceSilent(f"{service.name} does not answer.") from error
