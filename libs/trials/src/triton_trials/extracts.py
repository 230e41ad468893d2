"""Claims in any number, written by the engine itself as files that people send: ten million in less than a minute."""

from pathlib import Path
from typing import Final

from triton_trials.alone import Alone

LINES: Final = 3  # of a claim
MEMBER_CLAIMS: Final = 25  # rows of a member, about; in no order, as extracts come
# Each column of a claims extract, from `number`. h(n) is a hash of it: the same rows every time, and no order in them.
COLUMNS: Final = {
    "member_id": "concat('M', leftPad(toString({h0} % {members}), 9, '0'))",
    "claim_id": "concat('CLM', toString(1000000000 + intDiv(number, {lines})))",
    "line_number": "number % {lines} + 1",
    "service_date": "toDate('2022-01-01') + {h1} % 1096",
    "paid_date": "toDate('2022-01-01') + {h1} % 1096 + 7 + {h2} % 60",
    "claim_type": "['professional', 'professional', 'professional', 'outpatient', 'outpatient', 'pharmacy', "
    "'inpatient', 'other'][{h3} % 8 + 1]",
    "place_of_service": "['11', '11', '22', '23', '21', '81'][{h4} % 6 + 1]",
    "diagnosis_codes": "arrayStringConcat(arrayMap(n -> concat(char(65 + bitShiftRight({h5}, 16 * n) % 26), "
    "toString(10 + bitShiftRight({h5}, 16 * n + 5) % 90), '.', toString(bitShiftRight({h5}, 16 * n + 12) % 10)), "
    "range({h6} % 3 + 1)), ';')",
    "code_system": "'icd10cm'",
    "procedure_code": "toString(99201 + {h7} % 300)",
    "provider_id": "concat('P', leftPad(toString({h8} % 5000), 8, '0'))",
    "billed": "toDecimal64(({h9} % 100000) / 100 + 20, 2)",
    "allowed": "toDecimal64(({h9} % 70000) / 100 + 10, 2)",
    "paid": "toDecimal64(({h9} % 50000) / 100, 2)",
    "member_paid": "toDecimal64(({h9} % 8000) / 100, 2)",
}
# Parquet holds dates and amounts as what they are, CSV as text
FORMATS: Final = {"csv": "CSVWithNames", "parquet": "Parquet"}


async def write(engine: Alone, path: Path, *, rows: int) -> None:
    """A file of claims; its ending says what it is."""
    hashes = {f"h{n}": f"sipHash64(number, {n})" for n in range(10)}
    members = max(1, rows // MEMBER_CLAIMS)
    columns = ", ".join(
        f"{text.format(**hashes, members=members, lines=LINES)} AS {name}" for name, text in COLUMNS.items()
    )
    await engine.timed(
        f"INSERT INTO FUNCTION file('{path}', '{FORMATS[path.suffix[1:]]}') SELECT {columns} "  # noqa: S608  ours
        f"FROM numbers_mt({rows}) SETTINGS engine_file_truncate_on_insert = 1"
    )
