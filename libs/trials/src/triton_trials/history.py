"""What happened, as others than the engine wrote it down, and whether the engine's own account agrees with it.

The client keeps every id that it got a 202 for; the job body writes a line to a file when it begins and when it has
made a document. Neither is read or written by the engine.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

# kind of an event: the states it may follow, and the state it leads to (None: the one it was)
MOVES: Final[dict[str, tuple[frozenset[str], str | None]]] = {
    "submitted": (frozenset({""}), "pending"),
    "claimed": (frozenset({"pending"}), "processing"),
    "progress": (frozenset({"processing"}), None),
    "retrying": (frozenset({"processing"}), "pending"),
    "released": (frozenset({"processing"}), "pending"),
    "lease_lost": (frozenset({"processing"}), "pending"),
    "cancel_requested": (frozenset({"processing"}), None),
    "completed": (frozenset({"processing"}), "completed"),
    "failed": (frozenset({"pending", "processing"}), "failed"),
    "cancelled": (frozenset({"pending", "processing"}), "cancelled"),
    "retried": (frozenset({"failed", "cancelled"}), "pending"),
}
FINAL: Final = frozenset({"completed", "failed", "cancelled"})
SHOWN: Final = 5  # job ids that a violation names


class Effects:
    """A file that all workers append to: one line, one write, so that lines of several processes never mix."""

    def __init__(self, file: Path | None) -> None:
        self._descriptor = None if file is None else os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @classmethod
    def of_environment(cls) -> Self:
        """In the file that TRIALS_EFFECTS names; without it nothing is written."""
        name = os.environ.get("TRIALS_EFFECTS")
        return cls(Path(name) if name else None)

    def write(self, what: str, job_id: UUID, attempt: int) -> None:
        """`began` or `made`."""
        if self._descriptor is not None:
            os.write(self._descriptor, f"{what} {job_id} {attempt} {os.getpid()}\n".encode())


@dataclass
class Effect:
    """What the job body did for one job: in which attempts, how often."""

    began: Counter[int] = field(default_factory=Counter)
    made: Counter[int] = field(default_factory=Counter)


def read_effects(file: Path) -> dict[UUID, Effect]:
    """By job."""
    found: dict[UUID, Effect] = defaultdict(Effect)
    for line in file.read_text().splitlines() if file.exists() else ():
        what, job_id, attempt, _ = line.split()
        effect = found[UUID(job_id)]
        (effect.began if what == "began" else effect.made)[int(attempt)] += 1
    return found


@dataclass(frozen=True)
class Account:
    """The engine's own account of some clients' jobs."""

    jobs: dict[UUID, dict[str, Any]]
    events: dict[UUID, list[dict[str, Any]]]
    documents: dict[UUID, list[dict[str, Any]]]

    @classmethod
    def read(cls, database_url: str, clients: Sequence[UUID]) -> Self:
        """As Postgres has it."""
        with psycopg.connect(database_url, row_factory=dict_row) as connection:
            jobs = connection.execute(
                "SELECT id, client_id, status, attempt, document_id, finished_at"
                " FROM generation_jobs WHERE client_id = ANY (%s)",
                [list(clients)],
            ).fetchall()
            ids = [job["id"] for job in jobs]
            events = connection.execute(
                "SELECT job_id, seq, at, kind, status, progress FROM job_events WHERE job_id = ANY (%s)"
                " ORDER BY job_id, seq",
                [ids],
            ).fetchall()
            documents = connection.execute(
                "SELECT job_id, id, content ->> 'title' AS title FROM documents WHERE job_id = ANY (%s)", [ids]
            ).fetchall()
        return cls({job["id"]: job for job in jobs}, _by_job(events), _by_job(documents))


def _by_job(rows: Iterable[dict[str, Any]]) -> dict[UUID, list[dict[str, Any]]]:
    found: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["job_id"]].append(row)
    return found


def violations(
    accepted: Sequence[UUID],
    effects: Mapping[UUID, Effect],
    account: Account,
    *,
    ends: Mapping[UUID, str],
    forbidden: AbstractSet[str] = frozenset(),
) -> list[str]:
    """What must not be, a sentence each with the jobs it is true of. `ends`: how each client's jobs are to end;
    `forbidden`: kinds of events that they must not have."""
    wrong: dict[str, list[UUID]] = defaultdict(list)

    def check(holds: bool, sentence: str, job_id: UUID) -> None:
        if not holds:
            wrong[sentence].append(job_id)

    for job_id, times in Counter(accepted).items():
        check(times == 1, "two submissions got the same job", job_id)
        check(job_id in account.jobs, "accepted, and not there", job_id)
    for job_id in account.jobs.keys() - set(accepted):
        check(holds=False, sentence="there, and never accepted", job_id=job_id)
    for job_id, job in account.jobs.items():
        status, attempt = job["status"], job["attempt"]
        check(status == ends[job["client_id"]], f"{'ended as' if status in FINAL else 'not over:'} {status}", job_id)
        effect = effects.get(job_id, Effect())
        documents = account.documents.get(job_id, [])
        check(len(documents) == (status == "completed"), f"{status} with {len(documents)} documents", job_id)
        if status == "completed" and documents:
            check(documents[0]["id"] == job["document_id"], "the row names another document", job_id)
            check(documents[0]["title"] == f"{job_id}/{attempt}", "the document is of an older attempt", job_id)
            check(effect.made[attempt] == 1, f"the job body made the document {effect.made[attempt]} times", job_id)
        check(all(n == 1 for n in effect.began.values()), "two workers had the same attempt", job_id)
        check(all(1 <= n <= attempt for n in effect.began), "an attempt ran that nobody claimed", job_id)
        for kind in forbidden & {event["kind"] for event in account.events.get(job_id, [])}:
            check(holds=False, sentence=f"has an event {kind}", job_id=job_id)
        for sentence in _disorder(account.events.get(job_id, []), job):
            check(holds=False, sentence=sentence, job_id=job_id)
    return [f"{len(ids)} times: {sentence}: {', '.join(map(str, ids[:SHOWN]))}" for sentence, ids in wrong.items()]


def _disorder(events: list[dict[str, Any]], job: dict[str, Any]) -> Iterable[str]:
    """What is wrong with a job's events."""
    numbers = [event["seq"] for event in events]
    if numbers != list(range(1, len(events) + 1)):
        yield f"events numbered {numbers}"
    status, progress = "", 0
    for event in events:
        before, after = MOVES[event["kind"]]
        if status not in before:
            yield f"event {event['kind']} after {status or 'nothing'}"
        status = after or status
        if event["status"] != status:
            yield f"event {event['kind']} says {event['status']}"
        if event["kind"] == "progress" and event["progress"] < progress:
            yield f"progress went from {progress} to {event['progress']}"
        progress = event["progress"]
    if status != job["status"]:
        yield f"the last event says {status}, the row {job['status']}"
    claims = sum(event["kind"] == "claimed" for event in events)
    if claims != job["attempt"]:
        yield f"{claims} claims, attempt {job['attempt']}"


def refused(effects: Mapping[UUID, Effect], account: Account) -> int:
    """Documents that the job body made and the engine refused, as another attempt had the job."""
    return sum(
        sum(effects[job_id].made.values()) - len(account.documents.get(job_id, []))
        for job_id in account.jobs
        if job_id in effects
    )
