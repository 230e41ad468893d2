"""`triton jobs` against a small platform that answers as the real one does, on networks that do not."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from io import StringIO
from typing import Any, get_args

import pytest
import typer
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from rich.console import Console
from typer.testing import CliRunner

from triton_cli import filters, lists, progress
from triton_cli.identity import api_of
from triton_cli.main import app
from triton_cli.state import CHECKOUT, CommandFailed, State
from triton_common.schemas import JobPriority, JobStatus
from triton_common.settings import CommonSettings
from triton_common.testing import free_port

JOB = "01a20496-da65-731f-bb3d-0d5fc2137ef4"
OTHER = "01a20496-da65-731f-bb3d-0d5fc2137ef5"
HOSTILE = "01a20496-da65-731f-bb3d-0d5fc2137ef6"
UNROUTED = Response("404 page not found\n", status_code=404, media_type="text/plain")  # of a gateway that starts
STATES = ["pending", "processing", "completed", "failed", "cancelled"]


def event(seq: int, kind: str, status: str, done: int = 0, **more: Any) -> dict[str, Any]:
    at = f"2026-11-22T18:48:{seq:02}.902022Z"
    return {"seq": seq, "at": at, "kind": kind, "status": status, "progress": done, "stage": None, "message": ""} | more


HISTORY = [
    event(1, "submitted", "pending"),
    event(2, "claimed", "processing"),
    event(3, "failed", "failed"),
    event(4, "retried", "pending"),
    event(5, "progress", "processing", 60, stage="writing", message="a\tline\x1b[2J"),
    event(6, "completed", "completed", 100),
]


class Platform:
    """What `triton jobs` needs of the platform, with things that go wrong on order."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.app.state.settings = CommonSettings()
        self.url = ""
        self.events = HISTORY
        self.resumed: list[str | None] = []
        self.logins: list[dict[str, str]] = []
        self.keys: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.breaks_after = [len(HISTORY)]  # of each stream in turn, the last of all further ones
        self.lost_answers = 0
        self.streams = True
        self.token_ends = False
        self.still = False  # streams stay open, with nothing more to say
        self.interrupts = False  # whoever opens a stream
        self.refusals: list[int] = []  # of a job that is asked for, in turn; 0 is an answer
        self.asked: list[tuple[str | None, int]] = []  # pages of a history: from where, and how many events
        self.page = 200
        self.at_once = 10_000
        self.jobs = [
            {
                "id": f"{number:036}",
                "status": "failed" if number % 2 else "processing",
                "progress": 5,
                "priority": "high",
                "attempt": 1,
                "created_at": "2026-11-20T18:00:00Z",
                "stage": "writing",
                "error": {"code": "no_data"} if number % 2 else None,
                "document_id": None,
            }
            for number in range(300)
        ]
        self._catalogue("clients")
        self._catalogue("prospects")
        self._catalogue("value-propositions")
        self._changes()
        self._jobs()
        self._events()

    def job(self) -> dict[str, Any]:
        status = self.events[-1]["status"]
        error = {"code": "no_data", "message": "There is no data."} if status == "failed" else None
        return {"id": JOB, "status": status, "document_id": "doc", "error": error, "attempt": 1}

    def _catalogue(self, noun: str) -> None:
        @self.app.get(f"/api/v1/{noun}")
        async def several(cursor: str = "") -> dict[str, Any]:
            items = [{"id": OTHER, "name": "Twin"}, {"id": JOB, "name": "Lakeside"}, {"id": JOB, "name": "Twin"}]
            start = int(cursor or 0)  # a page of one, so that pages are turned
            return {"items": items[start : start + 1], "next_cursor": str(start + 1) if start < 2 else None}

        @self.app.get(f"/api/v1/{noun}/{{one}}")
        async def one(one: str) -> dict[str, Any]:
            return {"id": one, "client_id": "client"}

    def _changes(self) -> None:
        @self.app.post("/api/v1/auth/login")
        async def login(body: dict[str, str]) -> dict[str, Any]:
            self.logins.append(body)
            return {"access_token": f"token-{len(self.logins)}"}

        @self.app.post("/api/v1/jobs", status_code=202)
        async def submit(body: dict[str, Any], idempotency_key: str = Header()) -> Any:
            self.keys.append(idempotency_key)
            self.bodies.append(body)
            if len(self.keys) <= self.lost_answers:
                return Response("Bad Gateway", status_code=502) if len(self.keys) % 2 else UNROUTED
            if body.get("priority") == "low":
                return _problem(429, "queue_full", "There are 10000 pending jobs.", {"Retry-After": "7"})
            if body.get("time_limit_seconds") == 10:
                details = [{"field": "body.time_limit_seconds", "issue": "at least 11 here", "code": "x"}]
                return _problem(422, "validation_failed", "Correct the fields.", details=details)
            return {"id": JOB}

        @self.app.post("/api/v1/jobs/{verb}")
        async def change(verb: str, body: dict[str, Any]) -> dict[str, Any]:
            """What is cancelled is over; what is retried fails again at once."""
            self.bodies.append(body)
            changeable = {"cancel": {"processing"}, "retry": {"failed"}}[verb] & set(body.get("status", STATES))
            found = [
                job for job in self.jobs if job["status"] in changeable and job["id"] in body.get("ids", job["id"])
            ]
            changed = [] if body.get("dry_run") else found[: self.at_once]
            for job in changed:
                job["status"] = "cancelled" if verb == "cancel" else "failed"
            matched, complete = min(len(found), self.at_once), len(found) <= self.at_once
            return {"matched": matched, "changed": len(changed), "complete": complete}

    def _jobs(self) -> None:
        @self.app.get("/api/v1/jobs")
        async def several(request: Request, limit: int, cursor: str = "0") -> dict[str, Any]:
            self.bodies.append(dict(request.query_params) | {"status": request.query_params.getlist("status")})
            start, statuses = int(cursor), request.query_params.getlist("status") or STATES
            found = [job for job in self.jobs if job["status"] in statuses]
            more = str(start + limit) if start + limit < len(found) else None
            return {"items": found[start : start + limit], "next_cursor": more}

        @self.app.get("/api/v1/jobs/{job}")
        async def job(job: str, authorization: str = Header()) -> Any:
            if job == OTHER:
                return Response("<html>")
            if job == HOSTILE:
                return _problem(
                    404, "no\x1bc", "Gone.\x1b]0;owned\x07\nerror: the disk is full", {"Retry-After": "\x9b2J"}
                )
            if self.token_ends and authorization == "Bearer token-1":
                return _problem(401, "token_expired", "The token has expired.")
            if self.refusals and (refusal := self.refusals.pop(0)):
                return UNROUTED if refusal == 404 else _problem(refusal, "service_unreachable", "Try again.")
            return self.job()

    def _events(self) -> None:
        @self.app.get("/api/v1/jobs/{job}/events")
        async def events(
            accept: str = Header(),
            cursor: str | None = None,
            last_event_id: str | None = Header(default=None),
            authorization: str = Header(),
        ) -> Any:
            if accept != "text/event-stream" or not self.streams:
                self.resumed.append(None)
                if accept == "text/event-stream":
                    return {"items": [], "next_cursor": None}
                start, until = int(cursor or 0), self._until()
                items = self.events[start : min(start + self.page, until)]
                self.asked.append((cursor, len(items)))
                more = str(start + self.page) if start + self.page < until else None
                return {"items": items, "next_cursor": more}
            if self.token_ends and authorization == "Bearer token-1" and last_event_id:
                return _problem(401, "token_expired", "The token has expired.")
            if last_event_id == str(self.events[-1]["seq"]):
                return Response(status_code=204)
            self.resumed.append(last_event_id)
            return StreamingResponse(self._stream(int(last_event_id or 0)), media_type="text/event-stream")

    def _until(self) -> int:
        """The last event that is there, as long as somebody asks."""
        return self.breaks_after.pop(0) if len(self.breaks_after) > 1 else self.breaks_after[0]

    async def _stream(self, after: int) -> AsyncIterator[str]:
        until = self._until()
        yield ": welcome\n\n"
        for new in self.events:
            if after < new["seq"] <= until:
                yield f"id: {new['seq']}\ndata: {json.dumps(new)}\n\n"
        if self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)  # the command runs in this process, in its main thread
        while self.still:
            await asyncio.sleep(0.02)
            yield ": still there\n\n"


def _problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None, *, details: Any = ()
) -> JSONResponse:
    problem = {"type": "x", "title": "x", "status": status, "code": code, "message": message, "request_id": "r-1"}
    return JSONResponse(problem | {"details": list(details)}, status_code=status, headers=headers)


@pytest.fixture
def platform(serving: Any) -> Any:
    """A small platform that serves."""
    platform = Platform()
    with serving(platform.app) as platform.url:
        yield platform


@pytest.fixture
def triton_jobs(platform: Platform, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `triton jobs …` as somebody of that platform."""
    monkeypatch.setattr("triton_cli.progress.POLL_INTERVAL", 0.01)
    monkeypatch.setattr("triton_cli.api.RETRY_PAUSE", 0.01)

    def run(*arguments: str, **environment: str | None) -> Any:
        known = {"TRITON_EMAIL": "sam@example.com", "TRITON_PASSWORD": "pw", "TRITON_TOKEN": None}
        known |= {"TRITON_STATE": str(tmp_path / "state"), "TRITON_URL": platform.url}
        answer = CliRunner().invoke(app, ["jobs", *arguments], env=known | environment)
        assert isinstance(answer.exception, SystemExit | None), answer.exception
        return answer

    return run


def test_a_broken_stream_goes_on_after_the_last_event(platform, triton_jobs):
    platform.breaks_after = [2, 2, 5, 6]
    answer = triton_jobs("watch", JOB, "--json")
    assert answer.exit_code == 0
    assert [json.loads(line) for line in answer.stdout.splitlines()] == HISTORY
    assert platform.resumed == [None, "2", "2", "5"]
    assert f"The events of job {JOB} broke off after event 2; trying again" in answer.stderr
    assert len(platform.logins) == 1


def test_a_stream_that_is_never_whole_again_ends_in_a_sentence(platform, triton_jobs, monkeypatch):
    monkeypatch.setattr("triton_cli.progress.RECONNECTS", 2)
    platform.breaks_after = [3]
    answer = triton_jobs("watch", JOB)
    assert answer.exit_code == 1
    assert f"The events of job {JOB} broke off after event 3; it may still end well." in answer.stderr


def test_where_no_stream_can_be_opened_the_history_is_asked_for(platform, triton_jobs):
    platform.streams = False
    answer = triton_jobs("watch", JOB)
    assert answer.exit_code == 0
    assert [line.split("\t")[0] for line in answer.stdout.splitlines()] == ["1", "2", "3", "4", "5", "6"]
    assert "The stream of events cannot be opened: the answer is 200, application/json" in answer.stderr


def test_the_history_is_asked_for_from_where_it_was_left(platform, triton_jobs):
    platform.streams, platform.page, platform.breaks_after = False, 2, [1, 2, 4, 4, 4, 6, 6]
    answer = triton_jobs("watch", JOB, "--json")
    assert answer.exit_code == 0
    assert [json.loads(line)["seq"] for line in answer.stdout.splitlines()] == [1, 2, 3, 4, 5, 6]
    assert platform.asked == [(None, 1), (None, 2), (None, 2), ("2", 2), ("2", 2), ("2", 2), ("4", 2)]


def test_passing_refusals_end_the_asking_only_in_a_row(platform, triton_jobs, monkeypatch):
    monkeypatch.setattr("triton_cli.progress.RECONNECTS", 3)
    platform.streams, platform.breaks_after = False, [2, 2, 2, 2, 2, 2, 6]
    platform.refusals = [0, 503, 0, 502, 0, 503, 0, 503, 0, 504]
    assert triton_jobs("watch", JOB).exit_code == 0
    platform.refusals = 5 * [503]
    refused = triton_jobs("watch", JOB)
    assert refused.exit_code == 1
    assert "it may still end well. The last answer: GET" in refused.stderr


@pytest.mark.parametrize("refusals", [[502], [503, 503], [504], [404, 404]])
def test_a_passing_refusal_at_the_end_is_not_the_end(platform, triton_jobs, refusals):
    platform.refusals = refusals
    answer = triton_jobs("watch", JOB, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert [json.loads(line) for line in answer.stdout.splitlines()] == HISTORY
    assert platform.refusals == []


def test_a_token_that_ends_while_asking_is_replaced(platform, triton_jobs):
    platform.streams, platform.token_ends = False, True
    assert triton_jobs("watch", JOB).exit_code == 0
    assert len(platform.logins) == 2
    refused = triton_jobs("get", JOB, TRITON_TOKEN="token-1")
    assert refused.exit_code == 1
    assert "401: The token has expired." in refused.stderr


def test_a_token_that_ends_while_watching_is_replaced(platform, triton_jobs):
    platform.token_ends, platform.breaks_after = True, [4, 6]
    assert triton_jobs("watch", JOB).exit_code == 0
    assert len(platform.logins) == 2
    platform.logins = [{}]
    platform.breaks_after = [4, 6]
    refused = triton_jobs("watch", JOB, TRITON_TOKEN="token-1")
    assert refused.exit_code == 1
    assert "401: The token has expired. (token_expired, request r-1)" in refused.stderr


def test_lines_have_no_characters_that_move_a_terminal(triton_jobs):
    line = triton_jobs("events", JOB).stdout.splitlines()[4]
    assert line.split("\t")[2:] == ["progress", "processing", "60", "writing", "a line [2J"]


def test_a_bar_shows_the_stage_and_leaves_a_line_for_what_is_not_ordinary():
    said = StringIO()
    with progress.shown(Console(file=said, force_terminal=True, width=120)) as show:
        for one in HISTORY:
            show(one)
    assert "writing" in said.getvalue()
    assert "18:48:04  retried" in said.getvalue()
    assert "100%" in said.getvalue()


@pytest.mark.parametrize(("status", "code"), [("failed", 3), ("cancelled", 4)])
def test_the_exit_status_tells_the_outcome(platform, triton_jobs, status, code):
    platform.events = [*HISTORY[:2], event(3, status, status)]
    assert triton_jobs("watch", JOB).exit_code == code
    assert triton_jobs("events", JOB, "--follow").exit_code == 0
    answer = triton_jobs("submit", "--prospect", JOB, "--value-proposition", OTHER, "--wait")
    assert (answer.exit_code, answer.stdout) == (code, f"{JOB}\n")


def test_a_submit_whose_answer_is_lost_is_repeated_with_the_same_key(platform, triton_jobs):
    platform.lost_answers = 2
    answer = triton_jobs("submit", "--prospect", JOB, "--value-proposition", OTHER)
    assert (answer.exit_code, answer.stdout) == (0, f"{JOB}\n")
    assert len(platform.keys) == 3
    assert len(set(platform.keys)) == 1
    assert "The answer was lost; asking again with the same key." in answer.stderr


def test_a_submit_that_gets_no_answer_says_how_to_repeat_it(platform, triton_jobs):
    platform.lost_answers = 99
    answer = triton_jobs("submit", "--prospect", JOB, "--value-proposition", OTHER, "--idempotency-key", "k-1")
    assert answer.exit_code == 1
    assert "--idempotency-key k-1 submits it once at most" in " ".join(answer.stderr.split())
    assert set(platform.keys) == {"k-1"}


def test_a_submit_says_all_that_was_asked_for(platform, triton_jobs):
    options = ["--horizon", "24", "--priority", "high", "--time-limit", "15m"]
    triton_jobs("submit", "--prospect", "Lakeside", "--value-proposition", "Lakeside", *options)
    assert platform.bodies == [
        {
            "job_type": "value_proposition",
            "prospect_id": JOB,
            "value_proposition_id": JOB,
            "parameters": {"horizon_months": 24},
            "priority": "high",
            "time_limit_seconds": 900,
        }
    ]


def test_a_name_that_is_not_one_things_is_refused(triton_jobs):
    several = triton_jobs("submit", "--prospect", "Twin", "--value-proposition", JOB)
    assert f"There are 2 of the name Twin: give the prospect's id, one of {OTHER}, {JOB}." in several.stderr
    none = triton_jobs("submit", "--prospect", JOB, "--value-proposition", "Nothing")
    assert "There is no value proposition named Nothing." in none.stderr
    assert none.exit_code == several.exit_code == 1


def test_a_refusal_has_its_code_its_request_its_fields_and_when_to_try_again(triton_jobs):
    base = ("submit", "--prospect", JOB, "--value-proposition", JOB)
    full = triton_jobs(*base, "--priority", "low")
    assert full.stderr == (
        "error: POST /api/v1/jobs answered 429: There are 10000 pending jobs. (queue_full, request r-1)"
        " Try again in 7 s.\n"
    )
    invalid = triton_jobs(*base, "--time-limit", "10s")
    assert invalid.stderr.splitlines()[1] == "  body.time_limit_seconds: at least 11 here"
    assert (full.exit_code, invalid.exit_code, full.stdout) == (1, 1, "")


def test_a_list_takes_as_many_pages_as_it_needs(platform, triton_jobs):
    everything = triton_jobs("list", "--all", "--status", "failed", "--status", "processing", "--created-after", "2h")
    assert len(everything.stdout.splitlines()) == 300
    assert [body["limit"] for body in platform.bodies] == ["200", "200"]
    assert platform.bodies[0]["status"] == ["failed", "processing"]
    assert platform.bodies[0]["created_after"].endswith("+00:00")
    some = triton_jobs("list", "-n", "250", "--json")
    assert [len(json.loads(some.stdout)["items"]), json.loads(some.stdout)["next_cursor"]] == [250, "250"]
    assert some.stderr == ""
    usual = triton_jobs("list")
    assert len(usual.stdout.splitlines()) == 50
    assert "There are more than these 50" in usual.stderr
    rest = triton_jobs("list", "--cursor", "298")
    assert rest.stdout.splitlines()[1].split("\t")[1:] == [
        *("failed", "5", "high", "1", "2026-11-20T18:00:00Z", "no_data", "")
    ]


@pytest.mark.parametrize(
    "options", [["--status", "failed,cancelled"], ["--status", "failed, cancelled", "--status", "failed"]]
)
def test_states_may_have_commas_between(platform, triton_jobs, options):
    assert triton_jobs("list", *options).exit_code == 0
    assert platform.bodies[0]["status"] == ["failed", "cancelled"]


def test_events_are_followed_no_longer_than_asked_for(platform, triton_jobs):
    platform.events, platform.breaks_after = HISTORY[:2], [2]
    platform.still = True
    late = triton_jobs("events", JOB, "--follow", "--timeout", "0.3s")
    assert late.exit_code == 5
    assert [line.split("\t")[2] for line in late.stdout.splitlines()] == ["submitted", "claimed"]
    assert f"Job {JOB} is not over after 0.3 s; it goes on" in late.stderr
    platform.events, platform.still, platform.breaks_after = HISTORY, False, [6]
    assert triton_jobs("events", JOB, "--follow", "--timeout", "1m").exit_code == 0


@pytest.mark.parametrize("how", ["--wait", "--watch"])
def test_a_job_that_is_waited_for_no_longer_is_printed_as_it_stands(platform, triton_jobs, how):
    platform.events, platform.breaks_after, platform.still = HISTORY[:2], [2], True
    command = ("submit", "--prospect", JOB, "--value-proposition", OTHER, "--json", how)
    late = triton_jobs(*command, "--timeout", "0.3s")
    assert (late.exit_code, json.loads(late.stdout)) == (5, platform.job())
    assert f"Job {JOB} is not over after 0.3 s; it goes on" in late.stderr
    platform.interrupts = True
    interrupted = triton_jobs(*command)
    assert (interrupted.exit_code, json.loads(interrupted.stdout)) == (130, platform.job())
    assert f"Job {JOB} goes on" in interrupted.stderr
    platform.refusals = [503]
    alone = triton_jobs(*command)
    assert (alone.exit_code, json.loads(alone.stdout)) == (130, {"id": JOB})


def test_a_job_whose_events_are_out_of_reach_is_printed_as_it_stands(platform, triton_jobs, monkeypatch):
    monkeypatch.setattr("triton_cli.progress.RECONNECTS", 0)
    platform.breaks_after = [3]
    answer = triton_jobs("submit", "--prospect", JOB, "--value-proposition", OTHER, "--json", "--wait")
    assert (answer.exit_code, json.loads(answer.stdout)) == (1, platform.job())


def test_a_refusal_has_no_characters_that_move_a_terminal(triton_jobs):
    answer = triton_jobs("get", HOSTILE)
    assert answer.stderr == (
        f"error: GET /api/v1/jobs/{HOSTILE} answered 404: Gone. ]0;owned  error: the disk is full (no c, request r-1)"
        " Try again in  2J s.\n"
    )


def test_a_table_shows_whole_ids(triton_jobs, monkeypatch):
    said = StringIO()
    monkeypatch.setattr(lists, "output", Console(file=said, force_terminal=True, width=80, color_system=None))
    triton_jobs("list", "-n", "3")
    lines = said.getvalue().splitlines()
    assert lines[0].split() == ["job", "status", "%", "priority", "age"]
    assert lines[2].startswith(f"{1:036}  failed")
    assert "no_data" in lines[2]
    assert "writing" in lines[3]


def test_a_selection_is_asked_about_and_changed(platform, triton_jobs):
    declined = triton_jobs("cancel", "--status", "processing")
    assert declined.exit_code == 1
    question, told = declined.stderr.splitlines()
    assert question.startswith("Cancel 150 jobs at http://127.0.0.1:")
    assert told == "error: Nobody answered, and nothing was done. Where nobody can be asked, use --yes."
    assert all(body["dry_run"] for body in platform.bodies)

    dry = triton_jobs("cancel", "--status", "processing", "--dry-run")
    assert dry.stdout == "150 jobs would be cancelled.\n"

    platform.bodies.clear()
    done = triton_jobs("cancel", "--status", "processing", "--prospect", "Lakeside", "--yes", "--json")
    assert json.loads(done.stdout) == {"matched": 150, "changed": 150, "complete": True}
    assert platform.bodies[1:] == [{"status": ["processing"], "prospect_id": JOB}]
    assert triton_jobs("cancel", "--status", "processing").stdout == "0 of 0 jobs cancelled.\n"


def test_what_fails_again_at_once_is_retried_once(platform, triton_jobs, monkeypatch):
    monkeypatch.setattr("triton_cli.api.AT_ONCE", 60)
    platform.at_once = 100
    assert triton_jobs("retry", "--type", "value_proposition", "--dry-run").stdout == (
        "more than 100 jobs would be retried.\n"
    )
    done = triton_jobs("retry", "--type", "value_proposition", "--yes", "--json")
    assert json.loads(done.stdout) == {"matched": 150, "changed": 150, "complete": True}
    retried = [body["ids"] for body in platform.bodies if "ids" in body]
    assert [len(ids) for ids in retried] == [60, 60, 30]
    assert [one for ids in retried for one in ids] == [job["id"] for job in platform.jobs if job["status"] == "failed"]
    listed = [body for body in platform.bodies if "limit" in body]
    assert {tuple(body["status"]) for body in listed} == {("failed", "cancelled")}
    assert {body["job_type"] for body in listed} == {"value_proposition"}


@pytest.mark.parametrize("empty", ["--client", "--prospect", "--schedule", "--created-before"])
def test_a_filter_that_is_empty_is_a_mistake_and_not_all_jobs(platform, triton_jobs, empty):
    answer = triton_jobs("cancel", "--status", "pending", empty, "", "--yes")
    assert answer.exit_code in (1, 2)
    assert {job["status"] for job in platform.jobs} == {"failed", "processing"}


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_what_to_change_is_named_one_way(triton_jobs, verb):
    for arguments in ([], ["--dry-run"], ["--yes"]):
        answer = triton_jobs(verb, *arguments)
        assert answer.exit_code == 2
        assert answer.stderr == (f"error: Which jobs to {verb}? Name their ids, or choose by --status and the like.\n")
    both = triton_jobs(verb, JOB, "--status", "failed")
    assert both.exit_code == 2
    assert "Ids and filters exclude each other" in both.stderr


SUBMIT = ("submit", "--prospect", JOB, "--value-proposition", JOB)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ((*SUBMIT, "--time-limit", "5s"), "5s is no time limit"),
        ((*SUBMIT, "--time-limit", "2d"), "2d is no time limit"),
        ((*SUBMIT, "--time-limit", "10.5s"), "10.5s is no time limit"),
        ((*SUBMIT, "--time-limit", "soon"), "soon is no duration"),
        ((*SUBMIT, "--idempotency-key", ""), "nothing is no key"),
        ((*SUBMIT, "--timeout", "5s"), "--timeout ends --watch or --wait"),
        (("events", JOB, "--timeout", "5s"), "--timeout ends --follow"),
        (("list", "--type", "foo"), "'value_proposition'"),
        (("list", "--error-code", "%"), "% is no code"),
        (("list", "--error-code", "mod*el"), "mod*el is no code"),
        (("cancel", "--error-code", "", "--yes"), "nothing is no code"),
        (("cancel", "--status", "failed,over", "--yes"), "over is no state"),
        (("cancel", "--status", "", "--yes"), "nothing is no state"),
        (("list", "--url", "localhost:8000"), "is no URL of a platform"),
    ],
)
def test_what_the_command_can_judge_is_wrong_usage(platform, triton_jobs, command, told):
    answer = triton_jobs(*command, COLUMNS="200")
    assert answer.exit_code == 2
    assert told in answer.stderr
    assert platform.logins == []


def test_time_limits_are_seconds_or_spans():
    assert [filters.time_limit(text) for text in ("10", "90s", "1.5m", "10m", "2h", "1d")] == [
        *(10, 90, 90, 600, 7200, 86_400)
    ]


def test_an_answer_that_is_none_of_ours_is_told_of(triton_jobs):
    answer = triton_jobs("get", OTHER)
    assert answer.exit_code == 1
    assert "something that is not JSON: is this a Triton platform?" in answer.stderr


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TRITON_PASSWORD": None}, "Set TRITON_EMAIL and TRITON_PASSWORD both"),
        ({"TRITON_EMAIL": None, "TRITON_PASSWORD": None}, "Nobody to log in as at http://127.0.0.1:"),
        ({"TRITON_TOKEN": "a\nb"}, "TRITON_TOKEN is no token"),
        ({"TRITON_URL": "localhost:8000"}, "localhost:8000 is no URL of a platform"),
        ({"TRITON_URL": "http://sam:pw@localhost:8000"}, "URL names no user"),
        ({"TRITON_URL": "http://localhost:port"}, "http://localhost:port is no URL"),
        ({"TRITON_URL": f"http://127.0.0.1:{free_port()}"}, "does not answer (ConnectError). See `triton status`"),
    ],
)
def test_what_keeps_from_the_platform_is_told(triton_jobs, environment, told):
    answer = triton_jobs("list", **environment)
    assert answer.exit_code == (2 if "no URL" in told or "no user" in told else 1)
    assert told in answer.stderr


@contextmanager
def _stack_at(state: State, url: str) -> Any:
    with state.locked():
        state.secrets()
        state.publish({"url": url, "pid": os.getpid()})
        yield


def test_the_admins_password_goes_to_no_other_platform(platform, triton_jobs, tmp_path):
    state = State(tmp_path / "state")
    nobody: dict[str, None] = {"TRITON_EMAIL": None, "TRITON_PASSWORD": None}
    with _stack_at(state, "http://127.0.0.1:1"):
        refused = triton_jobs("list", **nobody)
    assert "Nobody to log in as" in refused.stderr
    assert platform.logins == []
    with _stack_at(state, platform.url):
        assert triton_jobs("list", **nobody, TRITON_URL=None).exit_code == 0
        assert triton_jobs("list", **nobody, TRITON_URL=platform.url.replace("127.0.0.1", "localhost")).exit_code == 0
    assert [login["password"] for login in platform.logins] == 2 * [state.secrets().admin_password]


def test_the_admins_password_goes_to_where_the_stack_listens(tmp_path, monkeypatch):
    for name in ("TRITON_TOKEN", "TRITON_EMAIL", "TRITON_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    state = State(tmp_path / "state")
    with _stack_at(state, "http://127.0.0.1:8000"):
        for same in ("http://127.0.0.1:8000", "http://localhost:8000", "http://localhost:8000/"):
            assert api_of(same, state).url == "http://127.0.0.1:8000"
        for other in ("http://[::1]:8000", "http://127.0.0.2:8000", "https://localhost:8000", "http://localhost:8001"):
            with pytest.raises(CommandFailed, match="Nobody to log in as"):
                api_of(other, state)


def test_choices_are_those_of_the_platform():
    assert list(get_args(filters.Status)) == [status.value for status in JobStatus]
    assert list(get_args(filters.Priority)) == [priority.value for priority in JobPriority]
    api = json.loads((CHECKOUT / "docs" / "openapi" / "jobs-service.json").read_text())
    job = api["components"]["schemas"]["JobCreate"]["properties"]
    assert get_args(filters.JobType) == (job["job_type"]["const"],)
    limit = job["time_limit_seconds"]["anyOf"][0]
    assert (filters.TIME_LIMITS[0], filters.TIME_LIMITS[-1]) == (limit["minimum"], limit["maximum"])
    taken = {
        parameter["name"]: parameter["schema"].get("anyOf", [{}])[0]
        for method in ("get", "post")
        for parameter in api["paths"]["/api/v1/jobs"][method]["parameters"]
    }
    assert taken["error_code"] == {"type": "string", "minLength": 1, "pattern": filters.ERROR_CODE}
    key = taken["Idempotency-Key"]
    assert (key["pattern"], key["maxLength"]) == (filters.KEY, filters.LONGEST_KEY)


def test_times_are_moments_or_how_long_ago():
    assert filters.moment("2026-11-22") == "2026-11-22T00:00:00+00:00"
    assert filters.moment("2026-11-22T18:30:00+02:00") == "2026-11-22T18:30:00+02:00"
    assert filters.moment("3d") < filters.moment("2h") < filters.moment("0s")
    assert [filters.duration(text) for text in ("90", "1.5s", "15m", "2h", "3d", "1w")] == [
        *(90, 1.5, 900, 7200, 259_200, 604_800)
    ]
    for nonsense in ("", "yesterday", "5y", "-2h", "9999999w", "1.2.3s"):
        with pytest.raises(typer.BadParameter):
            filters.moment(nonsense)


def test_spans_are_short():
    spans = [lists.span(seconds) for seconds in (0.5, 12, 100, 5_000, 100_000, 1_000_000)]
    assert spans == ["0.5 s", "12 s", "1.7 min", "83 min", "28 h", "12 d"]
