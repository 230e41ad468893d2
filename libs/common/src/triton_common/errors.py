"""The errors every service answers with, and the handlers that turn them into `application/problem+json` (RFC 9457).

An error class is a noun phrase: its docstring is the title, its name in snake case the code, its base gives the status.

    AppError
    ├── BadRequest            400
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    ├── NotAllowed            405
    ├── Conflict              409
    ├── ContentTooLarge       413
    ├── UnsupportedContent    415
    ├── Unprocessable         422
    ├── TooManyRequests       429
    ├── Internal              500
    └── Unavailable           503
"""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.exceptions import HTTPException

from triton_common.logging import current_request_id
from triton_common.schemas import Problem, ProblemDetail

ERRORS_URL = "https://triton.example/errors"


class AppError(Exception):
    """The request could not be served."""

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]
    title: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, message: str = "", *, details: Sequence[ProblemDetail] = (), retry_after: int | None = None
    ) -> None:
        """`message` says what to do; `details` one entry per field; `retry_after` in seconds becomes the header."""
        self.message = message or self.title
        self.details = list(details)
        self.retry_after = retry_after
        super().__init__(self.message)

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls.title = (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")


class BadRequest(AppError):
    """The request is malformed."""

    status = HTTPStatus.BAD_REQUEST


class Unauthorized(AppError):
    """The request needs a valid access token."""

    status = HTTPStatus.UNAUTHORIZED
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(AppError):
    """The token does not allow this."""

    status = HTTPStatus.FORBIDDEN


class NotFound(AppError):
    """There is nothing here."""

    status = HTTPStatus.NOT_FOUND


class NotAllowed(AppError):
    """The path does not know this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class Conflict(AppError):
    """The request does not fit the present state."""

    status = HTTPStatus.CONFLICT


class ContentTooLarge(AppError):
    """The body is too large."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedContent(AppError):
    """The body's content type is not one this path reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Unprocessable(AppError):
    """The request's content is not valid."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class ValidationFailed(Unprocessable):
    """Fields of the request are not valid."""


class TooManyRequests(AppError):
    """Too many requests; wait and try again."""

    status = HTTPStatus.TOO_MANY_REQUESTS


class Internal(AppError):
    """Something went wrong on our side."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class Unavailable(AppError):
    """A part that this needs is not available; try again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class ProspectNotFound(NotFound):
    """There is no such prospect."""

    # jobs-service, which keeps the prospects, and analytics-service, which keeps their data, both answer with it


def error_classes() -> list[type[AppError]]:
    """Every error class that is imported, by code. What `docs/ERRORS.md` is compared with."""
    found: list[type[AppError]] = []
    todo: list[type[AppError]] = [AppError]
    while todo:
        subclasses = todo.pop().__subclasses__()
        found += subclasses
        todo += subclasses
    return sorted(found, key=lambda cls: cls.code)


def problems(*classes: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that declares its errors, so that OpenAPI knows them."""
    answers: dict[int | str, dict[str, Any]] = {}
    for cls in classes:
        known = answers.setdefault(
            cls.status.value, {"description": "", "content": {"application/problem+json": {"schema": Problem.ref()}}}
        )
        known["description"] += ("; " if known["description"] else "") + f"`{cls.code}`: {cls.title}"
    return answers


def problem_response(error: AppError, *, request_id: str | None = None) -> Response:
    """The problem+json answer of an error."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(
        problem(error, request_id=request_id).model_dump_json(),
        status_code=error.status,
        media_type="application/problem+json",
        headers=headers,
    )


def problem(error: AppError, *, request_id: str | None = None) -> Problem:
    """What an error tells."""
    return Problem(
        type=f"{ERRORS_URL}#{error.code}",
        title=error.title,
        status=error.status.value,
        code=error.code,
        message=error.message,
        details=error.details,
        request_id=request_id or current_request_id() or "",
    )


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of `app` as problem+json; log 4xx at info, 5xx with its traceback, an expected 503 without."""
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def internal_error_response(error: Exception) -> Response:
    """Log what nobody caught, and answer 500 without a word of the inside."""
    return problem_response(logged(error))


def logged(error: Exception) -> AppError:
    """Log an error that is about to be told, and the error to tell: itself, or Internal for what nobody caught."""
    if not isinstance(error, AppError):
        logger.opt(exception=error).error("request failed")
        return Internal("Something went wrong on our side. Give the request id when you report it.")
    if isinstance(error, Unavailable) and error.__cause__ is None:  # nothing broke: we had rather not
        logger.bind(code=error.code, status=error.status.value).warning("request refused")
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.opt(exception=error).bind(code=error.code).error("request failed")
    else:
        logger.bind(code=error.code, status=error.status.value).info("request refused")
    return error


async def _on_app_error(_: Request, error: Exception) -> Response:
    return problem_response(logged(error))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  what the handler is registered for
    first = error.errors()[0] if error.errors() else {}
    if first.get("type") == "json_invalid":
        malformed = MalformedJson(f"The body is not JSON: {first.get('ctx', {}).get('error', '')}")
        return await _on_app_error(request, malformed)
    if first.get("type") == "model_attributes_type" and first["loc"] == ("body",) and not _says_json(request):
        return await _on_app_error(request, UnsupportedContent("Send the body as Content-Type: application/json."))
    # pydantic's `input` is left out: it may hold a secret or a member's data
    details = [
        ProblemDetail(field=".".join(str(part) for part in e["loc"]), issue=_issue(e), code=e["type"])
        for e in error.errors()
    ]
    return await _on_app_error(request, ValidationFailed("Correct the fields named in details.", details=details))


def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _issue(error: Mapping[str, Any]) -> str:
    """What is wrong, in the words of JSON where pydantic has those of Python."""
    said = _IN_JSON.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    return _OF_A_SECRET.sub(" characters", said) if said.startswith("Value should have") else said


_OF_A_SECRET: Final = re.compile(" items? after validation")  # its text is none to pydantic

_IN_JSON: Final = {
    "model_attributes_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "set_type": "Input should be an array",
    "frozen_set_type": "Input should be an array",
    "list_type": "Input should be an array",
}


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  what the handler is registered for
    by_status: dict[int, type[AppError]] = {cls.status.value: cls for cls in AppError.__subclasses__()}
    cls = by_status.get(error.status_code, Internal if error.status_code >= 500 else BadRequest)
    if error.status_code == HTTPStatus.BAD_REQUEST and isinstance(error.__cause__, UnicodeDecodeError):
        return await _on_app_error(_, MalformedJson("The body is not UTF-8."))
    if error.status_code == HTTPStatus.BAD_REQUEST and isinstance(error.__cause__, RecursionError | ValueError):
        return await _on_app_error(_, MalformedJson("The body is nested too deep, or has a number that is too long."))
    ours = cls(_NO_ROUTE if cls is NotFound else str(error.detail))
    ours.headers = dict(error.headers or {}) | dict(cls.headers)  # type: ignore[misc]  # of this answer: Allow, on a 405
    return await _on_app_error(_, ours)


_NO_ROUTE = "No route has this path. See /docs for those there are."


class MalformedJson(Unprocessable):
    """The body is not JSON."""


def problem_of(body: bytes) -> Problem | None:
    """The problem in an answer's body; None when it is none of ours."""
    try:
        return Problem.model_validate(json.loads(body))
    except ValueError:
        return None
