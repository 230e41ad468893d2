"""Stand-in parts: small processes that listen, wait or fail, in place of the platform's. And the platform itself."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import psutil
import pytest
from typer.testing import CliRunner

from triton_cli.demo import PROPOSITION
from triton_cli.main import app
from triton_cli.sample import write_sample
from triton_cli.state import ADMIN_EMAIL, CHECKOUT

pytest_plugins = ["triton_common.testing"]

ADMIN, PASSWORD = "ada@triton.local", "a long enough password"
NOBODY = tuple(f"TRITON_{name}" for name in ("URL", "TOKEN", "API_KEY", "EMAIL", "PASSWORD", "CONFIG_DIR", "STATE"))
STAND_IN = Path(__file__).with_name("stand_in.py")
LEASE = 4  # seconds; half a minute by default
HEARTBEAT = 2  # seconds, of streams; ten by default
ANSWER_TIMEOUT = "10s"  # half a minute by default
WAIT = 90.0  # seconds a job may take through an accident


def pytest_configure(config: pytest.Config) -> None:
    """The marker of the walk through the real platform, which takes a minute: leave it out with -m 'not demo'."""
    config.addinivalue_line("markers", "demo: starts the real platform")


@pytest.fixture(scope="session", autouse=True)
def config_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where nobody has logged in: whoever runs the tests may have, and theirs is no platform of tests."""
    os.environ["TRITON_CONFIG_DIR"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a `triton` command on the stand-in parts, in a session of its own; what it leaves running is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, state: Path | None = None, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, STAND_IN, *arguments, "--state", state or tmp_path / "state"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        children = []
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
        process.communicate()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture(scope="session")
def stand_in() -> SimpleNamespace:
    """What stand_in.py has: test folders are no packages, so tests cannot import it."""
    return SimpleNamespace(**runpy.run_path(str(STAND_IN)))


@pytest.fixture
def answer_of(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a `triton` command on the stand-in parts to its end."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(STAND_IN), *arguments, "--state", str(tmp_path / "state")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def free_block() -> Callable[[], int]:
    """A port with nine free ones after it."""
    from triton_common.testing import free_ports  # noqa: PLC0415  pytest is to load it, and rewrite its asserts

    return lambda: free_ports(10)


class Platform:
    """The stack of one folder, and a user of it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.state = folder / "state"
        self.port = port
        self.prospect_id = self.value_proposition_id = ""
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}/api/v1", timeout=30)

    def triton(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        kept = {
            name: value for name, value in os.environ.items() if name not in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")
        }
        return subprocess.run(
            ["uv", "run", "--frozen", "triton", *arguments],
            cwd=CHECKOUT,
            env=kept
            | {
                "JOBS_LEASE": f"PT{LEASE}S",
                "JOBS_STREAM_HEARTBEAT": f"PT{HEARTBEAT}S",
                "TRITON_ANSWER_TIMEOUT": ANSWER_TIMEOUT,
                "TRITON_STATE": str(self.state),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self) -> None:
        started = self.triton("up", "--detach", "--port", str(self.port))
        assert started.returncode == 0, started.stderr
        assert "Ctrl-C" not in started.stdout

    def down(self) -> None:
        stopped = self.triton("down")
        assert stopped.returncode == 0, stopped.stderr

    def log_in(self) -> None:
        password = json.loads((self.state / "secrets.json").read_text())["admin_password"]
        answer = self.http.post("/auth/login", json={"email": ADMIN_EMAIL, "password": password})
        self.http.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"

    def create(self, path: str, **body: Any) -> str:
        created: str = self.http.post(path, json=body).raise_for_status().json()["id"]
        return created

    def set_up(self, folder: Path) -> None:
        """A prospect with data, and something to sell to it."""
        made = self.client_with_data(folder, "Northstar", "Lakeside", "Coaching")
        self.prospect_id, self.value_proposition_id = made["prospect_id"], made["value_proposition_id"]

    def client_with_data(self, folder: Path, client: str, prospect: str, proposition: str) -> dict[str, str]:
        """A client of these names, whose prospect has data: the ids, by their names in paths."""
        client_id = self.create("/clients", name=client)
        prospect_id = self.create("/prospects", client_id=client_id, name=prospect)
        content = PROPOSITION.model_dump(mode="json")
        proposition_id = self.create("/value-propositions", client_id=client_id, name=proposition, content=content)
        files = write_sample(folder / "sample", members=100, seed=7)
        for dataset, file in files.items():
            answer = self.http.post(
                f"/analytics/prospects/{prospect_id}/{dataset}",
                content=file.read_bytes(),
                headers={"content-type": "text/csv"},
            ).raise_for_status()
            batch_id = answer.json()["id"]
        return {
            "client_id": client_id,
            "prospect_id": prospect_id,
            "value_proposition_id": proposition_id,
            "batch_id": batch_id,
        }

    def pid(self, part: str) -> int:
        parts = json.loads(self.triton("status", "--json").stdout)["parts"]
        found: int = next(known["pid"] for known in parts if known["name"] == part)
        return found

    def all_ready(self) -> bool:
        return self.triton("status", "--json").returncode == 0

    @contextmanager
    def frozen(self, part: str) -> Iterator[None]:
        """Stop a part's process as it is: whoever asks it waits."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def submit(self, prospect_id: str | None = None, value_proposition_id: str | None = None) -> str:
        answer = self.http.post(
            "/jobs",
            json={
                "job_type": "value_proposition",
                "prospect_id": prospect_id or self.prospect_id,
                "value_proposition_id": value_proposition_id or self.value_proposition_id,
            },
        )
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        try:
            answer = self.http.get(f"/jobs/{job_id}")
        except httpx2.TransportError:
            return {"status": "unknown"}
        known: dict[str, Any] = answer.json() if answer.status_code == 200 else {"status": "unknown"}
        return known

    def until(self, job_id: str, *, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        from triton_common.testing import eventually  # noqa: PLC0415  pytest is to load it, and rewrite its asserts

        found: dict[str, Any] = eventually(lambda: (job := self.job(job_id)) and is_so(job) and job, within=WAIT)
        return found

    def completes(self, job_id: str) -> dict[str, Any]:
        """The job once it is over; it must be completed, with the one document there is of it."""
        job = self.until(job_id, is_so=lambda known: known["status"] in ("completed", "failed", "cancelled"))
        assert job["status"] == "completed", job["error"]
        documents = self.http.get("/documents", params={"job_id": job_id}).raise_for_status().json()["items"]
        assert [document["id"] for document in documents] == [job["document_id"]]
        return job


@pytest.fixture(scope="session")
def platform(free_block: Callable[[], int]) -> Iterator[Platform]:
    """The real platform with a prospect's data, whose leases are short: one for all tests."""
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:  # pytest's own are closed to Postgres' user
        stack = Platform(Path(folder), free_block())
        stack.up()
        try:
            stack.log_in()
            stack.set_up(Path(folder))
            yield stack
        finally:
            stack.http.close()
            stack.down()


def in_workspace(*command: str, folder: Path = CHECKOUT, **environment: str) -> "subprocess.Popen[bytes]":
    """A process in the environment that has all services."""
    kept = {name: value for name, value in os.environ.items() if name not in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")}
    return subprocess.Popen(["uv", "run", "--frozen", *command], cwd=folder, env=kept | environment)


@pytest.fixture(scope="session")
def auth(postgres_server: Any, redis_server: Any) -> Iterator[SimpleNamespace]:
    """auth-service with its first admin and an identity provider: its url, and that of its database."""
    from triton_common.testing import eventually, free_port  # noqa: PLC0415  pytest is to load it first

    postgres_server.create_databases(["accounts"])  # other tests make and drop one named auth
    environment = {
        "DATABASE_URL": postgres_server.url("accounts"),
        "REDIS_URL": redis_server.url,
        "AUTH_BOOTSTRAP_EMAIL": ADMIN,
        "AUTH_BOOTSTRAP_PASSWORD": PASSWORD,
        "AUTH_ARGON2_MEMORY_KIB": "8",
        "AUTH_ARGON2_PASSES": "1",
    }
    port, provider = free_port(), free_port()
    environment["TRITON_AUTH_URL"] = url = f"http://127.0.0.1:{port}"
    script = str(Path(__file__).with_name("auth_server.py"))
    folder = CHECKOUT / "services" / "auth-service"  # of its migrations
    server = in_workspace("python", script, str(port), str(provider), folder=folder, **environment)

    def answers() -> bool:
        assert server.poll() is None
        try:
            return httpx2.get(f"{url}/health/ready", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        eventually(answers, within=120)
        yield SimpleNamespace(url=url, database=environment["DATABASE_URL"])
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def nobody() -> dict[str, str]:
    """The environment of a command of nobody's, on no platform that somebody named."""
    return {name: value for name, value in os.environ.items() if name not in NOBODY}


@pytest.fixture
def cli(auth: SimpleNamespace, tmp_path: Path) -> Callable[..., Any]:
    """Run `triton …` as nobody, with a config directory of the test's own."""

    def run(*arguments: str, stdin: str | bytes | None = None, **environment: str | None) -> Any:
        known = dict.fromkeys(NOBODY) | {"XDG_CONFIG_HOME": str(tmp_path / "config")}
        answer = CliRunner().invoke(app, arguments, input=stdin, env=known | environment)
        assert isinstance(answer.exception, SystemExit | None), answer.exception
        return answer

    return run


@pytest.fixture
def admin(cli: Callable[..., Any], auth: SimpleNamespace) -> Callable[..., Any]:
    """The same, as the admin of auth-service, who has logged in."""
    answer = cli("login", "--url", auth.url, "--email", ADMIN, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert answer.exit_code == 0, answer.stderr
    return cli
