"""The four datasets: their columns, and for each kind of column how a text becomes a value and what is refused.

Everything here is SQL over columns of text, so that the engine validates and converts, a million rows a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from triton_common.schemas import CodeSystem

Dataset = Literal["claims", "clinical", "utilization", "pharmacy"]

# XXXX-XX-XX, and with a time, its offset; RFC 3339's profile of ISO 8601, seconds and zone (UTC) may be left out
ISO_8601: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)
MOST: Final = 10**10  # dollars of a line: a unit's mistake, or a column's; it keeps sums within what reports can hold
MOST_COUNTED: Final = 10**9 - 1
CODE: Final = r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,39}$"
# ICD-10-CM codes with their dots and ; between: what needs nothing done to it
PLAIN_CODES: Final = "^[A-Z][0-9][0-9A-Z]([.][0-9A-Z]{1,4})?(;[A-Z][0-9][0-9A-Z]([.][0-9A-Z]{1,4})?)*$"
# a social security number, an e-mail address, a telephone number: whatever text they stand in is not kept
CONTACT: Final = r"\\b[0-9]{3}-[0-9]{2}-[0-9]{4}\\b|[^ ]@[^ ]|\\b[0-9]{3}[-. ][0-9]{3}[-. ][0-9]{4}\\b"
# questions whose answer names a person or a place: LOINC 56799-0 "What address do you live at?" and their like
ASKS_WHO: Final = r"(?i)\\b(address|name|phone|telephone|e-?mail|social security|ssn|zip|postal)\\b"

# Each code system's name, and how else people write it; case, blanks and punctuation do not count
SYSTEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "icd10cm": ("icd10", "icd10dx", "icd10cmdx"),
    "icd9cm": ("icd9", "icd9dx", "icd9cmdx"),
    "snomed": ("snomedct", "snomedctus", "sct"),
    "cpt": ("cpt4",),
    "hcpcs": ("hcpc", "hcpcsii", "hcpcslevel2", "hcpcslevelii"),
    "loinc": ("ln", "lnc"),
    "ndc": ("ndc10", "ndc11"),
    "rxnorm": ("rxcui", "rxnormcui"),
}
# What the codes of a system look like, as their owners publish it; case does not count, nor does the dot of ICD
SHAPES: Final[Mapping[str, str]] = {
    "icd10cm": "[A-Z][0-9][0-9A-Z][.]?[0-9A-Z]{0,4}",
    "icd9cm": "([0-9]{3}|V[0-9]{2})[.]?[0-9]{0,2}|E[0-9]{3}[.]?[0-9]?",
    "snomed": "[0-9]{6,18}",
    "cpt": "[0-9]{4}[0-9A-Z]",
    "hcpcs": "[A-Z][0-9]{4}",
    "loinc": "[0-9A-Z]{1,7}-[0-9]",
    "rxnorm": "[0-9]{1,8}",
    "ndc": "[0-9]{11}|[0-9]{4}-[0-9]{4}-[0-9]{2}|[0-9]{5}-[0-9]{3}-[0-9]{2}|[0-9]{5}-[0-9]{4}-[0-9]{1,2}",
}
# CPT and HCPCS, ICD-10-PCS, ICD-9-CM's procedures, SNOMED CT, revenue codes, vaccines (CVX): what claims' lines have
PROCEDURES: Final = (
    "[0-9]{4}[0-9A-Z]|[A-Z][0-9]{4}|[0-9A-HJ-NP-Z]{7}|[0-9]{2}[.]?[0-9]{1,2}|[0-9]{6,18}|0[0-9]{3}|[0-9]{2,3}"
)
DIAGNOSIS_SYSTEMS: Final = tuple(system.value for system in CodeSystem)

ISSUES: Final[Mapping[str, str]] = {
    "missing_value": "must not be empty",
    "invalid_date": "is not a date as in 2024-05-31 or 2024-05-31T13:45:00Z, from 1900 to 2199",
    "future_date": "lies in the future",
    "invalid_number": "is not a number as in 1234.56",
    "negative": "must not be negative",
    "too_large": f"is absurdly large: at most {MOST}, and {MOST_COUNTED} of what is counted",
    "not_whole": "must be a whole number",
    "unknown_value": "is not one of the values that this column knows",
    "unknown_system": f"is not a code system of diagnoses; those are {', '.join(DIAGNOSIS_SYSTEMS)}",
    "invalid_code": "is not a code of its system, as the code system's owner shapes them",
    "too_long": "is longer than 500 characters",
    "not_utf8": "is not UTF-8 text",
}


@dataclass(frozen=True)
class Column:
    """A column of a dataset. `required`: each row must fill it. `default` stands in for an empty text."""

    name: str
    required: bool = False
    default: str = ""

    @property
    def few(self) -> bool:
        """Whether the column has few texts that differ: the engine then works on a dictionary of them."""
        return False

    def value(self, text: str) -> str:
        """SQL of the value that SQL `text` stands for. Never throws: what is no value is refused by `checks`."""
        return text

    def checks(self, text: str) -> dict[str, str]:
        """For each code of ISSUES that may apply: SQL that is true when it does. `text` is not empty."""
        return {"too_long": f"lengthUTF8({text}) > 500", "not_utf8": f"NOT isValidUTF8({text})"}


@dataclass(frozen=True)
class Hashed(Column):
    """An id of the source, kept as a keyed hash of this kind; `size` bytes of it."""

    kind: str = ""
    size: int = 16

    @property
    def few(self) -> bool:
        """Providers and facilities; members and claims differ too often."""
        return self.kind in ("provider", "facility")

    def value(self, text: str) -> str:
        """HMAC-SHA-256 by its definition (RFC 2104) and padded keys: five times as fast as the engine's HMAC()."""
        digest = f"SHA256(concat({self.kind}_outer, SHA256(concat({self.kind}_inner, {text}))))"
        return f"toFixedString(if({text} = '', '', substring({digest}, 1, {self.size})), {self.size})"

    def checks(self, text: str) -> dict[str, str]:
        """Any text is an id."""
        return {"too_long": f"length({text}) > 500"}


@dataclass(frozen=True)
class Time(Column):
    """A moment; a date is its midnight, no zone is UTC."""

    nullable: bool = False
    past: bool = False

    def value(self, text: str) -> str:
        """DateTime64(3, 'UTC')."""
        return f"parseDateTime64BestEffortOr{'Null' if self.nullable else 'Zero'}({text}, 3, 'UTC')"

    def checks(self, text: str) -> dict[str, str]:
        """The engine's parser alone would take 31/12/2024, 20241231 and 25:00 too."""
        year = f"toYear(parseDateTime64BestEffortOrNull({text}, 3, 'UTC'))"
        time = f"NOT match({text}, '{ISO_8601}') OR ifNull({year} NOT BETWEEN 1900 AND 2199, 1)"
        # a date that comes out as it went in is one: four times as fast, and what most files hold
        date = f"ifNull(toString(toDate32OrNull({text})) != {text}, 1) OR {text} NOT BETWEEN '1900' AND '2200'"
        # a day's grace: it is tomorrow somewhere already
        future = {"future_date": f"left({text}, 10) > toString(today() + 1)"} if self.past else {}
        return {"invalid_date": f"if(length({text}) = 10, {date}, {time})"} | future


@dataclass(frozen=True)
class Number(Column):
    """An amount that is not negative: `places` decimals, rounded half up; whole ones are UInt32."""

    places: int = 2

    def value(self, text: str) -> str:
        """Decimal(18, places), or UInt32."""
        number = f"ifNull(toDecimal64OrNull({text}, 4), toDecimal64(0, 4))"  # parsed once: `checks` has the same words
        return (
            f"CAST(round({number}, {self.places}), 'Decimal(18, {self.places})')"
            if self.places
            else f"toUInt32({number})"
        )

    def checks(self, text: str) -> dict[str, str]:
        """What the engine's parser takes, up to MOST, and MOST_COUNTED for a whole one."""
        number = f"toDecimal64OrNull({text}, 4)"
        float_ = f"toFloat64OrNull({text})"
        known = {
            "invalid_number": f"isNull({number}) AND NOT isFinite(ifNull({float_}, nan))",
            "too_large": f"ifNull(abs({number}) > {MOST if self.places else MOST_COUNTED}, 1)",
            "negative": f"ifNull({number} < 0, 0)",
        }
        if not self.places:
            known["not_whole"] = f"ifNull({number} != truncate({number}), 0)"
        return known


@dataclass(frozen=True)
class Measurement(Column):
    """Any number, or none."""

    def value(self, text: str) -> str:
        """Nullable(Float64)."""
        return f"toFloat64OrNull({text})"

    def checks(self, text: str) -> dict[str, str]:
        """Infinity and NaN are numbers to the engine, not to us."""
        return {"invalid_number": f"NOT isFinite(ifNull(toFloat64OrNull({text}), nan))"}


@dataclass(frozen=True)
class Choice(Column):
    """One of a few words, in any case."""

    among: tuple[str, ...] = ()

    @property
    def few(self) -> bool:
        """Yes."""
        return True

    def value(self, text: str) -> str:
        """The word in small letters."""
        return f"lower({text})"

    def checks(self, text: str) -> dict[str, str]:
        """Only the words that are known."""
        known = ", ".join(f"'{word}'" for word in self.among)
        return {"unknown_value": f"lower({text}) NOT IN ({known})"}


@dataclass(frozen=True)
class System(Column):
    """The name of a code system, under whichever of its names in SYSTEMS."""

    diagnoses: str = "0"  # SQL that is true where the row's codes are diagnoses, which reports look up by system

    @property
    def few(self) -> bool:
        """Yes."""
        return True

    def value(self, text: str) -> str:
        """The system's name; of one that is not in SYSTEMS small letters and digits."""
        names = [(other, name) for name, others in SYSTEMS.items() for other in others]
        given, meant = [other for other, _ in names], [name for _, name in names]
        bare = f"replaceRegexpAll(lower({text}), '[^a-z0-9]', '')"
        return f"transform({bare}, {given}, {meant}, {bare})"

    def checks(self, text: str) -> dict[str, str]:
        """Of a diagnosis one that reports know; else any short name."""
        name = self.value(text)
        return {
            "unknown_system": f"({self.diagnoses}) AND {name} NOT IN {DIAGNOSIS_SYSTEMS}",
            "invalid_code": f"{name} NOT IN {tuple(SYSTEMS)} AND NOT match({text}, '{CODE}')",
        }


def _canonical(code: str) -> str:
    """ICD codes with their dot, whether they came with it or not, NDC as eleven digits; others as they are."""
    bare = f"replaceAll(upper({code}), '.', '')"
    whole = f"if(v_code_system = 'icd9cm' AND startsWith({bare}, 'E'), 4, 3)"
    dotted = f"if(length({bare}) > {whole}, concat(left({bare}, {whole}), '.', substring({bare}, {whole} + 1)), {bare})"
    # 4-4-2, 5-3-2 and 5-4-1 digits are filled up with zeros on the left, part by part, to 5-4-2
    parts = f"splitByChar('-', {code})"
    ndc = f"concat(leftPad({parts}[1], 5, '0'), leftPad({parts}[2], 4, '0'), leftPad({parts}[3], 2, '0'))"
    return (
        f"multiIf(v_code_system IN ('icd10cm', 'icd9cm'), {dotted}, "
        f"v_code_system = 'ndc' AND position({code}, '-') > 0, {ndc}, {code})"
    )


def _misshapen(code: str) -> str:
    """SQL that is true of a code that is none of its row's system; one that is not in SHAPES takes any code."""
    tests = ", ".join(
        f"v_code_system = '{system}', NOT match(upper({code}), '^({shape})$')" for system, shape in SHAPES.items()
    )
    return f"multiIf({tests}, NOT match({code}, '{CODE}'))"


@dataclass(frozen=True)
class Code(Column):
    """A code; of its row's code_system with `coded`, else of any shape that `like` allows."""

    coded: bool = False
    like: str = ""

    @property
    def few(self) -> bool:
        """Yes."""
        return True

    def value(self, text: str) -> str:
        """The code in its canonical form."""
        return _canonical(text) if self.coded else text

    def checks(self, text: str) -> dict[str, str]:
        """Nothing that a person's name or a sentence could pass for."""
        if self.coded:
            return {"invalid_code": _misshapen(text)}
        return {
            "invalid_code": f"NOT match(upper({text}), '^({self.like})$')"
            if self.like
            else f"NOT match({text}, '{CODE}')"
        }


@dataclass(frozen=True)
class Codes(Column):
    """Several diagnosis codes with ; | , or blanks between them."""

    def value(self, text: str) -> str:
        """Array(String), in the order given."""
        taken = f"arrayMap(code -> {_canonical('code')}, {self._split(text)})"
        return f"arrayDistinct(if({self._plain(text)}, splitByChar(';', {text}), {taken}))"

    def checks(self, text: str) -> dict[str, str]:
        """Each must be a code."""
        bad = f"arrayExists(code -> {_misshapen('code')}, {self._split(text)})"
        return {"invalid_code": f"NOT {self._plain(text)} AND {bad}"}

    @staticmethod
    def _plain(text: str) -> str:
        return f"(v_code_system = 'icd10cm' AND match({text}, '{PLAIN_CODES}'))"

    @staticmethod
    def _split(text: str) -> str:
        return f"arrayFilter(code -> code != '', splitByRegexp('[;|, ]+', {text}))"


@dataclass(frozen=True)
class FreeText(Column):
    """Words that people wrote. Kept only when they show no sign of a person: see CONTACT and ASKS_WHO."""

    question: str | None = None  # the column whose text says what this one answers

    def value(self, text: str) -> str:
        """The text; empty (NULL for an answer) where it was dropped."""
        kept = f"NOT match({text}, '{CONTACT}')"
        if self.question is None:
            return f"if({kept}, {text}, '')"
        # emptied before it is made NULL: under a NULL ClickHouse would still store the text
        return f"nullIf(if({kept} AND NOT match(t_{self.question}, '{ASKS_WHO}'), {text}, ''), '')"


MEMBER: Final = Hashed("member_id", required=True, kind="member", size=32)

COLUMNS: Final[Mapping[Dataset, tuple[Column, ...]]] = {
    "claims": (
        MEMBER,
        Hashed("claim_id", required=True, kind="claim"),
        Number("line_number", places=0),
        Time("service_date", required=True, past=True),
        Time("paid_date", nullable=True),
        Choice("claim_type", required=True, among=("inpatient", "outpatient", "professional", "pharmacy", "other")),
        Code("place_of_service"),
        System("code_system", default="icd10cm", diagnoses="1"),
        Codes("diagnosis_codes"),
        Code("procedure_code", like=PROCEDURES),
        Hashed("provider_id", kind="provider"),
        Number("billed"),
        Number("allowed"),
        Number("paid", required=True),
        Number("member_paid", required=True),
    ),
    "clinical": (
        MEMBER,
        Time("recorded_date", required=True, past=True),
        Choice("kind", required=True, among=("condition", "observation", "procedure")),
        System("code_system", required=True, diagnoses="lower(t_kind) = 'condition'"),
        Code("code", required=True, coded=True),
        FreeText("description"),
        Measurement("value_number"),
        FreeText("value_text", question="description"),
        FreeText("unit"),
        Time("end_date", nullable=True),
    ),
    "utilization": (
        MEMBER,
        Hashed("encounter_id", required=True, kind="encounter"),
        Time("start", required=True, past=True),
        Time("end", nullable=True),
        Choice(
            "encounter_class",
            required=True,
            among=(
                "inpatient",
                "emergency",
                "ambulatory",
                "outpatient",
                "urgentcare",
                "wellness",
                "virtual",
                "other",
            ),
        ),
        Code("reason_code"),
        Hashed("facility_id", kind="facility"),
        Number("length_of_stay_days", places=0),
        Number("total_cost"),
    ),
    "pharmacy": (
        MEMBER,
        Hashed("fill_id", required=True, kind="fill"),
        Time("fill_date", required=True, past=True),
        System("code_system", default="ndc"),
        Code("drug_code", required=True, coded=True),
        FreeText("drug_name"),
        FreeText("therapeutic_class"),
        Number("quantity", places=3),
        Number("days_supply", places=0),
        Number("dispenses", places=0, default="1"),
        Number("paid", required=True),
        Number("member_paid", required=True),
    ),
}
HASHED_KINDS: Final = sorted(
    {column.kind for columns in COLUMNS.values() for column in columns if isinstance(column, Hashed)}
)


def problem_codes(column: Column, text: str) -> dict[str, str]:
    """All that may be wrong with a column's text, the missing value included: code → SQL condition."""
    codes = {code: f"{text} != '' AND ({condition})" for code, condition in column.checks(text).items()}
    return {"missing_value": f"{text} = ''"} | codes if column.required else codes
