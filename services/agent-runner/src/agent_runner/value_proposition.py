"""Jobs of the type value_proposition: collecting → modelling → writing → checking."""

from typing import Final

from pydantic import ValidationError

from agent_runner import collecting, document, gathering, value_model, writing
from agent_runner.attempts import Attempt
from agent_runner.checking import Grounding
from agent_runner.runs import Worker
from triton_common.errors import Unprocessable
from triton_common.schemas import DocumentContent, JobParameters, JobStage, ProblemDetail

JOB_TYPE: Final = "value_proposition"


class ParametersInvalid(Unprocessable):
    """The job's parameters are not valid."""


def make(worker: Worker, attempt: Attempt) -> DocumentContent:
    """The four stages. Raises the AppError that is the job's failure, or Stopped."""
    job = attempt.job
    parameters = _parameters(job.parameters)

    attempt.report(5, JobStage.COLLECTING, "Reading the prospect's reports")
    reports = collecting.collect(worker.analytics, job, stop=attempt.stop)

    attempt.report(30, JobStage.MODELLING, "Computing savings, fees and return")
    terms = job.value_proposition
    model = value_model.calculate(reports.recent, terms, horizon_months=parameters.horizon_months)
    facts = gathering.gather(job, reports, model)
    grounding = Grounding.of(job, facts)

    attempt.report(40, JobStage.WRITING, "Describing the population")
    draft = writing.write(
        job,
        facts,
        grounding,
        desk=worker.desk(attempt),
        written=lambda agent: attempt.report(
            60 if agent is writing.ANALYST else 80, JobStage.WRITING, f"{agent.name} is done"
        ),
    )

    attempt.report(90, JobStage.CHECKING, "Checking every figure against the facts")
    document.check(draft, grounding)
    return document.assemble(job, draft, facts, reports=reports, model=model)


def _parameters(given: dict[str, object]) -> JobParameters:
    try:
        return JobParameters.model_validate(given)
    except ValidationError as error:
        details = [
            ProblemDetail(field=".".join(["parameters", *map(str, e["loc"])]), issue=e["msg"], code=e["type"])
            for e in error.errors(include_input=False)
        ]
        raise ParametersInvalid("Correct the parameters named in details.", details=details) from error
