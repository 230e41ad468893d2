"""Compares docs/ERRORS.md with the error classes of all members, and .env.example with their settings, both ways.

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

from pydantic import BaseModel

from triton_common.errors import error_classes
from triton_common.settings import CommonSettings

PACKAGES = ("triton_common", "auth_service", "jobs_service", "analytics_service", "agent_runner", "console")
# for other programs than ours: the gateway, compose and the clients take them from the same file
FOREIGN = re.compile(r"^(AWS_|OTEL_|TRITON_CONSOLE_URL$|TRITON_ANSWER_TIMEOUT$)")


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
    """What .env.example lacks or has too much."""
    named = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", Path(".env.example").read_text(), re.MULTILINE))
    real = {
        name
        for cls in subclasses(CommonSettings)
        for field, info in cls.model_fields.items()
        for name in _within(cls.variable_of(field), info.annotation)
    }
    return [
        *(f".env.example does not suit {cls.__module__}: {error}" for cls, error in _refusals()),
        *(f".env.example lacks {name}" for name in sorted(real - named)),
        *(f".env.example has {name}, which nothing reads" for name in sorted(named - real) if not FOREIGN.match(name)),
    ]


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
    sys.exit("\n".join(errors() + variables()) or None)  # an empty text would count as a failure
