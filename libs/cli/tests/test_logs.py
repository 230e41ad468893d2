"""Log lines for people."""

import json

from triton_cli.logs import readable


def test_a_json_line_becomes_a_sentence_with_its_fields():
    entry = {
        "time": "2026-11-22T15:44:45.686+00:00",
        "level": "warning",
        "service": "jobs-service",
        "message": "job failed",
        "job_id": "0198",
    }
    assert readable(json.dumps(entry)) == "15:44:45.686 WARNING job failed job_id=0198"


def test_a_traceback_in_a_line_is_shown_in_lines():
    text = readable(json.dumps({"message": "Traceback\n  File x\nRuntimeError: y"}))
    assert text.splitlines()[-1].startswith("RuntimeError: y")


def test_what_is_no_json_object_stays_as_it_is():
    assert readable('LOG:  ready\n[1]\n{"a": 1}') == 'LOG:  ready\n[1]\n{"a": 1}'
