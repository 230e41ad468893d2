"""What a model answers: JSON out of prose and fences, validated; and what it is told when that cannot be used."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from triton_common.schemas import ProblemDetail

Output = TypeVar("Output", bound=BaseModel)

FEEDBACK: Final = 20  # faults told at once; more would bury the first


def parse(reply: str, schema: type[Output]) -> tuple[Output | None, list[ProblemDetail]]:
    """The first JSON object in a reply that fits, out of prose and fences; else what is wrong with the longest."""
    faults: list[ProblemDetail] = []
    longest = 0
    for text in _objects(reply):
        try:
            return schema.model_validate_json(text), []
        except ValidationError as error:
            if len(text) > longest:
                longest = len(text)
                faults = [
                    ProblemDetail(
                        field=".".join(str(part) for part in e["loc"]) or "answer", issue=e["msg"], code=e["type"]
                    )
                    for e in error.errors(include_input=False, include_url=False, include_context=False)
                ]
    if not faults:
        faults = [ProblemDetail(field="answer", issue="there is no complete JSON object in it", code="json_missing")]
    return None, faults


def feedback(faults: Sequence[ProblemDetail]) -> str:
    """What the model is told of a reply that cannot be used."""
    lines = [f"- {fault.field}: {fault.issue}" for fault in faults[:FEEDBACK]]
    return "\n".join(
        ["Your answer cannot be used:", *lines, "Correct this and answer with the whole JSON object again."]
    )


def texts(output: BaseModel) -> Iterator[tuple[str, str]]:
    """(place, text) of every string in an output."""
    todo: list[tuple[str, Any]] = [("", output.model_dump())]
    while todo:
        place, value = todo.pop(0)
        match value:
            case str():
                yield place, value
            case dict():
                todo += [(f"{place}.{key}".lstrip("."), item) for key, item in value.items()]
            case list():
                todo += [(f"{place}[{position}]", item) for position, item in enumerate(value)]


def _objects(reply: str) -> Iterator[str]:
    """Every outermost JSON object in a text."""
    decoder, at = json.JSONDecoder(), 0
    while (at := reply.find("{", at)) >= 0:
        try:
            _, end = decoder.raw_decode(reply, at)
        except ValueError:
            at += 1
        else:
            yield reply[at:end]
            at = end
