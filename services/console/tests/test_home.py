from console.main import build
from console.settings import Settings
from triton_common.testing import assert_openapi_matches

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_home_is_json_for_scripts_with_links_that_console_serves(running):
    async with running(build(Settings())) as http:
        answer = await http.get("/")
        assert answer.status_code == 200
        about = answer.json()
        assert about["name"] == "Triton"
        assert about["version"]
        assert about["description"]
        for name in ("docs", "openapi"):
            assert (await http.get(about["links"][name])).status_code == 200


async def test_home_is_a_page_for_browsers_that_loads_nothing_from_elsewhere(running, platform, services):
    settings = platform(auth=services["auth"])
    async with running(build(settings)) as http:
        answer = await http.get("/", headers=BROWSER)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Vary"] == "Accept"
    assert "<h1>Triton" in answer.text
    assert "jobs-service does not answer." in answer.text
    assert "<script" not in answer.text
    assert "http://test/api/v1/auth/login" in answer.text
    for name in ("auth-service", "jobs-service", "analytics-service", "agent-runner"):
        assert name in answer.text


async def test_docs_come_from_here_alone_and_run_no_inline_script(running):
    async with running(build(Settings())) as http:
        page = (await http.get("/docs")).text
        for path in (
            "/docs/swagger-ui/swagger-ui.css",
            "/docs/swagger-ui/swagger-ui-bundle.js",
            "/docs/assets/docs.js",
        ):
            assert f'"{path}"' in page
            asset = await http.get(path)
            assert asset.status_code == 200
            assert asset.headers["ETag"]
        assert "//" not in page.replace("<!doctype html>", "")
        assert "<script>" not in page
        assert "OpenAPI" in (await http.get("/docs/swagger-ui/swagger-ui-bundle.js")).text


async def test_an_unknown_path_is_a_problem(running):
    async with running(build(Settings())) as http:
        for path in ("/nothing", "/docs/assets/nothing.js"):
            answer = await http.get(path)
            assert answer.status_code == 404
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "not_found"


def test_openapi_document_is_kept():
    assert_openapi_matches(build(Settings()), "console")
