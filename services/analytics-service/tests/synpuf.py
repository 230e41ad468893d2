"""DE-SynPUF's files, made up in the shape of its codebook: beneficiaries, three kinds of claims, drugs."""

import csv
import io

ICD9 = ["25000", "4019", "V5867", "2724", "E8490"]
INPATIENT = "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1"
OUTPATIENT = "DE1_0_2008_to_2010_Outpatient_Claims_Sample_1"
CARRIER = "DE1_0_2008_to_2010_Carrier_Claims_Sample_1{}"
DRUGS = "DE1_0_2008_to_2010_Prescription_Drug_Events_Sample_1"
BENEFICIARIES = "DE1_0_{}_Beneficiary_Summary_File_Sample_1"
FLAGS = [
    "ALZHDMTA",
    "CHF",
    "CHRNKIDN",
    "CNCR",
    "COPD",
    "DEPRESSN",
    "DIABETES",
    "ISCHMCHT",
    "OSTEOPRS",
    "RA_OA",
    "STRKETIA",
]


def numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{number}" for number in range(1, count + 1)]


def text(header: list[str], rows: list[dict[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, header, restval="", quoting=csv.QUOTE_MINIMAL)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def member(number: int) -> str:
    return f"{number:08X}CANARYID"


def beneficiaries(year: int) -> str:
    header = ["DESYNPUF_ID", "BENE_BIRTH_DT", "BENE_DEATH_DT", "BENE_SEX_IDENT_CD", "BENE_RACE_CD", "BENE_ESRD_IND"]
    header += ["SP_STATE_CODE", "BENE_COUNTY_CD", "BENE_HI_CVRAGE_TOT_MONS", *(f"SP_{flag}" for flag in FLAGS)]
    header += ["MEDREIMB_IP", "BENRES_IP", "PPPYMT_IP"]
    flagged = {"SP_DIABETES": 2, "SP_CHF": 3}  # every second member, every third
    rows = [
        {"DESYNPUF_ID": member(number), "BENE_BIRTH_DT": "19330401"}
        | {f"SP_{flag}": "1" if number % flagged.get(f"SP_{flag}", 99) == 0 else "2" for flag in FLAGS}
        for number in range(1, 13)
    ]
    assert year
    return text(header, rows)


def facility(kind: str) -> str:
    """Inpatient or outpatient; a second segment repeats each fifth claim."""
    owed = {
        "inpatient": ["NCH_BENE_IP_DDCTBL_AMT", "NCH_BENE_PTA_COINSRNC_LBLTY_AM", "NCH_BENE_BLOOD_DDCTBL_LBLTY_AM"],
        "outpatient": ["NCH_BENE_BLOOD_DDCTBL_LBLTY_AM", "NCH_BENE_PTB_DDCTBL_AMT", "NCH_BENE_PTB_COINSRNC_AMT"],
    }[kind]
    header = ["DESYNPUF_ID", "CLM_ID", "SEGMENT", "CLM_FROM_DT", "CLM_THRU_DT", "PRVDR_NUM", "CLM_PMT_AMT"]
    header += ["NCH_PRMRY_PYR_CLM_PD_AMT", "AT_PHYSN_NPI", "CLM_ADMSN_DT", "ADMTNG_ICD9_DGNS_CD", *owed]
    header += ["CLM_UTLZTN_DAY_CNT", "NCH_BENE_DSCHRG_DT", *numbered("ICD9_DGNS_CD", 10)]
    header += [*numbered("ICD9_PRCDR_CD", 6), *numbered("HCPCS_CD", 45)]
    rows = []
    for number in range(20):
        row = {
            "DESYNPUF_ID": member(number % 12 + 1),
            "CLM_ID": f"{kind[0]}{number}CANARY",
            "SEGMENT": "1",
            "CLM_FROM_DT": f"{2008 + number % 3}0{1 + number % 9}11",
            "CLM_THRU_DT": f"{2008 + number % 3}0{1 + number % 9}13",
            "PRVDR_NUM": f"1{number}00GM",
            "CLM_PMT_AMT": "4000.00",
            owed[0]: "1024.00",
            "ICD9_DGNS_CD_1": ICD9[number % 5],
            "ICD9_DGNS_CD_2": ICD9[(number + 1) % 5],
            "ADMTNG_ICD9_DGNS_CD": "4580",
        }
        if kind == "inpatient":
            row |= {"CLM_ADMSN_DT": row["CLM_FROM_DT"], "NCH_BENE_DSCHRG_DT": row["CLM_THRU_DT"]}
            row |= {"CLM_UTLZTN_DAY_CNT": "2", "ICD9_PRCDR_CD_1": "7935"}
        else:
            row |= {"HCPCS_CD_1": "85610"}
        rows += [row, row | {"SEGMENT": "2"}] if number % 5 == 0 else [row]
    return text(header, rows)


def carrier(part: str) -> str:
    """Claims of one to thirteen lines, side by side."""
    each = ["PRF_PHYSN_NPI", "TAX_NUM", "HCPCS_CD", "LINE_NCH_PMT_AMT", "LINE_BENE_PTB_DDCTBL_AMT", "LINE_COINSRNC_AMT"]
    each += ["LINE_BENE_PRMRY_PYR_PD_AMT", "LINE_ALOWD_CHRG_AMT", "LINE_PRCSG_IND_CD", "LINE_ICD9_DGNS_CD"]
    header = ["DESYNPUF_ID", "CLM_ID", "CLM_FROM_DT", "CLM_THRU_DT", *numbered("ICD9_DGNS_CD", 8)]
    header += [name for one in each for name in numbered(one, 13)]
    rows = []
    for number in range(13):
        row = {
            "DESYNPUF_ID": member(number % 12 + 1),
            "CLM_ID": f"{part}{number}CANARY",
            "CLM_FROM_DT": "20090302",
            "CLM_THRU_DT": "20090302",
            "ICD9_DGNS_CD_1": "4019",
        }
        for line in range(1, number + 2):
            row |= {
                f"PRF_PHYSN_NPI_{line}": "4824842417",
                f"HCPCS_CD_{line}": "99213",
                f"LINE_NCH_PMT_AMT_{line}": "50.00",
                f"LINE_COINSRNC_AMT_{line}": "10.00",
                f"LINE_ALOWD_CHRG_AMT_{line}": "60.00",
                f"LINE_ICD9_DGNS_CD_{line}": "25000",
            }
        rows.append(row)
    return text(header, rows)


def drugs() -> str:
    header = ["DESYNPUF_ID", "PDE_ID", "SRVC_DT", "PROD_SRVC_ID", "QTY_DSPNSD_NUM", "DAYS_SUPLY_NUM"]
    header += ["PTNT_PAY_AMT", "TOT_RX_CST_AMT"]
    rows = [
        [member(n % 12 + 1), f"{n}CANARY", "20081014", "00247181804", "30.000", "30", "10.00", "40.00"]
        for n in range(20)
    ]
    return text(header, [dict(zip(header, row, strict=True)) for row in rows])
