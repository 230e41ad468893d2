"""What console answers."""

from typing import Literal

from pydantic import AwareDatetime, Field

from triton_common.schemas import DependencyHealth, Schema

Status = Literal["ok", "degraded", "down", "stopping"]


class Links(Schema):
    """Where to go from here."""

    docs: str = "/docs"
    openapi: str = "/openapi.json"
    health: str = "/health"
    login: str = "/api/v1/auth/login"
    clients: str = "/api/v1/clients"
    jobs: str = "/api/v1/jobs"


class About(Schema):
    """What this is."""

    name: str
    version: str
    description: str
    links: Links = Links()


class ServiceHealth(Schema):
    """The readiness of one service, as console found it."""

    status: Status
    latency_ms: float = Field(description="From the question to the answer, milliseconds")
    version: str | None = None
    message: str | None = None
    dependencies: dict[str, DependencyHealth] = Field(default_factory=dict)


class PlatformHealth(Schema):
    """The readiness of every service. `degraded`: all work, one of them with less than it should have."""

    status: Literal["ok", "degraded", "down"]
    version: str
    checked_at: AwareDatetime
    services: dict[str, ServiceHealth]
