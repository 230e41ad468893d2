"""Compares dashboards, alert rules and their docs with what the services expose, and with one another.

Names of metrics of ours (triton_*, http_*, celery_*) in queries and in docs/MONITORING.md must be in the registry that
all members fill when they are imported, or in the query that Prometheus asks ClickHouse.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml
from documented import PACKAGES, import_all
from prometheus_client import REGISTRY

OURS = re.compile(r"\b((?:triton|http|celery)_[a-z_]+)")
SUFFIX = re.compile(r"_(bucket|sum|count)$")
MONITORING = Path("docs/MONITORING.md")
RUNBOOK = Path("docs/RUNBOOK.md")
PROMETHEUS = Path("infra/prometheus")


def exposed() -> set[str]:
    """The names of all metrics of ours, counters with their _total."""
    scraped = set(OURS.findall((PROMETHEUS / "prometheus.yml").read_text()))
    families = [family for family in REGISTRY.collect() if OURS.fullmatch(family.name)]
    return scraped | {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def dashboards() -> Iterable[tuple[str, dict[str, object]]]:
    """(title, panel) of each panel."""
    for file in sorted(Path("infra/grafana/dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            yield board["title"].removeprefix("Triton: "), panel


def rules() -> Iterable[dict[str, str]]:
    """Each alert rule."""
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


def faults() -> Iterable[str]:
    """What does not fit."""
    known = exposed()
    told = MONITORING.read_text()
    queries = [(f"panel {title} / {panel['title']}", str(panel["targets"])) for title, panel in dashboards()]
    queries += [(f"alert {rule['alert']}", rule["expr"]) for rule in rules()]
    for where, query in queries:
        for name in {SUFFIX.sub("", name) for name in OURS.findall(query)} - known:
            yield f"{where} asks for {name}, which nothing exposes"
    documented = set(re.findall(r"^\| `((?:triton|http|celery)_[a-z_]+)", told, re.MULTILINE))
    yield from (f"{MONITORING} lacks {name}" for name in sorted(known - documented))
    yield from (f"{MONITORING} explains {name}, which nothing exposes" for name in sorted(documented - known))

    sections = dict(re.findall(r"^### (.+)\n((?:(?!^#).*\n)*)", told, re.MULTILINE))
    shown: dict[str, set[str]] = {}
    for title, panel in dashboards():
        shown.setdefault(title, set()).add(str(panel["title"]))
    for title, panels in shown.items():
        listed = set(re.findall(r"^\| (.+?) \|", sections.get(title, ""), re.MULTILINE)) - {"panel", "---"}
        yield from (f"{MONITORING} lacks the panel {title} / {panel}" for panel in sorted(panels - listed))
        yield from (f"{MONITORING} has {title} / {panel}, which is no panel" for panel in sorted(listed - panels))

    entries = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE))
    alerts = {rule["alert"] for rule in rules()}
    yield from (f"{RUNBOOK} lacks {name}" for name in sorted(alerts - entries))
    yield from (f"{RUNBOOK} has {name}, which is no alert" for name in sorted(entries - alerts))
    tried = (PROMETHEUS / "alerts_test.yml").read_text()
    yield from (f"no test of {name} in alerts_test.yml" for name in sorted(alerts) if f"{name}\n" not in tried)


if __name__ == "__main__":
    for package in PACKAGES:
        import_all(package)
    sys.exit("\n".join(faults()) or None)
