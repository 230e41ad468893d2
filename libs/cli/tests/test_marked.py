"""Nothing that people send ends in a log: marked words go into every part of every route's request."""

import csv
import json
import re
from collections.abc import Iterator
from io import StringIO
from operator import itemgetter
from typing import Any, Final

import httpx2
import pytest
from uuid_utils.compat import uuid7

from triton_cli.demo import PROPOSITION
from triton_cli.sample import write_sample
from triton_common.testing import eventually

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

MARK: Final = "mArKeDzQvx"  # in no id, name or number of the platform's own
EMAIL: Final = f"{MARK}@example.com"
DEEPEST: Final = 6
FORMS: Final = ("json", "md", "html", "pdf")


class Marking:
    """Requests to the routes of an OpenAPI document that have the mark wherever a client chooses what stands there."""

    def __init__(self, document: dict[str, Any], known: dict[str, str]) -> None:
        self._document = document
        self._known = known

    def requests(self) -> Iterator[tuple[str, str, dict[str, str], dict[str, Any]]]:
        """Method, path, headers and what httpx takes besides: with ids that exist, and with marks in their places."""
        operations = [
            (method == "delete" or "archive" in path, path, method, operation)
            for path, methods in self._document["paths"].items()
            for method, operation in methods.items()
        ]
        for *_, path, method, operation in sorted(operations, key=itemgetter(0)):  # what ends things at the end
            asked = self._asked(operation)
            yield method, re.sub(r"\{(\w+)\}", lambda found: self._id(found[1]), path), *asked
            if "{" in path:
                yield method, re.sub(r"\{\w+\}", MARK, path), *asked

    def _asked(self, operation: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        parameters = [self._resolved(parameter) for parameter in operation.get("parameters", [])]
        headers = {known["name"].lower(): MARK for known in parameters if known["in"] == "header"}
        headers |= {"user-agent": MARK, "referer": f"https://{MARK}.example/", "cookie": f"session={MARK}"}
        headers["accept"] = "application/json"
        params = {
            known["name"]: self._value(known["schema"], known["name"]) for known in parameters if known["in"] == "query"
        }
        arguments: dict[str, Any] = {"params": params}
        for kind, known in self._resolved(operation.get("requestBody", {})).get("content", {}).items():
            if kind == "application/json":
                arguments["json"] = self._value(known["schema"], "body")
            elif kind == "application/x-www-form-urlencoded":
                arguments["data"] = self._value(known["schema"], "body")
            elif kind == "text/csv":
                arguments["content"] = f"member_id,{MARK}\n{MARK},{MARK}\n".encode()
                headers["content-type"] = kind
        return headers, arguments

    def _id(self, name: str) -> str:
        return self._known.get(name, str(uuid7()))

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            target: Any = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def _value(self, schema: dict[str, Any], name: str, depth: int = 0) -> Any:
        schema = self._resolved(schema)
        value: Any = f"{MARK} {name} of many letters"
        match schema:
            case {"anyOf": [one, *_]} | {"oneOf": [one, *_]} | {"allOf": [one, *_]}:
                value = self._value(one, name, depth)
            case {"const": value} | {"enum": [value, *_]}:
                pass
            case {"type": "object", "properties": properties} if depth < DEEPEST:
                value = {key: self._value(known, key, depth + 1) for key, known in properties.items()}
            case {"type": "object"}:
                value = {MARK: MARK}
            case {"type": "array", "items": items} if depth < DEEPEST:
                value = [self._value(items, name, depth + 1)]
            case {"type": "integer" | "number" | "boolean"}:
                value = 1
            case {"format": "uuid"}:
                value = self._id(name)
            case {"format": "email"}:
                value = EMAIL
            case {"format": "date"}:
                value = "2025-01-31"
        return value


@pytest.fixture(scope="module")
def known(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A client whose every word and member is marked, with a document made of them."""
    platform.log_in()
    client_id = platform.create("/clients", name=f"{MARK} client")
    prospect_id = platform.create("/prospects", client_id=client_id, name=f"{MARK} prospect")
    content = PROPOSITION.model_dump(mode="json") | {"summary": f"{MARK} helps people with diabetes."}
    proposition_id = platform.create("/value-propositions", client_id=client_id, name=MARK, content=content)
    for dataset, file in write_sample(tmp_path_factory.mktemp("marked"), members=40, seed=7).items():
        with file.open() as rows:
            members = list(csv.DictReader(rows))
        marked = StringIO()
        writer = csv.DictWriter(marked, members[0])
        writer.writeheader()
        writer.writerows(row | {"member_id": f"{MARK}-{row['member_id']}"} for row in members)
        answer = platform.http.post(
            f"/analytics/prospects/{prospect_id}/{dataset}",
            content=marked.getvalue(),
            headers={"content-type": "text/csv"},
        ).raise_for_status()
    job_id = platform.submit(prospect_id, proposition_id)
    return {
        "client_id": client_id,
        "prospect_id": prospect_id,
        "value_proposition_id": proposition_id,
        "batch_id": answer.json()["id"],
        "dataset": "claims",
        "job_id": job_id,
        "document_id": platform.completes(job_id)["document_id"],
    }


def test_no_log_has_what_people_sent(platform, known):
    for form in FORMS:
        platform.http.get(f"/documents/{known['document_id']}", params={"format": form}).raise_for_status()
    # an admin who may lose everything by what is asked
    login = {"email": EMAIL, "password": f"{MARK} in four words"}
    platform.create("/auth/users", role="admin", **login)
    tokens = []
    sent = 0
    with httpx2.Client(base_url=f"http://127.0.0.1:{platform.port}", timeout=30) as http:

        def send(method: str, path: str, headers: dict[str, str], **arguments: Any) -> int:
            nonlocal sent
            sent += 1
            answer = http.request(method, path, headers=headers | {"x-request-id": f"walk-{sent}."}, **arguments)
            assert answer.status_code != 500, f"{method} {path}: {answer.text}"
            return answer.status_code

        def log_in() -> dict[str, str]:
            tokens.append(http.post("/api/v1/auth/login", json=login).raise_for_status().json()["access_token"])
            return {"authorization": f"Bearer {tokens[-1]}"}

        admin = log_in()
        marking = Marking(http.get("/openapi.json").raise_for_status().json(), known)
        for method, path, headers, arguments in marking.requests():
            send(method, path, headers, **arguments)
            send(method, path, headers | {"authorization": f"Bearer {MARK}"}, **arguments)
            if send(method, path, headers | admin, **arguments) == 401:  # it has ended its own session
                admin = log_in()
                send(method, path, headers | admin, **arguments)
            send(method, path, admin | {"content-type": "application/json"}, content=f'{{"password": "{MARK}')
    platform.log_in()

    def complete() -> dict[str, str]:
        texts = {file.name: file.read_text(errors="replace") for file in platform.state.rglob("*.log")}
        together = "".join(texts.values())
        return texts if all(f'"walk-{number}."' in together for number in range(1, sent + 1)) else {}

    texts = eventually(complete)
    texts["gateway.log"] = re.sub(r'"RequestPath":"[^?"]*"', "", texts["gateway.log"])  # paths are of ids, and logged
    secrets = json.loads((platform.state / "secrets.json").read_text()).values()
    for word in (MARK, MARK.lower(), *tokens, *map(str, secrets)):
        lines = [f"{name}: {line}" for name, text in texts.items() for line in text.splitlines() if word in line]
        assert not lines
