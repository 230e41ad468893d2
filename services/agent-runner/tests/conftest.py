"""What the tests share. The modules beside this one hold its larger parts: example data, and the stand-ins."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from fastapi import FastAPI, Request, Response
from loguru import logger
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no folder of tests on the path

from bedrock_standin import Bedrock
from platform_standin import CLIENT_SECRET, Platform
from worker_process import Start, WorkerProcess

from agent_runner.calls import PATH, Calls
from agent_runner.runs import Worker
from agent_runner.settings import Settings
from agent_runner.worker import MAKERS
from triton_common.client import SyncServiceClient

pytest_plugins = ["triton_common.testing"]

hypothesis.settings.register_profile("shared", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("shared")

Serving = Callable[[FastAPI], AbstractContextManager[str]]
Answering = Callable[[Callable[[list[dict[str, Any]]], Response]], Calls]


@pytest.fixture(scope="session")
def platform_server(serving: Serving) -> Iterator[Platform]:
    """The stand-in for auth-, jobs- and analytics-service, in a real server."""
    platform = Platform()
    with serving(platform.app) as url:
        platform.url = url
        yield platform
        platform.reset()


@pytest.fixture
def platform(platform_server: Platform) -> Iterator[Platform]:
    """The same without jobs, data and trouble."""
    platform_server.reset()
    yield platform_server
    platform_server.reset()


@pytest.fixture
def settings(platform: Platform) -> Settings:
    """Points at the stand-in; pauses are short."""
    return Settings(
        auth_url=platform.url,
        jobs_url=platform.url,
        analytics_url=platform.url,
        client_secret=SecretStr(CLIENT_SECRET),
        retry_pause="PT0.01S",
        shutdown_grace="PT0.1S",
    )


@pytest.fixture
def worker(settings: Settings) -> Iterator[Worker]:
    """A worker process' shared part, writing offline."""
    worker = Worker.start(settings, makers=MAKERS)
    yield worker
    worker.close()


@pytest.fixture
def answering(serving: Serving) -> Iterator[Answering]:
    """Makes calls of a jobs-service whose answer to a list of calls is chosen."""
    with ExitStack() as stack:

        def build(answer: Callable[[list[dict[str, Any]]], Response]) -> Calls:
            app = FastAPI()

            @app.post(PATH)
            async def calls(request: Request) -> Response:
                return answer((await request.json())["calls"])

            return Calls(stack.enter_context(SyncServiceClient(stack.enter_context(serving(app)))))

        yield build


@pytest.fixture(scope="session")
def bedrock_server(serving: Serving) -> Iterator[Bedrock]:
    """The stand-in for AWS Bedrock, in a real server."""
    bedrock = Bedrock()
    with serving(bedrock.app) as url:
        bedrock.url = url
        yield bedrock


@pytest.fixture
def bedrock(bedrock_server: Bedrock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bedrock]:
    """The same with nothing said yet; boto3 finds it by AWS' own variables."""
    bedrock_server.reset()
    for name, value in {
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock_server.url,
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    yield bedrock_server
    bedrock_server.reset()


@pytest.fixture
def worker_with(settings: Settings) -> Iterator[Callable[..., Worker]]:
    """Makes workers with other settings, and closes them."""
    with ExitStack() as stack:

        def make(**different: Any) -> Worker:
            worker = Worker.start(settings.model_copy(update=different), makers=MAKERS)
            stack.callback(worker.close)
            return worker

        yield make


@pytest.fixture
def bedrock_worker(worker_with: Callable[..., Worker], bedrock: Bedrock) -> Worker:
    """A worker whose agents ask Bedrock."""
    return worker_with(model="bedrock:example.model-v1:0")


@pytest.fixture
def start(platform: Platform, redis_url: str) -> Iterator[Start]:
    """Starts workers on the stand-in; they are gone after the test."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
        "TASK_QUEUE_URL": redis_url,
        "TRITON_AUTH_URL": platform.url,
        "TRITON_JOBS_URL": platform.url,
        "TRITON_ANALYTICS_URL": platform.url,
        "AGENT_CLIENT_SECRET": CLIENT_SECRET,
        "AGENT_SHUTDOWN_GRACE": "PT0.2S",
    }
    with ExitStack() as stack:

        def start_one(**different: str) -> WorkerProcess:
            process = WorkerProcess(environment | different)
            stack.callback(process.stop)
            process.says("ready")
            return process

        yield start_one


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closed after the test, whatever happens in it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """Every record that is logged."""
    records: list[dict[str, Any]] = []
    sink = logger.add(lambda message: records.append(dict(message.record)), level="TRACE", format="{message}")
    yield records
    logger.remove(sink)


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """Logs only where a test reads them: hypothesis runs agents hundreds of times."""
    logger.remove()
