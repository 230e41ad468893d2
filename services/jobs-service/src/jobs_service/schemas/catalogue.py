"""Clients, value propositions and prospects, as the public API takes and gives them."""

from uuid import UUID

from jobs_service.schemas.shared import Archivable, Name, Update
from triton_common.schemas import Schema, ValuePropositionContent


class ClientCreate(Schema):
    """A new client."""

    name: Name


class ClientUpdate(Update):
    """A change of a client."""

    name: Name | None = None


class ClientPublic(Archivable):
    """A company that sells health-care programmes."""

    name: str


class ValuePropositionCreate(Schema):
    """A new value proposition of a client."""

    client_id: UUID
    name: Name
    content: ValuePropositionContent


class ValuePropositionUpdate(Update):
    """A change of a value proposition; `content` is replaced as a whole. Jobs claimed from now on see it."""

    name: Name | None = None
    content: ValuePropositionContent | None = None


class ValuePropositionPublic(Archivable):
    """What a client's programme does, for whom, with what effect, at what price."""

    client_id: UUID
    name: str
    content: ValuePropositionContent


class ProspectCreate(Schema):
    """A new prospect of a client."""

    client_id: UUID
    name: Name


class ProspectUpdate(Update):
    """A change of a prospect."""

    name: Name | None = None


class ProspectPublic(Archivable):
    """A health plan or employer that a client sells to."""

    client_id: UUID
    name: str
