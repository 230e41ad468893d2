"""Which rows of a conditions report a document shows, and under what name. Extracts list work, schooling and check-ups
beside conditions, and claims have codes that nothing names.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from agent_runner.figures import visible
from triton_common.schemas import CodePattern, CodeSystem, ConditionRow

_NO_CONDITION: Final = re.compile(  # the kinds SNOMED CT marks concepts with, behind their names
    r"\((finding|situation|person|event|procedure|observable entity|social concept|environment)\)$"
)
_MARK: Final = re.compile(r"\s*\((disorder|finding)\)$")
_FEW: Final = 3
_LONGEST_NAME: Final = 120


class Ranked(NamedTuple):
    """A row, and its place in the report as the API gives it, from 1."""

    place: int
    row: ConditionRow


def conditions(rows: Sequence[ConditionRow], eligibility: Sequence[CodePattern] = ()) -> list[Ranked]:
    """The rows that are conditions and have a name, and whatever the programme is for; all rows when few are left."""
    ranked = [Ranked(place, row) for place, row in enumerate(rows, start=1)]
    kept = [one for one in ranked if _is_condition(one.row) or _qualifies(one.row, eligibility)]
    return kept if len(kept) >= _FEW else ranked


def condition_name(row: ConditionRow) -> str:
    """A condition as text shows it: a line, without SNOMED's mark; its code when it has no name."""
    return _MARK.sub("", visible(row.description))[:_LONGEST_NAME] or row.code


def _is_condition(row: ConditionRow) -> bool:
    named = bool(row.description.strip()) and row.description != row.code
    # ICD-10's chapter Z: reasons to see a doctor other than being ill
    contact = row.code_system == CodeSystem.ICD10CM and row.code.startswith("Z")
    return named and not contact and not _NO_CONDITION.search(row.description)


def _qualifies(row: ConditionRow, eligibility: Sequence[CodePattern]) -> bool:
    code = row.code.replace(".", "")
    for pattern in eligibility:
        wanted = pattern.code.replace(".", "")
        if pattern.system == row.code_system and (
            code.startswith(wanted[:-1]) if wanted.endswith("*") else code == wanted
        ):
            return True
    return False
