"""One OpenAPI document for the whole platform, merged from those of its services.

Each service's document is cut down to its public operations, and the components that these use, before it is merged.
Components of the same name and the same content become one; one that differs is renamed with its service's name.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import httpx2
from loguru import logger

from console.services import Service, ServiceSilent, ask

Document = dict[str, Any]
Key = tuple[str, str]
"""A component: its kind (schemas, securitySchemes, …) and its name."""

FRESH: Final = 60.0  # seconds a whole document is given again; services change when they are deployed
METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
REF: Final = re.compile(r"^#/components/([^/]+)/([^/]+)$")


class OpenApiWatch:
    """Fetches and merges the documents; keeps the result for a minute, unless a part of it is missing."""

    def __init__(
        self, http: httpx2.AsyncClient, services: Sequence[Service], *, own: Callable[[], Document], timeout: timedelta
    ) -> None:
        """`own` answers console's own document, which is the head of the merged one."""
        self._http = http
        self._services = services
        self._own = own
        self._timeout = timeout
        self._fetching = asyncio.Lock()
        self._last: Document | None = None
        self._last_at = 0.0

    async def now(self) -> Document:
        """The merged document."""
        async with self._fetching:
            if self._last is not None and monotonic() - self._last_at < FRESH:
                return self._last
            documents = await asyncio.gather(*(self._fetch(service) for service in self._services))
            merged = merge(self._own(), list(zip(self._services, documents, strict=True)))
            if all(documents):
                self._last, self._last_at = merged, monotonic()
            return merged

    async def _fetch(self, service: Service) -> Document | None:
        try:
            answer = await ask(self._http, service, "/openapi.json", within=self._timeout)
            document = answer.json()
            if answer.status_code == HTTPStatus.OK and isinstance(document, dict) and "paths" in document:
                return document
        except (ServiceSilent, ValueError) as error:
            logger.bind(error=type(error).__name__, asked=service.name).warning("no OpenAPI document")
        return None


def merge(own: Document, parts: Sequence[tuple[Service, Document | None]]) -> Document:
    """One document: `own`, and the public operations of each part. A part that is None is named in `x-missing`."""
    merged: Document = {**own, "paths": dict(own["paths"]), "components": {}, "tags": []}
    _add_components(merged, own.get("components", {}), {})
    operation_ids = {operation["operationId"] for operation in _operations(own["paths"])}
    for service, document in parts:
        if document is not None:
            _add(merged, service, document, operation_ids)
    missing = [service.name for service, document in parts if document is None]
    if missing:
        notice = f"**Incomplete:** {', '.join(missing)} did not answer, so their operations are missing here."
        merged["info"] = {**own["info"], "description": f"{own['info'].get('description', '')}\n\n{notice}".strip()}
        merged["x-missing"] = missing
    return merged


def _add(merged: Document, service: Service, document: Document, operation_ids: set[str]) -> None:
    paths = {path: item for path, item in document["paths"].items() if service.has(path)}
    used = _used(paths, document.get("components", {}))
    new_names = _clashes(used, merged["components"], prefix=_pascal(service.name))
    _add_components(merged, _renamed(_by_kind(used), new_names), new_names)
    for path, item in _renamed(paths, new_names).items():
        for operation in _operations({path: item}):
            operation.setdefault("tags", [service.name])
            if operation["operationId"] in operation_ids:
                operation["operationId"] = f"{service.name.replace('-', '_')}_{operation['operationId']}"
            operation_ids.add(operation["operationId"])
        merged["paths"][path] = item
    merged["tags"] += [tag for tag in document.get("tags", []) if tag not in merged["tags"]]


def _operations(paths: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for item in paths.values():
        yield from (operation for method, operation in item.items() if method in METHODS)


def _used(paths: Mapping[str, Any], components: Mapping[str, Any]) -> dict[Key, Any]:
    """The components that the operations use, those that these use, and so on."""
    used: dict[Key, Any] = {}
    todo = [*_references(paths)]
    while todo:
        kind, name = key = todo.pop()
        if key not in used and name in components.get(kind, {}):
            used[key] = components[kind][name]
            todo += _references(used[key])
    return used


def _references(node: Any) -> Iterable[Key]:
    """The components that `node` names, by $ref or as a security requirement."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str) and (match := REF.match(value)):
                yield match[1], match[2]
            elif key == "security" and _are_requirements(value):
                yield from (("securitySchemes", name) for requirement in value for name in requirement)
            else:
                yield from _references(value)


def _are_requirements(value: Any) -> bool:
    """A security list, and not a schema's property that happens to be called so."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _clashes(used: Mapping[Key, Any], taken: Mapping[str, Any], *, prefix: str) -> dict[Key, str]:
    """New names for the components whose name is taken by another content. What uses a renamed one differs too."""
    new_names: dict[Key, str] = {}
    while True:
        found = {
            key: f"{prefix}{_pascal(key[1])}"
            for key, content in used.items()
            if key not in new_names
            and key[1] in taken.get(key[0], {})
            and (taken[key[0]][key[1]] != content or any(reference in new_names for reference in _references(content)))
        }
        if not found:
            return new_names
        new_names |= found


def _renamed(node: Any, new_names: Mapping[Key, str]) -> Any:
    """A copy of `node` that names the components by their new names."""
    if isinstance(node, list):
        return [_renamed(item, new_names) for item in node]
    if not isinstance(node, dict):
        return node
    copy: dict[str, Any] = {}
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str) and (match := REF.match(value)):
            kind, name = match[1], match[2]
            copy[key] = f"#/components/{kind}/{new_names.get((kind, name), name)}"
        elif key == "security" and _are_requirements(value):
            copy[key] = [
                {new_names.get(("securitySchemes", name), name): scopes for name, scopes in requirement.items()}
                for requirement in value
            ]
        elif key == "mapping" and isinstance(value, dict):  # a discriminator's: its values are references too
            references = {tag: _renamed({"$ref": target}, new_names)["$ref"] for tag, target in value.items()}
            copy[key] = references
        else:
            copy[key] = _renamed(value, new_names)
    return copy


def _by_kind(used: Mapping[Key, Any]) -> dict[str, dict[str, Any]]:
    by_kind: dict[str, dict[str, Any]] = {}
    for (kind, name), content in used.items():
        by_kind.setdefault(kind, {})[name] = content
    return by_kind


def _add_components(merged: Document, components: Mapping[str, Any], new_names: Mapping[Key, str]) -> None:
    for kind, named in components.items():
        there = merged["components"].setdefault(kind, {})
        for name, content in named.items():
            there.setdefault(new_names.get((kind, name), name), content)


def _pascal(name: str) -> str:
    """`jobs-service` → `JobsService`."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("-"))
