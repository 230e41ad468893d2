"""Clients, their value propositions and their prospects: who sees them, and what archiving means."""

from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import func
from sqlmodel.ext.asyncio.session import AsyncSession

from jobs_service.models import Client, Prospect, ValueProposition
from triton_common.auth import Principal
from triton_common.errors import AppError, Conflict, Forbidden, NotFound, ProspectNotFound

Record = TypeVar("Record", Client, ValueProposition, Prospect)
Owned = TypeVar("Owned", ValueProposition, Prospect)


class ClientNotFound(NotFound):
    """There is no such client."""


class ValuePropositionNotFound(NotFound):
    """There is no such value proposition."""


class ClientArchived(Conflict):
    """The client is archived."""


class ValuePropositionArchived(Conflict):
    """The value proposition is archived."""


class ProspectArchived(Conflict):
    """The prospect is archived."""


class StaffOnly(Forbidden):
    """Only staff, who are bound to no client, may do this."""


_NOT_FOUND: dict[type, type[AppError]] = {
    Client: ClientNotFound,
    ValueProposition: ValuePropositionNotFound,
    Prospect: ProspectNotFound,
}


async def find(session: AsyncSession, table: type[Record], record_id: UUID, *, principal: Principal) -> Record:
    """The record. Raises the table's NotFound, for another client's record too."""
    record = await session.get(table, record_id)
    if record is None or not principal.can_see(_owner(record)):
        raise _NOT_FOUND[table](f"There is no {table.__tablename__[:-1].replace('_', ' ')} {record_id}.")
    return record


def _owner(record: Client | ValueProposition | Prospect) -> UUID:
    return record.id if isinstance(record, Client) else record.client_id


async def add_client(session: AsyncSession, client: Client, *, principal: Principal) -> Client:
    """A new client. Raises StaffOnly: whoever is bound to a client sees no other."""
    if not principal.is_staff:
        raise StaffOnly
    session.add(client)
    return await _written(session, client)


async def add(session: AsyncSession, record: Owned, *, principal: Principal) -> Owned:
    """A new value proposition or prospect of a client. Raises ClientNotFound, ClientArchived."""
    client = await find(session, Client, record.client_id, principal=principal)
    if client.archived_at is not None:
        raise ClientArchived
    session.add(record)
    return await _written(session, record)


async def change(session: AsyncSession, record: Record, fields: dict[str, Any]) -> Record:
    """Put new values into fields of a record."""
    for field, value in fields.items():
        setattr(record, field, value)
    record.updated_at = func.now()  # type: ignore[assignment]  # the server's time, read back below
    return await _written(session, record)


async def archive(session: AsyncSession, record: Record) -> Record:
    """Keep a record out of new jobs from now on. Twice is once."""
    if record.archived_at is not None:
        return record
    return await change(session, record, {"archived_at": func.now()})


async def _written(session: AsyncSession, record: Record) -> Record:
    await session.flush()
    await session.refresh(record)
    return record
