"""Grounding: a text may show figures and comparisons only as references to facts. Finds what is not one, and puts facts
in for references.

Allowed outside references: medical terms that contain a figure, the diagnosis codes that qualify, and figures that the
client's own value proposition has in the same phrase.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from agent_runner.figures import BLANK, EDGES, TAKEN, find, searchable, visible
from triton_common.errors import Internal
from triton_common.schemas import ClaimedJob, Fact, Paragraph, ProblemDetail

REFERENCE: Final = re.compile(r"\{\{\s*([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)\s*\}\}")
SNOMED_DIGITS: Final = 6  # at least (SNOMED CT Technical Implementation Guide, SCTID)
_CODE: Final = re.compile(r"[a-z]\d[0-9a-z](?:\.?[0-9a-z]{1,4})?")  # ICD-10-CM's shape
_BRACES: Final = re.compile(r"\S*[{}]\S*")
# what would make another figure of one: {{a}}{{b}}, {{a}}.{{b}}, {{a}}k, -{{a}}
_GLUED: Final = re.compile(rf"{BLANK}[^\s{BLANK}]{{0,2}}{BLANK}|[\w+\-\u2010-\u2015\u2212]{BLANK}|{BLANK}(?:\w|[.,]\w)")
# a text is shown as it stands, mark-up and all
_MARKUP: Final = re.compile(r"\*\*|__|`|~|^\s*(?:#{1,6}|[*+\u2022-]|>)\s|\]\(|</?[a-zA-Z!]")
_NEAR: Final = 150  # characters of a sentence that are told, on either side
ISSUES: Final = {
    "comparison": "says how figures compare: use a comparison fact, or leave it out",
    "date": "must be a reference to a fact, as every date or time",
    "foreign_letters": "has letters of another script: write English, and names as references",
    "link": "is a link or an address: leave it out",
    "markup": "is mark-up: write plain sentences",
    "picture": "is a picture: write words",
}


class AgentOutputUngrounded(Internal):
    """The text keeps figures that are not references to facts."""


class Grounding:
    """What a job's texts may refer to, and which figures its client's own words allow."""

    def __init__(self, facts: Mapping[str, Fact], *, own_words: Iterable[str] = (), codes: Iterable[str] = ()) -> None:
        self._facts = facts
        self._phrases = {phrase for text in own_words for found in find(searchable(text)) for phrase in found.phrases}
        patterns = [code.lower() for code in codes]
        # figures are no codes: a stem must begin with a letter, and a number be as long as SNOMED's identifiers
        self._stems = tuple(code.rstrip("*") for code in patterns if code.endswith("*") and code[0].isalpha())
        self._codes = {
            code for code in patterns if code[0].isalpha() or (code.isdigit() and len(code) >= SNOMED_DIGITS)
        }

    @classmethod
    def of(cls, job: ClaimedJob, facts: Mapping[str, Fact]) -> "Grounding":
        """For a job's documents."""
        terms = job.value_proposition
        names = (job.client_name, job.prospect_name, job.value_proposition_name)
        evidence = (effect.evidence for effect in terms.effects)
        return cls(
            facts,
            own_words=(*names, terms.summary, terms.programme, *evidence),
            codes=(pattern.code for pattern in terms.eligibility),
        )

    def check(self, text: str, *, place: str) -> list[ProblemDetail]:
        """Everything in `text` that is not grounded, each with the words it stands in; `place` names the text."""
        return [ProblemDetail(field=place, issue=issue, code=code) for code, issue in self._faults(visible(text))]

    def _faults(self, text: str) -> Iterator[tuple[str, str]]:
        for key in REFERENCE.findall(text):
            if key not in self._facts:
                yield "unknown_fact", f"there is no fact {{{{{key}}}}}"
        for match in _MARKUP.finditer(text):
            yield "markup", f"“{match.group().strip()}” in “{_sentence(text, match.start())}” {ISSUES['markup']}"
        rest = searchable(REFERENCE.sub(BLANK, text.replace(BLANK, " ")))
        for match in _BRACES.finditer(rest):
            yield "bad_reference", f"“{_shown(match.group())}” is no reference; write {{{{id}}}}"
        for match in _GLUED.finditer(rest):
            yield "bad_reference", f"“{_shown(match.group())}” runs into its neighbour: leave a space"
        rest = _BRACES.sub(" ", rest)
        for found in find(rest):
            if not (found.phrases & self._phrases or self._is_code(found.words)):
                issue = ISSUES.get(found.code, "must be a reference to a fact")
                yield found.code, f"“{found.words}” in “{_shown(_sentence(rest, found.start))}” {issue}"

    def _is_code(self, words: str) -> bool:
        word = words.strip(EDGES).lower()
        return word in self._codes or (word.startswith(self._stems) and _CODE.fullmatch(word) is not None)


def render(text: str, facts: Mapping[str, Fact]) -> Paragraph:
    """The text with its facts put in for references, all of which must be known; and their ids in order."""
    text = visible(text)
    shown = list(dict.fromkeys(REFERENCE.findall(text)))
    return Paragraph(text=REFERENCE.sub(lambda match: facts[match.group(1)].display, text), facts=shown)


def _sentence(text: str, at: int) -> str:
    """The sentence that this place is in, or what of it is near."""
    start = max(text.rfind(mark, 0, at) for mark in (". ", "! ", "? ")) + 1
    ends = [end for mark in (". ", "! ", "? ") if (end := text.find(mark, at)) >= 0]
    end = min(ends, default=len(text)) + 1
    return text[max(start, at - _NEAR) : min(end, at + _NEAR)].strip()


def _shown(text: str) -> str:
    return text.replace(BLANK, "{{…}}").replace(TAKEN, "…")
