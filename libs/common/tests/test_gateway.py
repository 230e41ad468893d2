import pytest

from triton_common import gateway
from triton_common.app import create_app
from triton_common.settings import CommonSettings


@pytest.mark.parametrize(
    ("status", "code", "retry_after"),
    [
        (404, "not_found", None),
        (405, "not_allowed", None),
        (413, "content_too_large", None),
        (418, "not_found", None),
        (503, "service_unreachable", "2"),
    ],
)
async def test_the_gateways_errors_have_the_shape_of_all_errors(running, status, code, retry_after):
    app = create_app(CommonSettings(), name="test", version="1", description="", routers=[gateway.router])
    async with running(app) as http:
        answer = await http.get(f"/errors/{status}", headers={"X-Request-ID": "request-0001"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers.get("Retry-After") == retry_after
    assert ("Allow" in answer.headers) == (status == 405)
    problem = answer.json()
    assert problem["code"] == code
    assert problem["request_id"] == "request-0001"
    assert answer.status_code == problem["status"]
