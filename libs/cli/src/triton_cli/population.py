"""What the sample's population has and uses: conditions, visits, drugs, measurements; their codes, rates and prices.

Codes are real: ICD-10-CM, CPT and HCPCS level II, CMS places of service, LOINC. Drug codes have an NDC's eleven digits.
Prevalences follow the order of magnitude of CDC's NHANES and NCHS tables for the United States, prices that of
commercial plans (HCCI, FAIR Health). Both are chosen for a plausible whole, not taken from a table: no study should use
them.
"""

from dataclasses import dataclass, field
from typing import Final

AGE_KNOTS: Final = (0, 18, 30, 40, 50, 60, 70, 85)
"""Where `Condition.prevalence` is given; straight lines between."""


@dataclass(frozen=True)
class Condition:
    """A chronic condition. `odds` multiplies its odds for members who have a condition that stands before it."""

    key: str
    codes: tuple[tuple[str, str, float], ...]
    """ICD-10-CM code, description, share of those who have the condition."""
    prevalence: tuple[float, ...]
    odds: dict[str, float] = field(default_factory=dict)
    sex: str = ""


CONDITIONS: Final = (
    Condition(
        "obesity",
        (("E66.9", "Obesity, unspecified", 0.7), ("E66.01", "Morbid (severe) obesity due to excess calories", 0.3)),
        (0.04, 0.12, 0.20, 0.25, 0.27, 0.27, 0.25, 0.15),
    ),
    Condition(
        "diabetes",
        (
            ("E11.9", "Type 2 diabetes mellitus without complications", 0.55),
            ("E11.65", "Type 2 diabetes mellitus with hyperglycemia", 0.30),
            ("E11.42", "Type 2 diabetes mellitus with diabetic polyneuropathy", 0.15),
        ),
        (0.0, 0.004, 0.015, 0.04, 0.08, 0.13, 0.17, 0.18),
        {"obesity": 2.8},
    ),
    Condition(
        "prediabetes",
        (("R73.03", "Prediabetes", 1.0),),
        (0.0, 0.01, 0.03, 0.06, 0.09, 0.11, 0.11, 0.10),
        {"obesity": 2.2, "diabetes": 0.0},
    ),
    Condition(
        "hypertension",
        (("I10", "Essential (primary) hypertension", 1.0),),
        (0.0, 0.02, 0.06, 0.14, 0.27, 0.40, 0.54, 0.62),
        {"obesity": 2.0, "diabetes": 2.5, "prediabetes": 1.5},
    ),
    Condition(
        "hyperlipidemia",
        (("E78.5", "Hyperlipidemia, unspecified", 0.7), ("E78.2", "Mixed hyperlipidemia", 0.3)),
        (0.0, 0.02, 0.06, 0.13, 0.23, 0.33, 0.42, 0.42),
        {"diabetes": 3.0, "hypertension": 2.0},
    ),
    Condition(
        "kidney disease",
        (
            ("N18.30", "Chronic kidney disease, stage 3 unspecified", 0.8),
            ("N18.4", "Chronic kidney disease, stage 4", 0.2),
        ),
        (0.0, 0.001, 0.003, 0.006, 0.012, 0.03, 0.08, 0.16),
        {"diabetes": 3.5, "hypertension": 2.5},
    ),
    Condition(
        "coronary disease",
        (("I25.10", "Atherosclerotic heart disease of native coronary artery without angina pectoris", 1.0),),
        (0.0, 0.0, 0.002, 0.006, 0.02, 0.05, 0.11, 0.18),
        {"diabetes": 2.2, "hypertension": 2.0, "hyperlipidemia": 2.0},
    ),
    Condition(
        "heart failure",
        (("I50.9", "Heart failure, unspecified", 0.6), ("I50.22", "Chronic systolic (congestive) heart failure", 0.4)),
        (0.0, 0.0, 0.001, 0.002, 0.006, 0.015, 0.04, 0.10),
        {"coronary disease": 4.0, "hypertension": 2.0, "kidney disease": 2.5},
    ),
    Condition(
        "atrial fibrillation",
        (("I48.91", "Unspecified atrial fibrillation", 1.0),),
        (0.0, 0.0, 0.001, 0.003, 0.008, 0.02, 0.06, 0.12),
        {"heart failure": 4.0, "hypertension": 1.5},
    ),
    Condition(
        "copd",
        (("J44.9", "Chronic obstructive pulmonary disease, unspecified", 1.0),),
        (0.0, 0.0, 0.003, 0.01, 0.03, 0.06, 0.10, 0.11),
    ),
    Condition(
        "asthma",
        (
            ("J45.909", "Unspecified asthma, uncomplicated", 0.8),
            ("J45.40", "Moderate persistent asthma, uncomplicated", 0.2),
        ),
        (0.07, 0.08, 0.07, 0.06, 0.06, 0.06, 0.06, 0.05),
        {"obesity": 1.4},
    ),
    Condition(
        "depression",
        (
            ("F32.A", "Depression, unspecified", 0.6),
            ("F33.1", "Major depressive disorder, recurrent, moderate", 0.4),
        ),
        (0.005, 0.09, 0.10, 0.09, 0.09, 0.08, 0.07, 0.06),
        {"obesity": 1.3, "diabetes": 1.4},
    ),
    Condition(
        "anxiety",
        (("F41.1", "Generalized anxiety disorder", 0.5), ("F41.9", "Anxiety disorder, unspecified", 0.5)),
        (0.02, 0.09, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04),
        {"depression": 4.0},
    ),
    Condition(
        "osteoarthritis",
        (("M17.9", "Osteoarthritis of knee, unspecified", 1.0),),
        (0.0, 0.0, 0.005, 0.02, 0.06, 0.12, 0.18, 0.22),
        {"obesity": 1.8},
    ),
    Condition(
        "back pain",
        (("M54.50", "Low back pain, unspecified", 1.0),),
        (0.0, 0.03, 0.07, 0.09, 0.11, 0.12, 0.11, 0.10),
        {"obesity": 1.3},
    ),
    Condition(
        "hypothyroidism",
        (("E03.9", "Hypothyroidism, unspecified", 1.0),),
        (0.001, 0.01, 0.02, 0.03, 0.05, 0.07, 0.09, 0.10),
    ),
    Condition(
        "reflux",
        (("K21.9", "Gastro-esophageal reflux disease without esophagitis", 1.0),),
        (0.005, 0.03, 0.05, 0.08, 0.11, 0.14, 0.15, 0.15),
        {"obesity": 1.5},
    ),
    Condition(
        "sleep apnea",
        (("G47.33", "Obstructive sleep apnea (adult) (pediatric)", 1.0),),
        (0.002, 0.005, 0.02, 0.04, 0.07, 0.09, 0.09, 0.06),
        {"obesity": 4.0},
    ),
    Condition(
        "rheumatoid arthritis",
        (("M06.9", "Rheumatoid arthritis, unspecified", 1.0),),
        (0.0, 0.001, 0.003, 0.005, 0.008, 0.012, 0.014, 0.014),
    ),
    Condition(
        "psoriasis",
        (("L40.0", "Psoriasis vulgaris", 1.0),),
        (0.003, 0.015, 0.025, 0.030, 0.034, 0.034, 0.032, 0.025),
    ),
    Condition(
        "multiple sclerosis",
        (("G35", "Multiple sclerosis", 1.0),),
        (0.0, 0.0005, 0.002, 0.003, 0.004, 0.005, 0.004, 0.002),
    ),
    Condition(
        "dialysis",
        (("N18.6", "End stage renal disease", 1.0),),
        (0.0, 0.0, 0.0001, 0.0003, 0.0006, 0.001, 0.002, 0.002),
        {"diabetes": 5.0, "kidney disease": 4.0},
    ),
    Condition(
        "breast cancer",
        (("C50.911", "Malignant neoplasm of unspecified site of right female breast", 1.0),),
        (0.0, 0.0, 0.001, 0.005, 0.010, 0.015, 0.020, 0.020),
        sex="F",
    ),
    Condition(
        "prostate cancer",
        (("C61", "Malignant neoplasm of prostate", 1.0),),
        (0.0, 0.0, 0.0, 0.0, 0.004, 0.012, 0.025, 0.030),
        sex="M",
    ),
)


@dataclass(frozen=True)
class Line:
    """A line of a claim: CPT or HCPCS code, median price in USD, spread (sigma of its logarithm), chance of it."""

    code: str
    price: float
    spread: float = 0.25
    chance: float = 1.0


@dataclass(frozen=True)
class Visit:
    """A kind of encounter and its claim.

    `rate` is per year and member, summed over the groups a member is in: those of `sample.Members.group`, and
    conditions. `dx` is a condition, or a diagnosis code of its own.
    """

    encounter_class: str
    claim_type: str
    place: str
    dx: str
    lines: tuple[Line, ...]
    rate: dict[str, float]
    coinsurance: float = 0.2
    frail: bool = False
    """Falls more often on members who are frail."""
    days: float = 0.0
    """Mean length of stay."""


_VENOUS = Line("36415", 9, chance=0.9)
_METABOLIC = Line("80053", 28, chance=0.6)
_BLOOD_COUNT = Line("85025", 18, chance=0.5)
_LIPIDS = Line("80061", 32, chance=0.6)
_A1C = Line("83036", 24, chance=0.9)
_ADMISSION = (Line("99232", 240, 0.4), Line("99239", 165, 0.3))


def _office(dx: str, rate: float, *lines: Line, level: str = "99214", price: float = 195) -> Visit:
    """Follow-up of a condition at a doctor's office."""
    return Visit("ambulatory", "professional", "11", dx, (Line(level, price), *lines), {dx: rate})


def _emergency(dx: str, rate: dict[str, float], *lines: Line) -> Visit:
    """Emergency department; a hospital's outpatient claim at place of service 23."""
    return Visit("emergency", "outpatient", "23", dx, (Line("99284", 1150, 0.6), *lines), rate, frail=True)


def _admission(  # noqa: PLR0917  a row of the table below
    dx: str, rate: dict[str, float], code: str, price: float, days: float, spread: float = 0.85
) -> Visit:
    """Hospital admission: the stay on the first line, doctors' rounds and discharge beside it."""
    lines = (Line(code, price, spread), *_ADMISSION)
    return Visit("inpatient", "inpatient", "21", dx, lines, rate, coinsurance=0.1, frail=True, days=days)


VISITS: Final = (
    # prevention
    Visit(
        "wellness",
        "professional",
        "11",
        "Z00.00",
        (
            Line("99396", 205),
            Line("90686", 24, chance=0.4),
            Line("90471", 26, chance=0.4),
            _VENOUS,
            _LIPIDS,
            _METABOLIC,
        ),
        {"adult": 0.42, "senior": 0.75},
        coinsurance=0.0,
    ),
    Visit(
        "wellness",
        "professional",
        "11",
        "Z00.129",
        (Line("99393", 180), Line("90686", 24, chance=0.5), Line("90471", 26, chance=0.5)),
        {"child": 0.8, "infant": 3.0},
        coinsurance=0.0,
    ),
    Visit("outpatient", "outpatient", "22", "Z12.31", (Line("77067", 240),), {"screened women": 0.5}, coinsurance=0.0),
    Visit(
        "outpatient",
        "outpatient",
        "24",
        "Z12.11",
        (Line("45378", 1350, 0.35), Line("45385", 620, 0.3, chance=0.3)),
        {"screened": 0.07},
        coinsurance=0.0,
    ),
    # acute, at the office, urgent care and by video
    Visit(
        "ambulatory", "professional", "11", "J06.9", (Line("99213", 135),), {"all": 0.35, "child": 0.5, "infant": 1.0}
    ),
    Visit(
        "ambulatory",
        "professional",
        "11",
        "J02.9",
        (Line("99213", 135), Line("87880", 22, chance=0.8)),
        {"all": 0.10, "child": 0.3},
    ),
    Visit(
        "ambulatory",
        "professional",
        "11",
        "N39.0",
        (Line("99213", 135), Line("81001", 8), Line("87086", 16)),
        {"women": 0.15, "senior": 0.1},
    ),
    Visit("ambulatory", "professional", "11", "L30.9", (Line("99213", 135),), {"all": 0.12}),
    Visit(
        "urgentcare",
        "professional",
        "20",
        "S93.401A",
        (Line("99203", 185), Line("73610", 55, chance=0.8)),
        {"all": 0.09, "child": 0.06},
    ),
    Visit("virtual", "professional", "10", "J01.90", (Line("99213", 88),), {"all": 0.14}),
    Visit(
        "outpatient",
        "outpatient",
        "22",
        "R10.9",
        (Line("74177", 780, 0.6), Line("85025", 30), Line("80053", 45)),
        {"adult": 0.04, "senior": 0.06},
        frail=True,
    ),
    Visit(
        "outpatient",
        "outpatient",
        "24",
        "K80.20",
        (Line("47562", 7800, 0.45), Line("00790", 950, 0.3)),
        {"adult": 0.006, "senior": 0.008},
    ),
    Visit(
        "outpatient",
        "outpatient",
        "22",
        "R53.83",
        (Line("80050", 260, 0.5), Line("84443", 95, 0.4, chance=0.6), Line("36415", 28)),
        {"adult": 0.30, "senior": 0.55},
        frail=True,
    ),
    Visit(
        "outpatient",
        "outpatient",
        "22",
        "R93.89",
        (Line("71260", 920, 0.6),),
        {"adult": 0.05, "senior": 0.14},
        frail=True,
    ),
    Visit("outpatient", "outpatient", "22", "M25.561", (Line("73721", 890, 0.5),), {"adult": 0.06, "senior": 0.06}),
    Visit("outpatient", "outpatient", "24", "M23.205", (Line("29881", 6900, 0.4),), {"adult": 0.010, "senior": 0.010}),
    Visit("outpatient", "outpatient", "22", "K40.90", (Line("49505", 9200, 0.4),), {"adult": 0.006, "senior": 0.010}),
    Visit("outpatient", "outpatient", "24", "J35.01", (Line("42820", 6100, 0.35),), {"child": 0.010}),
    Visit("outpatient", "outpatient", "22", "D25.9", (Line("58571", 15500, 0.35),), {"screened women": 0.006}),
    Visit("outpatient", "outpatient", "22", "H25.9", (Line("66984", 3200, 0.3),), {"senior": 0.06}),
    # chronic conditions
    _office("obesity", 0.7, level="99213", price=135),
    Visit(
        "outpatient", "outpatient", "22", "obesity", (Line("43775", 17500, 0.3),), {"obesity": 0.004}, coinsurance=0.15
    ),
    _office("diabetes", 2.6, _A1C, _METABOLIC, _VENOUS, Line("82043", 14, chance=0.4)),
    Visit("ambulatory", "professional", "11", "diabetes", (Line("92014", 145), Line("92250", 62)), {"diabetes": 0.5}),
    _office("prediabetes", 0.9, _A1C, _VENOUS, level="99213", price=135),
    _office("hypertension", 1.5, _METABOLIC, _VENOUS, Line("93000", 24, chance=0.2)),
    _office("hyperlipidemia", 0.8, _LIPIDS, _VENOUS, level="99213", price=135),
    _office("kidney disease", 2.5, _METABOLIC, _BLOOD_COUNT, _VENOUS),
    _office("coronary disease", 1.8, Line("93000", 24), _LIPIDS),
    Visit(
        "outpatient", "outpatient", "22", "coronary disease", (Line("78452", 1350, 0.4),), {"coronary disease": 0.22}
    ),
    _office("heart failure", 3.0, _METABOLIC, Line("83880", 55, chance=0.6), Line("93306", 420, 0.3, chance=0.25)),
    _office("atrial fibrillation", 2.0, Line("93000", 24)),
    _office("copd", 1.8, Line("94060", 72, chance=0.4)),
    _office("asthma", 1.1, Line("94010", 42, chance=0.4)),
    _office("depression", 1.0),
    Visit("virtual", "professional", "10", "depression", (Line("90834", 125),), {"depression": 3.5}),
    Visit("virtual", "professional", "10", "anxiety", (Line("90834", 125),), {"anxiety": 2.4}),
    _office("osteoarthritis", 1.2, Line("20610", 110, chance=0.3), Line("73562", 48, chance=0.3)),
    Visit("ambulatory", "professional", "11", "back pain", (Line("97110", 62), Line("97140", 54)), {"back pain": 3.0}),
    Visit("outpatient", "outpatient", "22", "back pain", (Line("72148", 620, 0.5),), {"back pain": 0.15}),
    _office("hypothyroidism", 1.0, Line("84443", 34), _VENOUS, level="99213", price=135),
    _office("reflux", 0.5, level="99213", price=135),
    Visit("outpatient", "outpatient", "24", "reflux", (Line("43239", 1250, 0.35),), {"reflux": 0.06}),
    Visit("outpatient", "outpatient", "22", "sleep apnea", (Line("95811", 1100, 0.3),), {"sleep apnea": 0.15}),
    _office("sleep apnea", 0.8, level="99213", price=135),
    _office("rheumatoid arthritis", 3.2, _METABOLIC, _BLOOD_COUNT),
    _office("breast cancer", 3.0, _BLOOD_COUNT),
    Visit(
        "outpatient",
        "outpatient",
        "22",
        "breast cancer",
        (Line("96413", 720, 0.4), Line("J9355", 3400, 0.5)),
        {"breast cancer": 3.0},
    ),
    _office("prostate cancer", 2.5, Line("84153", 36)),
    Visit("outpatient", "outpatient", "22", "prostate cancer", (Line("77385", 1900, 0.4),), {"prostate cancer": 2.2}),
    _office("psoriasis", 1.6),
    _office("multiple sclerosis", 2.5),
    Visit(
        "outpatient", "outpatient", "22", "multiple sclerosis", (Line("70553", 1650, 0.4),), {"multiple sclerosis": 1.0}
    ),
    Visit(
        "outpatient", "outpatient", "65", "dialysis", (Line("90999", 3600, 0.3),), {"dialysis": 40.0}, coinsurance=0.1
    ),
    # emergency
    _emergency(
        "R07.9", {"adult": 0.035, "senior": 0.06, "coronary disease": 0.12}, Line("71046", 190), Line("93005", 140)
    ),
    _emergency("R10.9", {"all": 0.03}, Line("74177", 1400, 0.5, chance=0.5), Line("80053", 110)),
    _emergency("S61.411A", {"all": 0.03, "child": 0.04}, Line("12001", 480, 0.4)),
    _emergency("J45.901", {"asthma": 0.08}, Line("94640", 210)),
    _emergency("R51.9", {"all": 0.018}, Line("70450", 980, 0.5)),
    _emergency("diabetes", {"diabetes": 0.07}, Line("80053", 110), Line("82962", 40)),
    _emergency("hypertension", {"hypertension": 0.025}, Line("93005", 140)),
    # admissions
    _admission("J18.9", {"all": 0.0021, "senior": 0.017, "copd": 0.042}, "99223", 14200, 4),
    _admission(
        "A41.9", {"adult": 0.0014, "senior": 0.014, "diabetes": 0.0084, "kidney disease": 0.028}, "99223", 25000, 6
    ),
    _admission("I21.4", {"coronary disease": 0.042, "hypertension": 0.0028}, "92941", 37100, 4),
    _admission("I63.9", {"senior": 0.007, "hypertension": 0.0035}, "99223", 24300, 5),
    _admission("heart failure", {"heart failure": 0.22}, "99223", 16900, 5),
    _admission("copd", {"copd": 0.07}, "99223", 13500, 4),
    _admission("diabetes", {"diabetes": 0.022}, "99223", 14900, 4),
    _admission("kidney disease", {"kidney disease": 0.042}, "99223", 18200, 5),
    _admission("depression", {"depression": 0.011}, "99223", 11500, 6, 0.5),
    _admission("osteoarthritis", {"osteoarthritis": 0.049}, "27447", 35800, 2, 0.3),
    _admission("K35.80", {"all": 0.0014}, "44970", 20900, 2, 0.4),
    _admission("C18.9", {"screened": 0.0017}, "44204", 51300, 6, 0.6),
    _admission("P07.30", {"newborn": 0.07}, "99468", 62000, 16, 1.0),
    Visit(
        "inpatient",
        "inpatient",
        "21",
        "O80",
        (Line("59400", 12500, 0.35), Line("01967", 1500, 0.3, chance=0.7)),
        {"childbearing": 0.055},
        coinsurance=0.1,
        days=2.2,
    ),
)


DIAGNOSES: Final = {
    "A41.9": "Sepsis, unspecified organism",
    "C18.9": "Malignant neoplasm of colon, unspecified",
    "D25.9": "Leiomyoma of uterus, unspecified",
    "H25.9": "Unspecified age-related cataract",
    "I21.4": "Non-ST elevation (NSTEMI) myocardial infarction",
    "I63.9": "Cerebral infarction, unspecified",
    "J01.90": "Acute sinusitis, unspecified",
    "J02.9": "Acute pharyngitis, unspecified",
    "J06.9": "Acute upper respiratory infection, unspecified",
    "J18.9": "Pneumonia, unspecified organism",
    "J35.01": "Chronic tonsillitis",
    "J45.901": "Unspecified asthma with (acute) exacerbation",
    "K35.80": "Unspecified acute appendicitis",
    "K40.90": "Unilateral inguinal hernia, without obstruction or gangrene, not specified as recurrent",
    "K80.20": "Calculus of gallbladder without cholecystitis without obstruction",
    "L30.9": "Dermatitis, unspecified",
    "M23.205": "Derangement of unspecified medial meniscus due to old tear or injury, unspecified knee",
    "M25.561": "Pain in right knee",
    "N39.0": "Urinary tract infection, site not specified",
    "O80": "Encounter for full-term uncomplicated delivery",
    "P07.30": "Preterm newborn, unspecified weeks of gestation",
    "R07.9": "Chest pain, unspecified",
    "R10.9": "Unspecified abdominal pain",
    "R51.9": "Headache, unspecified",
    "R53.83": "Other fatigue",
    "R93.89": "Abnormal findings on diagnostic imaging of other specified body structures",
    "S61.411A": "Laceration without foreign body of right hand, initial encounter",
    "S93.401A": "Sprain of unspecified ligament of right ankle, initial encounter",
    "Z00.00": "Encounter for general adult medical examination without abnormal findings",
    "Z00.129": "Encounter for routine child health examination without abnormal findings",
    "Z12.11": "Encounter for screening for malignant neoplasm of colon",
    "Z12.31": "Encounter for screening mammogram for malignant neoplasm of breast",
}
"""The diagnoses of visits that are for no chronic condition."""


@dataclass(frozen=True)
class Drug:
    """A drug that members with a condition take: NDC, name, class, price of 30 days, share of those members."""

    ndc: str
    name: str
    therapeutic_class: str
    price: float
    condition: str
    share: float
    units: int = 30


DRUGS: Final = (
    Drug("00093104801", "Metformin 500 MG Oral Tablet", "Antidiabetics: biguanides", 9, "diabetes", 0.70, 60),
    Drug("00597015230", "Empagliflozin 10 MG Oral Tablet", "Antidiabetics: SGLT2 inhibitors", 540, "diabetes", 0.14),
    Drug(
        "00169413212",
        "Semaglutide 1 MG/0.74 ML Injection",
        "Antidiabetics: GLP-1 receptor agonists",
        880,
        "diabetes",
        0.16,
        3,
    ),
    Drug("00088222033", "Insulin Glargine 100 UNT/ML Injection", "Antidiabetics: insulins", 105, "diabetes", 0.18, 10),
    Drug("00093104802", "Metformin 500 MG Oral Tablet", "Antidiabetics: biguanides", 9, "prediabetes", 0.12, 60),
    Drug(
        "00169452514",
        "Semaglutide 2.4 MG/0.75 ML Injection",
        "Anti-obesity: GLP-1 receptor agonists",
        1150,
        "obesity",
        0.025,
        3,
    ),
    Drug("68180051301", "Lisinopril 10 MG Oral Tablet", "Antihypertensives: ACE inhibitors", 6, "hypertension", 0.42),
    Drug(
        "00069153068",
        "Amlodipine 5 MG Oral Tablet",
        "Antihypertensives: calcium channel blockers",
        6,
        "hypertension",
        0.30,
    ),
    Drug(
        "00006095254",
        "Losartan 50 MG Oral Tablet",
        "Antihypertensives: angiotensin receptor blockers",
        8,
        "hypertension",
        0.24,
    ),
    Drug(
        "00228282011", "Hydrochlorothiazide 25 MG Oral Tablet", "Antihypertensives: diuretics", 5, "hypertension", 0.20
    ),
    Drug("00071015523", "Atorvastatin 20 MG Oral Tablet", "Antihyperlipidemics: statins", 8, "hyperlipidemia", 0.62),
    Drug("00006054354", "Ezetimibe 10 MG Oral Tablet", "Antihyperlipidemics: others", 14, "hyperlipidemia", 0.06),
    Drug("00186109005", "Metoprolol Succinate 50 MG Oral Tablet", "Beta blockers", 12, "coronary disease", 0.65),
    Drug("63653117101", "Clopidogrel 75 MG Oral Tablet", "Antiplatelets", 10, "coronary disease", 0.35),
    Drug(
        "00078065920", "Sacubitril 49 MG / Valsartan 51 MG Oral Tablet", "Heart failure", 600, "heart failure", 0.35, 60
    ),
    Drug("00054429931", "Furosemide 40 MG Oral Tablet", "Diuretics: loop", 6, "heart failure", 0.70),
    Drug("00003089421", "Apixaban 5 MG Oral Tablet", "Anticoagulants", 530, "atrial fibrillation", 0.65, 60),
    Drug("00597007541", "Tiotropium 18 MCG Inhalation Powder", "Respiratory: anticholinergics", 420, "copd", 0.50),
    Drug("59310057922", "Albuterol 90 MCG Inhaler", "Respiratory: beta agonists", 38, "asthma", 0.65, 1),
    Drug(
        "00173069600",
        "Fluticasone 250 MCG / Salmeterol 50 MCG Inhaler",
        "Respiratory: corticosteroids",
        180,
        "asthma",
        0.28,
        60,
    ),
    Drug("00049490066", "Sertraline 50 MG Oral Tablet", "Antidepressants: SSRIs", 8, "depression", 0.45),
    Drug("00093508656", "Bupropion 150 MG Oral Tablet", "Antidepressants: others", 16, "depression", 0.22),
    Drug("00456201001", "Escitalopram 10 MG Oral Tablet", "Antidepressants: SSRIs", 8, "anxiety", 0.40),
    Drug("00378855093", "Meloxicam 15 MG Oral Tablet", "Analgesics: NSAIDs", 7, "osteoarthritis", 0.35),
    Drug("00071080524", "Gabapentin 300 MG Oral Capsule", "Anticonvulsants", 12, "back pain", 0.16, 90),
    Drug("00074455213", "Levothyroxine 50 MCG Oral Tablet", "Thyroid hormones", 12, "hypothyroidism", 0.88),
    Drug("00186074231", "Omeprazole 20 MG Oral Capsule", "Gastrointestinal: proton pump inhibitors", 9, "reflux", 0.45),
    Drug(
        "00074433902",
        "Adalimumab 40 MG/0.8 ML Injection",
        "Immunology: TNF inhibitors",
        5200,
        "rheumatoid arthritis",
        0.32,
        2,
    ),
    Drug(
        "57894006103",
        "Ustekinumab 90 MG/ML Injection",
        "Immunology: interleukin inhibitors",
        6900,
        "psoriasis",
        0.07,
        1,
    ),
    Drug(
        "00024591401", "Dupilumab 300 MG/2 ML Injection", "Immunology: interleukin inhibitors", 3100, "asthma", 0.025, 2
    ),
    Drug(
        "64406000602",
        "Dimethyl Fumarate 240 MG Oral Capsule",
        "Multiple sclerosis",
        6800,
        "multiple sclerosis",
        0.6,
        60,
    ),
    Drug(
        "00555057202",
        "Methotrexate 2.5 MG Oral Tablet",
        "Immunology: antimetabolites",
        22,
        "rheumatoid arthritis",
        0.55,
    ),
    Drug("16729003410", "Anastrozole 1 MG Oral Tablet", "Oncology: aromatase inhibitors", 14, "breast cancer", 0.55),
)
ACUTE_DRUG: Final = Drug(
    "00093310905", "Amoxicillin 500 MG Oral Capsule", "Anti-infectives: penicillins", 11, "", 0.45, 21
)
ACUTE_DX: Final = frozenset({"J02.9", "J01.90", "N39.0"})
"""Visits after which it is dispensed."""


@dataclass(frozen=True)
class Measurement:
    """A measurement: LOINC code, times a year by group, mean and spread, and what conditions add to the mean."""

    code: str
    description: str
    unit: str
    rate: dict[str, float]
    mean: float
    spread: float
    shifts: dict[str, float]
    decimals: int = 0
    least: float = 0.0


MEASUREMENTS: Final = (
    Measurement(
        "4548-4",
        "Hemoglobin A1c/Hemoglobin.total in Blood",
        "%",
        {"diabetes": 2.2, "prediabetes": 1.0, "adult": 0.08, "senior": 0.1},
        5.3,
        0.25,
        {"diabetes": 2.3, "prediabetes": 0.65},
        1,
        4.0,
    ),
    Measurement(
        "39156-5",
        "Body mass index (BMI) [Ratio]",
        "kg/m2",
        {"adult": 0.8, "senior": 1.0},
        25.2,
        2.2,
        {"obesity": 9.0, "diabetes": 1.2},
        1,
        16.0,
    ),
    Measurement(
        "8480-6",
        "Systolic blood pressure",
        "mm[Hg]",
        {"adult": 0.8, "senior": 1.0, "hypertension": 1.4},
        119,
        9,
        {"hypertension": 18, "obesity": 3, "kidney disease": 4},
        least=80,
    ),
    Measurement(
        "8462-4",
        "Diastolic blood pressure",
        "mm[Hg]",
        {"adult": 0.8, "senior": 1.0, "hypertension": 1.4},
        75,
        7,
        {"hypertension": 10, "obesity": 2},
        least=45,
    ),
    Measurement(
        "13457-7",
        "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation",
        "mg/dL",
        {"adult": 0.25, "hyperlipidemia": 0.9},
        108,
        24,
        {"hyperlipidemia": 22, "coronary disease": -25},
        least=30,
    ),
    Measurement(
        "33914-3",
        "Glomerular filtration rate/1.73 sq M.predicted [Volume Rate/Area]",
        "mL/min/{1.73_m2}",
        {"kidney disease": 2.0, "diabetes": 0.7, "hypertension": 0.4},
        88,
        12,
        {"kidney disease": -45},
        least=8,
    ),
)
