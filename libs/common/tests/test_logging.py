"""Log lines: one JSON object each, whoever writes them, and nothing in them that must not be."""

import json
import logging

import pytest
from loguru import logger

from triton_common.logging import configure_logging, log_context, log_line
from triton_common.settings import CommonSettings


@pytest.fixture
def lines(capsys):
    """What was logged since the last call, parsed."""
    configure_logging(CommonSettings(), service="widget-service")
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_fields_of_the_context_are_on_every_line(lines):
    with log_context(request_id="r", job_id="j"), log_context(task_name="t"):
        logger.bind(rows=3).info("batch stored")
    logger.info("outside")
    inside, outside = lines()
    assert inside | {"request_id": "r", "job_id": "j", "task_name": "t", "rows": 3} == inside
    assert (inside["message"], inside["level"], inside["service"]) == ("batch stored", "info", "widget-service")
    assert not {"request_id", "job_id"} & outside.keys()


def test_standard_logging_is_routed_in(lines):
    logging.getLogger("somebody.else").warning("disk %s is {full}", "C:")
    [line] = lines()
    assert (line["message"], line["logger"], line["level"]) == ("disk C: is {full}", "somebody.else", "warning")


def test_unusual_level_and_exception_of_standard_logging(lines):
    try:
        {}["canary"]
    except KeyError:
        logging.getLogger("x").log(25, "odd", exc_info=True)
    [line] = lines()
    assert line["message"] == "odd"
    assert line["exception"].endswith("builtins.KeyError")


def test_traceback_shows_where_but_no_value(lines):
    ssn = "canary-999-17-5017"
    try:
        try:
            int(ssn)
        except ValueError as error:
            raise RuntimeError(ssn) from error
    except RuntimeError:
        logger.exception("row refused")
    [line] = lines()
    assert "in test_traceback_shows_where_but_no_value" in line["exception"]
    assert "builtins.RuntimeError (from builtins.ValueError)" in line["exception"]
    assert "canary" not in json.dumps(line)


def test_braces_newlines_and_strange_values_keep_one_line(lines):
    logger.bind(text="{a}\n<red>", thing=object(), data=b"\xff").info("strange {values}")
    [line] = lines()
    assert line["text"] == "{a}\n<red>"
    assert line["message"] == "strange {values}"


def test_pretty_lines_are_for_people(capsys):
    configure_logging(CommonSettings(log_format="pretty"), service="widget-service")
    logger.bind(rows=3).info("batch stored")
    out = capsys.readouterr().out
    assert "batch stored" in out
    assert "rows=3" in out
    assert not out.startswith("{")


def test_pretty_traceback_shows_no_value_either(capsys):
    configure_logging(CommonSettings(log_format="pretty"), service="widget-service")
    try:
        int("canary-999-17-5017")
    except ValueError:
        logger.exception("row refused")
    out = capsys.readouterr().out
    assert "in test_pretty_traceback_shows_no_value_either" in out
    assert "canary" not in out


def test_level_is_heeded(capsys):
    configure_logging(CommonSettings(log_level="WARNING"), service="widget-service")
    logger.info("quiet")
    logging.getLogger("x").info("quiet too")
    assert capsys.readouterr().out == ""


def test_line_of_a_request_is_as_logurus(lines):
    with log_context(request_id="r"):
        logger.bind(status=200, route="/x").info("request served")
        log_line("INFO", "request served", {"status": 200, "route": "/x"})
    logurus, ours = lines()
    assert list(ours) == list(logurus)
    assert ours | {"time": ""} == logurus | {"time": ""}
    assert len(ours["time"]) == len(logurus["time"])


@pytest.mark.parametrize(("level", "seen"), [("DEBUG", 2), ("INFO", 1), ("WARNING", 0)])
@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_line_of_a_request_heeds_the_level(capsys, level, seen, log_format):
    configure_logging(CommonSettings(log_level=level, log_format=log_format), service="widget-service")
    log_line("DEBUG", "request served", {"status": 200})
    log_line("INFO", "request served", {"status": 200})
    assert len(capsys.readouterr().out.splitlines()) == seen
