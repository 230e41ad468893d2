"""The health of the platform: every service's readiness, asked in parallel."""

import asyncio
from collections.abc import Sequence
from contextvars import Context
from datetime import UTC, datetime, timedelta
from time import monotonic, perf_counter
from typing import Final

import httpx2
from pydantic import ValidationError

from console.schemas import PlatformHealth, ServiceHealth
from console.services import Service, ServiceSilent, ask
from triton_common.background import stop
from triton_common.schemas import Health

PAUSE: Final = 1.0  # seconds between two rounds
INTEREST: Final = 30.0  # seconds after the last question in which rounds go on: who asks again need not wait for one


class HealthWatch:
    """Asks the services each second, as long as somebody wants to know; the first to want it waits for the first round.

    So an answer takes no longer when the platform is busy, and many who ask cost the services no more than one.
    """

    def __init__(
        self, http: httpx2.AsyncClient, services: Sequence[Service], *, version: str, timeout: timedelta
    ) -> None:
        self._http = http
        self._services = services
        self._version = version
        self._timeout = timeout
        self._wanted_at = 0.0
        self._rounds: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._last: PlatformHealth | None = None

    async def now(self) -> PlatformHealth:
        """The platform's health as the last round found it."""
        self._wanted_at = monotonic()
        if self._rounds is None or self._rounds.done():
            self._asked.clear()
            # not in the context of this request: its id and span are not those of the rounds
            self._rounds = asyncio.create_task(self._ask_again(), context=Context())
        await self._asked.wait()
        assert self._last is not None  # noqa: S101  a round is over
        return self._last

    async def close(self) -> None:
        """Ask no more."""
        if self._rounds is not None:
            await stop({self._rounds})

    async def _ask_again(self) -> None:
        while monotonic() - self._wanted_at < INTEREST:
            self._last = await self._ask_all()
            self._asked.set()
            await asyncio.sleep(PAUSE)

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
            message = f"{service.name} answered {answer.status_code} and no readiness."
            return ServiceHealth(status="down", latency_ms=latency(), message=message)
        return ServiceHealth(
            status=health.status, latency_ms=latency(), version=health.version, dependencies=health.dependencies
        )
