"""What a case came to: the judgement over all that was written down, and the times to recover."""

from dataclasses import dataclass, field

from triton_trials import history
from triton_trials.demands import first_claim, longest_gap, p99, taken_up, unmet
from triton_trials.history import Account
from triton_trials.trial import Trial


@dataclass
class Verdict:
    """Times are seconds."""

    case: str
    jobs: int = 0
    attempts: int = 0
    in_vain: int = 0
    slowest: float | None = None
    """p99 of the submissions during the accident, from the first try to the answer that accepted it."""
    resumed: float | None = None
    """The longest time from the accident's end on in which no new job was started."""
    retaken: float | None = None
    """From an attempt's last sign of life to the claim of the next, the longest."""
    over: float | None = None
    """From the accident's end until all is over."""
    note: str = ""
    violations: list[str] = field(default_factory=list)


def judge(trial: Trial) -> Verdict:
    """Compare the engine's account with the history that others kept, and with what the case demands."""
    account = Account.read(trial.platform.database_url, [client.client_id for client in trial.clients])
    effects = history.read_effects(trial.platform.effects)
    accepted = [one.job_id for one in trial.submissions if one.job_id is not None]
    verdict = Verdict(
        trial.name,
        jobs=len(accepted),
        attempts=sum(job["attempt"] for job in account.jobs.values()),
        in_vain=history.in_vain(effects, account),
        retaken=retaken(account),
    )
    if trial.accidents:
        ended = trial.accidents[-1][1]
        verdict.resumed = resumed(account, ended)
        over = [job["finished_at"].timestamp() - ended for job in account.jobs.values() if job["finished_at"]]
        verdict.over = max(0.0, *over) if over else None
    during = [
        one.seconds
        for one in trial.submissions
        if one.job_id is not None and any(start <= one.sent <= end for start, end in trial.accidents)
    ]
    verdict.slowest = p99(during) if during else None
    verdict.note = "; ".join(filter(None, [trial.note, _messages_lost(trial, account), _leases_lost(account)]))
    verdict.violations = [
        *trial.violations,
        *history.violations(accepted, effects, account, ends={one.client_id: one.ends for one in trial.clients}),
        *unmet(trial.demands, trial.submissions, effects, account, resumed=verdict.resumed),
    ]
    return verdict


def resumed(account: Account, ended: float) -> float | None:
    """The longest time in which no new job was started, from `ended` (Unix time) on; None if none was."""
    starts = [at for events in account.events.values() if (at := first_claim(events)) is not None and at > ended]
    return longest_gap([ended, *starts])


def retaken(account: Account) -> float | None:
    """The longest time from an attempt's last sign of life to the claim of the next; None if each had one attempt."""
    longest: float | None = None
    for events in account.events.values():
        sign = 0.0
        for event in events:
            at = event["at"].timestamp()
            if event["kind"] == "claimed" and event["seq"] > 2:
                longest = max(longest or 0.0, at - sign)
            if event["kind"] != "lease_lost":
                sign = at
    return longest


def _messages_lost(trial: Trial, account: Account) -> str:
    """How many messages were lost that somebody waited for, and how long until the jobs were claimed all the same."""
    waits = [wait for loss in trial.demands.losses for wait in taken_up(loss, account)]
    if not waits:
        return ""
    return f"{len(waits)} messages lost, their jobs claimed within {max(wait or 0.0 for wait in waits):.1f} s"


def _leases_lost(account: Account) -> str:
    """How often a worker was given up: as often as a case says, or on a busy machine now and then."""
    lost = sum(event["kind"] == "lease_lost" for events in account.events.values() for event in events)
    return f"{lost} leases lost" if lost else ""
