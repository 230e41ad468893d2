"""Language models through agno: AWS Bedrock's Converse by boto3, and any server that speaks OpenAI's chat completions.

agno turns every failure of a model into text and a run that does not raise. These models keep what really happened in
their meter, told by the provider's error code: messages mislead (Bedrock throttles with "too many tokens").
"""

import logging
from dataclasses import dataclass
from typing import Any, Final

import boto3  # type: ignore[import-untyped]  # stubs would be 200 MB of other services
import openai
from agno.exceptions import ModelProviderError
from agno.models.aws import AwsBedrock
from agno.models.base import Model
from agno.models.openai.like import OpenAILike
from agno.models.response import ModelResponse
from agno.utils.log import configure_agno_logging
from botocore.config import Config  # type: ignore[import-untyped]  # same
from botocore.exceptions import (  # type: ignore[import-untyped]  # same
    ClientError,
    ConnectionError,  # noqa: A004  its name there
    HTTPClientError,
)

from agent_runner.models import CallFailed, Meter

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

# agno's log lines quote what providers say, and may quote prompts: ours tell the code
_silent = logging.getLogger("agno.silent")
_silent.disabled = True
configure_agno_logging(
    custom_default_logger=_silent,
    custom_agent_logger=_silent,
    custom_team_logger=_silent,
    custom_workflow_logger=_silent,
)


def bedrock_client(*, timeout: float) -> Any:
    """boto3's client: default credential chain, region and endpoint from AWS_*. It makes each call once: we retry."""
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=timeout,
        retries={"total_max_attempts": 1},
        max_pool_connections=CONNECTIONS,
    )
    return boto3.Session().client("bedrock-runtime", config=config)


def bedrock(model: str, *, client: Any, meter: Meter, max_tokens: int) -> Model:
    """A Bedrock model by id or inference profile."""
    return _Bedrock(id=model, client=client, meter=meter, max_tokens=max_tokens)


def openai_client(base_url: str, *, key: str | None, timeout: float) -> openai.OpenAI:
    """A client for vLLM, Ollama, llama.cpp or a gateway to others. Servers without keys want any."""
    return openai.OpenAI(base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=0)


def openai_like(model: str, *, client: openai.OpenAI, meter: Meter, max_tokens: int) -> Model:
    """A model of an OpenAI-compatible server."""
    return _OpenAILike(id=model, client=client, meter=meter, max_tokens=max_tokens)


@dataclass
class _Bedrock(AwsBedrock):
    meter: Meter | None = None

    def invoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """One Converse call."""
        assert self.meter is not None  # noqa: S101  a dataclass cannot demand it after fields with defaults
        self.meter.count()
        try:
            return super().invoke(*args, **kwargs)
        except ModelProviderError as error:
            self.meter.failure = failure_of(error.__cause__)
            raise


@dataclass
class _OpenAILike(OpenAILike):
    meter: Meter | None = None

    def invoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """One chat completion."""
        assert self.meter is not None  # noqa: S101  as above
        self.meter.count()
        try:
            return super().invoke(*args, **kwargs)
        except ModelProviderError as error:
            self.meter.failure = failure_of(error.__cause__)
            raise


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
