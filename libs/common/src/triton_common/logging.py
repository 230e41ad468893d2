"""loguru for everything: one JSON line an event on stdout, standard logging routed in, the same fields everywhere."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from loguru import logger
from opentelemetry import trace
from pydantic_core import to_json

from triton_common.settings import CommonSettings

if TYPE_CHECKING:
    from loguru import Record

_context: ContextVar[dict[str, str]] = ContextVar("log_context", default={})  # noqa: B039  never changed in place

_LEVELS: Final = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


@dataclass
class _Chosen:
    """What configure_logging was told, for the lines that do not pass through loguru."""

    service: str = ""
    level: int = _LEVELS["INFO"]
    json: bool = False


_chosen = _Chosen()

_PRETTY = (
    "<green>{time:HH:mm:ss.SSS}</green> <level>{level: <8}</level> <cyan>{extra[service]}</cyan> {message} "
    "<dim>{extra[line]}</dim>\n"
)


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Put fields (request_id, job_id, task_name) on every line logged inside, in this task or thread."""
    token = _context.set(_context.get() | fields)
    try:
        yield
    finally:
        _context.reset(token)


def current_request_id() -> str | None:
    """The id of the request being served; None outside one."""
    return _context.get().get("request_id")


def configure_logging(settings: CommonSettings, *, service: str) -> None:
    """Send everything that logs to stdout, in the format and from the level of the settings."""
    json_lines = settings.log_format == "json"
    _chosen.service, _chosen.level, _chosen.json = service, _LEVELS[settings.log_level], json_lines
    logger.remove()
    logger.configure(extra={"service": service}, patcher=_add_json if json_lines else _add_fields)
    # diagnose prints the values of variables in tracebacks: a member's data, a password; enqueue deadlocks after a fork
    logger.add(
        _write,
        level=settings.log_level,
        # a function: to a plain string loguru would add the exception's text, which may quote a member's data
        format=(lambda _: "{extra[json]}\n") if json_lines else (lambda _: _PRETTY),
        colorize=not json_lines and sys.stdout.isatty(),
        backtrace=False,
        diagnose=False,
        enqueue=False,
    )
    logging.root.handlers = [_ToLoguru()]
    logging.root.setLevel(settings.log_level if settings.log_level != "TRACE" else "DEBUG")
    for name in list(logging.root.manager.loggerDict):
        known = logging.getLogger(name)
        known.handlers = []
        known.propagate = True
    # one line a request is ours; theirs would double it and print paths with ids
    for noisy in ("uvicorn.access", "httpx2", "httpcore2", "httpx", "httpcore", "botocore", "sse_starlette"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def log_line(level: Literal["DEBUG", "INFO"], message: str, fields: dict[str, Any]) -> None:
    """A line that each request or job has: as loguru's would be, at a sixth of its cost (docs/adr/013)."""
    if not _chosen.json:
        logger.bind(**fields).log(level, message)
    elif _LEVELS[level] >= _chosen.level:
        line = _json_line(datetime.now(UTC), level, message, fields, service=_chosen.service)
        _write(f"{line}\n")


def _write(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


class _ToLoguru(logging.Handler):
    """Hands records of standard logging to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level: str | int = record.levelname if record.levelname in logging.getLevelNamesMapping() else record.levelno
        # without arguments loguru leaves braces alone
        logger.bind(logger=record.name).opt(exception=record.exc_info).log(level, record.getMessage())


def _own_fields(record: "Record") -> dict[str, Any]:
    return {name: value for name, value in record["extra"].items() if name not in ("service", "json", "line")}


def _in_context(fields: dict[str, Any]) -> dict[str, Any]:
    fields = _context.get() | fields
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        fields["trace_id"] = trace.format_trace_id(span.trace_id)
    return fields


def _add_fields(record: "Record") -> None:
    fields = _in_context(_own_fields(record))
    record["extra"]["line"] = " ".join(f"{key}={value}" for key, value in fields.items())
    if (exception := record["exception"]) is not None:
        record["extra"]["line"] += f"\n{_traceback(exception)}"


def _add_json(record: "Record") -> None:
    record["extra"]["json"] = _json_line(
        record["time"],
        record["level"].name,
        record["message"],
        _own_fields(record),
        service=record["extra"].get("service", ""),
        exception=record["exception"],
    )


def _json_line(
    time: datetime, level: str, message: str, fields: dict[str, Any], *, service: str, exception: Any = None
) -> str:
    line: dict[str, Any] = {
        "time": time.astimezone().isoformat(timespec="milliseconds"),
        "level": level.lower(),
        "service": service,
        "message": message,
    }
    line |= _in_context(fields)
    if exception is not None:
        line["exception"] = _traceback(exception)
    return to_json(line, fallback=str, bytes_mode="hex").decode()


def _traceback(exception: Any) -> str:
    """File, line and function of each frame, and the error's type. Not its text, which may quote a member's data."""
    frames: list[str] = []
    trace_back = exception.traceback
    while trace_back is not None:
        code = trace_back.tb_frame.f_code
        frames.append(f'File "{code.co_filename}", line {trace_back.tb_lineno}, in {code.co_qualname}')
        trace_back = trace_back.tb_next
    kind = exception.type
    name = f"{kind.__module__}.{kind.__qualname__}" if kind is not None else "unknown"
    cause = getattr(exception.value, "__cause__", None) or getattr(exception.value, "__context__", None)
    because = f" (from {type(cause).__module__}.{type(cause).__qualname__})" if cause is not None else ""
    return "\n".join([*frames, f"{name}{because}"])
