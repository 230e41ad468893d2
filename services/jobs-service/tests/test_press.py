"""PDFs: what is in them, and what a document cannot do to the process that typesets it."""

import asyncio
from datetime import UTC, datetime
from io import BytesIO
from uuid import uuid4

import pytest
from pypdf import PdfReader

from jobs_service import press
from jobs_service.press import PdfBusy, PdfFailed, Press
from jobs_service.schemas.documents import DocumentPublic

CONTENT = {
    "title": "Coaching",
    "model": "offline:template",
    "currency": "USD",
    "sections": [{"key": "population", "title": "Your population", "paragraphs": [{"text": "27 members."}]}],
    "facts": [],
}


def public(**different) -> DocumentPublic:
    ids = {name: uuid4() for name in ("id", "job_id", "client_id", "prospect_id", "value_proposition_id")}
    made = {"created_at": datetime.now(UTC), "version": 3, "content": {**CONTENT, **different}}
    return DocumentPublic.model_validate(ids | made)


def text_of(content: bytes) -> str:
    return " ".join(" ".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages).split())


def paragraphs(*texts: str) -> list[dict[str, object]]:
    return [{"key": "population", "title": "Your population", "paragraphs": [{"text": text} for text in texts]}]


async def test_a_pdf_holds_what_the_document_says(api):
    job = await api.job()
    await api.claim(job)
    document = (await api.finish(job)).json()["document_id"]
    answer = await api.get(f"/api/v1/documents/{document}", headers={"Accept": "application/pdf"})
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.headers["Content-Disposition"] == 'inline; filename="coaching-for-acme-friends.pdf"'
    text = text_of(answer.content)
    for words in (
        "Coaching for <Acme> & friends",
        "No model wrote this.",
        "27 members.",
        "$1.3M",
        "No data.",
        document,
    ):
        assert words in text
    pdf = PdfReader(BytesIO(answer.content))
    assert pdf.metadata.title == "Coaching for <Acme> & friends"
    assert pdf.trailer["/Root"]["/MarkInfo"]["/Marked"]  # for screen readers


@pytest.mark.parametrize(
    "text",
    [
        '#read("document.typ")',
        '#import "@preview/example:0.1.0": add',
        '#image("https://example.com/x.png")',
        "$x^2$ *bold* _soft_ `code` = Heading",
        "#while true {}",
        "</script><script>alert(1)</script> & < > \" ' \\\\ // /* */",
        "{{pmpm}} [link](https://example.com) <label> @ref",
        "\u0417\u0434\u0440\u0430\u0432 \u03b1\u03b2\u03b3 \u00e9\u00df",
    ],
)
async def test_a_text_is_text_whatever_it_says(text):
    content = await Press().pdf(public(title=text, notice=text, sections=paragraphs(text)))
    shown = text_of(content).replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')
    assert shown.count("".join(text.split()[:1])) >= 3


@pytest.mark.parametrize(
    ("text", "is_shown"),
    [
        ("Caf\u00e9 \u0417\u0434\u0440\u0430\u0432 \u03b1\u03b2 \u05e9\u05dc\u05d5\u05dd", True),
        ("\u221227 \u20ac \u2192 \u2026", True),
        ("\u5e73\u5b89 Insurance", False),
        ("\u0e44\u0e17\u0e22", False),
    ],
)
async def test_a_character_without_a_font_is_no_silent_box(text, is_shown):
    shown = text_of(await Press().pdf(public(title=text)))
    assert ("characters that no font here has" in shown) is not is_shown


async def test_what_is_too_long_stays_on_the_page():
    word = "Verylongprogrammename" * 9  # 189 characters; no line of a page has room for 120
    content = await Press().pdf(public(title=word, notice=word, sections=paragraphs(word, "\u5e73" * 200)))
    lines = [line for page in PdfReader(BytesIO(content)).pages for line in page.extract_text().splitlines()]
    assert max(map(len, lines)) < 120


async def test_an_amount_keeps_its_sign_on_its_line():
    words = [f"{'x' * length} \u2212$566.83" for length in range(60, 90)]
    content = await Press().pdf(public(sections=paragraphs(*words)))
    lines = [line for page in PdfReader(BytesIO(content)).pages for line in page.extract_text().splitlines()]
    assert not [line for line in lines if line.rstrip().endswith("\u2212")]


async def test_a_label_without_a_font_is_no_silent_box():
    points = [{"label": "\u5e73\u5b89", "value": "1"}]
    chart = {"key": "c", "title": "T", "kind": "bar", "unit": "USD", "points": points}
    assert "characters that no font here has" in text_of(await Press().pdf(public(charts=[chart])))


async def test_labels_in_charts_are_text_too():
    label = "</text><image href='file:///etc/passwd'/> & <b>"
    chart = {"key": "c", "title": "T", "kind": "bar", "unit": "USD", "points": [{"label": label, "value": "1"}]}
    assert "</text><image" in text_of(await Press().pdf(public(charts=[chart])))


async def test_a_document_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(press, "TIMEOUT", 0.0)
    with pytest.raises(PdfFailed):
        await Press().pdf(public())


async def test_a_document_that_cannot_be_typeset_is_an_error_of_ours(monkeypatch):
    monkeypatch.setattr(press.documents, "printed", lambda _: {"title": "and nothing else"})
    with pytest.raises(PdfFailed):
        await Press().pdf(public())


async def test_of_too_many_at_once_some_are_told_to_come_again():
    busy = Press()
    asked = [asyncio.create_task(busy.pdf(public())) for _ in range(press.AT_ONCE + press.WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(PdfBusy) as refused:
        await busy.pdf(public())
    assert refused.value.retry_after == 2
    for task in asked:
        task.cancel()
    assert all(
        isinstance(done, asyncio.CancelledError) for done in await asyncio.gather(*asked, return_exceptions=True)
    )
    assert (await busy.pdf(public())).startswith(b"%PDF")
