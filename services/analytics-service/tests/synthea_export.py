"""A made-up export in Synthea's form, with its peculiarities: payments in rows of their own, medications that make
claims too, a procedure twice in one claim, dates before 1970, addresses as answers to questions."""

import csv
import io
import random

HEADERS = {
    "claims_transactions": (
        "ID,CLAIMID,CHARGEID,PATIENTID,TYPE,AMOUNT,METHOD,FROMDATE,TODATE,PLACEOFSERVICE,PROCEDURECODE,NOTES,"
        "DEPARTMENTID,PAYMENTS,APPOINTMENTID,PROVIDERID"
    ),
    "claims": "Id,PATIENTID,DIAGNOSIS1,DIAGNOSIS2,DIAGNOSIS3,DIAGNOSIS4,DIAGNOSIS5,DIAGNOSIS6,DIAGNOSIS7,DIAGNOSIS8",
    "encounters": "Id,START,STOP,PATIENT,ORGANIZATION,PROVIDER,ENCOUNTERCLASS,CODE,TOTAL_CLAIM_COST,REASONCODE",
    "conditions": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION",
    "observations": "DATE,PATIENT,ENCOUNTER,CATEGORY,CODE,DESCRIPTION,VALUE,UNITS,TYPE",
    "procedures": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION,BASE_COST",
    "medications": "START,STOP,PATIENT,PAYER,ENCOUNTER,CODE,DESCRIPTION,BASE_COST,PAYER_COVERAGE,DISPENSES,TOTALCOST",
}
FILES = {
    "claims": ("claims_transactions", "claims", "encounters"),
    "clinical": ("conditions", "observations", "procedures"),
    "utilization": ("encounters",),
    "pharmacy": ("medications",),
}
DEPARTMENTS = {"ambulatory": 1, "outpatient": 2, "inpatient": 3, "emergency": 4, "urgentcare": 5, "wellness": 10}
VISIT, PROCEDURES, DRUGS = "185345009", ["430193006", "252160004"], ["665078", "1870230"]
PROBLEMS = ["44054006", "38341003", "195662009"]


class Export:
    """Writes patients; `files` are the CSV texts by name."""

    def __init__(self, seed: int, *, patients: int = 12) -> None:
        self.random = random.Random(seed)
        self.rows: dict[str, list[list[object]]] = {name: [] for name in HEADERS}
        self.patients = [self.uid() for _ in range(patients)]
        for patient in self.patients:
            self.charges = 0
            for _ in range(self.random.randrange(1, 8)):
                self.encounter(patient)
        self.files = {name: self.text(name) for name in HEADERS}

    def of(self, dataset: str) -> dict[str, str]:
        """The files that a dataset is made of."""
        return {name: self.files[name] for name in FILES[dataset]}

    def text(self, name: str) -> str:
        """A file."""
        output = io.StringIO()
        csv.writer(output, lineterminator="\n").writerows([HEADERS[name].split(","), *self.rows[name]])
        return output.getvalue()

    def uid(self) -> str:
        """An id as Synthea makes them."""
        bits = f"{self.random.getrandbits(128):032x}"
        return f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"

    def encounter(self, patient: str) -> None:
        """An encounter with all that comes of it."""
        pick, encounter, kind = self.random, self.uid(), self.random.choice(list(DEPARTMENTS))
        day = f"{pick.randrange(1960, 2024)}-{pick.randrange(1, 13):02}-{pick.randrange(1, 29):02}"
        at, until, problem = f"{day}T10:00:00Z", f"{day}T10:15:00Z", pick.choice(PROBLEMS)
        who = [patient, encounter]
        address = f"{pick.randrange(900)} Canary Lane Unit {pick.randrange(99)}"
        drugs = [pick.choice(DRUGS) for _ in range(pick.randrange(3))]
        self.rows["encounters"].append(
            [encounter, at, until, patient, self.uid(), self.uid(), kind, VISIT, "99.50", ""]
        )
        self.rows["conditions"].append([day, "", *who, problem, f"About {problem}"])
        self.rows["observations"] += [
            [at, *who, "vital-signs", "8302-2", "Body Height", "171.5", "cm", "numeric"],
            [at, *who, "survey", "56799-0", "What address do you live at?", address, "", "text"],
            [at, *who, "survey", "72166-2", "Tobacco smoking status", "Never smoker", "", "text"],
        ]
        self.rows["procedures"].append([at, until, *who, PROCEDURES[0], "Reconciliation (procedure)", "50.00"])
        codes = [VISIT, *pick.choices(PROCEDURES, k=pick.randrange(4))]
        self.claim(patient, encounter, codes, at=at, kind=kind, problem=problem)
        for drug in drugs:
            order = [at, "", patient, self.uid(), encounter, drug, "Loratadine 5 MG", "7.24", "2.10", 3, "21.72"]
            self.rows["medications"].append(order)
            self.claim(patient, encounter, [drug], at=at, kind=kind, problem=problem)

    def claim(self, patient: str, encounter: str, codes: list[str], *, at: str, kind: str, problem: str) -> None:
        """A claim: a charge for each code, and for each distinct one its payments."""
        claim, place, provider = self.uid(), self.uid(), self.uid()
        self.rows["claims"].append([claim, patient, problem, *[""] * 7])

        def transaction(code: str, *, charge: str = "", method: str = "", payment: str = "") -> None:
            what = "CHARGE" if charge else "PAYMENT" if payment else "TRANSFEROUT"
            row = [
                self.uid(),
                claim,
                self.charges,
                patient,
                what,
                charge,
                method,
                at,
                "1970-01-01T00:00:00Z",
                place,
                code,
            ]
            row += ["Encounter, with a comma", DEPARTMENTS[kind], payment, encounter, provider]
            self.rows["claims_transactions"].append(row)
            self.charges += 1

        for code in codes:
            transaction(code, charge=f"{self.random.randrange(50, 900)}.{self.random.randrange(100):02}")
        for code in dict.fromkeys(codes):
            transaction(code, method="ECHECK", payment=f"{self.random.randrange(90)}.{self.random.randrange(100):02}")
            transaction(
                code,
                method=self.random.choice(["COPAY", "CASH", "CC", "CHECK"]),
                payment=f"{self.random.randrange(90)}.5",
            )
            transaction(code)
