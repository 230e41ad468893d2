"""Documents: who reads them, and in which form."""

import re
from html.parser import HTMLParser

import pytest
from sqlalchemy import event


@pytest.fixture
async def document(api):
    """A document of a completed job."""
    job = await api.job()
    await api.claim(job)
    answer = await api.finish(job)
    return (await api.get(f"/api/v1/documents/{answer.json()['document_id']}")).json()


async def test_the_content_is_what_the_worker_sent(api, document):
    content = document["content"]
    assert (content["title"], content["notice"]) == (api.document["title"], api.document["notice"])
    assert content["facts"] == [fact | {"formula": "", "report": None} for fact in api.document["facts"]]
    assert len(content["charts"]) == 3


async def test_html_keeps_signs_at_their_amounts_and_long_words_on_the_page(api):
    job = await api.job()
    await api.claim(job)
    told = api.document | {
        "sections": [{"key": "risks", "title": "Risks", "paragraphs": [{"text": "A net of \u2212$566.83."}]}]
    }
    made = (await api.finish(job, document=told)).json()["document_id"]
    page = (await api.get(f"/api/v1/documents/{made}", params={"format": "html"})).text
    assert "\u2212\u2060$566.83." in page
    assert "overflow-wrap: break-word" in page


async def test_list_names_documents_without_their_content(api, document):
    listed = (await api.get("/api/v1/documents")).json()
    assert listed == {
        "items": [
            {key: document[key] for key in document if key != "content"} | {"title": document["content"]["title"]}
        ],
        "next_cursor": None,
    }


async def test_list_reads_no_content_but_the_title(api, app, document):
    engine, statements = app.state.database.engine.sync_engine, []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    listed = (await api.get("/api/v1/documents")).json()["items"]
    assert [item["title"] for item in listed] == [document["content"]["title"]]
    [read] = [statement for statement in statements if "FROM documents" in statement]
    assert re.findall(r"documents\.content\b.{6}", read) == ["documents.content ->> %"]


async def test_list_goes_on_where_the_last_page_ended(api):
    made = []
    for _ in range(3):
        job = await api.job()
        await api.claim(job)
        made.insert(0, (await api.finish(job)).json()["document_id"])
    first = (await api.get("/api/v1/documents", params={"limit": 2})).json()
    rest = (await api.get("/api/v1/documents", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [[item["id"] for item in page["items"]] for page in (first, rest)] == [made[:2], made[2:]]
    assert rest["next_cursor"] is None
    refused = await api.get("/api/v1/documents", params={"cursor": "x"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("field", ["job_id", "prospect_id", "client_id"])
async def test_list_is_filtered(api, document, field, nobody):
    found = (await api.get("/api/v1/documents", params={field: document[field]})).json()["items"]
    assert [item["id"] for item in found] == [document["id"]]
    assert (await api.get("/api/v1/documents", params={field: nobody})).json()["items"] == []


async def test_another_clients_documents_do_not_exist(api, document, nobody):
    other = await api.client("Other")
    user = api.bound(other, "viewer")
    for path in (f"/api/v1/documents/{document['id']}", f"/api/v1/documents/{nobody}"):
        answer = await api.get(path, user=user)
        assert (answer.status_code, answer.json()["code"]) == (404, "document_not_found")
    assert (await api.get("/api/v1/documents", user=user)).json()["items"] == []
    own = api.as_user("viewer", client_id=document["client_id"])
    assert (await api.get(f"/api/v1/documents/{document['id']}", user=own)).status_code == 200


@pytest.mark.parametrize(
    ("accept", "form", "media_type"),
    [
        ("", None, "application/json"),
        ("*/*", None, "application/json"),
        ("image/png", None, "application/json"),
        ("application/json, text/html;q=0.9", None, "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", None, "text/html"),
        ("text/html;q=0.2, text/markdown;q=0.7", None, "text/markdown"),
        ("text/html;q=much, text/markdown;q=0.1", None, "text/markdown"),
        ("text/html;q=0", None, "application/json"),
        ("text/html;q=7", None, "application/json"),
        ("text/*", None, "text/markdown"),
        ("text/*, text/markdown;q=0.5", None, "text/html"),
        ("application/json;q=0, */*", None, "text/markdown"),
        ("application/pdf;q=0.9, */*;q=0.1", None, "application/pdf"),
        ("application/pdf", None, "application/pdf"),
        ("text/html", "pdf", "application/pdf"),
        ("application/json", "html", "text/html"),
        ("text/html", "md", "text/markdown"),
        ("text/html", "markdown", "text/markdown"),
        ("text/html", "json", "application/json"),
    ],
)
async def test_the_form_is_what_was_asked_for(api, document, accept, form, media_type):
    params = {"format": form} if form else {}
    answer = await api.get(f"/api/v1/documents/{document['id']}", headers={"Accept": accept}, params=params)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].split(";")[0] == media_type
    assert answer.headers["Vary"] == "Accept"


@pytest.mark.parametrize("query", ["?client=1", "?job_id=1", "?limit=0", "/{id}?format=html&format=pdf"])
async def test_a_query_that_is_not_understood_is_refused(api, document, query):
    answer = await api.get(f"/api/v1/documents{query.format(id=document['id'])}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


async def test_a_form_that_is_none_is_refused(api, document):
    answer = await api.get(f"/api/v1/documents/{document['id']}", params={"format": "docx"})
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "query.format")


class Page(HTMLParser):
    """What an HTML page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "line", "rect", "path", "circle") or (tag == "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_startendtag(self, tag, _attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


async def test_html_stands_alone_and_holds_everything(api, document):
    answer = await api.get(f"/api/v1/documents/{document['id']}", params={"format": "html"})
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Disposition"] == 'inline; filename="coaching-for-acme-friends.html"'
    page = Page(answer.text)
    assert page.links == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    text = " ".join(" ".join(page.text).split())
    order = [
        "Coaching for <Acme> & friends",
        "No model wrote this.",
        "Your population",
        "27 members.",
        "Cost by category",
        "$1.3M",
        "In pictures",
        "No data.",
        "Where the figures come from",
        "report summary",
        "offline:template",
    ]
    places = [
        text.index(words, 0 if number else text.index("</title>") if "</title>" in text else 0)
        for number, words in enumerate(order)
    ]
    assert places == sorted(places)
    assert "nan" not in answer.text.lower()
    assert "<Acme>" not in answer.text


async def test_markdown_holds_everything_and_no_html(api, document):
    answer = await api.get(f"/api/v1/documents/{document['id']}", params={"format": "md"})
    assert answer.headers["Content-Disposition"] == 'inline; filename="coaching-for-acme-friends.md"'
    lines = answer.text.splitlines()
    assert lines[0] == r"# Coaching for \<Acme\> \& friends"
    assert lines[2] == "> **Note.** No model wrote this."
    assert "| Members | 27 | report summary |" in lines
    assert "| inpatient | $1.3M |" in lines
    assert not re.search(r"(?<!\\)<", answer.text)
    assert "\n\n\n" not in answer.text


async def test_a_document_of_nothing_but_a_title(api):
    job = await api.job()
    await api.claim(job)
    bare = {"title": "!", "model": "bedrock:x", "currency": "USD", "sections": [], "facts": [], "input_tokens": 12}
    answer = await api.finish(job, document=bare)
    for form in ("html", "md"):
        text = (await api.get(f"/api/v1/documents/{answer.json()['document_id']}", params={"format": form})).text
        assert "12 tokens in, 0 out" in text
        assert "Where the figures" not in text
        assert "Note." not in text


TRACED = {
    "id": "pmpm",
    "label": "Cost per member per month",
    "value": "131.48",
    "unit": "USD",
    "display": "$131.48",
    "source": "summary report: total_paid / member_months",
    "formula": "total_paid / member_months",
    "report": "summary",
}
QUERY = {"id": "summary", "method": "GET", "path": "/api/v1/analytics/prospects/x/reports/summary", "params": {}}


async def made(api, job=None, **different):
    """A document made by a job, a new one unless told."""
    job = job or await api.job()
    await api.claim(job)
    return (await api.finish(job, document=api.document | different)).json()["document_id"]


async def test_a_fact_tells_where_it_came_from(api):
    sections = [
        {"key": "population", "title": "P", "paragraphs": [{"text": "x"}, {"text": "$131.48 each.", "facts": ["pmpm"]}]}
    ]
    document = await made(api, facts=[TRACED], reports=[QUERY], sections=sections)

    [listed] = (await api.get(f"/api/v1/documents/{document}/facts")).json()
    fact = (await api.get(f"/api/v1/documents/{document}/facts/pmpm")).json()
    assert listed == TRACED
    assert fact == TRACED | {
        "query": QUERY | {"body": None},
        "shown_in": [{"section": "population", "paragraph": 2, "text": "$131.48 each."}],
    }


async def test_a_fact_of_no_report_has_no_query(api, document):
    fact = (await api.get(f"/api/v1/documents/{document['id']}/facts/members")).json()
    assert (fact["formula"], fact["report"], fact["query"]) == ("", None, None)
    assert [place["section"] for place in fact["shown_in"]] == ["population"]


@pytest.mark.parametrize("fact", ["unknown", "a.b", "%7B%7Bpmpm%7D%7D", "x" * 200])
async def test_a_fact_that_the_document_has_not_is_not_found(api, document, fact):
    answer = await api.get(f"/api/v1/documents/{document['id']}/facts/{fact}")
    assert (answer.status_code, answer.json()["code"]) == (404, "fact_not_found")


@pytest.mark.parametrize("below", ["", "/facts", "/facts/members", "/versions"])
async def test_what_belongs_to_a_document_is_its_readers_alone(api, document, nobody, below):
    other = api.bound(await api.client("Other"), "viewer")
    for user, path in ((other, document["id"]), (api.admin, nobody)):
        answer = await api.get(f"/api/v1/documents/{path}{below}", user=user)
        assert (answer.status_code, answer.json()["code"]) == (404, "document_not_found")
    own = api.as_user("viewer", client_id=document["client_id"])
    assert (await api.get(f"/api/v1/documents/{document['id']}{below}", user=own)).status_code == 200
    assert (await api.get(f"/api/v1/documents/{document['id']}{below}", user={})).status_code == 401
    assert (await api.get(f"/api/v1/documents/{document['id']}{below}", user=api.worker)).status_code == 403


async def test_each_job_makes_another_version_and_none_is_lost(api):
    client = await api.client()
    first_job = await api.job(client)
    again = {key: first_job[key] for key in ("prospect_id", "value_proposition_id")}
    first = await made(api, first_job)
    second_job = (await api.post("/api/v1/jobs", {"job_type": "value_proposition"} | again)).json()
    second = await made(api, second_job, title="Second")
    other = await made(api)

    versions = (await api.get(f"/api/v1/documents/{first}/versions")).json()["items"]
    assert [(item["id"], item["version"], item["title"]) for item in versions] == [
        (second, 2, "Second"),
        (first, 1, api.document["title"]),
    ]
    assert (await api.get(f"/api/v1/documents/{second}/versions")).json()["items"] == versions
    read = [(await api.get(f"/api/v1/documents/{document}")).json() for document in (first, second, other)]
    assert [document["version"] for document in read] == [1, 2, 1]
    assert read[0]["content"]["title"] == api.document["title"]
    page = (await api.get(f"/api/v1/documents/{first}/versions", params={"limit": 1})).json()
    rest = (await api.get(f"/api/v1/documents/{first}/versions", params={"cursor": page["next_cursor"]})).json()
    assert [item["version"] for item in page["items"] + rest["items"]] == [2, 1]
    of_both = (await api.get("/api/v1/documents", params=again)).json()["items"]
    assert of_both == versions
    html = (await api.get(f"/api/v1/documents/{second}", params={"format": "html"})).text
    assert "version 2" in html


async def test_tables_and_highlights_show_facts(api):
    tables = [
        {
            "title": "Cases",
            "section": "population",
            "columns": ["Low", "High"],
            "rows": [{"label": "Cost", "facts": ["pmpm", "gone"]}],
        }
    ]
    highlights = [{"label": "Each", "fact": "pmpm"}, {"label": "Gone", "fact": "gone"}]
    document = await made(api, facts=[TRACED], tables=tables, highlights=highlights)

    page = Page((await api.get(f"/api/v1/documents/{document}", params={"format": "html"})).text)
    text = " ".join(" ".join(page.text).split())
    assert "Each $131.48" in text
    assert "Cost $131.48" in text
    assert "Gone" not in text
    assert text.count("summary report: total_paid / member_months") == 1
    markdown = (await api.get(f"/api/v1/documents/{document}", params={"format": "md"})).text
    assert "- Each: **$131.48**" in markdown
    assert "| | Low | High |\n|---|---:|---:|\n| Cost | $131.48 |  |" in markdown


async def test_an_entity_in_a_text_is_none_in_markdown(api):
    document = await made(api, title="Half &half; of it")
    markdown = (await api.get(f"/api/v1/documents/{document}", params={"format": "md"})).text
    assert markdown.splitlines()[0] == r"# Half \&half; of it"
