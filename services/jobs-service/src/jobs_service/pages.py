"""Lists, newest first: ids are UUIDv7, so their order is the order of creation, and the last one seen is the cursor."""

from typing import Any, TypeVar
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from triton_common.db import InvalidCursor, Table, decode_cursor, encode_cursor

Record = TypeVar("Record", bound=Table)


async def newest(
    session: AsyncSession, table: type[Record], *conditions: Any, limit: int, cursor: str | None
) -> tuple[list[Record], str | None]:
    """(a page of the rows that meet all conditions, the next page's cursor). Raises InvalidCursor."""
    query: SelectOfScalar[Record] = select(table).where(*conditions)
    if cursor is not None:
        query = query.where(col(table.id) < _position(cursor))
    # one more than asked for tells whether there is a next page
    found = list((await session.exec(query.order_by(col(table.id).desc()).limit(limit + 1))).all())
    page = found[:limit]
    return page, encode_cursor(str(page[-1].id)) if len(found) > limit else None


def _position(cursor: str) -> UUID:
    try:
        return UUID(decode_cursor(cursor, length=1)[0])
    except ValueError as error:
        raise InvalidCursor from error
