"""AGENT_MODEL=provider:id → the agno model of each run, metered. `offline:template` means that no model writes."""

import os
import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final

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


class Models:
    """The model that the settings name. Keeps what is costly to make, boto3's client, for the whole process."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for a name that no provider has."""
        self.name = settings.model
        self._settings = settings
        self._provider, _, self._id = settings.model.partition(":")
        self._making = threading.Lock()
        if self._provider not in PROVIDERS or not self._id or (self._provider == "offline" and self.name != OFFLINE):
            raise ValueError(
                f"AGENT_MODEL must be {OFFLINE}, bedrock:<model id> or openai-like:<model id>, not {settings.model}"
            )

    @property
    def offline(self) -> bool:
        """No model: agents compose their output by rules."""
        return self.name == OFFLINE

    def metered(self, meter: Meter) -> "Model":
        """A model for one run. Raises CallFailed when its settings, such as the region, are not complete."""
        try:
            with self._making:
                make = self._make
        except Exception as error:  # whatever a provider's client says of its settings
            raise CallFailed(type(error).__name__, transient=False) from error
        return make(self._id, meter)

    @cached_property
    def _make(self) -> Callable[[str, Meter], "Model"]:
        # agno takes a second and a hundred megabytes to import; offline needs none of it
        os.environ["AGNO_TELEMETRY"] = "false"
        from agent_runner import providers  # noqa: PLC0415  see above

        if self._provider == "bedrock":
            client = providers.bedrock_client(timeout=self._settings.model_timeout.total_seconds())
            return lambda model, meter: providers.bedrock(
                model, client=client, meter=meter, max_tokens=self._settings.model_max_tokens
            )
        key = self._settings.openai_api_key
        http = providers.openai_client(
            self._settings.openai_base_url,
            key=key.get_secret_value() if key else None,
            timeout=self._settings.model_timeout.total_seconds(),
        )
        return lambda model, meter: providers.openai_like(
            model, client=http, meter=meter, max_tokens=self._settings.model_max_tokens
        )
