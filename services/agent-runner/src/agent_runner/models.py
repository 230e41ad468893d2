"""AGENT_MODEL=provider:id → the agno model of each run, metered. `offline:template` means that no model writes."""

import os
import threading
from typing import TYPE_CHECKING, Final, Protocol

from agent_runner.meter import CallFailed, Meter
from agent_runner.settings import Settings

if TYPE_CHECKING:
    from agno.models.base import Model

OFFLINE: Final = "offline:template"
PROVIDERS: Final = ("bedrock", "openai-like")


class Provider(Protocol):
    """Where models come from. Kept for the whole process: its connections are costly to make."""

    def model(self, name: str, meter: Meter) -> "Model":
        """A model for one run."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Models:
    """The models that the settings name: the one that writes, and the one that takes over when it fails."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for a name that no provider has, and for a limit in money without the models' prices."""
        self.name = settings.model
        self.names = tuple(name for name in (settings.model, settings.fallback_model) if name)
        """In the order they are asked."""
        self._settings = settings
        self._opened: dict[str, Provider] = {}
        self._opening = threading.Lock()
        if not self.offline:
            _check("AGENT_MODEL", settings.model, f"{OFFLINE}, ")
        if settings.fallback_model:
            _check("AGENT_FALLBACK_MODEL", settings.fallback_model, "")
            if self.offline:
                raise ValueError(f"AGENT_FALLBACK_MODEL has nothing to do while AGENT_MODEL is {OFFLINE}")
        if settings.job_max_cost is not None and not self.offline:
            for name in self.names:
                if name not in settings.prices:
                    raise ValueError(f"AGENT_JOB_MAX_COST needs the price of {name} in AGENT_PRICES")

    @property
    def offline(self) -> bool:
        """No model: agents compose their output by rules."""
        return self.name == OFFLINE

    def metered(self, name: str, meter: Meter) -> "Model":
        """A model for one run. Raises CallFailed when its settings, such as the region, are not complete."""
        scheme, _, its_id = name.partition(":")
        with self._opening:
            try:
                provider = self._opened[scheme] = self._opened.get(scheme) or self._open(scheme)
            except Exception as error:  # whatever a provider's client says of its settings
                raise CallFailed(type(error).__name__, transient=False) from error
        return provider.model(its_id, meter)

    def close(self) -> None:
        """Close the providers' connections, if there are any."""
        for provider in self._opened.values():
            provider.close()

    def _open(self, scheme: str) -> Provider:
        # agno takes a second and a hundred megabytes to import; offline needs none of it
        os.environ["AGNO_TELEMETRY"] = "false"
        from agent_runner import providers  # noqa: PLC0415  see above

        timeout, max_tokens = self._settings.model_timeout.total_seconds(), self._settings.model_max_tokens
        if scheme == "bedrock":
            return providers.Bedrock(timeout=timeout, max_tokens=max_tokens)
        return providers.OpenAILike(
            self._settings.openai_base_url, key=self._settings.openai_api_key, timeout=timeout, max_tokens=max_tokens
        )


def _check(variable: str, name: str, more: str) -> None:
    scheme, _, its_id = name.partition(":")
    if scheme not in PROVIDERS or not its_id:
        raise ValueError(f"{variable} must be {more}bedrock:<model id> or openai-like:<model id>, not {name}")
