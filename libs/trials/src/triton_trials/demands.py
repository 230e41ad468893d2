"""What a case asks beyond what must hold after any accident: that its own accident happened, and what the engine
promises for it. A case whose accident missed fails as one does that broke the engine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from triton_trials.history import Account, Effect, in_vain
from triton_trials.submissions import Submission

SETTLED: Final = 1.0  # seconds until what was under way when the queue went has become a claim
ANSWERED: Final = 0.5  # seconds; the promise is a p99 of 0.1, of a machine that does not run all its own load
SLOWED: Final = 2  # times what it was with the queue there is no waiting for the queue, but a busy machine
RESUMED: Final = 15.0  # seconds after Redis' return until workers consume again

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Loss:
    """Messages that Redis lost. Times are Unix time."""

    job_ids: frozenset[UUID]
    at: float
    back: float
    """When Redis was there to take them again."""


@dataclass
class Demands:
    """Of one case; empty ones ask nothing."""

    happened: set[str] = field(default_factory=set)
    """Kinds of events of which there must be some."""
    forbidden: set[str] = field(default_factory=set)
    """Kinds of events of which there must be none."""
    late_answers: int = 0
    """Documents of older attempts that must have been refused, at least."""
    skew: float = 0.0
    """Seconds by which some workers' clocks must have been ahead, and others' behind."""
    losses: list[Loss] = field(default_factory=list)
    """Of each some message must have been needed, and the jobs be taken up within RESUMED of Redis' return."""
    away: list[tuple[float, float]] = field(default_factory=list)
    """From when to when (Unix time) there was no queue: no job is started, yet all are accepted at the first try, with
    a p99 under ANSWERED, or SLOWED times that of those before."""
    resumes: bool = False
    """New jobs must be started within RESUMED after the accident."""


def unmet(
    demands: Demands,
    submissions: Sequence[Submission],
    effects: Mapping[UUID, Effect],
    account: Account,
    *,
    resumed: float | None,
) -> Iterable[str]:
    """A sentence for each demand that is not met. `resumed`: seconds after the accident in which no new job started."""
    yield from _mishappened(demands, effects, account)
    for loss in demands.losses:
        yield from _unrecovered(loss, account)
    for began, ended in demands.away:
        yield from _waited(began, ended, submissions, account)
    if demands.resumes and resumed is None:
        yield "no job was started after the accident"
    elif demands.resumes and resumed is not None and resumed > RESUMED:
        yield f"no job was started for {resumed:.1f} s after the accident"
    answers = {status for one in submissions for status in one.statuses}
    for status in sorted(answers - {0, 409, 429, 503}):  # 409: the same key's first request still runs
        yield f"a submission was answered {status}"
    if bare := sum(one.bare for one in submissions):
        yield f"{bare} answers 503 had no Retry-After"


def _mishappened(demands: Demands, effects: Mapping[UUID, Effect], account: Account) -> Iterable[str]:
    kinds = {event["kind"] for events in account.events.values() for event in events}
    for kind in sorted(demands.happened - kinds):
        yield f"no job has an event {kind}: the accident did not happen"
    for kind in sorted(demands.forbidden & kinds):
        jobs = [job_id for job_id, events in account.events.items() if any(event["kind"] == kind for event in events)]
        yield f"{len(jobs)} jobs have an event {kind}: {jobs[0]}"
    if (late := in_vain(effects, account)) < demands.late_answers:
        yield f"{late} late answers were refused, not {demands.late_answers}: the accident did not happen"
    if demands.skew:
        drifts = clock_drifts(effects, account)
        if not (
            any(drift > demands.skew / 2 for drift in drifts) and any(drift < -demands.skew / 2 for drift in drifts)
        ):
            yield "no two workers had clocks so far apart: the accident did not happen"


def clock_drifts(effects: Mapping[UUID, Effect], account: Account) -> list[float]:
    """Seconds by which a worker's clock was ahead of Postgres' when it began an attempt."""
    return [
        effects[job_id].clock[event["attempt"]] - event["at"].timestamp()
        for job_id, events in account.events.items()
        for event in events
        if event["kind"] == "claimed" and job_id in effects and event["attempt"] in effects[job_id].clock
    ]


def taken_up(loss: Loss, account: Account) -> list[float | None]:
    """For each job that waited for a message that was lost: seconds from Redis' return until it was claimed; None if it
    never was."""
    found: list[float | None] = []
    for job_id in loss.job_ids & account.jobs.keys():
        events = account.events.get(job_id, [])
        before = [event for event in events if event["at"].timestamp() <= loss.at]
        after = [event["at"].timestamp() - loss.back for event in events[len(before) :] if event["kind"] == "claimed"]
        if before and before[-1]["status"] == "pending":
            found.append(min(after, default=None))
    return found


def _unrecovered(loss: Loss, account: Account) -> Iterable[str]:
    waits = taken_up(loss, account)
    if not waits:
        yield f"none of {len(loss.job_ids)} lost messages was needed: the accident did not happen"
    if never := sum(wait is None for wait in waits):
        yield f"{never} of {len(waits)} jobs whose message was lost were never claimed"
    if (longest := max((wait for wait in waits if wait is not None), default=0.0)) > RESUMED:
        yield f"a job whose message was lost was claimed after {longest:.1f} s"


def _waited(began: float, ended: float, submissions: Sequence[Submission], account: Account) -> Iterable[str]:
    firsts = [first_claim(events) for events in account.events.values()]
    if started := sum(at is not None and began + SETTLED < at < ended for at in firsts):
        yield f"{started} jobs were started while there was no queue: the accident did not happen"
    during = [one for one in submissions if one.sent <= ended and one.accepted >= began]
    if again := [one for one in during if one.tries > 1]:
        yield f"{len(again)} of {len(during)} submissions were refused or not answered: {again[0].statuses}"
    if not during:
        yield "nothing was submitted while there was no queue"
        return
    usual = p99([one.seconds for one in submissions if one.accepted < began] or [0.0])
    if (slow := p99(one.seconds for one in during)) > max(ANSWERED, SLOWED * usual):
        yield f"while there was no queue, the p99 of submissions was {slow:.2f} s, before that {usual:.2f} s"


def first_claim(events: Sequence[Event]) -> float | None:
    """When a job was first claimed, in Unix time."""
    return next((event["at"].timestamp() for event in events if event["kind"] == "claimed"), None)


def longest_gap(times: Iterable[float]) -> float | None:
    """Between two that follow one another."""
    return max((later - at for at, later in pairwise(sorted(times))), default=None)


def p99(values: Iterable[float]) -> float:
    """The least that 99 of 100 do not exceed. There must be some."""
    ordered = sorted(values)
    return ordered[-(-99 * len(ordered) // 100) - 1]
