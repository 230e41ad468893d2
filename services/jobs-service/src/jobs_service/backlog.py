"""What waits, as far as this process knows: the word to the dispatcher that it may have something to do, and how many
pending jobs each client has."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from uuid import UUID


class Backlog:
    """Counts no row itself: the sweep does, each second; what is submitted and claimed here in between is added and
    taken off."""

    def __init__(self, *, limit: int) -> None:
        self.changed = asyncio.Event()
        """Set when a job may be ready to be sent."""
        self._limit = limit
        self._pending: Counter[UUID] = Counter()
        self._meanwhile: Counter[UUID] = Counter()

    def added(self, client_id: UUID) -> None:
        """A job of the client is pending from now on."""
        self._pending[client_id] += 1
        self._meanwhile[client_id] += 1
        self.changed.set()

    def claimed(self, client_id: UUID) -> None:
        """A job of the client is pending no more."""
        self._pending[client_id] -= 1
        self._meanwhile[client_id] -= 1

    def freed(self, client_id: UUID) -> None:
        """A job is in flight no more: its client may have another."""
        if self._pending[client_id] > 0:
            self.changed.set()

    def counting(self) -> None:
        """The rows are about to be counted."""
        self._meanwhile = Counter()

    def counted(self, pending: Mapping[UUID, int]) -> None:
        """How many jobs of each client are pending, in all. What came meanwhile may be among them or
        not: it counts, rather twice than not at all, until the next count."""
        self._pending = Counter(pending)
        self._pending.update(self._meanwhile)

    @property
    def full_clients(self) -> list[UUID]:
        """Clients that may submit no more for now."""
        return [client for client, jobs in self._pending.items() if jobs >= self._limit]
