"""The four datasets and their columns."""

from collections.abc import Mapping
from typing import Final, Literal

from analytics_service.codes import PROCEDURES, Code, Codes, System
from analytics_service.columns import Choice, Column, FreeText, Hashed, Measurement, Number, Time

Dataset = Literal["claims", "clinical", "utilization", "pharmacy"]

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
