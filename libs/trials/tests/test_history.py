"""The judge: an account in which all is well passes, and each thing that can be wrong with it is found."""

from collections import Counter
from datetime import UTC, datetime
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from triton_trials.history import Account, Effect, Effects, Ending, in_vain, read_effects, violations

CLIENT, JOB, DOCUMENT = uuid7(), uuid7(), uuid7()
ACCEPTED = [JOB]


def event(seq, kind, status="processing", progress=0, attempt=None):
    return {
        "job_id": JOB,
        "seq": seq,
        "at": datetime.now(UTC),
        "kind": kind,
        "status": status,
        "progress": progress,
        "attempt": attempt,
    }


class Story:
    """A job that a worker lost in its first attempt, and that was done in the second."""

    def __init__(self):
        self.job = {
            "id": JOB,
            "client_id": CLIENT,
            "status": "completed",
            "attempt": 2,
            "document_id": DOCUMENT,
            "error": None,
        }
        self.events = [
            event(1, "submitted", "pending"),
            event(2, "claimed", attempt=1),
            event(3, "progress", progress=50),
            event(4, "lease_lost", "pending"),
            event(5, "claimed", attempt=2),
            event(6, "completed", "completed", 100),
        ]
        self.documents = [{"job_id": JOB, "id": DOCUMENT, "title": f"{JOB}/2"}]
        self.effect = Effect(began=Counter({1: 1, 2: 1}), made=Counter({1: 1, 2: 1}))
        self.accepted = [JOB]
        self.end = Ending()

    @property
    def account(self):
        documents = {}
        for document in self.documents:
            documents.setdefault(document.get("job_id", JOB), []).append(document)
        return Account({JOB: self.job}, {JOB: self.events}, documents)

    def judged(self):
        return violations(self.accepted, {JOB: self.effect}, self.account, ends={CLIENT: self.end})


def no_documents(story):
    story.documents = []


def second_document(story):
    story.documents.append({"job_id": JOB, "id": uuid7(), "title": f"{JOB}/1"})


def older_document(story):
    story.documents[0]["title"] = f"{JOB}/1"


def other_document(story):
    story.job["document_id"] = uuid7()


def never_made(story):
    story.effect.made = Counter({1: 1})


def same_attempt_twice(story):
    story.effect.began[2] = 2


def unclaimed_attempt(story):
    story.effect.began[3] = 1


def gap(story):
    story.events[5]["seq"] = 7


def impossible_move(story):
    del story.events[3]
    for seq, found in enumerate(story.events, start=1):
        found["seq"] = seq


def status_of_another(story):
    story.events[1]["status"] = "pending"


def row_differs(story):
    story.job["status"] = "failed"


def backwards(story):
    story.events[3:3] = [event(4, "progress", progress=20)]
    for seq, found in enumerate(story.events, start=1):
        found["seq"] = seq


def attempts_differ(story):
    story.job["attempt"] = 3


def hangs(story):
    story.job |= {"status": "processing", "document_id": None}
    story.events.pop()
    story.documents = []


def lost(story):
    story.accepted.append(UUID(int=1))


def nobodys(story):
    story.accepted = []


def one_for_two(story):
    story.accepted.append(JOB)


def orphan(story):
    story.documents.append({"job_id": uuid7(), "id": uuid7(), "title": "of nobody"})


def unknown_event(story):
    story.events[2]["kind"] = "pondered"


def claim_again(story):
    story.events[4]["attempt"] = 1


def eventless(story):
    story.events.clear()


def idle(story):
    story.accepted = []


def other_error(story):
    story.job |= {"status": "failed", "error": "internal"}
    story.end = Ending("failed", error="worker_lost", attempts=2)


def too_few_attempts(story):
    story.end = Ending(attempts=3)


def test_all_is_well():
    assert Story().judged() == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_documents, "completed with 0 documents"),
        (second_document, "completed with 2 documents"),
        (older_document, "the document is of an older attempt"),
        (other_document, "the row names another document"),
        (never_made, "the job body made the document 0 times"),
        (same_attempt_twice, "two workers had the same attempt"),
        (unclaimed_attempt, "an attempt ran that nobody claimed"),
        (gap, "events numbered [1, 2, 3, 4, 5, 7]"),
        (impossible_move, "event claimed after processing"),
        (status_of_another, "event claimed says pending"),
        (row_differs, "the last event says completed, the row failed"),
        (backwards, "progress went from 50 to 20"),
        (attempts_differ, "2 claims, attempt 3"),
        (hangs, "not over: processing"),
        (lost, "accepted, and not there"),
        (nobodys, "there, and never accepted"),
        (one_for_two, "two submissions got the same job"),
        (orphan, "a document of no job"),
        (unknown_event, "event pondered after processing"),
        (claim_again, "claim 2 is attempt 1"),
        (eventless, "the last event says , the row completed"),
        (idle, "no job was accepted"),
        (other_error, "ended with the error internal"),
        (too_few_attempts, "ended after 2 attempts"),
    ],
)
def test_what_is_wrong_is_found(spoil, said):
    story = Story()
    spoil(story)
    assert any(said in sentence for sentence in story.judged()), story.judged()


def test_what_was_made_in_vain_is_counted():
    story = Story()
    assert in_vain({JOB: story.effect}, story.account) == 1
    assert in_vain({}, story.account) == 0


def test_effects_are_read_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIALS_EFFECTS", str(tmp_path / "effects"))
    effects = Effects.of_environment()
    effects.write("began", JOB, 1)
    effects.write("made", JOB, 1)
    effects.write("began", JOB, 2)
    found = read_effects(tmp_path / "effects")[JOB]
    assert (found.began, found.made) == (Counter({1: 1, 2: 1}), Counter({1: 1}))
    assert found.clock.keys() == {1, 2}
    assert abs(found.clock[1] - datetime.now(UTC).timestamp()) < 600


def test_without_a_file_there_are_no_effects(tmp_path, monkeypatch):
    monkeypatch.delenv("TRIALS_EFFECTS", raising=False)
    Effects.of_environment().write("began", JOB, 1)
    assert read_effects(tmp_path / "effects") == {}
