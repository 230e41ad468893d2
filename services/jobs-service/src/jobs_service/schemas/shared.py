"""What the schemas of several nouns are made of."""

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from triton_common.schemas import Schema, Text


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is outside the years 1 to 9999") from error


Time = Annotated[AwareDatetime, AfterValidator(_utc)]

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(value: object) -> object:
    # pydantic would take a number for seconds since 1970, or milliseconds when it is large
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError(
        "give date, time and offset as RFC 3339 has them: 2026-11-22T18:30:00Z or 2026-11-22T18:30:00+01:00"
    )


GivenTime = Annotated[Time, BeforeValidator(_rfc3339)]
Name = Annotated[Text, StringConstraints(max_length=200)]


class PageQuery(Schema):
    """A page of a list; a parameter that is unknown is refused, so that a misspelt condition is not taken for none."""

    limit: int = Field(default=50, ge=1, le=200, description="Items a page")
    cursor: str | None = Field(default=None, max_length=500, description="next_cursor of the page before")


class Update(Schema):
    """Base of PATCH bodies: a field that is left out stays as it is."""

    nullable: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def something(self) -> "Update":
        """At least one field, and null only where that means something."""
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        if any(getattr(self, field) is None for field in self.model_fields_set - self.nullable):
            raise ValueError("a field may be left out, not null")
        return self


class Public(Schema):
    """Base of what is read from a table."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: Time


class Archivable(Public):
    """What can change, and be archived."""

    updated_at: Time
    archived_at: Time | None = Field(description="Archived things stay readable, and take part in no new job")
