"""What a trial submits: a client with all that a job needs, and what it was told of each job."""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from triton_trials.history import COMPLETED, Ending

PROPOSITION: Final[dict[str, Any]] = {
    "summary": "A trial.",
    "programme": "Coaching.",
    "eligibility": [{"system": "icd10cm", "code": "E11*"}],
    "engagement": {"low": "0.1", "base": "0.2", "high": "0.3"},
    "effects": [
        {
            "driver": "total",
            "reduction": {"low": "0.1", "base": "0.2", "high": "0.3"},
            "evidence": "None: this is a trial.",
        }
    ],
    "fees": {"per_engaged_member_per_month": "40.00"},
}


@dataclass(frozen=True)
class Client:
    """A client with a prospect and something to sell to it: all that a job needs."""

    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    ends: Ending = COMPLETED
    """How its jobs are to end."""


@dataclass
class Submission:
    """What the client knows of a job that it submitted. Times are Unix time."""

    client: Client
    sent: float
    accepted: float = 0.0
    job_id: UUID | None = None
    tries: int = 0
    statuses: list[int] = field(default_factory=list)
    """Of the answers before the accepting one; 0 for none."""
    retry_after: list[int] = field(default_factory=list)
    """Of each 429."""
    bare: int = 0
    """Answers 503 that did not say when to try again."""

    @property
    def seconds(self) -> float:
        """From the first try to the answer that accepted it, whatever was answered between."""
        return self.accepted - self.sent
