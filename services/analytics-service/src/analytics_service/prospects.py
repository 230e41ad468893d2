"""Whose prospect is this? jobs-service knows; the answer never changes, so it is remembered."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from triton_common.auth import Principal
from triton_common.client import ServiceClient
from triton_common.errors import Conflict, NotFound, ProspectNotFound

REMEMBERED: Final = 10_000  # prospects; a megabyte or two


class ProspectClosed(Conflict):
    """The prospect is archived; it takes no data."""


@dataclass(frozen=True)
class Tenant:
    """Whose data a request is about. Every statement over datasets is bound to both."""

    client_id: UUID
    prospect_id: UUID


class Prospects:
    """Prospect → client, asked of jobs-service in the caller's name."""

    def __init__(self, jobs: ServiceClient) -> None:
        self._jobs = jobs
        self._clients: OrderedDict[UUID, UUID] = OrderedDict()

    async def tenant(self, principal: Principal, prospect_id: UUID) -> Tenant:
        """The prospect's tenant, if the principal may see it. Raises ProspectNotFound, or what jobs-service answers."""
        client_id = self._clients.get(prospect_id) or await self._ask(principal, prospect_id)
        if not principal.can_see(client_id):
            raise ProspectNotFound(f"There is no prospect {prospect_id}.")
        return Tenant(client_id, prospect_id)

    async def open_tenant(self, principal: Principal, prospect_id: UUID) -> Tenant:
        """The tenant, asked for anew. Raises ProspectClosed, and what `tenant` raises."""
        tenant = await self.tenant(principal, prospect_id)
        prospect = await self._prospect(principal, prospect_id)
        if prospect.get("archived_at"):
            raise ProspectClosed(f"Prospect {prospect_id} is archived and takes no data.")
        return tenant

    async def _ask(self, principal: Principal, prospect_id: UUID) -> UUID:
        prospect = await self._prospect(principal, prospect_id)
        client_id = UUID(prospect["client_id"])
        self._clients[prospect_id] = client_id
        while len(self._clients) > REMEMBERED:
            self._clients.popitem(last=False)
        return client_id

    async def _prospect(self, principal: Principal, prospect_id: UUID) -> dict[str, Any]:
        try:
            prospect: dict[str, Any] = await self._jobs.get(f"/api/v1/prospects/{prospect_id}", token=principal.token)
        except NotFound:
            raise ProspectNotFound(f"There is no prospect {prospect_id}.") from None
        return prospect
