"""Reading the audit log: pages and CSV, newest first. Who is bound to a client reads its events alone."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Text, cast, func, literal_column, select, text, tuple_, union_all
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service.audit_schemas import AuditConditions, AuditEventPublic, AuditFilter
from auth_service.models import AuditEvent
from triton_common.auth import Principal
from triton_common.db import Database, transaction
from triton_common.pages import InvalidCursor, decode_cursor, encode_cursor
from triton_common.schemas import Page

CSV_PAGE: Final = 1000  # rows that are in memory
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  a spreadsheet takes them so too
COLUMNS: Final = tuple(AuditEventPublic.model_fields)

# The actions that occur: one step through the index each, however many events there are.
_ACTIONS: Final = text("""
WITH RECURSIVE known (action) AS (
  (SELECT action FROM audit_events ORDER BY action LIMIT 1)
  UNION ALL
  SELECT (SELECT action FROM audit_events WHERE action > known.action ORDER BY action LIMIT 1)
  FROM known WHERE known.action IS NOT NULL
)
SELECT action FROM known WHERE action IS NOT NULL LIMIT 1000""")

Position = tuple[datetime, UUID]


async def page(session: AsyncSession, *, by: Principal, wanted: AuditFilter) -> Page[AuditEventPublic]:
    """A page of the events. Those that arrive meanwhile disturb no later page. Raises InvalidCursor."""
    after = _position(wanted.cursor) if wanted.cursor is not None else None
    columns = [col(getattr(AuditEvent, name)) for name in COLUMNS]
    found = await _newest(session, columns, by=by, wanted=wanted, after=after, limit=wanted.limit + 1)
    shown = [AuditEventPublic.model_validate(dict(row._mapping)) for row in found[: wanted.limit]]  # noqa: SLF001  its API
    more = len(found) > wanted.limit
    return Page(items=shown, next_cursor=encode_cursor(shown[-1].at.isoformat(), str(shown[-1].id)) if more else None)


async def as_csv(database: Database, *, by: Principal, wanted: AuditConditions) -> AsyncIterator[bytes]:
    """The events as RFC 4180 has it, in UTF-8, under a header. No connection is held while the reader is slow."""
    yield _lines([COLUMNS])
    columns = [col(getattr(AuditEvent, name)) for name in COLUMNS[:-1]] + [cast(AuditEvent.details, Text)]
    after: Position | None = None
    while True:
        async with transaction(database) as session:
            found = await _newest(session, columns, by=by, wanted=wanted, after=after, limit=CSV_PAGE)
        if found:
            after = (found[-1].at, found[-1].id)
            yield _lines([[_cell(value) for value in row] for row in found])
        if len(found) < CSV_PAGE:
            return


async def _newest(
    session: AsyncSession,
    columns: Sequence[Any],
    *,
    by: Principal,
    wanted: AuditConditions,
    after: Position | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """The next rows. Each filter has an index that ends in (at, id), so that nothing is sorted; the actions of a prefix
    are merged, each by its index."""
    connection = await session.connection()
    conditions = _conditions(by, wanted)
    if after is not None:
        conditions.append(tuple_(col(AuditEvent.at), col(AuditEvent.id)) < tuple_(*after))
    newest = select(*columns).where(*conditions).order_by(text("at DESC"), text("id DESC")).limit(limit)
    if wanted.action is None or not wanted.action.endswith(".*"):
        return (await connection.execute(newest)).all()
    known: Sequence[str] = (await connection.execute(_ACTIONS)).scalars().all()
    under = [action for action in known if action.startswith(wanted.action[:-1])]
    if not under:
        return []
    # each arm has its limit: without, Postgres reads and sorts them whole
    arms = union_all(*[newest.where(col(AuditEvent.action) == action) for action in under]).subquery()
    merged = select(arms).order_by(text("at DESC"), text("id DESC")).limit(limit)
    return (await connection.execute(merged)).all()


def _conditions(by: Principal, wanted: AuditConditions) -> list[Any]:
    conditions: list[Any] = [] if by.is_staff else [col(AuditEvent.client_id) == by.client_id]
    alike = wanted.model_dump(include={"object_kind", "object_id", "client_id", "request_id"}, exclude_none=True)
    conditions += [col(getattr(AuditEvent, name)) == value for name, value in alike.items()]
    if wanted.actor is not None:
        conditions.append(func.coalesce(AuditEvent.actor_id, AuditEvent.actor_kind) == wanted.actor)
    if wanted.action is not None and not wanted.action.endswith(".*"):
        conditions.append(col(AuditEvent.action) == wanted.action)
    if wanted.outcome is not None:  # a literal: the index of those that did not succeed has one too
        conditions.append(col(AuditEvent.outcome) == literal_column(f"'{wanted.outcome}'"))
        if wanted.outcome != "succeeded":
            conditions.append(col(AuditEvent.outcome) != literal_column("'succeeded'"))
    if wanted.since is not None:
        conditions.append(col(AuditEvent.at) >= wanted.since)
    if wanted.until is not None:
        conditions.append(col(AuditEvent.at) < wanted.until)
    return conditions


def _position(cursor: str) -> Position:
    at, event_id = decode_cursor(cursor, length=2)
    try:
        position = (datetime.fromisoformat(at), UUID(event_id))
    except ValueError as error:
        raise InvalidCursor from error
    if position[0].tzinfo is None:
        raise InvalidCursor
    return position


def _cell(value: Any) -> Any:
    """As a spreadsheet shows it, which would compute a text that begins like a formula (CWE-1236)."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()
