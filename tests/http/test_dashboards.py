"""The dashboard and the alerts: each metric and label in them is one that a running service has."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from callers import FORBIDDEN
from programs import needs, program
from prometheus_client.parser import text_string_to_metric_families
from promql import used_by
from running import Server, refusal, running

from leasehold.http.endpoints import ROUTES

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "dashboards/leasehold.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
ADDED_BY_PROMETHEUS = {"up": {"job", "instance"}}
"""https://prometheus.io/docs/concepts/jobs_instances"""
TARGET_LABELS = {"job", "instance"}
"""Prometheus adds them to each series."""


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def plain(expression: str) -> str:
    """The expression with values for the variables of Grafana."""
    shown = expression.replace("$__rate_interval", "5m").replace("$job", "leasehold").replace("$instance", ".*")
    assert "$" not in shown
    return shown


EXPRESSIONS = {f"dashboard: {panel['title']}": plain(t["expr"]) for panel in panels() for t in panel["targets"]} | {
    f"alert: {rule['alert']}": rule["expr"] for rule in RULES
}
VARIABLES = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The series of a service that has done something: the labels of each, by its name."""
    with running(tmp_path_factory.mktemp("store") / "data.json") as server, running() as in_memory:
        shown = shown_by(use(server))
        for name, labels in shown_by(use(in_memory)).items():
            shown.setdefault(name, set()).update(labels)
        yield shown


def use(server: Server) -> str:
    """Read, write and be refused. Returns the metrics."""
    server.put("a", "1")
    server.get("a")
    refused = server.put("a", "1", headers={"Origin": "http://elsewhere.example"})
    assert refusal(refused) == FORBIDDEN
    return server.request("GET", "/metrics").text


def shown_by(text: str) -> dict[str, set[str]]:
    shown: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            shown.setdefault(sample.name, set()).update(sample.labels)
    return shown


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_uses_only_what_a_running_service_has(name: str, metrics: dict[str, set[str]]) -> None:
    known = metrics | ADDED_BY_PROMETHEUS
    used = used_by(EXPRESSIONS[name])
    assert used.labels != {}
    for metric, labels in used.labels.items():
        assert metric in known, metric
        assert labels <= known[metric] | TARGET_LABELS, metric


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_selects_routes_that_exist(name: str) -> None:
    patterns = {route.pattern for route in ROUTES}
    for label, operator, value in used_by(EXPRESSIONS[name]).matchers:
        if label == "http_route":
            assert (operator, value in patterns) == ("=", True), value


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_legend_names_labels_that_the_expression_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        (labels,) = [*used_by(plain(target["expr"])).labels.values()][:1]
        assert named <= labels


def test_the_variables_of_the_dashboard_are_of_a_metric_of_the_service(metrics: dict[str, set[str]]) -> None:
    asked = [re.fullmatch(r"label_values\((.+), (job|instance)\)", query) for query in VARIABLES]
    assert [found is not None and {*used_by(plain(found[1])).labels} <= metrics.keys() for found in asked] == [True] * 2


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert (taken & cells, max(x for x, _ in cells) < 24) == (set(), True), panel["title"]
        taken |= cells
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels())
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_metric_and_label_of_the_service_is_explained(metrics: dict[str, set[str]]) -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs/observability.md").read_text(), re.MULTILINE))
    explained = {name for name in rows if name.startswith(("leasehold_", "http_server_"))}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics}
    labels = {label for names in metrics.values() for label in names} - {"le"}
    assert (explained, rows - explained) == (families, labels)


def test_every_alert_is_explained() -> None:
    page = (ROOT / "docs/observability.md").read_text()
    assert [rule["alert"] for rule in RULES if f"| `{rule['alert']}` |" not in page] == []


# What Prometheus itself says ------------------------------------------------------------------------------------


def promtool(*arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    command = [str(program("promtool")), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


@needs("promtool")
def test_prometheus_accepts_the_alerts() -> None:
    checked = promtool("check", "rules", str(ROOT / "alerts.yaml"))
    assert (checked.returncode, f"{len(RULES)} rules found" in checked.stdout) == (0, True), checked.stderr


@needs("promtool")
def test_prometheus_accepts_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"r{number}", "expr": text} for number, text in enumerate(EXPRESSIONS.values())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", str(file))
    assert checked.returncode == 0, checked.stderr + checked.stdout


@needs("promtool")
def test_prometheus_finds_no_fault_in_the_metrics(tmp_path: Path) -> None:
    with running(tmp_path / "data.json") as server:
        checked = promtool("check", "metrics", text=use(server))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


COUNT = "http_server_request_duration_seconds_count"
BUCKET = "http_server_request_duration_seconds_bucket"
OWN = 'job="leasehold", instance="a:8080"'
WRITES = f'{OWN}, http_request_method="PUT", http_route="/kv/{{key}}"'
FIRING: dict[str, dict[str, str]] = {
    "LeaseholdDown": {f"up{{{OWN}}}": "0x60"},
    "LeaseholdDegraded": {f"leasehold_degraded{{{OWN}}}": "1x60"},
    "LeaseholdStorageFull": {f"leasehold_storage_full_refusals_total{{{OWN}}}": "0+1x60"},
    "LeaseholdErrors": {
        f'{COUNT}{{{OWN}, http_response_status_code="503", error_type="503"}}': "0+2x60",
        f'{COUNT}{{{OWN}, http_response_status_code="200"}}': "0+98x60",
    },
    "LeaseholdSlowWrites": {
        f'{BUCKET}{{{WRITES}, le="0.25"}}': "0+98x60",
        f'{BUCKET}{{{WRITES}, le="0.5"}}': "0+100x60",
        f'{BUCKET}{{{WRITES}, le="+Inf"}}': "0+100x60",
    },
    "LeaseholdWritesWait": {f"leasehold_waiting_operations{{{OWN}}}": "1001x60"},
    "LeaseholdConnectionsNearLimit": {
        f"leasehold_connections{{{OWN}}}": "8001x60",
        f"leasehold_max_connections{{{OWN}}}": "10000x60",
    },
    "LeaseholdFencedWritesRefused": {f"leasehold_fenced_writes_refused_total{{{OWN}}}": "0+1x60"},
    "LeaseholdLockContention": {f"leasehold_waiters{{{OWN}}}": "101x60"},
    "LeaseholdWatchLag": {f"leasehold_watch_lag_revisions{{{OWN}}}": "10001x60"},
    "LeaseholdCallersRefused": {f'{COUNT}{{{OWN}, http_response_status_code="401"}}': "0+61x60"},
}
"""For each alert, series that make it fire. A series is a value for each minute."""
CALM: dict[str, dict[str, str]] = {
    "LeaseholdDown": {f"up{{{OWN}}}": "1x60"},
    "LeaseholdDegraded": {f"leasehold_degraded{{{OWN}}}": "0x60"},
    "LeaseholdStorageFull": {f"leasehold_storage_full_refusals_total{{{OWN}}}": "5x60"},
    "LeaseholdErrors": {
        f'{COUNT}{{{OWN}, http_response_status_code="503", error_type="503"}}': "0+1x60",
        f'{COUNT}{{{OWN}, http_response_status_code="404"}}': "0+100x60",
    },
    "LeaseholdSlowWrites": {
        f'{BUCKET}{{{WRITES}, le="0.25"}}': "0+100x60",
        f'{BUCKET}{{{WRITES}, le="0.5"}}': "0+100x60",
        f'{BUCKET}{{{WRITES}, le="+Inf"}}': "0+100x60",
    },
    "LeaseholdWritesWait": {f"leasehold_waiting_operations{{{OWN}}}": "1000x60"},
    "LeaseholdConnectionsNearLimit": {
        f"leasehold_connections{{{OWN}}}": "8000x60",
        f"leasehold_max_connections{{{OWN}}}": "10000x60",
    },
    "LeaseholdFencedWritesRefused": {f"leasehold_fenced_writes_refused_total{{{OWN}}}": "7x60"},
    "LeaseholdLockContention": {f"leasehold_waiters{{{OWN}}}": "100x60"},
    "LeaseholdWatchLag": {f"leasehold_watch_lag_revisions{{{OWN}}}": "10000x60"},
    "LeaseholdCallersRefused": {f'{COUNT}{{{OWN}, http_response_status_code="401"}}': "0+59x60"},
}
"""For each alert, series of the same metrics that are just within bounds."""


def test_every_alert_has_series_that_make_it_fire() -> None:
    names = [rule["alert"] for rule in RULES]
    assert ([*FIRING], [*CALM]) == (names, names)


@needs("promtool")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_fires_when_it_should_and_only_then(rule: dict[str, Any], tmp_path: Path) -> None:
    told = alerts_of(rule, FIRING[rule["alert"]], tmp_path)
    assert f"alertname: {rule['alert']}" in told or f'alertname="{rule["alert"]}"' in told, told
    assert alerts_of(rule, CALM[rule["alert"]], tmp_path) == ""


def alerts_of(rule: dict[str, Any], series: dict[str, str], folder: Path) -> str:
    """What promtool reports about the alert after half an hour, when none is expected; empty if there is none."""
    file = folder / "test.yaml"
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "30m", "alertname": rule["alert"], "exp_alerts": []}],
    }
    file.write_text(yaml.safe_dump({"rule_files": [str(ROOT / "alerts.yaml")], "tests": [test]}))
    tested = promtool("test", "rules", str(file))
    return "" if tested.returncode == 0 else tested.stdout + tested.stderr
