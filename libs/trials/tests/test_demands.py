"""What cases demand: a story in which all is met passes, and each demand finds what it is for."""

from collections import Counter
from datetime import UTC, datetime
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from triton_trials.demands import ANSWERED, RESUMED, Demands, Loss, longest_gap, p99, unmet
from triton_trials.history import Account, Effect
from triton_trials.submissions import Client, Submission
from triton_trials.verdict import resumed, retaken

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
CLIENT = Client(uuid7(), uuid7(), uuid7())
JOBS = [uuid7(), uuid7()]


def event(kind, after, status="processing", attempt=None, seq=1):
    at = datetime.fromtimestamp(NOON + after, UTC)
    return {"seq": seq, "at": at, "kind": kind, "status": status, "attempt": attempt}


class Story:
    """Redis goes at noon, with both jobs' messages, and is back ten seconds later; the first job's worker is lost."""

    def __init__(self):
        self.events = {
            job_id: [
                event("submitted", -1, "pending"),
                event("claimed", 12, attempt=1, seq=2),
                event("completed", 13, "completed", seq=3),
            ]
            for job_id in JOBS
        }
        self.events[JOBS[0]][2:] = [
            event("lease_lost", 15, "pending", seq=3),
            event("claimed", 16, attempt=2, seq=4),
            event("completed", 17, "completed", seq=5),
        ]
        self.effects = {
            JOBS[0]: Effect(Counter({1: 1, 2: 1}), Counter({1: 1, 2: 1}), {1: NOON + 12 + 3600, 2: NOON + 16 - 3600}),
            JOBS[1]: Effect(Counter({1: 1}), Counter({1: 1}), {1: NOON + 12}),
        }
        self.submissions = [
            Submission(CLIENT, NOON - 1, NOON - 0.9, JOBS[0], tries=1),
            Submission(CLIENT, NOON + 5, NOON + 5.1, JOBS[1], tries=1),
        ]
        self.demands = Demands(
            happened={"lease_lost"},
            forbidden={"retrying"},
            late_answers=1,
            skew=3600,
            losses=[Loss(frozenset(JOBS), at=NOON, back=NOON + 10)],
            away=[(NOON, NOON + 10)],
            resumes=True,
        )
        self.ended = NOON + 10

    def judged(self):
        account = Account(
            {job_id: {} for job_id in self.events},
            self.events,
            {job_id: [{"id": UUID(int=1)}] for job_id in self.events},
        )
        gap = resumed(account, self.ended)
        return list(unmet(self.demands, self.submissions, self.effects, account, resumed=gap))


def claim(story, job, after):
    story.events[JOBS[job]][1]["at"] = datetime.fromtimestamp(NOON + after, UTC)


def nobody_lost(story):
    story.demands.happened = {"released"}


def retried(story):
    story.events[JOBS[1]][1]["kind"] = "retrying"


def no_late_answer(story):
    story.effects[JOBS[0]].made[1] = 0


def true_clocks(story):
    story.effects[JOBS[0]].clock[2] = NOON + 16


def nothing_lost(story):
    story.demands.losses = [Loss(frozenset(), at=NOON, back=NOON)]


def nothing_needed(story):
    story.demands.losses = [Loss(frozenset(JOBS), at=NOON + 20, back=NOON + 20)]


def never_sent_again(story):
    story.events[JOBS[1]][1:] = [event("cancelled", 13, "cancelled")]


def sent_again_late(story):
    claim(story, 1, 10 + RESUMED + 1)


def queue_still_there(story):
    claim(story, 1, 5)


def refused(story):
    story.submissions[1].statuses = [503]
    story.submissions[1].tries = 2


def unanswered(story):
    story.submissions[1].statuses = [0]
    story.submissions[1].tries = 2


def answered_late(story):
    story.submissions[1].accepted = NOON + 5 + 2 * ANSWERED


def far_slower_than_before(story):
    story.submissions[0].accepted = story.submissions[0].sent + ANSWERED
    story.submissions[1].accepted = story.submissions[1].sent + 3 * ANSWERED


def held_since_before(story):
    story.submissions[0].accepted = NOON + 9


def nothing_submitted(story):
    story.submissions.pop()


def nothing_resumed(story):
    story.ended = NOON + 20


def resumed_late(story):
    claim(story, 1, 10 + RESUMED + 3)


def broke(story):
    story.submissions[0].statuses = [500]


def not_told_when(story):
    story.submissions[0].statuses = [503]
    story.submissions[0].bare = 1


def test_all_is_met():
    assert Story().judged() == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nobody_lost, "no job has an event released"),
        (retried, "1 jobs have an event retrying"),
        (no_late_answer, "0 late answers were refused, not 1"),
        (true_clocks, "no two workers had clocks so far apart"),
        (nothing_lost, "none of 0 lost messages was needed"),
        (nothing_needed, "none of 2 lost messages was needed"),
        (never_sent_again, "1 of 2 jobs whose message was lost were never claimed"),
        (sent_again_late, "a job whose message was lost was claimed after 16.0 s"),
        (queue_still_there, "1 jobs were started while there was no queue"),
        (refused, "1 of 1 submissions were refused or not answered: [503]"),
        (unanswered, "1 of 1 submissions were refused or not answered: [0]"),
        (answered_late, "the p99 of submissions was 1.00 s, before that 0.10 s"),
        (held_since_before, "the p99 of submissions was 10.00 s, before that 0.00 s"),
        (far_slower_than_before, "the p99 of submissions was 1.50 s, before that 0.50 s"),
        (nothing_submitted, "nothing was submitted while there was no queue"),
        (nothing_resumed, "no job was started after the accident"),
        (resumed_late, "no job was started for 16.0 s after the accident"),
        (broke, "a submission was answered 500"),
        (not_told_when, "1 answers 503 had no Retry-After"),
    ],
)
def test_what_is_not_met_is_found(spoil, said):
    story = Story()
    spoil(story)
    assert any(said in sentence for sentence in story.judged()), story.judged()


def test_a_busy_machine_is_no_violation():
    story = Story()
    story.submissions[0].sent = story.submissions[0].accepted - 2 * ANSWERED
    story.submissions[1].accepted = story.submissions[1].sent + 3 * ANSWERED
    assert story.judged() == []


def test_no_demand_is_no_violation():
    story = Story()
    story.demands = Demands()
    assert story.judged() == []


def test_an_attempt_is_retaken_from_its_last_sign_of_life_on():
    story = Story()
    account = Account({}, story.events, {})
    assert retaken(account) == 4
    assert retaken(Account({}, {JOBS[1]: story.events[JOBS[1]]}, {})) is None


def test_the_longest_gap_and_the_p99():
    assert longest_gap([3, 1, 7]) == 4
    assert longest_gap([1]) is None
    assert p99([5]) == 5
    assert p99(range(1, 201)) == 198
    assert p99([*[0.01] * 98, 9, 9]) == 9
