"""Grounding: what is found, what is allowed, and how references are filled in."""

import examples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.checking import Grounding, render
from agent_runner.facts import Facts


def facts() -> Facts:
    known = Facts("USD")
    known.put("members", "Members", 27, "members", "test")
    known.put("pmpm", "Cost", 41, "USD", "test")
    known.put("savings.base.year1", "Savings", 5000, "USD", "test")
    return known


GROUNDING = Grounding.of(examples.job(), facts())


def codes(text: str) -> list[str]:
    return [fault.code for fault in GROUNDING.check(text, place="risks[0]")]


@pytest.mark.parametrize(
    "text",
    [
        "There are {{members}} members at {{ pmpm }} each; {{savings.base.year1}} in the first year.",
        "No one is left out, each one counts, and one of the members is not another.",
        "People with type 2 diabetes and their HbA1c after a 30-day readmission, or on GLP-1 drugs.",
        "The codes E11 and E11.9 qualify.",
        "A 12-week coaching programme, or 12 weeks' worth of it.",
        "Diabetes 360 is the programme.",
        "The study of 300 members is the source.",
        "The last quarter, the second half-way house aside, was quiet.".replace(
            ", the second half-way house aside,", ""
        ),
        "",
    ],
)
def test_grounded_text_passes(text):
    assert codes(text) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("There is no {{median_age}}.", "unknown_fact"),
        ("A brace {members} alone.", "bad_reference"),
        ("Upper case {{Members}}.", "bad_reference"),
        ("There are 27 members.", "literal_figure"),
        ("It costs $41.", "literal_figure"),
        ("A share of 45%.", "literal_figure"),
        ("Since 2019 it rose.", "literal_figure"),
        ("An area of m².", "literal_figure"),
        ("About ½ of it.", "literal_figure"),
        ("Full width 27.".replace("27", "\uff12\uff17"), "literal_figure"),
        ("{{members}}0 members.", "literal_figure"),
        ("360 members.", "literal_figure"),  # the client's own figure, in another phrase
        ("E12 qualifies.", "literal_figure"),
        ("Twelve members.", "number_word"),
        ("Some twenty-five of them.", "number_word"),
        ("It is half of all.", "number_word"),
        ("Cost doubled.", "number_word"),
        ("A third of them.", "number_word"),
        ("Thousands of members.", "number_word"),
        ("Only one stays.", "number_word"),
        ("{{pmpm}} percent.", "percentage"),
        ("{{pmpm}} per cent.", "percentage"),
        ("{{pmpm}}%", "percentage"),
        ("{{pmpm}} dollars.", "money"),
        ("USD {{pmpm}}", "money"),
    ],
)
def test_ungrounded_text_is_found(text, code):
    assert code in codes(text)


def test_a_fault_names_its_place_and_words():
    [fault] = GROUNDING.check("Of all members, {{members}}, some 27 stay for long.", place="risks[2]")

    assert fault.field == "risks[2]"
    assert fault.issue == "“27” in “Of all members, {{…}}, some 27 stay for long.” must be a reference to a fact"


@pytest.mark.parametrize(
    ("code", "allowed", "refused"),
    [
        ("44054006", ["44054006", "(44054006),"], ["440540061", "4405400", "44054006%", "144054006"]),
        ("E11", ["E11", "e11."], ["E11.9", "E110", "E1"]),
        ("E11*", ["E11", "E11.9", "E1165"], ["E12", "E11%", "E11=500", "$E11", "E11/27"]),
        ("4*", [], ["4", "41", "44054006", "4*"]),
        ("250", [], ["250", "2500"]),
    ],
)
def test_a_code_that_qualifies_is_no_way_for_figures(code, allowed, refused):
    grounding = Grounding(facts(), codes=[code])

    for word in allowed:
        assert not grounding.check(f"There is {word} here.", place="x"), word
    for word in refused:
        assert grounding.check(f"There is {word} here.", place="x"), word


@given(st.integers(min_value=0), st.sampled_from(["{} members", "costs {}", "({})", "x{}", "{}th", "-{}", "№{}"]))
def test_no_number_slips_through(number, frame):
    bare = Grounding(facts())

    assert bare.check(frame.format(number), place="x")


@given(st.text())
def test_any_text_is_checked_without_a_failure(text):
    GROUNDING.check(text, place="x")


def test_references_become_facts_once_each():
    paragraph = render("{{members}} members, {{ pmpm }} each: {{members}}.", facts())

    assert paragraph.text == "27 members, $41.00 each: 27."
    assert paragraph.facts == ["members", "pmpm"]


def test_a_fact_that_looks_like_a_reference_is_not_filled_in():
    known = facts()
    known.put_text("prospect", "Name", "{{pmpm}}", "test")

    assert render("For {{prospect}}.", known).text == "For {{pmpm}}."
