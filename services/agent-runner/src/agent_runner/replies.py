"""What a model answers: JSON out of prose and fences, validated; and what it is told when that cannot be used."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from triton_common.schemas import ProblemDetail

Output = TypeVar("Output", bound=BaseModel)

FEEDBACK: Final = 20  # faults told at once; more would bury the first
COMMAS: Final = 100  # that are taken out of one object, each at the price of reading it again

MISSING: Final = ProblemDetail(field="answer", issue="there is no complete JSON object in it", code="json_missing")
CUT_OFF: Final = ProblemDetail(
    field="answer", issue="it ends in the middle of the JSON object: write less, so that all of it fits", code="cut_off"
)


def parse(reply: str, schema: type[Output], *, cut_off: bool = False) -> tuple[Output | None, list[ProblemDetail]]:
    """The first JSON object in a reply that fits, out of prose and fences; else what is wrong with the longest.

    `cut_off` is what the provider says of the reply's end; one that ends inside an object is taken for the same.
    """
    faults: list[ProblemDetail] = []
    longest = 0
    objects, is_open = _objects(reply)
    for text in objects:
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
    if cut_off or is_open:
        return None, [CUT_OFF]
    return None, faults or [MISSING]


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


def _objects(reply: str) -> tuple[list[str], bool]:
    """(every outermost JSON object in a text, without the commas that end a list, and line breaks in its strings
    escaped; whether the first that is none began with a quoted key and ends with the text)."""
    decoder, at = json.JSONDecoder(strict=False), 0
    found: list[str] = []
    is_open: bool | None = None
    while (at := reply.find("{", at)) >= 0:
        for _ in range(COMMAS):
            try:
                value, end = decoder.raw_decode(reply, at)
                found.append(json.dumps(value))
            except RecursionError:
                return found, False
            except json.JSONDecodeError as error:
                if (comma := _comma_before(reply, error.pos)) is not None:
                    reply = reply[:comma] + reply[comma + 1 :]
                    continue
                if is_open is None and reply[at + 1 :].lstrip().startswith('"'):
                    is_open = error.pos >= len(reply.rstrip()) or error.msg.startswith("Unterminated string")
            except ValueError:  # a number of thousands of digits
                pass
            else:
                at = end - 1
            break
        at += 1
    return found, bool(is_open)


def _comma_before(reply: str, position: int) -> int | None:
    """Where the comma is that JSON does not allow before the bracket at `position`."""
    before = reply[:position].rstrip()
    # Python 3.13 names the comma's place, older ones that of the bracket
    if reply[position : position + 1] == "," and reply[position + 1 :].lstrip()[:1] in ("}", "]"):
        return position
    return len(before) - 1 if reply[position : position + 1] in ("}", "]") and before.endswith(",") else None
