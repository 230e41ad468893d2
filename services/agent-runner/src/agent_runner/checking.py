"""Grounding: a text may show figures only as references to facts. Finds what is not one; puts facts in for references.

Allowed outside references: medical terms that contain a figure, the diagnosis codes that qualify, and figures that the
client's own value proposition has in the same phrase.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from triton_common.errors import Internal
from triton_common.schemas import ClaimedJob, Fact, Paragraph, ProblemDetail

REFERENCE: Final = re.compile(r"\{\{\s*([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)\s*\}\}")
SNOMED_DIGITS: Final = 6  # at least (SNOMED CT Technical Implementation Guide, SCTID)
_CODE: Final = re.compile(r"[a-z0-9.]+")
_BLANK: Final = "□"  # stands for what was taken out of a text before it is searched

_ALLOWED: Final = re.compile(
    r"\b(?:type [12] diabetes|(?:30|60|90)-day (?:hospital )?readmissions?|hba1c|a1c|sglt-?2|glp-?1|dpp-?4|covid-?19"
    r"|icd-?10(?:-cm)?|vitamin b12|24/7|one-time|one-off)\b",
    re.IGNORECASE,
)
_TEENS: Final = "ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
_TENS: Final = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_FIGURE: Final = re.compile(
    r"(?P<literal_figure>[^\s□]*\d[^\s□]*)"
    r"|(?P<percentage>%|‰|\bper ?cent\b|\bpercentage points?\b)"
    r"|(?P<money>[$€£¥]|\b(?:dollars?|euros?|pounds sterling|usd|eur|gbp)\b)"
    rf"|(?P<number_word>\b(?:zero|two|three|four|five|six|seven|eight|nine|{_TEENS}|{_TENS}"
    r"|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|halve[sd]?|twice|thrice"
    r"|doubl(?:e[sd]?|ing)|tripl(?:e[sd]?|ing)|quadrupl(?:e[sd]?|ing)|(?:two|three|four|five|ten)fold"
    r"|(?:a|one) (?:third|quarter|fifth|sixth|tenth)|thirds|quarters of|fifths|tenths"
    r"|(?<!no )(?<!any )(?<!each )one(?! another| of the))\b)",
    re.IGNORECASE,
)
_BRACES: Final = re.compile(r"\S*[{}]\S*")
_HYPHENS: Final = re.compile(r"(?<=\w)[-\u2010-\u2013](?=\w)")
_EDGES: Final = ".,;:!?()[]\"'“”\u2018\u2019*"


class AgentOutputUngrounded(Internal):
    """The text keeps figures that are not references to facts."""


class _Found(NamedTuple):
    code: str
    words: str
    start: int
    phrases: frozenset[str]
    """The words with their neighbour on either side; a code or name with letters and digits stands by itself."""


class Grounding:
    """What a job's texts may refer to, and which figures its client's own words allow."""

    def __init__(self, facts: Mapping[str, Fact], *, own_words: Iterable[str] = (), codes: Iterable[str] = ()) -> None:
        self._facts = facts
        self._phrases = {phrase for text in own_words for found in _figures(_plain(text)) for phrase in found.phrases}
        patterns = [code.lower() for code in codes]
        # figures are no codes: a stem must begin with a letter, and a number be as long as SNOMED's identifiers
        self._stems = tuple(code.rstrip("*") for code in patterns if code.endswith("*") and code[0].isalpha())
        self._codes = {code for code in patterns if not code.isdigit() or len(code) >= SNOMED_DIGITS}

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
        problems = [
            ProblemDetail(field=place, issue=f"there is no fact {{{{{key}}}}}", code="unknown_fact")
            for key in REFERENCE.findall(text)
            if key not in self._facts
        ]
        rest = REFERENCE.sub(_BLANK, unicodedata.normalize("NFKC", text))
        problems += [
            ProblemDetail(
                field=place, issue=f"“{match.group()}” is no reference; write {{{{id}}}}", code="bad_reference"
            )
            for match in _BRACES.finditer(rest)
        ]
        rest = _plain(_BRACES.sub(_BLANK, rest))
        for found in _figures(rest):
            if not (found.phrases & self._phrases or self._is_code(found.words)):
                around = rest[max(0, found.start - 40) : found.start + len(found.words) + 40].replace(_BLANK, "{{…}}")
                issue = f"“{found.words}” in “{around.strip()}” must be a reference to a fact"
                problems.append(ProblemDetail(field=place, issue=issue, code=found.code))
        return problems

    def _is_code(self, words: str) -> bool:
        word = words.strip(_EDGES).lower()
        return word in self._codes or (word.startswith(self._stems) and _CODE.fullmatch(word) is not None)


def render(text: str, facts: Mapping[str, Fact]) -> Paragraph:
    """The text with its facts put in for references, all of which must be known; and their ids in order."""
    shown = list(dict.fromkeys(REFERENCE.findall(text)))
    return Paragraph(text=REFERENCE.sub(lambda match: facts[match.group(1)].display, text), facts=shown)


def _plain(text: str) -> str:
    """As it is searched: fractions as digits, no allowed terms, and "12-week" as "12 week", so that phrases compare."""
    return _HYPHENS.sub(" ", _ALLOWED.sub(_BLANK, unicodedata.normalize("NFKC", text)))


def _figures(text: str) -> Iterator[_Found]:
    for match in _FIGURE.finditer(text):
        words = _bare(match.group())
        before = text[: match.start()].split()[-1:]
        after = text[match.end() :].split()[:1]
        phrases = {f"{_bare(word)} {words}" for word in before} | {f"{words} {_bare(word)}" for word in after}
        if any(c.isalpha() for c in words) and any(c.isdigit() for c in words):
            phrases.add(words)
        yield _Found(match.lastgroup or "", match.group(), match.start(), frozenset(phrases))


def _bare(word: str) -> str:
    return word.strip(_EDGES).lower().removesuffix("s")
