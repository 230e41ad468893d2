"""What others rely on is written down: the OpenAPI document, the settings, the error codes."""

from auth_service.main import build
from auth_service.settings import Settings
from triton_common.testing import assert_openapi_matches


def test_docs_openapi_has_this_service():
    assert_openapi_matches(build(Settings()), "auth-service")


def test_every_operation_says_what_it_does_and_how_it_fails():
    for path, operations in build(Settings()).openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], f"{method} {path}"
            assert path.endswith("jwks.json") or "503" in operation["responses"], f"{method} {path}"
