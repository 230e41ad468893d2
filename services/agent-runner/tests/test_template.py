"""BaseAgentTemplate as a team uses it: an agent of one's own, and what the template does for it."""

import json
from contextlib import closing
from datetime import timedelta
from typing import Any

import examples
import pytest
from bedrock_standin import Bedrock
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agent_runner import document, replies, template
from agent_runner.checking import AgentOutputUngrounded, Grounding
from agent_runner.conversation import AgentCallRefused
from agent_runner.desk import AgentContext, Desk
from agent_runner.facts import Facts, Source
from agent_runner.models import Models
from agent_runner.settings import Settings
from agent_runner.template import BaseAgentTemplate, Instructions
from agent_runner.writing import Draft
from triton_common.schemas import ProblemDetail


class Headline(BaseModel):
    text: str


class HeadlineWriter(BaseAgentTemplate[Headline]):
    """An agent whose offline text a test chooses."""

    name = "headline_writer"
    description = "Writes a headline"
    output = Headline
    text = "{{members}} members"

    @property
    def instructions(self) -> Instructions:
        return Instructions(version="7", text="Write a headline.")

    def compose(self, facts: Facts) -> Headline:  # noqa: ARG002  a text of its own
        return Headline(text=self.text)


def context(settings: Settings | None = None, **different: Any) -> AgentContext:
    chosen = (settings or Settings()).model_copy(update={"retry_pause": timedelta(milliseconds=1), **different})
    facts = Facts("USD")
    facts.put("members", "Members", 27, "members", Source("test", None, "made up"))
    return AgentContext(
        desk=Desk(settings=chosen, models=Models(chosen)),
        facts=facts,
        grounding=Grounding(facts),
        material={},
    )


def test_without_a_model_an_agent_composes():
    result = HeadlineWriter().run(context())

    assert result.output.text == "{{members}} members"
    assert (result.model, result.prompt_version, result.calls) == ("offline:template", "7", 0)


def test_what_an_agent_composes_is_checked_too():
    writer = HeadlineWriter()
    writer.text = "27 members"

    with pytest.raises(AgentOutputUngrounded):
        writer.run(context())


def test_a_result_tells_what_it_took(bedrock: Bedrock, settings: Settings):
    bedrock.say("prose", {"text": "{{members}} members"})

    asked = context(settings.model_copy(update={"model": "bedrock:m"}))
    with closing(asked.desk.models):
        result = HeadlineWriter().run(asked)

    assert (result.model, result.calls, result.input_tokens, result.output_tokens) == ("bedrock:m", 2, 200, 40)
    assert result.seconds > 0


def test_a_run_that_agno_ends_otherwise_is_no_result(bedrock: Bedrock, settings: Settings, monkeypatch):
    """agno turns an interrupt inside a run into a cancelled run that does not raise."""
    from agent_runner import providers  # noqa: PLC0415  it imports agno

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(providers.AwsBedrock, "invoke", interrupted)

    asked = context(settings.model_copy(update={"model": "bedrock:m"}))
    with closing(asked.desk.models), pytest.raises(AgentCallRefused, match="run ended cancelled"):
        HeadlineWriter().run(asked)


def test_instructions_must_name_their_version(tmp_path, monkeypatch):
    (tmp_path / "headline_writer.md").write_text("Write a headline.")
    monkeypatch.setattr(template, "files", lambda _: tmp_path)

    with pytest.raises(ValueError, match="must name its version"):
        template.read_instructions("headline_writer")


def test_a_draft_with_a_figure_is_never_assembled():
    sections = {key: ["All is well."] for key in document.SECTIONS}
    draft = Draft(sections=sections | {"risks": ["All is well.", "There are 27 members."]}, results={})

    with pytest.raises(AgentOutputUngrounded) as raised:
        document.check(draft, Grounding.of(examples.job(), context().facts))

    assert [detail.field for detail in raised.value.details] == ["risks[1]"]


def test_the_longest_object_is_the_one_that_feedback_is_about():
    output, faults = replies.parse('{} and {"text": 1, "more": 2} and {"a": 1}', Headline)

    assert output is None
    assert [(fault.field, fault.code) for fault in faults] == [("text", "string_type")]


def test_feedback_is_bounded():
    faults = [ProblemDetail(field=str(number), issue="wrong", code="wrong") for number in range(100)]

    assert len(replies.feedback(faults).splitlines()) == replies.FEEDBACK + 2


@given(st.text(), st.text(), st.text())
def test_json_is_found_between_any_prose(before, value, after):
    reply = before.replace("{", "(") + json.dumps({"text": value}) + after

    output, faults = replies.parse(reply, Headline)

    assert output == Headline(text=value)
    assert not faults


@given(st.text(alphabet='{}[]":,a1 \n\\'))
def test_no_reply_breaks_the_parser(reply):
    output, faults = replies.parse(reply, Headline)

    assert (output is None) == bool(faults)


def test_a_string_may_break_its_line():
    output, faults = replies.parse('{"text": "{{members}} members\nare in it."}', Headline)

    assert output == Headline(text="{{members}} members\nare in it.")
    assert not faults


def test_a_number_beyond_measure_is_no_answer():
    assert replies.parse(f'{{"text": {"1" * 5000}}}', Headline) == (None, [replies.MISSING])


def test_texts_are_found_at_any_depth():
    class Deep(BaseModel):
        title: str
        parts: list[Headline]
        number: int = 1

    deep = Deep(title="a", parts=[Headline(text="b"), Headline(text="c")])

    assert dict(replies.texts(deep)) == {"title": "a", "parts[0].text": "b", "parts[1].text": "c"}
