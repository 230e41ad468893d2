"""Bodies: types, encodings, limits; and that no temporary file stays."""

import fcntl
import gzip
import shutil
import tempfile
import tracemalloc
import zlib
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
from conftest import JobsService, Prospect
from starlette.requests import ClientDisconnect
from test_ingest import GOOD, claims

from analytics_service.main import build
from analytics_service.unpacking import CHUNK, Arriving
from analytics_service.uploads import FOLDER, _lock, received, spool_folder
from triton_common.errors import AppError

ONE_ENGINE = True

BODY = claims(GOOD)


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/octet-stream", "text/csv; charset=latin-1", ""]
)
async def test_other_types_are_refused(prospect: Prospect, kind: str):
    answer = await prospect.send("claims", BODY, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "upload_type_not_supported")


@pytest.mark.parametrize("parameters", ["charset=UTF-8", 'charset="utf-8"; header=present', "header=present"])
async def test_a_charset_that_is_utf8_is_taken(prospect: Prospect, parameters: str):
    answer = await prospect.send("claims", BODY, headers={"Content-Type": f"text/csv; {parameters}"})
    assert answer.status_code == 201


async def test_other_encodings_are_refused(prospect: Prospect):
    answer = await prospect.send("claims", BODY, headers={"Content-Encoding": "br"})
    assert (answer.status_code, answer.json()["code"]) == (415, "upload_type_not_supported")


PACKED = gzip.compress(BODY.encode())


@pytest.mark.parametrize("body", [b"no gzip at all", PACKED[:-9], PACKED[:20], PACKED[:-8] + b"\0" * 8, b""])
async def test_broken_gzip(prospect: Prospect, body: bytes):
    answer = await prospect.send("claims", body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_gzip")
    assert (await prospect.get("batches"))["items"] == []


async def test_gzip_in_two_members(prospect: Prospect):
    body = gzip.compress(claims(GOOD).encode()) + gzip.compress(GOOD.replace("C-1", "C-2").encode())
    answer = await prospect.send("claims", body, headers={"Content-Encoding": "gzip"})
    assert answer.json()["rows"] == 2


async def test_gzip_of_several_files(prospect: Prospect):
    form = httpx2.Request("POST", "http://x", files={"one": ("one.csv", BODY.encode(), "text/csv")})
    headers = {"Content-Type": form.headers["content-type"], "Content-Encoding": "gzip"}
    answer = await prospect.send("claims", gzip.compress(form.read()), headers=headers)
    assert answer.json()["rows"] == 1


FIELD = b'--abc\r\nContent-Disposition: form-data; name="a"\r\n\r\nno file\r\n--abc--\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=abc", b"--abd\r\nnothing like it"),
        ("multipart/form-data; boundary=abc", FIELD),
    ],
)
async def test_broken_multipart(prospect: Prospect, kind: str, body: bytes):
    answer = await prospect.send("claims", body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart")


async def test_a_part_that_is_no_file_is_told_what_to_be(prospect: Prospect):
    answer = await prospect.send("claims", FIELD, headers={"Content-Type": "multipart/form-data; boundary=abc"})
    assert "a file with a file name" in answer.json()["message"]


async def test_a_form_without_files(prospect: Prospect):
    answer = await prospect.send(
        "claims", b"--abc--\r\n", headers={"Content-Type": "multipart/form-data; boundary=abc"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_file")


async def test_the_limit_counts_packed_and_unpacked_bytes(settings, http, running, as_user, jobs_service: JobsService):
    small = build(settings.model_copy(update={"max_upload_bytes": 4096}))
    async with running(small) as client:
        prospect = Prospect(client, as_user(), jobs_service)
        bomb = gzip.compress(claims(*[GOOD] * 5000).encode())
        assert len(bomb) < 4096
        answers = [
            await prospect.send("claims", "x" * 5000),
            await prospect.send("claims", chunked("x" * 5000)),
            await prospect.send("claims", bomb, headers={"Content-Encoding": "gzip"}),
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
        assert (await prospect.send("claims", BODY)).status_code == 201


async def chunked(text: str):
    for start in range(0, len(text), 1000):
        yield text[start : start + 1000].encode()


async def test_memory_is_bounded_whatever_a_body_unpacks_to():
    """A gigabyte of zeros in a megabyte: the limit comes after its first chunks, not after all of it."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * CHUNK) for _ in range(64)) + packer.flush()
    headers = {"content-type": "text/csv", "content-encoding": "gzip"}

    async def body():
        yield bomb

    with pytest.raises(AppError) as caught:
        async with received(headers, body(), limit=2 * CHUNK):
            pass
    assert caught.value.code == "content_too_large"


def test_line_ends_are_not_kept_in_memory():
    arriving = Arriving("csv", limit=1 << 40)
    tracemalloc.start()
    try:
        arriving.write(b"a,b")
        for _ in range(32):
            arriving.write(b"\n" * CHUNK)
        assert tracemalloc.get_traced_memory()[1] < 8 * CHUNK
        ended = arriving.finish().sha256
    finally:
        tracemalloc.stop()
        arriving.discard()
    assert ended == sha256(b"a,b").hexdigest()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_content_is_the_same_however_it_comes(size: int):
    whole = b"\xef\xbb\xbfa,b\r\n\r\n\n1,\r2\r\n\r\n\r"
    arriving = Arriving("csv", limit=CHUNK)
    for start in range(0, len(whole), size):
        arriving.write(whole[start : start + size])
    try:
        assert arriving.finish().sha256 == sha256(b"a,b\n\n\n1,\r2").hexdigest()
    finally:
        arriving.discard()


async def test_a_connection_that_breaks_off(app, prospect: Prospect):
    async def receive():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": f"{prospect.path}/claims",
        "raw_path": b"",
        "query_string": b"",
        "headers": [
            (b"authorization", prospect.headers["Authorization"].encode()),
            (b"content-type", b"text/csv"),
        ],
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert b"upload_broken" in sent[1]["body"]
    assert issubclass(ClientDisconnect, Exception)


async def test_no_temporary_file_stays(settings, prospect: Prospect):
    await prospect.send("claims", BODY)
    await prospect.send_files("claims", {"a": claims(*[GOOD] * 50_000)}, source="triton")
    await prospect.send("claims", "broken")
    left = [path.name for path in settings.spool_dir.rglob("*") if path.is_file()]
    assert left == ["lock"]


def test_folders_of_killed_processes_go(tmp_path: Path):
    dead = tmp_path / f"{FOLDER}dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "upload.csv").write_text("M-1")
    other = tmp_path / "something else"
    other.mkdir()
    with spool_folder(tmp_path) as first, spool_folder(tmp_path) as second:
        assert not dead.exists()
        assert other.exists()
        assert first.exists()  # it lives: its lock is held
        assert second != first
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "about to be removed"])
def test_a_folder_that_another_clean_up_takes_is_given_up_for_a_new_one(tmp_path: Path, monkeypatch, removed: bool):
    """It was made and not yet locked when another process looked for folders of dead ones."""
    make, taken, locks = tempfile.mkdtemp, [], []

    def taken_at_first(**options) -> str:
        folder = Path(make(**options))
        if not taken:
            taken.append(folder)
            locks.append((folder / "lock").open("ab"))
            fcntl.flock(locks[0], fcntl.LOCK_EX)
            if removed:
                shutil.rmtree(folder)
        return str(folder)

    monkeypatch.setattr(tempfile, "mkdtemp", taken_at_first)
    with spool_folder(tmp_path) as folder:
        assert [folder] != taken
        assert _lock(folder) is None  # it is locked
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
    locks[0].close()


def test_the_lock_of_a_file_that_was_removed_is_none(tmp_path: Path, monkeypatch):
    flock = fcntl.flock

    def after_another(lock, how: int) -> None:
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").touch()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", after_another)
    assert _lock(tmp_path) is None


def test_a_place_where_nothing_can_be_locked_ends_the_start(tmp_path: Path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError, match="can be locked"), spool_folder(tmp_path):
        pass
