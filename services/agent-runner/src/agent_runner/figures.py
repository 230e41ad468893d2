"""Finds figures in a text, however they are written: digits of any script, number words, ordinals, Roman numerals,
fractions, money, percentages, dates; and comparisons in words, which are figures too ("more than", "the largest").
Besides: links, pictures and words of other letters than Latin ones.

The language is English, as the documents are.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

BLANK: Final = "□"  # stands for a reference in a text that is searched
TAKEN: Final = "▫"  # and this for an allowed term

# may stand in any text: medical terms that contain a figure, and phrases that count nothing
_ALLOWED: Final = re.compile(
    r"\b(?:type (?:[12]|I|II|one|two) diabetes|(?:30|60|90)-day (?:hospital |emergency )?readmissions?|hba1c|a1c"
    r"|sglt-?2|glp-?1|dpp-?4|covid-?19|icd-?10(?:-cm)?|vitamin b12|24/7|one-time|one-off|one-to-one|one-on-one"
    r"|no one|any ?one|each one|every ?one|one another|one of the|second opinions?"
    r"|rather than|other than|increased risks?|most (?:recent|likely|important(?:ly)?)|best practices?)\b",
    re.IGNORECASE,
)
_TEENS: Final = "ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
_TENS: Final = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_ORDINALS: Final = (
    "second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|(?:thir|four|fif|six|seven|eigh|nine)"
    "teenth|(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)ieth|hundredth|thousandth|millionth"
)
_LARGE: Final = "hundred|thousand|million|billion|trillion|zillion|dozen"
_SPAN: Final = "day|week|fortnight|month|quarter|half-year|year|decade"
_MONTHS: Final = "January|February|April|June|July|August|September|October|November|December"  # May, March: below
_DAYS: Final = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_SUPERLATIVES: Final = (
    "largest|biggest|greatest|highest|lowest|smallest|fewest|least|costliest|cheapest|dearest|longest|shortest|fastest"
    "|slowest|commonest|best|worst|most|mostly|mainly|chiefly|predominant(?:ly)?|the bulk of|lion['\u2019]?s share"
)
_COMPARATIVES: Final = "higher|lower|larger|bigger|greater|smaller|costlier|pricier|dearer|cheaper|fewer"
_BY_FAR: Final = "much|far|even|clearly|considerably|notably|significantly|substantially"
_CHANGED: Final = (
    "rose|risen|fell|fallen|grew|grown|shrank|shrunk|increased|decreased|declined|dropped|climbed|surged|soared|plunged"
    "|jumped|peaked|rising|soaring|surging|shrinking|dwindling|(?:went|gone|going) (?:up|down)"
)
_FIGURE: Final = re.compile(
    r"(?P<link>\b(?:https?:|mailto:|www\.)\S*|[^\s@]{1,64}@\w\S*\.\w\S*"
    r"|\b(?:[\w-]{1,63}\.){1,5}(?:com|org|net|info|io|co|ai|gov|edu|health|example)\b\S*)"
    rf"|(?P<literal_figure>(?<![^\s{BLANK}{TAKEN}])[^\s{BLANK}{TAKEN}]*\d[^\s{BLANK}{TAKEN}]*)"
    r"|(?P<percentage>[%‰‱\u066a]|\bper ?cent\b|\bpercent(?:age|ile)?s?\b|\bbasis points?\b|\b(?:pct|bps)\b"
    r"|\bper ?(?:mille|hundred|thousand)\b|\b(?:quart|quint|dec|terc)iles?\b)"
    r"|(?P<money>[$€£¥¢\u20a0-\u20cf]|\b(?:dollars?|euros?|cents?|pounds sterling|bucks|usd|eur|gbp)\b)"
    rf"|(?P<date>(?-i:\b(?:{_MONTHS})\b)"
    rf"|(?-i:\b(?:{_DAYS})s?\b)"
    r"|\b(?:in|since|until|till|last|next|this) (?:the )?(?:spring|summer|autumn|winter)\b"
    rf"|\b(?:in|within|after) (?:{_SPAN})s\b"
    r"|\b(?:in|of|since|until|till|from|to|by|through|between|and|last|next|early|late|mid) (?-i:March|May)\b"
    rf"|\b(?:first|last|past|next|previous|current|this) (?:{_SPAN})s?\b"
    rf"|\b(?:in|within|after|under|inside|over|about|around|roughly|almost|nearly|only) (?:an?|the) (?:{_SPAN})\b)"
    rf"|(?P<number_word>\b(?:zero|nil|nought|naught|{_TEENS}|{_TENS}"
    rf"|(?:{_TENS})?(?:one|two|three|four|five|six|seven|eight|nine)"
    rf"|{_ORDINALS}"
    rf"|(?:multi|half|one|two|three|four|five|six|seven|eight|nine|ten)?(?:{_LARGE})s?|umpteen(?:th)?"
    r"|(?:score|decade|centur(?:y|ie)|fortnight)s?|millenni(?:um|a)|(?:multi)?(?:m|b|tr)illionaires?|crores?|lakhs?"
    rf"|(?:{_TEENS}|{_TENS}|twelv)(?:ish|somethings?)|(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)ies"
    r"|a (?:couple|handful)|(?:couple|handful|pairs?) of|half|halves|halve[sd]?|halving|twice|thrice"
    r"|doubl(?:e[sd]?|ing)|trebl(?:e[sd]?|ing)|tripl(?:e[sd]?|ing)|quadrupl(?:e[sd]?|ing)|quintupl(?:e[sd]?|ing)"
    r"|(?:two|three|four|five|six|seven|eight|nine|ten|many|several|hundred|thousand)fold|a quarter|quarters? of"
    r"|triplicate|a factor of|multiples? of|orders? of magnitude"
    r"|(?:thi|qua)rds|fifths|sixths|sevenths|eighths|ninths|tenths|hundredths)\b"
    # Roman numerals of I, V and X; longer ones of all letters. Others of two are units and conditions: MI, CD, DC
    r"|(?-i:\b(?=[IVX]{2,}\b|[IVXLC]*(?:XL|LX)|[IVXLCDM]{4,}\b)M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})\b)"
    r"|(?-i:\b(?=[ivx]{2,}\b)x{0,3}(?:ix|iv|v?i{0,3})\b)"
    r"|(?<=□ )(?:k|m|mm|mn|bn|tn)\b|□[ -]?fold\b"
    r"|\b(?:phase|stage|grade|type|class|part|tier|level|year|month|quarter|chapter) (?-i:[IVX])\b)"
    rf"|(?P<comparison>\b(?:than|{_SUPERLATIVES}|{_CHANGED}|majorit(?:y|ies)|minorit(?:y|ies)"
    r"|as (?:much|many|little|few|high|low|large|small|big|often|costly|long) as"
    r"|(?:almost|nearly|practically|virtually) (?:all|every|no|none|everybody|nobody)"
    rf"|the (?:{_COMPARATIVES})|(?:is|are|was|were|has|have|had|costs?) (?:(?:{_BY_FAR}) )?(?:{_COMPARATIVES})"
    rf"|costs? (?:{_BY_FAR}) (?:more|less)|(?:leading|main|primary|principal|top) (?:driver|cause|reason)s?"
    r"|(?:minimum|maximum) of|outperform(?:s|ed)?|surpass(?:es|ed)?|outstrip(?:s|ped)?|dwarf(?:s|ed)?"
    r"|at least|at most|up to|in excess of|exceed(?:s|ed|ing)?|outnumber(?:s|ed)?|outweigh(?:s|ed)?|equal(?:s|led)?"
    r"|(?:above|below)[- ](?:the )?(?:average|mean|median|norm))\b|[<>=≤≥≈±\u00d7÷]|(?<!\S)[+\-\u2212](?=□)"
    rf"|\b(?:almost|nearly|practically|virtually) {TAKEN}"  # everyone, who is allowed elsewhere
    r"|\b(?:minus|negative|above|below|beyond|nearly|almost|(?:just|well) (?:over|under)|no (?:less|fewer|more)) (?=□)"
    r"|(?<=□ )(?:times\b|or (?:more|less|fewer|higher|lower|above|below)\b|\+)|(?<=□)\+)"
    r"|(?P<picture>[\u2600-\u27bf\U0001f000-\U0001faff])",
    re.IGNORECASE,
)
_SPELLED: Final = re.compile(r"\b(?:[^\W\d_][-. \u00b7,/\u2010-\u2015]){2,}[^\W\d_]\b")  # t-w-o, t w e l v e
# words of other letters than Latin ones, which may look like them. A single Greek letter is a symbol
_FOREIGN: Final = re.compile(r"\b(?![\u0370-\u03ff]\b)(?=\w*[^\W\d_\x00-\u024f])\w+")
_HYPHENS: Final = re.compile(r"(?<=\w)[-\u00ad\u2010-\u2015\u2212](?=\w)")
_UNSEEN: Final = {"Mn", "Me", "Cf", "Cc"}  # marks on letters, zero-width and direction characters, controls
# space to the eye, letters or signs to Unicode: Hangul's fillers, Braille's empty cell
_BLANKS: Final = {ord(c): " " for c in "\u115f\u1160\u3164\uffa0\u2800"}
_MARKUP: Final = re.compile(r"[*_~`\\]+")
_ANYWHERE: Final = frozenset(  # words that stand beside any figure, and so make no phrase with it; without a last s
    re.findall(
        r"\w+",
        "the a an of in on at to for by with and or than more les from over under about per i are wa were be our it "
        "their some all only up as that thi these those which",
    )
)
EDGES: Final = ".,;:!?()[]\"'“”\u2018\u2019*"


class Found(NamedTuple):
    """A figure in a text."""

    code: str
    words: str
    start: int
    phrases: frozenset[str]
    """The words with their neighbour on either side, if that says anything; codes of letters and digits, links and
    words of other letters alone."""


def visible(text: str) -> str:
    """A text in one line without what cannot be seen: controls, zero-width and direction characters, which hide text
    or turn it around."""
    text = text.translate(_BLANKS)
    return " ".join(
        "".join(c for c in text if c.isspace() or unicodedata.category(c) not in {"Cf", "Cc", "Co", "Cs"}).split()
    )


def searchable(text: str) -> str:
    """As it is searched: what a reader sees of it, in plain characters. Entities and compatibility forms resolved,
    marks and invisible characters gone, numbers of other scripts in digits, allowed terms blanked, "12-week" as "12
    week"."""
    text = _MARKUP.sub("", html.unescape(html.unescape(text)))
    text = "".join(map(_digits, text))
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) not in _UNSEEN)
    text = _SPELLED.sub(lambda match: re.sub(r"\W", "", match.group()), text)
    return _HYPHENS.sub(" ", _ALLOWED.sub(TAKEN, text))


def find(text: str) -> Iterator[Found]:
    """Every figure in a text that `searchable` made."""
    for match in _FIGURE.finditer(text):
        words = bare(match.group())
        before = text[: match.start()].split()[-1:]
        after = text[match.end() :].split()[:1]
        phrases = {f"{near} {words}" for near in map(bare, before) if near not in _ANYWHERE}
        phrases |= {f"{words} {near}" for near in map(bare, after) if near not in _ANYWHERE}
        if match.lastgroup == "link" or (any(c.isalpha() for c in words) and any(c.isdigit() for c in words)):
            phrases.add(words)
        yield Found(match.lastgroup or "", match.group(), match.start(), frozenset(phrases))
    for match in _FOREIGN.finditer(text):
        yield Found("foreign_letters", match.group(), match.start(), frozenset({match.group().lower()}))


def bare(word: str) -> str:
    """Without punctuation and the plural's s, in lower case."""
    return word.strip(EDGES).lower().removesuffix("s")


def _digits(c: str) -> str:
    """A character that is a number, in ASCII's digits: "½" as "0.5", "Ⅳ" as "4", "十" as "10"."""
    if c.isascii() or (value := unicodedata.numeric(c, None)) is None:
        return c
    return f" {value:g} " if not c.isdecimal() else f"{value:g}"
