"""The main job, done through the gateway as a user does it: log in, create client, value proposition and prospect, load
the prospect's data, submit the job, follow it, read the document."""

import asyncio
import hashlib
import json
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self
from urllib.parse import urljoin

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from uuid_utils.compat import uuid7

from triton_cli.running import follow, for_ever, running, url_of
from triton_cli.sample import write_sample
from triton_cli.state import ADMIN_EMAIL, DEFAULT_PORT, CommandFailed, State
from triton_common.client import remote_error
from triton_common.errors import problem_of
from triton_common.schemas import JobStatus, ValuePropositionContent

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

FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
UPLOAD_TIMEOUT: Final = 900.0  # seconds; an extract is checked whole before it is answered
STREAM_SILENCE: Final = 60.0  # seconds without even a heartbeat, then the stream is opened anew
RECONNECTS: Final = 60  # in a row, without an event between; a second apart
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


class Api:
    """The gateway, as one user sees it. Answers JSON; raises CommandFailed with what the platform says is wrong."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def log_in(self, email: str, password: str) -> None:
        """Every call from now on is this user's."""
        answer = await self.post("/api/v1/auth/login", json={"email": email, "password": password})
        self._http.headers["Authorization"] = f"Bearer {answer['access_token']}"

    async def get(self, path: str, **params: str) -> Any:
        """GET, parsed."""
        return (await self._send("GET", path, params=params)).json()

    async def text(self, path: str, **params: str) -> str:
        """GET, as it is."""
        return (await self._send("GET", path, params=params)).text

    async def post(self, path: str, **options: Any) -> Any:
        """POST, parsed."""
        return (await self._send("POST", path, **options)).json()

    async def patch(self, path: str, *, json: Any) -> Any:
        """PATCH, parsed."""
        return (await self._send("PATCH", path, json=json)).json()

    async def find(self, path: str, name: str, **filters: str) -> Any | None:
        """The newest item of a list that has this name."""
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(path, limit="200", **filters, **cursor)
            for item in page["items"]:
                if item["name"] == name:
                    return item
            if not page["next_cursor"]:
                return None
            cursor = {"cursor": page["next_cursor"]}

    async def events(self, path: str, last: str | None) -> AsyncIterator[tuple[str, Any]]:
        """The events after `last`, with their ids, until the stream ends or breaks."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        timeout = httpx2.Timeout(10, read=STREAM_SILENCE)
        async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.is_server_error:  # it is starting again, or its gateway is: as good as a stream that broke
                return
            if response.is_error:
                await response.aread()
                raise _failure(response)
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                name, _, value = line.partition(":")
                if name:
                    fields[name] = value.removeprefix(" ")
                elif not line and "data" in fields:
                    yield fields.get("id", ""), json.loads(fields["data"])
                    fields = {}

    async def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            response = await self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise CommandFailed(
                f"{method} {path} got no answer ({type(error).__name__}): see `triton status`, `triton logs gateway`."
            ) from error
        if response.is_error:
            raise _failure(response)
        return response

    async def __aenter__(self) -> Self:
        """As a context, it closes itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()


def _failure(response: httpx2.Response) -> CommandFailed:
    request = response.request
    problem = problem_of(response.content)
    details = "".join(f"\n  {detail.field}: {detail.issue}" for detail in (problem.details if problem else []))
    told = f" ({problem.code}, request {problem.request_id})" if problem else ""
    what = f"{request.method} {request.url.path} answered {response.status_code}"
    return CommandFailed(f"{what}: {remote_error(response).message}{told}{details}")


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
        with _timed(outcome.seconds, "start"):
            own = not state.is_locked()
            if own:
                await context.enter_async_context(running(state, port=port or DEFAULT_PORT, console=console))
                url = url_of(port or DEFAULT_PORT)
            else:
                stack = await follow(state, console, alive=state.is_locked)
                url = stack["url"]
                _say(console, f"using the platform that runs at {url}, process {stack['pid']}")
        api = await context.enter_async_context(Api(url))
        await walk(api, state=state, url=url, data=data, members=members, seed=seed, outcome=outcome, console=console)
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
    state: State,
    url: str,
    data: Path | None,
    members: int,
    seed: int,
    outcome: Outcome,
    console: Console,
) -> None:
    """Walk the main job from login to document; fills in `outcome`.

    What a run before has made is used again; the job and its document are new.
    """

    def step(name: str) -> AbstractContextManager[None]:
        return _timed(outcome.seconds, name)

    async with AsyncExitStack() as cleanup:
        with step("data"):
            if data is not None:
                extract = await asyncio.to_thread(synthea_extract, data)
            else:
                folder = Path(cleanup.enter_context(TemporaryDirectory(prefix="triton-sample-")))
                extract = await asyncio.to_thread(sample_extract, folder, members=members, seed=seed)
        with step("login"):
            await api.log_in(ADMIN_EMAIL, state.secrets().admin_password)
            _say(console, f"logged in as {ADMIN_EMAIL}")
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
        await _follow(api, job["id"], console)
        job = await api.get(f"/api/v1/jobs/{job['id']}")
        if job["status"] != JobStatus.COMPLETED:
            reason = (job["error"] or {}).get("message", "it was cancelled")
            raise CommandFailed(f"The job {job['status']}: {reason} `triton logs agent-worker` has the rest.")
    with step("document"):
        outcome.document_id = job["document_id"]
        outcome.document_url = f"{url}/api/v1/documents/{job['document_id']}?format=html"
        outcome.document_file = await _save(api, job["document_id"], state)
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


async def _follow(api: Api, job_id: str, console: Console) -> None:
    """Show the job's progress until it is over. A stream that breaks is taken up after the last event seen."""
    last, misses = None, 0
    with _progress(console) as show:
        while misses < RECONNECTS:
            try:
                async for event_id, event in api.events(f"/api/v1/jobs/{job_id}/events", last):
                    last, misses = event_id or last, 0
                    show(event)
                    if event["status"] in FINAL:
                        return
            except httpx2.TransportError:
                pass
            misses += 1
            await asyncio.sleep(min(1.0, 0.2 * misses))
    raise CommandFailed(f"The events of job {job_id} broke off. See `triton status`; the job may still end well.")


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar that shows a job's events; a line per stage where there is no terminal."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("pending", total=100)

        def show(event: Mapping[str, Any]) -> None:
            progress.update(task, completed=event["progress"], description=_what(event))

        yield show


def _lines(console: Console) -> Callable[[Mapping[str, Any]], None]:
    shown = ""

    def show(event: Mapping[str, Any]) -> None:
        nonlocal shown
        what = _what(event)
        if what != shown:
            shown = what
            _say(console, f"{what}, {event['progress']} %")

    return show


def _what(event: Mapping[str, Any]) -> str:
    return str(event["stage"] or event["status"]) if event["status"] == JobStatus.PROCESSING else str(event["status"])


async def _save(api: Api, document_id: str, state: State) -> Path:
    """Keep the document's three forms; answers the path of the HTML."""
    for form in ("json", "md", "html"):
        text = await api.text(f"/api/v1/documents/{document_id}", format=form)
        (state.documents / f"{document_id}.{form}").write_text(text, encoding="utf-8")
    return state.documents / f"{document_id}.html"


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def _say(console: Console, text: str) -> None:
    console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
