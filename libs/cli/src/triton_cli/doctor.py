"""What this machine has of what the stack needs: programs, services, ports, settings."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

import psutil
from pydantic import ValidationError

from triton_cli.parts import parts_of, traefik_program
from triton_cli.stack import ports_in_use
from triton_cli.state import CHECKOUT, CommandFailed, Secrets, State
from triton_common.embedded import ServerNotStarted, postgres_program, redis_program
from triton_common.settings import CommonSettings

SERVICES: Final = ("auth_service", "jobs_service", "analytics_service", "agent_runner", "console")
OFFLINE: Final = "offline:template"
PROVIDERS: Final = ("bedrock", "openai-like")
FREE_DISK: Final = 2_000_000_000  # bytes; the stack's own files on first start are under a tenth of that
FREE_MEMORY: Final = 2_000_000_000

Verdict = Literal["ok", "warning", "blocked"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `blocked` means that the stack cannot start."""

    name: str
    verdict: Verdict
    message: str

    def as_dict(self) -> dict[str, str]:
        """For --json."""
        return asdict(self)


def examine(state: State, port: int) -> Iterator[Finding]:
    """Look at everything, one finding after another."""
    yield _python()
    yield _program("postgres", postgres_program)
    yield _program("redis", redis_program)
    yield _program("traefik", traefik_program, "version")
    yield _package("clickhouse", "chdb")
    yield from _services()
    yield _checkout()
    yield _folder(state)
    yield _memory()
    yield from _ports(state, port)
    yield from _settings()


def _python() -> Finding:
    what = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    fits = sys.version_info >= (3, 11)
    return Finding(
        "python", "ok" if fits else "blocked", what if fits else f"{what}: 3.11 or later is needed; `uv sync`"
    )


def _program(name: str, find: Callable[[], Path], argument: str = "--version") -> Finding:
    try:
        found = find()
        answer = subprocess.run([found, argument], capture_output=True, text=True, timeout=20, check=True)
    except (CommandFailed, ServerNotStarted) as error:
        return Finding(name, "blocked", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, "blocked", f"it does not run: {error}")
    return Finding(name, "ok", " ".join(answer.stdout.split("\n", 1)[0].split()))


def _package(name: str, package: str) -> Finding:
    try:
        return Finding(name, "ok", f"{package} {version(package)}")
    except PackageNotFoundError:
        return Finding(name, "blocked", f"{package} is not installed: run `uv sync`")


def _services() -> Iterator[Finding]:
    missing = [name for name in SERVICES if find_spec(name) is None]
    if missing:
        yield Finding("services", "blocked", f"{', '.join(missing)} not installed: run `uv sync` in the checkout")
    else:
        yield Finding("services", "ok", f"all {len(SERVICES)} are installed")


def _checkout() -> Finding:
    wanted = ("services", "infra/traefik/dynamic.yml", "infra/traefik/static.env")
    missing = [name for name in wanted if not (CHECKOUT / name).exists()]
    if missing:
        return Finding(
            "checkout", "blocked", f"{CHECKOUT} has no {', '.join(missing)}: run `triton` from a whole checkout"
        )
    return Finding("checkout", "ok", str(CHECKOUT))


def _folder(state: State) -> Finding:
    try:
        state.check_name()
    except CommandFailed as error:
        return Finding("state", "blocked", str(error))
    nearest = next(folder for folder in (state.folder, *state.folder.parents) if folder.exists())
    if not nearest.is_dir():
        return Finding("state", "blocked", f"{nearest} is a file: name a folder with --state")
    if not os.access(nearest, os.W_OK):
        return Finding("state", "blocked", f"{nearest} cannot be written: name another folder with --state")
    free = shutil.disk_usage(nearest).free
    if free < FREE_DISK:
        return Finding("state", "warning", f"{state.folder}: {free / 1e9:.1f} GB are free, which may become too little")
    return Finding("state", "ok", f"{state.folder}, {free / 1e9:.0f} GB free")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    verdict: Verdict = "ok" if free >= FREE_MEMORY else "warning"
    return Finding("memory", verdict, f"{free / 1e9:.1f} GB are available; the stack takes about 1.5")


def _ports(state: State, port: int) -> Iterator[Finding]:
    block = f"{port} to {port + 9}"
    running = state.running()
    if running is not None and running.get("port") == port:
        yield Finding("ports", "ok", f"{block}: used by this state's own stack, process {running['pid']}")
        return
    try:
        taken = ports_in_use(parts_of(state, port, secrets=state.known_secrets() or Secrets.make()))
    except (CommandFailed, ServerNotStarted) as error:
        yield Finding("ports", "warning", f"not looked at: {error}")
        return
    for part, number, holder in taken:
        yield Finding(
            "ports", "blocked", f"{number}, which {part.name} needs, {holder}: stop that, or choose with --port"
        )
    if not taken:
        yield Finding("ports", "ok", f"{block} are free")


def check_settings() -> None:
    """Raise CommandFailed for settings that a part would end with, many seconds into a start."""
    wrong = [*_common_settings(), *_model_name()]
    if wrong:
        raise CommandFailed("\n".join(wrong))


def _settings() -> Iterator[Finding]:
    wrong = _common_settings()
    for sentence in wrong:
        yield Finding("settings", "blocked", sentence)
    if not wrong:
        yield Finding("settings", "ok", "those that all parts share are valid")
    for sentence in _model_name():
        yield Finding("model", "blocked", sentence)
    if not _model_name():
        yield _model(os.environ.get("AGENT_MODEL") or OFFLINE)


def _common_settings() -> list[str]:
    try:
        CommonSettings()
    except ValidationError as error:
        return [
            f"{'.'.join(str(name) for name in wrong['loc'])}: {wrong['msg']}." if wrong["loc"] else f"{wrong['msg']}."
            for wrong in error.errors(include_input=False)
        ]
    return []


def _model_name() -> list[str]:
    model = os.environ.get("AGENT_MODEL") or OFFLINE
    provider, _, name = model.partition(":")
    if model == OFFLINE or (provider in PROVIDERS and name):
        return []
    return [f"AGENT_MODEL={model}: use {OFFLINE}, bedrock:<model id> or openai-like:<model id>."]


def _model(model: str) -> Finding:
    """Whether what the model needs is there. The name is one that `_model_name` lets pass."""
    match model.partition(":")[0]:
        case "bedrock":
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            if region is None:
                return Finding(
                    "model", "blocked", f"{model} needs AWS_REGION: set it to the region where Bedrock serves it"
                )
            if "AWS_ACCESS_KEY_ID" in os.environ or "AWS_PROFILE" in os.environ:
                return Finding("model", "ok", f"{model} in {region}")
            return Finding(
                "model",
                "warning",
                f"{model}: neither AWS_ACCESS_KEY_ID nor AWS_PROFILE is set; boto3 must find others",
            )
        case "openai-like":
            if "AGENT_OPENAI_BASE_URL" in os.environ:
                return Finding("model", "ok", f"{model} at {os.environ['AGENT_OPENAI_BASE_URL']}")
            return Finding(
                "model", "warning", f"{model}: AGENT_OPENAI_BASE_URL is not set; its default is Ollama's port"
            )
        case _:
            return Finding(
                "model", "ok", f"{model}: no model writes; set AGENT_MODEL=bedrock:<model id> for one that does"
            )
