"""Everything a document may say, as facts: names, population, value proposition, value model, comparisons."""

from datetime import UTC, date, datetime

from agent_runner.case import put_case, put_terms, put_years
from agent_runner.collecting import Reports
from agent_runner.comparisons import put_comparisons
from agent_runner.facts import Facts, Source
from agent_runner.population import put_population
from agent_runner.value_model import CASES, ValueModel
from triton_common.schemas import ClaimedJob


def gather(job: ClaimedJob, reports: Reports, model: ValueModel, *, today: date | None = None) -> Facts:
    """All facts of a job. Ids with a number in them count from 1: years of the horizon, ranks of conditions."""
    terms = job.value_proposition
    facts = Facts(terms.currency)
    for key, label, name, origin in (
        ("client", "Who offers the programme", job.client_name, Source("client", None, "name")),
        ("prospect", "Who is offered the programme", job.prospect_name, Source("prospect", None, "name")),
        ("programme", "The programme's name", job.value_proposition_name, Source("value proposition", None, "name")),
        (
            "programme.summary",
            "The client's own words on the programme, whole sentences",
            terms.summary,
            Source("value proposition", None, "summary"),
        ),
    ):
        facts.put_text(key, label, name, origin)
    put_population(facts, reports, eligibility=terms.eligibility, today=today or datetime.now(UTC).date())
    put_terms(facts, terms, model)
    put_years(facts, model)
    for case in CASES:
        put_case(facts, case, model)
    put_comparisons(facts, model)
    return facts
