"""Loads under way in this process, and how far each has come: what a batch's progress is read from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from analytics_service.datasets import Dataset
from analytics_service.prospects import Tenant
from triton_common.errors import Conflict


class BatchIdTaken(Conflict):
    """The Batch-Id is another batch's."""


@dataclass
class Load:
    """A call that brings rows: `total` and `received` count the bytes of its body, as they travel."""

    tenant: Tenant
    id: UUID
    dataset: Dataset
    source: str
    created_at: datetime
    total: int | None = None
    received: int = 0

    def count(self, size: int) -> None:
        """So many bytes more."""
        self.received += size


class Loads:
    """All of them, by id."""

    def __init__(self) -> None:
        self._loads: dict[UUID, Load] = {}

    @contextmanager
    def under_way(self, load: Load) -> Iterator[None]:
        """The load is one of them meanwhile. Raises BatchIdTaken."""
        if load.id in self._loads:
            raise BatchIdTaken
        self._loads[load.id] = load
        try:
            yield
        finally:
            del self._loads[load.id]

    def get(self, tenant: Tenant, batch_id: UUID) -> Load | None:
        """The tenant's load of this id."""
        load = self._loads.get(batch_id)
        return load if load and load.tenant == tenant else None

    def of(self, tenant: Tenant) -> list[Load]:
        """The tenant's loads, newest first."""
        return sorted(
            (one for one in self._loads.values() if one.tenant == tenant), key=lambda one: one.id, reverse=True
        )
