"""Pages of lists: how many, and from where on, by a cursor that says nothing to its bearer. And a list's conditions."""

import base64
import binascii
import json
from collections import Counter
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request

from triton_common.errors import BadRequest, ValidationFailed
from triton_common.schemas import ProblemDetail


class InvalidCursor(BadRequest):
    """The cursor is not one that a list gave."""


LimitQuery = Annotated[int, Query(alias="limit", ge=1, le=200, description="Items a page")]
CursorQuery = Annotated[str | None, Query(alias="cursor", max_length=500, description="next_cursor of the page before")]


def once(*several: str) -> Any:
    """A dependency: each parameter of the query but `several` comes once. Of two FastAPI would take the last."""

    async def check(request: Request) -> None:
        names = Counter(name for name, _ in request.query_params.multi_items())
        details = [
            ProblemDetail(field=f"query.{name}", issue="Input should come once", code="repeated")
            for name, count in names.items()
            if count > 1 and name not in several
        ]
        if details:
            raise ValidationFailed("Correct the fields named in details.", details=details)

    return Depends(check)


def encode_cursor(*values: str) -> str:
    """The position after a row as an opaque string."""
    return base64.urlsafe_b64encode(json.dumps([1, *values]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *, length: int) -> list[str]:
    """The values of a cursor that `encode_cursor` made of `length` values; raises InvalidCursor."""
    try:
        version, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidCursor from error
    if version != 1 or len(values) != length or not all(isinstance(value, str) for value in values):
        raise InvalidCursor
    return [str(value) for value in values]


def decode_id_cursor(cursor: str) -> UUID:
    """The id in a cursor that was made of one; raises InvalidCursor."""
    try:
        return UUID(decode_cursor(cursor, length=1)[0])
    except ValueError as error:
        raise InvalidCursor from error
