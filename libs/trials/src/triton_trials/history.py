"""What happened, as others than the engine wrote it down, and whether the engine's own account agrees with it.

The client keeps every id that it got a 202 for; the job body writes a line to a file when it begins and when it has
made a document. Neither is read or written by the engine.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
        """`began` or `made`, and when by this process' own clock."""
        if self._descriptor is not None:
            clock = datetime.now(UTC).timestamp()
            os.write(self._descriptor, f"{what} {job_id} {attempt} {clock}\n".encode())


@dataclass(frozen=True)
class Ending:
    """How jobs are to end. A failed one says by which error, after how many attempts."""

    status: str = "completed"
    error: str | None = None
    attempts: int | None = None


COMPLETED: Final = Ending()


@dataclass
class Effect:
    """What the job body did for one job: in which attempts, how often; and when each began, by its worker's clock."""

    began: Counter[int] = field(default_factory=Counter)
    made: Counter[int] = field(default_factory=Counter)
    clock: dict[int, float] = field(default_factory=dict)


def read_effects(file: Path) -> dict[UUID, Effect]:
    """By job."""
    found: dict[UUID, Effect] = defaultdict(Effect)
    for line in file.read_text().splitlines() if file.exists() else ():
        what, job_id, attempt, clock = line.split()
        effect = found[UUID(job_id)]
        if what == "began":
            effect.began[int(attempt)] += 1
            effect.clock[int(attempt)] = float(clock)
        else:
            effect.made[int(attempt)] += 1
    return found


@dataclass(frozen=True)
class Account:
    """The engine's own account of some clients' jobs."""

    jobs: dict[UUID, dict[str, Any]]
    events: dict[UUID, list[dict[str, Any]]]
    documents: dict[UUID, list[dict[str, Any]]]

    @classmethod
    def read(cls, database_url: str, clients: Sequence[UUID]) -> Self:
        """As Postgres has it, all of one moment."""
        with psycopg.connect(database_url, row_factory=dict_row) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            jobs = connection.execute(
                "SELECT id, client_id, status, attempt, document_id, finished_at, error ->> 'code' AS error"
                " FROM generation_jobs WHERE client_id = ANY (%s)",
                [list(clients)],
            ).fetchall()
            ids = [job["id"] for job in jobs]
            events = connection.execute(
                "SELECT job_id, seq, at, kind, status, progress, data -> 'attempt' AS attempt FROM job_events"
                " WHERE job_id = ANY (%s) ORDER BY job_id, seq",
                [ids],
            ).fetchall()
            documents = connection.execute(
                "SELECT job_id, id, content ->> 'title' AS title FROM documents WHERE client_id = ANY (%s)",
                [list(clients)],
            ).fetchall()
        return cls({job["id"]: job for job in jobs}, _by_job(events), _by_job(documents))


def _by_job(rows: Iterable[dict[str, Any]]) -> dict[UUID, list[dict[str, Any]]]:
    found: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["job_id"]].append(row)
    return found


def violations(
    accepted: Sequence[UUID], effects: Mapping[UUID, Effect], account: Account, *, ends: Mapping[UUID, Ending]
) -> list[str]:
    """What must not be after any accident, a sentence each with the jobs it is true of. `ends`: how each client's jobs
    are to end."""
    wrong: dict[str, list[UUID]] = defaultdict(list)

    def check(holds: bool, sentence: str, job_id: UUID) -> None:
        if not holds:
            wrong[sentence].append(job_id)

    for job_id, times in Counter(accepted).items():
        check(times == 1, "two submissions got the same job", job_id)
        check(job_id in account.jobs, "accepted, and not there", job_id)
    for job_id in account.jobs.keys() - set(accepted):
        check(holds=False, sentence="there, and never accepted", job_id=job_id)
    for job_id in account.documents.keys() - account.jobs.keys():
        check(holds=False, sentence="a document of no job", job_id=job_id)
    for job_id, job in account.jobs.items():
        documents, effect = account.documents.get(job_id, []), effects.get(job_id, Effect())
        for sentence in (
            *_misended(job, ends[job["client_id"]]),
            *_misdocumented(job, documents, effect),
            *_misrun(job, effect),
            *_disorder(account.events.get(job_id, []), job),
        ):
            check(holds=False, sentence=sentence, job_id=job_id)
    found = [f"{len(ids)} times: {sentence}: {', '.join(map(str, ids[:SHOWN]))}" for sentence, ids in wrong.items()]
    return found if accepted else ["no job was accepted: nothing was tried", *found]


def _misended(job: dict[str, Any], end: Ending) -> Iterable[str]:
    """How a job ended otherwise than it was to."""
    if job["status"] != end.status:
        yield f"{'ended as' if job['status'] in FINAL else 'not over:'} {job['status']}"
    if end.error is not None and job["error"] != end.error:
        yield f"ended with the error {job['error']}"
    if end.attempts is not None and job["attempt"] != end.attempts:
        yield f"ended after {job['attempt']} attempts"


def _misdocumented(job: dict[str, Any], documents: list[dict[str, Any]], effect: Effect) -> Iterable[str]:
    """What is wrong with a job's document: one, made by the attempt that the row names, of a completed job alone."""
    if len(documents) != (job["status"] == "completed"):
        yield f"{job['status']} with {len(documents)} documents"
    if job["status"] == "completed" and documents:
        attempt = job["attempt"]
        if documents[0]["id"] != job["document_id"]:
            yield "the row names another document"
        if documents[0]["title"] != f"{job['id']}/{attempt}":
            yield "the document is of an older attempt"
        if effect.made[attempt] != 1:
            yield f"the job body made the document {effect.made[attempt]} times"


def _misrun(job: dict[str, Any], effect: Effect) -> Iterable[str]:
    """What is wrong with the attempts that the job body saw."""
    if any(times > 1 for times in effect.began.values()):
        yield "two workers had the same attempt"
    if any(not 1 <= attempt <= job["attempt"] for attempt in effect.began):
        yield "an attempt ran that nobody claimed"


def _disorder(events: list[dict[str, Any]], job: dict[str, Any]) -> Iterable[str]:
    """What is wrong with a job's events."""
    numbers = [event["seq"] for event in events]
    if numbers != list(range(1, len(events) + 1)):
        yield f"events numbered {numbers}"
    status, progress, claims = "", 0, 0
    for event in events:
        before, after = MOVES.get(event["kind"], (frozenset[str](), None))
        if status not in before:
            yield f"event {event['kind']} after {status or 'nothing'}"
        status = after or status
        if event["status"] != status:
            yield f"event {event['kind']} says {event['status']}"
        if event["kind"] == "progress" and event["progress"] < progress:
            yield f"progress went from {progress} to {event['progress']}"
        progress = event["progress"]
        if event["kind"] == "claimed":
            claims += 1
            if event["attempt"] != claims:
                yield f"claim {claims} is attempt {event['attempt']}"
    if status != job["status"]:
        yield f"the last event says {status}, the row {job['status']}"
    if claims != job["attempt"]:
        yield f"{claims} claims, attempt {job['attempt']}"


def in_vain(effects: Mapping[UUID, Effect], account: Account) -> int:
    """Documents that the job body made and no job has: another attempt had the job, or the worker died with it."""
    return sum(
        sum(effects[job_id].made.values()) - len(account.documents.get(job_id, []))
        for job_id in account.jobs
        if job_id in effects
    )
