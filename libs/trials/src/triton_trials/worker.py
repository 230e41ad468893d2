"""agent-runner's worker with another job body, that takes a known time and writes down what it did.

What the body does, the prospect's name says: `50-500 ms` of work, `0 ms`, `500 ms, deaf` (it neither reports
nor listens until it is done) or `kills its worker`.
"""

import os
import random
import signal
import time
from datetime import timedelta
from typing import Final

import time_machine

SKEW: Final = float(os.environ.get("TRIALS_CLOCK_SKEW", "0"))  # seconds
if SKEW:  # all of Python's wall clocks: time.time, datetime.now and their kin, whoever holds them; monotonic ones go on
    time_machine.travel(timedelta(seconds=SKEW)).start()

from agent_runner.attempts import Attempt  # noqa: E402
from agent_runner.runs import Worker  # noqa: E402
from agent_runner.worker import MAKERS, app  # noqa: E402
from triton_common.schemas import DocumentContent, JobStage, Paragraph, Section  # noqa: E402
from triton_trials.history import Effects  # noqa: E402

KILLS: Final = "kills its worker"
DEAF: Final = ", deaf"

effects = Effects.of_environment()


def make(worker: Worker, attempt: Attempt) -> DocumentContent:  # noqa: ARG001  as makers are called
    """The job body: half of its time, a report, the other half, and a document that says which attempt made it."""
    job = attempt.job
    effects.write("began", job.job_id, job.attempt)
    if job.prospect_name == KILLS:
        os.kill(os.getpid(), signal.SIGKILL)
    low, _, high = job.prospect_name.removesuffix(DEAF).removesuffix(" ms").partition("-")
    seconds = random.uniform(float(low), float(high or low)) / 1000
    if job.prospect_name.endswith(DEAF):
        time.sleep(seconds)
    else:
        if seconds:
            attempt.stop.wait(seconds / 2)
        attempt.report(50, JobStage.WRITING, "Half of it")
        if seconds:
            attempt.stop.wait(seconds / 2)
    effects.write("made", job.job_id, job.attempt)
    return document(f"{job.job_id}/{job.attempt}")


def document(title: str) -> DocumentContent:
    """The least that a document can be."""
    section = Section(key="trial", title="Trial", paragraphs=[Paragraph(text="Made by a trial.")])
    return DocumentContent(title=title, model="offline:template", currency="USD", sections=[section], facts=[])


MAKERS["value_proposition"] = make

__all__ = ["app"]
