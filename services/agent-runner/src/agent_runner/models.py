"""AGENT_MODEL=provider:id → the agno model of each run, metered. `offline:template` means that no model writes."""

import os
import threading
from typing import TYPE_CHECKING, Final, Protocol

from agent_runner.settings import Settings

if TYPE_CHECKING:
    from agno.models.base import Model

OFFLINE: Final = "offline:template"
PROVIDERS: Final = ("offline", "bedrock", "openai-like")


class CallFailed(Exception):
    """A model call that brought no answer."""

    def __init__(self, reason: str, *, transient: bool) -> None:
        """`reason` is the provider's error code, not its text, which may quote the prompt; `transient`: try again."""
        self.reason = reason
        self.transient = transient
        super().__init__(reason)


class CallLimitReached(CallFailed):
    """The run has made as many model calls as it may."""

    def __init__(self) -> None:
        super().__init__("call_limit_reached", transient=False)


class Meter:
    """Counts a run's model calls, and keeps how the last one failed: agno turns every error into text."""

    def __init__(self, *, limit: int) -> None:
        self.calls = 0
        self.failure: CallFailed | None = None
        self._limit = limit

    def count(self) -> None:
        """Before a call. Raises CallLimitReached: agno's own limits bound tool calls, not model calls."""
        if self.calls >= self._limit:
            self.failure = CallLimitReached()
            raise self.failure
        self.calls += 1
        self.failure = None


class Provider(Protocol):
    """Where models come from. Kept for the whole process: its connections are costly to make."""

    def model(self, name: str, meter: Meter) -> "Model":
        """A model for one run."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Models:
    """The model that the settings name."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for a name that no provider has."""
        self.name = settings.model
        self._settings = settings
        self._scheme, _, self._id = settings.model.partition(":")
        self._opened: Provider | None = None
        self._opening = threading.Lock()
        if self._scheme not in PROVIDERS or not self._id or (self._scheme == "offline" and self.name != OFFLINE):
            raise ValueError(
                f"AGENT_MODEL must be {OFFLINE}, bedrock:<model id> or openai-like:<model id>, not {settings.model}"
            )

    @property
    def offline(self) -> bool:
        """No model: agents compose their output by rules."""
        return self.name == OFFLINE

    def metered(self, meter: Meter) -> "Model":
        """A model for one run. Raises CallFailed when its settings, such as the region, are not complete."""
        with self._opening:
            try:
                self._opened = self._opened or self._open()
            except Exception as error:  # whatever a provider's client says of its settings
                raise CallFailed(type(error).__name__, transient=False) from error
        return self._opened.model(self._id, meter)

    def close(self) -> None:
        """Close the provider's connections, if there are any."""
        if self._opened is not None:
            self._opened.close()

    def _open(self) -> Provider:
        # agno takes a second and a hundred megabytes to import; offline needs none of it
        os.environ["AGNO_TELEMETRY"] = "false"
        from agent_runner import providers  # noqa: PLC0415  see above

        timeout, max_tokens = self._settings.model_timeout.total_seconds(), self._settings.model_max_tokens
        if self._scheme == "bedrock":
            return providers.Bedrock(timeout=timeout, max_tokens=max_tokens)
        return providers.OpenAILike(
            self._settings.openai_base_url, key=self._settings.openai_api_key, timeout=timeout, max_tokens=max_tokens
        )
