"""Grounding: what is found, what is allowed, and how references are filled in."""

import examples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.checking import Grounding, render
from agent_runner.facts import Facts, Source


def facts() -> Facts:
    known = Facts("USD")
    source = Source("test", None, "made up")
    known.put("members", "Members", 27, "members", source)
    known.put("pmpm", "Cost", 41, "USD", source)
    known.put("savings.base.year1", "Savings", 5000, "USD", source)
    known.put_text("year.1", "Words for it", "the first year", source)
    return known


GROUNDING = Grounding.of(examples.job(), facts())


def codes(text: str) -> list[str]:
    return [fault.code for fault in GROUNDING.check(text, place="risks[0]")]


@pytest.mark.parametrize(
    "text",
    [
        "There are {{members}} members at {{ pmpm }} each; {{savings.base.year1}} in {{year.1}}.",
        "No one is left out, each one counts, and one of the members is not another.",
        "People with type 2 diabetes and their HbA1c after a 30-day readmission, or on GLP-1 drugs.",
        "The codes E11 and E11.9 qualify.",
        "A 12-week coaching programme, or 12 weeks' worth of it.",
        "Diabetes 360 is the programme.",
        "The study of 300 members is the source.",
        "Cost per quarter, month by month, and a year of it; over the same time.",
        "People with type II diabetes, rather than others; the most important of them.",
        "MI, CD and MCI, e.g. in the U.S.A.; a {{members}}-member group, {{members}}'s and ({{members}}).",
        "May we ask you to march on?",
        "A larger group would save, with lower cost; the top conditions by cost, primary care, and a nurse's practice.",
        "\u03b2-blockers, a CT scan, an MD, and the quarter's end; \u00c5ngstr\u00f6m, caf\u00e9.",
        "The one-time fee is for one-on-one coaching and a second opinion.",
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
        ("{{pmpm}} 元 or ₹", "money"),
        ("Since January it is so.", "date"),
        ("It was in May.", "date"),
        ("In the first month.", "date"),
        ("It pays within a year.", "date"),
        ("It pays in the last quarter.", "date"),
        ("More than before.", "comparison"),
        ("The largest part of it.", "comparison"),
        ("The majority of members.", "comparison"),
        ("Most members qualify.", "comparison"),
        ("It costs as much as that.", "comparison"),
        ("Nearly all of them.", "comparison"),
        ("Cost rose, then fell.", "comparison"),
        ("At least {{members}}.", "comparison"),
        ("Savings exceed fees.", "comparison"),
        ("< {{pmpm}}", "comparison"),
        ("A couple of members.", "number_word"),
        ("Dozens, a dozen.", "number_word"),
        ("Some fiftyfive.", "number_word"),
        ("In the third of them.", "number_word"),
        ("The twentieth.", "number_word"),
        ("A decade on.", "number_word"),
        ("A tenfold effect.", "number_word"),
        ("A hundredfold effect.", "number_word"),
        ("A quintile.", "percentage"),
        ("{{pmpm}} per mille.", "percentage"),
        ("In the forties.", "number_word"),
        ("Some fiftyish members, or twentysomethings.", "number_word"),
        ("Multimillion savings.", "number_word"),
        ("The final quarter of it.", "number_word"),
        ("An order of magnitude.", "number_word"),
        ("{{members}} k members.", "number_word"),
        ("{{members}}-fold.", "number_word"),
        ("Stage iv, or xii of them.", "number_word"),
        ("XL", "number_word"),
        ("On Friday.", "date"),
        ("In the summer.", "date"),
        ("Within months.", "date"),
        ("Almost everyone qualifies.", "comparison"),
        ("Virtually nobody.", "comparison"),
        ("Their cost is considerably higher.", "comparison"),
        ("They cost far more.", "comparison"),
        ("The larger part.", "comparison"),
        ("The main driver of cost.", "comparison"),
        ("The bulk of it, the lion\u2019s share.", "comparison"),
        ("Savings surpass fees.", "comparison"),
        ("Cost went up, and keeps rising.", "comparison"),
        ("Below the mean.", "comparison"),
        ("Nearly {{members}} members.", "comparison"),
        ("Minus {{pmpm}}.", "comparison"),
        ("{{pmpm}} times as high.", "comparison"),
        ("{{members}} or more, {{members}}+.", "comparison"),
        ("See https://example.com/offer for it.", "link"),
        ("See example.com/offer for it.", "link"),
        ("Write to sales@example.com now.", "link"),
        ("**Savings** come first.", "markup"),
        ("# Savings", "markup"),
        ("- Savings", "markup"),
        ("<b>Savings</b>", "markup"),
        ("`Savings`", "markup"),
        ("[{{members}}](here)", "markup"),
        ("About ~{{members}} of them.", "markup"),
        ("All is well \U0001f4af.", "picture"),
    ],
)
def test_ungrounded_text_is_found(text, code):
    assert code in codes(text)


@pytest.mark.parametrize(
    "text",
    [
        "tw\u200belve members",
        "1\u200b2 members",
        "1\u00ad2 members",
        "\u202e21\u202c members",
        "\u0664\u0662 members",
        "\u56db\u5341 members",
        "\uff11\uff12 members",
        "\U0001d7d9\U0001d7da members",
        "\u246b members",
        "\u216b members",
        "\u2163 members",
        "XII members",
        "stage V",
        "MMXXIV",
        "m\u00b2",
        "\u00bd of it",
        "&frac12; of it",
        "&half; of it",
        "&#49;&#50; members",
        "&amp;half; of it",
        "{{members}}&percnt;",
        "[here](https://example.com/12)",
        "[twelve](https://example.com)",
        "tw*el*ve members",
        "**tw**elve members",
        "t-w-e-l-v-e members",
        "t w e l v e members",
        "twe\u0300lve members",
        "tw\u0435lve members",
        "1\ufe0f\u20e3 member",
        "{{members}} \u066a",
        "twenty\u2011five",
        "two\u2010thirds",
        "TWELVE members",
        "the \uff54\uff57\uff45\uff4c\uff56\uff45 members",
        "{{members}}{{members}}",
        "{{members}}.{{members}}",
        "{{members}},{{members}} members",
        "{{members}}k members",
        "-{{pmpm}}",
        "\u2212{{pmpm}}",
        "x{{members}}",
        "{{mem\u200bbers}}0",
        "\uff5b\uff5bmembers\uff5d\uff5d",
        "{{members}} thousand",
        "\u25a1{{nothing}}",
        "t/w/e/l/v/e members",
        "t\u2014w\u2014o members",
        "\u0455\u0456\u0445 members",  # Cyrillic letters alone
        "\u1d1b\u1d21\u1d0f members",  # small capitals
        "\u2c7c\ua4f3\ua4f4 members",  # Lisu
        "\U0001f173\U0001f174\U0001f17d members",  # on black squares
        "\U0001f1f9\U0001f1fc\U0001f1f4 members",  # flags
        "\U0001f51f members",
        "\U0001f947 of them",
    ],
)
def test_no_disguise_helps(text):
    assert codes(f"There are {text} in it.")


def test_what_cannot_be_seen_is_not_shown():
    paragraph = render("Mem\u200bbers:\u202e {{mem\u2060bers}}\x00\n\nin all.", facts())

    assert paragraph.text == "Members: 27 in all."


@pytest.mark.parametrize("blank", ["\u3164", "\u115f", "\uffa0", "\u2800", "\u200a", "\u00a0"])
def test_what_looks_like_space_is_shown_as_space(blank):
    assert render(f"tw{blank}elve", facts()).text == "tw elve"


def test_the_clients_own_names_and_addresses_may_be_written():
    own = Grounding(facts(), own_words=["\u0417\u0434\u043e\u0440\u043e\u0432\u044c\u0435 of example.com"])

    assert not own.check("\u0417\u0434\u043e\u0440\u043e\u0432\u044c\u0435, see example.com.", place="x")
    assert own.check("\u041f\u043b\u0430\u043d, see example.com/pay.", place="x")


def test_the_clients_own_comparison_is_allowed_in_its_phrase():
    own = Grounding(facts(), own_words=["We coach more than 300 people; the largest coach in Ohio."])

    assert not own.check("The largest coach in Ohio, with more than 300 people.", place="x")
    assert own.check("The largest prospect.", place="x")
    assert own.check("Less than expected.", place="x")


def test_a_fault_names_its_place_and_words():
    text = "Few leave. Of all members, {{members}}, some 27 stay for long. They do."
    [fault] = GROUNDING.check(text, place="risks[2]")

    assert fault.field == "risks[2]"
    assert fault.issue == "“27” in “Of all members, {{…}}, some 27 stay for long.” must be a reference to a fact"


def test_a_fault_shows_no_sign_of_how_it_was_found():
    [fault] = GROUNDING.check("Of those with type 2 diabetes, {{members}}, some 27 stay.", place="x")

    assert fault.issue == "“27” in “Of those with …, {{…}}, some 27 stay.” must be a reference to a fact"


@pytest.mark.parametrize(
    ("code", "allowed", "refused"),
    [
        ("44054006", ["44054006", "(44054006),"], ["440540061", "4405400", "44054006%", "144054006"]),
        ("E11", ["E11", "e11."], ["E11.9", "E110", "E1"]),
        ("E11*", ["E11", "E11.9", "E1165"], ["E12", "E11%", "E11=500", "$E11", "E11/27"]),
        ("4*", [], ["4", "41", "44054006", "4*"]),
        ("250", [], ["250", "2500"]),
        ("250.00", [], ["250.00"]),
        ("A*", ["A09", "A41.9"], ["A5000000", "A50=5"]),
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
    known.put_text("prospect", "Name", "{{pmpm}}", Source("test", None, ""))

    assert render("For {{prospect}}.", known).text == "For {{pmpm}}."
