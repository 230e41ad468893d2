"""The health of the platform: every service's readiness, asked in parallel."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from time import monotonic, perf_counter
from typing import Final

import httpx2
from pydantic import ValidationError
from triton_common.schemas import Health

from console.schemas import PlatformHealth, ServiceHealth
from console.services import Service, ServiceSilent, ask

FRESH: Final = 1.0  # seconds an answer is given again, so that many who ask cost the services no more than one


class HealthWatch:
    """Asks the services once for all who want to know at the same time."""

    def __init__(
        self, http: httpx2.AsyncClient, services: Sequence[Service], *, version: str, timeout: timedelta
    ) -> None:
        self._http = http
        self._services = services
        self._version = version
        self._timeout = timeout
        self._asking = asyncio.Lock()
        self._last: PlatformHealth | None = None
        self._last_at = 0.0

    async def now(self) -> PlatformHealth:
        """The platform's health, at most a second old."""
        async with self._asking:
            if self._last is None or monotonic() - self._last_at > FRESH:
                self._last = await self._ask_all()
                self._last_at = monotonic()
            return self._last

    async def _ask_all(self) -> PlatformHealth:
        answers = await asyncio.gather(*(self._ask(service) for service in self._services))
        statuses = {answer.status for answer in answers}
        return PlatformHealth(
            status="down" if statuses & {"down", "stopping"} else "degraded" if "degraded" in statuses else "ok",
            version=self._version,
            checked_at=datetime.now(UTC),
            services={service.name: answer for service, answer in zip(self._services, answers, strict=True)},
        )

    async def _ask(self, service: Service) -> ServiceHealth:
        started = perf_counter()

        def latency() -> float:
            return round((perf_counter() - started) * 1000, 2)

        try:
            answer = await ask(self._http, service, "/health/ready", within=self._timeout)
        except ServiceSilent as silent:
            return ServiceHealth(status="down", latency_ms=latency(), message=str(silent))
        try:
            health = Health.model_validate_json(answer.content)
        except ValidationError:
            message = f"{service.name} answered {HTTPStatus(answer.status_code)} and no readiness."
            return ServiceHealth(status="down", latency_ms=latency(), message=message)
        return ServiceHealth(
            status=health.status, latency_ms=latency(), version=health.version, dependencies=health.dependencies
        )
