"""Kinds of columns that hold codes: the systems that are known, their codes' shapes, and the form that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from analytics_service.columns import CONTACT, DIAGNOSIS_SYSTEMS, Column

CODE: Final = r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,39}$"
# ICD-10-CM codes with their dots and ; between: what needs nothing done to it
PLAIN_CODES: Final = "^[A-Z][0-9][0-9A-Z]([.][0-9A-Z]{1,4})?(;[A-Z][0-9][0-9A-Z]([.][0-9A-Z]{1,4})?)*$"
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
            "invalid_code": f"{name} NOT IN {tuple(SYSTEMS)} AND ({_no_code(text)})",
        }


def _no_code(text: str) -> str:
    """SQL that is true of what no code of any system looks like, social security and telephone numbers among it."""
    return f"NOT match({text}, '{CODE}') OR match({text}, '{CONTACT}')"


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
    return f"multiIf({tests}, {_no_code(code)})"


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
        return {"invalid_code": f"NOT match(upper({text}), '^({self.like})$')" if self.like else _no_code(text)}


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
