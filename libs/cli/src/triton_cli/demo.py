"""The main job, done through the gateway as a user does it: log in, create client, value proposition and prospect, load
the prospect's data, submit the job, follow it, read the document."""

import asyncio
import hashlib
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urljoin

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from uuid_utils.compat import uuid7

from triton_cli.api import Api
from triton_cli.command import say
from triton_cli.progress import follow, shown
from triton_cli.running import follow_start, for_ever, running
from triton_cli.sample import write_sample
from triton_cli.state import ADMIN_EMAIL, DEFAULT_PORT, CommandFailed, State, url_of
from triton_common.schemas import ValuePropositionContent

CLIENT: Final = "Northstar Health Programmes"
PROGRAMME: Final = "Cardiometabolic Coaching"
EVIDENCE: Final = "An assumption made for this demonstration, not the finding of a study."
SYNTHEA: Final[dict[str, tuple[str, ...]]] = {
    "claims": ("claims_transactions.csv", "claims.csv", "encounters.csv"),
    "clinical": ("conditions.csv", "observations.csv", "procedures.csv"),
    "utilization": ("encounters.csv",),
    "pharmacy": ("medications.csv",),
}
"""The files of a Synthea CSV export that make each dataset. Without the first it is left out, clinical excepted."""

UPLOAD_TIMEOUT: Final = 900.0  # seconds; an extract is checked whole before it is answered
HEADLINES: Final = (
    ("Members", "members"),
    ("Member months", "member_months"),
    ("Total paid", "total_paid"),
    ("Cost per member per month", "pmpm"),
    ("Members who qualify", "cohort.members"),
    ("Gross savings, base case", "savings.base"),
    ("Net of fees, base case", "net.base"),
    ("Return on investment, base case", "roi.base"),
    ("Payback, base case", "payback_month.base"),
)

PROPOSITION: Final = ValuePropositionContent.model_validate(
    {
        "summary": (
            "A coaching programme for people with high blood pressure, type 2 diabetes, prediabetes or obesity, "
            "which works together with the doctors they have."
        ),
        "programme": (
            "Members who take part get a coach of their own, connected devices for blood pressure, glucose and weight, "
            "and a review of their medication by a pharmacist. Coaches see the readings as they come in, act on those "
            "that call for it, and keep the member's doctor informed. Eligible members are found in the claims and "
            "invited by letter, phone and at their next visit."
        ),
        "eligibility": [
            {"system": "icd10cm", "code": "I10"},
            {"system": "icd10cm", "code": "E11*"},
            {"system": "icd10cm", "code": "R73.03"},
            {"system": "icd10cm", "code": "E66*"},
            {"system": "snomed", "code": "59621000"},
            {"system": "snomed", "code": "44054006"},
            {"system": "snomed", "code": "15777000"},
            {"system": "snomed", "code": "162864005"},
        ],
        "engagement": {"low": "0.15", "base": "0.25", "high": "0.35"},
        "effects": [
            {"driver": driver, "reduction": {"low": low, "base": base, "high": high}, "evidence": EVIDENCE}
            for driver, low, base, high in (
                ("inpatient", "0.08", "0.14", "0.20"),
                ("emergency", "0.08", "0.15", "0.22"),
                ("outpatient", "0.03", "0.06", "0.09"),
                ("pharmacy", "0.02", "0.05", "0.08"),
            )
        ],
        "fees": {"per_engaged_member_per_month": "35.00", "one_time": "5000.00"},
        "ramp_up_months": 6,
    }
)


@dataclass
class Outcome:
    """What the demo made, and how long each step took."""

    job_id: str = ""
    document_id: str = ""
    document_url: str = ""
    document_file: Path = Path()
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> str:
        """One line; money as numbers, for tools that calculate."""

        def number(key: str) -> float | int | None:
            value = self.facts.get(key, {}).get("value")
            return None if value is None else (int(float(value)) if key.startswith("member") else float(value))

        return json.dumps(
            {
                "job_id": self.job_id,
                "document_id": self.document_id,
                "document_url": self.document_url,
                "document_file": str(self.document_file),
                **{key: number(key) for key in ("members", "member_months", "total_paid", "pmpm")},
                "seconds": {step: round(took, 2) for step, took in self.seconds.items()},
            }
        )


@dataclass(frozen=True)
class Extract:
    """A prospect's data: the files of each dataset, the source that names their columns, a name for the prospect."""

    name: str
    source: str
    files: Mapping[str, tuple[Path, ...]]


def synthea_extract(folder: Path) -> Extract:
    """What a Synthea CSV export has to load. Raises CommandFailed when it has none of the files."""
    if not folder.is_dir():
        raise CommandFailed(f"{folder} is not a folder. Give --data the folder of a Synthea CSV export.")
    files = {
        dataset: tuple(folder / name for name in names if (folder / name).is_file())
        for dataset, names in SYNTHEA.items()
        if (folder / names[0]).is_file() or dataset == "clinical"
    }
    files = {dataset: found for dataset, found in files.items() if found}
    if "claims" not in files and "utilization" not in files:
        expected = ", ".join(dict.fromkeys(name for names in SYNTHEA.values() for name in names))
        raise CommandFailed(
            f"{folder} has neither claims_transactions.csv nor encounters.csv. A Synthea CSV export has {expected}: "
            "let Synthea write it with exporter.csv.export=true."
        )
    return Extract(name=f"Synthea population {_digest(files)}", source="synthea", files=files)


def sample_extract(folder: Path, *, members: int, seed: int) -> Extract:
    """A generated population, written into `folder`."""
    files = {name: (path,) for name, path in write_sample(folder, members=members, seed=seed).items()}
    return Extract(name=f"Lakeside Employers {_digest(files)}", source="triton", files=files)


def _digest(files: Mapping[str, tuple[Path, ...]]) -> str:
    """Tells extracts apart: the same files again go to the same prospect, other files never do."""
    digest = hashlib.sha256()
    for path in sorted({path for paths in files.values() for path in paths}):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:8]


async def run(
    state: State,
    *,
    port: int | None,
    data: Path | None,
    members: int,
    seed: int,
    leave: bool,
    console: Console,
    told: Callable[[Outcome], None],
) -> None:
    """Start the stack, or take the one that runs here; walk; tell of the outcome; stay up unless `leave`."""
    began = time.monotonic()
    outcome = Outcome()
    async with AsyncExitStack() as context:
        with timed(outcome.seconds, "start"):
            own = not state.is_locked()
            if own:
                await context.enter_async_context(running(state, port=port or DEFAULT_PORT, console=console))
                url = url_of(port or DEFAULT_PORT)
            else:
                stack = await follow_start(state, console, alive=state.is_locked)
                url = stack["url"]
                _say(console, f"using the platform that runs at {url}, process {stack['pid']}")
        api = await context.enter_async_context(Api(url))
        with timed(outcome.seconds, "login"):
            await api.log_in(ADMIN_EMAIL, state.secrets().admin_password)
            _say(console, f"logged in as {ADMIN_EMAIL}")
        kept = state.documents
        await walk(api, kept=kept, data=data, members=members, seed=seed, outcome=outcome, console=console)
        outcome.seconds["total"] = time.monotonic() - began
        told(outcome)
        if own and not leave:
            await for_ever()


def show(outcome: Outcome, console: Console, *, secrets_file: Path) -> None:
    """The headline figures, and where the document is: a file to open, and a URL that wants a token."""
    table = Table.grid(padding=(0, 3))
    for label, key in HEADLINES:
        if key in outcome.facts:
            table.add_row(f"  {label}", f"[bold]{escape(outcome.facts[key]['display'])}[/bold]")
    console.print("\n  [bold]The value proposition document[/bold]\n")
    console.print(table)
    for line in (
        f"\n  Open it: {outcome.document_file}",
        f"  To print or send: {outcome.document_file.with_suffix('.pdf')}",
        "  Or fetch it with a token, while the platform runs:\n",
        f"  {fetching(outcome.document_url, secrets_file)}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def fetching(document_url: str, secrets_file: Path) -> str:
    """A line for a shell that logs in as the admin and prints the document.

    Password and token go through pipes: command lines are everybody's to read.
    """
    read = 'import json, sys; password = json.load(open(sys.argv[1]))["admin_password"]'
    credentials = f'{read}; print(json.dumps({{"email": "{ADMIN_EMAIL}", "password": password}}))'
    header = 'import json, sys; print("Authorization: Bearer", json.load(sys.stdin)["access_token"])'
    login = urljoin(document_url, "/api/v1/auth/login")
    return " | ".join(
        shlex.join(words)
        for words in (
            ["python3", "-c", credentials, str(secrets_file)],
            ["curl", "-s", login, "-H", "Content-Type: application/json", "-d", "@-"],
            ["python3", "-c", header],
            ["curl", "-s", "-H", "@-", document_url],
        )
    )


async def walk(
    api: Api,
    *,
    kept: Path,
    data: Path | None,
    members: int,
    seed: int,
    outcome: Outcome,
    console: Console,
) -> None:
    """Walk the main job from its data to the document, which goes to the folder `kept`, as who is logged in; fills in
    `outcome`.

    What a run before has made is used again; the job and its document are new.
    """

    def step(name: str) -> AbstractContextManager[None]:
        return timed(outcome.seconds, name)

    async with AsyncExitStack() as cleanup:
        with step("data"):
            if data is not None:
                extract = await asyncio.to_thread(synthea_extract, data)
            else:
                folder = Path(cleanup.enter_context(TemporaryDirectory(prefix="triton-sample-")))
                extract = await asyncio.to_thread(sample_extract, folder, members=members, seed=seed)
        with step("setup"):
            proposition, prospect = await _set_up(api, extract.name)
            _say(console, f"client {CLIENT}, value proposition {PROGRAMME}, prospect {extract.name}")
        with step("load"):
            for dataset, files in extract.files.items():
                await _load(api, prospect["id"], dataset, files, source=extract.source, console=console)
    with step("job"):
        job = await api.post(
            "/api/v1/jobs",
            json={
                "job_type": "value_proposition",
                "prospect_id": prospect["id"],
                "value_proposition_id": proposition["id"],
            },
            headers={"Idempotency-Key": str(uuid7())},
        )
        outcome.job_id = job["id"]
        _say(console, f"submitted job {job['id']}")
        with shown(console) as show:
            job = await follow(api, job["id"], show=show, tell=partial(_say, console))
        if job["status"] != "completed":
            reason = (job["error"] or {}).get("message", "it was cancelled")
            raise CommandFailed(f"The job {job['status']}: {reason} `triton logs agent-worker` has the rest.")
    with step("document"):
        outcome.document_id = job["document_id"]
        outcome.document_url = f"{api.url}/api/v1/documents/{job['document_id']}?format=html"
        outcome.document_file = await _save(api, job["document_id"], kept)
        document = await api.get(f"/api/v1/documents/{job['document_id']}")
        outcome.facts = {fact["id"]: fact for fact in document["content"]["facts"]}


async def _set_up(api: Api, prospect_name: str) -> tuple[Any, Any]:
    client = await api.find("/api/v1/clients", CLIENT) or await api.post("/api/v1/clients", json={"name": CLIENT})
    content = PROPOSITION.model_dump(mode="json")
    proposition = await api.find("/api/v1/value-propositions", PROGRAMME, client_id=client["id"])
    if proposition is None:
        body = {"client_id": client["id"], "name": PROGRAMME, "content": content}
        proposition = await api.post("/api/v1/value-propositions", json=body)
    elif ValuePropositionContent.model_validate(proposition["content"]) != PROPOSITION:
        proposition = await api.patch(f"/api/v1/value-propositions/{proposition['id']}", json={"content": content})
    prospect = await api.find("/api/v1/prospects", prospect_name, client_id=client["id"])
    if prospect is None:
        prospect = await api.post("/api/v1/prospects", json={"client_id": client["id"], "name": prospect_name})
    return proposition, prospect


async def _load(
    api: Api, prospect_id: str, dataset: str, files: tuple[Path, ...], *, source: str, console: Console
) -> None:
    started = time.monotonic()
    async with AsyncExitStack() as opened:
        parts = [(path.stem, (path.name, opened.enter_context(path.open("rb")), "text/csv")) for path in files]
        batch = await api.post(
            f"/api/v1/analytics/prospects/{prospect_id}/{dataset}",
            params={"source": source},
            files=parts,
            timeout=UPLOAD_TIMEOUT,
        )
    _say(console, f"loaded {dataset}: {batch['rows']:,} rows, {time.monotonic() - started:.1f} s")


async def _save(api: Api, document_id: str, kept: Path) -> Path:
    """Keep the document in all its forms; answers the path of the HTML."""
    for form in ("json", "md", "html", "pdf"):
        content = await api.content(f"/api/v1/documents/{document_id}", format=form)
        (kept / f"{document_id}.{form}").write_bytes(content)
    return kept / f"{document_id}.html"


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def _say(console: Console, text: str) -> None:
    say(f"  {text}", console=console)
