"""Language models through agno: AWS Bedrock's Converse by boto3, and any server that speaks OpenAI's chat completions.

agno turns every failure of a model into text and a run that does not raise. These models keep what really happened in
their meter, told by the provider's error code: messages mislead (Bedrock throttles with "too many tokens").
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import boto3  # type: ignore[import-untyped]  # stubs would be 200 MB of other services
import openai
from agno.exceptions import ModelProviderError
from agno.models.aws import AwsBedrock
from agno.models.base import Model
from agno.models.message import Message
from agno.models.openai.like import OpenAILike as AgnoOpenAILike
from agno.models.response import ModelResponse
from agno.utils.log import configure_agno_logging
from botocore.config import Config  # type: ignore[import-untyped]  # same
from botocore.exceptions import (  # type: ignore[import-untyped]  # same
    ClientError,
    ConnectionError,  # noqa: A004  its name there
    HTTPClientError,
)
from pydantic import SecretStr

from agent_runner.meter import CallFailed, Meter

CONNECT_TIMEOUT: Final = 5.0  # seconds
CONNECTIONS: Final = 50  # more than threads in a worker

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, errors that pass
_TRANSIENT: Final = frozenset(
    {
        "ThrottlingException",
        "TooManyRequestsException",
        "ServiceUnavailableException",
        "InternalServerException",
        "InternalFailure",
        "ModelTimeoutException",
        "ModelNotReadyException",
        "RequestTimeout",
        "RequestTimeoutException",
    }
)


def silence() -> None:
    """agno's log lines quote what providers say, and may quote prompts: ours tell the code."""
    silent = logging.getLogger("agno.silent")
    silent.disabled = True
    configure_agno_logging(
        custom_default_logger=silent,
        custom_agent_logger=silent,
        custom_team_logger=silent,
        custom_workflow_logger=silent,
    )


silence()


class Bedrock:
    """Models of AWS Bedrock, by id or inference profile. Credentials, region and endpoint come from AWS_*."""

    def __init__(self, *, timeout: float, max_tokens: int) -> None:
        """One client for all threads, making each call once: we retry. Raises botocore's error without a region."""
        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=CONNECTIONS,
        )
        self._client = boto3.Session().client("bedrock-runtime", config=config)
        self._max_tokens = max_tokens

    def model(self, name: str, meter: Meter) -> Model:
        """A model for one run."""
        return _Bedrock(id=name, client=self._client, meter=meter, max_tokens=self._max_tokens)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class OpenAILike:
    """Models of vLLM, Ollama, llama.cpp, or whatever else speaks OpenAI's chat completions."""

    def __init__(self, base_url: str, *, key: SecretStr | None, timeout: float, max_tokens: int) -> None:
        """Servers that ask for no key still want one to be sent."""
        secret = key.get_secret_value() if key else "none"
        self._client = openai.OpenAI(base_url=base_url, api_key=secret, timeout=timeout, max_retries=0)
        self._max_tokens = max_tokens

    def model(self, name: str, meter: Meter) -> Model:
        """A model for one run."""
        return _OpenAILike(id=name, client=self._client, meter=meter, max_tokens=self._max_tokens)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class _Metered:
    """What both models do around a call. agno's asynchronous ways, which AgentOS goes, lead to the same one."""

    id: str
    scheme: ClassVar[str]
    meter: Meter

    def invoke(self, messages: Sequence[Message], *args: Any, **kwargs: Any) -> ModelResponse:
        """One call."""
        with self.meter.call(f"{self.scheme}:{self.id}", messages) as call:
            self._cut_off = False
            try:
                response: ModelResponse = super().invoke(messages, *args, **kwargs)  # type: ignore[misc]
            except ModelProviderError as error:
                self.meter.failure = failure_of(error.__cause__)
                raise
            usage = response.response_usage
            self.meter.answered(
                call,
                input_tokens=usage.input_tokens if usage else 0,
                output_tokens=usage.output_tokens if usage else 0,
                cut_off=self._cut_off,
            )
        return response

    async def ainvoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """The same in a thread."""
        return await asyncio.to_thread(self.invoke, *args, **kwargs)

    async def ainvoke_stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ModelResponse]:
        """The same as one piece."""
        yield await self.ainvoke(*args, **kwargs)


@dataclass
class _Bedrock(_Metered, AwsBedrock):
    scheme = "bedrock"
    meter: Meter = None  # type: ignore[assignment]  # a dataclass cannot demand it after fields with defaults

    def _parse_provider_response(self, response: dict[str, Any], **kwargs: Any) -> ModelResponse:
        self._cut_off = response.get("stopReason") in ("max_tokens", "model_context_window_exceeded")
        return super()._parse_provider_response(response, **kwargs)


@dataclass
class _OpenAILike(_Metered, AgnoOpenAILike):
    scheme = "openai-like"
    meter: Meter = None  # type: ignore[assignment]  # as above

    def _parse_provider_response(self, response: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self._cut_off = bool(response.choices) and response.choices[0].finish_reason == "length"
        return super()._parse_provider_response(response, *args, **kwargs)


def failure_of(error: BaseException | None) -> CallFailed:
    """What a client's exception means: its code, and whether another try may work."""
    match error:
        case ClientError():
            code = str(error.response.get("Error", {}).get("Code", "Unknown"))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            return CallFailed(code, transient=code in _TRANSIENT or status == 429 or status >= 500)
        case ConnectionError() | HTTPClientError() | openai.APIConnectionError():
            return CallFailed(type(error).__name__, transient=True)
        case openai.APIStatusError():
            code = f"{type(error).__name__} {error.status_code}"
            return CallFailed(code, transient=error.status_code in (408, 409, 429) or error.status_code >= 500)
        case _:
            return CallFailed(type(error).__name__, transient=False)
