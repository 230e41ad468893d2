"""Compares docs/ERRORS.md with the error classes of all members, and .env.example and compose with their settings, both
ways.

Each member's tests see its own classes alone; here, in the environment of the whole workspace, all are there.
"""

import importlib
import os
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from triton_common.errors import error_classes
from triton_common.settings import CommonSettings

PACKAGES = ("triton_common", "auth_service", "jobs_service", "analytics_service", "agent_runner", "console")
COMPOSE = Path("compose/docker-compose.yml")
# for other programs than ours: Python, its servers and the clients take them from the same file, or from compose alone
FOREIGN = re.compile(
    r"^(AWS_|OTEL_|UVICORN_|CELERY_|TRITON_CONSOLE_URL$|TRITON_ANSWER_TIMEOUT$|FORWARDED_ALLOW_IPS$|WEB_CONCURRENCY$"
    r"|PROMETHEUS_MULTIPROC_DIR$)"
)
OF_WORKERS = re.compile(r"^AGENT_METRICS_")  # a web process shows its metrics on its own port
ASSIGNMENT = re.compile(r"^#? ?([A-Z][A-Z0-9_]+)=")


def import_all(package: str) -> None:
    """Every module of a package but those that start something when they are imported."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not re.search(r"\.(testing|openapi|migrations|worker|main)(\.|$)", module.name):
            importlib.import_module(module.name)


def subclasses(cls: type[CommonSettings]) -> Iterable[type[CommonSettings]]:
    """The class and all below it."""
    yield cls
    for below in cls.__subclasses__():
        yield from subclasses(below)


def errors() -> list[str]:
    """What docs/ERRORS.md lacks, has too much, or gives another status."""
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\d{3}) \|", Path("docs/ERRORS.md").read_text(), re.MULTILINE)
    documented = {code: int(status) for code, status in rows}
    classes = [cls for cls in error_classes() if cls.__module__.split(".")[0] in PACKAGES]
    real = {cls.code: cls.status.value for cls in classes}
    return [
        *(
            f"two error classes have the code {code}"
            for code, n in Counter(cls.code for cls in classes).items()
            if n > 1
        ),
        *(f"docs/ERRORS.md lacks {code} ({real[code]})" for code in sorted(real.keys() - documented.keys())),
        *(f"docs/ERRORS.md explains {code}, which is no error" for code in sorted(documented.keys() - real.keys())),
        *(
            f"docs/ERRORS.md says {documented[code]} for {code}, which is {real[code]}"
            for code in sorted(real.keys() & documented.keys())
            if real[code] != documented[code]
        ),
    ]


def variables() -> list[str]:
    """What .env.example lacks, has too much or does not explain."""
    explained = dict(_explained(Path(".env.example").read_text()))
    real = {name for cls in subclasses(CommonSettings) for name in _variables(cls)}
    known = real | _asked_by_compose()
    return [
        *(f".env.example does not suit {cls.__module__}: {error}" for cls, error in _refusals()),
        *(f".env.example lacks {name}" for name in sorted(known - explained.keys())),
        *(
            f".env.example has {name}, which nothing reads"
            for name in sorted(explained.keys() - known)
            if not FOREIGN.match(name)
        ),
        *(f".env.example does not say what {name} is" for name, told in sorted(explained.items()) if not told),
    ]


def _asked_by_compose() -> set[str]:
    """What compose takes from .env: ${NAME} anywhere, and names without a value in an environment."""
    services = yaml.safe_load(COMPOSE.read_text())["services"].values()
    named = {name for service in services for name, value in service.get("environment", {}).items() if value is None}
    return named | set(re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]+)", COMPOSE.read_text()))


def composed() -> list[str]:
    """What compose does not pass to a service that reads it, or passes though no service does."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    wrong: list[str] = []
    every = {name for cls in subclasses(CommonSettings) for name in _variables(cls)}
    for service, described in services.items():
        package = described.get("build", {}).get("args", {}).get("PACKAGE")
        command = described.get("command", [])
        if package not in PACKAGES or "alembic" in command:
            continue
        settings = importlib.import_module(f"{package}.settings").Settings
        wanted = {name for name in _variables(settings) if "celery" in command or not OF_WORKERS.match(name)}
        passed = set(described.get("environment", {}))
        wrong += [f"{COMPOSE} does not pass {name} to {service}" for name in sorted(wanted - passed)]
        wrong += [
            f"{COMPOSE} passes {name} to {service}, and no service reads it"
            for name in sorted(passed - every)
            if not FOREIGN.match(name)
        ]
    return wrong


def _explained(text: str) -> Iterable[tuple[str, bool]]:
    """Each variable of the file, and whether a comment of its paragraph comes before it."""
    told = False
    for line in text.splitlines():
        if assignment := ASSIGNMENT.match(line):
            yield assignment[1], told
        else:
            told = line.startswith("# ") and not line.startswith("# ──")


def _variables(cls: type[CommonSettings]) -> Iterable[str]:
    for field, info in cls.model_fields.items():
        yield from _within(cls.variable_of(field), info.annotation)


def _within(name: str, annotation: Any) -> Iterable[str]:
    """The variables of a setting: those of its fields when it is a model, as OUTER__INNER."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield name
        return
    for field, info in annotation.model_fields.items():
        yield from _within(f"{name}__{field.upper()}", info.annotation)


def _refusals() -> Iterable[tuple[type[CommonSettings], str]]:
    """The settings classes that cannot be made from .env.example as it is."""
    os.environ |= dict(re.findall(r"^([A-Z][A-Z0-9_]+)=(.*)$", Path(".env.example").read_text(), re.MULTILINE))
    for cls in subclasses(CommonSettings):
        try:
            cls()
        except ValueError as error:
            yield cls, str(error)


if __name__ == "__main__":
    for package in PACKAGES:
        import_all(package)
    sys.exit("\n".join(errors() + variables() + composed()) or None)  # an empty text would count as a failure
